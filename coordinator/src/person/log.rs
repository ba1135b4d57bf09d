//! `sekisho log`: the coordinator's log, as far as the owner of a key may open it.
//!
//! A regulator opens every statement, a person of a permit the own queries and their receipts. Deliberately absent: any belief in
//! what the coordinator says; `--proof` writes what anybody can check it with.

use std::path::PathBuf;

use clap::Subcommand;
use sekisho_protocol::{access::Item, key_file, log::store::Shown};

use super::{
    Context,
    failure::{Exit, Failure},
    file, print,
};
use crate::{listing::Listing, report::LogReport};

/// How many entries are looked at by one request.
const PAGE: u32 = 1000;

/// What is asked of the log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the entries whose statements you may open.
    #[command(after_help = "Example:\n  sekisho log show --key regulator.pem --from 100 --output csv")]
    Show {
        /// The key of a regulator, or of a person of a permit.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The first entry; the log counts from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Write the statement of an entry, and the proof that it is in the log (c2sp.org/tlog-proof, docs/provenance.md).
    #[command(
        after_help = "Example:\n  sekisho log statement 139 --key ada.pem --out receipt.json --proof receipt.tlog-proof"
    )]
    Statement {
        /// The entry's number.
        entry: u64,
        /// The key of a regulator, or of a person of a permit.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The file of the statement.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The file of the proof.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When the key may not, or the coordinator cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Show { key, from, limit, output } => {
            let key = key_file::read(key)?;
            let (mut door, mut from, mut listed) = (context.door().await?, Some(*from), Vec::new());
            while let Some(at) = from.filter(|_| listed.len() < *limit) {
                let report = door.read(Item::LogEntries { from: at, limit: PAGE }, &key, context.now).await?;
                let LogReport::Entries { entries, next, .. } = report else { return Err(other()) };
                listed.extend(entries);
                from = next.filter(|next| *next > at);
            }
            listed.truncate(*limit);
            let header = ["entry", "kind", "SHA-256 of the statement"];
            print::list(*output, &listed, header, listed.iter().map(Shown::cells))?;
            Ok(Exit::Done)
        }
        Command::Statement { entry, key, out, proof } => {
            let key = key_file::read(key)?;
            let item = Item::LogStatement { index: *entry };
            let report = context.door().await?.read(item, &key, context.now).await?;
            let LogReport::Statement { kind, statement, proof: proved } = report else { return Err(other()) };
            file::replace(out, statement.as_bytes())?;
            if let Some(path) = proof {
                let late = || Failure::input("no checkpoint with this entry was cosigned yet", "ask again in a minute");
                file::replace(path, proved.ok_or_else(late)?.as_bytes())?;
            }
            print::note(&format!("entry {entry} is a {kind}"));
            Ok(Exit::Done)
        }
    }
}

fn other() -> Failure {
    Failure::answer("read", "it is about something else")
}
