//! `/patients`: the hospital's rule, and for operators the totals of the register, as `sekisho-node patients status` prints them.
//!
//! No patient is named and none is looked up. The totals are of the register and not of the data; they never leave the hospital, and
//! neither do they go to those who may only look.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{extract::State, response::Response};
use sekisho_protocol::{
    pages::{Fault, Page, show as shown},
    permit::{OptOut, OptOutRule},
};
use tokio::{sync::Mutex, time::Instant};

use super::{Console, Looks, words};
use crate::{answer::Answering, register::Counts};

/// How long totals are shown before the register is read again, which takes a while where it is large.
const KEPT: Duration = Duration::from_secs(60);

/// The totals, and when they were counted. One request counts, the others wait for it.
#[derive(Default)]
pub(super) struct Counted(Mutex<Option<(Instant, Counts)>>);

impl Counted {
    async fn get(&self, node: &Answering) -> Result<Counts, Fault> {
        let mut kept = self.0.lock().await;
        if let Some((at, counts)) = &*kept
            && at.elapsed() < KEPT
        {
            return Ok(*counts);
        }
        let counts = node.register.counts(node.clock.today()).await.map_err(Fault::unavailable)?;
        *kept = Some((Instant::now(), counts));
        Ok(counts)
    }
}

#[derive(Template)]
#[template(path = "patients.html")]
struct View {
    page: Page,
    rule: OptOut,
    counts: Option<Counts>,
    config: String,
}

pub(super) async fn show(State(console): State<Arc<Console>>, looks: Looks) -> Result<Response, Fault> {
    let node = &console.node;
    let counts = if looks.is_operator() { Some(console.counted.get(node).await?) } else { None };
    let page = looks.0.page(looks.0.say("Patient register", "患者登録簿"));
    shown(&View { page, rule: node.own_rule, counts, config: console.config.clone() })
}
