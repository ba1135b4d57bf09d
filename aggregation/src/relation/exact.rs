//! `sum` and `avg` whose result does not depend on the order of rows, nor fails on any of them; and row numbers that are bigint.
//!
//! The engine sums integers so that they wrap, and averages them as floating-point numbers, whose sum depends on the order. Here
//! the planner gets [`sum`] and [`avg`] with exact types; under the reducing aggregate [`of_patient`] makes the engine's own of
//! them, over decimals of [`DIGITS`] digits: 38 hold the sum of 10^12 of those and four digits more for a mean. The
//! functions themselves never run: the one reducing aggregate is the fold.
//!
//! Likewise [`row_number`](numbers), whose type in the engine is unsigned: no cast of that one is total.
//!
//! | of | sum | avg |
//! |---|---|---|
//! | integers | bigint; NULL where the sum does not fit | decimal(26, 4) |
//! | decimal(p, s) | decimal(32, s) | decimal(26, s + 4) |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, PartitionEvaluator, Signature, Volatility, WindowUDF,
    WindowUDFImpl,
    function::{AccumulatorArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs},
    try_cast,
};
use datafusion_functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion_functions_window::{
    rank::{dense_rank_udwf, rank_udwf},
    row_number::row_number_udwf,
};

/// The digits of what is summed.
const DIGITS: u8 = 22;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    mean: bool,
    signature: Signature,
}

fn exact(mean: bool) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Exact { mean, signature: Signature::user_defined(Volatility::Immutable) }))
}

/// `sum`, for the planner.
pub(crate) fn sum() -> Arc<AggregateUDF> {
    exact(false)
}

/// `avg`, for the planner.
pub(crate) fn avg() -> Arc<AggregateUDF> {
    exact(true)
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &'static str {
        if self.mean { "avg" } else { "sum" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [kind @ (DataType::Int64 | DataType::Decimal128(..))] => Ok(vec![kind.clone()]),
            [DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Null] => Ok(vec![DataType::Int64]),
            [_] => Err(DataFusionError::Plan(format!(
                "{} takes an integer or a decimal: CAST or TRY_CAST what it is given",
                self.name()
            ))),
            _ => Err(DataFusionError::Plan(format!("{} takes one argument", self.name()))),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match (types, self.mean) {
            ([DataType::Decimal128(_, s)], false) if digits(*s) => DataType::Decimal128(DIGITS + 10, *s),
            ([DataType::Decimal128(_, s)], true) if digits(*s) => DataType::Decimal128(DIGITS + 4, *s + 4),
            // Too fine a scale for a step per patient, which is refused there.
            ([DataType::Decimal128(_, s)], _) => DataType::Decimal128(38, *s),
            (_, false) => DataType::Int64,
            (_, true) => DataType::Decimal128(DIGITS + 4, 4),
        })
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(DataFusionError::Plan(format!("{} across patients is the fold's", self.name())))
    }
}

fn digits(scale: i8) -> bool {
    u8::try_from(scale).is_ok_and(|s| s <= DIGITS)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Number {
    name: &'static str,
    signature: Signature,
}

/// `row_number`, `rank` and `dense_rank`, for the planner.
pub(crate) fn numbers() -> [Arc<WindowUDF>; 3] {
    ["row_number", "rank", "dense_rank"]
        .map(|name| Arc::new(WindowUDF::from(Number { name, signature: Signature::nullary(Volatility::Immutable) })))
}

/// The engine's own, whose result is then cast to bigint.
pub(crate) fn engines_number(name: &str) -> Option<Arc<WindowUDF>> {
    match name {
        "row_number" => Some(row_number_udwf()),
        "rank" => Some(rank_udwf()),
        "dense_rank" => Some(dense_rank_udwf()),
        _ => None,
    }
}

impl WindowUDFImpl for Number {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Err(DataFusionError::Plan(format!("{} is the engine's to evaluate", self.name)))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, true)))
    }
}

/// What the engine runs for a sum or mean of a patient's rows.
pub(super) struct OfPatient {
    pub(super) function: Arc<AggregateUDF>,
    /// The argument as a decimal of [`DIGITS`] digits.
    pub(super) argument: Expr,
    /// The type to which the result is cast afterwards, NULL where it does not fit.
    pub(super) then: Option<DataType>,
}

/// The exact sum, or mean, of `argument`, which is of the type `kind`; `ranged` when its values are known to lie within ±10^15 units.
/// `None` where it may have more digits than are summed.
pub(super) fn of_patient(mean: bool, argument: Expr, kind: &DataType, ranged: bool) -> Option<OfPatient> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: nothing else is summed")]
    let (scale, whole) = match kind {
        DataType::Int32 | DataType::Int64 => (0, true),
        DataType::Decimal128(p, s) if digits(*s) && (*p <= DIGITS || ranged) => (*s, false),
        _ => return None,
    };
    // The cast is never NULL where its argument is not: the digits suffice.
    let argument = try_cast(argument, DataType::Decimal128(DIGITS, scale));
    let function = if mean { avg_udaf() } else { sum_udaf() };
    Some(OfPatient { function, argument, then: (whole && !mean).then_some(DataType::Int64) })
}
