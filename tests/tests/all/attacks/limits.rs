//! Experiments.

use std::sync::Arc;

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::units::MicroRho;
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};

fn mem(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// SQLs of a file, parted by lines of `--`.
#[tokio::test(flavor = "multi_thread")]
async fn experiments() {
    let Ok(file) = std::env::var("SQLS") else { return };
    let text = std::fs::read_to_string(file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("stay.csv");
    stays(&csv, &(0..2000).map(|i| (i, "female", 50, if i == 77 { 7 } else { 3 })).collect::<Vec<_>>());
    let plan = Plan { data: vec![(SCHEMA, mapping("set", &csv, false))], register_rule: "eu-ehds", register: None, budget: (10_000_000, 1_000_000) };
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
    let granted = solo.permit("study", "stay", &COLUMNS, |p| {
        p["allowed_statistics"] = serde_json::json!(["count", "count_distinct", "sum", "avg", "variance", "covariance", "quantile", "extreme"]);
    }).unwrap();
    let permit = solo.grant(&granted).await.unwrap();
    let mut schema: sekisho_protocol::schema::Schema = serde_json::from_str(SCHEMA).unwrap();
    for sql in text.split("\n--\n") {
        let sql = sql.trim();
        eprintln!("== {}", sql.chars().take(150).collect::<String>().replace('\n', " "));
        let now = std::time::Instant::now();
        let (s, g, sch): (String, _, sekisho_protocol::schema::Schema) = (sql.to_string(), granted.clone(), schema);
        let planned = std::thread::Builder::new().stack_size(64 << 20).spawn(move || {
            let p = PrivatePlan::analyse(&s, &sch, &g, MicroRho::try_from(5000).unwrap());
            (p, sch)
        }).unwrap().join().unwrap();
        schema = planned.1;
        let plan = match planned.0 {
            Err(refusal) => { eprintln!("   refused after {:?}: {refusal}", now.elapsed()); continue }
            Ok(plan) => plan,
        };
        eprintln!("   planned after {:?}: {} cells", now.elapsed(), plan.cells());
        if std::env::var("ROWS").is_ok() { eprintln!("{}", plan.parts()[0].rows().display_indent()); }
        let now = std::time::Instant::now();
        let answer = solo.ask(&solo.query(permit, sql, 5000, 1)).await;
        eprintln!("   node: {:?} after {:?}, peak {} MB", answer.as_ref().map(|_| ()), now.elapsed(), mem("VmHWM"));
        if let Ok(answer) = answer {
            let now = std::time::Instant::now();
            let report = serde_json::from_value(serde_json::json!({
                "round": "r", "permit": permit, "query": permit, "run": 1, "at": "2026-01-01T00:00:00Z", "complete": true,
                "confidence": 0.95, "preset": "none", "synthetic": false, "method": "m",
                "privacy": sekisho_coordinator::result::privacy(&plan, &granted), "bites": [], "suppressed_cells": 0, "holders": []
            })).unwrap();
            let made = sekisho_coordinator::result::tables(&plan, report, &[("h", &answer.release)]).await;
            eprintln!("   coordinator: {:?} after {:?}, peak {} MB", made.map(|(_, b)| b.iter().map(|b| b.num_rows()).collect::<Vec<_>>()).map_err(|e| e.to_string().chars().take(300).collect::<String>()), now.elapsed(), mem("VmHWM"));
        }
    }
}
