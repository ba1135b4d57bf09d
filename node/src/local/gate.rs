//! What every request passes first: it is meant for this machine, it comes to an end, and its caller is known.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use sekisho_protocol::{
    loopback::{is_meant, own_names},
    token_file::Line,
};
use tokio::time::timeout;

use super::{Local, Problem, ProblemKind};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);

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
        Some((_, token)) => local.tokens.find(token.trim()),
        None => Ok(None),
    };
    match found {
        Ok(Some(system)) => {
            request.extensions_mut().insert(Caller(system.name().into()));
            next.run(request).await
        }
        Ok(None) => {
            let many = local.wrong.one_more(local.clock.now());
            Problem::of(if many { ProblemKind::TooManyWrongTokens } else { ProblemKind::TokenUnknown }).into_response()
        }
        Err(error) => super::unavailable(error).into_response(),
    }
}
