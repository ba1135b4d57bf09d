//! What happened to a patient, and what that makes of them on a given day.

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::permit::OptOut;

use super::{
    RegisterError,
    eligible::{History, Rule},
};
use crate::store::StoreError;

/// What happened to a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Was told of the use of their records.
    Notified,
    /// Said no.
    OptedOut,
    /// Took the no back.
    OptOutWithdrawn,
    /// Died.
    Died,
}

impl EventKind {
    /// The name in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notified => "notified",
            Self::OptedOut => "opted_out",
            Self::OptOutWithdrawn => "opt_out_withdrawn",
            Self::Died => "died",
        }
    }

    pub(super) fn read(text: &str) -> Result<Self, StoreError> {
        [Self::Notified, Self::OptedOut, Self::OptOutWithdrawn, Self::Died]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(StoreError::Corrupt("register event"))
    }
}

/// One event of one patient, without the patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the register, from 1.
    pub seq: i64,
    /// What happened.
    pub kind: EventKind,
    /// From which day on it counts.
    pub on: NaiveDate,
    /// Who recorded it.
    pub by: String,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// What the register knows of one patient, for the hospital's own screen.
#[derive(Clone, Debug)]
pub struct PatientStatus {
    /// Every event, in the order of recording.
    pub events: Vec<Event>,
}

impl PatientStatus {
    /// The first day on which the patient is known to have been told.
    pub fn notified_on(&self) -> Option<NaiveDate> {
        self.history().notified
    }

    /// The day of death, if one is recorded.
    pub fn died_on(&self) -> Option<NaiveDate> {
        self.history().died
    }

    /// Whether an opt-out acts on the day `as_of`.
    pub fn opted_out(&self, as_of: NaiveDate) -> bool {
        self.history().opted_out(as_of)
    }

    /// Whether the patient is eligible under all `rules` on the day `as_of`.
    ///
    /// # Errors
    /// [`RegisterError::NoRule`] when there is no rule.
    pub fn eligible(&self, rules: &[OptOut], as_of: NaiveDate) -> Result<bool, RegisterError> {
        Ok(Rule::of(rules)?.admits(&self.history(), as_of))
    }

    fn history(&self) -> History {
        let mut history = History::default();
        self.events.iter().for_each(|e| history.add(e.seq, e.kind, e.on));
        history
    }
}
