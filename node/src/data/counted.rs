//! Rows that an operator keeps beside the engine's count of memory are counted here.
//!
//! The engine's `WindowAggExec` collects every row of its input and takes none of it from the memory pool. A join can make a hundred
//! million rows of one patient's: then the process would die, which tells that the patient is there and is no answer that
//! anybody counts. [`CountedExec`] stands under it and takes what passes from the pool, until the last row has passed; beyond
//! the limit the run ends like any other that wants too much.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{
        DataFusionError, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
        utils::memory::get_record_batch_memory_size,
    },
    execution::{TaskContext, memory_pool::MemoryConsumer},
    physical_expr::PhysicalExpr,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        execution_plan::replace_children_if_necessary, stream::RecordBatchStreamAdapter, windows::WindowAggExec,
    },
};
use futures::TryStreamExt;

/// Passes on its input, whose memory it takes from the pool as long as it runs.
pub struct CountedExec {
    input: Arc<dyn ExecutionPlan>,
}

/// `plan` with a [`CountedExec`] under each operator that keeps its input uncounted.
///
/// # Errors
/// None is expected.
pub(super) fn counted(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let under = |plan: Arc<dyn ExecutionPlan>| {
        if !plan.is::<WindowAggExec>() {
            return Ok(Transformed::no(plan));
        }
        let inputs = plan.children().into_iter().map(|input| {
            let counted: Arc<dyn ExecutionPlan> = Arc::new(CountedExec { input: Arc::clone(input) });
            counted
        });
        let inputs = inputs.collect();
        Ok(Transformed::yes(replace_children_if_necessary(plan, inputs)?))
    };
    Ok(plan.transform_up(under)?.data)
}

impl fmt::Debug for CountedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountedExec({:?})", self.input)
    }
}

impl DisplayAs for CountedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedExec")
    }
}

impl ExecutionPlan for CountedExec {
    fn name(&self) -> &'static str {
        "CountedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let one = <[_; 1]>::try_from(children);
        let [input] = one.map_err(|_| DataFusionError::Internal("CountedExec has one input".into()))?;
        Ok(Arc::new(Self { input }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reservation = MemoryConsumer::new("CountedExec").register(context.memory_pool());
        let batches = self.input.execute(partition, context)?.and_then(move |batch| {
            let kept = reservation.try_grow(get_record_batch_memory_size(&batch));
            std::future::ready(kept.map(|()| batch))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{fixture::Fixture, fixture::session, protected, range_rows::RangeRows};

    #[tokio::test]
    async fn a_window_over_more_rows_than_memory_ends_and_over_fewer_gives_them() {
        let fixture = Fixture::with_visits().await;
        let (snapshot, _) = fixture.take(1).await.unwrap();
        let many = |n: usize| {
            let values = vec!["(0)"; n].join(", ");
            format!(
                "SELECT pid AS c0, sum(n) OVER (PARTITION BY pid) AS s FROM (SELECT v.pid, x.k + y.k AS n FROM visit v \
                 JOIN (VALUES {values}) AS x(k) ON 0 * v.age = x.k JOIN (VALUES {values}) AS y(k) ON 0 * v.age = y.k) t"
            )
        };
        for (n, memory, expect) in [(10, 1 << 20, true), (400, 1 << 20, false), (400, 1 << 28, true)] {
            let tables = protected::session(memory, 1).unwrap();
            for name in snapshot.tables() {
                let from = session(&snapshot, 1, &[]).table_provider(name).await.unwrap();
                tables.register_table(name, from).unwrap();
            }
            let plan = tables.sql(&many(n)).await.unwrap().into_unoptimized_plan();
            let (rows, ranges) = RangeRows::of(&plan, &tables, 1000).await.unwrap();
            let found: Result<Vec<_>> = rows.stream(&ranges[0]).await.unwrap().try_collect().await;
            assert_eq!(found.is_ok(), expect, "{n} in {memory}: {found:?}");
        }
    }
}
