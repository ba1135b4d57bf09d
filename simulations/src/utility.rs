//! How exact answers are: `sekisho-sim bench utility`, and the tables of docs/utility.md.
//!
//! Nothing here is measured on a clock: noise comes from the plan's own variances, bias and error from running made-up rows
//! through the engine's own analysis, fold and release. Promises: the same seed gives the same tables.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Decimal128Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Float64Type, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use datafusion::{
    catalog::TableProvider,
    common::tree_node::{Transformed, TreeNode},
    datasource::{MemTable, provider_as_source},
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    prelude::{SessionConfig, SessionContext},
};
use miette::{IntoDiagnostic, Result, miette};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::{
    accounting::{MAX_RHO_PER_QUERY, SYNTHETIC_CEILING, epsilon_at_delta},
    combine::combine,
    fold::{Fold, RawCells},
    plan::PrivatePlan,
    release::Release,
    reservation::{Charge, Ledger, Reservation},
};
use sekisho_protocol::{digest::Digest, keys::SecretKey, permit::Permit, schema::Schema, units::MicroRho};
use serde::Serialize;
use serde_json::json;

use crate::cli::Output;

/// The group keys of the questions: with NULL and "outside", 20 cells.
const GROUPS: usize = 18;
/// What the tables are made at.
const EPSILON: f64 = 1.0;
const DELTA: f64 = 1e-7;
/// Rows of one patient that count in full.
const ROWS_PER_PATIENT: u32 = 5;
/// What every draw derives from.
const SEED: u64 = 7;

/// The noise of a question with two aggregates over 20 cells.
#[derive(Clone, Debug, Serialize)]
pub struct Noise {
    /// Rows of one patient that count in full.
    pub rows_per_patient: u32,
    /// What the question costs, in micro-rho: the most with this epsilon at this delta.
    pub micro_rho: u64,
    /// Of a count of rows, in rows.
    pub count: f64,
    /// Of a sum of values from 0 to 100, in units of the value.
    pub sum: f64,
    /// Of a count of patients that are in at most one group each, in patients.
    pub patients: f64,
}

/// How far the weighted mean lies from the plain one, without noise.
#[derive(Clone, Debug, Serialize)]
pub struct Bias {
    /// How many rows patients have.
    pub rows: &'static str,
    /// How values depend on the number of rows.
    pub values: &'static str,
    /// The share of rows of patients who have more than the bound.
    pub rows_over_bound: f64,
    /// The mean over all rows.
    pub plain: f64,
    /// The mean that is released.
    pub released: f64,
    /// Their difference as a share of the plain mean.
    pub bias: f64,
}

/// The error of a statistic of skewed values, at an epsilon of 1.
#[derive(Clone, Debug, Serialize)]
pub struct SkewedError {
    /// Which statistic.
    pub statistic: &'static str,
    /// Patients in a cell.
    pub patients: usize,
    /// The upper bound of the schema, as a quantile of the values.
    pub bound: &'static str,
    /// The true value.
    pub truth: f64,
    /// The mean error over cells and draws, as a share of the truth: what clamping does.
    pub bias: f64,
    /// The root of the mean squared error, as a share of the truth.
    pub error: f64,
}

/// All tables.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The epsilon of each question.
    pub epsilon: f64,
    /// The delta at which it is that.
    pub delta: f64,
    /// Noise by rows per patient.
    pub noise: Vec<Noise>,
    /// Bias of means by how rows and values are distributed.
    pub bias: Vec<Bias>,
    /// Errors on skewed values.
    pub skewed: Vec<SkewedError>,
}

/// The most micro-rho that costs `epsilon` at `delta`.
pub fn micro_rho_for(epsilon: f64, delta: f64) -> u64 {
    let fits = |micro: u64| MicroRho::try_from(micro).is_ok_and(|rho| epsilon_at_delta(rho, delta) <= epsilon);
    let (mut enough, mut too_much) = (0, MAX_RHO_PER_QUERY + 1);
    while too_much - enough > 1 {
        let middle = u64::midpoint(enough, too_much);
        if fits(middle) {
            enough = middle;
        } else {
            too_much = middle;
        }
    }
    enough
}

/// One table of events, whose values are clamped to 0 to `most` in hundredths.
fn schema(most: i64) -> Result<Schema> {
    let groups: Vec<String> = (0..GROUPS).map(|i| format!("g{i:02}")).collect();
    let bounds = json!({"min": "0", "max": format!("{}.{:02}", most / 100, most % 100)});
    let schema = json!({"id": "utility", "version": 1, "title": "One table of events", "tables": [
        {"name": "event", "patient": "patient_id", "columns": [
            {"name": "patient_id", "type": "int64"},
            {"name": "part", "type": "text", "domain": groups},
            {"name": "value", "type": "decimal", "scale": 2, "bounds": bounds}]}]});
    serde_json::from_value(schema).into_diagnostic()
}

fn permit(rows_per_patient: u32) -> Result<Permit> {
    let key = SecretKey::generate(&mut ChaCha20Rng::seed_from_u64(SEED)).public();
    let permit = json!({
        "id": "utility", "version": 1, "basis": "EHDS-69", "issuer": "sim", "study_id": "utility", "schema": Digest::of(b"utility"),
        "decision": {"date": "2026-01-01", "reasons": "tables"}, "purposes": ["scientific_research"],
        "data_user": "sim", "principal_investigator": "sim",
        "authorised_persons": [{"id": "r", "role": "analyst", "key": key, "key_fingerprint": key.fingerprint()}],
        "data": [{"table": "event", "columns": ["part", "value"], "holder_nodes": ["h"]}],
        "allowed_statistics": ["count", "count_distinct", "sum", "avg", "variance", "covariance", "quantile", "extreme"],
        "release_kinds": ["noised"], "disclosure": "none",
        "dp": {"rows_per_patient": rows_per_patient, "groups_per_patient": 1, "sites_per_patient": 1,
               "micro_rho_per_query": 100_000, "micro_rho_total": 1_000_000, "delta_for_reports": "1e-7"},
        "optout": {"rule": "eu-ehds", "days": 0},
        "validity": {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
    });
    serde_json::from_value(permit).into_diagnostic()
}

fn analyse(sql: &str, most: i64, rows_per_patient: u32, micro_rho: u64) -> Result<PrivatePlan> {
    let rho = MicroRho::try_from(micro_rho).into_diagnostic()?;
    PrivatePlan::analyse(sql, &schema(most)?, &permit(rows_per_patient)?, rho).into_diagnostic()
}

fn noise(rows_per_patient: u32) -> Result<Noise> {
    let micro_rho = micro_rho_for(EPSILON, DELTA);
    let deviations = |aggregates: &str| -> Result<Vec<f64>> {
        let sql = format!("SELECT part, {aggregates} FROM event GROUP BY part");
        let plan = analyse(&sql, 10_000, rows_per_patient, micro_rho)?;
        let part = plan.parts().first().ok_or_else(|| miette!("a plan without a part"))?;
        let deviation = |m| part.noise(m).map(|noise| noise.standard_deviation() / part.unit(m) as f64);
        part.measures().iter().map(|m| deviation(m).ok_or_else(|| miette!("a measure without noise"))).collect()
    };
    let (sums, patients) = (deviations("count(*), sum(value)")?, deviations("count(DISTINCT patient_id), count(*)")?);
    let of = |all: &[f64], i: usize| all.get(i).copied().unwrap_or(f64::NAN);
    Ok(Noise { rows_per_patient, micro_rho, count: of(&sums, 0), sum: of(&sums, 1), patients: of(&patients, 0) })
}

/// Charges are made nowhere: nobody's privacy is spent.
struct NoLedger;

impl Ledger for NoLedger {
    type Record = ();
    type Error = std::convert::Infallible;

    async fn charge(&self, _: &Charge) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A patient: the part that they are in, and the values of their rows in hundredths.
struct Patient {
    part: usize,
    values: Vec<i64>,
}

/// The rows of all patients as a table in one partition, sorted by patient.
fn table(patients: &[Patient]) -> Result<Arc<dyn TableProvider>> {
    let fields = [("patient_id", DataType::Int64), ("part", DataType::Utf8), ("value", DataType::Decimal128(18, 2))];
    let schema = Arc::new(ArrowSchema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
    let rows = || patients.iter().zip(0_i64..).flat_map(|(p, id)| p.values.iter().map(move |v| (id, p.part, *v)));
    let ids: Int64Array = rows().map(|(id, _, _)| Some(id)).collect();
    let parts: StringArray = rows().map(|(_, part, _)| Some(format!("g{part:02}"))).collect();
    let values: Decimal128Array = rows().map(|(_, _, v)| Some(i128::from(v))).collect();
    let values = values.with_precision_and_scale(18, 2).into_diagnostic()?;
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(parts), Arc::new(values)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).into_diagnostic()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).into_diagnostic()?))
}

/// A question, and the rows that are folded for it.
struct Question {
    plan: Arc<PrivatePlan>,
    rows: Vec<RecordBatch>,
}

impl Question {
    /// `SELECT part, <statistic> … GROUP BY part` of `patients`, whose values are clamped to 0 to `most` in hundredths.
    async fn new(statistic: &str, patients: &[Patient], most: i64, micro_rho: u64) -> Result<Self> {
        let sql = format!("SELECT part, {statistic} FROM event GROUP BY part");
        let plan = Arc::new(analyse(&sql, most, ROWS_PER_PATIENT, micro_rho)?);
        let part = plan.parts().first().ok_or_else(|| miette!("a plan without a part"))?;
        let source = provider_as_source(table(patients)?);
        #[expect(clippy::wildcard_enum_match_arm, reason = "only scans are replaced")]
        let bound = part.rows().clone().transform_up(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let scan = LogicalPlanBuilder::scan(scan.table_name, Arc::clone(&source), scan.projection)?;
                Ok(Transformed::yes(scan.build()?))
            }
            other => Ok(Transformed::no(other)),
        });
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let rows = session.execute_logical_plan(bound.into_diagnostic()?.data).await.into_diagnostic()?;
        Ok(Self { plan, rows: rows.collect().await.into_diagnostic()? })
    }

    /// The released estimates, part by part.
    async fn ask(&self, rng: &mut ChaCha20Rng) -> Result<Vec<f64>> {
        let plan = &self.plan;
        let mut fold = Fold::new(plan, 0).into_diagnostic()?;
        for batch in &self.rows {
            fold.push(batch).into_diagnostic()?;
        }
        let raw = RawCells::of(vec![Fold::finish(plan, 0, vec![fold]).into_diagnostic()?]);
        let Ok(reservation) = Reservation::make(plan, Digest::of(b"p"), Digest::of(b"q"), 1, &NoLedger).await;
        let release = Release::make(plan, raw, &reservation, NaiveDate::default(), true, rng);
        let release = release.ok_or_else(|| miette!("no release"))?;
        let combined = combine(plan, &[&release]).into_diagnostic()?;
        let cells = plan.released_cells(&combined, true, 0.95, &[]).into_diagnostic()?;
        let estimates = cells.first().and_then(|c| c.column(1).as_primitive_opt::<Float64Type>());
        let estimates = estimates.ok_or_else(|| miette!("no real numbers"))?;
        Ok(estimates.values().iter().take(GROUPS).copied().collect())
    }
}

/// The i-th of a sequence of points that fill 0 to 1 evenly, for each `stride` another: no luck of the draw in a bias.
fn even(i: usize, stride: f64) -> f64 {
    (i as f64 * stride).fract()
}

/// How many rows the i-th patient has.
fn rows_of(kind: &str, i: usize) -> usize {
    let u = even(i, 0.618_033_988_749_895);
    match kind {
        "4 each" => 4,
        "1 to 20" => 1 + (u * 20.0) as usize,
        // A Pareto tail of index 1.5: two thirds have one row, one in a thousand more than 100.
        _ => ((1.0 - u).powf(-1.0 / 1.5) as usize).min(2_000),
    }
}

/// A value around 40, in hundredths, for a patient with `rows` rows.
fn value_of(kind: &str, rows: usize, i: usize) -> i64 {
    let spread = 2_000.0 * even(i, 0.414_213_562_373_095);
    let rows = rows as f64;
    let centre = match kind {
        "independent" => 3_000.0,
        "a little higher with more rows" => 3_000.0 + 100.0 * rows.log2(),
        "higher with more rows" => 2_500.0 + 500.0 * rows.log2(),
        _ => 4_000.0 - 300.0 * rows.log2(),
    };
    (centre + spread) as i64
}

async fn bias(patients: usize, rows: &'static str, values: &'static str) -> Result<Bias> {
    let (mut all, mut row) = (Vec::with_capacity(patients), 0);
    for i in 0..patients {
        let n = rows_of(rows, i);
        let of = (row..row + n).map(|r| value_of(values, n, r)).collect();
        row += n;
        all.push(Patient { part: 0, values: of });
    }
    let flat = || all.iter().flat_map(|p| &p.values);
    let plain = flat().map(|v| *v as f64 / 100.0).sum::<f64>() / row as f64;
    let over = all.iter().map(|p| p.values.len()).filter(|n| *n > ROWS_PER_PATIENT as usize).sum::<usize>();
    let most = flat().copied().max().unwrap_or(1);
    // At the ceiling for synthetic data the noise of a count is far below one row.
    let mut rng = ChaCha20Rng::seed_from_u64(SEED);
    let estimates = Question::new("avg(value)", &all, most, SYNTHETIC_CEILING).await?.ask(&mut rng).await?;
    let released = estimates.first().copied().unwrap_or(f64::NAN);
    let rows_over_bound = over as f64 / row as f64;
    Ok(Bias { rows, values, rows_over_bound, plain, released, bias: (released - plain) / plain })
}

/// Values whose logarithm is normal with a deviation of 1, as costs and lengths of stay have: 20.00 in the middle.
fn skewed_value(rng: &mut ChaCha20Rng) -> i64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos();
    (2_000.0 * normal.exp()) as i64
}

/// A statistic of the tables on skewed data: its name, its SQL, and its true value of all values.
type Statistic = (&'static str, &'static str, fn(&[f64]) -> f64);

/// The statistics of the tables on skewed data.
const STATISTICS: &[Statistic] = &[
    ("mean", "avg(value)", mean),
    ("standard deviation", "stddev_samp(value)", deviation),
    ("median", "median(value)", median),
];

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// Between the two values in the middle, where there are two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    f64::midpoint(at((sorted.len() - 1) / 2), at(sorted.len() / 2))
}

async fn skewed(
    statistic: &Statistic,
    patients: usize,
    bound: (&'static str, f64),
    draws: usize,
) -> Result<SkewedError> {
    let (name, sql, truth) = *statistic;
    let mut rng = ChaCha20Rng::seed_from_u64(SEED);
    let patient = |i: usize, rng: &mut ChaCha20Rng| {
        let rows = rng.random_range(1..=8_usize);
        Patient { part: i % GROUPS, values: (0..rows).map(|_| skewed_value(rng)).collect() }
    };
    let all: Vec<Patient> = (0..patients * GROUPS).map(|i| patient(i, &mut rng)).collect();
    let mut parts = vec![Vec::new(); GROUPS];
    for p in &all {
        if let Some(part) = parts.get_mut(p.part) {
            part.extend(p.values.iter().map(|v| *v as f64 / 100.0));
        }
    }
    // exp(z): the quantile of the distribution, as a schema would have it from the literature.
    let most = (2_000.0 * bound.1.exp()) as i64;
    let truths: Vec<f64> = parts.iter().map(|part| truth(part)).collect();
    let question = Question::new(sql, &all, most, micro_rho_for(EPSILON, DELTA)).await?;
    let mut errors = Vec::new();
    for _ in 0..draws {
        let estimates = question.ask(&mut rng).await?;
        errors.extend(estimates.iter().zip(&truths).map(|(e, t)| (e - t) / t));
    }
    let n = errors.len() as f64;
    Ok(SkewedError {
        statistic: name,
        patients,
        bound: bound.0,
        truth: truths.iter().sum::<f64>() / GROUPS as f64,
        bias: errors.iter().sum::<f64>() / n,
        error: (errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt(),
    })
}

/// The tables, with `patients` for each bias and up to that many in each cell of skewed values.
///
/// # Errors
/// When a question is refused.
pub async fn figures(patients: usize, draws: usize) -> Result<Figures> {
    let noise = [1, 5, 10, 20].into_iter().map(noise).collect::<Result<Vec<_>>>()?;
    let mut biases = Vec::new();
    for rows in ["4 each", "1 to 20", "heavy tail"] {
        for values in ["independent", "a little higher with more rows", "higher with more rows", "lower with more rows"]
        {
            biases.push(bias(patients, rows, values).await?);
        }
    }
    let mut errors = Vec::new();
    for statistic in STATISTICS {
        for n in [100, 1_000, 10_000].into_iter().filter(|n| *n <= patients) {
            for bound in [("90 %", 1.281_55), ("99 %", 2.326_35), ("99.9 %", 3.090_23), ("99.999 %", 4.264_89)] {
                errors.push(skewed(statistic, n, bound, draws).await?);
            }
        }
    }
    Ok(Figures { epsilon: EPSILON, delta: DELTA, noise, bias: biases, skewed: errors })
}

/// Prints the tables, as Markdown or as one JSON object.
///
/// # Errors
/// When a question is refused.
pub async fn run(output: Output) -> Result<()> {
    let figures = figures(100_000, 10).await?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&figures).into_diagnostic()?),
        Output::Table => println!("{}", markdown(&figures)),
    }
    Ok(())
}

fn markdown(figures: &Figures) -> String {
    let mut text = format!(
        "Noise at epsilon {}, delta {:e} ({} micro-rho), two aggregates, 20 cells, values from 0 to 100:\n\n",
        figures.epsilon,
        figures.delta,
        figures.noise.first().map_or(0, |n| n.micro_rho)
    );
    text += "| rows per patient | count | sum | count of patients |\n|---|---|---|---|\n";
    for n in &figures.noise {
        text += &format!("| {} | {:.1} | {:.0} | {:.1} |\n", n.rows_per_patient, n.count, n.sum, n.patients);
    }
    text += &format!("\nBias of a mean, without noise, at {ROWS_PER_PATIENT} rows per patient:\n\n");
    text += "| rows of a patient | values | rows over the bound | plain mean | released | bias |\n|---|---|---|---|---|---|\n";
    for b in &figures.bias {
        // Plus 0: no minus before a 0.
        let (over, bias) = (100.0 * b.rows_over_bound, (10_000.0 * b.bias).round() / 100.0 + 0.0);
        text += &format!(
            "| {} | {} | {over:.0} % | {:.2} | {:.2} | {bias:+.2} % |\n",
            b.rows, b.values, b.plain, b.released
        );
    }
    text += "\nErrors on skewed values (log-normal, 1 to 8 rows of a patient), as shares of the truth:\n\n";
    text += "| statistic | patients in a cell | upper bound at | truth | bias | root mean squared error |\n|---|---|---|---|---|---|\n";
    for e in &figures.skewed {
        let (bias, error) = (100.0 * e.bias, 100.0 * e.error);
        text += &format!(
            "| {} | {} | {} | {:.2} | {bias:+.1} % | {error:.1} % |\n",
            e.statistic, e.patients, e.bound, e.truth
        );
    }
    text
}
