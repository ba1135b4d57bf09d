//! The transparency log: its newest witnessed checkpoint, who cosigned it, its files, and how to verify all of that without us.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use sekisho_protocol::{
    log::tile::Tile,
    pages::{Fault, Page, Visitor, show},
    roster::Role,
};

use crate::{pages::Pages, tiles, witnesses};

/// A hospital, and when it cosigned.
struct Witness {
    name: String,
    at: Option<DateTime<Utc>>,
}

/// The newest checkpoint.
struct Newest {
    origin: String,
    size: u64,
    root: String,
    text: String,
    at: Option<DateTime<Utc>>,
    witnesses: Vec<Witness>,
    /// The addresses of the tiles of the checkpoint's tree, the highest level first.
    tiles: Vec<String>,
    /// How many tiles are not listed.
    more: usize,
}

impl Newest {
    /// How many hospitals cosigned it.
    fn cosigned(&self) -> usize {
        self.witnesses.iter().filter(|witness| witness.at.is_some()).count()
    }
}

/// What can be said of the log.
enum Standing {
    /// Nobody witnessed it yet.
    None,
    /// The newest checkpoint does not verify with the keys of the newest roster.
    Doubtful,
    /// The newest checkpoint, which does.
    Newest(Newest),
}

/// How many tiles are listed.
const LISTED: usize = 12;

#[derive(Template)]
#[template(path = "public/log.html")]
struct LogPage {
    page: Page,
    standing: Standing,
    has_policy: bool,
    address: String,
}

pub(super) async fn page(State(pages): State<Arc<Pages>>, visitor: Visitor) -> Result<Response, Fault> {
    show(&LogPage {
        page: visitor.page(visitor.say("Transparency log", "透明性ログ")),
        standing: newest(&pages).await?,
        has_policy: text_of_policy(&pages).is_some(),
        address: pages.address.clone(),
    })
}

async fn newest(pages: &Pages) -> Result<Standing, Fault> {
    let Some(checkpoint) = pages.store.own_checkpoint().await.map_err(Fault::unavailable)? else {
        return Ok(Standing::None);
    };
    let confirmed = match witnesses::confirmed(&pages.documents, checkpoint) {
        Ok(confirmed) => confirmed,
        Err(error) => {
            tracing::error!(error, "the newest checkpoint does not verify with the newest roster");
            return Ok(Standing::Doubtful);
        }
    };
    let claimed = confirmed.checkpoint.claimed();
    let current = pages.documents.current();
    let members = current.pinned_roster().map(|roster| roster.members.as_slice()).unwrap_or_default();
    let cosigned = |name: &str| confirmed.witnesses.iter().find(|(witness, _)| witness == name).map(|(_, at)| *at);
    let hospitals = members.iter().filter(|member| member.role == Role::Node);
    let all = hospitals.map(|member| Witness { name: member.name.clone(), at: cosigned(&member.name) }).collect();
    let mut tiles: Vec<Tile> = Tile::between(0, claimed.head().size()).collect();
    tiles.sort_by_key(|tile| (std::cmp::Reverse(tile.level()), tile.index()));
    let more = tiles.len().saturating_sub(LISTED);
    Ok(Standing::Newest(Newest {
        origin: claimed.origin().to_string(),
        size: claimed.head().size(),
        root: claimed.head().root().to_string(),
        text: confirmed.checkpoint.to_string(),
        at: confirmed.witnesses.iter().map(|(_, at)| *at).max(),
        witnesses: all,
        tiles: tiles.iter().take(LISTED).map(|tile| format!("/log/{tile}")).collect(),
        more,
    }))
}

/// The policy that the operator configured, or else one that asks for the hospitals of the roster.
fn text_of_policy(pages: &Pages) -> Option<String> {
    pages.policy.clone().or_else(|| witnesses::policy_of(&pages.documents, None, None).ok())
}

pub(super) async fn policy(State(pages): State<Arc<Pages>>) -> Result<Response, Fault> {
    let text = text_of_policy(&pages).ok_or_else(Fault::not_found)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response())
}

/// The log's files, at the paths of the specification under `/log`.
pub(super) async fn file(State(pages): State<Arc<Pages>>, Path(path): Path<String>) -> Result<Response, Fault> {
    tiles::answer(&pages.log, &path).await.ok_or_else(Fault::not_found)
}
