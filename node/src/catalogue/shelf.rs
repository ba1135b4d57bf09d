//! What the node keeps of its catalogue: the draws of its counts, and the catalogues that it signed. Append-only.

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{digest::Digest, log::entry::Kind};
use sqlx::{Row, sqlite::SqliteRow};

use super::OwnCount;
use crate::{
    log::append,
    store::{Store, StoreError, instant, read_digest},
};

/// One draw of a table's counts; whether it was charged and released is in the ledger.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Its number.
    pub number: u32,
    /// The day on which it was begun.
    pub begun_on: NaiveDate,
    /// The question, as it is asked.
    pub question: OwnCount,
}

/// A catalogue that was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its number.
    pub seq: u64,
    /// Its digest.
    pub digest: Digest,
    /// Its envelope, as JSON.
    pub envelope: Vec<u8>,
}

/// The draws and catalogues of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: Store,
}

impl Shelf {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The number of the newest catalogue, 0 for none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_seq(&self) -> Result<u64, StoreError> {
        let seq: i64 =
            sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM catalogue").fetch_one(self.store.read()).await?;
        Ok(seq.unsigned_abs())
    }

    /// The catalogue of this number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn signed(&self, seq: u64) -> Result<Option<Signed>, StoreError> {
        let row = sqlx::query("SELECT seq, digest, envelope FROM catalogue WHERE seq = ?1")
            .bind(i64::try_from(seq).unwrap_or(i64::MAX))
            .fetch_optional(self.store.read())
            .await?;
        row.as_ref().map(signed).transpose()
    }

    /// Keeps a signed catalogue. One of this number stands already when another command was faster: then nothing changes, and
    /// it is false.
    ///
    /// # Errors
    /// When the database fails, or the number does not follow.
    pub(super) async fn put(&self, signed: &Signed, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.store.write().await?;
        let seq = i64::try_from(signed.seq).map_err(|_| StoreError::Corrupt("sequence number"))?;
        let taken: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM catalogue WHERE seq = ?1)")
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
        if taken {
            return Ok(false);
        }
        sqlx::query("INSERT INTO catalogue (seq, digest, envelope, published_at) VALUES (?1, ?2, ?3, ?4)")
            .bind(seq)
            .bind(signed.digest.as_bytes().as_slice())
            .bind(signed.envelope.as_slice())
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        append(&mut tx, Kind::Catalogue, &signed.envelope).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The latest draw of a table.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn draw(&self, data_set: &str, table: &str) -> Result<Option<Draw>, StoreError> {
        let row = sqlx::query(LATEST).bind(data_set).bind(table).fetch_optional(self.store.read()).await?;
        row.as_ref().map(draw).transpose()
    }

    /// Begins a draw after the draw number `after` (none: the first one), unless another command did meanwhile: then that one is
    /// returned. The question is made for the number that the draw gets.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn begin(
        &self,
        data_set: &str,
        table: &str,
        after: Option<u32>,
        day: NaiveDate,
        question: impl FnOnce(u32) -> OwnCount,
    ) -> Result<Draw, StoreError> {
        let mut tx = self.store.write().await?;
        let row = sqlx::query(LATEST).bind(data_set).bind(table).fetch_optional(&mut *tx).await?;
        let latest = row.as_ref().map(draw).transpose()?;
        if let Some(latest) = latest.filter(|latest| Some(latest.number) != after) {
            return Ok(latest);
        }
        let number: u32 =
            sqlx::query_scalar("SELECT coalesce(max(draw), 0) + 1 FROM catalogue_draw").fetch_one(&mut *tx).await?;
        let question = question(number);
        let json = serde_json::to_string(&question).map_err(|_| StoreError::Corrupt("question"))?;
        sqlx::query("INSERT INTO catalogue_draw (draw, data_set, tbl, begun_on, question) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(number)
            .bind(data_set)
            .bind(table)
            .bind(day.to_string())
            .bind(json)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Draw { number, begun_on: day, question })
    }
}

const LATEST: &str = "SELECT draw, begun_on, question FROM catalogue_draw
    WHERE data_set = ?1 AND tbl = ?2 ORDER BY draw DESC LIMIT 1";

fn draw(row: &SqliteRow) -> Result<Draw, StoreError> {
    let (day, question): (&str, &str) = (row.try_get("begun_on")?, row.try_get("question")?);
    Ok(Draw {
        number: row.try_get("draw")?,
        begun_on: day.parse().map_err(|_| StoreError::Corrupt("day"))?,
        question: serde_json::from_str(question).map_err(|_| StoreError::Corrupt("question"))?,
    })
}

fn signed(row: &SqliteRow) -> Result<Signed, StoreError> {
    let seq: i64 = row.try_get("seq")?;
    Ok(Signed {
        seq: seq.unsigned_abs(),
        digest: read_digest(row.try_get("digest")?)?,
        envelope: row.try_get("envelope")?,
    })
}
