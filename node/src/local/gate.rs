//! What every request passes first: it is meant for this machine, it comes to an end, and its caller is known.

use std::{net::SocketAddr, sync::Arc, sync::Mutex, sync::PoisonError, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;
use tracing::warn;

use super::{Local, Problem, ProblemKind};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How many wrong tokens are looked at in a minute.
const MAX_WRONG_TOKENS: u32 = 20;

/// Who sent a request: the name of their token.
#[derive(Clone)]
pub(super) struct Caller(pub(super) String);

/// `routes` behind the check that a request is meant for the listener at `address`. Nothing that was answered is kept by
/// whoever asked, and an unknown path is a problem like others.
pub fn guarded(routes: Router, address: SocketAddr) -> Router {
    let hosts: Arc<[String]> = [address.to_string(), format!("localhost:{}", address.port())].into();
    let meant = move |request: Request, next: Next| {
        let meant = is_meant(request.headers(), request.uri(), &hosts);
        async move {
            let mut response =
                if meant { next.run(request).await } else { Problem::of(ProblemKind::HostNotLocal).into_response() };
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
    };
    routes.fallback(async || Problem::of(ProblemKind::NotFound)).layer(from_fn(meant))
}

/// Whether the request was sent to one of `hosts`, and not by another site's page. A page that had its own name resolved to
/// loopback still sends that name.
fn is_meant(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> bool {
    let known = |host: &str| hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
    let mut named = headers.get_all(header::HOST).iter();
    let one = named.next().and_then(|host| host.to_str().ok()).is_some_and(known) && named.next().is_none();
    let origin = |origin: &HeaderValue| origin.to_str().ok().and_then(|o| o.strip_prefix("http://")).is_some_and(known);
    one && uri.authority().is_none_or(|to| known(to.as_str())) && headers.get_all(header::ORIGIN).iter().all(origin)
}

/// Ends a request that takes too long; whatever it did not commit is not done.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::of(ProblemKind::Unavailable).into_response(),
    }
}

/// Lets in who has a token, and tells the handler their name.
pub(super) async fn caller(State(local): State<Arc<Local>>, mut request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        token.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let found = match token {
        // The file is small, and on this machine.
        Some((_, token)) => local.tokens.caller(token.trim()),
        None => Ok(None),
    };
    match found {
        Ok(Some(name)) => {
            request.extensions_mut().insert(Caller(name));
            next.run(request).await
        }
        Ok(None) => Problem::of(local.wrong.one_more(local.clock.now())).into_response(),
        Err(error) => super::unavailable(error).into_response(),
    }
}

/// Counts wrong tokens. A right one is let in whatever came before it: a token cannot be guessed, and a program that tries
/// must not keep an opt-out from being recorded.
#[derive(Default)]
pub(super) struct WrongTokens(Mutex<Option<(DateTime<Utc>, u32)>>);

impl WrongTokens {
    /// What to say to one more wrong token at the hour `now`.
    fn one_more(&self, now: DateTime<Utc>) -> ProblemKind {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = counted.filter(|(since, _)| now - *since < TimeDelta::minutes(1)).unwrap_or((now, 0));
        *counted = Some((since, count.saturating_add(1)));
        if count < MAX_WRONG_TOKENS {
            return ProblemKind::TokenUnknown;
        }
        if count == MAX_WRONG_TOKENS {
            warn!("many requests with wrong tokens come to the local endpoint");
        }
        ProblemKind::TooManyWrongTokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_to_this_machines_own_name_is_meant() {
        let hosts = ["127.0.0.1:8816".to_string(), "localhost:8816".to_string()];
        for (uri, headers, expect) in [
            ("/v1", &[("host", "127.0.0.1:8816")][..], true),
            ("/v1", &[("host", "LOCALHOST:8816")], true),
            ("/v1", &[], false),
            ("/v1", &[("host", "127.0.0.1")], false),
            ("/v1", &[("host", "127.0.0.1:80")], false),
            ("/v1", &[("host", "rebound.example:8816")], false),
            ("/v1", &[("host", "127.0.0.1:8816"), ("host", "rebound.example")], false),
            ("http://rebound.example:8816/v1", &[("host", "127.0.0.1:8816")], false),
            ("http://127.0.0.1:8816/v1", &[("host", "127.0.0.1:8816")], true),
            ("/v1", &[("host", "localhost:8816"), ("origin", "http://localhost:8816")], true),
            ("/v1", &[("host", "localhost:8816"), ("origin", "http://page.example")], false),
            ("/v1", &[("host", "localhost:8816"), ("origin", "null")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_meant(&map, &Uri::from_static(uri), &hosts), expect, "{uri} {headers:?}");
        }
    }

    #[test]
    fn so_many_wrong_tokens_are_looked_at_in_a_minute() {
        let (wrong, at) = (WrongTokens::default(), |s| DateTime::from_timestamp(1_750_000_000 + s, 0).unwrap());
        for n in 0..MAX_WRONG_TOKENS {
            assert_eq!(wrong.one_more(at(i64::from(n))), ProblemKind::TokenUnknown);
        }
        assert_eq!(wrong.one_more(at(59)), ProblemKind::TooManyWrongTokens);
        assert_eq!(wrong.one_more(at(60)), ProblemKind::TokenUnknown);
    }
}
