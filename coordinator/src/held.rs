//! Results that wait for two reviewers.
//!
//! Where a permit asks for `two_person`, [`let_out`] is the one way from a round to the person who asked: hospitals have
//! charged and released, the releases are stored, and the result waits until the reviews among the documents say that it
//! may leave. The person asks the same run again, which costs nothing. A result is named by its releases, so that one
//! more hospital's answer makes another result, which waits anew.
//!
//! This is a procedure of the coordinator, not a protection by the nodes: whoever breaks into the coordinator sees what
//! waits. Deliberately absent: any state of its own. Where a result stands is computed from the signed reviews each time.

mod facts;

use arrow::{ipc::writer::StreamWriter, record_batch::RecordBatch};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use sekisho_aggregation::{combine, plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    committee::CommitteeMember,
    digest::Digest,
    dsse::Envelope,
    output_review::{NEEDED, Standing, Verdict, result_digest},
    permit::OutputReview as Rule,
    query::Query,
    refusal::{Code, Refusal},
};
use serde::{Deserialize, Serialize};

pub use self::facts::{Close, Facts, Spent};
use crate::{
    documents::{Current, Documents, Reviewed, standing_of, unavailable},
    report::ResultReport,
    result,
    round::authorise::PermittedQuery,
    store::{KeptResult, KeptRound, RoundState, Store},
    use_register,
};

/// The most results that are listed at once.
const MAX_LISTED: u32 = 1000;

/// What a reviewer said, for other reviewers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReviewReport {
    /// The member.
    pub name: String,
    /// The member's seat.
    pub role: String,
    /// What was said.
    pub verdict: Verdict,
    /// Why.
    pub reasons: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A result that waits, or waited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldReport {
    /// Its digest.
    pub result: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// The permit's id.
    pub permit_id: String,
    /// The study.
    pub study: String,
    /// The organisation that asked.
    pub data_user: String,
    /// The question.
    pub query_key: Digest,
    /// Which run of it.
    pub run: u32,
    /// Since when it waits.
    pub held_at: DateTime<Utc>,
    /// Where it stands.
    pub standing: Standing,
    /// The reviews that count, the earliest first.
    pub reviews: Vec<ReviewReport>,
}

/// A result with everything that a reviewer looks at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldResult {
    /// Which it is, and where it stands.
    pub held: HeldReport,
    /// The question.
    pub sql: String,
    /// The hospitals that were asked.
    pub asked: Vec<String>,
    /// What its released values tell.
    pub facts: Facts,
    /// The tables as the person would get them: an Arrow IPC stream in base64, with the report in its schema.
    pub tables: String,
}

/// Says whether what a round brought may be given to the person who asked; of a result that may not, that it waits is on
/// disk when this returns.
///
/// # Errors
/// `awaiting_review` or `output_refused`; when the database fails.
pub async fn let_out(
    documents: &Documents,
    store: &Store,
    query: &PermittedQuery,
    round: &str,
    releases: &[(String, Digest)],
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    match query.permit.output_review {
        Rule::Automatic => return Ok(()),
        Rule::TwoPerson => {}
    }
    // Without any release there are states of hospitals only.
    if releases.is_empty() {
        return Ok(());
    }
    let (query_key, run) = (query.key, query.query.run);
    let result = result_digest(query_key, run, releases.iter().map(|(name, digest)| (name.as_str(), *digest)));
    let held =
        KeptResult { result, permit: query.permit.digest(), query_key, run, round: round.to_string(), held_at: now };
    store.hold(&held).await.map_err(unavailable)?;
    decided(&held, &documents.output_reviews(&held).await?, releases.len(), query.members.len())
}

/// That reviewers let a result out, in which so many hospitals are `of` those that were `asked`.
async fn reviewed(documents: &Documents, held: &KeptResult, of: usize, asked: usize) -> Result<(), Refusal> {
    decided(held, &documents.output_reviews(held).await?, of, asked)
}

/// Whether a result may leave by its reviews; `answered` of `asked` hospitals are in it.
///
/// # Errors
/// `awaiting_review` or `output_refused`.
pub(crate) fn decided(held: &KeptResult, reviews: &[Reviewed], answered: usize, asked: usize) -> Result<(), Refusal> {
    let result = held.result;
    match standing_of(reviews) {
        Standing::Released => Ok(()),
        Standing::Awaiting => {
            let released = reviews.len();
            let detail = format!(
                "result {result} waits: {released} of {NEEDED} reviewers released it; {answered} of {asked} hospitals are in it"
            );
            Err(Refusal::new(Code::AwaitingReview, detail))
        }
        Standing::Refused => {
            let refusal = reviews.iter().find(|r| r.review.verdict == Verdict::Refuse);
            let reasons = refusal.map(|r| r.review.reasons.as_str()).unwrap_or_default();
            Err(Refusal::new(Code::OutputRefused, format!("result {result} was refused: {reasons}")))
        }
    }
}

/// A round's tables as the person who asked got them.
pub struct Told {
    /// The result's digest.
    pub result: Digest,
    /// The question.
    pub query: Query,
    /// What the result is.
    pub report: ResultReport,
    /// The table of all hospitals, then that of each.
    pub batches: Vec<RecordBatch>,
}

/// The tables of a round that has ended, made again from what is stored, for a person of its permit whom the caller knows.
///
/// # Errors
/// As [`let_out`], by the reviews as they are now; or when the round cannot be made again.
pub async fn told(documents: &Documents, store: &Store, round: &KeptRound) -> Result<Told, Refusal> {
    let current = documents.current();
    let rule = current.permit(round.permit)?.output_review;
    let made = Made::again(&current, store, round).await?;
    let result = made.digest();
    match rule {
        Rule::Automatic => {}
        Rule::TwoPerson if made.releases.is_empty() => {}
        Rule::TwoPerson => {
            reviewed(documents, &kept(round, result), made.releases.len(), made.query.holders.len()).await?;
        }
    }
    Ok(Told { result, query: made.query, report: made.report, batches: made.batches })
}

/// Whether reviewers let out what a round under a permit with `two_person` brought, by its receipts.
///
/// # Errors
/// As [`let_out`], by the reviews as they are now.
pub async fn standing(documents: &Documents, store: &Store, round: &KeptRound) -> Result<(), Refusal> {
    let releases = store.releases(&round.round).await.map_err(unavailable)?;
    let Some(result) = use_register::result_of(round, &releases)? else { return Ok(()) };
    let question = round.question.as_deref().and_then(|question| Envelope::from_json::<Query>(question).ok());
    let asked = question.and_then(|envelope| envelope.peek::<Query>().ok()).map(|(query, _)| query.holders.len());
    reviewed(documents, &kept(round, result), releases.len(), asked.unwrap_or(releases.len())).await
}

/// The result of `round`, as it is kept when it waits.
fn kept(round: &KeptRound, result: Digest) -> KeptResult {
    KeptResult {
        result,
        permit: round.permit,
        query_key: round.query_key,
        run: round.run,
        round: round.round.clone(),
        held_at: round.started,
    }
}

/// The results that `member` may review, those that wait before those that are decided, the latest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(documents: &Documents, store: &Store, member: &CommitteeMember) -> Result<Vec<HeldReport>, Refusal> {
    let current = documents.current();
    let mut all = Vec::new();
    for held in store.all_held(MAX_LISTED).await.map_err(unavailable)? {
        // A permit that lost its quorum has no reviewers either.
        let Ok(permit) = current.permit(held.permit) else { continue };
        if current.conflict(permit, member.key.fingerprint()).is_none() {
            all.push(report(documents, &current, &held).await?);
        }
    }
    all.sort_by_key(|held| held.standing != Standing::Awaiting);
    Ok(all)
}

/// A result with its facts, for `member`.
///
/// # Errors
/// `result_unknown`, `conflict_of_interest`, or when it cannot be made again from what is stored.
pub async fn show(
    documents: &Documents,
    store: &Store,
    member: &CommitteeMember,
    result: Digest,
) -> Result<HeldResult, Refusal> {
    let unknown = || Refusal::new(Code::ResultUnknown, format!("no result {} waits here", result.short()));
    let held = store.held(result).await.map_err(unavailable)?.ok_or_else(unknown)?;
    let current = documents.current();
    if let Some(why) = current.conflict(current.permit(held.permit)?, member.key.fingerprint()) {
        return Err(Refusal::new(Code::ConflictOfInterest, why));
    }
    let round = store.kept_round(&held.round).await.map_err(unavailable)?.ok_or_else(unknown)?;
    let made = Made::again(&current, store, &round).await?;
    if made.digest() != result {
        return Err(Refusal::new(Code::Unavailable, "the stored releases are of another result"));
    }
    let facts = facts::of(&current, store, &round, &made).await?;
    Ok(HeldResult {
        held: report(documents, &current, &held).await?,
        sql: made.query.sql,
        asked: made.query.holders,
        facts,
        tables: BASE64.encode(ipc(&made.batches).map_err(unavailable)?),
    })
}

async fn report(documents: &Documents, current: &Current, held: &KeptResult) -> Result<HeldReport, Refusal> {
    let permit = current.permit(held.permit)?;
    let reviews = documents.output_reviews(held).await?;
    let standing = standing_of(&reviews);
    let said = |Reviewed { review, member }: Reviewed| ReviewReport {
        name: member.name,
        role: member.role,
        verdict: review.verdict,
        reasons: review.reasons.clone(),
        at: review.at,
    };
    Ok(HeldReport {
        result: held.result,
        permit: held.permit,
        permit_id: permit.id.clone(),
        study: permit.study_id.clone(),
        data_user: permit.data_user.clone(),
        query_key: held.query_key,
        run: held.run,
        held_at: held.held_at,
        standing,
        reviews: reviews.into_iter().map(said).collect(),
    })
}

pub(crate) fn ipc(batches: &[RecordBatch]) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let first = batches.first().ok_or_else(|| arrow::error::ArrowError::InvalidArgumentError("no table".into()))?;
    let mut writer = StreamWriter::try_new(Vec::new(), &first.schema())?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.into_inner()
}

/// A result as it was made, made again from what is stored.
pub(crate) struct Made {
    pub(crate) query: Query,
    query_key: Digest,
    plan: PrivatePlan,
    pub(crate) releases: Vec<(String, Release)>,
    /// The report as it is stored.
    pub(crate) report: ResultReport,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Made {
    pub(crate) async fn again(current: &Current, store: &Store, round: &KeptRound) -> Result<Self, Refusal> {
        let lost = |what: &str| Refusal::new(Code::Unavailable, format!("the round's {what} cannot be read"));
        let RoundState::Done(report) = &round.state else { return Err(lost("report")) };
        let report: ResultReport = serde_json::from_str(report).map_err(|_| lost("report"))?;
        let question = round.question.as_deref().ok_or_else(|| lost("question"))?;
        let (query, digest) = Envelope::from_json::<Query>(question)?.peek::<Query>()?;
        if digest != round.query || query.key() != round.query_key || query.permit != round.permit {
            return Err(lost("question"));
        }
        let permit = current.permit(query.permit)?.clone();
        let schema = current.schema(permit.schema)?.clone();
        let (sql, micro_rho, terms) = (query.sql.clone(), query.micro_rho, query.terms.clone());
        let planning =
            tokio::task::spawn_blocking(move || PrivatePlan::analyse_with(&sql, &schema, &permit, micro_rho, &terms));
        let plan = planning.await.map_err(|_| lost("question"))??;
        let mut releases = Vec::new();
        for kept in store.releases(&round.round).await.map_err(unavailable)? {
            let release = Release::from_bytes(&kept.header, &kept.cells).map_err(unavailable)?;
            combine::check(&plan, round.permit, round.query_key, round.run, &release).map_err(unavailable)?;
            releases.push((kept.node, release));
        }
        let named: Vec<(&str, &Release)> = releases.iter().map(|(name, release)| (name.as_str(), release)).collect();
        let (_, batches) = result::tables(&plan, report.clone(), &named).await.map_err(unavailable)?;
        Ok(Self { query, query_key: round.query_key, plan, releases, report, batches })
    }

    fn digest(&self) -> Digest {
        let releases = self.releases.iter().map(|(name, release)| (name.as_str(), release.digest()));
        result_digest(self.query_key, self.query.run, releases)
    }
}
