//! From a logical plan to a [`PrivatePlan`], fail closed.
//!
//! The plan is walked from the top: post-processing of released cells, then one reducing aggregate across patients, then
//! relations that are per patient (`relation`). Every variant of `LogicalPlan` is listed: what is not admitted
//! is refused by name.

use std::collections::BTreeSet;

use datafusion_common::{
    ScalarValue,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, expr, expr::AggregateFunction, lit};
use num_bigint::BigUint;
use sekisho_protocol::{
    digest::Digest,
    permit::{Permit, Preset, Statistic},
    refusal::{Code, Refusal},
    schema::{Kind, Schema},
    units::MicroRho,
};

use crate::{
    accounting::split_evenly,
    domain::image,
    place,
    plan::{Argument, Key, MAX_PATIENTS, Measure, Output, PrivatePlan},
    relation::{Relation, Walk, unsupported},
    scalar::{MAX_DEPTH, MAX_NODES, nodes, scale_of, shallow},
    sql,
};

/// The most cells of one release.
pub const MAX_CELLS: usize = 50_000;
/// The most aggregates of one query.
const MAX_AGGREGATES: usize = 64;
/// The most group keys of one query.
const MAX_KEYS: usize = 16;
/// The most numbers of one release: cells times measures.
const MAX_NUMBERS: usize = 500_000;

impl PrivatePlan {
    /// Understands `sql` as a question over `schema` within `permit`, at `micro_rho` for each hospital.
    ///
    /// # Errors
    /// A refusal that names the construct, column or statistic and says what to write instead.
    pub fn analyse(sql: &str, schema: &Schema, permit: &Permit, micro_rho: MicroRho) -> Result<Self, Refusal> {
        Self::analysed(sql, schema, permit, micro_rho).map_err(|refusal| place::in_text(refusal, sql))
    }

    fn analysed(sql: &str, schema: &Schema, permit: &Permit, micro_rho: MicroRho) -> Result<Self, Refusal> {
        let planned = sql::plan(sql, schema)?;
        let aggregate = reducing(&planned.typed)?;
        if aggregate.group_expr.len() > MAX_KEYS || aggregate.aggr_expr.len() > MAX_AGGREGATES {
            let detail = format!("more than {MAX_KEYS} group keys or {MAX_AGGREGATES} aggregates: ask in parts");
            return Err(unsupported(detail));
        }
        let mut walk = Walk::new(schema);
        let relation = walk.under(aggregate)?;
        let Some(patient) = relation.patient_column() else {
            return Err(unsupported("a question is about a protected table, and these tables are public"));
        };
        let mut builder = Builder {
            relation: &relation,
            walk: &mut walk,
            arguments: Vec::new(),
            measures: Vec::new(),
            statistics: BTreeSet::new(),
        };
        let names = aggregate.schema.fields();
        let keys = aggregate.group_expr.iter().enumerate().map(|(i, e)| builder.key(e, names[i].name()));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let outputs = aggregate.aggr_expr.iter().map(|e| builder.output(e)).collect::<Result<Vec<_>, _>>()?;
        if outputs.is_empty() {
            return Err(Refusal::new(Code::RowLevel, "the query has GROUP BY but no aggregate"));
        }
        let one_row = relation.rows == Some(1);
        let guard = builder.guard(one_row, permit.disclosure);
        let Builder { arguments, measures, statistics, .. } = builder;
        let rho_each = split_evenly(micro_rho, measures.len() as u64).ok_or_else(|| {
            let detail = format!("{micro_rho} cannot be split over {} measures; name more", measures.len());
            Refusal::new(Code::BudgetQuery, detail)
        })?;
        let patient_type = relation.schema().field(relation.patient.unwrap_or(0)).data_type();
        let patient_kind = if *patient_type == arrow::datatypes::DataType::Int64 { Kind::Int64 } else { Kind::Text };
        for expr in keys.iter().map(|k| &k.expr).chain(arguments.iter().map(|a| &a.expr)) {
            relation.check_runs(expr)?;
        }
        let row = row(patient, &keys, &arguments);
        let rows = LogicalPlanBuilder::from(relation.plan).project(row).and_then(LogicalPlanBuilder::build);
        let mut plan = Self {
            rows: rows
                .map_err(|_| unsupported("the planner cannot build the rows of this query: write it more simply"))?,
            ordered: relation.ordered,
            tables: walk.tables.into_iter().collect(),
            columns: walk.used.into_iter().collect(),
            patient_kind,
            statistics: statistics.into_iter().collect(),
            keys,
            arguments,
            measures,
            outputs,
            rows_per_patient: relation.rows.unwrap_or(u64::MAX).min(permit.dp.rows_per_patient.into()),
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
        let (mut total, mut deep) = (0, false);
        // The closure never fails, so neither does the walk.
        let _ = self.rows.apply(|node| {
            let expressions = node.expressions();
            total += expressions.iter().map(nodes).sum::<usize>();
            deep |= !expressions.iter().all(shallow);
            Ok(TreeNodeRecursion::Continue)
        });
        if deep {
            return Err(unsupported(format!("an expression is more than {MAX_DEPTH} deep; write it flatter")));
        }
        if total > MAX_NODES {
            let detail = format!("the query's expressions have more than {MAX_NODES} parts; write them shorter");
            return Err(unsupported(detail));
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
        for table in &self.tables {
            if permit.table(table).is_none() {
                let detail = format!("the permit does not name table {table}");
                return Err(Refusal::new(Code::TableNotPermitted, detail));
            }
        }
        for (table, column) in &self.columns {
            if !permit.table(table).is_some_and(|t| t.columns.contains(column)) {
                let detail = format!("the permit does not name column {table}.{column}");
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
            "sekisho plan v1\nk {} G {} unit {} {}\n",
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
        let _ = writeln!(text, "rows\n{}", self.rows.display_indent());
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

/// What each row is projected to: the patient, the group keys, the arguments.
fn row(patient: Expr, keys: &[Key], arguments: &[Argument]) -> Vec<Expr> {
    let exprs = keys.iter().map(|k| &k.expr).chain(arguments.iter().map(|a| &a.expr)).cloned();
    std::iter::once(patient).chain(exprs).enumerate().map(|(i, e)| e.alias(format!("c{i}"))).collect()
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

struct Builder<'a, 's> {
    relation: &'a Relation,
    walk: &'a mut Walk<'s>,
    arguments: Vec<Argument>,
    measures: Vec<Measure>,
    statistics: BTreeSet<Statistic>,
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
        Ok(Key { name: name.to_string(), image: image(&expr, self.relation)?, expr })
    }

    fn admitted(&mut self, expr: Expr) -> Result<Expr, Refusal> {
        let expr = self.relation.admit(expr)?;
        self.walk.uses(&expr, self.relation);
        Ok(expr)
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
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported("ORDER BY inside an aggregate is not admitted"));
        }
        let [argument] = params.args.as_slice() else {
            return Err(unsupported(format!("{} takes one argument", func.name())));
        };
        let filter = params.filter.map(|f| self.admitted(*f)).transpose()?;
        let patient = self.relation.is_patient(argument);
        let argument = argument.clone();
        match (func.name(), params.distinct) {
            ("count", true) if patient => {
                self.statistics.insert(Statistic::CountDistinct);
                let present =
                    filter.map(|f| self.argument(Argument { expr: when(f, lit(1_i64)), scale: 0, range: None }));
                Ok(Output::Count { measure: self.measure(Measure::Patients { present }) })
            }
            (_, true) => Err(unsupported("DISTINCT is not admitted here: only count(DISTINCT patient) is")),
            ("count", false) => {
                self.statistics.insert(Statistic::Count);
                let every = patient || matches!(&argument, Expr::Literal(v, _) if !v.is_null());
                let measure = match (every, filter) {
                    (true, None) => Measure::Rows,
                    (true, Some(filter)) => self.present(when(filter, lit(1_i64))),
                    (false, filter) => {
                        let argument = self.admitted(argument)?;
                        self.present(filter.map_or(argument.clone(), |f| when(f, argument)))
                    }
                };
                Ok(Output::Count { measure: self.measure(measure) })
            }
            ("sum", false) => {
                self.statistics.insert(Statistic::Sum);
                let argument = self.summed(argument, filter)?;
                Ok(Output::Sum { measure: self.measure(Measure::Sum { argument, centre: 0 }) })
            }
            ("avg", false) => {
                self.statistics.insert(Statistic::Avg);
                let argument = self.summed(without_float(argument), filter)?;
                let (lo, hi) = self.arguments[argument].range.unwrap_or((0, 0));
                let sum = self.measure(Measure::Sum { argument, centre: lo.midpoint(hi) });
                let count = self.measure(Measure::Present { argument });
                Ok(Output::Avg { sum, count })
            }
            (other, false) => {
                Err(unsupported(format!("{other} is not admitted across patients: use count, sum or avg")))
            }
        }
    }

    fn present(&mut self, expr: Expr) -> Measure {
        Measure::Present { argument: self.argument(Argument { expr, scale: 0, range: None }) }
    }

    fn summed(&mut self, expr: Expr, filter: Option<Expr>) -> Result<usize, Refusal> {
        use datafusion_expr::ExprSchemable;
        let admitted = self.admitted(expr)?;
        let scale = admitted.get_type(self.relation.schema()).ok().and_then(|t| scale_of(&t));
        let (Some(scale), Some((expr, range))) = (scale, self.relation.bounded(&admitted)) else {
            let detail = format!("{admitted} has no known range within ±10^15, so its sum cannot be bounded");
            return Err(Refusal::new(Code::UnboundedColumn, detail));
        };
        // A bare column is clamped as it is folded.
        let expr = if matches!(admitted, Expr::Column(_)) { admitted } else { expr };
        let expr = filter.map_or(expr.clone(), |f| when(f, expr));
        Ok(self.argument(Argument { expr, scale, range: Some((range.lo, range.hi)) }))
    }

    /// The measure that counts patients for the disclosure preset; added, at an equal share of rho, when the query
    /// has none.
    fn guard(&mut self, one_row: bool, preset: Preset) -> usize {
        let rows = self.measures.iter().position(|m| *m == Measure::Rows);
        let patients = self.measures.iter().position(|m| *m == Measure::Patients { present: None });
        match (patients, rows) {
            (Some(measure), _) => measure,
            (None, Some(measure)) if one_row || preset == Preset::None => measure,
            (None, None) if preset == Preset::None => 0,
            (None, None) if one_row => self.measure(Measure::Rows),
            (None, Some(_) | None) => self.measure(Measure::Patients { present: None }),
        }
    }
}

/// `CASE WHEN condition THEN value END`: an aggregate's FILTER as a value that is NULL elsewhere.
fn when(condition: Expr, value: Expr) -> Expr {
    Expr::Case(expr::Case { expr: None, when_then_expr: vec![(Box::new(condition), Box::new(value))], else_expr: None })
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
            &[Patients { present: None }],
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
    fn cohorts_and_steps_per_patient() {
        use Measure::{Patients, Present, Rows, Sum};
        let rows = |sql: &str| analyse(sql).unwrap_or_else(|r| panic!("{sql}: {r}")).rows_per_patient;
        let join = "SELECT m.sex, count(*) FROM stay s JOIN summary m ON s.patient_id = m.patient_id WHERE s.age > 3 GROUP BY m.sex";
        admitted(join, 4, &[Rows]);
        admitted(
            "SELECT count(DISTINCT s.patient_id) FROM stay s JOIN stay t ON s.patient_id = t.patient_id AND t.age > s.age",
            1,
            &[Patients { present: None }],
        );
        admitted(
            "SELECT count(*) FROM stay WHERE patient_id IN (SELECT patient_id FROM summary WHERE sex = 'male')",
            1,
            &[Rows],
        );
        admitted("SELECT count(*) FROM stay WHERE patient_id NOT IN (SELECT patient_id FROM summary)", 1, &[Rows]);
        admitted(
            "SELECT count(*) FROM stay s WHERE NOT EXISTS (SELECT 1 FROM summary t WHERE t.patient_id = s.patient_id AND t.sex = 'male')",
            1,
            &[Rows],
        );
        admitted(
            "SELECT count(*) FROM stay a LEFT JOIN summary b ON a.patient_id = b.patient_id WHERE b.patient_id IS NULL",
            1,
            &[Rows],
        );
        admitted(
            "SELECT count(*) FROM (SELECT patient_id, age FROM stay UNION ALL SELECT patient_id, age FROM stay) t WHERE age > 3",
            1,
            &[Rows],
        );
        admitted("SELECT count(*) FROM (SELECT DISTINCT patient_id, note FROM stay) t", 1, &[Rows]);
        admitted(
            "SELECT v.label, count(*) FROM stay s JOIN (VALUES ('E11', 'diabetes'), ('I10', 'hypertension')) AS v(code, label) \
             ON s.note = v.code GROUP BY v.label",
            2,
            &[Rows],
        );
        admitted(
            "SELECT count(*) FILTER (WHERE died), avg(days) FILTER (WHERE sex = 'male') FROM stay",
            1,
            &[Present { argument: 0 }, Sum { argument: 1, centre: 50 }, Present { argument: 1 }],
        );
        admitted(
            "SELECT count(DISTINCT patient_id) FILTER (WHERE died) FROM stay",
            1,
            &[Patients { present: Some(0) }],
        );
        let frames = "SELECT count(*) FROM (SELECT patient_id, count(*) OVER (PARTITION BY patient_id ORDER BY age ROWS BETWEEN 2 PRECEDING \
                      AND CURRENT ROW) AS a, lag(age, 2) OVER (PARTITION BY patient_id ORDER BY age) AS b FROM stay) t WHERE a > 1 AND b > 3";
        admitted(frames, 1, &[Rows]);
        let means =
            "SELECT count(*) FROM (SELECT patient_id, avg(days) AS m FROM stay GROUP BY patient_id) t WHERE m > 3";
        admitted(means, 1, &[Rows]);
        // One row a patient after GROUP BY the patient, whatever the table has.
        let first = "SELECT avg(least(n, 20)), avg(oldest) FROM (SELECT patient_id, count(*) AS n, max(age) AS oldest FROM stay GROUP BY patient_id) t";
        let plan = admitted(
            first,
            1,
            &[
                Sum { argument: 0, centre: 10 },
                Present { argument: 0 },
                Sum { argument: 1, centre: 60 },
                Present { argument: 1 },
            ],
        );
        assert!(plan.one_row && !plan.ordered);
        let windows = "SELECT sex, count(*) FROM (SELECT sex, row_number() OVER (PARTITION BY patient_id ORDER BY admitted) AS r FROM stay) t WHERE r = 1 GROUP BY sex";
        admitted(windows, 4, &[Rows]);
        // A join may multiply rows, so that a patient's one row is no longer known.
        assert_eq!(rows("SELECT count(*) FROM summary"), 1);
        assert_eq!(rows("SELECT count(*) FROM summary a JOIN summary b ON a.patient_id = b.patient_id"), 1);
        assert_eq!(rows("SELECT count(*) FROM summary a JOIN stay b ON a.patient_id = b.patient_id"), 3);
        assert_eq!(rows("SELECT count(*) FROM summary a JOIN (VALUES ('male'), ('x')) v(x) ON v.x = a.sex"), 3);
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
            ("SELECT sum(days) FROM (SELECT free AS days FROM stay) t", UnboundedColumn, "days"),
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
            ("SELECT count(*) FROM stay a JOIN stay b ON a.age = b.age", SqlUnsupported, "not on the patient"),
            (
                "SELECT count(*) FROM stay a JOIN stay b ON a.patient_id <> b.patient_id",
                SqlUnsupported,
                "not on the patient",
            ),
            ("SELECT count(*) FROM stay, summary", SqlUnsupported, "not on the patient"),
            (
                "SELECT count(*) FROM stay a FULL JOIN summary b ON a.patient_id = b.patient_id",
                SqlUnsupported,
                "kind of join",
            ),
            (
                "SELECT count(*) FROM stay a RIGHT JOIN chapter c ON a.note = c.code",
                SqlUnsupported,
                "without a patient",
            ),
            ("SELECT count(*) FROM stay WHERE age IN (SELECT age FROM stay)", SqlUnsupported, "patient"),
            ("SELECT count(*) FROM stay WHERE age > (SELECT count(*) FROM stay)", SqlUnsupported, "subquery"),
            (
                "SELECT count(*) FROM stay s WHERE EXISTS (SELECT 1 FROM summary t WHERE t.age = s.age)",
                SqlUnsupported,
                "EXISTS",
            ),
            ("SELECT sex, (SELECT count(*) FROM stay) FROM stay GROUP BY sex", SqlUnsupported, ""),
            ("SELECT count(*) FROM (SELECT sex FROM stay LIMIT 1) t", SqlUnsupported, "LIMIT"),
            ("SELECT count(*) FROM (SELECT DISTINCT age FROM stay) t", SqlUnsupported, "DISTINCT"),
            ("SELECT count(*) FROM (SELECT age FROM stay UNION SELECT age FROM stay) t", SqlUnsupported, "DISTINCT"),
            ("SELECT avg(n) FROM (SELECT count(*) n FROM stay GROUP BY sex) t", SqlUnsupported, "not per patient"),
            ("SELECT count(*) FROM (SELECT age AS __patient_1 FROM stay) t", SqlUnsupported, "reserved"),
            (
                "SELECT count(*) FROM (SELECT lag(age, -9223372036854775808) OVER (PARTITION BY patient_id ORDER BY age) AS a FROM stay) t WHERE a > 1",
                SqlUnsupported,
                "offset",
            ),
            (
                "SELECT count(*) FROM (SELECT count(*) OVER (PARTITION BY patient_id ORDER BY free RANGE BETWEEN 10 PRECEDING AND CURRENT ROW) AS a FROM stay) t WHERE a > 1",
                SqlUnsupported,
                "frame",
            ),
            (
                "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY age) AS r FROM stay) t WHERE r = 1",
                SqlUnsupported,
                "window",
            ),
            (
                "SELECT count(*) FROM (SELECT row_number() OVER (PARTITION BY sex) AS r FROM stay) t",
                SqlUnsupported,
                "window",
            ),
            (
                "SELECT sum(n) FROM (SELECT patient_id, max(patient_id) AS n FROM stay GROUP BY patient_id) t",
                ColumnNotPermitted,
                "patient",
            ),
            (
                "SELECT count(*) FROM stay a LEFT JOIN summary b ON a.patient_id = b.patient_id WHERE b.patient_id = 7",
                ColumnNotPermitted,
                "patient",
            ),
            ("SELECT count(DISTINCT sex) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT sum(DISTINCT days) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT sex, count(*) FROM stay GROUP BY ROLLUP(sex)", SqlUnsupported, "ROLLUP"),
            ("SELECT 100 * count(*) FROM stay", SqlUnsupported, "afterwards"),
            ("SELECT max(age) FROM stay", SqlUnsupported, "max"),
            ("SELECT row_number() OVER () FROM stay", SqlUnsupported, "window"),
            ("SELECT count(*) FROM stay WHERE random() < 0.5", SqlUnsupported, "random"),
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
        refused(&deep, Code::SqlUnsupported, "parentheses");
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
        assert_eq!(plan.measures(), [Measure::Rows, Measure::Patients { present: None }]);
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
