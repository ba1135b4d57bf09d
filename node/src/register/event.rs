//! What happened to a patient, and who said so.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, Utc};

use crate::store::StoreError;

/// What happened to a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    const ALL: [Self; 4] = [Self::Notified, Self::OptedOut, Self::OptOutWithdrawn, Self::Died];

    /// The name in the database, in files and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notified => "notified",
            Self::OptedOut => "opted_out",
            Self::OptOutWithdrawn => "opt_out_withdrawn",
            Self::Died => "died",
        }
    }

    /// The name for people in Japan; files may have it.
    pub const fn japanese(self) -> &'static str {
        match self {
            Self::Notified => "通知",
            Self::OptedOut => "利用停止",
            Self::OptOutWithdrawn => "利用停止の撤回",
            Self::Died => "死亡",
        }
    }

    pub(super) fn read(text: &str) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(StoreError::Corrupt("register event"))
    }
}

impl FromStr for EventKind {
    type Err = &'static str;

    /// Reads the English or the Japanese name.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::ALL.into_iter().find(|kind| text == kind.as_str() || text == kind.japanese()).ok_or(
            "an event is none of notified, opted_out, opt_out_withdrawn, died (通知, 利用停止, 利用停止の撤回, 死亡)",
        )
    }
}

/// Who said that a patient opts out, or takes it back. Under NGMIA it is the patient, who acts for them, or their bereaved family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaidBy {
    /// The patient.
    Patient,
    /// A guardian, or another legal representative.
    Guardian,
    /// The family of a patient who died.
    Bereaved,
}

impl SaidBy {
    const ALL: [Self; 3] = [Self::Patient, Self::Guardian, Self::Bereaved];

    /// The name in the database, in files and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patient => "self",
            Self::Guardian => "guardian",
            Self::Bereaved => "bereaved",
        }
    }

    /// The name for people in Japan; files may have it.
    pub const fn japanese(self) -> &'static str {
        match self {
            Self::Patient => "本人",
            Self::Guardian => "代理人",
            Self::Bereaved => "遺族",
        }
    }

    pub(super) fn read(text: &str) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|who| who.as_str() == text).ok_or(StoreError::Corrupt("register event"))
    }
}

impl FromStr for SaidBy {
    type Err = &'static str;

    /// Reads the English or the Japanese name.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::ALL
            .into_iter()
            .find(|who| text == who.as_str() || text == who.japanese())
            .ok_or("said_by is none of self, guardian, bereaved (本人, 代理人, 遺族)")
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
    /// Who said so, where it is known.
    pub said_by: Option<SaidBy>,
    /// Who recorded it.
    pub by: String,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}
