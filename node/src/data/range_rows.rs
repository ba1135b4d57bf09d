//! The rows of a plan, one range of patients after another.
//!
//! Every operator under a query's aggregate is per patient, so its rows over all ranges are its rows over all patients. In a range
//! everything is in one partition and comes sorted by patient: tables are, most operators keep that order, and where one does
//! not the engine sorts the range. Memory holds the joins, sorts and windows of the ranges that are being read.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    catalog::TableProvider,
    common::{
        config::ConfigNonZeroUsize,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    datasource::{provider_as_source, source_as_provider},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, memory_pool::MemoryLimit, session_state::SessionState},
    logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan, col},
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::SessionContext,
};

use sekisho_aggregation::texts::rows_per_batch;

use super::{
    counted::counted,
    protected::{PatientRange, ProtectedTable, ranges},
    row_plan::{RowPlanError, assert_row_plan},
    wanted::{Over, Wanted, ending},
};

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The engine would run another kind of plan than was analysed.
    #[error(transparent)]
    Plan(#[from] RowPlanError),
    /// The engine failed. Its words may quote a value: they go nowhere.
    #[error("the engine failed")]
    Engine(#[from] DataFusionError),
}

/// The rows that a plan gives of a range of patients, sorted by patient: by its column `c0`.
pub struct RangeRows {
    /// Optimised, over the tables of this node.
    plan: LogicalPlan,
    state: SessionState,
    workers: usize,
    over: Over,
}

impl RangeRows {
    /// The rows of `plan` over `tables`, and the ranges in which to read them: together, all patients.
    ///
    /// # Errors
    /// When a table is unknown or the engine cannot plan it.
    pub async fn of(
        plan: &LogicalPlan,
        tables: &SessionContext,
        rows_per_range: u64,
    ) -> Result<(Self, Vec<PatientRange>), RowsError> {
        let mut state = tables.state();
        let workers = state.config().target_partitions().max(1);
        state.config_mut().options_mut().execution.target_partitions = 1;
        let sorted =
            LogicalPlanBuilder::from(bound(plan, tables).await?).sort([col("c0").sort(true, true)])?.build()?;
        let plan = state.optimize(&sorted)?;
        if let MemoryLimit::Finite(memory) = state.runtime_env().memory_pool.memory_limit() {
            let rows = ConfigNonZeroUsize::try_new(rows_per_batch(&plan, memory / workers))?;
            state.config_mut().options_mut().execution.batch_size = rows;
        }
        let scanned = scanned(&plan)?;
        let protected: Vec<_> = scanned.iter().filter_map(|table| table.downcast_ref::<ProtectedTable>()).collect();
        let ranges = ranges(&protected, workers as u64, rows_per_range);
        Ok((Self { plan, state, workers, over: Over::default() }, ranges))
    }

    /// How many ranges are meant to be read at once: as many as the session has partitions.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Somebody waits for the rows; when that is dropped, what still makes some ends soon.
    pub fn wanted(&self) -> Wanted {
        self.over.wanted()
    }

    /// The rows of the patients of `range`.
    ///
    /// # Errors
    /// When the engine would run another kind of plan, or cannot begin.
    pub async fn stream(&self, range: &PatientRange) -> Result<SendableRecordBatchStream, RowsError> {
        Ok(execute_stream(self.physical(range).await?, self.state.task_ctx())?)
    }

    async fn physical(&self, range: &PatientRange) -> Result<Arc<dyn ExecutionPlan>, RowsError> {
        let plan = rescanned(&self.plan, |scan| {
            let provider = source_as_provider(&scan.source)?;
            if let Some(table) = provider.downcast_ref::<ProtectedTable>() {
                scan.source = provider_as_source(Arc::new(table.within(range)));
            }
            Ok(())
        })?;
        let physical = counted(self.state.query_planner().create_physical_plan(&plan, &self.state).await?)?;
        assert_row_plan(&physical)?;
        Ok(ending(physical, &self.over)?)
    }
}

/// The row plan over this node's tables: each scan of a table of the schema becomes a scan of the table that applies the
/// register.
async fn bound(rows: &LogicalPlan, tables: &SessionContext) -> Result<LogicalPlan, RowsError> {
    let mut names = Vec::new();
    rows.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.push(scan.table_name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut sources = HashMap::new();
    for name in names {
        let provider = tables.table_provider(name.clone()).await?;
        sources.insert(name, provider_as_source(provider));
    }
    let bound = rescanned(rows, |scan| {
        let source = sources.get(&scan.table_name).ok_or(DataFusionError::Plan("an unknown table".into()))?;
        let new = LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(source), scan.projection.clone())?;
        if let LogicalPlan::TableScan(new) = new.build()? {
            *scan = new;
        }
        Ok(())
    })?;
    // The analysis knows texts; this node's tables have some of them as dictionaries.
    Ok(bound.transform_up_with_subqueries(|node| Ok(Transformed::yes(node.recompute_schema()?)))?.data)
}

/// The same plan, its scans changed.
#[expect(clippy::wildcard_enum_match_arm, reason = "only scans are changed")]
fn rescanned(
    plan: &LogicalPlan,
    mut change: impl FnMut(&mut TableScan) -> Result<(), DataFusionError>,
) -> Result<LogicalPlan, RowsError> {
    let changed = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            change(&mut scan)?;
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(changed.data)
}

/// The tables that a plan scans.
fn scanned(plan: &LogicalPlan) -> Result<Vec<Arc<dyn TableProvider>>, RowsError> {
    let mut tables = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.push(source_as_provider(&scan.source)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::{datasource::empty::EmptyTable, physical_plan::displayable};
    use futures::TryStreamExt;

    use super::*;
    use crate::data::{
        fixture::{Fixture, lines, rows, session},
        snapshot::Snapshot,
    };

    const MAPPING: &str = r#"
id = "west"
synthetic = true
schema = "schema.dsse.json"
[tables.stay]
source = "stay.csv"
[tables.stay.columns]
pid = "pid"
days = "days"
[tables.person]
source = "person.csv"
[tables.person.columns]
pid = "pid"
age = "age"
sex = "sex"
[tables.band]
source = "band.csv"
[tables.band.columns]
age = "age"
"#;

    /// Persons 1 to 120 without every seventh; stays of patients 1 to 80, up to six of each: the last ranges of persons have none.
    async fn snapshot(kind: &str) -> (Fixture, Snapshot) {
        let fixture = Fixture::new();
        let (mut stays, mut persons) = (String::from("pid,days\n"), String::from("pid,age,sex\n"));
        for id in (1..=120).filter(|id| id % 7 > 0) {
            persons += &format!("{id},{},{}\n", id * 13 % 90, ["f", "m", "x", ""][id % 4]);
        }
        for id in (1..=80).rev() {
            (0..id % 7).for_each(|stay| stays += &format!("{id},{}\n", (id + stay * 5) % 11));
        }
        fixture.write("stay.csv", &stays);
        fixture.write("person.csv", &persons);
        fixture.write("band.csv", "age\n1\n2\n10\n11\n");
        fixture.sign(&format!(
            r#"{{"id":"s","version":1,"title":"","tables":[
            {{"name":"stay","patient":"pid","columns":[{{"name":"pid","type":"{kind}"}},{{"name":"days","type":"int64"}}]}},
            {{"name":"person","patient":"pid","one_row_per_patient":true,"columns":[
                {{"name":"pid","type":"{kind}"}},{{"name":"age","type":"int64"}},
                {{"name":"sex","type":"text","domain":["f","m"]}}]}},
            {{"name":"band","public":"bands","columns":[{{"name":"age","type":"int64"}}]}}]}}"#
        ));
        fixture.write("mapping.toml", MAPPING);
        let snapshot = fixture.take(10).await.unwrap().0;
        (fixture, snapshot)
    }

    const QUERIES: &[&str] = &[
        "SELECT pid AS c0, days FROM stay",
        "SELECT pid AS c0, days FROM stay WHERE days > 4 AND pid <> '30'",
        "SELECT s.pid AS c0, s.days, p.age FROM stay s JOIN person p ON s.pid = p.pid",
        "SELECT p.pid AS c0, s.days, p.age FROM person p JOIN stay s ON s.pid = p.pid AND s.days < p.age",
        "SELECT p.pid AS c0, s.days FROM person p LEFT JOIN stay s ON s.pid = p.pid AND s.days > 5",
        "SELECT s.pid AS c0, p.age FROM stay s LEFT JOIN person p ON s.pid = p.pid",
        "SELECT a.pid AS c0, a.days, b.days AS e FROM stay a JOIN stay b ON a.pid = b.pid AND a.days < b.days",
        "SELECT pid AS c0, age FROM person p WHERE EXISTS (SELECT 1 FROM stay s WHERE s.pid = p.pid AND days > 8)",
        "SELECT pid AS c0, age FROM person p WHERE NOT EXISTS (SELECT 1 FROM stay s WHERE s.pid = p.pid)",
        "SELECT pid AS c0, age FROM person WHERE pid NOT IN (SELECT pid FROM stay WHERE days > 3)",
        "SELECT pid AS c0, count(*) AS n, max(days) AS d FROM stay GROUP BY pid",
        "SELECT p.pid AS c0, t.n FROM person p LEFT JOIN (SELECT pid, count(*) AS n FROM stay GROUP BY pid) t ON t.pid = p.pid",
        "SELECT DISTINCT pid AS c0, days FROM stay",
        "SELECT pid AS c0, days FROM stay UNION ALL SELECT pid, age FROM person",
        "SELECT pid AS c0, days - lag(days) OVER (PARTITION BY pid ORDER BY days) AS gap FROM stay",
        "SELECT pid AS c0, sum(days) OVER (PARTITION BY pid) AS d FROM stay",
        "SELECT s.pid AS c0, b.age FROM stay s JOIN band b ON s.days = b.age",
        "SELECT p.pid AS c0, b.age FROM band b JOIN person p ON p.age > b.age",
    ];

    #[tokio::test]
    async fn the_rows_over_all_ranges_are_the_rows_over_all_patients() {
        for kind in ["text", "int64"] {
            let (_fixture, snapshot) = snapshot(kind).await;
            let opted_out = ["5", "33", "71"];
            for (workers, per_range, expect) in [(1, 1000, 1), (4, 1000, 4), (1, 50, 5), (4, 1, 20)] {
                for sql in QUERIES {
                    let tables = session(&snapshot, workers, &opted_out);
                    let mut all = rows(&session(&snapshot, 1, &opted_out), sql).await;
                    let plan = tables.sql(sql).await.unwrap().into_unoptimized_plan();
                    let (plan, ranges) = RangeRows::of(&plan, &tables, per_range).await.unwrap();
                    assert!(ranges.len() >= expect || !sql.contains("stay"), "{} ranges: {sql}", ranges.len());
                    let (mut found, mut last) = (Vec::new(), String::new());
                    for range in &ranges {
                        let batches: Vec<_> = plan.stream(range).await.unwrap().try_collect().await.unwrap();
                        let part = if batches.is_empty() { Vec::new() } else { lines(&batches) };
                        let id = |line: &String| {
                            let id = line.split('|').next().unwrap();
                            if kind == "text" { id.to_owned() } else { format!("{id:0>4}") }
                        };
                        let ids: Vec<String> = part.iter().map(id).collect();
                        assert!(ids.is_sorted(), "{sql}: {ids:?}");
                        assert!(ids.first().is_none_or(|first| *first > last), "{sql}: {last} is in two ranges");
                        last = ids.last().cloned().unwrap_or(last);
                        found.extend(part);
                    }
                    all.sort();
                    found.sort();
                    assert!(!all.is_empty() && found == all, "{sql} of {kind} in {expect} ranges");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_comes_in_order_is_not_sorted_again() {
        let (_fixture, snapshot) = snapshot("int64").await;
        let tables = session(&snapshot, 2, &[]);
        for (sql, sorts) in [
            ("SELECT pid AS c0, days FROM stay WHERE days > 4", false),
            ("SELECT s.pid AS c0, p.age FROM stay s JOIN person p ON s.pid = p.pid", false),
            ("SELECT p.pid AS c0, p.age FROM person p JOIN stay s ON s.pid = p.pid", false),
            ("SELECT s.pid AS c0, p.age FROM stay s LEFT JOIN person p ON s.pid = p.pid", false),
            ("SELECT pid AS c0 FROM stay WHERE pid IN (SELECT pid FROM person WHERE age > 3)", false),
            ("SELECT s.pid AS c0, b.age FROM stay s JOIN band b ON s.days = b.age", false),
            ("SELECT pid AS c0, count(*) AS n FROM stay GROUP BY pid", false),
            ("SELECT pid AS c0, days FROM stay UNION ALL SELECT pid, age FROM person", false),
            ("SELECT pid AS c0, row_number() OVER (PARTITION BY pid) AS n FROM stay", false),
            ("SELECT pid AS c0, row_number() OVER (PARTITION BY pid ORDER BY days) AS n FROM stay", true),
        ] {
            let plan = tables.sql(sql).await.unwrap().into_unoptimized_plan();
            let (plan, ranges) = RangeRows::of(&plan, &tables, 50).await.unwrap();
            let plan = plan.physical(&ranges[0]).await.unwrap();
            let text = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(text.contains("SortExec"), sorts, "{sql}\n{text}");
        }
    }

    /// The analysis plans over texts, and checks types; a snapshot has texts with a public domain as dictionaries.
    #[tokio::test]
    async fn a_plan_over_texts_runs_over_dictionaries() {
        let (_fixture, snapshot) = snapshot("int64").await;
        let (tables, plain) = (session(&snapshot, 2, &["5"]), SessionContext::new());
        for name in snapshot.tables() {
            let stored = tables.table_provider(name).await.unwrap().schema();
            let text = |field: &Arc<Field>| {
                let field = field.as_ref().clone();
                if let DataType::Dictionary(_, values) = field.data_type().clone() {
                    field.with_data_type(*values)
                } else {
                    field
                }
            };
            let schema = Arc::new(Schema::new(stored.fields().iter().map(text).collect::<Vec<_>>()));
            plain.register_table(name, Arc::new(EmptyTable::new(schema))).unwrap();
        }
        let sex = tables.table_provider("person").await.unwrap().schema().field_with_name("sex").unwrap().clone();
        assert!(matches!(sex.data_type(), DataType::Dictionary(..)));
        for sql in [
            "SELECT pid AS c0, sex FROM person WHERE sex = 'f' OR sex IN ('m', 'y')",
            "SELECT pid AS c0, CASE WHEN sex = 'f' THEN sex ELSE upper(sex) END AS s FROM person",
            "SELECT pid AS c0, max(sex) AS s, count(sex) AS n FROM person GROUP BY pid",
            "SELECT DISTINCT pid AS c0, sex FROM person",
            "SELECT pid AS c0, lag(sex) OVER (PARTITION BY pid ORDER BY sex) AS s FROM person",
            "SELECT pid AS c0, sex FROM person UNION ALL SELECT pid, 'stay' FROM stay",
            "SELECT p.pid AS c0, p.sex, q.sex AS t FROM person p JOIN person q ON p.pid = q.pid AND p.sex = q.sex",
            "SELECT s.pid AS c0, coalesce(p.sex, 'none') AS s FROM stay s LEFT JOIN person p ON s.pid = p.pid",
            "SELECT p.pid AS c0, x.n FROM person p JOIN (VALUES ('f', 1), ('m', 2)) AS x(sex, n) ON p.sex = x.sex",
            "SELECT pid AS c0, substr(sex, 1, 1) || 'a' AS s FROM person WHERE sex LIKE 'f%' OR sex IS NULL",
        ] {
            let state = plain.state();
            let plan = state.create_logical_plan(sql).await.unwrap();
            let plan = state.analyzer().execute_and_check(plan, &state.config_options().clone(), |_, _| {}).unwrap();
            let (plan, ranges) = RangeRows::of(&plan, &tables, 20).await.unwrap();
            let mut found = Vec::new();
            for range in &ranges {
                let batches: Vec<_> = plan.stream(range).await.unwrap().try_collect().await.unwrap();
                found.extend(if batches.is_empty() { Vec::new() } else { lines(&batches) });
            }
            let mut all = rows(&tables, sql).await;
            all.sort();
            found.sort();
            assert!(!all.is_empty() && found == all, "{sql}");
        }
    }

    #[tokio::test]
    async fn patients_of_two_kinds_are_in_one_range() {
        let fixture = Fixture::with_visits().await;
        fixture.parquet("person.parquet", "SELECT 7 AS id, 80.0 AS kg").await;
        let person =
            "\n[tables.person]\nsource = \"person.parquet\"\n[tables.person.columns]\npid = \"id\"\nweight = \"kg\"\n";
        fixture.write("mapping.toml", &format!("{}{person}", Fixture::MAPPING));
        let tables = session(&fixture.take(1).await.unwrap().0, 4, &[]);
        let sql = "SELECT v.pid AS c0, v.age FROM visit v JOIN person p ON CAST(v.pid AS BIGINT) = p.pid";
        let plan = tables.sql(sql).await.unwrap().into_unoptimized_plan();
        let (plan, ranges) = RangeRows::of(&plan, &tables, 1).await.unwrap();
        assert_eq!(ranges.len(), 1);
        let batches: Vec<_> = plan.stream(&ranges[0]).await.unwrap().try_collect().await.unwrap();
        assert_eq!(lines(&batches).len(), 3);
    }
}
