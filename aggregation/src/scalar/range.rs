//! The range of an expression's values, by interval arithmetic over expressions whose columns are clamped first.
//!
//! A redefined column so has the range of its new definition and of nothing else. Ranges are in units of 10^-scale of
//! the type, or days since 1970-01-01.

#![expect(clippy::wildcard_enum_match_arm, reason = "foreign enums: what is not named has no range")]

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::{Expr, Operator, expr, lit};
use sekisho_protocol::schema::MAX_MAGNITUDE;

use super::{
    function::{self, Kind},
    literal_text,
};
use crate::relation::Relation;

/// A closed range of integers in units of 10^-scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) lo: i128,
    pub(crate) hi: i128,
}

impl Range {
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// `n` or fewer of these values together.
    pub(crate) fn times(&self, n: i128) -> Option<Self> {
        Some(Self { lo: self.lo.min(0).checked_mul(n)?, hi: self.hi.max(0).checked_mul(n)? })
    }

    /// Whether sums across patients may be bounded by it.
    pub(crate) fn small(&self) -> bool {
        let limit = i128::from(MAX_MAGNITUDE);
        self.lo >= -limit && self.hi <= limit
    }

    fn negated(&self) -> Option<Self> {
        Some(Self { lo: self.hi.checked_neg()?, hi: self.lo.checked_neg()? })
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self { lo: self.lo.checked_add(other.lo)?, hi: self.hi.checked_add(other.hi)? })
    }

    pub(crate) fn times_ten_to(&self, exponent: u32) -> Option<Self> {
        let factor = 10_i128.checked_pow(exponent)?;
        Some(Self { lo: self.lo.checked_mul(factor)?, hi: self.hi.checked_mul(factor)? })
    }

    fn corners(&self, other: &Self, op: impl Fn(i128, i128) -> Option<i128>) -> Option<Self> {
        let all = [op(self.lo, other.lo)?, op(self.lo, other.hi)?, op(self.hi, other.lo)?, op(self.hi, other.hi)?];
        Some(Self { lo: *all.iter().min()?, hi: *all.iter().max()? })
    }

    fn map(&self, f: impl Fn(i128) -> Option<i128>) -> Option<Self> {
        Some(Self { lo: f(self.lo)?, hi: f(self.hi)? })
    }

    /// From minus to plus the largest distance from 0.
    fn mirrored(&self) -> Option<Self> {
        let most = self.lo.checked_abs()?.max(self.hi.checked_abs()?);
        Some(Self { lo: -most, hi: most })
    }
}

impl Relation {
    /// The expression with its columns clamped to their bounds, and the range of its values in units of
    /// 10^-scale of its type; `None` when the range is not known, or passes ±10^15.
    pub(crate) fn bounded(&self, expr: &Expr) -> Option<(Expr, Range)> {
        self.range(expr).filter(|(_, range)| range.small())
    }

    /// The clamped expression and its range, which lies within 10^30 and its type, so that arithmetic on ranges does not overflow and the
    /// engine's does not wrap. Else the range of the type, which `least` and `greatest` may narrow, or nothing.
    fn range(&self, expr: &Expr) -> Option<(Expr, Range)> {
        let kind = self.kind_of(expr).ok()?;
        let most = match kind {
            DataType::Int32 | DataType::Date32 => i128::from(i32::MAX),
            DataType::Int64 => i128::from(i64::MAX),
            _ => 10_i128.pow(30),
        };
        let fits = |(_, range): &(Expr, Range)| range.lo >= -most && range.hi <= most;
        self.range_of(expr).filter(fits).or_else(|| Some((expr.clone(), of_type(&kind)?)))
    }

    fn range_of(&self, expr: &Expr) -> Option<(Expr, Range)> {
        match expr {
            Expr::Column(column) => {
                let range = self.fact(column)?.range.clone()?;
                let kind = self.kind_of(expr).ok()?;
                let bound = |value: i128| bound_literal(&kind, value);
                let clamped = Expr::Case(expr::Case {
                    expr: None,
                    when_then_expr: vec![
                        (Box::new(expr.clone().lt(bound(range.lo)?)), Box::new(bound(range.lo)?)),
                        (Box::new(expr.clone().gt(bound(range.hi)?)), Box::new(bound(range.hi)?)),
                    ],
                    else_expr: Some(Box::new(expr.clone())),
                });
                Some((clamped, range))
            }
            Expr::Literal(value, _) => Some((expr.clone(), literal_range(value)?)),
            Expr::Negative(inner) => {
                let (inner, range) = self.range(inner)?;
                Some((Expr::Negative(Box::new(inner)), range.negated()?))
            }
            Expr::Case(case) => self.case_range(case),
            Expr::Cast(cast) => {
                let (inner, range) = self.cast_range(&cast.expr, cast.field.data_type())?;
                Some((Expr::Cast(expr::Cast { expr: Box::new(inner), field: cast.field.clone() }), range))
            }
            Expr::TryCast(cast) => {
                let (inner, range) = self.cast_range(&cast.expr, cast.field.data_type())?;
                Some((Expr::TryCast(expr::TryCast { expr: Box::new(inner), field: cast.field.clone() }), range))
            }
            Expr::BinaryExpr(binary) => self.operator_range(binary, expr),
            Expr::ScalarFunction(function) => self.function_range(function, expr),
            _ => None,
        }
    }

    /// A cast that widens the scale, or cuts digits off.
    fn cast_range(&self, inner: &Expr, to: &DataType) -> Option<(Expr, Range)> {
        let from = self.kind_of(inner).ok()?;
        let (inner, range) =
            if from == DataType::Boolean { (inner.clone(), Range { lo: 0, hi: 1 }) } else { self.range(inner)? };
        let (to, from) = (scale_of(to)?, scale_of(&from).unwrap_or(0));
        let range = match to.checked_sub(from) {
            Some(up) => range.times_ten_to(up)?,
            None => {
                let one = 10_i128.checked_pow(from - to)?;
                // Rounded or cut, whichever the engine does.
                Range { lo: range.lo.div_euclid(one), hi: range.hi.div_euclid(one) + 1 }
            }
        };
        Some((inner, range))
    }

    fn operator_range(&self, binary: &expr::BinaryExpr, whole: &Expr) -> Option<(Expr, Range)> {
        let (left, a) = self.range(&binary.left)?;
        let (right, b) = self.range(&binary.right)?;
        let scale = |e: &Expr| match self.kind_of(e).ok()? {
            // The difference of two dates is in days.
            DataType::Date32 => Some(0),
            kind => scale_of(&kind),
        };
        let result = scale(whole)?;
        let same = |r: &Range, e: &Expr| r.times_ten_to(result.checked_sub(scale(e)?)?);
        let range = match binary.op {
            Operator::Plus => same(&a, &binary.left)?.plus(&same(&b, &binary.right)?)?,
            Operator::Minus => {
                let b = same(&b, &binary.right)?;
                same(&a, &binary.left)?.plus(&b.negated()?)?
            }
            Operator::Multiply => a.corners(&b, i128::checked_mul)?,
            Operator::Divide if result == 0 => a.corners(&b, i128::checked_div)?,
            Operator::Modulo if result == 0 => Range { lo: 1 - b.hi, hi: b.hi - 1 },
            _ => return None,
        };
        Some((Expr::BinaryExpr(expr::BinaryExpr::new(Box::new(left), binary.op, Box::new(right))), range))
    }

    fn function_range(&self, function: &expr::ScalarFunction, whole: &Expr) -> Option<(Expr, Range)> {
        let args = function.args.as_slice();
        let rebuilt = |args: Vec<Expr>| {
            Expr::ScalarFunction(expr::ScalarFunction { func: std::sync::Arc::clone(&function.func), args })
        };
        let digits = |e: &Expr| scale_of(&self.kind_of(e).ok()?);
        match (function.func.name(), args) {
            ("least" | "greatest", _) => self.extreme(function),
            ("date_part", [part, date]) => {
                let part = literal_text(part)?;
                if part == "year" {
                    let (date, range) = self.range(date)?;
                    let range = range.map(|d| function::year(i32::try_from(d).ok()?).map(i128::from))?;
                    return Some((rebuilt(vec![args.first()?.clone(), date]), range));
                }
                let (lo, hi) = part_range(&part)?;
                Some((whole.clone(), Range { lo, hi }))
            }
            ("character_length" | "strpos", _) => None,
            ("sign", _) => Some((whole.clone(), Range { lo: -1, hi: 1 })),
            ("abs", [x]) => {
                let (x, range) = self.range(x)?;
                let hi = range.mirrored()?.hi;
                Some((rebuilt(vec![x]), Range { lo: range.lo.max(-range.hi).max(0), hi }))
            }
            (name @ ("floor" | "ceil" | "round"), [x]) => {
                let one = 10_i128.checked_pow(digits(x)?)?;
                let kind = match name {
                    "floor" => Kind::Floor,
                    "ceil" => Kind::Ceil,
                    _ => Kind::Round,
                };
                let (x, range) = self.range(x)?;
                Some((rebuilt(vec![x]), range.map(|v| function::whole(kind, v, one))?))
            }
            ("quotient", [a, b]) => {
                let up = (digits(whole)? + digits(b)?).checked_sub(digits(a)?)?;
                let (left, range) = self.range(a)?;
                let dividend = range.times_ten_to(up)?;
                // Nothing is divided by less than one unit; the divisor's range, where it is known, may say more.
                match self.range(b) {
                    Some((right, by)) if by.lo > 0 || by.hi < 0 => {
                        Some((rebuilt(vec![left, right]), dividend.corners(&by, i128::checked_div)?))
                    }
                    _ => Some((rebuilt(vec![left, b.clone()]), dividend.mirrored()?)),
                }
            }
            ("remainder", [a, b]) => {
                let (left, range) = self.range(a)?;
                Some((rebuilt(vec![left, b.clone()]), range.mirrored()?))
            }
            ("shift", [date, Expr::Literal(months, _), Expr::Literal(days, _)]) => {
                let (months, days) = (literal_range(months)?.lo, literal_range(days)?.lo);
                let (date, range) = self.range(date)?;
                let range = range.map(|d| function::shifted(i32::try_from(d).ok()?, months, days).map(i128::from))?;
                Some((rebuilt(std::iter::once(date).chain(args.iter().skip(1).cloned()).collect()), range))
            }
            ("date_trunc", [unit, date]) => {
                let name = literal_text(unit)?;
                let (date, range) = self.range(date)?;
                let range = range.map(|d| function::truncated(&name, i32::try_from(d).ok()?).map(i128::from))?;
                Some((rebuilt(vec![unit.clone(), date]), range))
            }
            _ => None,
        }
    }

    /// `least` and `greatest` pass over NULL, so their range is that of any of their arguments.
    fn extreme(&self, function: &expr::ScalarFunction) -> Option<(Expr, Range)> {
        let kinds = function.args.iter().map(|a| self.kind_of(a).ok()).collect::<Option<Vec<_>>>()?;
        if kinds.windows(2).any(|pair| pair.first() != pair.last()) {
            return None;
        }
        let parts = function.args.iter().map(|a| self.range(a)).collect::<Option<Vec<_>>>()?;
        let (args, ranges): (Vec<Expr>, Vec<Range>) = parts.into_iter().unzip();
        let literals = || function.args.iter().filter_map(constant);
        let (lows, highs) = (ranges.iter().map(|r| r.lo), ranges.iter().map(|r| r.hi));
        // With NULLs among the arguments the others decide, so only the outermost ends are sure; but a literal is never NULL.
        let (mut lo, mut hi) = (lows.min()?, highs.max()?);
        if function.func.name() == "least" {
            hi = literals().min().map_or(hi, |l| l.min(hi));
        } else {
            lo = literals().max().map_or(lo, |l| l.max(lo));
        }
        let range = Range { lo: lo.min(hi), hi: hi.max(lo) };
        let func = std::sync::Arc::clone(&function.func);
        Some((Expr::ScalarFunction(expr::ScalarFunction { func, args }), range))
    }

    fn case_range(&self, case: &expr::Case) -> Option<(Expr, Range)> {
        let mut whole: Option<Range> = None;
        let mut branch = |e: &Expr| -> Option<Expr> {
            if matches!(e, Expr::Literal(value, _) if value.is_null()) {
                return Some(e.clone());
            }
            let (e, range) = self.range(e)?;
            whole = Some(whole.as_ref().map_or(range.clone(), |w| w.or(&range)));
            Some(e)
        };
        let when_then_expr = case
            .when_then_expr
            .iter()
            .map(|(when, then)| Some((when.clone(), Box::new(branch(then)?))))
            .collect::<Option<Vec<_>>>()?;
        let else_expr = match &case.else_expr {
            Some(e) => Some(Box::new(branch(e)?)),
            None => None,
        };
        let range = whole?;
        Some((Expr::Case(expr::Case { expr: case.expr.clone(), when_then_expr, else_expr }), range))
    }
}

/// The range of a whole type, where that is too large to be summed: a smaller one bounds nothing that somebody chose.
fn of_type(kind: &DataType) -> Option<Range> {
    let range = match kind {
        DataType::Int64 => Range { lo: i64::MIN.into(), hi: i64::MAX.into() },
        DataType::Decimal128(precision, _) => {
            let most = 10_i128.checked_pow((*precision).into())? - 1;
            Range { lo: -most, hi: most }
        }
        _ => return None,
    };
    Some(range).filter(|r| !r.small())
}

/// A value of a number type as a literal of that type; `None` for other types.
fn bound_literal(kind: &DataType, value: i128) -> Option<Expr> {
    match kind {
        DataType::Int64 => Some(lit(i64::try_from(value).ok()?)),
        DataType::Int32 => Some(lit(i32::try_from(value).ok()?)),
        DataType::Date32 => Some(lit(ScalarValue::Date32(Some(i32::try_from(value).ok()?)))),
        DataType::Decimal128(p, s) => Some(lit(ScalarValue::Decimal128(Some(value), *p, *s))),
        _ => None,
    }
}

/// The scale of a number type: 0 for integers; `None` for anything else.
pub(crate) fn scale_of(kind: &DataType) -> Option<u32> {
    match kind {
        DataType::Int32 | DataType::Int64 => Some(0),
        DataType::Decimal128(_, scale) => u32::try_from(*scale).ok(),
        _ => None,
    }
}

/// The value of a literal of a number or a date, in units of its type.
fn constant(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(value, _) => literal_range(value).map(|r| r.lo),
        _ => None,
    }
}

fn literal_range(value: &ScalarValue) -> Option<Range> {
    let value = match value {
        ScalarValue::Int64(Some(v)) => i128::from(*v),
        ScalarValue::Int32(Some(v)) | ScalarValue::Date32(Some(v)) => i128::from(*v),
        ScalarValue::Decimal128(Some(v), _, _) => *v,
        _ => return None,
    };
    Some(Range { lo: value, hi: value })
}

pub(super) fn part_range(part: &str) -> Option<(i128, i128)> {
    Some(match part {
        "quarter" => (1, 4),
        "month" => (1, 12),
        "week" => (1, 53),
        "day" => (1, 31),
        "dow" => (0, 6),
        "doy" => (1, 366),
        _ => return None,
    })
}
