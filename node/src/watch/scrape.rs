//! What monitoring reads of a node: its state as it is when it is asked, beside what was counted.
//!
//! Promises: the only names in it are the hospital's own (data sets, rules, checks) and of studies, of which at most
//! [`MAX_STUDIES`] are told one by one. Deliberately absent: patients, persons, opt-outs, rows, and the register's length,
//! which grows with each opt-out; times of queries, which tell of the data.

use std::{cmp::Reverse, sync::Arc};

use sekisho_protocol::{
    refusal::Refusal,
    watching::{Check, MetricsError, Reading, Watched},
};

use crate::{answer::Answering, ledger::LedgerError};

/// The most studies that are told one by one: those that spent most.
pub const MAX_STUDIES: usize = 100;

/// A node as it is watched.
pub struct Scrape(Arc<Answering>);

impl Scrape {
    /// Of this node.
    pub fn of(node: Arc<Answering>) -> Self {
        Self(node)
    }

    /// Roster and status: numbers, and until when they hold.
    async fn documents(&self, reading: &Reading) -> Result<(), MetricsError> {
        let documents = &self.0.documents;
        let seqs = documents.seqs().await.map_err(state)?;
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let sequences = [
            (["committee"], number(seqs.committee)),
            (["governance"], number(seqs.governance)),
            (["roster"], number(seqs.roster)),
            (["status"], number(seqs.status)),
        ];
        let help = "The number of the newest document of a kind that was seen; 0 for none.";
        reading.family("sekisho_node_document_sequence", help, ["document"], sequences)?;
        let now = self.0.clock.now();
        let roster = documents.roster(now).await.map_or(0, |roster| roster.expires.timestamp());
        let status = documents.status(now).await.map_or(0, |status| status.expires.timestamp());
        let help = "Until when a document holds, in seconds since 1970; 0 when it has expired or is not there.";
        let expiries = [(["roster"], roster), (["status"], status)];
        reading.family("sekisho_node_document_expiry_timestamp_seconds", help, ["document"], expiries)?;
        let [accepted, refused, waiting] = documents.permit_counts().await.map_err(state)?.map(number);
        let permits = [(["accepted"], accepted), (["refused"], refused), (["waiting"], waiting)];
        reading.family("sekisho_node_permits", "Permits by this hospital's answer.", ["state"], permits)
    }

    /// What was spent and what is left.
    async fn budgets(&self, reading: &Reading) -> Result<(), MetricsError> {
        let ledger = &self.0.ledger;
        let budget = ledger.budget().await.map_err(state)?;
        let no_labels = |value: u64| [([], value)];
        let lifetime = "sekisho_node_lifetime_micro_rho";
        let help = "What all studies spent, in millionths of rho.";
        reading.counters(&format!("{lifetime}_spent_total"), help, [], no_labels(budget.spent.get()))?;
        reading.gauge(&format!("{lifetime}_cap"), "The lifetime cap, in millionths of rho.", budget.cap.get())?;
        let help = "What is set aside for studies, spent or not, in millionths of rho.";
        reading.gauge(&format!("{lifetime}_earmarked"), help, budget.earmarked.get())?;
        let left = budget.cap.saturating_sub(budget.spent);
        let help = "What is left of the lifetime cap, in millionths of rho.";
        reading.gauge(&format!("{lifetime}_left"), help, left.get())?;
        if let Some(window) = ledger.window(self.0.clock.now()).await.map_err(state)? {
            let help = "What may be spent now of the cap of the time window, in millionths of rho.";
            reading.gauge("sekisho_node_window_micro_rho_left", help, window.left().get())?;
        }
        let since = ledger.exact_since().await.map_err(state)?;
        let help =
            "1 when exact results were released, so that no guarantee of differential privacy holds for the register.";
        reading.gauge("sekisho_node_exact_released", help, u8::from(since.is_some()))?;
        let mut studies = budget.studies;
        reading.gauge("sekisho_node_studies", "Studies for which something is set aside.", studies.len())?;
        studies.sort_by(|a, b| Reverse(a.spent).cmp(&Reverse(b.spent)).then_with(|| a.study_id.cmp(&b.study_id)));
        let untold = studies.len().saturating_sub(MAX_STUDIES);
        let help = "Studies that are not told one by one: those that spent least.";
        reading.gauge("sekisho_node_studies_unlabelled", help, untold)?;
        studies.truncate(MAX_STUDIES);
        let amount = |rho: u64| i64::try_from(rho).unwrap_or(i64::MAX);
        let spent = studies.iter().map(|s| ([s.study_id.as_str()], s.spent.get()));
        let help = "What a study spent, in millionths of rho.";
        reading.counters("sekisho_node_study_micro_rho_spent_total", help, ["study"], spent)?;
        let left = studies.iter().map(|s| ([s.study_id.as_str()], amount(s.earmark.saturating_sub(s.spent).get())));
        let help = "What is left of what is set aside for a study, in millionths of rho.";
        reading.family("sekisho_node_study_micro_rho_left", help, ["study"], left)?;
        let rests = studies.iter().map(|s| ([s.study_id.as_str()], i64::from(s.suspended)));
        let help = "1 when the hospital answers no query of a study: it is suspended, or rests.";
        reading.family("sekisho_node_study_suspended", help, ["study"], rests)
    }
}

fn state(error: impl std::fmt::Display) -> MetricsError {
    MetricsError::State(error.to_string())
}

impl Watched for Scrape {
    async fn metrics(&self) -> Result<String, MetricsError> {
        let node = &self.0;
        let reading = Reading::of("sekisho_node_build_info", env!("CARGO_PKG_VERSION"))?;
        let checks = self.checks().await;
        let well = checks.iter().map(|check| ([check.name], i64::from(check.fault.is_none())));
        let help = "What /readyz looks at: 1 when it is well.";
        reading.family("sekisho_node_check_ok", help, ["check"], well)?;
        self.documents(&reading).await?;
        self.budgets(&reading).await?;
        let (taken, most) = node.slots.taken();
        reading.gauge("sekisho_node_slots", "How many queries may be worked on at once.", most)?;
        reading.gauge("sekisho_node_slots_used", "How many queries are worked on, or wait to leave.", taken)?;
        let held = node.data.iter().filter_map(|set| Some((set, set.held_since().ok()?)));
        let taken = held.map(|(set, at)| ([set.mapping().id()], at.timestamp()));
        let help = "When the snapshot of a data set was taken, in seconds since 1970.";
        reading.family("sekisho_node_snapshot_timestamp_seconds", help, ["data_set"], taken)?;
        let entries = node.ledger.log().len().await.map_err(state)?;
        reading.counters("sekisho_node_log_entries_total", "Entries of the log.", [], [([], entries)])?;
        reading.text(node.watch.meters.registry())
    }

    /// Database, data sets, roster, status, and the coordinator.
    async fn checks(&self) -> Vec<Check> {
        let (node, now) = (&self.0, self.0.clock.now());
        let data = || -> Result<(), Refusal> { node.data.iter().try_for_each(|set| set.held_since().map(drop)) };
        let words = |refusal: Refusal| refusal.detail;
        let written: Result<(), LedgerError> = node.ledger.writable().await;
        let reached = if node.watch.is_reached() { Ok(()) } else { Err("the coordinator is not reached") };
        vec![
            Check::of("database", written),
            Check::of("data_sets", data().map_err(words)),
            Check::of("roster", node.documents.roster(now).await.map(drop).map_err(words)),
            Check::of("status", node.documents.status(now).await.map(drop).map_err(words)),
            Check::of("coordinator", reached),
        ]
    }
}
