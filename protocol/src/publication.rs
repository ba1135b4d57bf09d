//! `publication/1`: where a decision or the results of a study were made public.
//!
//! That results are public a person of the permit says, that a decision is, a member of the committee. Nobody checks what lies
//! at the address: the record is for people, and for the clock of deadlines.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, roster::is_name};

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// A permit or a refusal.
    Decision,
    /// The results of the study.
    Results,
}

/// The publication document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// What was published.
    pub what: Published,
    /// The id of the permit, or of the application that was refused.
    pub id: String,
    /// The digest of the permit or of the refusal.
    pub digest: Digest,
    /// Where: https:// or http://.
    pub url: String,
    /// When it was published.
    pub at: DateTime<Utc>,
}

impl Document for Publication {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.publication.v1+json";
    const NAME: &'static str = "publication";
    const MAX_BYTES: usize = 8 << 10;

    fn check(&self) -> Result<(), String> {
        if !is_name(&self.id) {
            return Err("id is 1-64 lower-case letters, digits and hyphens".into());
        }
        let address = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://"));
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        if self.url.len() > 2048 || !address.is_some_and(plain) {
            return Err("url is an address of at most 2048 bytes that begins with https:// or http://".into());
        }
        Ok(())
    }
}
