//! The hospital's log: what the node decided, charged and answered, in the order in which it did.
//!
//! Promises: an entry is made in the transaction of what it is about (`append`), so that the log and the ledger agree after
//! any crash; nothing in it is ever changed; a statement may be erased and every proof stays valid. Logged are the documents
//! that were taken, permits with this hospital's answers, charges, receipts, charged runs without an answer, the hospital's
//! own catalogues, and each version of its policy.
//!
//! Deliberately absent: refusals before a charge. They cost the asker nothing, so that whoever may ask could fill the disk with
//! them; the node's own messages tell of them.

mod receipt_proof;
mod standing;
mod succession;
mod witness;

use std::num::NonZeroUsize;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sekisho_protocol::{
    keys::SecretKey,
    log::{
        entry::Kind,
        note::KeyName,
        statements::Statements,
        store::{self, Audited, Leaf, Proved, Which},
    },
};
use sqlx::{Row, SqliteConnection};

use crate::store::{Store, StoreError};

pub use self::standing::Standing;
pub(crate) use self::standing::refusal;
pub use sekisho_protocol::log::store::MAX_PAGE;
pub(crate) use sekisho_protocol::log::store::SCHEMA;

/// Appends one statement, the bytes of an envelope, in the caller's transaction; its index.
pub(crate) async fn append(tx: &mut SqliteConnection, kind: Kind, envelope: &[u8]) -> Result<u64, StoreError> {
    Ok(store::append(tx, &mut ChaCha20Rng::from_os_rng(), &[(kind, envelope)]).await?)
}

/// The same, unless these bytes are in the log already.
pub(crate) async fn append_once(tx: &mut SqliteConnection, kind: Kind, envelope: &[u8]) -> Result<(), StoreError> {
    if store::find(tx, kind, envelope).await?.is_none() {
        append(tx, kind, envelope).await?;
    }
    Ok(())
}

/// The documents that were taken before there was a tree: of each as much as is still kept.
const EARLIER: &str = "SELECT kind, envelope FROM chain
    UNION ALL SELECT kind, envelope FROM pinned
    UNION ALL SELECT 'permit', envelope FROM permit
    UNION ALL SELECT 'acceptance', acceptance FROM permit
    UNION ALL SELECT 'catalogue', envelope FROM catalogue";

/// Enters what was kept before there was a tree: the documents, then the entries of the table `log` in their order, which is
/// dropped.
pub(crate) async fn carry_over(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    for row in sqlx::query(EARLIER).fetch_all(&mut *tx).await? {
        let kind = row.try_get::<&str, _>("kind")?.parse().map_err(|_| StoreError::Corrupt("kind of document"))?;
        append(tx, kind, row.try_get("envelope")?).await?;
    }
    let mut from = 0;
    loop {
        let rows = sqlx::query(
            "SELECT idx, envelope, CASE
                WHEN instr(CAST(envelope AS TEXT), 'vnd.sekisho.replay.v1') THEN 'replay'
                WHEN instr(CAST(envelope AS TEXT), 'vnd.sekisho.alert.v1') THEN 'alert'
                WHEN EXISTS (SELECT 1 FROM release r WHERE r.charge_id = log.charge_id AND r.receipt = log.envelope)
                    THEN 'receipt'
                ELSE 'reservation' END AS kind
            FROM log WHERE idx >= ?1 ORDER BY idx LIMIT ?2",
        )
        .bind(from)
        .bind(MAX_PAGE)
        .fetch_all(&mut *tx)
        .await?;
        let mut entries: Vec<(Kind, &[u8])> = Vec::with_capacity(rows.len());
        for row in &rows {
            let kind = row.try_get::<&str, _>("kind")?.parse().map_err(|_| StoreError::Corrupt("kind of entry"))?;
            entries.push((kind, row.try_get("envelope")?));
            from = row.try_get::<i64, _>("idx")? + 1;
        }
        if entries.is_empty() {
            break;
        }
        store::append(tx, &mut ChaCha20Rng::from_os_rng(), &entries).await?;
    }
    sqlx::raw_sql("DROP TABLE log").execute(tx).await?;
    Ok(())
}

/// The log of one node. Clones share it.
#[derive(Clone, Debug)]
pub struct Log {
    store: Store,
}

impl Log {
    /// The log in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// How many entries it has.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn len(&self) -> Result<u64, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        Ok(store::head(&mut connection).await?.size())
    }

    /// Whether it has no entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len().await? == 0)
    }

    /// Entries from `from` on, in order; at most `limit` of them and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn entries(&self, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        Ok(store::leaves(&mut connection, from, limit).await?)
    }

    /// Erases the statement of entry `index` with its salt; whether there was one. The entry stays, and so does every proof.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn erase(&self, index: u64) -> Result<bool, StoreError> {
        let mut tx = self.store.write().await?;
        let erased = store::erase(&mut tx, index).await?;
        tx.commit().await?;
        Ok(erased)
    }

    /// Reads the whole log and makes every hash again; `seen` is told how many entries were checked.
    ///
    /// # Errors
    /// [`StoreError::Log`] names the first thing that is not what it was.
    pub async fn audit(&self, seen: impl FnMut(u64) + Send) -> Result<Audited, StoreError> {
        let mut tx = self.store.read().begin().await?;
        Ok(store::audit(&mut tx, seen).await?)
    }

    /// The same, with the signatures of `statements`, on so many `threads`.
    ///
    /// # Errors
    /// [`StoreError::Log`], also with the first statement that is wrong.
    pub async fn audit_with(
        &self,
        statements: Option<&mut Statements>,
        threads: NonZeroUsize,
        seen: impl FnMut(u64) + Send,
    ) -> Result<Audited, StoreError> {
        let mut tx = self.store.read().begin().await?;
        Ok(store::audit_with(&mut tx, statements, threads, seen).await?)
    }

    /// Entries of one kind from `from` on, in order; at most `limit` of them and at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn entries_of(&self, kind: Kind, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        Ok(store::leaves_of(&mut connection, kind, from, limit).await?)
    }

    /// Proves that the entry that `which` names is in the log as it is now, signed with `key`.
    ///
    /// # Errors
    /// When there is none, it was erased, or the database fails.
    pub async fn prove(&self, which: &Which, origin: &KeyName, key: &SecretKey) -> Result<Proved, StoreError> {
        let mut tx = self.store.read().begin().await?;
        let checkpoint = store::checkpoint(&mut tx, origin.clone(), key).await?;
        let index = store::place_of(&mut tx, which).await?;
        Ok(store::prove(&mut tx, index, checkpoint).await?)
    }

    /// Appends `statement` unless the newest statement of its kind tells the same, as `same` sees it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn append_when_new(
        &self,
        kind: Kind,
        statement: &[u8],
        same: impl FnOnce(&[u8]) -> bool + Send,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write().await?;
        let newest: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT s.envelope FROM log_leaf l JOIN log_statement s ON s.idx = l.idx
            WHERE l.kind = ?1 ORDER BY l.idx DESC LIMIT 1",
        )
        .bind(kind.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        if newest.is_some_and(|newest| same(&newest)) {
            return Ok(false);
        }
        append(&mut tx, kind, statement).await?;
        tx.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;

    const OLD: [&str; 5] = [
        include_str!("../migrations/0001_state.sql"),
        include_str!("../migrations/0002_policy.sql"),
        include_str!("../migrations/0003_register.sql"),
        include_str!("../migrations/0004_trust.sql"),
        include_str!("../migrations/0005_catalogue.sql"),
    ];

    #[tokio::test]
    async fn what_was_kept_before_there_was_a_tree_is_entered_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut old = SqliteConnection::connect_with(&options).await.unwrap();
        for migration in OLD {
            sqlx::raw_sql(migration).execute(&mut old).await.unwrap();
        }
        sqlx::raw_sql(
            "INSERT INTO study (study_id, earmark) VALUES ('s', 9);
            INSERT INTO charge SELECT 1, zeroblob(32), zeroblob(32), 1, 's', zeroblob(32), 1, 0, 0, '', '', '2026-01-01T';
            INSERT INTO charge SELECT 2, zeroblob(32), zeroblob(32), 2, 's', zeroblob(32), 1, 0, 0, '', '', '2026-01-01T';
            INSERT INTO log VALUES (0, 1, x'01'), (1, 2, x'02'), (2, 1, x'03');
            INSERT INTO release VALUES (1, x'', x'', x'03', x'');
            INSERT INTO chain VALUES ('committee', '', 1, zeroblob(32), x'04');
            INSERT INTO pinned VALUES ('roster', '0', 1, zeroblob(32), x'05');
            PRAGMA user_version = 5",
        )
        .execute(&mut old)
        .await
        .unwrap();
        old.close().await.unwrap();
        let expected = [
            (Kind::Committee, vec![4]),
            (Kind::Roster, vec![5]),
            (Kind::Reservation, vec![1]),
            (Kind::Reservation, vec![2]),
            (Kind::Receipt, vec![3]),
        ];
        for opened in 1..=2 {
            let store = Store::open(&path).await.unwrap();
            let log = Log::new(store.clone());
            let entries = log.entries(0, 99).await.unwrap().into_iter().map(|e| (e.kind, e.opened.unwrap().statement));
            assert_eq!(entries.collect::<Vec<_>>(), expected, "opened {opened} times");
            assert_eq!(log.audit(|_| {}).await.unwrap().head.size(), 5);
            let gone = sqlx::query("SELECT * FROM log").fetch_all(store.read()).await;
            assert!(gone.is_err(), "the old table is gone");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_statement_is_entered_when_it_tells_something_new() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node.db")).await.unwrap();
        let log = Log::new(store.clone());
        assert!(log.is_empty().await.unwrap());
        for (text, entered) in [(b"a", true), (b"a", false), (b"b", true), (b"a", true)] {
            let same = |newest: &[u8]| newest == text;
            assert_eq!(log.append_when_new(Kind::Policy, text, same).await.unwrap(), entered);
        }
        let mut tx = store.write().await.unwrap();
        for _ in 0..2 {
            append_once(&mut tx, Kind::Roster, b"roster").await.unwrap();
            append(&mut tx, Kind::Reservation, b"reservation").await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(log.len().await.unwrap(), 6);
        assert!(log.erase(0).await.unwrap());
        assert_eq!(log.audit(|_| {}).await.unwrap().erased, 1);
    }
}
