//! Interval arithmetic over expressions of released columns: for each expression two others, of its lower and of its upper end.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, StringArray},
    datatypes::{DataType, Float64Type},
};
use datafusion_common::{Column, DFSchema, DataFusionError};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility, expr, lit,
};

use crate::interval::Interval;

/// An operation on intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Least,
    Greatest,
    /// The smallest interval around both.
    Hull,
    Negate,
    Abs,
    SquareRoot,
    /// To so many digits after the point.
    Round(i32),
}

impl Op {
    fn operands(self) -> usize {
        match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Least | Self::Greatest | Self::Hull => 2,
            Self::Negate | Self::Abs | Self::SquareRoot | Self::Round(_) => 1,
        }
    }

    fn apply(self, a: Interval, b: Interval) -> Interval {
        match self {
            Self::Add => a.add(b),
            Self::Subtract => a.sub(b),
            Self::Multiply => a.mul(b),
            Self::Divide => a.div(b),
            Self::Least => a.min(b),
            Self::Greatest => a.max(b),
            Self::Hull => Interval { lower: a.lower.min(b.lower), upper: a.upper.max(b.upper), ..a },
            Self::Negate => a.neg(),
            Self::Abs => a.abs(),
            Self::SquareRoot => a.sqrt(),
            Self::Round(digits) => a.round(digits),
        }
    }
}

/// One end of an operation on intervals, as a function of the ends of its operands (lower, upper of each, `Float64`).
#[derive(Debug, PartialEq, Eq, Hash)]
struct End {
    op: Op,
    upper: bool,
    signature: Signature,
}

impl End {
    fn of(op: Op, upper: bool, args: Vec<Expr>) -> Expr {
        let types = vec![DataType::Float64; 2 * op.operands()];
        let signature = Signature::new(TypeSignature::Exact(types), Volatility::Immutable);
        ScalarUDF::from(Self { op, upper, signature }).call(args)
    }
}

impl ScalarUDFImpl for End {
    fn name(&self) -> &'static str {
        "__end"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let ends: Vec<&Float64Array> = arrays.iter().filter_map(|a| a.as_primitive_opt::<Float64Type>()).collect();
        let whole = DataFusionError::Execution("the ends of an interval are numbers".into());
        let one = |i: usize, row: usize| {
            let (lower, upper) = (ends.get(2 * i)?, ends.get(2 * i + 1)?);
            let there = lower.is_valid(row) && upper.is_valid(row);
            there.then(|| {
                let (lower, upper) = (lower.value(row), upper.value(row));
                Interval { estimate: f64::midpoint(lower, upper), lower, upper }
            })
        };
        let end = |row: usize| {
            let first = one(0, row)?;
            let second = if self.op.operands() == 2 { one(1, row)? } else { first };
            let result = self.op.apply(first, second);
            Some(if self.upper { result.upper } else { result.lower })
        };
        let rows = arrays.first().ok_or(whole)?.len();
        let values: Float64Array = (0..rows).map(end).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

/// The notes of several tables' rows as one text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Notes {
    signature: Signature,
}

impl Notes {
    pub(crate) fn new(texts: usize) -> Self {
        let signature = TypeSignature::Exact(vec![DataType::Utf8; texts]);
        Self { signature: Signature::new(signature, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Notes {
    fn name(&self) -> &'static str {
        "__notes"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts: Vec<&StringArray> = arrays.iter().filter_map(ArrayRef::as_string_opt::<i32>).collect();
        let note = |row: usize| {
            let mut all: Vec<&str> =
                texts.iter().filter(|t| t.is_valid(row)).map(|t| t.value(row)).filter(|t| !t.is_empty()).collect();
            all.dedup();
            Some(all.join("; "))
        };
        let rows = arrays.first().map_or(0, Array::len);
        let notes: StringArray = (0..rows).map(note).collect();
        Ok(ColumnarValue::Array(Arc::new(notes)))
    }
}

/// The lower and upper ends of `expr`, where they are known; `column` gives those of a column.
pub(crate) fn enclose(
    expr: &Expr,
    schema: &DFSchema,
    column: &dyn Fn(&Column) -> Option<(Expr, Expr)>,
) -> Option<(Expr, Expr)> {
    let of = |e: &Expr| enclose(e, schema, column);
    let unary = |op: Op, a: &Expr| {
        let (low, high) = of(a)?;
        let args = vec![low, high];
        Some((End::of(op, false, args.clone()), End::of(op, true, args)))
    };
    let joined = |op: Op, (al, ah): (Expr, Expr), (bl, bh): (Expr, Expr)| {
        let args = vec![al, ah, bl, bh];
        (End::of(op, false, args.clone()), End::of(op, true, args))
    };
    let all = |op: Op, exprs: &[&Expr]| {
        let (first, others) = exprs.split_first()?;
        others.iter().try_fold(of(first)?, |whole, e| Some(joined(op, whole, of(e)?)))
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "of everything else nothing is known")]
    match expr {
        Expr::Column(name) => column(name),
        Expr::Alias(alias) => of(&alias.expr),
        Expr::Literal(value, _) if value.data_type().is_numeric() => {
            let number = Expr::TryCast(expr::TryCast::new(Box::new(lit(value.clone())), DataType::Float64));
            Some((number.clone(), number))
        }
        Expr::Cast(expr::Cast { expr, field }) | Expr::TryCast(expr::TryCast { expr, field })
            if field.data_type().is_numeric() =>
        {
            let exact = matches!(field.data_type(), DataType::Float64);
            // A cast to fewer digits rounds by less than one.
            let one = || lit(1_f64);
            let (low, high) = of(expr)?;
            if exact { Some((low, high)) } else { Some((low - one(), high + one())) }
        }
        Expr::Negative(inner) => unary(Op::Negate, inner),
        Expr::BinaryExpr(b) => {
            let op = match b.op {
                Operator::Plus => Op::Add,
                Operator::Minus => Op::Subtract,
                Operator::Multiply => Op::Multiply,
                Operator::Divide => Op::Divide,
                _ => return None,
            };
            let ends = joined(op, of(&b.left)?, of(&b.right)?);
            // Division of integers cuts off what is after the point.
            let whole =
                |e: &Expr| !e.get_type(schema).is_ok_and(|t| t.is_floating() || matches!(t, DataType::Decimal128(..)));
            let cut = op == Op::Divide && whole(&b.left) && whole(&b.right);
            Some(if cut { (ends.0 - lit(1_f64), ends.1 + lit(1_f64)) } else { ends })
        }
        // Conditions look at released values: the result is one of the branches.
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            let null = |e: &Expr| matches!(e, Expr::Literal(v, _) if v.is_null());
            all(Op::Hull, &branches.map(|e| &**e).filter(|e| !null(e)).collect::<Vec<_>>())
        }
        Expr::ScalarFunction(function) => match (function.func.name(), function.args.as_slice()) {
            ("abs", [a]) => unary(Op::Abs, a),
            ("sqrt", [a]) => unary(Op::SquareRoot, a),
            ("round", [a]) => unary(Op::Round(0), a),
            ("round", [a, Expr::Literal(digits, _)]) => {
                let digits = digits.to_string().parse().ok()?;
                unary(Op::Round(digits), a)
            }
            ("nullif", [a, _]) => of(a),
            ("coalesce", args) => all(Op::Hull, &args.iter().collect::<Vec<_>>()),
            ("least", args) => all(Op::Least, &args.iter().collect::<Vec<_>>()),
            ("greatest", args) => all(Op::Greatest, &args.iter().collect::<Vec<_>>()),
            _ => None,
        },
        _ => None,
    }
}
