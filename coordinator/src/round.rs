//! One query across hospitals: authorised, recorded, fanned out, collected, combined.
//!
//! Promises: a hospital that is slow, dead, malformed or refuses never keeps the others' answers back past the
//! deadline; a release is believed only with a receipt that its hospital signed and that says the same; every release
//! and receipt is on disk before the result is returned; a round goes on when the person who asked hangs up; what a permit
//! wants reviewed leaves through [`held::let_out`] alone.
//!
//! Deliberately absent: any charge, and any protection. Nodes decide again, by themselves; the checks here spare
//! people a detour. SQL and cells are never logged.

pub mod authorise;
pub mod collect;
mod receipt_proof;
mod witness;

use std::{sync::Arc, time::Duration};

use arrow::record_batch::RecordBatch;
use arrow_flight::FlightDescriptor;
use chrono::TimeDelta;
use futures::future::join_all;
use sekisho_aggregation::release::Release;
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    dsse::{Envelope, Verified},
    keys::SecretKey,
    query::{Route, RoutedQuery},
    receipt::{DryRun, Receipt},
    refusal::{Code, Refusal},
    roster::Member,
    turns::{Turn, Turns},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tracing::Instrument;

use self::{
    authorise::{PermittedQuery, SignedQuery},
    collect::{NoRelease, unbelieved},
};
use crate::{
    bundle::Ended,
    config::QueryLimits,
    daemon::Hooks,
    documents::{Current, Documents},
    held,
    network::{Nodes, holder, holder_refused, refusal_of_node},
    report::{DryRunReport, HolderReport, HolderState, ResultReport},
    result::{self, ResultError},
    store::{KeptStatement, NewRound, Request, Store},
};

/// How much longer than the deadline a route is valid: clocks differ.
const ROUTE_GRACE: Duration = Duration::from_secs(60);
/// The most bytes of a node's answer to a dry run.
const MAX_DRY_RUN_BYTES: usize = 64 << 10;
/// The confidence of intervals when nobody chose one.
pub const DEFAULT_CONFIDENCE: f64 = 0.95;

/// What a hospital released in a round, checked.
pub struct Answer {
    /// The hospital, by roster name.
    pub name: String,
    /// Its cells.
    pub release: Release,
    /// Its account of them.
    pub receipt: Verified<Receipt>,
    /// The same as it was signed.
    pub envelope: Envelope,
    /// The proof that it is in the hospital's log (c2sp.org/tlog-proof).
    pub proof: Vec<u8>,
}

/// What a round brought: whether it may leave is another question.
struct Made {
    report: ResultReport,
    batches: Vec<RecordBatch>,
    /// Each hospital that answered, with the digest of its release.
    releases: Vec<(String, Digest)>,
}

/// Asks hospitals.
pub struct Rounds {
    documents: Arc<Documents>,
    nodes: Arc<Nodes>,
    store: Store,
    signing_keys: Arc<[SecretKey]>,
    clock: Arc<dyn Clock>,
    limits: QueryLimits,
    places: Arc<Semaphore>,
    turns: Arc<Turns>,
    hooks: Hooks,
}

/// One message that is worked on: a place among all, and a turn of the person who signed it.
struct Taken {
    _place: OwnedSemaphorePermit,
    _turn: Option<Turn>,
}

/// What a round is made of.
pub struct RoundParts {
    /// Roster, status, schemas, permits.
    pub documents: Arc<Documents>,
    /// The hospitals.
    pub nodes: Arc<Nodes>,
    /// Where rounds are recorded.
    pub store: Store,
    /// Sign routes: the one that the roster names, of the key in use and the next one.
    pub signing_keys: Arc<[SecretKey]>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Deadline and concurrency.
    pub limits: QueryLimits,
    /// Told of the points at which tests stop the process.
    pub hooks: Hooks,
}

impl Rounds {
    /// Rounds over these parts.
    pub fn new(parts: RoundParts) -> Self {
        let RoundParts { documents, nodes, store, signing_keys, clock, limits, hooks } = parts;
        let (places, turns) = (Arc::new(Semaphore::new(limits.concurrent)), Turns::new(limits.pace));
        Self { documents, nodes, store, signing_keys, clock, limits, places, turns, hooks }
    }

    /// Asks the hospitals of a signed query: the report, and the table of all hospitals followed by one of each.
    ///
    /// # Errors
    /// A refusal before any hospital was asked, `awaiting_review` or `output_refused` when the permit asks for a review of
    /// output, or `unavailable` when the coordinator itself failed.
    pub async fn ask(
        self: &Arc<Self>,
        envelope: &[u8],
        confidence: f64,
    ) -> Result<(ResultReport, Vec<RecordBatch>), Refusal> {
        let (query, taken) = self.authorised(Request::Query, envelope).await?;
        let round = format!("{:032x}", rand::random::<u128>());
        let key = query.key.short();
        let span = tracing::info_span!("round", round, query = key);
        let rounds = self.clone();
        // A task of its own: hospitals charge whether or not the person who asked is still there.
        let running = async move {
            let outcome = rounds.run(query, round, confidence).await;
            drop(taken);
            outcome
        };
        tokio::spawn(running.instrument(span)).await.unwrap_or_else(|error| Err(crashed(&error)))
    }

    /// Asks the hospitals whether they would answer, and at what price. Nothing is charged.
    ///
    /// # Errors
    /// A refusal before any hospital was asked.
    pub async fn dry_run(&self, envelope: &[u8]) -> Result<DryRunReport, Refusal> {
        let (query, _taken) = self.authorised(Request::DryRun, envelope).await?;
        let late = || Refusal::new(Code::Offline, self.late());
        let one = async |member: &Member| {
            let asked = timeout(self.limits.deadline, self.dry_run_at(&query, member)).await;
            match asked.unwrap_or_else(|_| Err(late())) {
                Ok(dry) => HolderReport {
                    study_left: Some(dry.study_left),
                    stored: Some(dry.stored),
                    ..holder(&member.name, HolderState::Answered)
                },
                Err(refusal) => holder_refused(&member.name, refusal),
            }
        };
        let holders = join_all(query.members.iter().map(one)).await;
        Ok(DryRunReport { cells: query.plan.cells(), privacy: result::privacy(&query.plan, &query.permit), holders })
    }

    async fn dry_run_at(&self, query: &PermittedQuery, member: &Member) -> Result<DryRun, Refusal> {
        let routed = self.route(query, member, "dry-run")?;
        let mut client = self.nodes.flight(member, MAX_DRY_RUN_BYTES)?;
        let told = client.get_flight_info(FlightDescriptor::new_cmd(routed)).await;
        let told = told.map_err(|status| refusal_of_node(&status))?.into_inner();
        serde_json::from_slice(&told.app_metadata)
            .map_err(|_| Refusal::new(Code::Malformed, "its answer is no answer to a dry run"))
    }

    /// How many places are taken, and how many there are.
    pub fn taken(&self) -> (usize, usize) {
        (self.limits.concurrent.saturating_sub(self.places.available_permits()), self.limits.concurrent)
    }

    /// The query, when it may be asked; of one that may not, and that a person of some permit signed, a record is kept. What
    /// nobody signed who may ask something takes no place, and is not planned; whoever may has so many turns.
    async fn authorised(&self, request: Request, envelope: &[u8]) -> Result<(PermittedQuery, Taken), Refusal> {
        let now = self.clock.now();
        let signed = SignedQuery::of(&self.documents, envelope);
        let asker = match &signed {
            Ok(signed) => signed.asker(),
            Err(_) => authorise::asked_by(&self.documents.current(), envelope),
        };
        let turn = asker.as_ref().map(|(_, person)| self.turns.take(*person, Instant::now().into_std())).transpose()?;
        let refusal = match signed {
            Ok(signed) => {
                let taken = Taken { _place: self.place()?, _turn: turn };
                match signed.permitted(now).await {
                    Ok(query) => return Ok((query, taken)),
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        if let Some((study, person)) = asker
            && let Err(error) = self.store.note_refused(request, refusal.code, &study, person, now).await
        {
            tracing::error!(%error, "a refused request could not be recorded");
        }
        Err(refusal)
    }

    /// A place among the queries that run at once.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Code::Busy, format!("{} queries are running, which is the most", self.limits.concurrent))
        })
    }

    fn late(&self) -> String {
        format!("no answer within {} s", self.limits.deadline.as_secs())
    }

    /// The query as it is sent to one hospital.
    fn route(&self, query: &PermittedQuery, member: &Member, round: &str) -> Result<Vec<u8>, Refusal> {
        let internal = |_| Refusal::new(Code::Unavailable, "the coordinator could not write a route");
        let valid = TimeDelta::from_std(self.limits.deadline + ROUTE_GRACE).unwrap_or(TimeDelta::MAX);
        let route = Route {
            query: query.query.digest(),
            to: member.name.clone(),
            round: round.to_string(),
            expires: self.clock.now() + valid,
        };
        let key = signing_key(&self.signing_keys, &query.current).ok_or_else(|| internal(()))?;
        let route = Envelope::sign(&route, &[key]).map_err(|_| internal(()))?;
        let routed = RoutedQuery { query: query.envelope.clone(), route };
        serde_json::to_vec(&routed).map_err(|_| internal(()))
    }

    async fn run(
        self: Arc<Self>,
        query: PermittedQuery,
        round: String,
        confidence: f64,
    ) -> Result<(ResultReport, Vec<RecordBatch>), Refusal> {
        let begun = NewRound {
            round: round.clone(),
            query: query.query.digest(),
            question: query.envelope.to_json(),
            query_key: query.key,
            permit: query.permit.digest(),
            run: query.query.run,
            started: self.clock.now(),
        };
        self.store.begin_round(&begun).await.map_err(|error| failed(&error))?;
        tracing::info!(hospitals = query.members.len(), run = query.query.run, "a round begins");
        (self.hooks.at)("round_started");
        let query = Arc::new(query);
        let outcome = self.clone().collect_and_combine(query.clone(), &round, confidence).await;
        let report = outcome.as_ref().ok().and_then(|made| serde_json::to_string(&made.report).ok());
        let statement =
            outcome.as_ref().ok().zip(report.as_ref()).and_then(|(made, report)| self.stated(&query, made, report));
        let ended = self.store.end_round(&round, report.as_deref(), statement.as_ref(), self.clock.now()).await;
        ended.map_err(|error| failed(&error))?;
        tracing::info!(ok = outcome.is_ok(), "a round ended");
        let Made { report, batches, releases } = outcome?;
        held::let_out(&self.documents, &self.store, &query, &round, &releases, self.clock.now()).await?;
        Ok((report, batches))
    }

    /// The account of a result; without any release there is none. What cannot be written now is written at the next start.
    fn stated(&self, query: &PermittedQuery, made: &Made, report: &str) -> Option<KeptStatement> {
        let key = signing_key(&self.signing_keys, &query.current)?;
        let ended = Ended {
            permit: query.permit.digest(),
            query: &query.query,
            query_digest: query.query.digest(),
            study_id: &query.permit.study_id,
            report: &made.report,
            text: report,
            batches: &made.batches,
            releases: &made.releases,
        };
        let stated = ended.stated(key);
        stated
            .inspect_err(|error| tracing::error!(%error, "the account of a result could not be written"))
            .ok()
            .flatten()
    }

    async fn collect_and_combine(
        self: Arc<Self>,
        query: Arc<PermittedQuery>,
        round: &str,
        confidence: f64,
    ) -> Result<Made, Refusal> {
        let (holders, answers) = self.clone().fan_out(query.clone(), round).await?;
        let report = result::report(&query, round, holders, &answers, confidence, self.clock.now());
        let releases = answers.iter().map(|answer| (answer.name.clone(), answer.release.digest())).collect();
        let making = async move {
            let released: Vec<_> = answers.iter().map(|answer| (answer.name.as_str(), &answer.release)).collect();
            result::tables(&query.plan, report, &released).await
        };
        let made = tokio::spawn(making.in_current_span()).await;
        let (report, batches) = made.map_err(|error| crashed(&error))?.map_err(|error| match error {
            ResultError::TooMuch(_) => Refusal::new(Code::TooLarge, error.to_string()),
            ResultError::Combine(_) | ResultError::After(_) | ResultError::Report(_) | ResultError::Table(_) => {
                failed(&error)
            }
        })?;
        Ok(Made { report, batches, releases })
    }

    /// Asks every hospital at once; reports come in the order of the query's hospitals.
    async fn fan_out(
        self: Arc<Self>,
        query: Arc<PermittedQuery>,
        round: &str,
    ) -> Result<(Vec<HolderReport>, Vec<Answer>), Refusal> {
        let until = Instant::now() + self.limits.deadline;
        let mut asked = JoinSet::new();
        let mut outcomes: Vec<Option<Result<Answer, NoRelease>>> = query.members.iter().map(|_| None).collect();
        for (place, member) in query.members.iter().enumerate() {
            let routed = self.route(&query, member, round)?;
            let (rounds, query, member) = (self.clone(), query.clone(), member.clone());
            let ask = async move {
                // A task within the task: a decoder that panics costs this hospital its answer and nobody else's.
                let mut inner = JoinSet::new();
                let late = rounds.late();
                inner.spawn(async move { rounds.ask_one(&query, &member, routed).await }.in_current_span());
                let outcome = match timeout_at(until, inner.join_next()).await {
                    Ok(Some(Ok(outcome))) => outcome,
                    Ok(Some(Err(_)) | None) => Err(unbelieved("its answer cannot be read")),
                    Err(_) => Err(Refusal::new(Code::Offline, late).into()),
                };
                (place, outcome)
            };
            asked.spawn(ask.in_current_span());
        }
        let mut first = true;
        while let Some(joined) = asked.join_next().await {
            let Ok((place, outcome)) = joined else { continue };
            if let Ok(answer) = &outcome {
                let envelope = answer.envelope.to_json();
                let release = answer.release.to_bytes();
                let stored = self.store.put_release(round, &answer.name, &release, &envelope, &answer.proof).await;
                stored.map_err(|error| failed(&error))?;
                if std::mem::take(&mut first) {
                    (self.hooks.at)("round_fanned_out");
                }
            }
            if let Some(slot) = outcomes.get_mut(place) {
                *slot = Some(outcome);
            }
        }
        let (mut holders, mut answers) = (Vec::new(), Vec::new());
        for (member, outcome) in query.members.iter().zip(outcomes) {
            let unknown = || Err(unbelieved("its answer cannot be read"));
            match outcome.unwrap_or_else(unknown) {
                Ok(answer) => {
                    holders.push(collect::answered(&answer));
                    answers.push(answer);
                }
                Err(reason) => {
                    tracing::warn!(hospital = member.name, code = %reason.code(), "a hospital gave no release");
                    holders.push(collect::unanswered(&member.name, reason));
                }
            }
        }
        Ok((holders, answers))
    }
}

/// The coordinator's signing key: the one that the roster names, of the key in use and the next one.
pub(crate) fn signing_key<'a>(keys: &'a [SecretKey], current: &Current) -> Option<&'a SecretKey> {
    let roster = current.pinned_roster();
    let named = |key: &&SecretKey| roster.is_some_and(|r| r.members.iter().any(|m| m.signing_key == key.public()));
    keys.iter().find(named).or(keys.first())
}

/// A failure of the coordinator itself; its words are for the operator.
fn failed(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(error = %error, "the coordinator failed in a round");
    Refusal::new(Code::Unavailable, "the coordinator failed; what hospitals released is stored: ask the same run again")
}

fn crashed(error: &JoinError) -> Refusal {
    failed(error)
}
