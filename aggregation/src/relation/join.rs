//! Joins, and conditions that are joins: IN, EXISTS.

use std::collections::HashSet;

use datafusion_common::{Column, DFSchema, JoinType, NullEquality};
use datafusion_expr::{
    EmptyRelation, Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, expr::InSubquery,
    utils::split_conjunction_owned,
};
use sekisho_protocol::refusal::Refusal;

use super::{Fact, Relation, Walk, cannot_build, unsupported};

/// The most joins of a query, IN and EXISTS among them: each may multiply rows.
const MAX_JOINS: usize = 8;

impl Walk<'_> {
    fn count_join(&mut self) -> Result<(), Refusal> {
        self.joins += 1;
        if self.joins > MAX_JOINS {
            return Err(unsupported(format!(
                "JOIN, IN (SELECT …) and EXISTS are admitted {MAX_JOINS} times in a query: ask in parts"
            )));
        }
        Ok(())
    }

    /// `x IN (SELECT …)`: on the patient, or on a value and a public list.
    pub(super) fn within(&mut self, input: Relation, within: InSubquery) -> Result<Relation, Refusal> {
        self.count_join()?;
        let inner_plan = &within.subquery.subquery;
        let inner = self.relation(inner_plan)?;
        let inner_expr = Expr::Column(Column::from(inner_plan.schema().qualified_field(0)));
        let outer = *within.expr;
        let outer = if input.is_patient(&outer) { outer } else { input.admit(outer)? };
        match (input.is_patient(&outer), inner.is_patient(&inner_expr), inner.patient) {
            (true, true, _) => {}
            (false, false, None) if !within.negated => {
                self.uses(&outer, &input);
                inner.admit(inner_expr.clone())?;
            }
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
        semi(input, &inner, kind, &format!("__in_{}", self.hidden), &outer, &inner_expr)
    }

    /// `EXISTS (SELECT … WHERE inner.patient = outer.patient AND …)`.
    pub(super) fn exists(
        &mut self,
        input: Relation,
        subquery: &LogicalPlan,
        negated: bool,
    ) -> Result<Relation, Refusal> {
        self.count_join()?;
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
        let (outer, own): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(Expr::contains_outer);
        let mut inner = self.relation(inner_plan)?;
        for condition in own {
            inner = self.where_true(inner, condition)?;
        }
        let refuse = || {
            unsupported(
                "EXISTS needs WHERE inner.patient = outer.patient, and other conditions on the inner table alone",
            )
        };
        let [Expr::BinaryExpr(equal)] = outer.as_slice() else { return Err(refuse()) };
        let (outer, own) = match (&*equal.left, &*equal.right) {
            (Expr::OuterReferenceColumn(_, column), own) | (own, Expr::OuterReferenceColumn(_, column)) => {
                (Expr::Column(column.clone()), own.clone())
            }
            _ => return Err(refuse()),
        };
        if equal.op != Operator::Eq || !input.is_patient(&outer) || !inner.is_patient(&own) {
            return Err(refuse());
        }
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        self.hidden += 1;
        semi(input, &inner, kind, &format!("__exists_{}", self.hidden), &outer, &own)
    }

    pub(super) fn join(&mut self, join: &Join) -> Result<(Relation, &'static str), Refusal> {
        self.count_join()?;
        let left = self.relation(&join.left)?;
        let right = self.relation(&join.right)?;
        if join.null_equality != NullEquality::NullEqualsNothing || join.null_aware {
            return Err(unsupported("a join that takes NULL for equal to NULL is not admitted: use JOIN … ON"));
        }
        let equalities = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let filters = join.filter.iter().cloned().flat_map(split_conjunction_owned);
        let conditions: Vec<Expr> = equalities.chain(filters).collect();
        let on_patient = |c: &Expr| {
            equal_sides(c).is_some_and(|(a, b)| {
                (left.is_patient(a) && right.is_patient(b)) || (left.is_patient(b) && right.is_patient(a))
            })
        };
        let protected = (left.patient.is_some(), right.patient.is_some());
        if protected == (true, true) && !conditions.iter().any(on_patient) {
            return Err(unsupported(
                "a join of two protected tables that is not on the patient: write JOIN … ON a.patient = b.patient",
            ));
        }
        check_kind(join.join_type, protected)?;
        let both = both(&left, &right)?;
        let mut on = Vec::with_capacity(conditions.len());
        for condition in conditions {
            let condition = if on_patient(&condition) { condition } else { both.admit_condition(condition)? };
            self.uses(&condition, &both);
            on.push(condition);
        }
        if protected != (true, true) && !on.iter().any(|c| matches(c, &left, &right)) {
            return Err(unsupported(
                "a join with a public table or VALUES needs an equality, ON a.column = b.column: a range of values is better \
                 written as a condition, or with CASE",
            ));
        }
        let rows = match (left.rows, right.rows) {
            (Some(l), Some(r)) if protected == (true, true) => l.checked_mul(r),
            (Some(_) | None, _) => None,
        };
        let (outer_left, outer_right) = (join.join_type == JoinType::Right, join.join_type == JoinType::Left);
        let first = left.patient.filter(|_| !outer_left || right.patient.is_none());
        let patient = first.or(right.patient.map(|i| left.facts.len() + i));
        let start = left.facts.len();
        let mut facts: Vec<Fact> = left.facts.into_iter().chain(right.facts).collect();
        for (i, fact) in facts.iter_mut().enumerate() {
            // The other side's patient column may be NULL under an outer join: it no longer names the patient.
            let may_be_null = if i < start { outer_left } else { outer_right };
            fact.patient &= !may_be_null || Some(i) == patient;
            if let Some(image) = &mut fact.image {
                image.null |= may_be_null;
            }
        }
        let plan = LogicalPlanBuilder::from(left.plan).join_on(right.plan, join.join_type, on);
        let plan = plan.and_then(LogicalPlanBuilder::build).map_err(cannot_build)?;
        let operator = if protected == (true, true) { "Join on the patient" } else { "Join with a public table" };
        Ok((Relation { plan, facts, patient, rows, ordered: false }, operator))
    }
}

/// Refuses joins that would keep rows without a patient, and kinds that SQL has no plain words for.
fn check_kind(kind: JoinType, protected: (bool, bool)) -> Result<(), Refusal> {
    match (kind, protected) {
        (JoinType::Inner, _)
        | (JoinType::Left, (true, _) | (false, false))
        | (JoinType::Right, (_, true) | (false, false)) => Ok(()),
        (JoinType::Left | JoinType::Right, _) => {
            Err(unsupported("an outer join would keep rows without a patient: keep the protected table's rows"))
        }
        (
            JoinType::Full
            | JoinType::LeftSemi
            | JoinType::RightSemi
            | JoinType::LeftAnti
            | JoinType::RightAnti
            | JoinType::LeftMark
            | JoinType::RightMark,
            _,
        ) => Err(unsupported("this kind of join is not admitted: use INNER or LEFT JOIN")),
    }
}

/// The sides of an equality.
fn equal_sides(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(b) = condition else { return None };
    (b.op == Operator::Eq).then_some((&*b.left, &*b.right))
}

/// Whether a condition makes something of one side's columns equal to something of the other's: without one, a join gives
/// every pair of rows.
fn matches(condition: &Expr, left: &Relation, right: &Relation) -> bool {
    let of = |columns: &HashSet<&Column>, side: &Relation| {
        !columns.is_empty() && columns.iter().all(|c| side.fact(c).is_some())
    };
    equal_sides(condition).is_some_and(|(a, b)| {
        let (a, b) = (a.column_refs(), b.column_refs());
        (of(&a, left) && of(&b, right)) || (of(&b, left) && of(&a, right))
    })
}

/// Both sides of a join as one relation, for conditions over it; it has no plan that runs.
fn both(left: &Relation, right: &Relation) -> Result<Relation, Refusal> {
    let schema = left.schema().join(right.schema()).map_err(cannot_build)?;
    let facts = left.facts.iter().chain(&right.facts).cloned().collect();
    let empty = EmptyRelation { produce_one_row: false, schema: std::sync::Arc::<DFSchema>::new(schema) };
    Ok(Relation { plan: LogicalPlan::EmptyRelation(empty), facts, patient: None, rows: None, ordered: false })
}

/// A semi or anti join on `outer = inner` that leaves the left relation's columns; the right one is renamed to `name`, so that
/// no column of it can be mistaken.
fn semi(
    left: Relation,
    right: &Relation,
    kind: JoinType,
    name: &str,
    outer: &Expr,
    inner: &Expr,
) -> Result<Relation, Refusal> {
    let taken = left.schema().iter().any(|(qualifier, _)| qualifier.is_some_and(|q| q.table() == name));
    let columns = right.schema().columns();
    let Expr::Column(column) = inner else { return Err(unsupported("a subquery of more than a column")) };
    let place = columns.iter().position(|c| c == column).filter(|_| !taken);
    let place =
        place.ok_or_else(|| unsupported("a subquery whose column cannot be found: name its columns plainly"))?;
    let renamed = Expr::Column(Column::new(Some(name), format!("c{place}")));
    let exprs = columns.iter().enumerate().map(|(i, c)| Expr::Column(c.clone()).alias(format!("c{i}")));
    let right_plan = LogicalPlanBuilder::from(right.plan.clone())
        .project(exprs.collect::<Vec<_>>())
        .and_then(|b| b.alias(name))
        .and_then(LogicalPlanBuilder::build)
        .map_err(cannot_build)?;
    let plan = LogicalPlanBuilder::from(left.plan).join_on(right_plan, kind, [outer.clone().eq(renamed)]);
    let plan = plan.and_then(LogicalPlanBuilder::build).map_err(cannot_build)?;
    Ok(Relation { plan, ordered: false, ..left })
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::refusal::Code;

    use super::*;
    use crate::{example, sql};

    fn relation(sql: &str) -> Relation {
        let planned = sql::plan(sql, &example::schema()).unwrap();
        Walk::new(&example::schema()).relation(&planned.typed).unwrap()
    }

    #[test]
    fn a_subquery_is_never_mistaken_for_a_table_of_its_hidden_name_nor_for_its_first_column() {
        let (left, right) = ("SELECT * FROM stay", "SELECT age, patient_id FROM summary");
        let patient = |relation: &Relation| relation.patient_column().unwrap();
        let joined = |left: Relation, inner: &Expr| {
            let right = relation(right);
            let outer = patient(&left);
            semi(left, &right, JoinType::LeftSemi, "__in_1", &outer, inner)
        };
        let inner = patient(&relation(right));
        let plan = joined(relation(left), &inner).unwrap().plan.display_indent().to_string();
        assert!(plan.contains("stay.patient_id = __in_1.c1"), "{plan}");
        for refused in [
            joined(relation(left), &Expr::Column(Column::from_name("nowhere"))),
            joined(relation(left), &datafusion_expr::lit(1)),
            joined(
                Relation {
                    plan: LogicalPlanBuilder::from(relation(left).plan).alias("__in_1").unwrap().build().unwrap(),
                    ..relation(left)
                },
                &inner,
            ),
        ] {
            assert_eq!(refused.err().unwrap().code, Code::SqlUnsupported);
        }
    }
}
