//! An application printed, with dry runs made on this machine and with what was said of it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    application::{Application, DryRun},
    digest::Digest,
};
use serde::Serialize;
use serde_json::Value;

use super::{Fetched, dry_run, missing, text};
use crate::{
    person::{
        Context,
        failure::Failure,
        print::{self, Output},
    },
    requirements::Missing,
};

/// Whether dry runs are made again.
#[derive(Debug, clap::Args)]
pub struct Recompute {
    /// Make the dry runs again on this machine: an applicant's own figures prove nothing.
    #[arg(long)]
    recompute: bool,
    /// The schema for that, signed or not [default: the application's, from the coordinator].
    #[arg(long, value_name = "FILE", requires = "recompute")]
    schema: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown<'a> {
    digest: Digest,
    signed_by: Vec<Digest>,
    put_at: Option<DateTime<Utc>>,
    missing: &'a [Missing],
    /// Made on this machine, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    recomputed: Option<&'a [DryRun]>,
    /// The queries whose attached dry run is another, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    differing: Option<&'a [usize]>,
    document: &'a Application,
    #[serde(skip_serializing_if = "Option::is_none")]
    reviews: Option<Value>,
}

/// Prints an application, with dry runs made here where that is asked for, and with what was `said` of it: a table, and the
/// same for programs.
///
/// # Errors
/// When a dry run cannot be made, or the text not be written.
pub async fn show(
    fetched: &Fetched,
    again: &Recompute,
    said: Option<(String, Value)>,
    output: Output,
    context: &Context,
) -> Result<(), Failure> {
    let application = fetched.application.document();
    let made =
        if again.recompute { Some(dry_run::made(application, again.schema.as_deref(), context).await?) } else { None };
    let differing = made.as_ref().map(|made| dry_run::compare(application, made));
    let missing = missing(application)?;
    let (digest, signed_by) = (fetched.application.digest(), fetched.application.signers().to_vec());
    match output {
        Output::Json => print::out(&print::json(&Shown {
            digest,
            signed_by,
            put_at: fetched.put_at,
            missing: &missing,
            recomputed: made.as_deref(),
            differing: differing.as_deref(),
            document: application,
            reviews: said.map(|(_, reviews)| reviews),
        })?)?,
        Output::Table => {
            print::out(&text::application(application, made.as_deref()))?;
            let mut facts = vec![("digest", digest.to_string())];
            facts.extend(signed_by.iter().map(|id| ("signed by", id.to_string())));
            facts.extend(fetched.put_at.map(|at| ("handed in", text::instant(at))));
            let fields: Vec<_> = missing.iter().map(|m| m.field.as_str()).collect();
            facts.push(("missing", if fields.is_empty() { "nothing".into() } else { fields.join(", ") }));
            print::out(&print::pairs(&facts))?;
            if let Some((table, _)) = said {
                print::out(&table)?;
            }
        }
    }
    for place in differing.unwrap_or_default() {
        print::note(&format!("warning: the applicant's dry run of query {place} is not what this machine finds"));
    }
    Ok(())
}
