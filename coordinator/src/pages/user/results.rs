//! The results of a data user: the rounds under permits that name the person's key, and what was released in each.
//!
//! Promises: a result that waits for reviewers, or that they refused, shows that and nothing else; what was released
//! under a permit that was since revoked or suspended is not shown; a hospital that is missing is named, and is no
//! zero.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    permit::OutputReview,
    query::Query,
    refusal::{Code, Refusal},
};

use super::studies::{Own, own};
use crate::{
    documents::{Documents, unavailable},
    held::{Told, told},
    person::{answer::Rows, door::Answer, failure::Failure},
    report::{HolderReport, HolderState, ResultReport},
    store::{KeptRound, RoundState, Store},
};

/// The most rounds that are listed.
pub const MOST_ROUNDS: usize = 500;

/// How far a round is, as its person may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Hospitals are being asked.
    Running,
    /// The coordinator stopped meanwhile.
    Interrupted,
    /// Nobody answered.
    Nothing,
    /// Nobody answered yet, and people at hospitals look at the exact result.
    Waiting,
    /// All that were asked answered.
    Complete,
    /// Some did not answer.
    Incomplete,
    /// Reviewers have not released it.
    Awaiting,
    /// A reviewer refused it.
    Refused,
    /// The permit was revoked or suspended since.
    TakenBack,
    /// What is stored cannot be made a table again.
    Lost,
}

/// A round in the list.
pub struct Row {
    /// Its id.
    pub round: String,
    /// When it began.
    pub started: DateTime<Utc>,
    /// The study.
    pub study: String,
    /// The permit's id.
    pub permit: String,
    /// Which run.
    pub run: u32,
    /// The question; none of rounds before questions were kept.
    pub sql: Option<String>,
    /// Who of the permit's persons asked.
    pub asked_by: String,
    /// How far it is.
    pub state: State,
    /// How many hospitals answered, and how many were asked.
    pub answered: Option<(usize, usize)>,
}

/// The rounds of the person with this key, the latest first, and whether there are more.
///
/// # Errors
/// When the database cannot be read.
pub async fn rounds(
    documents: &Documents,
    store: &Store,
    key: Digest,
    now: DateTime<Utc>,
) -> Result<(Vec<Row>, bool), Refusal> {
    let mut kept: Vec<(KeptRound, Own)> = Vec::new();
    for own in own(&documents.current(), key, now) {
        for round in store.rounds_under(own.permit.digest()).await.map_err(unavailable)? {
            kept.push((round, Own { permit: own.permit.clone(), void: own.void.clone(), newest: own.newest }));
        }
    }
    kept.sort_by_key(|(round, _)| std::cmp::Reverse(round.started));
    let more = kept.len() > MOST_ROUNDS;
    kept.truncate(MOST_ROUNDS);
    let mut rows = Vec::new();
    for (round, own) in kept {
        rows.push(row(documents, store, round, &own).await?);
    }
    Ok((rows, more))
}

async fn row(documents: &Documents, store: &Store, round: KeptRound, own: &Own) -> Result<Row, Refusal> {
    let (sql, asked_by) = question(&round, own);
    let report: Option<ResultReport> = match &round.state {
        RoundState::Done(report) => serde_json::from_str(report).ok(),
        RoundState::Running | RoundState::Interrupted => None,
    };
    let answered = report.as_ref().map(|report| {
        let answered = report.holders.iter().filter(|holder| holder.state == HolderState::Answered).count();
        (answered, report.holders.len())
    });
    let state = match (&round.state, answered) {
        (RoundState::Running, _) => State::Running,
        (RoundState::Interrupted, _) => State::Interrupted,
        (RoundState::Done(_), None) => State::Lost,
        (RoundState::Done(_), Some((0, _))) => {
            let waits = report.is_some_and(|report| report.holders.iter().any(HolderReport::waits));
            if waits { State::Waiting } else { State::Nothing }
        }
        (RoundState::Done(_), Some(_)) if own.takes_back().is_some() => State::TakenBack,
        (RoundState::Done(_), Some((answered, asked))) => {
            let complete = if answered == asked { State::Complete } else { State::Incomplete };
            match own.permit.output_review {
                OutputReview::Automatic => complete,
                OutputReview::TwoPerson => match crate::held::standing(documents, store, &round).await {
                    Ok(()) => complete,
                    Err(refusal) if refusal.code == Code::AwaitingReview => State::Awaiting,
                    Err(refusal) if refusal.code == Code::OutputRefused => State::Refused,
                    Err(_) => State::Lost,
                },
            }
        }
    };
    Ok(Row {
        round: round.round,
        started: round.started,
        study: own.permit.study_id.clone(),
        permit: own.permit.id.clone(),
        run: round.run,
        sql,
        asked_by,
        state,
        answered,
    })
}

/// The SQL of a round, and who asked.
fn question(round: &KeptRound, own: &Own) -> (Option<String>, String) {
    let envelope = round.question.as_deref().and_then(|question| Envelope::from_json::<Query>(question).ok());
    let Some(envelope) = envelope else { return (None, String::new()) };
    let person = envelope.key_ids().find_map(|key| own.permit.person(key)).map(|person| person.id.clone());
    let sql = envelope.peek::<Query>().ok().map(|(query, _)| query.sql);
    (sql, person.unwrap_or_default())
}

/// A round that may be looked at.
pub struct Shown {
    /// The study.
    pub study: String,
    /// The permit's id.
    pub permit: String,
    /// When the round began.
    pub started: DateTime<Utc>,
    /// The question.
    pub sql: String,
    /// Which run.
    pub run: u32,
    /// The result's digest.
    pub result: Digest,
    /// What the result is.
    pub report: ResultReport,
    /// Its tables.
    pub rows: Rows,
}

/// Why a round is not shown.
pub enum NotShown {
    /// There is none that this person may know of.
    Unknown,
    /// There is one, and this is what its person may know of it.
    Withheld(Box<Row>, Option<Failure>),
    /// The database, or what was stored.
    Failed(Refusal),
}

impl From<Refusal> for NotShown {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal)
    }
}

/// The round of this id, for the person with this key.
///
/// # Errors
/// When it is not the person's, or what was released in it does not go to the person.
pub async fn shown(
    documents: &Documents,
    store: &Store,
    round: &str,
    key: Digest,
    now: DateTime<Utc>,
) -> Result<Shown, NotShown> {
    let kept = store.kept_round(round).await.map_err(unavailable)?.ok_or(NotShown::Unknown)?;
    let of = |own: &Own| own.permit.digest() == kept.permit;
    let own = own(&documents.current(), key, now).into_iter().find(of).ok_or(NotShown::Unknown)?;
    let back = own.takes_back().cloned();
    let state = row(documents, store, kept.clone(), &own).await?;
    match (back, state.state) {
        (None, State::Complete | State::Incomplete) => {}
        (back, State::TakenBack) => return Err(NotShown::Withheld(Box::new(state), back.map(Failure::from))),
        (_, State::Awaiting | State::Refused) => {
            let why = crate::held::standing(documents, store, &kept).await.err().map(Failure::from);
            return Err(NotShown::Withheld(Box::new(state), why));
        }
        (_, _) => return Err(NotShown::Withheld(Box::new(state), None)),
    }
    let Told { result, query, report, batches } = told(documents, store, &kept).await?;
    let schema = batches.first().map(arrow::record_batch::RecordBatch::schema);
    let schema = schema.ok_or_else(|| Refusal::new(Code::Unavailable, "no table was made"))?;
    let answer = Answer { report, schema, batches };
    let rows = Rows::of(&answer).map_err(|failure| Refusal::new(Code::Unavailable, failure.detail()))?;
    Ok(Shown {
        study: own.permit.study_id.clone(),
        permit: own.permit.id.clone(),
        started: kept.started,
        sql: query.sql,
        run: query.run,
        result,
        report: answer.report,
        rows,
    })
}
