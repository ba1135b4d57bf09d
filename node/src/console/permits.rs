//! `/permits`: which permits wait for a person, what each asks in plain words, and the two buttons.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    pages::{Fault, Page, Posted, show},
    permit::{Permit, PermittedTable},
    receipt::{Acceptance, DecidedBy},
    refusal::Code,
    units::MicroRho,
};
use serde::Deserialize;

use super::{Acts, Console, Looks, given, then, words};
use crate::{
    answer::Answering,
    documents::StoredPermit,
    permits::{ByHand, Holder},
    policy::{Finding, Level},
};

/// The most permits in one list.
const MOST: usize = 500;

/// What the hospital answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Waiting,
    Accepted,
    Refused(Code),
}

/// What becomes of a permit if a person accepts it now.
pub(super) enum Judged {
    /// The policy lets a person accept it.
    ByHand(Vec<Finding>),
    /// It would be accepted without a person.
    AtOnce(Vec<Finding>),
    /// It cannot be accepted: why.
    Not(String),
}

/// A permit, with this hospital's answer.
pub(super) struct Seen {
    pub(super) digest: Digest,
    pub(super) permit: Permit,
    /// What it opens here.
    pub(super) here: Vec<PermittedTable>,
    pub(super) answer: Answer,
    pub(super) by_hand: bool,
    pub(super) at: DateTime<Utc>,
    pub(super) reason: Option<String>,
    pub(super) set_aside: Option<MicroRho>,
}

impl Seen {
    /// Reads a permit that was verified when it arrived; for display only.
    fn of(stored: &StoredPermit, name: &str) -> Result<Self, Fault> {
        let (permit, digest) = stored.envelope()?.peek::<Permit>().map_err(Fault::unavailable)?;
        let here = permit.data.iter().filter(|table| table.holder_nodes.iter().any(|holder| holder == name));
        let accepted =
            stored.acceptance().and_then(|answer| answer.peek::<Acceptance>().ok()).map(|(answer, _)| answer);
        Ok(Self {
            digest,
            here: here.cloned().collect(),
            answer: match stored.refused() {
                None => Answer::Accepted,
                Some(Code::PermitWaiting) => Answer::Waiting,
                Some(code) => Answer::Refused(code),
            },
            by_hand: stored.decided_by == DecidedBy::Hand,
            at: stored.at,
            reason: stored.reason.clone(),
            set_aside: accepted.map(|answer| answer.earmark).filter(|earmark| *earmark > MicroRho::ZERO),
            permit,
        })
    }

    /// The permits that arrived: those that wait come first, then the latest answers.
    pub(super) async fn all(node: &Answering) -> Result<Vec<Self>, Fault> {
        let stored = node.documents.permits().await?;
        let mut all = stored.iter().map(|stored| Self::of(stored, &node.trust.name)).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(|seen| (seen.answer != Answer::Waiting, std::cmp::Reverse(seen.at)));
        all.truncate(MOST);
        Ok(all)
    }
}

/// The permit in an address, as it is stored.
async fn stored(node: &Answering, digest: &str) -> Result<StoredPermit, Fault> {
    let digest: Digest = digest.parse().map_err(|_| Fault::not_found())?;
    node.documents.permit(digest).await?.ok_or_else(Fault::not_found)
}

/// What the hospital's policy says of a permit, now.
async fn judged(node: &Answering, stored: &StoredPermit) -> Result<Judged, Fault> {
    let now = node.clock.now();
    let judge = async {
        let status = node.documents.status(now).await?;
        let permit = node.documents.believe_permit(&stored.envelope()?.to_json(), &status).await?;
        let holder = Holder::of(node);
        let level = holder.judge(&permit, &status, now)?;
        Ok::<_, sekisho_protocol::refusal::Refusal>((level, node.policy.answer(&holder.offered(&permit)?)?.1))
    };
    Ok(match judge.await {
        Ok((Level::AtOnce, findings)) => Judged::AtOnce(findings),
        Ok((Level::ByHand | Level::Refused, findings)) => Judged::ByHand(findings),
        Err(refusal) => Judged::Not(refusal.to_string()),
    })
}

#[derive(Template)]
#[template(path = "permits.html")]
struct ListView {
    page: Page,
    permits: Vec<Seen>,
}

#[derive(Template)]
#[template(path = "permit.html")]
struct OneView {
    page: Page,
    seen: Seen,
    judged: Judged,
    operator: bool,
}

#[derive(Deserialize)]
pub(super) struct Decided {
    #[serde(default)]
    reason: String,
}

pub(super) async fn list(State(console): State<Arc<Console>>, Looks(visitor): Looks) -> Result<Response, Fault> {
    let permits = Seen::all(&console.node).await?;
    show(&ListView { page: visitor.page(visitor.say("Permits", "許可証")), permits })
}

pub(super) async fn one(
    State(console): State<Arc<Console>>,
    looks: Looks,
    Path(digest): Path<String>,
) -> Result<Response, Fault> {
    let stored = stored(&console.node, &digest).await?;
    let seen = Seen::of(&stored, &console.node.trust.name)?;
    let judged = judged(&console.node, &stored).await?;
    let title = looks.0.say("Permit ", "許可証 ").to_string() + &seen.permit.id;
    show(&OneView { page: looks.0.page(title), seen, judged, operator: looks.is_operator() })
}

pub(super) async fn accept(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(digest): Path<String>,
    Posted(Decided { reason }): Posted<Decided>,
) -> Result<Response, Fault> {
    let (node, reason) = (&console.node, given(&reason)?);
    let stored = stored(node, &digest).await?;
    // As no permit is taken then.
    node.standing.check()?;
    by_hand(node, &acts).accept(&stored, &Holder::of(node), Some(reason), node.clock.now()).await?;
    tracing::info!(permit = %stored.digest.short(), study = %stored.study_id, by = acts.by, "permit accepted at the console");
    Ok(then(&format!("/permits/{}", stored.digest)))
}

pub(super) async fn refuse(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(digest): Path<String>,
    Posted(Decided { reason }): Posted<Decided>,
) -> Result<Response, Fault> {
    let (node, reason) = (&console.node, given(&reason)?);
    let stored = stored(node, &digest).await?;
    by_hand(node, &acts).refuse(&stored, reason, node.clock.now()).await?;
    tracing::info!(permit = %stored.digest.short(), study = %stored.study_id, by = acts.by, "permit refused at the console");
    Ok(then(&format!("/permits/{}", stored.digest)))
}

fn by_hand<'a>(node: &'a Answering, acts: &'a Acts) -> ByHand<'a> {
    ByHand {
        name: &node.trust.name,
        ledger: &node.ledger,
        documents: &node.documents,
        key: &node.signing,
        by: &acts.by,
    }
}
