//! The operator that applies the patient register: it drops the rows of patients who are not eligible.
//!
//! To the optimiser it is a leaf: the scan is inside it, so no rule can put anything between the two or change
//! the scan (DataFusion would sort below an operator that keeps its input's order). Its one partition is sorted by patient, which
//! joins and windows rely on, so it is checked. It tells about how many rows it reads, and promises no number (or a count would be
//! answered from Parquet's metadata, past the register), keeps no metrics, and takes no filter, limit, sort or projection:
//! the defaults for an unknown operator.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, SchemaRef},
};
use datafusion::{
    common::{DataFusionError, Result, Statistics, tree_node::TreeNodeRecursion},
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr, expressions::Column},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;

use super::{patient_range::PatientRange, protected::Eligible, table_file::about};

/// Whose rows go on: the eligible patients of a range.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) eligible: Arc<dyn Eligible>,
    pub(super) range: PatientRange,
}

/// Rows of eligible patients only, without the patient column where the query does not want it.
pub struct EligibleExec {
    scan: Arc<dyn ExecutionPlan>,
    /// How many rows the scan reads.
    rows: u64,
    /// The index of the patient column in the scan.
    patient: usize,
    /// The scan's columns that go on.
    columns: Vec<usize>,
    admitted: Admitted,
    properties: Arc<PlanProperties>,
}

impl EligibleExec {
    /// Over `scan`, whose one partition of `rows` rows is sorted by the column at `patient`; `columns` of it go on.
    ///
    /// # Errors
    /// When an index is outside the scan's columns.
    pub(super) fn new(
        scan: Arc<dyn ExecutionPlan>,
        rows: u64,
        patient: usize,
        columns: Vec<usize>,
        admitted: Admitted,
    ) -> Result<Self> {
        let schema: SchemaRef = Arc::new(scan.schema().project(&columns)?);
        let mut equivalences = EquivalenceProperties::new(Arc::clone(&schema));
        if let Some(at) = columns.iter().position(|column| *column == patient) {
            let column = Column::new(schema.field(at).name(), at);
            equivalences.add_ordering([PhysicalSortExpr::new_default(Arc::new(column))]);
        }
        let partition = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalences, partition, EmissionType::Incremental, Boundedness::Bounded)
            .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self { scan, rows, patient, columns, admitted, properties: Arc::new(properties) })
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
        let mut filter = RunFilter::new(self.admitted.clone());
        let (patient, columns) = (self.patient, self.columns.clone());
        let batches = scan.try_filter_map(move |batch| {
            let kept = filter.kept(&batch, patient).and_then(|kept| Ok(kept.project(&columns)?));
            std::future::ready(kept.map(|batch| (batch.num_rows() > 0).then_some(batch)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(about(&self.schema(), self.rows)))
    }
}

/// Asks the register once for each run of equal ids, which is once for each patient, and checks that they ascend.
struct RunFilter {
    admitted: Admitted,
    int: Option<i64>,
    text: Option<String>,
    /// Where the register was last asked.
    place: usize,
    /// Whether the last patient's rows go on.
    has: bool,
}

impl RunFilter {
    fn new(admitted: Admitted) -> Self {
        Self { admitted, int: None, text: None, place: 0, has: false }
    }

    fn kept(&mut self, batch: &RecordBatch, patient: usize) -> Result<RecordBatch> {
        let ids = batch.column(patient);
        if ids.null_count() > 0 {
            return Err(internal("a row without a patient"));
        }
        let mask = if let Some(ids) = ids.as_primitive_opt::<Int64Type>() {
            mask(ids.values().iter().copied(), |id| self.has_int(id))?
        } else if let Some(ids) = ids.as_string_opt::<i32>() {
            mask((0..ids.len()).map(|row| ids.value(row)), |id| self.has_text(id))?
        } else {
            return Err(internal("a patient column is an integer or text"));
        };
        if mask.true_count() == mask.len() { Ok(batch.clone()) } else { Ok(filter_record_batch(batch, &mask)?) }
    }

    fn has_int(&mut self, id: i64) -> Result<bool> {
        match self.int {
            Some(last) if last == id => return Ok(self.has),
            Some(last) if last > id => return Err(internal(UNSORTED)),
            Some(_) | None => self.int = Some(id),
        }
        self.has = self.admitted.range.has_int(id) && self.admitted.eligible.contains_int(id, &mut self.place);
        Ok(self.has)
    }

    fn has_text(&mut self, id: &str) -> Result<bool> {
        match &mut self.text {
            Some(last) if last == id => return Ok(self.has),
            Some(last) if last.as_str() > id => return Err(internal(UNSORTED)),
            Some(last) => id.clone_into(last),
            None => self.text = Some(id.into()),
        }
        self.has = self.admitted.range.has_text(id) && self.admitted.eligible.contains_text(id, &mut self.place);
        Ok(self.has)
    }
}

const UNSORTED: &str = "a snapshot is not sorted by patient: take it again";

/// For each id what `has` says of it, asked once for each run of equal ids.
fn mask<T: Copy + PartialEq>(
    ids: impl ExactSizeIterator<Item = T>,
    mut has: impl FnMut(T) -> Result<bool>,
) -> Result<BooleanArray> {
    let mut mask = BooleanBufferBuilder::new(ids.len());
    let (mut run, mut rows) = (None, 0);
    for id in ids {
        match run {
            Some((of, _)) if of == id => rows += 1,
            Some((_, had)) => {
                mask.append_n(rows, had);
                (run, rows) = (Some((id, has(id)?)), 1);
            }
            None => (run, rows) = (Some((id, has(id)?)), 1),
        }
    }
    if let Some((_, had)) = run {
        mask.append_n(rows, had);
    }
    Ok(BooleanArray::new(mask.finish(), None))
}

fn internal(what: &str) -> DataFusionError {
    DataFusionError::Internal(what.into())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;
    use crate::data::{fixture::AllBut, patient_range::PatientId};

    fn check(batches: Vec<ArrayRef>, cuts: &[PatientId], expect: &[&str]) {
        let eligible: Arc<dyn Eligible> = Arc::new(AllBut(["4".to_owned()].into()));
        let found = PatientRange::between(cuts).into_iter().map(|range| {
            let mut filter = RunFilter::new(Admitted { eligible: Arc::clone(&eligible), range });
            let mut kept = Vec::new();
            for ids in &batches {
                let schema = Schema::new(vec![Field::new("id", ids.data_type().clone(), true)]);
                let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(ids)]).unwrap();
                match filter.kept(&batch, 0) {
                    Ok(batch) => kept.extend(crate::data::fixture::lines(&[batch])),
                    Err(error) => return error.strip_backtrace().split('.').next().unwrap().to_owned(),
                }
            }
            kept.join(" ")
        });
        assert_eq!(found.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn the_eligible_of_a_range_go_on_and_disorder_stops() {
        let int = |ids: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(ids.to_vec())) };
        let text = |ids: &[&str]| -> ArrayRef { Arc::new(StringArray::from(ids.to_vec())) };
        check(vec![int(&[1, 1, 4, 4]), int(&[]), int(&[4, 5]), int(&[5, 9])], &[], &["1 1 5 5 9"]);
        check(vec![int(&[1, 1, 3, 4]), int(&[4, 5])], &[PatientId::Int(3)], &["1 1", "3 5"]);
        check(vec![text(&["1", "10", "4"]), text(&["5", "5"])], &[PatientId::Text("2".into())], &["1 10", "5 5"]);
        let unsorted = "Internal error: a snapshot is not sorted by patient: take it again";
        check(vec![int(&[1, 4, 2])], &[], &[unsorted]);
        check(vec![int(&[1, 4]), int(&[2])], &[PatientId::Int(2)], &[unsorted, unsorted]);
        check(vec![text(&["2", "10"])], &[], &[unsorted]);
        let nobody: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        check(vec![nobody], &[], &["Internal error: a row without a patient"]);
    }
}
