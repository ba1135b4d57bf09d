//! `sekisho permit due`: what the law wants done by which day, and what is late; and the words that something was published.
//!
//! The coordinator knows what was decided and what was said to be published; the periods are data. Decisions on applications
//! are watched for those who may read applications. Deliberately absent: reminders, and any day that no period gives.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chrono::{Days, NaiveDate, NaiveTime};
use clap::Args;
use sekisho_protocol::{
    access::Item,
    decision::RefusedApplication,
    digest::Digest,
    dsse::Document,
    key_file,
    permit::{Basis, Permit},
    publication::{Publication, Published},
    refusal::Code,
    status::Status,
};
use serde::Serialize;

use super::{
    Context,
    failure::{Exit, Failure},
    file, governance, permit,
    print::{self, Output},
};
use crate::{
    listing::Listing,
    periods::Periods,
    report::{ApplicationReport, ApplicationState, Listed, Want},
    store::Kind,
};

/// What is asked for.
#[derive(Debug, Args)]
pub struct Due {
    /// As of which day [default: today].
    #[arg(long, value_name = "DATE")]
    at: Option<NaiveDate>,
    /// What is due within so many days is soon.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    within: u32,
    /// Also what is neither late nor soon, and what was done.
    #[arg(long)]
    all: bool,
    /// A preset of periods for all permits, eu-ehds or jp-ngmia, or a TOML file with such presets [default: by the basis].
    #[arg(long, value_name = "PRESET|FILE")]
    periods: Option<String>,
    /// A member's key: also which applications wait for a decision.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How the list is printed.
    #[arg(long, value_enum, default_value = "table")]
    output: Listing,
}

/// Something that was published.
#[derive(Debug, Args)]
pub struct Publish {
    /// The permit: an id (its newest version), or a digest.
    #[arg(value_name = "ID|DIGEST")]
    pub permit: String,
    /// Where it is.
    #[arg(long, value_name = "URL")]
    url: String,
    /// The day of the publication [default: today].
    #[arg(long, value_name = "DATE")]
    on: Option<NaiveDate>,
    /// The key of a person of the permit for results, of a member of the committee for a decision.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    Decide,
    PublishDecision,
    EndPermit,
    PublishResults,
    KeepLogs,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Late,
    Soon,
    Open,
    Done,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Duty {
    state: State,
    due: NaiveDate,
    task: Task,
    about: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<NaiveDate>,
    article: String,
}

/// What the coordinator knows.
#[derive(Default)]
struct Known {
    permits: Vec<(Digest, Permit)>,
    refusals: Vec<(Digest, RefusedApplication)>,
    publications: Vec<Publication>,
    status: Option<Status>,
    applications: Vec<ApplicationReport>,
}

/// The periods, by the name of their preset; or one for every legal basis.
enum Presets {
    ByBasis(BTreeMap<String, Periods>),
    One(Box<Periods>),
}

impl Presets {
    fn of(chosen: Option<&str>) -> Result<Self, Failure> {
        let malformed = |e: toml::de::Error| Failure::input(format!("the periods: {e}"), "mend what the message names");
        let mut shipped = Periods::presets().map_err(malformed)?;
        let Some(chosen) = chosen else { return Ok(Self::ByBasis(shipped)) };
        match shipped.remove(chosen) {
            Some(one) => Ok(Self::One(Box::new(one))),
            None => Periods::parse(&file::read_text(Path::new(chosen))?).map(Self::ByBasis).map_err(malformed),
        }
    }

    fn get(&self, basis: Basis) -> Result<&Periods, Failure> {
        match self {
            Self::One(periods) => Ok(periods),
            Self::ByBasis(presets) => {
                let name = Periods::preset_of(basis);
                presets.get(name).ok_or_else(|| Failure::input(format!("the periods have no preset {name}"), "add it"))
            }
        }
    }
}

/// Lists what is due.
///
/// # Errors
/// When the periods are malformed, or the coordinator cannot be reached.
pub async fn run(command: &Due, context: &Context) -> Result<Exit, Failure> {
    let presets = Presets::of(command.periods.as_deref())?;
    let today = command.at.unwrap_or(context.now.date_naive());
    let known = known(command, context).await?;
    let mut duties = duties(&known, &presets, today, command.within)?;
    duties.retain(|duty| command.all || matches!(duty.state, State::Late | State::Soon));
    duties.sort();
    let row = |d: &Duty| {
        let done = d.done.map(|day| day.to_string()).unwrap_or_default();
        let (state, task) = (permit::word(&d.state), permit::word(&d.task));
        [state, d.due.to_string(), task, d.about.clone(), done, d.article.clone()]
    };
    let header = ["state", "due", "task", "about", "done", "asked for by"];
    if command.output == Listing::Table && duties.is_empty() {
        print::note(&format!("nothing is late, and nothing is due within {} days of {today}", command.within));
        return Ok(Exit::Done);
    }
    print::list(command.output, &duties, header, duties.iter().map(row))?;
    Ok(Exit::Done)
}

async fn known(command: &Due, context: &Context) -> Result<Known, Failure> {
    let mut door = context.door().await?;
    let mut known = Known {
        permits: of(door.list(Kind::Permit, None).await?)?,
        refusals: of(door.list(Kind::Decision, None).await?)?,
        publications: of(door.list(Kind::Publication, None).await?)?.into_iter().map(|(_, p)| p).collect(),
        ..Known::default()
    };
    known.status = match door.get::<Status>(&Want::Status).await {
        Ok((_, status, _)) => Some(status),
        Err(failure) if failure.code() == Code::StaleStatus.as_str() => None,
        Err(failure) => return Err(failure),
    };
    if let Some(key) = &command.key {
        known.applications = door.read(Item::Applications, &key_file::read(key)?, context.now).await?;
    }
    Ok(known)
}

fn of<D: Document>(listed: Vec<Listed>) -> Result<Vec<(Digest, D)>, Failure> {
    let one = |listed: Listed| {
        let (document, digest) = listed.envelope.peek::<D>().map_err(|e| Failure::answer(D::NAME, e))?;
        Ok((digest, document))
    };
    listed.into_iter().map(one).collect()
}

fn duties(known: &Known, presets: &Presets, today: NaiveDate, within: u32) -> Result<Vec<Duty>, Failure> {
    let soon = today.checked_add_days(Days::new(within.into())).unwrap_or(NaiveDate::MAX);
    let duty = |task, about: &str, due: NaiveDate, done: Option<NaiveDate>, article: &str| Duty {
        state: match done {
            Some(_) => State::Done,
            None if due < today => State::Late,
            None if due <= soon => State::Soon,
            None => State::Open,
        },
        due,
        task,
        about: about.into(),
        done,
        article: article.into(),
    };
    let published = |what, digest| {
        let said = known.publications.iter().filter(|p| p.what == what && p.digest == digest);
        said.map(|p| p.at.date_naive()).min()
    };
    let publish = |periods: &Periods, about: &str, decided: NaiveDate, digest: Digest| {
        let period = periods.publish_decision.as_ref()?;
        let done = published(Published::Decision, digest);
        Some(duty(Task::PublishDecision, about, periods.end(period, decided), done, &period.article))
    };
    let mut duties = Vec::new();
    for application in known.applications.iter().filter(|a| a.state == ApplicationState::Complete) {
        let periods = presets.get(application.basis)?;
        if let (Some(period), Some(since)) = (&periods.decision, application.complete_since) {
            let about = format!("application {} version {}", application.id, application.version);
            duties.push(duty(Task::Decide, &about, periods.end(period, since.date_naive()), None, &period.article));
        }
    }
    for (digest, refused) in &known.refusals {
        let about = format!("refusal of {} version {}", refused.application, refused.version);
        duties.extend(publish(presets.get(refused.basis)?, &about, refused.date, *digest));
    }
    for (digest, permit) in &known.permits {
        let periods = presets.get(permit.basis)?;
        let about = format!("permit {} version {}", permit.id, permit.version);
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
        duties.push(duty(Task::EndPermit, &about, last, ended, "the permit's validity"));
        let end = revoked.unwrap_or(last);
        let results: Vec<Digest> =
            known.permits.iter().filter(|(_, other)| other.id == permit.id).map(|(digest, _)| *digest).collect();
        let done = results.into_iter().filter_map(|version| published(Published::Results, version)).min();
        match (permit.results_due, &periods.publish_results) {
            (Some(due), _) => duties.push(duty(Task::PublishResults, &about, due, done, "the permit's results_due")),
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

/// Says where a decision or results were published: signs it, and hands it in.
///
/// # Errors
/// When the key's owner may not say so, or the coordinator refuses.
pub async fn publish(what: Published, command: &Publish, context: &Context) -> Result<Exit, Failure> {
    let key = key_file::read(&command.key)?;
    let mut door = context.door().await?;
    let (id, digest) = match permit::fetch(&mut door, &command.permit).await {
        Ok((_, permit, digest)) => (permit.id, digest),
        Err(failure) if what == Published::Decision && failure.code() == Code::PermitUnknown.as_str() => {
            let refusals = of::<RefusedApplication>(door.list(Kind::Decision, Some(&command.permit)).await?)?;
            let newest = refusals.into_iter().max_by_key(|(_, refused)| refused.version);
            newest.map(|(digest, refused)| (refused.application, digest)).ok_or(failure)?
        }
        Err(failure) => return Err(failure),
    };
    let at = command.on.map_or(context.now, |day| day.and_time(NaiveTime::MIN).and_utc());
    let publication = Publication { what, id, digest, url: command.url.clone(), at };
    print::put(&governance::publish(&mut door, &publication, &key).await?, command.output, false)
}

#[cfg(test)]
mod tests;
