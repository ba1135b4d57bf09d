//! The operator that applies the patient register: it drops the rows of patients who are not eligible.
//!
//! To the optimiser it is a leaf: the scan is inside it, so no rule can put anything between the two or change
//! the scan (DataFusion would sort below an operator that keeps its input's order). Its one partition is sorted by patient, which
//! joins and windows rely on, so it is checked. It tells about how many rows it reads, and promises no number (or a count would be
//! answered from Parquet's metadata, past the register), keeps no metrics, and takes no filter, limit, sort or projection:
//! the defaults for an unknown operator.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringArray},
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

/// Asks the register once for each run of ids that are alike, and checks that ids ascend.
struct RunFilter {
    admitted: Admitted,
    /// The last id.
    int: Option<i64>,
    text: Option<String>,
    /// Where the register was last asked.
    place: usize,
    /// Whether the rows of the last patient of text id go on.
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
        let mut mask = BooleanBufferBuilder::new(ids.len());
        if let Some(ids) = ids.as_primitive_opt::<Int64Type>() {
            self.of_ints(ids.values(), &mut mask)?;
        } else if let Some(ids) = ids.as_string_opt::<i32>() {
            self.of_texts(ids, &mut mask)?;
        } else {
            return Err(internal("a patient column is an integer or text"));
        }
        let mask = BooleanArray::new(mask.finish(), None);
        if mask.true_count() == mask.len() { Ok(batch.clone()) } else { Ok(filter_record_batch(batch, &mask)?) }
    }

    fn of_ints(&mut self, ids: &[i64], mask: &mut BooleanBufferBuilder) -> Result<()> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
        if self.int.is_some_and(|before| before > *first) || !ids.is_sorted() {
            return Err(internal(UNSORTED));
        }
        self.int = Some(*last);
        let mut rest = ids;
        while let Some(first) = rest.first() {
            let (has, until) = self.int_run(*first);
            let alike = rest.iter().take_while(|id| *id == first || until.is_none_or(|until| **id < until)).count();
            mask.append_n(alike, has);
            rest = &rest[alike..];
        }
        Ok(())
    }

    /// Whether the rows of this patient go on, and below which id this holds of all that follow.
    fn int_run(&mut self, id: i64) -> (bool, Option<i64>) {
        let (within, edge) = self.admitted.range.int_run(id);
        if !within {
            return (false, edge);
        }
        let (has, until) = self.admitted.eligible.int_run(id, &mut self.place);
        (has, until.into_iter().chain(edge).min())
    }

    fn of_texts(&mut self, ids: &StringArray, mask: &mut BooleanBufferBuilder) -> Result<()> {
        let mut row = 0;
        while row < ids.len() {
            let has = self.has_text(ids.value(row))?;
            let alike = (row..ids.len()).take_while(|other| ids.value(*other) == ids.value(row)).count();
            mask.append_n(alike, has);
            row += alike;
        }
        Ok(())
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

fn internal(what: &str) -> DataFusionError {
    DataFusionError::Internal(what.into())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::{Field, Schema},
    };

    use super::*;
    use crate::data::patient_range::PatientId;

    struct AllButFour;

    impl Eligible for AllButFour {
        fn int_run(&self, id: i64, _: &mut usize) -> (bool, Option<i64>) {
            (id != 4, (id <= 4).then_some(4))
        }

        fn contains_text(&self, id: &str, _: &mut usize) -> bool {
            id != "4"
        }
    }

    fn check(batches: Vec<ArrayRef>, cuts: &[PatientId], expect: &[&str]) {
        let eligible: Arc<dyn Eligible> = Arc::new(AllButFour);
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
        check(vec![int(&[2, 3, 4, 5, 6])], &[3, 4, 6].map(PatientId::Int), &["2", "3", "5", "6"]);
        check(vec![text(&["1", "10", "4"]), text(&["5", "5"])], &[PatientId::Text("2".into())], &["1 10", "5 5"]);
        let unsorted = "Internal error: a snapshot is not sorted by patient: take it again";
        check(vec![int(&[1, 4, 2])], &[], &[unsorted]);
        check(vec![int(&[1, 4]), int(&[2])], &[PatientId::Int(2)], &[unsorted, unsorted]);
        check(vec![text(&["2", "10"])], &[], &[unsorted]);
        let nobody: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        check(vec![nobody], &[], &["Internal error: a row without a patient"]);
    }
}
