//! Which scalar expressions are admitted.
//!
//! An admitted expression is total: it fails on no value of its type, since a failure would tell of a row. What the engine
//! does not do so is rewritten to a [`function`] of ours, or refused. There are no floating-point numbers: their sums depend on
//! the order of rows. The types of columns are bigint, decimal, text, date and boolean; what SQL makes of them
//! may also be a 32-bit integer.
//!
//! | construct | needs |
//! |---|---|
//! | `= <> < <= > >= AND OR NOT`, `IS [NOT] DISTINCT FROM`, `IS [NOT] NULL / TRUE / FALSE`, BETWEEN, CASE | nothing |
//! | `IN (…)` | literals |
//! | LIKE, ILIKE | a literal pattern of at most 256 bytes, no ESCAPE |
//! | `+ - *`, unary `-` | integers, which wrap, or decimals whose result has fewer than 38 digits |
//! | `/`, `%` | integers (`/` decimals too), not by a literal 0; NULL where the divisor is 0 |
//! | date `±` INTERVAL | literal months and days; NULL outside 0001-01-01 to 9999-12-31 |
//! | date `-` date | nothing; days |
//! | `a \|\| b`, `concat` | texts; NULL where the result passes 65,536 bytes |
//! | CAST | types where no value fails; TRY_CAST otherwise, to dates of text only, never to a float or a time |
//! | `coalesce` | at most 100 nodes of arguments |
//! | `left`, `right`, `substr` | literal positions from 1, and lengths from 0, to 1,000,000 |
//! | `strpos`, `position`, `trim`, `ltrim`, `rtrim` | what is searched for, or trimmed, as a literal of at most 256 bytes |
//! | `replace` | two such literals, the second no longer than the first |
//! | `date_part`, `extract` | year, quarter, month, week, day, dow or doy, as a literal, of a date |
//! | `date_trunc` | year, quarter, month, week or day, as a literal, of a date |
//! | `nullif`, `least`, `greatest`, `lower`, `upper`, `starts_with`, `character_length` | nothing |
//! | `abs`, `sign`, `floor`, `ceil`, `round` | an integer or decimal |

mod call;
pub(crate) mod function;
mod range;
#[cfg(test)]
mod tests;

use arrow::datatypes::DataType;
use datafusion_common::{
    ScalarValue,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{Expr, ExprSchemable, Operator, expr, lit};
use sekisho_protocol::refusal::{Code, Refusal};

use crate::{place, relation::Relation};
pub(crate) use call::shrinks;
use function::{Kind, function};
pub(crate) use range::{Range, scale_of};

/// The most nodes of all expressions of a query after views and CTEs were put in place, and of any one of them after the
/// definitions of its columns were put in place as well: the engine's optimiser does that, and each of a chain of
/// views that uses the last one's column twice doubles it.
pub(crate) const MAX_NODES: usize = 4_000;
/// How deep an expression may be: what walks it recurses.
pub(crate) const MAX_DEPTH: usize = 256;
/// The longest literal in bytes that a text is searched for: a longer LIKE pattern may be too large an automaton on some path
/// of the engine.
const MAX_PATTERN: usize = 256;

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
            Ok(TreeNodeRecursion::Continue)
        });
    }
    true
}

/// How many nodes an expression has.
pub(crate) fn nodes(expr: &Expr) -> usize {
    weighed(expr, |_| 1)
}

/// How many nodes an expression has, where a column counts for `weight`.
fn weighed(expr: &Expr, weight: impl Fn(&datafusion_common::Column) -> usize) -> usize {
    let mut count = 0_usize;
    // The closure never fails, so neither does the walk.
    let _ = expr.apply(|e| {
        count = count.saturating_add(if let Expr::Column(column) = e { weight(column) } else { 1 });
        Ok(TreeNodeRecursion::Continue)
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

    /// The expression as the engine may run it, if it is admitted: with literal casts evaluated, `coalesce` spelled out, and
    /// functions of ours where the engine's may fail.
    ///
    /// # Errors
    /// `sql_unsupported` or `column_not_permitted`, naming the construct, what to write instead, and the place.
    pub(crate) fn admit(&self, expr: Expr) -> Result<Expr, Refusal> {
        if !shallow(&expr) {
            return Err(unsupported(&format!("an expression more than {MAX_DEPTH} deep"), "write it flatter"));
        }
        let place = place::of(&expr);
        let admitted = self.total(expr)?;
        let parts = self.parts(&admitted);
        if parts > MAX_NODES {
            let construct =
                format!("an expression of more than {MAX_NODES} parts, its columns' definitions put in place");
            return Err(place::at(unsupported(&construct, "write it shorter"), place));
        }
        self.check_runs(&admitted).map_err(|refusal| place::at(refusal, place))?;
        Ok(admitted)
    }

    /// How many nodes an expression has once the definitions of its columns are put in place.
    pub(crate) fn parts(&self, expr: &Expr) -> usize {
        weighed(expr, |column| self.fact(column).map_or(1, |f| f.parts.max(1)))
    }

    /// The total expression, or a refusal with the place of the innermost part that is refused.
    fn total(&self, expr: Expr) -> Result<Expr, Refusal> {
        let place = place::of(&expr);
        self.total_of(expr).map_err(|refusal| place::at(refusal, place))
    }

    fn total_of(&self, expr: Expr) -> Result<Expr, Refusal> {
        let boxed = |e: Box<Expr>| self.total(*e).map(Box::new);
        Ok(match expr {
            Expr::Alias(alias) => self.total(*alias.expr)?,
            Expr::Column(column) => {
                if self.known(&column)?.identity {
                    let detail = format!("the patient column {column} can only be counted: count(DISTINCT {column})");
                    return Err(Refusal::new(Code::ColumnNotPermitted, detail));
                }
                Expr::Column(column)
            }
            Expr::Literal(value, metadata) => {
                if !plain(&value) {
                    let kind = value.data_type();
                    return Err(unsupported(
                        &format!("a literal of the type {kind}"),
                        "write a bigint, a decimal, a text, a date or a boolean",
                    ));
                }
                Expr::Literal(value, metadata)
            }
            Expr::BinaryExpr(binary) => self.operator(binary)?,
            Expr::Like(like) => {
                if !short_text(&like.pattern) || like.escape_char.is_some() {
                    return Err(unsupported(
                        "LIKE with a computed or long pattern, or with ESCAPE",
                        "write the pattern as a literal of at most 256 bytes",
                    ));
                }
                Expr::Like(expr::Like { expr: boxed(like.expr)?, ..like })
            }
            Expr::Not(inner) => Expr::Not(boxed(inner)?),
            Expr::IsNotNull(inner) => Expr::IsNotNull(self.asked_for(inner)?),
            Expr::IsNull(inner) => Expr::IsNull(self.asked_for(inner)?),
            Expr::IsTrue(inner) => Expr::IsTrue(boxed(inner)?),
            Expr::IsFalse(inner) => Expr::IsFalse(boxed(inner)?),
            Expr::IsUnknown(inner) => Expr::IsUnknown(boxed(inner)?),
            Expr::IsNotTrue(inner) => Expr::IsNotTrue(boxed(inner)?),
            Expr::IsNotFalse(inner) => Expr::IsNotFalse(boxed(inner)?),
            Expr::IsNotUnknown(inner) => Expr::IsNotUnknown(boxed(inner)?),
            Expr::Negative(inner) => {
                let kind = self.kind_of(&inner)?;
                if !matches!(kind, DataType::Int32 | DataType::Int64 | DataType::Decimal128(..)) {
                    return Err(unsupported("minus of this type", "negate integers and decimals only"));
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
            Expr::Cast(cast) => self.cast(cast)?,
            Expr::TryCast(cast) => self.try_cast(cast)?,
            Expr::ScalarFunction(function) => self.call(function)?,
            Expr::InList(list) => {
                let literals = list.list.into_iter().map(|item| {
                    let item = self.total(item)?;
                    let refuse = || unsupported("IN with a computed value", "list literals");
                    if matches!(item, Expr::Literal(..)) { Ok(item) } else { Err(refuse()) }
                });
                let literals = literals.collect::<Result<_, _>>()?;
                Expr::InList(expr::InList { expr: boxed(list.expr)?, list: literals, negated: list.negated })
            }
            Expr::AggregateFunction(_) => {
                return Err(unsupported("an aggregate inside another expression", "aggregate once, across patients"));
            }
            Expr::SimilarTo(_) => return Err(unsupported("SIMILAR TO", "use LIKE")),
            Expr::WindowFunction(_) => {
                return Err(unsupported("a window function inside another expression", "name it in a subquery first"));
            }
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

    /// What IS NULL is asked of. Whether there is a patient at all, as after a LEFT JOIN, is no identity.
    fn asked_for(&self, inner: Box<Expr>) -> Result<Box<Expr>, Refusal> {
        if let Expr::Column(column) = &*inner {
            self.known(column)?;
            return Ok(inner);
        }
        self.total(*inner).map(Box::new)
    }

    fn operator(&self, binary: expr::BinaryExpr) -> Result<Expr, Refusal> {
        use Operator::{
            And, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or,
            Plus, StringConcat,
        };
        let op = binary.op;
        let both = |left: Expr, right: Expr| Ok::<_, Refusal>((self.total(left)?, self.total(right)?));
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: any other operator is refused")]
        match op {
            Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom => {}
            Plus | Minus | Multiply | Divide | Modulo => return self.arithmetic(binary),
            StringConcat => {
                let (left, right) = both(*binary.left, *binary.right)?;
                if self.kind_of(&left)? != DataType::Utf8 || self.kind_of(&right)? != DataType::Utf8 {
                    return Err(unsupported("|| of anything but texts", "CAST(… AS text) first"));
                }
                return Ok(call_of(Kind::Join, vec![left, right]));
            }
            other => return Err(unsupported(&format!("the operator {other}"), "use comparisons, AND, OR, + - * / %")),
        }
        let (left, right) = both(*binary.left, *binary.right)?;
        Ok(Expr::BinaryExpr(expr::BinaryExpr::new(Box::new(left), op, Box::new(right))))
    }

    fn arithmetic(&self, binary: expr::BinaryExpr) -> Result<Expr, Refusal> {
        use Operator::{Divide, Minus, Modulo, Plus};
        let kind = self.kind_of(&Expr::BinaryExpr(binary.clone()))?;
        let expr::BinaryExpr { left, op, right } = binary;
        if matches!(op, Plus | Minus) && kind == DataType::Date32 {
            let (date, by) = if op == Plus && interval(&left).is_some() { (right, left) } else { (left, right) };
            let Some((months, days)) = interval(&by) else {
                return Err(unsupported("a computed interval, or one of hours", "add INTERVAL 'n' DAY, MONTH or YEAR"));
            };
            let sign = if op == Minus { -1 } else { 1 };
            let by = [lit(sign * i64::from(months)), lit(sign * i64::from(days))];
            let date = self.total(*date)?;
            if self.kind_of(&date)? != DataType::Date32 {
                return Err(unsupported("arithmetic of these types", "add intervals to dates"));
            }
            return Ok(call_of(Kind::Shift, std::iter::once(date).chain(by).collect()));
        }
        let (left, right) = (self.total(*left)?, self.total(*right)?);
        let (a, b) = (self.kind_of(&left)?, self.kind_of(&right)?);
        let plain = |left, right| Expr::BinaryExpr(expr::BinaryExpr::new(Box::new(left), op, Box::new(right)));
        let divides = matches!(op, Divide | Modulo);
        if divides && matches!(&right, Expr::Literal(v, _) if v.is_null() || zero(v)) {
            return Err(unsupported("division by a literal 0 or NULL", "divide by something else"));
        }
        let whole = |kind: &DataType| matches!(kind, DataType::Int32 | DataType::Int64);
        match (&kind, op) {
            // Nothing fails by a literal above 0, and the engine's own division is the fastest.
            (DataType::Int64, Divide | Modulo) if matches!(right, Expr::Literal(ScalarValue::Int64(Some(1..)), _)) => {
                Ok(plain(left, right))
            }
            (kind, Divide) if whole(kind) && a == *kind && b == *kind => Ok(call_of(Kind::Quotient, vec![left, right])),
            (kind, Modulo) if whole(kind) && a == *kind && b == *kind => {
                Ok(call_of(Kind::Remainder, vec![left, right]))
            }
            (DataType::Decimal128(precision, scale), Divide)
                if matches!((&a, &b), (DataType::Decimal128(..), DataType::Decimal128(..))) =>
            {
                Ok(call_of(Kind::DecimalQuotient(*precision, *scale), vec![left, right]))
            }
            (_, Divide | Modulo) => {
                Err(unsupported("division of these types", "divide integers or decimals, or released values"))
            }
            // Integers wrap and decimals below 38 digits hold every result: neither fails.
            (kind, _) if whole(kind) => Ok(plain(left, right)),
            (DataType::Decimal128(precision, _), _) if *precision < 38 => Ok(plain(left, right)),
            _ => Err(unsupported("arithmetic of these types", "use integers or short decimals")),
        }
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
}

/// Whether a literal has one of the types that columns and their expressions have.
fn plain(value: &ScalarValue) -> bool {
    matches!(
        value,
        ScalarValue::Null
            | ScalarValue::Boolean(_)
            | ScalarValue::Int32(_)
            | ScalarValue::Int64(_)
            | ScalarValue::Utf8(_)
            | ScalarValue::Utf8View(_)
            | ScalarValue::Date32(_)
            | ScalarValue::Decimal128(_, _, 0..)
    )
}

fn zero(value: &ScalarValue) -> bool {
    matches!(value, ScalarValue::Int32(Some(0)) | ScalarValue::Int64(Some(0)) | ScalarValue::Decimal128(Some(0), _, _))
}

/// The months and days of a literal interval without hours.
#[expect(clippy::wildcard_enum_match_arm, reason = "foreign enums: nothing else is such an interval")]
fn interval(expr: &Expr) -> Option<(i32, i32)> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(v)), _) if v.nanoseconds == 0 => Some((v.months, v.days)),
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => Some((*months, 0)),
        Expr::Literal(ScalarValue::IntervalDayTime(Some(v)), _) if v.milliseconds == 0 => Some((0, v.days)),
        // `date + 30`: the planner makes it seconds, a duration, an interval.
        Expr::Cast(to_interval) => match &*to_interval.expr {
            Expr::Cast(to_duration) => match &*to_duration.expr {
                Expr::BinaryExpr(expr::BinaryExpr { left, op: Operator::Multiply, right }) => match (&**left, &**right)
                {
                    (Expr::Literal(ScalarValue::Int64(Some(days)), _), Expr::Literal(seconds, _))
                        if *seconds == ScalarValue::Int64(Some(24 * 60 * 60)) =>
                    {
                        Some((0, i32::try_from(*days).ok()?))
                    }
                    _ => None,
                },
                _ => None,
            },
            inner => interval(inner),
        },
        _ => None,
    }
}

fn call_of(kind: Kind, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(expr::ScalarFunction { func: function(kind), args })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign enums: nothing else is a literal text")]
fn raw_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Some(text),
        _ => None,
    }
}

fn literal_text(expr: &Expr) -> Option<String> {
    raw_text(expr).map(str::to_lowercase)
}

fn short_text(expr: &Expr) -> bool {
    raw_text(expr).is_some_and(|text| text.len() <= MAX_PATTERN)
}
