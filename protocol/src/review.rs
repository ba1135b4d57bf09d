//! `review/1`: what one member of the committee says of one version of an application, with reasons.
//!
//! There are two steps, as the law has it: is the application complete, and then, is the use lawful. Deliberately absent: any
//! decision; that is a permit or a refusal, signed by the quorum.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, roster::is_name};

/// The longest reasons in bytes.
pub const MAX_REASONS: usize = 16 << 10;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Does it have all that the law asks for?
    Completeness,
    /// May it be granted?
    Lawfulness,
}

/// What the member says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A remark.
    Comment,
    /// A new version is needed.
    ChangesRequested,
    /// It is complete.
    Complete,
    /// The member signs the permit.
    Approve,
    /// The member signs the refusal.
    Refuse,
    /// The member has a conflict of interest, and takes no part from here on.
    Conflict,
}

impl Verdict {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Comment => "comment",
            Self::ChangesRequested => "changes_requested",
            Self::Complete => "complete",
            Self::Approve => "approve",
            Self::Refuse => "refuse",
            Self::Conflict => "conflict",
        }
    }
}

/// The review document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// The application's id.
    pub application: String,
    /// The digest of the version that was reviewed.
    pub digest: Digest,
    /// The member, by the fingerprint of the key that signs.
    pub member: Digest,
    /// Which question.
    pub step: Step,
    /// The answer.
    pub verdict: Verdict,
    /// Why.
    pub reasons: String,
    /// The permit or the refusal that the member signs with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Digest>,
    /// When.
    pub at: DateTime<Utc>,
}

impl Document for Review {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.review.v1+json";
    const NAME: &'static str = "review";
    const MAX_BYTES: usize = 64 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(is_name(&self.application), "application is an application's id")?;
        rule(self.reasons.len() <= MAX_REASONS, "reasons have at most 16384 bytes")?;
        let fits = match self.verdict {
            Verdict::Complete => self.step == Step::Completeness,
            Verdict::Approve | Verdict::Refuse => self.step == Step::Lawfulness,
            Verdict::Comment | Verdict::ChangesRequested | Verdict::Conflict => true,
        };
        rule(fits, "complete answers the step completeness, approve and refuse the step lawfulness")?;
        let needs = self.verdict != Verdict::Complete;
        rule(!needs || !self.reasons.trim().is_empty(), "this verdict needs reasons")?;
        let signs = matches!(self.verdict, Verdict::Approve | Verdict::Refuse);
        rule(
            signs == self.decision.is_some(),
            "approve and refuse name the document that the member signs, others none",
        )
    }
}
