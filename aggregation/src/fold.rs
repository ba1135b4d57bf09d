//! From rows to exact cells, with every patient's contribution bounded.
//!
//! Rows arrive sorted by patient, in one or more partitions that never split a patient. A patient with
//! c > k rows, over all groups, counts each with weight floor(k·unit / c), so that all sums and counts of a release
//! stay consistent with each other and no patient adds more than k·unit: there is no ranking and no sampling.
//! `count(DISTINCT patient)` weighs groups in the same way under its own bound. Arithmetic is in checked i128.
//!
//! Order is not trusted: a patient that comes back, within a partition or in another, stops the fold. The exact
//! cells cannot be printed, cloned or serialised; [`crate::release`] is their only way out.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Date32Type, Decimal128Type, Int64Type},
    record_batch::RecordBatch,
};
use sekisho_protocol::schema::Kind;

use crate::{
    domain::{Image, KeyKind, KeyValue},
    plan::{MAX_PATIENTS, Measure, PrivatePlan},
};

/// Exact cells: for each measure one integer per cell, in lattice units.
pub struct RawCells {
    pub(crate) measures: Vec<Vec<i128>>,
}

/// Why rows could not be folded. None of these tells of a value.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The batch has other columns than the plan's row.
    #[error("a batch does not have the columns of the plan")]
    Shape,
    /// A patient's rows are not together.
    #[error("rows are not sorted by patient: take the snapshot again")]
    Order,
    /// The table has several rows of a patient although the schema says one.
    #[error("a patient has several rows in a table that is declared to have one")]
    SeveralRows,
    /// More than the engine counts.
    #[error("more rows or patients than the engine counts")]
    TooMany,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Patient {
    Int(i64),
    Text(String),
}

/// Folds one partition.
pub struct Fold {
    plan: Arc<PrivatePlan>,
    lookups: Vec<Lookup>,
    cells: Vec<Vec<i128>>,
    first: Option<Patient>,
    current: Option<Patient>,
    patients: u64,
    one: OnePatient,
    measured: Vec<Measured>,
    conditional: Vec<i128>,
}

/// What the plan's measures need of a patient, resolved once.
#[derive(Clone, Copy)]
enum Measured {
    Rows,
    Present(usize),
    Sum(usize, i128),
    Patients(Option<usize>),
}

/// What one patient's rows add up to, per cell; arrays over all cells, of which only `touched` are in use.
struct OnePatient {
    rows: u64,
    touched: Vec<u32>,
    count: Vec<u64>,
    present: Vec<Vec<u64>>,
    sum: Vec<Vec<i128>>,
}

impl OnePatient {
    fn new(cells: usize, arguments: usize) -> Self {
        Self {
            rows: 0,
            touched: Vec::new(),
            count: vec![0; cells],
            present: vec![vec![0; cells]; arguments],
            sum: vec![vec![0; cells]; arguments],
        }
    }
}

impl Fold {
    /// An empty fold for `plan`.
    pub fn new(plan: &Arc<PrivatePlan>) -> Self {
        let cells = plan.cells();
        let measured = plan.measures().iter().map(|m| match m {
            Measure::Rows => Measured::Rows,
            Measure::Present { argument } => Measured::Present(*argument),
            Measure::Sum { argument, centre } => Measured::Sum(*argument, *centre),
            Measure::Patients { present } => Measured::Patients(*present),
        });
        let conditional = plan.measures().iter().any(|m| matches!(m, Measure::Patients { present: Some(_) }));
        Self {
            plan: Arc::clone(plan),
            lookups: plan.keys.iter().map(|k| Lookup::new(&k.image)).collect(),
            cells: vec![vec![0; cells]; plan.measures().len()],
            first: None,
            current: None,
            patients: 0,
            one: OnePatient::new(cells, plan.arguments.len()),
            measured: measured.collect(),
            conditional: if conditional { vec![0; plan.arguments.len()] } else { Vec::new() },
        }
    }

    /// Adds the rows of `batch`, whose columns are those of [`PrivatePlan::rows`].
    ///
    /// # Errors
    /// When the columns are others, the order is wrong, or there is too much.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), FoldError> {
        let (keys, arguments) = (self.plan.keys.len(), self.plan.arguments.len());
        if batch.num_columns() != 1 + keys + arguments {
            return Err(FoldError::Shape);
        }
        let mut ordinals = vec![0_u32; batch.num_rows()];
        for (lookup, column) in self.lookups.iter().zip(&batch.columns()[1..=keys]) {
            lookup.add(column, &mut ordinals)?;
        }
        let mut columns = Vec::with_capacity(arguments);
        for (argument, column) in self.plan.arguments.iter().zip(&batch.columns()[1 + keys..]) {
            columns.push(Values::new(column, argument.range)?);
        }
        let patient = batch.column(0);
        if patient.null_count() > 0 {
            return Err(FoldError::Shape);
        }
        match self.plan.patient_kind {
            Kind::Int64 => {
                let ids = patient.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?;
                for (row, ordinal) in ordinals.iter().enumerate() {
                    let id = ids.value(row);
                    if !matches!(self.current, Some(Patient::Int(current)) if current == id) {
                        self.next(Patient::Int(id))?;
                    }
                    self.add(row, *ordinal, &columns);
                }
            }
            Kind::Text => {
                let ids = cast(patient, &DataType::Utf8).map_err(|_| FoldError::Shape)?;
                let ids = ids.as_string_opt::<i32>().ok_or(FoldError::Shape)?;
                for (row, ordinal) in ordinals.iter().enumerate() {
                    let id = ids.value(row);
                    if !matches!(&self.current, Some(Patient::Text(current)) if current == id) {
                        self.next(Patient::Text(id.to_string()))?;
                    }
                    self.add(row, *ordinal, &columns);
                }
            }
            Kind::Decimal | Kind::Date | Kind::Bool => return Err(FoldError::Shape),
        }
        Ok(())
    }

    fn add(&mut self, row: usize, ordinal: u32, columns: &[Values]) {
        let cell = ordinal as usize;
        self.one.rows += 1;
        if self.one.count[cell] == 0 {
            self.one.touched.push(ordinal);
        }
        self.one.count[cell] += 1;
        for (argument, values) in columns.iter().enumerate() {
            if let Some(value) = values.get(row) {
                self.one.present[argument][cell] += 1;
                // At most 2^64 rows of at most 10^15: far inside i128.
                self.one.sum[argument][cell] += value;
            }
        }
    }

    fn next(&mut self, patient: Patient) -> Result<(), FoldError> {
        match self.current.as_ref().map(|current| patient.cmp(current)) {
            Some(Ordering::Less | Ordering::Equal) => return Err(FoldError::Order),
            Some(Ordering::Greater) => {}
            None => self.first = Some(patient.clone()),
        }
        self.close()?;
        self.current = Some(patient);
        self.patients += 1;
        if self.patients > MAX_PATIENTS {
            return Err(FoldError::TooMany);
        }
        Ok(())
    }

    /// Weighs the current patient's rows and adds them to the cells.
    fn close(&mut self) -> Result<(), FoldError> {
        let one = &mut self.one;
        if one.rows == 0 {
            return Ok(());
        }
        if self.plan.one_row && one.rows > 1 {
            return Err(FoldError::SeveralRows);
        }
        let row_weight = weight(self.plan.weight_one(), self.plan.rows_per_patient, one.rows);
        let (unit, bound) = (self.plan.patient_one(), self.plan.groups_per_patient);
        let everywhere = weight(unit, bound, one.touched.len() as u64);
        // A patient is in as many groups as have a row where the condition holds.
        let mut conditional = std::mem::take(&mut self.conditional);
        for (argument, of_patient) in conditional.iter_mut().enumerate() {
            let groups = one.touched.iter().filter(|cell| one.present[argument][**cell as usize] > 0).count();
            *of_patient = weight(unit, bound, groups as u64);
        }
        for cell in one.touched.drain(..) {
            let cell = cell as usize;
            for (measured, cells) in self.measured.iter().zip(&mut self.cells) {
                let amount = match measured {
                    Measured::Rows => i128::from(one.count[cell]).checked_mul(row_weight),
                    Measured::Present(argument) => i128::from(one.present[*argument][cell]).checked_mul(row_weight),
                    Measured::Sum(argument, centre) => i128::from(one.present[*argument][cell])
                        .checked_mul(*centre)
                        .and_then(|offset| one.sum[*argument][cell].checked_sub(offset))
                        .and_then(|centred| centred.checked_mul(row_weight)),
                    Measured::Patients(None) => Some(everywhere),
                    Measured::Patients(Some(argument)) if one.present[*argument][cell] > 0 => {
                        Some(conditional[*argument])
                    }
                    Measured::Patients(Some(_)) => Some(0),
                };
                let sum = amount.and_then(|a| cells[cell].checked_add(a));
                cells[cell] = sum.ok_or(FoldError::TooMany)?;
            }
            one.count[cell] = 0;
            for argument in 0..one.present.len() {
                one.present[argument][cell] = 0;
                one.sum[argument][cell] = 0;
            }
        }
        one.rows = 0;
        self.conditional = conditional;
        Ok(())
    }

    /// Joins the folds of all partitions of one scan.
    ///
    /// # Errors
    /// When two partitions share a patient or their ranges overlap, or there is too much.
    pub fn finish(plan: &PrivatePlan, mut partitions: Vec<Self>) -> Result<RawCells, FoldError> {
        for partition in &mut partitions {
            partition.close()?;
        }
        partitions.sort_by(|a, b| a.first.cmp(&b.first));
        let filled: Vec<_> = partitions.iter().filter(|p| p.first.is_some()).collect();
        if filled.windows(2).any(|pair| pair[0].current >= pair[1].first) {
            return Err(FoldError::Order);
        }
        if partitions.iter().map(|p| p.patients).sum::<u64>() > MAX_PATIENTS {
            return Err(FoldError::TooMany);
        }
        let mut measures = vec![vec![0_i128; plan.cells()]; plan.measures().len()];
        for partition in partitions {
            for (total, part) in measures.iter_mut().zip(partition.cells) {
                for (total, part) in total.iter_mut().zip(part) {
                    *total = total.checked_add(part).ok_or(FoldError::TooMany)?;
                }
            }
        }
        Ok(RawCells { measures })
    }
}

/// The weight of each of a patient's `rows` rows: `one`, or floor(k·one / rows) when there are more than k, the bound. Of each
/// of a patient's groups likewise, under the bound G: its square summed over the groups is at most G·one².
fn weight(one: i128, bound: u64, rows: u64) -> i128 {
    if rows <= bound { one } else { i128::from(bound) * one / i128::from(rows) }
}

/// Finds a row's place in the image of one group key.
struct Lookup {
    kind: KeyKind,
    cells: u32,
    text: HashMap<String, u32>,
    number: HashMap<i64, u32>,
    dense: Option<(i64, i64)>,
    null: u32,
    outside: u32,
}

impl Lookup {
    fn new(image: &Image) -> Self {
        let n = u32::try_from(image.values.len()).unwrap_or(u32::MAX);
        let mut text = HashMap::new();
        let mut number = HashMap::new();
        for (value, place) in image.values.iter().zip(0..) {
            match value {
                KeyValue::Text(t) => text.insert(t.clone(), place),
                KeyValue::Int(i) => number.insert(*i, place),
                KeyValue::Date(d) => number.insert((*d).into(), place),
                KeyValue::Bool(b) => number.insert((*b).into(), place),
            };
        }
        let ends = number.keys().min().zip(number.keys().max()).map(|(lo, hi)| (*lo, *hi));
        // Whatever has no cell of its own falls into the last: no row can be dropped, and none can stop the fold.
        let last = u32::try_from(image.cells().saturating_sub(1)).unwrap_or(u32::MAX);
        Self {
            kind: image.kind,
            cells: u32::try_from(image.cells()).unwrap_or(u32::MAX),
            dense: ends.filter(|(lo, hi)| hi.wrapping_sub(*lo) == i64::from(n) - 1),
            text,
            number,
            null: if image.null { n } else { last },
            outside: last,
        }
    }

    fn number(&self, value: i64) -> u32 {
        match self.dense {
            Some((lo, hi)) if (lo..=hi).contains(&value) => u32::try_from(value - lo).unwrap_or(self.outside),
            Some(_) => self.outside,
            None => self.number.get(&value).copied().unwrap_or(self.outside),
        }
    }

    /// Turns each ordinal o into o·cells + place.
    fn add(&self, column: &ArrayRef, ordinals: &mut [u32]) -> Result<(), FoldError> {
        let column = if column.data_type() == &self.kind.arrow() {
            ArrayRef::clone(column)
        } else {
            cast(column, &self.kind.arrow()).map_err(|_| FoldError::Shape)?
        };
        let mut each = |place: &dyn Fn(usize) -> u32| {
            for (row, ordinal) in ordinals.iter_mut().enumerate() {
                let place = if column.is_null(row) { self.null } else { place(row) };
                *ordinal = *ordinal * self.cells + place;
            }
        };
        match self.kind {
            KeyKind::Text => {
                let values = column.as_string_opt::<i32>().ok_or(FoldError::Shape)?;
                each(&|row| self.text.get(values.value(row)).copied().unwrap_or(self.outside));
            }
            KeyKind::Int => {
                let values = column.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row)));
            }
            KeyKind::Date => {
                let values = column.as_primitive_opt::<Date32Type>().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row).into()));
            }
            KeyKind::Bool => {
                let values = column.as_boolean_opt().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row).into()));
            }
        }
        Ok(())
    }
}

/// The values of one argument, clamped.
enum Values {
    Present(ArrayRef),
    Int(arrow::array::Int64Array, i128, i128),
    Decimal(arrow::array::Decimal128Array, i128, i128),
}

impl Values {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: other types are not summed")]
    fn new(column: &ArrayRef, range: Option<(i128, i128)>) -> Result<Self, FoldError> {
        let Some((lo, hi)) = range else { return Ok(Self::Present(ArrayRef::clone(column))) };
        match column.data_type() {
            DataType::Decimal128(..) => {
                Ok(Self::Decimal(column.as_primitive_opt::<Decimal128Type>().ok_or(FoldError::Shape)?.clone(), lo, hi))
            }
            DataType::Int64 | DataType::Int32 | DataType::UInt64 => {
                let column = cast(column, &DataType::Int64).map_err(|_| FoldError::Shape)?;
                Ok(Self::Int(column.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?.clone(), lo, hi))
            }
            _ => Err(FoldError::Shape),
        }
    }

    fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Present(column) => column.is_valid(row).then_some(0),
            Self::Int(column, lo, hi) => column.is_valid(row).then(|| i128::from(column.value(row)).clamp(*lo, *hi)),
            Self::Decimal(column, lo, hi) => column.is_valid(row).then(|| column.value(row).clamp(*lo, *hi)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::{Field, Schema},
    };
    use num_bigint::BigInt;
    use proptest::prelude::*;
    use sekisho_protocol::units::MicroRho;

    use super::*;
    use crate::{example, plan::WEIGHT_ONE};

    static_assertions::assert_not_impl_any!(RawCells: std::fmt::Debug, Clone, serde::Serialize);

    /// Patient, sex (0 female, 1 male, 2 NULL, 3 outside), days.
    type Row = (i64, u8, Option<i64>);

    fn plan(rows: u32, groups: u32) -> Arc<PrivatePlan> {
        let sql = "SELECT sex, count(*), count(days), count(DISTINCT patient_id), sum(days), avg(days), sum(30 - days) \
                   FROM stay GROUP BY sex";
        let rho = MicroRho::try_from(1000).unwrap();
        Arc::new(PrivatePlan::analyse(sql, &example::schema(), &example::permit(rows, groups), rho).unwrap())
    }

    fn batch(plan: &PrivatePlan, rows: &[Row]) -> RecordBatch {
        let sex = rows.iter().map(|(_, sex, _)| [Some("female"), Some("male"), None, Some("x")][*sex as usize]);
        let days: Int64Array = rows.iter().map(|(_, _, days)| *days).collect();
        let other: Int64Array = rows.iter().map(|(_, _, days)| days.map(|d| 30_i64.wrapping_sub(d))).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|(id, ..)| Some(*id)).collect::<Int64Array>()),
            Arc::new(sex.collect::<StringArray>()),
            Arc::new(days),
            Arc::new(other),
        ];
        assert_eq!(columns.len(), plan.rows().schema().fields().len());
        let fields: Vec<_> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn fold(plan: &Arc<PrivatePlan>, rows: &[Row]) -> Result<Vec<Vec<i128>>, FoldError> {
        let mut fold = Fold::new(plan);
        for chunk in rows.chunks(3) {
            fold.push(&batch(plan, chunk))?;
        }
        Fold::finish(plan, vec![fold]).map(|raw| raw.measures)
    }

    #[test]
    fn within_the_bounds_cells_are_the_exact_statistics() {
        let plan = plan(3, 4);
        let rows = [(1, 0, Some(10)), (1, 1, None), (2, 0, Some(500)), (3, 2, Some(-7)), (4, 3, Some(1))];
        let cells = fold(&plan, &rows).unwrap();
        let of = |measure: Measure| {
            let i = plan.measures().iter().position(|m| *m == measure).unwrap();
            cells[i].iter().map(|c| *c / plan.unit(&measure)).collect::<Vec<_>>()
        };
        assert_eq!(of(Measure::Rows), [2, 1, 1, 1]);
        assert_eq!(of(Measure::Patients { present: None }), [2, 1, 1, 1]);
        // 500 is clamped to 100, -7 to 0.
        assert_eq!(of(Measure::Sum { argument: 0, centre: 0 }), [110, 0, 0, 1]);
        assert_eq!(of(Measure::Present { argument: 0 }), [2, 0, 1, 1]);
    }

    #[test]
    fn a_patient_with_ten_million_rows_counts_as_k_and_a_mean_stays_a_mean() {
        let plan = plan(2, 1);
        let mut fold = Fold::new(&plan);
        let chunk = batch(&plan, &vec![(7, 0, Some(40)); 100_000]);
        for _ in 0..100 {
            fold.push(&chunk).unwrap();
        }
        let cells = Fold::finish(&plan, vec![fold]).unwrap().measures;
        let (rows, sum) = (cells[0][0], cells[3][0]);
        assert!(rows <= 2 * WEIGHT_ONE && rows > 2 * WEIGHT_ONE * 99 / 100, "{rows}");
        assert_eq!(sum, 40 * rows);
    }

    #[test]
    fn a_patient_that_comes_back_stops_the_fold() {
        let plan = plan(2, 1);
        assert!(matches!(fold(&plan, &[(1, 0, None), (2, 0, None), (1, 0, None)]), Err(FoldError::Order)));
        let part = |rows: &[Row]| {
            let mut fold = Fold::new(&plan);
            fold.push(&batch(&plan, rows)).unwrap();
            fold
        };
        let split = vec![part(&[(2, 0, None)]), part(&[(1, 0, None), (2, 0, None)])];
        assert!(matches!(Fold::finish(&plan, split), Err(FoldError::Order)));
        let whole = vec![part(&[(3, 0, None)]), part(&[(1, 0, None), (2, 0, None)]), Fold::new(&plan)];
        assert!(Fold::finish(&plan, whole).is_ok());
    }

    proptest! {
        /// Neighbours differ by one patient with all their rows: no measure's cells move further, in the Euclidean
        /// norm, than its sensitivity says.
        #[test]
        fn no_patient_moves_a_release_by_more_than_the_bounds_say(
            others in prop::collection::vec((0_i64..6, 0_u8..4, prop::option::of(-50_i64..200)), 0..30),
            one in prop::collection::vec((0_u8..4, prop::option::of(any::<i64>())), 1..60),
            rows in 1_u32..20,
            groups in 1_u32..6,
        ) {
            let plan = plan(rows, groups);
            let mut without: Vec<Row> = others.into_iter().map(|(id, sex, days)| (id * 10, sex, days)).collect();
            without.sort_by_key(|(id, ..)| *id);
            let mut with = without.clone();
            with.extend(one.into_iter().map(|(sex, days)| (35, sex, days)));
            with.sort_by_key(|(id, ..)| *id);
            let (without, with) = (fold(&plan, &without).unwrap(), fold(&plan, &with).unwrap());
            for (i, measure) in plan.measures().iter().enumerate() {
                let moved: BigInt = without[i].iter().zip(&with[i]).map(|(a, b)| BigInt::from(b - a).pow(2)).sum();
                let bound = BigInt::from(plan.squared_sensitivity(measure));
                prop_assert!(moved <= bound, "{measure:?}: moved {moved}, bound {bound}");
            }
        }
    }
}
