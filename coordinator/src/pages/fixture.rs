//! The pages of a coordinator without hospitals, for tests: who signs in, what they ask, and what they are answered.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, header},
};
use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    keys::SecretKey,
    pages::{Gate, PageToken, guarded},
    token_file::TokenFile,
    turns::Pace,
};
use tower::ServiceExt;

use super::{Pages, SITE, regulator::table::part, router};
use crate::{
    config::QueryLimits,
    daemon::Hooks,
    documents::{
        Documents,
        tests::{key, now},
    },
    network::Nodes,
    round::{RoundParts, Rounds},
    store::Store,
    tiles::Tiles,
    witnesses::Witnesses,
};

/// Half a day after the documents of the tests were signed.
pub(super) struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        now() + TimeDelta::hours(12)
    }
}

/// An answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn csrf(&self) -> String {
        self.hidden("csrf")
    }

    /// What a hidden field of this name brings along.
    fn hidden(&self, name: &str) -> String {
        let field = format!("name=\"{name}\" value=\"");
        self.text().split(&field).nth(1).unwrap().split('"').next().unwrap().into()
    }

    fn cookie(&self, name: &str) -> String {
        let mut set = self.headers.get_all(header::SET_COOKIE).iter().map(|set| set.to_str().unwrap());
        let set = set.find(|set| set.starts_with(&format!("{name}="))).unwrap();
        set.split(';').next().unwrap().into()
    }
}

/// Fields as a form sends them.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{}={}", part(name), part(value))).collect::<Vec<_>>().join("&")
}

/// Pages that are served.
pub(super) struct Served {
    pub(super) pages: Arc<Pages>,
    site: Router,
    tokens: TokenFile<PageToken>,
}

impl Served {
    /// The pages over a database, with log and tokens in the folder `dir`.
    pub(super) async fn new(dir: &Path, store: Store, documents: Arc<Documents>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Noon);
        let keys: Arc<[SecretKey]> = Arc::new([]);
        let tiles = Tiles::new(store.clone(), dir.join("log"));
        let witnesses = Arc::new(Witnesses::new(store.clone(), documents.clone(), keys.clone(), tiles, None));
        let listening =
            Nodes::listen(&key(), Vec::new(), documents.clone(), store.clone(), witnesses, clock.clone()).await;
        let nodes = Arc::new(listening.unwrap().0);
        let rounds = Arc::new(Rounds::new(RoundParts {
            documents: documents.clone(),
            nodes: nodes.clone(),
            store: store.clone(),
            signing_keys: keys,
            clock: clock.clone(),
            limits: QueryLimits { deadline: Duration::from_secs(1), concurrent: 1, pace: Pace::DEFAULT },
            hooks: Hooks::default(),
        }));
        let (log, address) = (dir.join("log"), "http://127.0.0.1:8818".into());
        let pages =
            Arc::new(Pages { documents, store, nodes, rounds, clock: clock.clone(), policy: None, log, address });
        let tokens = TokenFile::new(dir.join("tokens"));
        let gate = Arc::new(Gate::new(SITE, tokens.clone(), None, clock));
        let site = guarded(router(pages.clone()), gate, "127.0.0.1:8818".parse().unwrap());
        Self { pages, site, tokens }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, cookie: &str, form: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8818");
        let request = request.header("cookie", cookie).header("content-type", "application/x-www-form-urlencoded");
        let response = self.site.clone().oneshot(request.body(Body::from(form.to_string())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 8 << 20).await.unwrap().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.ask("GET", path, cookie, "").await
    }

    /// Signs in with a fresh token of this role; the session's cookie.
    pub(super) async fn enter(&self, role: &str, subject: Option<&str>) -> String {
        let name = format!("{role}-{}", Digest::of(subject.unwrap_or_default().as_bytes()).short());
        let line = |hash| PageToken::new(&name, role, Noon.now() + TimeDelta::days(1), subject, hash);
        let token = self.tokens.add(line, &mut rand::rng()).unwrap();
        let page = self.get("/login", "").await;
        let sent = form(&[("form", &page.hidden("form")), ("token", &token), ("next", "")]);
        let entered = self.ask("POST", "/login", &page.cookie("sekisho-pages-login"), &sent).await;
        entered.cookie("sekisho-pages-session")
    }
}
