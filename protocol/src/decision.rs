//! `decision/1`: a committee's refusal of an application, signed by its quorum. What is granted is a permit.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    permit::{Basis, MAX_ENTRIES},
    review::MAX_REASONS,
    roster::is_name,
};

/// What was decided: a grant is a `permit/1` and has no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The application is refused.
    Refused,
}

/// The refusal of one version of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedApplication {
    /// The application's id.
    pub application: String,
    /// The version.
    pub version: u32,
    /// That version's digest.
    pub digest: Digest,
    /// The legal basis on which it was asked.
    pub basis: Basis,
    /// What was decided.
    pub outcome: Outcome,
    /// Why, in public.
    pub reasons: String,
    /// The day of the decision.
    pub date: NaiveDate,
    /// Members who declared a conflict of interest, by the fingerprint of their key: their signatures do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recused: Vec<Digest>,
}

impl Document for RefusedApplication {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.decision.v1+json";
    const NAME: &'static str = "decision";
    const MAX_BYTES: usize = 256 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(is_name(&self.application), "application is an application's id")?;
        rule(self.version >= 1, "version counts from 1")?;
        rule(!self.reasons.trim().is_empty() && self.reasons.len() <= MAX_REASONS, "reasons have 1 to 16384 bytes")?;
        rule(self.recused.len() <= MAX_ENTRIES, "recused is too long")
    }
}
