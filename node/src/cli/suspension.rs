//! What an operator stops at once: a study, or everything.

use std::path::PathBuf;

use miette::{IntoDiagnostic, Result, miette};
use sekisho_protocol::clock::Clock;

use super::opened;
use crate::{
    documents::{Anchors, Documents},
    ledger::{COMMAND_LINE, Said, Suspended, reason},
};

#[derive(clap::Args)]
pub(super) struct Suspend {
    /// The study.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    study: Option<String>,
    /// Every study, those to come too.
    #[arg(long)]
    all: bool,
    /// Why, in one line; whoever asks is told, so write nothing about patients.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct Resume {
    /// The study.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    study: Option<String>,
    /// Lifts what `suspend --all` did; studies that were suspended by name stay so.
    #[arg(long)]
    all: bool,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

fn what(study: Option<&String>) -> Result<Suspended> {
    match study {
        None => Ok(Suspended::Everything),
        Some(study) if sekisho_protocol::roster::is_name(study) => Ok(Suspended::Study(study.clone())),
        Some(study) => Err(miette!("{study} is no study id: write 1-64 lower-case letters, digits and hyphens")),
    }
}

/// Suspends a study or everything.
pub(super) async fn suspend(args: &Suspend, clock: &impl Clock) -> Result<()> {
    let what = what(args.study.as_ref())?;
    let (config, ledger, store) = opened(&args.config).await?;
    let said = Said { by: COMMAND_LINE, reason: &args.reason, at: clock.now() };
    ledger.suspend(&what, &said).await.into_diagnostic()?;
    match &what {
        Suspended::Everything => println!("{} answers nobody / すべての研究を停止しました", config.name),
        Suspended::Study(study) => {
            println!("{} does not answer study {study} / 研究 {study} を停止しました", config.name);
            let permits = Documents::new(store, Anchors::from(&config.trust)).permits().await.into_diagnostic()?;
            if !permits.iter().any(|permit| permit.study_id == *study) {
                eprintln!(
                    "No permit of study {study} is known here: `sekisho-node permits list` shows those that are."
                );
            }
        }
    }
    eprintln!("A query that was charged already may still be answered. `sekisho-node resume` lifts it.");
    Ok(())
}

/// Lifts a suspension, and what three queries without an answer did.
pub(super) async fn resume(args: &Resume, clock: &impl Clock) -> Result<()> {
    let what = what(args.study.as_ref())?;
    let (config, ledger, _) = opened(&args.config).await?;
    let said = Said { by: COMMAND_LINE, reason: "", at: clock.now() };
    ledger.resume(&what, &said).await.into_diagnostic()?;
    let left = ledger.suspensions().await.into_diagnostic()?;
    match &what {
        Suspended::Everything => println!("{} answers again / 全体の停止を解除しました", config.name),
        Suspended::Study(study) => {
            println!("{} answers study {study} again / 研究 {study} を再開しました", config.name)
        }
    }
    for suspension in left {
        let what = match suspension.what {
            Suspended::Everything => "everything".to_string(),
            Suspended::Study(study) => format!("study {study}"),
        };
        eprintln!("Still suspended since {}: {what}: {}", suspension.at.format("%Y-%m-%d %H:%M"), suspension.reason);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        suspend: Suspend,
    }

    #[test]
    fn one_study_or_all_are_named_and_never_neither() {
        for (args, expect) in [
            (vec!["a-study"], Some(false)),
            (vec!["--all"], Some(true)),
            (vec!["a-study", "--all"], None),
            (vec![], None),
        ] {
            let args = [vec!["suspend", "--reason", "why", "--config", "node.toml"], args].concat();
            let all = Cli::try_parse_from(&args).ok().map(|cli| cli.suspend.all);
            assert_eq!(all, expect, "{args:?}");
        }
    }
}
