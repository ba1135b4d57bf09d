//! The coordinator's log: each signed statement that it took, in the transaction that keeps it.
//!
//! Promises: log and tables agree after any crash; the same bytes are entered once. Logged are documents, hospitals' answers to
//! permits, the signed query of each round, receipts, and the checkpoints of hospitals' logs. What was taken before there was a log is entered when it is made.

use std::num::NonZeroUsize;

use chrono::{DateTime, Utc};
use rand::{SeedableRng, rngs::StdRng};
use sekisho_protocol::{
    digest::Digest,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        entry::Kind as Entry,
        merkle::TreeHead,
        note::{KeyName, NoteSignature},
        statements::Statements,
        store::{self, Audited, Leaf, LogError, Proved, Which},
        tile::{Tile, WIDTH},
    },
};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use super::{Kind, Store, StoreError, read_instant};

/// What was kept before there was a log, in the order of time as far as it is known.
const EARLIER: &str = "SELECT kind, envelope FROM (
    SELECT kind, envelope, put_at AS at FROM document
    UNION ALL SELECT 'acceptance', envelope, at FROM acceptance
    UNION ALL SELECT 'query', envelope, (SELECT min(started_at) FROM round r WHERE r.query = question.query) FROM question
    UNION ALL SELECT 'receipt', receipt, started_at FROM release JOIN round USING (round)
) ORDER BY at";

/// Which entries of the log are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFilter {
    /// Those of this kind; of all kinds without it.
    pub kind: Option<Entry>,
    /// Those that commit to the statement of this digest.
    pub statement: Option<Digest>,
    /// Those before this index.
    pub before: Option<u64>,
}

/// An entry of the log in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub index: u64,
    /// What it commits to.
    pub kind: Entry,
    /// The statement; none when it was erased.
    pub statement: Option<Vec<u8>>,
}

impl Kind {
    /// What an entry of the log is called that commits to a document of this kind.
    const fn entry(self) -> Entry {
        match self {
            Self::Roster => Entry::Roster,
            Self::Status => Entry::Status,
            Self::Schema => Entry::Schema,
            Self::Permit => Entry::Permit,
            Self::Committee => Entry::Committee,
            Self::Governance => Entry::Governance,
            Self::Orders => Entry::Orders,
            Self::Application => Entry::Application,
            Self::Review => Entry::Review,
            Self::Decision => Entry::Decision,
            Self::Publication => Entry::Publication,
            Self::OutputReview => Entry::OutputReview,
            Self::Catalogue => Entry::Catalogue,
        }
    }
}

/// Enters a document, unless these bytes are in the log.
pub(super) async fn enter_document(tx: &mut SqliteConnection, kind: Kind, bytes: &[u8]) -> Result<(), StoreError> {
    enter(tx, kind.entry(), bytes).await
}

/// Enters a statement, unless these bytes are in the log.
pub(super) async fn enter(tx: &mut SqliteConnection, kind: Entry, bytes: &[u8]) -> Result<(), StoreError> {
    if store::find(tx, kind, bytes).await?.is_none() {
        store::append(tx, &mut StdRng::from_os_rng(), &[(kind, bytes)]).await?;
    }
    Ok(())
}

/// Enters what was kept before there was a log.
pub(super) async fn enter_earlier(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    for row in sqlx::query(EARLIER).fetch_all(&mut *tx).await? {
        let kind = row.try_get::<&str, _>("kind")?.parse().map_err(|_| StoreError::Corrupt("kind of document"))?;
        enter(tx, kind, row.try_get("envelope")?).await?;
    }
    Ok(())
}

impl Store {
    /// Begins a transaction that has the write lock from its first statement: whoever appends to the log reads it first.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The newest checkpoint of the log of a member.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_checkpoint(&self, member: &str) -> Result<Option<SignedCheckpoint>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        Ok(store::newest_of(&mut connection, member).await?)
    }

    /// The log as it is now, signed with `key`.
    pub(crate) async fn checkpoint(&self, origin: &KeyName, key: &SecretKey) -> Result<SignedCheckpoint, StoreError> {
        let mut tx = self.write().await?;
        let origin = store::name(&mut tx, origin).await?;
        let checkpoint = store::checkpoint(&mut tx, origin, key).await?;
        tx.commit().await?;
        Ok(checkpoint)
    }

    /// Keeps the newest checkpoint of the coordinator's own log, with its cosignatures.
    pub(crate) async fn keep_own(&self, checkpoint: &SignedCheckpoint) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        store::keep(&mut tx, checkpoint).await?;
        Ok(tx.commit().await?)
    }

    /// The hashes of a tile.
    pub(crate) async fn log_tile(&self, tile: Tile) -> Result<Vec<u8>, StoreError> {
        let found = store::tile(&mut *self.pool.acquire().await?, tile).await?;
        found.ok_or(StoreError::Corrupt("tile of the log"))
    }

    /// The entries whose hashes a tile of level 0 has.
    pub(crate) async fn log_commitments(&self, tile: Tile) -> Result<Vec<[u8; 32]>, StoreError> {
        let (from, width) = (tile.index() * u64::from(WIDTH), tile.width());
        let leaves = store::leaves(&mut *self.pool.acquire().await?, from, width.into()).await?;
        Ok(leaves.iter().map(|leaf| *leaf.commitment.as_bytes()).collect())
    }

    /// How many entries the log has.
    pub(crate) async fn log_size(&self) -> Result<u64, StoreError> {
        Ok(store::head(&mut *self.pool.acquire().await?).await?.size())
    }

    /// The proof that the log of `new` entries continues the one of `old`.
    pub(crate) async fn log_consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, StoreError> {
        let mut tx = self.pool.begin().await?;
        Ok(store::consistency(&mut tx, old, new).await?)
    }

    /// Keeps `checkpoint` as the newest of the member's log, and enters it, if `before` still is the newest.
    pub(crate) async fn keep_checkpoint(
        &self,
        member: &str,
        before: Option<&SignedCheckpoint>,
        checkpoint: &SignedCheckpoint,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if store::newest_of(&mut tx, member).await?.as_ref() != before {
            return Ok(false);
        }
        store::keep(&mut tx, checkpoint).await?;
        enter(&mut tx, Entry::Checkpoint, checkpoint.to_string().as_bytes()).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes `checkpoint` as the newest of the member's next log, with the write-off of the log before, if `lost` still is the
    /// newest of that.
    pub(crate) async fn succeed(
        &self,
        member: &str,
        lost: &SignedCheckpoint,
        write_off: &[u8],
        checkpoint: &SignedCheckpoint,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        if store::newest_of(&mut tx, member).await?.as_ref() != Some(lost) {
            return Ok(false);
        }
        enter(&mut tx, Entry::WriteOff, write_off).await?;
        store::keep(&mut tx, checkpoint).await?;
        enter(&mut tx, Entry::Checkpoint, checkpoint.to_string().as_bytes()).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Keeps a cosignature with a hospital's newest checkpoint, if that still is the one that was cosigned.
    pub(crate) async fn add_cosignature(
        &self,
        cosigned: &Checkpoint,
        signature: NoteSignature,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let newest = store::newest(&mut tx, cosigned.origin()).await?;
        if let Some(mut newest) = newest.filter(|newest| newest.claimed() == cosigned) {
            newest.add(signature).map_err(LogError::from)?;
            store::keep(&mut tx, &newest).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Enters a checkpoint that contradicts what was kept.
    pub(crate) async fn enter_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        enter(&mut tx, Entry::Checkpoint, checkpoint.to_string().as_bytes()).await?;
        Ok(tx.commit().await?)
    }

    /// The newest checkpoint of the coordinator's own log, with its cosignatures; none before enough hospitals witnessed one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn own_checkpoint(&self) -> Result<Option<SignedCheckpoint>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let Some(origin) = store::origin(&mut connection).await? else { return Ok(None) };
        Ok(store::newest(&mut connection, &origin).await?)
    }

    /// The head that the log had at `size` entries.
    ///
    /// # Errors
    /// When it has fewer, or the database cannot be read.
    pub async fn log_head_at(&self, size: u64) -> Result<TreeHead, StoreError> {
        let mut tx = self.pool.begin().await?;
        Ok(store::head_at(&mut tx, size).await?)
    }

    /// Proves that the entry that `which` names is under `checkpoint`.
    ///
    /// # Errors
    /// When it is not, was erased, or the database cannot be read.
    pub async fn prove(&self, which: &Which, checkpoint: SignedCheckpoint) -> Result<Proved, StoreError> {
        let mut tx = self.pool.begin().await?;
        let index = store::place_of(&mut tx, which).await?;
        Ok(store::prove(&mut tx, index, checkpoint).await?)
    }

    /// Entries of one kind from `from` on, in order; at most `limit` of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn log_entries_of(&self, kind: Entry, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        Ok(store::leaves_of(&mut connection, kind, from, limit).await?)
    }

    /// Entries of the log from `from` on, in order; at most `limit` of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn log_entries(&self, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        Ok(store::leaves(&mut connection, from, limit).await?)
    }

    /// The newest entries that `filter` lets through; at most `most` of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_entries(&self, filter: LogFilter, most: u32) -> Result<Vec<Logged>, StoreError> {
        let sql = "SELECT l.idx, l.kind, s.envelope FROM log_leaf l LEFT JOIN log_statement s ON s.idx = l.idx
            WHERE (?1 IS NULL OR l.kind = ?1) AND (?2 IS NULL OR s.digest = ?2) AND l.idx < ?3
            ORDER BY l.idx DESC LIMIT ?4";
        let before = filter.before.and_then(|index| i64::try_from(index).ok()).unwrap_or(i64::MAX);
        let rows = sqlx::query(sql)
            .bind(filter.kind.map(Entry::as_str))
            .bind(filter.statement.as_ref().map(|digest| digest.as_bytes().as_slice()))
            .bind(before)
            .bind(most)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Logged {
                index: row.try_get::<i64, _>("idx")?.unsigned_abs(),
                kind: row.try_get::<&str, _>("kind")?.parse().map_err(|_| StoreError::Corrupt("log entry"))?,
                statement: row.try_get("envelope")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// When the document or query whose payload has this digest came here; none when it is neither.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn came_at(&self, payload: Digest) -> Result<Option<DateTime<Utc>>, StoreError> {
        let sql = "SELECT min(at) FROM (SELECT put_at AS at FROM document WHERE digest = ?1
            UNION ALL SELECT started_at FROM round WHERE query = ?1)";
        let found: Option<String> =
            sqlx::query_scalar(sql).bind(payload.as_bytes().as_slice()).fetch_one(&self.pool).await?;
        found.as_deref().map(read_instant).transpose()
    }

    /// Reads the whole log and makes every hash again; `seen` is told how many entries were checked.
    ///
    /// # Errors
    /// [`StoreError::Log`] names the first thing that is not what it was.
    pub async fn audit_log(&self, seen: impl FnMut(u64) + Send) -> Result<Audited, StoreError> {
        let mut tx = self.pool.begin().await?;
        Ok(store::audit(&mut tx, seen).await?)
    }

    /// The same, with the signatures of `statements`, on so many `threads`.
    ///
    /// # Errors
    /// [`StoreError::Log`], also with the first statement that is wrong.
    pub async fn audit_log_with(
        &self,
        statements: Option<&mut Statements>,
        threads: NonZeroUsize,
        seen: impl FnMut(u64) + Send,
    ) -> Result<Audited, StoreError> {
        let mut tx = self.pool.begin().await?;
        Ok(store::audit_with(&mut tx, statements, threads, seen).await?)
    }
}
