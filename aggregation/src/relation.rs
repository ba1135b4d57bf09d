//! Relations and what is known of them: whose rows they are, and which values their columns may have.
//!
//! Every operator under the reducing aggregate is *per patient*: the output rows of a patient depend on that patient's
//! input rows and on public tables alone. So a patient with all their rows in all tables moves only their own rows, and
//! the fold bounds those. Each relation carries its patient column, hidden where the SQL drops it; facts of a column (range,
//! public values) are those of its definition, and a bound on rows per patient is dropped when a join may multiply rows.
//!
//! Every variant of `LogicalPlan` is listed: what is not admitted is refused by name, with what to write instead.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion_common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion_expr::{
    Aggregate, Distinct, Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, Union, Values, Window,
    WindowFrame, WindowFrameBound, WindowFrameUnits,
    expr::{AggregateFunction, WindowFunction},
    utils::split_conjunction_owned,
};
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::{Kind, Schema, Table},
};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Image, KeyKind, KeyValue, image_if_small, literals_image},
    scalar::Range,
};

/// The most operators of one query after views and CTEs were put in place.
const MAX_OPERATORS: usize = 500;
/// The largest count of one patient's rows for which a range is promised.
const MAX_COUNT: i128 = 1_000_000_000;

/// How the refusal of an aggregate across patients under another one begins.
pub(crate) const NESTED: &str = "an aggregate of an aggregate that is not per patient";

/// One operator of an admitted query, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How deep it is under the last one.
    pub depth: usize,
    /// What it does.
    pub operator: String,
    /// What is known of its rows and columns.
    pub facts: String,
}

/// What is known of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fact {
    /// It names the patient of its row: rows may be joined, grouped and counted by it.
    pub(crate) patient: bool,
    /// It holds patients' ids, also where it no longer names the patient of its row: nothing is computed from it.
    pub(crate) identity: bool,
    /// The range to which its values are clamped where they are summed, in units of 10^-scale, or days.
    pub(crate) range: Option<Range>,
    /// Its public values.
    pub(crate) image: Option<Image>,
    /// The columns of the schema that it was made of.
    pub(crate) from: BTreeSet<(String, String)>,
}

/// A relation with its facts, one for each column of the plan's schema.
pub(crate) struct Relation {
    pub(crate) plan: LogicalPlan,
    pub(crate) facts: Vec<Fact>,
    /// The place of the patient column; none for a public relation.
    pub(crate) patient: Option<usize>,
    /// At most so many rows of one patient, where that is known.
    pub(crate) rows: Option<u64>,
    /// Its rows come in the order of the snapshot: sorted by patient.
    pub(crate) ordered: bool,
}

/// Walks a plan under the reducing aggregate.
pub(crate) struct Walk<'a> {
    schema: &'a Schema,
    operators: usize,
    hidden: usize,
    /// The tables that are read.
    pub(crate) tables: BTreeSet<String>,
    /// The columns that the query depends on, the patient's aside.
    pub(crate) used: BTreeSet<(String, String)>,
    /// What was walked, for people.
    pub(crate) steps: Vec<Step>,
}

pub(crate) fn unsupported(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::SqlUnsupported, detail)
}

fn cannot_build<E>(_: E) -> Refusal {
    unsupported("the planner cannot build this part of the query: write it more simply")
}

impl Relation {
    /// The schema of the relation's columns.
    pub(crate) fn schema(&self) -> &DFSchema {
        self.plan.schema()
    }

    /// The column at `index`, as an expression.
    pub(crate) fn column(&self, index: usize) -> Expr {
        Expr::Column(Column::from(self.schema().qualified_field(index)))
    }

    /// What is known of `column`.
    pub(crate) fn fact(&self, column: &Column) -> Option<&Fact> {
        self.facts.get(self.schema().maybe_index_of_column(column)?)
    }

    /// Whether `expr` is the patient column, and nothing else.
    pub(crate) fn is_patient(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Column(c) if self.fact(c).is_some_and(|f| f.patient))
    }

    /// The patient column.
    pub(crate) fn patient_column(&self) -> Option<Expr> {
        self.patient.map(|i| self.column(i))
    }
}

impl<'a> Walk<'a> {
    /// A walk over plans of `schema`.
    pub(crate) fn new(schema: &'a Schema) -> Self {
        Self { schema, operators: 0, hidden: 0, tables: BTreeSet::new(), used: BTreeSet::new(), steps: Vec::new() }
    }

    /// Notes that the query depends on the columns of `expr`.
    pub(crate) fn uses(&mut self, expr: &Expr, relation: &Relation) {
        for column in expr.column_refs() {
            if let Some(fact) = relation.fact(column) {
                self.used.extend(fact.from.iter().cloned());
            }
        }
    }

    /// The relation that `plan` is.
    ///
    /// # Errors
    /// A refusal that names the construct.
    pub(crate) fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation, Refusal> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(unsupported(format!("the query has more than {MAX_OPERATORS} parts; write it shorter")));
        }
        match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.fetch.is_some() || !scan.filters.is_empty() {
                    return Err(unsupported("a scan with its own limit or filter"));
                }
                self.scan(plan, scan.table_name.table())
            }
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.relation(&alias.input)?;
                let plan =
                    LogicalPlanBuilder::from(input.plan).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build);
                Ok(Relation { plan: plan.map_err(cannot_build)?, ..input })
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Distinct(Distinct::On(_)) => {
                Err(unsupported("DISTINCT ON is not admitted: use row_number() OVER (PARTITION BY patient ORDER BY …)"))
            }
            LogicalPlan::Values(values) => Ok(self.values(plan, values)),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => Err(unsupported(
                "ORDER BY or LIMIT under an aggregate would choose rows across patients: use them on the released cells, \
                 or row_number() OVER (PARTITION BY patient ORDER BY …)",
            )),
            LogicalPlan::EmptyRelation(_) => Err(unsupported("the query reads no protected table")),
            LogicalPlan::RecursiveQuery(_) => Err(unsupported("a recursive CTE is not admitted")),
            LogicalPlan::Unnest(_) => Err(unsupported("UNNEST is not admitted")),
            LogicalPlan::Repartition(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => Err(unsupported("only SELECT is admitted")),
        }
    }

    fn scan(&mut self, plan: &LogicalPlan, name: &str) -> Result<Relation, Refusal> {
        let table = self.schema.table(name).ok_or_else(|| unsupported("a table that the schema does not have"))?;
        self.tables.insert(name.to_string());
        let facts: Vec<Fact> = plan.schema().fields().iter().map(|f| column_fact(table, f.name())).collect();
        let patient = facts.iter().position(|f| f.patient);
        let rows = table.one_row_per_patient.then_some(1);
        Ok(Relation { plan: plan.clone(), facts, patient, rows, ordered: true })
    }

    /// An expression that is passed on: the patient column as it is, anything else as it is admitted, under its own name.
    fn passed(&mut self, expr: &Expr, input: &Relation) -> Result<(Expr, Fact), Refusal> {
        let bare = expr.clone().unalias_nested().data;
        if input.is_patient(&bare) {
            let Expr::Column(column) = &bare else { return Err(unsupported("a patient column that is none")) };
            return Ok((expr.clone(), input.fact(column).cloned().unwrap_or_default()));
        }
        let admitted = input.admit(bare.clone())?;
        let fact = self.fact_of(&admitted, input);
        let named = if let Expr::Alias(alias) = expr {
            admitted.alias_qualified(alias.relation.clone(), alias.name.clone())
        } else if admitted == *expr {
            admitted
        } else {
            admitted.alias(expr.schema_name().to_string())
        };
        Ok((named, fact))
    }

    fn fact_of(&self, expr: &Expr, input: &Relation) -> Fact {
        if let Expr::Column(column) = expr {
            return input.fact(column).cloned().unwrap_or_default();
        }
        let from =
            expr.column_refs().iter().filter_map(|c| input.fact(c)).flat_map(|f| f.from.iter().cloned()).collect();
        let range = input.bounded(expr).map(|(_, range)| range);
        Fact { range, image: image_if_small(expr, input), from, ..Fact::default() }
    }

    fn projection(&mut self, projection: &Projection) -> Result<Relation, Refusal> {
        let input = self.relation(&projection.input)?;
        let (mut exprs, mut facts) = (Vec::new(), Vec::new());
        for expr in &projection.expr {
            let (expr, fact) = self.passed(expr, &input)?;
            exprs.push(expr);
            facts.push(fact);
        }
        let patient = self.keep_patient(&input, &mut exprs, &mut facts);
        let (rows, ordered) = (input.rows, input.ordered);
        let plan = LogicalPlanBuilder::from(input.plan).project(exprs).and_then(LogicalPlanBuilder::build);
        Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient, rows, ordered })
    }

    /// The place of the patient among `exprs`, to which it is added under a hidden name where it is missing.
    fn keep_patient(&mut self, input: &Relation, exprs: &mut Vec<Expr>, facts: &mut Vec<Fact>) -> Option<usize> {
        let column = input.patient_column()?;
        if let Some(place) = facts.iter().position(|f| f.patient) {
            return Some(place);
        }
        self.hidden += 1;
        exprs.push(column.alias(format!("__patient_{}", self.hidden)));
        facts.push(Fact { patient: true, identity: true, ..Fact::default() });
        Some(exprs.len() - 1)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other condition is admitted, or refused, as an expression"
    )]
    fn filter(&mut self, filter: &Filter) -> Result<Relation, Refusal> {
        let mut input = self.relation(&filter.input)?;
        for condition in split_conjunction_owned(filter.predicate.clone()) {
            input = match condition {
                Expr::InSubquery(within) => self.within(input, within)?,
                Expr::Exists(exists) => self.exists(input, &exists.subquery.subquery, exists.negated)?,
                Expr::Not(inner) if matches!(*inner, Expr::Exists(_)) => {
                    let Expr::Exists(exists) = *inner else { return Err(unsupported("NOT EXISTS that is none")) };
                    self.exists(input, &exists.subquery.subquery, !exists.negated)?
                }
                condition => {
                    let condition = input.admit_condition(condition)?;
                    self.uses(&condition, &input);
                    let plan =
                        LogicalPlanBuilder::from(input.plan).filter(condition).and_then(LogicalPlanBuilder::build);
                    Relation { plan: plan.map_err(cannot_build)?, ..input }
                }
            };
        }
        Ok(input)
    }

    /// `x IN (SELECT …)`: on the patient, or on a value and a public list.
    fn within(&mut self, input: Relation, within: datafusion_expr::expr::InSubquery) -> Result<Relation, Refusal> {
        let inner_plan = &within.subquery.subquery;
        let inner = self.relation(inner_plan)?;
        let column = Column::from(inner_plan.schema().qualified_field(0));
        let inner_expr = Expr::Column(column);
        let outer = *within.expr;
        let outer = if input.is_patient(&outer) { outer } else { input.admit(outer)? };
        match (input.is_patient(&outer), inner.is_patient(&inner_expr), inner.patient) {
            (true, true, _) => {}
            (false, false, None) if !within.negated => self.uses(&outer, &input),
            (false, false, None) => {
                return Err(unsupported("NOT IN over a public table may meet NULL: use NOT EXISTS"));
            }
            (true, false, _) | (false, true, _) | (false, false, Some(_)) => {
                return Err(unsupported("IN (SELECT …) on anything but the patient: compare patient with patient"));
            }
        }
        self.uses(&inner_expr, &inner);
        let kind = if within.negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        self.hidden += 1;
        let name = format!("__in_{}", self.hidden);
        semi(input, inner, kind, &name, |renamed| vec![outer.eq(renamed(&inner_expr))])
    }

    /// `EXISTS (SELECT … WHERE inner.patient = outer.patient AND …)`.
    fn exists(&mut self, input: Relation, subquery: &LogicalPlan, negated: bool) -> Result<Relation, Refusal> {
        // The select list of EXISTS does not matter.
        let mut inner_plan = subquery;
        while let LogicalPlan::Projection(p) = inner_plan {
            inner_plan = &p.input;
        }
        let mut conditions = Vec::new();
        if let LogicalPlan::Filter(filter) = inner_plan {
            conditions = split_conjunction_owned(filter.predicate.clone());
            inner_plan = &filter.input;
        }
        let (outer, own): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|c| c.contains_outer());
        let mut inner = self.relation(inner_plan)?;
        for condition in own {
            let condition = inner.admit_condition(condition)?;
            self.uses(&condition, &inner);
            let plan = LogicalPlanBuilder::from(inner.plan).filter(condition).and_then(LogicalPlanBuilder::build);
            inner = Relation { plan: plan.map_err(cannot_build)?, ..inner };
        }
        let refuse = || {
            unsupported(
                "EXISTS needs WHERE inner.patient = outer.patient, and other conditions on the inner table alone",
            )
        };
        let [condition] = outer.as_slice() else { return Err(refuse()) };
        let Expr::BinaryExpr(equal) = condition else { return Err(refuse()) };
        let (outer, own) = match (&*equal.left, &*equal.right) {
            (Expr::OuterReferenceColumn(_, column), own) | (own, Expr::OuterReferenceColumn(_, column)) => {
                (Expr::Column(column.clone()), own.clone())
            }
            _ => return Err(refuse()),
        };
        if equal.op != datafusion_expr::Operator::Eq || !input.is_patient(&outer) || !inner.is_patient(&own) {
            return Err(refuse());
        }
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        self.hidden += 1;
        let name = format!("__exists_{}", self.hidden);
        semi(input, inner, kind, &name, |renamed| vec![outer.eq(renamed(&own))])
    }

    fn join(&mut self, join: &Join) -> Result<Relation, Refusal> {
        let left = self.relation(&join.left)?;
        let right = self.relation(&join.right)?;
        let equalities = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let filters = join.filter.iter().cloned().flat_map(split_conjunction_owned);
        let conditions: Vec<Expr> = equalities.chain(filters).collect();
        let on_patient = |c: &Expr| {
            let Expr::BinaryExpr(b) = c else { return false };
            b.op == datafusion_expr::Operator::Eq
                && ((left.is_patient(&b.left) && right.is_patient(&b.right))
                    || (left.is_patient(&b.right) && right.is_patient(&b.left)))
        };
        let protected = (left.patient.is_some(), right.patient.is_some());
        if protected == (true, true) && !conditions.iter().any(on_patient) {
            return Err(unsupported(
                "a join of two protected tables that is not on the patient: write JOIN … ON a.patient = b.patient",
            ));
        }
        let keeps = match (join.join_type, protected) {
            (JoinType::Inner, _)
            | (JoinType::Left, (true, _) | (false, false))
            | (JoinType::Right, (_, true) | (false, false)) => true,
            (JoinType::Left | JoinType::Right, _) => false,
            (
                JoinType::Full
                | JoinType::LeftSemi
                | JoinType::RightSemi
                | JoinType::LeftAnti
                | JoinType::RightAnti
                | JoinType::LeftMark
                | JoinType::RightMark,
                _,
            ) => return Err(unsupported("this kind of join is not admitted: use INNER or LEFT JOIN")),
        };
        if !keeps {
            return Err(unsupported(
                "an outer join would keep rows without a patient: keep the protected table's rows",
            ));
        }
        let both = both(&left, &right);
        let mut on = Vec::with_capacity(conditions.len());
        for condition in conditions {
            let condition = if on_patient(&condition) { condition } else { both.admit_condition(condition)? };
            self.uses(&condition, &both);
            on.push(condition);
        }
        let rows = match (left.rows, right.rows) {
            (Some(l), Some(r)) if protected == (true, true) => l.checked_mul(r),
            (Some(_) | None, _) => None,
        };
        let first = left.patient.filter(|_| join.join_type != JoinType::Right || right.patient.is_none());
        let patient = first.or(right.patient.map(|i| left.facts.len() + i));
        let mut facts: Vec<Fact> = left.facts.into_iter().chain(right.facts).collect();
        for (i, fact) in facts.iter_mut().enumerate() {
            // The other side's patient column may be NULL under an outer join: it no longer names the patient.
            fact.patient &= join.join_type == JoinType::Inner || Some(i) == patient;
            if let Some(image) = &mut fact.image {
                image.null |= join.join_type != JoinType::Inner;
            }
        }
        let plan = LogicalPlanBuilder::from(left.plan).join_on(right.plan, join.join_type, on);
        let plan = plan.and_then(LogicalPlanBuilder::build).map_err(cannot_build)?;
        Ok(Relation { plan, facts, patient, rows, ordered: false })
    }

    fn union(&mut self, union: &Union) -> Result<Relation, Refusal> {
        let mut whole: Option<Relation> = None;
        for input_plan in &union.inputs {
            let input = self.relation(input_plan)?;
            let (mut exprs, mut facts) = (Vec::new(), Vec::new());
            for (column, field) in input_plan.schema().columns().into_iter().zip(union.schema.fields()) {
                let fact = input.fact(&column).cloned().unwrap_or_default();
                exprs.push(Expr::Column(column).alias(field.name()));
                facts.push(fact);
            }
            let patient = input.patient_column().map(|column| {
                exprs.push(column.alias("__patient_0"));
                facts.push(Fact { patient: true, identity: true, ..Fact::default() });
                exprs.len() - 1
            });
            let (rows, ordered) = (input.rows, false);
            let plan = LogicalPlanBuilder::from(input.plan).project(exprs).and_then(LogicalPlanBuilder::build);
            let next = Relation { plan: plan.map_err(cannot_build)?, facts, patient, rows, ordered };
            whole = Some(match whole {
                None => next,
                Some(before) => union_of(before, next)?,
            });
        }
        whole.ok_or_else(|| unsupported("a UNION of nothing"))
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Relation, Refusal> {
        let input = self.relation(&aggregate.input)?;
        let (mut groups, mut facts) = (Vec::new(), Vec::new());
        for expr in &aggregate.group_expr {
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
        let mut aggregates = Vec::new();
        for expr in &aggregate.aggr_expr {
            let (expr, fact) = self.of_one_patient(expr, &input)?;
            aggregates.push(expr);
            facts.push(fact);
        }
        let plan =
            LogicalPlanBuilder::from(input.plan).aggregate(groups, aggregates).and_then(LogicalPlanBuilder::build);
        Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient: Some(patient), rows, ordered: false })
    }

    /// An aggregate over one patient's rows.
    fn of_one_patient(&mut self, expr: &Expr, input: &Relation) -> Result<(Expr, Fact), Refusal> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias_nested().data else {
            return Err(unsupported(format!("{expr} is not admitted per patient: use count, sum, avg, min or max")));
        };
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported(
                "ORDER BY inside an aggregate is not admitted: use first_value() OVER (PARTITION BY patient …)",
            ));
        }
        let mut params = params;
        let mut admitted = Vec::new();
        for argument in params.args {
            let counted = func.name() == "count" && input.is_patient(&argument);
            let argument = if counted { argument } else { input.admit(argument)? };
            self.uses(&argument, input);
            admitted.push(argument);
        }
        if let Some(filter) = params.filter {
            let filter = input.admit_condition(*filter)?;
            self.uses(&filter, input);
            params.filter = Some(Box::new(filter));
        }
        let fact = match (func.name(), admitted.first()) {
            ("count", _) => Fact { range: Some(Range { lo: 0, hi: MAX_COUNT }), ..Fact::default() },
            ("min" | "max", Some(argument)) => {
                let mut fact = self.fact_of(argument, input);
                fact.image.iter_mut().for_each(|i| i.null = true);
                Fact { patient: false, ..fact }
            }
            ("sum" | "avg", Some(_)) => Fact::default(),
            (other, _) => {
                return Err(unsupported(format!(
                    "{other} is not admitted per patient: use count, sum, avg, min or max"
                )));
            }
        };
        let from = admitted.iter().flat_map(|a| self.fact_of(a, input).from).collect();
        params.args = admitted;
        let rebuilt = Expr::AggregateFunction(AggregateFunction { func, params }).alias(expr.schema_name().to_string());
        Ok((rebuilt, Fact { from, ..fact }))
    }

    fn window(&mut self, window: &Window) -> Result<Relation, Refusal> {
        let input = self.relation(&window.input)?;
        let (mut exprs, mut facts) = (Vec::new(), input.facts.clone());
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias_nested().data else {
                return Err(unsupported(format!("{expr} is no window function")));
            };
            let (function, fact) = self.window_function(*function, &input)?;
            exprs.push(Expr::WindowFunction(Box::new(function)).alias(expr.schema_name().to_string()));
            facts.push(fact);
        }
        let (patient, rows) = (input.patient, input.rows);
        let plan = LogicalPlanBuilder::from(input.plan).window(exprs).and_then(LogicalPlanBuilder::build);
        Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient, rows, ordered: false })
    }

    fn window_function(
        &mut self,
        function: WindowFunction,
        input: &Relation,
    ) -> Result<(WindowFunction, Fact), Refusal> {
        let WindowFunction { fun, mut params } = function;
        if !params.partition_by.iter().any(|e| input.is_patient(e)) {
            return Err(unsupported("a window across patients is not admitted: write OVER (PARTITION BY patient …)"));
        }
        if !plain_frame(&params.window_frame) {
            return Err(unsupported(
                "this window frame is not admitted: use ROWS with offsets of at most 1000000, UNBOUNDED or CURRENT ROW",
            ));
        }
        if params.args.len() > 1
            && !matches!(params.args.as_slice(), [_, Expr::Literal(offset, _)] if small_offset(offset))
        {
            return Err(unsupported("an offset of lag or lead is a literal from 1 to 1000000, without a default"));
        }
        let mut admit = |expr: Expr| {
            let expr = if input.is_patient(&expr) { expr } else { input.admit(expr)? };
            self.uses(&expr, input);
            Ok::<_, Refusal>(expr)
        };
        if params.args.iter().any(|a| input.is_patient(a)) && fun.name() != "count" {
            return Err(Refusal::new(Code::ColumnNotPermitted, "the patient column can only be counted"));
        }
        params.args = params.args.into_iter().map(&mut admit).collect::<Result<_, _>>()?;
        params.partition_by = params.partition_by.into_iter().map(&mut admit).collect::<Result<_, _>>()?;
        for sort in &mut params.order_by {
            sort.expr = admit(sort.expr.clone())?;
        }
        params.filter = params.filter.map(|f| admit(*f)).transpose()?.map(Box::new);
        let argument = params.args.first().map(|a| self.fact_of(a, input)).unwrap_or_default();
        let from = argument.from.clone();
        let fact = match fun.name() {
            "row_number" | "rank" | "dense_rank" | "count" => {
                Fact { range: Some(Range { lo: 0, hi: MAX_COUNT }), ..Fact::default() }
            }
            "lag" | "lead" => nullable(argument),
            "first_value" | "last_value" | "min" | "max" => nullable(argument),
            "sum" | "avg" => Fact::default(),
            other => {
                return Err(unsupported(format!(
                    "the window function {other} is not admitted: use row_number, rank, lag, lead, first_value, last_value, count, \
                     sum, min, max or avg"
                )));
            }
        };
        Ok((WindowFunction { fun, params }, Fact { patient: false, from, ..fact }))
    }

    fn distinct(&mut self, input_plan: &LogicalPlan) -> Result<Relation, Refusal> {
        let input = self.relation(input_plan)?;
        let visible = input_plan.schema().columns();
        let has_patient = visible.iter().any(|c| input.fact(c).is_some_and(|f| f.patient));
        if input.patient.is_some() && !has_patient {
            return Err(unsupported(
                "DISTINCT across patients is not admitted: select the patient as well, or use count(DISTINCT patient)",
            ));
        }
        let facts: Vec<Fact> = visible.iter().map(|c| input.fact(c).cloned().unwrap_or_default()).collect();
        for column in &visible {
            self.uses(&Expr::Column(column.clone()), &input);
        }
        let patient = facts.iter().position(|f| f.patient);
        let rows = if facts.len() == 1 && patient.is_some() { Some(1) } else { input.rows };
        let plan = LogicalPlanBuilder::from(input.plan)
            .project(visible.into_iter().map(Expr::Column))
            .and_then(LogicalPlanBuilder::distinct)
            .and_then(LogicalPlanBuilder::build);
        Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient, rows, ordered: false })
    }

    fn values(&self, plan: &LogicalPlan, values: &Values) -> Relation {
        let fact = |column: usize| {
            let cells = values.values.iter().map(|row| &row[column]);
            Fact { image: literals_image(cells, plan.schema().field(column).data_type()), ..Fact::default() }
        };
        let facts = (0..plan.schema().fields().len()).map(fact).collect();
        Relation { plan: plan.clone(), facts, patient: None, rows: None, ordered: false }
    }
}

/// Whether no row can make the frame's arithmetic fail: offsets in values (RANGE) are added to values.
fn plain_frame(frame: &WindowFrame) -> bool {
    let plain = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
            offset.is_null() || (frame.units == WindowFrameUnits::Rows && small_offset(offset))
        }
    };
    plain(&frame.start_bound) && plain(&frame.end_bound)
}

/// Whether a literal is a number of rows from 1 to a million.
fn small_offset(offset: &ScalarValue) -> bool {
    let rows = offset.cast_to(&DataType::Int64);
    matches!(rows, Ok(ScalarValue::Int64(Some(1..=1_000_000))))
}

fn nullable(mut fact: Fact) -> Fact {
    fact.image.iter_mut().for_each(|i| i.null = true);
    fact
}

/// Both sides of a join as one relation, for conditions over it; it has no plan that runs.
fn both(left: &Relation, right: &Relation) -> Relation {
    let schema = left.schema().join(right.schema());
    let facts = left.facts.iter().chain(&right.facts).cloned().collect();
    let empty = datafusion_expr::EmptyRelation {
        produce_one_row: false,
        schema: std::sync::Arc::new(schema.unwrap_or_else(|_| DFSchema::empty())),
    };
    Relation { plan: LogicalPlan::EmptyRelation(empty), facts, patient: None, rows: None, ordered: false }
}

/// A semi or anti join that leaves the left relation's columns; the right one is renamed to `name`, so that no column of
/// it can be mistaken.
fn semi(
    left: Relation,
    right: Relation,
    kind: JoinType,
    name: &str,
    on: impl FnOnce(&dyn Fn(&Expr) -> Expr) -> Vec<Expr>,
) -> Result<Relation, Refusal> {
    let columns = right.schema().columns();
    let place = |expr: &Expr| columns.iter().position(|c| matches!(expr, Expr::Column(e) if e == c)).unwrap_or(0);
    let renamed = |expr: &Expr| Expr::Column(Column::new(Some(name), format!("c{}", place(expr))));
    let exprs = columns.iter().enumerate().map(|(i, c)| Expr::Column(c.clone()).alias(format!("c{i}")));
    let right_plan = LogicalPlanBuilder::from(right.plan.clone())
        .project(exprs.collect::<Vec<_>>())
        .and_then(|b| b.alias(name))
        .and_then(LogicalPlanBuilder::build)
        .map_err(cannot_build)?;
    let plan = LogicalPlanBuilder::from(left.plan).join_on(right_plan, kind, on(&renamed));
    let plan = plan.and_then(LogicalPlanBuilder::build).map_err(cannot_build)?;
    Ok(Relation { plan, ordered: false, ..left })
}

fn union_of(first: Relation, second: Relation) -> Result<Relation, Refusal> {
    if first.patient != second.patient || first.facts.len() != second.facts.len() {
        return Err(unsupported("a UNION of a protected and a public table: both must have patients"));
    }
    let merge = |(a, b): (Fact, Fact)| Fact {
        patient: a.patient && b.patient,
        identity: a.identity || b.identity,
        range: a.range.zip(b.range).map(|(a, b)| Range { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }),
        image: a.image.zip(b.image).and_then(|(a, b)| a.or(&b)),
        from: a.from.union(&b.from).cloned().collect(),
    };
    let facts = first.facts.into_iter().zip(second.facts).map(merge).collect();
    let rows = first.rows.zip(second.rows).and_then(|(a, b)| a.checked_add(b));
    let plan = LogicalPlanBuilder::from(first.plan).union(second.plan).and_then(LogicalPlanBuilder::build);
    Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient: first.patient, rows, ordered: false })
}

fn column_fact(table: &Table, name: &str) -> Fact {
    let Some(column) = table.column(name) else { return Fact::default() };
    let range = column.fixed_bounds().ok().flatten().map(|(lo, hi)| Range { lo: lo.into(), hi: hi.into() });
    let text = |domain: &Vec<String>| Image {
        kind: KeyKind::Text,
        values: domain.iter().cloned().map(KeyValue::Text).collect::<BTreeSet<_>>().into_iter().collect(),
        null: true,
        outside: true,
    };
    let image = match column.kind {
        Kind::Text => column.domain.as_ref().map(text),
        Kind::Bool => Some(Image {
            kind: KeyKind::Bool,
            values: vec![KeyValue::Bool(false), KeyValue::Bool(true)],
            null: true,
            outside: false,
        }),
        Kind::Int64 | Kind::Decimal | Kind::Date => None,
    };
    let patient = table.patient.as_deref() == Some(name);
    let from = if patient { BTreeSet::new() } else { BTreeSet::from([(table.name.clone(), name.to_string())]) };
    Fact { patient, identity: patient, range, image, from }
}
