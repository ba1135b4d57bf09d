//! Whatever is offered in whatever order, node and coordinator hold the highest valid document of each kind, and a restart
//! in between changes nothing.
//!
//! The oracle knows numbers, predecessors and who may sign; it was written from the rules in docs/protocol.md, and shares no
//! code with what it judges.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;
use sekisho_coordinator::{config::Trust, documents as coordinator, store::Store as CoordinatorStore};
use sekisho_node::{
    documents::{self as node, PermitAnswer},
    store::Store as NodeStore,
};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    digest::Digest,
    dsse::{Document, Envelope},
    governance::Governance,
    keys::SecretKey,
    orders::{Entry, Orders, Regulator, Target},
    permit::Permit,
    roster::Roster,
    schema::Schema,
    status::Status,
};
use serde_json::json;

static KEYS: LazyLock<Vec<SecretKey>> =
    LazyLock::new(|| (0..16).map(|_| SecretKey::generate(&mut rand::rng())).collect());
const REGULATOR: usize = 14;
const STRANGER: usize = 15;

/// The governance key number `n`, and the only member of committee number `n`.
fn governor(n: u64) -> usize {
    n as usize % 7
}
fn member(n: u64) -> usize {
    7 + n as usize % 7
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Roster,
    Status,
    Orders,
    Governance,
    Committee,
    Permit,
}

/// One offer: so many numbers above the newest (or below it), one of several rivals of that number.
#[derive(Clone, Debug)]
struct Offer {
    kind: Kind,
    step: i64,
    rival: u8,
    follows: bool,
    authorised: bool,
    restart: bool,
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    use Kind::*;
    let kind = prop::sample::select(vec![Roster, Status, Orders, Governance, Committee, Permit]);
    let offer =
        (kind, -2_i64..3, 0_u8..2, prop::bool::weighted(0.8), prop::bool::weighted(0.9), prop::bool::weighted(0.1));
    let offer = offer.prop_map(|(kind, step, rival, follows, authorised, restart)| Offer {
        kind,
        step,
        rival,
        follows,
        authorised,
        restart,
    });
    prop::collection::vec(offer, 1..40)
}

/// What each line holds, by the rules.
#[derive(Default)]
struct Oracle {
    newest: BTreeMap<Kind, (u64, Digest)>,
}

impl Oracle {
    fn seq(&self, kind: Kind) -> u64 {
        self.newest.get(&kind).map_or(0, |(seq, _)| *seq)
    }

    fn digest(&self, kind: Kind) -> Option<Digest> {
        self.newest.get(&kind).map(|(_, digest)| *digest)
    }

    /// Whether a document of this number, predecessor and digest counts from now on.
    fn takes(&mut self, kind: Kind, seq: u64, prev: Option<Digest>, digest: Digest, authorised: bool) {
        let chain = matches!(kind, Kind::Governance | Kind::Committee);
        let newest = self.seq(kind);
        let next = seq == newest + 1 && (newest == 0 || prev == self.digest(kind));
        // A version of a permit names a predecessor, or is the first.
        let named = kind != Kind::Permit || (seq == 1) == prev.is_none();
        // Of a version that was skipped nobody knows the digest; only that it is not that of the one before it.
        let unknown = kind != Kind::Permit || newest == 0 || prev != self.digest(kind);
        let skips = !chain && seq > newest + u64::from(newest > 0) && unknown;
        if authorised && seq > 0 && named && (next || skips) {
            self.newest.insert(kind, (seq, digest));
        }
    }
}

fn signed<D: Document>(document: &D, by: &[usize]) -> (Vec<u8>, Digest) {
    let keys: Vec<_> = by.iter().map(|n| &KEYS[*n]).collect();
    let envelope = Envelope::sign(document, &keys).unwrap();
    (envelope.to_json(), envelope.peek::<D>().unwrap().1)
}

fn first_committee(n: u64) -> Committee {
    let key = KEYS[member(n)].public();
    let member = CommitteeMember { name: format!("m-{n}"), role: "ethics".into(), key };
    Committee::pinned(1, Vec::new(), false, vec![member]).unwrap()
}

fn schema() -> Schema {
    let json = json!({"id": "s", "version": 1, "title": "", "tables": [{"name": "stay", "patient": "pid",
        "columns": [{"name": "pid", "type": "int64"}, {"name": "age", "type": "int64"}]}]});
    serde_json::from_value(json).unwrap()
}

fn permit(version: u64, supersedes: Option<Digest>, rival: u8) -> Permit {
    let key = KEYS[0].public();
    let json = json!({
        "id": "p", "version": version, "supersedes": supersedes, "basis": "JP-ethics", "issuer": format!("rival {rival}"),
        "decision": {"date": "2025-06-01", "reasons": "good"}, "purposes": ["scientific_research"], "data_user": "u",
        "principal_investigator": "x", "study_id": "study-1", "schema": signed(&schema(), &[governor(0)]).1,
        "authorised_persons": [{"id": "x", "role": "a", "key": key, "key_fingerprint": key.fingerprint()}],
        "data": [{"table": "stay", "columns": ["age"], "holder_nodes": ["tokyo"]}],
        "allowed_statistics": ["count"], "release_kinds": ["noised"], "disclosure": "jp-ndb",
        "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1,
            "micro_rho_per_query": 10, "micro_rho_total": 100, "delta_for_reports": "1e-6"},
        "optout": {"rule": "jp-ngmia", "days": 30},
        "validity": {"from": at(), "to": at() + Duration::days(1)},
    });
    serde_json::from_value(json).unwrap()
}

struct Parties {
    node: node::Documents,
    node_store: NodeStore,
    coordinator: coordinator::Documents,
    coordinator_store: CoordinatorStore,
}

impl Parties {
    async fn open(dir: &Path) -> Self {
        let regulators = vec![Regulator { name: "ministry".into(), key: KEYS[REGULATOR].public() }];
        let (governance, committee) = (KEYS[governor(0)].public(), first_committee(0));
        let node_store = NodeStore::open(&dir.join("node.db")).await.unwrap();
        let coordinator_store = CoordinatorStore::open(&dir.join("coordinator.db")).await.unwrap();
        let trust = Trust {
            governance,
            committee: committee.clone(),
            regulators: regulators.clone(),
            application_required: false,
        };
        Self {
            node: node::Documents::new(node_store.clone(), node::Anchors { governance, committee, regulators }),
            coordinator: coordinator::Documents::open(coordinator_store.clone(), trust).await.unwrap(),
            node_store,
            coordinator_store,
        }
    }

    async fn close(&self) {
        self.node_store.close().await;
        self.coordinator_store.close().await;
    }

    /// Hands the document to both; whether they took it is read from what they hold.
    async fn offer(&self, kind: Kind, bytes: &[u8]) {
        let _ = self.coordinator.put(bytes, at()).await;
        match kind {
            Kind::Roster => drop(self.node.offer_roster(bytes, at()).await),
            Kind::Status => drop(self.node.offer_status(bytes, at()).await),
            Kind::Orders => drop(self.node.offer_orders(bytes).await),
            Kind::Governance => drop(self.node.offer_governance(bytes).await),
            Kind::Committee => drop(self.node.offer_committee(bytes).await),
            Kind::Permit => {
                let status = Status {
                    seq: 1,
                    prev: None,
                    issued: at(),
                    expires: at(),
                    revoked_permits: Vec::new(),
                    permit_versions: Vec::new(),
                    suspended_studies: Vec::new(),
                    void_keys: Vec::new(),
                };
                if let Ok(permit) = self.node.believe_permit(bytes, &status).await {
                    let answer = PermitAnswer { acceptance: b"{}".to_vec(), refused: None, reason: None };
                    self.node.put_permit(&permit, bytes, &answer, at()).await.unwrap();
                }
            }
        }
    }

    /// The newest number of each kind that the node holds, and the coordinator.
    async fn held(&self) -> [BTreeMap<Kind, u64>; 2] {
        let seqs = self.node.seqs().await.unwrap();
        let version = self.node.permits().await.unwrap().iter().map(|p| u64::from(p.version)).max().unwrap_or(0);
        let node = BTreeMap::from([
            (Kind::Roster, seqs.roster),
            (Kind::Status, seqs.status),
            (Kind::Orders, seqs.orders[0].1),
            (Kind::Governance, seqs.governance),
            (Kind::Committee, seqs.committee),
            (Kind::Permit, version),
        ]);
        let current = self.coordinator.current();
        let chains = current.chains().unwrap();
        let want = sekisho_coordinator::report::Want::Permit { name: "p".into() };
        let newest = self.coordinator.get(&want).ok();
        let newest = newest.map(|bytes| Envelope::from_json::<Permit>(&bytes).unwrap().peek::<Permit>().unwrap().0);
        let coordinator = BTreeMap::from([
            (Kind::Roster, current.pinned_roster().map_or(0, |r| r.seq)),
            (Kind::Status, current.pinned_status().map_or(0, |s| s.seq)),
            (Kind::Orders, chains.orders().first().map_or(0, |o| o.seq)),
            (Kind::Governance, chains.rotations().last().map_or(0, |g| g.seq)),
            (Kind::Committee, current.committee().unwrap().seq),
            (Kind::Permit, newest.map_or(0, |p| u64::from(p.version))),
        ]);
        [node, coordinator]
    }
}

/// The document of an offer, signed by whoever may sign it now, or by a stranger.
fn document(offer: &Offer, seq: u64, prev: Option<Digest>, oracle: &Oracle) -> (Vec<u8>, Digest) {
    let Offer { kind, rival, authorised, .. } = *offer;
    let (issued, expires) = (at() - Duration::seconds(i64::from(rival)), at() + Duration::days(1));
    let by = |who: usize| if authorised { who } else { STRANGER };
    let governor_now = by(governor(oracle.seq(Kind::Governance)));
    match kind {
        Kind::Roster => signed(&Roster { seq, prev, issued, expires, members: Vec::new() }, &[governor_now]),
        Kind::Status => {
            let status = Status {
                seq,
                prev,
                issued,
                expires,
                revoked_permits: Vec::new(),
                permit_versions: Vec::new(),
                suspended_studies: Vec::new(),
                void_keys: Vec::new(),
            };
            signed(&status, &[governor_now])
        }
        Kind::Orders => {
            let entry = Entry { target: Target::Study("s".into()), reason: "r".into(), expires };
            signed(&Orders { regulator: "ministry".into(), seq, prev, issued, entries: vec![entry] }, &[by(REGULATOR)])
        }
        Kind::Governance => {
            let new = governor(seq);
            let document = Governance { seq, prev, new_key: KEYS[new].public(), issued, reason: "r".into() };
            signed(&document, &[governor_now, new])
        }
        Kind::Committee => {
            let document = Committee { seq, prev, issued: Some(issued), reason: "r".into(), ..first_committee(seq) };
            signed(&document, &[by(member(oracle.seq(Kind::Committee)))])
        }
        Kind::Permit => signed(&permit(seq, prev, rival), &[by(member(oracle.seq(Kind::Committee)))]),
    }
}

async fn run(offers: Vec<Offer>) {
    let dir = tempfile::tempdir().unwrap();
    let mut parties = Parties::open(dir.path()).await;
    let (schema, _) = signed(&schema(), &[governor(0)]);
    parties.coordinator.put(&schema, at()).await.unwrap();
    let mut oracle = Oracle::default();
    for offer in &offers {
        let kind = offer.kind;
        let seq = oracle.seq(kind).saturating_add_signed(offer.step);
        if (kind == Kind::Governance && seq >= 7) || (kind == Kind::Permit && seq == 0) {
            continue;
        }
        let prev = match (offer.follows, oracle.digest(kind)) {
            (true, newest) => newest.filter(|_| kind != Kind::Permit || seq > 1),
            (false, _) => Some(Digest::of(b"another")),
        };
        let (bytes, digest) = document(offer, seq, prev, &oracle);
        parties.offer(kind, &bytes).await;
        oracle.takes(kind, seq, prev, digest, offer.authorised);
        if offer.restart {
            parties.close().await;
            parties = Parties::open(dir.path()).await;
        }
        let kinds = [Kind::Roster, Kind::Status, Kind::Orders, Kind::Governance, Kind::Committee, Kind::Permit];
        let expect: BTreeMap<Kind, u64> = kinds.into_iter().map(|kind| (kind, oracle.seq(kind))).collect();
        let [node, coordinator] = parties.held().await;
        assert_eq!(node, expect, "the node, after {offer:?}");
        assert_eq!(coordinator, expect, "the coordinator, after {offer:?}");
    }
    parties.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_offers_leaves_every_pin_at_the_highest_valid_document(offers in offers()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(offers));
    }
}

#[tokio::test]
async fn a_link_that_is_handed_in_again_with_other_signatures_changes_nothing() {
    for kind in [Kind::Governance, Kind::Committee] {
        let dir = tempfile::tempdir().unwrap();
        let parties = Parties::open(dir.path()).await;
        for authorised in [true, false] {
            let offer = Offer { kind, step: 1, rival: 0, follows: true, authorised, restart: false };
            parties.offer(kind, &document(&offer, 1, None, &Oracle::default()).0).await;
        }
        parties.close().await;
        let parties = Parties::open(dir.path()).await;
        assert!(parties.held().await.iter().all(|held| held[&kind] == 1), "{kind:?}");
        parties.close().await;
    }
}
