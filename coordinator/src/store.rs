//! The coordinator's one database: `coordinator.db` in the state directory.
//!
//! Promises: SQLite in WAL mode with `synchronous=FULL`, so what was stored survives a power cut; a file of mode
//! 0600; foreign keys on; the schema is brought up to date when the database is opened, and a database of a newer
//! version is refused. Statements are never logged.
//!
//! Deliberately absent: any belief in what is read back (a document is verified again by [`crate::documents`]), any
//! row of a patient (releases are noised before they arrive), and any SQL but in the signed queries of rounds.

mod counts;
mod exact;
mod history;
mod log;
mod published;
mod refused;
mod trust;

use std::{
    cmp::Ordering,
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use sekisho_protocol::{
    application::Application,
    catalogue::Catalogue,
    committee::Committee,
    decision::RefusedApplication,
    digest::Digest,
    dsse::Document,
    governance::Governance,
    log::{
        entry,
        store::{LogError, SCHEMA},
    },
    orders::Orders,
    output_review::OutputReview,
    permit::Permit,
    publication::Publication,
    review::Review,
    roster::Roster,
    schema::Schema,
    status::Status,
};
use serde::{Deserialize, Serialize};
use sqlx::{
    ConnectOptions, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

pub use self::counts::Counts;
pub use self::history::{KeptRelease, KeptResult, KeptRound};
pub use self::log::{LogFilter, Logged};
pub use self::published::KeptStatement;
pub use self::refused::{RefusedRequest, Request};

/// The migrations, in order; a database's `user_version` counts how many it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_state.sql"),
    include_str!("../migrations/0002_documents.sql"),
    include_str!("../migrations/0003_questions.sql"),
    include_str!("../migrations/0004_trust.sql"),
    SCHEMA,
    include_str!("../migrations/0006_published.sql"),
    include_str!("../migrations/0007_refused_requests.sql"),
    include_str!("../migrations/0008_exact_since.sql"),
];
/// How many connections are open at most.
const CONNECTIONS: u32 = 4;
/// How long a statement waits for another one that writes.
const BUSY: Duration = Duration::from_secs(30);

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
    #[error("the coordinator's database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The database was written by newer software.
    #[error("the coordinator's database has version {found}, this software knows {known}: use the newer software")]
    Newer {
        /// The version of the file.
        found: usize,
        /// The newest version that this software knows.
        known: usize,
    },
    /// The database is of older software, and is only to be read.
    #[error("the coordinator's database has version {found}, this software reads {known}: start the coordinator once")]
    Older {
        /// The version of the file.
        found: usize,
        /// The version that is read.
        known: usize,
    },
    /// A stored value is not what was written there.
    #[error("the coordinator's database holds a {0} that cannot be read: restore it from a backup")]
    Corrupt(&'static str),
    /// The log.
    #[error("the coordinator's database: {0}")]
    Log(#[from] LogError),
}

macro_rules! kinds {
    ($($variant:ident = $document:ty, $text:literal;)*) => {
        /// The kinds of document that the coordinator keeps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $(#[doc = concat!("`", $text, "/1`.")] $variant,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the database and in reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The kind with this payload type.
            pub fn of_payload_type(payload_type: &str) -> Option<Self> {
                $(if payload_type == <$document>::PAYLOAD_TYPE { return Some(Self::$variant); })*
                None
            }
        }
    };
}

kinds! {
    Roster = Roster, "roster";
    Status = Status, "status";
    Schema = Schema, "schema";
    Permit = Permit, "permit";
    Committee = Committee, "committee";
    Governance = Governance, "governance";
    Orders = Orders, "orders";
    Application = Application, "application";
    Review = Review, "review";
    Decision = RefusedApplication, "decision";
    Publication = Publication, "publication";
    OutputReview = OutputReview, "output_review";
    Catalogue = Catalogue, "catalogue";
}

impl Kind {
    /// Whether anybody who reaches the door may read documents of this kind.
    pub const fn is_public(self) -> bool {
        match self {
            Self::Roster | Self::Status | Self::Schema | Self::Permit | Self::Decision | Self::Publication => true,
            Self::Committee | Self::Governance | Self::Orders | Self::Catalogue => true,
            Self::Application | Self::Review | Self::OutputReview => false,
        }
    }
}

/// By what else than its digest a document is found: a schema has no name, a permit its id; a roster, a status or a
/// rotation of the governance key has the number of the operator's pin, and none without one.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose it is; empty where there is one line of them.
    pub name: String,
    /// Its number in that line, 0 for what has none.
    pub seq: u64,
}

/// A document as it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// Whose it is.
    pub name: String,
    /// Its number.
    pub seq: u64,
    /// When it was handed in.
    pub put_at: DateTime<Utc>,
    /// The DSSE envelope.
    pub envelope: Vec<u8>,
}

/// A round as it begins.
#[derive(Clone, Debug)]
pub struct NewRound {
    /// Its id.
    pub round: String,
    /// The signed query, by digest.
    pub query: Digest,
    /// Its envelope.
    pub question: Vec<u8>,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// Which run.
    pub run: u32,
    /// When.
    pub started: DateTime<Utc>,
}

/// How far a round is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundState {
    /// Hospitals are being asked.
    Running,
    /// It ended, with this report in JSON.
    Done(String),
    /// The coordinator stopped meanwhile; asking the same run again costs nothing where it was answered.
    Interrupted,
}

/// The open database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, making it (mode 0600) when it is not there, and brings its schema up to date.
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
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("trusted_schema", "OFF")
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let pool = pool(options).await?;
        migrate(&pool).await?;
        Ok(Self { pool })
    }

    /// Opens the database at `path` to read it, beside the coordinator that may be running on it.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or is of another version.
    pub async fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
        let pool = pool(options.pragma("trusted_schema", "OFF").disable_statement_logging()).await?;
        let (found, known) = (version(&mut *pool.acquire().await?).await?, MIGRATIONS.len());
        match found.cmp(&known) {
            Ordering::Greater => Err(StoreError::Newer { found, known }),
            Ordering::Less => Err(StoreError::Older { found, known }),
            Ordering::Equal => Ok(Self { pool }),
        }
    }

    /// Closes every connection; what was committed is in the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The envelopes of a kind, by name and number.
    pub(crate) async fn documents(&self, kind: Kind) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "SELECT envelope FROM document WHERE kind = ?1 ORDER BY name, seq, digest";
        Ok(sqlx::query_scalar(sql).bind(kind.as_str()).fetch_all(&self.pool).await?)
    }

    /// The envelope of a kind and name with the highest number.
    pub(crate) async fn newest(&self, kind: Kind, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT envelope FROM document WHERE kind = ?1 AND name = ?2 ORDER BY seq DESC LIMIT 1";
        Ok(sqlx::query_scalar(sql).bind(kind.as_str()).bind(name).fetch_optional(&self.pool).await?)
    }

    /// The envelopes of a kind and name by number, lowest first.
    pub(crate) async fn line(&self, kind: Kind, name: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "SELECT envelope FROM document WHERE kind = ?1 AND name = ?2 ORDER BY seq";
        Ok(sqlx::query_scalar(sql).bind(kind.as_str()).bind(name).fetch_all(&self.pool).await?)
    }

    /// The documents of a kind, of `name` or of all names, the latest first; `most` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn kept(&self, kind: Kind, name: Option<&str>, most: u32) -> Result<Vec<Kept>, StoreError> {
        let sql = "SELECT digest, name, seq, put_at, envelope FROM document
            WHERE kind = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY put_at DESC, seq DESC, digest LIMIT ?3";
        let rows = sqlx::query(sql).bind(kind.as_str()).bind(name).bind(most).fetch_all(&self.pool).await?;
        rows.iter().map(read_kept).collect()
    }

    /// How many different names the documents of a kind have.
    pub(crate) async fn names(&self, kind: Kind) -> Result<u64, StoreError> {
        let sql = "SELECT count(DISTINCT name) FROM document WHERE kind = ?1";
        let count: i64 = sqlx::query_scalar(sql).bind(kind.as_str()).fetch_one(&self.pool).await?;
        count.try_into().map_err(|_| StoreError::Corrupt("count"))
    }

    /// The newest document of each name of a kind, by name; `most` at most.
    pub(crate) async fn newest_of_each(&self, kind: Kind, most: u32) -> Result<Vec<Kept>, StoreError> {
        let sql = "SELECT digest, name, max(seq) AS seq, put_at, envelope FROM document
            WHERE kind = ?1 GROUP BY name ORDER BY name LIMIT ?2";
        let rows = sqlx::query(sql).bind(kind.as_str()).bind(most).fetch_all(&self.pool).await?;
        rows.iter().map(read_kept).collect()
    }

    /// The digest of the document of this kind at this place.
    pub(crate) async fn digest_at(&self, kind: Kind, place: &Place) -> Result<Option<Digest>, StoreError> {
        let sql = "SELECT digest FROM document WHERE kind = ?1 AND name = ?2 AND seq = ?3";
        let found: Option<Vec<u8>> = sqlx::query_scalar(sql)
            .bind(kind.as_str())
            .bind(&place.name)
            .bind(number(place.seq)?)
            .fetch_optional(&self.pool)
            .await?;
        found.map(|digest| read_digest(&digest)).transpose()
    }

    /// The envelope of the document with this digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn envelope(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT envelope FROM document WHERE digest = ?1";
        Ok(sqlx::query_scalar(sql).bind(digest.as_bytes().as_slice()).fetch_optional(&self.pool).await?)
    }

    /// Whether a document with this digest is kept.
    pub(crate) async fn holds(&self, digest: Digest) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM document WHERE digest = ?1)";
        Ok(sqlx::query_scalar(sql).bind(digest.as_bytes().as_slice()).fetch_one(&self.pool).await?)
    }

    /// Keeps a document; of one that is there, the envelope is replaced, since it may carry other signatures.
    pub(crate) async fn put_document(
        &self,
        kind: Kind,
        digest: Digest,
        place: &Place,
        envelope: &[u8],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO document (digest, kind, name, seq, envelope, put_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (digest) DO UPDATE SET envelope = excluded.envelope",
        )
        .bind(digest.as_bytes().as_slice())
        .bind(kind.as_str())
        .bind(&place.name)
        .bind(number(place.seq)?)
        .bind(envelope)
        .bind(instant(at))
        .execute(&mut *tx)
        .await?;
        log::enter_document(&mut tx, kind, envelope).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps a hospital's signed answer to a permit, in place of an earlier one.
    pub(crate) async fn put_acceptance(
        &self,
        node: &str,
        permit: Digest,
        envelope: &[u8],
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT OR REPLACE INTO acceptance (node, permit, envelope, at) VALUES (?1, ?2, ?3, ?4)")
            .bind(node)
            .bind(permit.as_bytes().as_slice())
            .bind(envelope)
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        log::enter(&mut tx, entry::Kind::Acceptance, envelope).await?;
        Ok(tx.commit().await?)
    }

    /// The hospitals' signed answers to a permit: name and envelope, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn acceptances(&self, permit: Digest) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sql = "SELECT node, envelope FROM acceptance WHERE permit = ?1 ORDER BY node";
        let rows = sqlx::query(sql).bind(permit.as_bytes().as_slice()).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("node")?, row.try_get("envelope")?))).collect()
    }

    /// Records a round that begins, with its question.
    pub(crate) async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT OR IGNORE INTO question (query, envelope) VALUES (?1, ?2)")
            .bind(round.query.as_bytes().as_slice())
            .bind(&round.question)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO round (round, query, query_key, permit, run, state, started_at)
            VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6)",
        )
        .bind(&round.round)
        .bind(round.query.as_bytes().as_slice())
        .bind(round.query_key.as_bytes().as_slice())
        .bind(round.permit.as_bytes().as_slice())
        .bind(round.run)
        .bind(instant(round.started))
        .execute(&mut *tx)
        .await?;
        log::enter(&mut tx, entry::Kind::Query, &round.question).await?;
        Ok(tx.commit().await?)
    }

    /// Keeps what a hospital released in a round: header, cells, the envelope of its receipt, and the proof that this is in its log.
    pub(crate) async fn put_release(
        &self,
        round: &str,
        node: &str,
        (header, cells): &(Vec<u8>, Vec<u8>),
        receipt: &[u8],
        proof: &[u8],
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO release (round, node, header, cells, receipt) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(round)
            .bind(node)
            .bind(header)
            .bind(cells)
            .bind(receipt)
            .execute(&mut *tx)
            .await?;
        published::keep_proof(&mut tx, round, node, proof).await?;
        exact::note(&mut tx, node, receipt).await?;
        log::enter(&mut tx, entry::Kind::Receipt, receipt).await?;
        Ok(tx.commit().await?)
    }

    /// Records that a round ended with this report, and the account of its result; without a report, that it was given up.
    pub(crate) async fn end_round(
        &self,
        round: &str,
        report: Option<&str>,
        statement: Option<&KeptStatement>,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE round SET state = ?2, report = ?3, ended_at = ?4 WHERE round = ?1 AND state = 'running'")
            .bind(round)
            .bind(if report.is_some() { "done" } else { "interrupted" })
            .bind(report)
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        if let Some(statement) = statement {
            published::publish(&mut tx, statement).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Marks the rounds that an earlier process left running; returns how many.
    pub(crate) async fn interrupt_rounds(&self, at: DateTime<Utc>) -> Result<u64, StoreError> {
        let sql = "UPDATE round SET state = 'interrupted', ended_at = ?1 WHERE state = 'running'";
        Ok(sqlx::query(sql).bind(instant(at)).execute(&self.pool).await?.rows_affected())
    }

    /// How far a round is; none when there is no such round.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn round(&self, round: &str) -> Result<Option<RoundState>, StoreError> {
        let sql = "SELECT state, report FROM round WHERE round = ?1";
        let row = sqlx::query(sql).bind(round).fetch_optional(&self.pool).await?;
        row.as_ref().map(state_of).transpose()
    }
}

async fn pool(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(2 * BUSY)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options)
        .await
}

/// How many migrations a database has had.
async fn version(connection: &mut SqliteConnection) -> Result<usize, StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(connection).await?;
    usize::try_from(found).map_err(|_| StoreError::Corrupt("version"))
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let found = version(&mut tx).await?;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer { found, known: MIGRATIONS.len() });
    }
    for migration in &MIGRATIONS[found..] {
        sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        if *migration == SCHEMA {
            log::enter_earlier(&mut tx).await?;
        }
    }
    if found < MIGRATIONS.len() {
        let version = format!("PRAGMA user_version = {}", MIGRATIONS.len());
        sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

fn state_of(row: &SqliteRow) -> Result<RoundState, StoreError> {
    let report: Option<String> = row.try_get("report")?;
    match (row.try_get::<&str, _>("state")?, report) {
        ("running", None) => Ok(RoundState::Running),
        ("interrupted", None) => Ok(RoundState::Interrupted),
        ("done", Some(report)) => Ok(RoundState::Done(report)),
        _ => Err(StoreError::Corrupt("round")),
    }
}

/// An instant as it is stored: nine decimals, so that text order is the order of time.
fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn read_instant(text: &str) -> Result<DateTime<Utc>, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt("point in time"))
}

fn number(seq: u64) -> Result<i64, StoreError> {
    seq.try_into().map_err(|_| StoreError::Corrupt("sequence number"))
}

fn read_kept(row: &SqliteRow) -> Result<Kept, StoreError> {
    let seq: i64 = row.try_get("seq")?;
    Ok(Kept {
        digest: read_digest(row.try_get("digest")?)?,
        name: row.try_get("name")?,
        seq: seq.try_into().map_err(|_| StoreError::Corrupt("sequence number"))?,
        put_at: read_instant(row.try_get("put_at")?)?,
        envelope: row.try_get("envelope")?,
    })
}

fn read_digest(stored: &[u8]) -> Result<Digest, StoreError> {
    stored.try_into().map(Digest::from_bytes).map_err(|_| StoreError::Corrupt("digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> DateTime<Utc> {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    async fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("coordinator.db")).await.unwrap()
    }

    async fn with_round(store: &Store) {
        let (permit, place) = (Digest::of(b"permit"), Place { name: "p".into(), seq: 1 });
        store.put_document(Kind::Permit, permit, &place, b"{}", at()).await.unwrap();
        let query = Digest::of(b"query");
        let question = b"{}".to_vec();
        let round = NewRound { round: "r".into(), query, question, query_key: query, permit, run: 1, started: at() };
        store.begin_round(&round).await.unwrap();
    }

    #[tokio::test]
    async fn the_file_is_its_owners_alone_and_writes_are_synchronous() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        for file in ["coordinator.db", "coordinator.db-wal"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file}");
        }
        let full: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.pool).await.unwrap();
        assert_eq!(full, 2);
    }

    #[tokio::test]
    async fn a_round_that_was_left_running_is_interrupted_after_a_restart_and_keeps_its_releases() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        with_round(&store).await;
        store.put_release("r", "a", &(vec![1], vec![2]), b"{}", b"proof").await.unwrap();
        assert_eq!(store.round("r").await.unwrap(), Some(RoundState::Running));
        store.close().await;

        let store = open(&dir).await;
        assert_eq!(store.interrupt_rounds(at()).await.unwrap(), 1);
        assert_eq!(store.round("r").await.unwrap(), Some(RoundState::Interrupted));
        let releases: i64 = sqlx::query_scalar("SELECT count(*) FROM release").fetch_one(&store.pool).await.unwrap();
        assert_eq!(releases, 1);
    }

    #[tokio::test]
    async fn what_is_kept_is_in_the_log_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        for _ in 0..2 {
            let place = Place { name: "p".into(), seq: 1 };
            store.put_document(Kind::Permit, Digest::of(b"permit"), &place, b"{}", at()).await.unwrap();
            store.put_acceptance("a", Digest::of(b"permit"), b"yes", at()).await.unwrap();
        }
        with_round(&store).await;
        store.put_release("r", "a", &(vec![1], vec![2]), b"receipt", b"proof").await.unwrap();
        assert!(
            store.put_release("r", "a", &(vec![1], vec![2]), b"other", b"proof").await.is_err(),
            "one for each hospital"
        );
        store.close().await;
        let store = open(&dir).await;
        let entries = store.log_entries(0, 99).await.unwrap();
        let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["permit", "acceptance", "query", "receipt"]);
        assert_eq!(store.audit_log(|_| {}).await.unwrap().head.size(), 4);
        // A database of before there was a log has the same entries afterwards.
        let log = ["checkpoint", "origin", "head", "tile", "statement", "leaf"].map(|table| format!("log_{table}"));
        for table in log.into_iter().chain(["receipt_proof", "published"].map(String::from)) {
            let drop = sqlx::AssertSqlSafe(format!("DROP TABLE {table}"));
            sqlx::raw_sql(drop).execute(&store.pool).await.unwrap();
        }
        sqlx::raw_sql("DROP TABLE refused_request; DROP TABLE exact_since").execute(&store.pool).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 4").execute(&store.pool).await.unwrap();
        store.close().await;
        let entries = open(&dir).await.log_entries(0, 99).await.unwrap();
        let mut again: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        again.sort_unstable();
        assert_eq!(again, ["acceptance", "permit", "query", "receipt"]);
    }

    #[tokio::test]
    async fn a_round_ends_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        with_round(&store).await;
        store.end_round("r", Some("{}"), None, at()).await.unwrap();
        store.end_round("r", None, None, at()).await.unwrap();
        assert_eq!(store.round("r").await.unwrap(), Some(RoundState::Done("{}".into())));
    }

    #[tokio::test]
    async fn a_database_of_newer_software_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        sqlx::query("PRAGMA user_version = 99").execute(&store.pool).await.unwrap();
        store.close().await;
        let refused = Store::open(&dir.path().join("coordinator.db")).await;
        assert!(matches!(refused, Err(StoreError::Newer { found: 99, .. })));
    }
}
