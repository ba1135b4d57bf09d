//! `sekisho explain`: what a question is taken to mean, how it is bounded, and how exact its answer would be.
//!
//! Works from files alone: nothing is signed, sent or charged. It is the analysis that the nodes make, so what it
//! refuses they refuse. Deliberately absent: what depends on a hospital, such as its own policy and what its ledger has left.

pub mod engine;
mod text;

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use sekisho_protocol::{
    digest::Digest,
    permit::{
        Basis, Decision, Dp, Mechanism, OptOut, OptOutRule, OutputReview, Permit, PermittedTable, Preset, ReleaseKind,
        Statistic, Validity,
    },
    refusal::Refusal,
    schema::{Schema, Table},
    units::{AttoDelta, MicroRho},
};
use serde::Serialize;

use self::engine::{Explanation, Understood, explained};
use super::{
    Context,
    failure::{Exit, Failure},
    permit,
    place::Place,
    print::{self, Output},
    query::{Question, charge},
    schema, terms,
};
use crate::report::{PrivacyReport, Want};

/// The delta at which epsilon is given when no permit says.
const DELTA_FOR_REPORTS: &str = "1e-6";

/// A question to be explained.
#[derive(Debug, Args)]
pub struct Command {
    #[command(flatten)]
    question: Question,
    /// The schema, signed or not [default: the permit's, from the coordinator].
    #[arg(long, value_name = "FILE", required_unless_present = "permit")]
    schema: Option<PathBuf>,
    /// The permit: a file, an id (its newest version), or a digest. Without one every column and statistic is taken to be
    /// allowed, and --rho, --rows-per-patient and --groups-per-patient say the rest.
    #[arg(long, value_name = "FILE|ID|DIGEST")]
    permit: Option<String>,
    /// What each hospital would charge, in millionths of rho [default: the permit's per query].
    #[arg(long, value_name = "MICRO")]
    rho: Option<u64>,
    #[command(flatten)]
    terms: terms::Flags,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// Explains.
///
/// # Errors
/// When a file is wrong, the question is not admitted, or a coordinator is needed and cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let sql = command.question.sql()?;
    let known = Known::of(command, context).await?;
    let (text, failure) = known.explain(&sql, command)?;
    print::out(&text)?;
    failure.map_or(Ok(Exit::Done), Err)
}

/// What the question is about, and under which permit.
struct Known {
    schema: Schema,
    permit: Permit,
    /// None when the permit is made up of flags.
    digest: Option<Digest>,
}

/// What a program reads.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'a str,
    schema_version: u32,
    permit: Option<Digest>,
    admitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    privacy: Option<PrivacyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refused<'a>>,
}

#[derive(Serialize)]
struct Refused<'a> {
    code: &'static str,
    detail: &'a str,
    advice: &'static str,
    /// Where in the SQL, in lines and characters from 1.
    line: Option<usize>,
    column: Option<usize>,
}

impl Known {
    async fn of(command: &Command, context: &Context) -> Result<Self, Failure> {
        let Some(name) = &command.permit else {
            let path =
                command.schema.as_deref().ok_or_else(|| Failure::input("there is no schema", "add --schema FILE"))?;
            let (schema, _) = schema::either(path)?;
            let permit = assumed(&schema, command, context.now)?;
            return Ok(Self { schema, permit, digest: None });
        };
        let (_, permit, digest) = permit::find(name, context).await?;
        let schema = match &command.schema {
            Some(path) => of_permit(path, &permit)?,
            None => fetched(&permit, context).await?,
        };
        Ok(Self { schema, permit, digest: Some(digest) })
    }

    /// What is printed, and how the command fails if the question is not admitted.
    fn explain(&self, sql: &str, command: &Command) -> Result<(String, Option<Failure>), Failure> {
        let mut asked = command.terms.terms();
        if self.digest.is_none() {
            // They are the permit's own already.
            (asked.rows_per_patient, asked.groups_per_patient) = (None, None);
        }
        let rho = charge(sql, command.rho, &asked, &self.permit)?;
        match explained(sql, &self.schema, &self.permit, rho, &asked) {
            Ok(Understood { explanation, privacy }) => {
                let text = match command.output {
                    Output::Table => text::explanation(self.facts(), &privacy, &explanation),
                    Output::Json => {
                        let report = Report { privacy: Some(privacy), explanation: Some(explanation), ..self.report() };
                        print::json(&Report { admitted: true, ..report })?
                    }
                };
                Ok((text, None))
            }
            Err(refusal) => {
                let failure = Failure::from(refusal.clone()).placed(sql);
                match command.output {
                    Output::Table => Err(failure),
                    Output::Json => {
                        let report = Report { refusal: Some(refused(&refusal)), ..self.report() };
                        Ok((print::json(&report)?, Some(failure)))
                    }
                }
            }
        }
    }

    fn report(&self) -> Report<'_> {
        Report {
            schema: &self.schema.id,
            schema_version: self.schema.version,
            permit: self.digest,
            admitted: false,
            privacy: None,
            explanation: None,
            refusal: None,
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let permit = match self.digest {
            Some(digest) => format!("{} version {}, digest {digest}", self.permit.id, self.permit.version),
            None => "none: every column and statistic is allowed, and small cells are shown".into(),
        };
        vec![("schema", format!("{} version {}", self.schema.id, self.schema.version)), ("permit", permit)]
    }
}

fn refused(refusal: &Refusal) -> Refused<'_> {
    let place = Place::named_in(&refusal.detail);
    Refused {
        code: refusal.code.as_str(),
        detail: &refusal.detail,
        advice: refusal.code.advice(),
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
    }
}

/// The schema at `path`, which is the permit's if it is signed.
fn of_permit(path: &Path, permit: &Permit) -> Result<Schema, Failure> {
    let (schema, digest) = schema::either(path)?;
    match digest {
        Some(digest) if digest != permit.schema => {
            let detail =
                format!("{} has the digest {digest}, and the permit is about {}", path.display(), permit.schema);
            Err(Failure::input(detail, "give the schema that the permit names"))
        }
        Some(_) => Ok(schema),
        None => {
            print::note("note: the schema is not signed; whether it is the permit's is not known");
            Ok(schema)
        }
    }
}

async fn fetched(permit: &Permit, context: &Context) -> Result<Schema, Failure> {
    let want = Want::Schema { digest: permit.schema };
    let (_, schema, digest) = context.door().await?.get::<Schema>(&want).await?;
    if digest != permit.schema {
        return Err(Failure::answer("schema", "it is another than was asked for"));
    }
    Ok(schema)
}

/// A permit that allows all that `schema` has, at the price and the bounds that the flags say.
fn assumed(schema: &Schema, command: &Command, now: DateTime<Utc>) -> Result<Permit, Failure> {
    let flags = &command.terms;
    let (Some(rho), Some(rows_per_patient), Some(groups_per_patient)) =
        (command.rho, flags.rows_per_patient, flags.groups_per_patient)
    else {
        let advice = "add --rho, --rows-per-patient and --groups-per-patient, or --permit";
        return Err(Failure::input(
            "without a permit nobody says what the question costs and how it is bounded",
            advice,
        ));
    };
    let rho = MicroRho::try_from(rho).map_err(|e| Failure::input(e.to_string(), "give a smaller --rho"))?;
    Ok(all_of(schema, rho, rows_per_patient, groups_per_patient, now))
}

/// A permit that allows all that `schema` has, at this price and under these bounds.
pub(super) fn all_of(
    schema: &Schema,
    rho: MicroRho,
    rows_per_patient: u32,
    groups_per_patient: u32,
    now: DateTime<Utc>,
) -> Permit {
    let every = |table: &Table| PermittedTable {
        table: table.name.clone(),
        columns: table.columns.iter().map(|column| column.name.clone()).collect(),
        holder_nodes: Vec::new(),
    };
    Permit {
        id: "assumed".into(),
        version: 1,
        supersedes: None,
        application_id: None,
        application: None,
        basis: Basis::JpEthics,
        issuer: String::new(),
        decision: Decision { date: now.date_naive(), reasons: String::new(), recused: Vec::new() },
        purposes: Vec::new(),
        data_user: String::new(),
        country: None,
        principal_investigator: String::new(),
        authorised_persons: Vec::new(),
        study_id: "assumed".into(),
        schema: Digest::of(b""),
        data: schema.tables.iter().map(every).collect(),
        allowed_queries: None,
        allowed_statistics: vec![
            Statistic::Count,
            Statistic::CountDistinct,
            Statistic::Sum,
            Statistic::Avg,
            Statistic::Variance,
            Statistic::Covariance,
            Statistic::Quantile,
            Statistic::Extreme,
        ],
        release_kinds: vec![ReleaseKind::Noised],
        disclosure: Preset::None,
        dp: Dp {
            rows_per_patient,
            groups_per_patient,
            sites_per_patient: 1,
            micro_rho_per_query: rho,
            micro_rho_total: rho,
            delta_for_reports: DELTA_FOR_REPORTS.into(),
            mechanism: Mechanism::Gaussian,
            atto_delta_per_query: AttoDelta::MAX,
            atto_delta_total: AttoDelta::MAX,
        },
        optout: OptOut { rule: OptOutRule::EuEhds, days: 0 },
        output_review: OutputReview::Automatic,
        validity: Validity { from: now, to: now + TimeDelta::days(1) },
        results_due: None,
        conditions: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
