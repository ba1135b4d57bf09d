//! Why nothing was charged, and what the asker hears of it.

use sekisho_protocol::{
    refusal::{Code, Refusal},
    units::{AttoDelta, MicroRho},
};

use super::{Decision, MAX_WAITING, Suspended};
use crate::store::StoreError;

/// Why nothing was charged, set aside or stored.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The study's earmark, or the permit's total, does not cover the cost.
    #[error("the study has {left} left at this hospital, and {asked} is asked")]
    Study {
        /// What is left.
        left: MicroRho,
        /// What was asked.
        asked: MicroRho,
    },
    /// The lifetime cap does not cover it.
    #[error("{left} of this hospital's lifetime cap is left for it, and {asked} is asked")]
    Lifetime {
        /// What is left.
        left: MicroRho,
        /// What was asked.
        asked: MicroRho,
    },
    /// The window's cap does not cover it now.
    #[error("{left} is left of what this hospital allows in {days} days, and {asked} is asked")]
    Window {
        /// What is left.
        left: MicroRho,
        /// What was asked.
        asked: MicroRho,
        /// The days of the window.
        days: u32,
    },
    /// The permit's total delta does not cover it.
    #[error("the study has {left} left at this hospital, and {asked} is asked for keys that are not public")]
    StudyDelta {
        /// What is left.
        left: AttoDelta,
        /// What was asked.
        asked: AttoDelta,
    },
    /// The lifetime cap on delta does not cover it.
    #[error("{left} of this hospital's lifetime cap is left, and {asked} is asked for keys that are not public")]
    LifetimeDelta {
        /// What is left.
        left: AttoDelta,
        /// What was asked.
        asked: AttoDelta,
    },
    /// The hospital suspended the study, or everything.
    #[error("{} suspended by this hospital: {reason}", match what { Suspended::Study(study) => format!("study {study} is"), Suspended::Everything => "everything is".into() })]
    Suspended {
        /// What.
        what: Suspended,
        /// Why.
        reason: String,
    },
    /// Too many runs of the study gave no answer.
    #[error("study {study} had too many queries without an answer")]
    Rests {
        /// The study.
        study: String,
    },
    /// The hospital does not answer under the permit.
    #[error("this hospital's answer to the permit is {0}")]
    Permit(Code),
    /// Another message used the nonce.
    #[error("another message used this nonce")]
    ReplayedNonce,
    /// The run has its release.
    #[error("the run has been released; it has one release, ever")]
    AlreadyReleased,
    /// The run is of a database that was lost.
    #[error(
        "this run was charged before the hospital lost its newest database, and its release is not there: ask for another run"
    )]
    Lost,
    /// Too many exact questions of the study wait.
    #[error("{MAX_WAITING} exact questions of study {study} wait here already")]
    ManyWaiting {
        /// The study.
        study: String,
    },
    /// There is no such exact question.
    #[error("there is no request {0}: `sekisho-node exact list` shows those that are")]
    UnknownRequest(i64),
    /// It was decided before.
    #[error("it was {} on {} by {}: {}", decision.decided.as_str(), decision.at.format("%Y-%m-%d"), decision.who, decision.reason)]
    Decided {
        /// The decision.
        decision: Box<Decision>,
    },
    /// Cohorts under two keys cannot be compared.
    #[error(
        "the patients of the earlier exact release {name} are hashed under another key than that of keys/replay.pem: put the old \
         file back; nothing exact is released without it"
    )]
    OtherCohorts {
        /// The release.
        name: String,
    },
    /// There is no such charge.
    #[error("there is no charge of this number")]
    UnknownCharge,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<LedgerError> for Refusal {
    /// What the asker hears. An error of [`Ledger::complete`](super::Ledger::complete) or [`Ledger::fail`](super::Ledger::fail) comes after a charge: its
    /// caller says `no_answer`, whatever it was.
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::Study { .. } | LedgerError::StudyDelta { .. } => {
                Self::new(Code::BudgetStudy, error.to_string())
            }
            LedgerError::Lifetime { .. } | LedgerError::LifetimeDelta { .. } => {
                Self::new(Code::BudgetLifetime, error.to_string())
            }
            LedgerError::Window { .. } => Self::new(Code::BudgetWindow, error.to_string()),
            LedgerError::Suspended { .. } | LedgerError::Rests { .. } => Self::new(Code::Suspended, error.to_string()),
            LedgerError::Permit(code) => Self::new(*code, error.to_string()),
            LedgerError::Lost => Self::new(Code::LedgerRolledBack, error.to_string()),
            LedgerError::ReplayedNonce => Self::new(Code::ReplayedNonce, error.to_string()),
            LedgerError::AlreadyReleased | LedgerError::UnknownCharge => {
                Self::new(Code::NoAnswer, "the run gave no answer")
            }
            LedgerError::ManyWaiting { .. } => Self::new(Code::Busy, error.to_string()),
            // What persons at the hospital meet: no answer is made of them.
            LedgerError::UnknownRequest(_) | LedgerError::Decided { .. } | LedgerError::OtherCohorts { .. } => {
                Self::new(Code::Unavailable, "the hospital's exact results cannot be looked at")
            }
            LedgerError::Store(_) => Self::new(Code::Unavailable, "the hospital's ledger cannot be written"),
        }
    }
}
