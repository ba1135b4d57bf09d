//! Scalar functions of our own: where the engine's fail on some value, or give a type that a study cannot use.
//!
//! Each is total by construction: what has no result, or none that fits the type, is NULL.
//!
//! | function | arguments | result |
//! |---|---|---|
//! | `abs(x)` | integer, decimal | of the same type |
//! | `sign(x)` | integer, decimal | bigint: -1, 0, 1 |
//! | `floor(x)`, `ceil(x)`, `round(x)` | integer, decimal | bigint; halves are rounded away from 0 |
//! | `a / b` | integers, decimals | of the planner's type, cut towards 0; NULL where b is 0 |
//! | `a % b` | integers | with the sign of a; NULL where b is 0 |
//! | `date_trunc(unit, d)` | `'year'`, `'quarter'`, `'month'`, `'week'`, `'day'`, and a date | date |
//! | `d + INTERVAL …`, `d - INTERVAL …` | a date, and literal months and days | date from 0001-01-01 to 9999-12-31 |
//! | `a \|\| b`, `concat(a, …)` | texts | text of at most 65,536 bytes; `concat` passes over NULL |

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray},
    datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type},
};
use chrono::{Datelike, Days, Duration, Months, NaiveDate};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The longest text that is put together, in bytes.
pub(crate) const MAX_TEXT: usize = 65_536;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Abs,
    Sign,
    Floor,
    Ceil,
    Round,
    /// Of integers of one type.
    Quotient,
    /// Of decimals, to this precision and scale.
    DecimalQuotient(u8, i8),
    Remainder,
    /// A date, months, days.
    Shift,
    DateTrunc,
    /// `||`, where NULL makes NULL.
    Join,
    /// `concat`, which passes over NULL.
    Concat,
}

/// One of the functions, as the engine wants it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: Kind,
    signature: Signature,
}

/// The function, for expressions and for the planner.
pub(crate) fn function(kind: Kind) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Function { kind, signature: Signature::user_defined(Volatility::Immutable) }))
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Abs => "abs",
            Kind::Sign => "sign",
            Kind::Floor => "floor",
            Kind::Ceil => "ceil",
            Kind::Round => "round",
            Kind::Quotient | Kind::DecimalQuotient(..) => "quotient",
            Kind::Remainder => "remainder",
            Kind::Shift => "shift",
            Kind::DateTrunc => "date_trunc",
            Kind::Join => "join",
            Kind::Concat => "concat",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: any other type is refused")]
        let number = |kind: &DataType| match kind {
            DataType::Int64 | DataType::Decimal128(..) => Some(kind.clone()),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Null => Some(DataType::Int64),
            _ => None,
        };
        let text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::Null);
        let coerced = match (self.kind, types) {
            // Floating-point numbers, and digits, are of released numbers only: `after` puts the engine's own functions there.
            (Kind::Abs | Kind::Sign | Kind::Floor | Kind::Ceil | Kind::Round, [one]) => {
                number(one).or_else(|| one.is_floating().then_some(DataType::Float64)).map(|k| vec![k])
            }
            (Kind::Round, [one, digits]) if digits.is_integer() && one.is_numeric() => {
                Some(vec![one.clone(), DataType::Int64])
            }
            (Kind::DateTrunc, [unit, DataType::Date32 | DataType::Null]) if text(unit) => {
                Some(vec![DataType::Utf8, DataType::Date32])
            }
            (Kind::Concat, [_, ..]) => Some(vec![DataType::Utf8; types.len()]),
            (Kind::Join, [_, _]) => Some(vec![DataType::Utf8; 2]),
            // Put in by the analysis, after types were made equal.
            (Kind::Quotient | Kind::DecimalQuotient(..) | Kind::Remainder, [_, _]) | (Kind::Shift, [_, _, _]) => {
                Some(types.to_vec())
            }
            _ => None,
        };
        coerced.ok_or_else(|| DataFusionError::Plan(format!("{} takes other arguments", self.name())))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let same = || types.first().cloned().ok_or_else(|| DataFusionError::Plan("no argument".into()));
        match self.kind {
            Kind::Abs | Kind::Quotient | Kind::Remainder => same(),
            Kind::Sign | Kind::Floor | Kind::Ceil | Kind::Round => Ok(DataType::Int64),
            Kind::DecimalQuotient(precision, scale) => Ok(DataType::Decimal128(precision, scale)),
            Kind::Shift | Kind::DateTrunc => Ok(DataType::Date32),
            Kind::Join | Kind::Concat => Ok(DataType::Utf8),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let array = self.run(&arrays, args.return_field.data_type(), rows);
        array.map(ColumnarValue::Array).ok_or_else(|| DataFusionError::Plan(format!("{}: types", self.name())))
    }
}

impl Function {
    /// The result, or nothing where the arguments are not of the types that the planner made them.
    fn run(&self, args: &[ArrayRef], to: &DataType, rows: usize) -> Option<ArrayRef> {
        match (self.kind, args) {
            (Kind::Abs, [x]) => numbers(to, numbers_of(x)?.map(|v| v?.checked_abs())),
            (Kind::Sign, [x]) => numbers(to, numbers_of(x)?.map(|v| Some(v?.signum()))),
            (Kind::Floor | Kind::Ceil | Kind::Round, [x]) => {
                let one = 10_i128.checked_pow(u32::try_from(scale(x.data_type())).ok()?)?;
                numbers(to, numbers_of(x)?.map(|v| whole(self.kind, v?, one)))
            }
            (Kind::Quotient, [a, b]) => {
                numbers(to, numbers_of(a)?.zip(numbers_of(b)?).map(|(a, b)| a?.checked_div(b?)))
            }
            (Kind::Remainder, [a, b]) => {
                numbers(to, numbers_of(a)?.zip(numbers_of(b)?).map(|(a, b)| a?.checked_rem(b?)))
            }
            (Kind::DecimalQuotient(_, result), [a, b]) => {
                let up = i32::from(result) - scale(a.data_type()) + scale(b.data_type());
                let factor = 10_i128.checked_pow(up.unsigned_abs())?;
                let quotient = |a: i128, b: i128| {
                    if up >= 0 { a.checked_mul(factor)?.checked_div(b) } else { a.checked_div(b.checked_mul(factor)?) }
                };
                numbers(to, numbers_of(a)?.zip(numbers_of(b)?).map(|(a, b)| quotient(a?, b?)))
            }
            (Kind::Shift, [date, months, days]) => {
                let dates = date.as_primitive_opt::<Date32Type>()?.iter();
                let by = numbers_of(months)?.zip(numbers_of(days)?);
                Some(Arc::new(dates.zip(by).map(|(d, (m, n))| shifted(d?, m?, n?)).collect::<Date32Array>()))
            }
            (Kind::DateTrunc, [unit, date]) => {
                let units = unit.as_string_opt::<i32>()?.iter();
                let dates = date.as_primitive_opt::<Date32Type>()?.iter();
                Some(Arc::new(dates.zip(units).map(|(d, u)| truncated(u?, d?)).collect::<Date32Array>()))
            }
            (Kind::Join | Kind::Concat, texts) => {
                let texts = texts.iter().map(|t| t.as_string_opt::<i32>()).collect::<Option<Vec<_>>>()?;
                let parts = |row: usize| texts.iter().map(move |t| t.is_valid(row).then(|| t.value(row)));
                let row = |row: usize| joined(parts(row), self.kind == Kind::Concat);
                Some(Arc::new((0..rows).map(row).collect::<StringArray>()))
            }
            _ => None,
        }
    }
}

fn scale(kind: &DataType) -> i32 {
    if let DataType::Decimal128(_, scale) = kind { i32::from(*scale) } else { 0 }
}

fn numbers_of(array: &ArrayRef) -> Option<Box<dyn Iterator<Item = Option<i128>> + '_>> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: no other type is a number here")]
    match array.data_type() {
        DataType::Int32 => Some(Box::new(array.as_primitive_opt::<Int32Type>()?.iter().map(|v| Some(v?.into())))),
        DataType::Int64 => Some(Box::new(array.as_primitive_opt::<Int64Type>()?.iter().map(|v| Some(v?.into())))),
        DataType::Decimal128(..) => Some(Box::new(array.as_primitive_opt::<Decimal128Type>()?.iter())),
        _ => None,
    }
}

/// An array of the type `to`; what does not fit it is NULL.
fn numbers(to: &DataType, values: impl Iterator<Item = Option<i128>>) -> Option<ArrayRef> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: no other type is a number here")]
    Some(match to {
        DataType::Int32 => Arc::new(values.map(|v| i32::try_from(v?).ok()).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(values.map(|v| i64::try_from(v?).ok()).collect::<Int64Array>()),
        DataType::Decimal128(precision, scale) => {
            let end = 10_u128.checked_pow((*precision).into())?;
            let fits = values.map(|v| v.filter(|v| v.unsigned_abs() < end));
            Arc::new(fits.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale).ok()?)
        }
        _ => return None,
    })
}

/// `value` in units of 1/`one`, as a whole number.
pub(crate) fn whole(kind: Kind, value: i128, one: i128) -> Option<i128> {
    let (floor, rest) = (value.checked_div_euclid(one)?, value.checked_rem_euclid(one)?);
    let up = match kind {
        Kind::Ceil => rest > 0,
        Kind::Round if value < 0 => rest > one / 2,
        Kind::Round => one > 1 && rest >= one / 2,
        Kind::Abs
        | Kind::Sign
        | Kind::Floor
        | Kind::Quotient
        | Kind::DecimalQuotient(..)
        | Kind::Remainder
        | Kind::Shift
        | Kind::DateTrunc
        | Kind::Join
        | Kind::Concat => false,
    };
    floor.checked_add(i128::from(up))
}

fn date(days: i32) -> Option<NaiveDate> {
    NaiveDate::default().checked_add_signed(Duration::days(days.into()))
}

fn days(date: NaiveDate) -> Option<i32> {
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).ok().filter(|_| (1..=9999).contains(&date.year()))
}

/// The year of a day.
pub(crate) fn year(day: i32) -> Option<i32> {
    date(day).map(|d| d.year())
}

/// A day, so many months and then days later; the last day of a month where it has no such day.
pub(crate) fn shifted(day: i32, months: i128, later: i128) -> Option<i32> {
    let from = date(day)?;
    let by = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let month = if months < 0 { from.checked_sub_months(by)? } else { from.checked_add_months(by)? };
    let by = Days::new(u64::try_from(later.unsigned_abs()).ok()?);
    days(if later < 0 { month.checked_sub_days(by)? } else { month.checked_add_days(by)? })
}

/// The first day of the unit of time in which `day` lies; weeks begin on Monday.
pub(crate) fn truncated(unit: &str, day: i32) -> Option<i32> {
    let from = date(day)?;
    days(match unit.to_ascii_lowercase().as_str() {
        "year" => NaiveDate::from_ymd_opt(from.year(), 1, 1)?,
        "quarter" => NaiveDate::from_ymd_opt(from.year(), from.month0() / 3 * 3 + 1, 1)?,
        "month" => from.with_day(1)?,
        "week" => from.checked_sub_days(Days::new(from.weekday().num_days_from_monday().into()))?,
        "day" => from,
        _ => return None,
    })
}

fn joined<'t>(parts: impl Iterator<Item = Option<&'t str>>, pass_over_null: bool) -> Option<String> {
    let mut whole = String::new();
    for part in parts {
        let part = match part {
            None if pass_over_null => "",
            part => part?,
        };
        if whole.len() + part.len() > MAX_TEXT {
            return None;
        }
        whole += part;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> i32 {
        text.parse::<NaiveDate>().unwrap().signed_duration_since(NaiveDate::default()).num_days().try_into().unwrap()
    }

    #[test]
    fn whole_numbers_of_decimals() {
        // PostgreSQL 16: floor, ceil and round of numeric(…, 1).
        for (value, floor, ceil, round) in
            [(25, 2, 3, 3), (-25, -3, -2, -3), (24, 2, 3, 2), (-24, -3, -2, -2), (30, 3, 3, 3), (-26, -3, -2, -3)]
        {
            for (kind, expect) in [(Kind::Floor, floor), (Kind::Ceil, ceil), (Kind::Round, round)] {
                assert_eq!(whole(kind, value, 10), Some(expect), "{kind:?} {value}");
                assert_eq!(whole(kind, value, 1), Some(value), "{kind:?} {value}");
            }
        }
        assert_eq!(whole(Kind::Ceil, i128::MIN, 1), Some(i128::MIN));
    }

    #[test]
    fn dates_are_shifted_and_cut_as_the_calendar_says() {
        for (from, months, days, expect) in [
            ("2024-01-31", 1, 0, "2024-02-29"),
            ("2023-01-31", 1, 1, "2023-03-01"),
            ("2024-03-31", -1, 0, "2024-02-29"),
            ("2024-02-29", 12, 0, "2025-02-28"),
            ("2024-12-31", 0, 1, "2025-01-01"),
            ("0001-01-02", 0, -1, "0001-01-01"),
        ] {
            assert_eq!(shifted(day(from), months, days), Some(day(expect)), "{from} {months} {days}");
        }
        for (from, months, days) in [
            (day("9999-12-31"), 0, 1),
            (day("0001-01-01"), 0, -1),
            (day("2024-01-01"), i128::from(u32::MAX), 0),
            (day("2024-01-01"), i128::MIN, 0),
            (day("2024-01-01"), 0, i128::MAX),
            (i32::MAX, 0, 0),
            (i32::MIN, 0, 0),
        ] {
            assert_eq!(shifted(from, months, days), None, "{from} {months} {days}");
        }
        for (unit, from, expect) in [
            ("year", "2024-05-17", "2024-01-01"),
            ("quarter", "2024-05-17", "2024-04-01"),
            ("quarter", "2024-12-31", "2024-10-01"),
            ("MONTH", "2024-05-17", "2024-05-01"),
            ("week", "2024-05-19", "2024-05-13"),
            ("week", "2024-05-13", "2024-05-13"),
            ("day", "2024-05-17", "2024-05-17"),
        ] {
            assert_eq!(truncated(unit, day(from)), Some(day(expect)), "{unit} {from}");
        }
        // 0001-01-01 was a Monday.
        assert_eq!(truncated("week", day("0001-01-03")), Some(day("0001-01-01")));
        assert_eq!(truncated("hour", 0), None);
        assert_eq!(truncated("year", i32::MIN), None);
    }

    #[test]
    fn a_text_that_would_be_too_long_is_null() {
        let half = "x".repeat(MAX_TEXT / 2);
        assert_eq!(joined([Some("a"), None, Some("b")].into_iter(), true).as_deref(), Some("ab"));
        assert_eq!(joined([Some("a"), None].into_iter(), false), None);
        assert_eq!(joined([Some(half.as_str()), Some(&half)].into_iter(), false).map(|t| t.len()), Some(MAX_TEXT));
        assert_eq!(joined([Some(half.as_str()), Some(&half), Some("x")].into_iter(), true), None);
    }
}
