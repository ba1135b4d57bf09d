//! What each query of an application would cost and how exact it would be, before any permit exists.
//!
//! The engine is the nodes' own, under the permit that would grant all of the application. An applicant's figures prove
//! nothing: a committee makes them again ([`compare`]).

use std::path::Path;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    application::{Application, DryRun, DryRunMeasure, RequestedQuery},
    digest::Digest,
    permit::{Permit, ReleaseKind},
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
    result,
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
    let micro_rho = price(query, permit);
    let protection = result::protection(&query.sql, micro_rho, permit);
    let (delta, epsilon) = match protection.guarantee() {
        Some(of) => (of.delta.clone(), format!("{:.4}", of.epsilon)),
        None => (String::new(), String::new()),
    };
    let run = DryRun {
        admissible: false,
        refusal: None,
        exact: protection.rules().copied(),
        micro_rho,
        atto_delta: query.terms.atto_delta,
        delta,
        epsilon,
        cells: 0,
        cell_sizes: CELL_SIZES.to_vec(),
        measures: Vec::new(),
    };
    match analysed(query, schema, permit, micro_rho) {
        Ok(explanation) => of_explanation(&explanation, run),
        Err(refusal) => DryRun { refusal: Some(format!("{}: {}", refusal.code, refusal.detail)), ..run },
    }
}

/// What one run of a requested query costs: nothing, where its release is exact.
pub fn price(query: &RequestedQuery, permit: &Permit) -> MicroRho {
    match permit.release_of(&query.sql) {
        ReleaseKind::Noised => query.micro_rho.unwrap_or(permit.dp.micro_rho_per_query),
        ReleaseKind::Aggregated => MicroRho::ZERO,
    }
}

fn analysed(query: &RequestedQuery, schema: &Schema, permit: &Permit, rho: MicroRho) -> Result<Explanation, Refusal> {
    use sekisho_protocol::refusal::Code;
    let noised = permit.release_of(&query.sql).is_noised();
    if noised && (rho > permit.dp.micro_rho_per_query || rho == MicroRho::ZERO) {
        let detail = format!("{rho} is not from 1 to the {} of one query", permit.dp.micro_rho_per_query);
        return Err(Refusal::new(Code::BudgetQuery, detail));
    }
    Ok(explained(&query.sql, schema, permit, rho, &query.terms)?.explanation)
}

fn of_explanation(explanation: &Explanation, run: DryRun) -> DryRun {
    let cells = explanation.parts.iter().map(|part| u64::try_from(part.cells).unwrap_or(u64::MAX));
    let measures = explanation.parts.iter().flat_map(|part| &part.measures).filter(|_| run.exact.is_none());
    let measures = measures.map(measure).collect();
    DryRun { admissible: true, cells: cells.fold(0, u64::saturating_add), measures, ..run }
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
