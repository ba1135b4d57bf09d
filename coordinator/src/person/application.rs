//! `sekisho application`: asks a committee for a use, from the draft to what became of it.
//!
//! A draft may be incomplete, and so may what is handed in: completeness is the first question of a review. Every query is
//! dry-run on this machine before anything is signed. Deliberately absent: any permission; that is a permit's.

mod draft;
pub(crate) mod dry_run;
mod fetched;
mod guided;
mod show;
mod text;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sekisho_protocol::{
    access::Item,
    application::Application,
    dsse::Envelope,
    key_file,
    keys::SecretKey,
    refusal::{Code, Refusal},
};
use serde_json::Value;

pub use self::{
    fetched::{Fetched, find, versions},
    show::{Recompute, show},
};
use super::{
    Context,
    door::Door,
    failure::{Exit, Failure},
    file,
    print::{self, Output},
};
use crate::{
    listing::Listing,
    report::ApplicationReport,
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
        output: Listing,
    },
    /// Say what each query would cost and how exact its answer would be; exit code 1 when one is not admissible.
    #[command(after_help = "Example:\n  sekisho application dry-run application.toml --schema stays.dsse.json")]
    DryRun {
        /// A draft, .toml or .json, or a signed application.
        file: PathBuf,
        /// The schema, signed or not [default: the application's, from the coordinator].
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
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
        output: Listing,
    },
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
            let (application, envelope) = signed(file, &key, schema.as_deref(), &mut door, context).await?;
            if let Some(path) = out {
                file::write_new(path, &envelope.to_json())?;
            }
            let report = door.put(&envelope).await?;
            if *output == Output::Table {
                print::out(&format!("application {} version {}", application.id, application.version))?;
                let runs: Vec<_> = application.queries.iter().filter_map(|query| query.dry_run.clone()).collect();
                print::out(&text::dry_runs(&application.queries, &runs))?;
            }
            return print::put(&report, *output, false);
        }
        Command::DryRun { file, schema, output } => {
            let application = draft::application(versioned(draft::read(file)?, None), file)?;
            let runs = dry_run::made(&application, schema.as_deref(), context).await?;
            print::out(&match output {
                Output::Json => print::json(&runs)?,
                Output::Table => text::dry_runs(&application.queries, &runs),
            })?;
            if runs.iter().any(|run| !run.admissible) {
                return Ok(Exit::Refused);
            }
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
    let number = if fields.len() == 1 { "1 field is".into() } else { format!("{} fields are", fields.len()) };
    Refusal::new(Code::ApplicationIncomplete, format!("{number} missing: {}", fields.join(", ")))
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

fn check(path: &Path, output: Listing) -> Result<Exit, Failure> {
    let draft = draft::read(path)?;
    let missing = requirements()?.missing(&draft);
    let malformed = draft::application(versioned(draft, None), path).err();
    if output != Listing::Table || !missing.is_empty() {
        print::list(
            output,
            &missing,
            ["missing field", "what it is", "内容", "asked for by"],
            text::missing(&missing),
        )?;
    }
    match (missing.is_empty(), malformed) {
        (true, None) => {}
        (true, Some(malformed)) => return Err(malformed),
        (false, malformed) => {
            // A misspelt field is missing under its right name.
            malformed.iter().for_each(|malformed| print::note(&format!("besides: {malformed}")));
            return Err(incomplete(&missing).into());
        }
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
    context: &Context,
) -> Result<(Application, Envelope), Failure> {
    let draft = draft::read(path)?;
    let missing = requirements()?.missing(&draft);
    // What is malformed is so whatever the coordinator has.
    draft::application(versioned(draft.clone(), None), path)?;
    let newest = match draft.get("id").and_then(Value::as_str) {
        Some(id) => fetched::newest(id, key, door, context.now).await?,
        None => None,
    };
    let mut application = draft::application(versioned(draft, newest.as_ref()), path)?;
    let fingerprint = key.public().fingerprint();
    if application.person(fingerprint).is_none() {
        let detail = format!("people of the application does not name key {fingerprint}");
        return Err(Refusal::new(Code::NotAuthorised, detail).into());
    }
    if let Some(newest) = newest.filter(|newest| says_the_same(&newest.application, &application)) {
        let version = newest.application.version;
        let detail =
            format!("version {version} of application {} says the same; it is handed in already", application.id);
        return Err(Failure::input(detail, "change the draft, if there is to be another version"));
    }
    if !missing.is_empty() {
        print::note(&format!("warning: {}", incomplete(&missing).detail));
        print::note("  do: the committee will ask for them; `sekisho application check` says what they are");
    }
    match dry_run::made(&application, schema, context).await {
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
    let envelope = Envelope::sign(&application, &[key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
    Ok((application, envelope))
}

/// Whether they differ in nothing but their number and their dry runs.
fn says_the_same(earlier: &Application, later: &Application) -> bool {
    let bare = |application: &Application| {
        let mut bare = application.clone();
        (bare.version, bare.supersedes) = (1, None);
        bare.queries.iter_mut().for_each(|query| query.dry_run = None);
        bare
    };
    bare(earlier) == bare(later)
}

/// Prints the applications that the owner of `key` may read.
///
/// # Errors
/// When there are none for them, or the coordinator cannot be reached.
pub async fn list(key: &Path, output: Listing, context: &Context) -> Result<(), Failure> {
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
    print::list(output, &reports, header, reports.iter().map(row))
}

#[cfg(test)]
mod tests;
