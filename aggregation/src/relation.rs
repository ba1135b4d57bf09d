//! Relations and what is known of them: whose rows they are, and which values their columns may have.
//!
//! Every operator under the reducing aggregate is *per patient*: the output rows of a patient depend on that patient's
//! input rows and on public tables alone. So a patient with all their rows in all tables moves only their own rows, and
//! the fold bounds those. Each relation carries its patient column, hidden where the SQL drops it; facts of a column (range,
//! public values) are those of its definition, and a bound on rows per patient is dropped when a join may multiply rows.
//!
//! Every variant of `LogicalPlan` is listed: what is not admitted is refused by name, with what to write instead.
//!
//! | operator | needs |
//! |---|---|
//! | scan | a table of the schema |
//! | SELECT, WHERE | expressions that `scalar` admits |
//! | JOIN of protected tables | an equality of their patients; inner, left or right, so that rows keep a patient |
//! | JOIN with a public table or VALUES | an equality of a column of either side; the protected table's rows are kept |
//! | IN, EXISTS | an equality of patients, or IN over a public table; at most eight of these and of joins together |
//! | UNION ALL | patients on both sides, or on neither |
//! | DISTINCT | the patient among its columns |
//! | GROUP BY, windows | the patient, see [`patient`] |
//! | VALUES | literals, at most 1,000 rows |

mod exact;
mod join;
mod patient;
mod sets;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use datafusion_common::{Column, DFSchema};
use datafusion_expr::{
    Aggregate, Distinct, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, utils::split_conjunction_owned,
};
use sekisho_protocol::{
    refusal::{Code, Refusal},
    schema::{Kind, Schema, Table},
};

pub(crate) use self::exact::{avg, engines_number, numbers, sum};
pub use self::steps::Step;
use crate::{
    domain::{Image, KeyKind, KeyValue, image_if_small},
    place,
    scalar::Range,
};

/// The most operators of one query after views and CTEs were put in place.
const MAX_OPERATORS: usize = 500;

/// How the refusal of an aggregate across patients under another one begins.
pub(crate) const NESTED: &str = "an aggregate of an aggregate that is not per patient";

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
    /// How many nodes its definition has, with those of its columns put in place.
    pub(crate) parts: usize,
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
    joins: usize,
    hidden: usize,
    depth: usize,
    /// A refusal was given its place, or has none.
    refused: bool,
    /// The columns that the whole query depends on, where that is known already: others break no ties.
    needed: Option<BTreeSet<(String, String)>>,
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

/// Each group key once, as an aggregate has a column for it.
pub(crate) fn different(keys: &[Expr]) -> Vec<&Expr> {
    let mut once: Vec<&Expr> = Vec::with_capacity(keys.len());
    for key in keys {
        if !once.contains(&key) {
            once.push(key);
        }
    }
    once
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

    /// What is known of `column`, which the planner found in the relation.
    ///
    /// # Errors
    /// `sql_unsupported` where it is not there: nothing is known of it, and so nothing is done with it.
    pub(crate) fn known(&self, column: &Column) -> Result<&Fact, Refusal> {
        self.fact(column).ok_or_else(|| unsupported(format!("column {column} cannot be found: name it plainly")))
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
        Self {
            schema,
            operators: 0,
            joins: 0,
            hidden: 0,
            depth: 0,
            refused: false,
            needed: None,
            tables: BTreeSet::new(),
            used: BTreeSet::new(),
            steps: Vec::new(),
        }
    }

    /// The relation under the reducing `aggregate`, walked twice: which columns break ties of a window's order depends on which
    /// columns the whole query uses. (`relation` alone takes them all.)
    ///
    /// # Errors
    /// A refusal that names the construct.
    pub(crate) fn under(&mut self, aggregate: &Aggregate) -> Result<Relation, Refusal> {
        let mut first = Walk::new(self.schema);
        let relation = first.relation(&aggregate.input)?;
        for expr in aggregate.group_expr.iter().chain(&aggregate.aggr_expr) {
            first.uses(expr, &relation);
        }
        self.needed = Some(first.used);
        self.relation(&aggregate.input)
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
        let place = self.steps.len();
        self.steps.push(Step { depth: self.depth, operator: String::new(), facts: String::new() });
        self.depth += 1;
        let (relation, operator) = self.operator(plan).map_err(|refusal| {
            // The innermost relation that is refused names the place.
            let first = !std::mem::replace(&mut self.refused, true);
            place::at(refusal, plan.expressions().iter().filter_map(place::of).min().filter(|_| first))
        })?;
        self.depth -= 1;
        // Facts are found by the place of their column: none may be about another one.
        if relation.facts.len() != relation.schema().fields().len() {
            return Err(cannot_build(()));
        }
        if let Some(step) = self.steps.get_mut(place) {
            step.operator = operator;
            step.facts = steps::facts(&relation);
        }
        Ok(relation)
    }

    /// The relation that `plan` is, and what makes it.
    fn operator(&mut self, plan: &LogicalPlan) -> Result<(Relation, String), Refusal> {
        let (relation, operator) = match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.fetch.is_some() || !scan.filters.is_empty() {
                    return Err(unsupported("a scan with its own limit or filter"));
                }
                let name = scan.table_name.table();
                return Ok((self.scan(plan, name)?, format!("Scan {name}")));
            }
            LogicalPlan::Projection(projection) => (self.projection(projection)?, "Select"),
            LogicalPlan::Filter(filter) => (self.filter(filter)?, "Filter"),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.relation(&alias.input)?;
                let plan =
                    LogicalPlanBuilder::from(input.plan).alias(alias.alias.clone()).and_then(LogicalPlanBuilder::build);
                let relation = Relation { plan: plan.map_err(cannot_build)?, ..input };
                return Ok((relation, format!("As {}", alias.alias)));
            }
            LogicalPlan::Join(join) => self.join(join)?,
            LogicalPlan::Union(union) => (self.union(union)?, "Union"),
            LogicalPlan::Aggregate(aggregate) => (self.aggregate(aggregate)?, "Aggregate per patient"),
            LogicalPlan::Window(window) => (self.window(window)?, "Window per patient"),
            LogicalPlan::Distinct(Distinct::All(input)) => (self.distinct(input)?, "Distinct"),
            LogicalPlan::Values(values) => (self.values(values)?, "Values"),
            LogicalPlan::Distinct(Distinct::On(_)) => {
                return Err(unsupported(
                    "DISTINCT ON is not admitted: use row_number() OVER (PARTITION BY patient ORDER BY …)",
                ));
            }
            LogicalPlan::Sort(_) => {
                return Err(unsupported(
                    "ORDER BY under an aggregate is not admitted: order the released cells, or use row_number() OVER (PARTITION BY \
                     patient ORDER BY …)",
                ));
            }
            LogicalPlan::Limit(_) => {
                return Err(unsupported(
                    "LIMIT under an aggregate would choose rows across patients: use it on the released cells, or row_number() OVER \
                     (PARTITION BY patient ORDER BY …)",
                ));
            }
            LogicalPlan::EmptyRelation(_) => return Err(unsupported("the query reads no protected table")),
            LogicalPlan::RecursiveQuery(_) => {
                return Err(unsupported("RECURSIVE is not admitted: write the steps out"));
            }
            LogicalPlan::Unnest(_) => return Err(unsupported("UNNEST is not admitted: join with VALUES")),
            LogicalPlan::Repartition(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => return Err(unsupported("only SELECT is admitted")),
        };
        Ok((relation, operator.to_string()))
    }

    fn scan(&mut self, plan: &LogicalPlan, name: &str) -> Result<Relation, Refusal> {
        let table = self.schema.table(name).ok_or_else(|| unsupported("a table that the schema does not have"))?;
        self.tables.insert(name.to_string());
        let facts = plan.schema().fields().iter().map(|f| column_fact(table, f.name()));
        let facts = facts.collect::<Result<Vec<Fact>, _>>()?;
        let patient = facts.iter().position(|f| f.patient);
        let rows = table.one_row_per_patient.then_some(1);
        Ok(Relation { plan: plan.clone(), facts, patient, rows, ordered: true })
    }

    /// An expression that is passed on: the patient column as it is, anything else as it is admitted, under its own name.
    fn passed(&mut self, expr: &Expr, input: &Relation) -> Result<(Expr, Fact), Refusal> {
        let bare = expr.clone().unalias_nested().data;
        if input.is_patient(&bare) {
            let Expr::Column(column) = &bare else { return Err(unsupported("a patient column that is none")) };
            return Ok((expr.clone(), input.known(column)?.clone()));
        }
        let admitted = input.admit(bare.clone())?;
        let fact = fact_of(&admitted, input)?;
        let named = if let Expr::Alias(alias) = expr {
            admitted.alias_qualified(alias.relation.clone(), alias.name.clone())
        } else if admitted == *expr {
            admitted
        } else {
            admitted.alias(expr.schema_name().to_string())
        };
        Ok((named, fact))
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
        facts.push(patient_fact());
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
                condition => self.where_true(input, condition)?,
            };
        }
        Ok(input)
    }

    /// The rows for which `condition` is true.
    fn where_true(&mut self, input: Relation, condition: Expr) -> Result<Relation, Refusal> {
        let condition = input.admit_condition(condition)?;
        self.uses(&condition, &input);
        let plan = LogicalPlanBuilder::from(input.plan).filter(condition).and_then(LogicalPlanBuilder::build);
        Ok(Relation { plan: plan.map_err(cannot_build)?, ..input })
    }
}

/// What is known of an admitted expression.
fn fact_of(expr: &Expr, input: &Relation) -> Result<Fact, Refusal> {
    if let Expr::Column(column) = expr {
        return input.known(column).cloned();
    }
    let mut from = BTreeSet::new();
    for column in expr.column_refs() {
        from.extend(input.known(column)?.from.iter().cloned());
    }
    let range = input.bounded(expr).map(|(_, range)| range);
    let (image, parts) = (image_if_small(expr, input), input.parts(expr));
    Ok(Fact { range, image, from, parts, ..Fact::default() })
}

/// What is known of a patient column that SQL does not name.
fn patient_fact() -> Fact {
    Fact { patient: true, identity: true, parts: 1, ..Fact::default() }
}

fn column_fact(table: &Table, name: &str) -> Result<Fact, Refusal> {
    let column = table.column(name).ok_or_else(|| unsupported("a column that the schema does not have"))?;
    let range = column.fixed_bounds().ok().flatten().map(|(lo, hi)| Range { lo: lo.into(), hi: hi.into() });
    let text = |domain: &Vec<String>| Image {
        kind: KeyKind::Text,
        values: domain.iter().cloned().map(KeyValue::Text).collect::<BTreeSet<_>>().into_iter().collect(),
        null: true,
        outside: true,
    };
    let image = match column.kind {
        Kind::Text => column.domain.as_ref().map(text),
        Kind::Bool => Some(Image::bools()),
        Kind::Int64 | Kind::Decimal | Kind::Date => None,
    };
    let patient = table.patient.as_deref() == Some(name);
    let from = if patient { BTreeSet::new() } else { BTreeSet::from([(table.name.clone(), name.to_string())]) };
    Ok(Fact { patient, identity: patient, range, image, from, parts: 1 })
}
