//! From checked releases to what a person reads: one table of all hospitals, one of each, and a report.
//!
//! Promises: the disclosure preset is applied to every table that leaves, and no cell that it hides is what is left
//! when the shown tables of one answer are subtracted from each other; a hospital that is missing is never a zero (the
//! combined table says `incomplete`, and without any answer it has no rows); all of it is post-processing of released
//! numbers and costs nothing.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use chrono::{DateTime, Utc};
use datafusion::{
    error::DataFusionError, execution::context::SessionContext, physical_plan::execute_stream, prelude::SessionConfig,
};
use futures::TryStreamExt;
use sekisho_aggregation::{
    accounting::epsilon_at_delta,
    combine::{CombineError, Combined, combine},
    plan::{PrivatePlan, Quantity},
    release::Release,
};
use sekisho_protocol::{
    permit::{Permit, ReleaseKind},
    units::MicroRho,
};

use crate::{
    report::{
        ALL_HOLDERS, BiteReport, ExactReport, Guarantee, HOLDER, HolderReport, NoiseReport, PrivacyReport, Protection,
        RESULT_KEY, ResultReport,
    },
    round::{Answer, authorise::PermittedQuery},
};

/// The most rows of one table: joins of released tables may multiply them.
const MAX_ROWS: usize = 500_000;

/// What averages are.
const METHOD: &str = "Values are clamped to the schema's bounds; a patient with more rows than the permit's bound \
counts each with a lower weight. Counts and sums are of these weights, and averages are weighted means. Intervals \
cover the noise alone.";
/// What the numbers of an exact result are.
const METHOD_EXACT: &str = "Values are clamped to the schema's bounds, and every row of a patient counts in full. Numbers are \
exact but for the rounding of the rules, which is all that intervals cover. Cells that a hospital's rules hide are in no sum: \
where one hospital hides a cell, the combined one is hidden too.";

/// What the numbers of an answer are.
pub(crate) fn method(plan: &PrivatePlan) -> &'static str {
    if plan.exact().is_some() { METHOD_EXACT } else { METHOD }
}

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
    let (protection, noise) = match plan.exact() {
        Some(rules) => (Protection::Exact(ExactReport { exact: *rules }), Vec::new()),
        None => (Protection::Noised(guarantee(plan.micro_rho(), permit)), noise(plan)),
    };
    PrivacyReport { micro_rho: plan.micro_rho(), protection, noise }
}

/// What holds for a patient when `sql` is asked under `permit` at this price.
pub fn protection(sql: &str, rho: MicroRho, permit: &Permit) -> Protection {
    match permit.release_of(sql) {
        ReleaseKind::Noised => Protection::Noised(guarantee(rho, permit)),
        ReleaseKind::Aggregated => Protection::Exact(ExactReport { exact: permit.disclosure.rules() }),
    }
}

/// What noise of this cost guarantees.
fn guarantee(rho: MicroRho, permit: &Permit) -> Guarantee {
    let sites = permit.dp.sites_per_patient;
    let all_sites = MicroRho::try_from(rho.get().saturating_mul(sites.into())).unwrap_or(MicroRho::MAX);
    // The permit's own rules say that it is a number; if it were none, no epsilon would be promised.
    let delta = permit.dp.delta_for_reports.parse().unwrap_or(0.0);
    Guarantee {
        delta: permit.dp.delta_for_reports.clone(),
        epsilon: epsilon_at_delta(rho, delta),
        sites_per_patient: sites,
        epsilon_all_sites: epsilon_at_delta(all_sites, delta),
    }
}

/// The noise of every measure, with the columns of the answer that it is in.
fn noise(plan: &PrivatePlan) -> Vec<NoiseReport> {
    let columns = plan.measure_columns().unwrap_or_default();
    let mut all = Vec::new();
    for (place, (part, explained)) in plan.parts().iter().zip(plan.explain().parts).enumerate() {
        for (i, (measure, explained)) in part.measures().iter().zip(explained.measures).enumerate() {
            let of = columns.get(place).and_then(|p| p.get(i)).cloned().unwrap_or_default();
            all.push(NoiseReport {
                measure: explained.name,
                standard_deviation: explained.standard_deviation,
                counts: !matches!(measure.quantity, Quantity::Sum { .. }),
                columns: of.columns,
                direct: of.direct,
            });
        }
    }
    all
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
        method: method(&query.plan).into(),
        privacy: privacy(&query.plan, &query.permit),
        bites: Vec::new(),
        suppressed_cells: 0,
        holders,
    }
}

/// What is known of every released row before anybody looks: by how many patients it is judged, and whether it is hidden.
pub struct Judged {
    /// Of the combined table: released patients, and whether preset or margins hide the row.
    pub combined: Vec<(i128, bool)>,
    /// The same of each hospital.
    pub hospitals: Vec<Vec<(i128, bool)>>,
    /// Which rows of each hospital are hidden besides, since the others would give them away.
    pub besides: Vec<Vec<bool>>,
}

/// The sums over `releases`, and what of them is hidden.
///
/// # Errors
/// When the sums overflow.
pub fn judged(plan: &PrivatePlan, releases: &[(&str, &Release)]) -> Result<(Combined, Judged), CombineError> {
    let all = combine(plan, &releases.iter().map(|(_, release)| *release).collect::<Vec<_>>())?;
    let combined = plan.judged(&all);
    // One hospital's sums at a time: together they may be as large as all that was collected.
    let own = |(_, release): &(&str, &Release)| Ok(plan.judged(&combine(plan, &[*release])?.aligned(plan, &all)));
    let hospitals = releases.iter().map(own).collect::<Result<Vec<_>, CombineError>>()?;
    let hidden = |rows: &Vec<(i128, bool)>| rows.iter().map(|(_, hidden)| *hidden).collect::<Vec<_>>();
    let patients = |rows: &Vec<(i128, bool)>| rows.iter().map(|(patients, _)| *patients).collect::<Vec<_>>();
    let (own_hidden, own_patients): (Vec<_>, Vec<_>) =
        hospitals.iter().map(|rows| (hidden(rows), patients(rows))).unzip();
    let besides = also_hidden(&hidden(&combined), &own_hidden, &own_patients);
    Ok((all, Judged { combined, hospitals, besides }))
}

/// The table of all hospitals, then the table of each of `releases`; one schema, whose metadata has the report, which is
/// returned as it is there.
///
/// # Errors
/// When the sums overflow, or the SQL after the aggregate cannot be run over released cells.
pub async fn tables(
    plan: &PrivatePlan,
    mut report: ResultReport,
    releases: &[(&str, &Release)],
) -> Result<(ResultReport, Vec<RecordBatch>), ResultError> {
    let (all, judged) = judged(plan, releases)?;
    if !releases.is_empty() {
        let bites = plan.bites(&all, report.confidence).into_iter();
        report.bites = bites
            .map(|(counted, i)| BiteReport { counted, estimate: i.estimate, low: i.lower, high: i.upper })
            .collect();
        report.suppressed_cells = judged.combined.iter().filter(|(_, hidden)| *hidden).count();
    }
    let metadata = HashMap::from([(RESULT_KEY.to_string(), serde_json::to_string(&report)?)]);
    let combined = table(plan, &all, report.complete, report.confidence, &[]).await?;
    let combined = if releases.is_empty() { combined.slice(0, 0) } else { combined };
    let mut batches = vec![labelled(&combined, ALL_HOLDERS, &metadata)?];
    for ((name, release), besides) in releases.iter().zip(&judged.besides) {
        let own = combine(plan, &[*release])?.aligned(plan, &all);
        let own = table(plan, &own, true, report.confidence, besides).await?;
        batches.push(labelled(&own, name, &metadata)?);
    }
    Ok((report, batches))
}

/// Which cells of each hospital are hidden besides those that the preset hides.
///
/// A cell of the combined table is the sum of the hospitals' cells: where exactly one of all these is hidden, the
/// others give it away. There, the hospital's shown cell with the fewest released patients is hidden too (of equals,
/// the first). `combined` and `hospitals` say what the preset hides, `patients` how many each hospital released.
fn also_hidden(combined: &[bool], hospitals: &[Vec<bool>], patients: &[Vec<i128>]) -> Vec<Vec<bool>> {
    let mut more = vec![vec![false; combined.len()]; hospitals.len()];
    for (cell, combined) in combined.iter().enumerate() {
        let hides = |hidden: &Vec<bool>| hidden.get(cell).copied().unwrap_or(true);
        if usize::from(*combined) + hospitals.iter().filter(|hidden| hides(hidden)).count() != 1 {
            continue;
        }
        let shown = hospitals.iter().zip(patients).zip(&mut more).filter(|((hidden, _), _)| !hides(hidden));
        let fewest = shown.min_by_key(|((_, patients), _)| patients.get(cell).copied());
        if let Some(hidden) = fewest.and_then(|(_, more)| more.get_mut(cell)) {
            *hidden = true;
        }
    }
    more
}

/// One table, as the SQL says after its aggregate.
async fn table(
    plan: &PrivatePlan,
    sums: &Combined,
    complete: bool,
    confidence: f64,
    also_hidden: &[bool],
) -> Result<RecordBatch, ResultError> {
    let cells = plan.released_cells(sums, complete, confidence, also_hidden)?;
    // One partition: rows keep the order of the cells, or that of the SQL.
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let mut scans = Vec::new();
    for (place, cells) in cells.into_iter().enumerate() {
        let name = format!("cells_{place}");
        session.register_batch(&name, cells)?;
        scans.push(session.table(&name).await?.into_unoptimized_plan());
    }
    let after = session.execute_logical_plan(plan.after_release(scans)?).await?;
    let physical = after.create_physical_plan().await?;
    let schema = physical.schema();
    let mut stream = execute_stream(physical, session.task_ctx())?;
    let (mut parts, mut rows) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows();
        if rows > MAX_ROWS {
            return Err(DataFusionError::ResourcesExhausted(format!("the answer has more than {MAX_ROWS} rows")).into());
        }
        parts.push(batch);
    }
    Ok(concat_batches(&schema, &parts)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hidden_cell_is_the_difference_of_shown_ones() {
        // Hospitals' cells as (released patients, hidden by the preset), and the place of the one that is hidden too.
        type Case = (&'static str, bool, &'static [(i128, bool)], Option<usize>);
        let cases: [Case; 12] = [
            ("nothing is hidden", false, &[(20, false), (30, false)], None),
            ("one of two", false, &[(5, true), (30, false)], Some(1)),
            ("one of three: the fewest", false, &[(40, false), (5, true), (30, false)], Some(2)),
            ("equals: the first", false, &[(30, false), (5, true), (30, false)], Some(0)),
            ("a noised count below zero is the fewest", false, &[(5, true), (30, false), (-2, false)], Some(2)),
            ("two of three hide each other", false, &[(5, true), (6, true), (30, false)], None),
            ("all of the hospitals", false, &[(6, true), (7, true)], None),
            ("the combined cell and one more", true, &[(5, true), (0, false)], None),
            ("the combined cell alone: the hospitals' sum", true, &[(12, false), (-4, false)], Some(1)),
            ("one hospital, hidden: its cell is the combined one", true, &[(5, true)], None),
            ("one hospital, shown", false, &[(50, false)], None),
            ("no hospital", false, &[], None),
        ];
        for (name, combined, hospitals, expect) in cases {
            let hidden: Vec<Vec<bool>> = hospitals.iter().map(|(_, hidden)| vec![*hidden]).collect();
            let patients: Vec<Vec<i128>> = hospitals.iter().map(|(patients, _)| vec![*patients]).collect();
            let more = also_hidden(&[combined], &hidden, &patients);
            let places: Vec<usize> = (0..more.len()).filter(|i| more[*i][0]).collect();
            assert_eq!(places, expect.into_iter().collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn cells_are_judged_one_by_one() {
        let hidden = [vec![true, false, false], vec![false, false, true]];
        let patients = [vec![5, 20, 30], vec![30, 10, 6]];
        let more = also_hidden(&[false, false, false], &hidden, &patients);
        assert_eq!(more, [vec![false, false, true], vec![true, false, false]]);
    }
}
