//! A study: each use of it, with application, decisions, data, hospitals, questions and publications.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    response::Response,
};
use sekisho_protocol::pages::{Fault, Page, Visitor, show};

use super::{Latest, chip, is_open, rho};
use crate::{pages::Pages, use_register::Use};

#[derive(Template)]
#[template(path = "public/study.html")]
struct StudyPage<'a> {
    page: Page,
    study: &'a str,
    uses: Vec<&'a Use>,
}

pub(super) async fn page(
    State(pages): State<Arc<Pages>>,
    Extension(latest): Extension<Arc<Latest>>,
    visitor: Visitor,
    Path(study): Path<String>,
) -> Result<Response, Fault> {
    let register = latest.register(&pages).await?;
    let uses: Vec<&Use> = register.uses.iter().filter(|used| used.study == study).collect();
    if uses.is_empty() {
        return Err(Fault::not_found());
    }
    show(&StudyPage { page: visitor.page(format!("{} {study}", visitor.say("Study", "研究"))), study: &study, uses })
}
