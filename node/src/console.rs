//! The console: what an operator of the hospital looks at each morning, and decides, in a browser on the node's own machine.
//!
//! It runs in the node's process and on its own stores, so that what is decided here acts at once. What it shows and does is what
//! the command line shows and does: the same functions decide about permits and suspend studies, and note who did it.
//!
//! Promises: it listens on loopback only, and only if the configuration says so; who looks has a token of the role [`VIEWER`] or
//! [`OPERATOR`], who acts one of the role `OPERATOR`; a form is taken only from a page of ours. No page holds an identifier of a
//! patient, a row, a number that was computed over rows before noise, or a seed; an exact result that waits is a table for operators,
//! as it would leave. The totals of the patient register, which
//! `sekisho-node patients status` prints, are for operators and stay in the hospital.
//!
//! Deliberately absent: exact cells (`sekisho-node inspect replay --show-exact` shows them, on a terminal), anything about one
//! patient (`sekisho-node patients`), changing the configuration or the policy, and keys.

mod alerts;
mod exact;
mod history;
mod overview;
mod patients;
mod permits;
mod queries;
mod studies;
#[cfg(test)]
mod tests;
mod words;

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Router,
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use sekisho_protocol::{
    clock::Clock,
    loopback::{self, Running},
    pages::{Fault, Gate, PageToken, Site, Visitor, Who, guarded},
    token_file::TokenFile,
};

use self::patients::Counted;
use crate::{
    answer::Answering,
    ledger::{Said, reason},
};

/// Who may look and act.
pub const OPERATOR: &str = "operator";
/// Who may look.
pub const VIEWER: &str = "viewer";

/// What the pages are made from.
pub struct Console {
    node: Arc<Answering>,
    /// The configuration file, for the command lines that pages give.
    config: String,
    counted: Counted,
}

impl Console {
    /// The console of a node that was configured in the file `config`.
    pub fn new(node: Arc<Answering>, config: &Path) -> Self {
        let config = if config.as_os_str().is_empty() { "node.toml".into() } else { config.display().to_string() };
        Self { node, config: words::quoted(&config), counted: Counted::default() }
    }
}

fn menu(who: Option<&Who>) -> Vec<(&'static str, &'static str, &'static str)> {
    if who.is_none() {
        return Vec::new();
    }
    vec![
        ("/", "Overview", "概要"),
        ("/permits", "Permits", "許可証"),
        ("/studies", "Studies", "研究"),
        ("/queries", "Queries", "照会"),
        ("/exact", "Exact results", "正確な集計"),
        ("/patients", "Patients", "患者登録簿"),
        ("/alerts", "Alerts", "警報"),
        ("/log", "Log", "ログ"),
    ]
}

/// The gate of the console: its tokens, and its name.
pub fn gate(tokens: TokenFile<PageToken>, clock: Arc<dyn Clock>) -> Gate {
    let site =
        Site {
            key: "sekisho-console", name: ("Hospital node console", "病院ノード管理画面"), menu, home: |_| "/"
        };
    Gate::new(site, tokens, None, clock)
}

/// The pages, to be served [`guarded`].
pub fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/permits", get(permits::list))
        .route("/permits/{digest}", get(permits::one))
        .route("/permits/{digest}/accept", post(permits::accept))
        .route("/permits/{digest}/refuse", post(permits::refuse))
        .route("/studies", get(studies::list))
        .route("/studies/{study}/suspend", post(studies::suspend))
        .route("/studies/{study}/resume", post(studies::resume))
        .route("/everything/suspend", post(studies::suspend_all))
        .route("/everything/resume", post(studies::resume_all))
        .route("/queries", get(queries::list))
        .route("/queries/{charge}", get(queries::one))
        .route("/exact", get(exact::list))
        .route("/exact/{request}", get(exact::one))
        .route("/exact/{request}/release", post(exact::release))
        .route("/exact/{request}/refuse", post(exact::refuse))
        .route("/patients", get(patients::show))
        .route("/alerts", get(alerts::list))
        .route("/alerts/seen", post(alerts::seen))
        .route("/log", get(history::show))
        .with_state(console)
}

/// Serves the console at `address`, which is of loopback, until it is stopped.
///
/// # Errors
/// When the address is another one, or is taken.
pub async fn serve(address: SocketAddr, console: Arc<Console>, gate: Gate) -> io::Result<Running> {
    let (routes, gate) = (router(console), Arc::new(gate));
    let running = loopback::serve(address, |address| guarded(routes, gate, address)).await?;
    tracing::info!(address = %running.address(), "the console listens");
    Ok(running)
}

/// Somebody who may look: of either role.
struct Looks(Visitor);

impl<S: Sync> FromRequestParts<S> for Looks {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        if visitor.demand(OPERATOR).is_err() {
            visitor.demand(VIEWER)?;
        }
        Ok(Self(visitor))
    }
}

impl Looks {
    fn is_operator(&self) -> bool {
        self.0.who().is_some_and(|who| who.role == OPERATOR)
    }
}

/// Somebody who may act, and the name that is noted with what they do.
struct Acts {
    by: String,
}

impl<S: Sync> FromRequestParts<S> for Acts {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { by: visitor.demand(OPERATOR)?.name.clone() })
    }
}

impl Acts {
    /// What they say, with the reason that the form brought.
    fn says<'a>(&'a self, reason: &'a str, clock: &dyn Clock) -> Said<'a> {
        Said { by: &self.by, reason, at: clock.now() }
    }
}

/// The reason in a form.
fn given(text: &str) -> Result<String, Fault> {
    reason(text).map_err(|_| {
        Fault::bad_request(
            "Write a reason in one line of 1 to 500 characters. Write nothing about patients.",
            "理由を1行(1〜500文字)で入力してください。患者に関することは書かないでください。",
        )
    })
}

/// The page on which somebody is after acting.
fn then(page: &str) -> Response {
    Redirect::to(page).into_response()
}
