//! `pages token`: who may sign in to the pages.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use miette::{IntoDiagnostic, WrapErr, miette};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    pages::PageToken,
    roster::is_name,
    token_file::{TokenFile, TokenFileError},
};
use serde::Serialize;

use crate::{config::Config, daemon::SystemClock, listing::Listing, pages::Role, person::print};

#[derive(Subcommand)]
pub(super) enum Pages {
    /// The tokens with which people sign in.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho-coordinator pages token add mhlw --role regulator --config coordinator.toml"
    )]
    Token(Token),
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Makes a token, and prints it: it is not shown again.
    #[command(
        after_help = "Example:\n  sekisho-coordinator pages token add mhlw --role regulator --config coordinator.toml\n  \
                            sekisho-coordinator pages token add sato --role committee --person sato --config coordinator.toml\n  \
                            sekisho-coordinator pages token add tanaka --role user --person FINGERPRINT --config coordinator.toml"
    )]
    Add {
        /// Whose token it is: lower-case letters, digits and hyphens.
        name: String,
        /// What its owner may see.
        #[arg(long, value_enum)]
        role: Role,
        /// Who they are in signed documents: a member's name in the committee (role committee), or the fingerprint of the key that
        /// permits and applications have of them (role user; `sekisho keys show` prints it).
        #[arg(long, value_name = "MEMBER|FINGERPRINT")]
        person: Option<String>,
        /// For how many days it is good.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Lists the tokens: names, roles and how long they are good, never the tokens themselves.
    #[command(after_help = "Example:\n  sekisho-coordinator pages token list --config coordinator.toml")]
    List {
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Takes a token away; its sessions end with it.
    #[command(after_help = "Example:\n  sekisho-coordinator pages token revoke mhlw --config coordinator.toml")]
    Revoke {
        /// Whose token it is.
        name: String,
        /// The coordinator's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// One line of the list.
#[derive(Serialize)]
struct Listed {
    name: String,
    role: String,
    person: Option<String>,
    expires: DateTime<Utc>,
    expired: bool,
}

impl Pages {
    pub(super) fn run(self) -> miette::Result<()> {
        let Self::Token(token) = self;
        match token {
            Token::Add { name, role, person, days, config } => {
                let person = subject(role, person)?;
                let expires = SystemClock.now() + TimeDelta::days(i64::from(days));
                let line = |hash| PageToken::new(&name, role.as_str(), expires, person.as_deref(), hash);
                let token = tokens(&config)?.add(line, &mut rand::rng()).into_diagnostic()?;
                println!("{token}");
                eprintln!(
                    "Hand it to {name} now: only its hash is kept, and it is not shown again. Void after {days} days."
                );
                eprintln!(
                    "今すぐ {name} に渡してください。保存されるのはハッシュだけで、再表示はできません。有効期間は {days} 日です。"
                );
            }
            Token::List { config, output } => {
                list(&tokens(&config)?, output)?;
            }
            Token::Revoke { name, config } => {
                tokens(&config)?.revoke(&name).into_diagnostic()?;
                println!("{name} is refused from now on / {name} のトークンを無効にしました");
            }
        }
        Ok(())
    }
}

/// Who the owner of a token is in signed documents, as their role asks.
fn subject(role: Role, person: Option<String>) -> miette::Result<Option<String>> {
    match (role, person) {
        (Role::Regulator, None) => Ok(None),
        (Role::Regulator, Some(_)) => Err(miette!("--person is for the roles committee and user")),
        (Role::Committee, Some(member)) if is_name(&member) => Ok(Some(member)),
        (Role::Committee, _) => Err(miette!("write --person with the member's name in the committee, such as sato")),
        (Role::User, Some(key)) => {
            let key: Digest =
                key.parse().into_diagnostic().wrap_err("--person is the fingerprint of the person's key")?;
            Ok(Some(key.to_string()))
        }
        (Role::User, None) => {
            Err(miette!("write --person with the fingerprint of the person's key, which permits and applications have"))
        }
    }
}

fn list(tokens: &TokenFile<PageToken>, output: Listing) -> miette::Result<()> {
    let lines = match tokens.lines() {
        Err(TokenFileError::Missing { .. }) => Vec::new(),
        lines => lines.into_diagnostic()?,
    };
    let now = SystemClock.now();
    let one = |token: PageToken| {
        let PageToken { name, role, expires, subject, .. } = token;
        Listed { name, role, person: subject, expires, expired: now >= expires }
    };
    let lines: Vec<Listed> = lines.into_iter().map(one).collect();
    let row = |line: &Listed| {
        let Listed { name, role, person, expires, expired } = line;
        let expires = expires.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        [name.clone(), role.clone(), person.clone().unwrap_or_default(), expires, expired.to_string()]
    };
    let header = ["name", "role", "person", "expires", "expired"];
    print::list(output, &lines, header, lines.iter().map(row)).map_err(|failure| miette!("{failure}"))
}

fn tokens(config: &Path) -> miette::Result<TokenFile<PageToken>> {
    let pages = Config::load(config).into_diagnostic()?.pages.ok_or_else(|| {
        miette!("the configuration has no table `pages`: write [pages] with address = \"127.0.0.1:8818\"")
    })?;
    Ok(TokenFile::new(pages.tokens))
}
