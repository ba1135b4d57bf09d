//! What the SQL says after its aggregates across patients: arithmetic, HAVING, ORDER BY, LIMIT, joins of released tables,
//! aggregates of released cells. It runs at the coordinator on released numbers, is post-processing, and costs nothing.
//!
//! Intervals go with it. A column that is passed on keeps its interval. One that is computed gets an *enclosure*: interval
//! arithmetic over the ends of what it is computed from, taken at a level at which all outputs of the query hold together
//! (Bonferroni), so that the result holds at the asked level whatever the dependence. Where no enclosure is known (window functions,
//! aggregates of released cells, DISTINCT) there is none. Division by zero and casts that fail are NULL.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{
    Column, DFSchema, DataFusionError,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::{
    AggregateUDF, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Union, WindowFunctionDefinition, col, expr,
    lit,
};
use datafusion_functions::math;
use datafusion_functions_aggregate::{average::avg_udaf, sum::sum_udaf};

use crate::{
    enclosure::{Notes, enclose},
    plan::PrivatePlan,
    relation::engines_number,
    scalar::function::{Kind, function},
    table::{ENDS, hidden_name, note_name},
};

/// The name of the column that says what is particular about a cell.
pub const CELL_NOTE: &str = "cell_note";

/// What is known of how exact a column is.
#[derive(Clone, Debug)]
enum Known {
    /// It is public: a group key or a literal.
    Exact,
    /// The names of the columns with the ends of its interval, in the order of [`ENDS`].
    Ends([String; 4]),
    /// Nothing.
    Unknown,
}

/// A plan over released cells, with what is known of each column of the SQL's own.
struct Carried {
    plan: LogicalPlan,
    known: Vec<Known>,
    /// The columns with notes.
    notes: Vec<String>,
}

/// Rebuilds the SQL's plan over released cells.
struct Rebuild<'a> {
    plan: &'a PrivatePlan,
    cells: std::vec::IntoIter<LogicalPlan>,
    part: usize,
    reducing: std::slice::Iter<'a, bool>,
    computed: usize,
}

fn hidden(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn unexpected(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!("{what} after an aggregate"))
}

impl PrivatePlan {
    /// The aggregate across patients of the part at `place`, as the SQL has it.
    pub(crate) fn aggregate(&self, place: usize) -> Result<&datafusion_expr::Aggregate, DataFusionError> {
        let mut found = Vec::new();
        find(&self.as_written, &mut self.reducing.iter(), &mut found)?;
        found.get(place).copied().ok_or_else(|| unexpected("no aggregate"))
    }

    /// What the SQL says after its aggregates, over `cells`: a scan of each table of [`released_cells`](Self::released_cells).
    ///
    /// The columns are the SQL's own, each aggregate's or computed column followed by `<name>_low` and `<name>_high`, and at the
    /// end [`CELL_NOTE`].
    ///
    /// # Errors
    /// When the rest of the SQL cannot be planned over the cells' types.
    pub fn after_release(&self, cells: Vec<LogicalPlan>) -> Result<LogicalPlan, DataFusionError> {
        let mut rebuild =
            Rebuild { plan: self, cells: cells.into_iter(), part: 0, reducing: self.reducing.iter(), computed: 0 };
        let Carried { plan, known, notes } = rebuild.plan(&self.as_written)?;
        let mut exprs = Vec::new();
        for (column, known) in self.as_written.schema().columns().into_iter().zip(known) {
            let name = column.name.clone();
            exprs.push(Expr::Column(column));
            if let Known::Ends([low, high, ..]) = known {
                exprs.push(hidden(&low).alias(format!("{name}_low")));
                exprs.push(hidden(&high).alias(format!("{name}_high")));
            }
        }
        exprs.push(note(&notes)?.alias(CELL_NOTE));
        LogicalPlanBuilder::from(plan).project(exprs)?.build()
    }
}

/// The aggregates across patients in the order of a walk from the top.
fn find<'p>(
    plan: &'p LogicalPlan,
    reducing: &mut std::slice::Iter<bool>,
    found: &mut Vec<&'p datafusion_expr::Aggregate>,
) -> Result<(), DataFusionError> {
    if let LogicalPlan::Aggregate(aggregate) = plan
        && *reducing.next().ok_or_else(|| unexpected("an aggregate too many"))?
    {
        found.push(aggregate);
        return Ok(());
    }
    plan.inputs().into_iter().try_for_each(|input| find(input, reducing, found))
}

/// All notes of a row as one text.
fn note(notes: &[String]) -> Result<Expr, DataFusionError> {
    match notes {
        [] => Ok(lit("")),
        [one] => Ok(hidden(one)),
        several => Ok(datafusion_expr::ScalarUDF::from(Notes::new(several.len()))
            .call(several.iter().map(|n| hidden(n)).collect())),
    }
}

impl Rebuild<'_> {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Carried, DataFusionError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the analysis admitted only these")]
        match plan {
            LogicalPlan::Aggregate(aggregate) => {
                if *self.reducing.next().ok_or_else(|| unexpected("an aggregate too many"))? {
                    return self.cells(aggregate);
                }
                let input = self.plan(&aggregate.input)?;
                let groups = aggregate.group_expr.iter().map(total).collect::<Result<Vec<_>, _>>()?;
                let aggregates = aggregate.aggr_expr.iter().map(total).collect::<Result<Vec<_>, _>>()?;
                let known = vec![Known::Unknown; aggregate.schema.fields().len()];
                let plan = LogicalPlanBuilder::from(input.plan).aggregate(groups, aggregates)?.build()?;
                Ok(Carried { plan, known, notes: Vec::new() })
            }
            LogicalPlan::Projection(projection) => {
                let input = self.plan(&projection.input)?;
                self.projection(&projection.expr, projection.input.schema(), input)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.plan(&filter.input)?;
                let plan = LogicalPlanBuilder::from(input.plan).filter(total_inside(&filter.predicate)?)?.build()?;
                Ok(Carried { plan, ..input })
            }
            LogicalPlan::Sort(sort) => {
                let input = self.plan(&sort.input)?;
                let order = sort.expr.iter().map(|s| Ok(s.with_expr(total_inside(&s.expr)?)));
                let order = order.collect::<Result<Vec<_>, DataFusionError>>()?;
                let plan = LogicalPlanBuilder::from(input.plan).sort_with_limit(order, sort.fetch)?.build()?;
                Ok(Carried { plan, ..input })
            }
            LogicalPlan::Limit(limit) => {
                let input = self.plan(&limit.input)?;
                let plan =
                    Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input: Arc::new(input.plan.clone()) };
                Ok(Carried { plan: LogicalPlan::Limit(plan), ..input })
            }
            LogicalPlan::Window(window) => {
                let mut input = self.plan(&window.input)?;
                let exprs = window.window_expr.iter().map(total).collect::<Result<Vec<_>, _>>()?;
                input.known.extend(exprs.iter().map(|_| Known::Unknown));
                let plan = LogicalPlanBuilder::from(input.plan).window(exprs)?.build()?;
                Ok(Carried { plan, ..input })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.plan(&alias.input)?;
                let plan = LogicalPlanBuilder::from(input.plan).alias(alias.alias.clone())?.build()?;
                Ok(Carried { plan, ..input })
            }
            LogicalPlan::Values(values) => {
                let known = vec![Known::Exact; values.schema.fields().len()];
                Ok(Carried { plan: plan.clone(), known, notes: Vec::new() })
            }
            LogicalPlan::Join(join) => {
                let (left, right) = (self.plan(&join.left)?, self.plan(&join.right)?);
                let equal = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
                let on = equal.chain(join.filter.clone()).map(|e| total_inside(&e)).collect::<Result<Vec<_>, _>>()?;
                let plan = LogicalPlanBuilder::from(left.plan).join_on(right.plan, join.join_type, on)?.build()?;
                let known = left.known.into_iter().chain(right.known).collect();
                Ok(Carried { plan, known, notes: left.notes.into_iter().chain(right.notes).collect() })
            }
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Distinct(datafusion_expr::Distinct::All(input)) => {
                let of = self.plan(input)?;
                let own = input.schema().columns().into_iter().map(Expr::Column);
                let plan = LogicalPlanBuilder::from(of.plan).project(own)?.distinct()?.build()?;
                let known =
                    of.known.iter().map(|k| if matches!(k, Known::Exact) { Known::Exact } else { Known::Unknown });
                Ok(Carried { plan, known: known.collect(), notes: Vec::new() })
            }
            other => Err(unexpected(&other.display().to_string())),
        }
    }

    /// The released table of the next part, its columns named as the SQL's aggregate has them.
    fn cells(&mut self, aggregate: &datafusion_expr::Aggregate) -> Result<Carried, DataFusionError> {
        let scan = self.cells.next().ok_or_else(|| unexpected("no released cells"))?;
        let place = self.part;
        self.part += 1;
        let part = self.plan.parts.get(place).ok_or_else(|| unexpected("no part"))?;
        let outputs = part.outputs.len();
        let columns = aggregate.schema.fields().len();
        let named = aggregate.schema.iter().enumerate();
        let named =
            named.map(|(i, (qualifier, field))| col(format!("c{i}")).alias_qualified(qualifier.cloned(), field.name()));
        let ends: Vec<[String; 4]> = (0..outputs).map(|i| ENDS.map(|end| hidden_name(place, i, end))).collect();
        let notes = vec![note_name(place)];
        let hidden = ends.iter().flatten().chain(&notes).map(|name| hidden(name));
        let plan = LogicalPlanBuilder::from(scan).project(named.chain(hidden).collect::<Vec<_>>())?.build()?;
        let keys = (0..columns.saturating_sub(outputs)).map(|_| Known::Exact);
        let of_output = part.outputs.iter().zip(ends).map(|(output, ends)| match output {
            crate::plan::Output::Grouping { .. } => Known::Exact,
            crate::plan::Output::One { .. }
            | crate::plan::Output::Patients { .. }
            | crate::plan::Output::Avg { .. }
            | crate::plan::Output::Moments { .. }
            | crate::plan::Output::Quantile { .. }
            | crate::plan::Output::Extreme { .. } => Known::Ends(ends),
        });
        Ok(Carried { plan, known: keys.chain(of_output).collect(), notes })
    }

    fn projection(&mut self, exprs: &[Expr], schema: &DFSchema, input: Carried) -> Result<Carried, DataFusionError> {
        let (mut all, mut ends, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for expr in exprs {
            let bare = expr.clone().unalias_nested().data;
            all.push(total(expr)?);
            if let Expr::Column(column) = &bare {
                let place = schema.maybe_index_of_column(column);
                let of_column = place.and_then(|i| input.known.get(i)).cloned().unwrap_or(Known::Unknown);
                if let Known::Ends(names) = &of_column {
                    ends.extend(names.iter().map(|name| hidden(name)));
                }
                known.push(of_column);
                continue;
            }
            let column = |column: &Column| match input.known.get(schema.maybe_index_of_column(column)?)? {
                Known::Exact => {
                    let exact = expr::TryCast::new(Box::new(Expr::Column(column.clone())), DataType::Float64);
                    Some((Expr::TryCast(exact.clone()), Expr::TryCast(exact)))
                }
                Known::Ends([.., low, high]) => Some((hidden(low), hidden(high))),
                Known::Unknown => None,
            };
            let exact = bare.column_refs().iter().all(|c| {
                let place = schema.maybe_index_of_column(c);
                matches!(place.and_then(|i| input.known.get(i)), Some(Known::Exact))
            });
            known.push(match (exact, enclose(&bare, schema, &column)) {
                (true, _) => Known::Exact,
                (false, Some((low, high))) => {
                    let name = |end: &str| format!("__x{}_{end}", self.computed);
                    let (low_name, high_name) = (name("low"), name("high"));
                    self.computed += 1;
                    ends.push(low.alias(&low_name));
                    ends.push(high.alias(&high_name));
                    Known::Ends([low_name.clone(), high_name.clone(), low_name, high_name])
                }
                (false, None) => Known::Unknown,
            });
        }
        ends.sort_by_key(|e| e.schema_name().to_string());
        ends.dedup_by_key(|e| e.schema_name().to_string());
        let notes = input.notes.iter().map(|n| hidden(n)).collect::<Vec<_>>();
        let plan = LogicalPlanBuilder::from(input.plan).project(all.into_iter().chain(ends).chain(notes))?.build()?;
        Ok(Carried { plan, known, notes: input.notes })
    }

    fn union(&mut self, union: &Union) -> Result<Carried, DataFusionError> {
        let inputs = union.inputs.iter().map(|i| self.plan(i)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = union.schema.fields().iter().map(|f| f.name().clone()).collect();
        let all_have = |i: usize| inputs.iter().all(|c| matches!(c.known.get(i), Some(Known::Ends(_))));
        let exact = |i: usize| inputs.iter().all(|c| matches!(c.known.get(i), Some(Known::Exact)));
        let prefix = format!("__u{}", self.computed);
        self.computed += 1;
        let known: Vec<Known> = (0..names.len())
            .map(|i| match (exact(i), all_have(i)) {
                (true, _) => Known::Exact,
                (false, true) => Known::Ends(ENDS.map(|end| format!("{prefix}_{i}_{end}"))),
                (false, false) => Known::Unknown,
            })
            .collect();
        let note_of_all = format!("{prefix}_note");
        let mut plans = Vec::new();
        for (carried, input) in inputs.into_iter().zip(&union.inputs) {
            let own = input.schema().columns().into_iter().zip(&names).map(|(c, name)| Expr::Column(c).alias(name));
            let mut exprs: Vec<Expr> = own.collect();
            for (from, to) in carried.known.iter().zip(&known) {
                if let (Known::Ends(from), Known::Ends(to)) = (from, to) {
                    exprs.extend(from.iter().zip(to).map(|(from, to)| hidden(from).alias(to)));
                }
            }
            exprs.push(note(&carried.notes)?.alias(&note_of_all));
            plans.push(LogicalPlanBuilder::from(carried.plan).project(exprs)?.build()?);
        }
        let mut plans = plans.into_iter();
        let first = plans.next().ok_or_else(|| unexpected("a UNION of nothing"))?;
        let plan = plans.try_fold(LogicalPlanBuilder::from(first), LogicalPlanBuilder::union)?.build()?;
        Ok(Carried { plan, known, notes: vec![note_of_all] })
    }
}

/// The same expression, under the same name, without what could fail: division by zero and casts that fail are NULL.
fn total(expr: &Expr) -> Result<Expr, DataFusionError> {
    let inside = total_inside(expr)?;
    if inside == *expr { Ok(inside) } else { Ok(inside.unalias().alias(expr.schema_name().to_string())) }
}

fn total_inside(expr: &Expr) -> Result<Expr, DataFusionError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else stays as it is")]
    let rewritten = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::Cast(cast) => Transformed::yes(Expr::TryCast(expr::TryCast { expr: cast.expr, field: cast.field })),
            Expr::BinaryExpr(b) if matches!(b.op, Operator::Divide | Operator::Modulo) => {
                let zero = (*b.right).clone().eq(lit(0_i64));
                let null = lit(datafusion_common::ScalarValue::Null);
                let case = expr::Case {
                    expr: None,
                    when_then_expr: vec![(Box::new(zero), Box::new(null))],
                    else_expr: Some(Box::new(Expr::BinaryExpr(b))),
                };
                Transformed::yes(Expr::Case(case))
            }
            // The engine's own puts texts of any length together.
            Expr::BinaryExpr(b) if b.op == Operator::StringConcat => {
                Transformed::yes(function(Kind::Join).call(vec![*b.left, *b.right]))
            }
            // The engine's own functions take the place of those that are exact and total over rows.
            Expr::ScalarFunction(mut function) => {
                let own = match function.func.name() {
                    "abs" => math::abs(),
                    "sign" => math::signum(),
                    "floor" => math::floor(),
                    "ceil" => math::ceil(),
                    "round" => math::round(),
                    _ => return Ok(Transformed::no(Expr::ScalarFunction(function))),
                };
                function.func = own;
                Transformed::yes(Expr::ScalarFunction(function))
            }
            Expr::AggregateFunction(mut function) => {
                function.func = of_cells(function.func);
                Transformed::yes(Expr::AggregateFunction(function))
            }
            Expr::WindowFunction(mut function) => {
                function.fun = match function.fun {
                    WindowFunctionDefinition::AggregateUDF(of) => WindowFunctionDefinition::AggregateUDF(of_cells(of)),
                    WindowFunctionDefinition::WindowUDF(of) => {
                        WindowFunctionDefinition::WindowUDF(engines_number(of.name()).unwrap_or(of))
                    }
                };
                Transformed::yes(Expr::WindowFunction(function))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(rewritten.data)
}

/// The engine's own `sum` and `avg` for those that stand for the fold's.
fn of_cells(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "sum" => sum_udaf(),
        "avg" => avg_udaf(),
        _ => function,
    }
}
