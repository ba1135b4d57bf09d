//! The signed documents that the network runs on: roster, status, schemas, permits and what leads to one, and what says
//! whose signatures count.
//!
//! Promises: nothing is kept that does not verify with the keys of the configuration; everything is verified again
//! when it is read back from the disk, and permits again when a status voids keys; the highest roster and status seen
//! are pinned, and lower ones, other ones of the same number and ones that do not follow the pinned one are refused.
//!
//! Deliberately absent: any decision for a hospital (each pins and verifies its own), and any document made here: the
//! coordinator signs routes only.

mod application;
mod budget;
mod catalogue;
mod output_review;
mod trust;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::{
    access::{Access, Item},
    catalogue::Catalogue,
    committee::{Committee, CommitteeChain, CommitteeMember},
    digest::Digest,
    dsse::{Document, DsseError, Envelope, Verified},
    keys::PublicKey,
    permit::Permit,
    refusal::{Code, Refusal},
    roster::Roster,
    schema::Schema,
    sequence::{Gaps, Offered, follows},
    status::Status,
};
use tokio::sync::{Mutex, watch};

use crate::{
    config::Trust,
    report::{ListWant, Listed, Want},
    store::{Kept, Kind, Place, Store, StoreError},
};

pub use self::output_review::{Reviewed, standing_of};

/// The most documents that are listed at once.
const MAX_LISTED: u32 = 1000;
/// How far two clocks may differ.
const SKEW: TimeDelta = TimeDelta::seconds(60);

pub use self::trust::Chains;

/// Why the documents on the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// The database said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A pinned document does not verify any more.
    #[error("the pinned {kind} does not verify: {source}; see `sekisho-coordinator trust show`", kind = .kind.as_str())]
    Unverified {
        /// Which.
        kind: Kind,
        /// Why.
        source: DsseError,
    },
    /// A link of a chain does not follow the one before it.
    #[error("a stored {kind} document does not verify: {source}; see `sekisho-coordinator trust show`", kind = .kind.as_str())]
    Broken {
        /// Of which chain.
        kind: Kind,
        /// Why.
        source: Refusal,
    },
}

/// A verified document with the envelope that it came in.
#[derive(Debug)]
pub struct Held<D> {
    verified: Verified<D>,
    envelope: Vec<u8>,
}

impl<D> Held<D> {
    /// The document, verified.
    pub fn verified(&self) -> &Verified<D> {
        &self.verified
    }

    /// The envelope as JSON, for those who verify for themselves.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

impl<D> std::ops::Deref for Held<D> {
    type Target = Verified<D>;

    fn deref(&self) -> &Verified<D> {
        &self.verified
    }
}

/// The documents as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Current {
    roster: Option<Arc<Held<Roster>>>,
    status: Option<Arc<Held<Status>>>,
    committee: Option<Arc<Committee>>,
    chains: Option<Arc<Chains>>,
    schemas: BTreeMap<Digest, Arc<Held<Schema>>>,
    permits: BTreeMap<Digest, Arc<Held<Permit>>>,
    catalogues: BTreeMap<String, Arc<Held<Catalogue>>>,
}

/// A signed request to read, believed.
#[derive(Clone, Debug)]
pub struct Reader {
    /// What is read.
    pub item: Item,
    /// The member who asks.
    pub member: CommitteeMember,
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReader {
    /// Every statement.
    Regulator,
    /// Queries that this key signed, and their receipts.
    Person(Digest),
}

impl Current {
    /// The roster with the highest sequence number, whether or not it has expired.
    pub fn pinned_roster(&self) -> Option<&Arc<Held<Roster>>> {
        self.roster.as_ref()
    }

    /// The status with the highest sequence number, whether or not it has expired.
    pub fn pinned_status(&self) -> Option<&Arc<Held<Status>>> {
        self.status.as_ref()
    }

    /// The committee in force.
    ///
    /// # Errors
    /// `unavailable` before anything was read from the disk.
    pub fn committee(&self) -> Result<&Arc<Committee>, Refusal> {
        self.committee.as_ref().ok_or_else(|| Refusal::new(Code::Unavailable, "no committee has been read"))
    }

    /// The roster in force.
    ///
    /// # Errors
    /// `stale_roster` when there is none, or it has expired.
    pub fn roster(&self, now: DateTime<Utc>) -> Result<&Arc<Held<Roster>>, Refusal> {
        let roster =
            self.roster.as_ref().ok_or_else(|| Refusal::new(Code::StaleRoster, "the coordinator has no roster"))?;
        if now >= roster.expires {
            return Err(Refusal::new(
                Code::StaleRoster,
                format!("roster {} expired at {}", roster.seq, roster.expires),
            ));
        }
        Ok(roster)
    }

    /// The status in force.
    ///
    /// # Errors
    /// `stale_status` when there is none, or it has expired.
    pub fn status(&self, now: DateTime<Utc>) -> Result<&Arc<Held<Status>>, Refusal> {
        let status =
            self.status.as_ref().ok_or_else(|| Refusal::new(Code::StaleStatus, "the coordinator has no status"))?;
        if now >= status.expires {
            return Err(Refusal::new(
                Code::StaleStatus,
                format!("status {} expired at {}", status.seq, status.expires),
            ));
        }
        Ok(status)
    }

    /// The permit with this digest.
    ///
    /// # Errors
    /// `permit_unknown` when it was not handed in here, or lost its quorum since.
    pub fn permit(&self, digest: Digest) -> Result<&Arc<Held<Permit>>, Refusal> {
        self.permits.get(&digest).ok_or_else(|| {
            Refusal::new(Code::PermitUnknown, format!("no permit {} with a quorum is known here", digest.short()))
        })
    }

    /// Every permit with a quorum, of all versions, in force or not.
    pub(crate) fn permits(&self) -> impl Iterator<Item = &Arc<Held<Permit>>> {
        self.permits.values()
    }

    /// The permits of a study, of all versions, in force or not.
    pub fn permits_of_study<'a>(&'a self, study: &'a str) -> impl Iterator<Item = &'a Arc<Held<Permit>>> {
        self.permits.values().filter(move |permit| permit.study_id == study)
    }

    /// The key with this fingerprint, when some permit, in force or not, authorises its owner to ask.
    pub fn person_key(&self, fingerprint: Digest) -> Option<PublicKey> {
        self.permits.values().find_map(|permit| permit.person(fingerprint)).map(|person| person.key)
    }

    /// The permits that authorise the person with this key, of all versions, in force or not; none once the key is void.
    pub fn permits_of_person(&self, key: Digest) -> impl Iterator<Item = &Arc<Held<Permit>>> {
        self.permits.values().filter(move |permit| permit.person(key).is_some() && !self.voids(key))
    }

    /// The catalogues, by hospital.
    pub fn catalogues(&self) -> impl Iterator<Item = &Arc<Held<Catalogue>>> {
        self.catalogues.values()
    }

    /// The schema with this digest.
    ///
    /// # Errors
    /// `schema_mismatch` when it was not handed in here.
    pub fn schema(&self, digest: Digest) -> Result<&Arc<Held<Schema>>, Refusal> {
        self.schemas.get(&digest).ok_or_else(|| {
            let detail = format!("schema {} is not known here; hand it in first", digest.short());
            Refusal::new(Code::SchemaMismatch, detail)
        })
    }

    /// The permits that name the hospital `node`, and are neither past, revoked nor superseded.
    pub fn permits_for<'a>(&'a self, node: &'a str, now: DateTime<Utc>) -> impl Iterator<Item = &'a Arc<Held<Permit>>> {
        let void = move |permit: &Held<Permit>| {
            let status = self.status.as_ref();
            status.is_some_and(|s| s.revokes(permit.digest()) || s.supersedes(&permit.id, permit.version))
        };
        let names = move |permit: &Held<Permit>| permit.data.iter().any(|t| t.holder_nodes.iter().any(|n| n == node));
        self.permits.values().filter(move |p| now < p.validity.to && names(p) && !void(p))
    }

    /// The newest catalogue of the hospital `node`.
    pub fn catalogue(&self, node: &str) -> Option<&Arc<Held<Catalogue>>> {
        self.catalogues.get(node)
    }

    /// Whether the newest status voids the key with this fingerprint.
    pub fn voids(&self, fingerprint: Digest) -> bool {
        self.status.as_ref().is_some_and(|s| s.void_keys.contains(&fingerprint))
    }

    /// The line that roster and status belong to, and the key that signs them now.
    fn governed_by(&self) -> Result<(String, PublicKey), Refusal> {
        let unread = || Refusal::new(Code::Unavailable, "no document has been read");
        self.chains().map(|chains| (chains.line.clone(), chains.governance.key())).ok_or_else(unread)
    }

    fn newest_permit(&self, id: &str) -> Option<&Arc<Held<Permit>>> {
        self.permits.values().filter(|p| p.id == id).max_by_key(|p| p.version)
    }
}

/// Which document was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its kind.
    pub kind: Kind,
    /// Its digest.
    pub digest: Digest,
}

/// The documents, on disk and in memory.
pub struct Documents {
    store: Store,
    trust: Trust,
    current: watch::Sender<Arc<Current>>,
    /// One document is handed in at a time, so that what it was compared with is still the newest.
    turn: Mutex<()>,
}

impl Documents {
    /// Reads and verifies what is on the disk.
    ///
    /// # Errors
    /// When the database cannot be read, or the pinned roster or status does not verify.
    pub async fn open(store: Store, trust: Trust) -> Result<Self, DocumentsError> {
        let current = load(&store, &trust).await?;
        Ok(Self { store, trust, current: watch::Sender::new(Arc::new(current)), turn: Mutex::new(()) })
    }

    /// The governance key that the configuration names, with which the network began.
    pub(crate) fn governance_anchor(&self) -> PublicKey {
        self.trust.governance
    }

    /// The keys of the regulators of the configuration.
    pub(crate) fn regulators(&self) -> impl Iterator<Item = PublicKey> {
        self.trust.regulators.iter().map(|regulator| regulator.key)
    }

    /// The documents as of now.
    pub fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// The documents as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    /// Takes in the envelope of a roster, status, schema, permit or review of output, when it verifies and is not older than what is
    /// pinned. Handing the same document in again changes nothing.
    ///
    /// # Errors
    /// A refusal that says which signature, number or date is wrong.
    pub async fn put(&self, envelope: &[u8], now: DateTime<Utc>) -> Result<Accepted, Refusal> {
        let kind = kind_of(envelope)?;
        let _turn = self.turn.lock().await;
        let current = self.current();
        let (digest, place, envelope) = match kind {
            Kind::Roster => self.check_roster(envelope, &current, now)?,
            Kind::Status => self.check_status(envelope, &current, now)?,
            Kind::Schema => {
                let keys = current.chains().map(|c| vec![c.governance.key()]).unwrap_or_default();
                let held: Held<Schema> = held(envelope, &keys, 1)?;
                (held.digest(), Place { name: String::new(), seq: 0 }, held.envelope)
            }
            Kind::Permit => self.check_permit(envelope, &current).await?,
            Kind::Application => self.check_application(envelope, &current).await?,
            Kind::Review => self.check_review(envelope, &current).await?,
            Kind::Decision => self.check_decision(envelope, &current).await?,
            Kind::Publication => self.check_publication(envelope, &current).await?,
            Kind::OutputReview => self.check_output_review(envelope, &current, now).await?,
            Kind::Committee => self.check_committee(envelope, &current)?,
            Kind::Governance => self.check_governance(envelope, &current)?,
            Kind::Orders => self.check_orders(envelope, &current)?,
            Kind::Catalogue => catalogue::check(envelope, &current)?,
        };
        self.store.put_document(kind, digest, &place, &envelope, now).await.map_err(unavailable)?;
        let fresh = load(&self.store, &self.trust).await.map_err(unavailable)?;
        self.current.send_replace(Arc::new(fresh));
        Ok(Accepted { kind, digest })
    }

    /// The envelope of the document that is wanted.
    ///
    /// # Errors
    /// When it is not known here.
    pub fn get(&self, want: &Want) -> Result<Vec<u8>, Refusal> {
        let current = self.current();
        match want {
            Want::Roster => {
                let none = || Refusal::new(Code::StaleRoster, "the coordinator has no roster");
                current.roster.as_ref().map(|held| held.envelope.clone()).ok_or_else(none)
            }
            Want::Status => {
                let none = || Refusal::new(Code::StaleStatus, "the coordinator has no status");
                current.status.as_ref().map(|held| held.envelope.clone()).ok_or_else(none)
            }
            Want::Schema { digest } => current.schema(*digest).map(|held| held.envelope.clone()),
            Want::Catalogue { node } => {
                let none = || Refusal::new(Code::Unavailable, "this hospital has published no catalogue");
                current.catalogue(node).map(|held| held.envelope.clone()).ok_or_else(none)
            }
            Want::Permit { name } => match name.parse() {
                Ok(digest) => current.permit(digest).map(|held| held.envelope.clone()),
                Err(_) => current.newest_permit(name).map(|held| held.envelope.clone()).ok_or_else(|| {
                    Refusal::new(Code::PermitUnknown, "no permit with this id and a quorum is known here")
                }),
            },
        }
    }

    /// The public documents of a kind with their history, the latest first.
    ///
    /// # Errors
    /// `not_authorised` for what is not public; or when the database cannot be read.
    pub async fn list(&self, want: &ListWant) -> Result<Vec<Listed>, Refusal> {
        if !want.kind.is_public() {
            let detail = format!("a {} is not public; it is read with a signed request", want.kind.as_str());
            return Err(Refusal::new(Code::NotAuthorised, detail));
        }
        let kept = self.store.kept(want.kind, want.name.as_deref(), MAX_LISTED).await.map_err(unavailable)?;
        kept.into_iter().map(listed).collect()
    }

    /// Who asks to read what, when a member of the committee in force signed the request and it is fresh.
    ///
    /// # Errors
    /// `not_authorised`, `stale_message`, or what is wrong with the envelope.
    pub fn reader(&self, envelope: &[u8], now: DateTime<Utc>) -> Result<Reader, Refusal> {
        let current = self.current();
        let committee = current.committee()?;
        let envelope = Envelope::from_json::<Access>(envelope)?;
        let known = |id: &Digest| committee.member(*id).is_some() && !current.voids(*id);
        let stranger = || Refusal::new(Code::NotAuthorised, "no member of the committee in force signed the request");
        let member = envelope.key_ids().find(known).and_then(|id| committee.member(id)).ok_or_else(stranger)?;
        let access = envelope.verify::<Access>(&[member.key], 1)?;
        fresh(&access, now)?;
        Ok(Reader { item: access.item.clone(), member: member.clone() })
    }

    /// Who asks to read the log, when a regulator or a person of a permit signed the request and it is fresh.
    ///
    /// # Errors
    /// `not_authorised`, `stale_message`, or what is wrong with the envelope.
    pub fn log_reader(&self, envelope: &[u8], now: DateTime<Utc>) -> Result<(Item, LogReader), Refusal> {
        let current = self.current();
        let envelope = Envelope::from_json::<Access>(envelope)?;
        let regulators = self.trust.regulators.iter().map(|regulator| (regulator.key, LogReader::Regulator));
        let persons = current.permits.values().flat_map(|permit| &permit.authorised_persons);
        let persons = persons.map(|person| (person.key, LogReader::Person(person.key_fingerprint)));
        let stranger =
            || Refusal::new(Code::NotAuthorised, "no regulator and no person of a permit signed the request");
        let signer = |(key, _): &(PublicKey, LogReader)| {
            let id = key.fingerprint();
            !current.voids(id) && envelope.key_ids().any(|named| named == id)
        };
        let (key, reader) = regulators.chain(persons).find(signer).ok_or_else(stranger)?;
        let access = envelope.verify::<Access>(&[key], 1)?;
        fresh(&access, now)?;
        Ok((access.item.clone(), reader))
    }

    fn check_roster(&self, envelope: &[u8], current: &Current, now: DateTime<Utc>) -> Result<Checked, Refusal> {
        let (line, key) = current.governed_by()?;
        let new: Held<Roster> = held(envelope, &[key], 1)?;
        if now >= new.expires {
            return Err(Refusal::new(Code::StaleRoster, format!("roster {} expired at {}", new.seq, new.expires)));
        }
        let pinned = current.roster.as_ref().map(|r| (r.seq, r.digest()));
        let (seq, prev, digest) = (new.seq, new.prev, new.digest());
        follows(&Offered { name: Roster::NAME, seq, prev, digest }, pinned, Gaps::Allowed)?;
        Ok((digest, Place { name: line, seq }, new.envelope))
    }

    fn check_status(&self, envelope: &[u8], current: &Current, now: DateTime<Utc>) -> Result<Checked, Refusal> {
        let (line, key) = current.governed_by()?;
        let new: Held<Status> = held(envelope, &[key], 1)?;
        if now >= new.expires {
            return Err(Refusal::new(Code::StaleStatus, format!("status {} expired at {}", new.seq, new.expires)));
        }
        let pinned = current.status.as_ref().map(|s| (s.seq, s.digest()));
        let (seq, prev, digest) = (new.seq, new.prev, new.digest());
        follows(&Offered { name: Status::NAME, seq, prev, digest }, pinned, Gaps::Allowed)?;
        Ok((digest, Place { name: line, seq }, new.envelope))
    }

    async fn check_permit(&self, envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let claimed = Envelope::from_json::<Permit>(envelope)?.digest::<Permit>()?;
        let under = self.store.committees_of_permits().await.map_err(unavailable)?.get(&claimed).copied();
        let chains = current.chains().ok_or_else(|| Refusal::new(Code::Unavailable, "no committee has been read"))?;
        let (new, under) = held_permit(envelope, &chains.committees, under, current.status.as_deref())?;
        current.schema(new.schema)?;
        if self.is_new_version(&new, new.digest(), current).await? {
            self.check_application_of(&new, current).await?;
        }
        self.store.note_committee(new.digest(), under).await.map_err(unavailable)?;
        Ok((new.digest(), Place { name: new.id.clone(), seq: new.version.into() }, new.envelope))
    }
}

/// That a request to read is neither stale nor of the future.
pub(crate) fn fresh(access: &Access, now: DateTime<Utc>) -> Result<(), Refusal> {
    if now >= access.expires || access.issued > now + SKEW {
        return Err(Refusal::new(Code::StaleMessage, "the request to read has expired, or a clock is wrong"));
    }
    Ok(())
}

fn listed(kept: Kept) -> Result<Listed, Refusal> {
    let envelope = serde_json::from_slice(&kept.envelope).map_err(unavailable)?;
    let Kept { digest, name, seq, put_at, .. } = kept;
    Ok(Listed { digest, name, seq, put_at, envelope })
}

type Checked = (Digest, Place, Vec<u8>);

/// The kind that the envelope says it has; its size is bounded before anything is decoded.
///
/// # Errors
/// `malformed` or `too_large` when it is no envelope, or of no kind that is handed in.
pub(crate) fn kind_of(envelope: &[u8]) -> Result<Kind, Refusal> {
    // Of all kinds a status may be the largest; each has its own bound below.
    let claimed = Envelope::from_json::<Status>(envelope).map_err(|error| {
        let code = Refusal::from(error).code;
        Refusal::new(code, "the bytes are not the DSSE envelope of a document that is handed in here")
    })?;
    Kind::of_payload_type(claimed.payload_type())
        .ok_or_else(|| Refusal::new(Code::Malformed, "no document of this kind is handed in here"))
}

fn held<D: Document>(envelope: &[u8], keys: &[PublicKey], needed: usize) -> Result<Held<D>, DsseError> {
    let envelope = Envelope::from_json::<D>(envelope)?;
    let verified = envelope.verify(keys, needed)?;
    Ok(Held { verified, envelope: envelope.to_json() })
}

/// A permit with a quorum of the committee that it was taken `under`, or of the newest one, and which that was; voided
/// keys and recused members do not count.
fn held_permit(
    envelope: &[u8],
    committees: &CommitteeChain,
    under: Option<Digest>,
    status: Option<&Held<Status>>,
) -> Result<(Held<Permit>, Digest), DsseError> {
    let envelope = Envelope::from_json::<Permit>(envelope)?;
    let void = |key: Digest| status.is_some_and(|s| s.void_keys.contains(&key));
    let (verified, under) = committees.verify_permit(&envelope, under, void)?;
    Ok((Held { verified, envelope: envelope.to_json() }, under))
}

async fn load(store: &Store, trust: &Trust) -> Result<Current, DocumentsError> {
    let chains = Arc::new(Chains::load(store, trust).await?);
    let mut current = Current { chains: Some(chains.clone()), ..Current::default() };
    // Roster and status may be signed by an earlier key: they were taken while that one counted.
    let governance = chains.governance.keys();
    if let Some(envelope) = store.newest(Kind::Roster, &chains.line).await? {
        let unverified = |source| DocumentsError::Unverified { kind: Kind::Roster, source };
        current.roster = Some(Arc::new(held(&envelope, governance, 1).map_err(unverified)?));
    }
    if let Some(envelope) = store.newest(Kind::Status, &chains.line).await? {
        let unverified = |source| DocumentsError::Unverified { kind: Kind::Status, source };
        current.status = Some(Arc::new(held(&envelope, governance, 1).map_err(unverified)?));
    }
    let schema_keys = current.schema_keys(&chains);
    for envelope in store.documents(Kind::Schema).await? {
        match held::<Schema>(&envelope, &schema_keys, 1) {
            Ok(schema) => drop(current.schemas.insert(schema.digest(), Arc::new(schema))),
            Err(error) => tracing::warn!(%error, "a stored schema does not verify and is not used"),
        }
    }
    current.committee = Some(Arc::new(chains.committees.newest().clone()));
    current.catalogues = catalogue::load(store, &current).await?;
    let under = store.committees_of_permits().await?;
    for envelope in store.documents(Kind::Permit).await? {
        let digest = Envelope::from_json::<Permit>(&envelope).and_then(|e| e.digest::<Permit>());
        let under = digest.ok().and_then(|digest| under.get(&digest).copied());
        match held_permit(&envelope, &chains.committees, under, current.status.as_deref()) {
            Ok((permit, _)) => drop(current.permits.insert(permit.digest(), Arc::new(permit))),
            Err(error) => tracing::warn!(%error, "a stored permit has no quorum any more and is not used"),
        }
    }
    Ok(current)
}

/// A failure of our own disk, without its words: they are for the operator.
pub(crate) fn unavailable(error: impl std::error::Error) -> Refusal {
    tracing::error!(%error, "the coordinator's database failed");
    Refusal::new(Code::Unavailable, "the coordinator's database failed")
}

#[cfg(test)]
pub(crate) mod tests;
