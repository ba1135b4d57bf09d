//! What the engine understood of a query, as plain facts.

use datafusion::logical_expr::LogicalPlan;
use sekisho_aggregation::{
    domain::KeyKind,
    plan::{Measure, Output, PrivatePlan},
};
use sekisho_protocol::{
    permit::{Mechanism, Permit},
    query::Terms,
    refusal::{Code, Refusal},
    schema::Schema,
    units::MicroRho,
};
use serde::Serialize;

/// What was understood, and how it is bounded and priced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The admitted tree, the outermost operator first.
    pub steps: Vec<Step>,
    /// The reducing aggregates.
    pub parts: Vec<PartExplanation>,
    /// What each hospital charges.
    pub micro_rho: u64,
    /// What group keys that are not public spend, in 10^-18.
    pub atto_delta: u64,
    /// `gaussian` or `laplace`.
    pub mechanism: String,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// How far it is under the outermost one.
    pub depth: usize,
    /// What it does.
    pub operator: String,
    /// What is known of its rows.
    pub facts: String,
}

/// One aggregate across patients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartExplanation {
    /// Its group keys.
    pub keys: Vec<KeyExplanation>,
    /// How many cells its release has.
    pub cells: usize,
    /// The keys of each grouping set; one for a plain GROUP BY.
    pub sets: Vec<Vec<String>>,
    /// How many rows of a patient count in full.
    pub rows_per_patient: u64,
    /// In how many groups a patient counts in full.
    pub groups_per_patient: u64,
    /// What is summed and noised.
    pub measures: Vec<MeasureExplanation>,
    /// What the answer's columns are made of.
    pub outputs: Vec<String>,
}

/// A group key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyExplanation {
    /// Its name in the SQL.
    pub name: String,
    /// The type of its values.
    pub kind: String,
    /// How many cells it has, those of NULL and of other values among them.
    pub cells: usize,
    /// Its values are not public.
    pub private: bool,
}

/// A quantity that is summed and noised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureExplanation {
    /// What it is: "sum of days".
    pub name: String,
    /// `rows`, `present`, `sum`, `patients`, …
    pub kind: String,
    /// How many numbers it is in each cell.
    pub numbers: usize,
    /// In which norm the sensitivity is.
    pub norm: String,
    /// The most that one patient changes it, in natural units.
    pub sensitivity: f64,
    /// Its part of rho.
    pub micro_rho: u64,
    /// The standard deviation of the noise in one cell of one hospital, in natural units.
    pub standard_deviation: f64,
    /// To what values are clamped, in natural units.
    pub range: Option<(f64, f64)>,
}

/// Understands `sql` as a node would.
///
/// # Errors
/// The refusal with which a node and the coordinator would answer.
pub fn explained(
    sql: &str,
    schema: &Schema,
    permit: &Permit,
    micro_rho: MicroRho,
    terms: &Terms,
) -> Result<Explanation, Refusal> {
    if !terms.is_default() {
        return Err(Refusal::new(Code::Terms, "questions are answered on the permit's own terms only"));
    }
    let plan = PrivatePlan::analyse(sql, schema, permit, micro_rho)?;
    let keys = plan.keys().iter().map(|key| KeyExplanation {
        name: key.name.clone(),
        kind: match key.image.kind {
            KeyKind::Text => "text",
            KeyKind::Int => "integer",
            KeyKind::Date => "date",
            KeyKind::Bool => "bool",
        }
        .into(),
        cells: key.image.cells(),
        private: false,
    });
    let patients = Measure::Patients { present: None };
    let part = PartExplanation {
        keys: keys.collect(),
        cells: plan.cells(),
        sets: vec![plan.keys().iter().map(|key| key.name.clone()).collect()],
        rows_per_patient: whole(sensitivity(&plan, &Measure::Rows)),
        groups_per_patient: whole(sensitivity(&plan, &patients).powi(2)),
        measures: plan.measures().iter().map(|m| measure(&plan, m)).collect(),
        outputs: plan.outputs().iter().map(|output| words(output).into()).collect(),
    };
    let mechanism = match permit.dp.mechanism {
        Mechanism::Gaussian => "gaussian",
        Mechanism::Laplace => "laplace",
    };
    let steps = steps(plan.rows());
    let micro_rho = plan.micro_rho().get();
    Ok(Explanation { steps, parts: vec![part], micro_rho, atto_delta: 0, mechanism: mechanism.into() })
}

fn steps(rows: &LogicalPlan) -> Vec<Step> {
    let text = rows.display_indent().to_string();
    let step = |line: &str| {
        let inner = line.trim_start();
        let (operator, facts) = inner.split_once(':').unwrap_or((inner, ""));
        Step { depth: (line.len() - inner.len()) / 2, operator: operator.into(), facts: facts.trim().into() }
    };
    text.lines().map(step).collect()
}

fn measure(plan: &PrivatePlan, measure: &Measure) -> MeasureExplanation {
    let (kind, name) = match measure {
        Measure::Rows => ("rows", "rows".to_string()),
        Measure::Present { argument } => ("present", format!("values of argument {}", argument + 1)),
        Measure::Sum { argument, .. } => ("sum", format!("sum of argument {}", argument + 1)),
        Measure::Patients { .. } => ("patients", "patients".to_string()),
    };
    let variance = plan.variance(measure).map_or(f64::NAN, |variance| variance.as_f64());
    MeasureExplanation {
        name,
        kind: kind.into(),
        numbers: 1,
        norm: "L2".into(),
        sensitivity: sensitivity(plan, measure),
        micro_rho: plan.rho_each().get(),
        standard_deviation: variance.sqrt() / natural(plan, measure),
        range: None,
    }
}

/// The most that one patient moves a measure's vector of cells in the Euclidean norm, in natural units.
fn sensitivity(plan: &PrivatePlan, measure: &Measure) -> f64 {
    let squared: f64 = plan.squared_sensitivity(measure).to_string().parse().unwrap_or(f64::INFINITY);
    squared.sqrt() / natural(plan, measure)
}

#[expect(clippy::cast_precision_loss, reason = "a unit becomes a real number for display")]
fn natural(plan: &PrivatePlan, measure: &Measure) -> f64 {
    plan.unit(measure) as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bound is 1 to 10^6")]
fn whole(bound: f64) -> u64 {
    bound.round() as u64
}

fn words(output: &Output) -> &'static str {
    match output {
        Output::Count { .. } => "a count",
        Output::Sum { .. } => "a sum",
        Output::Avg { .. } => "a sum by a count",
    }
}
