//! Steps over one patient's rows: GROUP BY the patient, and windows PARTITION BY the patient.
//!
//! A step's result is a function of the set of the patient's rows, never of the order in which they arrive, which a join or a
//! parallel scan may change with other patients' rows. Sums are exact ([`exact`]). A window function whose result depends
//! on the order of rows that ORDER BY holds for equal gets *tie-breakers*: the other columns of its input that the query
//! uses, in their order. Rows equal in all of those are interchangeable: nothing that is released tells them apart. A column that the query
//! does not use is none, so that the query needs no permission for it, and no value of it decides anything.
//!
//! | function | aggregate | window | ties |
//! |---|---|---|---|
//! | `count(*)`, `count(x)`, `count(patient)` | also DISTINCT | yes | ROWS frames |
//! | `sum(x)`, `avg(x)` | integers, decimals of at most 22 digits or with a range | the same | ROWS frames |
//! | `min(x)`, `max(x)` | any type | any type | ROWS frames |
//! | `bool_and(x)`, `bool_or(x)` | yes | no | |
//! | `rank()`, `dense_rank()` | | yes | none: ties share a rank |
//! | `row_number()` | | yes | always |
//! | `lag(x, n)`, `lead(x, n)` | | a literal n from 1 to 10^6, no default | always |
//! | `first_value(x)`, `last_value(x)` | | ROWS frames; a default frame is one | always |
//!
//! Aggregates may have FILTER. A frame is ROWS with literal offsets to 10^6, UNBOUNDED or CURRENT ROW; or RANGE with the latter
//! two. Anything else is refused by name: variances need floating-point numbers, for one.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::{
    Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Window, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    expr::{AggregateFunction, Sort, WindowFunction},
    try_cast,
};
use sekisho_protocol::refusal::{Code, Refusal};

use super::{Fact, NESTED, Relation, Walk, cannot_build, different, exact, fact_of, unsupported};
use crate::{domain::Image, place, scalar::Range};

/// The largest count of one patient's rows for which a range is promised.
const MAX_COUNT: i128 = 1_000_000_000;

/// An aggregate over a patient's rows as the engine runs it.
struct Step {
    function: Arc<AggregateUDF>,
    args: Vec<Expr>,
    fact: Fact,
    /// What the result is cast to afterwards.
    then: Option<DataType>,
}

impl Walk<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Relation, Refusal> {
        let input = self.relation(&aggregate.input)?;
        let (mut groups, mut facts) = (Vec::new(), Vec::new());
        for expr in different(&aggregate.group_expr) {
            let (expr, fact) = self.passed(expr, &input)?;
            self.uses(&expr, &input);
            groups.push(expr);
            facts.push(fact);
        }
        let Some(patient) = facts.iter().position(|f| f.patient) else {
            return Err(unsupported(format!(
                "{NESTED} is not admitted: GROUP BY the patient first, then aggregate across patients once"
            )));
        };
        let rows = (groups.len() == 1).then_some(1);
        let (mut aggregates, mut after) = (Vec::new(), vec![None; groups.len()]);
        for expr in &aggregate.aggr_expr {
            let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
                return Err(unsupported(format!(
                    "{expr} is not admitted per patient: use count, sum, avg, min or max"
                )));
            };
            let placed = |refusal| place::at(refusal, place::of(expr));
            let (function, fact, then) = self.of_one_patient(function, &input).map_err(placed)?;
            aggregates.push(self.named(Expr::AggregateFunction(function), expr, then.is_some()));
            after.push(then.map(|kind| (kind, expr.schema_name().to_string())));
            facts.push(fact);
        }
        let plan =
            LogicalPlanBuilder::from(input.plan).aggregate(groups, aggregates).and_then(LogicalPlanBuilder::build);
        let plan = afterwards(plan.map_err(cannot_build)?, after)?;
        Ok(Relation { plan, facts, patient: Some(patient), rows, ordered: false })
    }

    /// A step under the name of the `original`, or under a hidden one where it is not done yet.
    fn named(&mut self, step: Expr, original: &Expr, hidden: bool) -> Expr {
        self.hidden += usize::from(hidden);
        step.alias(if hidden { format!("__step_{}", self.hidden) } else { original.schema_name().to_string() })
    }

    /// An aggregate over one patient's rows, what is known of it, and what it is cast to afterwards.
    fn of_one_patient(
        &mut self,
        function: AggregateFunction,
        input: &Relation,
    ) -> Result<(AggregateFunction, Fact, Option<DataType>), Refusal> {
        let AggregateFunction { func, mut params } = function;
        if !matches!(func.name(), "count" | "sum" | "avg" | "min" | "max" | "bool_and" | "bool_or") {
            return Err(unsupported(format!(
                "{} is not admitted per patient: use count, sum, avg, min, max, bool_and or bool_or",
                func.name()
            )));
        }
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported(
                "ORDER BY inside an aggregate is not admitted: use first_value() OVER (PARTITION BY patient …)",
            ));
        }
        let mut step = self.step(&func, params.args, params.distinct, input)?;
        params.filter = self.filtered(params.filter, input, &mut step.fact)?;
        params.args = step.args;
        Ok((AggregateFunction { func: step.function, params }, step.fact, step.then))
    }

    /// The condition of FILTER.
    fn filtered(
        &mut self,
        filter: Option<Box<Expr>>,
        input: &Relation,
        fact: &mut Fact,
    ) -> Result<Option<Box<Expr>>, Refusal> {
        let Some(filter) = filter else { return Ok(None) };
        let filter = input.admit_condition(*filter)?;
        self.uses(&filter, input);
        fact.parts = fact.parts.saturating_add(input.parts(&filter));
        Ok(Some(Box::new(filter)))
    }

    /// Arguments that are admitted; the patient only to be counted.
    fn arguments(&mut self, name: &str, args: Vec<Expr>, input: &Relation) -> Result<Vec<Expr>, Refusal> {
        let mut admitted = Vec::with_capacity(args.len());
        for argument in args {
            let patient = input.is_patient(&argument);
            if patient && name != "count" {
                return Err(Refusal::new(Code::ColumnNotPermitted, "the patient column can only be counted"));
            }
            let argument = if patient { argument } else { input.admit(argument)? };
            self.uses(&argument, input);
            admitted.push(argument);
        }
        Ok(admitted)
    }

    fn step(
        &mut self,
        func: &Arc<AggregateUDF>,
        args: Vec<Expr>,
        distinct: bool,
        input: &Relation,
    ) -> Result<Step, Refusal> {
        let name = func.name();
        if distinct && name != "count" {
            return Err(unsupported(format!("DISTINCT in {name} is not admitted: only count(DISTINCT …) is")));
        }
        let args = self.arguments(name, args, input)?;
        let parts = args.iter().fold(1_usize, |n, a| n.saturating_add(input.parts(a)));
        let mut from = BTreeSet::new();
        for argument in &args {
            from.extend(fact_of(argument, input)?.from);
        }
        let mut step = Step { function: Arc::clone(func), args, fact: Fact::default(), then: None };
        match (name, step.args.as_slice()) {
            ("count", _) => step.fact = counts(),
            ("min" | "max", [argument]) => step.fact = nullable(fact_of(argument, input)?),
            ("bool_and" | "bool_or", [_]) => step.fact.image = Some(Image::bools()),
            ("sum" | "avg", [argument]) => {
                let kind = argument.get_type(input.schema()).map_err(cannot_build)?;
                let (mean, bounded) = (name == "avg", input.bounded(argument));
                let (clamped, range) = bounded.map_or((argument.clone(), None), |(e, r)| (e, Some(r)));
                let exact = exact::of_patient(mean, clamped, &kind, range.is_some()).ok_or_else(|| {
                    unsupported(format!(
                        "{name} of {kind} without a range is not admitted: CAST it to a shorter decimal"
                    ))
                })?;
                let range = range.and_then(|r| if mean { r.times_ten_to(4) } else { r.times(MAX_COUNT) });
                step.fact.range = range.filter(Range::small);
                step.function = exact.function;
                step.args = vec![exact.argument];
                step.then = exact.then;
            }
            (other, _) => {
                return Err(unsupported(format!(
                    "the function {other} is not admitted per patient: use count, sum, avg, min, max, bool_and or bool_or"
                )));
            }
        }
        step.fact = Fact { patient: false, identity: false, from, parts, ..step.fact };
        Ok(step)
    }

    pub(super) fn window(&mut self, window: &Window) -> Result<Relation, Refusal> {
        let input = self.relation(&window.input)?;
        let (mut facts, mut after) = (input.facts.clone(), vec![None; input.facts.len()]);
        // The engine runs those of one node in one order; those with tie-breakers have another.
        let (mut plain, mut tied) = (Vec::new(), Vec::new());
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias_nested().data else {
                return Err(unsupported(format!("{expr} is no window function")));
            };
            let placed = |refusal| place::at(refusal, place::of(expr));
            let (function, fact, then) = self.window_function(*function, &input).map_err(placed)?;
            let ties = ties_matter(&function);
            let function = if ties { self.break_ties(function, &input) } else { function };
            let then = then.map(|kind| (kind, expr.schema_name().to_string()));
            let step = self.named(Expr::WindowFunction(Box::new(function)), expr, then.is_some());
            if ties { &mut tied } else { &mut plain }.push((step, fact, then));
        }
        let (patient, rows) = (input.patient, input.rows);
        let mut plan = LogicalPlanBuilder::from(input.plan);
        for group in [plain, tied].into_iter().filter(|g| !g.is_empty()) {
            let mut steps = Vec::with_capacity(group.len());
            for (step, fact, then) in group {
                steps.push(step);
                facts.push(fact);
                after.push(then);
            }
            plan = plan.window(steps).map_err(cannot_build)?;
        }
        let plan = afterwards(plan.build().map_err(cannot_build)?, after)?;
        Ok(Relation { plan, facts, patient, rows, ordered: false })
    }

    fn window_function(
        &mut self,
        function: WindowFunction,
        input: &Relation,
    ) -> Result<(WindowFunction, Fact, Option<DataType>), Refusal> {
        let WindowFunction { mut fun, mut params } = function;
        if !params.partition_by.iter().any(|e| input.is_patient(e)) {
            return Err(unsupported("a window across patients is not admitted: write OVER (PARTITION BY patient …)"));
        }
        if !plain_frame(&params.window_frame) {
            return Err(unsupported(
                "this window frame is not admitted: use ROWS with offsets of at most 1000000, UNBOUNDED or CURRENT ROW",
            ));
        }
        for expr in params.partition_by.iter_mut().chain(params.order_by.iter_mut().map(|s| &mut s.expr)) {
            if !input.is_patient(expr) {
                *expr = input.admit(expr.clone())?;
            }
            self.uses(expr, input);
        }
        let (mut fact, mut then) = (counts(), None);
        match &fun {
            WindowFunctionDefinition::AggregateUDF(func) => {
                if params.null_treatment.is_some() {
                    return Err(unsupported("IGNORE NULLS is admitted in lag, lead, first_value and last_value alone"));
                }
                let step = self.step(func, params.args, params.distinct, input)?;
                if step.function.name().starts_with("bool_") {
                    return Err(unsupported("bool_and and bool_or are no windows here: use min or max of a CASE"));
                }
                fun = WindowFunctionDefinition::AggregateUDF(step.function);
                (params.args, fact, then) = (step.args, step.fact, step.then);
                params.filter = self.filtered(params.filter, input, &mut fact)?;
            }
            WindowFunctionDefinition::WindowUDF(func) => {
                let name = func.name();
                if params.filter.is_some() || params.distinct {
                    return Err(unsupported(format!("FILTER and DISTINCT are not admitted in {name}")));
                }
                if params.args.len() > 1
                    && !matches!(params.args.as_slice(), [_, Expr::Literal(offset, _)] if small_offset(offset))
                {
                    return Err(unsupported(
                        "an offset of lag or lead is a literal from 1 to 1000000, without a default",
                    ));
                }
                params.args = self.arguments(name, params.args, input)?;
                match (name, params.args.first()) {
                    ("row_number" | "rank" | "dense_rank", None) => then = Some(DataType::Int64),
                    ("lag" | "lead", Some(argument)) => fact = nullable(fact_of(argument, input)?),
                    ("first_value" | "last_value", Some(argument)) => {
                        fact = nullable(fact_of(argument, input)?);
                        params.window_frame = of_rows(&params.window_frame);
                    }
                    (other, _) => {
                        return Err(unsupported(format!(
                            "the function {other} is not admitted: use row_number, rank, dense_rank, lag, lead, first_value, \
                             last_value, count, sum, min, max or avg"
                        )));
                    }
                }
                fact.parts = params.args.iter().fold(1, |n: usize, a| n.saturating_add(input.parts(a)));
                if let Some(number) = exact::engines_number(name) {
                    fun = WindowFunctionDefinition::WindowUDF(number);
                }
            }
        }
        Ok((WindowFunction { fun, params }, Fact { patient: false, ..fact }, then))
    }

    /// Appends to ORDER BY the other columns of `input` that the query uses.
    fn break_ties(&self, mut function: WindowFunction, input: &Relation) -> WindowFunction {
        let params = &mut function.params;
        for (i, fact) in input.facts.iter().enumerate() {
            let column = input.column(i);
            let there = params.partition_by.contains(&column) || params.order_by.iter().any(|s| s.expr == column);
            let used = self.needed.as_ref().is_none_or(|needed| fact.from.is_subset(needed));
            if used && !there && !fact.patient {
                params.order_by.push(Sort::new(column, true, true));
            }
        }
        function
    }
}

/// Whether the result depends on the order of rows that ORDER BY holds for equal.
fn ties_matter(function: &WindowFunction) -> bool {
    match &function.fun {
        WindowFunctionDefinition::AggregateUDF(_) => function.params.window_frame.units == WindowFrameUnits::Rows,
        WindowFunctionDefinition::WindowUDF(func) => !matches!(func.name(), "rank" | "dense_rank"),
    }
}

/// The frame in rows: where rows are ordered without ties, what RANGE says of CURRENT ROW is that row.
fn of_rows(frame: &WindowFrame) -> WindowFrame {
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(offset) if offset.is_null() => {
            WindowFrameBound::Preceding(ScalarValue::UInt64(None))
        }
        WindowFrameBound::Following(offset) if offset.is_null() => {
            WindowFrameBound::Following(ScalarValue::UInt64(None))
        }
        other @ (WindowFrameBound::Preceding(_) | WindowFrameBound::Following(_) | WindowFrameBound::CurrentRow) => {
            other.clone()
        }
    };
    WindowFrame::new_bounds(WindowFrameUnits::Rows, bound(&frame.start_bound), bound(&frame.end_bound))
}

/// Whether no row can make the frame's arithmetic fail: offsets in values (RANGE) are added to values.
fn plain_frame(frame: &WindowFrame) -> bool {
    let plain = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
            offset.is_null() || (frame.units == WindowFrameUnits::Rows && small_offset(offset))
        }
    };
    frame.units != WindowFrameUnits::Groups && plain(&frame.start_bound) && plain(&frame.end_bound)
}

/// Whether a literal is a number of rows from 1 to a million.
fn small_offset(offset: &ScalarValue) -> bool {
    let rows = offset.cast_to(&DataType::Int64);
    matches!(rows, Ok(ScalarValue::Int64(Some(1..=1_000_000))))
}

fn counts() -> Fact {
    Fact { range: Some(Range { lo: 0, hi: MAX_COUNT }), parts: 1, ..Fact::default() }
}

/// A value of some row, or NULL where there is none.
fn nullable(mut fact: Fact) -> Fact {
    fact.image.iter_mut().for_each(|i| i.null = true);
    fact
}

/// Casts those columns of `plan` that are named in `after`, by place; the others stay.
fn afterwards(plan: LogicalPlan, after: Vec<Option<(DataType, String)>>) -> Result<LogicalPlan, Refusal> {
    if after.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let exprs: Vec<Expr> = columns
        .zip(after)
        .map(|(column, then)| match then {
            Some((kind, name)) => try_cast(column, kind).alias(name),
            None => column,
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(cannot_build)
}
