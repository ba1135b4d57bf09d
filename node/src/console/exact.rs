//! `/exact`: exact results that were asked for, the table of each as it would leave, and the two buttons.
//!
//! A table that waits is for operators: whoever looks at it decides. It holds what would leave, and of hidden rows nothing.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use chrono::NaiveDate;
use sekisho_protocol::pages::{Fault, Page, Posted, show};
use serde::Deserialize;

use super::{Acts, Console, Looks, given, then, words};
use crate::{
    answer::Answering,
    exact::{ExactError, Looked, refuse as refused},
    ledger::{ExactRelease, ExactRequest, LedgerError},
};

/// What is known of exact results here.
pub(super) struct Exacts {
    pub(super) requests: Vec<ExactRequest>,
    pub(super) releases: Vec<ExactRelease>,
    pub(super) since: Option<NaiveDate>,
    /// Whether the configuration switches exact results on.
    pub(super) on: bool,
}

impl Exacts {
    async fn of(node: &Answering) -> Result<Self, Fault> {
        let ledger = &node.ledger;
        Ok(Self {
            requests: ledger.exact_requests(false).await.map_err(Fault::unavailable)?,
            releases: ledger.exact_releases().await.map_err(Fault::unavailable)?,
            since: ledger.exact_since().await.map_err(Fault::unavailable)?,
            on: node.trust.exact_min_patients.is_some(),
        })
    }
}

/// One request: what is known of it, and the table for whoever decides.
pub(super) enum Seen {
    /// For whoever may only look, and of a request that was decided.
    Facts(ExactRequest),
    /// For whoever decides.
    Table(Box<Looked>),
    /// The table cannot be made: why.
    Not(ExactRequest, String),
}

impl Seen {
    fn request(&self) -> &ExactRequest {
        match self {
            Self::Facts(request) | Self::Not(request, _) => request,
            Self::Table(looked) => &looked.request,
        }
    }
}

#[derive(Template)]
#[template(path = "exacts.html")]
struct ListView {
    page: Page,
    all: Exacts,
}

#[derive(Template)]
#[template(path = "exact.html")]
struct OneView {
    page: Page,
    seen: Seen,
    operator: bool,
}

#[derive(Deserialize)]
pub(super) struct Deciding {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    seen: String,
}

fn number(text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::not_found())
}

async fn request(node: &Answering, number: i64) -> Result<ExactRequest, Fault> {
    node.ledger.exact_request(number).await.map_err(Fault::unavailable)?.ok_or_else(Fault::not_found)
}

pub(super) async fn list(State(console): State<Arc<Console>>, Looks(visitor): Looks) -> Result<Response, Fault> {
    let all = Exacts::of(&console.node).await?;
    show(&ListView { page: visitor.page(visitor.say("Exact results", "正確な集計")), all })
}

pub(super) async fn one(
    State(console): State<Arc<Console>>,
    looks: Looks,
    Path(text): Path<String>,
) -> Result<Response, Fault> {
    let number = number(&text)?;
    let request = request(&console.node, number).await?;
    let seen = if looks.is_operator() && request.is_open() {
        match console.node.look(number).await {
            Ok(looked) => Seen::Table(Box::new(looked)),
            Err(error) => Seen::Not(request, error.to_string()),
        }
    } else {
        Seen::Facts(request)
    };
    let page = looks.0.page(format!("{} {number}", looks.0.say("Exact result", "正確な集計")));
    show(&OneView { page, seen, operator: looks.is_operator() })
}

pub(super) async fn release(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(text): Path<String>,
    Posted(Deciding { reason, seen }): Posted<Deciding>,
) -> Result<Response, Fault> {
    let (node, reason, number) = (&console.node, given(&reason)?, number(&text)?);
    request(node, number).await?;
    after(node.let_out(number, &acts.by, acts.says(&reason, &*node.clock), &seen).await.map(drop), number)
}

pub(super) async fn refuse(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(text): Path<String>,
    Posted(Deciding { reason, .. }): Posted<Deciding>,
) -> Result<Response, Fault> {
    let (node, reason, number) = (&console.node, given(&reason)?, number(&text)?);
    request(node, number).await?;
    let said = acts.says(&reason, &*node.clock);
    after(refused(&node.ledger, (&node.trust.name, &node.signing), number, &acts.by, said).await, number)
}

/// The page of the request, which tells what was decided; what was not done is told at once.
fn after(done: Result<(), ExactError>, number: i64) -> Result<Response, Fault> {
    match done {
        Ok(()) | Err(ExactError::TooClose(_) | ExactError::Ledger(LedgerError::Decided { .. })) => {
            Ok(then(&format!("/exact/{number}")))
        }
        Err(ExactError::Changed | ExactError::Meanwhile) => Err(Fault::bad_request(
            "The table is another one than you looked at. Open its page again.",
            "表が確認時と異なります。ページを開き直して、もう一度確認してください。",
        )),
        Err(ExactError::Refused(refusal)) => Err(refusal.into()),
        Err(error @ (ExactError::Ledger(_) | ExactError::Execute(_) | ExactError::Time | ExactError::Failed(_))) => {
            Err(Fault::unavailable(error))
        }
    }
}
