//! What everybody sees: the register of uses, studies, releases with their lineage, and the log.

use std::sync::Arc;

use askama::Template;
use axum::{Router, response::Response, routing::get};
use sekisho_protocol::pages::{Fault, Page, Visitor, show};

use super::Pages;

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new().route("/", get(register))
}

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterPage {
    page: Page,
}

async fn register(visitor: Visitor) -> Result<Response, Fault> {
    show(&RegisterPage { page: visitor.page(visitor.say("Register of uses", "利用登録簿")) })
}
