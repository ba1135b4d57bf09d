//! `sekisho-coordinator`: making a coordinator's directory, and running it.
//!
//! Standard output has what other programs read (addresses, the directory's next steps), standard error the log.

mod init;
mod log;
mod metering;
mod pages;
mod trust;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use miette::{IntoDiagnostic, WrapErr};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat},
    daemon::{Daemon, Hooks, SystemClock},
};

/// The stack of each thread in bytes: SQL is bounded in depth before it is planned, and this is the second line.
const STACK_BYTES: usize = 16 << 20;

/// The coordinator of a Sekisho network: passes signed queries to hospitals and combines their releases.
#[derive(Parser)]
#[command(name = "sekisho-coordinator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys, a configuration and a member.json in a new directory.
    #[command(after_help = "Example:\n  sekisho-coordinator init /etc/sekisho --listen /ip4/0.0.0.0/tcp/4001 \\\n    \
                            --governance KEY --committee-quorum 2 \\\n    \
                            --committee sato:ethics:KEY --committee kato:medicine:KEY --committee ito:layperson:KEY")]
    Init(Box<init::Init>),
    /// The coordinator's log: what it took and passed on, its checkpoints and who witnessed them.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho-coordinator log check --all --config /etc/sekisho/coordinator.toml"
    )]
    Log(log::Command),
    /// What studies used of hospitals, for invoices.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho-coordinator metering export --config /etc/sekisho/coordinator.toml --period 2026-11"
    )]
    Metering(metering::Metering),
    /// Whose signatures count.
    #[command(subcommand, after_help = "Example:\n  sekisho-coordinator trust show --config coordinator.toml")]
    Trust(trust::Trust),
    /// The coordinator's own keys.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho-coordinator keys rotate signing --config coordinator.toml > member.json"
    )]
    Keys(trust::Keys),
    /// The pages for people: who may sign in.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho-coordinator pages token add mhlw --role regulator --config coordinator.toml"
    )]
    Pages(pages::Pages),
    /// Run the coordinator.
    ///
    /// Prints `door URL`, where they are configured `log URL` and `pages URL`, and a line `listening MULTIADDR` for each network address once it can be reached; logs to
    /// standard error; stops on SIGTERM and Ctrl-C.
    #[command(after_help = "Example:\n  sekisho-coordinator run --config /etc/sekisho/coordinator.toml")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Runs the command line `args`, the first of which is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>, hooks: Hooks) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, mistakes to standard error.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.command {
        Command::Init(init) => init.run(),
        Command::Log(command) => command.run(),
        Command::Metering(command) => command.run(),
        Command::Trust(command) => trust::trust(command),
        Command::Keys(command) => trust::keys(&command),
        Command::Pages(command) => command.run(),
        Command::Run { config } => run(&config, hooks),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &std::path::Path, hooks: Hooks) -> miette::Result<()> {
    let config = Config::load(path).into_diagnostic()?;
    // Libraries may print messages at lower levels: only their warnings are written.
    let filter = EnvFilter::new(format!(
        "warn,sekisho_coordinator={level},sekisho_protocol={level}",
        level = config.log_level.as_str()
    ));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second subscriber in one process, as in tests, is no failure.
    match config.log_format {
        LogFormat::Text => drop(log.try_init()),
        LogFormat::Json => drop(log.json().try_init()),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
        .into_diagnostic()?;
    runtime.block_on(async {
        // Listened to from the start on, so that a stop that comes early is not lost.
        let stop = stop_signal().into_diagnostic().wrap_err("signals")?;
        let daemon = Daemon::start(config, Arc::new(SystemClock), hooks).await.into_diagnostic()?;
        let mut out = std::io::stdout().lock();
        let mut lines = format!("door {}\n", daemon.door_url());
        if let Some(url) = daemon.log_url() {
            lines.push_str(&format!("log {url}\n"));
        }
        if let Some(url) = daemon.pages_url() {
            lines.push_str(&format!("pages {url}\n"));
        }
        for addr in daemon.listen_addrs() {
            lines.push_str(&format!("listening {addr}\n"));
        }
        // Nobody may be reading: that is no reason to stop.
        drop(out.write_all(lines.as_bytes()).and_then(|()| out.flush()));
        drop(out);
        daemon.run_until(stop).await.into_diagnostic()
    })
}

/// Done when the process is asked to stop.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_has_an_example() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut() {
            assert!(command.render_long_help().to_string().contains("Example:"), "{}", command.get_name());
        }
    }
}
