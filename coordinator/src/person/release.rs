//! `sekisho release`: results that were released, and their bundles.
//!
//! Whoever lists or exports signs with the key of a person of the permit, a member of the committee or a regulator. What is
//! exported can be checked by anybody with `sekisho verify`, without the coordinator.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sekisho_protocol::{
    access::Item,
    digest::Digest,
    key_file,
    keys::SecretKey,
    refusal::{Code, Refusal},
};

use super::{
    Context,
    failure::{Exit, Failure},
    file,
    print::{self, Spinner},
};
use crate::{
    bundle::{ReleaseReport, archive},
    listing::Listing,
};

/// Whose key signs the request.
#[derive(Debug, Args)]
pub struct Signing {
    /// The key of a person of the permit, of a member of the committee, or of a regulator.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// What to do with released results.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the results that the signer may export, the latest first.
    #[command(after_help = "Example:\n  sekisho release list --study asthma --key ada.pem")]
    List {
        /// Those of this study only.
        #[arg(long, value_name = "ID")]
        study: Option<String>,
        #[command(flatten)]
        signing: Signing,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Write a result with everything that is needed to check it offline: a zip archive, or a folder.
    #[command(after_help = "Example:\n  sekisho release export 5f0c83d2 --key ada.pem --out asthma.zip")]
    Export {
        /// The result's digest, or its first digits (8 at least).
        result: String,
        #[command(flatten)]
        signing: Signing,
        /// Where it goes, and must not exist: a file whose name ends with .zip, or else a folder.
        #[arg(long, value_name = "FILE.zip|FOLDER")]
        out: PathBuf,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When a key or path is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { study, signing, output } => {
            let mut all = all(&key_file::read(&signing.key)?, context).await?;
            all.retain(|release| study.as_ref().is_none_or(|study| release.study == *study));
            let header = ["result", "standing", "ended (UTC)", "study", "permit", "run", "answered"];
            let full = !matches!(output, Listing::Table);
            print::list(*output, &all, header, all.iter().map(|release| row(release, full)))?;
        }
        Command::Export { result, signing, out } => {
            free(out)?;
            let key = key_file::read(&signing.key)?;
            let result = named(result, &key, context).await?;
            let spinner = Spinner::start("gathering the bundle, once the hospitals have witnessed it");
            let archive = context.door().await?.bundle(result, &key, context.now).await;
            drop(spinner);
            let files = write(&archive?, out)?;
            print::out(&format!("{}: {files} files of result {result}", out.display()))?;
            print::note(&format!("check it: sekisho verify {} --trust trust.toml", out.display()));
        }
    }
    Ok(Exit::Done)
}

fn row(release: &ReleaseReport, full: bool) -> [String; 7] {
    [
        if full { release.result.to_string() } else { release.result.short() },
        release.standing.as_str().into(),
        release.at.format("%Y-%m-%d %H:%M").to_string(),
        release.study.clone(),
        release.permit_id.clone(),
        release.run.to_string(),
        format!("{} of {}", release.answered.len(), release.asked),
    ]
}

async fn all(key: &SecretKey, context: &Context) -> Result<Vec<ReleaseReport>, Failure> {
    context.door().await?.read(Item::Releases, key, context.now).await
}

/// The result with this digest, or the one that begins with these digits.
async fn named(text: &str, key: &SecretKey, context: &Context) -> Result<Digest, Failure> {
    if let Ok(result) = text.parse() {
        return Ok(result);
    }
    if text.len() < 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::input(format!("{text:?} is no digest"), "give 8 to 64 of its hexadecimal digits"));
    }
    let all = all(key, context).await?;
    let begins = |digest: &Digest| digest.to_string().starts_with(&text.to_ascii_lowercase());
    let mut found = all.iter().map(|release| release.result).filter(begins);
    match (found.next(), found.next()) {
        (Some(result), None) => Ok(result),
        (Some(_), Some(_)) => Err(Failure::input(format!("several results begin with {text}"), "give more digits")),
        (None, _) => Err(Refusal::new(Code::ResultUnknown, format!("no result begins with {text}")).into()),
    }
}

/// That nothing is at `out`: asked before the coordinator is.
fn free(out: &Path) -> Result<(), Failure> {
    if out.exists() {
        return Err(Failure::input(format!("{} exists", out.display()), "move it away or name another place"));
    }
    Ok(())
}

/// Writes a bundle that arrived; how many files it has.
fn write(archive: &[u8], out: &Path) -> Result<usize, Failure> {
    let files = archive::unzip(archive).map_err(|e| Failure::answer("bundle", e))?;
    if out.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")) {
        file::write_new(out, archive)?;
        return Ok(files.len());
    }
    for (path, bytes) in &files {
        let path = out.join(path);
        let folder = path.parent().unwrap_or(out);
        std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, &e))?;
        file::write_new(&path, bytes)?;
    }
    Ok(files.len())
}
