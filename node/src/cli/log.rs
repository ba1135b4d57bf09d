//! `log`: what is in the hospital's log, and whether it is whole. It may be asked beside the running node.

use std::path::PathBuf;

use clap::Subcommand;
use miette::{IntoDiagnostic, Result, WrapErr};
use sekisho_protocol::{digest::Digest, log::store::Leaf};
use serde_json::json;

use super::{Output, opened, table};
use crate::{ledger::Ledger, log::MAX_PAGE};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints entries: place, kind, and SHA-256 of the statement; never the statement.
    #[command(after_help = "Example: sekisho-node log show --config /srv/sekisho/node.toml --from 100 --output json")]
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The first entry; the log counts from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most, up to 1000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Makes every hash of the log again from its first entry, and compares. Exit code 1 when anything was changed.
    #[command(after_help = "Example: sekisho-node log check --config /srv/sekisho/node.toml")]
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Runs `log`.
pub(super) async fn log(command: Command) -> Result<()> {
    match command {
        Command::Show { config, from, limit, output } => {
            let (_, ledger, _) = opened(&config).await?;
            show(&ledger, from, limit, output).await
        }
        Command::Check { config, output } => {
            let (_, ledger, _) = opened(&config).await?;
            check(&ledger, output).await
        }
    }
}

/// The digest of an entry's statement, unless it was erased.
fn statement(leaf: &Leaf) -> Option<Digest> {
    leaf.opened.as_ref().map(|opened| Digest::of(&opened.statement))
}

async fn show(ledger: &Ledger, from: u64, limit: u32, output: Output) -> Result<()> {
    let leaves = ledger.log().entries(from, limit).await.into_diagnostic()?;
    match output {
        Output::Json => {
            let entry = |leaf: &Leaf| {
                json!({
                    "index": leaf.index, "kind": leaf.kind, "commitment": leaf.commitment, "statement": statement(leaf),
                })
            };
            println!("{}", json!({ "entries": leaves.iter().map(entry).collect::<Vec<_>>() }));
        }
        Output::Table => {
            let shown = |leaf: &Leaf| statement(leaf).map_or_else(|| "erased".into(), |digest| digest.to_string());
            let rows = leaves.iter().map(|leaf| vec![leaf.index.to_string(), leaf.kind.to_string(), shown(leaf)]);
            println!("{}", table(["entry", "kind", "SHA-256 of the statement"], rows));
        }
    }
    Ok(())
}

async fn check(ledger: &Ledger, output: Output) -> Result<()> {
    let seen = |entries: u64| {
        if entries.is_multiple_of(100 * u64::from(MAX_PAGE)) && entries > 0 {
            eprintln!("{entries} entries checked");
        }
    };
    let audited = ledger.log().audit(seen).await.into_diagnostic().wrap_err("the log is not whole")?;
    let (size, root, erased) = (audited.head.size(), audited.head.root(), audited.erased);
    match output {
        Output::Json => println!("{}", json!({ "entries": size, "root": root, "erased": erased })),
        Output::Table => println!("whole: {size} entries with root {root}, of which {erased} statements were erased"),
    }
    Ok(())
}
