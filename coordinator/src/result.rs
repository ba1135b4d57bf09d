//! From checked releases to what a person reads: one table of all hospitals, one of each, and a report.
//!
//! Promises: the disclosure preset is applied to every table that leaves; a hospital that is missing is never a zero
//! (the combined table says `incomplete`, and without any answer it has no rows); all of it is post-processing of
//! released numbers and costs nothing.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use chrono::{DateTime, Utc};
use datafusion::{
    error::DataFusionError, execution::context::SessionContext, physical_plan::collect, prelude::SessionConfig,
};
use sekisho_aggregation::{
    accounting::epsilon_at_delta,
    combine::{CombineError, combine},
    plan::{Measure, PrivatePlan},
    release::Release,
};
use sekisho_protocol::{permit::Permit, units::MicroRho};

use crate::{
    report::{ALL_HOLDERS, HOLDER, HolderReport, NoiseReport, PrivacyReport, RESULT_KEY, ResultReport},
    round::{Answer, authorise::PermittedQuery},
};

/// What averages are.
const METHOD: &str = "Values are clamped to the schema's bounds; a patient with more rows than the permit's bound \
counts each with a lower weight. Counts and sums are of these weights, and averages are weighted means. Intervals \
cover the noise alone.";

/// Why no table could be made.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The releases do not add up.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// What follows the aggregate in the SQL failed.
    #[error("after the release: {0}")]
    After(#[from] DataFusionError),
    /// The report could not be written.
    #[error("the report: {0}")]
    Report(#[from] serde_json::Error),
    /// The tables differ.
    #[error("the tables: {0}")]
    Table(#[from] arrow::error::ArrowError),
}

/// What the query costs and protects.
pub fn privacy(plan: &PrivatePlan, permit: &Permit) -> PrivacyReport {
    let (rho, sites) = (plan.micro_rho(), permit.dp.sites_per_patient);
    let all_sites = MicroRho::try_from(rho.get().saturating_mul(sites.into())).unwrap_or(MicroRho::MAX);
    // The permit's own rules say that it is a number; if it were none, no epsilon would be promised.
    let delta = permit.dp.delta_for_reports.parse().unwrap_or(0.0);
    PrivacyReport {
        micro_rho: rho,
        delta: permit.dp.delta_for_reports.clone(),
        epsilon: epsilon_at_delta(rho, delta),
        sites_per_patient: sites,
        epsilon_all_sites: epsilon_at_delta(all_sites, delta),
        noise: plan.measures().iter().filter_map(|measure| noise(plan, measure)).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a unit becomes a real number for display")]
fn noise(plan: &PrivatePlan, measure: &Measure) -> Option<NoiseReport> {
    let name = match measure {
        Measure::Rows => "rows",
        Measure::Present { .. } => "present",
        Measure::Sum { .. } => "sum",
        Measure::Patients { .. } => "patients",
    };
    let standard_deviation = plan.variance(measure)?.as_f64().sqrt() / plan.unit(measure) as f64;
    Some(NoiseReport { measure: name.into(), standard_deviation })
}

/// The report of a round.
pub fn report(
    query: &PermittedQuery,
    round: &str,
    holders: Vec<HolderReport>,
    answers: &[Answer],
    confidence: f64,
    at: DateTime<Utc>,
) -> ResultReport {
    ResultReport {
        round: round.to_string(),
        permit: query.permit.digest(),
        query: query.query.digest(),
        run: query.query.run,
        at,
        complete: answers.len() == query.members.len(),
        confidence,
        preset: query.plan.preset(),
        synthetic: answers.iter().any(|answer| answer.receipt.synthetic),
        method: METHOD.into(),
        privacy: privacy(&query.plan, &query.permit),
        holders,
    }
}

/// The table of all hospitals, then the table of each that answered; one schema, whose metadata has the report.
///
/// # Errors
/// When the sums overflow, or the SQL after the aggregate cannot be run over released cells.
pub async fn tables(
    query: Arc<PermittedQuery>,
    report: ResultReport,
    answers: Vec<Answer>,
) -> Result<Vec<RecordBatch>, ResultError> {
    let plan = &query.plan;
    let metadata = HashMap::from([(RESULT_KEY.to_string(), serde_json::to_string(&report)?)]);
    let releases: Vec<&Release> = answers.iter().map(|answer| &answer.release).collect();
    let combined = table(plan, &releases, report.complete, report.confidence).await?;
    let combined = if answers.is_empty() { combined.slice(0, 0) } else { combined };
    let mut batches = vec![labelled(&combined, ALL_HOLDERS, &metadata)?];
    for answer in &answers {
        let own = table(plan, &[&answer.release], true, report.confidence).await?;
        batches.push(labelled(&own, &answer.name, &metadata)?);
    }
    Ok(batches)
}

/// The table of some releases, as the SQL says after its aggregate.
async fn table(
    plan: &PrivatePlan,
    releases: &[&Release],
    complete: bool,
    confidence: f64,
) -> Result<RecordBatch, ResultError> {
    let cells = plan.released_cells(&combine(plan, releases)?, complete, confidence, &[])?;
    // One partition: rows keep the order of the cells, or that of the SQL.
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    session.register_batch("cells", cells)?;
    let scan = session.table("cells").await?.into_unoptimized_plan();
    let after = session.execute_logical_plan(plan.after_release(scan)?).await?;
    let physical = after.create_physical_plan().await?;
    let schema = physical.schema();
    let parts = collect(physical, session.task_ctx()).await?;
    Ok(plan.beside(&concat_batches(&schema, &parts)?)?)
}

/// The same table with the column [`HOLDER`] before its own, every column nullable, and the report in its schema.
fn labelled(
    table: &RecordBatch,
    name: &str,
    metadata: &HashMap<String, String>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let own = table.schema();
    let own = own.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    let fields: Vec<Field> = std::iter::once(Field::new(HOLDER, DataType::Utf8, true)).chain(own).collect();
    let holder: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, table.num_rows())));
    let columns = std::iter::once(holder).chain(table.columns().iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata.clone())), columns)
}
