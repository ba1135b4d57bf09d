//! `metering export`: the month's use by study and holder, read beside the running coordinator.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr};

use crate::{
    config::Config,
    listing::{self, Listing},
    metering::{self, Export, Line, Period, tariff::Tariff},
    person::print,
    store::Store,
};

#[derive(Subcommand)]
pub(super) enum Metering {
    /// Print one line for each study and holder: runs, cells released, rho spent; with a tariff the amount.
    ///
    /// A receipt counts in the month (UTC) in which its hospital reserved the charge, and once, however often its release was
    /// served again. Run it after the month has ended.
    #[command(
        after_help = "Example:\n  sekisho-coordinator metering export --config /etc/sekisho/coordinator.toml \\\n    \
                      --period 2026-11 --tariff tariff.toml --output csv > 2026-11.csv"
    )]
    Export {
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The month.
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
        /// Prices, in TOML (see docs/use-register.md).
        #[arg(long, value_name = "FILE")]
        tariff: Option<PathBuf>,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
}

impl Metering {
    pub(super) fn run(self) -> miette::Result<()> {
        let Self::Export { config, period, tariff, output } = self;
        let config = Config::load(&config).into_diagnostic()?;
        let tariff = tariff.as_deref().map(read_tariff).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
        let export = runtime.block_on(async {
            let path = config.state_dir.join("coordinator.db");
            let store = Store::open_to_read(&path).await.into_diagnostic().wrap_err(path.display().to_string())?;
            let export = metering::export(&store, period, tariff.as_ref()).await.into_diagnostic();
            store.close().await;
            export
        })?;
        let text = match output {
            Listing::Table => table(&export),
            Listing::Json => serde_json::to_string_pretty(&export).into_diagnostic()?,
            Listing::Csv => csv(&export),
        };
        print::out(&text).map_err(|failure| miette::miette!("{failure}"))
    }
}

fn read_tariff(path: &Path) -> miette::Result<Tariff> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).into_diagnostic().wrap_err_with(named)?;
    Tariff::from_toml(&text).into_diagnostic().wrap_err_with(named)
}

/// The amount as people write it, and its currency; empty without a tariff.
fn amount(export: &Export, minor: Option<u64>) -> (String, String) {
    match (&export.currency, minor) {
        (Some(currency), Some(minor)) => (currency.written(minor), currency.code.clone()),
        (None, _) | (_, None) => (String::new(), String::new()),
    }
}

fn table(export: &Export) -> String {
    let row = |line: &Line| {
        let Line { study, holder, size_class, runs, cells, micro_rho, amount_minor } = line;
        let (amount, currency) = amount(export, *amount_minor);
        let [runs, cells, micro_rho] = [runs, cells, micro_rho].map(u64::to_string);
        let amount = format!("{amount} {currency}").trim().to_string();
        [study.clone(), holder.clone(), size_class.as_str().into(), runs, cells, micro_rho, amount]
    };
    let header = ["study", "hospital", "size", "runs", "cells", "micro-rho", "amount"];
    let table = print::table(header, export.lines.iter().map(row));
    let (total, currency) = amount(export, export.total_minor);
    let total = if total.is_empty() { String::new() } else { format!("\ntotal  {total} {currency}") };
    format!("{} (UTC)\n{table}{total}", export.period)
}

fn csv(export: &Export) -> String {
    let row = |line: &Line| {
        let Line { study, holder, size_class, runs, cells, micro_rho, amount_minor } = line;
        let (amount, currency) = amount(export, *amount_minor);
        let [runs, cells, micro_rho] = [runs, cells, micro_rho].map(u64::to_string);
        let period = export.period.to_string();
        [period, study.clone(), holder.clone(), size_class.as_str().into(), runs, cells, micro_rho, amount, currency]
    };
    let header = ["period", "study", "holder", "size_class", "runs", "cells", "micro_rho", "amount", "currency"];
    listing::csv(header, export.lines.iter().map(row))
}
