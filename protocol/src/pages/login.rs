//! Signing in with a token, and out again.
//!
//! The form of the login brings what its own cookie has (a page of another site can set neither), since there is no session yet.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension, Form, Router,
    extract::Query,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use cookie::time::Duration;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{Fault, Gate, Page, PageToken, Posted, Visitor, gate::set_cookie, session::secret, show};

/// The longest address to which somebody returns.
const MAX_NEXT: usize = 1024;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    page: Page,
    /// What the form brings back, beside the cookie.
    form: String,
    next: String,
    wrong: bool,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Entered {
    #[serde(default)]
    form: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Nothing {}

pub(super) fn routes() -> Router {
    Router::new().route("/login", get(login).post(enter)).route("/logout", post(leave))
}

async fn login(
    Extension(gate): Extension<Arc<Gate>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    ask(&gate, &visitor, asked.next, false)
}

/// The page with the form, and its cookie.
fn ask(gate: &Gate, visitor: &Visitor, next: String, wrong: bool) -> Result<Response, Fault> {
    let form = secret(&mut rand::rng());
    let page = visitor.page(visitor.say("Sign in", "ログイン"));
    let mut response = show(&LoginPage { page, form: form.clone(), next, wrong })?;
    set_cookie(response.headers_mut(), &gate.cookie("login", &form));
    Ok(response)
}

async fn enter(
    Extension(gate): Extension<Arc<Gate>>,
    visitor: Visitor,
    headers: HeaderMap,
    Form(entered): Form<Entered>,
) -> Result<Response, Fault> {
    let form = gate.kept(&headers, "login").unwrap_or_default();
    if form.is_empty() || !bool::from(form.as_bytes().ct_eq(entered.form.as_bytes())) {
        return Err(Fault::forbidden());
    }
    let now = gate.clock.now();
    let found = gate.tokens.find(entered.token.trim()).map_err(Fault::unavailable)?;
    let Some(token) = found.filter(|token: &PageToken| now < token.expires) else {
        if gate.wrong.one_more(now) {
            return Err(Fault::too_many());
        }
        let mut again = ask(&gate, &visitor, entered.next, true)?;
        *again.status_mut() = StatusCode::FORBIDDEN;
        return Ok(again);
    };
    // A session that was there before is another one.
    if let Some(before) = gate.kept(&headers, "session") {
        gate.sessions.end(&before);
    }
    let id = gate.sessions.start(&token, now, &mut rand::rng());
    tracing::info!(name = token.name, role = token.role, "somebody signed in");
    let home = || (gate.site.home)(&super::Who { name: token.name.clone(), role: token.role.clone(), subject: None });
    let next = if is_ours(&entered.next) { &entered.next } else { home() };
    let mut response = Redirect::to(next).into_response();
    set_cookie(response.headers_mut(), &gate.cookie("session", &id));
    set_cookie(response.headers_mut(), &ended(&gate, "login"));
    Ok(response)
}

async fn leave(Extension(gate): Extension<Arc<Gate>>, headers: HeaderMap, _: Posted<Nothing>) -> Response {
    if let Some(id) = gate.kept(&headers, "session") {
        gate.sessions.end(&id);
    }
    let mut response = Redirect::to("/").into_response();
    set_cookie(response.headers_mut(), &ended(&gate, "session"));
    response
}

fn ended(gate: &Gate, what: &str) -> cookie::Cookie<'static> {
    let mut cookie = gate.cookie(what, "");
    cookie.set_max_age(Duration::ZERO);
    cookie
}

/// Whether an address is a path of this site: what begins with two slashes is another host.
fn is_ours(next: &str) -> bool {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    plain && next.len() <= MAX_NEXT && next.starts_with('/') && !next.starts_with("//")
}
