//! What every request passes first: it is meant for this machine, it comes to an end, and its caller is known.

use std::{net::SocketAddr, sync::Arc, sync::Mutex, sync::PoisonError, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::loopback::{is_meant, own_names};
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
    let hosts: Arc<[String]> = own_names(address).into();
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
    fn so_many_wrong_tokens_are_looked_at_in_a_minute() {
        let (wrong, at) = (WrongTokens::default(), |s| DateTime::from_timestamp(1_750_000_000 + s, 0).unwrap());
        for n in 0..MAX_WRONG_TOKENS {
            assert_eq!(wrong.one_more(at(i64::from(n))), ProblemKind::TokenUnknown);
        }
        assert_eq!(wrong.one_more(at(59)), ProblemKind::TooManyWrongTokens);
        assert_eq!(wrong.one_more(at(60)), ProblemKind::TokenUnknown);
    }
}
