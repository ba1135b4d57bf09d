//! What is read of rounds afterwards: by reviewers, the use register and metering; and the results that wait.
//!
//! Rows come in the order of time. Nothing here is changed once it was written.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sekisho_protocol::{
    digest::Digest,
    log::{entry::Kind as Entry, store},
};
use sqlx::{Row, sqlite::SqliteRow};

use super::{RoundState, Store, StoreError, instant, read_digest, read_instant, state_of};

/// A round as it is kept.
#[derive(Clone, Debug)]
pub struct KeptRound {
    /// Its id.
    pub round: String,
    /// The signed query, by digest.
    pub query: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// Which run.
    pub run: u32,
    /// How far it came.
    pub state: RoundState,
    /// When it began.
    pub started: DateTime<Utc>,
    /// The envelope of the query; none of rounds before queries were kept.
    pub question: Option<Vec<u8>>,
}

/// What a hospital released in a round, as it is kept.
#[derive(Clone, Debug)]
pub struct KeptRelease {
    /// The round.
    pub round: String,
    /// The hospital.
    pub node: String,
    /// The release's header.
    pub header: Vec<u8>,
    /// The release's numbers.
    pub cells: Vec<u8>,
    /// The envelope of its receipt.
    pub receipt: Vec<u8>,
}

/// A result that waits, or waited, for reviewers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptResult {
    /// Its digest.
    pub result: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// The question.
    pub query_key: Digest,
    /// Which run of it.
    pub run: u32,
    /// The round that brought it first.
    pub round: String,
    /// Since when it waits.
    pub held_at: DateTime<Utc>,
}

const ROUND: &str = "SELECT r.round, r.query, r.query_key, r.permit, r.run, r.state, r.report, r.started_at, q.envelope
    FROM round r LEFT JOIN question q ON q.query = r.query";

impl Store {
    /// The envelope of the query with this digest.
    pub(crate) async fn question(&self, query: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = sqlx::query_scalar("SELECT envelope FROM question WHERE query = ?1");
        Ok(sql.bind(query.as_bytes().as_slice()).fetch_optional(&self.pool).await?)
    }

    /// The round with this id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn kept_round(&self, round: &str) -> Result<Option<KeptRound>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{ROUND} WHERE r.round = ?1"));
        let row = sqlx::query(sql).bind(round).fetch_optional(&self.pool).await?;
        row.as_ref().map(round_of).transpose()
    }

    /// The rounds under a permit, the earliest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rounds_under(&self, permit: Digest) -> Result<Vec<KeptRound>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{ROUND} WHERE r.permit = ?1 ORDER BY r.started_at, r.round"));
        let rows = sqlx::query(sql).bind(permit.as_bytes().as_slice()).fetch_all(&self.pool).await?;
        rows.iter().map(round_of).collect()
    }

    /// What was released in a round, by hospital.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn releases(&self, round: &str) -> Result<Vec<KeptRelease>, StoreError> {
        let sql = "SELECT round, node, header, cells, receipt FROM release WHERE round = ?1 ORDER BY node";
        let rows = sqlx::query(sql).bind(round).fetch_all(&self.pool).await?;
        rows.iter().map(release_of).collect()
    }

    /// What was released under a permit, by round and hospital, without its numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn releases_under(&self, permit: Digest) -> Result<Vec<KeptRelease>, StoreError> {
        let sql = "SELECT round, node, header, x'' AS cells, receipt FROM release JOIN round USING (round)
            WHERE permit = ?1 ORDER BY round, node";
        let rows = sqlx::query(sql).bind(permit.as_bytes().as_slice()).fetch_all(&self.pool).await?;
        rows.iter().map(release_of).collect()
    }

    /// Shows every release of every round to `see`, one at a time and without its numbers.
    ///
    /// # Errors
    /// When the database cannot be read, or `see` says no.
    pub async fn each_release(
        &self,
        mut see: impl FnMut(&KeptRelease) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT round, node, header, x'' AS cells, receipt FROM release ORDER BY round, node";
        let mut rows = sqlx::query(sql).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            see(&release_of(&row)?)?;
        }
        Ok(())
    }

    /// Which entry of the coordinator's log a statement is, if it is one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn entry_of(&self, kind: Entry, statement: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(store::find(&mut *self.pool.acquire().await?, kind, statement).await?)
    }

    /// Keeps a result that waits; one that is there stays as it is.
    pub(crate) async fn hold(&self, held: &KeptResult) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR IGNORE INTO held (result, permit, query_key, run, round, held_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(held.result.as_bytes().as_slice())
        .bind(held.permit.as_bytes().as_slice())
        .bind(held.query_key.as_bytes().as_slice())
        .bind(held.run)
        .bind(&held.round)
        .bind(instant(held.held_at))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The result with this digest, when it ever waited.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn held(&self, result: Digest) -> Result<Option<KeptResult>, StoreError> {
        let sql = "SELECT result, permit, query_key, run, round, held_at FROM held WHERE result = ?1";
        let row = sqlx::query(sql).bind(result.as_bytes().as_slice()).fetch_optional(&self.pool).await?;
        row.as_ref().map(result_of).transpose()
    }

    /// Every result that waits or waited, the latest first; `most` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all_held(&self, most: u32) -> Result<Vec<KeptResult>, StoreError> {
        let sql =
            "SELECT result, permit, query_key, run, round, held_at FROM held ORDER BY held_at DESC, result LIMIT ?1";
        let rows = sqlx::query(sql).bind(most).fetch_all(&self.pool).await?;
        rows.iter().map(result_of).collect()
    }
}

fn run_of(row: &SqliteRow) -> Result<u32, StoreError> {
    let run: i64 = row.try_get("run")?;
    run.try_into().map_err(|_| StoreError::Corrupt("run number"))
}

fn round_of(row: &SqliteRow) -> Result<KeptRound, StoreError> {
    Ok(KeptRound {
        round: row.try_get("round")?,
        query: read_digest(row.try_get("query")?)?,
        query_key: read_digest(row.try_get("query_key")?)?,
        permit: read_digest(row.try_get("permit")?)?,
        run: run_of(row)?,
        state: state_of(row)?,
        started: read_instant(row.try_get("started_at")?)?,
        question: row.try_get("envelope")?,
    })
}

fn release_of(row: &SqliteRow) -> Result<KeptRelease, StoreError> {
    Ok(KeptRelease {
        round: row.try_get("round")?,
        node: row.try_get("node")?,
        header: row.try_get("header")?,
        cells: row.try_get("cells")?,
        receipt: row.try_get("receipt")?,
    })
}

fn result_of(row: &SqliteRow) -> Result<KeptResult, StoreError> {
    Ok(KeptResult {
        result: read_digest(row.try_get("result")?)?,
        permit: read_digest(row.try_get("permit")?)?,
        query_key: read_digest(row.try_get("query_key")?)?,
        run: run_of(row)?,
        round: row.try_get("round")?,
        held_at: read_instant(row.try_get("held_at")?)?,
    })
}
