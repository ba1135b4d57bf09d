//! `sum` and `avg` whose result does not depend on the order of rows, nor fails on any of them.
//!
//! The engine sums integers so that they wrap, and averages them as floating-point numbers, whose sum depends on the order. Here
//! the planner gets [`sum`] and [`avg`] with exact types; under the reducing aggregate [`of_patient`] makes the engine's own of
//! them, over decimals of [`DIGITS`] digits: 38 hold the sum of 10^12 of those and four digits more for a mean. The
//! functions themselves never run: the one reducing aggregate is the fold.
//!
//! | of | sum | avg |
//! |---|---|---|
//! | integers | bigint; NULL where the sum does not fit | decimal(26, 4) |
//! | decimal(p, s) | decimal(32, s) | decimal(26, s + 4) |

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility, function::AccumulatorArgs, try_cast,
};
use datafusion_functions_aggregate::{average::avg_udaf, sum::sum_udaf};

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

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: nothing else is summed")]
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [kind @ (DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..))] => Ok(vec![kind.clone()]),
            [DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Null] => Ok(vec![DataType::Int64]),
            [_] => Err(DataFusionError::Plan(format!(
                "{} takes an integer or a decimal: CAST or TRY_CAST what it is given",
                self.name()
            ))),
            _ => Err(DataFusionError::Plan(format!("{} takes one argument", self.name()))),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: nothing else is summed")]
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
        DataType::Int32 | DataType::Int64 | DataType::UInt64 => (0, true),
        DataType::Decimal128(p, s) if digits(*s) && (*p <= DIGITS || ranged) => (*s, false),
        _ => return None,
    };
    // The cast is never NULL where its argument is not: the digits suffice.
    let argument = try_cast(argument, DataType::Decimal128(DIGITS, scale));
    let function = if mean { avg_udaf() } else { sum_udaf() };
    Some(OfPatient { function, argument, then: (whole && !mean).then_some(DataType::Int64) })
}
