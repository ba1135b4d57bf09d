//! What an operator does with the hospital's catalogue.

use std::{path::PathBuf, sync::Arc};

use clap::Subcommand;
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::catalogue::{Catalogue, Estimate, TableEntry};
use sekisho_protocol::dsse::Envelope;
use serde_json::json;

use super::{Output, configured, progress::Screen, schema_keys, table};
use crate::{
    answer::Answering,
    catalogue::{self, Declaration, DrawState, Shelf, TableDraft},
    daemon::{self, SystemClock},
    data::{mapping::Mapping, snapshot::Progress},
    holding::DataSet,
    hooks::Hooks,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints a commented declaration to start from; it belongs beside the mapping, as NAME.catalogue.toml.
    #[command(after_help = "Example: sekisho-node catalogue template --config node.toml > west.catalogue.toml")]
    Template {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The data set's id; needed where there are several.
        #[arg(long)]
        dataset: Option<String>,
    },
    /// Checks the declarations, and shows what `publish` would draw and charge. Nothing is charged.
    #[command(after_help = "Example: sekisho-node catalogue draft --config node.toml")]
    Draft(Args),
    /// Shows the newest published catalogue.
    #[command(after_help = "Example: sekisho-node catalogue show --config node.toml --output json")]
    Show(Args),
    /// Draws the counts that are due, and signs and stores the catalogue; a running node hands it in.
    ///
    /// Before the counts are due again the stored ones are used and nothing is charged. Stopped and run again, it charges
    /// nothing twice.
    #[command(after_help = "Example: sekisho-node catalogue publish --config node.toml")]
    Publish(Args),
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

/// Runs a command on the catalogue.
pub(super) async fn run(command: Command, clock: SystemClock, hooks: Hooks) -> Result<()> {
    match command {
        Command::Template { config, dataset } => template(&configured(&config)?, dataset.as_deref()).await,
        Command::Show(Args { config, output }) => show(&configured(&config)?, output).await,
        Command::Draft(Args { config, output }) => {
            let (node, shelf, sets) = opened(&configured(&config)?, clock, hooks).await?;
            let draft = catalogue::draft(&node, &shelf, &sets).await.into_diagnostic()?;
            let due = |t: &&TableDraft| matches!(t.state, DrawState::Due);
            let cost: u64 = draft.tables.iter().filter(due).map(|t| t.micro_rho.get()).sum();
            match output {
                Output::Json => println!("{}", pretty(&draft.catalogue)?),
                Output::Table => {
                    println!("{}", table(["data set", "table", "counts", "cost"], draft.tables.iter().map(row)))
                }
            }
            eprintln!("`publish` would charge {cost} micro-rho / publish の費用は {cost} マイクロρ です");
            Ok(())
        }
        Command::Publish(Args { config, output }) => {
            let (node, shelf, sets) = opened(&configured(&config)?, clock, hooks).await?;
            let published = catalogue::publish(&node, &shelf, &sets).await.into_diagnostic()?;
            print(&published.catalogue, output)?;
            let what = if published.fresh { "published" } else { "nothing has changed; it stays" };
            let (seq, charged) = (published.catalogue.seq, published.charged);
            eprintln!("catalogue {seq} {}: {what}; {charged} charged", published.digest.short());
            Ok(())
        }
    }
}

async fn template(config: &NodeConfig, dataset: Option<&str>) -> Result<()> {
    let (mut mappings, governance) = (Vec::new(), schema_keys(config).await?);
    for path in &config.datasets {
        mappings.push((path, Mapping::load(path, &governance).into_diagnostic()?));
    }
    mappings.retain(|(_, mapping)| dataset.is_none_or(|id| mapping.id() == id));
    let [(path, mapping)] = mappings.as_slice() else {
        return Err(miette!("{} data sets fit; name one of the configuration's with --dataset", mappings.len()));
    };
    print!("{}", catalogue::template(mapping));
    eprintln!("save it as {} / この名前で保存してください", Declaration::path_of(path).display());
    Ok(())
}

type Opened = (Arc<Answering>, Shelf, Vec<(Arc<DataSet>, Declaration)>);

async fn opened(config: &NodeConfig, clock: SystemClock, hooks: Hooks) -> Result<Opened> {
    // Before anything else: a wrong declaration shall not wait for data to be verified.
    let (mut declarations, governance) = (Vec::new(), schema_keys(config).await?);
    for path in &config.datasets {
        let mapping = Mapping::load(path, &governance).into_diagnostic()?;
        declarations.push(Declaration::load(path, &mapping).into_diagnostic()?);
    }
    let screen = Screen::new();
    let report = |progress: Progress<'_>| screen.show(&progress);
    let node = daemon::answering(config, &report, Arc::new(clock), hooks).await.into_diagnostic()?;
    let sets = node.data.iter().cloned().zip(declarations).collect();
    let shelf = node.shelf.clone();
    Ok((Arc::new(node), shelf, sets))
}

async fn show(config: &NodeConfig, output: Output) -> Result<()> {
    let shelf = Shelf::new(daemon::store(config).await.into_diagnostic()?);
    let newest = shelf.newest_seq().await.into_diagnostic()?;
    let Some(signed) = shelf.signed(newest).await.into_diagnostic()? else {
        return Err(miette!("nothing was published yet; run `sekisho-node catalogue publish`"));
    };
    let read = Envelope::from_json::<Catalogue>(&signed.envelope).and_then(|envelope| envelope.peek::<Catalogue>());
    let (catalogue, digest) = read.into_diagnostic().wrap_err("the stored catalogue")?;
    print(&catalogue, output)?;
    eprintln!("catalogue {} {digest}, signed {}", catalogue.seq, catalogue.issued);
    Ok(())
}

fn pretty(catalogue: &Catalogue) -> Result<String> {
    serde_json::to_string_pretty(&json!(catalogue)).into_diagnostic()
}

fn print(catalogue: &Catalogue, output: Output) -> Result<()> {
    match output {
        Output::Json => println!("{}", pretty(catalogue)?),
        Output::Table => {
            let sets = catalogue.data_sets.iter();
            let rows = sets.flat_map(|set| set.tables.iter().map(|table| described(&set.id, table)));
            println!(
                "{}",
                table(["data set", "table", "columns", "records", "patients", "drawn on", "micro-rho"], rows)
            );
        }
    }
    Ok(())
}

fn row(draft: &TableDraft) -> Vec<String> {
    let (state, cost) = match draft.state {
        DrawState::Stored(day) => (format!("drawn on {day}, used again"), String::from("0")),
        DrawState::Begun => ("begun, and gone on with".into(), format!("{}, unless charged", draft.micro_rho)),
        DrawState::Due => ("due".into(), draft.micro_rho.to_string()),
        DrawState::Other => ("of another schema; none until they are due".into(), "0".into()),
    };
    vec![draft.data_set.clone(), draft.table.clone(), state, cost]
}

fn described(data_set: &str, table: &TableEntry) -> Vec<String> {
    let shown = |e: Estimate| format!("{} ± {}", e.estimate, e.standard_deviation);
    let mut row = vec![data_set.into(), table.name.clone(), table.columns.len().to_string()];
    row.extend(match &table.counts {
        Some(c) => [shown(c.records), shown(c.individuals), c.drawn_on.to_string(), c.micro_rho.get().to_string()],
        None => [String::new(), String::new(), String::new(), String::new()],
    });
    row
}
