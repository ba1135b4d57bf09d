//! That the rows of a part are per patient, found from the plan alone.
//!
//! Written without regard to how `aggregation` finds it: a column holds the patient of its row, or an id that no longer names the
//! row's patient, or anything else; and every operator must keep rows of different patients apart. Whatever is not known to do so
//! is wrong.

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{
    Distinct, Expr, JoinType, LogicalPlan, Operator, expr::WindowFunction, utils::split_conjunction,
};
use sekisho_protocol::schema::Schema;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The patient whose row it is.
    Patient,
    /// A patient's id, or NULL, that need not be the row's patient.
    Id,
    /// Anything else.
    Other,
}

/// What a relation is.
#[derive(Debug)]
pub struct Rows {
    /// For each column.
    pub columns: Vec<Of>,
    /// Its rows are patients'.
    pub protected: bool,
}

type Found<T> = Result<T, String>;

/// What `plan` is.
///
/// # Errors
/// What lets rows of different patients meet.
pub fn rows(plan: &LogicalPlan, schema: &Schema) -> Found<Rows> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = schema.table(scan.table_name.table()).ok_or("a table of no schema")?;
            if !scan.filters.is_empty() || scan.fetch.is_some() {
                return Err("a scan that filters".into());
            }
            let of = |name: &String| if Some(name) == table.patient.as_ref() { Of::Patient } else { Of::Other };
            let columns = plan.schema().fields().iter().map(|field| of(field.name())).collect();
            Ok(Rows { columns, protected: table.patient.is_some() })
        }
        LogicalPlan::Values(values) => {
            let plain = |e: &Expr| matches!(e, Expr::Literal(..));
            if !values.values.iter().flatten().all(plain) {
                return Err("VALUES of other than literals".into());
            }
            Ok(Rows { columns: vec![Of::Other; plan.schema().fields().len()], protected: false })
        }
        LogicalPlan::SubqueryAlias(alias) => rows(&alias.input, schema),
        LogicalPlan::Projection(projection) => {
            let input = rows(&projection.input, schema)?;
            let columns = projection.expr.iter().map(|e| of(e, &projection.input, &input)).collect::<Found<_>>()?;
            Ok(Rows { columns, ..input })
        }
        LogicalPlan::Filter(filter) => {
            let input = rows(&filter.input, schema)?;
            of(&filter.predicate, &filter.input, &input)?;
            Ok(input)
        }
        LogicalPlan::Distinct(Distinct::All(inner)) => {
            let input = rows(inner, schema)?;
            kept(&input, "DISTINCT without the patient")?;
            Ok(input)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = rows(&aggregate.input, schema)?;
            let groups = aggregate.group_expr.iter().map(|e| of(e, &aggregate.input, &input));
            let mut columns = groups.collect::<Found<Vec<_>>>()?;
            if input.protected && !columns.contains(&Of::Patient) {
                return Err("an inner GROUP BY without the patient".into());
            }
            for expr in &aggregate.aggr_expr {
                columns.push(counted(expr, &aggregate.input, &input)?);
            }
            Ok(Rows { columns, protected: input.protected })
        }
        LogicalPlan::Window(window) => {
            let mut input = rows(&window.input, schema)?;
            let before = input.columns.len();
            for expr in &window.window_expr {
                let bare = expr.clone().unalias_nested().data;
                let Expr::WindowFunction(function) = &bare else { return Err("a window of no function".into()) };
                let WindowFunction { params, .. } = &**function;
                let by = |e: &Expr| of(e, &window.input, &input);
                let by = params.partition_by.iter().map(by).collect::<Found<Vec<_>>>()?;
                if input.protected && !by.contains(&Of::Patient) {
                    return Err("an inner window that is not PARTITION BY the patient".into());
                }
                counted(expr, &window.input, &input)?;
            }
            let made = plan.schema().fields().len().saturating_sub(before);
            input.columns.extend(vec![Of::Other; made]);
            Ok(input)
        }
        LogicalPlan::Union(union) => {
            let sides = union.inputs.iter().map(|i| rows(i, schema)).collect::<Found<Vec<_>>>()?;
            let protected = sides.iter().any(|s| s.protected);
            if sides.iter().any(|s| s.protected != protected) {
                return Err("a union of patients' rows and public ones".into());
            }
            let all = |place: usize, what: Of| sides.iter().all(|s| s.columns.get(place) == Some(&what));
            let any = |place: usize| sides.iter().any(|s| s.columns.get(place).is_none_or(|c| *c != Of::Other));
            let column = |place| match (all(place, Of::Patient), any(place)) {
                (true, _) => Of::Patient,
                (false, true) => Of::Id,
                (false, false) => Of::Other,
            };
            let made = Rows { columns: (0..plan.schema().fields().len()).map(column).collect(), protected };
            kept(&made, "a union that loses the patient")?;
            Ok(made)
        }
        LogicalPlan::Join(_) => join(plan, schema),
        other => Err(format!("{} in the rows of a part", other.display())),
    }
}

fn kept(rows: &Rows, otherwise: &str) -> Found<()> {
    if rows.protected && !rows.columns.contains(&Of::Patient) { Err(otherwise.into()) } else { Ok(()) }
}

fn join(plan: &LogicalPlan, schema: &Schema) -> Found<Rows> {
    let LogicalPlan::Join(join) = plan else { return Err("no join".into()) };
    let (left, right) = (rows(&join.left, schema)?, rows(&join.right, schema)?);
    let patient = |e: &Expr, side: &LogicalPlan, rows: &Rows| {
        matches!(e, Expr::Column(_)) && matches!(of(e, side, rows), Ok(Of::Patient))
    };
    let meet = |a: &Expr, b: &Expr| {
        (patient(a, &join.left, &left) && patient(b, &join.right, &right))
            || (patient(b, &join.left, &left) && patient(a, &join.right, &right))
    };
    let mut on_patient = join.on.iter().any(|(a, b)| meet(a, b));
    for condition in join.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(equal) = condition
            && equal.op == Operator::Eq
            && meet(&equal.left, &equal.right)
        {
            on_patient = true;
            continue;
        }
        untouched(condition, &[(&join.left, &left), (&join.right, &right)])?;
    }
    if left.protected && right.protected && !on_patient {
        return Err("a join of protected tables without an equality of their patients".into());
    }
    let ids = |columns: Vec<Of>| columns.into_iter().map(|c| if c == Of::Patient { Of::Id } else { c }).collect();
    let (mut a, mut b): (Vec<Of>, Vec<Of>) = (left.columns, right.columns);
    match (join.join_type, left.protected, right.protected) {
        (JoinType::Inner, ..) => {}
        (JoinType::Left, true, _) | (JoinType::Left, false, false) => b = ids(b),
        (JoinType::Right, _, true) | (JoinType::Right, false, false) => a = ids(a),
        (JoinType::LeftSemi | JoinType::LeftAnti, true, _)
        | (JoinType::LeftSemi | JoinType::LeftAnti, false, false) => {
            return Ok(Rows { columns: a, protected: left.protected });
        }
        (kind, ..) => return Err(format!("a {kind} join that keeps rows of no patient, or of others")),
    }
    a.append(&mut b);
    Ok(Rows { columns: a, protected: left.protected || right.protected })
}

/// What an expression over `input` holds; wrong, when something is computed of a patient.
fn of(expr: &Expr, input: &LogicalPlan, rows: &Rows) -> Found<Of> {
    let bare = expr.clone().unalias_nested().data;
    if let Expr::Column(column) = &bare {
        let place = input.schema().maybe_index_of_column(column).ok_or("a column that is not there")?;
        return rows.columns.get(place).copied().ok_or_else(|| "a column too many".into());
    }
    untouched(&bare, &[(input, rows)])?;
    Ok(Of::Other)
}

/// An aggregate or window function: a patient may be counted, and rows of one patient may be ordered by anything.
fn counted(expr: &Expr, input: &LogicalPlan, rows: &Rows) -> Found<Of> {
    let bare = expr.clone().unalias_nested().data;
    let (name, args, filter) = match &bare {
        Expr::AggregateFunction(f) => (f.func.name(), &f.params.args, &f.params.filter),
        Expr::WindowFunction(f) => (f.fun.name(), &f.params.args, &f.params.filter),
        _ => return Err("an aggregate that is none".into()),
    };
    let of_rows = |e: &&Expr| name != "count" || !matches!(e, Expr::Column(_));
    for part in args.iter().filter(of_rows).chain(filter.as_deref()) {
        untouched(part, &[(input, rows)])?;
    }
    Ok(Of::Other)
}

/// That nothing of `expr` is a patient, but where it is asked whether there is one; and that no query hides in it.
fn untouched(expr: &Expr, sides: &[(&LogicalPlan, &Rows)]) -> Found<()> {
    let mut wrong = None;
    let mut look = |e: &Expr| match e {
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..) => {
            wrong = Some("a query in an expression".to_string());
        }
        Expr::Column(column) => {
            let held = sides.iter().find_map(|(plan, rows)| {
                plan.schema().maybe_index_of_column(column).and_then(|place| rows.columns.get(place))
            });
            if held != Some(&Of::Other) {
                wrong = Some(format!("{column} in {expr}"));
            }
        }
        _ => {}
    };
    visit(expr, &mut look);
    wrong.map_or(Ok(()), Err)
}

/// Every part of an expression, but what IS NULL is asked of.
fn visit(expr: &Expr, look: &mut dyn FnMut(&Expr)) {
    look(expr);
    if let Expr::IsNull(inner) | Expr::IsNotNull(inner) = expr
        && matches!(**inner, Expr::Column(_))
    {
        return;
    }
    let _ = expr.apply_children(|child| {
        visit(child, look);
        Ok(TreeNodeRecursion::Continue)
    });
}
