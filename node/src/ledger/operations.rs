//! What persons did at this node, by its console or its command line: who, when and why.
//!
//! Promises: an operation is noted in the transaction of what it does, so that nothing is done by nobody; a note is never changed
//! or removed. It stays in the hospital: no name of its staff is in an answer, a receipt or a refusal.

use chrono::{DateTime, Utc};
use sekisho_protocol::receipt::MAX_REASON;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Ledger, LedgerError};
use crate::store::{StoreError, instant, read_instant};

/// Who acts by a command on the machine; no token has this name.
pub const COMMAND_LINE: &str = "(command line)";
/// The most operations that are read at once.
pub const MAX_OPERATIONS: u32 = 1000;

/// What a person does, and says of it.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The name of a console token, or [`COMMAND_LINE`].
    pub by: &'a str,
    /// Why, in one line; empty where none is asked for.
    pub reason: &'a str,
    /// When.
    pub at: DateTime<Utc>,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// What a person may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Act { $($(#[$doc])* $variant,)* }

        impl Act {
            /// Its stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            fn read(name: &str) -> Result<Self, StoreError> {
                match name { $($text => Ok(Self::$variant),)* _ => Err(StoreError::Corrupt("name of an act")) }
            }
        }
    };
}

acts! {
    /// A permit is accepted.
    AcceptPermit = "accept_permit";
    /// A permit is refused.
    RefusePermit = "refuse_permit";
    /// A study, or everything, is suspended.
    Suspend = "suspend";
    /// A suspension is lifted.
    Resume = "resume";
    /// An exact result is let out, if the guard agrees.
    ReleaseExact = "release_exact";
    /// An exact result is refused.
    RefuseExact = "refuse_exact";
    /// The alerts up to one were looked at.
    SeeAlerts = "see_alerts";
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub by: String,
    /// What.
    pub act: Act,
    /// To what: a permit as ID/VERSION, a study, `*` for all of them, or the number of an exact request or an alert.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// A reason as a document holds it.
///
/// # Errors
/// A sentence that says what to write.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!("write one line of 1 to {MAX_REASON} characters"));
    }
    Ok(text.into())
}

/// Notes what a person does, in the transaction that does it.
pub(crate) async fn note(tx: &mut SqliteConnection, act: Act, what: &str, said: &Said<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operation (operation, at, who, act, what, reason)
        VALUES ((SELECT coalesce(max(operation), 0) + 1 FROM operation), ?1, ?2, ?3, ?4, ?5)",
    )
    .bind(instant(said.at))
    .bind(said.by)
    .bind(act.as_str())
    .bind(what)
    .bind(said.reason)
    .execute(tx)
    .await?;
    Ok(())
}

impl Ledger {
    /// What persons did, the newest first, at most [`MAX_OPERATIONS`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations(&self, most: u32) -> Result<Vec<Operation>, LedgerError> {
        let rows = sqlx::query("SELECT at, who, act, what, reason FROM operation ORDER BY operation DESC LIMIT ?1");
        let rows = rows.bind(most.min(MAX_OPERATIONS)).fetch_all(self.store.read()).await?;
        let read = |row: SqliteRow| {
            Ok(Operation {
                at: read_instant(row.try_get("at")?)?,
                by: row.try_get("who")?,
                act: Act::read(row.try_get("act")?)?,
                what: row.try_get("what")?,
                reason: row.try_get("reason")?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// The number of the newest alert, and how many came after those that somebody looked at.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unseen_alerts(&self) -> Result<(u64, u64), LedgerError> {
        let (newest, seen): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT coalesce(max(alert), 0) FROM alert),
                (SELECT coalesce(max(CAST(what AS INTEGER)), 0) FROM operation WHERE act = ?1)",
        )
        .bind(Act::SeeAlerts.as_str())
        .fetch_one(self.store.read())
        .await?;
        // Alerts are numbered from 1 without gaps.
        Ok((newest.unsigned_abs(), newest.saturating_sub(seen).max(0).unsigned_abs()))
    }

    /// Notes that a person looked at the alerts up to the one of this number; none beyond the newest counts as seen.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn see_alerts(&self, upto: u64, said: &Said<'_>) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(alert), 0) FROM alert").fetch_one(&mut *tx).await?;
        note(&mut tx, Act::SeeAlerts, &upto.min(newest.unsigned_abs()).to_string(), said).await?;
        Ok(tx.commit().await?)
    }
}
