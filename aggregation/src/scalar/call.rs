//! Casts that cannot fail, and calls of functions.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::{Expr, expr, lit};
use sekisho_protocol::refusal::{Code, Refusal};

use super::{literal_text, nodes, range::part_range, raw_text, short_text, unsupported};
use crate::relation::Relation;

/// The most nodes of the arguments of one `coalesce`.
const MAX_COALESCE: usize = 100;
/// The largest literal position or length of a text function.
const MAX_POSITION: i64 = 1_000_000;

impl Relation {
    pub(super) fn cast(&self, cast: expr::Cast) -> Result<Expr, Refusal> {
        let to = cast.field.data_type().clone();
        if let Expr::Literal(value, _) = &*cast.expr {
            let value = value
                .cast_to(&to)
                .map_err(|_| Refusal::new(Code::SqlSyntax, format!("a literal is no value of the type {to}")))?;
            return self.total(lit(value));
        }
        let from = self.kind_of(&cast.expr)?;
        let total = match (&from, &to) {
            (from, to) if from == to => true,
            (DataType::Int32, DataType::Int64) => true,
            (DataType::Int32, DataType::Decimal128(p, s)) => *s >= 0 && i16::from(*p) - i16::from(*s) >= 10,
            (DataType::Int64, DataType::Decimal128(p, s)) => *s >= 0 && i16::from(*p) - i16::from(*s) >= 19,
            (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
                t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
            }
            (DataType::Boolean, DataType::Int64 | DataType::Utf8) => true,
            (DataType::Int32 | DataType::Int64, DataType::Utf8) => true,
            (DataType::Utf8 | DataType::Utf8View, DataType::Utf8 | DataType::Utf8View) => true,
            _ => false,
        };
        if !total {
            return Err(unsupported(&format!("a cast from {from} to {to}"), "it may fail; use TRY_CAST"));
        }
        Ok(Expr::Cast(expr::Cast { expr: Box::new(self.total(*cast.expr)?), field: cast.field }))
    }

    /// TRY_CAST between types where the engine gives NULL for whatever does not fit. Dates and times are made of text only:
    /// a number far outside the calendar would be a date that later steps fail on.
    pub(super) fn try_cast(&self, cast: expr::TryCast) -> Result<Expr, Refusal> {
        use DataType::{Boolean, Date32, Decimal128, Int32, Int64, Utf8, Utf8View};
        let (from, to) = (self.kind_of(&cast.expr)?, cast.field.data_type().clone());
        let total = from == to
            || matches!(
                (&from, &to),
                (Utf8 | Utf8View, Int32 | Int64 | Boolean | Date32 | Decimal128(_, 0..) | Utf8)
                    | (Int32 | Int64 | Decimal128(..) | Boolean, Int32 | Int64 | Decimal128(_, 0..) | Utf8)
            );
        if !total {
            return Err(unsupported(
                &format!("TRY_CAST from {from} to {to}"),
                "cast numbers, booleans or text, to bigint, decimal, text, boolean or (of text) date",
            ));
        }
        Ok(Expr::TryCast(expr::TryCast { expr: Box::new(self.total(*cast.expr)?), field: cast.field }))
    }

    pub(super) fn call(&self, function: expr::ScalarFunction) -> Result<Expr, Refusal> {
        let name = function.func.name().to_string();
        let args = function.args.into_iter().map(|a| self.total(a)).collect::<Result<Vec<_>, _>>()?;
        let unit = args.first().and_then(literal_text);
        let rest = args.get(1..).unwrap_or_default();
        match name.as_str() {
            // Spelled out, each argument stands twice: nested ones would double at each level.
            "coalesce" if args.iter().map(nodes).sum::<usize>() > MAX_COALESCE => {
                return Err(unsupported("a long or nested coalesce", "write it flatter"));
            }
            "coalesce" => return Ok(coalesce(args)),
            "nullif" | "lower" | "upper" | "starts_with" | "character_length" | "least" | "greatest" | "abs"
            | "sign" | "floor" | "ceil" | "round" | "concat" => {
                let rounds = matches!(name.as_str(), "abs" | "sign" | "floor" | "ceil" | "round");
                if rounds && (args.len() != 1 || self.kind_of(&args[0])?.is_floating()) {
                    return Err(unsupported(
                        "this use of a rounding function under an aggregate",
                        "give it one integer or decimal",
                    ));
                }
            }
            "date_part" => {
                let dated = args.len() == 2 && self.kind_of(&args[1])? == DataType::Date32;
                if !dated || (unit.as_deref().and_then(part_range).is_none() && unit.as_deref() != Some("year")) {
                    return Err(unsupported(
                        "this date part",
                        "use year, quarter, month, week, day, dow or doy of a date",
                    ));
                }
            }
            "date_trunc" => {
                if !matches!(unit.as_deref(), Some("year" | "quarter" | "month" | "week" | "day")) {
                    return Err(unsupported("this unit of date_trunc", "use year, quarter, month, week or day"));
                }
            }
            "left" | "right" | "substr" => {
                let fits = |(i, a): (usize, &Expr)| {
                    // A position counts from 1; a length may be 0.
                    let least = i64::from(name == "substr" && i == 0);
                    matches!(a, Expr::Literal(ScalarValue::Int64(Some(n)), _) if (least..=MAX_POSITION).contains(n))
                };
                if rest.is_empty() || !rest.iter().enumerate().all(fits) {
                    return Err(unsupported(
                        "a computed, negative or huge position or length",
                        "write it as a literal",
                    ));
                }
            }
            "strpos" | "btrim" | "ltrim" | "rtrim" | "replace" => {
                if (name == "replace" && !shrinks(&args)) || !rest.iter().all(short_text) {
                    return Err(unsupported(
                        &format!("the function {name} with such arguments"),
                        "write literals of at most 256 bytes, and replace by no longer a text",
                    ));
                }
            }
            other => return Err(unsupported(&format!("the function {other}"), "use the functions of the manual")),
        }
        Ok(Expr::ScalarFunction(expr::ScalarFunction { func: function.func, args }))
    }
}

/// Whether `replace` with these arguments makes no text longer.
pub(crate) fn shrinks(args: &[Expr]) -> bool {
    let length = |e: &Expr| raw_text(e).map_or(0, str::len);
    matches!(args, [_, from, to] if length(from) > 0 && raw_text(to).is_some() && length(to) <= length(from))
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
