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
pub(crate) const MAX_NODES: usize = 20_000;

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
                if !matches!(*like.pattern, Expr::Literal(..)) {
                    return Err(unsupported("LIKE with a computed pattern", "write the pattern as a literal"));
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
            Expr::TryCast(cast) => Expr::TryCast(expr::TryCast { expr: boxed(cast.expr)?, field: cast.field }),
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
            (DataType::Int32 | DataType::Int64, DataType::Decimal128(p, s)) => {
                *s >= 0 && i16::from(*p) - i16::from(*s) >= 19
            }
            (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
                t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
            }
            (DataType::Boolean, DataType::Int64 | DataType::Utf8) => true,
            (DataType::Int32 | DataType::Int64 | DataType::Date32, DataType::Utf8) => true,
            (DataType::Utf8 | DataType::Utf8View, DataType::Utf8 | DataType::Utf8View) => true,
            _ => false,
        };
        if !total {
            return Err(unsupported(&format!("a cast from {from} to {to}"), "it may fail; use TRY_CAST"));
        }
        Ok(Expr::Cast(expr::Cast { expr: Box::new(self.admit(*cast.expr)?), field: cast.field }))
    }

    fn admit_function(&self, function: expr::ScalarFunction) -> Result<Expr, Refusal> {
        let name = function.func.name().to_string();
        let args = function.args.into_iter().map(|a| self.admit(a)).collect::<Result<Vec<_>, _>>()?;
        let whole = |e: &Expr| match e {
            Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some(*n),
            _ => None,
        };
        match name.as_str() {
            "coalesce" => return Ok(coalesce(args)),
            "nullif" | "lower" | "upper" | "starts_with" | "character_length" | "least" | "greatest" => {}
            "date_part" => {
                let part = args.first().and_then(literal_text);
                if part.as_deref().and_then(part_range).is_none() && part.as_deref() != Some("year") {
                    return Err(unsupported("this date part", "use year, quarter, month, week, day, dow or doy"));
                }
            }
            "left" | "substr" => {
                let last = args.last().and_then(whole);
                if args.len() < 2 || args[1..].iter().any(|a| whole(a).is_none()) || last.is_none_or(|n| n < 0) {
                    return Err(unsupported("a computed or negative length", "write lengths as literals"));
                }
            }
            other => return Err(unsupported(&format!("the function {other}"), "use the functions of the manual")),
        }
        Ok(Expr::ScalarFunction(expr::ScalarFunction { func: function.func, args }))
    }

    /// The expression with its columns clamped to their bounds, and the range of its values in units of
    /// 10^-scale of its type; `None` when the range is not known.
    pub(crate) fn bounded(&self, expr: &Expr) -> Option<(Expr, Range)> {
        let (expr, range) = self.range(expr)?;
        let limit = i128::from(MAX_MAGNITUDE);
        (range.lo >= -limit && range.hi <= limit).then_some((expr, range))
    }

    fn range(&self, expr: &Expr) -> Option<(Expr, Range)> {
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
                Some((Expr::Negative(Box::new(inner)), Range { lo: -range.hi, hi: -range.lo }))
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
                        same(&a, &binary.left)?.plus(&Range { lo: -b.hi, hi: -b.lo })?
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
        let (lows, highs) = (ranges.iter().map(|r| r.lo), ranges.iter().map(|r| r.hi));
        // With a NULL among the arguments the others decide: only the outermost ends are sure.
        let range = Range { lo: lows.min()?, hi: highs.max()? };
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
        DataType::Int32 | DataType::Int64 => Some(0),
        DataType::Decimal128(_, scale) => u32::try_from(*scale).ok(),
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
