//! What an operator does with the tokens of the console.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use clap::{Subcommand, ValueEnum};
use miette::{IntoDiagnostic, Result, miette};
use sekisho_protocol::{
    clock::Clock,
    pages::PageToken,
    token_file::{TokenFile, TokenFileError},
};
use serde_json::{Value, json};

use super::{Output, configured, table};
use crate::console::{OPERATOR, VIEWER};

#[derive(Subcommand)]
pub(super) enum Console {
    /// The tokens with which people sign in.
    #[command(
        subcommand,
        after_help = "Example: sekisho-node console token add sato --role operator --config /srv/sekisho/node.toml"
    )]
    Token(Token),
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Makes a token for a person, and prints it: it is not shown again.
    #[command(
        after_help = "Example: sekisho-node console token add sato --role operator --days 30 --config /srv/sekisho/node.toml"
    )]
    Add {
        /// Whose token it is: lower-case letters, digits and hyphens. What they do is noted under this name.
        name: String,
        /// Who may act, or only look.
        #[arg(long, value_enum)]
        role: Role,
        /// For how many days it is good.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Lists the tokens: names, roles and until when they are good.
    #[command(after_help = "Example: sekisho-node console token list --config /srv/sekisho/node.toml")]
    List {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Takes a token away; whoever is signed in with it is signed out.
    #[command(after_help = "Example: sekisho-node console token revoke sato --config /srv/sekisho/node.toml")]
    Revoke {
        /// Whose token it is.
        name: String,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Looks and acts: decides about permits, suspends and resumes.
    Operator,
    /// Looks only.
    Viewer,
}

/// Runs a command on the tokens.
pub(super) fn console(command: Console, clock: &impl Clock) -> Result<()> {
    let Console::Token(token) = command;
    match token {
        Token::Add { name, role, days, config } => {
            let role = match role {
                Role::Operator => OPERATOR,
                Role::Viewer => VIEWER,
            };
            let expires = clock.now() + TimeDelta::days(days.into());
            let line = |hash| PageToken::new(&name, role, expires, None, hash);
            let token = tokens(&config)?.add(line, &mut rand::rng()).into_diagnostic()?;
            println!("{token}");
            eprintln!(
                "Hand it to {name} now: only its hash is kept, and it is not shown again. Void after {days} days."
            );
            eprintln!(
                "今すぐ {name} に渡してください。保存されるのはハッシュだけで、再表示はできません。有効期間は {days} 日です。"
            );
        }
        Token::List { config, output } => list(&config, output, clock)?,
        Token::Revoke { name, config } => {
            tokens(&config)?.revoke(&name).into_diagnostic()?;
            println!("{name} is refused from now on / {name} のトークンを無効にしました");
        }
    }
    Ok(())
}

fn list(config: &Path, output: Output, clock: &impl Clock) -> Result<()> {
    let tokens = match tokens(config)?.lines() {
        Err(TokenFileError::Missing { .. }) => Vec::new(),
        tokens => tokens.into_diagnostic()?,
    };
    let now = clock.now();
    match output {
        Output::Json => {
            let token = |token: &PageToken| {
                json!({
                    "name": token.name, "role": token.role, "expires": token.expires, "expired": now >= token.expires,
                })
            };
            println!("{}", tokens.iter().map(token).collect::<Value>());
        }
        Output::Table => {
            let row = |token: &PageToken| {
                let until = token.expires.format("%Y-%m-%d %H:%M").to_string();
                let expired = if now >= token.expires { "yes" } else { "" };
                vec![token.name.clone(), token.role.clone(), until, expired.into()]
            };
            println!("{}", table(["name", "role", "good until (UTC)", "expired"], tokens.iter().map(row)));
        }
    }
    Ok(())
}

fn tokens(config: &Path) -> Result<TokenFile<PageToken>> {
    let console = configured(config)?.console.ok_or_else(|| {
        miette!(
            "the configuration has no table `console`: write [console] with address = \"127.0.0.1:8819\" and token_file"
        )
    })?;
    Ok(TokenFile::new(console.token_file))
}
