//! What an operator does with snapshots. Rows are counted here: it stays on the hospital's own console.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Subcommand;
use miette::{IntoDiagnostic, Result, miette};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::clock::Clock;
use serde_json::{Value, json};

use super::{Output, configured, progress::Screen, schema_keys, table};
use crate::{
    daemon::{self, SystemClock},
    data::{
        mapping::Mapping,
        retention::{self, Catalogue, OnDisk, Pruning},
        snapshot::{self, Progress, Settings, TableReport},
    },
    hooks::Hooks,
    ledger::{Caps, Ledger, SnapshotUse},
};

#[derive(Subcommand)]
pub(super) enum Data {
    /// Takes a new snapshot of every data set, after its sources changed.
    ///
    /// Stopped and started again, it takes over the tables that were finished, if their sources are unchanged. A node
    /// that runs takes the new snapshot up with its next query.
    #[command(after_help = "Example: sekisho-node data snapshot --config /srv/sekisho/node.toml --output json")]
    Snapshot(Args),
    /// Shows the snapshots on disk and what needs them.
    #[command(after_help = "Example: sekisho-node data list --config /srv/sekisho/node.toml")]
    List(Args),
    /// Removes the snapshots that nothing needs.
    ///
    /// The current one, those that a release or a charged run is bound to, and the newest (`snapshots.keep`) stay. What an
    /// interrupted snapshot left is removed too.
    #[command(after_help = "Example: sekisho-node data prune --config /srv/sekisho/node.toml --dry-run")]
    Prune {
        /// Shows what would be removed, and removes nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        args: Args,
    },
}

#[derive(clap::Args)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Runs a command on snapshots.
pub(super) async fn data(command: Data, clock: &SystemClock, hooks: &Hooks) -> Result<()> {
    match command {
        Data::Snapshot(Args { config, output }) => take(&configured(&config)?, output, clock, hooks).await,
        Data::List(Args { config, output }) => list(&configured(&config)?, output).await,
        Data::Prune { dry_run, args: Args { config, output } } => prune(&configured(&config)?, output, dry_run).await,
    }
}

fn folder(config: &NodeConfig) -> PathBuf {
    config.state_dir.join("snapshots")
}

async fn take(config: &NodeConfig, output: Output, clock: &SystemClock, hooks: &Hooks) -> Result<()> {
    let settings = Settings::with_memory(config.snapshots.memory_bytes);
    let governance = schema_keys(config).await?;
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for path in &config.datasets {
        let mapping = Mapping::load(path, &governance).into_diagnostic()?;
        let (screen, reports) = (Screen::new(), std::sync::Mutex::new(Vec::new()));
        let progress = |progress: Progress<'_>| {
            screen.show(&progress);
            if let (Progress::Finished(report), Ok(mut reports)) = (&progress, reports.lock()) {
                reports.push((*report).clone());
            }
        };
        let taken = snapshot::take(&mapping, &folder(config), &settings, &progress, hooks, clock.now()).await;
        let (taken, reports) = (taken.into_diagnostic()?, reports.into_inner().into_diagnostic()?);
        for report in &reports {
            let cells = [report.table.clone(), report.rows.to_string(), report.without_patient.to_string()];
            rows.push([&[mapping.id().to_owned(), taken.id().to_owned()], &cells[..], &[lost(report)]].concat());
        }
        documents.push(json!({
            "data_set": mapping.id(), "snapshot": taken.id(), "taken_at": taken.taken_at(),
            "tables": reports.iter().map(taken_table).collect::<Vec<_>>(),
        }));
    }
    match output {
        Output::Json => println!("{}", Value::from(documents)),
        Output::Table => {
            println!("{}", table(["data set", "snapshot", "table", "rows", "without patient", "became NULL"], rows));
        }
    }
    eprintln!("done; a running node takes the new snapshot up with its next query");
    Ok(())
}

fn taken_table(report: &TableReport) -> Value {
    json!({
        "table": report.table, "rows": report.rows, "without_patient": report.without_patient,
        "became_null": report.became_null, "taken_over": report.taken_over,
    })
}

fn lost(report: &TableReport) -> String {
    let lost: Vec<_> = report.became_null.iter().map(|(column, values)| format!("{column} {values}")).collect();
    lost.join(", ")
}

/// What each snapshot is used by. Without a ledger it cannot be known, which is not the same as by nothing.
async fn uses(config: &NodeConfig) -> Result<Option<BTreeMap<String, SnapshotUse>>> {
    if !daemon::database(config).exists() {
        return Ok(None);
    }
    let store = daemon::store(config).await.into_diagnostic()?;
    let uses = Ledger::new(store.clone(), Caps::from(&config.budget)).snapshots().await.into_diagnostic()?;
    store.close().await;
    Ok(Some(uses.into_iter().map(|usage| (usage.snapshot.clone(), usage)).collect()))
}

async fn list(config: &NodeConfig, output: Output) -> Result<()> {
    let catalogue = retention::catalogue(&folder(config)).into_diagnostic()?;
    let uses = uses(config).await?.unwrap_or_default();
    print(output, catalogue.snapshots.iter(), &uses);
    for folder in &catalogue.unreadable {
        eprintln!("{}: no snapshot that can be read; it is never removed", folder.display());
    }
    for folder in &catalogue.unfinished {
        eprintln!("{}: begun and not finished, or being made now", folder.display());
    }
    Ok(())
}

async fn prune(config: &NodeConfig, output: Output, dry_run: bool) -> Result<()> {
    let snapshots = folder(config);
    let pruning = if dry_run { None } else { Some(Pruning::begin(&snapshots).into_diagnostic()?) };
    let Some(uses) = uses(config).await? else {
        return Err(miette!(
            "there is no {}, so it is unknown which snapshots are needed; nothing was removed",
            daemon::database(config).display()
        ));
    };
    let catalogue: Catalogue = retention::catalogue(&snapshots).into_diagnostic()?;
    let unneeded = retention::unneeded(&catalogue, &uses.keys().cloned().collect(), config.snapshots.keep);
    if let Some(pruning) = &pruning {
        for snapshot in &unneeded {
            pruning.remove(snapshot).into_diagnostic()?;
        }
        pruning.remove_unfinished().into_diagnostic()?;
    }
    print(output, unneeded.iter().copied(), &uses);
    for folder in &catalogue.unfinished {
        eprintln!("{}: begun and not finished", folder.display());
    }
    eprintln!("{}", if dry_run { "nothing was removed; these would be" } else { "these were removed" });
    Ok(())
}

fn print<'a>(output: Output, snapshots: impl Iterator<Item = &'a OnDisk>, uses: &BTreeMap<String, SnapshotUse>) {
    let used = |s: &OnDisk| uses.get(&s.id).map_or((0, 0), |usage| (usage.runs, usage.releases));
    match output {
        Output::Json => {
            let document = |s: &OnDisk| {
                let (runs, releases) = used(s);
                json!({
                    "data_set": s.data_set, "snapshot": s.id, "taken_at": s.taken_at, "current": s.current,
                    "bytes": s.bytes, "tables": s.tables, "runs": runs, "releases": releases,
                })
            };
            println!("{}", snapshots.map(document).collect::<Value>());
        }
        Output::Table => {
            let rows = snapshots.map(|s| {
                let (runs, releases) = used(s);
                let rows = |rows: &Option<u64>| rows.map_or("unreadable".into(), |rows| rows.to_string());
                let tables: Vec<_> = s.tables.iter().map(|(name, n)| format!("{name} {}", rows(n))).collect();
                let current = if s.current { "yes" } else { "" };
                let mb = format!("{:.1}", s.bytes as f64 / 1e6);
                let taken = s.taken_at.format("%Y-%m-%d %H:%M").to_string();
                let cells =
                    [&s.data_set, &s.id, &taken, current, &mb, &tables.join(", ")].map(|cell: &str| cell.to_owned());
                [&cells[..], &[runs.to_string(), releases.to_string()]].concat()
            });
            let header = ["data set", "snapshot", "taken at (UTC)", "current", "MB", "rows", "runs", "releases"];
            println!("{}", table(header, rows));
        }
    }
}
