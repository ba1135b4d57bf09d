//! What the law wants done by which day, and how it stands: computed from what was decided and what was said to be
//! published.
//!
//! The periods are data ([`crate::periods`]). Deliberately absent: reminders, and any day that no period gives.

use std::{collections::BTreeMap, fmt};

use chrono::{Days, NaiveDate, NaiveTime};
use sekisho_protocol::{
    decision::RefusedApplication,
    digest::Digest,
    dsse::{Document, DsseError},
    permit::{Basis, Permit},
    publication::{Publication, Published},
    status::Status,
};
use serde::{Serialize, Serializer};

use crate::{
    periods::Periods,
    report::{ApplicationReport, ApplicationState, Listed},
};

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Decide on a complete application.
    Decide,
    /// Publish a decision.
    PublishDecision,
    /// See that the use ends.
    EndPermit,
    /// Publish results.
    PublishResults,
    /// Keep the logs of access.
    KeepLogs,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its day is past.
    Late,
    /// Its day is near.
    Soon,
    /// There is time.
    Open,
    /// It was done.
    Done,
}

/// A kind of document that has to do with a duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// An application.
    Application,
    /// The refusal of one.
    Refusal,
    /// A permit.
    Permit,
}

/// The document that something has to be done about: in JSON as it is written in English.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Its kind.
    pub what: What,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u32,
}

impl About {
    /// Of this document.
    pub fn new(what: What, id: &str, version: u32) -> Self {
        Self { what, id: id.into(), version }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Application => "application",
            What::Refusal => "refusal of",
            What::Permit => "permit",
        };
        write!(f, "{what} {} version {}", self.id, self.version)
    }
}

impl Serialize for About {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What asks for the end of a use.
pub const VALIDITY: &str = "the permit's validity";
/// What asks for results where the permit has a day of its own.
pub const RESULTS_DUE: &str = "the permit's results_due";

/// One thing to do. They are in order of their state, then of their day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Duty {
    /// How it stands.
    pub state: State,
    /// By which day.
    pub due: NaiveDate,
    /// What.
    pub task: Task,
    /// Of which document.
    pub about: About,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<NaiveDate>,
    /// Who asks for it.
    pub article: String,
}

/// What is known.
#[derive(Default)]
pub struct Known {
    /// The permits, of all versions.
    pub permits: Vec<(Digest, Permit)>,
    /// The refusals.
    pub refusals: Vec<(Digest, RefusedApplication)>,
    /// What was said to be published.
    pub publications: Vec<Publication>,
    /// What is revoked.
    pub status: Option<Status>,
    /// The applications, for those who may read them.
    pub applications: Vec<ApplicationReport>,
}

/// The periods lack a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the periods have no preset {0}")]
pub struct NoPreset(&'static str);

/// The periods, by the name of their preset; or one for every legal basis.
pub enum Presets {
    /// Each basis has its own.
    ByBasis(BTreeMap<String, Periods>),
    /// All have this one.
    One(Box<Periods>),
}

impl Presets {
    fn get(&self, basis: Basis) -> Result<&Periods, NoPreset> {
        match self {
            Self::One(periods) => Ok(periods),
            Self::ByBasis(presets) => {
                let name = Periods::preset_of(basis);
                presets.get(name).ok_or(NoPreset(name))
            }
        }
    }
}

/// The documents of a list, which were verified when they were handed in.
///
/// # Errors
/// When one is of another kind.
pub fn of<D: Document>(listed: Vec<Listed>) -> Result<Vec<(Digest, D)>, DsseError> {
    let one = |listed: Listed| listed.envelope.peek::<D>().map(|(document, digest)| (digest, document));
    listed.into_iter().map(one).collect()
}

/// Everything to do, as of the day `today`; what is due `within` so many days is soon.
///
/// # Errors
/// When the periods of a legal basis are missing.
pub fn duties(known: &Known, presets: &Presets, today: NaiveDate, within: u32) -> Result<Vec<Duty>, NoPreset> {
    let soon = today.checked_add_days(Days::new(within.into())).unwrap_or(NaiveDate::MAX);
    let duty = |task, about: &About, due: NaiveDate, done: Option<NaiveDate>, article: &str| Duty {
        state: match done {
            Some(_) => State::Done,
            None if due < today => State::Late,
            None if due <= soon => State::Soon,
            None => State::Open,
        },
        due,
        task,
        about: about.clone(),
        done,
        article: article.into(),
    };
    let published = |what, digest| {
        let said = known.publications.iter().filter(|p| p.what == what && p.digest == digest);
        said.map(|p| p.at.date_naive()).min()
    };
    let publish = |periods: &Periods, about: &About, decided: NaiveDate, digest: Digest| {
        let period = periods.publish_decision.as_ref()?;
        let done = published(Published::Decision, digest);
        Some(duty(Task::PublishDecision, about, periods.end(period, decided), done, &period.article))
    };
    let mut duties = Vec::new();
    for application in known.applications.iter().filter(|a| a.state == ApplicationState::Complete) {
        let periods = presets.get(application.basis)?;
        if let (Some(period), Some(since)) = (&periods.decision, application.complete_since) {
            let about = About::new(What::Application, &application.id, application.version);
            duties.push(duty(Task::Decide, &about, periods.end(period, since.date_naive()), None, &period.article));
        }
    }
    for (digest, refused) in &known.refusals {
        let about = About::new(What::Refusal, &refused.application, refused.version);
        duties.extend(publish(presets.get(refused.basis)?, &about, refused.date, *digest));
    }
    for (digest, permit) in &known.permits {
        let periods = presets.get(permit.basis)?;
        let about = About::new(What::Permit, &permit.id, permit.version);
        duties.extend(publish(periods, &about, permit.decision.date, *digest));
        if known.permits.iter().any(|(_, other)| other.id == permit.id && other.version > permit.version) {
            continue;
        }
        let revoked = known.status.iter().flat_map(|s| &s.revoked_permits).find(|r| r.permit == *digest);
        let revoked = revoked.map(|r| r.at.date_naive());
        // `to` is exclusive: a permit that ends at midnight ends with the day before.
        let last = if permit.validity.to.time() == NaiveTime::MIN {
            permit.validity.to.date_naive().pred_opt().unwrap_or(NaiveDate::MIN)
        } else {
            permit.validity.to.date_naive()
        };
        let ended = revoked.or(Some(last).filter(|last| *last < today));
        duties.push(duty(Task::EndPermit, &about, last, ended, VALIDITY));
        let end = revoked.unwrap_or(last);
        let results: Vec<Digest> =
            known.permits.iter().filter(|(_, other)| other.id == permit.id).map(|(digest, _)| *digest).collect();
        let done = results.into_iter().filter_map(|version| published(Published::Results, version)).min();
        match (permit.results_due, &periods.publish_results) {
            (Some(due), _) => duties.push(duty(Task::PublishResults, &about, due, done, RESULTS_DUE)),
            (None, Some(period)) => {
                duties.push(duty(Task::PublishResults, &about, periods.end(period, end), done, &period.article));
            }
            (None, None) => {}
        }
        if let Some(period) = periods.keep_logs.as_ref().filter(|_| ended.is_some()) {
            let until = periods.end(period, end);
            duties.push(duty(Task::KeepLogs, &about, until, Some(until).filter(|day| *day < today), &period.article));
        }
    }
    Ok(duties)
}
