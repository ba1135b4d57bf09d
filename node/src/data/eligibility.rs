//! The operator that applies the patient register: it drops the rows of patients who are not eligible.
//!
//! To the optimiser it is a leaf: the scan is inside it, so no rule can put anything between the two or change
//! the scan (DataFusion would sort below an operator that keeps its input's order). It keeps partitions and
//! order, promises no statistics (or a count would be answered from Parquet's metadata, past the register),
//! keeps no metrics, and takes no filter, limit, sort or projection: the defaults for an unknown operator.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Int64Type, SchemaRef},
};
use datafusion::{
    common::{DataFusionError, Result, tree_node::TreeNodeRecursion},
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr, expressions::Column},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
        SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;

use super::protected::Eligible;

/// Rows of eligible patients only, without the patient column where the query does not want it.
pub struct EligibleExec {
    scan: Arc<dyn ExecutionPlan>,
    /// The index of the patient column in the scan.
    patient: usize,
    /// The scan's columns that go on.
    columns: Vec<usize>,
    eligible: Arc<dyn Eligible>,
    properties: Arc<PlanProperties>,
}

impl EligibleExec {
    /// Over `scan`, whose partitions are sorted by the column at `patient`; `columns` of it go on.
    ///
    /// # Errors
    /// When an index is outside the scan's columns.
    pub(super) fn new(
        scan: Arc<dyn ExecutionPlan>,
        patient: usize,
        columns: Vec<usize>,
        eligible: Arc<dyn Eligible>,
    ) -> Result<Self> {
        let schema: SchemaRef = Arc::new(scan.schema().project(&columns)?);
        let mut equivalences = EquivalenceProperties::new(Arc::clone(&schema));
        if let Some(at) = columns.iter().position(|column| *column == patient) {
            let column = Column::new(schema.field(at).name(), at);
            equivalences.add_ordering([PhysicalSortExpr::new_default(Arc::new(column))]);
        }
        let partitions = Partitioning::UnknownPartitioning(scan.output_partitioning().partition_count());
        let properties = PlanProperties::new(equivalences, partitions, EmissionType::Incremental, Boundedness::Bounded)
            .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self { scan, patient, columns, eligible, properties: Arc::new(properties) })
    }
}

impl fmt::Debug for EligibleExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EligibleExec({:?})", self.scan)
    }
}

impl DisplayAs for EligibleExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EligibleExec: patient={}", self.scan.schema().field(self.patient).name())
    }
}

impl ExecutionPlan for EligibleExec {
    fn name(&self) -> &'static str {
        "EligibleExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(internal("EligibleExec is a leaf")) }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = self.scan.execute(partition, context)?;
        let mut filter = RunFilter::new(Arc::clone(&self.eligible));
        let (patient, columns) = (self.patient, self.columns.clone());
        let batches = scan.try_filter_map(move |batch| {
            let kept = filter.kept(&batch, patient).and_then(|kept| Ok(kept.project(&columns)?));
            std::future::ready(kept.map(|batch| (batch.num_rows() > 0).then_some(batch)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Asks the register once for each run of equal ids, which is once for each patient of a sorted scan.
struct RunFilter {
    eligible: Arc<dyn Eligible>,
    int: Option<(i64, bool)>,
    text: Option<(String, bool)>,
}

impl RunFilter {
    fn new(eligible: Arc<dyn Eligible>) -> Self {
        Self { eligible, int: None, text: None }
    }

    fn kept(&mut self, batch: &RecordBatch, patient: usize) -> Result<RecordBatch> {
        let ids = batch.column(patient);
        let mask: BooleanArray = if ids.data_type() == &DataType::Int64 {
            ids.as_primitive::<Int64Type>().iter().map(|id| Some(id.is_some_and(|id| self.has_int(id)))).collect()
        } else if let Some(ids) = ids.as_string_opt::<i32>() {
            ids.iter().map(|id| Some(id.is_some_and(|id| self.has_text(id)))).collect()
        } else {
            return Err(internal("a patient column is an integer or text"));
        };
        if mask.true_count() == mask.len() { Ok(batch.clone()) } else { Ok(filter_record_batch(batch, &mask)?) }
    }

    fn has_int(&mut self, id: i64) -> bool {
        match self.int {
            Some((last, has)) if last == id => has,
            Some(_) | None => {
                let has = self.eligible.contains_int(id);
                self.int = Some((id, has));
                has
            }
        }
    }

    fn has_text(&mut self, id: &str) -> bool {
        match &self.text {
            Some((last, has)) if last == id => *has,
            Some(_) | None => {
                let has = self.eligible.contains_text(id);
                self.text = Some((id.into(), has));
                has
            }
        }
    }
}

fn internal(what: &str) -> DataFusionError {
    DataFusionError::Internal(what.into())
}
