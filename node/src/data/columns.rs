//! Schema columns as Arrow columns, and the total conversion into them.
//!
//! [`convert`] never fails on a value: one that does not fit becomes NULL, and [`Conversion`] counts it for
//! the operator's own report. Numbers that are no integers are no `int64`; decimals round half away from
//! zero; only 0 and 1 are numbers that `bool` takes; dates are of the years 1 to 9999. A patient's textual id is
//! trimmed as the register trims it, and a blank one is none: "A1" and "A1 " are one patient.

use std::{
    hash::{Hash, Hasher},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    compute::{CastOptions, can_cast_types, cast_with_options, kernels::cmp, not, nullif},
    datatypes::{DataType, Date32Type, Field, Int64Type, Schema as ArrowSchema, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    error::{DataFusionError, Result as EngineResult},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sekisho_protocol::schema::{Column, Kind, Table};

/// The digits that a decimal column holds, before and after the point together.
const PRECISION: u8 = 18;

/// The days from 0001-01-01 to 9999-12-31, counted from 1970-01-01.
const DAYS: RangeInclusive<i32> = -719_162..=2_932_896;

/// The Arrow type of a schema column's values.
pub(super) fn arrow_type(column: &Column) -> DataType {
    match column.kind {
        Kind::Int64 => DataType::Int64,
        Kind::Decimal => DataType::Decimal128(PRECISION, column.scale.cast_signed()),
        Kind::Text => DataType::Utf8,
        Kind::Date => DataType::Date32,
        Kind::Bool => DataType::Boolean,
    }
}

/// Whether a column is stored as a dictionary and scanned as one: a text with a public domain, as group keys have.
pub(super) fn is_dictionary(table: &Table, column: &Column) -> bool {
    column.kind == Kind::Text && column.domain.is_some() && table.patient.as_ref() != Some(&column.name)
}

/// The Arrow schema of a table as it is stored and scanned; every column may be NULL.
pub(super) fn arrow_schema(table: &Table) -> SchemaRef {
    let field = |column: &Column| {
        let values = arrow_type(column);
        let stored = if is_dictionary(table, column) {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(values))
        } else {
            values
        };
        Field::new(&column.name, stored, true)
    };
    Arc::new(ArrowSchema::new(table.columns.iter().map(field).collect::<Vec<_>>()))
}

/// Converted rows as rows of [`arrow_schema`].
///
/// # Errors
/// When the columns are others than the table's.
pub(super) fn stored(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(values, field)| cast(values, field.data_type()));
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// Whether values of type `from` can become values of `column` at all.
pub(super) fn convertible(from: &DataType, column: &Column) -> bool {
    can_cast_types(from, &arrow_type(column))
}

/// `values` as values of `column`; those that do not fit are NULL.
fn convert(values: &ArrayRef, column: &Column) -> Result<ArrayRef, ArrowError> {
    if let DataType::Dictionary(_, plain) = values.data_type() {
        return convert(&cast(values, plain)?, column);
    }
    match column.kind {
        Kind::Int64 => integer(values),
        Kind::Bool if values.data_type().is_numeric() => {
            let numbers = integer(values)?;
            let bit = |n| match n {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
            let bits: BooleanArray = numbers.as_primitive::<Int64Type>().iter().map(|n| n.and_then(bit)).collect();
            Ok(Arc::new(bits))
        }
        Kind::Date => {
            let dates = cast(values, &DataType::Date32)?;
            let within = |day| DAYS.contains(&day).then_some(day);
            Ok(Arc::new(dates.as_primitive::<Date32Type>().unary_opt::<_, Date32Type>(within)))
        }
        Kind::Bool | Kind::Decimal | Kind::Text => cast(values, &arrow_type(column)),
    }
}

/// Ids without blanks around them; a blank one is NULL.
fn trimmed(ids: &ArrayRef) -> ArrayRef {
    let Some(ids) = ids.as_string_opt::<i32>() else { return Arc::clone(ids) };
    let trim = |id: Option<&str>| id.map(str::trim).filter(|id| !id.is_empty()).map(String::from);
    Arc::new(ids.iter().map(trim).collect::<StringArray>())
}

fn integer(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let from = values.data_type();
    let whole = cast(values, &DataType::Int64)?;
    if !from.is_floating() && !from.is_decimal() {
        return Ok(whole);
    }
    // Arrow truncates 12.7 to 12; what does not come back as it was is no integer.
    let same = cmp::eq(&cast(&whole, from)?, values)?;
    nullif(&whole, &not(&same)?)
}

fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, to, &CastOptions { safe: true, ..CastOptions::default() })
}

/// [`convert`] as a function of a plan, which counts the values that it turned into NULL.
#[derive(Debug)]
pub(super) struct Conversion {
    column: Column,
    /// Whether it names the patient.
    patient: bool,
    signature: Signature,
    counts: Arc<Counts>,
}

/// What a [`Conversion`] saw, for the operator only; it cannot be printed.
#[derive(Default)]
pub(super) struct Counts {
    seen: AtomicU64,
    lost: AtomicU64,
    null: AtomicU64,
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counts(…)")
    }
}

impl Counts {
    /// Values that were converted, NULL or not.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Values that were there and became NULL.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Values that are NULL after the conversion.
    pub(super) fn null(&self) -> u64 {
        self.null.load(Ordering::Relaxed)
    }
}

impl Conversion {
    /// The function into `column` of `table`, and its counts. It is volatile, so that no rule evaluates it twice.
    pub(super) fn function(table: &Table, column: &Column) -> (ScalarUDF, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let signature = Signature::any(1, Volatility::Volatile);
        let patient = table.patient.as_ref() == Some(&column.name);
        let function = Self { column: column.clone(), patient, signature, counts: Arc::clone(&counts) };
        (ScalarUDF::new_from_impl(function), counts)
    }
}

impl PartialEq for Conversion {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }
}

impl Eq for Conversion {}

impl Hash for Conversion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.counts).hash(state);
    }
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(arrow_type(&self.column))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [value] = arguments.args.as_slice() else {
            return Err(DataFusionError::Internal("convert takes one value".into()));
        };
        let values = value.to_array(arguments.number_rows)?;
        let mut converted = convert(&values, &self.column)?;
        if self.patient {
            converted = trimmed(&converted);
        }
        let (before, after) = (values.logical_null_count() as u64, converted.null_count() as u64);
        self.counts.seen.fetch_add(converted.len() as u64, Ordering::Relaxed);
        self.counts.lost.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.counts.null.fetch_add(after, Ordering::Relaxed);
        Ok(ColumnarValue::Array(converted))
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Date32Array, Float64Array, Int64Array, StringArray},
        util::display::array_value_to_string,
    };

    use super::*;

    fn check(values: impl Array + 'static, column: &str, expect: &[&str]) {
        let column: Column = serde_json::from_str(column).unwrap();
        let values: ArrayRef = Arc::new(values);
        assert!(convertible(values.data_type(), &column));
        let converted = convert(&values, &column).unwrap();
        assert_eq!(converted.data_type(), &arrow_type(&column));
        let found: Vec<_> = (0..converted.len()).map(|i| array_value_to_string(&converted, i).unwrap()).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn decimals_round_half_away_from_zero_and_what_is_no_number_is_null() {
        let cents = r#"{"name":"c","type":"decimal","scale":1}"#;
        let floats = vec![0.25, -0.25, 72.5, f64::NAN, f64::INFINITY, 1e18];
        check(Float64Array::from(floats), cents, &["0.3", "-0.3", "72.5", "", "", ""]);
        check(
            StringArray::from(vec!["0.25", "-0.25", "007", "x", "", "-", "."]),
            cents,
            &["0.3", "-0.3", "7.0", "", "", "", ""],
        );
    }

    #[test]
    fn integers_are_whole() {
        let int = r#"{"name":"c","type":"int64"}"#;
        check(Float64Array::from(vec![12.0, 12.7, -3.0, 1e300, f64::NAN]), int, &["12", "", "-3", "", ""]);
        check(StringArray::from(vec!["-12", "007", "12.7", "> 89", ""]), int, &["-12", "7", "", "", ""]);
    }

    #[test]
    fn bools_are_0_and_1_and_words() {
        let bool = r#"{"name":"c","type":"bool"}"#;
        check(Int64Array::from(vec![0, 1, 2]), bool, &["false", "true", ""]);
        check(Float64Array::from(vec![0.0, 1.0, 0.5]), bool, &["false", "true", ""]);
        check(
            StringArray::from(vec!["0", "1", "true", "FALSE", "2", "x"]),
            bool,
            &["false", "true", "true", "false", "", ""],
        );
    }

    #[test]
    fn dates_are_days_and_texts_keep_their_zeros() {
        let days = StringArray::from(vec!["2020-02-29", "2020-02-30", "2020-01-02 03:04:05", "x"]);
        check(days, r#"{"name":"c","type":"date"}"#, &["2020-02-29", "", "2020-01-02", ""]);
        check(
            Date32Array::from(vec![-719_163, -719_162, 0, 2_932_896, 2_932_897, i32::MIN, i32::MAX]),
            r#"{"name":"c","type":"date"}"#,
            &["", "0001-01-01", "1970-01-01", "9999-12-31", "", "", ""],
        );
        check(StringArray::from(vec!["007", " 7 "]), r#"{"name":"c","type":"text"}"#, &["007", " 7 "]);
        let date: Column = serde_json::from_str(r#"{"name":"c","type":"date"}"#).unwrap();
        assert!(!convertible(&DataType::Boolean, &date));
    }
}
