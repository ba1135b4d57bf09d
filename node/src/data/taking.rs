//! Takes a snapshot: reads the sources, converts, sorts by patient, writes, and names it only when durable.
//!
//! Everything is written under `tmp-…` inside the snapshots' directory, the sort's spill files too: no patient
//! reaches `/tmp`. What an interrupted run left there is removed by the next. Memory is bounded by
//! [`Settings::memory_bytes`] plus one row group.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::error::ArrowError;
use chrono::{DateTime, Utc};
use datafusion::{
    common::{
        Column as ColumnName, SchemaError,
        tree_node::{Transformed, TreeNode},
    },
    dataframe::DataFrame,
    datasource::file_format::file_compression_type::FileCompressionType,
    error::DataFusionError,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{Cast, Expr, ExprSchemable, TryCast},
    prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;
use sekisho_protocol::{digest::Digest, schema::Column};

use super::{
    columns::{Conversion, Counts, arrow_schema, arrow_type, convertible},
    files::{self, at},
    mapping::{Format, Mapping, Origin, TableMapping},
    row_groups::RowGroups,
    snapshot::{self, Manifest, Snapshot, SnapshotError, SourceRecord, TableRecord},
};

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The bytes that the sort may hold in memory; beyond them it spills to the snapshots' directory.
    pub memory_bytes: usize,
    /// The rows from which on a row group ends at the next patient.
    pub row_group_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, row_group_rows: 128 * 1024 }
    }
}

/// How far a snapshot has come: for the operator's screen only, since it counts rows.
pub enum Progress {
    /// The source of this table is being hashed.
    Hashing(String),
    /// This table is being read and sorted.
    Reading(String),
    /// So many rows of this table are written.
    Writing(String, u64),
    /// A table is done.
    Finished(TableReport),
}

/// What became of a table's rows: for the operator's screen only.
pub struct TableReport {
    /// The table.
    pub table: String,
    /// The rows that were written.
    pub rows: u64,
    /// The rows that were dropped because they name no patient.
    pub without_patient: u64,
    /// By column, the values that did not fit its type and became NULL; columns without any are absent.
    pub became_null: BTreeMap<String, u64>,
}

/// Takes a snapshot of `mapping`'s sources as of `now` and makes it the current one. It blocks for long.
///
/// # Errors
/// When a source cannot be read, does not fit the mapping or the schema, or changes meanwhile, and when the
/// disk fails. Nothing is left behind, and the current snapshot stays the current one.
pub async fn take(
    mapping: &Mapping,
    snapshots: &Path,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
    now: DateTime<Utc>,
) -> Result<Snapshot, SnapshotError> {
    let scratch = Scratch::new(snapshots)?;
    let mut tables = BTreeMap::new();
    for (name, table) in mapping.tables() {
        tables.insert(name.clone(), take_table(table, &scratch, settings, progress).await?);
    }
    let manifest = Manifest {
        data_set: mapping.id().into(),
        synthetic: mapping.synthetic(),
        schema: mapping.schema().digest(),
        tables,
        taken_at: now,
    };
    let manifest = serde_json::to_vec(&manifest)
        .map_err(|e| SnapshotError::Write { table: "manifest".into(), reason: e.to_string() })?;
    let id = publish(mapping, snapshots, &scratch, &manifest)?;
    snapshot::open_by_id(mapping, snapshots, &id)
}

/// A directory of this run, which goes when the run ends, and the lock that makes the run the only one.
struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    fn new(snapshots: &Path) -> Result<Self, SnapshotError> {
        files::make_directory(snapshots)?;
        let lock = snapshots.join("LOCK");
        let file = File::options().create(true).append(true).open(&lock).map_err(at(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SnapshotError::Busy(snapshots.into())),
            Err(TryLockError::Error(error)) => return Err(at(&lock)(error)),
        }
        for entry in fs::read_dir(snapshots).map_err(at(snapshots))? {
            let entry = entry.map_err(at(snapshots))?;
            if entry.file_name().as_encoded_bytes().starts_with(b"tmp-") {
                fs::remove_dir_all(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        let scratch = Self { path: snapshots.join(format!("tmp-{}", std::process::id())), _lock: file };
        files::make_directory(&scratch.data())?;
        files::make_directory(&scratch.spill())?;
        Ok(scratch)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn spill(&self) -> PathBuf {
        self.path.join("spill")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a snapshot's temporary files stay until the next one");
        }
    }
}

async fn take_table(
    mapping: &TableMapping,
    scratch: &Scratch,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<TableRecord, SnapshotError> {
    let (table, name) = (mapping.table(), &mapping.table().name);
    progress(Progress::Hashing(name.clone()));
    let source = SourceRecord::of(mapping.source()).map_err(at(mapping.source()))?;
    progress(Progress::Reading(name.clone()));
    let unreadable = |e: DataFusionError| SnapshotError::Read { table: name.clone(), reason: reason(&e) };
    let context = context(settings, &scratch.spill()).map_err(unreadable)?;
    let frame = read(&context, mapping).await.map_err(unreadable)?;
    let (frame, counts) = converted(frame, mapping)?;
    let mut batches = frame.execute_stream().await.map_err(unreadable)?;
    let file = format!("{name}.parquet");
    let mut writer =
        RowGroups::create(&scratch.data().join(&file), table, arrow_schema(table), settings.row_group_rows)?;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(unreadable)?;
        writer.push(&batch)?;
        rows += batch.num_rows() as u64;
        progress(Progress::Writing(name.clone(), rows));
    }
    let written = writer.finish()?;
    if !source.is_untouched().map_err(at(mapping.source()))? {
        return Err(SnapshotError::Moving { table: name.clone() });
    }
    let without_patient = table.patient.as_ref().and_then(|patient| counts.get(patient)).map_or(0, |c| c.null());
    let became_null =
        counts.iter().map(|(column, c)| (column.clone(), c.lost())).filter(|(_, lost)| *lost > 0).collect();
    progress(Progress::Finished(TableReport { table: name.clone(), rows, without_patient, became_null }));
    Ok(TableRecord {
        file,
        sha256: written.sha256,
        bytes: written.bytes,
        row_groups: written.row_groups,
        mapping: mapping.fingerprint(),
        source,
    })
}

/// An engine for one table: one partition, bounded memory, spill files in `spill`.
fn context(settings: &Settings, spill: &Path) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_collect_statistics(false);
    let options = config.options_mut();
    options.execution.sort_spill_reservation_bytes = (settings.memory_bytes / 8).min(10 << 20);
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    let spill = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.into()]));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_bytes)))
        .with_disk_manager_builder(spill)
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// The source; every column of a CSV file is text, so that ids keep their leading zeros.
async fn read(context: &SessionContext, mapping: &TableMapping) -> Result<DataFrame, DataFusionError> {
    let path = mapping.source().to_string_lossy().into_owned();
    let csv = CsvReadOptions::new().has_header(true).schema_infer_max_records(0).newlines_in_values(true);
    match mapping.format() {
        Format::Parquet => context.read_parquet(path, ParquetReadOptions::default()).await,
        Format::Csv => context.read_csv(path, csv).await,
        Format::CsvGz => {
            let csv = csv.file_extension(".csv.gz").file_compression_type(FileCompressionType::GZIP);
            context.read_csv(path, csv).await
        }
    }
}

/// The source's rows as rows of the table, sorted by patient, and what each conversion will count.
fn converted(
    frame: DataFrame,
    mapping: &TableMapping,
) -> Result<(DataFrame, BTreeMap<String, Arc<Counts>>), SnapshotError> {
    let table = mapping.table();
    let mut counts = BTreeMap::new();
    let mut columns = Vec::new();
    for (column, origin) in mapping.columns() {
        let value = expression(&frame, column, origin).map_err(|reason| SnapshotError::Mismatch {
            table: table.name.clone(),
            column: column.name.clone(),
            reason,
        })?;
        let (function, counted) = Conversion::function(table, column);
        columns.push(function.call(vec![value]).alias(&column.name));
        counts.insert(column.name.clone(), counted);
    }
    let mut frame = frame.select(columns);
    if let Some(patient) = &table.patient {
        let patient = Expr::Column(ColumnName::new_unqualified(patient));
        frame = frame
            .and_then(|frame| frame.filter(patient.clone().is_not_null()))
            .and_then(|frame| frame.sort(vec![patient.sort(true, false)]));
    }
    let frame = frame.map_err(|e| SnapshotError::Read { table: table.name.clone(), reason: reason(&e) })?;
    Ok((frame, counts))
}

/// The expression of a column over the source, or why it does not fit.
fn expression(frame: &DataFrame, column: &Column, origin: &Origin) -> Result<Expr, String> {
    let schema = frame.schema();
    let value = match origin {
        Origin::Source(name) if schema.has_column_with_unqualified_name(name) => {
            Expr::Column(ColumnName::new_unqualified(name))
        }
        Origin::Source(name) => return Err(format!("the source has no column \"{name}\"")),
        Origin::Sql(sql) => frame.parse_sql_expr(sql).and_then(total).map_err(|e| planning(&e))?,
    };
    let folds = value.exists(|e| Ok(matches!(e, Expr::AggregateFunction(_) | Expr::WindowFunction(_))));
    if folds.map_err(|e| planning(&e))? {
        return Err("its expression may use the columns of one row only: no aggregate, no window".into());
    }
    let from = value.get_type(schema).map_err(|e| planning(&e))?;
    if !convertible(&from, column) {
        return Err(format!("its origin has type {from}, which cannot become {}", arrow_type(column)));
    }
    Ok(value)
}

/// Makes every CAST of an operator's expression a TRY_CAST: what does not fit is NULL, not a failure.
fn total(expression: Expr) -> Result<Expr, DataFusionError> {
    let rewritten = expression.transform(|e| {
        Ok(if let Expr::Cast(Cast { expr, field }) = e {
            Transformed::yes(Expr::TryCast(TryCast { expr, field }))
        } else {
            Transformed::no(e)
        })
    })?;
    Ok(rewritten.data)
}

/// What planning said, without the list of the source's columns: in a file without header they are values.
fn planning(error: &DataFusionError) -> String {
    if let DataFusionError::SchemaError(schema, _) = error.find_root() {
        if let SchemaError::FieldNotFound { field, .. } = schema.as_ref() {
            return format!("the source has no column \"{}\"", field.name);
        }
        return "its expression does not fit the source's columns".into();
    }
    error.strip_backtrace()
}

/// The kind of an engine's failure. The engine's own words may hold a value of the source.
fn reason(error: &DataFusionError) -> String {
    let root = error.find_root();
    if let DataFusionError::ResourcesExhausted(limit) = root {
        return format!("memory or disk is exhausted: {limit}");
    }
    if let DataFusionError::IoError(error) = root {
        return error.to_string();
    }
    if let DataFusionError::ArrowError(error, _) = root {
        if let ArrowError::CsvError(line) = error.as_ref()
            && line.starts_with("incorrect number of fields")
        {
            return line.clone();
        }
        if matches!(error.as_ref(), ArrowError::CastError(_) | ArrowError::ParseError(_)) {
            return "a comparison or conversion in the mapping meets a value that does not fit; use TRY_CAST".into();
        }
        if matches!(error.as_ref(), ArrowError::ArithmeticOverflow(_) | ArrowError::DivideByZero) {
            return "an expression of the mapping overflows or divides by zero; guard it with CASE or NULLIF".into();
        }
    }
    "it is no readable file of its format, or an expression of the mapping fails on it".into()
}

/// Makes the scratch data a snapshot with this manifest, and the current one.
fn publish(mapping: &Mapping, snapshots: &Path, scratch: &Scratch, manifest: &[u8]) -> Result<String, SnapshotError> {
    let (data, digest) = (scratch.data(), Digest::of(manifest));
    let id = snapshot::id_of(digest);
    files::write(&data.join("manifest.json"), manifest)?;
    files::sync_directory(&data)?;
    let directory = snapshots.join(&id);
    // The same digest means the same tables: a snapshot that is there stays.
    if !directory.exists() {
        fs::rename(&data, &directory).map_err(at(&directory))?;
        files::sync_directory(snapshots)?;
    }
    let (current, fresh) = (snapshot::current_path(mapping, snapshots), scratch.path.join("current"));
    files::write(&fresh, format!("{digest}\n").as_bytes())?;
    fs::rename(&fresh, &current).map_err(at(&current))?;
    files::sync_directory(snapshots)?;
    Ok(id)
}
