//! Snapshot tables as a query may scan them: of a protected table, the rows of eligible patients only.
//!
//! [`ProtectedTable`] puts [`EligibleExec`] directly on the Parquet scan, so no SQL goes round it: subqueries,
//! `LIMIT`, `count(*)`, `min` and `max` all see what it lets through. Each partition of a scan holds whole
//! row groups in the file's order, so a patient is in one partition, in consecutive rows.
//!
//! Deliberately absent: filter pushdown and statistics (both would let Parquet's metadata answer), metrics
//! (they count rows), and any write.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, TableReference},
    datasource::{
        TableType,
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
    },
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::Expr,
    object_store::{ObjectMeta, path::Path as ObjectPath},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column},
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use parquet::file::metadata::ParquetMetaDataReader;
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::Table,
};

pub use super::eligibility::EligibleExec;
use super::{columns::arrow_schema, snapshot::Snapshot};

/// The patients whose rows a query may see, fixed when its charge is reserved.
pub trait Eligible: Send + Sync + 'static {
    /// Whether the patient with this integer id is one of them.
    fn contains_int(&self, id: i64) -> bool;

    /// Whether the patient with this textual id is one of them.
    fn contains_text(&self, id: &str) -> bool;
}

/// Why a table cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Its file cannot be read.
    #[error("table {table}: {path} cannot be read: {reason}", path = path.display())]
    Unreadable {
        /// The table.
        table: String,
        /// Its file.
        path: PathBuf,
        /// What the disk or the decoder said of the file's footer.
        reason: String,
    },
    /// It has no patient column, so it cannot be protected; or the snapshot has a table that the schema lacks.
    #[error("table {0} is not declared as it is used")]
    Declaration(String),
    /// The engine cannot be set up.
    #[error("the engine cannot be set up: {0}")]
    Engine(#[source] DataFusionError),
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unreadable { .. } | TableError::Declaration(_) | TableError::Engine(_) => {
                Self::new(Code::Unavailable, "the data set cannot be scanned; its operator's log says why")
            }
        }
    }
}

/// How many rows the table called `name` of `snapshot` has, by its file's footer; for the operator only.
///
/// # Errors
/// When the file cannot be read.
pub fn rows(snapshot: &Snapshot, name: &str) -> Result<u64, TableError> {
    let (Some(path), Some(table)) = (snapshot.table_path(name), snapshot.schema().table(name)) else {
        return Err(TableError::Declaration(name.into()));
    };
    Ok(TableFile::open(&path, table)?.rows)
}

/// A Parquet file of a snapshot and where its row groups begin.
struct TableFile {
    meta: ObjectMeta,
    schema: SchemaRef,
    /// The offset in bytes of each row group's first page.
    starts: Vec<i64>,
    rows: u64,
    /// The index of the column by which it is sorted.
    sorted_by: Option<usize>,
}

impl TableFile {
    fn open(path: &Path, table: &Table) -> Result<Self, TableError> {
        let unreadable = |error: &dyn fmt::Display| TableError::Unreadable {
            table: table.name.clone(),
            path: path.into(),
            reason: error.to_string(),
        };
        let path = path.canonicalize().map_err(|e| unreadable(&e))?;
        let file = File::open(&path).map_err(|e| unreadable(&e))?;
        let metadata = file.metadata().map_err(|e| unreadable(&e))?;
        let meta = ObjectMeta {
            location: ObjectPath::from_absolute_path(&path).map_err(|e| unreadable(&e))?,
            last_modified: metadata.modified().map_err(|e| unreadable(&e))?.into(),
            size: metadata.len(),
            e_tag: None,
            version: None,
        };
        let footer = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|e| unreadable(&e))?;
        // A scan of a byte range reads the row groups whose first page lies in it.
        let start = |group: &parquet::file::metadata::RowGroupMetaData| {
            let column = group.columns().first()?;
            Some(column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset()))
        };
        let starts = footer.row_groups().iter().filter_map(start).collect();
        let schema = arrow_schema(table);
        let sorted_by = table.patient.as_ref().and_then(|patient| schema.index_of(patient).ok());
        let rows = footer.file_metadata().num_rows().cast_unsigned();
        Ok(Self { meta, schema, starts, rows, sorted_by })
    }

    /// A scan of `columns`, in at most `partitions` parts of whole row groups in the file's order.
    fn scan(&self, columns: Vec<usize>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let groups = ranges(&self.starts, self.meta.size.cast_signed(), partitions).into_iter().map(|(start, end)| {
            FileGroup::new(vec![PartitionedFile::new_from_meta(self.meta.clone()).with_range(start, end)])
        });
        let ordering = self.sorted_by.and_then(|at| {
            let column = Column::new(self.schema.field(at).name(), at);
            LexOrdering::new([PhysicalSortExpr::new_default(Arc::new(column))])
        });
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
            .with_file_groups(groups.collect())
            .with_projection_indices(Some(columns))?
            .with_output_ordering(ordering.into_iter().collect())
            // Without this, idle partitions take row groups from others, in any order.
            .with_preserve_order(true)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Cuts a file of `size` bytes into at most `parts` byte ranges that begin at row groups and cover it, each with
/// as many row groups as the others or one more.
fn ranges(starts: &[i64], size: i64, parts: usize) -> Vec<(i64, i64)> {
    let parts = parts.clamp(1, starts.len().max(1));
    // The first row group belongs to the first range, wherever it begins.
    let inner = (1..parts).filter_map(|part| starts.get(part * starts.len() / parts).copied());
    let cuts: Vec<i64> = std::iter::once(0).chain(inner).chain([size]).collect();
    cuts.windows(2).map(|ends| (ends[0], ends[1])).collect()
}

/// A snapshot table of patients, of which a scan gives the eligible ones' rows only.
pub struct ProtectedTable {
    file: TableFile,
    patient: usize,
    eligible: Arc<dyn Eligible>,
}

impl ProtectedTable {
    /// The table in the Parquet file at `path`, under `eligible`. Reads the file's footer.
    ///
    /// # Errors
    /// When the file cannot be read, or the table has no patient column.
    pub fn new(path: &Path, table: &Table, eligible: Arc<dyn Eligible>) -> Result<Self, TableError> {
        let file = TableFile::open(path, table)?;
        let patient = file.sorted_by.ok_or_else(|| TableError::Declaration(table.name.clone()))?;
        Ok(Self { file, patient, eligible })
    }
}

impl fmt::Debug for ProtectedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtectedTable({})", self.file.meta.location)
    }
}

#[tonic::async_trait]
impl TableProvider for ProtectedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.file.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        // A limit below the register would count rows that it drops; the plan keeps its own above.
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = wanted(&self.file, projection);
        let mut read = wanted.clone();
        let patient = read.iter().position(|column| *column == self.patient).unwrap_or_else(|| {
            read.push(self.patient);
            read.len() - 1
        });
        let scan = self.file.scan(read, state.config().target_partitions())?;
        let columns = (0..wanted.len()).collect();
        Ok(Arc::new(EligibleExec::new(scan, patient, columns, Arc::clone(&self.eligible))?))
    }
}

/// A snapshot table without patients, declared public by the schema.
struct PublicTable(TableFile);

impl fmt::Debug for PublicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicTable({})", self.0.meta.location)
    }
}

#[tonic::async_trait]
impl TableProvider for PublicTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(wanted(&self.0, projection), state.config().target_partitions())
    }
}

fn wanted(file: &TableFile, projection: Option<&Vec<usize>>) -> Vec<usize> {
    projection.map_or_else(|| (0..file.schema.fields().len()).collect(), Clone::clone)
}

/// Registers every table of `snapshot` in `context`: tables of patients under `eligible`, public ones as they are.
///
/// # Errors
/// When a file cannot be read.
pub fn register_all(
    context: &SessionContext,
    snapshot: &Snapshot,
    eligible: &Arc<dyn Eligible>,
) -> Result<(), TableError> {
    for name in snapshot.tables() {
        let undeclared = || TableError::Declaration(name.to_owned());
        let table = snapshot.schema().table(name).ok_or_else(undeclared)?;
        let path = snapshot.table_path(name).ok_or_else(undeclared)?;
        let provider: Arc<dyn TableProvider> = if table.patient.is_some() {
            Arc::new(ProtectedTable::new(&path, table, Arc::clone(eligible))?)
        } else {
            Arc::new(PublicTable(TableFile::open(&path, table)?))
        };
        context.register_table(TableReference::bare(name), provider).map_err(TableError::Engine)?;
    }
    Ok(())
}

/// An engine for queries: at most `memory_bytes`, no spill files, and plans that keep a scan's partitions.
///
/// # Errors
/// When the engine cannot be set up.
pub fn session(memory_bytes: usize, target_partitions: usize) -> Result<SessionContext, TableError> {
    let mut config = SessionConfig::new()
        .with_target_partitions(target_partitions.max(1))
        .with_information_schema(false)
        .with_collect_statistics(false);
    let options = config.options_mut();
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.repartition_file_scans = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.execution.parquet.pushdown_filters = false;
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(TableError::Engine)?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture::{Fixture, lines, rows, session};

    /// Patients 1 to 200, the n-th with n mod 4 + 1 visits, in row groups of about ten rows.
    async fn snapshot() -> (Fixture, Snapshot) {
        let fixture = Fixture::new();
        let mut visits = String::from("Uid,Age,kg,day,dead\n");
        for patient in (1..=200).rev() {
            for visit in 0..=patient % 4 {
                visits += &format!("{patient:04},{},{visit},2020-01-01,0\n", patient % 100);
            }
        }
        fixture.gzip("visit.csv.gz", &visits).await;
        fixture.write("chapter.csv", "code\nA\nB\n");
        let public = "\n[tables.chapter]\nsource = \"chapter.csv\"\n[tables.chapter.columns]\ncode = \"code\"\n";
        fixture.write("mapping.toml", &format!("{}{public}", Fixture::MAPPING));
        let snapshot = fixture.take(10).await.unwrap().0;
        (fixture, snapshot)
    }

    #[tokio::test]
    async fn no_query_goes_round_the_register() {
        let (_fixture, snapshot) = snapshot().await;
        for partitions in [1, 4] {
            let context = session(&snapshot, partitions, &["0001", "0002", "0003", "0100", "0200"]);
            for (sql, expect) in [
                // 500 rows of all, of which the five who opted out have 2 + 3 + 4 + 1 + 1.
                ("SELECT count(*) FROM visit", "489"),
                ("SELECT count(1) FROM visit WHERE true", "489"),
                ("SELECT count(pid) FROM visit", "489"),
                ("SELECT count(DISTINCT pid) FROM visit", "195"),
                ("SELECT min(pid), max(pid) FROM visit", "0004|0199"),
                ("SELECT pid FROM visit ORDER BY pid LIMIT 1", "0004"),
                ("SELECT pid FROM visit ORDER BY pid DESC LIMIT 1", "0199"),
                ("SELECT count(*) FROM visit WHERE pid = '0002'", "0"),
                ("SELECT count(*) FROM visit WHERE pid < '0004'", "0"),
                ("SELECT (SELECT count(*) FROM visit)", "489"),
                ("SELECT count(*) FROM chapter WHERE EXISTS (SELECT 1 FROM visit WHERE pid = '0003')", "0"),
                ("SELECT count(*) FROM chapter WHERE '0003' IN (SELECT pid FROM visit)", "0"),
                ("SELECT count(*) FROM visit a JOIN visit b ON a.pid = b.pid WHERE b.pid <= '0004'", "1"),
                (
                    "SELECT count(*) FROM (SELECT pid, row_number() OVER (PARTITION BY pid) n FROM visit) WHERE n = 1",
                    "195",
                ),
                (
                    "WITH v AS (SELECT * FROM visit) SELECT count(*) FROM (SELECT * FROM v UNION ALL SELECT * FROM v)",
                    "978",
                ),
                ("SELECT max(n) FROM (SELECT count(*) n FROM visit GROUP BY pid)", "4"),
                ("SELECT count(*) FROM chapter", "2"),
            ] {
                assert_eq!(rows(&context, sql).await, [expect], "{sql} in {partitions} partitions");
            }
            let first = rows(&context, "SELECT * FROM visit LIMIT 1").await;
            assert!(!["0001", "0002", "0003"].contains(&first[0].split('|').next().unwrap()), "{first:?}");
        }
    }

    #[tokio::test]
    async fn a_count_is_not_answered_from_statistics() {
        let (_fixture, snapshot) = snapshot().await;
        let context = session(&snapshot, 2, &[]);
        for sql in ["SELECT count(*) FROM visit", "SELECT min(pid), max(age) FROM visit"] {
            let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
            assert!(text.contains("EligibleExec") && !text.contains("PlaceholderRow"), "{text}");
        }
    }

    #[tokio::test]
    async fn partitions_are_sorted_and_share_no_patient() {
        let (_fixture, snapshot) = snapshot().await;
        for partitions in [1, 3, 8, 1000] {
            let context = session(&snapshot, partitions, &["0005"]);
            let frame = context.sql("SELECT pid FROM visit WHERE age <> 6").await.unwrap();
            let parts = frame.collect_partitioned().await.unwrap();
            assert!(parts.len() > 1 || partitions == 1, "{partitions}");
            let ids: Vec<Vec<String>> = parts.iter().map(|part| lines(part)).collect();
            let all = ids.concat();
            assert!(all.is_sorted(), "{partitions}: the parts follow one another");
            assert_eq!(all.len(), 500 - 2 - 2 * 3);
            let ends = ids.iter().filter(|part| !part.is_empty());
            let ends: Vec<_> = ends.flat_map(|part| [part.first(), part.last()]).collect();
            assert!(ends.chunks(2).zip(ends.chunks(2).skip(1)).all(|(a, b)| a[1] != b[0]), "{partitions}");
        }
    }

    #[test]
    fn ranges_cover_the_file_and_cut_at_row_groups() {
        for (starts, parts, expect) in [
            (&[4, 40, 60, 80][..], 2, &[(0, 60), (60, 100)][..]),
            (&[4, 40, 60, 80], 3, &[(0, 40), (40, 60), (60, 100)]),
            (&[4, 40, 60, 80], 9, &[(0, 40), (40, 60), (60, 80), (80, 100)]),
            (&[4, 5, 6], 2, &[(0, 5), (5, 100)]),
            (&[4], 4, &[(0, 100)]),
            (&[], 4, &[(0, 100)]),
        ] {
            assert_eq!(ranges(starts, 100, parts), expect, "{starts:?} in {parts}");
        }
    }

    #[tokio::test]
    async fn a_table_without_rows_is_scanned_and_a_public_one_cannot_be_protected() {
        let fixture = Fixture::new();
        fixture.gzip("visit.csv.gz", "Uid,Age,kg,day,dead\n").await;
        let (snapshot, _) = fixture.take(10).await.unwrap();
        let context = session(&snapshot, 4, &[]);
        assert_eq!(rows(&context, "SELECT count(*) FROM visit").await, ["0"]);
        let eligible = Arc::new(crate::data::fixture::AllBut([].into()));
        let public = snapshot.schema().table("chapter").unwrap();
        let refused = ProtectedTable::new(&snapshot.table_path("visit").unwrap(), public, eligible);
        assert!(matches!(refused, Err(TableError::Declaration(_))));
    }
}
