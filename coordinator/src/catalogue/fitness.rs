//! Which hospitals can answer a question, by what they declare.
//!
//! Deliberately absent: whether they would, which is for permits, policies and ledgers to say.

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{
    catalogue::{Catalogue, DataSet, Gap, gaps},
    digest::Digest,
    schema::Schema,
};
use serde::Serialize;

/// Whether a hospital can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Its data is mapped to the schema, with all that is needed.
    Yes,
    /// It holds all that is needed, under another schema: it would have to map its data to this one first.
    AfterMapping,
    /// It lacks something.
    No,
}

impl Answer {
    /// In a word or two.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::AfterMapping => "after mapping",
            Self::No => "no",
        }
    }
}

/// What one hospital can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fitness {
    /// The hospital.
    pub node: String,
    /// Its data set that fits best; none when it has none.
    pub data_set: Option<String>,
    /// Whether it can answer.
    pub answer: Answer,
    /// What it lacks.
    pub lacks: Vec<Gap>,
}

/// What the hospital of `catalogue` lacks for the question that `plan` is of, over `schema`, which is signed under `digest` where it
/// is signed.
pub fn fitness(catalogue: &Catalogue, schema: &Schema, digest: Option<Digest>, plan: &PrivatePlan) -> Fitness {
    let best = catalogue.data_sets.iter().map(|set| (judge(set, schema, digest, plan), set));
    let best = best.min_by_key(|((answer, lacks), _)| (*answer, lacks.len()));
    let Some(((answer, lacks), set)) = best else {
        return Fitness { node: catalogue.node.clone(), data_set: None, answer: Answer::No, lacks: Vec::new() };
    };
    Fitness { node: catalogue.node.clone(), data_set: Some(set.id.clone()), answer, lacks }
}

fn judge(set: &DataSet, schema: &Schema, digest: Option<Digest>, plan: &PrivatePlan) -> (Answer, Vec<Gap>) {
    let patient = |table: &str, column: &str| schema.table(table).and_then(|t| t.patient.as_deref()) == Some(column);
    let asked = |table: &str, column: &str| plan.columns().iter().any(|(t, c)| t == table && c == column);
    let lacks = gaps(
        &set.tables,
        schema,
        |table| plan.tables().iter().any(|t| t == table),
        |table, column| patient(table, column) || asked(table, column),
    );
    let answer = match lacks.is_empty() {
        true if digest == Some(set.schema.digest) => Answer::Yes,
        true => Answer::AfterMapping,
        false => Answer::No,
    };
    (answer, lacks)
}
