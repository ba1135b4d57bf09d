//! The engine's cells against a plain count of the same rows, through snapshot, register and fold of a real node.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::units::MicroRho;
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};

const RHO: u64 = 1_000_000_000_000_000;
const SQL: &str =
    "SELECT sex, count(*) AS n, sum(days) AS d, count(DISTINCT patient_id) AS p FROM stay WHERE age > 20 GROUP BY sex";

/// What the bounds make of the rows: each of a patient's c rows counts min(1, k/c), over all sexes together.
fn expected(rows: &[(i64, &'static str, i64, i64)], k: f64) -> BTreeMap<&'static str, [f64; 3]> {
    let mut patients: BTreeMap<i64, Vec<(&str, i64)>> = BTreeMap::new();
    for (id, sex, _, days) in rows.iter().filter(|r| r.2 > 20) {
        patients.entry(*id).or_default().push((sex, *days));
    }
    let mut cells = BTreeMap::from([("female", [0.0; 3]), ("male", [0.0; 3])]);
    for rows in patients.values() {
        #[expect(clippy::cast_precision_loss)]
        let weight = (k / rows.len() as f64).min(1.0);
        for sex in ["female", "male"] {
            let cell = cells.get_mut(sex).unwrap();
            let here = rows.iter().filter(|r| r.0 == sex);
            #[expect(clippy::cast_precision_loss)]
            for (_, days) in here.clone() {
                cell[0] += weight;
                cell[1] += weight * (*days).clamp(0, 100) as f64;
            }
            cell[2] += f64::from(u8::from(here.count() > 0));
        }
    }
    cells
}

#[tokio::test]
async fn released_cells_are_the_weighted_statistics_of_any_rows() {
    let row = (1_i64..40, proptest::bool::ANY, 0_i64..100, -50_i64..200);
    let row = row.prop_map(|(id, sex, age, days)| (id, if sex { "female" } else { "male" }, age, days));
    let rows = proptest::collection::vec(row, 1..400);
    let mut runner = TestRunner::deterministic();
    for case in 0..6 {
        let rows = rows.new_tree(&mut runner).unwrap().current();
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stay.csv");
        stays(&csv, &rows);
        let plan = Plan {
            data: vec![(SCHEMA, mapping("set", &csv, true))],
            register_rule: "eu-ehds",
            register: None,
            budget: (RHO, RHO),
        };
        let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
        let permit = solo.permit("study", "stay", &COLUMNS, |p| {
            p["dp"]["micro_rho_per_query"] = RHO.into();
            p["dp"]["micro_rho_total"] = RHO.into();
        });
        let permit = permit.unwrap();
        let digest = solo.grant(&permit).await.unwrap();
        let release = solo.ask(&solo.query(digest, SQL, RHO, 1)).await.unwrap().release;
        let schema = serde_json::from_str(SCHEMA).unwrap();
        let plan = PrivatePlan::analyse(SQL, &schema, &permit, MicroRho::try_from(RHO).unwrap()).unwrap();
        let part = &plan.parts()[0];
        for (sex, place) in [("female", 0), ("male", 1)] {
            let want = expected(&rows, 5.0)[sex];
            for (measure, want) in want.into_iter().enumerate() {
                #[expect(clippy::cast_precision_loss)]
                let got = release.parts()[0][measure][place] as f64 / part.unit(&part.measures()[measure]) as f64;
                // The noise's standard deviation is 0.02 for days, and far less for counts.
                assert!((got - want).abs() < 0.2, "case {case}, {sex}, measure {measure}: {got} and not {want}");
            }
        }
    }
}
