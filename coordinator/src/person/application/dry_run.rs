//! What each query of an application would cost and how exact it would be, before any permit exists.
//!
//! The engine is the nodes' own, under the permit that would grant all of the application. An applicant's figures prove
//! nothing: a committee makes them again ([`compare`]).

use std::path::Path;

use chrono::{DateTime, Utc};
use sekisho_aggregation::accounting::epsilon_at_delta;
use sekisho_protocol::{
    application::{Application, DryRun, DryRunMeasure, RequestedQuery},
    digest::Digest,
    permit::Permit,
    refusal::Refusal,
    schema::Schema,
    units::MicroRho,
};

use crate::{
    person::{
        Context,
        explain::engine::{Explanation, MeasureExplanation, explained},
        failure::Failure,
        grant,
        number::{relative, significant},
        print, schema,
    },
    report::Want,
};

/// The sizes of cells for which errors are given.
const CELL_SIZES: [u32; 4] = [10, 100, 1000, 10_000];

/// The dry run of each query, in order, with the schema in the file at `schema`, or the coordinator's.
///
/// # Errors
/// When the application lacks what a permit must have, or its schema is not to be had.
pub async fn made(application: &Application, schema: Option<&Path>, context: &Context) -> Result<Vec<DryRun>, Failure> {
    let digest =
        application.schema.ok_or_else(|| Failure::input("the application names no schema", "fill in schema"))?;
    let schema = match schema {
        Some(path) => of_application(path, digest)?,
        None => {
            let (_, schema, found) = context.door().await?.get::<Schema>(&Want::Schema { digest }).await?;
            if found != digest {
                return Err(Failure::answer("schema", "it is another than was asked for"));
            }
            schema
        }
    };
    all(application, &schema, context.now)
}

fn of_application(path: &Path, digest: Digest) -> Result<Schema, Failure> {
    let (schema, found) = schema::either(path)?;
    match found {
        Some(found) if found != digest => {
            let detail = format!("{} has the digest {found}, and the application is about {digest}", path.display());
            Err(Failure::input(detail, "give the schema that the application names"))
        }
        Some(_) => Ok(schema),
        None => {
            print::note("note: the schema is not signed; whether it is the application's is not known");
            Ok(schema)
        }
    }
}

/// The dry run of each query, in order.
///
/// # Errors
/// When the application lacks what a permit must have. A query that is not admissible is no failure.
pub fn all(application: &Application, schema: &Schema, now: DateTime<Utc>) -> Result<Vec<DryRun>, Failure> {
    let permit = grant::permit(application, Digest::of(b""), now)?;
    Ok(application.queries.iter().map(|query| one(query, schema, &permit)).collect())
}

/// By their place from 1, the queries whose attached dry run is another than the one just made.
pub fn compare(application: &Application, made: &[DryRun]) -> Vec<usize> {
    let differs = |(query, made): (&RequestedQuery, &DryRun)| query.dry_run.as_ref() != Some(made);
    let pairs = (1..).zip(application.queries.iter().zip(made));
    pairs.filter(|(_, pair)| differs(*pair)).map(|(place, _)| place).collect()
}

fn one(query: &RequestedQuery, schema: &Schema, permit: &Permit) -> DryRun {
    let micro_rho = query.micro_rho.unwrap_or(permit.dp.micro_rho_per_query);
    let run = match analysed(query, schema, permit, micro_rho) {
        Ok(explanation) => of_explanation(&explanation),
        Err(refusal) => DryRun {
            admissible: false,
            refusal: Some(format!("{}: {}", refusal.code, refusal.detail)),
            micro_rho,
            atto_delta: query.terms.atto_delta,
            delta: String::new(),
            epsilon: String::new(),
            cells: 0,
            cell_sizes: CELL_SIZES.to_vec(),
            measures: Vec::new(),
        },
    };
    // The permit's own rules say that it is a number; if it were none, no epsilon would be promised.
    let delta = permit.dp.delta_for_reports.parse().unwrap_or(0.0);
    let epsilon = format!("{:.4}", epsilon_at_delta(micro_rho, delta));
    DryRun { micro_rho, atto_delta: query.terms.atto_delta, delta: permit.dp.delta_for_reports.clone(), epsilon, ..run }
}

fn analysed(query: &RequestedQuery, schema: &Schema, permit: &Permit, rho: MicroRho) -> Result<Explanation, Refusal> {
    use sekisho_protocol::refusal::Code;
    if rho > permit.dp.micro_rho_per_query || rho == MicroRho::ZERO {
        let detail = format!("{rho} is not from 1 to the {} of one query", permit.dp.micro_rho_per_query);
        return Err(Refusal::new(Code::BudgetQuery, detail));
    }
    explained(&query.sql, schema, permit, rho, &query.terms)
}

fn of_explanation(explanation: &Explanation) -> DryRun {
    let cells = explanation.parts.iter().map(|part| u64::try_from(part.cells).unwrap_or(u64::MAX));
    let measures = explanation.parts.iter().flat_map(|part| &part.measures);
    DryRun {
        admissible: true,
        refusal: None,
        micro_rho: MicroRho::ZERO,
        atto_delta: sekisho_protocol::units::AttoDelta::ZERO,
        delta: String::new(),
        epsilon: String::new(),
        cells: cells.fold(0, u64::saturating_add),
        cell_sizes: CELL_SIZES.to_vec(),
        measures: measures.map(measure).collect(),
    }
}

fn measure(measure: &MeasureExplanation) -> DryRunMeasure {
    let MeasureExplanation { name, kind, standard_deviation, .. } = measure;
    let counts = kind != "sum";
    DryRunMeasure {
        measure: name.clone(),
        standard_deviation: significant(*standard_deviation),
        counts,
        relative: CELL_SIZES.iter().map(|size| relative(*standard_deviation, counts, *size)).collect(),
    }
}
