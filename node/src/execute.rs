//! Runs a private plan over a snapshot: the only place where rows are read.
//!
//! Every operator of a [`PrivatePlan`] is per patient, so it runs over one range of patients after another, in each over these
//! patients' rows of all tables. Workers take shares of consecutive ranges. In a range all is in one partition and comes sorted
//! by patient: tables are, most operators keep that order, and where one does not the engine sorts the range.
//!
//! Tables apply the patient register under every scan, and the physical plan is asserted as it stands before it runs. Memory is
//! limited by the session, which spills nothing, and time by whoever waits. What fails says so without a value: DataFusion's own words may
//! quote one, so only their kind is told.

use std::sync::Arc;

use datafusion::{error::DataFusionError, prelude::SessionContext};
use futures::StreamExt;
use sekisho_aggregation::{
    fold::{Fold, FoldError, RawCells, RawPart},
    plan::PrivatePlan,
    reservation::Reservation,
};
use tokio::task::JoinSet;

use crate::data::{
    range_rows::{RangeRows, RowsError},
    row_plan::RowPlanError,
};

/// About how many rows of the largest table are in one range: what a worker's joins, sorts and windows hold at once.
const ROWS_PER_RANGE: u64 = 1 << 21;

/// Why there are no cells.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The engine would run another kind of plan than was analysed.
    #[error(transparent)]
    Plan(#[from] RowPlanError),
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(&'static str),
    /// The rows could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The reservation is for another plan, or there is none where one is needed.
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

impl From<RowsError> for ExecuteError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Plan(error) => error.into(),
            RowsError::Engine(error) => error.into(),
        }
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
    all(plan, tables).await
}

/// The same for a plan whose cells leave by no reservation: a person looks at them first, and what lets them out asks for proof
/// that a decision is on disk.
///
/// # Errors
/// When the plan is not exact, memory is exhausted or the engine fails.
pub async fn execute_exact(plan: &Arc<PrivatePlan>, tables: &SessionContext) -> Result<RawCells, ExecuteError> {
    if plan.exact().is_none() {
        return Err(ExecuteError::Reservation);
    }
    all(plan, tables).await
}

async fn all(plan: &Arc<PrivatePlan>, tables: &SessionContext) -> Result<RawCells, ExecuteError> {
    let mut parts = Vec::new();
    for part in 0..plan.parts().len() {
        parts.push(cells(plan, part, tables).await?);
    }
    Ok(RawCells::of(parts))
}

async fn cells(plan: &Arc<PrivatePlan>, place: usize, tables: &SessionContext) -> Result<RawPart, ExecuteError> {
    let part = plan.parts().get(place).ok_or(ExecuteError::Reservation)?;
    let (rows, ranges) = RangeRows::of(part.rows(), tables, ROWS_PER_RANGE).await?;
    let rows = Arc::new(rows);
    let mut tasks = JoinSet::new();
    for share in ranges.chunks(ranges.len().div_ceil(rows.workers())) {
        let (mut fold, rows, share) = (Fold::new(plan, place)?, Arc::clone(&rows), share.to_vec());
        tasks.spawn(async move {
            for range in share {
                let mut batches = rows.stream(&range).await?;
                while let Some(batch) = batches.next().await {
                    fold.push(&batch?)?;
                }
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
