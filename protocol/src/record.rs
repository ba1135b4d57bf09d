//! What a node signs for its log alone: a charged run without an answer, and a version of the hospital's policy.
//!
//! Neither leaves the hospital with an answer. Why a run gave no answer is not said here either: that could tell of data.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, refusal::Code};

/// A run that was charged and gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalRecord {
    /// The hospital, by roster name.
    pub node: String,
    /// The permit, by digest.
    pub permit: Digest,
    /// The signed query, by digest.
    pub query: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// What the asker was told.
    pub code: Code,
    /// When.
    pub at: DateTime<Utc>,
}

impl Document for RefusalRecord {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.refusal.v1+json";
    const NAME: &'static str = "refusal";
    const MAX_BYTES: usize = 16 << 10;

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A version of a hospital's policy, from when on it decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRecord {
    /// The hospital, by roster name.
    pub node: String,
    /// The text of the policy, as it was read.
    pub policy: String,
    /// The software that decided by it.
    pub software: String,
    /// When the node started with it.
    pub at: DateTime<Utc>,
}

impl Document for PolicyRecord {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.policy.v1+json";
    const NAME: &'static str = "policy";
    const MAX_BYTES: usize = 2 << 20;

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
