//! Which scalar expressions are admitted, and the range of those that are summed.
//!
//! An admitted expression is total: it fails on no value of its type, since a failure would tell of a row.
//! Ranges come from schema bounds by interval arithmetic over expressions whose columns are clamped first, so
//! that a redefined column has the range of its new definition and of nothing else.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "foreign enums: what is not named has no range, no part, no literal; `admit` names every variant"
)]

use datafusion_common::{ScalarValue, tree_node::TreeNode};
use datafusion_expr::{Expr, ExprSchemable, Operator, expr, lit};
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::MAX_MAGNITUDE,
};

use crate::relation::Relation;

use arrow::datatypes::DataType;

/// The most nodes of all expressions of a query after views and CTEs were put in place.
pub(crate) const MAX_NODES: usize = 4_000;
/// How deep an expression may be: what walks it recurses.
pub(crate) const MAX_DEPTH: usize = 256;
/// The most nodes of the arguments of one `coalesce`.
const MAX_COALESCE: usize = 100;
/// The longest LIKE pattern in bytes: a longer one may be too large an automaton on some path of the engine.
const MAX_PATTERN: usize = 256;
/// The largest literal position or length of a text function.
const MAX_POSITION: i64 = 1_000_000;

/// Whether an expression is at most [`MAX_DEPTH`] deep; looks without recursion.
pub(crate) fn shallow(expr: &Expr) -> bool {
    let mut left = vec![(expr, 1_usize)];
    while let Some((expr, depth)) = left.pop() {
        if depth > MAX_DEPTH {
            return false;
        }
        // The closure never fails, so neither does the walk; it visits direct children only.
        let _ = expr.apply_children(|child| {
            left.push((child, depth + 1));
            Ok(datafusion_common::tree_node::TreeNodeRecursion::Continue)
        });
    }
    true
}

/// How many nodes an expression has.
pub(crate) fn nodes(expr: &Expr) -> usize {
    let mut count = 0;
    // The closure never fails, so neither does the walk.
    let _ = expr.apply(|_| {
        count += 1;
        Ok(datafusion_common::tree_node::TreeNodeRecursion::Continue)
    });
    count
}

fn unsupported(construct: &str, instead: &str) -> Refusal {
    Refusal::new(Code::SqlUnsupported, format!("{construct} is not admitted: {instead}"))
}

impl Relation {
    fn kind_of(&self, expr: &Expr) -> Result<DataType, Refusal> {
        expr.get_type(self.schema()).map_err(|_| unsupported("an expression without a type", "give it a plain type"))
    }

    /// A condition on rows, admitted like any other expression.
    ///
    /// # Errors
    /// Those of [`admit`](Self::admit).
    pub(crate) fn admit_condition(&self, condition: Expr) -> Result<Expr, Refusal> {
        self.admit(condition)
    }

    /// The expression with literal casts evaluated and `coalesce` spelled out, if it is admitted.
    ///
    /// # Errors
    /// `sql_unsupported` or `column_not_permitted`, naming the construct and what to write instead.
    pub(crate) fn admit(&self, expr: Expr) -> Result<Expr, Refusal> {
        let boxed = |e: Box<Expr>| self.admit(*e).map(Box::new);
        Ok(match expr {
            Expr::Alias(alias) => self.admit(*alias.expr)?,
            Expr::Column(column) => {
                if self.fact(&column).is_none_or(|f| f.identity) {
                    let detail = format!("the patient column {column} can only be counted: count(DISTINCT {column})");
                    return Err(Refusal::new(Code::ColumnNotPermitted, detail));
                }
                Expr::Column(column)
            }
            Expr::Literal(value, metadata) => Expr::Literal(value, metadata),
            Expr::BinaryExpr(binary) => {
                self.admit_operator(&binary)?;
                Expr::BinaryExpr(expr::BinaryExpr::new(boxed(binary.left)?, binary.op, boxed(binary.right)?))
            }
            Expr::Like(like) => {
                let short = literal_text(&like.pattern).is_some_and(|pattern| pattern.len() <= MAX_PATTERN);
                if !short || like.escape_char.is_some() {
                    return Err(unsupported(
                        "LIKE with a computed or long pattern, or with ESCAPE",
                        "write the pattern as a literal of at most 256 bytes",
                    ));
                }
                Expr::Like(expr::Like { expr: boxed(like.expr)?, ..like })
            }
            Expr::Not(inner) => Expr::Not(boxed(inner)?),
            // Whether there is a patient at all, as after a LEFT JOIN, is no identity.
            Expr::IsNotNull(inner) if matches!(*inner, Expr::Column(_)) => Expr::IsNotNull(inner),
            Expr::IsNull(inner) if matches!(*inner, Expr::Column(_)) => Expr::IsNull(inner),
            Expr::IsNotNull(inner) => Expr::IsNotNull(boxed(inner)?),
            Expr::IsNull(inner) => Expr::IsNull(boxed(inner)?),
            Expr::IsTrue(inner) => Expr::IsTrue(boxed(inner)?),
            Expr::IsFalse(inner) => Expr::IsFalse(boxed(inner)?),
            Expr::IsUnknown(inner) => Expr::IsUnknown(boxed(inner)?),
            Expr::IsNotTrue(inner) => Expr::IsNotTrue(boxed(inner)?),
            Expr::IsNotFalse(inner) => Expr::IsNotFalse(boxed(inner)?),
            Expr::IsNotUnknown(inner) => Expr::IsNotUnknown(boxed(inner)?),
            Expr::Negative(inner) => {
                if self.kind_of(&inner)? != DataType::Int64 {
                    return Err(unsupported("minus of this type", "negate integers only"));
                }
                Expr::Negative(boxed(inner)?)
            }
            Expr::Between(between) => Expr::Between(expr::Between {
                expr: boxed(between.expr)?,
                negated: between.negated,
                low: boxed(between.low)?,
                high: boxed(between.high)?,
            }),
            Expr::Case(case) => Expr::Case(expr::Case {
                expr: case.expr.map(boxed).transpose()?,
                when_then_expr: case
                    .when_then_expr
                    .into_iter()
                    .map(|(when, then)| Ok((boxed(when)?, boxed(then)?)))
                    .collect::<Result<_, Refusal>>()?,
                else_expr: case.else_expr.map(boxed).transpose()?,
            }),
            Expr::Cast(cast) => self.admit_cast(cast)?,
            Expr::TryCast(cast) => self.admit_try_cast(cast)?,
            Expr::ScalarFunction(function) => self.admit_function(function)?,
            Expr::InList(list) => {
                let literals = list.list.into_iter().map(|item| match self.admit(item)? {
                    literal @ Expr::Literal(..) => Ok(literal),
                    _ => Err(unsupported("IN with a computed value", "list literals")),
                });
                let literals = literals.collect::<Result<_, _>>()?;
                Expr::InList(expr::InList { expr: boxed(list.expr)?, list: literals, negated: list.negated })
            }
            Expr::AggregateFunction(_) => {
                return Err(unsupported("an aggregate inside another expression", "aggregate once, across patients"));
            }
            Expr::SimilarTo(_) => return Err(unsupported("SIMILAR TO", "use LIKE")),
            Expr::WindowFunction(_) => return Err(unsupported("a window function", "use GROUP BY")),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => {
                return Err(unsupported("a subquery inside an expression", "write the condition on the row itself"));
            }
            Expr::GroupingSet(_) => return Err(unsupported("GROUPING SETS, ROLLUP or CUBE", "ask for one grouping")),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => {
                return Err(unsupported("a parameter", "write the value into the SQL"));
            }
            #[expect(deprecated, reason = "a variant of Expr")]
            Expr::Wildcard { .. } => return Err(unsupported("*", "name the columns")),
            Expr::OuterReferenceColumn(..)
            | Expr::Unnest(_)
            | Expr::HigherOrderFunction(_)
            | Expr::Lambda(_)
            | Expr::LambdaVariable(_) => {
                return Err(unsupported("this construct", "use columns, literals, CASE and arithmetic"));
            }
        })
    }

    fn admit_operator(&self, binary: &expr::BinaryExpr) -> Result<(), Refusal> {
        use Operator::{
            And, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or,
            Plus,
        };
        match binary.op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom => Ok(()),
            Plus | Minus | Multiply => match self.kind_of(&Expr::BinaryExpr(binary.clone()))? {
                // Integers wrap and decimals below 38 digits hold every result: neither fails.
                DataType::Int64 => Ok(()),
                DataType::Decimal128(precision, _) if precision < 38 => Ok(()),
                _ => Err(unsupported("arithmetic of these types", "use integers or short decimals")),
            },
            Divide | Modulo => match (&*binary.right, self.kind_of(&binary.left)?) {
                (Expr::Literal(ScalarValue::Int64(Some(1..)), _), DataType::Int64) => Ok(()),
                _ => Err(unsupported("division by anything but a positive integer literal", "divide released values")),
            },
            other => Err(unsupported(&format!("the operator {other}"), "use comparisons, AND, OR, + - * / %")),
        }
    }

    fn admit_cast(&self, cast: expr::Cast) -> Result<Expr, Refusal> {
        let to = cast.field.data_type().clone();
        if let Expr::Literal(value, _) = &*cast.expr {
            let value = value
                .cast_to(&to)
                .map_err(|_| Refusal::new(Code::SqlSyntax, format!("a literal is no value of the type {to}")))?;
            return Ok(lit(value));
        }
        let from = self.kind_of(&cast.expr)?;
        let total = match (&from, &to) {
            (from, to) if from == to => true,
            (DataType::Int32, DataType::Int64) => true,
            // Only row_number and rank make these: they count rows.
            (DataType::UInt64, DataType::Int64) => true,
            (DataType::UInt64, DataType::Decimal128(p, s)) => *s >= 0 && i16::from(*p) - i16::from(*s) >= 20,
            (DataType::Int32 | DataType::Int64, DataType::Decimal128(p, s)) => {
                *s >= 0 && i16::from(*p) - i16::from(*s) >= 19
            }
            (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
                t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
            }
            (DataType::Boolean, DataType::Int64 | DataType::Utf8) => true,
            (DataType::Int32 | DataType::Int64, DataType::Utf8) => true,
            // As `avg` of one patient's rows has it; a float is never a group key and never summed across patients.
            (DataType::Int32 | DataType::Int64 | DataType::Decimal128(..), DataType::Float64) => true,
            (DataType::Utf8 | DataType::Utf8View, DataType::Utf8 | DataType::Utf8View) => true,
            _ => false,
        };
        if !total {
            return Err(unsupported(&format!("a cast from {from} to {to}"), "it may fail; use TRY_CAST"));
        }
        Ok(Expr::Cast(expr::Cast { expr: Box::new(self.admit(*cast.expr)?), field: cast.field }))
    }

    /// TRY_CAST between types where the engine gives NULL for whatever does not fit. Dates and times are made of text only:
    /// a number far outside the calendar would be a date that later steps fail on.
    fn admit_try_cast(&self, cast: expr::TryCast) -> Result<Expr, Refusal> {
        use DataType::{Boolean, Date32, Decimal128, Float64, Int32, Int64, Utf8, Utf8View};
        let (from, to) = (self.kind_of(&cast.expr)?, cast.field.data_type().clone());
        let total = from == to
            || matches!(
                (&from, &to),
                (Utf8 | Utf8View, Int32 | Int64 | Float64 | Boolean | Date32 | Decimal128(..) | Utf8)
                    | (Int32 | Int64 | Decimal128(..) | Boolean, Int32 | Int64 | Float64 | Decimal128(..) | Utf8)
            );
        if !total {
            return Err(unsupported(&format!("TRY_CAST from {from} to {to}"), "cast numbers, booleans or text"));
        }
        Ok(Expr::TryCast(expr::TryCast { expr: Box::new(self.admit(*cast.expr)?), field: cast.field }))
    }

    fn admit_function(&self, function: expr::ScalarFunction) -> Result<Expr, Refusal> {
        let name = function.func.name().to_string();
        let args = function.args.into_iter().map(|a| self.admit(a)).collect::<Result<Vec<_>, _>>()?;
        let whole = |e: &Expr| match e {
            Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some(*n),
            _ => None,
        };
        match name.as_str() {
            // Spelled out, each argument stands twice: nested ones would double at each level.
            "coalesce" if args.iter().map(nodes).sum::<usize>() > MAX_COALESCE => {
                return Err(unsupported("a long or nested coalesce", "write it flatter"));
            }
            "coalesce" => return Ok(coalesce(args)),
            "nullif" | "lower" | "upper" | "starts_with" | "character_length" | "least" | "greatest" => {}
            "date_part" => {
                let part = args.first().and_then(literal_text);
                if part.as_deref().and_then(part_range).is_none() && part.as_deref() != Some("year") {
                    return Err(unsupported("this date part", "use year, quarter, month, week, day, dow or doy"));
                }
            }
            "left" | "substr" => {
                let fits = |(i, a): (usize, &Expr)| {
                    // A position counts from 1; a length may be 0.
                    let least = i64::from(name == "substr" && i == 0);
                    whole(a).is_some_and(|n| (least..=MAX_POSITION).contains(&n))
                };
                if args.len() < 2 || !args[1..].iter().enumerate().all(fits) {
                    return Err(unsupported(
                        "a computed, negative or huge position or length",
                        "write it as a literal",
                    ));
                }
            }
            other => return Err(unsupported(&format!("the function {other}"), "use the functions of the manual")),
        }
        Ok(Expr::ScalarFunction(expr::ScalarFunction { func: function.func, args }))
    }

    /// Whether the engine can run the expression at all: what it cannot must be refused before anything is charged.
    ///
    /// # Errors
    /// `sql_unsupported`.
    pub(crate) fn check_runs(&self, expr: &Expr) -> Result<(), Refusal> {
        let properties = datafusion_expr::execution_props::ExecutionProps::new();
        datafusion_physical_expr::create_physical_expr(expr, self.schema(), &properties, &Default::default())
            .map(|_| ())
            .map_err(|_| unsupported("an expression that the engine cannot run", "write it more simply"))
    }

    /// The expression with its columns clamped to their bounds, and the range of its values in units of
    /// 10^-scale of its type; `None` when the range is not known.
    pub(crate) fn bounded(&self, expr: &Expr) -> Option<(Expr, Range)> {
        let (expr, range) = self.range(expr)?;
        let limit = i128::from(MAX_MAGNITUDE);
        (range.lo >= -limit && range.hi <= limit).then_some((expr, range))
    }

    /// The clamped expression and its range, or nothing once it passes 10^30: arithmetic on ranges never overflows.
    fn range(&self, expr: &Expr) -> Option<(Expr, Range)> {
        let most = 10_i128.pow(30);
        self.range_of(expr).filter(|(_, range)| range.lo >= -most && range.hi <= most)
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
                let from = self.kind_of(&cast.expr).ok()?;
                let (inner, range) = if from == DataType::Boolean {
                    (Expr::clone(&cast.expr), Range { lo: 0, hi: 1 })
                } else {
                    self.range(&cast.expr)?
                };
                let up = scale_of(cast.field.data_type())?.checked_sub(scale_of(&from).unwrap_or(0))?;
                Some((
                    Expr::Cast(expr::Cast { expr: Box::new(inner), field: cast.field.clone() }),
                    range.times_ten_to(up)?,
                ))
            }
            Expr::BinaryExpr(binary) => {
                let (left, a) = self.range(&binary.left)?;
                let (right, b) = self.range(&binary.right)?;
                let scale = |e: &Expr| scale_of(&self.kind_of(e).ok()?);
                let result = scale(expr)?;
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
            Expr::ScalarFunction(function) if matches!(function.func.name(), "least" | "greatest") => {
                self.extreme(function)
            }
            Expr::ScalarFunction(function) if function.func.name() == "date_part" => {
                let (lo, hi) = part_range(&literal_text(function.args.first()?)?)?;
                Some((expr.clone(), Range { lo, hi }))
            }
            _ => None,
        }
    }

    /// `least` and `greatest` pass over NULL, so their range is that of any of their arguments.
    fn extreme(&self, function: &expr::ScalarFunction) -> Option<(Expr, Range)> {
        let parts = function.args.iter().map(|a| self.range(a)).collect::<Option<Vec<_>>>()?;
        let (args, ranges): (Vec<Expr>, Vec<Range>) = parts.into_iter().unzip();
        let literals: Vec<i128> = function.args.iter().filter_map(constant).collect();
        let (lows, highs) = (ranges.iter().map(|r| r.lo), ranges.iter().map(|r| r.hi));
        // With NULLs among the arguments the others decide, so only the outermost ends are sure; but a literal is never NULL.
        let (mut lo, mut hi) = (lows.min()?, highs.max()?);
        if function.func.name() == "least" {
            hi = literals.iter().copied().min().map_or(hi, |l| l.min(hi));
        } else {
            lo = literals.iter().copied().max().map_or(lo, |l| l.max(lo));
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
            whole = Some(
                whole.as_ref().map_or(range.clone(), |w| Range { lo: w.lo.min(range.lo), hi: w.hi.max(range.hi) }),
            );
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

/// A value of a number type as a literal of that type; `None` for other types.
fn bound_literal(kind: &DataType, value: i128) -> Option<Expr> {
    match kind {
        DataType::Int64 => Some(lit(i64::try_from(value).ok()?)),
        DataType::Int32 => Some(lit(i32::try_from(value).ok()?)),
        DataType::UInt64 => Some(lit(u64::try_from(value).ok()?)),
        DataType::Decimal128(p, s) => Some(lit(ScalarValue::Decimal128(Some(value), *p, *s))),
        _ => None,
    }
}

/// A closed range of integers in units of 10^-scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) lo: i128,
    pub(crate) hi: i128,
}

impl Range {
    fn negated(&self) -> Option<Self> {
        Some(Self { lo: self.hi.checked_neg()?, hi: self.lo.checked_neg()? })
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self { lo: self.lo.checked_add(other.lo)?, hi: self.hi.checked_add(other.hi)? })
    }

    fn times_ten_to(&self, exponent: u32) -> Option<Self> {
        let factor = 10_i128.checked_pow(exponent)?;
        Some(Self { lo: self.lo.checked_mul(factor)?, hi: self.hi.checked_mul(factor)? })
    }

    fn corners(&self, other: &Self, op: impl Fn(i128, i128) -> Option<i128>) -> Option<Self> {
        let all = [op(self.lo, other.lo)?, op(self.lo, other.hi)?, op(self.hi, other.lo)?, op(self.hi, other.hi)?];
        Some(Self { lo: *all.iter().min()?, hi: *all.iter().max()? })
    }
}

/// The scale of a number type: 0 for integers; `None` for anything else.
pub(crate) fn scale_of(kind: &DataType) -> Option<u32> {
    match kind {
        DataType::Int32 | DataType::Int64 | DataType::UInt64 => Some(0),
        DataType::Decimal128(_, scale) => u32::try_from(*scale).ok(),
        _ => None,
    }
}

/// The value of a literal of a scale of zero.
fn constant(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(value @ (ScalarValue::Int64(_) | ScalarValue::Int32(_)), _) => literal_range(value).map(|r| r.lo),
        _ => None,
    }
}

fn literal_range(value: &ScalarValue) -> Option<Range> {
    let value = match value {
        ScalarValue::Int64(Some(v)) => i128::from(*v),
        ScalarValue::Int32(Some(v)) => i128::from(*v),
        ScalarValue::Decimal128(Some(v), _, _) => *v,
        _ => return None,
    };
    Some(Range { lo: value, hi: value })
}

fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            Some(text.to_lowercase())
        }
        _ => None,
    }
}

fn part_range(part: &str) -> Option<(i128, i128)> {
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

/// `coalesce(a, b, c)` as a CASE, whose branches the analysis knows.
fn coalesce(mut args: Vec<Expr>) -> Expr {
    let last = args.pop().map(Box::new);
    if args.is_empty() {
        return last.map_or_else(|| lit(ScalarValue::Null), |e| *e);
    }
    let when_then_expr =
        args.into_iter().map(|a| (Box::new(Expr::IsNotNull(Box::new(a.clone()))), Box::new(a))).collect();
    Expr::Case(expr::Case { expr: None, when_then_expr, else_expr: last })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray},
        record_batch::RecordBatch,
    };
    use datafusion_common::tree_node::TreeNode;
    use sekisho_protocol::units::MicroRho;

    use crate::{example, plan::PrivatePlan, sql::arrow_schema};

    /// Rows of `stay` with the worst values that a snapshot holds.
    fn extremes() -> RecordBatch {
        let schema = example::schema();
        let numbers = [Some(i64::MIN), Some(i64::MAX), Some(0), Some(-1), Some(104), None];
        let long = "x".repeat(1 << 20);
        let texts = [Some(""), Some("é"), Some("9223372036854775808"), Some("-0.0e400"), Some(long.as_str()), None];
        let integers = || Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef;
        let text = || Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
        let most = 10_i128.pow(18) - 1;
        let decimals = Decimal128Array::from(vec![Some(most), Some(-most), Some(0), Some(1), Some(-1), None]);
        // 0001-01-01 and 9999-12-31: what a snapshot admits.
        let dates = Date32Array::from(vec![Some(-719_162), Some(2_932_896), Some(0), Some(-1), Some(1), None]);
        let bools = BooleanArray::from(vec![Some(true), Some(false), None, Some(true), Some(false), None]);
        let ids = Int64Array::from(vec![i64::MIN, -1, 0, 1, 2, i64::MAX]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids),
            text(),
            integers(),
            Arc::new(decimals.with_precision_and_scale(18, 1).unwrap()),
            integers(),
            integers(),
            text(),
            Arc::new(bools),
            Arc::new(dates),
        ];
        RecordBatch::try_new(arrow_schema(schema.table("stay").unwrap()), columns).unwrap()
    }

    /// Evaluates all of a plan's expressions over the extremes; `None` when the SQL is refused.
    fn fails(condition: &str) -> Option<String> {
        let sql = format!("SELECT sex, count({condition}) FROM stay WHERE ({condition}) IS NOT NULL GROUP BY sex");
        let rho = MicroRho::try_from(1000).unwrap();
        let plan = PrivatePlan::analyse(&sql, &example::schema(), &example::permit(3, 2), rho).ok()?;
        let batch = extremes();
        let schema = datafusion_common::DFSchema::try_from_qualified_schema("stay", &batch.schema()).unwrap();
        let mut expressions = Vec::new();
        plan.parts[0]
            .rows()
            .apply(|node| {
                expressions.extend(node.expressions());
                Ok(datafusion_common::tree_node::TreeNodeRecursion::Continue)
            })
            .unwrap();
        for expr in &expressions {
            let properties = datafusion_expr::execution_props::ExecutionProps::new();
            let run = datafusion_physical_expr::create_physical_expr(expr, &schema, &properties, &Default::default());
            if let Err(error) = run.and_then(|e| e.evaluate(&batch)).and_then(|v| v.into_array(batch.num_rows())) {
                return Some(error.to_string());
            }
        }
        Some(String::new())
    }

    #[test]
    fn what_is_admitted_fails_on_no_value() {
        for condition in [
            "age + days - free * 7",
            "-free",
            "free / 3 + free % 7",
            "weight + weight > 1.5",
            "weight * weight > 1",
            "weight - 0.1",
            "TRY_CAST(note AS bigint)",
            "TRY_CAST(note AS int)",
            "TRY_CAST(note AS date)",
            "TRY_CAST(note AS boolean)",
            "TRY_CAST(note AS double)",
            "TRY_CAST(note AS decimal(18, 3))",
            "TRY_CAST(free AS int)",
            "TRY_CAST(free AS decimal(10, 2))",
            "TRY_CAST(free AS text)",
            "TRY_CAST(weight AS bigint)",
            "TRY_CAST(weight AS text)",
            "CAST(free AS text)",
            "CAST(died AS bigint)",
            "CAST(free AS decimal(30, 4))",
            "left(note, 3)",
            "left(note, 0)",
            "substr(note, 1, 3)",
            "substring(note FROM 2)",
            "upper(note) = lower(note)",
            "character_length(note)",
            "starts_with(note, 'E11')",
            "note LIKE 'E1_%'",
            "note ILIKE '%x%'",
            "NOT (note LIKE '%_%_%_x')",
            "coalesce(free, age, 0)",
            "nullif(free, 0)",
            "nullif(note, '')",
            "date_part('year', admitted)",
            "date_part('week', admitted)",
            "date_part('doy', admitted)",
            "extract(month FROM admitted)",
            "admitted BETWEEN DATE '2024-01-01' AND DATE '2024-12-31'",
            "admitted - admitted > 30",
            "free IN (1, 2, 3)",
            "note NOT IN ('a', 'b')",
            "CASE free WHEN 1 THEN age WHEN 2 THEN days ELSE free END",
            "CASE WHEN died IS TRUE THEN 1 WHEN died IS UNKNOWN THEN 2 END",
            "free IS DISTINCT FROM age",
            "died AND age > 3 OR NOT died",
        ] {
            assert_eq!(fails(condition).as_deref(), Some(""), "{condition} (None: refused)");
        }
    }

    #[test]
    fn what_fails_on_some_value_is_refused() {
        let long = format!("note LIKE '{}%x'", "_".repeat(30_000));
        for condition in [
            "CAST(TRY_CAST(CASE WHEN age = 104 THEN 2000000000 ELSE 0 END AS date) AS text)",
            "TRY_CAST(TRY_CAST(free AS timestamp(0)) AS text)",
            "TRY_CAST(free AS time)",
            "TRY_CAST(note AS timestamp)",
            "CAST(admitted AS text)",
            "substr(note, -9223372036854775808, 1)",
            "substr(note, 0, 1)",
            "substr(note, 1, -1)",
            "left(note, -1)",
            "left(note, age)",
            long.as_str(),
            "note LIKE 'a!_' ESCAPE '!'",
            "note LIKE note",
            "note ~ 'a'",
            "free / 0",
            "free / age",
            "free % 0",
            "CAST(note AS bigint)",
            "CAST(free AS int)",
            "CAST(weight AS bigint)",
            "admitted + INTERVAL '1 day'",
            "CAST(free AS timestamp)",
            "weight * weight * weight",
        ] {
            assert_eq!(fails(condition), None, "{condition} is admitted");
        }
    }
}
