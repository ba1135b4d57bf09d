//! `trust` and `keys`: the operator's hand on whose signatures count, and on the coordinator's own keys.
//!
//! Pinning another governance key is for a theft, after fingerprints were compared by telephone or in person. It works on
//! the state directory while the daemon is stopped.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use miette::{IntoDiagnostic, miette};
use sekisho_protocol::{
    clock::Clock,
    key_file,
    keys::{PublicKey, SecretKey},
    roster::{Member, Role},
    transport::peer_id_of_seed,
};

use crate::{
    config::Config,
    daemon::{SystemClock, lock},
    documents::Documents,
    store::Store,
};

#[derive(Args)]
pub(super) struct At {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one of it is made, of a command line")]
pub(super) enum Trust {
    /// Print the governance keys and committees in force, with the fingerprints that people compare.
    #[command(after_help = "Example:\n  sekisho-coordinator trust show --config /etc/sekisho/coordinator.toml")]
    Show(At),
    /// Pin another governance key, after a theft: rosters, statuses and rotations count anew from it.
    #[command(
        after_help = "Example:\n  sekisho-coordinator trust repin-governance 11qYAYKx… --reason 'stolen on 3 May' --config coordinator.toml"
    )]
    RepinGovernance {
        /// The new key, base64. Compare its fingerprint with the access body, by telephone or in person.
        key: PublicKey,
        /// Why; it is kept for ever.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Make the next signing or transport key beside the one in use, and print the member.json that names it.
    #[command(
        after_help = "Example:\n  sekisho-coordinator keys rotate signing --config coordinator.toml > member.json"
    )]
    Rotate {
        /// Which key.
        #[arg(value_enum)]
        which: Which,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Which {
    /// Signs routes.
    Signing,
    /// Proves the peer id that every hospital pins.
    Transport,
}

pub(super) fn trust(command: Trust) -> miette::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    runtime.block_on(async {
        match command {
            Trust::Show(at) => show(&Config::load(&at.config).into_diagnostic()?).await,
            Trust::RepinGovernance { key, reason, at } => {
                let config = Config::load(&at.config).into_diagnostic()?;
                repin(&config, key, &reason, SystemClock.now()).await
            }
        }
    })
}

async fn show(config: &Config) -> miette::Result<()> {
    let store = Store::open(&config.state_dir.join("coordinator.db")).await.into_diagnostic()?;
    let pins = store.governance_pins().await.into_diagnostic()?;
    println!("governance key of the configuration  {}", config.trust.governance.fingerprint());
    for pin in &pins {
        println!("pinned by hand {} on {}  {}: {}", pin.epoch, pin.at.to_rfc3339(), pin.key.fingerprint(), pin.reason);
    }
    let documents = Documents::open(store, config.trust.clone()).await.into_diagnostic()?;
    let report = documents.trust().into_diagnostic()?;
    let current = documents.current();
    if let Some(chains) = current.chains() {
        for rotation in chains.rotations() {
            let (seq, key) = (rotation.seq, rotation.new_key.fingerprint());
            println!("rotation {seq} of {}  {key}: {}", rotation.issued.to_rfc3339(), rotation.reason);
        }
    }
    let committee = current.committee().into_diagnostic()?;
    println!(
        "committee in force  {} of {} members, {} must sign",
        committee.seq,
        committee.members.len(),
        committee.needed
    );
    for (name, key) in report.regulators {
        println!("regulator {name}  {}", key.fingerprint());
    }
    Ok(())
}

async fn repin(config: &Config, key: PublicKey, reason: &str, now: DateTime<Utc>) -> miette::Result<()> {
    if reason.trim().is_empty() {
        return Err(miette!("--reason is empty; say why, it is kept for ever"));
    }
    let _lock = lock(&config.state_dir).into_diagnostic()?;
    let store = Store::open(&config.state_dir.join("coordinator.db")).await.into_diagnostic()?;
    let epoch = store.pin_governance(key, reason, now).await.into_diagnostic()?;
    println!("pinned by hand {epoch}: {}", key.fingerprint());
    eprintln!("Write it into trust.governance_key of the configuration as well, so that a new state directory has it.");
    eprintln!("Start the coordinator; hand in schemas, a roster and a status that this key signed.");
    Ok(())
}

pub(super) fn keys(command: &Keys) -> miette::Result<()> {
    let Keys::Rotate { which, at } = command;
    let config = Config::load(&at.config).into_diagnostic()?;
    let path = match which {
        Which::Signing => &config.signing_key,
        Which::Transport => &config.transport_key,
    };
    let next = key_file::next(path);
    key_file::write(&next, &SecretKey::generate(&mut rand::rng())).into_diagnostic()?;
    let newest = |path: &Path| key_file::read_newest(path).into_diagnostic();
    let (signing, transport) = (newest(&config.signing_key)?, newest(&config.transport_key)?);
    let us = Member {
        name: "coordinator".into(),
        role: Role::Coordinator,
        peer_id: peer_id_of_seed(&transport.seed()).into_diagnostic()?.to_string(),
        signing_key: signing.public(),
    };
    println!("{}", serde_json::to_string_pretty(&us).into_diagnostic()?);
    eprintln!("Made {}. Hand what was printed to the access body: `sekisho roster add --replace`.", next.display());
    eprintln!("Signing fingerprint to compare: {}", us.signing_key.fingerprint());
    match which {
        Which::Signing => eprintln!("The coordinator signs with it as soon as the roster names it."),
        Which::Transport => eprintln!(
            "The coordinator uses it from its next start after the roster names it. Every hospital must write the peer \
             id {} into coordinator.peer_id first: see docs/keys.md.",
            us.peer_id
        ),
    }
    Ok(())
}
