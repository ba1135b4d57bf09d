//! From rows to exact cells, with every patient's contribution bounded.
//!
//! Rows arrive sorted by patient, in one or more partitions that never split a patient. A patient with
//! c > k rows, over all groups, counts each with weight floor(k·unit / c), so that all sums and counts of a release
//! stay consistent with each other and no patient adds more than k·unit: there is no ranking and no sampling.
//! `count(DISTINCT patient)` weighs groups in the same way under its own bound. Arithmetic is in checked i128.
//!
//! Order is not trusted: a patient that comes back, within a partition or in another, stops the fold. The exact
//! cells cannot be printed, cloned or serialised; [`crate::release`] is their only way out. An [`crate::inspection`]
//! compares them on the hospital's own premises, and lets none of them out.

mod columns;
mod exact;

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use sekisho_protocol::schema::Kind;

use crate::{
    domain::KeyValue,
    plan::{MAX_PATIENTS, Part, PrivatePlan, Quantity},
    tree::Tree,
};
use columns::{Lookup, Names, Values};
pub(crate) use exact::Contributions;

/// The most cells of one partition, names included: what a private key may take of memory.
pub(crate) const MAX_SLOTS: usize = 4_000_000;

/// Exact cells of every part.
pub struct RawCells {
    pub(crate) parts: Vec<RawPart>,
}

impl RawCells {
    /// The cells of all parts of a plan, in its order.
    pub fn of(parts: Vec<RawPart>) -> Self {
        Self { parts }
    }
}

/// Exact cells of one part: for each measure its integers, in lattice units, and the names of its private key.
pub struct RawPart {
    /// Sorted; a single NULL where no key is private.
    pub(crate) names: Vec<Option<KeyValue>>,
    pub(crate) measures: Vec<Vec<i128>>,
    pub(crate) read: Read,
    /// Of an exact plan, by what its cells are hidden.
    pub(crate) contributions: Option<Contributions>,
}

/// What was read for one part, exactly: as raw as the cells.
#[derive(Default)]
pub struct Read {
    /// Rows.
    pub rows: u64,
    /// Patients who have one of them.
    pub patients: u64,
    /// Patients who have more rows than count in full.
    pub heavy: u64,
    /// Patients who are in more groups than count in full, of the count of patients that has the most of them.
    pub spread: u64,
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
    #[error("more rows, patients or names than the engine counts")]
    TooMany,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Patient {
    Int(i64),
    Text(String),
}

/// Folds one partition of the rows of one part.
pub struct Fold {
    plan: Arc<PrivatePlan>,
    part: usize,
    lookups: Vec<Option<Lookup>>,
    names: Option<Names>,
    /// How many cells one name has.
    rest: usize,
    measured: Vec<Measured>,
    histograms: Vec<(usize, Tree)>,
    first: Option<Patient>,
    current: Option<Patient>,
    patients: u64,
    rows: u64,
    heavy: u64,
    one: OnePatient,
    contributions: Option<Contributions>,
    /// Where a patient is, for counts of patients; kept for its memory.
    places: Vec<usize>,
}

/// One measure, resolved: where its cells are, and what they are so far.
struct Measured {
    what: What,
    cells: Vec<i128>,
    /// For each cell of one name its cell here; none where it is the same.
    projection: Option<Vec<u32>>,
    /// How many cells one name has here, and whether names are told apart.
    size: usize,
    named: bool,
    /// Patients who are in more groups than count in full.
    spread: u64,
}

#[derive(Clone, Copy)]
enum What {
    Rows,
    Present(usize),
    Sum(usize, i128),
    Patients(Option<usize>, i128),
    Heavy,
    /// Which histogram, and how many numbers each cell has.
    Histogram(usize, usize),
}

/// What one patient's rows add up to, per slot (a cell of a name); arrays over all slots, of which only `touched` are in use.
struct OnePatient {
    rows: u64,
    touched: Vec<u32>,
    count: Vec<u64>,
    present: Vec<Vec<u64>>,
    sum: Vec<Vec<i128>>,
    /// For each histogram the slot and leaf of each row that has a value.
    leaves: Vec<Vec<(u32, u32)>>,
}

impl OnePatient {
    fn resize(&mut self, slots: usize) {
        self.count.resize(slots, 0);
        self.present.iter_mut().for_each(|p| p.resize(slots, 0));
        self.sum.iter_mut().for_each(|s| s.resize(slots, 0));
    }
}

impl Measured {
    fn new(part: &Part, measure: &crate::plan::Measure, histograms: &mut Vec<(usize, Tree)>) -> Option<Self> {
        let what = match measure.quantity {
            Quantity::Rows => What::Rows,
            Quantity::Present { argument } => What::Present(argument),
            Quantity::Sum { argument, centre } => What::Sum(argument, centre),
            Quantity::Patients { present } => What::Patients(present, part.patient_one(measure.over)),
            Quantity::Heavy => What::Heavy,
            Quantity::Histogram { argument } => {
                histograms.push((argument, part.tree(argument)?));
                What::Histogram(histograms.len() - 1, part.width(measure))
            }
        };
        let every = part.every_key();
        let same = measure.over == every;
        Some(Self {
            what,
            cells: vec![0; part.numbers(measure, 0)],
            projection: (!same).then(|| part.projection(every, measure.over)),
            size: part.cells_over(measure.over),
            named: part.has_names(measure.over),
            spread: 0,
        })
    }

    /// The cell of a slot.
    fn place(&self, slot: usize, rest: usize) -> usize {
        let Some(projection) = &self.projection else { return slot };
        let (name, cell) = (slot / rest, slot % rest);
        let name = if self.named { name } else { 0 };
        name * self.size + projection.get(cell).map_or(0, |c| *c as usize)
    }

    fn add(&mut self, place: usize, amount: Option<i128>) -> Result<(), FoldError> {
        let cell = self.cells.get_mut(place).ok_or(FoldError::TooMany)?;
        *cell = amount.and_then(|a| cell.checked_add(a)).ok_or(FoldError::TooMany)?;
        Ok(())
    }
}

impl Fold {
    /// An empty fold for the part of `plan` at `part`.
    ///
    /// # Errors
    /// [`FoldError::Shape`] when there is no such part.
    pub fn new(plan: &Arc<PrivatePlan>, part: usize) -> Result<Self, FoldError> {
        let of = plan.parts.get(part).ok_or(FoldError::Shape)?;
        let mut histograms = Vec::new();
        let measured: Option<Vec<_>> = of.measures.iter().map(|m| Measured::new(of, m, &mut histograms)).collect();
        let arguments = of.arguments.len();
        let mut fold = Self {
            plan: Arc::clone(plan),
            part,
            lookups: of.keys.iter().map(|k| (!k.private).then(|| Lookup::new(&k.image))).collect(),
            names: of.names.map(|_| Names::default()),
            rest: of.cells(),
            measured: measured.ok_or(FoldError::Shape)?,
            first: None,
            current: None,
            patients: 0,
            rows: 0,
            heavy: 0,
            one: OnePatient {
                rows: 0,
                touched: Vec::new(),
                count: Vec::new(),
                present: vec![Vec::new(); arguments],
                sum: vec![Vec::new(); arguments],
                leaves: vec![Vec::new(); histograms.len()],
            },
            histograms,
            contributions: of.exact.then(|| Contributions::new(of)),
            places: Vec::new(),
        };
        if fold.names.is_none() {
            fold.grow(1)?;
        }
        Ok(fold)
    }

    /// Makes room for so many names.
    fn grow(&mut self, names: usize) -> Result<(), FoldError> {
        let slots = names.checked_mul(self.rest).filter(|slots| *slots <= MAX_SLOTS).ok_or(FoldError::TooMany)?;
        let part = self.plan.parts.get(self.part).ok_or(FoldError::Shape)?;
        for (measured, measure) in self.measured.iter_mut().zip(&part.measures) {
            measured.cells.resize(part.numbers(measure, names), 0);
        }
        self.one.resize(slots);
        Ok(())
    }

    /// Adds the rows of `batch`, whose columns are those of [`Part::rows`].
    ///
    /// # Errors
    /// When the columns are others, the order is wrong, or there is too much.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), FoldError> {
        let plan = Arc::clone(&self.plan);
        let part = plan.parts.get(self.part).ok_or(FoldError::Shape)?;
        let (keys, arguments) = (part.keys.len(), part.arguments.len());
        if batch.num_columns() != 1 + keys + arguments {
            return Err(FoldError::Shape);
        }
        let mut slots = vec![0_u32; batch.num_rows()];
        let mut named = None;
        for ((key, lookup), column) in part.keys.iter().zip(&self.lookups).zip(&batch.columns()[1..=keys]) {
            match (lookup, &mut self.names) {
                (Some(lookup), _) => lookup.add(column, &mut slots)?,
                (None, Some(names)) => named = Some(names.of(column, key.image.kind)?),
                (None, None) => return Err(FoldError::Shape),
            }
        }
        if let (Some(named), Some(names)) = (named, &self.names) {
            self.grow(names.list.len())?;
            let rest = u32::try_from(self.rest).map_err(|_| FoldError::TooMany)?;
            slots.iter_mut().zip(named).for_each(|(slot, name)| *slot += name * rest);
        }
        let mut columns = Vec::with_capacity(arguments);
        for (argument, column) in part.arguments.iter().zip(&batch.columns()[1 + keys..]) {
            columns.push(Values::new(column, argument.range)?);
        }
        let patient = batch.column(0);
        if patient.null_count() > 0 {
            return Err(FoldError::Shape);
        }
        match part.patient_kind {
            Kind::Int64 => {
                let ids = patient.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?;
                for (row, slot) in slots.iter().enumerate() {
                    let id = ids.value(row);
                    if !matches!(self.current, Some(Patient::Int(current)) if current == id) {
                        self.next(Patient::Int(id))?;
                    }
                    self.add(row, *slot, &columns);
                }
            }
            Kind::Text => {
                let ids = cast(patient, &DataType::Utf8).map_err(|_| FoldError::Shape)?;
                let ids = ids.as_string_opt::<i32>().ok_or(FoldError::Shape)?;
                for (row, slot) in slots.iter().enumerate() {
                    let id = ids.value(row);
                    if !matches!(&self.current, Some(Patient::Text(current)) if current == id) {
                        self.next(Patient::Text(id.to_string()))?;
                    }
                    self.add(row, *slot, &columns);
                }
            }
            Kind::Decimal | Kind::Date | Kind::Bool => return Err(FoldError::Shape),
        }
        Ok(())
    }

    fn add(&mut self, row: usize, slot: u32, columns: &[Values]) {
        let cell = slot as usize;
        self.one.rows += 1;
        if self.one.count[cell] == 0 {
            self.one.touched.push(slot);
        }
        self.one.count[cell] += 1;
        for (argument, values) in columns.iter().enumerate() {
            if let Some(value) = values.get(row) {
                self.one.present[argument][cell] += 1;
                // At most 2^64 rows of at most 10^15: far inside i128.
                self.one.sum[argument][cell] += value;
            }
        }
        for ((argument, tree), leaves) in self.histograms.iter().zip(&mut self.one.leaves) {
            if let Some(value) = columns.get(*argument).and_then(|v| v.get(row)) {
                leaves.push((slot, tree.leaf_of(value)));
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
        let part = self.plan.parts.get(self.part).ok_or(FoldError::Shape)?;
        let (one, rest) = (&mut self.one, self.rest);
        if one.rows == 0 {
            return Ok(());
        }
        if part.one_row && one.rows > 1 {
            return Err(FoldError::SeveralRows);
        }
        let (bound, groups) = (part.rows_per_patient, part.groups_per_patient);
        let of_row = weight(part.weight_one(), bound, one.rows);
        self.rows = self.rows.checked_add(one.rows).ok_or(FoldError::TooMany)?;
        self.heavy += u64::from(one.rows > bound);
        for measured in &mut self.measured {
            match measured.what {
                What::Heavy => measured.add(0, Some(i128::from(one.rows > bound)))?,
                // A patient is in as many groups as have a row where the condition holds.
                What::Patients(present, unit) => {
                    let there = |slot: &&u32| present.is_none_or(|a| one.present[a][**slot as usize] > 0);
                    self.places.clear();
                    self.places.extend(one.touched.iter().filter(there).map(|s| measured.place(*s as usize, rest)));
                    if measured.projection.is_some() {
                        self.places.sort_unstable();
                        self.places.dedup();
                    }
                    let of_group = weight(unit, groups, self.places.len() as u64);
                    measured.spread += u64::from(self.places.len() as u64 > groups);
                    for place in &self.places {
                        measured.add(*place, Some(of_group))?;
                    }
                }
                What::Histogram(histogram, width) => {
                    for (slot, leaf) in &one.leaves[histogram] {
                        measured.add(measured.place(*slot as usize, rest) * width + *leaf as usize, Some(of_row))?;
                    }
                }
                What::Rows | What::Present(_) | What::Sum(..) => {
                    for slot in &one.touched {
                        let slot = *slot as usize;
                        let amount = match measured.what {
                            What::Present(argument) => i128::from(one.present[argument][slot]).checked_mul(of_row),
                            What::Sum(argument, centre) => i128::from(one.present[argument][slot])
                                .checked_mul(centre)
                                .and_then(|offset| one.sum[argument][slot].checked_sub(offset))
                                .and_then(|centred| centred.checked_mul(of_row)),
                            What::Rows | What::Patients(..) | What::Heavy | What::Histogram(..) => {
                                i128::from(one.count[slot]).checked_mul(of_row)
                            }
                        };
                        measured.add(measured.place(slot, rest), amount)?;
                    }
                }
            }
        }
        if let (Some(contributions), Some(patient)) = (&mut self.contributions, &self.current) {
            contributions.add(patient, one)?;
        }
        for slot in one.touched.drain(..) {
            let slot = slot as usize;
            one.count[slot] = 0;
            for argument in 0..one.present.len() {
                one.present[argument][slot] = 0;
                one.sum[argument][slot] = 0;
            }
        }
        one.leaves.iter_mut().for_each(Vec::clear);
        one.rows = 0;
        Ok(())
    }

    /// Joins the folds of all partitions of the rows of one part.
    ///
    /// # Errors
    /// When two partitions share a patient or their ranges overlap, or there is too much.
    pub fn finish(plan: &PrivatePlan, part: usize, mut partitions: Vec<Self>) -> Result<RawPart, FoldError> {
        let of = plan.parts.get(part).ok_or(FoldError::Shape)?;
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
        let names = names(of, &partitions);
        let mut measures: Vec<Vec<i128>> =
            of.measures.iter().map(|m| vec![0_i128; of.numbers(m, names.len())]).collect();
        let read = read(&partitions);
        let contributions = exact::joined(&mut partitions)?;
        for partition in partitions {
            let places: Vec<usize> = match &partition.names {
                Some(own) => own.list.iter().filter_map(|name| names.get(name).copied()).collect(),
                None => vec![0],
            };
            for ((total, measured), measure) in measures.iter_mut().zip(partition.measured).zip(&of.measures) {
                // One name's numbers, or all of a measure that does not tell names apart.
                let stride = of.numbers(measure, 1);
                for (i, part) in measured.cells.into_iter().enumerate() {
                    let name = if measured.named { places.get(i / stride).copied() } else { Some(0) };
                    let place = name.ok_or(FoldError::TooMany)? * stride + i % stride;
                    let total = total.get_mut(place).ok_or(FoldError::TooMany)?;
                    *total = total.checked_add(part).ok_or(FoldError::TooMany)?;
                }
            }
        }
        for (measure, numbers) in of.measures.iter().zip(&mut measures) {
            if let Quantity::Histogram { argument } = measure.quantity {
                let tree = of.tree(argument).ok_or(FoldError::Shape)?;
                for nodes in numbers.chunks_mut(tree.nodes()) {
                    tree.fill(nodes).ok_or(FoldError::TooMany)?;
                }
            }
        }
        Ok(RawPart { names: names.into_keys().collect(), measures, read, contributions })
    }
}

/// What all partitions read; no patient is in two of them.
fn read(partitions: &[Fold]) -> Read {
    let sum = |of: fn(&Fold) -> u64| partitions.iter().map(of).fold(0, u64::saturating_add);
    let measures = partitions.first().map_or(0, |p| p.measured.len());
    let of_measure = |i: usize| partitions.iter().filter_map(|p| p.measured.get(i)).map(|m| m.spread).sum();
    Read {
        rows: sum(|p| p.rows),
        patients: sum(|p| p.patients),
        heavy: sum(|p| p.heavy),
        spread: (0..measures).map(of_measure).max().unwrap_or(0),
    }
}

/// Every name that some partition met, sorted, with its place; without a private key one name, NULL.
fn names(part: &Part, partitions: &[Fold]) -> BTreeMap<Option<KeyValue>, usize> {
    if part.names.is_none() {
        return BTreeMap::from([(None, 0)]);
    }
    let all = partitions.iter().filter_map(|p| p.names.as_ref()).flat_map(|n| n.list.iter().cloned());
    let mut names: BTreeMap<Option<KeyValue>, usize> = all.map(|name| (name, 0)).collect();
    names.values_mut().enumerate().for_each(|(i, place)| *place = i);
    names
}

/// The weight of each of a patient's `rows` rows: `one`, or floor(k·one / rows) when there are more than k, the bound. Of each
/// of a patient's groups likewise, under the bound G: its square summed over the groups is at most G·one².
fn weight(one: i128, bound: u64, rows: u64) -> i128 {
    if rows <= bound { one } else { i128::from(bound) * one / i128::from(rows) }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };
    use num_bigint::BigInt;
    use proptest::prelude::*;
    use sekisho_protocol::units::MicroRho;

    use super::*;
    use crate::{example, plan::WEIGHT_ONE};

    static_assertions::assert_not_impl_any!(RawCells: std::fmt::Debug, Clone, serde::Serialize);
    static_assertions::assert_not_impl_any!(Read: std::fmt::Debug, Clone, serde::Serialize);

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
        assert_eq!(columns.len(), plan.parts[0].rows().schema().fields().len());
        let fields: Vec<_> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn fold(plan: &Arc<PrivatePlan>, rows: &[Row]) -> Result<Vec<Vec<i128>>, FoldError> {
        let mut fold = Fold::new(plan, 0).unwrap();
        for chunk in rows.chunks(3) {
            fold.push(&batch(plan, chunk))?;
        }
        Fold::finish(plan, 0, vec![fold]).map(|raw| raw.measures)
    }

    #[test]
    fn within_the_bounds_cells_are_the_exact_statistics() {
        let plan = plan(3, 4);
        let rows = [(1, 0, Some(10)), (1, 1, None), (2, 0, Some(500)), (3, 2, Some(-7)), (4, 3, Some(1))];
        let cells = fold(&plan, &rows).unwrap();
        let part = &plan.parts[0];
        let of = |quantity: Quantity| {
            let i = part.measures().iter().position(|m| m.quantity == quantity).unwrap();
            cells[i].iter().map(|c| *c / part.unit(&part.measures()[i])).collect::<Vec<_>>()
        };
        assert_eq!(of(Quantity::Rows), [2, 1, 1, 1]);
        assert_eq!(of(Quantity::Patients { present: None }), [2, 1, 1, 1]);
        // 500 is clamped to 100, -7 to 0.
        assert_eq!(of(Quantity::Sum { argument: 0, centre: 0 }), [110, 0, 0, 1]);
        assert_eq!(of(Quantity::Present { argument: 0 }), [2, 0, 1, 1]);
    }

    #[test]
    fn a_patient_with_ten_million_rows_counts_as_k_and_a_mean_stays_a_mean() {
        let plan = plan(2, 1);
        let mut fold = Fold::new(&plan, 0).unwrap();
        let chunk = batch(&plan, &vec![(7, 0, Some(40)); 100_000]);
        for _ in 0..100 {
            fold.push(&chunk).unwrap();
        }
        let cells = Fold::finish(&plan, 0, vec![fold]).unwrap().measures;
        let (rows, sum) = (cells[0][0], cells[3][0]);
        assert!(rows <= 2 * WEIGHT_ONE && rows > 2 * WEIGHT_ONE * 99 / 100, "{rows}");
        assert_eq!(sum, 40 * rows);
    }

    #[test]
    fn a_patient_that_comes_back_stops_the_fold() {
        let plan = plan(2, 1);
        assert!(matches!(fold(&plan, &[(1, 0, None), (2, 0, None), (1, 0, None)]), Err(FoldError::Order)));
        let part = |rows: &[Row]| {
            let mut fold = Fold::new(&plan, 0).unwrap();
            fold.push(&batch(&plan, rows)).unwrap();
            fold
        };
        let split = vec![part(&[(2, 0, None)]), part(&[(1, 0, None), (2, 0, None)])];
        assert!(matches!(Fold::finish(&plan, 0, split), Err(FoldError::Order)));
        let whole = vec![part(&[(3, 0, None)]), part(&[(1, 0, None), (2, 0, None)]), Fold::new(&plan, 0).unwrap()];
        assert!(Fold::finish(&plan, 0, whole).is_ok());
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
            for (i, measure) in plan.parts[0].measures().iter().enumerate() {
                let moved: BigInt = without[i].iter().zip(&with[i]).map(|(a, b)| BigInt::from(b - a).pow(2)).sum();
                let bound = BigInt::from(plan.parts[0].sensitivity(measure).0);
                prop_assert!(moved <= bound, "{measure:?}: moved {moved}, bound {bound}");
            }
        }
    }
}
