//! Which runs have a release, and by which state of the register.

use chrono::NaiveDate;
use sekisho_protocol::digest::Digest;
use sqlx::{Row, sqlite::SqliteRow};

use super::{Ledger, LedgerError};
use crate::store::{StoreError, read_digest};

/// Runs with a release that are of one permit and looked at one state of the register on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasedRuns {
    /// The permit, by digest.
    pub permit: Digest,
    /// The study.
    pub study_id: String,
    /// The place in the register up to which events counted.
    pub register_seq: i64,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// How many runs.
    pub runs: u64,
}

impl Ledger {
    /// The runs that have a release, by study and day.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn released_runs(&self) -> Result<Vec<ReleasedRuns>, LedgerError> {
        let rows = sqlx::query(
            "SELECT c.study_id, c.as_of, c.permit, c.register_seq, count(*) AS runs
            FROM charge c JOIN release r ON r.charge_id = c.charge_id
            GROUP BY c.study_id, c.as_of, c.permit, c.register_seq
            ORDER BY c.study_id, c.as_of, c.register_seq, c.permit",
        )
        .fetch_all(self.store.read())
        .await?;
        let released = |row: SqliteRow| {
            Ok(ReleasedRuns {
                permit: read_digest(row.try_get("permit")?)?,
                study_id: row.try_get("study_id")?,
                register_seq: row.try_get("register_seq")?,
                as_of: row.try_get::<&str, _>("as_of")?.parse().map_err(|_| StoreError::Corrupt("day"))?,
                runs: row.try_get::<i64, _>("runs")?.unsigned_abs(),
            })
        };
        rows.into_iter().map(released).collect()
    }
}
