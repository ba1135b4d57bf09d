//! From a logical plan to a [`PrivatePlan`], fail closed.
//!
//! The plan is walked from the top: what is computed from released cells, then aggregates across patients (`reduce`), then
//! relations that are per patient (`relation`). Every variant of `LogicalPlan` is listed: what is not admitted
//! is refused by name.

use std::collections::BTreeSet;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{
    Aggregate, Distinct, Expr, Join, JoinType, LogicalPlan, Operator, utils::split_conjunction_owned,
};
use num_bigint::BigUint;
use sekisho_protocol::{
    digest::Digest,
    permit::{Permit, Statistic},
    query::Terms,
    refusal::{Code, Refusal},
    schema::Schema,
    units::MicroRho,
};

use crate::{
    after::CELL_NOTE,
    exact, place,
    plan::{MAX_PATIENTS, Part, PrivatePlan},
    price,
    reduce::{Reduction, reduce},
    relation::{NESTED, Step, Walk, unsupported},
    scalar::{MAX_DEPTH, MAX_NODES, nodes, shallow, shrinks},
    sql, terms,
};

/// The most cells of one part of a release.
pub const MAX_CELLS: usize = 50_000;
/// The most numbers of one release: cells times measures.
pub const MAX_NUMBERS: usize = 500_000;
/// The most rows of a join of released tables under a window.
const MAX_WINDOW_ROWS: usize = 500_000;
/// The most aggregates across patients of one query.
const MAX_PARTS: usize = 8;

impl PrivatePlan {
    /// Understands `sql` as a question over `schema` within `permit`, at `micro_rho` for each hospital, on the permit's own
    /// terms.
    ///
    /// # Errors
    /// Those of [`analyse_with`](Self::analyse_with).
    pub fn analyse(sql: &str, schema: &Schema, permit: &Permit, micro_rho: MicroRho) -> Result<Self, Refusal> {
        Self::analyse_with(sql, schema, permit, micro_rho, &Terms::default())
    }

    /// Understands `sql` as a question over `schema` within `permit`, at `micro_rho` for each hospital, on terms that narrow
    /// the permit's.
    ///
    /// # Errors
    /// A refusal that names the construct, column or statistic and says what to write instead; `terms` when these are wider
    /// than the schema or permit, or do not fit the SQL.
    pub fn analyse_with(
        sql: &str,
        schema: &Schema,
        permit: &Permit,
        micro_rho: MicroRho,
        terms: &Terms,
    ) -> Result<Self, Refusal> {
        Self::analysed(sql, schema, permit, micro_rho, terms).map_err(|refusal| place::in_text(refusal, sql))
    }

    fn analysed(
        sql: &str,
        schema: &Schema,
        permit: &Permit,
        micro_rho: MicroRho,
        terms: &Terms,
    ) -> Result<Self, Refusal> {
        let exact = exact::rules(sql, permit, micro_rho, terms)?;
        let planned = sql::plan(sql, schema)?;
        check_names(&planned.as_written)?;
        let narrowed = terms::narrowed(schema, &terms.bounds)?;
        let limits = if exact.is_some() { terms::unbounded(permit) } else { terms::limits(permit, terms)? };
        let mut analysis = Analysis {
            schema: &narrowed,
            limits: &limits,
            parts: Vec::new(),
            reducing: Vec::new(),
            tables: BTreeSet::new(),
            columns: BTreeSet::new(),
            statistics: BTreeSet::new(),
            steps: Vec::new(),
        };
        analysis.released(&planned.typed, 0)?;
        let Analysis { mut parts, reducing, tables, columns, statistics, steps, .. } = analysis;
        if exact.is_none() {
            price::price(&mut parts, micro_rho, permit.dp.mechanism, terms)?;
        }
        let mut plan = Self {
            parts,
            tables: tables.into_iter().collect(),
            columns: columns.into_iter().collect(),
            statistics: statistics.into_iter().collect(),
            preset: permit.disclosure,
            exact,
            mechanism: permit.dp.mechanism,
            micro_rho,
            as_written: planned.as_written,
            reducing,
            steps,
            digest: Digest::of(b""),
        };
        plan.check_size()?;
        if plan.exact.is_some() {
            exact::check(&plan)?;
        }
        plan.check_permit(permit)?;
        plan.digest = Digest::of(plan.canonical().as_bytes());
        Ok(plan)
    }

    fn check_size(&self) -> Result<(), Refusal> {
        let mut numbers = 0_usize;
        for part in &self.parts {
            if part.cells() > MAX_CELLS {
                let detail = format!("the groups have more than {MAX_CELLS} cells; group more coarsely");
                return Err(Refusal::new(Code::UnknownDomain, detail));
            }
            numbers = part.measures.iter().fold(numbers, |n, m| n.saturating_add(part.released(m, 1)));
            part.check_expressions()?;
            // Without noise sums are those of the rows that there are, and the fold checks each.
            if !part.exact {
                part.check_sums()?;
            }
        }
        if self.patient_kind().is_none() {
            return Err(unsupported("tables whose patient columns have different types: ask of each by itself"));
        }
        if numbers > MAX_NUMBERS {
            let detail =
                format!("the release would have more than {MAX_NUMBERS} numbers; ask for fewer aggregates or groups");
            return Err(unsupported(detail));
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
            "sekisho plan v2\nrho {} mechanism {:?} preset {:?}\n",
            self.micro_rho, self.mechanism, self.preset
        );
        if let Some(rules) = &self.exact {
            let _ = writeln!(text, "exact {rules:?}");
        }
        for part in &self.parts {
            let (k, g) = (part.rows_per_patient, part.groups_per_patient);
            let _ = writeln!(text, "part k {k} G {g} unit {} names {:?}", part.weight_one(), part.names);
            let _ = writeln!(text, "rows\n{}", part.rows.display_indent());
            for key in &part.keys {
                let _ = writeln!(text, "key {} = {} in {:?} private {}", key.name, key.expr, key.image, key.private);
            }
            for argument in &part.arguments {
                let (scale, range) = (argument.scale, argument.range);
                let _ = writeln!(text, "argument {} scale {scale} range {range:?}", argument.expr);
            }
            let _ = writeln!(text, "sets {:?}\nmeasures {:?}\noutputs {:?}", part.sets, part.measures, part.outputs);
            let _ = writeln!(text, "guards {:?} bites {:?}", part.guards, part.bites);
        }
        let _ = writeln!(text, "afterwards\n{}", self.as_written.display_indent());
        text
    }
}

impl Part {
    /// Bounds the size of the expressions, and their depth.
    fn check_expressions(&self) -> Result<(), Refusal> {
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
        Ok(())
    }

    /// Proves that no sum overflows.
    fn check_sums(&self) -> Result<(), Refusal> {
        // Decimal128 holds 38 digits; one is left for the noise.
        let limit = BigUint::from(10_u32).pow(37);
        for measure in &self.measures {
            if self.sensitivity(measure).1 * BigUint::from(MAX_PATIENTS) > limit {
                let detail = "rows per patient times the bound is too large for an exact sum over 10^9 patients";
                return Err(Refusal::new(Code::UnboundedColumn, detail));
            }
            if self.noise(measure).is_none() {
                return Err(Refusal::new(Code::UnboundedColumn, "a sum over a range of a single value tells nothing"));
            }
        }
        Ok(())
    }
}

struct Analysis<'a> {
    schema: &'a Schema,
    limits: &'a terms::Limits,
    parts: Vec<Part>,
    reducing: Vec<bool>,
    tables: BTreeSet<String>,
    columns: BTreeSet<(String, String)>,
    statistics: BTreeSet<Statistic>,
    steps: Vec<Step>,
}

impl Analysis<'_> {
    /// Walks what is computed from released cells, down to the aggregates across patients.
    fn released(&mut self, plan: &LogicalPlan, depth: usize) -> Result<(), Refusal> {
        self.steps.extend(step(plan, depth));
        let below = depth + 1;
        match plan {
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, depth),
            LogicalPlan::Projection(projection) => {
                after_release(&projection.expr)?;
                self.released(&projection.input, below)
            }
            LogicalPlan::Filter(filter) => {
                after_release(std::slice::from_ref(&filter.predicate))?;
                self.released(&filter.input, below)
            }
            LogicalPlan::Sort(sort) => {
                sort.expr.iter().try_for_each(|s| after_release(std::slice::from_ref(&s.expr)))?;
                self.released(&sort.input, below)
            }
            LogicalPlan::Limit(limit) => {
                let literal = |e: &Option<Box<Expr>>| e.as_ref().is_none_or(|e| matches!(**e, Expr::Literal(..)));
                if !literal(&limit.skip) || !literal(&limit.fetch) {
                    return Err(unsupported("a computed LIMIT is not admitted: write a number"));
                }
                self.released(&limit.input, below)
            }
            LogicalPlan::Window(window) => {
                after_release(&window.window_expr)?;
                let before = self.parts.len();
                self.released(&window.input, below)?;
                check_window(&window.input, self.parts.get(before..).unwrap_or_default())
            }
            LogicalPlan::SubqueryAlias(alias) => self.released(&alias.input, depth),
            LogicalPlan::Join(join) => self.join(join, below),
            LogicalPlan::Union(union) => union.inputs.iter().try_for_each(|input| self.released(input, below)),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let before = self.parts.len();
                let released = self.released(input, below);
                if released.is_err() && self.parts.len() == before {
                    return Err(Refusal::new(
                        Code::RowLevel,
                        "SELECT DISTINCT lists values; count them in groups instead",
                    ));
                }
                released
            }
            LogicalPlan::Distinct(Distinct::On(_)) => Err(unsupported("DISTINCT ON is not admitted: use GROUP BY")),
            LogicalPlan::TableScan(_) => {
                Err(Refusal::new(Code::RowLevel, "rows cannot be asked for; there is no aggregate across patients"))
            }
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

    /// A join of released tables; VALUES may be one side.
    fn join(&mut self, join: &Join, depth: usize) -> Result<(), Refusal> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
            return Err(unsupported(
                "this kind of join of released tables is not admitted: use INNER, LEFT or FULL JOIN",
            ));
        }
        after_release(join.filter.as_slice())?;
        let mut single = false;
        for side in [&join.left, &join.right] {
            if literals(side) {
                continue;
            }
            let before = self.parts.len();
            self.released(side, depth)?;
            single |= self.parts.iter().skip(before).all(|p| p.cells() == 1 && p.names.is_none());
        }
        // The planner leaves equalities of ON where they are written, in the filter.
        let (left, right) = (join.left.schema(), join.right.schema());
        let equality = |e: &Expr| {
            let Expr::BinaryExpr(b) = e else { return false };
            let (Expr::Column(l), Expr::Column(r)) = (&*b.left, &*b.right) else { return false };
            b.op == Operator::Eq
                && ((left.has_column(l) && right.has_column(r)) || (left.has_column(r) && right.has_column(l)))
        };
        let equal =
            !join.on.is_empty() || join.filter.iter().cloned().flat_map(split_conjunction_owned).any(|e| equality(&e));
        if !equal && !single {
            return Err(unsupported("a join of released tables needs an equality: write JOIN … ON a.key = b.key"));
        }
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &Aggregate, depth: usize) -> Result<(), Refusal> {
        let place = self.reducing.len();
        self.reducing.push(true);
        let mut walk = Walk::new(self.schema);
        let refusal = match walk.under(aggregate) {
            Ok(relation) => {
                if self.parts.len() == MAX_PARTS {
                    return Err(unsupported(format!("more than {MAX_PARTS} aggregates across patients: ask in parts")));
                }
                let Reduction { part, statistics } = reduce(aggregate, relation, &mut walk, self.limits)?;
                self.parts.push(part);
                self.statistics.extend(statistics);
                self.tables.extend(walk.tables);
                self.columns.extend(walk.used);
                self.steps.extend(walk.steps.into_iter().map(|s| Step { depth: s.depth + depth + 1, ..s }));
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        // Under it there may be aggregates across patients: then it computes with released cells.
        let aggregates = |p: &LogicalPlan| Ok(matches!(p, LogicalPlan::Aggregate(_)));
        if !aggregate.input.exists(aggregates).unwrap_or(false) {
            return Err(refusal);
        }
        match self.released(&aggregate.input, depth + 1) {
            Ok(()) => {
                if let Some(reducing) = self.reducing.get_mut(place) {
                    *reducing = false;
                }
                after_release(&aggregate.group_expr)?;
                after_release(&aggregate.aggr_expr)
            }
            Err(inner) => Err(if refusal.detail.starts_with(NESTED) { inner } else { refusal }),
        }
    }
}

/// Whether a plan holds literals only.
fn literals(plan: &LogicalPlan) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is no list of literals")]
    match plan {
        LogicalPlan::Values(values) => {
            values.values.len() <= 1000 && values.values.iter().flatten().all(|e| matches!(e, Expr::Literal(..)))
        }
        LogicalPlan::SubqueryAlias(alias) => literals(&alias.input),
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|e| matches!(e.clone().unalias_nested().data, Expr::Column(_)))
                && literals(&projection.input)
        }
        _ => false,
    }
}

/// That no column has the name of another one's interval, or of the notes: the answer has these besides, and could not be made after
/// it was paid for.
fn check_names(plan: &LogicalPlan) -> Result<(), Refusal> {
    let names: BTreeSet<&str> = plan.schema().fields().iter().map(|f| f.name().as_str()).collect();
    let taken = |name: &&str| {
        let of = name.strip_suffix("_low").or_else(|| name.strip_suffix("_high"));
        *name == CELL_NOTE || of.is_some_and(|of| names.contains(of))
    };
    match names.iter().copied().find(taken) {
        None => Ok(()),
        Some(name) => Err(unsupported(format!("the answer has a column {name} of its own: choose another name"))),
    }
}

/// That a window over released cells has few rows: the engine keeps all of them, and joins may multiply them.
fn check_window(input: &LogicalPlan, parts: &[Part]) -> Result<(), Refusal> {
    let mut joined = false;
    let mut rows = parts.iter().map(Part::most_rows).fold(1, usize::saturating_mul);
    // The closure never fails, so neither does the walk.
    let _ = input.apply(|node| {
        joined |= matches!(node, LogicalPlan::Join(_));
        if let LogicalPlan::Values(values) = node {
            rows = rows.saturating_mul(values.values.len().max(1));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if joined && rows > MAX_WINDOW_ROWS {
        let detail = format!(
            "a window over a join of released tables that may have more than {MAX_WINDOW_ROWS} rows is not admitted: put the window into \
             one of the tables"
        );
        return Err(unsupported(detail));
    }
    Ok(())
}

/// Expressions over released cells: anything that the planner knows, within its size.
fn after_release(exprs: &[Expr]) -> Result<(), Refusal> {
    for expr in exprs {
        let subquery = expr.exists(|e| {
            Ok(matches!(e, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)))
        });
        if !shallow(expr) {
            return Err(unsupported(format!("an expression is more than {MAX_DEPTH} deep; write it flatter")));
        }
        if subquery.unwrap_or(true) {
            return Err(unsupported(
                "a subquery in an expression over released cells is not admitted: join the released tables instead",
            ));
        }
        if expr
            .exists(|e| Ok(matches!(e, Expr::ScalarFunction(f) if f.name() == "replace" && !shrinks(&f.args))))
            .unwrap_or(true)
        {
            return Err(unsupported(
                "replace by a longer text, or a computed one, is not admitted: write two literals",
            ));
        }
    }
    Ok(())
}

/// What `sekisho explain` says of an operator over released cells.
fn step(plan: &LogicalPlan, depth: usize) -> Option<Step> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others pass on what is under them, or are refused")]
    let operator = match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let list = |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let groups = list(&aggregate.group_expr);
            let by = if groups.is_empty() { String::new() } else { format!(" by {groups}") };
            format!("Aggregate {}{by}", list(&aggregate.aggr_expr))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Union(_) => plan.display().to_string(),
        _ => return None,
    };
    Some(Step { depth, operator, facts: "released cells".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_protocol::permit::Preset;

    use crate::{
        example,
        plan::{Price, Quantity},
    };

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
    fn admitted(sql: &str, cells: usize, measures: &[Quantity]) -> PrivatePlan {
        let plan = analyse(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        assert_eq!(plan.cells(), cells, "{sql}\n{}", plan.canonical());
        let got: Vec<Quantity> = plan.parts.iter().flat_map(|p| &p.measures).map(|m| m.quantity.clone()).collect();
        assert_eq!(got, measures, "{sql}\n{}", plan.canonical());
        plan
    }

    #[test]
    fn what_one_select_may_ask() {
        use Quantity::{Patients, Present, Rows, Sum};
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
        use Quantity::{Patients, Present, Rows, Sum};
        let rows = |sql: &str| analyse(sql).unwrap_or_else(|r| panic!("{sql}: {r}")).parts[0].rows_per_patient;
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
        assert!(plan.parts[0].one_row && !plan.parts[0].ordered);
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
        ] {
            refused(sql, code, names);
        }
    }

    #[test]
    fn functions_and_statements_beyond_the_list_are_refused_by_name() {
        use Code::{RowLevel, SqlUnknownName, SqlUnsupported};
        for (sql, code, names) in [
            ("SELECT count(DISTINCT sex) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT sum(DISTINCT days) FROM stay", SqlUnsupported, "DISTINCT"),
            ("SELECT row_number() OVER () FROM stay", RowLevel, "rows"),
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
            format!(
                "SELECT count(*) FROM stay GROUP BY {}",
                (0..17).map(|i| format!("age + {i}")).collect::<Vec<_>>().join(", ")
            ),
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
        admitted(&format!("{sql} SELECT count(x) FROM t10"), 1, &[Quantity::Present { argument: 0 }]);
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
        assert_eq!(plan.parts[0].arguments[0].range, Some((-120, 700)));
        let plan = analyse("SELECT sum(CASE WHEN died THEN days ELSE -5 END) FROM stay").unwrap();
        assert_eq!(plan.parts[0].arguments[0].range, Some((-5, 100)));
        let plan = analyse("SELECT sum(days % 7), sum(days / 30) FROM stay").unwrap();
        assert_eq!(plan.parts[0].arguments[0].range, Some((-6, 6)));
        assert_eq!(plan.parts[0].arguments[1].range, Some((0, 3)));
    }

    #[test]
    fn the_patient_count_that_a_preset_needs_is_added_and_shares_the_rho() {
        let mut permit = example::permit(3, 2);
        permit.disclosure = Preset::JpNdb;
        let rho = MicroRho::try_from(1000).unwrap();
        let ask = |sql: &str| PrivatePlan::analyse(sql, &example::schema(), &permit, rho).unwrap();
        let plan = ask("SELECT sex, count(*) FROM stay GROUP BY sex");
        let part = &plan.parts[0];
        let quantities: Vec<_> = part.measures.iter().map(|m| m.quantity.clone()).collect();
        assert_eq!(quantities, [Quantity::Rows, Quantity::Patients { present: None }]);
        let half = Price::Rho(MicroRho::try_from(500).unwrap());
        assert_eq!((&part.guards[..], part.measures[1].price, part.outputs.len()), (&[1][..], half, 1));
        // Where a patient has one row, rows are patients.
        let plan = ask("SELECT sex, count(*) FROM summary GROUP BY sex");
        let part = &plan.parts[0];
        assert_eq!((part.measures.len(), &part.guards[..]), (1, &[0][..]));
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
