//! `query/1`: what a person asks, signed end to end; and `route/1`, by which the coordinator passes it on.
//!
//! The node believes the person's signature only. The coordinator's adds where the query goes and in which
//! round; it cannot change the question, the hospitals or the price.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    schema::Bounds,
    units::{AttoDelta, MicroRho},
};

/// The longest SQL text in bytes.
pub const MAX_SQL_BYTES: usize = 64 * 1024;
/// The most entries of each list of the terms.
const MAX_TERMS: usize = 64;
/// The largest share.
const MAX_SHARE: u32 = 1_000_000;
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
    /// What the person narrows or divides otherwise than the permit and the engine would.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
}

/// How a person wants a question answered, within what the permit allows. Nothing in here can widen a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// Bounds of columns inside those of the schema, each column once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<NarrowBounds>,
    /// At most so many rows of a patient count in full: no more than the permit says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_patient: Option<u32>,
    /// A patient counts in full in at most so many groups: no more than the permit says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups_per_patient: Option<u32>,
    /// A weight for each aggregate, in the order in which the SQL names them: rho is divided by these. Empty: evenly over
    /// what is measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<u32>,
    /// The percentage of rho, 1 to 50, that buys a noised report of how much the bounds bit; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bite_percent: Option<u8>,
    /// The delta to be spent on group keys that are not public.
    #[serde(skip_serializing_if = "AttoDelta::is_zero")]
    pub atto_delta: AttoDelta,
}

/// Bounds of one column that are narrower than the schema's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowBounds {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The bounds, written as in the schema.
    pub bounds: Bounds,
}

impl Terms {
    /// Whether nothing is asked for beyond the permit's own terms.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The rules that terms keep, whatever the permit.
    ///
    /// # Errors
    /// A sentence that names the field and the rule.
    pub fn check(&self) -> Result<(), String> {
        let columns: BTreeSet<_> = self.bounds.iter().map(|b| (&b.table, &b.column)).collect();
        if columns.len() != self.bounds.len() || self.bounds.len() > MAX_TERMS {
            return Err(format!("bounds name each column once, and at most {MAX_TERMS}"));
        }
        if self.rows_per_patient == Some(0) || self.groups_per_patient == Some(0) {
            return Err("rows_per_patient and groups_per_patient are at least 1".into());
        }
        if self.shares.len() > MAX_TERMS || self.shares.iter().any(|s| !(1..=MAX_SHARE).contains(s)) {
            return Err(format!("shares are at most {MAX_TERMS} numbers from 1 to {MAX_SHARE}"));
        }
        if self.bite_percent.is_some_and(|percent| !(1..=50).contains(&percent)) {
            return Err("bite_percent is 1 to 50".into());
        }
        Ok(())
    }
}

impl Query {
    /// What makes two questions the same one: permit, price and SQL. With the run number it is the key under
    /// which a node stores a release.
    pub fn key(&self) -> Digest {
        // Names and numbers only: this cannot fail.
        let terms = serde_json::to_vec(&self.terms).unwrap_or_default();
        Digest::of_parts(&[
            b"sekisho query key v1",
            self.permit.as_bytes(),
            &self.micro_rho.get().to_be_bytes(),
            self.sql.as_bytes(),
            &terms,
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
        self.terms.check()
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
