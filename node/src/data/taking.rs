//! Takes a snapshot: reads the sources, converts, sorts by patient, writes, and names it only when durable.
//!
//! Everything is written inside the snapshots' directory, the sort's spill files too: no patient reaches `/tmp`.
//! What was finished before a kill is taken over by the next run if it would be the same; the rest is made again.
//! Memory is bounded by [`Settings::memory_bytes`], plus what one row group of the sources and one of the snapshot take.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use sekisho_protocol::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    columns::arrow_schema,
    files::at,
    mapping::{Mapping, TableMapping},
    reading::SourceFiles,
    row_groups::{RowGroups, Written},
    snapshot::{self, Manifest, Snapshot, SnapshotError, TableRecord},
    sources::{self, Source, SourceRecord},
    staging::Staging,
};
use crate::hooks::Hooks;

/// How often it is said how far reading has come.
const TICK: Duration = Duration::from_millis(500);

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The bytes that the sort may hold in memory; beyond them it spills to the snapshots' directory.
    pub memory_bytes: usize,
    /// The rows from which on a row group ends at the next patient.
    pub row_group_rows: usize,
}

impl Settings {
    /// The rows of a row group that suit a scan by several threads.
    pub const ROW_GROUP_ROWS: usize = 128 * 1024;

    /// With as much memory for the sort, in bytes.
    pub fn with_memory(memory_bytes: u64) -> Self {
        let memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        Self { memory_bytes, row_group_rows: Self::ROW_GROUP_ROWS }
    }
}

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its sources are hashed.
    Hashing,
    /// Its sources are read, converted and sorted.
    Reading,
    /// It is written.
    Writing,
}

/// How far a table of a snapshot has come: for the operator's screen only, since it counts rows.
pub enum Progress<'a> {
    /// It goes on.
    Step {
        /// The table.
        table: &'a str,
        /// What is done.
        stage: Stage,
        /// The bytes that are hashed, the rows that are read or written.
        done: u64,
        /// How many there are to be, where that is known.
        total: Option<u64>,
        /// The bytes that are hashed or written.
        bytes: u64,
    },
    /// It is done.
    Finished(&'a TableReport),
}

/// What became of a table's rows: for the operator's screen only.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// The rows that were written.
    pub rows: u64,
    /// The rows that were dropped because they name no patient.
    pub without_patient: u64,
    /// By column, the values that did not fit its type and became NULL; columns without any are absent.
    pub became_null: BTreeMap<String, u64>,
    /// Whether an earlier run, which was stopped, had finished it.
    #[serde(skip)]
    pub taken_over: bool,
}

/// Takes a snapshot of `mapping`'s sources as of `now` and makes it the current one. It blocks for long.
///
/// # Errors
/// When a source cannot be read, does not fit the mapping or the schema, or changes meanwhile, and when the
/// disk fails. Finished tables are kept for the next try, and the current snapshot stays the current one.
pub async fn take(
    mapping: &Mapping,
    snapshots: &Path,
    settings: &Settings,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    hooks: &Hooks,
    now: DateTime<Utc>,
) -> Result<Snapshot, SnapshotError> {
    let staging = Staging::open(snapshots, mapping.id())?;
    if let Some(snapshot) = staging.nearly(mapping) {
        for report in mapping.tables().keys().filter_map(|table| staging.report(table)) {
            progress(Progress::Finished(&TableReport { taken_over: true, ..report }));
        }
        staging.make_current(mapping.id(), hooks)?;
        return Ok(snapshot);
    }
    let taking = Taking { staging: &staging, settings, progress, hooks };
    let mut tables = BTreeMap::new();
    for (name, table) in mapping.tables() {
        tables.insert(name.clone(), taking.table(table, mapping.schema().digest()).await?);
    }
    let manifest = Manifest {
        data_set: mapping.id().into(),
        synthetic: mapping.synthetic(),
        schema: mapping.schema().digest(),
        tables,
        taken_at: now,
    };
    let id = staging.publish(&manifest, hooks)?;
    snapshot::open_by_id(mapping, snapshots, &id)
}

struct Taking<'a> {
    staging: &'a Staging,
    settings: &'a Settings,
    progress: &'a (dyn Fn(Progress<'_>) + Sync),
    hooks: &'a Hooks,
}

impl Taking<'_> {
    /// A finished table: an earlier run's, or one that is made now.
    async fn table(&self, mapping: &TableMapping, schema: Digest) -> Result<TableRecord, SnapshotError> {
        let (fingerprint, groups) = (mapping.fingerprint(), self.settings.row_group_rows.to_string());
        let software = env!("CARGO_PKG_VERSION");
        let key =
            Digest::of_parts(&[software.as_bytes(), schema.as_bytes(), fingerprint.as_bytes(), groups.as_bytes()]);
        if let Some((record, report)) = self.staging.finished(mapping, key) {
            (self.progress)(Progress::Finished(&TableReport { taken_over: true, ..report }));
            return Ok(record);
        }
        let path = self.staging.fresh(&snapshot::file_of(&mapping.table().name))?;
        let (record, report) = match self.make(mapping, &path).await {
            Ok(made) => made,
            Err(error) => {
                // Rows that nobody will read; if they stay, the next run removes them.
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        self.staging.finish(key, record.clone(), report.clone())?;
        self.hooks.at("snapshot_table");
        (self.progress)(Progress::Finished(&report));
        Ok(record)
    }

    /// Reads a table's sources and writes it to `path`.
    async fn make(&self, mapping: &TableMapping, path: &Path) -> Result<(TableRecord, TableReport), SnapshotError> {
        let (table, name) = (mapping.table(), &mapping.table().name);
        let source = self.hash(mapping)?;
        let paths: Vec<_> = source.iter().map(|file| file.path.clone()).collect();
        let files = SourceFiles::open(mapping, &paths, self.settings.memory_bytes, self.staging.scratch()).await?;
        let (mut batches, counts) = files.sorted().await?;
        let mut writer = RowGroups::create(path, table, arrow_schema(table), self.settings.row_group_rows)?;
        let (in_sources, mut rows) = (files.rows(), 0_u64);
        let read = || counts.values().next().map_or(0, |c| c.seen());
        let without_patient = || table.patient.as_ref().and_then(|patient| counts.get(patient)).map_or(0, |c| c.null());
        let step = |stage, done, total, bytes| {
            (self.progress)(Progress::Step { table: name, stage, done, total, bytes });
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let batch = tokio::select! {
                biased;
                batch = batches.next() => batch,
                _ = tick.tick() => {
                    if rows == 0 {
                        step(Stage::Reading, read(), in_sources, 0);
                    }
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Err(files.failure(&error).await),
            };
            writer.push(&batch)?;
            if rows == 0 {
                self.hooks.at("snapshot_writing");
            }
            rows += batch.num_rows() as u64;
            // What is sorted has been read to its end.
            let total =
                if table.patient.is_some() { Some(read().saturating_sub(without_patient())) } else { in_sources };
            step(Stage::Writing, rows, total, writer.bytes());
        }
        let Written { sha256, bytes, row_groups } = writer.finish()?;
        for file in &source {
            if !file.is_untouched().map_err(at(&file.path))? {
                return Err(SnapshotError::Moving { table: name.clone() });
            }
        }
        let became_null = counts.iter().map(|(column, c)| (column.clone(), c.lost())).filter(|(_, lost)| *lost > 0);
        let report = TableReport {
            table: name.clone(),
            rows,
            without_patient: without_patient(),
            became_null: became_null.collect(),
            taken_over: false,
        };
        let file = snapshot::file_of(name);
        let record = TableRecord { file, sha256, bytes, row_groups, mapping: mapping.fingerprint(), source };
        Ok((record, report))
    }

    /// The table's source files as they are now; reads all of them.
    fn hash(&self, mapping: &TableMapping) -> Result<Vec<SourceRecord>, SnapshotError> {
        let table = &mapping.table().name;
        let first = mapping.sources().first().map_or(Path::new(table), Source::path);
        let files = sources::expand(mapping.sources()).map_err(at(first))?;
        let sizes = files.iter().map(|file| fs::metadata(file).map(|m| m.len()).map_err(at(file)));
        let total = sizes.sum::<Result<u64, _>>()?;
        let mut bytes = 0;
        let mut read = |more: u64| {
            bytes += more;
            (self.progress)(Progress::Step { table, stage: Stage::Hashing, done: bytes, total: Some(total), bytes });
        };
        read(0);
        files.iter().map(|file| SourceRecord::of(file, &mut read).map_err(at(file))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
    };

    use super::*;
    use crate::data::fixture::{Fixture, count_files, rows, session};

    const CHAPTER: &str = "\n[tables.chapter]\nsource = \"chapter.csv\"\n[tables.chapter.columns]\ncode = \"code\"\n";
    /// Where a kill is tried, in the order in which they are passed; there are two tables.
    const POINTS: [&str; 7] = [
        "snapshot_writing",
        "snapshot_table",
        "snapshot_writing",
        "snapshot_table",
        "snapshot_complete",
        "snapshot_named",
        "snapshot_current",
    ];

    async fn two_tables() -> Fixture {
        let fixture = Fixture::with_visits().await;
        fixture.write("chapter.csv", "code\nA\nB\n");
        fixture.write("mapping.toml", &format!("{}{CHAPTER}", Fixture::MAPPING));
        fixture
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if from.is_dir() { copy(&from, &to) } else { assert!(fs::copy(from, to).is_ok()) }
        }
    }

    /// Takes a snapshot, and gives the disk as a kill at each point would have left it.
    async fn killed_everywhere(fixture: &Fixture) -> Vec<(&'static str, PathBuf)> {
        let passed = Arc::new(Mutex::new(Vec::new()));
        let (noted, snapshots, copies) = (Arc::clone(&passed), fixture.snapshots(), fixture.path("killed"));
        let hooks = Hooks::new(move |point| {
            let mut noted = noted.lock().unwrap();
            let to = copies.join(noted.len().to_string());
            copy(&snapshots, &to);
            noted.push((point, to));
        });
        fixture.take_with(&fixture.snapshots(), 2, &|_| {}, &hooks).await.unwrap();
        drop(hooks);
        Arc::into_inner(passed).unwrap().into_inner().unwrap()
    }

    /// Takes a snapshot into `snapshots`; the tables that were made, and those that were taken over.
    async fn again(fixture: &Fixture, snapshots: &Path) -> (Snapshot, Vec<String>, Vec<String>) {
        let finished = Mutex::new((Vec::new(), Vec::new()));
        let note = |progress: Progress<'_>| {
            if let Progress::Finished(report) = progress {
                let mut finished = finished.lock().unwrap();
                let list = if report.taken_over { &mut finished.1 } else { &mut finished.0 };
                list.push(report.table.clone());
            }
        };
        let taken = fixture.take_with(snapshots, 2, &note, &Hooks::default()).await.unwrap();
        let (made, over) = finished.into_inner().unwrap();
        (taken, made, over)
    }

    #[tokio::test]
    async fn a_kill_at_any_point_shows_no_half_snapshot_and_loses_no_finished_table() {
        let fixture = two_tables().await;
        let killed = killed_everywhere(&fixture).await;
        assert_eq!(killed.iter().map(|(point, _)| *point).collect::<Vec<_>>(), POINTS);
        let mapping = fixture.load().unwrap();
        let all = ["chapter", "visit"];
        for (at, (point, disk)) in killed.iter().enumerate() {
            let seen = snapshot::open(&mapping, disk).unwrap();
            assert_eq!(seen.is_some(), *point == "snapshot_current", "{point}");
            let (taken, made, over) = again(&fixture, disk).await;
            let finished = match at {
                0 => 0,
                1 | 2 => 1,
                3..=5 => 2,
                // That one was finished: the next is a new one.
                _ => 0,
            };
            let expect = |tables: &[&str]| tables.iter().map(|table| (*table).to_owned()).collect::<Vec<_>>();
            assert_eq!((made, over), (expect(&all[finished..]), expect(&all[..finished])), "{point}");
            taken.verify_files().unwrap();
            let current = snapshot::open(&mapping, disk).unwrap().unwrap();
            assert_eq!(current.manifest_digest(), taken.manifest_digest());
            assert_eq!(rows(&session(&current, 1, &[]), "SELECT pid FROM visit").await, ["007", "007", "010", "7"]);
            for left in ["tmp-", "staging-"] {
                assert_eq!(count_files(disk, left), 0, "{left} after {point}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_finished_is_made_again_when_anything_changed() {
        let fixture = two_tables().await;
        let killed = killed_everywhere(&fixture).await;
        let (_, last_table) = &killed[3];
        let (_, named) = &killed[5];
        let disk = fixture.path("again");
        let fresh = |from: &Path| {
            let _ = fs::remove_dir_all(&disk);
            copy(from, &disk);
        };
        let over = async |from: &Path| {
            let (taken, made, over) = again(&fixture, &disk).await;
            taken.verify_files().unwrap();
            fresh(from);
            (made.len(), over.len())
        };
        let damage = |file: &str| {
            let path = disk.join("staging-west").join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes[8] ^= 1;
            fs::write(&path, bytes).unwrap();
        };
        fresh(last_table);
        assert_eq!(over(last_table).await, (0, 2));
        damage("data/visit.parquet");
        assert_eq!(over(last_table).await, (1, 1), "its bytes are others");
        damage("journal/visit.json");
        assert_eq!(over(last_table).await, (1, 1), "what was noted cannot be read");
        fixture.write("chapter.csv", "code\nA\nC\n");
        assert_eq!(over(last_table).await, (1, 1), "its source is another");
        fixture.write("chapter.csv", "code\nA\nB\n");
        fresh(last_table);
        fixture.write("mapping.toml", &format!("{}{CHAPTER}", Fixture::MAPPING.replace("90", "91")));
        assert_eq!(over(named).await, (1, 1), "it is mapped otherwise");
        assert_eq!(over(named).await, (2, 0), "a named snapshot of another mapping is not made the current one");
        fixture.write("mapping.toml", &format!("{}{CHAPTER}", Fixture::MAPPING));
        fixture.sign(&Fixture::SCHEMA.replace("\"version\":1", "\"version\":2"));
        assert_eq!(over(last_table).await, (2, 0), "the schema is another");
        assert_eq!(over(last_table).await, (2, 0));
    }

    #[tokio::test]
    async fn a_table_that_fails_leaves_no_rows_and_the_others_are_kept() {
        let fixture = two_tables().await;
        fixture.gzip("visit.csv.gz", "Uid,Age,kg,day,dead\n1,2\n").await;
        assert!(fixture.take(2).await.is_err());
        let staging = fixture.snapshots().join("staging-west");
        assert_eq!((count_files(&staging.join("data"), ""), count_files(&staging.join("journal"), "")), (1, 1));
        fixture.gzip("visit.csv.gz", Fixture::VISITS).await;
        let (_, made, over) = again(&fixture, &fixture.snapshots()).await;
        assert_eq!((made, over), (vec!["visit".into()], vec!["chapter".into()]));
    }

    #[tokio::test]
    async fn rows_beyond_the_memory_are_sorted_on_disk_where_only_their_owner_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::new();
        let person =
            "\n[tables.person]\nsource = \"person.parquet\"\n[tables.person.columns]\npid = \"id\"\nweight = \"kg\"\n";
        fixture.gzip("visit.csv.gz", Fixture::VISITS).await;
        fixture.write("mapping.toml", &format!("{}{person}", Fixture::MAPPING));
        fixture
            .parquet(
                "person.parquet",
                "SELECT (value * 7919) % 200003 AS id, 1.0 AS kg FROM generate_series(1, 200002)",
            )
            .await;
        let (spilled, open, reached) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        let look = |progress: Progress<'_>| {
            let Progress::Step { stage: Stage::Writing, done, .. } = progress else { return };
            reached.fetch_max(done, Ordering::Relaxed);
            let scratch = fixture.snapshots().join(format!("tmp-{}", std::process::id()));
            let private = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0;
            open.fetch_or(!private(&scratch), Ordering::Relaxed);
            for folder in fs::read_dir(&scratch).unwrap() {
                for file in fs::read_dir(folder.unwrap().path()).unwrap() {
                    spilled.fetch_add(1, Ordering::Relaxed);
                    open.fetch_or(!private(&file.unwrap().path()), Ordering::Relaxed);
                }
            }
        };
        let settings = Settings { memory_bytes: 1 << 20, row_group_rows: 1000 };
        let (mapping, now) = (fixture.load().unwrap(), "2026-01-02T03:04:05Z".parse().unwrap());
        let taken = take(&mapping, &fixture.snapshots(), &settings, &look, &Hooks::default(), now).await.unwrap();
        assert!(spilled.into_inner() > 0, "nothing was spilled");
        assert!(!open.into_inner(), "somebody else may read a spill file");
        assert_eq!(reached.into_inner(), 200_002);
        let context = session(&taken, 1, &[]);
        let found = rows(&context, "SELECT count(*), min(pid), max(pid), count(DISTINCT pid) FROM person").await;
        assert_eq!(found, ["200002|1|200002|200002"]);
        assert_eq!(count_files(&fixture.snapshots(), "tmp-"), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_of_spill_files_is_gone_at_the_next_start() {
        let fixture = Fixture::with_visits().await;
        let left = fixture.snapshots().join("tmp-1");
        fs::create_dir_all(left.join("datafusion-x")).unwrap();
        snapshot::sweep(&fixture.snapshots()).unwrap();
        assert!(!left.exists());
        fs::create_dir_all(&left).unwrap();
        let lock = super::super::staging::Lock::take(&fixture.snapshots()).unwrap();
        fs::create_dir_all(&left).unwrap();
        snapshot::sweep(&fixture.snapshots()).unwrap();
        assert!(left.exists(), "not while a snapshot is being taken");
        drop(lock);
    }
}
