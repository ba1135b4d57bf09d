//! A patient's status as JSON: what the command prints and the local endpoint answers.

use chrono::NaiveDate;
use sekisho_protocol::permit::{OptOut, OptOutRule};
use serde_json::{Value, json};

use super::{Event, PatientStatus, RegisterError};

/// The name of a rule, as configurations and permits write it.
pub const fn rule_name(rule: OptOutRule) -> &'static str {
    match rule {
        OptOutRule::JpNgmia => "jp-ngmia",
        OptOutRule::EuEhds => "eu-ehds",
    }
}

impl PatientStatus {
    /// Whether and since when the patient counts under the hospital's `rule` on the day `as_of`, and every event.
    ///
    /// # Errors
    /// None that a rule given here can cause; the type is that of [`standing`](Self::standing).
    pub fn to_json(&self, rule: OptOut, as_of: NaiveDate) -> Result<Value, RegisterError> {
        let standing = self.standing(&[rule], as_of)?;
        Ok(json!({
            "known": !self.events.is_empty(),
            "as_of": as_of,
            "counts": standing.counts,
            "since": standing.since,
            "until": standing.until,
            "rule": {"name": rule_name(rule.rule), "days": rule.days},
            "events": self.events.iter().map(event).collect::<Vec<_>>(),
        }))
    }
}

fn event(event: &Event) -> Value {
    json!({
        "seq": event.seq, "event": event.kind.as_str(), "on": event.on,
        "said_by": event.said_by.map(super::SaidBy::as_str), "by": event.by, "recorded_at": event.recorded_at,
    })
}
