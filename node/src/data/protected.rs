//! Snapshot tables as a query may scan them: of a protected table, the rows of eligible patients only.
//!
//! [`ProtectedTable`] puts [`EligibleExec`] directly on the Parquet scan, so no SQL goes round it: subqueries,
//! `LIMIT`, `count(*)`, `min` and `max` all see what it lets through. A scan has one partition, sorted by patient; for more
//! than one worker there are [`ranges`] of patients, of which [`ProtectedTable::within`] scans one.
//!
//! Deliberately absent: filter pushdown and exact statistics (both would let Parquet's metadata answer), metrics
//! (they count rows), and any write.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, TableReference},
    datasource::TableType,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::Table,
};

use super::{eligibility::Admitted, snapshot::Snapshot, table_file::TableFile};
pub use super::{eligibility::EligibleExec, patient_range::PatientRange};

/// The patients whose rows a query may see, fixed when its charge is reserved. Scans ask in ascending order; `place` is 0 at first
/// and then what the last answer left, so that a search need not begin anew.
pub trait Eligible: Send + Sync + 'static {
    /// Whether the patient with this integer id is one of them, and the id below which this holds of all that follow; none when it
    /// holds of all.
    fn int_run(&self, id: i64, place: &mut usize) -> (bool, Option<i64>);

    /// Whether the patient with this textual id is one of them.
    fn contains_text(&self, id: &str, place: &mut usize) -> bool;
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
    Ok(TableFile::open(&path, table)?.rows())
}

/// A snapshot table of patients, of which a scan gives the eligible ones' rows only.
pub struct ProtectedTable {
    file: Arc<TableFile>,
    patient: usize,
    eligible: Arc<dyn Eligible>,
    range: PatientRange,
}

impl ProtectedTable {
    /// The table in the Parquet file at `path`, under `eligible`. Reads the file's footer.
    ///
    /// # Errors
    /// When the file cannot be read, or the table has no patient column.
    pub fn new(path: &Path, table: &Table, eligible: Arc<dyn Eligible>) -> Result<Self, TableError> {
        let file = TableFile::open(path, table)?;
        let patient = file.sorted_by.ok_or_else(|| TableError::Declaration(table.name.clone()))?;
        Ok(Self { file: Arc::new(file), patient, eligible, range: PatientRange::default() })
    }

    /// The same table, of which a scan gives the eligible patients of `range`.
    pub fn within(&self, range: &PatientRange) -> Self {
        Self { file: Arc::clone(&self.file), eligible: Arc::clone(&self.eligible), range: range.clone(), ..*self }
    }
}

/// Cuts the patients of `tables` into ascending ranges: a multiple of `workers`, each with about `rows` rows or fewer of the largest
/// table. There are fewer where that table has fewer row groups, and one where ids of several kinds have no common order.
pub fn ranges(tables: &[&ProtectedTable], workers: u64, rows: u64) -> Vec<PatientRange> {
    let kind = |table: &ProtectedTable| table.file.schema.field(table.patient).data_type().clone();
    let one_kind = tables.windows(2).all(|pair| kind(pair[0]) == kind(pair[1]));
    let largest = tables.iter().max_by_key(|table| table.file.rows()).filter(|_| one_kind);
    let cuts = largest.map(|table| {
        let parts = table.file.rows().div_ceil(rows.max(1)).max(1);
        table.file.cuts(parts.next_multiple_of(workers.max(1)))
    });
    PatientRange::between(&cuts.unwrap_or_default())
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
        _state: &dyn Session,
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
        let (scan, rows) = self.file.scan(read, &self.range)?;
        let columns = (0..wanted.len()).collect();
        let admitted = Admitted { eligible: Arc::clone(&self.eligible), range: self.range.clone() };
        Ok(Arc::new(EligibleExec::new(scan, rows, patient, columns, admitted)?))
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
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.0.scan(wanted(&self.0, projection), &PatientRange::default())?.0)
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
    use crate::data::fixture::{Fixture, rows, session};

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
    async fn ranges_are_sorted_and_share_no_patient() {
        let (_fixture, snapshot) = snapshot().await;
        let table = snapshot.schema().table("visit").unwrap();
        let eligible = Arc::new(crate::data::fixture::AllBut(["0005".to_owned()].into()));
        let visit = ProtectedTable::new(&snapshot.table_path("visit").unwrap(), table, eligible).unwrap();
        for (workers, per_range, expect) in [(1, 1000, 1), (1, 100, 5), (2, 100, 6), (4, 1000, 4), (4, 1, 50)] {
            let ranges = ranges(&[&visit], workers, per_range);
            assert_eq!(ranges.len(), expect, "{workers} workers, {per_range} rows");
            let mut parts = Vec::new();
            for range in &ranges {
                let context = crate::data::protected::session(1 << 28, 1).unwrap();
                context.register_table("visit", Arc::new(visit.within(range))).unwrap();
                parts.push(rows(&context, "SELECT pid FROM visit WHERE age <> 6").await);
            }
            let all = parts.concat();
            assert!(all.is_sorted(), "{workers}: the ranges follow one another");
            assert_eq!(all.len(), 500 - 2 - 2 * 3);
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert!(parts.windows(2).all(|pair| pair[0].last() != pair[1].first()), "{workers}");
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
