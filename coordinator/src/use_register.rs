//! The public use register: who was permitted to use which data for what, which queries were run, and what came of it.
//!
//! Promises: it is computed anew each time, from signed documents, stored rounds and receipts; every text of ours is there
//! in Japanese and in English, every text of others as they wrote it, and no value holds markup. Organisations are named
//! and persons are not: decisions and reviews carry roles, applications no investigator and no authorised person.
//!
//! Deliberately absent: any released value. What has not passed its review of output shows that it waits, and not even how
//! many of its cells are hidden. Free text (reasons, descriptions, SQL) is published as it is: who writes it keeps names out.

mod build;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    application::Application,
    decision::RefusedApplication,
    digest::Digest,
    dsse::{Document, Envelope},
    output_review::{Standing, Verdict, result_digest},
    permit::{OutputReview as Rule, Permit, ReleaseKind},
    publication::Publication,
    receipt::{Acceptance, Receipt},
    refusal::Refusal,
    status::Status,
};
use serde::{Deserialize, Serialize};

pub use self::words::{Coded, Text};
use crate::{
    documents::{Current, Documents, standing_of, unavailable},
    store::{Kept, KeptRelease, KeptRound, Kind, RoundState, Store},
};

/// What the register's form is called.
pub const FORMAT: &str = "sekisho use register 1";
/// The most documents of a kind that are in it.
const MAX_DOCUMENTS: u32 = 100_000;

/// The register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UseRegister {
    /// [`FORMAT`].
    pub format: String,
    /// What it is.
    pub title: Text,
    /// As of when.
    pub generated_at: DateTime<Utc>,
    /// What made it.
    pub software: String,
    /// What each field is called, by its name here.
    pub labels: BTreeMap<String, Text>,
    /// The uses, by id.
    pub uses: Vec<Use>,
}

/// One use: an application with what was decided on it and what was done under that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// The application's id, or the permit's where there was no application.
    pub id: String,
    /// The study.
    pub study: String,
    /// Where it stands.
    pub state: Coded,
    /// The organisation.
    pub data_user: String,
    /// Where that is: ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The legal basis.
    pub basis: Coded,
    /// What for.
    pub purposes: Vec<Coded>,
    /// The application, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationEntry>,
    /// The data: as permitted, or else as applied for.
    pub data: Vec<TableEntry>,
    /// From when to when: as permitted, or else as applied for.
    pub period: Period,
    /// When results must be public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_due: Option<NaiveDate>,
    /// What was decided, the earliest first.
    pub decisions: Vec<DecisionEntry>,
    /// The hospitals of the newest permit.
    pub holders: Vec<HolderEntry>,
    /// The queries that the newest permit lists; empty where it allows any within the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_queries: Vec<AllowedEntry>,
    /// What was asked, the earliest first.
    pub queries: Vec<QueryEntry>,
    /// Where decisions and results are public.
    pub publications: Vec<PublicationEntry>,
}

/// An application: its newest version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplicationEntry {
    /// Its version.
    pub version: u32,
    /// When that was handed in.
    pub submitted_at: DateTime<Utc>,
    /// What will be done with the answers; published with the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_description: Option<String>,
    /// Who gains by it; published with the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_benefit: Option<String>,
}

/// A table, and where it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The table of the schema.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The hospitals.
    pub holders: Vec<String>,
}

/// A query that a permit lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllowedEntry {
    /// SHA-256 of the SQL, byte by byte.
    pub sha256: Digest,
    /// The highest run number.
    pub max_runs: u32,
    /// How its answers are released.
    pub release_kind: Coded,
}

/// A span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Period {
    /// The first second.
    pub from: Option<DateTime<Utc>>,
    /// The first second after it.
    pub to: Option<DateTime<Utc>>,
}

/// A permit or a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionEntry {
    /// Granted or refused.
    pub outcome: Coded,
    /// The permit's or the application's id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// The document, by digest.
    pub digest: Digest,
    /// Who issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The day.
    pub date: NaiveDate,
    /// Why.
    pub reasons: String,
    /// The seats whose members signed.
    pub decided_by: Vec<String>,
    /// Further conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Where it stands.
    pub state: Coded,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokedEntry>,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokedEntry {
    /// Why.
    pub reasons: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// One hospital's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HolderEntry {
    /// The hospital, by roster name.
    pub name: String,
    /// What it said to the newest permit.
    pub answer: Coded,
    /// Its code, when it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why, in its own words, when it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// Different runs that it answered.
    pub runs: u64,
    /// What they cost there, by its receipts.
    pub micro_rho: u64,
    /// The day since which no guarantee of differential privacy holds for its patients, by any of its receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_since: Option<NaiveDate>,
}

/// One run of one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryEntry {
    /// The SQL, as it was signed; none of rounds before queries were kept.
    pub sql: Option<String>,
    /// SHA-256 of the SQL, byte by byte.
    pub sha256: Option<Digest>,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// How its answer is released; none of rounds before queries were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_kind: Option<Coded>,
    /// The permit's version.
    pub version: u32,
    /// When it was asked first.
    pub asked_at: DateTime<Utc>,
    /// The hospitals asked.
    pub asked: Vec<String>,
    /// Those that answered.
    pub answered: Vec<String>,
    /// Those that did not, the last time.
    pub missing: Vec<MissingEntry>,
    /// What it cost over all hospitals, by their receipts.
    pub micro_rho: u64,
    /// How many cells of the combined table are hidden; none while it may not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed_cells: Option<usize>,
    /// The result, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Digest>,
    /// What became of it.
    pub output: Coded,
    /// The reviews of it.
    pub reviews: Vec<ReviewEntry>,
    /// The hospitals' software that made the releases.
    pub software: Vec<String>,
}

impl QueryEntry {
    /// Its answer is exact.
    pub fn is_exact(&self) -> bool {
        self.release_kind.as_ref().is_some_and(|kind| kind.code == ReleaseKind::Aggregated.as_str())
    }
}

/// A hospital that did not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MissingEntry {
    /// The hospital.
    pub name: String,
    /// What it did.
    pub state: Coded,
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// One review of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReviewEntry {
    /// The reviewer's seat.
    pub role: String,
    /// What was said.
    pub verdict: Coded,
    /// When.
    pub at: DateTime<Utc>,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicationEntry {
    /// `decision` or `results`.
    pub what: String,
    /// Where.
    pub url: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What a register is made of. It names persons, as the register does not.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) applications: Vec<Dated<Application>>,
    pub(crate) refusals: Vec<Dated<RefusedApplication>>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) permits: Vec<PermitPart>,
    pub(crate) status: Option<Status>,
    /// Since when hospitals release exact results, of whatever study.
    pub(crate) exact_since: BTreeMap<String, NaiveDate>,
}

/// A document that was handed in.
pub(crate) struct Dated<D> {
    pub(crate) document: D,
    pub(crate) digest: Digest,
    pub(crate) put_at: DateTime<Utc>,
    /// The fingerprints of the keys that signed.
    pub(crate) signers: Vec<Digest>,
    /// The seats of the committee whose members signed.
    roles: Vec<String>,
}

/// A permit, and what was done under it.
pub(crate) struct PermitPart {
    pub(crate) permit: Dated<Permit>,
    /// It has its quorum today.
    counts: bool,
    pub(crate) acceptances: Vec<Acceptance>,
    pub(crate) rounds: Vec<RoundPart>,
}

/// A round, with what is needed of its releases.
pub(crate) struct RoundPart {
    pub(crate) round: KeptRound,
    pub(crate) releases: Vec<KeptRelease>,
    /// The reviews of its result, where the permit asks for them.
    review: Option<Review>,
}

impl RoundPart {
    /// What became of what it brought: the result's digest, and where that stands.
    pub(crate) fn output(&self) -> Result<(Option<Digest>, words::Output), Refusal> {
        let result = result_of(&self.round, &self.releases)?;
        Ok((result, words::Output::of(result, self.review.as_ref().map(|review| review.standing))))
    }
}

/// The reviews of a result.
struct Review {
    standing: Standing,
    said: Vec<(String, Verdict, DateTime<Utc>)>,
}

/// The register as of `now`: of one study, or of all.
///
/// # Errors
/// When the database cannot be read, or holds what cannot be read.
pub async fn export(
    documents: &Documents,
    store: &Store,
    study: Option<&str>,
    now: DateTime<Utc>,
) -> Result<UseRegister, Refusal> {
    build::register(&gather(documents, store, |of| study.is_none_or(|study| of == study)).await?, now)
}

/// The register of what [`gather`] found.
pub(crate) fn of(parts: &Parts, now: DateTime<Utc>) -> Result<UseRegister, Refusal> {
    build::register(parts, now)
}

/// What is kept of the studies that `wanted` says yes to.
pub(crate) async fn gather(
    documents: &Documents,
    store: &Store,
    wanted: impl Fn(&str) -> bool,
) -> Result<Parts, Refusal> {
    let current = documents.current();
    let exact_since = store.exact_since().await.map_err(unavailable)?;
    let status = current.pinned_status().map(|s| s.document().clone());
    let mut parts = Parts { status, exact_since, ..Parts::default() };
    for kept in store.kept(Kind::Permit, None, MAX_DOCUMENTS).await.map_err(unavailable)? {
        let permit: Dated<Permit> = dated(&current, &kept)?;
        if wanted(&permit.document.study_id) {
            parts.permits.push(permit_part(documents, &current, store, permit).await?);
        }
    }
    applications(&current, store, wanted, &mut parts).await?;
    Ok(parts)
}

/// Adds applications, refusals and publications.
async fn applications(
    current: &Current,
    store: &Store,
    wanted: impl Fn(&str) -> bool,
    parts: &mut Parts,
) -> Result<(), Refusal> {
    let kept = async |kind| store.kept(kind, None, MAX_DOCUMENTS).await.map_err(unavailable);
    for kept in kept(Kind::Application).await? {
        let application: Dated<Application> = dated(current, &kept)?;
        if wanted(&application.document.study_id) {
            parts.applications.push(application);
        }
    }
    // A refusal names its application alone.
    let ids: BTreeSet<&str> = parts.applications.iter().map(|a| a.document.id.as_str()).collect();
    for kept in kept(Kind::Decision).await? {
        let refusal: Dated<RefusedApplication> = dated(current, &kept)?;
        if ids.contains(refusal.document.application.as_str()) {
            parts.refusals.push(refusal);
        }
    }
    for kept in kept(Kind::Publication).await? {
        parts.publications.push(dated(current, &kept)?.document);
    }
    parts.publications.sort_by_key(|publication| publication.at);
    Ok(())
}

/// A document as it was kept. It was verified when it was handed in; what it says is history, whoever left since.
fn dated<D: Document>(current: &Current, kept: &Kept) -> Result<Dated<D>, Refusal> {
    let envelope = Envelope::from_json::<D>(&kept.envelope)?;
    let (document, digest) = envelope.peek::<D>()?;
    let signers: Vec<Digest> = envelope.key_ids().collect();
    let seats = signers.iter().filter_map(|key| current.seat(*key));
    let mut roles: Vec<String> = seats.map(|member| member.role.clone()).collect();
    roles.sort();
    Ok(Dated { document, digest, put_at: kept.put_at, signers, roles })
}

async fn permit_part(
    documents: &Documents,
    current: &Current,
    store: &Store,
    permit: Dated<Permit>,
) -> Result<PermitPart, Refusal> {
    let kept = store.acceptances(permit.digest).await.map_err(unavailable)?;
    let acceptances = kept.iter().map(|(_, envelope)| Ok(Envelope::from_json::<Acceptance>(envelope)?.peek()?.0));
    let acceptances = acceptances.collect::<Result<_, Refusal>>()?;
    let mut released: BTreeMap<String, Vec<KeptRelease>> = BTreeMap::new();
    for release in store.releases_under(permit.digest).await.map_err(unavailable)? {
        released.entry(release.round.clone()).or_default().push(release);
    }
    let mut rounds = Vec::new();
    for round in store.rounds_under(permit.digest).await.map_err(unavailable)? {
        let releases = released.remove(&round.round).unwrap_or_default();
        let review = match permit.document.output_review {
            Rule::Automatic => None,
            Rule::TwoPerson => review(documents, store, &round, &releases).await?,
        };
        rounds.push(RoundPart { round, releases, review });
    }
    Ok(PermitPart { counts: current.permit(permit.digest).is_ok(), permit, acceptances, rounds })
}

/// The reviews of what a round brought; none when it did not end, or brought nothing.
async fn review(
    documents: &Documents,
    store: &Store,
    round: &KeptRound,
    releases: &[KeptRelease],
) -> Result<Option<Review>, Refusal> {
    let Some(result) = result_of(round, releases)? else { return Ok(None) };
    let awaiting = Review { standing: Standing::Awaiting, said: Vec::new() };
    let Some(held) = store.held(result).await.map_err(unavailable)? else { return Ok(Some(awaiting)) };
    // Under a permit without its quorum no review counts.
    let Ok(reviews) = documents.output_reviews(&held).await else { return Ok(Some(awaiting)) };
    let standing = standing_of(&reviews);
    let said = reviews.into_iter().map(|r| (r.member.role, r.review.verdict, r.review.at)).collect();
    Ok(Some(Review { standing, said }))
}

/// The digest of a round's result by its receipts; none when it did not end, or no hospital answered.
///
/// # Errors
/// When a receipt is not what was stored.
pub(crate) fn result_of(round: &KeptRound, releases: &[KeptRelease]) -> Result<Option<Digest>, Refusal> {
    if releases.is_empty() || !matches!(round.state, RoundState::Done(_)) {
        return Ok(None);
    }
    let receipt = |kept: &KeptRelease| Ok(Envelope::from_json::<Receipt>(&kept.receipt)?.peek::<Receipt>()?.0);
    let receipts = releases.iter().map(receipt).collect::<Result<Vec<_>, Refusal>>()?;
    let released = receipts.iter().map(|receipt| (receipt.node.as_str(), receipt.release));
    Ok(Some(result_digest(round.query_key, round.run, released)))
}
