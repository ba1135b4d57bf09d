//! What an operator sees of the alerts in the node's log.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use miette::{IntoDiagnostic, Result, WrapErr};
use sekisho_protocol::{alert::Alert, dsse::Envelope};
use serde_json::json;

use super::{opened, table};
use crate::ledger::MAX_ALERTS;

/// Alerts: what the node found out of the ordinary.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Lists the alerts in the node's log, the newest first.
    #[command(after_help = "Example: sekisho-node alerts list --config /srv/sekisho/node.toml --output csv")]
    List {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How many, at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ALERTS)))]
        most: u32,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Csv,
}

const COLUMNS: [&str; 8] = ["at", "rule", "study", "observed", "threshold", "unit", "window_s", "suspended"];

/// Runs an `alerts` command.
pub(super) async fn alerts(command: Command) -> Result<()> {
    let Command::List { config, most, output } = command;
    let (_, ledger, _) = opened(&config).await?;
    let envelopes = ledger.alerts(most).await.into_diagnostic()?;
    let alert = |bytes: &Vec<u8>| Envelope::from_json::<Alert>(bytes).and_then(|e| e.peek::<Alert>());
    let alerts = envelopes.iter().map(|bytes| alert(bytes).map(|(alert, _)| alert)).collect::<Result<Vec<_>, _>>();
    let alerts = alerts.into_diagnostic().wrap_err("an alert in the node's database: restore it from a backup")?;
    match output {
        Output::Json => println!("{}", json!({ "alerts": alerts })),
        Output::Table => println!("{}", table(COLUMNS, alerts.iter().map(|alert| row(alert).into()))),
        Output::Csv => {
            // No field of an alert has a comma: names, numbers and hours.
            println!("{}", COLUMNS.join(","));
            alerts.iter().for_each(|alert| println!("{}", row(alert).join(",")));
        }
    }
    Ok(())
}

fn row(alert: &Alert) -> [String; 8] {
    [
        alert.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        alert.rule.to_string(),
        alert.study_id.clone().unwrap_or_default(),
        alert.observed.to_string(),
        alert.threshold.to_string(),
        if alert.rule.counts_rho() { "micro_rho" } else { "events" }.into(),
        alert.window_s.to_string(),
        alert.suspended.to_string(),
    ]
}
