//! What monitoring reads of the coordinator: its state as it is when it is asked.
//!
//! Promises: every number comes from the database or from what runs now, and every label has few values, all of them ours.
//! Deliberately absent: who asked, what was asked, and anything of a result.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sekisho_protocol::{
    clock::Clock,
    refusal::Refusal,
    watching::{Check, MetricsError, Reading, Watched},
};

use crate::{documents::Documents, network::Nodes, round::Rounds, store::Store};

/// A coordinator as it is watched.
pub struct Scrape {
    /// What it was handed.
    pub documents: Arc<Documents>,
    /// The hospitals.
    pub nodes: Arc<Nodes>,
    /// What it asks.
    pub rounds: Arc<Rounds>,
    /// Its database.
    pub store: Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What still runs.
    pub running: Arc<Parts>,
}

/// Whether the parts of a coordinator run.
#[derive(Debug, Default)]
pub struct Parts {
    door: AtomicBool,
    transport: AtomicBool,
}

/// A part that runs, until this is dropped.
pub struct Runs<'a>(&'a AtomicBool);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Parts {
    /// The door is served.
    pub fn door(&self) -> Runs<'_> {
        runs(&self.door)
    }

    /// Nodes are served.
    pub fn transport(&self) -> Runs<'_> {
        runs(&self.transport)
    }
}

fn runs(part: &AtomicBool) -> Runs<'_> {
    part.store(true, Ordering::Relaxed);
    Runs(part)
}

fn check(name: &'static str, runs: &AtomicBool) -> Check {
    Check::of(name, if runs.load(Ordering::Relaxed) { Ok(()) } else { Err("it has stopped") })
}

fn number<N: TryInto<i64>>(number: N) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

impl Watched for Scrape {
    async fn metrics(&self) -> Result<String, MetricsError> {
        let reading = Reading::of("sekisho_coordinator_build_info", env!("CARGO_PKG_VERSION"))?;
        let checks = self.checks().await;
        let well = checks.iter().map(|check| ([check.name], i64::from(check.fault.is_none())));
        let help = "What /readyz looks at: 1 when it is well.";
        reading.family("sekisho_coordinator_check_ok", help, ["check"], well)?;
        let (network, now) = (self.nodes.report(), self.clock.now());
        let connected = network.members.iter().filter(|member| member.connected).count();
        reading.gauge("sekisho_coordinator_nodes", "Nodes on the roster.", network.members.len())?;
        reading.gauge("sekisho_coordinator_nodes_connected", "Nodes that are connected now.", connected)?;
        let current = self.documents.current();
        let sequences = [(["roster"], number(network.roster_seq)), (["status"], number(network.status_seq))];
        let help = "The number of the newest document of a kind; 0 for none.";
        reading.family("sekisho_coordinator_document_sequence", help, ["document"], sequences)?;
        let roster = current.roster(now).map_or(0, |roster| roster.expires.timestamp());
        let status = current.status(now).map_or(0, |status| status.expires.timestamp());
        let help = "Until when a document holds, in seconds since 1970; 0 when it has expired or is not there.";
        let expiries = [(["roster"], roster), (["status"], status)];
        reading.family("sekisho_coordinator_document_expiry_timestamp_seconds", help, ["document"], expiries)?;
        let failed = |error: crate::store::StoreError| MetricsError::State(error.to_string());
        let kept = self.store.counts().await.map_err(failed)?;
        let help = "Documents that are kept, by kind.";
        let documents = kept.documents.iter().map(|(kind, count)| ([kind.as_str()], number(*count)));
        reading.family("sekisho_coordinator_documents", help, ["kind"], documents)?;
        let help = "Rounds that have ended, by how: done, or interrupted when the coordinator stopped or gave up.";
        let ended = [(["done"], kept.rounds_done), (["interrupted"], kept.rounds_interrupted)];
        reading.counters("sekisho_coordinator_rounds_total", help, ["outcome"], ended)?;
        let (taken, most) = self.rounds.taken();
        reading.gauge("sekisho_coordinator_slots", "How many queries may run at once.", most)?;
        reading.gauge("sekisho_coordinator_slots_used", "How many queries and dry runs are running.", taken)?;
        let help = "Results that wait for two reviewers, or waited.";
        reading.counters("sekisho_coordinator_results_held_total", help, [], [([], kept.held)])?;
        reading.text(&Default::default())
    }

    async fn checks(&self) -> Vec<Check> {
        let (current, now) = (self.documents.current(), self.clock.now());
        let words = |refusal: Refusal| refusal.detail;
        vec![
            Check::of("database", self.store.writable().await),
            check("door", &self.running.door),
            check("transport", &self.running.transport),
            Check::of("roster", current.roster(now).map(drop).map_err(words)),
            Check::of("status", current.status(now).map(drop).map_err(words)),
        ]
    }
}
