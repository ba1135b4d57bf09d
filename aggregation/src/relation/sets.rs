//! Relations that are sets of rows: UNION ALL, DISTINCT, VALUES.

use datafusion_common::DFSchema;
use datafusion_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Union, Values, lit};
use sekisho_protocol::refusal::Refusal;

use super::{Fact, Relation, Walk, cannot_build, patient_fact, unsupported};
use crate::domain::literals_image;

/// The most rows of VALUES: each multiplies the rows that it is joined with.
const MAX_VALUES_ROWS: usize = 1_000;

impl Walk<'_> {
    pub(super) fn union(&mut self, union: &Union) -> Result<Relation, Refusal> {
        let mut whole: Option<Relation> = None;
        self.hidden += 1;
        let name = format!("__patient_{}", self.hidden);
        for input_plan in &union.inputs {
            let input = self.relation(input_plan)?;
            let (mut exprs, mut facts) = (Vec::new(), Vec::new());
            for (column, field) in input_plan.schema().columns().into_iter().zip(union.schema.fields()) {
                let fact = input.known(&column)?.clone();
                exprs.push(Expr::Column(column).alias(field.name()));
                facts.push(fact);
            }
            let patient = input.patient_column().map(|column| {
                exprs.push(column.alias(&name));
                facts.push(patient_fact());
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

    pub(super) fn distinct(&mut self, input_plan: &LogicalPlan) -> Result<Relation, Refusal> {
        let input = self.relation(input_plan)?;
        let visible = input_plan.schema().columns();
        let has_patient = visible.iter().any(|c| input.fact(c).is_some_and(|f| f.patient));
        if input.patient.is_some() && !has_patient {
            return Err(unsupported(
                "DISTINCT across patients is not admitted: select the patient as well, or use count(DISTINCT patient)",
            ));
        }
        let facts = visible.iter().map(|c| input.known(c).cloned()).collect::<Result<Vec<Fact>, _>>()?;
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

    pub(super) fn values(&mut self, values: &Values) -> Result<Relation, Refusal> {
        let rows = values.values.len();
        if rows > MAX_VALUES_ROWS {
            return Err(unsupported(format!("VALUES of {rows} rows are not admitted: at most {MAX_VALUES_ROWS}")));
        }
        // Casts of literals are evaluated, and what is left is no literal.
        let empty = EmptyRelation { produce_one_row: false, schema: DFSchema::empty().into() };
        let (plan, facts) = (LogicalPlan::EmptyRelation(empty), Vec::new());
        let nothing = Relation { plan, facts, patient: None, rows: None, ordered: false };
        let cell = |(cell, field): (&Expr, &arrow::datatypes::FieldRef)| {
            let Expr::Literal(value, _) = nothing.admit(cell.clone())? else {
                return Err(unsupported("VALUES with a computed value are not admitted: write literals"));
            };
            value.cast_to(field.data_type()).map(lit).map_err(cannot_build)
        };
        let row = |row: &Vec<Expr>| row.iter().zip(values.schema.fields()).map(cell).collect::<Result<Vec<Expr>, _>>();
        let cells = values.values.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let fact = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
            let image = literals_image(cells.iter().filter_map(|row| row.get(i)), field.data_type());
            Fact { image, parts: 1, ..Fact::default() }
        };
        let facts = values.schema.fields().iter().enumerate().map(fact).collect();
        let plan = LogicalPlan::Values(Values { schema: values.schema.clone(), values: cells });
        Ok(Relation { plan, facts, patient: None, rows: None, ordered: false })
    }
}

fn union_of(first: Relation, second: Relation) -> Result<Relation, Refusal> {
    if first.patient != second.patient || first.facts.len() != second.facts.len() {
        return Err(unsupported("a UNION of a protected and a public table: both must have patients"));
    }
    let merge = |(a, b): (Fact, Fact)| Fact {
        patient: a.patient && b.patient,
        identity: a.identity || b.identity,
        range: a.range.zip(b.range).map(|(a, b)| a.or(&b)),
        image: a.image.zip(b.image).and_then(|(a, b)| a.or(&b)),
        from: a.from.union(&b.from).cloned().collect(),
        parts: a.parts.max(b.parts),
    };
    let facts = first.facts.into_iter().zip(second.facts).map(merge).collect();
    let rows = first.rows.zip(second.rows).and_then(|(a, b)| a.checked_add(b));
    let plan = LogicalPlanBuilder::from(first.plan).union(second.plan).and_then(LogicalPlanBuilder::build);
    Ok(Relation { plan: plan.map_err(cannot_build)?, facts, patient: first.patient, rows, ordered: false })
}
