//! `log`: what is in the hospital's log, whether it is whole, proofs from it, and what to do when it was lost. It may be asked
//! beside the running node.

mod write_off;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::{
    clock::Clock,
    key_file,
    keys::SecretKey,
    log::{
        entry::Kind,
        note::{KeyName, NoteKey, Signs},
        statements::{Anchors, Statements, Verified},
        store::{Shown, Which},
    },
};
use serde_json::json;

use super::{Output, opened, table};
use crate::{
    documents::{Anchors as Trusted, Documents},
    ledger::Ledger,
    store::Store,
};

/// After so many entries a line tells how far the check is.
const STEP: u64 = 10_000;

#[derive(Args)]
pub(super) struct At {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints entries: place, kind, and SHA-256 of the statement; never the statement.
    #[command(after_help = "Example: sekisho-node log show --config /srv/sekisho/node.toml --from 100 --output json")]
    Show {
        #[command(flatten)]
        at: At,
        /// The first entry; the log counts from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most, up to 1000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Only statements of this kind.
        #[arg(long)]
        kind: Option<Kind>,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Makes every hash of the log again from its first entry, and compares. Exit code 1 when anything was changed.
    #[command(after_help = "Example: sekisho-node log check --all --config /srv/sekisho/node.toml")]
    Check {
        #[command(flatten)]
        at: At,
        /// Verifies the signatures of every statement too, and matches receipts to charges.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Writes the proof that an entry is in the log as it is now, as docs/verify.py and others read it (c2sp.org/tlog-proof). The
    /// checkpoint in it is signed by this hospital, and by no witness.
    #[command(
        after_help = "Example: sekisho-node log proof 42 --out entry-42.tlog-proof --statement statement.json --config node.toml"
    )]
    Proof {
        /// The entry's number, or the SHA-256 of its statement or the first 12 digits of it.
        entry: Which,
        /// The file of the proof; `-` is standard output.
        #[arg(long)]
        out: PathBuf,
        /// A file for the statement itself. It may be confidential.
        #[arg(long)]
        statement: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Prints the keys of this hospital's log and of it as a witness, as policies and notes name them.
    #[command(after_help = "Example: sekisho-node log keys --config /srv/sekisho/node.toml")]
    Keys {
        #[command(flatten)]
        at: At,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Goes on after an older copy of the database was put back and the newest one is lost for good: charges again what your own
    /// receipts tell, and what you state beside it.
    #[command(
        after_help = "Example: sekisho-node log write-off --receipts receipts.jsonl --all-left --register-restored \\\n  \
                      --by \"T. Sato\" --reason \"the disk failed on 3 May\" --config /srv/sekisho/node.toml"
    )]
    WriteOff(write_off::Args),
}

/// Runs `log`.
pub(super) async fn log(command: Command, clock: &impl Clock) -> Result<()> {
    match command {
        Command::Show { at, from, limit, kind, output } => {
            let (_, ledger, _) = opened(&at.config).await?;
            show(&ledger, from, limit, kind, output).await
        }
        Command::Check { at, all, output } => {
            let (config, ledger, store) = opened(&at.config).await?;
            let anchors = if all { Some(anchors(&config, store).await?) } else { None };
            check(&ledger, anchors, output).await
        }
        Command::Proof { entry, out, statement, at } => {
            let (config, ledger, store) = opened(&at.config).await?;
            let (origin, key) = named(&config, &ledger, store).await?;
            proof(&ledger, &entry, &origin, &key, &out, statement.as_deref()).await
        }
        Command::Keys { at, output } => {
            let (config, ledger, store) = opened(&at.config).await?;
            let (origin, key) = named(&config, &ledger, store.clone()).await?;
            keys(&config, store, &origin, &key, output)
        }
        Command::WriteOff(args) => write_off::write_off(&args, clock).await,
    }
}

/// The name of the log, and the key that signs it.
async fn named(config: &NodeConfig, ledger: &Ledger, store: Store) -> Result<(KeyName, SecretKey)> {
    let documents = Documents::new(store, Trusted::from(&config.trust));
    let wanted = documents.log_origin(&config.name).into_diagnostic()?;
    let origin = ledger.log().origin(&wanted).await.into_diagnostic()?;
    Ok((origin, key_file::read(&config.signing_key).into_diagnostic()?))
}

async fn show(ledger: &Ledger, from: u64, limit: u32, kind: Option<Kind>, output: Output) -> Result<()> {
    let leaves = match kind {
        None => ledger.log().entries(from, limit).await,
        Some(kind) => ledger.log().entries_of(kind, from, limit).await,
    };
    let entries: Vec<Shown> = leaves.into_diagnostic()?.iter().map(Shown::from).collect();
    match output {
        Output::Json => println!("{}", json!({ "entries": entries })),
        Output::Table => {
            let rows = entries.iter().map(|entry| entry.cells().to_vec());
            println!("{}", table(["entry", "kind", "SHA-256 of the statement"], rows));
        }
    }
    Ok(())
}

async fn anchors(config: &NodeConfig, store: Store) -> Result<Anchors> {
    let documents = Documents::new(store, Trusted::from(&config.trust));
    let pins = documents.governance_pins().await.into_diagnostic()?.into_iter().map(|pin| pin.key);
    let own = key_file::read(&config.signing_key).into_diagnostic()?.public();
    Ok(Anchors {
        governance: std::iter::once(config.trust.governance_key).chain(pins).collect(),
        committee: config.trust.committee.clone(),
        regulators: config.trust.regulators.clone(),
        own: (config.name.clone(), vec![own]),
    })
}

async fn check(ledger: &Ledger, anchors: Option<Anchors>, output: Output) -> Result<()> {
    let seen = |entries: u64| {
        if entries.is_multiple_of(STEP) && entries > 0 {
            eprintln!("{entries} entries checked");
        }
    };
    let mut statements = anchors.map(Statements::new);
    let threads = std::thread::available_parallelism().into_diagnostic()?;
    let audited = ledger.log().audit_with(statements.as_mut(), threads, seen).await;
    let audited = audited.into_diagnostic().wrap_err("the log is not whole")?;
    let found = statements.as_ref().map(Statements::found);
    let (size, root, erased) = (audited.head.size(), audited.head.root(), audited.erased);
    match output {
        Output::Json => {
            println!("{}", json!({ "entries": size, "root": root, "erased": erased, "statements": found }));
        }
        Output::Table => {
            println!("whole: {size} entries with root {root}, of which {erased} statements were erased");
            if let Some(found) = found.map(Verified::in_words) {
                println!("{found}");
            }
        }
    }
    Ok(())
}

async fn proof(
    ledger: &Ledger,
    entry: &Which,
    origin: &KeyName,
    key: &SecretKey,
    out: &Path,
    statement: Option<&Path>,
) -> Result<()> {
    let proved = ledger.log().prove(entry, origin, key).await.into_diagnostic()?;
    if out == Path::new("-") {
        print!("{}", proved.proof);
    } else {
        fs::write(out, proved.proof.to_string()).into_diagnostic().wrap_err_with(|| out.display().to_string())?;
    }
    if let Some(path) = statement {
        fs::write(path, &proved.statement).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
    }
    eprintln!("a {} of the log {origin}", proved.kind);
    Ok(())
}

fn keys(config: &NodeConfig, store: Store, origin: &KeyName, key: &SecretKey, output: Output) -> Result<()> {
    let documents = Documents::new(store, Trusted::from(&config.trust));
    let first = documents.log_origin(&config.name).map_err(|error| miette!("{error}"))?;
    let log = NoteKey::new(origin.clone(), Signs::Text, key.public()).to_string();
    // As a witness it is called as its first log is.
    let witness = NoteKey::new(first, Signs::Cosignature, key.public()).to_string();
    match output {
        Output::Json => println!("{}", json!({ "member": config.name, "log": log, "witness": witness })),
        Output::Table => println!("{}", table(["log", "witness"], [vec![log, witness]])),
    }
    Ok(())
}
