//! `sekisho permit due`: what the law wants done by which day, and what is late; and the words that something was published.
//!
//! The coordinator knows what was decided and what was said to be published; the periods are data. Decisions on applications
//! are watched for those who may read applications. Deliberately absent: reminders, and any day that no period gives.

use std::path::{Path, PathBuf};

use chrono::{NaiveDate, NaiveTime};
use clap::Args;
use sekisho_protocol::{
    access::Item,
    decision::RefusedApplication,
    digest::Digest,
    dsse::Document,
    key_file,
    publication::{Publication, Published},
    refusal::Code,
    status::Status,
};

use super::{
    Context,
    failure::{Exit, Failure},
    file, governance, permit,
    print::{self, Output},
};
use crate::{
    duties::{self, Duty, Known, Presets, State, duties},
    listing::Listing,
    periods::Periods,
    report::{Listed, Want},
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

/// The periods that were chosen: those that this software ships, one of them for all, or those of a file.
fn presets(chosen: Option<&str>) -> Result<Presets, Failure> {
    let malformed = |e: toml::de::Error| Failure::input(format!("the periods: {e}"), "mend what the message names");
    let mut shipped = Periods::presets().map_err(malformed)?;
    let Some(chosen) = chosen else { return Ok(Presets::ByBasis(shipped)) };
    match shipped.remove(chosen) {
        Some(one) => Ok(Presets::One(Box::new(one))),
        None => Periods::parse(&file::read_text(Path::new(chosen))?).map(Presets::ByBasis).map_err(malformed),
    }
}

/// Lists what is due.
///
/// # Errors
/// When the periods are malformed, or the coordinator cannot be reached.
pub async fn run(command: &Due, context: &Context) -> Result<Exit, Failure> {
    let presets = presets(command.periods.as_deref())?;
    let today = command.at.unwrap_or(context.now.date_naive());
    let known = known(command, context).await?;
    let found = duties(&known, &presets, today, command.within);
    let mut duties = found.map_err(|e| Failure::input(e.to_string(), "add it"))?;
    duties.retain(|duty| command.all || matches!(duty.state, State::Late | State::Soon));
    duties.sort();
    let row = |d: &Duty| {
        let done = d.done.map(|day| day.to_string()).unwrap_or_default();
        let (state, task) = (permit::word(&d.state), permit::word(&d.task));
        [state, d.due.to_string(), task, d.about.to_string(), done, d.article.clone()]
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
    duties::of(listed).map_err(|e| Failure::answer(D::NAME, e))
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
