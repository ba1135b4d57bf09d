//! Tables of two engines as keys and numbers, and whether they are equal.

use std::collections::BTreeMap;

use datafusion::arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type},
    record_batch::RecordBatch,
    util::display::array_value_to_string,
};
use sekisho_aggregation::plan::PrivatePlan;

/// One number of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count, or a sum of integers: equal or not.
    Whole(f64),
    /// A real number, and the step on which the engine rounds it.
    Real(f64, f64),
    /// NULL: a sum or a mean over nothing.
    Null,
}

/// The keys of a row, as text; NULL is none.
type Keys = Vec<Option<String>>;

/// A number of ours, and the one that stands for nothing.
type Ours = (Number, f64);

/// The rows of an answer: keys as text, NULL as none, and numbers.
#[derive(Debug)]
pub struct Rows(pub Vec<(Keys, Vec<Number>)>);

/// What we released: beside each number, the one that stands for nothing.
pub struct Released(Vec<(Keys, Vec<Ours>)>);

fn key(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let array = batch.column(column);
    array.is_valid(row).then(|| array_value_to_string(array, row).unwrap())
}

fn number(batch: &RecordBatch, column: usize, row: usize) -> Number {
    let array = batch.column(column);
    let value = cast(array, &DataType::Float64).unwrap();
    if value.is_null(row) {
        return Number::Null;
    }
    let value = value.as_primitive::<Float64Type>().value(row);
    match array.data_type() {
        DataType::Int64 | DataType::UInt64 => Number::Whole(value),
        DataType::Decimal128(_, scale) => Number::Real(value, 10_f64.powi(-i32::from(*scale))),
        _ => Number::Real(value, 0.0),
    }
}

/// Keys first, then numbers, as every statement of the corpus has them.
pub fn rows(batches: &[RecordBatch], keys: usize) -> Rows {
    let of = |batch: &RecordBatch, row: usize| {
        let numbers = (keys..batch.num_columns()).map(|c| number(batch, c, row)).collect();
        ((0..keys).map(|c| key(batch, c, row)).collect(), numbers)
    };
    Rows(batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| of(b, row))).collect())
}

/// How many columns are keys: those that come first and are called k, k1, k2.
pub fn keys(plan: &PrivatePlan) -> usize {
    plan.as_written().schema().fields().iter().take_while(|f| f.name().starts_with('k')).count()
}

/// The table after the release: the SQL's own columns, and of their intervals what a number over nothing is.
pub fn released(plan: &PrivatePlan, table: &RecordBatch) -> Released {
    let names: Vec<&String> = plan.as_written().schema().fields().iter().map(|f| f.name()).collect();
    let own: Vec<usize> = names.iter().map(|name| table.schema().index_of(name).unwrap()).collect();
    let end = |name: &str, side: &str, row: usize| {
        let column = table.column_by_name(&format!("{name}_{side}"))?;
        Some(column.as_primitive::<Float64Type>().value(row))
    };
    let keys = keys(plan);
    let of = |row: usize| {
        let numbers = (keys..own.len()).map(|i| {
            // A mean over nothing is the middle of its range, and its interval is that range; a sum or a count is 0.
            let value = number(table, own[i], row);
            let middle = end(names[i], "low", row).zip(end(names[i], "high", row)).map(|(l, h)| f64::midpoint(l, h));
            let nothing = middle.filter(|m| matches!(value, Number::Real(v, _) if v == *m)).unwrap_or(0.0);
            (value, nothing)
        });
        ((0..keys).map(|i| key(table, own[i], row)).collect(), numbers.collect())
    };
    Released((0..table.num_rows()).map(of).collect())
}

fn same(got: Ours, want: Number) -> bool {
    match (got.0, want) {
        (Number::Whole(g), Number::Whole(w)) => g == w,
        (Number::Whole(g) | Number::Real(g, _), Number::Whole(w) | Number::Real(w, _)) => {
            let step = |n: Number| if let Number::Real(_, step) = n { step } else { 0.0 };
            (g - w).abs() <= step(got.0).max(step(want)).max(1e-9 * w.abs().max(1.0))
        }
        (Number::Whole(g) | Number::Real(g, _), Number::Null) => g == got.1,
        (Number::Null, Number::Null) => true,
        (Number::Null, _) => false,
    }
}

impl Released {
    /// Equal to an answer of plain SQL: every row of it is there, and every other cell of ours is empty.
    pub fn equals(&self, truth: &Rows) -> Result<(), String> {
        let mut cells: BTreeMap<&Keys, Vec<&[Ours]>> = BTreeMap::new();
        for (keys, numbers) in &self.0 {
            cells.entry(keys).or_default().push(numbers);
        }
        for (keys, want) in &truth.0 {
            let equal = |got: &&[Ours]| got.len() == want.len() && got.iter().zip(want).all(|(g, w)| same(*g, *w));
            let here = cells.get_mut(keys).ok_or_else(|| format!("no cell {keys:?}, which has {want:?}"))?;
            let place = here.iter().position(equal);
            let place = place.ok_or_else(|| format!("cell {keys:?} is {here:?} and not {want:?}"))?;
            here.remove(place);
        }
        // NULL and "outside" are two cells, and cells that plain SQL has no row for are all zeros.
        for (keys, left) in cells {
            // A count of rows comes first where there are keys: without rows the other numbers mean nothing.
            let empty = |cell: &[Ours]| matches!(cell.first(), Some((Number::Whole(0.0), _)));
            if let Some(cell) = left.iter().find(|cell| !empty(cell)) {
                return Err(format!("cell {keys:?} should be empty and is {cell:?}"));
            }
        }
        Ok(())
    }
}
