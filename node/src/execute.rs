//! Runs a private plan over a snapshot: the only place where rows are read.
//!
//! The row plan is that of the [`PrivatePlan`], over tables that apply the patient register under every scan,
//! and is asserted again as it stands before it runs: only operators that keep a patient's rows together and in
//! order. Memory is limited by the session, time by whoever waits. What fails says so without a value: DataFusion's own words may quote
//! one, so only their kind is told.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    datasource::provider_as_source,
    error::DataFusionError,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, col},
    physical_plan::execute_stream_partitioned,
    prelude::SessionContext,
};
use futures::StreamExt;
use sekisho_aggregation::{
    fold::{Fold, FoldError, RawCells, RawPart},
    plan::PrivatePlan,
    reservation::Reservation,
};
use tokio::task::JoinSet;

use crate::data::row_plan::{assert_leaves, assert_row_plan};

/// Why there are no cells.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The engine would run another kind of plan than was analysed.
    #[error("the engine's plan has an operator that is not admitted: {0}")]
    Plan(String),
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(&'static str),
    /// The rows could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The reservation is for another plan.
    #[error("the reservation is for another plan")]
    Reservation,
}

impl From<DataFusionError> for ExecuteError {
    fn from(error: DataFusionError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum, of which only the kind is told")]
        Self::Engine(match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => "out of memory",
            DataFusionError::ArrowError(..) => "arrow",
            DataFusionError::ParquetError(_) => "parquet",
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => "reading",
            DataFusionError::Plan(_) | DataFusionError::SchemaError(..) => "planning",
            DataFusionError::NotImplemented(_) => "not implemented",
            _ => "internal",
        })
    }
}

/// Reads the rows that `plan` needs from `tables` and folds them into exact cells. Dropped, it stops.
///
/// # Errors
/// When memory is exhausted or the engine fails; the charge stands.
pub async fn execute<T>(
    plan: &Arc<PrivatePlan>,
    reservation: &Reservation<T>,
    tables: &SessionContext,
) -> Result<RawCells, ExecuteError> {
    if reservation.plan() != plan.digest() {
        return Err(ExecuteError::Reservation);
    }
    let mut parts = Vec::new();
    for part in 0..plan.parts().len() {
        parts.push(cells(plan, part, tables).await?);
    }
    Ok(RawCells::of(parts))
}

/// The row plan over this node's tables: each scan of a table of the schema becomes a scan of the table that applies the
/// register.
async fn bound(rows: &LogicalPlan, tables: &SessionContext) -> Result<LogicalPlan, ExecuteError> {
    let mut sources = HashMap::new();
    let mut names = Vec::new();
    rows.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.push(scan.table_name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for name in names {
        let provider = tables.table_provider(name.clone()).await?;
        sources.insert(name, provider_as_source(provider));
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "only scans are replaced")]
    let bound = rows.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let source = sources.get(&scan.table_name).ok_or(DataFusionError::Plan("an unknown table".into()))?;
            let scan = LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(source), scan.projection.clone())?;
            Ok(Transformed::yes(scan.build()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

async fn cells(plan: &Arc<PrivatePlan>, place: usize, tables: &SessionContext) -> Result<RawPart, ExecuteError> {
    let part = plan.parts().get(place).ok_or(ExecuteError::Reservation)?;
    let rows = bound(part.rows(), tables).await?;
    let rows = if part.ordered() {
        rows
    } else {
        LogicalPlanBuilder::from(rows).sort([col("c0").sort(true, true)])?.build()?
    };
    let physical = tables.state().create_physical_plan(&rows).await?;
    let checked = if part.ordered() { assert_row_plan(&physical) } else { assert_leaves(&physical) };
    checked.map_err(|e| ExecuteError::Plan(e.to_string()))?;
    let mut tasks = JoinSet::new();
    for mut stream in execute_stream_partitioned(physical, tables.task_ctx())? {
        let mut fold = Fold::new(plan, place)?;
        tasks.spawn(async move {
            while let Some(batch) = stream.next().await {
                fold.push(&batch?)?;
            }
            Ok::<_, ExecuteError>(fold)
        });
    }
    let mut folds = Vec::new();
    // Leaving early drops the set, which stops the other tasks.
    while let Some(fold) = tasks.join_next().await {
        folds.push(fold.map_err(|_| ExecuteError::Engine("a worker stopped"))??);
    }
    Ok(Fold::finish(plan, place, folds)?)
}
