//! What an operator does with the tokens of the local endpoint.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use miette::{IntoDiagnostic, Result, miette};
use sekisho_protocol::token_file::TokenFile;

use super::configured;
use crate::local::System;

#[derive(Subcommand)]
pub(super) enum Local {
    /// Makes a token for one of the hospital's systems, and prints it: it is not shown again.
    #[command(after_help = "Example: sekisho-node local token consent-desk --config /srv/sekisho/node.toml")]
    Token {
        /// The system's name; what it records bears it.
        name: String,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Lists the names of the tokens.
    #[command(after_help = "Example: sekisho-node local list --config /srv/sekisho/node.toml")]
    List {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Takes a token away; it is refused from the next request on.
    #[command(after_help = "Example: sekisho-node local revoke consent-desk --config /srv/sekisho/node.toml")]
    Revoke {
        /// The system's name.
        name: String,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

/// Runs a command on the tokens.
pub(super) fn local(command: &Local) -> Result<()> {
    match command {
        Local::Token { name, config } => {
            let token = tokens(config)?.add(|hash| System::new(name, hash), &mut rand::rng()).into_diagnostic()?;
            println!("{token}");
            eprintln!("Hand it to the system {name} now: only its hash is kept, and it is not shown again.");
            eprintln!("今すぐ {name} に設定してください。保存されるのはハッシュだけで、再表示はできません。");
        }
        Local::List { config } => {
            for name in tokens(config)?.names().into_diagnostic()? {
                println!("{name}");
            }
        }
        Local::Revoke { name, config } => {
            tokens(config)?.revoke(name).into_diagnostic()?;
            println!("{name} is refused from now on / {name} のトークンを無効にしました");
        }
    }
    Ok(())
}

fn tokens(config: &Path) -> Result<TokenFile<System>> {
    let local = configured(config)?.local.ok_or_else(|| {
        miette!(
            "the configuration has no table `local`: write [local] with address = \"127.0.0.1:8816\" and token_file"
        )
    })?;
    Ok(TokenFile::new(local.token_file))
}
