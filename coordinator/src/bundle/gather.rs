//! What goes into a bundle: the documents of one result, and the proofs that they are in the logs.

use std::collections::BTreeMap;

use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    keys::PublicKey,
    log::{
        entry::Kind as Entry,
        note::{NoteKey, Signs},
        proof::InclusionProof,
    },
    permit::{OutputReview as Rule, Permit},
    published::PublishedRelease,
    receipt::{Acceptance, Receipt},
    refusal::{Code, Refusal},
    roster::Roster,
};

use super::{layout, stated};
use crate::{
    documents::{Current, Documents, Held, unavailable},
    held::{self, Made},
    store::{KeptRelease, KeptStatement, Kind, RoundState, Store},
};

/// The most reviews of one result.
const MAX_REVIEWS: u32 = 256;

/// The files of a bundle but for what changes with the log: checkpoint, proofs, description.
pub(super) struct Gathered(BTreeMap<String, Vec<u8>>);

impl Gathered {
    pub(super) fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.0
    }
}

/// Something that this coordinator should have, and does not.
fn lost(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Unavailable, format!("{what}: no bundle can be made"))
}

/// The documents of a result, when it may leave.
///
/// # Errors
/// `awaiting_review` or `output_refused`; `unavailable` when something is not kept.
pub(super) async fn all(documents: &Documents, store: &Store, statement: &KeptStatement) -> Result<Gathered, Refusal> {
    let current = documents.current();
    let said = Envelope::from_json::<PublishedRelease>(&statement.envelope)?.peek::<PublishedRelease>()?.0;
    let mut files = reviews(documents, store, &current, &said).await?;
    let round =
        store.kept_round(&statement.round).await.map_err(unavailable)?.ok_or_else(|| lost("the round is lost"))?;
    let made = Made::again(&current, store, &round).await?;
    let RoundState::Done(report) = &round.state else { return Err(lost("the round did not end")) };
    files.extend(result(&said, report, &made)?);
    let permit = current.permit(statement.permit)?;
    files.insert(layout::STATEMENT.into(), statement.envelope.clone());
    files.insert(layout::QUERY.into(), round.question.clone().ok_or_else(|| lost("the question was not kept"))?);
    files.insert(layout::PERMIT.into(), granted(store, &current, permit).await?);
    files.insert(layout::SCHEMA.into(), current.schema(permit.schema)?.envelope().to_vec());
    let mut rosters = Rosters::of(store, &current).await?;
    rosters.need_coordinator(&statement.envelope);
    for release in store.releases(&statement.round).await.map_err(unavailable)? {
        hospital(store, &release, statement.permit, &mut files, &mut rosters).await?;
    }
    trust(&current, rosters, &mut files)?;
    Ok(Gathered(files))
}

/// The files of the result, which must be those that were stated.
fn result(said: &PublishedRelease, report: &str, made: &Made) -> Result<BTreeMap<String, Vec<u8>>, Refusal> {
    let files = stated::files(report, &made.batches).map_err(unavailable)?;
    let same = |(path, bytes): (&String, &Vec<u8>)| {
        said.files.iter().any(|file| file.path == *path && file.sha256 == Digest::of(bytes))
    };
    if let Some((path, _)) = files.iter().find(|(path, bytes)| !same((path, bytes))) {
        return Err(lost(format!("this software makes another {path} than {} stated", said.software)));
    }
    Ok(files)
}

/// The reviews that let the result out, where the permit wants them.
async fn reviews(
    documents: &Documents,
    store: &Store,
    current: &Current,
    said: &PublishedRelease,
) -> Result<BTreeMap<String, Vec<u8>>, Refusal> {
    match current.permit(said.permit)?.output_review {
        Rule::Automatic => return Ok(BTreeMap::new()),
        Rule::TwoPerson => {}
    }
    let waits =
        || Refusal::new(Code::AwaitingReview, format!("result {} waits for its reviewers", said.result.short()));
    let held = store.held(said.result).await.map_err(unavailable)?.ok_or_else(waits)?;
    let counted = documents.output_reviews(&held).await?;
    held::decided(&held, &counted, said.releases().count(), said.holders.len())?;
    let kept =
        store.kept(Kind::OutputReview, Some(&said.result.to_string()), MAX_REVIEWS).await.map_err(unavailable)?;
    let counts = |digest: Digest| counted.iter().any(|reviewed| reviewed.review.digest() == digest);
    let counted = kept.into_iter().filter(|kept| counts(kept.digest));
    Ok(counted.map(|kept| (layout::review(kept.digest), kept.envelope)).collect())
}

/// The permit as its quorum first signed it: whoever signed later may belong to a later committee, or have signed when this one
/// had given way.
async fn granted(store: &Store, current: &Current, permit: &Held<Permit>) -> Result<Vec<u8>, Refusal> {
    let under = store.committees_of_permits().await.map_err(unavailable)?.get(&permit.digest()).copied();
    let committees = current.chains().ok_or_else(|| lost("no document was read"))?.committees();
    let counts = |bytes: &[u8]| {
        let Ok(envelope) = Envelope::from_json::<Permit>(bytes) else { return false };
        envelope.digest::<Permit>().is_ok_and(|digest| digest == permit.digest())
            && committees.verify_permit(&envelope, under, |key| current.voids(key)).is_ok()
    };
    let first = store.find_statement(Entry::Permit, counts).await.map_err(unavailable)?;
    Ok(first.unwrap_or_else(|| permit.envelope().to_vec()))
}

/// What one hospital gave: receipt, release, acceptance, and its own log's proof.
async fn hospital(
    store: &Store,
    release: &KeptRelease,
    permit: Digest,
    files: &mut BTreeMap<String, Vec<u8>>,
    rosters: &mut Rosters,
) -> Result<(), Refusal> {
    let name = release.node.as_str();
    let proof = store.receipt_proof(name, &release.receipt).await.map_err(unavailable)?;
    let proof = proof.ok_or_else(|| {
        let detail = format!(
            "{name} did not prove that its receipt is in its log, since the result is older than such proofs: ask the same run again, which costs nothing"
        );
        Refusal::new(Code::Unavailable, detail)
    })?;
    let checkpoint = InclusionProof::parse(&proof).map_err(unavailable)?.checkpoint().clone();
    let acceptance = accepted(store, name, permit).await?;
    rosters.need::<Receipt>(name, &release.receipt);
    rosters.need::<Acceptance>(name, &acceptance);
    rosters.need_key(name, |key| {
        let key = NoteKey::new(checkpoint.claimed().origin().clone(), Signs::Text, key);
        checkpoint.verify(&key).is_ok()
    });
    files.insert(layout::receipt(name), release.receipt.clone());
    files.insert(layout::header(name), release.header.clone());
    files.insert(layout::cells(name), release.cells.clone());
    files.insert(layout::acceptance(name), acceptance);
    files.insert(layout::hospital_checkpoint(name), checkpoint.to_string().into_bytes());
    files.insert(layout::hospital_proof(name), proof);
    Ok(())
}

/// The hospital's acceptance of the permit: the newest answer, or an earlier one if it changed its mind since.
async fn accepted(store: &Store, name: &str, permit: Digest) -> Result<Vec<u8>, Refusal> {
    let accepts = |bytes: &[u8]| {
        let answer = Envelope::from_json::<Acceptance>(bytes).and_then(|envelope| envelope.peek::<Acceptance>());
        answer.is_ok_and(|(answer, _)| answer.node == name && answer.permit == permit && answer.refused.is_none())
    };
    let newest = store.acceptances(permit).await.map_err(unavailable)?;
    if let Some((_, newest)) = newest.into_iter().find(|(_, envelope)| accepts(envelope)) {
        return Ok(newest);
    }
    let earlier = store.find_statement(Entry::Acceptance, accepts).await.map_err(unavailable)?;
    earlier.ok_or_else(|| lost(format!("{name} has not said that it accepts the permit")))
}

/// The rosters that name the keys of what is in the bundle: the newest, and older ones where a key has changed since.
struct Rosters {
    /// The newest first, each with its envelope.
    all: Vec<(Roster, Vec<u8>)>,
    needed: Vec<bool>,
}

impl Rosters {
    async fn of(store: &Store, current: &Current) -> Result<Self, Refusal> {
        let chains = current.chains().ok_or_else(|| lost("no document was read"))?;
        let mut all = Vec::new();
        for envelope in store.line(Kind::Roster, chains.line()).await.map_err(unavailable)? {
            all.push((Envelope::from_json::<Roster>(&envelope)?.peek::<Roster>()?.0, envelope));
        }
        all.reverse();
        let needed = (0..all.len()).map(|place| place == 0).collect();
        Ok(Self { all, needed })
    }

    /// Needs the newest roster of which `names` the key.
    fn need_where(&mut self, names: impl Fn(&Roster) -> bool) {
        let place = self.all.iter().position(|(roster, _)| names(roster));
        if let Some(needed) = place.and_then(|place| self.needed.get_mut(place)) {
            *needed = true;
        }
    }

    fn need_key(&mut self, name: &str, signed: impl Fn(PublicKey) -> bool) {
        self.need_where(|roster| roster.member(name).is_some_and(|member| signed(member.signing_key)));
    }

    fn need<D: Document>(&mut self, name: &str, envelope: &[u8]) {
        let Ok(envelope) = Envelope::from_json::<D>(envelope) else { return };
        self.need_key(name, |key| envelope.verify::<D>(&[key], 1).is_ok());
    }

    fn need_coordinator(&mut self, statement: &[u8]) {
        let Ok(envelope) = Envelope::from_json::<PublishedRelease>(statement) else { return };
        let signed = |key| envelope.verify::<PublishedRelease>(&[key], 1).is_ok();
        self.need_where(|roster| super::reading::coordinator(roster).is_some_and(|us| signed(us.signing_key)));
    }

    fn into_files(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let all = self.all.into_iter().zip(self.needed).filter(|(_, needed)| *needed);
        all.map(|((roster, envelope), _)| (layout::roster(roster.seq), envelope))
    }
}

/// What says whose signatures count.
fn trust(current: &Current, rosters: Rosters, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), Refusal> {
    let chains = current.chains().ok_or_else(|| lost("no document was read"))?;
    let status = current.pinned_status().ok_or_else(|| lost("there is no status"))?;
    files.extend(rosters.into_files());
    files.insert(layout::STATUS.into(), status.envelope().to_vec());
    files.extend(chains.rotations().iter().map(|link| (layout::governance(link.seq), link.envelope().to_vec())));
    files.extend(chains.elections().iter().map(|link| (layout::committee(link.seq), link.envelope().to_vec())));
    Ok(())
}

/// The newest checkpoint that was cosigned, and the proof of each statement under it; or what is not under it yet.
///
/// # Errors
/// When the database fails.
pub(super) async fn proofs(
    store: &Store,
    gathered: &Gathered,
) -> Result<Result<BTreeMap<String, Vec<u8>>, String>, Refusal> {
    let Some(checkpoint) = store.own_checkpoint().await.map_err(unavailable)? else {
        return Ok(Err("checkpoint".into()));
    };
    let mut proofs = BTreeMap::from([(layout::CHECKPOINT.to_string(), checkpoint.to_string().into_bytes())]);
    for (path, statement) in &gathered.0 {
        let Some(kind) = layout::kind(path) else { continue };
        let Some(proof) = store.proof(kind, statement, &checkpoint).await.map_err(unavailable)? else {
            return Ok(Err(path.clone()));
        };
        proofs.insert(layout::proof(path), proof.to_string().into_bytes());
    }
    Ok(Ok(proofs))
}
