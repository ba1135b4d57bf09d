//! What rests: a study after too many runs without an answer, and what the hospital suspended.
//!
//! Promises: a suspension is durable before [`Ledger::suspend`] returns, and no charge that is reserved after that passes
//! it, whichever process wrote it: it is looked at again inside the transaction that charges.

use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, refusal::Code};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Act, Ledger, LedgerError, RunKey, Said, note, rests};
use crate::store::{StoreError, instant, read_digest, read_instant};

/// What stands for every study; no study has this name.
const EVERYTHING: &str = "*";

/// What is suspended or resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// One study.
    Study(String),
    /// Every study.
    Everything,
}

/// What the hospital suspended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// What.
    pub what: Suspended,
    /// Why; whoever asks is told.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

/// A charged run that ended with the process.
pub(crate) struct Interrupted {
    pub(crate) charge_id: i64,
    pub(crate) key: RunKey,
    /// The message that asked.
    pub(crate) query: Digest,
}

impl Suspended {
    fn key(&self) -> &str {
        match self {
            Self::Study(study) => study,
            Self::Everything => EVERYTHING,
        }
    }

    fn from_key(key: String) -> Self {
        if key == EVERYTHING { Self::Everything } else { Self::Study(key) }
    }
}

/// What suspends the study, and why: everything comes first.
pub(super) async fn found(
    connection: &mut SqliteConnection,
    study_id: &str,
) -> Result<Option<(String, String)>, LedgerError> {
    let suspended =
        sqlx::query_as("SELECT study_id, reason FROM suspension WHERE study_id IN (?1, ?2) ORDER BY study_id LIMIT 1");
    Ok(suspended.bind(EVERYTHING).bind(study_id).fetch_optional(connection).await?)
}

/// Writes a suspension down; one that is there gets the new reason.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    what: &Suspended,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<(), LedgerError> {
    let statement = "INSERT INTO suspension (study_id, reason, at) VALUES (?1, ?2, ?3)
        ON CONFLICT (study_id) DO UPDATE SET reason = ?2, at = ?3";
    sqlx::query(statement).bind(what.key()).bind(reason).bind(instant(at)).execute(connection).await?;
    Ok(())
}

/// That the study may be charged now, under the permit `permit`.
pub(super) async fn open(connection: &mut SqliteConnection, study_id: &str, permit: Digest) -> Result<(), LedgerError> {
    if let Some((key, reason)) = found(connection, study_id).await? {
        return Err(LedgerError::Suspended { what: Suspended::from_key(key), reason });
    }
    let no_answers: Option<i64> = sqlx::query_scalar("SELECT no_answers FROM study WHERE study_id = ?1")
        .bind(study_id)
        .fetch_optional(&mut *connection)
        .await?;
    if no_answers.is_some_and(rests) {
        return Err(LedgerError::Rests { study: study_id.into() });
    }
    let refused: Option<Option<String>> = sqlx::query_scalar("SELECT refused FROM permit WHERE digest = ?1")
        .bind(permit.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    match refused.flatten() {
        None => Ok(()),
        Some(code) => Err(LedgerError::Permit(code.parse::<Code>().map_err(|_| StoreError::Corrupt("refusal code"))?)),
    }
}

impl Ledger {
    /// That the study may be charged now, under the permit `permit`. [`Ledger::reserve`] looks again.
    ///
    /// # Errors
    /// [`LedgerError::Suspended`], [`LedgerError::Rests`], [`LedgerError::Permit`].
    pub async fn open(&self, study_id: &str, permit: Digest) -> Result<(), LedgerError> {
        let mut tx = self.store.read().begin().await.map_err(StoreError::from)?;
        open(&mut tx, study_id, permit).await
    }

    /// The charged runs that ended with the process: they have no release, and were never counted as runs without an answer. An
    /// exact release that was recorded is none of them: a person goes on with it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn interrupted(&self) -> Result<Vec<Interrupted>, LedgerError> {
        let rows = sqlx::query(
            "SELECT c.charge_id, c.permit, c.query_key, c.run, c.query FROM charge c
            WHERE c.micro_rho > 0 AND NOT EXISTS (SELECT 1 FROM release r WHERE r.charge_id = c.charge_id)
                AND NOT EXISTS (SELECT 1 FROM no_answer n WHERE n.charge_id = c.charge_id)
                AND NOT EXISTS (SELECT 1 FROM lost_run l WHERE l.charge_id = c.charge_id)
            ORDER BY c.charge_id",
        );
        let rows = rows.fetch_all(self.store.read()).await?;
        let read = |row: SqliteRow| {
            let key = RunKey {
                permit: read_digest(row.try_get("permit")?)?,
                query_key: read_digest(row.try_get("query_key")?)?,
                run: row.try_get("run")?,
            };
            Ok(Interrupted { charge_id: row.try_get("charge_id")?, key, query: read_digest(row.try_get("query")?)? })
        };
        rows.into_iter().map(read).collect()
    }

    /// Suspends a study or everything; a suspension that is there gets the new reason.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn suspend(&self, what: &Suspended, said: &Said<'_>) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        put(&mut tx, what, said.reason, said.at).await?;
        note(&mut tx, Act::Suspend, what.key(), said).await?;
        Ok(tx.commit().await?)
    }

    /// Lifts a suspension. A study also counts its runs without an answer from nothing again: its operator looked into the
    /// cause. Everything lifts the suspension of everything alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self, what: &Suspended, said: &Said<'_>) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        sqlx::query("DELETE FROM suspension WHERE study_id = ?1").bind(what.key()).execute(&mut *tx).await?;
        sqlx::query("UPDATE study SET no_answers = 0 WHERE study_id = ?1").bind(what.key()).execute(&mut *tx).await?;
        note(&mut tx, Act::Resume, what.key(), said).await?;
        Ok(tx.commit().await?)
    }

    /// What the hospital suspended, everything first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn suspensions(&self) -> Result<Vec<Suspension>, LedgerError> {
        let rows = sqlx::query("SELECT study_id, reason, at FROM suspension ORDER BY study_id");
        let rows = rows.fetch_all(self.store.read()).await?;
        let read = |row: SqliteRow| {
            let what = Suspended::from_key(row.try_get("study_id")?);
            Ok(Suspension { what, reason: row.try_get("reason")?, at: read_instant(row.try_get("at")?)? })
        };
        rows.into_iter().map(read).collect()
    }
}
