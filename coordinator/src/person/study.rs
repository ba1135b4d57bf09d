//! `sekisho study`: whether a study can be done, before anybody is asked for anything.
//!
//! `check` analyses the SQL as the nodes would, and compares what it needs with what each hospital declares in its catalogue.
//! Deliberately absent: permits, policies and budgets, and any look at a hospital.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{catalogue::Gap, digest::Digest, schema::Schema, units::MicroRho};
use serde::Serialize;

use super::{
    Context, catalogue,
    door::Door,
    explain::all_of,
    failure::{Exit, Failure},
    print,
    query::Question,
    schema, terms,
};
use crate::{
    catalogue::fitness::{Answer, Fitness, fitness},
    listing::Listing,
    report::Want,
};

/// A price at which every question can be divided; nothing is charged.
const RHO: u64 = 1_000_000_000;

/// What to ask of a study.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say which hospitals could answer a question, and what the others lack.
    #[command(
        after_help = "Example:\n  sekisho study check --schema omop.dsse.json --sql 'SELECT gender_concept_id, count(*) FROM person GROUP BY gender_concept_id'"
    )]
    Check(Check),
}

/// A question to be checked.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    question: Question,
    /// The schema: a file, signed or not, or the digest of one that was handed in.
    #[arg(long, value_name = "FILE|DIGEST")]
    schema: String,
    #[command(flatten)]
    terms: terms::Flags,
    /// For people, programs or spreadsheets.
    #[arg(long, value_enum, default_value = "table")]
    output: Listing,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'a str,
    schema_version: u32,
    schema_digest: Option<Digest>,
    tables: &'a [String],
    columns: Vec<String>,
    hospitals: &'a [Fitness],
}

/// Does what `command` says.
///
/// # Errors
/// When the question is not admitted, a file is wrong, or the coordinator cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let Command::Check(check) = command;
    let sql = check.question.sql()?;
    let mut door = context.door().await?;
    let (schema, digest) = asked(&check.schema, &mut door).await?;
    let rho = MicroRho::try_from(RHO).unwrap_or(MicroRho::MAX);
    let mut terms = check.terms.terms();
    let (rows, groups) = (terms.rows_per_patient.take().unwrap_or(1), terms.groups_per_patient.take().unwrap_or(1));
    let permit = all_of(&schema, rho, rows, groups, context.now);
    let plan = PrivatePlan::analyse_with(&sql, &schema, &permit, rho, &terms);
    let plan = plan.map_err(|refusal| Failure::from(refusal).placed(&sql))?;
    let catalogues = catalogue::all(&mut door).await?;
    let found: Vec<Fitness> = catalogues.iter().map(|catalogue| fitness(catalogue, &schema, digest, &plan)).collect();
    let report = Report {
        schema: &schema.id,
        schema_version: schema.version,
        schema_digest: digest,
        tables: plan.tables(),
        columns: plan.columns().iter().map(|(table, column)| format!("{table}.{column}")).collect(),
        hospitals: &found,
    };
    let row = |fitness: &Fitness| {
        let lacks: Vec<String> = fitness.lacks.iter().map(Gap::to_string).collect();
        let set = fitness.data_set.clone().unwrap_or_default();
        [fitness.node.clone(), set, fitness.answer.as_str().into(), lacks.join(", ")]
    };
    print::list(check.output, &report, ["hospital", "data set", "can answer", "lacks"], found.iter().map(row))?;
    if digest.is_none() {
        print::note("note: the schema is not signed, so no hospital is mapped to it yet");
    }
    let able = found.iter().filter(|fitness| fitness.answer == Answer::Yes).count();
    print::note(&format!("{able} of {} hospitals with a catalogue can answer", found.len()));
    Ok(Exit::Done)
}

async fn asked(name: &str, door: &mut Door) -> Result<(Schema, Option<Digest>), Failure> {
    let path = Path::new(name);
    if let (false, Ok(digest)) = (path.exists(), name.parse::<Digest>()) {
        let (_, schema, found) = door.get::<Schema>(&Want::Schema { digest }).await?;
        if found != digest {
            return Err(Failure::answer("schema", "it is another than was asked for"));
        }
        return Ok((schema, Some(digest)));
    }
    schema::either(&PathBuf::from(name))
}
