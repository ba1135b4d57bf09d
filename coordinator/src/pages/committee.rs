//! What members of the committee see, and the one thing that they send: a document that they signed on their own
//! machines.
//!
//! Promises: an application over which the member has a conflict of interest does not open; a result is shown by the
//! rule of `sekisho output show`; a document is taken by `Documents::put` alone, like at the door, and of the kinds
//! that a committee signs. Deliberately absent: any key, and any decision that is made by a click.

mod application;
mod commands;
mod compared;
mod hand_in;
pub mod overview;
mod result;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use sekisho_protocol::{
    committee::CommitteeMember as Member,
    pages::{Fault, Page, show},
    refusal::Code,
};

use self::{
    application::Shown,
    commands::Step,
    overview::{Overview, conflict, member, overview},
};
use super::{CommitteeMember, Pages, bounds::place, states};
use crate::{held, held::HeldReport};

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new()
        .route("/committee", get(applications))
        .route("/committee/applications/{id}", get(application))
        .route("/committee/results", get(results))
        .route("/committee/results/{result}", get(result::page))
        .merge(hand_in::routes(post(hand_in::put).get(hand_in::page)))
}

/// The member whose token it is, as long as they sit in the committee.
fn seated(pages: &Pages, who: &CommitteeMember) -> Result<Member, Fault> {
    member(&pages.documents, &who.member).map_err(|_| Fault::forbidden())
}

#[derive(Template)]
#[template(path = "committee/overview.html")]
struct OverviewPage {
    page: Page,
    all: Overview,
}

async fn applications(State(pages): State<Arc<Pages>>, who: CommitteeMember) -> Result<Response, Fault> {
    let member = seated(&pages, &who)?;
    let all = overview(&pages.documents, &pages.store, &member, pages.clock.now()).await?;
    show(&OverviewPage { page: who.visitor.page(who.visitor.say("Applications to review", "申請の審査")), all })
}

#[derive(Template)]
#[template(path = "committee/application.html")]
struct ApplicationPage {
    page: Page,
    shown: Shown,
    steps: Vec<Step>,
    said_already: bool,
}

async fn application(
    State(pages): State<Arc<Pages>>,
    Path(id): Path<String>,
    who: CommitteeMember,
) -> Result<Response, Fault> {
    let member = seated(&pages, &who)?;
    let (_, versions) = pages.documents.application(&id).await?;
    let newest = versions.first().map(|(application, _)| application.document()).ok_or_else(Fault::not_found)?;
    if conflict(&pages.documents, newest, &member).await?.is_some() {
        return Err(Fault::forbidden());
    }
    let _place = place().await?;
    let shown = application::shown(&pages.documents, &id, pages.clock.now()).await?;
    let steps = commands::steps(&shown);
    let said_already = shown.said.iter().any(|said| said.newest && said.member == member.name);
    let title = who.visitor.say("Application", "申請");
    show(&ApplicationPage { page: who.visitor.page(format!("{title} {id}")), shown, steps, said_already })
}

#[derive(Template)]
#[template(path = "committee/results.html")]
struct ResultsPage {
    page: Page,
    held: Vec<HeldReport>,
}

async fn results(State(pages): State<Arc<Pages>>, who: CommitteeMember) -> Result<Response, Fault> {
    let member = seated(&pages, &who)?;
    let held = held::list(&pages.documents, &pages.store, &member).await?;
    show(&ResultsPage { page: who.visitor.page(who.visitor.say("Results under review", "結果の審査")), held })
}

/// A refusal to show something to a member, as a page.
fn refused(refusal: sekisho_protocol::refusal::Refusal) -> Fault {
    // To a member with a conflict it is the same whether the result is there.
    if [Code::ResultUnknown, Code::ConflictOfInterest].contains(&refusal.code) {
        return Fault::not_found();
    }
    refusal.into()
}
