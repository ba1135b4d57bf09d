//! The node's one database: ledger, log, patient register and documents in `state/node.db`.
//!
//! Promises: SQLite in WAL mode with `synchronous=FULL`, so what was committed survives a power cut; one
//! writer at a time, whose transaction begins `IMMEDIATE`; readers that cannot write; foreign keys on; a
//! file of mode 0600; the schema is brought up to date when the database is opened, and a database of a
//! newer version is refused. Statements are never logged.
//!
//! Deliberately absent: any table's meaning (that is [`crate::ledger`], [`crate::register`],
//! [`crate::documents`] and [`crate::log`]), encryption (the disk's), and any way to hand a connection out of this crate.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use sekisho_protocol::{digest::Digest, log::store::LogError, units::MicroRho};
use sqlx::{
    ConnectOptions, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::log;

/// The migrations, in order; a database's `user_version` counts how many it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_state.sql"),
    include_str!("../migrations/0002_policy.sql"),
    include_str!("../migrations/0003_register.sql"),
    include_str!("../migrations/0004_trust.sql"),
    include_str!("../migrations/0005_catalogue.sql"),
    include_str!("../migrations/0006_replay.sql"),
    include_str!("../migrations/0007_alerts.sql"),
    log::SCHEMA,
    include_str!("../migrations/0009_write_off.sql"),
    include_str!("../migrations/0010_operations.sql"),
    include_str!("../migrations/0011_exact.sql"),
];
/// How many connections may read at once.
const READERS: u32 = 3;
/// How long a statement waits for another process (an import by the CLI, for one).
const BUSY: Duration = Duration::from_secs(30);
/// How long a task waits for its turn to write.
const TURN: Duration = Duration::from_secs(60);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or protected.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// SQLite said no.
    #[error("the node's database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The database was written by newer software.
    #[error("the node's database has version {found}, this software knows {known}: use the newer software")]
    Newer {
        /// The version of the file.
        found: usize,
        /// The newest version that this software knows.
        known: usize,
    },
    /// A stored value is not what was written there.
    #[error("the node's database holds a {0} that cannot be read: restore it from a backup")]
    Corrupt(&'static str),
    /// The log.
    #[error("the node's database: {0}")]
    Log(#[from] LogError),
}

/// The open database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, making it (mode 0600) when it is not there, and brings its schema up
    /// to date.
    ///
    /// # Errors
    /// When the file cannot be made, is no database, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let file = |source| StoreError::File { path: path.into(), source };
        // Made before SQLite sees it: its WAL files take the mode of the database.
        let made =
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(file)?;
        made.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file)?;
        drop(made);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full)
            .pragma("recursive_triggers", "ON")
            .pragma("trusted_schema", "OFF")
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(TURN)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = pool(1).connect_with(options.clone().journal_mode(SqliteJournalMode::Wal)).await?;
        migrate(&writer).await?;
        let reader = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, reader })
    }

    /// Closes every connection; what was committed is in the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Begins a transaction that has the write lock from its first statement; dropped, it is rolled back.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The connections that read, each statement one consistent state.
    pub(crate) fn read(&self) -> &SqlitePool {
        &self.reader
    }
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await?;
    let found = usize::try_from(found).map_err(|_| StoreError::Corrupt("version"))?;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer { found, known: MIGRATIONS.len() });
    }
    for migration in &MIGRATIONS[found..] {
        sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        if *migration == log::SCHEMA {
            log::carry_over(&mut tx).await?;
        }
    }
    if found < MIGRATIONS.len() {
        let version = format!("PRAGMA user_version = {}", MIGRATIONS.len());
        sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// An instant as it is stored: nine decimals, so that text order is the order of time.
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Reads a stored instant.
pub(crate) fn read_instant(text: &str) -> Result<DateTime<Utc>, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt("point in time"))
}

/// An amount as it is stored.
pub(crate) fn amount(rho: MicroRho) -> i64 {
    // At most 10^15.
    rho.get().cast_signed()
}

/// Reads a stored amount.
pub(crate) fn read_amount(stored: i64) -> Result<MicroRho, StoreError> {
    let amount = u64::try_from(stored).map_err(|_| StoreError::Corrupt("amount"))?;
    amount.try_into().map_err(|_| StoreError::Corrupt("amount"))
}

/// Reads a stored digest.
pub(crate) fn read_digest(stored: &[u8]) -> Result<Digest, StoreError> {
    stored.try_into().map(Digest::from_bytes).map_err(|_| StoreError::Corrupt("digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_and_its_journal_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        fs::write(&path, b"").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let store = Store::open(&path).await.unwrap();
        assert_eq!(mode(&path).await, 0o600);
        assert_eq!(mode(&dir.path().join("node.db-wal")).await, 0o600);
        store.close().await;
    }

    #[tokio::test]
    async fn every_connection_has_the_settings_that_the_ledger_relies_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node.db")).await.unwrap();
        for pool in [&store.writer, &store.reader] {
            for (pragma, expect) in
                [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1), ("PRAGMA recursive_triggers", 1)]
            {
                let found: i64 = sqlx::query_scalar(pragma).fetch_one(pool).await.unwrap();
                assert_eq!(found, expect, "{pragma}");
            }
            let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
            assert_eq!(journal, "wal");
        }
        assert!(sqlx::query("DELETE FROM nonce").execute(store.read()).await.is_err(), "readers cannot write");
    }

    #[tokio::test]
    async fn a_database_of_newer_software_is_refused_and_one_of_this_software_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.db");
        Store::open(&path).await.unwrap().close().await;
        let store = Store::open(&path).await.unwrap();
        sqlx::query("PRAGMA user_version = 99").execute(&store.writer).await.unwrap();
        store.close().await;
        assert!(matches!(Store::open(&path).await, Err(StoreError::Newer { found: 99, .. })));
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_nothing_and_gives_the_turn_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node.db")).await.unwrap();
        for _ in 0..3 {
            let mut tx = store.write().await.unwrap();
            sqlx::query("INSERT INTO study (study_id, earmark) VALUES ('s', 1)").execute(&mut *tx).await.unwrap();
        }
        let studies: i64 = sqlx::query_scalar("SELECT count(*) FROM study").fetch_one(store.read()).await.unwrap();
        assert_eq!(studies, 0);
    }
}
