//! The public domain of a group key: the image of its expression over the public domains of its columns.
//!
//! Every value of the image is a cell that is always emitted, and so are NULL and "outside" (any other value)
//! where the expression can yield them; so which cells there are tells nothing about anybody.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, StringArray, UInt32Array},
    compute::{cast, take},
    datatypes::{DataType, Date32Type, Field, Int64Type},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::{Expr, ExprSchemable};
use sekisho_protocol::refusal::{Code, Refusal};
use serde::{Deserialize, Serialize};

use crate::{
    relation::{Fact, Relation},
    scalar::nodes,
};

/// The most combinations of column values over which one expression is evaluated.
const MAX_COMBINATIONS: usize = 200_000;
/// The same for an expression of a subquery, which may never become a group key.
const SMALL: usize = 5_000;
/// The most steps of evaluating one expression over its combinations.
const MAX_STEPS: usize = 5_000_000;
/// The most values of one group key.
const MAX_VALUES: usize = 10_000;

/// One value of a group key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    pub(crate) fn of(kind: &DataType) -> Option<Self> {
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

impl KeyValue {
    /// The type of the value.
    pub(crate) fn kind(&self) -> KeyKind {
        match self {
            Self::Text(_) => KeyKind::Text,
            Self::Int(_) => KeyKind::Int,
            Self::Date(_) => KeyKind::Date,
            Self::Bool(_) => KeyKind::Bool,
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
    /// True, false, or NULL: whatever it is of, a boolean is one of these.
    pub(crate) fn bools() -> Self {
        let values = vec![KeyValue::Bool(false), KeyValue::Bool(true)];
        Self { kind: KeyKind::Bool, values, null: true, outside: false }
    }

    /// What either has; `None` when their types differ.
    pub(crate) fn or(&self, other: &Self) -> Option<Self> {
        let values: BTreeSet<KeyValue> = self.values.iter().chain(&other.values).cloned().collect();
        (self.kind == other.kind).then(|| Self {
            kind: self.kind,
            values: values.into_iter().collect(),
            null: self.null || other.null,
            outside: self.outside || other.outside,
        })
    }

    /// How many cells the key has.
    pub fn cells(&self) -> usize {
        self.values.len() + usize::from(self.null) + usize::from(self.outside)
    }
}

/// The image of the admitted expression `expr` over the relation's public values.
///
/// # Errors
/// `unknown_domain`, naming the column without one, or the size that is too large.
pub(crate) fn image(expr: &Expr, relation: &Relation) -> Result<Image, Refusal> {
    let refuse = |detail: String| Refusal::new(Code::UnknownDomain, detail);
    let kind = expr.get_type(relation.schema()).ok().and_then(|t| KeyKind::of(&t));
    let kind =
        kind.ok_or_else(|| refuse(format!("GROUP BY {expr}: group keys are text, integers, dates or booleans")))?;
    let image = image_of(expr, kind, relation, MAX_COMBINATIONS)?;
    if image.values.len() > MAX_VALUES {
        return Err(refuse(format!("GROUP BY {expr} has {} values; at most {MAX_VALUES}", image.values.len())));
    }
    Ok(image)
}

/// The image of `expr`, where it is known and small.
pub(crate) fn image_if_small(expr: &Expr, relation: &Relation) -> Option<Image> {
    let kind = expr.get_type(relation.schema()).ok().and_then(|t| KeyKind::of(&t))?;
    image_of(expr, kind, relation, SMALL).ok().filter(|i| i.values.len() <= MAX_VALUES)
}

/// The image of a column of VALUES: its literals.
pub(crate) fn literals_image<'e>(cells: impl Iterator<Item = &'e Expr>, kind: &DataType) -> Option<Image> {
    let kind = KeyKind::of(kind)?;
    let values = cells.map(|cell| if let Expr::Literal(value, _) = cell { Some(value.clone()) } else { None });
    let values = values.collect::<Option<Vec<_>>>()?;
    collect(&ScalarValue::iter_to_array(values).ok()?, kind).ok()
}

fn image_of(expr: &Expr, kind: KeyKind, relation: &Relation, most: usize) -> Result<Image, Refusal> {
    if let Expr::Literal(value, _) = expr {
        return collect(&value.to_array().map_err(|_| internal())?, kind);
    }
    if let Expr::Column(column) = expr
        && let Some(image) = relation.fact(column).and_then(|f| f.image.clone())
    {
        return Ok(image);
    }
    if let Expr::Case(case) = expr {
        // The branches' images: the conditions may use columns without a domain.
        let mut all = Image { kind, values: Vec::new(), null: case.else_expr.is_none(), outside: false };
        for branch in case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr) {
            all = all.or(&image_of(branch, kind, relation, most)?).ok_or_else(internal)?;
            if all.values.len() > MAX_VALUES {
                let detail = format!("a group key has more than {MAX_VALUES} values; group more coarsely");
                return Err(Refusal::new(Code::UnknownDomain, detail));
            }
        }
        return Ok(all);
    }
    if kind == KeyKind::Bool {
        return Ok(Image::bools());
    }
    match evaluate(expr, relation, most) {
        Ok(values) => Ok(Image { outside: true, ..collect(&values, kind)? }),
        Err(refusal) => counted(expr, kind, relation).ok_or(refusal),
    }
}

/// Every integer of a known and short range, as `least(count, 10)` has.
fn counted(expr: &Expr, kind: KeyKind, relation: &Relation) -> Option<Image> {
    let (_, range) =
        relation.bounded(expr).filter(|(_, r)| kind == KeyKind::Int && r.hi - r.lo < MAX_VALUES as i128)?;
    let values = (range.lo..=range.hi).filter_map(|v| i64::try_from(v).ok()).map(KeyValue::Int).collect();
    Some(Image { kind, values, null: true, outside: true })
}

/// The values of `array`, and whether NULL is among them.
fn collect(array: &ArrayRef, kind: KeyKind) -> Result<Image, Refusal> {
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
    Ok(Image { kind, values: values.into_iter().collect(), null: array.null_count() > 0, outside: false })
}

fn internal() -> Refusal {
    Refusal::new(Code::SqlUnsupported, "a group key cannot be evaluated over its public domain")
}

/// Evaluates `expr` over every combination of the public values, and NULL, of the columns that it uses.
fn evaluate(expr: &Expr, relation: &Relation, most: usize) -> Result<ArrayRef, Refusal> {
    let mut columns: Vec<_> = expr.column_refs().into_iter().cloned().collect();
    columns.sort();
    let (mut fields, mut values) = (Vec::new(), Vec::<ArrayRef>::new());
    let mut rows = 1_usize;
    for column in &columns {
        let fact = relation.fact(column).ok_or_else(internal)?;
        let (qualifier, field) = relation.schema().qualified_field_from_column(column).map_err(|_| internal())?;
        let public = public_values(fact, column, field.data_type())?;
        rows = rows.saturating_mul(public.len());
        if rows > most {
            let detail = format!("GROUP BY {expr}: its columns have more than {most} combinations of values");
            return Err(Refusal::new(Code::UnknownDomain, detail));
        }
        let field = Arc::new(Field::new(field.name(), public.data_type().clone(), true));
        fields.push((qualifier.cloned(), field));
        values.push(public);
    }
    if rows.saturating_mul(nodes(expr)) > MAX_STEPS {
        let detail = "a group key is too long for the number of values of its columns; write it shorter";
        return Err(Refusal::new(Code::UnknownDomain, detail));
    }
    let mut repeat = 1_u32;
    let mut arrays = Vec::with_capacity(columns.len());
    for values in &values {
        let n = u32::try_from(values.len()).map_err(|_| internal())?;
        let rows = u32::try_from(rows).map_err(|_| internal())?;
        let picks: UInt32Array = (0..rows).map(|row| row / repeat % n).collect();
        arrays.push(take(values, &picks, None).map_err(|_| internal())?);
        repeat = repeat.saturating_mul(n);
    }
    let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(|_| internal())?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
    let batch =
        RecordBatch::try_new_with_options(Arc::clone(schema.inner()), arrays, &options).map_err(|_| internal())?;
    let physical = datafusion_physical_expr::create_physical_expr(
        expr,
        &schema,
        &datafusion_expr::execution_props::ExecutionProps::new(),
        &Default::default(),
    )
    .map_err(|_| internal())?;
    physical.evaluate(&batch).and_then(|v| v.into_array(rows)).map_err(|_| internal())
}

/// The public values of a column and NULL, as an array of the column's type.
fn public_values(fact: &Fact, column: &datafusion_common::Column, kind: &DataType) -> Result<ArrayRef, Refusal> {
    let none = || {
        let detail = format!("column {} has no public domain that could be listed", column.name);
        Refusal::new(Code::UnknownDomain, detail)
    };
    if let Some(image) = &fact.image {
        let values: Vec<Option<KeyValue>> = image.values.iter().cloned().map(Some).chain([None]).collect();
        return cast(&image.kind.array(&values), kind).map_err(|_| none());
    }
    let whole = matches!(kind, DataType::Int32 | DataType::Int64 | DataType::Date32);
    let range = fact.range.as_ref().filter(|r| whole && r.hi - r.lo < MAX_COMBINATIONS as i128).ok_or_else(none)?;
    let numbers: Int64Array = (range.lo..=range.hi).map(|v| i64::try_from(v).ok()).chain([None]).collect();
    let days = matches!(kind, DataType::Date32);
    let array: ArrayRef = Arc::new(numbers);
    let array = if days { cast(&array, &DataType::Int32).map_err(|_| none())? } else { array };
    cast(&array, kind).map_err(|_| none())
}
