//! Attacks that no other test of this folder shows, each against a node's own code; docs/attacks.md has them all by name.
//!
//! What a hostile coordinator, hospital or person can do to documents, logs and connections is in `refusals`, `lifetime`, `pins`,
//! `log`, `wire` and `kill`; what noise hides is in `distinguish`.

mod asking;
mod exhausting;
mod released;

use std::sync::Arc;

use sekisho_protocol::{digest::Digest, permit::Permit, refusal::Code};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping};
use serde_json::{Value, json};

/// A hospital over one table of stays, with a permit.
struct Hospital {
    solo: Solo,
    granted: Permit,
    permit: Digest,
    dir: tempfile::TempDir,
}

/// Everybody but the patient whom the attacks are about.
fn others() -> String {
    (1..=200).map(|id| format!("{id},{},{},{},1,E11\n", ["female", "male"][id % 2], id % 90, id % 40)).collect()
}

impl Hospital {
    /// Over these rows, below the heading; `change` changes the permit.
    async fn of(rows: &str, change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stay.csv");
        std::fs::write(&csv, format!("patient_id,sex,age,days,free,note\n{rows}")).unwrap();
        let data = vec![(SCHEMA, mapping("set", &csv, false))];
        let plan = Plan { data, register_rule: "eu-ehds", register: None, budget: (10_000_000, 1_000_000) };
        let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
        let permit = solo.permit("study", "stay", &COLUMNS, |p| {
            p["allowed_statistics"] =
                json!(["count", "count_distinct", "sum", "avg", "variance", "covariance", "quantile", "extreme"]);
            change(p);
        });
        let granted = permit.unwrap();
        let permit = solo.grant(&granted).await.unwrap();
        Self { solo, granted, permit, dir }
    }

    async fn code(&self, permit: Digest, sql: &str, micro_rho: u64, run: u32) -> Result<(), Code> {
        let answer = self.solo.ask(&self.solo.query(permit, sql, micro_rho, run)).await;
        answer.map(|_| ()).map_err(|refusal| refusal.code)
    }

    async fn spent(&self) -> u64 {
        self.solo.node.ledger.budget().await.unwrap().spent.get()
    }
}
