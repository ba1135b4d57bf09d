//! `/queries`: the last charged queries and what left the hospital for each, and what was refused lately.
//!
//! The numbers of a release are noised, and were sent; what was computed before the noise is nowhere here.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, Query as Asked, State},
    response::Response,
};
use sekisho_protocol::{
    catalogue,
    digest::Digest,
    dsse::{Document, Envelope},
    pages::{Fault, Page, show},
    permit::Permit,
    query::Query,
    receipt::Receipt,
    roster::is_name,
};
use serde::Deserialize;

use super::{Console, Looks, words};
use crate::{
    answer::Answering,
    ledger::{Charged, RunState, Which},
    released::Table,
    watch::{self, RefusedMessage},
};

/// How many charges are listed.
const MOST: u32 = 50;

/// What became of a charged run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    NoAnswer,
    /// It was charged in a database that was lost, and is not run again.
    Lost,
    /// Charged, and nothing yet: it runs, or the node stopped in it.
    Open,
}

impl Outcome {
    fn of(charged: &Charged) -> Self {
        match (charged.released, charged.lost, charged.failed) {
            (true, _, _) => Self::Answered,
            (false, true, _) => Self::Lost,
            (false, false, true) => Self::NoAnswer,
            (false, false, false) => Self::Open,
        }
    }
}

/// A charged query.
pub(super) struct Row {
    pub(super) charged: Charged,
    pub(super) outcome: Outcome,
    /// The text, where it was kept.
    pub(super) sql: Option<String>,
}

impl Row {
    pub(super) fn run(&self) -> String {
        format!("{}/{}", self.charged.key.query_key.short(), self.charged.key.run)
    }
}

/// One charged query, with what left.
pub(super) struct Detail {
    pub(super) row: Row,
    pub(super) permit: Option<String>,
    /// The receipt's digest and the release's.
    pub(super) receipt: Option<(Digest, Digest)>,
    /// What was released, where this software reads it.
    pub(super) table: Option<Table>,
    /// It has no noise.
    pub(super) exact: bool,
}

/// A document in an envelope, or of the hospital's own counts as it is; for display only.
fn read<D: Document>(signed: bool, bytes: &[u8]) -> Option<D> {
    if !signed {
        return serde_json::from_slice(bytes).ok();
    }
    Some(Envelope::from_json::<D>(bytes).ok()?.peek::<D>().ok()?.0)
}

impl Row {
    pub(super) async fn last(node: &Answering, study: Option<String>) -> Result<Vec<Self>, Fault> {
        let which = Which { study, limit: MOST, ..Which::default() };
        let mut rows = Vec::new();
        for charged in node.ledger.charges(&which).await.map_err(Fault::unavailable)? {
            let asked = node.ledger.asked(&charged).await.map_err(Fault::unavailable)?;
            let sql = asked.and_then(|asked| read::<Query>(asked.signed, &asked.query)).map(|query| query.sql);
            rows.push(Self { outcome: Outcome::of(&charged), charged, sql });
        }
        Ok(rows)
    }
}

impl Detail {
    pub(super) async fn of(node: &Answering, charge: i64) -> Result<Self, Fault> {
        let kept = node.ledger.kept(charge).await.map_err(Fault::unavailable)?.ok_or_else(Fault::not_found)?;
        let asked = kept.asked.as_ref();
        let query = asked.and_then(|asked| read::<Query>(asked.signed, &asked.query));
        let permit = asked.and_then(|asked| read::<Permit>(asked.signed, &asked.permit));
        let (mut receipt, mut table, mut exact) = (None, None, false);
        if let RunState::Released(stored) = &kept.run.state {
            let envelope = Envelope::from_json::<Receipt>(&stored.receipt).and_then(|e| e.peek::<Receipt>());
            let envelope = envelope.ok();
            exact = envelope.as_ref().is_some_and(|(receipt, _)| !receipt.release_kind.is_noised());
            receipt = envelope.map(|(receipt, digest)| (digest, receipt.release));
            if let (Some(query), Some(permit)) = (&query, &permit) {
                table = Table::of(node, query, permit, stored).await;
            }
        }
        let permit = permit.map(|permit| format!("{}/{}", permit.id, permit.version));
        let row = Row { outcome: Outcome::of(&kept.charged), charged: kept.charged, sql: query.map(|query| query.sql) };
        Ok(Self { row, permit, receipt, table, exact })
    }

    /// The hospital's own counts for its catalogue have a permit that nobody granted.
    fn is_own(&self) -> bool {
        self.row.charged.study_id == catalogue::STUDY
    }
}

#[derive(Deserialize)]
pub(super) struct Narrowed {
    #[serde(default)]
    study: String,
}

#[derive(Template)]
#[template(path = "queries.html")]
struct ListView {
    page: Page,
    study: Option<String>,
    rows: Vec<Row>,
    refused: Vec<RefusedMessage>,
}

#[derive(Template)]
#[template(path = "query.html")]
struct OneView {
    page: Page,
    detail: Detail,
    config: String,
}

pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Looks(visitor): Looks,
    Asked(Narrowed { study }): Asked<Narrowed>,
) -> Result<Response, Fault> {
    let study = Some(study).filter(|study| is_name(study));
    let rows = Row::last(&console.node, study.clone()).await?;
    let mut refused = console.node.watch.recently_refused();
    refused.retain(|refused| study.is_none() || refused.study_id == study);
    show(&ListView { page: visitor.page(visitor.say("Queries", "照会")), study, rows, refused })
}

pub(super) async fn one(
    State(console): State<Arc<Console>>,
    Looks(visitor): Looks,
    Path(charge): Path<String>,
) -> Result<Response, Fault> {
    let charge: i64 = charge.parse().map_err(|_| Fault::not_found())?;
    let detail = Detail::of(&console.node, charge).await?;
    let page = visitor.page(format!("{} {charge}", visitor.say("Charged query", "課金された照会")));
    show(&OneView { page, detail, config: console.config.clone() })
}
