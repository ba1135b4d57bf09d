//! What is counted as it happens, since the process started.
//!
//! Every label has few values, all of them ours. Deliberately absent: how long anything took, and how many rows or patients
//! anything touched.

use prometheus::{IntCounterVec, Opts, Registry};
use sekisho_protocol::{alert::Rule, refusal::Code};

use super::Asked;

/// The counters of a node.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    queries: IntCounterVec,
    dry_runs: IntCounterVec,
    alerts: IntCounterVec,
    unrecorded: IntCounterVec,
    suspensions: IntCounterVec,
}

impl Meters {
    /// Counters that stand at nothing.
    ///
    /// # Errors
    /// When a name is none.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let meters = Self {
            queries: counter(
                "sekisho_node_queries_total",
                "Queries by what became of them; counted when the answer leaves.",
                &["outcome", "code"],
            )?,
            dry_runs: counter("sekisho_node_dry_runs_total", "Dry runs by what became of them.", &["outcome", "code"])?,
            alerts: counter("sekisho_node_alerts_total", "Alerts that were written to the log.", &["rule"])?,
            unrecorded: counter(
                "sekisho_node_alerts_unrecorded_total",
                "Times that a rule spoke and no alert was written: it had spoken a while ago, or the day's alerts are used up.",
                &["rule"],
            )?,
            suspensions: counter("sekisho_node_suspensions_total", "Studies that a rule suspended.", &["rule"])?,
            registry,
        };
        // What may never happen is there from the start: a rate over nothing is nothing, not absent.
        for rule in Rule::ALL {
            for counter in [&meters.alerts, &meters.unrecorded, &meters.suspensions] {
                counter.get_metric_with_label_values(&[rule.as_str()])?;
            }
        }
        for (outcome, code) in [("answered", ""), ("no_answer", Code::NoAnswer.as_str())] {
            meters.queries.get_metric_with_label_values(&[outcome, code])?;
        }
        meters.dry_runs.get_metric_with_label_values(&["allowed", ""])?;
        Ok(meters)
    }

    /// All of them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn asked(&self, asked: Asked, refused: Option<Code>) {
        let (counter, well) = match asked {
            Asked::Query => (&self.queries, "answered"),
            Asked::DryRun => (&self.dry_runs, "allowed"),
        };
        let outcome = match refused {
            None => well,
            Some(Code::NoAnswer) => "no_answer",
            Some(_) => "refused",
        };
        counter.with_label_values(&[outcome, refused.map_or("", Code::as_str)]).inc();
    }

    pub(super) fn spoke(&self, rule: Rule, alert: bool, suspend: bool) {
        if alert { &self.alerts } else { &self.unrecorded }.with_label_values(&[rule.as_str()]).inc();
        if suspend {
            self.suspensions.with_label_values(&[rule.as_str()]).inc();
        }
    }
}
