//! `/studies`: what each study may spend of the hospital's privacy budget and did, and the button that stops it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use sekisho_protocol::{
    catalogue,
    pages::{Fault, Page, Posted, show},
    roster::is_name,
    units::MicroRho,
};
use serde::Deserialize;

use super::{Acts, Console, Looks, given, then, words};
use crate::{
    answer::Answering,
    ledger::{Budget, StudyBudget, Suspended, Suspension, WindowBudget},
};

/// Whether a study is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StudyState {
    Answered,
    /// By name.
    Suspended,
    /// As every study is.
    WithAll,
    /// It rests after too many runs without an answer.
    Rests,
}

/// One study's share, and whether it is answered.
pub(super) struct Study {
    pub(super) budget: StudyBudget,
    /// The suspension by its name.
    pub(super) suspension: Option<Suspension>,
    pub(super) state: StudyState,
}

impl Study {
    fn of(budget: StudyBudget, suspension: Option<Suspension>, everything: bool) -> Self {
        let state = match (&suspension, everything, budget.suspended) {
            (Some(_), _, _) => StudyState::Suspended,
            (None, true, _) => StudyState::WithAll,
            (None, false, true) => StudyState::Rests,
            (None, false, false) => StudyState::Answered,
        };
        Self { budget, suspension, state }
    }

    fn left(&self) -> MicroRho {
        self.budget.earmark.saturating_sub(self.budget.spent)
    }

    /// The hospital's own counts for its catalogue.
    pub(super) fn is_own(&self) -> bool {
        self.budget.study_id == catalogue::STUDY
    }
}

/// Everything on the page.
pub(super) struct Studies {
    pub(super) budget: Budget,
    pub(super) window: Option<WindowBudget>,
    /// Since when no guarantee holds.
    pub(super) exact_since: Option<chrono::NaiveDate>,
    pub(super) studies: Vec<Study>,
    pub(super) everything: Option<Suspension>,
    /// What is suspended by name and has no budget here yet.
    pub(super) others: Vec<(String, Suspension)>,
}

impl Studies {
    pub(super) async fn of(node: &Answering) -> Result<Self, Fault> {
        let mut budget = node.ledger.budget().await.map_err(Fault::unavailable)?;
        let window = node.ledger.window(node.clock.now()).await.map_err(Fault::unavailable)?;
        let exact_since = node.ledger.exact_since().await.map_err(Fault::unavailable)?;
        let (mut everything, mut named) = (None, std::collections::BTreeMap::new());
        for suspension in node.ledger.suspensions().await.map_err(Fault::unavailable)? {
            match &suspension.what {
                Suspended::Everything => everything = Some(suspension),
                Suspended::Study(study) => drop(named.insert(study.clone(), suspension)),
            }
        }
        let studies = std::mem::take(&mut budget.studies).into_iter();
        let all = everything.is_some();
        let studies = studies.map(|budget| {
            let suspension = named.remove(&budget.study_id);
            Study::of(budget, suspension, all)
        });
        let studies = studies.collect();
        Ok(Self { budget, window, exact_since, studies, everything, others: named.into_iter().collect() })
    }

    fn left(&self) -> MicroRho {
        self.budget.cap.saturating_sub(self.budget.spent)
    }
}

#[derive(Template)]
#[template(path = "studies.html")]
struct View {
    page: Page,
    all: Studies,
    operator: bool,
}

#[derive(Deserialize)]
pub(super) struct Why {
    #[serde(default)]
    reason: String,
}

pub(super) async fn list(State(console): State<Arc<Console>>, looks: Looks) -> Result<Response, Fault> {
    let all = Studies::of(&console.node).await?;
    let page = looks.0.page(looks.0.say("Studies and the privacy budget", "研究とプライバシー予算"));
    show(&View { page, all, operator: looks.is_operator() })
}

fn study(name: String) -> Result<Suspended, Fault> {
    if is_name(&name) { Ok(Suspended::Study(name)) } else { Err(Fault::not_found()) }
}

pub(super) async fn suspend(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(name): Path<String>,
    Posted(why): Posted<Why>,
) -> Result<Response, Fault> {
    stop(&console.node, &acts, &study(name)?, &why).await
}

pub(super) async fn resume(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Path(name): Path<String>,
    Posted(why): Posted<Why>,
) -> Result<Response, Fault> {
    go_on(&console.node, &acts, &study(name)?, &why).await
}

pub(super) async fn suspend_all(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Posted(why): Posted<Why>,
) -> Result<Response, Fault> {
    stop(&console.node, &acts, &Suspended::Everything, &why).await
}

pub(super) async fn resume_all(
    State(console): State<Arc<Console>>,
    acts: Acts,
    Posted(why): Posted<Why>,
) -> Result<Response, Fault> {
    go_on(&console.node, &acts, &Suspended::Everything, &why).await
}

async fn stop(node: &Answering, acts: &Acts, what: &Suspended, why: &Why) -> Result<Response, Fault> {
    let reason = given(&why.reason)?;
    let said = acts.says(&reason, &*node.clock);
    node.ledger.suspend(what, &said).await.map_err(Fault::unavailable)?;
    tracing::info!(?what, by = acts.by, "suspended at the console");
    Ok(then("/studies"))
}

async fn go_on(node: &Answering, acts: &Acts, what: &Suspended, why: &Why) -> Result<Response, Fault> {
    let reason = given(&why.reason)?;
    let said = acts.says(&reason, &*node.clock);
    node.ledger.resume(what, &said).await.map_err(Fault::unavailable)?;
    tracing::info!(?what, by = acts.by, "resumed at the console");
    Ok(then("/studies"))
}
