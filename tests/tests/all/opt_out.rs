//! Patients who said no, and those whom notice has not protected for 30 days yet, are in no new run.

use std::sync::Arc;

use chrono::Duration;
use sekisho_aggregation::{plan::PrivatePlan, release::Release};
use sekisho_node::register::EventKind;
use sekisho_protocol::{clock::Clock, digest::Digest, units::MicroRho};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};

const SQL: &str = "SELECT sex, count(*) AS n, count(DISTINCT patient_id) AS p, sum(days) AS d FROM stay GROUP BY sex";
const RHO: u64 = 100_000_000_000_000;

/// The released rows, patients and days of each sex, rounded: noise is negligible.
fn counts(solo: &Solo, release: &Release) -> Vec<[i128; 3]> {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let permit = solo.permit("study", "stay", &COLUMNS, widen).unwrap();
    let plan = PrivatePlan::analyse(SQL, &schema, &permit, MicroRho::try_from(RHO).unwrap()).unwrap();
    assert_eq!(plan.digest(), release.header().plan);
    let part = &plan.parts()[0];
    let cell = |measure: usize, cell: usize| {
        let unit = part.unit(&part.measures()[measure]);
        (release.parts()[0][measure][cell] + unit / 2).div_euclid(unit)
    };
    (0..2).map(|sex| [cell(0, sex), cell(1, sex), cell(2, sex)]).collect()
}

fn widen(permit: &mut serde_json::Value) {
    permit["dp"]["micro_rho_per_query"] = RHO.into();
    permit["dp"]["micro_rho_total"] = (5 * RHO).into();
    permit["optout"] = serde_json::json!({"rule": "jp-ngmia", "days": 30});
}

async fn hospital(dir: &std::path::Path, clock: &TestClock) -> (Solo, Digest) {
    let csv = dir.join("stay.csv");
    // 7 was never notified; 8 was notified 29 days ago; 9 died before notice.
    let rows = [(1, "female", 50, 3), (1, "female", 51, 4), (2, "male", 60, 5), (3, "female", 61, 6)];
    let others = [(7, "female", 1, 9), (8, "female", 1, 9), (9, "female", 1, 9)];
    stays(&csv, &[&rows[..], &others[..]].concat());
    let day = |ago: i64| (clock.today() - Duration::days(ago)).to_string();
    let register = dir.join("register.csv");
    let lines = [
        "patient_id,notified_on,opted_out_on,died_on".to_string(),
        format!("1,{},,", day(31)),
        format!("2,{},,", day(30)),
        format!("3,{},,", day(400)),
        format!("8,{},,", day(29)),
        format!("9,{},,{}", day(40), day(41)),
    ];
    std::fs::write(&register, lines.join("\n") + "\n").unwrap();
    let plan = Plan {
        data: vec![(SCHEMA, mapping("set", &csv, true))],
        register_rule: "jp-ngmia",
        register: Some(&register),
        budget: (5 * RHO, RHO),
    };
    let solo = Solo::build(&dir.join("node"), &plan, Arc::new(clock.clone())).await.unwrap();
    let permit = solo.grant(&solo.permit("study", "stay", &COLUMNS, widen).unwrap()).await.unwrap();
    (solo, permit)
}

#[tokio::test]
async fn counts_before_and_after_differ_by_exactly_those_who_said_no() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let (solo, permit) = hospital(dir.path(), &clock).await;
    let ask = async |run: u32| solo.ask(&solo.query(permit, SQL, RHO, run)).await.unwrap().release;
    let first = ask(1).await;
    assert_eq!(counts(&solo, &first), [[3, 2, 13], [1, 1, 5]]);
    let (register, today) = (&solo.node.register, clock.today());
    register.record("1", EventKind::OptedOut, today, "front-desk", clock.now()).await.unwrap();
    // The next new run is without them; the stored run stays what it was.
    assert_eq!(counts(&solo, &ask(2).await), [[1, 1, 6], [1, 1, 5]]);
    assert_eq!(ask(1).await.digest(), first.digest());
    // A day later 8 has been notified for 30 days.
    clock.pass(Duration::days(1));
    let mut status = solo.status(3);
    status.expires = clock.now() + Duration::days(1);
    solo.put(&status, &[&solo.governance]).await.unwrap();
    assert_eq!(counts(&solo, &ask(3).await), [[2, 2, 15], [1, 1, 5]]);
    register.record("1", EventKind::OptOutWithdrawn, clock.today(), "front-desk", clock.now()).await.unwrap();
    assert_eq!(counts(&solo, &ask(4).await), [[4, 3, 22], [1, 1, 5]]);
}
