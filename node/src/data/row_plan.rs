//! Asserts that a physical plan gives each patient's rows together, in order, and past the register.
//!
//! The list of operators is closed: [`EligibleExec`] with the scan inside it, filters and projections. Whatever
//! else an optimiser puts into a plan (a repartition, a sort, a limit, a bare scan) is refused by its name.
//! It looks at operators, not at expressions: those were admitted from the SQL text.

use std::sync::Arc;

use datafusion::{
    datasource::source::DataSourceExec,
    physical_plan::{
        ExecutionPlan, coop::CooperativeExec, empty::EmptyExec, filter::FilterExec,
        placeholder_row::PlaceholderRowExec, projection::ProjectionExec,
    },
};
use sekisho_protocol::refusal::{Code, Refusal};

use super::protected::EligibleExec;

/// A plan has an operator that may part or reorder a patient's rows, or drop some of them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowPlanError {
    /// The operator is not one of those that are known to keep patients together.
    #[error("the plan has the operator {0}, which is not known to keep a patient's rows together and in order")]
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

/// Passes a plan that scans one protected table and keeps each patient's rows together and in order.
///
/// # Errors
/// The first operator from the top that is not known to.
pub fn assert_row_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<(), RowPlanError> {
    let name = || plan.name().to_owned();
    if plan.fetch().is_some() {
        return Err(RowPlanError::Limit(name()));
    }
    let passes = plan.is::<FilterExec>() || plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>();
    match plan.children().as_slice() {
        [input] if passes => assert_row_plan(input),
        [] if plan.is::<EligibleExec>() || plan.is::<EmptyExec>() => Ok(()),
        _ => Err(RowPlanError::Operator(name())),
    }
}

/// Passes a plan whose rows are sorted by patient afterwards: every table of patients is read through the register, and
/// nothing stops after a number of rows.
///
/// # Errors
/// The first operator that reads anything else, or stops.
pub fn assert_leaves(plan: &Arc<dyn ExecutionPlan>) -> Result<(), RowPlanError> {
    if plan.fetch().is_some() {
        return Err(RowPlanError::Limit(plan.name().to_owned()));
    }
    let children = plan.children();
    if !children.is_empty() {
        return children.into_iter().try_for_each(assert_leaves);
    }
    // A scan of a table of patients is inside its [`EligibleExec`]; one that stands alone is public, or VALUES.
    if plan.is::<EligibleExec>()
        || plan.is::<EmptyExec>()
        || plan.is::<PlaceholderRowExec>()
        || plan.is::<DataSourceExec>()
    {
        return Ok(());
    }
    Err(RowPlanError::Operator(plan.name().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture::{Fixture, session};

    #[tokio::test]
    async fn filters_and_projections_pass_and_everything_else_is_named() {
        let fixture = Fixture::with_visits().await;
        fixture.write("chapter.csv", "code\nA\n");
        let public = "\n[tables.chapter]\nsource = \"chapter.csv\"\n[tables.chapter.columns]\ncode = \"code\"\n";
        fixture.write("mapping.toml", &format!("{}{public}", Fixture::MAPPING));
        let (snapshot, _) = fixture.take(1).await.unwrap();
        for (sql, expect) in [
            ("SELECT pid FROM visit", "ok"),
            ("SELECT age FROM visit", "ok"),
            ("SELECT pid, CASE WHEN age > 50 THEN 1 ELSE 0 END FROM visit WHERE weight > 1 AND pid <> '7'", "ok"),
            ("SELECT pid FROM (SELECT pid, age + 1 AS b FROM visit WHERE age > 3) WHERE b < 50", "ok"),
            ("SELECT pid FROM visit WHERE 1 = 0", "ok"),
            ("SELECT pid FROM visit LIMIT 1", "Limit"),
            ("SELECT pid FROM visit WHERE age > 1 LIMIT 1", "Limit"),
            ("SELECT pid FROM visit ORDER BY age", "Sort"),
            ("SELECT count(*) FROM visit", "Aggregate"),
            ("SELECT DISTINCT pid FROM visit", "Aggregate"),
            ("SELECT a.pid FROM visit a JOIN visit b ON a.pid = b.pid", "Join"),
            ("SELECT pid FROM visit UNION ALL SELECT pid FROM visit", "Union"),
            ("SELECT row_number() OVER (PARTITION BY pid) FROM visit", "Window"),
            ("SELECT code FROM chapter", "DataSourceExec"),
        ] {
            for partitions in [1, 4] {
                let frame = session(&snapshot, partitions, &[]).sql(sql).await.unwrap();
                let plan = frame.create_physical_plan().await.unwrap();
                let found = assert_row_plan(&plan).map_or_else(|e| format!("{e:?}"), |()| "ok".into());
                assert!(found.contains(expect), "{sql}: {found}");
            }
        }
    }
}
