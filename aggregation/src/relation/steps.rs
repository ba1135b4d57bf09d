//! The trace of a walk, for people: one line for each relation, with what is known of its rows and columns.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::Relation;
use crate::{
    domain::KeyValue,
    scalar::{Range, scale_of},
};

/// The most columns that one line names.
const MAX_COLUMNS: usize = 24;

/// One relation under the aggregate. A relation's inputs follow it, one deeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How many relations are above it.
    pub depth: usize,
    /// What makes it: `Scan visit`, `Filter`, `Join on the patient`, …
    pub operator: String,
    /// Its patient column, the most rows of one patient, and of each visible column what may be known: its range or how many
    /// public values it has.
    pub facts: String,
}

/// The facts of a relation in words.
pub(super) fn facts(relation: &Relation) -> String {
    let schema = relation.schema();
    let visible = |i: &usize| !schema.field(*i).name().starts_with("__");
    let patient = relation.patient.map(|i| if visible(&i) { schema.field(i).name().as_str() } else { "hidden" });
    let rows = relation.rows.map_or("unbounded".to_string(), |n| n.to_string());
    let mut parts = match patient {
        Some(name) => vec![format!("patient {name}"), format!("rows per patient {rows}")],
        None => vec!["public".to_string()],
    };
    let columns: Vec<usize> =
        (0..relation.facts.len()).filter(visible).filter(|i| Some(*i) != relation.patient).collect();
    for i in columns.iter().copied().take(MAX_COLUMNS) {
        let (field, fact) = (schema.field(i), &relation.facts[i]);
        let known = match (&fact.range, &fact.image) {
            _ if fact.identity => " of patients".to_string(),
            (Some(range), _) => format!(" {}", shown(range, field.data_type())),
            (None, Some(image)) => format!(" {} public values", image.values.len()),
            (None, None) => String::new(),
        };
        parts.push(format!("{}{known}", field.name()));
    }
    if let Some(more) = columns.len().checked_sub(MAX_COLUMNS).filter(|n| *n > 0) {
        parts.push(format!("{more} more"));
    }
    parts.join("; ")
}

fn shown(range: &Range, kind: &DataType) -> String {
    let end = |value: i128| {
        if *kind == DataType::Date32 {
            return i32::try_from(value).map_or_else(|_| value.to_string(), |d| KeyValue::Date(d).to_string());
        }
        let scale = scale_of(kind).unwrap_or(0);
        let one = 10_i128.checked_pow(scale).unwrap_or(1);
        let sign = if value < 0 { "-" } else { "" };
        match value.unsigned_abs().checked_rem(one.unsigned_abs()) {
            Some(rest) if scale > 0 => {
                format!("{sign}{}.{rest:0width$}", value.unsigned_abs() / one.unsigned_abs(), width = scale as usize)
            }
            Some(_) | None => value.to_string(),
        }
    };
    format!("{} to {}", end(range.lo), end(range.hi))
}
