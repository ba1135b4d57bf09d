//! A signed document is handed in by a form: the text of the file that the member's own machine signed.
//!
//! Promises: what is taken is what the door takes, by the same checks, and goes to the hospitals from here as from
//! there; a document that is refused changes nothing, and its code says why. Deliberately absent: roster, status,
//! schemas and what governance signs, which come by the door.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
    routing::MethodRouter,
};
use sekisho_protocol::{
    pages::{Fault, Page, Posted, show},
    refusal::{Code, Refusal},
};
use serde::Deserialize;

use super::{CommitteeMember, Pages, seated};
use crate::{
    documents::kind_of,
    pages::states,
    report::{HolderReport, PutReport},
    store::Kind,
};

/// The most bytes of the form: a large permit, escaped.
const MAX_FORM_BYTES: usize = 4 << 20;

/// The route, whose form is larger than others.
pub fn routes(methods: MethodRouter<Arc<Pages>>) -> Router<Arc<Pages>> {
    Router::new().route("/committee/documents", methods).layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
}

/// What is sent.
#[derive(Deserialize)]
pub struct Form {
    /// The document.
    document: String,
}

#[derive(Template)]
#[template(path = "committee/documents.html")]
struct DocumentsPage {
    page: Page,
    taken: Option<PutReport>,
    refusal: Option<Refusal>,
    holders: Vec<HolderReport>,
}

/// The form.
///
/// # Errors
/// When the caller has left the committee.
pub async fn page(State(pages): State<Arc<Pages>>, who: CommitteeMember) -> Result<Response, Fault> {
    seated(&pages, &who)?;
    show(&shown(&who, None, None))
}

/// Takes a document.
///
/// # Errors
/// When the caller has left the committee. A document that is refused is no error: the page says why.
pub async fn put(
    State(pages): State<Arc<Pages>>,
    who: CommitteeMember,
    Posted(form): Posted<Form>,
) -> Result<Response, Fault> {
    seated(&pages, &who)?;
    match taken(&pages, form.document.trim().as_bytes()).await {
        Ok(report) => show(&shown(&who, Some(report), None)),
        Err(refusal) if refusal.code == Code::Unavailable => Err(refusal.into()),
        Err(refusal) => {
            tracing::info!(code = %refusal.code, "a document of a page was refused");
            let mut response = show(&shown(&who, None, Some(refusal)))?;
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            Ok(response)
        }
    }
}

fn shown(who: &CommitteeMember, taken: Option<PutReport>, refusal: Option<Refusal>) -> DocumentsPage {
    let holders = taken.as_ref().map(|report| report.holders.clone()).unwrap_or_default();
    let page = who.visitor.page(who.visitor.say("Hand in a signed document", "署名済み文書の提出"));
    DocumentsPage { page, taken, refusal, holders }
}

async fn taken(pages: &Pages, envelope: &[u8]) -> Result<PutReport, Refusal> {
    match kind_of(envelope)? {
        Kind::Permit | Kind::Review | Kind::Decision | Kind::OutputReview | Kind::Publication => {}
        Kind::Roster
        | Kind::Status
        | Kind::Schema
        | Kind::Application
        | Kind::Catalogue
        | Kind::Committee
        | Kind::Governance
        | Kind::Orders => {
            let detail = "a permit, a review, a refusal, a review of output or a publication is handed in here";
            return Err(Refusal::new(Code::Malformed, detail));
        }
    }
    let accepted = pages.documents.put(envelope, pages.clock.now()).await?;
    let kind = accepted.kind.as_str();
    tracing::info!(kind, digest = accepted.digest.short(), "a document was handed in by a page");
    Ok(PutReport { kind: kind.into(), digest: accepted.digest, holders: pages.nodes.announce(accepted).await })
}
