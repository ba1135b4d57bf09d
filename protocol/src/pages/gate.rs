//! What every request passes: it is meant for us, its visitor is known, it ends in time, and what goes wrong becomes a page.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Redirect, Response},
};
use cookie::{Cookie, SameSite};
use tokio::time::timeout;

use super::{
    Fault, FaultKind, Language, Link, Origin, Page, PageToken, Sessions, Who, assets, language, login,
    security::{HEADERS, Names},
    session::{Found, Session},
    show,
};
use crate::{
    clock::Clock,
    loopback::own_names,
    token_file::{TokenFile, WrongTokens},
};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// The most bytes of a form, where its route says no other number.
const MAX_FORM_BYTES: usize = 64 << 10;

/// The entries of a menu: each an address, with its words in English and Japanese.
pub type Menu = Vec<(&'static str, &'static str, &'static str)>;

/// What a site is called, and what its menu has.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The first word of its cookies: browsers do not keep those of two ports apart.
    pub key: &'static str,
    /// Its name in English and Japanese.
    pub name: (&'static str, &'static str),
    /// The menu for whoever looks.
    pub menu: fn(Option<&Who>) -> Menu,
    /// Where somebody is after signing in.
    pub home: fn(&Who) -> &'static str,
}

/// Who is let in, and by which rules.
pub struct Gate {
    pub(super) site: Site,
    pub(super) tokens: TokenFile<PageToken>,
    pub(super) sessions: Sessions,
    pub(super) wrong: WrongTokens,
    pub(super) clock: Arc<dyn Clock>,
    origin: Option<Origin>,
}

impl Gate {
    /// The gate of a site that people reach at `origin`, through a reverse proxy, or on this machine alone.
    pub fn new(site: Site, tokens: TokenFile<PageToken>, origin: Option<Origin>, clock: Arc<dyn Clock>) -> Self {
        Self { site, tokens, sessions: Sessions::default(), wrong: WrongTokens::default(), clock, origin }
    }

    /// The name of a cookie. Behind TLS its prefix keeps other hosts of the domain from setting it.
    fn cookie_name(&self, what: &str) -> String {
        format!("{}{}-{what}", if self.origin.is_some() { "__Host-" } else { "" }, self.site.key)
    }

    /// A cookie of the browser's session that no script reads and no other site sends.
    pub(super) fn cookie(&self, what: &str, value: &str) -> Cookie<'static> {
        let cookie = Cookie::build((self.cookie_name(what), value.to_string())).http_only(true);
        cookie.same_site(SameSite::Strict).path("/").secure(self.origin.is_some()).build()
    }

    /// What a request says in this cookie.
    pub(super) fn kept(&self, headers: &HeaderMap, what: &str) -> Option<String> {
        let name = self.cookie_name(what);
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut named = cookies.flat_map(Cookie::split_parse).flatten().filter(|cookie| cookie.name() == name);
        named.next().map(|cookie| cookie.value().to_string())
    }

    /// Who sends a request. A session whose token is no longer in the file, or not as it was, has ended.
    fn visitor(&self, headers: &HeaderMap, uri: &Uri) -> Result<Visitor, Visitor> {
        let (language, path) = (Language::choose(uri.query(), headers), path(uri));
        let visitor = |session| Visitor(Arc::new(Seen { site: self.site, language, path: path.clone(), session }));
        let Some(id) = self.kept(headers, "session") else { return Ok(visitor(None)) };
        let now = self.clock.now();
        match self.sessions.find(&id, now) {
            Found::Busy => Err(visitor(None)),
            Found::Closed => Ok(visitor(None)),
            Found::Open(session) => {
                // The file is small, and on this machine.
                let token = self.tokens.with_hash(&session.token);
                let same = |token: &PageToken| {
                    token.name == session.who.name
                        && token.role == session.who.role
                        && token.subject == session.who.subject
                        && now < token.expires
                };
                if token.is_ok_and(|token| token.is_some_and(|token| same(&token))) {
                    return Ok(visitor(Some(session)));
                }
                self.sessions.end(&id);
                Ok(visitor(None))
            }
        }
    }
}

/// Somebody who looks at a page.
#[derive(Clone)]
pub struct Visitor(Arc<Seen>);

struct Seen {
    site: Site,
    language: Language,
    path: String,
    session: Option<Session>,
}

impl Visitor {
    /// The language they read.
    pub fn language(&self) -> Language {
        self.0.language
    }

    /// The text of a pair that is in their language.
    pub fn say<'a>(&self, english: &'a str, japanese: &'a str) -> &'a str {
        self.0.language.say(english, japanese)
    }

    /// Who they are, when they are signed in.
    pub fn who(&self) -> Option<&Who> {
        self.0.session.as_ref().map(|session| &session.who)
    }

    /// What their forms have to bring.
    pub(super) fn csrf(&self) -> Option<&str> {
        self.0.session.as_ref().map(|session| session.csrf.as_str())
    }

    /// The frame of a page with this title.
    pub fn page(&self, title: impl Into<String>) -> Page {
        let Seen { site, language, path, .. } = &*self.0;
        let bare = path.split('?').next().unwrap_or_default();
        let here = |href: &str| bare == href || (href != "/" && bare.starts_with(&format!("{href}/")));
        let mut menu: Vec<Link> = (site.menu)(self.who())
            .into_iter()
            .map(|(href, english, japanese)| Link { href, text: language.say(english, japanese), here: here(href) })
            .collect();
        // Of /committee and /committee/results the longer one is where somebody is.
        let deepest = menu.iter().filter(|link| link.here).map(|link| link.href.len()).max();
        for link in &mut menu {
            link.here = link.here && Some(link.href.len()) == deepest;
        }
        Page {
            language: *language,
            title: title.into(),
            site: language.say(site.name.0, site.name.1),
            who: self.who().cloned(),
            csrf: self.csrf().unwrap_or_default().into(),
            path: path.clone(),
            menu,
        }
    }

    /// Who they are, if they are signed in with this role.
    ///
    /// # Errors
    /// For those who are not signed in the way to the login, for others that it is not open to them.
    pub fn demand(&self, role: &str) -> Result<&Who, Denied> {
        match self.who() {
            Some(who) if who.role == role => Ok(who),
            Some(_) => Err(Denied::Fault(Fault::forbidden())),
            None => Err(Denied::SignIn(format!("/login?next={}", percent(&self.0.path)))),
        }
    }
}

/// Why somebody does not get a page.
#[derive(Debug)]
pub enum Denied {
    /// They may not, or it cannot be told.
    Fault(Fault),
    /// They are not signed in: where they do that.
    SignIn(String),
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Fault(fault) => fault.into_response(),
            Self::SignIn(to) => Redirect::to(&to).into_response(),
        }
    }
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Denied> for Response {
    fn from(denied: Denied) -> Self {
        denied.into_response()
    }
}

impl Visitor {
    /// Somebody who reads a page of `site` in this language and is not signed in.
    pub fn passing(site: Site, language: Language, path: &str) -> Self {
        Self(Arc::new(Seen { site, language, path: path.into(), session: None }))
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Fault::unavailable("a page is served without its gate"))
    }
}

/// Every byte of a path and query that means something inside a query, escaped.
fn percent(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Path and query of an address, without the choice of a language.
fn path(uri: &Uri) -> String {
    let kept: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|p| !p.starts_with("lang=")).collect();
    let query = kept.join("&");
    if query.is_empty() { uri.path().to_string() } else { format!("{}?{query}", uri.path()) }
}

/// `routes` with the login and the files beside the pages, behind `gate`, as the listener at `address` serves them.
pub fn guarded(routes: Router, gate: Arc<Gate>, address: SocketAddr) -> Router {
    let names = Arc::new(Names::new(&own_names(address), gate.origin.as_ref()));
    let pass = move |request: Request, next: Next| {
        let (gate, names) = (gate.clone(), names.clone());
        async move { gate.pass(&names, request, next).await }
    };
    let all = routes.merge(login::routes()).merge(assets::routes());
    all.fallback(async || Fault::not_found()).layer(DefaultBodyLimit::max(MAX_FORM_BYTES)).layer(from_fn(pass))
}

impl Gate {
    async fn pass(self: Arc<Self>, names: &Names, mut request: Request, next: Next) -> Response {
        let uri = request.uri().clone();
        let meant = names.are_meant(request.method(), request.headers(), &uri);
        let asset = uri.path().starts_with("/assets/");
        let nobody = HeaderMap::new();
        let visitor = self.visitor(if asset { &nobody } else { request.headers() }, &uri);
        let busy = visitor.is_err();
        let visitor = visitor.unwrap_or_else(|visitor| visitor);
        let signed_in = visitor.who().is_some() || uri.path() == "/login";
        let answered = async {
            if !meant {
                return Fault::forbidden().into_response();
            }
            if busy {
                return Fault::too_many().into_response();
            }
            request.extensions_mut().insert(visitor.clone());
            request.extensions_mut().insert(self.clone());
            next.run(request).await
        };
        let late = |_| Fault::unavailable("a page took too long").into_response();
        let answered = timeout(REQUEST_TIME, answered).await.unwrap_or_else(late);
        let mut response = dressed(answered, &visitor);
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = if signed_in { "no-store" } else { "no-cache" };
        if self.origin.is_some() {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(kept));
        if !asset {
            headers.insert(header::VARY, HeaderValue::from_static("Cookie, Accept-Language"));
            if let Some(language) = Language::asked(uri.query()) {
                let cookie = Cookie::build((language::COOKIE, language.code())).same_site(SameSite::Lax).path("/");
                let cookie = cookie.secure(self.origin.is_some()).permanent().build();
                set_cookie(headers, &cookie);
            }
        }
        response
    }
}

/// Adds a cookie to an answer.
pub(super) fn set_cookie(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    if let Ok(value) = HeaderValue::from_str(&cookie.to_string()) {
        headers.append(header::SET_COOKIE, value);
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage<'a> {
    page: Page,
    code: &'static str,
    detail: Option<&'a str>,
    todo: &'static str,
}

/// An answer that is a fault, or an error that has no page of its own, as a page in the visitor's language.
fn dressed(response: Response, visitor: &Visitor) -> Response {
    let status = response.status();
    let fault = response.extensions().get::<Fault>().cloned();
    let html =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if fault.is_none() && (html || !(status.is_client_error() || status.is_server_error())) {
        return response;
    }
    let kind = fault.as_ref().map_or_else(|| FaultKind::of(status), Fault::kind);
    let [title, todo] = kind.words();
    let detail = fault.as_ref().and_then(|fault| fault.detail.as_ref());
    let template = FaultPage {
        page: visitor.page(visitor.say(title.0, title.1)),
        code: kind.code(),
        detail: detail.map(|(english, japanese)| visitor.say(english, japanese)),
        todo: visitor.say(todo.0, todo.1),
    };
    // The frame has nothing that can fail to be written; if it did, the bare status is still true.
    let mut page = show(&template).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    *page.status_mut() = status;
    page
}
