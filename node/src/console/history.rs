//! `/log`: the last entries of the hospital's log, and how to check that it is whole.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use sekisho_protocol::{
    digest::Digest,
    log::{entry::Kind, store::Leaf},
    pages::{Fault, Page, show as shown},
};

use super::{Console, Looks, words};
use crate::answer::Answering;

/// How many entries are shown.
const LAST: u32 = 50;

/// One entry: never the statement, which the command line does not print either.
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) kind: Kind,
    /// SHA-256 of the statement; none when it was erased.
    pub(super) statement: Option<Digest>,
}

impl From<&Leaf> for Entry {
    fn from(leaf: &Leaf) -> Self {
        let statement = leaf.opened.as_ref().map(|opened| Digest::of(&opened.statement));
        Self { index: leaf.index, kind: leaf.kind, statement }
    }
}

/// The log as it is now.
pub(super) struct History {
    pub(super) size: u64,
    pub(super) root: Option<String>,
    pub(super) origin: Option<String>,
    /// The newest first.
    pub(super) last: Vec<Entry>,
}

impl History {
    pub(super) async fn of(node: &Answering) -> Result<Self, Fault> {
        let log = node.ledger.log();
        let size = log.len().await.map_err(Fault::unavailable)?;
        let last = log.entries(size.saturating_sub(LAST.into()), LAST).await.map_err(Fault::unavailable)?;
        let own = node.checkpoint(0).await.ok();
        let claimed = own.as_ref().map(|own| own.checkpoint.claimed());
        Ok(Self {
            size,
            root: claimed.map(|checkpoint| checkpoint.head().root().to_string()),
            origin: claimed.map(|checkpoint| checkpoint.origin().to_string()),
            last: last.iter().rev().map(Entry::from).collect(),
        })
    }
}

#[derive(Template)]
#[template(path = "log.html")]
struct View {
    page: Page,
    history: History,
    config: String,
}

pub(super) async fn show(State(console): State<Arc<Console>>, Looks(visitor): Looks) -> Result<Response, Fault> {
    let history = History::of(&console.node).await?;
    let page = visitor.page(visitor.say("Log", "ログ"));
    shown(&View { page, history, config: console.config.clone() })
}
