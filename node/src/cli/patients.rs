//! What an operator does with the patient register. What is shown stays on the hospital's own console.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::{Subcommand, ValueEnum};
use miette::{Context, IntoDiagnostic, Result, miette};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::clock::Clock;
use serde_json::json;

use super::{Output, configured, schema_keys, table};
use crate::{
    daemon::{self, SystemClock},
    data::{known::KnownPatients, mapping::Mapping, snapshot},
    documents::{Anchors, Documents},
    ledger::{Caps, Ledger},
    register::{Encoding, Entry, Event, EventKind, Importing, PatientStatus, Register, SaidBy, Standing, rule_name},
    uses::Uses,
};

#[derive(Subcommand)]
pub(super) enum Patients {
    /// Imports notices, opt-outs, withdrawals and deaths from a CSV file: all of it, or nothing.
    ///
    /// The header says which layout it is: patient_id,notified_on,opted_out_on,died_on (a line per patient), or
    /// patient_id,event,on,said_by (a line per event), in English or Japanese.
    #[command(after_help = "Example: sekisho-node patients import register.csv --by records-office --config node.toml")]
    Import {
        /// The CSV file.
        file: PathBuf,
        /// How its characters are written; auto looks at the whole file.
        #[arg(long, value_enum, default_value_t = FileEncoding::Auto)]
        encoding: FileEncoding,
        /// Refuses the file when it names a patient that is in no current snapshot.
        #[arg(long)]
        known_only: bool,
        #[command(flatten)]
        at: At,
    },
    /// Records that a patient was told of the use of their records.
    #[command(
        after_help = "Example: sekisho-node patients notify 10042 --on 2026-04-01 --by records-office --config node.toml"
    )]
    Notify {
        #[command(flatten)]
        what: What,
    },
    /// Records that a patient says no; it acts on the next new run.
    #[command(
        after_help = "Example: sekisho-node patients opt-out 10042 --said-by self --by front-desk --config node.toml"
    )]
    OptOut {
        #[command(flatten)]
        what: What,
        /// Who says no.
        #[arg(long, value_enum)]
        said_by: Option<Who>,
    },
    /// Records that the no is taken back.
    #[command(
        after_help = "Example: sekisho-node patients withdraw 10042 --said-by self --by front-desk --config node.toml"
    )]
    Withdraw {
        #[command(flatten)]
        what: What,
        /// Who takes it back.
        #[arg(long, value_enum)]
        said_by: Option<Who>,
    },
    /// Records that a patient died.
    #[command(
        after_help = "Example: sekisho-node patients died 10042 --on 2026-03-05 --by records-office --config node.toml"
    )]
    Died {
        #[command(flatten)]
        what: What,
    },
    /// Shows whether and since when one patient counts, and why; without a patient, the register's totals.
    #[command(after_help = "Example: sekisho-node patients status 10042 --config node.toml --output json")]
    Status {
        /// The patient's id in this hospital's data.
        patient: Option<String>,
        #[command(flatten)]
        show: Show,
    },
    /// Shows which studies have used the data set while one patient counted.
    ///
    /// It says that the data set was used, not that the patient's rows were selected: nobody looks that up.
    #[command(after_help = "Example: sekisho-node patients uses 10042 --config node.toml")]
    Uses {
        /// The patient's id in this hospital's data.
        patient: String,
        #[command(flatten)]
        show: Show,
    },
}

#[derive(clap::Args)]
pub(super) struct At {
    /// Who records it.
    #[arg(long)]
    by: String,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct What {
    /// The patient's id in this hospital's data.
    patient: String,
    /// Since when, as YYYY-MM-DD; today if it is left out.
    #[arg(long)]
    on: Option<NaiveDate>,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Who {
    /// The patient.
    #[value(name = "self")]
    Patient,
    /// A guardian or another legal representative.
    Guardian,
    /// The family of a patient who died.
    Bereaved,
}

impl From<Who> for SaidBy {
    fn from(who: Who) -> Self {
        match who {
            Who::Patient => Self::Patient,
            Who::Guardian => Self::Guardian,
            Who::Bereaved => Self::Bereaved,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum FileEncoding {
    Auto,
    #[value(name = "utf-8")]
    Utf8,
    Cp932,
}

impl From<FileEncoding> for Encoding {
    fn from(encoding: FileEncoding) -> Self {
        match encoding {
            FileEncoding::Auto => Self::Auto,
            FileEncoding::Utf8 => Self::Utf8,
            FileEncoding::Cp932 => Self::Cp932,
        }
    }
}

/// Runs a command on the register.
pub(super) async fn patients(command: Patients, clock: &SystemClock) -> Result<()> {
    match command {
        Patients::Import { file, encoding, known_only, at } => {
            import(&file, encoding.into(), known_only, &at, clock).await
        }
        Patients::Notify { what } => record(&what, EventKind::Notified, None, clock).await,
        Patients::OptOut { what, said_by } => record(&what, EventKind::OptedOut, said_by, clock).await,
        Patients::Withdraw { what, said_by } => record(&what, EventKind::OptOutWithdrawn, said_by, clock).await,
        Patients::Died { what } => record(&what, EventKind::Died, None, clock).await,
        Patients::Status { patient: Some(patient), show } => status(&patient, &show, clock).await,
        Patients::Status { patient: None, show } => totals(&show, clock).await,
        Patients::Uses { patient, show } => uses(&patient, &show).await,
    }
}

async fn opened(config: &Path) -> Result<(NodeConfig, Register)> {
    let config = configured(config)?;
    let store = daemon::store(&config).await.into_diagnostic()?;
    Ok((config, Register::new(store)))
}

async fn record(what: &What, kind: EventKind, said_by: Option<Who>, clock: &SystemClock) -> Result<()> {
    let (_, register) = opened(&what.at.config).await?;
    let now = clock.now();
    let entry = Entry::new(&what.patient, kind, what.on, said_by.map(Into::into), now);
    let entry = entry.map_err(|reason| miette!("{reason}; nothing was recorded / 何も記録していません"))?;
    register.record_all(&[entry], &what.at.by, now).await.into_diagnostic()?;
    println!("recorded; it acts on the next new run / 記録しました。次の新しい照会から反映されます");
    Ok(())
}

async fn import(file: &Path, encoding: Encoding, known_only: bool, at: &At, clock: &SystemClock) -> Result<()> {
    let (config, register) = opened(&at.config).await?;
    let known = match known(&config).await {
        Ok(None) if known_only => {
            return Err(miette!(
                "--known-only needs a snapshot of the data; take one with `sekisho-node data snapshot`"
            ));
        }
        // An opt-out is recorded whatever state the data is in.
        Err(report) if !known_only => {
            eprintln!("warning: the data's patients cannot be read: {report}");
            None
        }
        known => known?,
    };
    let importing = Importing { by: &at.by, at: clock.now(), encoding, known: known.as_ref(), known_only };
    let progress = |lines: u64| eprintln!("{lines} lines read / {lines} 行を読みました");
    let imported = register.import_csv(file, &importing, &progress).await.into_diagnostic();
    let imported = imported.wrap_err_with(|| file.display().to_string())?;
    println!("{} lines read, {} events recorded", imported.lines, imported.events);
    println!("{} 行を読み、{} 件を記録しました", imported.lines, imported.events);
    match imported.unknown {
        None => eprintln!("there is no snapshot yet: it was not looked at whether the data knows these patients"),
        Some(0) => {}
        Some(unknown) => {
            eprintln!(
                "warning: {unknown} patients of the file are in no current snapshot of the data; are the ids those of the data?"
            );
            eprintln!(
                "注意: ファイルの患者のうち {unknown} 人は現在のデータにありません。患者 ID がデータと同じか確かめてください。"
            );
        }
    }
    Ok(())
}

/// The patients of the current snapshots; none when a data set has no snapshot yet, or there is no data set.
async fn known(config: &NodeConfig) -> Result<Option<KnownPatients>> {
    let governance = schema_keys(config).await?;
    let (mut known, folder) = (KnownPatients::default(), config.state_dir.join("snapshots"));
    for path in &config.datasets {
        // At the first setup the register is filled before the data is there.
        let Ok(mapping) = Mapping::load(path, &governance) else { return Ok(None) };
        let Some(snapshot) = snapshot::open(&mapping, &folder).into_diagnostic()? else { return Ok(None) };
        known.add(&snapshot).into_diagnostic()?;
    }
    Ok((!config.datasets.is_empty()).then_some(known))
}

async fn status(patient: &str, show: &Show, clock: &SystemClock) -> Result<()> {
    let (config, register) = opened(&show.config).await?;
    let (status, today) = (register.status(patient).await.into_diagnostic()?.unwrap_or_default(), clock.today());
    match show.output {
        Output::Json => println!("{}", status.to_json(config.register, today).into_diagnostic()?),
        Output::Table => {
            let standing = status.standing(&[config.register], today).into_diagnostic()?;
            println!("{}", in_words(&status, standing));
            println!("rule / 規則: {}, {} days / 日", rule_name(config.register.rule), config.register.days);
            if !status.events.is_empty() {
                println!("{}", table(EVENTS, status.events.iter().map(row)));
            }
        }
    }
    Ok(())
}

const EVENTS: [&str; 5] =
    ["on / 日付", "event / 区分", "said by / 申出者", "recorded by / 登録者", "recorded at (UTC) / 登録日時"];

fn row(event: &Event) -> Vec<String> {
    vec![
        event.on.to_string(),
        format!("{} / {}", event.kind.as_str(), event.kind.japanese()),
        event.said_by.map_or(String::new(), |who| format!("{} / {}", who.as_str(), who.japanese())),
        event.by.clone(),
        event.recorded_at.format("%Y-%m-%d %H:%M:%S").to_string(),
    ]
}

/// Whether and since when, in both languages.
fn in_words(status: &PatientStatus, standing: Standing) -> String {
    let mut said = Vec::new();
    if status.events.is_empty() {
        said.push("not in the register / 登録がありません".to_string());
    }
    said.push(match (standing.counts, standing.since) {
        (true, None) => "counts today / 本日、集計の対象です".into(),
        (true, Some(since)) => {
            format!("counts today, since {since} without a break / 本日、集計の対象です({since} から継続)")
        }
        (false, None) => "does not count today, nor on any day before, as recorded / 本日、集計の対象外です(記録上、これまでも対象外)".into(),
        (false, Some(since)) => format!("does not count today, since {since} / 本日、集計の対象外です({since} から)"),
    });
    if let Some(until) = standing.until {
        let (english, japanese) = if standing.counts {
            ("counts no longer", "対象外になります")
        } else {
            ("counts", "対象になります")
        };
        said.push(format!("{english} from {until} on / {until} から{japanese}"));
    }
    said.join("\n")
}

async fn totals(show: &Show, clock: &SystemClock) -> Result<()> {
    let (_, register) = opened(&show.config).await?;
    let counts = register.counts(clock.today()).await.into_diagnostic()?;
    match show.output {
        Output::Json => {
            let counts = json!({
                "patients": counts.patients, "notified": counts.notified, "opted_out": counts.opted_out,
                "died": counts.died, "events": counts.events,
            });
            println!("{counts}");
        }
        Output::Table => {
            println!(
                "{} patients, {} notified, {} opted out, {} died, {} events",
                counts.patients, counts.notified, counts.opted_out, counts.died, counts.events
            );
            println!("これらの件数を院外に出さないでください / these counts stay in the hospital");
        }
    }
    Ok(())
}

async fn uses(patient: &str, show: &Show) -> Result<()> {
    let config = configured(&show.config)?;
    let store = daemon::store(&config).await.into_diagnostic()?;
    let uses = Uses {
        register: Register::new(store.clone()),
        ledger: Ledger::new(store.clone(), Caps::from(&config.budget)),
        documents: Documents::new(store, Anchors::from(&config.trust)),
        own_rule: config.register,
    };
    let uses = uses.of(patient).await.into_diagnostic()?;
    match show.output {
        Output::Json => println!("{}", serde_json::to_string(&uses).into_diagnostic()?),
        Output::Table if uses.is_empty() => {
            println!("No study has used the data set while this patient counted.");
            println!("この患者が対象であった日に、データセットが集計に使われた研究はありません。");
        }
        Output::Table => {
            let row = |u: &crate::uses::StudyUse| {
                let days = [u.runs.to_string(), u.first.to_string(), u.last.to_string()];
                [&[u.study_id.clone(), u.purposes.join(", "), u.data_user.clone(), u.tables.join(", ")], &days[..]]
                    .concat()
            };
            let header = [
                "study / 研究",
                "purposes / 目的",
                "data user / 利用者",
                "tables / 表",
                "runs / 集計回数",
                "first / 最初",
                "last / 最後",
            ];
            println!("{}", table(header, uses.iter().map(row)));
            println!(
                "These studies used the data set on days on which this patient counted. It is not looked up whether a query"
            );
            println!("selected the patient's records; only noised statistics left the hospital.");
            println!("この患者が対象であった日に、データセットが集計に使われた研究です。個々の集計がこの患者の記録を");
            println!("選んだかどうかは調べていません。院外に出たのは雑音を加えた統計だけです。");
        }
    }
    Ok(())
}
