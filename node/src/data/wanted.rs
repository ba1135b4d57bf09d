//! What nobody waits for any more ends.
//!
//! A run is stopped by dropping its task, which takes effect where the task yields. A join of many rows of one patient makes batch
//! after batch from one of its input, or none at all where its condition is never met, and yields nowhere: beyond the time limit it
//! would go on for hours, and the node's threads with it. So joins yield after some batches, and their conditions, which are asked
//! for every batch of pairs, fail once the run is over.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use datafusion::{
    arrow::{
        datatypes::{DataType, FieldRef, Schema},
        record_batch::RecordBatch,
    },
    common::{
        DataFusionError, Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, utils::JoinFilter},
    },
};

/// Somebody waits for rows, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Wanted(Arc<AtomicBool>);

/// Whether somebody who waited for rows went away.
#[derive(Clone, Debug, Default)]
pub(super) struct Over(Arc<AtomicBool>);

impl Over {
    /// Somebody waits.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted(Arc::clone(&self.0))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The condition of a join, as long as it is wanted.
#[derive(Debug)]
struct Condition {
    inner: Arc<dyn PhysicalExpr>,
    over: Over,
}

/// `plan`, whose joins yield, and end when it is `over`.
///
/// # Errors
/// None is expected.
pub(super) fn ending(plan: Arc<dyn ExecutionPlan>, over: &Over) -> Result<Arc<dyn ExecutionPlan>> {
    let end = |plan: Arc<dyn ExecutionPlan>| {
        let join = match plan.downcast_ref::<HashJoinExec>() {
            Some(join) => match join.filter() {
                Some(filter) => Arc::new(join.builder().with_filter(Some(ended(filter, over))).build()?) as _,
                None => plan,
            },
            None if plan.is::<NestedLoopJoinExec>() || plan.is::<CrossJoinExec>() => plan,
            None => return Ok(Transformed::no(plan)),
        };
        let yields: Arc<dyn ExecutionPlan> = Arc::new(CooperativeExec::new(join));
        Ok(Transformed::yes(yields))
    };
    Ok(plan.transform_up(end)?.data)
}

fn ended(filter: &JoinFilter, over: &Over) -> JoinFilter {
    let condition = Condition { inner: Arc::clone(filter.expression()), over: over.clone() };
    JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && Arc::ptr_eq(&self.over.0, &other.over.0)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Condition {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.over.0.load(Ordering::Relaxed) {
            return Err(DataFusionError::Execution("nobody waits for these rows".into()));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let one = <[_; 1]>::try_from(children);
        let [inner] = one.map_err(|_| DataFusionError::Internal("a condition has one expression".into()))?;
        Ok(Arc::new(Self { inner, over: self.over.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
