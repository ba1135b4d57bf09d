//! Whose signatures count here, and the hospital's own keys.
//!
//! Pinning another governance key is for a theft of that key: the operator does it on this machine, after comparing the
//! fingerprint by telephone or in person, with a reason that stays on record. Regulators' orders can be handed in here when
//! the coordinator withholds them.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use miette::{IntoDiagnostic, Result, miette};
use sekisho_protocol::{
    clock::Clock,
    dsse::Document,
    key_file,
    keys::{PublicKey, SecretKey},
    orders::Orders,
};

use super::{Output, configured, table};
use crate::{daemon, keys::KeyFiles};

/// Whose signatures count.
#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one of it is made, of a command line")]
pub(super) enum Trust {
    /// Shows the governance keys, the committee and the regulators in force, with the fingerprints that people compare.
    #[command(after_help = "Example: sekisho-node trust show --config node.toml")]
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Pins another governance key after a theft: rosters, statuses and rotations count anew from it.
    #[command(
        after_help = "Example: sekisho-node trust repin-governance 11qYAYKx… --reason 'stolen on 3 May' --config node.toml"
    )]
    RepinGovernance {
        /// The new key, base64. Compare its fingerprint with the access body, by telephone or in person.
        key: PublicKey,
        /// Why; it is kept for ever.
        #[arg(long)]
        reason: String,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

/// Regulators' orders.
#[derive(Subcommand)]
pub(super) enum OrdersCommand {
    /// Takes a regulator's signed orders by hand; they act at once, also on a running node.
    #[command(after_help = "Example: sekisho-node orders put orders.dsse.json --config node.toml")]
    Put {
        /// The signed orders.
        file: PathBuf,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Shows what regulators have suspended.
    #[command(after_help = "Example: sekisho-node orders show --config node.toml --output json")]
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// The hospital's own keys.
#[derive(Subcommand)]
pub(super) enum Keys {
    /// Makes the next key beside the one in use, and prints the member.json that names it.
    #[command(after_help = "Example: sekisho-node keys rotate signing --config node.toml > member.json")]
    Rotate {
        /// Which key.
        #[arg(value_enum)]
        which: Which,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Shows the keys in use and those beside them.
    #[command(after_help = "Example: sekisho-node keys show --config node.toml")]
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Which {
    /// Signs receipts and acceptances.
    Signing,
    /// Proves the peer id to the coordinator.
    Transport,
}

/// Shows or changes whose signatures count.
pub(super) async fn trust(command: Trust, clock: &impl Clock) -> Result<()> {
    match command {
        Trust::Show { config } => show(&config).await,
        Trust::RepinGovernance { key, reason, config } => {
            let config = configured(&config)?;
            let documents = daemon::documents(&config).await.into_diagnostic()?;
            let epoch = documents.pin_governance(key, &reason, clock.now()).await.into_diagnostic()?;
            println!("{}", key.fingerprint());
            eprintln!(
                "pinned by hand, number {epoch}; nothing is answered until a roster and a status by this key arrive"
            );
            eprintln!("write it into trust.governance_key of the configuration as well; schemas need its signature");
            eprintln!("固定しました。この鍵で署名された名簿と状態が届くまで、ノードは回答しません。");
            Ok(())
        }
    }
}

async fn show(path: &std::path::Path) -> Result<()> {
    let config = configured(path)?;
    let documents = daemon::documents(&config).await.into_diagnostic()?;
    let mut rows = vec![row("governance", "configuration", &config.trust.governance_key)];
    for pin in documents.governance_pins().await.into_diagnostic()? {
        let what = format!("pinned by hand {} on {}: {}", pin.epoch, pin.at.date_naive(), pin.reason);
        rows.push(row("governance", &what, &pin.key));
    }
    let chain = documents.governance().await.into_diagnostic()?;
    for (n, key) in chain.keys().iter().enumerate().skip(1) {
        rows.push(row("governance", &format!("rotation {n}"), key));
    }
    rows.push(row("governance", "in force", &chain.key()));
    let committees = documents.committees().await.into_diagnostic()?;
    let committee = committees.newest();
    let what = format!("{} must sign of {}", committee.needed, committee.members.len());
    rows.push(vec!["committee".into(), format!("number {}, {what}", committee.seq), committees.digest().to_string()]);
    for member in &committee.members {
        rows.push(row("committee", &format!("{} ({})", member.name, member.role), &member.key));
    }
    for regulator in &config.trust.regulators {
        rows.push(row("regulator", &regulator.name, &regulator.key));
    }
    println!("{}", table(["who", "which", "fingerprint"], rows));
    Ok(())
}

fn row(who: &str, which: &str, key: &PublicKey) -> Vec<String> {
    vec![who.into(), which.into(), key.fingerprint().to_string()]
}

/// Takes or shows regulators' orders.
pub(super) async fn orders(command: OrdersCommand, clock: &impl Clock) -> Result<()> {
    match command {
        OrdersCommand::Put { file, config } => {
            let documents = daemon::documents(&configured(&config)?).await.into_diagnostic()?;
            let size = std::fs::metadata(&file).into_diagnostic()?.len();
            if size > 2 * Orders::MAX_BYTES as u64 {
                return Err(miette!("{} is larger than any orders", file.display()));
            }
            let bytes = std::fs::read(&file).into_diagnostic()?;
            let orders = documents.offer_orders(&bytes).await.into_diagnostic()?;
            println!("{} {}: {} entries", orders.regulator, orders.seq, orders.entries.len());
            Ok(())
        }
        OrdersCommand::Show { config, output } => {
            let documents = daemon::documents(&configured(&config)?).await.into_diagnostic()?;
            let (orders, now) = (documents.orders().await.into_diagnostic()?, clock.now());
            let lists: Vec<&Orders> = orders.iter().map(|o| o.document()).collect();
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&lists).into_diagnostic()?),
                Output::Table => {
                    let rows = lists.iter().flat_map(|list| {
                        list.entries.iter().map(|entry| {
                            let state = if now < entry.expires { "in force" } else { "lapsed" };
                            let until = format!("{} ({state})", entry.expires.to_rfc3339());
                            let by = format!("{} {}", list.regulator, list.seq);
                            vec![by, entry.target.to_string(), until, entry.reason.clone()]
                        })
                    });
                    println!("{}", table(["orders", "suspended", "until", "reason"], rows));
                }
            }
            Ok(())
        }
    }
}

/// Makes or shows the hospital's own keys.
pub(super) fn keys(command: &Keys) -> Result<()> {
    let (path, rotated) = match command {
        Keys::Rotate { which, config } => (config, Some(*which)),
        Keys::Show { config } => (config, None),
    };
    let config = configured(path)?;
    let files = KeyFiles { name: config.name, signing: config.signing_key, transport: config.transport_key };
    if let Some(which) = rotated {
        let next = key_file::next(match which {
            Which::Signing => &files.signing,
            Which::Transport => &files.transport,
        });
        key_file::write(&next, &SecretKey::generate(&mut rand::rng())).into_diagnostic()?;
        eprintln!("made {}", next.display());
    }
    let member = files.member().into_diagnostic()?;
    println!("{}", serde_json::to_string_pretty(&member).into_diagnostic()?);
    eprintln!("signing fingerprint to compare: {}", member.signing_key.fingerprint());
    for file in [&files.signing, &files.transport] {
        if key_file::next(file).exists() {
            eprintln!("{} waits until the roster names it", key_file::next(file).display());
        }
    }
    if rotated.is_some() {
        eprintln!(
            "hand what was printed to the access body: `sekisho roster add --replace`; the node changes over by itself"
        );
        eprintln!("出力を運営機関に渡してください。名簿に載ると、ノードは自動的に新しい鍵に切り替わります。");
    }
    Ok(())
}
