//! What an operator does with the patient register. What is shown stays on the hospital's own console.

use std::path::Path;

use chrono::NaiveDate;
use miette::{IntoDiagnostic, Result};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::clock::Clock;

use super::{At, Patients, configured};
use crate::{
    daemon::{self, SystemClock},
    register::{EventKind, Register},
};

/// Runs a command on the register.
pub(super) async fn patients(command: Patients, clock: &SystemClock) -> Result<()> {
    let register = async |config: &Path| -> Result<(NodeConfig, Register)> {
        let config = configured(config)?;
        let store = daemon::store(&config).await.into_diagnostic()?;
        Ok((config, Register::new(store)))
    };
    let record = async |patient: &str, kind, on: Option<NaiveDate>, at: &At| -> Result<()> {
        let (_, register) = register(&at.config).await?;
        let on = on.unwrap_or_else(|| clock.today());
        register.record(patient, kind, on, &at.by, clock.now()).await.into_diagnostic()?;
        println!("recorded; it acts on the next new run / 記録しました。次の新しい照会から反映されます");
        Ok(())
    };
    match command {
        Patients::Import { file, at } => {
            let (_, register) = register(&at.config).await?;
            let progress = |lines: u64| eprintln!("{lines} lines read");
            let imported = register.import_csv(&file, &at.by, clock.now(), &progress).await.into_diagnostic()?;
            println!("{} lines read, {} events recorded", imported.lines, imported.events);
            Ok(())
        }
        Patients::OptOut { patient, on, at } => record(&patient, EventKind::OptedOut, on, &at).await,
        Patients::Withdraw { patient, on, at } => record(&patient, EventKind::OptOutWithdrawn, on, &at).await,
        Patients::Status { patient: Some(patient), config } => {
            let (config, register) = register(&config).await?;
            let Some(status) = register.status(&patient).await.into_diagnostic()? else {
                println!("not in the register / 登録がありません");
                return Ok(());
            };
            for event in &status.events {
                println!("{}\t{}\tby {} at {}", event.on, event.kind.as_str(), event.by, event.recorded_at);
            }
            let eligible = status.eligible(&[config.register], clock.today()).into_diagnostic()?;
            println!(
                "{}",
                if eligible {
                    "counts today / 本日、集計の対象です"
                } else {
                    "does not count today / 本日、集計の対象外です"
                }
            );
            Ok(())
        }
        Patients::Status { patient: None, config } => {
            let (_, register) = register(&config).await?;
            let counts = register.counts(clock.today()).await.into_diagnostic()?;
            println!(
                "{} patients, {} notified, {} opted out, {} died, {} events",
                counts.patients, counts.notified, counts.opted_out, counts.died, counts.events
            );
            Ok(())
        }
    }
}
