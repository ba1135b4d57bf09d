//! The coordinator's pages: the register for everybody, and what regulators, committee members and data users see.
//!
//! Promises: on loopback only, off unless configured (`[pages]`; a reverse proxy brings TLS); pages read, and the one thing that
//! they write is a document that somebody signed elsewhere, which goes through [`Documents::put`] as at the door; a role sees its
//! own pages ([`Regulator`], [`CommitteeMember`], [`DataUser`]); a number over patients is on a page only when a hospital released
//! it or a signed document states it.
//!
//! Deliberately absent: anybody's key, raw counts, a page that exists for one role and depends on another's session.

mod bounds;
mod chart;
mod command_line;
pub mod committee;
#[cfg(test)]
mod fixture;
mod interval_chart;
pub mod public;
pub mod regulator;
mod states;
pub mod user;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Router, extract::FromRequestParts, http::request::Parts};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    loopback::{self, Running},
    pages::{Denied, Fault, Gate, PageToken, Site, Visitor, Who, guarded},
    token_file::{TokenFile, TokenFileError},
};

use crate::{config, documents::Documents, network::Nodes, round::Rounds, store::Store};

/// What the pages are made from.
pub struct Pages {
    /// Documents that were handed in.
    pub documents: Arc<Documents>,
    /// Rounds that were, and the log.
    pub store: Store,
    /// The hospitals, and who of them is connected.
    pub nodes: Arc<Nodes>,
    /// Dry runs.
    pub rounds: Arc<Rounds>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The text of the policy of the log's witnesses, where one is configured.
    pub policy: Option<String>,
    /// The folder of the log's files.
    pub log: PathBuf,
    /// Where people find the pages, as a URL without a path.
    pub address: String,
}

/// A role of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Sees who used what for what, and what was refused.
    Regulator,
    /// Sees applications and held results.
    Committee,
    /// Sees the studies of which they are a person.
    User,
}

impl Role {
    /// The role as tokens have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regulator => "regulator",
            Self::Committee => "committee",
            Self::User => "user",
        }
    }

    fn of(who: &Who) -> Option<Self> {
        [Self::Regulator, Self::Committee, Self::User].into_iter().find(|role| role.as_str() == who.role)
    }
}

/// Name, menu and first pages.
const SITE: Site = Site {
    key: "sekisho-pages",
    name: ("Sekisho: register of uses", "関所 利用登録簿"),
    menu: |who| {
        let mut menu = vec![("/", "Register of uses", "利用登録簿"), ("/log", "Transparency log", "透明性ログ")];
        menu.extend_from_slice(match who.and_then(Role::of) {
            None => &[],
            Some(Role::Regulator) => &[
                ("/regulator", "Supervision", "監督"),
                ("/regulator/refusals", "Refusals and anomalies", "拒否と異常"),
                ("/regulator/log", "Log entries", "ログの記録"),
            ],
            Some(Role::Committee) => &[
                ("/committee", "Applications", "申請の審査"),
                ("/committee/results", "Results under review", "結果の審査"),
                ("/committee/documents", "Hand in", "文書の提出"),
            ],
            Some(Role::User) => &[
                ("/desk", "My studies", "自分の研究"),
                ("/desk/query", "Write a query", "照会の作成"),
                ("/desk/results", "Results", "結果"),
            ],
        });
        menu
    },
    home: |who| match Role::of(who) {
        None => "/",
        Some(Role::Regulator) => "/regulator",
        Some(Role::Committee) => "/committee",
        Some(Role::User) => "/desk",
    },
};

/// Somebody with a regulator's token.
pub struct Regulator {
    /// Who looks.
    pub visitor: Visitor,
}

/// Somebody with the token of a member of the committee.
pub struct CommitteeMember {
    /// Who looks.
    pub visitor: Visitor,
    /// The member's name in the committee.
    pub member: String,
}

/// Somebody with a data user's token.
pub struct DataUser {
    /// Who looks.
    pub visitor: Visitor,
    /// The fingerprint of the person's key, as permits and applications have it.
    pub person: Digest,
}

async fn demand<S: Sync>(parts: &mut Parts, state: &S, role: Role) -> Result<(Visitor, String), Denied> {
    let visitor = Visitor::from_request_parts(parts, state).await?;
    let subject = visitor.demand(role.as_str())?.subject.clone().unwrap_or_default();
    Ok((visitor, subject))
}

impl<S: Sync> FromRequestParts<S> for Regulator {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        let (visitor, _) = demand(parts, state, Role::Regulator).await?;
        Ok(Self { visitor })
    }
}

impl<S: Sync> FromRequestParts<S> for CommitteeMember {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        let (visitor, member) = demand(parts, state, Role::Committee).await?;
        Ok(Self { visitor, member })
    }
}

impl<S: Sync> FromRequestParts<S> for DataUser {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        let (visitor, person) = demand(parts, state, Role::User).await?;
        let person = person.parse().map_err(|_| Fault::forbidden())?;
        Ok(Self { visitor, person })
    }
}

/// The routes of all roles; each handler asks for its own.
pub fn router(pages: Arc<Pages>) -> Router {
    public::routes().merge(regulator::routes()).merge(committee::routes()).merge(user::routes()).with_state(pages)
}

/// Why the pages are not served.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The token file cannot be used.
    #[error("pages.tokens: {0}")]
    Tokens(#[from] TokenFileError),
    /// The listener cannot be opened.
    #[error("pages.address {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Serves the pages where the configuration says, until they are stopped; they are told where that is. Without a token file
/// nobody signs in.
///
/// # Errors
/// When the token file is open to others or has a line that is no token, or the address is taken.
pub async fn serve(settings: &config::Pages, mut pages: Pages) -> Result<Running, PagesError> {
    let tokens = TokenFile::<PageToken>::new(&settings.tokens);
    match tokens.lines() {
        Ok(_) | Err(TokenFileError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let gate = Arc::new(Gate::new(SITE, tokens, settings.origin.clone(), pages.clock.clone()));
    let (address, origin) = (settings.address, settings.origin.clone());
    let routes = |address: SocketAddr| {
        pages.address = origin.map_or_else(|| format!("http://{address}"), |origin| origin.to_string());
        guarded(router(Arc::new(pages)), gate, address)
    };
    let running = loopback::serve(address, routes).await;
    let running = running.map_err(|source| PagesError::Bind { address, source })?;
    tracing::info!(address = %running.address(), "the pages are served");
    Ok(running)
}
