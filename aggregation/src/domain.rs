//! The public domain of a group key: the image of its expression over the public domains of its columns.
//!
//! Every value of the image is a cell that is always emitted, and so are NULL and "outside" (any other value)
//! where the expression can yield them; so which cells there are tells nothing about anybody.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, StringArray, UInt32Array},
    compute::{cast, take},
    datatypes::{DataType, Date32Type, Field, Int64Type, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::{Expr, ExprSchemable};
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::{Column, Kind},
};

use crate::scalar::{Base, nodes};

/// The most combinations of column values over which one expression is evaluated.
const MAX_COMBINATIONS: usize = 200_000;
/// The most steps of evaluating one expression over its combinations.
const MAX_STEPS: usize = 5_000_000;
/// The most values of one group key.
const MAX_VALUES: usize = 10_000;

/// One public value of a group key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// Text.
    Text(String),
    /// An integer.
    Int(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// True or false.
    Bool(bool),
}

/// The type of a group key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Text, arrow `Utf8`.
    Text,
    /// Integers, arrow `Int64`.
    Int,
    /// Days, arrow `Date32`.
    Date,
    /// Booleans, arrow `Boolean`.
    Bool,
}

impl KeyKind {
    /// The arrow type in which keys of this kind are compared and shown.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Date => DataType::Date32,
            Self::Bool => DataType::Boolean,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: other types are no group keys")]
    fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Some(Self::Text),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Self::Int),
            DataType::Date32 => Some(Self::Date),
            DataType::Boolean => Some(Self::Bool),
            _ => None,
        }
    }

    /// A column of these values; `None` is NULL.
    pub fn array(self, values: &[Option<KeyValue>]) -> ArrayRef {
        let text = |v: &Option<KeyValue>| v.as_ref().map(ToString::to_string);
        let number = |v: &Option<KeyValue>| match v {
            Some(KeyValue::Int(i)) => Some(*i),
            Some(KeyValue::Date(d)) => Some(i64::from(*d)),
            Some(KeyValue::Bool(b)) => Some(i64::from(*b)),
            Some(KeyValue::Text(_)) | None => None,
        };
        match self {
            Self::Text => Arc::new(values.iter().map(text).collect::<StringArray>()),
            Self::Int => Arc::new(values.iter().map(number).collect::<Int64Array>()),
            Self::Date => {
                let day = |v| number(v).and_then(|d| i32::try_from(d).ok());
                Arc::new(values.iter().map(day).collect::<Date32Array>())
            }
            Self::Bool => Arc::new(values.iter().map(|v| number(v).map(|b| b != 0)).collect::<BooleanArray>()),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(value) => write!(f, "{value}"),
            Self::Date(days) => match NaiveDate::default().checked_add_signed(chrono::Duration::days((*days).into())) {
                Some(day) => write!(f, "{day}"),
                None => write!(f, "{days} days"),
            },
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// The image of a group key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The type of the values.
    pub kind: KeyKind,
    /// The values, sorted, each once.
    pub values: Vec<KeyValue>,
    /// Rows may have NULL here: a cell of its own.
    pub null: bool,
    /// Rows may have another value: a cell of its own.
    pub outside: bool,
}

impl Image {
    /// How many cells the key has.
    pub fn cells(&self) -> usize {
        self.values.len() + usize::from(self.null) + usize::from(self.outside)
    }
}

struct Partial {
    values: BTreeSet<KeyValue>,
    null: bool,
    outside: bool,
}

/// The image of the admitted expression `expr` over the table's public domains.
///
/// # Errors
/// `unknown_domain`, naming the column without one, or the size that is too large.
pub(crate) fn image(expr: &Expr, base: &Base<'_>) -> Result<Image, Refusal> {
    let refuse = |detail: String| Refusal::new(Code::UnknownDomain, detail);
    let kind = expr
        .get_type(&base.schema)
        .ok()
        .and_then(|t| KeyKind::of(&t))
        .ok_or_else(|| refuse(format!("GROUP BY {expr}: group keys are text, integers, dates or booleans")))?;
    let partial = image_of(expr, kind, base)?;
    if partial.values.len() > MAX_VALUES {
        return Err(refuse(format!("GROUP BY {expr} has {} values; at most {MAX_VALUES}", partial.values.len())));
    }
    Ok(Image { kind, values: partial.values.into_iter().collect(), null: partial.null, outside: partial.outside })
}

fn image_of(expr: &Expr, kind: KeyKind, base: &Base<'_>) -> Result<Partial, Refusal> {
    if let Expr::Literal(value, _) = expr {
        let array = value.to_array().map_err(|_| internal())?;
        return Ok(collect(&array, kind)?.into_partial(false));
    }
    if let Expr::Case(case) = expr {
        // The branches' images: the conditions may use columns without a domain.
        let mut all = Partial { values: BTreeSet::new(), null: case.else_expr.is_none(), outside: false };
        for branch in case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr) {
            let one = image_of(branch, kind, base)?;
            all.values.extend(one.values);
            all.null |= one.null;
            all.outside |= one.outside;
            if all.values.len() > MAX_VALUES {
                let detail = format!("a group key has more than {MAX_VALUES} values; group more coarsely");
                return Err(Refusal::new(Code::UnknownDomain, detail));
            }
        }
        return Ok(all);
    }
    let evaluated = evaluate(expr, base)?;
    Ok(collect(&evaluated, kind)?.into_partial(kind != KeyKind::Bool))
}

struct Collected(BTreeSet<KeyValue>, bool);

impl Collected {
    fn into_partial(self, row_value: bool) -> Partial {
        Partial { values: self.0, null: self.1, outside: row_value }
    }
}

fn collect(array: &ArrayRef, kind: KeyKind) -> Result<Collected, Refusal> {
    let array = cast(array, &kind.arrow()).map_err(|_| internal())?;
    let mut values = BTreeSet::new();
    for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
        values.insert(match kind {
            KeyKind::Text => KeyValue::Text(array.as_string::<i32>().value(row).into()),
            KeyKind::Int => KeyValue::Int(array.as_primitive::<Int64Type>().value(row)),
            KeyKind::Date => KeyValue::Date(array.as_primitive::<Date32Type>().value(row)),
            KeyKind::Bool => KeyValue::Bool(array.as_boolean().value(row)),
        });
    }
    Ok(Collected(values, array.null_count() > 0))
}

fn internal() -> Refusal {
    Refusal::new(Code::SqlUnsupported, "a group key cannot be evaluated over its public domain")
}

/// Evaluates `expr` over every combination of the public values, and NULL, of the columns that it uses.
fn evaluate(expr: &Expr, base: &Base<'_>) -> Result<ArrayRef, Refusal> {
    let mut names: Vec<String> = expr.column_refs().iter().map(|c| c.name.clone()).collect();
    names.sort();
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    let mut rows = 1_usize;
    for name in &names {
        let column = base.table.column(name).ok_or_else(internal)?;
        let values = public_values(column)?;
        rows = rows.saturating_mul(values.len());
        if rows > MAX_COMBINATIONS {
            let detail =
                format!("GROUP BY {expr}: its columns have more than {MAX_COMBINATIONS} combinations of values");
            return Err(Refusal::new(Code::UnknownDomain, detail));
        }
        columns.push((Field::new(name, values.data_type().clone(), true), values));
    }
    if rows.saturating_mul(nodes(expr)) > MAX_STEPS {
        let detail = "a group key is too long for the number of values of its columns; write it shorter";
        return Err(Refusal::new(Code::UnknownDomain, detail));
    }
    let mut repeat = 1_u32;
    let mut arrays = Vec::with_capacity(columns.len());
    for (_, values) in &columns {
        let n = u32::try_from(values.len()).map_err(|_| internal())?;
        let rows = u32::try_from(rows).map_err(|_| internal())?;
        let picks: UInt32Array = (0..rows).map(|row| row / repeat % n).collect();
        arrays.push(take(values, &picks, None).map_err(|_| internal())?);
        repeat = repeat.saturating_mul(n);
    }
    let schema = Arc::new(ArrowSchema::new(columns.into_iter().map(|(f, _)| f).collect::<Vec<_>>()));
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options).map_err(|_| internal())?;
    let df_schema = DFSchema::try_from(schema).map_err(|_| internal())?;
    let physical = datafusion_physical_expr::create_physical_expr(
        expr,
        &df_schema,
        &datafusion_expr::execution_props::ExecutionProps::new(),
        &Default::default(),
    )
    .map_err(|_| internal())?;
    physical.evaluate(&batch).and_then(|v| v.into_array(rows)).map_err(|_| internal())
}

/// The public values of a column and NULL, as an array.
fn public_values(column: &Column) -> Result<ArrayRef, Refusal> {
    let none = || {
        let detail = format!("column {} has no public domain that could be listed", column.name);
        Refusal::new(Code::UnknownDomain, detail)
    };
    let range = || -> Result<Vec<Option<i64>>, Refusal> {
        let (lo, hi) = column.fixed_bounds().ok().flatten().ok_or_else(none)?;
        if hi.saturating_sub(lo) >= i64::try_from(MAX_COMBINATIONS).unwrap_or(i64::MAX) {
            return Err(none());
        }
        Ok((lo..=hi).map(Some).chain([None]).collect())
    };
    Ok(match column.kind {
        Kind::Text => {
            let domain = column.domain.as_ref().ok_or_else(none)?;
            Arc::new(domain.iter().map(Some).chain([None]).collect::<StringArray>())
        }
        Kind::Int64 => Arc::new(Int64Array::from(range()?)),
        Kind::Date => {
            let days = range()?.into_iter().map(|d| d.and_then(|d| i32::try_from(d).ok()));
            Arc::new(days.collect::<Date32Array>())
        }
        Kind::Bool => ScalarValue::iter_to_array([Some(false), Some(true), None].map(ScalarValue::Boolean))
            .map_err(|_| internal())?,
        Kind::Decimal => return Err(none()),
    })
}
