//! `/`: whether the node can do its work, what waits for a person, and what persons did last.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::{
    pages::{Fault, Page, show as shown},
    refusal::Refusal,
    watching::{Check, Watched},
};

use super::{Console, Looks, words};
use crate::{
    answer::Answering,
    ledger::{Act, Operation, Suspended},
    watch::Scrape,
};

/// How many of the last operations are shown.
const LAST: u32 = 8;

/// How long a document still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Holds,
    /// Less than a quarter of its life is left.
    EndsSoon,
    /// It has expired, or never came.
    Over,
}

/// The roster or the status.
pub(super) struct Paper {
    pub(super) name: words::Pair,
    pub(super) seq: u64,
    pub(super) freshness: Freshness,
    pub(super) expires: Option<DateTime<Utc>>,
    pub(super) hours: i64,
}

impl Paper {
    fn of(
        name: words::Pair,
        seq: u64,
        life: Result<(DateTime<Utc>, DateTime<Utc>), Refusal>,
        now: DateTime<Utc>,
    ) -> Self {
        let Ok((issued, expires)) = life else {
            return Self { name, seq, freshness: Freshness::Over, expires: None, hours: 0 };
        };
        let left = expires - now;
        let soon = left < (expires - issued) / 4;
        let freshness = if left <= TimeDelta::zero() {
            Freshness::Over
        } else if soon {
            Freshness::EndsSoon
        } else {
            Freshness::Holds
        };
        Self { name, seq, freshness, expires: Some(expires), hours: left.num_hours() }
    }
}

/// A data set and the snapshot that is answered from.
pub(super) struct HeldSet {
    pub(super) id: String,
    pub(super) synthetic: bool,
    /// The short id of the snapshot, when it was taken, and its tables; none while it cannot be used.
    pub(super) snapshot: Option<(String, DateTime<Utc>, Vec<String>)>,
}

/// The node's own log.
pub(super) struct Tree {
    pub(super) entries: u64,
    pub(super) root: String,
    /// How many entries of the coordinator's log this hospital witnessed.
    pub(super) witnessed: u64,
}

/// Everything on the page.
pub(super) struct Overview {
    pub(super) name: String,
    pub(super) peer: String,
    pub(super) reached: Option<DateTime<Utc>>,
    pub(super) papers: [Paper; 2],
    pub(super) checks: Vec<Check>,
    /// Why the node answers nothing: its database is older than what the network saw.
    pub(super) rolled_back: Option<String>,
    pub(super) tree: Option<Tree>,
    pub(super) sets: Vec<HeldSet>,
    pub(super) waiting: u64,
    /// Exact results that wait for a person.
    pub(super) exact: usize,
    pub(super) unseen: u64,
    pub(super) everything: bool,
    pub(super) suspended: usize,
    pub(super) operations: Vec<Operation>,
}

impl Overview {
    pub(super) async fn of(node: &Arc<Answering>) -> Result<Self, Fault> {
        let (now, documents) = (node.clock.now(), &node.documents);
        let seqs = documents.seqs().await?;
        let roster = documents.roster(now).await.map(|roster| (roster.issued, roster.expires));
        let status = documents.status(now).await.map(|status| (status.issued, status.expires));
        let papers = [
            Paper::of(("Roster", "名簿"), seqs.roster, roster, now),
            Paper::of(("Status", "状態文書"), seqs.status, status, now),
        ];
        let [_, _, waiting] = documents.permit_counts().await?;
        let suspensions = node.ledger.suspensions().await.map_err(Fault::unavailable)?;
        let everything = suspensions.iter().any(|suspension| suspension.what == Suspended::Everything);
        Ok(Self {
            name: node.trust.name.clone(),
            peer: node.trust.coordinator_peer.clone(),
            reached: node.watch.reached_since(),
            papers,
            checks: Scrape::of(Arc::clone(node)).checks().await,
            rolled_back: node.standing.check().err().map(|refusal| refusal.detail),
            tree: tree(node).await,
            sets: node.data.iter().map(|set| held(set)).collect(),
            waiting,
            exact: node.ledger.exact_requests(true).await.map_err(Fault::unavailable)?.len(),
            unseen: node.ledger.unseen_alerts().await.map_err(Fault::unavailable)?.1,
            everything,
            suspended: suspensions.len() - usize::from(everything),
            operations: node.ledger.operations(LAST).await.map_err(Fault::unavailable)?,
        })
    }

    /// Whether queries are answered now, as far as the node itself can tell.
    fn answers(&self) -> bool {
        self.rolled_back.is_none() && !self.everything && self.checks.iter().all(|check| check.fault.is_none())
    }
}

async fn tree(node: &Answering) -> Option<Tree> {
    // What the log says of itself now; a node that was rolled back has one too.
    let own = node.checkpoint(0).await.ok()?;
    let head = own.checkpoint.claimed().head();
    let witnessed = node.witnessed().await.unwrap_or(0);
    Some(Tree { entries: head.size(), root: head.root().to_string(), witnessed })
}

fn held(set: &crate::holding::DataSet) -> HeldSet {
    let snapshot = set.held().ok().map(|snapshot| {
        let tables = snapshot.tables().map(str::to_owned).collect();
        (snapshot.id().chars().take(12).collect(), snapshot.taken_at(), tables)
    });
    HeldSet { id: set.mapping().id().into(), synthetic: set.synthetic(), snapshot }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct View {
    page: Page,
    all: Overview,
}

pub(super) async fn show(State(console): State<Arc<Console>>, Looks(visitor): Looks) -> Result<Response, Fault> {
    let all = Overview::of(&console.node).await?;
    let title = visitor.say("Overview of ", "概要：").to_string() + &all.name;
    shown(&View { page: visitor.page(title), all })
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::refusal::Code;

    use super::*;

    #[test]
    fn a_document_ends_soon_when_less_than_a_quarter_of_its_life_is_left() {
        let at = |hours| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hours);
        for (now, expect, hours) in [
            (0, Freshness::Holds, 24),
            (18, Freshness::Holds, 6),
            (19, Freshness::EndsSoon, 5),
            (24, Freshness::Over, 0),
            (30, Freshness::Over, -6),
        ] {
            let paper = Paper::of(("", ""), 1, Ok((at(0), at(24))), at(now));
            assert_eq!((paper.freshness, paper.hours), (expect, hours), "at {now}");
        }
        let never = Paper::of(("", ""), 0, Err(Refusal::new(Code::StaleStatus, "")), at(0));
        assert_eq!((never.freshness, never.expires), (Freshness::Over, None));
    }
}
