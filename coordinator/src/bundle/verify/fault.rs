//! Why a link does not hold.

use sekisho_aggregation::{combine::CombineError, release::NotARelease};
use sekisho_protocol::{
    dsse::DsseError,
    log::{checkpoint::CheckpointError, entry::EntryError, policy::TrustError, proof::InclusionError},
    refusal::Refusal,
};

use super::super::{describe::DescribeError, stated::StatedError};
use crate::result::ResultError;

/// What one check found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A file.
    #[error("the file {0} is missing")]
    Missing(String),
    /// A file that no check looked at.
    #[error("no check of a bundle reads this file")]
    Unread,
    /// A description that was not made of these files.
    #[error("{0} is not that of these files{1}")]
    NotOfThese(&'static str, String),
    /// A signed document.
    #[error(transparent)]
    Document(#[from] DsseError),
    /// A document by the rules of its chain, or a question.
    #[error("{}", .0.detail)]
    Refused(#[from] Refusal),
    /// Two things that must be the same.
    #[error("its {0} is another than that of {1}")]
    Differs(&'static str, &'static str),
    /// A rule in words.
    #[error("{0}")]
    Rule(String),
    /// No roster names a key.
    #[error("no roster in the bundle names {0}, or the status voids its key")]
    NoKey(String),
    /// A number of a table.
    #[error("{0}")]
    Cell(String),
    /// The bytes of a file.
    #[error("the bytes of {0} are not those that the coordinator signed")]
    Bytes(String),
    /// A release.
    #[error(transparent)]
    Release(#[from] NotARelease),
    /// Releases and the plan.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// The tables.
    #[error(transparent)]
    Tables(#[from] ResultError),
    /// The files of a result.
    #[error(transparent)]
    Stated(#[from] StatedError),
    /// JSON.
    #[error("{0} is not what it should be: {1}")]
    Json(&'static str, serde_json::Error),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint that is not good enough.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A proof.
    #[error(transparent)]
    Proof(#[from] InclusionError),
    /// What opens an entry.
    #[error(transparent)]
    Opening(#[from] EntryError),
    /// The description.
    #[error(transparent)]
    Describe(#[from] DescribeError),
}

/// That two things are the same.
pub(super) fn same<T: PartialEq>(one: &T, other: &T, what: &'static str, of: &'static str) -> Result<(), Fault> {
    if one == other { Ok(()) } else { Err(Fault::Differs(what, of)) }
}

/// That a rule holds.
pub(super) fn rule(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Rule(otherwise())) }
}
