//! `sekisho permit`: what a committee grants, from its draft to its revocation.
//!
//! A draft becomes an envelope that nobody signed; each member adds a signature to the same bytes; the
//! coordinator takes it round to the hospitals, each of which decides. Deliberately absent: counting the
//! quorum; only the hospitals know whose signatures count.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    key_file,
    keys::SecretKey,
    permit::{AllowedQuery, Permit, PermittedTable},
    publication::Published,
    refusal::{Code, Refusal},
    roster::is_name,
};

use super::{
    Context,
    door::Door,
    due,
    failure::{Exit, Failure},
    file, governance, grant, permit_file,
    print::{self, Output, Spinner},
    status::{self, Change},
};
use crate::report::Want;

/// What to do with a permit.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented draft in TOML.
    #[command(after_help = "Example:\n  sekisho permit template > permit.toml")]
    Template,
    /// Make an unsigned permit of a draft, or of an application.
    #[command(after_help = "Example:\n  sekisho permit new --from permit.toml --out permit.dsse.json")]
    New {
        /// The draft, .toml or .json: see `sekisho permit template`. With --application, only what the permit says otherwise
        /// than the application: `issuer`, `[decision]` with its `reasons`, and what is narrower.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Draft what this application asks for: its id, or a file.
        #[arg(long, value_name = "FILE|ID")]
        application: Option<String>,
        /// A member's key, to read the application from the coordinator.
        #[arg(long, value_name = "FILE", requires = "application")]
        key: Option<PathBuf>,
        /// Where the permit goes; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Draft the next version of a permit: its contents, the next number, and what it supersedes.
    #[command(after_help = "Example:\n  sekisho permit amend permit-1 --out permit-1.json")]
    Amend {
        /// A file, an id (its newest version), or a digest.
        #[arg(value_name = "FILE|ID|DIGEST")]
        permit: String,
        /// Where the draft goes, to be changed and given to `sekisho permit new --from`; it must not exist.
        #[arg(long, value_name = "FILE.json")]
        out: PathBuf,
    },
    /// Add a committee member's signature to a permit, after showing what is signed.
    #[command(after_help = "Example:\n  sekisho permit sign permit.dsse.json --key member.pem")]
    Sign {
        /// The permit; the signature is added in place.
        file: PathBuf,
        /// The member's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Print a permit, from a file or from the coordinator (signatures are not checked).
    #[command(after_help = "Example:\n  sekisho permit show permit-1 --output json")]
    Show {
        /// A file, an id (its newest version), or a digest.
        #[arg(value_name = "FILE|ID|DIGEST")]
        permit: String,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Hand a signed permit in, and print what each hospital says to it.
    #[command(after_help = "Example:\n  sekisho permit submit permit.dsse.json")]
    Submit {
        /// The signed permit.
        file: PathBuf,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// List what the law wants done by which day: decisions and results to publish, permits to end; what is late comes first.
    #[command(after_help = "Example:\n  sekisho permit due --at 2027-01-31 --output csv")]
    Due(due::Due),
    /// Say where a permit, or a refusal (by its application's id), was published.
    #[command(
        after_help = "Example:\n  sekisho permit published permit-1 --url https://example.org/decisions/1 --key member.pem"
    )]
    Published(due::Publish),
    /// Say where the results of a permit were published.
    #[command(
        after_help = "Example:\n  sekisho permit results permit-1 --url https://doi.org/10.5555/12345678 --key ada.pem"
    )]
    Results(due::Publish),
    /// Revoke a permit: signs and hands in the next status.
    #[command(
        after_help = "Example:\n  sekisho permit revoke permit-1 --reason 'consent withdrawn' --key governance.pem"
    )]
    Revoke {
        /// An id (its newest version), or a digest.
        #[arg(value_name = "ID|DIGEST")]
        permit: String,
        /// Why, in public.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        signing: status::Signing,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When a file, a name or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Template => print::out(permit_file::TEMPLATE.trim_end())?,
        Command::New { from, application, key, out } => {
            let permit = match application {
                None => permit_file::read(from)?,
                Some(application) => grant::answering(application, key.as_deref(), from, context).await?,
            };
            let wrong = |e| Failure::document(from, e);
            let envelope = Envelope::sign(&permit, &[]).map_err(wrong)?;
            let (_, digest) = envelope.peek::<Permit>().map_err(wrong)?;
            file::write_new(out, &envelope.to_json())?;
            print::out(&digest.to_string())?;
        }
        Command::Amend { permit, out } => {
            let (_, permit, digest) = find(permit, context).await?;
            let next = amended(permit, digest)?;
            file::write_new(out, format!("{}\n", print::json(&next)?).as_bytes())?;
            print::out(&print::pairs(&[("version", next.version.to_string()), ("supersedes", digest.to_string())]))?;
            print::note("the study's spending goes on; change the draft, then `sekisho permit new --from` it");
        }
        Command::Sign { file, key } => {
            let key = key_file::read(key)?;
            let envelope = file::read_envelope::<Permit>(file)?;
            let (permit, digest) = envelope.peek::<Permit>().map_err(|e| Failure::document(file, e))?;
            print::out(&table(&permit))?;
            if let Some(id) = &permit.application_id {
                print::note(&format!(
                    "note: this does not compare the permit with application {id}; `sekisho review approve` does"
                ));
            }
            let signatures = sign::<Permit>(file, envelope, &key)?;
            print::out(&print::pairs(&[
                ("digest", digest.to_string()),
                ("signed by", key.public().fingerprint().to_string()),
                ("signatures", signatures.to_string()),
            ]))?;
        }
        Command::Show { permit, output } => {
            let (envelope, permit, digest) = find(permit, context).await?;
            governance::show(&envelope, &permit, digest, *output, table)?;
        }
        Command::Submit { file, output } => {
            let envelope = file::read_envelope::<Permit>(file)?;
            let mut door = context.door().await?;
            let report = {
                let _spinner = Spinner::start("the hospitals decide");
                door.put(&envelope).await?
            };
            return print::put(&report, *output, true);
        }
        Command::Due(command) => return due::run(command, context).await,
        Command::Published(command) => return due::publish(Published::Decision, command, context).await,
        Command::Results(command) => return due::publish(Published::Results, command, context).await,
        Command::Revoke { permit, reason, signing } => {
            let digest = match permit.parse::<Digest>() {
                Ok(digest) => digest,
                Err(_) => fetch(&mut context.door().await?, permit).await?.2,
            };
            print::note(&format!("revoking permit {digest}"));
            return status::change(Change::Revoke(digest, reason), signing, context).await;
        }
    }
    Ok(Exit::Done)
}

/// The version after `permit`, with the same contents.
fn amended(permit: Permit, digest: Digest) -> Result<Permit, Failure> {
    let last = || Failure::input("the permit has the last version there is", "ask for a permit of another id");
    let version = permit.version.checked_add(1).ok_or_else(last)?;
    Ok(Permit { version, supersedes: Some(digest), ..permit })
}

/// A permit from a file, or by id or digest from the coordinator. Nobody's signature is checked.
///
/// # Errors
/// When there is none, or the coordinator cannot be reached.
pub async fn find(name: &str, context: &Context) -> Result<(Envelope, Permit, Digest), Failure> {
    let path = Path::new(name);
    if !path.is_file() {
        return fetch(&mut context.door().await?, name).await;
    }
    let envelope = file::read_envelope::<Permit>(path)?;
    let (permit, digest) = envelope.peek::<Permit>().map_err(|e| Failure::document(path, e))?;
    Ok((envelope, permit, digest))
}

/// A permit from the coordinator, which is the one that `name` says.
///
/// # Errors
/// When there is none, or the coordinator cannot be reached.
pub async fn fetch(door: &mut Door, name: &str) -> Result<(Envelope, Permit, Digest), Failure> {
    let wanted = name.parse::<Digest>().ok();
    if wanted.is_none() && !is_name(name) {
        return Err(Failure::input(format!("{name} is no file, no id and no digest of a permit"), "check the path"));
    }
    let (envelope, permit, digest) = door.get::<Permit>(&Want::Permit { name: name.into() }).await?;
    if wanted.map_or(permit.id != name, |wanted| wanted != digest) {
        return Err(Failure::answer("permit", "it is another than was asked for"));
    }
    Ok((envelope, permit, digest))
}

/// Adds a signature in the file, whole or not at all; says how many there are then.
///
/// # Errors
/// When the key has signed already, or the file cannot be replaced.
pub fn sign<D: Document>(path: &Path, mut envelope: Envelope, key: &SecretKey) -> Result<usize, Failure> {
    let fingerprint = key.public().fingerprint();
    if envelope.key_ids().any(|id| id == fingerprint) {
        let detail = format!("key {fingerprint} has signed {} already", path.display());
        return Err(Refusal::new(Code::DuplicateSigner, detail).into());
    }
    envelope.add_signature::<D>(key).map_err(|e| Failure::document(path, e))?;
    file::replace(path, &envelope.to_json())?;
    Ok(envelope.key_ids().count())
}

/// The name by which a document spells a value of ours.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// The names of several.
pub fn words<T: serde::Serialize>(values: &[T]) -> String {
    values.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Everything in a permit that a signer answers for.
pub fn table(permit: &Permit) -> String {
    let dp = &permit.dp;
    let mut facts = vec![
        (Permit::NAME, format!("{} version {}", permit.id, permit.version)),
        ("study", permit.study_id.clone()),
        ("basis", word(&permit.basis)),
        ("issuer", permit.issuer.clone()),
        ("decision", format!("{}: {}", permit.decision.date, permit.decision.reasons)),
        ("purposes", words(&permit.purposes)),
        ("data user", format!("{} ({})", permit.data_user, permit.principal_investigator)),
        ("valid", format!("from {} to {}", permit.validity.from.to_rfc3339(), permit.validity.to.to_rfc3339())),
        ("schema", permit.schema.to_string()),
        ("statistics", words(&permit.allowed_statistics)),
        ("releases", words(&permit.release_kinds)),
        ("disclosure", format!("{}: {}", word(&permit.disclosure), permit.disclosure.rules().in_words().0)),
        ("cost", format!("{} a noised query, {} in all, at each hospital", dp.micro_rho_per_query, dp.micro_rho_total)),
        ("delta", format!("{} in reports", dp.delta_for_reports)),
        (
            "patients",
            format!(
                "{} rows and {} groups of each count in full; each at {} hospitals at most (assumed)",
                dp.rows_per_patient, dp.groups_per_patient, dp.sites_per_patient
            ),
        ),
        ("left out", format!("{}, {} days", word(&permit.optout.rule), permit.optout.days)),
        ("output review", word(&permit.output_review)),
    ];
    let listed = |q: &AllowedQuery| {
        let (kind, _) = q.release.in_words();
        ("query", format!("{}, at most {} runs; {}: {kind}", q.sha256, q.max_runs, q.release.as_str()))
    };
    match &permit.allowed_queries {
        None => facts.push(("queries", "any within the rest".into())),
        Some(queries) => facts.extend(queries.iter().map(listed)),
    }
    facts.extend(permit.decision.recused.iter().map(|key| ("recused", key.to_string())));
    facts.extend(permit.supersedes.map(|digest| ("supersedes", digest.to_string())));
    facts.extend(permit.application_id.clone().map(|id| ("application", id)));
    facts.extend(permit.results_due.map(|day| ("results due", day.to_string())));
    facts.extend(permit.conditions.iter().map(|condition| ("condition", condition.clone())));
    let persons = permit.authorised_persons.iter();
    let persons = persons.map(|p| [p.id.clone(), p.role.clone(), p.key_fingerprint.to_string()]);
    let data = |t: &PermittedTable| [t.table.clone(), t.columns.join(", "), t.holder_nodes.join(", ")];
    [
        print::pairs(&facts),
        print::table(["person", "role", "key"], persons),
        print::table(["table", "columns", "hospitals"], permit.data.iter().map(data)),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::generate(&mut rand::rng())
    }

    fn draft(folder: &Path) -> (PathBuf, Permit) {
        let toml = folder.join("permit.toml");
        std::fs::write(&toml, permit_file::TEMPLATE).unwrap();
        let permit = permit_file::read(&toml).unwrap();
        let path = folder.join("permit.dsse.json");
        file::write_new(&path, &Envelope::sign(&permit, &[]).unwrap().to_json()).unwrap();
        (path, permit)
    }

    fn signed(path: &Path, key: &SecretKey) -> Result<usize, Failure> {
        sign::<Permit>(path, file::read_envelope::<Permit>(path).unwrap(), key)
    }

    #[test]
    fn each_member_signs_once_and_the_bytes_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, permit) = draft(folder.path());
        let (ada, bob) = (key(), key());
        assert_eq!(signed(&path, &ada).unwrap(), 1);
        assert_eq!(signed(&path, &bob).unwrap(), 2);
        let again = signed(&path, &ada).unwrap_err();
        assert_eq!((again.exit(), again.code()), (Exit::Refused, "duplicate_signer"));
        let envelope = file::read_envelope::<Permit>(&path).unwrap();
        let verified = envelope.verify::<Permit>(&[ada.public(), bob.public()], 2).unwrap();
        assert_eq!(*verified.document(), permit);
        // Nothing else is left in the folder.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_signer_sees_every_name_and_price() {
        let folder = tempfile::tempdir().unwrap();
        let (_, permit) = draft(folder.path());
        let text = table(&permit);
        for part in [
            "permit-1 version 1",
            "EHDS-69",
            "jp-ndb",
            "50000 micro-rho",
            "tokyo, osaka",
            "sex, days",
            "jp-ngmia, 30 days",
            "any within the rest",
            "automatic",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
