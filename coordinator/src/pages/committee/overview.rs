//! What waits for a member of the committee: applications, results, and what the law wants done by which day.
//!
//! Promises: an application over which the member has a conflict of interest is listed as such, and nothing of it is
//! shown; of results those are not listed at all, as by `sekisho output list`.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    application::Application,
    committee::CommitteeMember,
    decision::RefusedApplication,
    digest::Digest,
    permit::Permit,
    publication::Publication,
    refusal::{Code, Refusal},
};

use crate::{
    documents::{Documents, unavailable},
    duties::{self, About, Duty, Known, Presets, State, Task, What, duties},
    held::{self, HeldReport},
    periods::Periods,
    report::{ApplicationReport, ApplicationState, ListWant},
    store::{Kind, Store},
};

/// What is due within so many days is soon.
const SOON_DAYS: u32 = 30;

/// Why a member takes no part in an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The member declared it.
    Declared,
    /// The application names the member's key among its people.
    Applies,
}

/// An application in the list.
#[derive(Debug)]
pub struct Row {
    /// How far it is.
    pub report: ApplicationReport,
    /// Why the member may not open it.
    pub conflict: Option<Conflict>,
    /// By when it is to be decided.
    pub decide: Option<Duty>,
}

/// The list.
#[derive(Debug)]
pub struct Overview {
    /// Applications, those that wait for the committee first.
    pub applications: Vec<Row>,
    /// Results, those that wait first.
    pub results: Vec<HeldReport>,
    /// What is late or soon, beside decisions on applications that the member has a conflict over.
    pub duties: Vec<Duty>,
}

/// The member of the committee in force who is called `name`.
///
/// # Errors
/// `not_authorised` when there is none, or the key is void.
pub fn member(documents: &Documents, name: &str) -> Result<CommitteeMember, Refusal> {
    let current = documents.current();
    let member = current.committee()?.members.iter().find(|member| member.name == name).cloned();
    let stranger = || Refusal::new(Code::NotAuthorised, format!("{name} is no member of the committee in force"));
    member.filter(|member| !current.voids(member.key.fingerprint())).ok_or_else(stranger)
}

/// Why `member` takes no part in the application whose newest version is `newest`.
///
/// # Errors
/// When the database cannot be read.
pub async fn conflict(
    documents: &Documents,
    newest: &Application,
    member: &CommitteeMember,
) -> Result<Option<Conflict>, Refusal> {
    let key = member.key.fingerprint();
    Ok(if documents.conflicted(&newest.id).await?.contains(&key) {
        Some(Conflict::Declared)
    } else if newest.person(key).is_some() {
        Some(Conflict::Applies)
    } else {
        None
    })
}

/// What waits for `member`.
///
/// # Errors
/// When the database cannot be read.
pub async fn overview(
    documents: &Documents,
    store: &Store,
    member: &CommitteeMember,
    now: DateTime<Utc>,
) -> Result<Overview, Refusal> {
    let reports = documents.applications().await?;
    let mut all = due(documents, reports.clone(), now).await?;
    all.sort();
    let mut applications = Vec::new();
    let mut hidden = Vec::new();
    for report in reports {
        let about = About::new(What::Application, &report.id, report.version);
        let decide = all.iter().find(|duty| duty.task == Task::Decide && duty.about == about).cloned();
        let (_, versions) = documents.application(&report.id).await?;
        let newest = versions.first().map(|(application, _)| application.document());
        let conflict = match newest {
            Some(newest) => conflict(documents, newest, member).await?,
            None => None,
        };
        if conflict.is_some() {
            hidden.push(about);
        }
        applications.push(Row { report, conflict, decide: decide.filter(|_| conflict.is_none()) });
    }
    let late = |row: &Row| row.decide.as_ref().map(|duty| duty.due);
    applications.sort_by_key(|row| (rank(row.report.state), late(row).is_none(), late(row), row.report.put_at));
    all.retain(|duty| matches!(duty.state, State::Late | State::Soon) && !hidden.contains(&duty.about));
    Ok(Overview { applications, results: held::list(documents, store, member).await?, duties: all })
}

/// Those that wait for the committee come first, then those that wait for the applicant, then those that are decided.
const fn rank(state: ApplicationState) -> u8 {
    match state {
        ApplicationState::Complete => 0,
        ApplicationState::Submitted => 1,
        ApplicationState::ChangesRequested => 2,
        ApplicationState::Permitted | ApplicationState::Refused => 3,
    }
}

/// Everything to do, as `sekisho permit due` finds it.
async fn due(
    documents: &Documents,
    applications: Vec<ApplicationReport>,
    now: DateTime<Utc>,
) -> Result<Vec<Duty>, Refusal> {
    let list = async |kind| documents.list(&ListWant { kind, name: None }).await;
    let permits: Vec<(Digest, Permit)> = duties::of(list(Kind::Permit).await?)?;
    let refusals: Vec<(Digest, RefusedApplication)> = duties::of(list(Kind::Decision).await?)?;
    let publications: Vec<(Digest, Publication)> = duties::of(list(Kind::Publication).await?)?;
    let known = Known {
        permits,
        refusals,
        publications: publications.into_iter().map(|(_, publication)| publication).collect(),
        status: documents.current().pinned_status().map(|status| status.verified().document().clone()),
        applications,
    };
    let presets = Presets::ByBasis(Periods::presets().map_err(unavailable)?);
    duties(&known, &presets, now.date_naive(), SOON_DAYS).map_err(unavailable)
}
