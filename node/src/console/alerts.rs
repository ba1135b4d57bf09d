//! `/alerts`: what the node found out of the ordinary, and that somebody looked at it.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};
use sekisho_protocol::{
    alert::Alert,
    dsse::Envelope,
    pages::{Fault, Page, Posted, show},
};
use serde::Deserialize;

use super::{Acts, Console, Looks, then, words};
use crate::answer::Answering;

/// How many are listed.
const MOST: u32 = 100;

/// An alert with its number.
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) alert: Alert,
    pub(super) seen: bool,
}

/// The alerts, the newest first.
pub(super) async fn numbered(node: &Answering) -> Result<Vec<Numbered>, Fault> {
    let envelopes = node.ledger.alerts(MOST).await.map_err(Fault::unavailable)?;
    let (newest, unseen) = node.ledger.unseen_alerts().await.map_err(Fault::unavailable)?;
    // An alert may have come in between: it is not seen.
    let first_seen = newest.saturating_sub(unseen);
    let read = |bytes: &Vec<u8>| Envelope::from_json::<Alert>(bytes).and_then(|envelope| envelope.peek::<Alert>());
    let mut alerts = Vec::new();
    for (number, bytes) in (1..=newest).rev().zip(&envelopes) {
        let (alert, _) = read(bytes).map_err(Fault::unavailable)?;
        alerts.push(Numbered { number, alert, seen: number <= first_seen });
    }
    Ok(alerts)
}

#[derive(Template)]
#[template(path = "alerts.html")]
struct View {
    page: Page,
    alerts: Vec<Numbered>,
    operator: bool,
}

impl View {
    fn unseen(&self) -> bool {
        self.alerts.iter().any(|alert| !alert.seen)
    }

    fn newest(&self) -> u64 {
        self.alerts.first().map_or(0, |alert| alert.number)
    }
}

#[derive(Deserialize)]
pub(super) struct Upto {
    upto: u64,
}

pub(super) async fn list(State(console): State<Arc<Console>>, looks: Looks) -> Result<Response, Fault> {
    let alerts = numbered(&console.node).await?;
    show(&View { page: looks.0.page(looks.0.say("Alerts", "警報")), alerts, operator: looks.is_operator() })
}

pub(super) async fn seen(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Posted(Upto { upto }): Posted<Upto>,
) -> Result<Response, Fault> {
    let said = acts.says("", &*console.node.clock);
    console.node.ledger.see_alerts(upto, &said).await.map_err(Fault::unavailable)?;
    Ok(then("/alerts"))
}
