//! The hospital's own counts, through the ordinary ledger: charged once, drawn on schedule, without those who said no.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::Duration;
use sekisho_node::{
    catalogue::{Declaration, DrawState, Published, draft, publish, template},
    holding::DataSet,
    hooks::Hooks,
    register::EventKind,
};
use sekisho_protocol::{catalogue::Counts, clock::Clock};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{SCHEMA, TestClock, mapping, stays};

/// At this rho the noise of a count is far below one record.
const RHO: u64 = 1_000_000_000_000;

pub struct Hospital {
    pub solo: Solo,
    pub sets: Vec<(Arc<DataSet>, Declaration)>,
    pub dir: tempfile::TempDir,
}

fn changed(text: &str) -> String {
    text.replace("micro_rho_per_table = 2000", &format!("micro_rho_per_table = {RHO}"))
        .replace("total_micro_rho = 100000", &format!("total_micro_rho = {}", 10 * RHO))
}

fn declared(dir: &Path, set: &DataSet, change: impl Fn(&str) -> String) -> Result<Declaration, String> {
    let text = change(&template(set.mapping()));
    std::fs::write(dir.join("dataset-0.catalogue.toml"), text).unwrap();
    Declaration::load(&dir.join("dataset-0.toml"), set.mapping()).map_err(|e| e.to_string())
}

async fn hospital(clock: &TestClock) -> Hospital {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("stay.csv");
    stays(&csv, &[(1, "female", 50, 3), (1, "female", 51, 4), (2, "male", 60, 5), (3, "", 61, 6)]);
    let plan = Plan {
        data: vec![(SCHEMA, mapping("stays", &csv, true))],
        register_rule: "eu-ehds",
        register: None,
        budget: (100 * RHO, RHO),
    };
    let solo = Solo::build(dir.path(), &plan, Arc::new(clock.clone())).await.unwrap();
    let set = Arc::clone(&solo.node.data[0]);
    let declaration = declared(dir.path(), &set, changed).unwrap();
    Hospital { solo, sets: vec![(set, declaration)], dir }
}

impl Hospital {
    async fn publish(&self) -> Result<Published, String> {
        publish(&self.solo.node, &self.solo.node.shelf, &self.sets).await.map_err(|e| e.to_string())
    }

    async fn state(&self) -> DrawState {
        draft(&self.solo.node, &self.solo.node.shelf, &self.sets).await.unwrap().tables[0].state
    }

    async fn spent(&self) -> u64 {
        self.solo.node.ledger.budget().await.unwrap().spent.get()
    }

    /// Lets the process die, once, where `point` is passed.
    fn dies_at(&mut self, point: &'static str) -> Arc<AtomicBool> {
        let armed = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&armed);
        let hooks = Hooks::new(move |passed| {
            assert!(passed != point || !seen.swap(false, Ordering::SeqCst), "killed at {point}");
        });
        Arc::get_mut(&mut self.solo.node).unwrap().hooks = hooks;
        armed
    }
}

fn counts(published: &Published) -> &Counts {
    published.catalogue.data_sets[0].tables[0].counts.as_ref().unwrap()
}

fn numbers(published: &Published) -> (i64, i64, i64) {
    let counts = counts(published);
    let sex = counts.present.iter().find(|p| p.column == "sex").unwrap();
    (counts.records.estimate, counts.individuals.estimate, sex.records.estimate)
}

#[tokio::test]
async fn counts_are_charged_once_and_change_only_on_schedule() {
    let clock = TestClock::new();
    let hospital = hospital(&clock).await;
    assert_eq!(hospital.state().await, DrawState::Due);
    let first = hospital.publish().await.unwrap();
    assert_eq!((numbers(&first), first.catalogue.seq, first.charged.get()), ((4, 3, 3), 1, RHO));
    assert_eq!(hospital.spent().await, RHO);
    // Earlier than due: the stored release, and no new catalogue.
    clock.pass(Duration::days(89));
    assert!(matches!(hospital.state().await, DrawState::Stored(_)));
    let again = hospital.publish().await.unwrap();
    assert_eq!((again.fresh, again.digest, again.charged.get()), (false, first.digest, 0));
    // Patient 1 says no. It shows when the counts are due again, and not before.
    let register = &hospital.solo.node.register;
    register.record("1", EventKind::OptedOut, clock.today(), "front-desk", clock.now()).await.unwrap();
    assert_eq!(counts(&hospital.publish().await.unwrap()), counts(&first));
    clock.pass(Duration::days(1));
    let second = hospital.publish().await.unwrap();
    assert_eq!((numbers(&second), second.catalogue.seq, second.fresh), ((2, 2, 1), 2, true));
    assert_eq!((second.catalogue.prev, hospital.spent().await), (Some(first.digest), 2 * RHO));
    let study = hospital.solo.node.ledger.budget().await.unwrap().studies;
    assert_eq!(study.iter().map(|s| s.study_id.as_str()).collect::<Vec<_>>(), ["catalogue"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_leaves_nothing_half_done_and_charges_nothing_twice() {
    for point in ["catalogue_begun", "reserved", "released", "catalogue_counted", "catalogue_published"] {
        let clock = TestClock::new();
        let mut killed = hospital(&clock).await;
        let armed = killed.dies_at(point);
        let killed = Arc::new(killed);
        let died = {
            let killed = Arc::clone(&killed);
            tokio::spawn(async move { killed.publish().await.is_err() }).await
        };
        assert!(died.is_err() || died.unwrap(), "{point}");
        assert!(!armed.load(Ordering::SeqCst), "{point} was not passed");
        let published = killed.publish().await.unwrap();
        assert_eq!((numbers(&published), published.catalogue.seq), ((4, 3, 3), 1), "{point}");
        assert_eq!(killed.spent().await, RHO, "{point}");
        assert_eq!(killed.solo.node.shelf.newest_seq().await.unwrap(), 1, "{point}");
    }
}

#[tokio::test]
async fn a_wrong_declaration_names_the_field_and_charges_nothing() {
    let hospital = hospital(&TestClock::new()).await;
    let set = &hospital.sets[0].0;
    for (from, to, expect) in [
        ("redraw_days = 90", "redraw_days = 27", "counts.redraw_days"),
        ("micro_rho_per_table = 2000", "micro_rho_per_table = 0", "counts.total_micro_rho"),
        ("micro_rho_per_table = 2000", "micro_rho = 2000", "unknown field `micro_rho`"),
        ("[data_set.hdab]", "[data_set.hdabb]", "hdab"),
        ("hdab@example.org", "nobody", "data_set.hdab.email"),
        ("health_categories = [\"EHRS\"]", "health_categories = []", "data_set.health_categories"),
        ("https://hospital.example/apply", "somewhere", "data_set.distribution.access_url"),
        ("[tables.stay]", "[tables.stays]", "tables.stay.rows_per_patient"),
        ("[tables.stay]", "[tables.bed]\n[tables.stay]", "tables.bed"),
        ("rows_per_patient = 20", "rows_per_patient = 0", "tables.stay.rows_per_patient"),
        ("# completeness = []", "completeness = [\"nothing\"]", "tables.stay.completeness: nothing"),
        ("# [tables.stay.columns.sex]", "[tables.stay.columns.sexx]", "tables.stay.columns.sexx"),
    ] {
        let error = declared(hospital.dir.path(), set, |text| text.replacen(from, to, 1)).expect_err(expect);
        assert!(error.contains(expect) && error.contains("dataset-0.catalogue.toml"), "{expect}: {error}");
    }
    assert_eq!(hospital.spent().await, 0);
}

#[tokio::test]
async fn more_than_the_hospital_allows_a_query_is_refused_before_anything_is_begun() {
    let mut hospital = hospital(&TestClock::new()).await;
    let high = |text: &str| changed(text).replace(&format!("per_table = {RHO}"), &format!("per_table = {}", RHO + 1));
    hospital.sets[0].1 = declared(hospital.dir.path(), &hospital.sets[0].0, high).unwrap();
    let error = hospital.publish().await.expect_err("the cap");
    assert!(error.contains("micro_rho_per_table"), "{error}");
    assert_eq!((hospital.spent().await, hospital.state().await), (0, DrawState::Due));
}

#[tokio::test]
async fn no_permit_names_the_study_of_the_catalogue() {
    let hospital = hospital(&TestClock::new()).await;
    let permit = hospital.solo.permit("catalogue", "stay", &["sex"], |_| {}).unwrap();
    let refused = Mutex::new(hospital.solo.grant(&permit).await.expect_err("its own study"));
    assert!(refused.into_inner().unwrap().detail.contains("study_id catalogue"));
}
