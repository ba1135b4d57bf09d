//! Events that a system of the hospital sends: recorded once, however often they are sent under the same key.
//!
//! The answer is stored in the transaction that records the events, so neither a lost connection nor a power cut makes two of
//! one. A key is kept for [`KEPT_DAYS`] days, and belongs to the caller who used it.

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::digest::Digest;
use sqlx::Row;

use super::{Entry, Register, RegisterError};
use crate::store::{StoreError, instant, read_digest};

/// For how many days a key is remembered.
pub const KEPT_DAYS: i64 = 30;

/// A request that must act once.
pub struct OnceKey<'a> {
    /// Who sends it.
    pub caller: &'a str,
    /// The key that the caller chose.
    pub key: &'a str,
    /// The digest of all that was sent.
    pub body: Digest,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Once {
    /// Recorded now, with this answer.
    Now(String),
    /// Recorded before, and answered so.
    Before(String),
    /// The key was used for something else; nothing was recorded.
    OtherBody,
}

impl Register {
    /// Records all of `entries` in their order, or none, unless that was done before under the same key. `answer` makes the answer
    /// to be stored from the register's new last place.
    ///
    /// # Errors
    /// When the caller's name is not one that the register takes, or the database fails.
    pub async fn record_once(
        &self,
        entries: &[Entry],
        once: &OnceKey<'_>,
        at: DateTime<Utc>,
        answer: impl FnOnce(i64) -> String + Send,
    ) -> Result<Once, RegisterError> {
        let mut tx = self.store.write().await?;
        let oldest = at - TimeDelta::days(KEPT_DAYS);
        sqlx::query("DELETE FROM local_answer WHERE at < ?1").bind(instant(oldest)).execute(&mut *tx).await?;
        let before = sqlx::query("SELECT body, answer FROM local_answer WHERE caller = ?1 AND key = ?2")
            .bind(once.caller)
            .bind(once.key)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(before) = before {
            let body = read_digest(before.try_get("body").map_err(StoreError::from)?)?;
            return Ok(if body == once.body { Once::Before(before.try_get("answer")?) } else { Once::OtherBody });
        }
        let answer = answer(Self::append(&mut tx, entries, once.caller, at).await?);
        sqlx::query("INSERT INTO local_answer (caller, key, body, answer, at) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(once.caller)
            .bind(once.key)
            .bind(once.body.as_bytes().as_slice())
            .bind(&answer)
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Once::Now(answer))
    }
}
