use std::{
    fs, io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use chrono::{DateTime, Duration as Days, Utc};
use sekisho_aggregation::reservation::{Charge, Ledger as _};
use sekisho_node_config::Window;
use sekisho_protocol::{
    alert::{Alert, Rule},
    committee::{Committee, CommitteeMember},
    dsse::Document,
    keys::{PublicKey, SecretKey},
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        cosignature::cosigned,
        edge::Edge,
        entry::Kind,
        merkle::TreeHead,
        note::{NoteKey, Signs},
        proof::ConsistencyProof,
    },
    permit::{OptOutRule, Permit},
    query::{Query, Route, RoutedQuery, Terms},
    receipt::{Receipt, ReservationRecord},
    roster::{Member, Role, Roster},
    schema::Schema,
    status::Status,
    units::{AttoDelta, MicroRho},
};

use super::{charged::Durable, *};
use crate::{
    data::{
        mapping::Mapping,
        snapshot::{self, Settings},
    },
    documents::Anchors,
    holding::HoldingError,
    ledger::Caps,
    permits::put,
    store::Store,
};

const SCHEMA: &str = r#"{"id":"s","version":1,"title":"","tables":[{"name":"stay","patient":"pid","columns":[
    {"name":"pid","type":"text"},{"name":"age","type":"int64","bounds":{"min":"0","max":"120"}}]}]}"#;
const MAPPING: &str = "id = \"west\"\nsynthetic = SYNTHETIC\nschema = \"schema.dsse.json\"\n[tables.stay]\n\
    source = \"stay.csv\"\n[tables.stay.columns]\npid = \"pid\"\nage = \"age\"\n";
pub(crate) const SQL: &str = "SELECT count(*) AS planted FROM stay";

struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).unwrap()
    }
}

/// A node in this process, with everybody's keys.
pub(crate) struct Case {
    pub(crate) dir: tempfile::TempDir,
    governance: SecretKey,
    committee: SecretKey,
    coordinator: SecretKey,
    researcher: SecretKey,
    schema: Digest,
    pub(crate) node: Arc<Answering>,
}

fn key() -> SecretKey {
    SecretKey::generate(&mut rand::rng())
}

/// Caps of 100,000 micro-rho and 50 atto-delta, with this window.
fn caps(window: Option<Window>) -> Caps {
    let micro_rho = MicroRho::try_from(100_000).unwrap();
    Caps { lifetime: Cost { micro_rho, atto_delta: AttoDelta::try_from(50).unwrap() }, window }
}

async fn open(dir: &Path, governance: PublicKey, max_rows: u64) -> Result<DataSet, HoldingError> {
    let (mapping, snapshots, settings) =
        (dir.join("mapping.toml"), dir.join("snapshots"), Settings::with_memory(64 << 20));
    DataSet::open(&mapping, &[governance], &snapshots, &settings, &|_| {}, Noon.now(), max_rows).await
}

impl Case {
    pub(crate) async fn new(change: impl FnOnce(&mut Answering)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (governance, committee, coordinator, researcher) = (key(), key(), key(), key());
        let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
        let schema = Envelope::sign(&schema, &[&governance]).unwrap();
        fs::write(dir.path().join("schema.dsse.json"), schema.to_json()).unwrap();
        fs::write(dir.path().join("mapping.toml"), MAPPING.replace("SYNTHETIC", "true")).unwrap();
        fs::write(dir.path().join("stay.csv"), "pid,age\na,40\nb,50\n").unwrap();
        let store = Store::open(&dir.path().join("node.db")).await.unwrap();
        let micro_rho = |amount| MicroRho::try_from(amount).unwrap();
        let member = CommitteeMember { name: "m".into(), role: "ethics".into(), key: committee.public() };
        let anchors = Anchors {
            governance: governance.public(),
            committee: Committee::pinned(1, Vec::new(), false, vec![member]).unwrap(),
            regulators: Vec::new(),
        };
        let (ledger, signing) = (Ledger::new(store.clone(), caps(None)), Arc::new(Signing::from(key())));
        let rules = crate::watch::tests::rules();
        let watch = Watch::open("west", rules, ledger.clone(), Arc::clone(&signing), Arc::new(Noon)).await.unwrap();
        let mut node = Answering {
            trust: Trust {
                name: "west".into(),
                coordinator_peer: "peer-1".into(),
                max_micro_rho_per_query: micro_rho(1000),
                max_atto_delta_per_query: AttoDelta::ZERO,
                exact_min_patients: None,
            },
            policy: Policy::parse(&crate::policy::default_text(true)).unwrap(),
            own_rule: OptOut { rule: OptOutRule::EuEhds, days: 0 },
            ledger,
            register: Register::new(store.clone()),
            shelf: crate::catalogue::Shelf::new(store.clone()),
            documents: Documents::new(store, anchors),
            data: vec![Arc::new(open(dir.path(), governance.public(), 2).await.unwrap())],
            signing,
            seeds: Arc::new(SeedKey::read_or_make(&dir.path().join("replay.pem")).unwrap()),
            clock: Arc::new(Noon),
            timeout: Duration::from_secs(60),
            memory_bytes: 1 << 28,
            departure: Departure::AtOnce,
            slots: Slots::new(2),
            hooks: Hooks::default(),
            locks: RunLocks::default(),
            watch,
            standing: Standing::default(),
        };
        change(&mut node);
        let schema = schema.peek::<Schema>().unwrap().1;
        let case = Self { dir, governance, committee, coordinator, researcher, schema, node: Arc::new(node) };
        let member = |name: &str, role, peer: &str, key: &SecretKey| Member {
            name: name.into(),
            role,
            peer_id: peer.into(),
            signing_key: key.public(),
        };
        let members = vec![
            member("hub", Role::Coordinator, "peer-1", &case.coordinator),
            member("west", Role::Node, "peer-2", &case.node.signing),
        ];
        let expires = Noon.now() + Days::days(1);
        case.put(&Roster { seq: 1, prev: None, issued: Noon.now(), expires, members }, &case.governance).await;
        case.status(1, Vec::new()).await;
        case
    }

    /// A roster and a status that hold for another day.
    pub(crate) async fn renew(&self) {
        let (documents, now) = (&self.node.documents, self.node.clock.now());
        let (roster, status) = (documents.roster(now).await.unwrap(), documents.status(now).await.unwrap());
        // They name no predecessor: a gap.
        let (mut roster, mut status) = (roster.document().clone(), status.document().clone());
        (roster.seq, roster.expires) = (roster.seq + 2, now + Days::days(2));
        (status.seq, status.expires) = (status.seq + 2, now + Days::days(2));
        self.put(&roster, &self.governance).await;
        self.put(&status, &self.governance).await;
    }

    async fn put<D: Document>(&self, document: &D, key: &SecretKey) -> Digest {
        let envelope = Envelope::sign(document, &[key]).unwrap();
        put(&self.node, &envelope.to_json()).await.unwrap();
        envelope.peek::<D>().unwrap().1
    }

    /// The alerts in the log: rule and study.
    async fn alerts(&self) -> Vec<(Rule, Option<String>)> {
        let read = |bytes: &Vec<u8>| Envelope::from_json::<Alert>(bytes).unwrap().peek::<Alert>().unwrap().0;
        let alerts = self.node.ledger.alerts(9).await.unwrap();
        alerts.iter().map(read).map(|alert| (alert.rule, alert.study_id)).collect()
    }

    async fn status(&self, seq: u64, void_keys: Vec<Digest>) {
        let status = Status {
            seq,
            prev: None,
            issued: Noon.now(),
            expires: Noon.now() + Days::days(1),
            revoked_permits: Vec::new(),
            permit_versions: Vec::new(),
            suspended_studies: Vec::new(),
            void_keys,
        };
        self.put(&status, &self.governance).await;
    }

    /// Grants version `version` of a permit with this total.
    pub(crate) async fn permit(&self, version: u32, total: u64) -> Digest {
        self.permit_of_delta(version, total, (0, 0)).await
    }

    /// Grants a permit with this delta for a query and in total.
    async fn permit_of_delta(&self, version: u32, total: u64, delta: (u64, u64)) -> Digest {
        self.permit_with(version, total, delta, |_| {}).await
    }

    /// Grants a permit that is changed before it is signed.
    pub(crate) async fn permit_with(
        &self,
        version: u32,
        total: u64,
        delta: (u64, u64),
        change: impl FnOnce(&mut Permit),
    ) -> Digest {
        let (public, now) = (self.researcher.public(), Noon.now());
        let seen = self.node.documents.permits().await.unwrap();
        let before = seen.iter().filter(|p| p.version < version).max_by_key(|p| p.version).map(|p| p.digest);
        let supersedes = before.or_else(|| (version > 1).then(|| Digest::of(b"not seen here")));
        let mut permit: Permit = serde_json::from_value(serde_json::json!({
            "id": "permit", "version": version, "supersedes": supersedes, "basis": "EHDS-69", "issuer": "i", "study_id": "study",
            "schema": self.schema, "decision": {"date": now.date_naive(), "reasons": "r"},
            "purposes": ["scientific_research"], "data_user": "u", "principal_investigator": "p",
            "authorised_persons": [
                {"id": "hanako", "role": "analyst", "key": public, "key_fingerprint": public.fingerprint()}],
            "data": [{"table": "stay", "columns": ["age"], "holder_nodes": ["west"]}],
            "allowed_statistics": ["count"], "release_kinds": ["noised"], "disclosure": "none",
            "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1,
                   "micro_rho_per_query": 1000, "micro_rho_total": total, "delta_for_reports": "1e-6",
                   "atto_delta_per_query": delta.0, "atto_delta_total": delta.1},
            "optout": {"rule": "eu-ehds", "days": 0},
            "validity": {"from": now - Days::days(1), "to": now + Days::days(30)},
        }))
        .unwrap();
        change(&mut permit);
        self.put(&permit, &self.committee).await
    }

    /// Run `run` of `sql`, signed and routed.
    pub(crate) fn query(&self, permit: Digest, sql: &str, run: u32) -> Vec<u8> {
        self.query_of_delta(permit, sql, run, 0)
    }

    /// A query that asks for so much delta.
    fn query_of_delta(&self, permit: Digest, sql: &str, run: u32, atto_delta: u64) -> Vec<u8> {
        self.query_of(permit, sql, run, (1000, atto_delta))
    }

    /// A query that asks for so much micro-rho and delta.
    pub(crate) fn query_of(&self, permit: Digest, sql: &str, run: u32, (micro_rho, atto_delta): (u64, u64)) -> Vec<u8> {
        let atto_delta = AttoDelta::try_from(atto_delta).unwrap();
        let expires = self.node.clock.now() + Days::hours(1);
        let query = Query {
            permit,
            sql: sql.into(),
            holders: vec!["west".into()],
            micro_rho: MicroRho::try_from(micro_rho).unwrap(),
            run,
            expires,
            nonce: format!("{:032x}", rand::random::<u128>()),
            terms: Terms { atto_delta, ..Terms::default() },
        };
        let query = Envelope::sign(&query, &[&self.researcher]).unwrap();
        let digest = query.peek::<Query>().unwrap().1;
        let route = Route { query: digest, to: "west".into(), round: "r".into(), expires };
        let route = Envelope::sign(&route, &[&self.coordinator]).unwrap();
        serde_json::to_vec(&RoutedQuery { query, route }).unwrap()
    }

    pub(crate) async fn ask(&self, permit: Digest, run: u32) -> String {
        code(self.node.answer(&self.query(permit, SQL, run)).await)
    }
}

pub(crate) fn code<T>(result: Result<T, Refusal>) -> String {
    result.err().map_or("ok".into(), |refusal| refusal.code.to_string())
}

#[tokio::test]
async fn a_panic_is_no_answer_is_charged_and_counted_and_leaves_on_time() {
    let step = Duration::from_millis(500);
    let case = Case::new(|node| {
        node.departure = Departure::fixed(step, Duration::from_secs(60));
        node.hooks = Hooks::new(|point| assert_ne!(point, "reserved", "a panic in a run"));
    })
    .await;
    let permit = case.permit(1, 10_000).await;
    for run in 1..=4 {
        let asked = Instant::now();
        let (expect, leaves) = if run == 4 { ("suspended", Duration::ZERO) } else { ("no_answer", step) };
        assert_eq!(case.ask(permit, run).await, expect);
        assert!((leaves..leaves + step).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    }
    assert_eq!(case.node.ledger.budget().await.unwrap().spent.get(), 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_never_ends_is_no_answer_after_the_time_limit_and_runs_again_on_its_charge() {
    let case = Case::new(|node| {
        (node.timeout, node.departure) =
            (Duration::from_millis(300), Departure::fixed(Duration::from_millis(200), Duration::from_millis(300)));
        let passed = AtomicU32::new(0);
        node.hooks = Hooks::new(move |point| {
            if point == "reserved" && passed.fetch_add(1, Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    })
    .await;
    let permit = case.permit(1, 10_000).await;
    let (query, asked) = (case.query(permit, SQL, 1), Instant::now());
    assert_eq!(code(case.node.answer(&query).await), "no_answer");
    assert!((500..800).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(case.node.answer(&query).await), "ok");
    assert_eq!(case.node.ledger.budget().await.unwrap().spent.get(), 1000);
}

#[tokio::test]
async fn whoever_hangs_up_stops_no_run_and_the_slot_is_held_until_departure() {
    let case = Case::new(|node| {
        node.departure = Departure::fixed(Duration::from_millis(1500), Duration::from_secs(60));
    })
    .await;
    let permit = case.permit(1, 10_000).await;
    let query = case.query(permit, SQL, 1);
    let hung_up = timeout(Duration::from_millis(700), case.node.answer(&query)).await;
    assert!(hung_up.is_err());
    assert_eq!(code(case.node.dry_run(&query).await), "busy", "one of two slots is the study's");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(case.node.dry_run(&query).await.unwrap().stored);
}

#[tokio::test]
async fn when_a_run_ends_no_ledger_and_no_log_tells_before_its_departure() {
    let step = Duration::from_millis(1500);
    for (dies, expect) in [(false, "ok"), (true, "no_answer")] {
        let case = Case::new(|node| {
            node.departure = Departure::fixed(step, Duration::from_secs(60));
            node.hooks = Hooks::new(move |point| assert!(!dies || point != "reserved", "a panic in a run"));
        })
        .await;
        let permit = case.permit(1, 10_000).await;
        let (log, query) = (case.node.ledger.log(), case.query(permit, SQL, 1));
        let (before, asked) = (log.len().await.unwrap(), Instant::now());
        let (node, mut seen) = (Arc::clone(&case.node), before);
        let answer = tokio::spawn(async move { node.answer(&query).await });
        while asked.elapsed() < step {
            seen = log.len().await.unwrap();
            assert!(seen <= before + 1 || asked.elapsed() >= step, "the charge alone is in the log");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(code(answer.await.unwrap()), expect);
        assert!(seen > before && log.len().await.unwrap() == before + 2, "the charge, and what came of it");
    }
}

#[tokio::test]
async fn a_void_coordinator_a_lower_total_and_a_former_snapshot_count() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    let answer = case.node.answer(&case.query(permit, SQL, 1)).await.map_err(|r| r.code).unwrap();
    assert!(answer.receipt.peek::<Receipt>().unwrap().0.synthetic);
    assert_eq!(case.ask(permit, 2).await, "ok");
    let lower = case.permit(2, 2500).await;
    assert_eq!(case.ask(lower, 3).await, "budget_study", "2000 are spent");
    let dry = case.node.dry_run(&case.query(lower, SQL, 3)).await;
    assert_eq!(code(dry), "budget_study");
    case.status(5, vec![case.coordinator.public().fingerprint()]).await;
    assert_eq!(case.ask(permit, 1).await, "not_on_roster");
    assert_eq!(case.alerts().await, [(Rule::UnexpectedPeer, None)]);
}

#[tokio::test]
async fn what_a_stranger_sends_in_a_studys_name_is_an_alert_and_not_the_studys() {
    let mut case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    case.researcher = key();
    for run in 1..=3 {
        assert_eq!(case.ask(permit, run).await, "unknown_person");
    }
    assert_eq!(case.alerts().await, [(Rule::Refusals, None)]);
}

#[tokio::test]
async fn a_window_that_is_spent_says_so_and_stored_releases_are_still_served() {
    let window = Window { days: 1, micro_rho: MicroRho::try_from(2500).unwrap() };
    let mut case = Case::new(|_| {}).await;
    let store = Store::open(&case.dir.path().join("node.db")).await.unwrap();
    Arc::get_mut(&mut case.node).unwrap().ledger = Ledger::new(store, caps(Some(window)));
    let permit = case.permit(1, 10_000).await;
    for (run, expect) in [(1, "ok"), (2, "ok"), (3, "budget_window"), (1, "ok"), (2, "ok")] {
        assert_eq!(case.ask(permit, run).await, expect, "run {run}");
        assert_eq!(code(case.node.dry_run(&case.query(permit, SQL, run)).await), expect, "run {run}, dry");
    }
    assert_eq!(case.node.ledger.budget().await.unwrap().spent.get(), 2000);
}

#[tokio::test]
async fn delta_is_admitted_up_to_the_permit_the_ceiling_and_the_hospital() {
    let case = Case::new(|_| {}).await;
    let most = 1_000_000_000_000;
    let without = case.permit(1, 10_000).await;
    let with = case.permit_of_delta(2, 10_000, (2 * most, 3 * most)).await;
    let now = Noon.now();
    for (permit, synthetic, asked, hospital, expect) in [
        (without, false, 0, 0, "ok"),
        (without, false, 1, most, "budget_query"),
        (with, false, 0, 0, "ok"),
        (with, false, 1, 0, "policy"),
        (with, false, 5, 5, "ok"),
        (with, false, 6, 5, "policy"),
        (with, false, most, 2 * most, "ok"),
        (with, false, most + 1, 2 * most, "budget_query"),
        (with, true, 2 * most, 2 * most, "ok"),
        (with, true, 2 * most + 1, 3 * most, "budget_query"),
    ] {
        let mut trust = case.node.trust.clone();
        trust.max_atto_delta_per_query = AttoDelta::try_from(hospital).unwrap();
        let documents = &case.node.documents;
        let (roster, status) = (documents.roster(now).await.unwrap(), documents.status(now).await.unwrap());
        let committee = documents.committee_of(permit).await.unwrap();
        let in_force = InForce { roster, status, committee, orders: Vec::new() };
        let envelope = documents.permit(permit).await.unwrap().unwrap().envelope().unwrap();
        let signed = SignedQuery::from_json(&case.query_of_delta(permit, SQL, 1, asked)).unwrap();
        let verified = signed.verify(&envelope, &trust, &in_force, now).unwrap();
        let admitted = verified.admit(&trust, &in_force.status, synthetic, now);
        assert_eq!(code(admitted), expect, "{asked} asked, {hospital} allowed, synthetic: {synthetic}");
    }
}

#[tokio::test]
async fn a_charges_delta_is_in_the_ledger_and_in_the_signed_record() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit_of_delta(1, 10_000, (30, 40)).await;
    let ready = case.node.ready(&case.query(permit, SQL, 1)).await.map_err(|unready| unready.refusal.code).unwrap();
    let durable = Durable { answering: &case.node, question: &ready.question, register_seq: 0 };
    let charge = |run, atto_delta| Charge {
        permit,
        query_key: Digest::of(b"question"),
        run,
        micro_rho: MicroRho::try_from(1000).unwrap(),
        atto_delta: AttoDelta::try_from(atto_delta).unwrap(),
    };
    durable.charge(&charge(1, 30)).await.unwrap();
    assert_eq!(code(durable.charge(&charge(2, 11)).await), "budget_study", "40 in total");
    assert_eq!(case.node.ledger.budget().await.unwrap().spent_delta.get(), 30);
    let entries = case.node.ledger.log().entries(0, 99).await.unwrap();
    let reservation = entries.into_iter().find(|entry| entry.kind == Kind::Reservation).unwrap();
    let record = Envelope::from_json::<ReservationRecord>(&reservation.opened.unwrap().statement).unwrap();
    let record = record.peek::<ReservationRecord>().unwrap().0;
    assert_eq!((record.micro_rho.get(), record.atto_delta.get()), (1000, 30));
}

#[tokio::test]
async fn a_snapshot_of_patients_is_not_synthetic_whatever_the_mapping_says_and_may_not_be_too_large() {
    let case = Case::new(|_| {}).await;
    let (dir, governance) = (case.dir.path(), case.governance.public());
    let error = open(dir, governance, 1).await.map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "table stay has more rows than limits.max_rows allows (1)");
    for (mapped, synthetic) in [("true", true), ("false", false)] {
        fs::write(dir.join("mapping.toml"), MAPPING.replace("SYNTHETIC", mapped)).unwrap();
        assert_eq!(open(dir, governance, 2).await.unwrap().synthetic(), synthetic);
    }
    fs::remove_dir_all(dir.join("snapshots")).unwrap();
    open(dir, governance, 2).await.unwrap();
    fs::write(dir.join("mapping.toml"), MAPPING.replace("SYNTHETIC", "true")).unwrap();
    assert!(!open(dir, governance, 2).await.unwrap().synthetic(), "the snapshot is of patients");
}

#[tokio::test]
async fn a_source_that_cannot_be_looked_at_is_refused_without_its_path() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    let source = case.dir.path().join("stay.csv");
    fs::remove_file(&source).unwrap();
    std::os::unix::fs::symlink("stay.csv", &source).unwrap();
    let refusal = case.node.answer(&case.query(permit, SQL, 1)).await.map(|_| ()).unwrap_err();
    assert_eq!(refusal.code, Code::Unavailable);
    assert!(!refusal.detail.contains("stay.csv"), "{}", refusal.detail);
}

impl Case {
    /// The same node over `stays`, of which there may be many.
    pub(crate) async fn over(&mut self, stays: &str) {
        self.take(stays, "true").await;
        let data = open(self.dir.path(), self.governance.public(), 1 << 20).await.unwrap();
        Arc::get_mut(&mut self.node).unwrap().data = vec![Arc::new(data)];
    }

    /// Writes the source and takes a snapshot of it, as the operator does beside the running node; its id.
    pub(crate) async fn take(&self, stays: &str, synthetic: &str) -> String {
        self.take_at(stays, synthetic, Noon.now()).await
    }

    /// The same at another hour.
    pub(crate) async fn take_at(&self, stays: &str, synthetic: &str, at: DateTime<Utc>) -> String {
        let dir = self.dir.path();
        fs::write(dir.join("stay.csv"), format!("pid,age\n{stays}")).unwrap();
        fs::write(dir.join("mapping.toml"), MAPPING.replace("SYNTHETIC", synthetic)).unwrap();
        let mapping = Mapping::load(&dir.join("mapping.toml"), &[self.governance.public()]).unwrap();
        let (settings, hooks) = (Settings::with_memory(64 << 20), Hooks::default());
        let taken = snapshot::take(&mapping, &dir.join("snapshots"), &settings, &|_| {}, &hooks, at).await;
        taken.unwrap().id().to_owned()
    }

    /// The snapshots that runs are bound to, with runs and releases.
    async fn bound(&self) -> Vec<(String, u64, u64)> {
        let bound = self.node.ledger.snapshots().await.unwrap();
        bound.into_iter().map(|s| (s.snapshot, s.runs, s.releases)).collect()
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

#[tokio::test]
async fn a_new_snapshot_is_taken_up_by_the_next_query_and_earlier_runs_keep_theirs() {
    let case = Case::new(|node| {
        let passed = AtomicU32::new(0);
        node.hooks = Hooks::new(move |_| assert_ne!(passed.fetch_add(1, Ordering::Relaxed), 0, "the first run fails"));
    })
    .await;
    let permit = case.permit(1, 10_000).await;
    assert_eq!(case.ask(permit, 1).await, "no_answer");
    let (first, _, _) = case.bound().await.remove(0);
    fs::write(case.dir.path().join("stay.csv"), "pid,age\na,40\n").unwrap();
    assert_eq!(case.ask(permit, 2).await, "source_changed");
    let second = case.take("a,40\n", "true").await;
    assert_eq!(case.ask(permit, 2).await, "ok");
    assert_eq!(case.bound().await, sorted(vec![(first.clone(), 1, 0), (second.clone(), 1, 1)]));
    assert_eq!(case.ask(permit, 1).await, "ok", "on the charge and the snapshot of then");
    assert_eq!(case.bound().await, sorted(vec![(first, 1, 1), (second, 1, 1)]));
}

#[tokio::test]
async fn a_new_snapshot_that_is_not_as_it_must_be_is_not_answered_from() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    let snapshots = case.dir.path().join("snapshots");
    let damaged = snapshots.join(case.take("a,41\n", "true").await).join("stay.parquet");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[10] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    assert_eq!(case.ask(permit, 1).await, "unavailable");
    assert_eq!(case.ask(permit, 1).await, "unavailable", "and is not looked at again");
    case.take("a,40\nb,50\nc,60\n", "true").await;
    assert_eq!(case.ask(permit, 1).await, "unavailable", "more rows than the limit");
    case.take("a,42\n", "false").await;
    assert_eq!(case.ask(permit, 1).await, "unavailable", "of patients, where budgets were checked for synthetic data");
    let last = case.take("a,43\n", "true").await;
    assert_eq!(case.ask(permit, 1).await, "ok");
    fs::remove_file(snapshots.join("CURRENT-west")).unwrap();
    assert_eq!(case.ask(permit, 2).await, "unavailable", "nothing says which one is current");
    assert_eq!(case.bound().await, [(last, 1, 1)]);
    assert_eq!(case.node.ledger.budget().await.unwrap().spent.get(), 1000);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    /// Where this thread's log goes.
    static HERE: std::cell::RefCell<Option<Log>> = const { std::cell::RefCell::new(None) };
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_hospital_sees_who_was_refused_and_no_sql() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    // One subscriber for the whole process: with one of this test's own, a test without a log that passes a place in the code
    // at the wrong moment turns the place off. It writes what this thread logs while there is somewhere to write it.
    static LISTEN: std::sync::Once = std::sync::Once::new();
    LISTEN.call_once(|| {
        let here = || HERE.with_borrow(|log| log.clone().unwrap_or_default());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(here).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    let log = Log::default();
    HERE.set(Some(log.clone()));
    let sql = "SELECT planted FROM stay";
    let asked = case.query(permit, sql, 7);
    assert_eq!(code(case.node.answer(&asked).await), code(case.node.dry_run(&asked).await));
    assert_eq!(code(case.node.answer(b"{}").await), "malformed");
    assert_eq!(code(case.node.answer(&case.query(Digest::of(b"x"), sql, 1)).await), "permit_unknown");
    HERE.set(None);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    for said in [&permit.short(), "\"study\"", "\"hanako\"", "run=7"] {
        assert!(lines[..2].iter().all(|line| line.contains(said)), "{said}: {log}");
    }
    assert!(lines[2].contains("code=malformed") && lines[3].contains(&Digest::of(b"x").short()), "{log}");
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test]
async fn a_node_that_is_told_of_another_history_of_its_log_answers_nothing_until_it_is_told_of_its_own() {
    let case = Case::new(|_| {}).await;
    let permit = case.permit(1, 10_000).await;
    assert_eq!(case.ask(permit, 1).await, "ok");
    let own = case.node.checkpoint(0).await.unwrap().checkpoint;
    let (origin, head) = (own.claimed().origin().clone(), *own.claimed().head());
    let told = |origin: &str, size, root| {
        let checkpoint = Checkpoint::new(origin.parse().unwrap(), TreeHead::new(size, root).unwrap());
        SignedCheckpoint::sign(checkpoint, &case.node.signing).unwrap().to_string()
    };
    let other = Digest::of(b"other");
    for (newest, expect) in [
        (Some(own.to_string()), "ok"),
        (Some(told(origin.as_str(), head.size() + 1, other)), "ledger_rolled_back"),
        (None, "ok"),
        (Some(told(origin.as_str(), head.size(), other)), "ledger_rolled_back"),
        (Some(own.to_string()), "ok"),
        (Some(told("sekisho-other/west", head.size(), head.root())), "ledger_rolled_back"),
        (Some(told(origin.as_str(), 0, TreeHead::empty().root())), "ok"),
        (Some(told(origin.as_str(), 1, other)), "ledger_rolled_back"),
    ] {
        case.node.told(newest.as_deref()).await.unwrap();
        assert_eq!(case.ask(permit, 1).await, expect, "{newest:?}");
        assert_eq!(code(case.node.dry_run(&case.query(permit, SQL, 2)).await), expect, "{newest:?}");
    }
    let permit = case.node.documents.permits().await.unwrap().remove(0);
    assert_eq!(code(put(&case.node, &permit.envelope().unwrap().to_json()).await), "ledger_rolled_back");
    for wrong in ["", "not a checkpoint", &"x".repeat(9000)] {
        assert_eq!(code(case.node.told(Some(wrong)).await), "malformed");
        assert_eq!(case.ask(permit.digest, 1).await, "ledger_rolled_back", "as it was");
    }
    // So many refusals are an alert, which is an entry too.
    let (size, key) = (case.node.ledger.log().len().await.unwrap(), case.node.signing.public());
    assert_eq!(code(case.node.has_seen(size).await), "ok");
    assert_eq!(code(case.node.has_seen(size + 1).await), "ledger_rolled_back");
    assert_eq!(code(case.node.checkpoint(size + 1).await), "ledger_rolled_back");
    let later = case.node.checkpoint(3).await.unwrap();
    let verified = later.checkpoint.verify(&NoteKey::new(origin, Signs::Text, key)).unwrap();
    assert_eq!((later.old, later.checkpoint.claimed().head()), (3, verified.head()));
}

#[tokio::test]
async fn a_node_witnesses_what_continues_the_coordinators_log_and_nothing_else() {
    let case = Case::new(|_| {}).await;
    let leaves = [Digest::of(b"first"), Digest::of(b"second")];
    let head = |leaves: &[Digest]| {
        let mut edge = Edge::empty();
        edge.append(leaves).unwrap();
        edge.head()
    };
    let offer = |origin: &str, key: &SecretKey, head: TreeHead, old, hashes: &[Digest]| {
        let checkpoint = SignedCheckpoint::sign(Checkpoint::new(origin.parse().unwrap(), head), key).unwrap();
        ConsistencyProof { old, hashes: hashes.to_vec(), checkpoint }
    };
    let (hub, key) = ("sekisho-test/hub", &case.coordinator);
    let (one, two) = (head(&leaves[..1]), head(&leaves));
    let forked = head(&[leaves[0], Digest::of(b"other")]);
    let stranger = self::key();
    for (offered, witnessed) in [
        (offer(hub, &stranger, one, 0, &[]), None),
        (offer("sekisho-test/west", key, one, 0, &[]), None),
        (offer("hub", key, one, 0, &[]), None),
        (offer(hub, key, one, 0, &[]), Some(1)),
        (offer(hub, key, two, 1, &[]), None),
        (offer(hub, key, two, 1, &[leaves[0]]), None),
        (offer(hub, key, two, 1, &leaves[1..]), Some(2)),
        (offer(hub, key, two, 2, &[]), Some(2)),
        (offer(hub, key, forked, 2, &[]), None),
        (offer(hub, key, one, 0, &[]), None),
    ] {
        let before = case.node.witnessed().await.unwrap();
        let line = case.node.witness(&offered.to_string()).await;
        assert_eq!(line.is_ok(), witnessed.is_some(), "{offered}: {line:?}");
        assert_eq!(case.node.witnessed().await.unwrap(), witnessed.unwrap_or(before));
        if let Ok(line) = line {
            let mut checkpoint = offered.checkpoint;
            checkpoint.add(line.to_string().parse().unwrap()).unwrap();
            let west = "sekisho-test/west".parse().unwrap();
            let west = NoteKey::new(west, Signs::Cosignature, case.node.signing.public());
            assert_eq!(cosigned(&checkpoint, &west).unwrap(), Some(Noon.now()));
        }
    }
    for wrong in ["", "not a proof", &"x".repeat(40_000)] {
        assert!(case.node.witness(wrong).await.is_err());
    }
}
