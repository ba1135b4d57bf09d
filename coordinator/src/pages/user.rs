//! What data users see: their studies, a form that writes a query, and their results.
//!
//! Promises: only what permits say that name the person's key; everything else is not there (404), whether or not it
//! is. Nothing is asked from here: a page ends in the line that the person runs. Deliberately absent: any key.

mod ask;
mod question;
mod result;
pub mod results;
mod studies;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    response::Response,
    routing::get,
};
use sekisho_protocol::pages::{Fault, Page, show};

use self::{
    results::Row,
    studies::{Study, studies},
};
use super::{DataUser, Pages, states};
use crate::person::permit;

/// The most bytes of a question's form: the longest SQL, escaped, and the rest.
const MAX_FORM_BYTES: usize = 256 << 10;

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    let ask = Router::new().route("/desk/query", get(ask::page).post(ask::analyse));
    Router::new()
        .route("/desk", get(own_studies))
        .route("/desk/results", get(own_results))
        .route("/desk/results/{round}", get(result::page))
        .route("/desk/results/{round}/{file}", get(result::file))
        .merge(ask.layer(DefaultBodyLimit::max(MAX_FORM_BYTES)))
}

#[derive(Template)]
#[template(path = "user/studies.html")]
struct StudiesPage {
    page: Page,
    studies: Vec<Study>,
}

async fn own_studies(State(pages): State<Arc<Pages>>, who: DataUser) -> Result<Response, Fault> {
    let studies = studies(&pages.documents, who.person, pages.clock.now()).await?;
    show(&StudiesPage { page: who.visitor.page(who.visitor.say("My studies", "自分の研究")), studies })
}

#[derive(Template)]
#[template(path = "user/results.html")]
struct ResultsPage {
    page: Page,
    rows: Vec<Row>,
    more: bool,
}

async fn own_results(State(pages): State<Arc<Pages>>, who: DataUser) -> Result<Response, Fault> {
    let (rows, more) = results::rounds(&pages.documents, &pages.store, who.person, pages.clock.now()).await?;
    show(&ResultsPage { page: who.visitor.page(who.visitor.say("Results", "結果")), rows, more })
}
