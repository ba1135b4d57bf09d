//! `access/1`: a signed request to read what is not public, such as an application under review.
//!
//! Who asks is known by the key alone; whether that key may read it is the coordinator's decision. Nothing is changed by
//! such a request, so that one that is sent again within its short life shows its sender nothing new.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document};

/// How long a request may be valid at most.
pub const MAX_LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Item {
    /// An application: its newest version, or all of them.
    Application {
        /// Its id.
        id: String,
    },
    /// The ids and states of all applications.
    Applications,
    /// The reviews of an application, oldest first.
    Reviews {
        /// The application's id.
        application: String,
    },
    /// The results that wait for a review of output.
    HeldResults,
    /// A result that waits, with its disclosure facts.
    HeldResult {
        /// Its digest.
        result: Digest,
    },
    /// The results that the signer may export.
    Releases,
    /// The bundle of a result.
    Release {
        /// The result's digest.
        result: Digest,
    },
    /// Entries of the coordinator's log that the reader may open, from one on.
    LogEntries {
        /// The first one that is looked at.
        from: u64,
        /// How many are looked at, at most 1000.
        limit: u32,
    },
    /// The statement of one of them, with the proof that it is in the log.
    LogStatement {
        /// Its place.
        index: u64,
    },
}

/// The request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// What is read.
    pub item: Item,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// From this second on it is stale.
    pub expires: DateTime<Utc>,
}

impl Document for Access {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.access.v1+json";
    const NAME: &'static str = "access request";
    const MAX_BYTES: usize = 4096;

    fn check(&self) -> Result<(), String> {
        if self.expires <= self.issued || self.expires - self.issued > MAX_LIFETIME {
            return Err("an access request is valid for at most 10 minutes".into());
        }
        Ok(())
    }
}
