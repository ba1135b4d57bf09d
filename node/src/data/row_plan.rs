//! Asserts of which operators a physical plan consists, before it runs.
//!
//! The list is closed: [`EligibleExec`] with the scan of a table of patients inside it, scans of public tables and literals, and
//! operators that give every row of their input or of its groups. Whatever else an optimiser puts into a plan (a repartition, a
//! limit, an operator that no admitted SQL needs) is refused by its name. It looks at operators, not at expressions: those
//! were admitted from the SQL text. That each patient's rows come together is checked where they are folded.

use std::sync::Arc;

use datafusion::{
    datasource::source::DataSourceExec,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        empty::EmptyExec,
        filter::FilterExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec},
        placeholder_row::PlaceholderRowExec,
        projection::ProjectionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
        union::UnionExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use sekisho_protocol::refusal::{Code, Refusal};

use super::{counted::CountedExec, protected::EligibleExec};

/// A plan has an operator that no admitted query needs, or drops rows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowPlanError {
    /// The operator is not on the list.
    #[error("the plan has the operator {0}, which is not one that a query may have")]
    Operator(String),
    /// The operator stops after some rows.
    #[error("the operator {0} of the plan stops after a number of rows")]
    Limit(String),
}

impl From<RowPlanError> for Refusal {
    fn from(error: RowPlanError) -> Self {
        match error {
            RowPlanError::Operator(_) | RowPlanError::Limit(_) => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}

/// Passes a plan that reads tables of patients through the register only, and does nothing but what a query needs.
///
/// # Errors
/// The first operator from the top that is another, or stops after a number of rows.
pub fn assert_row_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<(), RowPlanError> {
    if plan.fetch().is_some() {
        return Err(RowPlanError::Limit(plan.name().to_owned()));
    }
    let children = plan.children();
    // A scan of a table of patients is inside its [`EligibleExec`]; one that stands alone is public, or VALUES.
    let admitted = if children.is_empty() {
        plan.is::<EligibleExec>()
            || plan.is::<EmptyExec>()
            || plan.is::<PlaceholderRowExec>()
            || plan.is::<DataSourceExec>()
    } else {
        is_of_rows(plan) || is_of_groups(plan)
    };
    if !admitted {
        return Err(RowPlanError::Operator(plan.name().to_owned()));
    }
    children.into_iter().try_for_each(assert_row_plan)
}

/// Rows of the input, chosen by their values, put together or in order.
fn is_of_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<CountedExec>()
        || plan.is::<UnionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
}

/// Joins, and what is computed of groups of rows.
fn is_of_groups(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture::{Fixture, session};

    #[tokio::test]
    async fn what_a_query_needs_passes_and_everything_else_is_named() {
        let fixture = Fixture::with_visits().await;
        fixture.write("chapter.csv", "code\nA\n");
        let public = "\n[tables.chapter]\nsource = \"chapter.csv\"\n[tables.chapter.columns]\ncode = \"code\"\n";
        fixture.write("mapping.toml", &format!("{}{public}", Fixture::MAPPING));
        let (snapshot, _) = fixture.take(1).await.unwrap();
        for (sql, expect) in [
            ("SELECT pid, CASE WHEN age > 50 THEN 1 ELSE 0 END FROM visit WHERE weight > 1 AND pid <> '7'", "ok"),
            ("SELECT pid FROM visit WHERE 1 = 0", "ok"),
            ("SELECT pid FROM visit ORDER BY pid", "ok"),
            ("SELECT pid FROM visit ORDER BY age", "ok"),
            ("SELECT pid, count(*), max(age) FROM visit GROUP BY pid", "ok"),
            ("SELECT DISTINCT pid, age FROM visit", "ok"),
            ("SELECT a.pid FROM visit a JOIN visit b ON a.pid = b.pid AND a.age < b.age", "ok"),
            ("SELECT a.pid FROM visit a LEFT JOIN visit b ON a.pid = b.pid", "ok"),
            ("SELECT a.pid FROM visit a WHERE a.pid NOT IN (SELECT pid FROM visit WHERE age > 3)", "ok"),
            ("SELECT v.pid FROM visit v, chapter c WHERE v.pid < c.code", "ok"),
            ("SELECT pid FROM visit UNION ALL SELECT pid FROM visit", "ok"),
            ("SELECT row_number() OVER (PARTITION BY pid ORDER BY seen) FROM visit", "ok"),
            ("SELECT pid FROM visit LIMIT 1", "Limit"),
            ("SELECT pid FROM visit WHERE age > 1 LIMIT 1", "Limit"),
            ("SELECT pid FROM visit ORDER BY pid LIMIT 2", "Limit"),
            ("SELECT count(*) FROM (SELECT pid FROM visit LIMIT 1)", "Limit"),
            ("SELECT pid FROM visit OFFSET 1", "Limit"),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r",
                "Recursive",
            ),
        ] {
            let frame = session(&snapshot, 1, &[]).sql(sql).await.unwrap();
            let plan = frame.create_physical_plan().await.unwrap();
            let found = assert_row_plan(&plan).map_or_else(|e| format!("{e:?}"), |()| "ok".into());
            assert!(found.contains(expect), "{sql}: {found}");
        }
        // With more partitions the engine would part the patients.
        let frame = session(&snapshot, 4, &[]).sql("SELECT pid, count(*) FROM visit GROUP BY pid").await.unwrap();
        let found = assert_row_plan(&frame.create_physical_plan().await.unwrap());
        assert_eq!(found, Err(RowPlanError::Operator("RepartitionExec".into())));
    }
}
