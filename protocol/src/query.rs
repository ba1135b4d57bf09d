//! `query/1`: what a person asks, signed end to end; and `route/1`, by which the coordinator passes it on.
//!
//! The node believes the person's signature only. The coordinator's adds where the query goes and in which
//! round; it cannot change the question, the hospitals or the price.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, units::MicroRho};

/// The longest SQL text in bytes.
pub const MAX_SQL_BYTES: usize = 64 * 1024;
/// How far ahead a query's expiry may lie.
pub const MAX_LIFETIME: Duration = Duration::hours(24);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The permit, by digest.
    pub permit: Digest,
    /// The SQL, as the person wrote it.
    pub sql: String,
    /// The hospitals asked, by roster name, sorted.
    pub holders: Vec<String>,
    /// What each hospital shall charge.
    pub micro_rho: MicroRho,
    /// Which run of the question this is, from 1: a run that exists is served again, a new one is charged.
    pub run: u32,
    /// From this second on the message is stale.
    pub expires: DateTime<Utc>,
    /// 128 random bits in hexadecimal, used once.
    pub nonce: String,
}

impl Query {
    /// What makes two questions the same one: permit, price and SQL. With the run number it is the key under
    /// which a node stores a release.
    pub fn key(&self) -> Digest {
        Digest::of_parts(&[
            b"sekisho query key v1",
            self.permit.as_bytes(),
            &self.micro_rho.get().to_be_bytes(),
            self.sql.as_bytes(),
        ])
    }
}

impl Document for Query {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.query.v1+json";
    const NAME: &'static str = "query";
    // JSON may need six bytes for one of SQL.
    const MAX_BYTES: usize = 6 * MAX_SQL_BYTES + (128 << 10);

    fn check(&self) -> Result<(), String> {
        if self.sql.len() > MAX_SQL_BYTES {
            return Err(format!("the SQL has {} bytes; at most {MAX_SQL_BYTES} are read", self.sql.len()));
        }
        if self.nonce.len() != 32 || !self.nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("the nonce is 32 hexadecimal digits".into());
        }
        if self.run == 0 {
            return Err("runs count from 1".into());
        }
        if self.holders.is_empty() || self.holders.len() > crate::permit::MAX_ENTRIES {
            return Err("a query names 1 to 1024 hospitals".into());
        }
        if self.holders.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("hospitals are named in order, each once".into());
        }
        Ok(())
    }
}

/// Where the coordinator sends a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The digest of the query.
    pub query: Digest,
    /// The hospital that it is sent to, by roster name.
    pub to: String,
    /// The coordinator's round.
    pub round: String,
    /// From this second on the message is stale.
    pub expires: DateTime<Utc>,
}

impl Document for Route {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.route.v1+json";
    const NAME: &'static str = "route";
    const MAX_BYTES: usize = 4096;

    fn check(&self) -> Result<(), String> {
        if self.round.len() > 64 {
            return Err("a round's id has at most 64 bytes".into());
        }
        Ok(())
    }
}

/// What a node receives: the person's query and the coordinator's route, both signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutedQuery {
    /// The envelope of the [`Query`].
    pub query: crate::dsse::Envelope,
    /// The envelope of the [`Route`].
    pub route: crate::dsse::Envelope,
}

impl RoutedQuery {
    /// The most bytes that the JSON of a routed query has.
    pub const MAX_BYTES: usize = 2 * Query::MAX_BYTES;
}
