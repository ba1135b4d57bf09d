//! From a logical plan to a [`PrivatePlan`], fail closed.
//!
//! The plan is walked from the top: post-processing of released cells, then one reducing aggregate, then projections
//! and filters of one protected table. Views, CTEs and subqueries are put in place by substitution, so that each
//! expression is over the base table's columns and no fact about a column outlives its redefinition. Every
//! variant of `LogicalPlan` is listed: what is not admitted is refused by name.

use std::collections::BTreeSet;

use datafusion_common::{
    Column, DFSchema, ScalarValue,
    tree_node::{Transformed, TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{Aggregate, Expr, LogicalPlan, expr::AggregateFunction};
use num_bigint::BigUint;
use sekisho_protocol::{
    digest::Digest,
    permit::{Permit, Preset, Statistic},
    refusal::{Code, Refusal},
    schema::Schema,
    units::MicroRho,
};

use crate::{
    accounting::split_evenly,
    domain::image,
    plan::{Argument, Key, MAX_PATIENTS, Measure, Output, PrivatePlan},
    scalar::{Base, MAX_DEPTH, MAX_NODES, nodes, scale_of, shallow},
    sql::{self, arrow_schema},
};

/// The most cells of one release.
pub const MAX_CELLS: usize = 50_000;
/// The most aggregates of one query.
const MAX_AGGREGATES: usize = 64;
/// The most group keys of one query.
const MAX_KEYS: usize = 16;
/// The most numbers of one release: cells times measures.
const MAX_NUMBERS: usize = 500_000;

fn unsupported(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::SqlUnsupported, detail)
}

impl PrivatePlan {
    /// Understands `sql` as a question over `schema` within `permit`, at `micro_rho` for each hospital.
    ///
    /// # Errors
    /// A refusal that names the construct, column or statistic and says what to write instead.
    pub fn analyse(sql: &str, schema: &Schema, permit: &Permit, micro_rho: MicroRho) -> Result<Self, Refusal> {
        let planned = sql::plan(sql, schema)?;
        let aggregate = reducing(&planned.typed)?;
        if aggregate.group_expr.len() > MAX_KEYS || aggregate.aggr_expr.len() > MAX_AGGREGATES {
            return Err(unsupported(format!(
                "more than {MAX_KEYS} group keys or {MAX_AGGREGATES} aggregates: ask in parts"
            )));
        }
        let mut budget = MAX_NODES;
        let rows = Rows::of(&aggregate.input, 0, &mut budget)?;
        let table = schema.table(&rows.table).ok_or_else(|| unsupported("a table that the schema does not have"))?;
        let Some(patient) = &table.patient else {
            return Err(unsupported(format!("table {} is public: a question is about a protected table", table.name)));
        };
        let df_schema = DFSchema::try_from(arrow_schema(table)).map_err(|_| unsupported("a table without a schema"))?;
        let base = Base { table, patient, schema: df_schema };

        let mut builder = Builder {
            base: &base,
            rows: &rows,
            budget,
            arguments: Vec::new(),
            measures: Vec::new(),
            statistics: BTreeSet::new(),
        };
        let filters = rows.filters.iter().map(|f| base.admit(f.clone())).collect::<Result<Vec<_>, _>>()?;
        let names = aggregate.schema.fields();
        let keys = aggregate.group_expr.iter().enumerate().map(|(i, e)| builder.key(e, names[i].name()));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let outputs = aggregate.aggr_expr.iter().map(|e| builder.output(e)).collect::<Result<Vec<_>, _>>()?;
        if outputs.is_empty() {
            return Err(Refusal::new(Code::RowLevel, "the query has GROUP BY but no aggregate"));
        }
        let one_row = table.one_row_per_patient;
        let guard = builder.guard(one_row, permit.disclosure);
        let Builder { arguments, measures, statistics, .. } = builder;
        let rho_each = split_evenly(micro_rho, measures.len() as u64).ok_or_else(|| {
            Refusal::new(
                Code::BudgetQuery,
                format!("{micro_rho} cannot be split over {} measures; name more", measures.len()),
            )
        })?;
        let exprs = filters.iter().chain(keys.iter().map(|k| &k.expr)).chain(arguments.iter().map(|a| &a.expr));
        for expr in exprs {
            base.check_runs(expr)?;
        }
        let columns = used_columns(&filters, &keys, &arguments);
        let mut plan = Self {
            table: table.name.clone(),
            patient: patient.clone(),
            patient_kind: table.column(patient).map_or(sekisho_protocol::schema::Kind::Text, |c| c.kind),
            columns,
            statistics: statistics.into_iter().collect(),
            filters,
            keys,
            arguments,
            measures,
            outputs,
            rows_per_patient: if one_row { 1 } else { permit.dp.rows_per_patient.into() },
            groups_per_patient: permit.dp.groups_per_patient.into(),
            one_row,
            preset: permit.disclosure,
            guard,
            micro_rho,
            rho_each,
            as_written: planned.as_written,
            digest: Digest::of(b""),
        };
        plan.check_size()?;
        plan.check_permit(permit)?;
        plan.digest = Digest::of(plan.canonical().as_bytes());
        Ok(plan)
    }

    fn check_size(&self) -> Result<(), Refusal> {
        let cells = self.keys.iter().try_fold(1_usize, |n, k| n.checked_mul(k.image.cells()));
        if cells.is_none_or(|n| n > MAX_CELLS) {
            return Err(Refusal::new(
                Code::UnknownDomain,
                format!("the groups have more than {MAX_CELLS} cells; group more coarsely"),
            ));
        }
        if self.cells().saturating_mul(self.measures.len()) > MAX_NUMBERS {
            let detail =
                format!("the release would have more than {MAX_NUMBERS} numbers; ask for fewer aggregates or groups");
            return Err(unsupported(detail));
        }
        let total: usize = self.row().iter().chain(&self.filters).map(nodes).sum();
        if total > MAX_NODES {
            return Err(unsupported(format!(
                "the query's expressions have more than {MAX_NODES} parts; write them shorter"
            )));
        }
        // Decimal128 holds 38 digits; one is left for the noise.
        let limit = BigUint::from(10_u32).pow(37);
        for measure in &self.measures {
            if self.squared_sensitivity(measure).sqrt() * BigUint::from(MAX_PATIENTS) > limit {
                let detail = "rows per patient times the bound is too large for an exact sum over 10^9 patients";
                return Err(Refusal::new(Code::UnboundedColumn, detail));
            }
            if self.variance(measure).is_none() {
                return Err(Refusal::new(Code::UnboundedColumn, "a sum over a range of a single value tells nothing"));
            }
        }
        Ok(())
    }

    fn check_permit(&self, permit: &Permit) -> Result<(), Refusal> {
        let Some(table) = permit.table(&self.table) else {
            return Err(Refusal::new(
                Code::TableNotPermitted,
                format!("the permit does not name table {}", self.table),
            ));
        };
        for column in &self.columns {
            if !table.columns.contains(column) {
                let detail = format!("the permit does not name column {}.{column}", self.table);
                return Err(Refusal::new(Code::ColumnNotPermitted, detail));
            }
        }
        for statistic in &self.statistics {
            if !permit.allowed_statistics.contains(statistic) {
                let detail = format!("the permit does not allow {}", statistic.as_str());
                return Err(Refusal::new(Code::StatisticNotPermitted, detail));
            }
        }
        Ok(())
    }

    /// The text whose digest names the plan.
    pub fn canonical(&self) -> String {
        use std::fmt::Write;
        let mut text = format!(
            "sekisho plan v1\ntable {} patient {} k {} G {} unit {} {}\n",
            self.table,
            self.patient,
            self.rows_per_patient,
            self.groups_per_patient,
            self.weight_one(),
            self.patient_one()
        );
        let _ = writeln!(
            text,
            "rho {} each {} preset {:?} guard {}",
            self.micro_rho, self.rho_each, self.preset, self.guard
        );
        for filter in &self.filters {
            let _ = writeln!(text, "where {filter}");
        }
        for key in &self.keys {
            let _ = writeln!(text, "key {} = {} in {:?}", key.name, key.expr, key.image);
        }
        for argument in &self.arguments {
            let _ = writeln!(text, "argument {} scale {} range {:?}", argument.expr, argument.scale, argument.range);
        }
        let _ = writeln!(text, "measures {:?}\noutputs {:?}", self.measures, self.outputs);
        text
    }
}

fn used_columns(filters: &[Expr], keys: &[Key], arguments: &[Argument]) -> Vec<String> {
    let exprs = filters.iter().chain(keys.iter().map(|k| &k.expr)).chain(arguments.iter().map(|a| &a.expr));
    let names: BTreeSet<String> = exprs.flat_map(|e| e.column_refs().into_iter().map(|c| c.name.clone())).collect();
    names.into_iter().collect()
}

/// The one aggregate across patients, under nothing but post-processing.
pub(crate) fn reducing(plan: &LogicalPlan) -> Result<&Aggregate, Refusal> {
    let released = |exprs: &mut dyn Iterator<Item = &Expr>| {
        for expr in exprs {
            let subquery = expr.exists(|e| {
                Ok(matches!(
                    e,
                    Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
                ))
            });
            if !shallow(expr) {
                return Err(unsupported(format!("an expression is more than {MAX_DEPTH} deep; write it flatter")));
            }
            if subquery.unwrap_or(true) {
                return Err(unsupported(
                    "a subquery beside an aggregate is not admitted: ask it as a query of its own",
                ));
            }
        }
        Ok(())
    };
    match plan {
        LogicalPlan::Aggregate(aggregate) => Ok(aggregate),
        LogicalPlan::Projection(projection) => {
            let aggregate = reducing(&projection.input)?;
            for expr in &projection.expr {
                if !matches!(expr.clone().unalias_nested().data, Expr::Column(_)) {
                    return Err(unsupported(format!(
                        "{expr} is not admitted: select group keys and aggregates as they are, and compute with them afterwards"
                    )));
                }
            }
            Ok(aggregate)
        }
        LogicalPlan::Filter(filter) => {
            let aggregate = reducing(&filter.input)?;
            released(&mut std::iter::once(&filter.predicate))?;
            Ok(aggregate)
        }
        LogicalPlan::Sort(sort) => {
            let aggregate = reducing(&sort.input)?;
            released(&mut sort.expr.iter().map(|s| &s.expr))?;
            Ok(aggregate)
        }
        LogicalPlan::Limit(limit) => {
            let aggregate = reducing(&limit.input)?;
            let literal = |e: &Option<Box<Expr>>| e.as_ref().is_none_or(|e| matches!(**e, Expr::Literal(..)));
            if !literal(&limit.skip) || !literal(&limit.fetch) {
                return Err(unsupported("a computed LIMIT is not admitted: write a number"));
            }
            Ok(aggregate)
        }
        LogicalPlan::SubqueryAlias(alias) => reducing(&alias.input),
        LogicalPlan::TableScan(_) => Err(row_level()),
        LogicalPlan::Distinct(_) => {
            Err(Refusal::new(Code::RowLevel, "SELECT DISTINCT lists values; count them in groups instead"))
        }
        LogicalPlan::Window(_) => Err(unsupported("a window function is not admitted: use GROUP BY")),
        LogicalPlan::Join(_) => Err(unsupported("a join is not admitted yet: ask of one table")),
        LogicalPlan::Union(_) => Err(unsupported("UNION is not admitted yet: ask of one table")),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
            Err(unsupported("the query reads no protected table"))
        }
        LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => Err(unsupported("only SELECT with aggregates is admitted")),
    }
}

fn row_level() -> Refusal {
    Refusal::new(Code::RowLevel, "rows cannot be asked for; there is no aggregate across patients")
}

/// Rows of one base table: which conditions hold, and what each output column is over the base columns.
struct Rows {
    table: String,
    filters: Vec<Expr>,
    columns: Vec<Expr>,
    schema: DFSchema,
}

impl Rows {
    fn of(plan: &LogicalPlan, depth: usize, budget: &mut usize) -> Result<Self, Refusal> {
        if depth > 64 {
            return Err(unsupported("subqueries are nested more than 64 deep: write them flatter"));
        }
        match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.fetch.is_some() || !scan.filters.is_empty() {
                    return Err(unsupported("a scan with its own limit or filter"));
                }
                let fields = scan.projected_schema.fields();
                Ok(Self {
                    table: scan.table_name.table().to_string(),
                    filters: Vec::new(),
                    columns: fields.iter().map(|f| Expr::Column(Column::new_unqualified(f.name()))).collect(),
                    schema: scan.projected_schema.as_ref().clone(),
                })
            }
            LogicalPlan::Projection(projection) => {
                let input = Self::of(&projection.input, depth + 1, budget)?;
                let columns = projection.expr.iter().map(|e| input.inline(e, budget)).collect::<Result<_, _>>()?;
                Ok(Self { columns, schema: projection.schema.as_ref().clone(), ..input })
            }
            LogicalPlan::Filter(filter) => {
                let mut input = Self::of(&filter.input, depth + 1, budget)?;
                let condition = input.inline(&filter.predicate, budget)?;
                input.filters.push(condition);
                Ok(input)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = Self::of(&alias.input, depth + 1, budget)?;
                Ok(Self { schema: alias.schema.as_ref().clone(), ..input })
            }
            LogicalPlan::Join(_) => Err(unsupported("a join is not admitted yet: ask of one table")),
            LogicalPlan::Union(_) => Err(unsupported("UNION is not admitted yet: ask of one table")),
            LogicalPlan::Window(_) => Err(unsupported("a window function is not admitted: use GROUP BY")),
            LogicalPlan::Aggregate(_) => {
                Err(unsupported("an aggregate of an aggregate is not admitted yet: aggregate once, across patients"))
            }
            LogicalPlan::Distinct(_) => {
                Err(unsupported("DISTINCT under an aggregate is not admitted: use count(DISTINCT patient)"))
            }
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => Err(unsupported(
                "ORDER BY or LIMIT under an aggregate would choose rows: use them on the released cells",
            )),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                Err(unsupported("the query reads no protected table"))
            }
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

    /// `expr` over the base table's columns. Its size is taken off `budget` before it is made: definitions that use each other
    /// twice grow as 2^n.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only columns are replaced")]
    fn inline(&self, expr: &Expr, budget: &mut usize) -> Result<Expr, Refusal> {
        let place = |column: &Column| self.schema.maybe_index_of_column(column);
        let columns: Vec<Option<usize>> = references(expr).into_iter().map(place).collect();
        let replaced = columns.iter().flatten().map(|i| nodes(&self.columns[*i])).sum::<usize>();
        let size = nodes(expr).saturating_add(replaced);
        *budget = budget.checked_sub(size).ok_or_else(|| {
            unsupported(format!("the query's expressions have more than {MAX_NODES} parts; write them shorter"))
        })?;
        let inlined = expr.clone().unalias_nested().data.transform(|e| match e {
            Expr::Column(column) => {
                let index = self.schema.index_of_column(&column)?;
                Ok(Transformed::new(self.columns[index].clone(), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        let inlined = inlined.map_err(|_| unsupported("a column that its subquery does not have"))?.data;
        if !shallow(&inlined) {
            return Err(unsupported(format!("an expression is more than {MAX_DEPTH} deep; write it flatter")));
        }
        Ok(inlined)
    }
}

/// Every column of `expr`, as often as it is there.
fn references(expr: &Expr) -> Vec<&Column> {
    let mut found = Vec::new();
    // The closure never fails, so neither does the walk.
    let _ = expr.apply(|e| {
        if let Expr::Column(column) = e {
            found.push(column);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

struct Builder<'a> {
    base: &'a Base<'a>,
    rows: &'a Rows,
    budget: usize,
    arguments: Vec<Argument>,
    measures: Vec<Measure>,
    statistics: BTreeSet<Statistic>,
}

impl Builder<'_> {
    fn key(&mut self, expr: &Expr, name: &str) -> Result<Key, Refusal> {
        let expr = self.rows.inline(expr, &mut self.budget)?;
        if matches!(&expr, Expr::Column(c) if c.name == self.base.patient) {
            return Err(Refusal::new(
                Code::RowLevel,
                "GROUP BY the patient would list patients; group by public values",
            ));
        }
        let expr = self.base.admit(expr)?;
        Ok(Key { name: name.to_string(), image: image(&expr, self.base)?, expr })
    }

    fn measure(&mut self, measure: Measure) -> usize {
        let found = self.measures.iter().position(|m| *m == measure);
        found.unwrap_or_else(|| {
            self.measures.push(measure);
            self.measures.len() - 1
        })
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

    fn output(&mut self, expr: &Expr) -> Result<Output, Refusal> {
        let data = expr.clone().unalias_nested().data;
        let Expr::AggregateFunction(AggregateFunction { func, params }) = data else {
            return Err(unsupported(format!("{expr} is not admitted: use count, sum or avg")));
        };
        if params.filter.is_some() {
            return Err(unsupported("FILTER is not admitted yet: put the condition into CASE or WHERE"));
        }
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported("ORDER BY inside an aggregate is not admitted"));
        }
        let [argument] = params.args.as_slice() else {
            return Err(unsupported(format!("{} takes one argument", func.name())));
        };
        let argument = self.rows.inline(argument, &mut self.budget)?;
        let patient = matches!(&argument, Expr::Column(c) if c.name == self.base.patient);
        match (func.name(), params.distinct) {
            ("count", true) if patient => {
                self.statistics.insert(Statistic::CountDistinct);
                Ok(Output::Count { measure: self.measure(Measure::Patients) })
            }
            (_, true) => Err(unsupported("DISTINCT is not admitted here: only count(DISTINCT patient) is")),
            ("count", false) => {
                self.statistics.insert(Statistic::Count);
                let measure = if patient || matches!(&argument, Expr::Literal(v, _) if !v.is_null()) {
                    Measure::Rows
                } else {
                    let expr = self.base.admit(argument)?;
                    Measure::Present { argument: self.argument(Argument { expr, scale: 0, range: None }) }
                };
                Ok(Output::Count { measure: self.measure(measure) })
            }
            ("sum", false) => {
                self.statistics.insert(Statistic::Sum);
                let argument = self.summed(argument)?;
                Ok(Output::Sum { measure: self.measure(Measure::Sum { argument, centre: 0 }) })
            }
            ("avg", false) => {
                self.statistics.insert(Statistic::Avg);
                let argument = self.summed(without_float(argument))?;
                let (lo, hi) = self.arguments[argument].range.unwrap_or((0, 0));
                let sum = self.measure(Measure::Sum { argument, centre: lo.midpoint(hi) });
                let count = self.measure(Measure::Present { argument });
                Ok(Output::Avg { sum, count })
            }
            (other, false) => Err(unsupported(format!("{other} is not admitted: use count, sum or avg"))),
        }
    }

    fn summed(&mut self, expr: Expr) -> Result<usize, Refusal> {
        use datafusion_expr::ExprSchemable;
        let admitted = self.base.admit(expr)?;
        let scale = admitted.get_type(&self.base.schema).ok().and_then(|t| scale_of(&t));
        let (Some(scale), Some((expr, range))) = (scale, self.base.bounded(&admitted)) else {
            let detail = format!("{admitted} has no known range within ±10^15, so its sum cannot be bounded");
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        };
        // A bare column is clamped as it is folded.
        let expr = if matches!(admitted, Expr::Column(_)) { admitted } else { expr };
        Ok(self.argument(Argument { expr, scale, range: Some((range.lo, range.hi)) }))
    }

    /// The measure that counts patients for the disclosure preset; added, at an equal share of rho, when the query
    /// has none.
    fn guard(&mut self, one_row: bool, preset: Preset) -> usize {
        let rows = self.measures.iter().position(|m| *m == Measure::Rows);
        let patients = self.measures.iter().position(|m| *m == Measure::Patients);
        match (patients, rows) {
            (Some(measure), _) => measure,
            (None, Some(measure)) if one_row || preset == Preset::None => measure,
            (None, None) if preset == Preset::None => 0,
            (None, None) if one_row => self.measure(Measure::Rows),
            (None, Some(_) | None) => self.measure(Measure::Patients),
        }
    }
}

/// `avg` turns its argument into floating point; the sum is ours, in fixed point.
#[expect(clippy::wildcard_enum_match_arm, reason = "only the planner's own cast is taken off")]
fn without_float(expr: Expr) -> Expr {
    use arrow::datatypes::DataType;
    match expr {
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Float64 => match *cast.expr {
            Expr::Literal(ScalarValue::Null, _) => Expr::Literal(ScalarValue::Int64(None), None),
            inner => inner,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn analyse(sql: &str) -> Result<PrivatePlan, Refusal> {
        PrivatePlan::analyse(sql, &example::schema(), &example::permit(3, 2), MicroRho::try_from(1000).unwrap())
    }

    #[track_caller]
    fn refused(sql: &str, code: Code, names: &str) {
        match analyse(sql) {
            Ok(plan) => panic!("admitted: {sql}\n{}", plan.canonical()),
            Err(refusal) => {
                assert_eq!(refusal.code, code, "{sql}: {refusal}");
                assert!(refusal.detail.contains(names), "{sql}: {refusal}");
            }
        }
    }

    #[track_caller]
    fn admitted(sql: &str, cells: usize, measures: &[Measure]) -> PrivatePlan {
        let plan = analyse(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        assert_eq!(plan.cells(), cells, "{sql}\n{}", plan.canonical());
        assert_eq!(plan.measures(), measures, "{sql}\n{}", plan.canonical());
        plan
    }

    #[test]
    fn what_one_select_may_ask() {
        use Measure::{Patients, Present, Rows, Sum};
        // female, male, NULL, outside.
        admitted("SELECT sex, count(*) FROM stay GROUP BY sex", 4, &[Rows]);
        admitted(
            "SELECT count(DISTINCT patient_id) AS n FROM stay WHERE age >= 65 AND note LIKE 'E11%'",
            1,
            &[Patients],
        );
        admitted(
            "SELECT count(weight), sum(days) FROM stay",
            1,
            &[Present { argument: 0 }, Sum { argument: 1, centre: 0 }],
        );
        admitted("SELECT avg(days) FROM stay", 1, &[Sum { argument: 0, centre: 50 }, Present { argument: 0 }]);
        admitted("SELECT avg(weight) FROM stay", 1, &[Sum { argument: 0, centre: 1500 }, Present { argument: 0 }]);
        admitted("SELECT sum(CASE WHEN died THEN 1 ELSE 0 END) FROM stay", 1, &[Sum { argument: 0, centre: 0 }]);
        // A CASE with an ELSE has no NULL and no outside.
        admitted(
            "SELECT CASE WHEN age < 18 THEN 'child' WHEN age < 65 THEN 'adult' ELSE 'older' END AS band, count(*) \
             FROM stay GROUP BY band ORDER BY band",
            3,
            &[Rows],
        );
        // 0-12 and NULL and outside.
        admitted("SELECT age / 10, count(*) FROM stay GROUP BY age / 10", 15, &[Rows]);
        admitted("SELECT date_part('month', admitted) AS m, count(*) FROM stay GROUP BY m", 14, &[Rows]);
        admitted("SELECT extract(quarter FROM admitted) AS q, count(*) FROM stay GROUP BY 1", 6, &[Rows]);
        admitted("SELECT died, sex, count(*) FROM stay GROUP BY died, sex", 12, &[Rows]);
        admitted(
            "WITH a AS (SELECT * FROM stay WHERE age > 17) SELECT count(*) FROM (SELECT sex FROM a) b",
            1,
            &[Rows],
        );
        admitted(
            "SELECT sex, count(*) AS n FROM stay GROUP BY sex HAVING count(*) > 10 ORDER BY n DESC LIMIT 1",
            4,
            &[Rows],
        );
        admitted("SELECT * FROM (SELECT sex, count(*) AS n FROM stay GROUP BY sex) t WHERE n > 5", 4, &[Rows]);
        admitted("SELECT sex, count(*) FROM summary GROUP BY sex", 4, &[Rows]);
        admitted("SELECT count(*) FROM stay WHERE admitted BETWEEN DATE '2024-02-01' AND '2024-03-01'", 1, &[Rows]);
        admitted("SELECT count(*) FROM stay WHERE weight > 70.5 AND coalesce(sex, 'x') IN ('x', 'male')", 1, &[Rows]);
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        use Code::{
            ColumnNotPermitted, RowLevel, SqlSyntax, SqlUnknownName, SqlUnsupported, UnboundedColumn, UnknownDomain,
        };
        for (sql, code, names) in [
            ("SELECT * FROM stay", RowLevel, "rows"),
            ("SELECT age FROM stay WHERE patient_id = 5", RowLevel, "rows"),
            ("SELECT DISTINCT sex FROM stay", RowLevel, "DISTINCT"),
            ("SELECT sex FROM stay GROUP BY sex", RowLevel, "no aggregate"),
            ("SELECT patient_id, count(*) FROM stay GROUP BY patient_id", RowLevel, "patient"),
            ("SELECT count(*) FROM stay WHERE patient_id = 5", ColumnNotPermitted, "patient_id"),
            ("SELECT sum(CASE WHEN patient_id = 5 THEN 1 ELSE 0 END) FROM stay", ColumnNotPermitted, "patient_id"),
            ("SELECT patient_id % 10, count(*) FROM stay GROUP BY patient_id % 10", ColumnNotPermitted, "patient_id"),
            ("SELECT sum(free) FROM stay", UnboundedColumn, "free"),
            ("SELECT sum(days * free) FROM stay", UnboundedColumn, "free"),
            ("SELECT sum(days) FROM (SELECT free AS days FROM stay) t", UnboundedColumn, "free"),
            ("SELECT note, count(*) FROM stay GROUP BY note", UnknownDomain, "note"),
            ("SELECT free, count(*) FROM stay GROUP BY free", UnknownDomain, "free"),
            ("SELECT upper(note), count(*) FROM stay GROUP BY 1", UnknownDomain, "note"),
            ("SELECT weight, count(*) FROM stay GROUP BY weight", UnknownDomain, "weight"),
            ("SELECT age, days, admitted, count(*) FROM stay GROUP BY 1, 2, 3", UnknownDomain, "cells"),
            ("SELEC count(*) FROM stay", SqlSyntax, ""),
            ("SELECT count(*) FROM stay; SELECT 1", SqlSyntax, "one statement"),
            ("SELECT count(*) FROM nowhere", SqlUnknownName, "nowhere"),
            ("SELECT count(nothing) FROM stay", SqlUnknownName, "nothing"),
            ("SELECT sum(age) FROM summary", ColumnNotPermitted, "age"),
            ("DROP TABLE stay", SqlUnsupported, "SELECT"),
            ("INSERT INTO stay VALUES (1)", SqlUnsupported, "SELECT"),
            ("SELECT count(*) FROM chapter", SqlUnsupported, "public"),
            ("SELECT 1", SqlUnsupported, "protected"),
            ("SELECT count(*) FROM stay a JOIN stay b ON a.patient_id = b.patient_id", SqlUnsupported, "join"),
            ("SELECT count(*) FROM stay, summary", SqlUnsupported, "join"),
            ("SELECT count(*) FROM (SELECT age FROM stay UNION ALL SELECT age FROM stay) t", SqlUnsupported, "UNION"),
            ("SELECT count(*) FROM stay WHERE age IN (SELECT age FROM stay)", SqlUnsupported, "subquery"),
            ("SELECT count(*) FROM stay WHERE age > (SELECT count(*) FROM stay)", SqlUnsupported, "subquery"),
            ("SELECT sex, (SELECT count(*) FROM stay) FROM stay GROUP BY sex", SqlUnsupported, ""),
            ("SELECT count(*) FROM (SELECT sex FROM stay LIMIT 1) t", SqlUnsupported, "LIMIT"),
            ("SELECT count(*) FROM (SELECT DISTINCT age FROM stay) t", SqlUnsupported, "DISTINCT"),
            (
                "SELECT avg(n) FROM (SELECT count(*) n FROM stay GROUP BY sex) t",
                SqlUnsupported,
                "aggregate of an aggregate",
            ),
            ("SELECT count(*) FILTER (WHERE died) FROM stay", SqlUnsupported, "FILTER"),
            ("SELECT count(DISTINCT sex) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT sum(DISTINCT days) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT sex, count(*) FROM stay GROUP BY ROLLUP(sex)", SqlUnsupported, "ROLLUP"),
            ("SELECT 100 * count(*) FROM stay", SqlUnsupported, "afterwards"),
            ("SELECT max(age) FROM stay", SqlUnsupported, "max"),
            ("SELECT row_number() OVER () FROM stay", SqlUnsupported, "row_number"),
            ("SELECT count(*) FROM stay WHERE random() < 0.5", SqlUnsupported, "random"),
            ("SELECT count(*) FROM stay WHERE 1 / age > 0", SqlUnsupported, "division"),
            ("SELECT count(*) FROM stay WHERE age / 0 > 0", SqlUnsupported, "division"),
            ("SELECT count(*) FROM stay WHERE cast(note AS bigint) > 0", SqlUnsupported, "TRY_CAST"),
            ("SELECT count(*) FROM stay WHERE note ~ '(a+)+'", SqlUnsupported, "operator"),
            ("SELECT count(*) FROM stay WHERE substr(note, age) = 'x'", SqlUnsupported, "length"),
            (
                "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
                SqlUnsupported,
                "",
            ),
            ("SELECT count(*) FROM information_schema.tables", SqlUnknownName, "tables"),
            ("EXPLAIN ANALYZE SELECT count(*) FROM stay", SqlUnsupported, "SELECT"),
        ] {
            refused(sql, code, names);
        }
    }

    #[test]
    fn a_text_that_is_too_large_or_too_deep_is_refused_and_nothing_overflows() {
        refused(&format!("SELECT count(*) FROM stay WHERE note = '{}'", "x".repeat(10 << 20)), Code::TooLarge, "bytes");
        let deep = format!("SELECT count(*) FROM stay WHERE {}age{} > 1", "(".repeat(5000), ")".repeat(5000));
        refused(&deep, Code::SqlUnsupported, "nested");
        // Each level doubles the expression: 2^30 parts from a kilobyte of text.
        let mut sql = String::from("WITH t0 AS (SELECT age AS x FROM stay)");
        for i in 1..30 {
            sql += &format!(", t{i} AS (SELECT x + x AS x FROM t{})", i - 1);
        }
        refused(&(sql + " SELECT sum(x) FROM t29"), Code::SqlUnsupported, "parts");
    }

    #[test]
    fn long_chains_and_costly_keys_are_refused_before_they_cost_anything() {
        let chain = |term: &str, operator: &str, n: usize| vec![term; n].join(operator);
        for sql in [
            format!("SELECT count(*) FROM stay WHERE {}", chain("age = 1", " OR ", 500)),
            format!("SELECT count(*) FROM stay WHERE {} > 0", chain("1", " + ", 10_000)),
            format!("SELECT count(*) FROM stay HAVING {}", chain("count(*) = 1", " OR ", 3_000)),
            format!("SELECT {} FROM stay WHERE age > 1", chain("count(*)", ", ", 65)),
            format!("SELECT count(*) FROM stay GROUP BY {}", chain("died", ", ", 17)),
            format!("SELECT count(*) FROM stay WHERE note IN ({})", chain("'x'", ", ", 10_000)),
        ] {
            refused(&sql, Code::SqlUnsupported, "");
        }
        let mut sql = String::from("WITH t0 AS (SELECT age FROM stay)");
        for i in 1..=40 {
            sql += &format!(", t{i} AS (SELECT age FROM t{0} UNION ALL SELECT age FROM t{0})", i - 1);
        }
        refused(&format!("{sql} SELECT count(*) FROM t40"), Code::SqlUnsupported, "parts");
        let nested = format!("{}age{}", "coalesce(".repeat(40), ", 0)".repeat(40));
        refused(&format!("SELECT count(*) FROM stay WHERE {nested} > 1"), Code::SqlUnsupported, "nested");
        refused("SELECT count(*) AS __low_0 FROM stay", Code::SqlUnsupported, "reserved");
        // Ten CTEs of 20 additions each, on top of each other: shallow text, deep expression.
        let mut sql = String::from("WITH t0 AS (SELECT age AS x FROM stay)");
        for i in 1..=10 {
            sql += &format!(", t{i} AS (SELECT x{} AS x FROM t{})", " + 1".repeat(20), i - 1);
        }
        admitted(&format!("{sql} SELECT count(x) FROM t10"), 1, &[Measure::Present { argument: 0 }]);
        let branches: String = (0..1_200).map(|i| format!(" WHEN {i} THEN age * 1000 + days + {i}")).collect();
        let costly = format!("SELECT count(*) FROM stay GROUP BY CASE free{branches} END");
        assert!(analyse(&costly).is_err());
        refused(
            "SELECT sum(-((-9223372036854775808) * (4611686018427387904 * 4))) FROM stay",
            Code::UnboundedColumn,
            "",
        );
    }

    #[test]
    fn a_redefined_column_has_the_range_of_its_new_definition() {
        let plan = analyse("SELECT sum(days) FROM (SELECT days * 7 - age AS days FROM stay) t").unwrap();
        assert_eq!(plan.arguments[0].range, Some((-120, 700)));
        let plan = analyse("SELECT sum(CASE WHEN died THEN days ELSE -5 END) FROM stay").unwrap();
        assert_eq!(plan.arguments[0].range, Some((-5, 100)));
        let plan = analyse("SELECT sum(days % 7), sum(days / 30) FROM stay").unwrap();
        assert_eq!(plan.arguments[0].range, Some((-6, 6)));
        assert_eq!(plan.arguments[1].range, Some((0, 3)));
    }

    #[test]
    fn the_patient_count_that_a_preset_needs_is_added_and_shares_the_rho() {
        let mut permit = example::permit(3, 2);
        permit.disclosure = Preset::JpNdb;
        let rho = MicroRho::try_from(1000).unwrap();
        let ask = |sql: &str| PrivatePlan::analyse(sql, &example::schema(), &permit, rho).unwrap();
        let plan = ask("SELECT sex, count(*) FROM stay GROUP BY sex");
        assert_eq!(plan.measures(), [Measure::Rows, Measure::Patients]);
        assert_eq!((plan.guard(), plan.rho_each().get(), plan.outputs().len()), (1, 500, 1));
        // Where a patient has one row, rows are patients.
        let plan = ask("SELECT sex, count(*) FROM summary GROUP BY sex");
        assert_eq!((plan.measures(), plan.guard()), (&[Measure::Rows][..], 0));
    }

    #[test]
    fn a_permit_without_a_statistic_or_table_does_not_get_it() {
        let mut permit = example::permit(3, 2);
        permit.allowed_statistics = vec![Statistic::Count];
        permit.data.pop();
        let rho = MicroRho::try_from(1000).unwrap();
        let ask = |sql: &str| PrivatePlan::analyse(sql, &example::schema(), &permit, rho).map(|_| ()).unwrap_err().code;
        assert_eq!(ask("SELECT sum(days) FROM stay"), Code::StatisticNotPermitted);
        assert_eq!(ask("SELECT count(DISTINCT patient_id) FROM stay"), Code::StatisticNotPermitted);
        assert_eq!(ask("SELECT count(*) FROM summary"), Code::TableNotPermitted);
    }
}
