//! `sekisho application`: asks a committee for a use, from the draft to what became of it.
//!
//! A draft may be incomplete, and so may what is handed in: completeness is the first question of a review. Every query is
//! dry-run on this machine before anything is signed. Deliberately absent: any permission; that is a permit's.

mod draft;
mod dry_run;
mod guided;
mod text;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Subcommand;
use sekisho_protocol::{
    access::Item,
    application::{Application, DryRun},
    digest::Digest,
    dsse::{Envelope, Verified},
    key_file,
    keys::SecretKey,
    refusal::{Code, Refusal},
    roster::is_name,
    schema::Schema,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Context,
    door::Door,
    failure::{Exit, Failure},
    file,
    print::{self, ListOutput, Output},
    schema,
};
use crate::{
    report::{ApplicationReport, Listed, Want},
    requirements::{Missing, Requirements},
};

/// What to do with an application.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a draft in TOML: a commented template, or the answers to questions in Japanese and English.
    #[command(after_help = "Example:\n  sekisho application new --guided --out application.toml")]
    New {
        /// Ask for each field that the law asks for; answers may be piped in, one a line.
        #[arg(long)]
        guided: bool,
        /// Begin with this draft: what it has is not asked for again.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Where the draft goes; it must not exist [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Say which fields that the law asks for are missing; exit code 1 when there are any.
    #[command(after_help = "Example:\n  sekisho application check application.toml")]
    Check {
        /// A draft, .toml or .json, or a signed application.
        file: PathBuf,
        /// How the missing fields are printed.
        #[arg(long, value_enum, default_value = "table")]
        output: ListOutput,
    },
    /// Dry-run every query, attach what they would cost, sign, and hand in.
    #[command(after_help = "Example:\n  sekisho application submit application.toml --key ada.pem")]
    Submit {
        /// The draft. Without `version` it becomes the version after the newest one.
        file: PathBuf,
        /// The key of one of its people.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The schema, signed or not [default: the application's, from the coordinator].
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// Keep the signed application in this file; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Print an application, from a file or from the coordinator.
    #[command(after_help = "Example:\n  sekisho application show application-1 --key member.pem --recompute")]
    Show {
        /// A file, or an id.
        #[arg(value_name = "FILE|ID")]
        application: String,
        /// The key of a member of the committee, or of a person of the application; not needed for a file.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Which version [default: the newest].
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        #[command(flatten)]
        recompute: Recompute,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// List the applications that the key's owner may read, and how far each is.
    #[command(after_help = "Example:\n  sekisho application list --key ada.pem --output csv")]
    List {
        /// The key of a member of the committee, or of a person of an application.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// How the list is printed.
        #[arg(long, value_enum, default_value = "table")]
        output: ListOutput,
    },
}

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

/// An application as the coordinator keeps it, signed by one of its people.
pub struct Fetched {
    /// The application.
    pub application: Verified<Application>,
    /// When it was handed in.
    pub put_at: Option<DateTime<Utc>>,
}

/// Does what `command` says.
///
/// # Errors
/// When a file, a name or a key is wrong, a purpose is prohibited, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::New { guided, from, out } => {
            let text = new(*guided, from.as_deref())?;
            match out {
                Some(path) => file::write_new(path, text.as_bytes())?,
                None => print::out(text.trim_end())?,
            }
        }
        Command::Check { file, output } => return check(file, *output),
        Command::Submit { file, key, schema, out, output } => {
            let key = key_file::read(key)?;
            let mut door = context.door().await?;
            let envelope = signed(file, &key, schema.as_deref(), &mut door, context.now).await?;
            if let Some(path) = out {
                file::write_new(path, &envelope.to_json())?;
            }
            let report = door.put(&envelope).await?;
            return print::put(&report, *output, false);
        }
        Command::Show { application, key, version, recompute, output } => {
            let fetched = find(application, key.as_deref(), *version, context).await?;
            show(&fetched, recompute, None, *output, context).await?;
        }
        Command::List { key, output } => list(key, *output, context).await?,
    }
    Ok(Exit::Done)
}

fn requirements() -> Result<Requirements, Failure> {
    Requirements::read().map_err(|e| Failure::input(e.to_string(), "this build is broken"))
}

/// What an application lacks.
///
/// # Errors
/// When this software's own requirements are malformed, which a test rules out.
pub fn missing(application: &Application) -> Result<Vec<Missing>, Failure> {
    requirements()?.missing_in(application).map_err(|e| Failure::input(e.to_string(), "this build is broken"))
}

/// The refusal of an application that lacks something.
pub fn incomplete(missing: &[Missing]) -> Refusal {
    let fields: Vec<_> = missing.iter().map(|m| m.field.as_str()).collect();
    Refusal::new(Code::ApplicationIncomplete, format!("{} fields are missing: {}", missing.len(), fields.join(", ")))
}

fn new(guided: bool, from: Option<&Path>) -> Result<String, Failure> {
    let draft = match from {
        Some(path) => draft::read(path)?,
        None if !guided => return Ok(draft::TEMPLATE.into()),
        None => Value::Null,
    };
    let draft = if guided { guided::on_terminal(draft, &requirements()?)? } else { draft };
    let missing = requirements()?.missing(&draft);
    if !missing.is_empty() {
        print::note(&format!("note: {} fields are missing; `sekisho application check` lists them", missing.len()));
    }
    toml::to_string(&draft).map_err(|e| Failure::input(e.to_string(), "see `sekisho application new`"))
}

fn check(path: &Path, output: ListOutput) -> Result<Exit, Failure> {
    let draft = draft::read(path)?;
    let missing = requirements()?.missing(&draft);
    // A list entry without what makes it one is no application, and has been named already.
    let malformed = draft::application(versioned(draft, None), path).err();
    print::list(output, ["missing field", "what it is", "内容", "asked for by"], text::missing(&missing), &missing)?;
    if !missing.is_empty() {
        return Err(incomplete(&missing).into());
    }
    if let Some(malformed) = malformed {
        return Err(malformed);
    }
    print::note("the application has every field that the law asks for / 必要な項目はすべて記入されています");
    Ok(Exit::Done)
}

/// The draft as the version after `newest`, unless it says which it is.
fn versioned(mut draft: Value, newest: Option<&Fetched>) -> Value {
    if let Some(fields) = draft.as_object_mut() {
        let next = newest.map_or(1, |newest| newest.application.version.saturating_add(1));
        let version = fields.entry("version").or_insert_with(|| next.into()).clone();
        if let Some(newest) = newest.filter(|_| version.as_u64() == Some(next.into())) {
            fields.entry("supersedes").or_insert_with(|| newest.application.digest().to_string().into());
        }
    }
    draft
}

/// The application of the draft at `path`, with its dry runs, signed.
async fn signed(
    path: &Path,
    key: &SecretKey,
    schema: Option<&Path>,
    door: &mut Door,
    now: DateTime<Utc>,
) -> Result<Envelope, Failure> {
    let draft = draft::read(path)?;
    let missing = requirements()?.missing(&draft);
    let newest = match draft.get("id").and_then(Value::as_str) {
        Some(id) => newest_of(id, key, door, now).await?,
        None => None,
    };
    let mut application = draft::application(versioned(draft, newest.as_ref()), path)?;
    let fingerprint = key.public().fingerprint();
    if application.person(fingerprint).is_none() {
        let detail = format!("people does not name key {fingerprint}");
        return Err(Refusal::new(Code::UnknownPerson, detail).into());
    }
    if !missing.is_empty() {
        print::note(&format!("warning: {}", incomplete(&missing).detail));
        print::note("  do: the committee will ask for them; `sekisho application check` says what they are");
    }
    match dry_runs(&application, schema, door, now).await {
        Ok(runs) => {
            for (place, run) in (1..).zip(&runs) {
                if let Some(refusal) = &run.refusal {
                    print::note(&format!("warning: query {place} is not admissible: {refusal}"));
                }
            }
            for (query, run) in application.queries.iter_mut().zip(runs) {
                query.dry_run = Some(run);
            }
        }
        Err(failure) if missing.is_empty() => return Err(failure),
        Err(failure) => print::note(&format!("warning: no dry runs are attached: {failure}")),
    }
    Envelope::sign(&application, &[key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))
}

async fn dry_runs(
    application: &Application,
    schema: Option<&Path>,
    door: &mut Door,
    now: DateTime<Utc>,
) -> Result<Vec<DryRun>, Failure> {
    let digest =
        application.schema.ok_or_else(|| Failure::input("the application names no schema", "fill in schema"))?;
    let schema = match schema {
        Some(path) => of_application(path, digest)?,
        None => {
            let (_, schema, found) = door.get::<Schema>(&Want::Schema { digest }).await?;
            if found != digest {
                return Err(Failure::answer("schema", "it is another than was asked for"));
            }
            schema
        }
    };
    dry_run::all(application, &schema, now)
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

/// All versions of the application `id`, the newest first, each signed by one of its people.
///
/// # Errors
/// When the key's owner may not read it, or the coordinator sends something else.
pub async fn versions(id: &str, key: &SecretKey, door: &mut Door, now: DateTime<Utc>) -> Result<Vec<Fetched>, Failure> {
    if !is_name(id) {
        return Err(Failure::input(format!("{id} is no file and no id of an application"), "check the path"));
    }
    let listed: Vec<Listed> = door.read(Item::Application { id: id.into() }, key, now).await?;
    let mut versions = Vec::new();
    for Listed { envelope, put_at, .. } in listed {
        let application = by_its_people(&envelope).map_err(|e| Failure::answer("application", e))?;
        if application.id != id {
            return Err(Failure::answer("application", "it is another than was asked for"));
        }
        versions.push(Fetched { application, put_at: Some(put_at) });
    }
    versions.sort_by_key(|v| std::cmp::Reverse(v.application.version));
    Ok(versions)
}

fn by_its_people(envelope: &Envelope) -> Result<Verified<Application>, sekisho_protocol::dsse::DsseError> {
    let (claimed, _) = envelope.peek::<Application>()?;
    envelope.verify::<Application>(&claimed.keys(), 1)
}

/// The newest version that the key's owner may read; none when there is none, or none for them.
async fn newest_of(id: &str, key: &SecretKey, door: &mut Door, now: DateTime<Utc>) -> Result<Option<Fetched>, Failure> {
    match versions(id, key, door, now).await {
        Ok(versions) => Ok(versions.into_iter().next()),
        Err(failure) if [Code::NotAuthorised.as_str(), Code::ApplicationUnknown.as_str()].contains(&failure.code()) => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// An application from a file, or by id from the coordinator: the newest version, unless another is wanted.
///
/// # Errors
/// When there is none, none of its people signed it, or it may not be read.
pub async fn find(name: &str, key: Option<&Path>, version: Option<u32>, context: &Context) -> Result<Fetched, Failure> {
    let path = Path::new(name);
    if path.is_file() {
        let envelope = file::read_envelope::<Application>(path)?;
        let application = by_its_people(&envelope).map_err(|e| Failure::document(path, e))?;
        return Ok(Fetched { application, put_at: None });
    }
    let advice = "add --key with the key of a committee's member, or of a person of the application";
    let key = key.ok_or_else(|| Failure::input("applications are not public", advice))?;
    let mut door = context.door().await?;
    let versions = versions(name, &key_file::read(key)?, &mut door, context.now).await?;
    let wanted = |fetched: &Fetched| version.is_none_or(|version| fetched.application.version == version);
    versions
        .into_iter()
        .find(wanted)
        .ok_or_else(|| Refusal::new(Code::ApplicationUnknown, format!("application {name} has no such version")).into())
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
    let made = if again.recompute {
        Some(match &again.schema {
            Some(path) => {
                let digest = application.schema;
                let digest = digest.ok_or_else(|| Failure::input("the application names no schema", "ask for it"))?;
                dry_run::all(application, &of_application(path, digest)?, context.now)?
            }
            None => dry_runs(application, None, &mut context.door().await?, context.now).await?,
        })
    } else {
        None
    };
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
            facts.extend(fetched.put_at.map(|at| ("handed in", at.to_rfc3339())));
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

/// Prints the applications that the owner of `key` may read.
///
/// # Errors
/// When there are none for them, or the coordinator cannot be reached.
pub async fn list(key: &Path, output: ListOutput, context: &Context) -> Result<(), Failure> {
    let key = key_file::read(key)?;
    let reports: Vec<ApplicationReport> = context.door().await?.read(Item::Applications, &key, context.now).await?;
    let row = |r: &ApplicationReport| {
        let complete = r.complete_since.map(|at| at.date_naive().to_string()).unwrap_or_default();
        let (version, basis) = (r.version.to_string(), super::permit::word(&r.basis));
        let put_at = r.put_at.date_naive().to_string();
        [
            r.id.clone(),
            version,
            r.state.as_str().into(),
            r.applicant.clone(),
            basis,
            put_at,
            complete,
            r.digest.to_string(),
        ]
    };
    let header = ["application", "version", "state", "applicant", "basis", "handed in", "complete since", "digest"];
    print::list(output, header, reports.iter().map(row), &reports)
}

#[cfg(test)]
mod tests;
