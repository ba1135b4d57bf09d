//! What an operator sees of the permits that arrived, and decides about them by hand. It works beside the running node, which
//! goes by a decision from the next query on; the coordinator fetches the new signed answer within seconds.

use std::path::PathBuf;

use miette::{IntoDiagnostic, Result, miette};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::{clock::Clock, key_file, keys::SecretKey, permit::Permit, receipt::Acceptance, refusal::Code};
use serde_json::{Value, json};

use super::{
    Output,
    held::{held, holder},
    opened,
    policy::configured_policy,
    table,
};
use crate::{
    documents::{Anchors, Documents, StoredPermit},
    ledger::{COMMAND_LINE, Ledger, Suspended, Suspension, reason},
    permits::ByHand,
};

/// What becomes of a decision.
const FETCHED: &str = "The coordinator fetches the signed answer within seconds while the node runs.";

#[derive(clap::Subcommand)]
pub(super) enum Permits {
    /// Lists every permit that arrived, with this hospital's answer.
    #[command(after_help = "Example: sekisho-node permits list --config node.toml --output json")]
    List {
        /// Only those that wait for a person.
        #[arg(long)]
        waiting: bool,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Shows one permit: what the committee granted, and this hospital's answer.
    #[command(after_help = "Example: sekisho-node permits show diabetes-trial --config node.toml")]
    Show {
        #[command(flatten)]
        which: Which,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Accepts a permit, and sets its rho aside; the policy must let a person do so.
    #[command(
        after_help = "Example: sekisho-node permits accept diabetes-trial --reason \"board of 3 June\" --config node.toml"
    )]
    Accept {
        #[command(flatten)]
        which: Which,
        /// Why, in one line; it is in the signed answer, so write nothing about patients.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
    /// Refuses a permit, also one that was accepted: nothing more is answered under it.
    #[command(
        after_help = "Example: sekisho-node permits refuse diabetes-trial --reason \"no staff for it\" --config node.toml"
    )]
    Refuse {
        #[command(flatten)]
        which: Which,
        /// Why, in one line; it is in the signed answer, so write nothing about patients.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

#[derive(clap::Args)]
pub(super) struct Which {
    /// The permit: its id, ID/VERSION, or the first 8 or more digits of its digest.
    permit: String,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

/// A node's permits, read beside the node.
pub(super) struct Desk {
    config: NodeConfig,
    ledger: Ledger,
    documents: Documents,
}

/// Runs a command on permits.
pub(super) async fn permits(command: Permits, clock: &impl Clock) -> Result<()> {
    match command {
        Permits::List { waiting, config, output } => Desk::open(&config).await?.list(waiting, output).await,
        Permits::Show { which, output } => {
            let desk = Desk::open(&which.config).await?;
            let stored = desk.find(&which.permit).await?;
            desk.show(&stored, output)
        }
        Permits::Accept { which, reason } => {
            Desk::open(&which.config).await?.accept(&which.permit, reason, clock).await
        }
        Permits::Refuse { which, reason } => {
            Desk::open(&which.config).await?.refuse(&which.permit, reason, clock).await
        }
    }
}

/// A permit's answer in a word.
fn answer(permit: &StoredPermit) -> &'static str {
    match permit.refused() {
        None => "accepted",
        Some(Code::PermitWaiting) => "waiting",
        Some(code) => code.as_str(),
    }
}

/// Reads a permit that was verified when it arrived; for display only.
fn read(stored: &StoredPermit) -> Result<Permit> {
    Ok(stored.envelope().into_diagnostic()?.peek::<Permit>().into_diagnostic()?.0)
}

fn suspended(suspensions: &[Suspension], study: &str) -> bool {
    suspensions.iter().any(|s| match &s.what {
        Suspended::Everything => true,
        Suspended::Study(name) => name == study,
    })
}

impl Desk {
    pub(super) async fn open(path: &std::path::Path) -> Result<Self> {
        let (config, ledger, store) = opened(path).await?;
        let documents = Documents::new(store, Anchors::from(&config.trust));
        Ok(Self { config, ledger, documents })
    }

    /// The permit that `text` names.
    async fn find(&self, text: &str) -> Result<StoredPermit> {
        let named = |permit: &StoredPermit| {
            let digest = text.len() >= 8 && permit.digest.to_string().starts_with(text);
            digest || permit.id == text || format!("{}/{}", permit.id, permit.version) == text
        };
        let mut found: Vec<_> = self.documents.permits().await.into_diagnostic()?.into_iter().filter(named).collect();
        match found.len() {
            0 => Err(miette!("no permit {text} arrived here: `sekisho-node permits list` shows those that did")),
            1 => Ok(found.remove(0)),
            _ => {
                let names = found.iter().map(|p| format!("{}/{} {}", p.id, p.version, p.digest.short()));
                Err(miette!("{text} names several permits; name one: {}", names.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The permit that `text` names, as it arrived.
    pub(super) async fn permit(&self, text: &str) -> Result<Permit> {
        read(&self.find(text).await?)
    }

    async fn list(&self, waiting: bool, output: Output) -> Result<()> {
        let suspensions = self.ledger.suspensions().await.into_diagnostic()?;
        let mut permits = self.documents.permits().await.into_diagnostic()?;
        permits.retain(|permit| !waiting || permit.refused() == Some(Code::PermitWaiting));
        let mut rows = Vec::new();
        for stored in &permits {
            let permit = read(stored)?;
            rows.push((stored, summary(stored, &permit, suspended(&suspensions, &stored.study_id)), permit));
        }
        match output {
            Output::Json => println!("{}", Value::from(rows.into_iter().map(|(_, json, _)| json).collect::<Vec<_>>())),
            Output::Table => {
                let header = ["permit", "version", "study", "data user", "to", "answer", "by", "digest"];
                let rows = rows.iter().map(|(stored, json, permit)| {
                    let study = stored.study_id.clone();
                    let rests = json["suspended"] == true;
                    vec![
                        stored.id.clone(),
                        stored.version.to_string(),
                        if rests { format!("{study} (suspended)") } else { study },
                        permit.data_user.clone(),
                        permit.validity.to.format("%Y-%m-%d").to_string(),
                        answer(stored).into(),
                        stored.decided_by.as_str().into(),
                        stored.digest.short(),
                    ]
                });
                println!("{}", table(header, rows));
            }
        }
        Ok(())
    }

    fn show(&self, stored: &StoredPermit, output: Output) -> Result<()> {
        let permit = read(stored)?;
        let answered = stored.acceptance().and_then(|a| a.peek::<Acceptance>().ok()).map(|(answer, _)| answer);
        if output == Output::Json {
            let json =
                json!({"digest": stored.digest, "answer": answer(stored), "acceptance": answered, "permit": permit});
            println!("{json}");
            return Ok(());
        }
        let here = |holders: &[String]| holders.contains(&self.config.name);
        let data = permit.data.iter().filter(|t| here(&t.holder_nodes));
        let data: Vec<_> = data.map(|t| format!("{}: {}", t.table, t.columns.join(", "))).collect();
        let list = |values: Value| {
            let names = values.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_string));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut rows = vec![
            ("permit", format!("{} version {}, {}", permit.id, permit.version, stored.digest)),
            ("study", permit.study_id.clone()),
            ("data user", format!("{}, {}", permit.data_user, permit.principal_investigator)),
            (
                "people",
                permit
                    .authorised_persons
                    .iter()
                    .map(|p| format!("{} ({})", p.id, p.role))
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            ("issuer", format!("{}, {}: {}", permit.issuer, permit.decision.date, permit.decision.reasons)),
            ("basis", json!(permit.basis).as_str().unwrap_or_default().to_string()),
            ("purposes", list(json!(permit.purposes))),
            ("data here", data.join("\n")),
            ("statistics", list(json!(permit.allowed_statistics))),
            ("rho", format!("{} a query, {} in all", permit.dp.micro_rho_per_query, permit.dp.micro_rho_total)),
            ("valid", format!("{} to {}", permit.validity.from.to_rfc3339(), permit.validity.to.to_rfc3339())),
        ];
        if !permit.conditions.is_empty() {
            rows.push(("conditions", permit.conditions.join("\n")));
        }
        rows.push((
            "answer",
            format!("{}, by {}, {}", answer(stored), stored.decided_by.as_str(), stored.at.to_rfc3339()),
        ));
        rows.extend(stored.reason.clone().map(|reason| ("reason", reason)));
        rows.extend(answered.map(|a| ("set aside", a.earmark.to_string())));
        println!("{}", table(["field", "value"], rows.into_iter().map(|(field, value)| vec![field.into(), value])));
        Ok(())
    }

    async fn accept(&self, text: &str, reason: Option<String>, clock: &impl Clock) -> Result<()> {
        let stored = self.find(text).await?;
        let sets = held(&self.config).await?;
        let policy = configured_policy(&self.config, &sets)?;
        let (key, holder) = (self.key()?, holder(&self.config, &policy, &sets));
        self.by_hand(&key).accept(&stored, &holder, reason, clock.now()).await.into_diagnostic()?;
        eprintln!("{FETCHED}");
        println!("accepted {}: queries under it are answered / 許可証を受け入れました", stored.id);
        Ok(())
    }

    async fn refuse(&self, text: &str, reason: String, clock: &impl Clock) -> Result<()> {
        let stored = self.find(text).await?;
        self.by_hand(&self.key()?).refuse(&stored, reason, clock.now()).await.into_diagnostic()?;
        eprintln!("{FETCHED}");
        println!("refused {}: nothing more is answered under it / 許可証を断りました", stored.id);
        Ok(())
    }

    fn key(&self) -> Result<SecretKey> {
        key_file::read(&self.config.signing_key).into_diagnostic()
    }

    fn by_hand<'a>(&'a self, key: &'a SecretKey) -> ByHand<'a> {
        let Self { config, ledger, documents } = self;
        ByHand { name: &config.name, ledger, documents, key, by: COMMAND_LINE }
    }
}

fn summary(stored: &StoredPermit, permit: &Permit, suspended: bool) -> Value {
    json!({
        "permit": stored.digest, "id": stored.id, "version": stored.version, "study_id": stored.study_id,
        "data_user": permit.data_user, "valid_from": permit.validity.from, "valid_to": permit.validity.to,
        "answer": answer(stored), "decided_by": stored.decided_by, "at": stored.at, "reason": stored.reason,
        "micro_rho_total": permit.dp.micro_rho_total, "suspended": suspended,
    })
}
