//! `status/1`: what is void or suspended at this hour, signed by the governance key.
//!
//! A node answers nothing under an expired status, so whoever withholds a revocation withholds it no
//! longer than the last status lives (24 hours by default).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document};

/// The most entries in each list.
pub const MAX_ENTRIES: usize = 10_000;

/// A permit that no longer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedPermit {
    /// The digest of the permit.
    pub permit: Digest,
    /// Why, in public.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

/// The newest version of a permit that has been superseded at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitVersion {
    /// The permit's id.
    pub id: String,
    /// Its newest version; lower ones are void.
    pub version: u32,
}

/// What is void or suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Grows by one with each status; a lower one than the highest seen is refused.
    pub seq: u64,
    /// The digest of the status before, none for the first.
    pub prev: Option<Digest>,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// From this second on nothing is answered under it.
    pub expires: DateTime<Utc>,
    /// Revoked permits.
    pub revoked_permits: Vec<RevokedPermit>,
    /// Newest versions.
    pub permit_versions: Vec<PermitVersion>,
    /// Studies that rest, by study id.
    pub suspended_studies: Vec<String>,
    /// Fingerprints of keys that no longer count, whoever's they are.
    pub void_keys: Vec<Digest>,
}

impl Status {
    /// Whether the permit with this digest was revoked.
    pub fn revokes(&self, permit: Digest) -> bool {
        self.revoked_permits.iter().any(|r| r.permit == permit)
    }

    /// Whether a newer version than `version` of the permit `id` is in force.
    pub fn supersedes(&self, id: &str, version: u32) -> bool {
        self.permit_versions.iter().any(|v| v.id == id && v.version > version)
    }
}

impl Document for Status {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.status.v1+json";
    const NAME: &'static str = "status";
    const MAX_BYTES: usize = 4 << 20;

    fn check(&self) -> Result<(), String> {
        let longest = [
            self.revoked_permits.len(),
            self.permit_versions.len(),
            self.suspended_studies.len(),
            self.void_keys.len(),
        ];
        if longest.iter().any(|n| *n > MAX_ENTRIES) {
            return Err(format!("a list has more than {MAX_ENTRIES} entries"));
        }
        Ok(())
    }
}
