//! A network without processes: documents and database as a coordinator has them, hospitals as keys and logs in memory.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng, rngs::StdRng};
use sekisho_aggregation::{plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    digest::Digest,
    dsse::{Document, Envelope},
    keys::SecretKey,
    log::{
        checkpoint::{SignedCheckpoint, origin},
        cosignature::Continued,
        entry::Kind as Entry,
        note::{KeyName, NoteKey, Signs},
    },
    orders::Regulator,
    output_review::{OutputReview, Verdict},
    permit::{AllowedQuery, OutputReview as Rule, Permit, Preset, ReleaseKind},
    query::{Query, Terms},
    receipt::{Acceptance, DecidedBy, Receipt},
    roster::{Member, Role, Roster},
    schema::Schema,
    units::{AttoDelta, MicroRho},
};

use super::{
    super::{
        Bundle, Ended, make,
        trust::{self, Trust},
    },
    OTHER_SQL,
    memory_log::MemoryLog,
};
use crate::{
    config::Trust as Pinned,
    documents::{
        Documents,
        tests::{now, permit, release_of, roster, schema, status},
    },
    network::holder,
    report::{HolderState, ResultReport},
    result,
    store::{KeptResult, NewRound, Store},
};

pub(crate) const SQL: &str = "SELECT sex, count(*) AS n FROM person GROUP BY sex ORDER BY n DESC";

/// A key that is the same in each run of the tests.
pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::generate(&mut StdRng::from_seed(*Digest::of(name.as_bytes()).as_bytes()))
}

/// What kind of network.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shape {
    pub hospitals: usize,
    /// The last of them does not answer.
    pub missing: bool,
    pub two_person: bool,
    /// Roster, governance key and committee have a history.
    pub history: bool,
    /// The permit lists [`SQL`] as aggregated, and `OTHER_SQL` as noised; the first hospital hides the first row.
    pub exact: bool,
}

pub(crate) struct Net {
    _dir: tempfile::TempDir,
    pub shape: Shape,
    pub store: Store,
    pub documents: Documents,
    pub names: Vec<String>,
    logs: BTreeMap<String, MemoryLog>,
    pub permit: Permit,
    schema: Schema,
    roster: Roster,
    rounds: u32,
    /// Rounds end without an account, as they did before there were any.
    pub unstated: bool,
}

fn member(n: usize, name: &str) -> CommitteeMember {
    let role = if n == 0 { "ethics" } else { "statistics" };
    CommitteeMember { name: name.into(), role: role.into(), key: key(name).public() }
}

pub(crate) fn signed<D: Document>(document: &D, by: &[&str]) -> Envelope {
    let keys: Vec<SecretKey> = by.iter().map(|name| key(name)).collect();
    Envelope::sign(document, &keys.iter().collect::<Vec<_>>()).unwrap()
}

impl Net {
    pub(crate) async fn new(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let members = ["sato", "ito", "mori"].iter().enumerate().map(|(n, name)| member(n, name)).collect();
        let pinned = Pinned {
            governance: key("governance").public(),
            committee: Committee::pinned(2, vec!["ethics".into()], false, members).unwrap(),
            regulators: vec![Regulator { name: "regulator".into(), key: key("inspector").public() }],
            application_required: false,
        };
        let documents = Documents::open(store.clone(), pinned).await.unwrap();
        let names: Vec<String> = (0..shape.hospitals).map(|i| format!("hospital-{i}")).collect();
        let mut net = Self {
            _dir: dir,
            shape,
            store,
            documents,
            logs: names.iter().map(|name| (name.clone(), MemoryLog::default())).collect(),
            roster: roster(1, None),
            permit: permit(&key("ada"), 1, Digest::of(b"unknown yet")),
            schema: schema(),
            names,
            rounds: 0,
            unstated: false,
        };
        net.hand_in().await;
        net
    }

    async fn put(&self, envelope: &Envelope) -> Digest {
        self.documents.put(&envelope.to_json(), now()).await.unwrap().digest
    }

    async fn hand_in(&mut self) {
        let hospitals = self.names.iter().map(|name| (name.as_str(), Role::Node));
        let member = |(name, role): (&str, Role)| Member {
            name: name.into(),
            role,
            peer_id: format!("peer-{name}"),
            signing_key: key(name).public(),
        };
        self.roster.members = hospitals.chain([("coordinator", Role::Coordinator)]).map(member).collect();
        self.put(&signed(&self.roster, &["governance"])).await;
        self.put(&signed(&status(1, None, Vec::new()), &["governance"])).await;
        self.permit.schema = self.put(&signed(&self.schema, &["governance"])).await;
        self.permit.data[0].holder_nodes = self.names.clone();
        if self.shape.exact {
            let listed = |sql: &str, release| AllowedQuery { sha256: Digest::of(sql.as_bytes()), max_runs: 9, release };
            self.permit.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
            self.permit.disclosure = Preset::Opensafely;
            self.permit.allowed_queries =
                Some(vec![listed(SQL, ReleaseKind::Aggregated), listed(OTHER_SQL, ReleaseKind::Noised)]);
        }
        if self.shape.two_person {
            self.permit.output_review = Rule::TwoPerson;
        }
        let permit = self.put(&signed(&self.permit, &["sato", "ito"])).await;
        for name in &self.names {
            let answer = Acceptance {
                node: name.clone(),
                permit,
                refused: None,
                earmark: MicroRho::try_from(10_000).unwrap(),
                at: now(),
                reason: None,
                decided_by: DecidedBy::Policy,
            };
            let answer = signed(&answer, &[name]).to_json();
            self.store.put_acceptance(name, permit, &answer, now()).await.unwrap();
        }
        if self.shape.history {
            self.history().await;
        }
    }

    /// What comes later: another governance key, another committee, another roster.
    async fn history(&self) {
        let rotation = sekisho_protocol::governance::Governance {
            seq: 1,
            prev: None,
            new_key: key("governance-2").public(),
            issued: now(),
            reason: "a year has passed".into(),
        };
        self.put(&signed(&rotation, &["governance", "governance-2"])).await;
        let members = ["ito", "mori", "kato"].iter().enumerate().map(|(n, name)| member(n, name)).collect();
        let next = Committee {
            seq: 1,
            prev: None,
            issued: Some(now()),
            reason: "a term ended".into(),
            needed: 2,
            required_roles: Vec::new(),
            distinct_roles: false,
            members,
        };
        self.put(&signed(&next, &["sato", "ito"])).await;
        let (_, before) = signed(&self.roster, &["governance"]).peek::<Roster>().unwrap();
        let next = Roster { seq: 2, prev: Some(before), ..self.roster.clone() };
        self.put(&signed(&next, &["governance-2"])).await;
    }

    /// The permit with the signatures of others, handed in again; its envelope.
    pub(super) async fn permit_signed_anew(&self, by: &[&str]) -> Vec<u8> {
        let envelope = signed(&self.permit, by);
        self.put(&envelope).await;
        envelope.to_json()
    }

    /// A permit of another study, for another person.
    pub(super) async fn permit_of(&self, person: &str) {
        let mut permit = permit(&key(person), 1, self.permit.schema);
        (permit.id, permit.study_id) = ("permit-2".into(), "study-2".into());
        permit.data[0].holder_nodes.clone_from(&self.names);
        self.put(&signed(&permit, &["sato", "ito"])).await;
    }

    pub(crate) fn origin(&self, name: &str) -> KeyName {
        origin(&key("governance").public(), name).unwrap()
    }

    pub(crate) fn query(&self, sql: &str, run: u32) -> Envelope {
        let query = Query {
            permit: Digest::of(&serde_json::to_vec(&self.permit).unwrap()),
            sql: sql.into(),
            holders: self.names.clone(),
            micro_rho: MicroRho::try_from(if self.permit.release_of(sql).is_noised() { 1000 } else { 0 }).unwrap(),
            run,
            expires: now() + chrono::Duration::hours(1),
            nonce: "0".repeat(32),
            terms: Terms::default(),
        };
        signed(&query, &["ada"])
    }

    fn release(&self, plan: &PrivatePlan, query: &Query, name: &str) -> Release {
        let nonce = Digest::of(format!("{name} {} {}", query.sql, query.run).as_bytes()).to_string();
        let own = i128::from(Digest::of(nonce.as_bytes()).as_bytes()[0]);
        let hides = |cell| plan.exact().is_some() && cell == 0 && name == self.names[0];
        let unit = plan.exact().map_or(1, |rules| rules.rounding.into());
        let number = |cell| if hides(cell) { 0 } else { 100 * (cell + 1) + own / unit * unit };
        release_of(plan, query, nonce, (0..plan.cells() as i128).map(number))
    }

    /// One hospital's answer: release, receipt and proof are on disk afterwards.
    async fn answer(
        &mut self,
        round: &str,
        plan: &PrivatePlan,
        query: &Query,
        digest: Digest,
        name: &str,
    ) -> (Release, Envelope) {
        let release = self.release(plan, query, name);
        let receipt = Receipt {
            node: name.into(),
            permit: query.permit,
            study_id: self.permit.study_id.clone(),
            query: digest,
            query_key: query.key(),
            run: query.run,
            plan: plan.digest(),
            micro_rho: plan.micro_rho(),
            atto_delta: AttoDelta::ZERO,
            synthetic: true,
            snapshot_commitment: Digest::of(b"snapshot"),
            register_commitment: Digest::of(b"register"),
            as_of: now().date_naive(),
            release: release.digest(),
            software: "sekisho-node 0.0.0".into(),
            at: now(),
            release_kind: self.permit.release_of(&query.sql),
            exact_since: (!self.permit.release_of(&query.sql).is_noised()).then(|| now().date_naive()),
        };
        let receipt = signed(&receipt, &[name]);
        let (origin, log) = (self.origin(name), self.logs.get_mut(name).unwrap());
        log.enter(Entry::Reservation, format!("{round} {name}").as_bytes());
        log.enter(Entry::Receipt, &receipt.to_json());
        let checkpoint = log.signed(&origin, &key(name));
        let proof = log.proof(Entry::Receipt, &receipt.to_json(), checkpoint.clone()).to_string();
        self.store.enter_checkpoint(&checkpoint).await.unwrap();
        let (bytes, envelope) = (release.to_bytes(), receipt.to_json());
        self.store.put_release(round, name, &bytes, &envelope, proof.as_bytes()).await.unwrap();
        (release, receipt)
    }

    /// Asks, as a coordinator does; the result's digest.
    pub(crate) async fn ask(&mut self, sql: &str, run: u32) -> Digest {
        let envelope = self.query(sql, run);
        let (query, digest) = envelope.peek::<Query>().unwrap();
        self.rounds += 1;
        let round = format!("{:032x}", self.rounds);
        let begun = NewRound {
            round: round.clone(),
            query: digest,
            question: envelope.to_json(),
            query_key: query.key(),
            permit: query.permit,
            run,
            started: now(),
        };
        self.store.begin_round(&begun).await.unwrap();
        let plan = PrivatePlan::analyse_with(sql, &self.schema, &self.permit, query.micro_rho, &query.terms).unwrap();
        let (mut holders, mut releases) = (Vec::new(), Vec::new());
        for (n, name) in self.names.clone().into_iter().enumerate() {
            if self.shape.missing && n + 1 == self.names.len() {
                holders.push(holder(&name, HolderState::Offline));
                continue;
            }
            let (release, receipt) = self.answer(&round, &plan, &query, digest, &name).await;
            let mut report = holder(&name, HolderState::Answered);
            report.exact_since = receipt.peek::<Receipt>().unwrap().0.exact_since;
            (report.as_of, report.synthetic, report.receipt) = (Some(now().date_naive()), true, Some(receipt));
            holders.push(report);
            releases.push((name, release));
        }
        let report = ResultReport {
            round: round.clone(),
            permit: query.permit,
            query: digest,
            run,
            at: now(),
            complete: releases.len() == self.names.len(),
            confidence: 0.95,
            preset: plan.preset(),
            synthetic: true,
            method: result::method(&plan).into(),
            privacy: result::privacy(&plan, &self.permit),
            bites: Vec::new(),
            suppressed_cells: 0,
            holders,
        };
        let named: Vec<(&str, &Release)> = releases.iter().map(|(name, release)| (name.as_str(), release)).collect();
        let (report, batches) = result::tables(&plan, report, &named).await.unwrap();
        let text = serde_json::to_string(&report).unwrap();
        let digests: Vec<_> = releases.iter().map(|(name, release)| (name.clone(), release.digest())).collect();
        let ended = Ended {
            permit: query.permit,
            study_id: &self.permit.study_id,
            query: &query,
            query_digest: digest,
            report: &report,
            text: &text,
            batches: &batches,
            releases: &digests,
        };
        let stated = ended.stated(&key("coordinator")).unwrap().unwrap();
        let kept = (!self.unstated).then_some(&stated);
        self.store.end_round(&round, Some(&text), kept, now()).await.unwrap();
        if self.shape.two_person {
            let (result, permit, query_key) = (stated.result, query.permit, query.key());
            let held = KeptResult { result, permit, query_key, run, round, held_at: now() };
            self.store.hold(&held).await.unwrap();
        }
        stated.result
    }

    /// A reviewer's word on a result.
    pub(crate) async fn review(&self, result: Digest, reviewer: &str, verdict: Verdict) {
        let held = self.store.held(result).await.unwrap().unwrap();
        let review = OutputReview {
            permit: held.permit,
            query_key: held.query_key,
            run: held.run,
            result,
            reviewer: key(reviewer).public().fingerprint(),
            verdict,
            reasons: "large cells".into(),
            at: now(),
        };
        self.put(&signed(&review, &[reviewer])).await;
    }

    /// The coordinator's log as it is now, cosigned by these.
    pub(crate) async fn checkpoint(&self, by: &BTreeSet<String>) -> SignedCheckpoint {
        let origin = self.origin("coordinator");
        let mut signed = self.store.checkpoint(&origin, &key("coordinator")).await.unwrap();
        let own = NoteKey::new(origin, Signs::Text, key("coordinator").public());
        for name in by {
            let continued = Continued::check(None, signed.verify(&own).unwrap(), &[]).unwrap();
            signed.add(continued.cosign(self.origin(name), &key(name), now()).unwrap()).unwrap();
        }
        signed
    }

    /// The hospitals witness the log.
    pub(crate) async fn witness(&self) {
        let all = self.names.iter().cloned().collect();
        self.store.keep_own(&self.checkpoint(&all).await).await.unwrap();
    }

    pub(crate) async fn bundle(&self, result: Digest) -> Bundle {
        make(&self.documents, &self.store, result).await.unwrap()
    }

    pub(crate) fn template(&self) -> String {
        trust::template(&self.documents.trust().unwrap(), &self.roster).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::parse(&self.template(), |_| unreachable!()).unwrap()
    }
}
