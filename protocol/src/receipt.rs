//! What a node signs about what it did: `receipt/1` for a release, `acceptance/1` for a permit.
//!
//! Nothing here depends on raw data except the digest of the release, which holds a 256-bit nonce. Snapshot
//! and register appear only as commitments with a fresh 256-bit salt.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    permit::ReleaseKind,
    refusal::Code,
    units::{AttoDelta, MicroRho},
};

/// A node's account of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The hospital, by roster name.
    pub node: String,
    /// The permit, by digest.
    pub permit: Digest,
    /// The study that was charged.
    pub study_id: String,
    /// The signed query, by digest.
    pub query: Digest,
    /// What makes the question the same one ([`crate::query::Query::key`]).
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// The private plan, by digest of its canonical text.
    pub plan: Digest,
    /// The charge in micro-rho.
    pub micro_rho: MicroRho,
    /// The charge in delta (10^-18).
    pub atto_delta: AttoDelta,
    /// The data set was declared synthetic: its rho may pass the compiled-in ceilings.
    pub synthetic: bool,
    /// Commitment to the snapshot: SHA-256 of salt and manifest digest.
    pub snapshot_commitment: Digest,
    /// Commitment to the state of the patient register.
    pub register_commitment: Digest,
    /// The day as of which patients were eligible.
    pub as_of: chrono::NaiveDate,
    /// The digest of the release, which has a nonce inside.
    pub release: Digest,
    /// The software that made it.
    pub software: String,
    /// When the charge was reserved.
    pub at: DateTime<Utc>,
    /// Whether the numbers are noised, or exact under disclosure rules.
    #[serde(default, skip_serializing_if = "ReleaseKind::is_noised")]
    pub release_kind: ReleaseKind,
    /// The day since which no guarantee of differential privacy holds for this hospital's patient register: that of its first
    /// exact release, of whatever study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_since: Option<chrono::NaiveDate>,
}

impl Document for Receipt {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.receipt.v1+json";
    const NAME: &'static str = "receipt";
    const MAX_BYTES: usize = 16 << 10;

    fn check(&self) -> Result<(), String> {
        if self.release_kind == ReleaseKind::Aggregated
            && (self.exact_since.is_none() || self.micro_rho != MicroRho::ZERO || !self.atto_delta.is_zero())
        {
            return Err("an aggregated release costs no rho, and says since when no guarantee holds".into());
        }
        Ok(())
    }
}

/// A charge, as it goes to the node's log before the first row is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationRecord {
    /// The hospital, by roster name.
    pub node: String,
    /// The study that was charged.
    pub study_id: String,
    /// The signed query, by digest.
    pub query: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// The charge in micro-rho.
    pub micro_rho: MicroRho,
    /// The charge in delta (10^-18).
    pub atto_delta: AttoDelta,
    /// When.
    pub at: DateTime<Utc>,
}

impl Document for ReservationRecord {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.reservation.v1+json";
    const NAME: &'static str = "reservation";
    const MAX_BYTES: usize = 16 << 10;

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A hospital's answer to a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The hospital, by roster name.
    pub node: String,
    /// The permit, by digest.
    pub permit: Digest,
    /// Why it was refused; none when it was accepted.
    pub refused: Option<Code>,
    /// The share of the lifetime cap that is set aside for the study, in micro-rho.
    pub earmark: MicroRho,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, in the hospital's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who decided.
    #[serde(default, skip_serializing_if = "DecidedBy::is_policy")]
    pub decided_by: DecidedBy,
}

/// Who decided about a permit at a hospital.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The hospital's policy, or its software.
    #[default]
    Policy,
    /// A person.
    Hand,
}

impl DecidedBy {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Hand => "hand",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_policy(&self) -> bool {
        *self == Self::Policy
    }
}

/// The most characters of a reason.
pub const MAX_REASON: usize = 500;

impl Document for Acceptance {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.acceptance.v1+json";
    const NAME: &'static str = "acceptance";
    const MAX_BYTES: usize = 4096;

    fn check(&self) -> Result<(), String> {
        let fits = |reason: &String| reason.chars().count() <= MAX_REASON && !reason.chars().any(char::is_control);
        if self.reason.as_ref().is_none_or(fits) {
            return Ok(());
        }
        Err(format!("a reason is one line of at most {MAX_REASON} characters"))
    }
}

/// What a node says to a dry run: admissible, and at what price. No row was touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// What the query would be charged; nothing when this run is stored.
    pub micro_rho: MicroRho,
    /// Whether the run is stored and would be served again.
    pub stored: bool,
    /// What the study has left at this hospital before the query.
    pub study_left: MicroRho,
}
