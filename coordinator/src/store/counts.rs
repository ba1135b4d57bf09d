//! How much of what is kept: for monitoring.

use super::{Kind, Store, StoreError};

/// How much of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Documents of each kind.
    pub documents: Vec<(Kind, u64)>,
    /// Rounds that came to their end.
    pub rounds_done: u64,
    /// Rounds that did not.
    pub rounds_interrupted: u64,
    /// Results that ever waited for reviewers.
    pub held: u64,
}

impl Store {
    /// How much of what is kept, of one state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let mut tx = self.pool.begin().await?;
        let kept: Vec<(String, i64)> =
            sqlx::query_as("SELECT kind, count(*) FROM document GROUP BY kind").fetch_all(&mut *tx).await?;
        let of = |kind: Kind| kept.iter().find(|(name, _)| name == kind.as_str()).map_or(0, |(_, n)| n.unsigned_abs());
        let documents = Kind::ALL.iter().map(|kind| (*kind, of(*kind))).collect();
        let rounds: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM round GROUP BY state").fetch_all(&mut *tx).await?;
        let ended = |state: &str| rounds.iter().find(|(name, _)| name == state).map_or(0, |(_, n)| n.unsigned_abs());
        let held: i64 = sqlx::query_scalar("SELECT count(*) FROM held").fetch_one(&mut *tx).await?;
        let (rounds_done, rounds_interrupted) = (ended("done"), ended("interrupted"));
        Ok(Counts { documents, rounds_done, rounds_interrupted, held: held.unsigned_abs() })
    }

    /// That the database takes a writer.
    ///
    /// # Errors
    /// When it does not.
    pub async fn writable(&self) -> Result<(), StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?.rollback().await?)
    }
}
