//! The command `sekisho-sim`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use chrono::{DateTime, NaiveDate, Utc};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use miette::{IntoDiagnostic, Result};

use crate::{
    bench::{self, Shape},
    demo::{self, Demo},
    generate::{self, generate},
    governance::{self, Governance},
    launch::{Launcher, Party},
    utility,
};

/// Synthetic hospitals, a demo of a whole network, and benchmarks.
#[derive(Parser)]
#[command(name = "sekisho-sim", version, after_help = "Example: sekisho-sim demo --keep")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Synthetic hospitals and an approved study in real processes: three questions, or the whole of its governance.
    #[command(
        after_help = "Examples:\n  sekisho-sim demo --keep --dir /tmp/demo\n  sekisho-sim demo --story governance"
    )]
    Demo {
        /// `questions`: five hospitals answer, each answer beside its truth. `governance`: three hospitals, from the
        /// catalogue to the public register; every command is printed with what it says.
        #[arg(long, value_enum, default_value_t = StoryKind::Questions)]
        story: StoryKind,
        /// Leave the network running, and say how to talk to it (questions only).
        #[arg(long)]
        keep: bool,
        /// Where everything goes, and stays; a new temporary folder if it is left out.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// QUIC instead of TCP.
        #[arg(long)]
        quic: bool,
        /// The seed of the hospitals.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Patients over all hospitals.
        #[arg(long, default_value_t = 15_000)]
        patients: u64,
    },
    /// Makes the files of a synthetic network, with its truth.
    #[command(
        after_help = "Example: sekisho-sim generate --hospitals 5 --patients 1000000 --rows 10000000 --out /tmp/japan"
    )]
    Generate {
        /// How many hospitals.
        #[arg(long, default_value_t = 5)]
        hospitals: usize,
        /// Patients over all hospitals.
        #[arg(long, default_value_t = 15_000)]
        patients: u64,
        /// Rows over all event tables and hospitals.
        #[arg(long, default_value_t = 100_000)]
        rows: u64,
        /// The seed: the same one makes the same files.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The day of the register; today if it is left out.
        #[arg(long)]
        as_of: Option<NaiveDate>,
        /// A folder that is empty or does not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Measures what the documentation says.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum StoryKind {
    Questions,
    Governance,
}

#[derive(Subcommand)]
enum Bench {
    /// A bounded, noised query at one node against the same query in plain DataFusion.
    #[command(
        after_help = "Example: cargo run --release --bin sekisho-sim -- bench query --shape join --rows 10000000 --output json"
    )]
    Query {
        /// The query and its tables.
        #[arg(long, value_enum, default_value_t = Shape::GroupBy)]
        shape: Shape,
        /// Rows of the largest table.
        #[arg(long, default_value_t = 10_000_000)]
        rows: u64,
        /// How often each side runs; the fastest counts.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
        repeat: u32,
        /// An empty folder in which sources and snapshot stay; a temporary one if it is left out.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Samples of exact noise in a second, on one core.
    #[command(after_help = "Example: cargo run --release --bin sekisho-sim -- bench noise")]
    Noise {
        /// Draws from each distribution.
        #[arg(long, default_value_t = 2_000_000)]
        samples: u32,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// How long a node takes to decide about a query, before it charges anything.
    #[command(after_help = "Example: cargo run --release --bin sekisho-sim -- bench admission --output json")]
    Admission {
        /// Permits, each of a study of its own.
        #[arg(long, default_value_t = 1000)]
        permits: u32,
        /// Changes in the patient register.
        #[arg(long, default_value_t = 10_000)]
        changes: u32,
        /// Entries of the ledger.
        #[arg(long, default_value_t = 100_000)]
        entries: u32,
        /// How many queries are asked.
        #[arg(long, default_value_t = 1000)]
        queries: u32,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// How fast a node's log grows, durably, how long an inclusion proof takes, the whole log read again, and every
    /// signature of a coordinator's log verified.
    #[command(after_help = "Example: cargo run --release --bin sekisho-sim -- bench log --output json")]
    Log {
        /// Entries.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
        entries: u32,
        /// How many entries one durable transaction has.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        batch: u32,
        /// Queries, with five receipts each, in the log whose signatures are all verified.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
        queries: u64,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Writes the sources of a query and takes their snapshot; `query` runs this in a process of its own.
    #[command(hide = true)]
    Prepare {
        #[arg(long, value_enum)]
        shape: Shape,
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        dir: PathBuf,
    },
    /// How exact answers are: noise, bias and error, as in docs/utility.md.
    #[command(after_help = "Example: cargo run --release --bin sekisho-sim -- bench utility")]
    Utility {
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// How a benchmark is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON object of named figures.
    Json,
}

#[expect(clippy::disallowed_methods, reason = "the edge of the simulation: the demo happens now")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Runs `sekisho-sim`, or the party that a hidden first argument names.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let party = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    let rest = || args.iter().skip(1).cloned();
    if party == Party::Node.as_str() {
        return sekisho_node::cli::main(rest(), sekisho_node::hooks::Hooks::default());
    }
    if party == Party::Coordinator.as_str() {
        return sekisho_coordinator::cli::main(rest(), sekisho_coordinator::daemon::Hooks::default());
    }
    if party == Party::Person.as_str() {
        return sekisho_coordinator::person::main(rest());
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap chooses the stream. Nothing can be done if it is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match command(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("error: {report:?}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().into_diagnostic()?;
    match command {
        Command::Demo { story, keep, dir, quic, seed, patients } => {
            let launcher = Launcher::new(std::env::current_exe().into_diagnostic()?);
            match story {
                StoryKind::Questions => {
                    runtime.block_on(demo::run(&Demo { dir, keep, quic, seed, patients }, launcher, now()))
                }
                StoryKind::Governance => {
                    runtime.block_on(governance::run(&Governance { dir, seed, patients }, launcher, now()))
                }
            }
        }
        Command::Generate { hospitals, patients, rows, seed, as_of, out } => {
            let as_of = as_of.unwrap_or_else(|| now().date_naive());
            let bar = ProgressBar::new(rows + patients);
            let style = "{bar:40} {human_pos}/{human_len} rows, {eta} left";
            bar.set_style(ProgressStyle::with_template(style).into_diagnostic()?);
            let plan = generate::Plan { hospitals, patients, rows, seed, as_of };
            let truth = generate(&plan, &out, &|done, _| bar.set_position(done)).into_diagnostic()?;
            bar.finish_and_clear();
            println!("{}: {} patients, {} eligible", out.display(), truth.patients, truth.eligible_patients);
            Ok(())
        }
        Command::Bench(Bench::Query { shape, rows, repeat, dir, output }) => {
            runtime.block_on(bench::query(&bench::Query { shape, rows, repeat, dir }, output, now()))
        }
        Command::Bench(Bench::Noise { samples, output }) => bench::noise(samples, output),
        Command::Bench(Bench::Admission { permits, changes, entries, queries, output }) => {
            let asked = bench::Admission { permits, changes, entries, queries };
            runtime.block_on(bench::admission(asked, output, now()))
        }
        Command::Bench(Bench::Log { entries, batch, queries, output }) => {
            runtime.block_on(bench::log(entries, batch, queries, output))
        }
        Command::Bench(Bench::Prepare { shape, rows, dir }) => {
            runtime.block_on(bench::prepare(shape, rows, &dir, now()))
        }
        Command::Bench(Bench::Utility { output }) => runtime.block_on(utility::run(output)),
    }
}
