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
use crate::{
    pages::Pages,
    use_register::{Use, UseRegister},
};

#[derive(Template)]
#[template(path = "public/study.html")]
pub(super) struct StudyPage<'a> {
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
    show(&of(&register, &study, &visitor).ok_or_else(Fault::not_found)?)
}

/// What the page shows of a study; none when the register has none of this name.
pub(super) fn of<'a>(register: &'a UseRegister, study: &'a str, visitor: &Visitor) -> Option<StudyPage<'a>> {
    let uses: Vec<&Use> = register.uses.iter().filter(|used| used.study == study).collect();
    let page = visitor.page(format!("{} {study}", visitor.say("Study", "研究")));
    (!uses.is_empty()).then_some(StudyPage { page, study, uses })
}
