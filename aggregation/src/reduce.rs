//! One aggregate across patients becomes a [`Part`]: its keys with their public domains, its arguments with their ranges, and
//! what is measured for each column of the answer.
//!
//! Everything is a sum over rows of clamped values times one weight, a count of patients, or a histogram, so that the numbers of
//! hospitals can be added; means, variances and quantiles are computed from these sums after the release.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::{
    Aggregate, Expr, ExprSchemable, GroupingSet, LogicalPlanBuilder, expr, expr::AggregateFunction, lit,
    utils::grouping_set_to_exprlist,
};
use sekisho_protocol::{
    permit::{Preset, Statistic},
    refusal::{Code, Refusal},
    schema::{Kind, MAX_MAGNITUDE},
    units::{AttoDelta, MicroRho},
};

use crate::{
    domain::{Image, KeyKind, image},
    exact,
    plan::{Argument, Key, Keys, Measure, Moment, Output, Part, Price, Quantity},
    relation::{Relation, Walk, different, unsupported},
    scalar::scale_of,
    terms::Limits,
    tree::Tree,
};

/// The most aggregates of one part.
const MAX_AGGREGATES: usize = 64;
/// The most group keys of one part.
const MAX_KEYS: usize = 16;
/// The most digits after the point of what is summed: 10 to their power times the weight of a row has to fit 38 digits.
const MAX_SCALE: u32 = 28;
/// The most grouping sets of one part.
const MAX_SETS: usize = 64;

/// A part, and the statistics that it asks for.
pub(crate) struct Reduction {
    pub(crate) part: Part,
    pub(crate) statistics: BTreeSet<Statistic>,
}

/// Makes a part of `aggregate` over `relation`. Its measures have no price yet.
///
/// # Errors
/// A refusal that names the construct, column or statistic.
pub(crate) fn reduce(
    aggregate: &Aggregate,
    relation: Relation,
    walk: &mut Walk,
    limits: &Limits,
) -> Result<Reduction, Refusal> {
    let Some(patient) = relation.patient_column() else {
        return Err(unsupported("a question is about a protected table, and these tables are public"));
    };
    let (exprs, sets) = grouping(aggregate)?;
    if exprs.len() > MAX_KEYS || aggregate.aggr_expr.len() > MAX_AGGREGATES || sets.len() > MAX_SETS {
        let detail = format!(
            "more than {MAX_KEYS} group keys, {MAX_SETS} grouping sets or {MAX_AGGREGATES} aggregates: ask in parts"
        );
        return Err(unsupported(detail));
    }
    let every: Keys = (0..exprs.len()).map(|i| 1 << i).sum();
    let mut builder = Builder {
        relation: &relation,
        walk,
        limits,
        every,
        sets: &sets,
        key_exprs: exprs.clone(),
        arguments: Vec::new(),
        clamped: Vec::new(),
        measures: Vec::new(),
        statistics: BTreeSet::new(),
    };
    let names = aggregate.schema.fields();
    let named = exprs.iter().zip(names.iter());
    let keys = named.map(|(e, field)| builder.key(e, field.name())).collect::<Result<Vec<_>, _>>()?;
    let outputs = aggregate.aggr_expr.iter().map(|e| builder.output(e)).collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        return Err(Refusal::new(Code::RowLevel, "the query has GROUP BY but no aggregate"));
    }
    let one_row = relation.rows == Some(1);
    // Exact cells are hidden at the hospital, by what does not leave.
    let judged = if limits.exact { Vec::new() } else { sets.clone() };
    let guards = judged.iter().map(|set| builder.guard(*set, one_row, limits.preset)).collect();
    let private: Keys = keys.iter().enumerate().filter(|(_, k)| k.private).map(|(i, _)| 1 << i).sum();
    if private.count_ones() > 1 || (private != 0 && sets.len() > 1) {
        let detail = "one group key without a public domain at most, and without ROLLUP, CUBE or GROUPING SETS";
        return Err(Refusal::new(Code::UnknownDomain, detail));
    }
    let names = (private != 0).then(|| (builder.patients(None, private), limits.atto_delta));
    let bites = if limits.bite { builder.bites(one_row)? } else { Vec::new() };
    let Builder { arguments, measures, statistics, .. } = builder;
    let patient_type = relation.schema().field(relation.patient.unwrap_or(0)).data_type();
    let patient_kind = if *patient_type == DataType::Int64 { Kind::Int64 } else { Kind::Text };
    for expr in keys.iter().map(|k| &k.expr).chain(arguments.iter().map(|a| &a.expr)) {
        relation.check_runs(expr)?;
    }
    let row = row(patient, &keys, &arguments);
    let rows = LogicalPlanBuilder::from(relation.plan).project(row).and_then(LogicalPlanBuilder::build);
    let rows =
        rows.map_err(|_| unsupported("the planner cannot build the rows of this query: write it more simply"))?;
    let part = Part {
        rows,
        ordered: relation.ordered,
        patient_kind,
        keys,
        sets,
        arguments,
        measures,
        outputs,
        guards,
        bites,
        names,
        rows_per_patient: relation.rows.unwrap_or(u64::MAX).min(limits.rows_per_patient),
        groups_per_patient: limits.groups_per_patient,
        one_row,
        exact: limits.exact,
    };
    Ok(Reduction { part, statistics })
}

/// The different key expressions, and which of them each grouping set has.
fn grouping(aggregate: &Aggregate) -> Result<(Vec<Expr>, Vec<Keys>), Refusal> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        let mixed = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
        if mixed {
            return Err(unsupported("GROUPING SETS beside other group keys: write them as one GROUPING SETS"));
        }
        let exprs: Vec<Expr> = different(&aggregate.group_expr).into_iter().cloned().collect();
        let keys = (0..exprs.len().min(MAX_KEYS)).map(|i| 1 << i).sum();
        return Ok((exprs, vec![keys]));
    };
    let exprs = grouping_set_to_exprlist(&aggregate.group_expr)
        .map_err(|_| unsupported("these grouping sets: write GROUPING SETS ((a, b), (a), ())"))?;
    let exprs: Vec<Expr> = exprs.into_iter().cloned().collect();
    let place = |e: &Expr| exprs.iter().position(|x| x == e);
    // A key that a set names twice is one key of it.
    let keys_of = |list: &[Expr]| list.iter().filter_map(place).fold(0, |keys, i| keys | 1 << i);
    if exprs.len() > MAX_KEYS {
        return Err(unsupported(format!("more than {MAX_KEYS} group keys: ask in parts")));
    }
    let mut keys: Vec<Keys> = match sets {
        GroupingSet::GroupingSets(lists) => lists.iter().map(|list| keys_of(list)).collect(),
        GroupingSet::Rollup(list) => (0..=list.len()).rev().map(|n| keys_of(&list[..n])).collect(),
        GroupingSet::Cube(list) if list.len() <= 6 => {
            let chosen = |bits: usize| list.iter().enumerate().filter(move |(i, _)| bits & (1 << i) == 0);
            (0..1 << list.len())
                .map(|bits| keys_of(&chosen(bits).map(|(_, e)| e.clone()).collect::<Vec<_>>()))
                .collect()
        }
        GroupingSet::Cube(_) => return Err(unsupported("CUBE of more than 6 keys: write the GROUPING SETS")),
    };
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() != all {
        return Err(unsupported("the same grouping set twice: write each once"));
    }
    // The most detailed first.
    keys.sort_by_key(|k| std::cmp::Reverse((k.count_ones(), std::cmp::Reverse(*k))));
    Ok((exprs, keys))
}

/// What each row is projected to: the patient, the group keys, the arguments.
fn row(patient: Expr, keys: &[Key], arguments: &[Argument]) -> Vec<Expr> {
    let exprs = keys.iter().map(|k| &k.expr).chain(arguments.iter().map(|a| &a.expr)).cloned();
    std::iter::once(patient).chain(exprs).enumerate().map(|(i, e)| e.alias(format!("c{i}"))).collect()
}

struct Builder<'a, 's> {
    relation: &'a Relation,
    walk: &'a mut Walk<'s>,
    limits: &'a Limits,
    every: Keys,
    sets: &'a [Keys],
    key_exprs: Vec<Expr>,
    arguments: Vec<Argument>,
    /// Of summed values: what was asked for, and as it is clamped.
    clamped: Vec<(Expr, Expr)>,
    measures: Vec<Measure>,
    statistics: BTreeSet<Statistic>,
}

/// A value that is clamped to a known range.
struct Bounded {
    expr: Expr,
    scale: u32,
    lo: i128,
    hi: i128,
}

impl Builder<'_, '_> {
    fn key(&mut self, expr: &Expr, name: &str) -> Result<Key, Refusal> {
        let expr = expr.clone().unalias_nested().data;
        if self.relation.is_patient(&expr) {
            return Err(Refusal::new(
                Code::RowLevel,
                "GROUP BY the patient would list patients; group by public values, or aggregate once more across patients",
            ));
        }
        let expr = self.admitted(expr)?;
        match image(&expr, self.relation) {
            Ok(image) => Ok(Key { name: name.to_string(), image, private: false, expr }),
            Err(refusal) if self.limits.atto_delta == AttoDelta::ZERO => Err(refusal),
            Err(refusal) => {
                let kind = expr.get_type(self.relation.schema()).ok().and_then(|t| KeyKind::of(&t)).ok_or(refusal)?;
                let image = Image { kind, values: Vec::new(), null: false, outside: false };
                Ok(Key { name: name.to_string(), image, private: true, expr })
            }
        }
    }

    fn admitted(&mut self, expr: Expr) -> Result<Expr, Refusal> {
        let expr = self.relation.admit(expr)?;
        self.walk.uses(&expr, self.relation);
        Ok(expr)
    }

    fn measure(&mut self, quantity: Quantity, over: Keys) -> usize {
        let found = self.measures.iter().position(|m| m.quantity == quantity && m.over == over);
        found.unwrap_or_else(|| {
            self.measures.push(Measure { quantity, over, price: Price::Rho(MicroRho::ZERO) });
            self.measures.len() - 1
        })
    }

    /// A measure over the cells of all keys; margins are summed from them.
    fn linear(&mut self, quantity: Quantity) -> usize {
        self.measure(quantity, self.every)
    }

    fn patients(&mut self, present: Option<usize>, over: Keys) -> usize {
        self.measure(Quantity::Patients { present }, over)
    }

    /// The place of an argument; one that is only counted shares the place of the same one that is summed.
    fn argument(&mut self, argument: Argument) -> usize {
        let found = self.arguments.iter().position(|a| a.expr == argument.expr);
        let Some(place) = found else {
            self.arguments.push(argument);
            return self.arguments.len() - 1;
        };
        let there = &mut self.arguments[place];
        if there.range.is_none() {
            *there = argument;
        }
        place
    }

    fn counted(&mut self, expr: Expr) -> usize {
        self.argument(Argument { expr, scale: 0, range: None })
    }

    fn output(&mut self, expr: &Expr) -> Result<Output, Refusal> {
        let data = expr.clone().unalias_nested().data;
        let Expr::AggregateFunction(AggregateFunction { func, params }) = data else {
            return Err(unsupported(format!("{expr} is not admitted: use count, sum or avg")));
        };
        let name = func.name();
        if name == "grouping" {
            return self.grouping(&params.args);
        }
        // `percentile_cont(q) WITHIN GROUP (ORDER BY x)` is the one aggregate with an order.
        let ordered = name == "percentile_cont" && params.order_by.len() == 1;
        let descending = ordered && params.order_by.iter().any(|o| !o.asc);
        if (!params.order_by.is_empty() && !ordered) || descending || params.null_treatment.is_some() {
            return Err(unsupported("ORDER BY inside an aggregate is not admitted, but for a quantile's, ascending"));
        }
        if self.limits.exact {
            exact::admits(name, params.distinct, params.filter.is_some())?;
        }
        let filter = params.filter.map(|f| self.admitted(*f)).transpose()?;
        let args = params.args;
        match (name, args.as_slice(), params.distinct) {
            ("count", [argument], true) if self.relation.is_patient(argument) => {
                self.statistics.insert(Statistic::CountDistinct);
                let present = filter.map(|f| self.counted(when(f, lit(1_i64))));
                let measures = self.sets.iter().map(|set| self.patients(present, *set)).collect();
                Ok(Output::Patients { measures })
            }
            (_, _, true) => Err(unsupported("DISTINCT is not admitted here: only count(DISTINCT patient) is")),
            ("count", [argument], false) => self.count(argument.clone(), filter),
            ("sum", [argument], false) => {
                self.statistics.insert(Statistic::Sum);
                let bounded = self.bounded(argument.clone())?;
                let argument = self.summed(bounded, filter);
                if self.limits.exact {
                    // By it the sum is rounded.
                    self.linear(Quantity::Present { argument });
                }
                Ok(Output::One { measure: self.linear(Quantity::Sum { argument, centre: 0 }) })
            }
            ("avg", [argument], false) => {
                self.statistics.insert(Statistic::Avg);
                let bounded = self.bounded(argument.clone())?;
                // The middle of the range halves the noise; without noise there is nothing to halve.
                let centre = if self.limits.exact { 0 } else { bounded.lo.midpoint(bounded.hi) };
                let argument = self.summed(bounded, filter);
                let sum = self.linear(Quantity::Sum { argument, centre });
                let count = self.linear(Quantity::Present { argument });
                Ok(Output::Avg { sum, count })
            }
            ("var" | "var_samp" | "var_sample", [x], false) => {
                self.moments(Moment::Variance { sample: true }, x, None, filter)
            }
            ("var_pop" | "var_population", [x], false) => {
                self.moments(Moment::Variance { sample: false }, x, None, filter)
            }
            ("stddev" | "stddev_samp", [x], false) => self.moments(Moment::Deviation { sample: true }, x, None, filter),
            ("stddev_pop", [x], false) => self.moments(Moment::Deviation { sample: false }, x, None, filter),
            ("covar_samp", [x, y], false) => self.moments(Moment::Covariance { sample: true }, x, Some(y), filter),
            ("covar_pop", [x, y], false) => self.moments(Moment::Covariance { sample: false }, x, Some(y), filter),
            ("corr", [x, y], false) => self.moments(Moment::Correlation, x, Some(y), filter),
            ("median", [x], false) => self.quantile(x, 500_000, filter),
            ("percentile_cont", [x, q], false) => self.quantile(x, millionths(q)?, filter),
            ("min" | "max", [x], false) => {
                self.statistics.insert(Statistic::Extreme);
                let measure = self.histogram(x, filter)?;
                Ok(Output::Extreme { measure, greatest: name == "max" })
            }
            (other, _, false) => Err(unsupported(format!(
                "{other} is not admitted across patients, or not with these arguments: use count, sum, avg, var_pop, var_samp, \
                 stddev_pop, stddev_samp, covar_pop, covar_samp, corr, median, percentile_cont, min or max"
            ))),
        }
    }

    fn grouping(&self, args: &[Expr]) -> Result<Output, Refusal> {
        let place = |e: &Expr| self.key_exprs.iter().position(|k| k == e);
        let keys: Option<Vec<usize>> = args.iter().map(place).collect();
        keys.map(|keys| Output::Grouping { keys })
            .ok_or_else(|| unsupported("grouping(…) takes group keys as GROUP BY has them"))
    }

    fn count(&mut self, argument: Expr, filter: Option<Expr>) -> Result<Output, Refusal> {
        self.statistics.insert(Statistic::Count);
        let patient = self.relation.is_patient(&argument);
        let every = patient || matches!(&argument, Expr::Literal(v, _) if !v.is_null());
        let quantity = match (every, filter) {
            (true, None) => Quantity::Rows,
            (true, Some(filter)) => Quantity::Present { argument: self.counted(when(filter, lit(1_i64))) },
            (false, filter) => {
                let value = self.admitted(argument)?;
                Quantity::Present { argument: self.counted(filter.map_or(value.clone(), |f| when(f, value))) }
            }
        };
        Ok(Output::One { measure: self.linear(quantity) })
    }

    /// A value with the range to which it is clamped.
    fn bounded(&mut self, expr: Expr) -> Result<Bounded, Refusal> {
        let admitted = self.admitted(without_float(expr))?;
        let scale = admitted.get_type(self.relation.schema()).ok().and_then(|t| scale_of(&t));
        let (Some(scale), Some((expr, range))) = (scale, self.relation.bounded(&admitted)) else {
            let detail = format!("{admitted} has no known range within ±10^15, so its sum cannot be bounded");
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        };
        if scale > MAX_SCALE {
            let detail = format!(
                "{admitted} has {scale} digits after the point; at most {MAX_SCALE} are summed: cast it to fewer"
            );
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        }
        if !self.clamped.iter().any(|(asked, _)| *asked == admitted) {
            self.clamped.push((admitted.clone(), expr.clone()));
        }
        // A bare column is clamped as it is folded.
        let expr = if matches!(admitted, Expr::Column(_)) { admitted } else { expr };
        Ok(Bounded { expr, scale, lo: range.lo, hi: range.hi })
    }

    fn summed(&mut self, value: Bounded, filter: Option<Expr>) -> usize {
        let expr = filter.map_or(value.expr.clone(), |f| when(f, value.expr));
        self.argument(Argument { expr, scale: value.scale, range: Some((value.lo, value.hi)) })
    }

    fn histogram(&mut self, x: &Expr, filter: Option<Expr>) -> Result<usize, Refusal> {
        let bounded = self.bounded(x.clone())?;
        if Tree::over(bounded.lo, bounded.hi).is_none() {
            let detail = format!("{x} has a range of a single value, of which a quantile tells nothing");
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        }
        let argument = self.summed(bounded, filter);
        Ok(self.linear(Quantity::Histogram { argument }))
    }

    fn quantile(&mut self, x: &Expr, millionths: u32, filter: Option<Expr>) -> Result<Output, Refusal> {
        self.statistics.insert(Statistic::Quantile);
        Ok(Output::Quantile { measure: self.histogram(x, filter)?, millionths })
    }

    /// Centred sums and sums of products, each over the rows where all arguments are there.
    fn moments(&mut self, moment: Moment, x: &Expr, y: Option<&Expr>, filter: Option<Expr>) -> Result<Output, Refusal> {
        self.statistics.insert(if y.is_some() { Statistic::Covariance } else { Statistic::Variance });
        let x = self.bounded(x.clone())?;
        let Some(y) = y else {
            let product = self.product(&x, &x, filter.clone())?;
            let (sum, count) = self.centred(x, filter);
            return Ok(Output::Moments { moment, count, sums: vec![sum], products: vec![product] });
        };
        let y = self.bounded(y.clone())?;
        let both = x.expr.clone().is_not_null().and(y.expr.clone().is_not_null());
        let filter = Some(filter.map_or(both.clone(), |f| f.and(both)));
        let mut products = Vec::new();
        if moment == Moment::Correlation {
            products.push(self.product(&x, &x, filter.clone())?);
            products.push(self.product(&y, &y, filter.clone())?);
        }
        products.push(self.product(&x, &y, filter.clone())?);
        let (sum_x, count) = self.centred(x, filter.clone());
        let (sum_y, _) = self.centred(y, filter);
        Ok(Output::Moments { moment, count, sums: vec![sum_x, sum_y], products })
    }

    /// The sum of a value about the middle of its range, and the count.
    fn centred(&mut self, value: Bounded, filter: Option<Expr>) -> (usize, usize) {
        let centre = value.lo.midpoint(value.hi);
        let argument = self.summed(value, filter);
        (self.linear(Quantity::Sum { argument, centre }), self.linear(Quantity::Present { argument }))
    }

    /// The sum of the product of two values about the middles of their ranges.
    fn product(&mut self, x: &Bounded, y: &Bounded, filter: Option<Expr>) -> Result<usize, Refusal> {
        let clamped = |b: &Bounded| self.relation.bounded(&b.expr).map(|(expr, _)| expr);
        let about_middle = |b: &Bounded| {
            let expr = clamped(b)?;
            let kind = expr.get_type(self.relation.schema()).ok()?;
            let middle = number(&kind, b.lo.midpoint(b.hi))?;
            Some(widened(expr, &kind) - widened(middle, &kind))
        };
        let reach = |b: &Bounded| (b.hi - b.lo.midpoint(b.hi)).max(b.lo.midpoint(b.hi) - b.lo);
        let few = |most: &i128| *most <= i128::from(MAX_MAGNITUDE) && x.scale + y.scale <= MAX_SCALE;
        let most = reach(x).checked_mul(reach(y)).filter(few);
        let (Some(left), Some(right), Some(most)) = (about_middle(x), about_middle(y), most) else {
            let detail = "the square of a value's range is above 10^15: narrow its bounds, or round it to fewer digits";
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        };
        let square = x.expr == y.expr;
        let (lo, hi) = if square { (0, most) } else { (-most, most) };
        let argument = self.summed(Bounded { expr: left * right, scale: x.scale + y.scale, lo, hi }, filter);
        Ok(self.linear(Quantity::Sum { argument, centre: lo.midpoint(hi) }))
    }

    /// The measure that counts patients for the disclosure preset; added, at an equal share of rho, when the query
    /// has none.
    fn guard(&mut self, set: Keys, one_row: bool, preset: Preset) -> usize {
        let find = |quantity: &Quantity, over: Keys| {
            self.measures.iter().position(|m| m.quantity == *quantity && m.over == over)
        };
        let rows = find(&Quantity::Rows, self.every);
        let patients = find(&Quantity::Patients { present: None }, set);
        match (patients, rows) {
            (Some(measure), _) => measure,
            (None, Some(measure)) if one_row || preset == Preset::None => measure,
            (None, None) if preset == Preset::None => 0,
            (None, None) if one_row => self.linear(Quantity::Rows),
            (None, Some(_) | None) => self.patients(None, set),
        }
    }

    /// What tells how much the bounds bit, over all cells: rows with a clamped value, for each of these; and patients whose rows
    /// are weighted down.
    fn bites(&mut self, one_row: bool) -> Result<Vec<(usize, String)>, Refusal> {
        let mut bites = Vec::new();
        for (asked, clamped) in self.clamped.clone() {
            let argument = self.counted(when(asked.clone().not_eq(clamped), lit(1_i64)));
            let measure = self.measure(Quantity::Present { argument }, 0);
            bites.push((measure, format!("rows where {asked} was clamped")));
        }
        if !one_row {
            bites.push((self.measure(Quantity::Heavy, 0), "patients whose rows were weighted down".into()));
        }
        if bites.is_empty() {
            return Err(Refusal::new(
                Code::Terms,
                "bite_percent: nothing of this query can be clamped or weighted down",
            ));
        }
        Ok(bites)
    }
}

/// `CASE WHEN condition THEN value END`: an aggregate's FILTER as a value that is NULL elsewhere.
fn when(condition: Expr, value: Expr) -> Expr {
    Expr::Case(expr::Case { expr: None, when_then_expr: vec![(Box::new(condition), Box::new(value))], else_expr: None })
}

/// A share of the rows from a literal between 0 and 1, in millionths.
fn millionths(q: &Expr) -> Result<u32, Refusal> {
    let refuse = || unsupported("a quantile is a literal from 0 to 1 with at most six decimals");
    // The planner may make a floating-point number of it.
    let literal = if let Expr::Cast(cast) = q { &*cast.expr } else { q };
    let Expr::Literal(q, _) = literal else { return Err(refuse()) };
    let q = q.cast_to(&DataType::Decimal128(38, 12)).map_err(|_| refuse())?;
    let ScalarValue::Decimal128(Some(q), ..) = q else { return Err(refuse()) };
    if q % 1_000_000 != 0 || !(0..=1_000_000_000_000).contains(&q) {
        return Err(refuse());
    }
    u32::try_from(q / 1_000_000).map_err(|_| refuse())
}

/// A number of a column's type, from units of 10^-scale.
#[expect(clippy::wildcard_enum_match_arm, reason = "other types have no range")]
fn number(kind: &DataType, value: i128) -> Option<Expr> {
    match kind {
        DataType::Int64 | DataType::Int32 => Some(lit(i64::try_from(value).ok()?)),
        DataType::Decimal128(p, s) => Some(lit(ScalarValue::Decimal128(Some(value), *p, *s))),
        _ => None,
    }
}

/// In a type of which two values can be subtracted and multiplied without reaching its ends: they are at most 10^15.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is no decimal is an integer here")]
fn widened(expr: Expr, kind: &DataType) -> Expr {
    let to = match kind {
        DataType::Decimal128(_, s) => DataType::Decimal128(17, *s),
        _ => DataType::Int64,
    };
    if *kind == to { expr } else { datafusion_expr::cast(expr, to) }
}

/// Aggregates turn their argument into floating point; the sum is ours, in fixed point.
#[expect(clippy::wildcard_enum_match_arm, reason = "only the planner's own cast is taken off")]
fn without_float(expr: Expr) -> Expr {
    match expr {
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Float64 => match *cast.expr {
            Expr::Literal(ScalarValue::Null, _) => Expr::Literal(ScalarValue::Int64(None), None),
            inner => inner,
        },
        other => other,
    }
}
