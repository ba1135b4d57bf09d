//! What was understood of a query, as plain facts for people: operators, keys, bounds, sensitivities, prices and noise. None of it
//! comes from data.

use std::collections::BTreeSet;

use datafusion_common::DataFusionError;
use datafusion_expr::{Expr, LogicalPlan};
use num_bigint::BigUint;
use sekisho_protocol::{disclosure::Rules, permit::Mechanism, units::MicroRho};
use serde::{Deserialize, Serialize};

pub use crate::relation::Step;
use crate::{
    accounting::pure_epsilon_cost,
    domain::KeyKind,
    plan::{Keys, Measure, Output, Part, Price, PrivatePlan, Quantity},
    release::kind,
};

/// What was understood, and how it is bounded and priced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The admitted tree, the outermost operator first.
    pub steps: Vec<Step>,
    /// The aggregates across patients.
    pub parts: Vec<PartExplanation>,
    /// What each hospital charges.
    pub micro_rho: u64,
    /// What group keys that are not public spend, in 10^-18.
    pub atto_delta: u64,
    /// `gaussian` or `laplace`; `none` of an exact query.
    pub mechanism: String,
    /// The rules under which exact cells leave; none of a noised query. An exact query has no noise, bounds no patient's rows and
    /// costs nothing: prices, sensitivities and deviations are 0, and so are rows and groups per patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Rules>,
}

/// One aggregate across patients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartExplanation {
    /// Its group keys.
    pub keys: Vec<KeyExplanation>,
    /// How many cells its release has; a private key's names multiply them.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyExplanation {
    /// Its name in the SQL.
    pub name: String,
    /// The type of its values.
    pub kind: String,
    /// How many cells it has, those of NULL and of other values among them; 0 where its values are not public.
    pub cells: usize,
    /// Its values are not public.
    pub private: bool,
}

/// A quantity that is summed and noised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureExplanation {
    /// What it is: "sum of days".
    pub name: String,
    /// `rows`, `present`, `sum`, `patients`, `heavy` or `histogram`.
    pub kind: String,
    /// How many numbers it is in each cell.
    pub numbers: usize,
    /// In which norm the sensitivity is: L2 under Gaussian noise, L1 under Laplace noise.
    pub norm: String,
    /// The most that one patient changes it, in natural units.
    pub sensitivity: f64,
    /// Its part of rho; under Laplace noise epsilon²/2.
    pub micro_rho: u64,
    /// The standard deviation of the noise in one number of one hospital, in natural units.
    pub standard_deviation: f64,
    /// To what values are clamped, in natural units.
    pub range: Option<(f64, f64)>,
}

/// The columns of the answer that a measure is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeasureColumns {
    /// All of them.
    pub columns: Vec<String>,
    /// Those that are the measure itself, and not computed from it.
    pub direct: Vec<String>,
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn natural(number: &BigUint, unit: i128) -> f64 {
    u128::try_from(number).unwrap_or(u128::MAX) as f64 / unit as f64
}

impl Part {
    /// What a measure is, in words.
    pub(crate) fn measure_name(&self, measure: &Measure) -> String {
        let of = |argument: usize| self.arguments.get(argument).map_or(String::new(), |a| a.expr.to_string());
        let what = match &measure.quantity {
            Quantity::Rows => "rows".into(),
            Quantity::Present { argument } => format!("rows with {}", of(*argument)),
            Quantity::Sum { argument, centre: 0 } => format!("sum of {}", of(*argument)),
            Quantity::Sum { argument, .. } => format!("sum of {} about the middle of its range", of(*argument)),
            Quantity::Patients { present: None } => "patients".into(),
            Quantity::Patients { present: Some(argument) } => format!("patients with {}", of(*argument)),
            Quantity::Heavy => "patients whose rows are weighted down".into(),
            Quantity::Histogram { argument } => format!("histogram of {}", of(*argument)),
        };
        // Expressions may be long.
        what.chars().take(200).collect()
    }

    fn measure_explanation(&self, measure: &Measure) -> MeasureExplanation {
        if self.exact {
            return self.exact_explanation(measure);
        }
        let (squared, absolute) = self.sensitivity(measure);
        let unit = self.unit(measure);
        let (norm, sensitivity, micro_rho) = match measure.price {
            Price::Rho(rho) => ("L2", natural(&squared.sqrt(), unit), rho),
            Price::Epsilon(e) => ("L1", natural(&absolute, unit), pure_epsilon_cost(e).unwrap_or(MicroRho::MAX)),
        };
        MeasureExplanation {
            name: self.measure_name(measure),
            kind: kind(measure).into(),
            numbers: self.width(measure),
            norm: norm.into(),
            sensitivity,
            micro_rho: micro_rho.get(),
            standard_deviation: self.deviation(measure).unwrap_or(f64::INFINITY),
            range: self.range(measure),
        }
    }

    fn exact_explanation(&self, measure: &Measure) -> MeasureExplanation {
        MeasureExplanation {
            name: self.measure_name(measure),
            kind: kind(measure).into(),
            numbers: self.width(measure),
            norm: "none".into(),
            sensitivity: 0.0,
            micro_rho: 0,
            standard_deviation: 0.0,
            range: self.range(measure),
        }
    }

    /// To what a measure's values are clamped, in natural units.
    fn range(&self, measure: &Measure) -> Option<(f64, f64)> {
        match measure.quantity {
            Quantity::Sum { argument, .. } | Quantity::Histogram { argument } => Some(self.natural_range(argument)),
            Quantity::Rows | Quantity::Present { .. } | Quantity::Patients { .. } | Quantity::Heavy => None,
        }
    }

    /// The standard deviation of a measure's noise in one number of one hospital, in natural units.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn deviation(&self, measure: &Measure) -> Option<f64> {
        Some(self.noise(measure)?.standard_deviation() / self.unit(measure) as f64)
    }

    fn explanation(&self, names: &[String]) -> PartExplanation {
        let key = |k: &crate::plan::Key| KeyExplanation {
            name: k.name.clone(),
            kind: match k.image.kind {
                KeyKind::Text => "text",
                KeyKind::Int => "integer",
                KeyKind::Date => "date",
                KeyKind::Bool => "boolean",
            }
            .into(),
            cells: k.image.cells(),
            private: k.private,
        };
        let of_set = |set: &Keys| {
            let there = self.keys.iter().enumerate().filter(|(i, _)| set & (1 << i) != 0);
            there.map(|(_, k)| k.name.clone()).collect()
        };
        let output = |(output, name): (&Output, &String)| {
            let of = output.measures().into_iter().filter_map(|m| self.measures.get(m));
            let of: Vec<String> = of.map(|m| self.measure_name(m)).collect();
            format!("{name}: {}", if of.is_empty() { "public".into() } else { of.join(", ") })
        };
        PartExplanation {
            keys: self.keys.iter().map(key).collect(),
            cells: self.cells(),
            sets: self.sets.iter().map(of_set).collect(),
            rows_per_patient: if self.exact { 0 } else { self.rows_per_patient },
            groups_per_patient: if self.exact { 0 } else { self.groups_per_patient },
            measures: self.measures.iter().map(|m| self.measure_explanation(m)).collect(),
            outputs: self.outputs.iter().zip(names).map(output).collect(),
        }
    }
}

impl PrivatePlan {
    /// What was understood of the query.
    pub fn explain(&self) -> Explanation {
        let names = |place: usize| {
            let aggregate = self.aggregate(place).ok();
            aggregate.map_or(Vec::new(), |a| a.aggr_expr.iter().map(|e| e.schema_name().to_string()).collect())
        };
        Explanation {
            steps: self.steps.clone(),
            parts: self.parts.iter().enumerate().map(|(i, part)| part.explanation(&names(i))).collect(),
            micro_rho: self.micro_rho.get(),
            atto_delta: self.atto_delta().get(),
            mechanism: match (self.exact, self.mechanism) {
                (Some(_), _) => "none",
                (None, Mechanism::Gaussian) => "gaussian",
                (None, Mechanism::Laplace) => "laplace",
            }
            .into(),
            exact: self.exact,
        }
    }

    /// For every part and measure, the columns of the answer that it is in.
    ///
    /// # Errors
    /// None for an admitted plan.
    pub fn measure_columns(&self) -> Result<Vec<Vec<MeasureColumns>>, DataFusionError> {
        let mut all: Vec<Vec<MeasureColumns>> =
            self.parts.iter().map(|p| vec![MeasureColumns::default(); p.measures.len()]).collect();
        let aggregates = (0..self.parts.len()).map(|i| self.aggregate(i)).collect::<Result<Vec<_>, _>>()?;
        for (i, field) in self.as_written.schema().fields().iter().enumerate() {
            let mut sources = BTreeSet::new();
            let passed = trace(&self.as_written, i, &aggregates, &mut sources);
            for (place, output) in sources {
                let Some(output) = self.parts.get(place).and_then(|p| p.outputs.get(output)) else { continue };
                let direct = passed && matches!(output, Output::One { .. } | Output::Patients { .. });
                for measure in output.measures() {
                    if let Some(columns) = all.get_mut(place).and_then(|p| p.get_mut(measure)) {
                        columns.columns.push(field.name().clone());
                        if direct {
                            columns.direct.push(field.name().clone());
                        }
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Notes of which outputs, as (part, output), the column at `index` of `plan` is made; true when it is one of them as it is.
fn trace(
    plan: &LogicalPlan,
    index: usize,
    aggregates: &[&datafusion_expr::Aggregate],
    sources: &mut BTreeSet<(usize, usize)>,
) -> bool {
    let mut of = |expr: &Expr, input: &LogicalPlan| {
        let columns = expr.column_refs();
        let places = columns.iter().filter_map(|c| input.schema().maybe_index_of_column(c));
        let passed: Vec<bool> = places.map(|place| trace(input, place, aggregates, sources)).collect();
        matches!(expr.clone().unalias_nested().data, Expr::Column(_)) && passed == [true]
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the analysis admitted only these")]
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            if let Some(place) = aggregates.iter().position(|a| std::ptr::eq(*a, aggregate)) {
                let outputs = aggregate.aggr_expr.len();
                let before = aggregate.schema.fields().len().saturating_sub(outputs);
                let Some(output) = index.checked_sub(before) else { return false };
                sources.insert((place, output));
                return true;
            }
            let expr = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).nth(index);
            if let Some(expr) = expr {
                of(expr, &aggregate.input);
            }
            false
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.get(index).is_some_and(|expr| of(expr, &projection.input))
        }
        LogicalPlan::Window(window) => match index.checked_sub(window.input.schema().fields().len()) {
            None => trace(&window.input, index, aggregates, sources),
            Some(place) => {
                if let Some(expr) = window.window_expr.get(place) {
                    of(expr, &window.input);
                }
                false
            }
        },
        LogicalPlan::Join(join) => match index.checked_sub(join.left.schema().fields().len()) {
            None => trace(&join.left, index, aggregates, sources),
            Some(place) => trace(&join.right, place, aggregates, sources),
        },
        LogicalPlan::Union(union) => {
            let passed: Vec<bool> = union.inputs.iter().map(|i| trace(i, index, aggregates, sources)).collect();
            passed.into_iter().all(|p| p)
        }
        other => other.inputs().first().is_some_and(|input| trace(input, index, aggregates, sources)),
    }
}
