//! What a node signs for its log: a charged run without an answer, a version of the hospital's policy, and what a lost log is
//! taken to have charged.
//!
//! None of them leaves the hospital with an answer; the last one goes to the coordinator once. Why a run gave no answer is not
//! said here: that could tell of data.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    log::{
        checkpoint::{SignedCheckpoint, successor, whose},
        note::KeyName,
    },
    receipt::MAX_REASON,
    refusal::Code,
    roster::is_name,
    units::{AttoDelta, MicroRho},
};

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

/// The most studies that a write-off names: it fits into one control frame.
pub const MAX_WRITTEN_OFF: usize = 100;

/// What a study is charged for runs that are in a lost log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenOff {
    /// The study.
    pub study_id: String,
    /// How many of the hospital's own receipts came back.
    pub receipts: u32,
    /// What they tell that was charged, in micro-rho.
    pub micro_rho: MicroRho,
    /// And in delta (10^-18).
    pub atto_delta: AttoDelta,
    /// What is charged beside it for what nobody has a receipt of, in micro-rho.
    pub further_micro_rho: MicroRho,
}

/// A hospital's account of a log that it lost: its database was put back from an older copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteOff {
    /// The hospital, by roster name.
    pub node: String,
    /// The newest checkpoint of the lost log that the network has, as the hospital signed it.
    pub lost: String,
    /// The name of the log that goes on in its place, and has this as its first new entry.
    pub log: String,
    /// How many entries of the lost log that log begins with, as far as the hospital knows: those of the older copy.
    pub kept: u64,
    /// The studies that are charged.
    pub studies: Vec<WrittenOff>,
    /// Whoever wrote it off says that notices and refusals of patients which were recorded since the copy are recorded again.
    pub register_restored: bool,
    /// Who wrote it off.
    pub by: String,
    /// Why the copy was put back.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl WriteOff {
    /// The newest checkpoint of the lost log; its signature is to be checked.
    ///
    /// # Errors
    /// A sentence, when it is no checkpoint of this member's log, or `log` is not the name of the next one.
    pub fn lost(&self) -> Result<(SignedCheckpoint, KeyName), String> {
        let lost = SignedCheckpoint::parse(self.lost.as_bytes()).map_err(|error| error.to_string())?;
        let origin = lost.claimed().origin();
        let next = successor(origin).map_err(|error| error.to_string())?;
        if whose(origin).is_none_or(|whose| whose.member != self.node) || next.as_str() != self.log {
            return Err("lost is of another member's log, or log is not the name of the one after it".into());
        }
        Ok((lost, next))
    }
}

impl Document for WriteOff {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.write_off.v1+json";
    const NAME: &'static str = "write-off";
    const MAX_BYTES: usize = 36 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
        let line = |text: &String| {
            !text.trim().is_empty() && text.chars().count() <= MAX_REASON && !text.chars().any(char::is_control)
        };
        self.lost()?;
        rule(self.lost.len() <= 8 << 10, "lost has at most 8 KiB")?;
        rule(line(&self.by) && line(&self.reason), "by and reason are one line of 1 to 500 characters")?;
        rule(self.studies.len() <= MAX_WRITTEN_OFF, "at most 100 studies are written off")?;
        rule(
            self.studies.iter().all(|study| is_name(&study.study_id)),
            "study_id is lower-case letters, digits, hyphens",
        )?;
        rule(self.studies.is_sorted_by(|a, b| a.study_id < b.study_id), "studies are sorted, each once")?;
        rule(self.register_restored, "register_restored is true: the patients' refusals come first")
    }
}
