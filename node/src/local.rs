//! The local endpoint: where the hospital's own systems record what patients said, and ask what became of it.
//!
//! Promises: it listens on loopback only, and only if the configuration says so; each request names its caller by a token, of
//! which the node keeps the hash; each change is recorded with that name and the hour, whole or not at all, and once under one
//! key; a request whose `Host` is not this machine's is refused, so that no web page reaches it by a name of its own. Bodies, time,
//! connections and wrong tokens are bounded. Answers are JSON, errors `application/problem+json` (RFC 9457) with stable codes.
//!
//! Deliberately absent: cookies, CORS, TLS (it never leaves the machine), counts over patients, anything about queries beyond
//! which studies used the data set, and a log line that names a patient.

mod events;
mod gate;
mod problem;
mod tokens;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::PathRejection},
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use sekisho_protocol::{
    clock::Clock,
    loopback,
    token_file::{TokenFile, WrongTokens},
};
use serde_json::{Value, json};
use tracing::{info, warn};

pub use self::events::{MAX_BODY_BYTES, MAX_EVENTS};
pub use self::gate::guarded;
pub use self::problem::{Problem, ProblemKind};
pub use self::tokens::System;
pub use sekisho_protocol::loopback::Running;

use crate::{answer::Answering, uses::Uses};

/// What the endpoint answers from.
pub struct Local {
    uses: Uses,
    clock: Arc<dyn Clock>,
    tokens: TokenFile<System>,
    wrong: WrongTokens,
}

impl Local {
    /// The endpoint of a node, with the tokens in this file.
    pub fn new(node: &Answering, tokens: TokenFile<System>) -> Self {
        Self { uses: Uses::from(node), clock: Arc::clone(&node.clock), tokens, wrong: WrongTokens::default() }
    }
}

/// The API of the patients, version 1: every route asks for a token. It is to be served [`guarded`].
pub fn router(local: Arc<Local>) -> Router {
    Router::new()
        .route("/v1/patients/events", post(events::record))
        .route("/v1/patients/{id}", get(status))
        .route("/v1/patients/{id}/uses", get(uses))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route_layer(from_fn_with_state(Arc::clone(&local), gate::caller))
        .method_not_allowed_fallback(async || Problem::of(ProblemKind::MethodNotAllowed))
        .with_state(local)
}

async fn status(
    State(local): State<Arc<Local>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id.map_err(|_| Problem::of(ProblemKind::NotFound))?;
    let status = local.uses.register.status(&id).await.map_err(unavailable)?.unwrap_or_default();
    Ok(Json(status.to_json(local.uses.own_rule, local.clock.today()).map_err(unavailable)?))
}

async fn uses(
    State(local): State<Arc<Local>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id.map_err(|_| Problem::of(ProblemKind::NotFound))?;
    let uses = local.uses.of(&id).await.map_err(unavailable)?;
    let means = "These studies used the data set on days on which the patient counted; whether a query selected the patient's \
        records is not looked up.";
    let means_ja = "この患者が対象であった日に、データセットが集計に使われた研究です。個々の集計がこの患者の記録を選んだかどうかは調べていません。";
    Ok(Json(json!({"uses": uses, "means": means, "means_ja": means_ja})))
}

/// What a caller hears when the database fails; the log hears why, which holds no value of the register.
fn unavailable(error: impl std::fmt::Display) -> Problem {
    warn!(%error, "the local endpoint cannot answer");
    Problem::of(ProblemKind::Unavailable)
}

/// Serves `routes` at `address`, which is of loopback, until it is stopped.
///
/// # Errors
/// When the address is another one, or is taken.
pub async fn serve(address: SocketAddr, routes: Router) -> io::Result<Running> {
    let running = loopback::serve(address, |address| guarded(routes, address).layer(from_fn(gate::in_time))).await?;
    info!(address = %running.address(), "the local endpoint listens");
    Ok(running)
}
