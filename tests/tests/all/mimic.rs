//! MIMIC-IV demo in OMOP (ODbL): ids are signed 64-bit, and one patient owns 6,967 visit_detail rows.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::units::MicroRho;
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{TestClock, real_data};

const SCHEMA: &str = r#"{"id":"omop","version":1,"title":"OMOP visit details","tables":[
    {"name":"visit_detail","patient":"person_id","columns":[
        {"name":"person_id","type":"int64"},
        {"name":"visit_detail_start_date","type":"date"}]}]}"#;
const RHO: u64 = 1_000_000_000_000;

/// Rows of each person, read by hand.
fn rows_per_person(gz: &std::path::Path) -> BTreeMap<i64, u64> {
    let output = std::process::Command::new("gzip").arg("-dc").arg(gz).output().unwrap();
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().skip(1) {
        *rows.entry(line.split(',').nth(1).unwrap().parse().unwrap()).or_default() += 1;
    }
    rows
}

#[tokio::test]
async fn a_patient_with_thousands_of_rows_counts_as_the_bound_says() {
    let Some(data) = real_data("mimic4-demo-omop53") else { return };
    let mut largest = 0;
    for site in ["site_A", "site_B", "site_C"] {
        let source = data.join(site).join("visit_detail.csv.gz");
        let rows = rows_per_person(&source);
        largest = largest.max(*rows.values().max().unwrap());
        assert!(rows.keys().any(|id| *id < 0), "ids are signed");
        let dir = tempfile::tempdir().unwrap();
        let mapping = format!(
            "id = \"mimic\"\nsynthetic = true\n[tables.visit_detail]\nsource = {source:?}\n[tables.visit_detail.columns]\n\
             person_id = \"person_id\"\nvisit_detail_start_date = \"visit_detail_start_date\"\n"
        );
        let plan =
            Plan { data: vec![(SCHEMA, mapping)], register_rule: "eu-ehds", register: None, budget: (10 * RHO, RHO) };
        let solo = Solo::build(dir.path(), &plan, Arc::new(TestClock::new())).await.unwrap();
        for k in [10_u64, 100_000] {
            let permit = solo.permit(&format!("study-{k}"), "visit_detail", &["visit_detail_start_date"], |p| {
                p["dp"]["rows_per_patient"] = k.into();
                p["dp"]["micro_rho_per_query"] = RHO.into();
                p["dp"]["micro_rho_total"] = RHO.into();
            });
            let permit = permit.unwrap();
            let digest = solo.grant(&permit).await.unwrap();
            let sql = "SELECT count(*) AS n, count(DISTINCT person_id) AS p FROM visit_detail";
            let release = solo.ask(&solo.query(digest, sql, RHO, 1)).await.unwrap().release;
            let schema = serde_json::from_str(SCHEMA).unwrap();
            let plan = PrivatePlan::analyse(sql, &schema, &permit, MicroRho::try_from(RHO).unwrap()).unwrap();
            let part = &plan.parts()[0];
            #[expect(clippy::cast_precision_loss)]
            let got = |m: usize| release.parts()[0][m][0] as f64 / part.unit(&part.measures()[m]) as f64;
            let want: u64 = rows.values().map(|n| *n.min(&k)).sum();
            #[expect(clippy::cast_precision_loss)]
            let (want, patients) = (want as f64, rows.len() as f64);
            // At k = 100,000 one patient may move the count by 100,000, and noise says so.
            let noise = if k == 10 { 0.05 } else { 500.0 };
            assert!((got(0) - want).abs() < noise, "{site}, k = {k}: {} and not {want}", got(0));
            assert!((got(1) - patients).abs() < 0.5, "{site}: {} patients and not {patients}", got(1));
        }
    }
    assert_eq!(largest, 6967);
}
