//! Snapshots: a data set frozen as Parquet sorted by patient, under a manifest of digests.
//!
//! `snapshots_dir/<id>/` holds the tables and `manifest.json`; the id is the first 16 hexadecimal digits of
//! the manifest's SHA-256. `CURRENT-<data set>` holds the digest of the newest manifest. Snapshots never
//! change, and [`super::retention`] keeps those that a run is bound to, so that it can be repeated exactly. Digests of snapshots depend on
//! data: they leave the hospital as salted commitments only.
//!
//! Promises: a snapshot that opens was made for the mapping's schema and has the files and sizes that its
//! manifest says; [`Snapshot::verify_files`] checks every byte. Neither `Debug` nor an error tells a count
//! of rows.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Verified,
    refusal::{Code, Refusal},
    schema::Schema,
};
use serde::{Deserialize, Serialize};

use super::{
    files::{self, at},
    mapping::{Mapping, TableMapping},
    sources::{self, Source, SourceRecord},
};
pub use super::{
    staging::sweep,
    taking::{Progress, Settings, Stage, TableReport, take},
};

/// The most bytes of a manifest.
const MAX_MANIFEST: u64 = 16 << 20;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process takes a snapshot in this directory.
    #[error("another snapshot is being taken in {0}; wait until it is done")]
    Busy(PathBuf),
    /// The source lacks a column, or an expression does not fit it.
    #[error("{table}.{column}: {reason}")]
    Mismatch {
        /// The table.
        table: String,
        /// The schema's column.
        column: String,
        /// What is wrong, by names and types.
        reason: String,
    },
    /// A source cannot be read to its end.
    #[error("table {table}: its source cannot be read: {reason}")]
    Read {
        /// The table.
        table: String,
        /// The kind of failure, without any value of the source.
        reason: String,
    },
    /// A table cannot be written.
    #[error("table {table}: {reason}")]
    Write {
        /// The table.
        table: String,
        /// What the disk or the encoder said.
        reason: String,
    },
    /// A patient has several rows where the schema allows one.
    #[error("table {table}: a patient has more than one row, but the schema declares one row per patient")]
    ManyRows {
        /// The table.
        table: String,
    },
    /// The source was written to while it was read.
    #[error("table {table}: its source changed while it was read; take the snapshot again")]
    Moving {
        /// The table.
        table: String,
    },
    /// The snapshot was taken for another schema.
    #[error("snapshot {id} was taken for schema {found}, the mapping has {expected}; take a new one")]
    OtherSchema {
        /// The snapshot.
        id: String,
        /// The first digits of its schema's digest.
        found: String,
        /// The first digits of the mapping's.
        expected: String,
    },
    /// The files are not what the manifest says.
    #[error("snapshot {id} is damaged: {reason}")]
    Damaged {
        /// The snapshot.
        id: String,
        /// What does not agree.
        reason: String,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {0}")]
    Unknown(String),
}

impl From<SnapshotError> for Refusal {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Mismatch { table, column, .. } => {
                Self::new(Code::SchemaMismatch, format!("{table}.{column} is not mapped to what the source has"))
            }
            SnapshotError::ManyRows { .. } => Self::new(Code::SchemaMismatch, error.to_string()),
            SnapshotError::OtherSchema { .. } => {
                Self::new(Code::SchemaMismatch, "the snapshot was taken for another schema than the mapping's")
            }
            SnapshotError::Moving { .. } => Self::new(Code::SourceChanged, error.to_string()),
            SnapshotError::Io { .. }
            | SnapshotError::Busy(_)
            | SnapshotError::Read { .. }
            | SnapshotError::Write { .. }
            | SnapshotError::Damaged { .. }
            | SnapshotError::Unknown(_) => {
                Self::new(Code::Unavailable, "the data set's snapshot is not usable; its operator's log says why")
            }
        }
    }
}

/// What a snapshot consists of, as it is on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) data_set: String,
    pub(super) synthetic: bool,
    pub(super) schema: Digest,
    pub(super) tables: BTreeMap<String, TableRecord>,
    pub(super) taken_at: DateTime<Utc>,
}

/// One table of a manifest.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableRecord {
    pub(super) file: String,
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
    pub(super) row_groups: usize,
    pub(super) mapping: Digest,
    #[serde(deserialize_with = "sources::one_or_several")]
    pub(super) source: Vec<SourceRecord>,
}

/// Whether the sources are still those of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum SourceState {
    /// They are.
    Unchanged,
    /// The source or the mapping of this table is another one, or gone.
    Changed(String),
}

impl SourceState {
    /// Passes when nothing changed.
    ///
    /// # Errors
    /// `source_changed`, naming the table.
    pub fn require_unchanged(self) -> Result<(), Refusal> {
        match self {
            Self::Unchanged => Ok(()),
            Self::Changed(table) => Err(Refusal::new(
                Code::SourceChanged,
                format!("the source or the mapping of table {table} changed since the snapshot"),
            )),
        }
    }
}

/// An immutable copy of a data set.
#[derive(Clone)]
pub struct Snapshot {
    directory: PathBuf,
    id: String,
    digest: Digest,
    manifest: Arc<Manifest>,
    schema: Arc<Verified<Schema>>,
    /// The paths and patterns of each table's source files, from the mapping.
    sources: BTreeMap<String, Vec<Source>>,
    synthetic: bool,
    /// A table that the mapping of today maps otherwise.
    remapped: Option<String>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} of {})", self.id, self.manifest.data_set)
    }
}

/// The manifest's digest of the newest snapshot of a data set, if one was taken. It reads one line.
///
/// # Errors
/// When the file that says so cannot be read.
pub fn current(snapshots: &Path, data_set: &str) -> Result<Option<Digest>, SnapshotError> {
    let path = current_path(snapshots, data_set);
    let digest = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(at(&path))?,
    };
    let digest = digest.trim_end().parse();
    digest.map(Some).map_err(|_| damaged(data_set, "the file that names it holds no digest"))
}

/// The newest snapshot of the mapping's data set, if one was taken.
///
/// # Errors
/// When it is damaged or was taken for another schema.
pub fn open(mapping: &Mapping, snapshots: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let Some(digest) = current(snapshots, mapping.id())? else { return Ok(None) };
    let snapshot = open_by_id(mapping, snapshots, &id_of(digest))?;
    if snapshot.digest != digest {
        return Err(damaged(&snapshot.id, "its manifest has another digest"));
    }
    Ok(Some(snapshot))
}

/// The snapshot called `id`, which may be older than the current one.
///
/// # Errors
/// When there is none, it is damaged, or was taken for another data set or schema.
pub fn open_by_id(mapping: &Mapping, snapshots: &Path, id: &str) -> Result<Snapshot, SnapshotError> {
    let (digest, manifest) = manifest(snapshots, id)?;
    let snapshot = Snapshot::check(snapshots.join(id), digest, manifest, mapping)?;
    for (name, table) in &snapshot.manifest.tables {
        let path = snapshot.directory.join(&table.file);
        let bytes = fs::metadata(&path).map_err(at(&path))?.len();
        if bytes != table.bytes {
            return Err(damaged(id, &format!("table {name} has another size than its manifest says")));
        }
    }
    Ok(snapshot)
}

/// The data set of the snapshot called `id`.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn data_set_of(snapshots: &Path, id: &str) -> Result<String, SnapshotError> {
    manifest(snapshots, id).map(|(_, manifest)| manifest.data_set)
}

/// Whether a name is that of a snapshot.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The manifest of the snapshot called `id`, and its digest.
pub(super) fn manifest(snapshots: &Path, id: &str) -> Result<(Digest, Manifest), SnapshotError> {
    if !is_id(id) {
        return Err(SnapshotError::Unknown(id.chars().take(16).collect()));
    }
    let directory = snapshots.join(id);
    let path = directory.join("manifest.json");
    let bytes = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SnapshotError::Unknown(id.into())),
        metadata if metadata.as_ref().is_ok_and(|m| m.len() > MAX_MANIFEST) => {
            return Err(damaged(id, "its manifest is too large"));
        }
        _ => fs::read(&path).map_err(at(&path))?,
    };
    let digest = Digest::of(&bytes);
    if id_of(digest) != id {
        return Err(damaged(id, "its manifest has another digest"));
    }
    let manifest = serde_json::from_slice(&bytes).map_err(|_| damaged(id, "its manifest is malformed"))?;
    Ok((digest, manifest))
}

impl Snapshot {
    fn check(dir: PathBuf, digest: Digest, manifest: Manifest, mapping: &Mapping) -> Result<Self, SnapshotError> {
        let id = id_of(digest);
        if manifest.data_set != mapping.id() {
            return Err(damaged(&id, &format!("it is of another data set than {}", mapping.id())));
        }
        if manifest.schema != mapping.schema().digest() {
            let (found, expected) = (manifest.schema.short(), mapping.schema().digest().short());
            return Err(SnapshotError::OtherSchema { id, found, expected });
        }
        let fingerprints = |table: &TableMapping| table.fingerprint();
        let names = manifest.tables.keys().chain(mapping.tables().keys());
        let remapped = names.into_iter().find(|name| {
            manifest.tables.get(*name).map(|table| table.mapping) != mapping.tables().get(*name).map(fingerprints)
        });
        Ok(Self {
            remapped: remapped.cloned(),
            synthetic: manifest.synthetic && mapping.synthetic(),
            schema: Arc::clone(mapping.schema()),
            sources: mapping.tables().iter().map(|(name, table)| (name.clone(), table.sources().to_vec())).collect(),
            manifest: Arc::new(manifest),
            directory: dir,
            digest,
            id,
        })
    }

    /// The first 16 hexadecimal digits of the manifest's digest; it names the directory.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The SHA-256 of the manifest. It depends on data: it leaves the hospital as a salted commitment only.
    pub fn manifest_digest(&self) -> Digest {
        self.digest
    }

    /// The id of the data set.
    pub fn data_set(&self) -> &str {
        &self.manifest.data_set
    }

    /// The schema that the tables have, signed by the governance key.
    pub fn schema(&self) -> &Arc<Verified<Schema>> {
        &self.schema
    }

    /// Whether the data are synthetic: declared so when the snapshot was taken, and still.
    pub fn synthetic(&self) -> bool {
        self.synthetic
    }

    /// When it was taken: the as-of date of what is released from it.
    pub fn taken_at(&self) -> DateTime<Utc> {
        self.manifest.taken_at
    }

    /// The tables that this hospital has.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.manifest.tables.keys().map(String::as_str)
    }

    /// The Parquet file of the table called `name`, if this hospital has the table.
    pub fn table_path(&self, name: &str) -> Option<PathBuf> {
        self.manifest.tables.get(name).map(|table| self.directory.join(&table.file))
    }

    /// Whether the sources are still those of the snapshot: by size and time, and where the time differs, by
    /// SHA-256, which reads the source and blocks. A mapping that changed counts as a changed source.
    ///
    /// # Errors
    /// When a source cannot be read; one that is gone is `Changed`.
    pub fn source_state(&self) -> Result<SourceState, SnapshotError> {
        if let Some(table) = &self.remapped {
            return Ok(SourceState::Changed(table.clone()));
        }
        for (name, table) in &self.manifest.tables {
            let sources = self.sources.get(name).map_or(&[][..], Vec::as_slice);
            let path = sources.first().map_or(Path::new(name), Source::path);
            if !sources::unchanged(&table.source, sources).map_err(at(path))? {
                return Ok(SourceState::Changed(name.clone()));
            }
        }
        Ok(SourceState::Unchanged)
    }

    /// Reads every file again and compares its SHA-256 with the manifest's. It blocks.
    ///
    /// # Errors
    /// When a file cannot be read or differs.
    pub fn verify_files(&self) -> Result<(), SnapshotError> {
        for (name, table) in &self.manifest.tables {
            let path = self.directory.join(&table.file);
            if files::digest(&path, &mut |_| {}).map_err(at(&path))? != table.sha256 {
                return Err(damaged(&self.id, &format!("table {name} has another digest than its manifest says")));
            }
        }
        Ok(())
    }
}

/// What begins the names of the files that name the newest snapshots.
pub(super) const CURRENT: &str = "CURRENT-";

/// The file that names the newest snapshot of a data set.
pub(super) fn current_path(snapshots: &Path, data_set: &str) -> PathBuf {
    snapshots.join(format!("{CURRENT}{data_set}"))
}

/// The file of a table.
pub(super) fn file_of(table: &str) -> String {
    format!("{table}.parquet")
}

/// The id of the snapshot whose manifest has this digest.
pub(super) fn id_of(manifest: Digest) -> String {
    manifest.to_string().chars().take(16).collect()
}

fn damaged(id: &str, reason: &str) -> SnapshotError {
    SnapshotError::Damaged { id: id.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::data::{
        fixture::{Fixture, count_files, rows, session},
        protected,
    };

    const PERSON: &str =
        "\n[tables.person]\nsource = \"person.parquet\"\n[tables.person.columns]\npid = \"id\"\nweight = \"kg\"\n";

    #[tokio::test]
    async fn a_csv_becomes_typed_and_sorted_and_ids_keep_their_zeros() {
        let fixture = Fixture::with_visits().await;
        let (snapshot, report) = fixture.take(2).await.unwrap();
        let context = session(&snapshot, 1, &[]);
        // By patient; the order of one patient's rows is not promised.
        let ordered = rows(&context, "SELECT pid FROM visit").await;
        assert_eq!(ordered, ["007", "007", "010", "7"]);
        assert_eq!(
            rows(&context, "SELECT * FROM visit ORDER BY pid, age").await,
            ["007|30|||true", "007|90|81.3|2020-02-29|true", "010|40|-0.3|2020-01-01|false", "7||||"]
        );
        assert_eq!(report, ["visit: 4 rows, 1 without patient, died=1 seen=1 weight=1"]);
        assert!(snapshot.synthetic());
        assert_eq!(snapshot.table_path("person"), None);
        assert_eq!(format!("{snapshot:?}"), format!("Snapshot({} of west)", snapshot.id()));
        snapshot.verify_files().unwrap();
    }

    #[tokio::test]
    async fn a_parquet_source_becomes_typed_and_negative_ids_sort_below_zero() {
        let fixture = Fixture::with_visits().await;
        fixture.write("mapping.toml", &format!("{}{PERSON}", Fixture::MAPPING));
        let values = "VALUES (3, 1.25), (-5, -1.25), (0, CAST('NaN' AS DOUBLE)), (-1000000, 1e30)";
        fixture.parquet("person.parquet", &format!("SELECT column1 AS id, column2 AS kg FROM ({values})")).await;
        let (snapshot, _) = fixture.take(1).await.unwrap();
        let found = rows(&session(&snapshot, 1, &[]), "SELECT * FROM person").await;
        assert_eq!(found, ["-1000000|", "-5|-1.3", "0|", "3|1.3"]);
        let found = rows(&session(&snapshot, 2, &["-5", "3"]), "SELECT pid FROM person").await;
        assert_eq!(found, ["-1000000", "0"], "opted out by integer id");
    }

    #[tokio::test]
    async fn a_textual_patient_id_has_no_blanks_around_it_and_a_blank_one_is_none() {
        let fixture = Fixture::new();
        let visits = "Uid,Age,kg,day,dead\nA1,1,,0001-01-01,\nB,2,,9999-12-31,\nA1 ,3,,,\n\u{3000}A1\t,4,,,\n  ,5,,,\n";
        fixture.gzip("visit.csv.gz", visits).await;
        let (snapshot, report) = fixture.take(1).await.unwrap();
        let found =
            rows(&session(&snapshot, 1, &[]), "SELECT pid, count(*), min(seen) FROM visit GROUP BY pid ORDER BY 1")
                .await;
        assert_eq!(found, ["A1|3|0001-01-01", "B|1|9999-12-31"]);
        assert_eq!(report, ["visit: 4 rows, 1 without patient, pid=1"]);
        let found = rows(&session(&snapshot, 1, &["A1"]), "SELECT pid FROM visit").await;
        assert_eq!(found, ["B"], "all rows of one who said no");
        assert_eq!((protected::rows(&snapshot, "visit").unwrap(), protected::rows(&snapshot, "x").is_err()), (4, true));
    }

    #[tokio::test]
    async fn one_row_per_patient_is_checked_within_and_across_batches() {
        for (sql, expect) in [
            ("SELECT value AS id, 1.0 AS kg FROM generate_series(1, 20000)", "ok"),
            (
                "SELECT value % 19999 AS id, 1.0 AS kg FROM generate_series(1, 20000)",
                "table person: a patient has more than one row",
            ),
            (
                "SELECT value - CASE WHEN value > 8192 THEN 1 ELSE 0 END AS id, 1.0 AS kg FROM generate_series(1, 20000)",
                "table person: a patient has more than one row",
            ),
        ] {
            let fixture = Fixture::with_visits().await;
            fixture.write("mapping.toml", &format!("{}{PERSON}", Fixture::MAPPING));
            fixture.parquet("person.parquet", sql).await;
            let found = fixture.take(100).await.map_or_else(|e| e.to_string(), |_| "ok".into());
            assert!(found.starts_with(expect), "{found}");
            assert_eq!(count_files(&fixture.snapshots(), "tmp-"), 0, "nothing is left behind");
            assert_eq!(count_files(&fixture.snapshots(), "CURRENT-"), usize::from(expect == "ok"));
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_by_name_and_without_values() {
        for (from, to, code, expect) in [
            ("\"kg\"", "\"lb\"", Code::SchemaMismatch, "visit.weight: the source has no column \"lb\""),
            ("Age AS BIGINT", "age AS BIGINT", Code::SchemaMismatch, "visit.age: the source has no column \"age\""),
            ("\"kg\"", "{ sql = \"max(kg)\" }", Code::SchemaMismatch, "no aggregate"),
            ("\"day\"", "{ sql = \"true\" }", Code::SchemaMismatch, "visit.seen: its origin has type Boolean"),
            ("\"kg\"", "{ sql = \"1 / (length(kg) - length(kg))\" }", Code::Unavailable, "divides by zero"),
        ] {
            let fixture = Fixture::with_visits().await;
            fixture.write("mapping.toml", &Fixture::MAPPING.replace(from, to));
            let error = fixture.take(2).await.unwrap_err();
            assert!(error.to_string().contains(expect), "{expect}: {error}");
            assert_eq!(Refusal::from(error).code, code);
        }
        let fixture = Fixture::new();
        fixture.gzip("visit.csv.gz", "Uid,Age,kg,day,dead\nsecret,1,2\n").await;
        let error = fixture.take(2).await.unwrap_err().to_string();
        assert!(error.contains("incorrect number of fields") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_changed_source_is_told_from_a_touched_one() {
        let fixture = Fixture::with_visits().await;
        let (snapshot, _) = fixture.take(2).await.unwrap();
        let state = || open(&fixture.load().unwrap(), &fixture.snapshots()).unwrap().unwrap().source_state().unwrap();
        assert_eq!(state(), SourceState::Unchanged);
        let source = fixture.path("visit.csv.gz");
        let same = fs::read(&source).unwrap();
        fs::write(&source, &same).unwrap();
        assert_eq!(state(), SourceState::Unchanged, "written again");
        let changed = SourceState::Changed("visit".into());
        fixture.gzip("visit.csv.gz", &Fixture::VISITS.replace("40", "41")).await;
        assert_eq!(state(), changed);
        assert_eq!(state().require_unchanged().unwrap_err().code, Code::SourceChanged);
        fs::write(&source, &same).unwrap();
        fixture.write("mapping.toml", &Fixture::MAPPING.replace("90", "91"));
        assert_eq!(state(), changed, "mapped otherwise");
        fixture.write("mapping.toml", Fixture::MAPPING);
        fs::remove_file(&source).unwrap();
        assert_eq!(state(), changed, "gone");
        snapshot.verify_files().unwrap();
    }

    #[tokio::test]
    async fn an_earlier_snapshot_opens_by_its_id_and_the_newest_by_default() {
        let fixture = Fixture::with_visits().await;
        let mapping = fixture.load().unwrap();
        assert!(open(&mapping, &fixture.snapshots()).unwrap().is_none());
        let (first, _) = fixture.take(2).await.unwrap();
        fixture.gzip("visit.csv.gz", &Fixture::VISITS.replace("40", "41")).await;
        let (second, _) = fixture.take(2).await.unwrap();
        assert_ne!(first.id(), second.id());
        let current = open(&mapping, &fixture.snapshots()).unwrap().unwrap();
        assert_eq!(current.manifest_digest(), second.manifest_digest());
        let earlier = open_by_id(&mapping, &fixture.snapshots(), first.id()).unwrap();
        assert_eq!(earlier.manifest_digest(), first.manifest_digest());
        for id in ["0123456789abcdef", "../../etc/passwd", ""] {
            assert!(matches!(open_by_id(&mapping, &fixture.snapshots(), id), Err(SnapshotError::Unknown(_))));
        }
        fixture.sign(&Fixture::SCHEMA.replace("\"version\":1", "\"version\":2"));
        let error = open(&fixture.load().unwrap(), &fixture.snapshots()).unwrap_err();
        assert_eq!(Refusal::from(error).code, Code::SchemaMismatch);
    }

    #[tokio::test]
    async fn a_changed_file_is_found_and_files_are_their_owners_only() {
        let fixture = Fixture::with_visits().await;
        let (snapshot, _) = fixture.take(2).await.unwrap();
        let table = snapshot.table_path("visit").unwrap();
        assert_eq!(fs::metadata(&table).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(table.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let mut bytes = fs::read(&table).unwrap();
        bytes[20] ^= 1;
        fs::write(&table, &bytes).unwrap();
        assert!(matches!(snapshot.verify_files(), Err(SnapshotError::Damaged { .. })));
        bytes.push(0);
        fs::write(&table, &bytes).unwrap();
        let opened = open(&fixture.load().unwrap(), &fixture.snapshots());
        assert!(matches!(opened, Err(SnapshotError::Damaged { .. })));
    }

    #[tokio::test]
    async fn the_real_patient_table_of_a_region_becomes_a_snapshot() {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eicu-demo/region_west/patient.csv.gz");
        let Ok(source) = source.canonicalize() else {
            eprintln!("skipped: {} is absent", source.display());
            return;
        };
        let fixture = Fixture::new();
        let mapping = Fixture::MAPPING
            .replace("visit.csv.gz", source.to_str().unwrap())
            .replace("\"Uid\"", "\"uniquepid\"")
            .replace("Age", "age")
            .replace("\"kg\"", "\"admissionweight\"")
            .replace("\"day\"", "{ sql = \"TRY_CAST(concat(hospitaldischargeyear, '-01-01') AS DATE)\" }")
            .replace("\"dead\"", "{ sql = \"unitdischargestatus = 'Expired'\" }");
        fixture.write("mapping.toml", &mapping);
        let (snapshot, report) = fixture.take(100).await.unwrap();
        let context = session(&snapshot, 4, &[]);
        let found = rows(&context, "SELECT count(*), max(age), count(DISTINCT died), min(seen) FROM visit").await;
        assert_eq!(found, ["99|90|2|2014-01-01"], "{report:?}");
    }
}
