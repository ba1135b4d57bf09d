//! Applications, their reviews, refusals, and what a permit must have behind it.
//!
//! Promises: versions of an application follow each other without a gap, signed by somebody of the version before; a review is
//! by a member in force, of the newest version, and lawfulness comes after completeness; a permit that names an application
//! answers its newest version, which was found complete and not refused, and is no wider in any field; no member with a
//! declared conflict has signed a decision.
//!
//! Deliberately absent: protection. Whoever runs the coordinator could leave all this out; committee members' machines check
//! the same before they sign, and hospitals verify the quorum for themselves. Reviews are believed as they were when they
//! were taken: a member who leaves the committee has still said what they said.

mod read;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    application::{Application, MAX_VERSION},
    committee::{Committee, CommitteeChain},
    decision::RefusedApplication,
    digest::Digest,
    dsse::{Envelope, Verified},
    keys::PublicKey,
    permit::Permit,
    publication::{Publication, Published},
    refusal::{Code, Refusal},
    review::{Review, Step, Verdict},
};

use super::{Checked, Current, Documents, Held, Kept, Kind, Place, unavailable};
use crate::{report::ApplicationState, requirements::Requirements};

/// How many applications are kept; anybody who reaches the door may hand one in.
const MAX_APPLICATIONS: u64 = 10_000;
/// How many reviews of one application are read.
const MAX_REVIEWS: u32 = 1000;

/// A stored version of an application, verified again.
pub(super) struct Stored {
    application: Verified<Application>,
    put_at: DateTime<Utc>,
}

/// A stored review.
pub(super) struct Reviewed {
    review: Review,
    at: DateTime<Utc>,
}

/// All reviews of an application.
pub(super) struct Reviews(Vec<Reviewed>);

impl Reviews {
    fn of(&self, version: Digest, verdict: Verdict) -> impl Iterator<Item = &Reviewed> {
        self.0.iter().filter(move |r| r.review.digest == version && r.review.verdict == verdict)
    }

    /// Since when this version has been complete: a finding after which nobody asked for changes.
    fn complete_since(&self, version: Digest) -> Option<DateTime<Utc>> {
        let changes = self.of(version, Verdict::ChangesRequested).map(|r| r.at).max();
        self.of(version, Verdict::Complete).map(|r| r.at).filter(|at| changes.is_none_or(|c| *at > c)).min()
    }

    /// The members in force who declared a conflict over any version, under this key or an earlier one.
    fn conflicted(&self, committees: &CommitteeChain) -> BTreeSet<Digest> {
        let declared = self.0.iter().filter(|r| r.review.verdict == Verdict::Conflict).map(|r| r.review.member);
        committees.seats_of(declared)
    }
}

/// That every signer is free of a conflict, and who is not is named in `recused`.
fn without_conflict(
    conflicted: &BTreeSet<Digest>,
    committee: &Committee,
    recused: &[Digest],
    envelope: &Envelope,
) -> Result<(), Refusal> {
    let name = |key: Digest| committee.member(key).map_or_else(|| key.short(), |m| m.name.clone());
    if let Some(key) = conflicted.iter().find(|key| !recused.contains(key)) {
        let detail = format!("{} declared a conflict of interest and is not named in decision.recused", name(*key));
        return Err(Refusal::new(Code::ConflictOfInterest, detail));
    }
    if let Some(key) = envelope.key_ids().find(|key| conflicted.contains(key)) {
        let detail = format!("{} declared a conflict of interest and has signed", name(key));
        return Err(Refusal::new(Code::ConflictOfInterest, detail));
    }
    Ok(())
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(Code::ApplicationUnknown, format!("no application {id} is known here"))
}

fn supersession(what: &str, detail: String) -> Refusal {
    Refusal::new(Code::Supersession, format!("{what}: {detail}"))
}

/// That only fields which may be left out are: those that the law asks for are all there.
fn complete(application: &Application) -> Result<(), Refusal> {
    let missing = Requirements::read().map_err(unavailable)?.missing_in(application).map_err(unavailable)?;
    let fields: Vec<_> = missing.into_iter().map(|m| m.field).collect();
    if fields.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(Code::ApplicationIncomplete, format!("it lacks {}", fields.join(", "))))
}

impl Current {
    /// Of `keys`, those that the status does not void.
    fn in_force(&self, keys: Vec<PublicKey>) -> Vec<PublicKey> {
        keys.into_iter().filter(|key| !self.voids(key.fingerprint())).collect()
    }

    fn permit_for(&self, application: Digest) -> Option<&Permit> {
        self.permits.values().find(|p| p.application == Some(application)).map(|p| p.document())
    }
}

impl Documents {
    /// The versions of an application, the newest first.
    async fn versions(&self, id: &str) -> Result<Vec<Stored>, Refusal> {
        let kept = self.store.kept(Kind::Application, Some(id), MAX_VERSION).await.map_err(unavailable)?;
        let mut versions = kept.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
        versions.sort_by_key(|v| std::cmp::Reverse(v.application.version));
        Ok(versions)
    }

    async fn reviews(&self, id: &str) -> Result<Reviews, Refusal> {
        let kept = self.store.kept(Kind::Review, Some(id), MAX_REVIEWS).await.map_err(unavailable)?;
        let reviewed = |kept: &Kept| {
            let envelope = Envelope::from_json::<Review>(&kept.envelope).map_err(unavailable)?;
            let (review, _) = envelope.peek::<Review>().map_err(unavailable)?;
            Ok(Reviewed { review, at: kept.put_at })
        };
        kept.iter().map(reviewed).collect::<Result<_, _>>().map(Reviews)
    }

    async fn refused(&self, application: &Application) -> Result<bool, Refusal> {
        let place = Place { name: application.id.clone(), seq: application.version.into() };
        Ok(self.store.digest_at(Kind::Decision, &place).await.map_err(unavailable)?.is_some())
    }

    async fn state(&self, newest: &Stored, reviews: &Reviews, current: &Current) -> Result<ApplicationState, Refusal> {
        let digest = newest.application.digest();
        Ok(if current.permit_for(digest).is_some() {
            ApplicationState::Permitted
        } else if self.refused(&newest.application).await? {
            ApplicationState::Refused
        } else if reviews.complete_since(digest).is_some() {
            ApplicationState::Complete
        } else if reviews.of(digest, Verdict::ChangesRequested).next().is_some() {
            ApplicationState::ChangesRequested
        } else {
            ApplicationState::Submitted
        })
    }

    /// The newest version of the application `id`, which must be the one with this digest.
    async fn newest_version(&self, id: &str, digest: Digest) -> Result<Stored, Refusal> {
        let newest = self.versions(id).await?.into_iter().next().ok_or_else(|| unknown(id))?;
        if newest.application.digest() != digest {
            let version = newest.application.version;
            let detail =
                format!("{} is not the newest version of application {id}, which is {version}", digest.short());
            return Err(Refusal::new(Code::ApplicationUnknown, detail));
        }
        Ok(newest)
    }

    pub(super) async fn check_application(&self, envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<Application>(envelope)?;
        let (claimed, _) = envelope.peek::<Application>()?;
        claimed.permissible_purposes()?;
        let new = envelope.verify::<Application>(&current.in_force(claimed.keys()), 1)?;
        let what = format!("application {} version {}", new.id, new.version);
        let versions = self.versions(&new.id).await?;
        let newest = versions.first().map_or(0, |v| v.application.version);
        match versions.iter().find(|v| v.application.version == new.version) {
            Some(same) if same.application.digest() != new.digest() => {
                return Err(Refusal::new(Code::OlderDocument, format!("{what} is already known with another digest")));
            }
            Some(_) => {}
            None if new.version != newest + 1 => {
                return Err(supersession(&what, format!("the next version is {}", newest + 1)));
            }
            None if newest == 0
                && self.store.names(Kind::Application).await.map_err(unavailable)? >= MAX_APPLICATIONS =>
            {
                return Err(Refusal::new(Code::Busy, "no more applications are taken here; ask the access body"));
            }
            None => {}
        }
        if new.version > 1 {
            let before = versions.iter().find(|v| v.application.version + 1 == new.version);
            let before = before.ok_or_else(|| supersession(&what, "the version before is not known here".into()))?;
            if new.supersedes != Some(before.application.digest()) {
                let digest = before.application.digest();
                return Err(supersession(&what, format!("it must supersede {digest}")));
            }
            envelope.verify::<Application>(&current.in_force(before.application.keys()), 1).map_err(|_| {
                let detail = format!("{what} is signed by nobody of the version before");
                Refusal::new(Code::NotAuthorised, detail)
            })?;
        }
        if let Some(schema) = new.schema {
            current.schema(schema)?;
        }
        let place = Place { name: new.id.clone(), seq: new.version.into() };
        Ok((new.digest(), place, envelope.to_json()))
    }

    pub(super) async fn check_review(&self, envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<Review>(envelope)?;
        let committee = current.committee()?;
        let ids: Vec<_> = envelope.key_ids().collect();
        let member = match ids.as_slice() {
            [id] if !current.voids(*id) => committee.member(*id),
            _ => None,
        };
        let stranger =
            || Refusal::new(Code::NotAuthorised, "one member of the committee in force signs a review, alone");
        let member = member.ok_or_else(stranger)?;
        let review = envelope.verify::<Review>(&[member.key], 1)?;
        if review.member != member.key.fingerprint() {
            let detail = format!("the review is in the name of key {}, and {} signed it", review.member, member.name);
            return Err(Refusal::new(Code::NotAuthorised, detail));
        }
        let newest = self.newest_version(&review.application, review.digest).await?;
        let reviews = self.reviews(&review.application).await?;
        let place = Place { name: review.application.clone(), seq: 0 };
        let checked = (review.digest(), place, envelope.to_json());
        if self.store.holds(review.digest()).await.map_err(unavailable)? {
            return Ok(checked);
        }
        if reviews.conflicted(&current.walked()?.committees).contains(&member.key.fingerprint()) {
            let detail =
                format!("{} declared a conflict of interest over application {}", member.name, review.application);
            return Err(Refusal::new(Code::ConflictOfInterest, detail));
        }
        match review.verdict {
            Verdict::Complete => complete(&newest.application)?,
            Verdict::Approve | Verdict::Refuse => reviewed(&newest, &reviews)?,
            Verdict::ChangesRequested | Verdict::Comment if review.step == Step::Lawfulness => {
                reviewed(&newest, &reviews)?;
            }
            Verdict::ChangesRequested | Verdict::Comment | Verdict::Conflict => {}
        }
        Ok(checked)
    }

    pub(super) async fn check_decision(&self, envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<RefusedApplication>(envelope)?;
        let committee = current.committee()?;
        let (claimed, digest) = envelope.peek::<RefusedApplication>()?;
        let void = |key: Digest| current.voids(key) || claimed.recused.contains(&key);
        let decision = committee.verify::<RefusedApplication>(&envelope, void)?;
        let place = Place { name: decision.application.clone(), seq: decision.version.into() };
        let known = self.store.digest_at(Kind::Decision, &place).await.map_err(unavailable)?;
        if known.is_some_and(|known| known != digest) {
            let detail =
                format!("application {} version {} was refused already", decision.application, decision.version);
            return Err(Refusal::new(Code::OlderDocument, detail));
        }
        if known.is_none() {
            let newest = self.newest_version(&decision.application, decision.digest).await?;
            if (newest.application.version, newest.application.basis) != (decision.version, decision.basis) {
                return Err(Refusal::new(Code::Malformed, "version and basis are not those of the application"));
            }
            let reviews = self.reviews(&decision.application).await?;
            reviewed(&newest, &reviews)?;
            without_conflict(
                &reviews.conflicted(&current.walked()?.committees),
                committee,
                &decision.recused,
                &envelope,
            )?;
            if let Some(permit) = current.permit_for(decision.digest) {
                let detail =
                    format!("permit {} version {} grants this application; revoke it", permit.id, permit.version);
                return Err(Refusal::new(Code::OlderDocument, detail));
            }
        }
        Ok((digest, place, envelope.to_json()))
    }

    pub(super) async fn check_publication(&self, envelope: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<Publication>(envelope)?;
        let (claimed, _) = envelope.peek::<Publication>()?;
        let permit = current.permit(claimed.digest).ok().filter(|permit| permit.id == claimed.id);
        let members = || current.committee().map(|c| c.members.iter().map(|m| m.key).collect());
        let keys = match (claimed.what, permit) {
            (Published::Results, Some(permit)) => permit.authorised_persons.iter().map(|p| p.key).collect(),
            (Published::Decision, Some(_)) => members()?,
            (Published::Decision, None) => {
                let refusals = self.store.kept(Kind::Decision, Some(&claimed.id), MAX_VERSION).await;
                if !refusals.map_err(unavailable)?.iter().any(|kept| kept.digest == claimed.digest) {
                    let detail =
                        format!("no permit or refusal {} of {} is known here", claimed.digest.short(), claimed.id);
                    return Err(Refusal::new(Code::PermitUnknown, detail));
                }
                members()?
            }
            (Published::Results, None) => {
                let detail = format!("no permit {} with the id {} is known here", claimed.digest.short(), claimed.id);
                return Err(Refusal::new(Code::PermitUnknown, detail));
            }
        };
        let keys: Vec<PublicKey> = current.in_force(keys);
        if !envelope.key_ids().any(|id| keys.iter().any(|key| key.fingerprint() == id)) {
            let who = "a person of the permit says where results are, a member of the committee where a decision is";
            return Err(Refusal::new(Code::NotAuthorised, who));
        }
        let publication = envelope.verify::<Publication>(&keys, 1)?;
        Ok((publication.digest(), Place { name: claimed.id, seq: 0 }, envelope.to_json()))
    }

    /// That a permit that is new here answers an application which was reviewed, and is no wider than it.
    pub(super) async fn check_application_of(&self, new: &Held<Permit>, current: &Current) -> Result<(), Refusal> {
        let (id, digest) = match (&new.application_id, new.application) {
            (Some(id), Some(digest)) => (id, digest),
            (None, None) if !self.trust.application_required => return Ok(()),
            (Some(_), None) if !self.trust.application_required => return Ok(()),
            (None | Some(_), None) | (None, Some(_)) => {
                let what = format!("permit {} version {}", new.id, new.version);
                let detail = format!("{what} names no application by id and digest, and none is taken without one");
                return Err(Refusal::new(Code::ApplicationUnknown, detail));
            }
        };
        let newest = self.newest_version(id, digest).await?;
        let reviews = self.reviews(id).await?;
        reviewed(&newest, &reviews)?;
        if self.refused(&newest.application).await? {
            let detail = format!("application {id} version {} was refused", newest.application.version);
            return Err(Refusal::new(Code::NotReviewed, detail));
        }
        let envelope = Envelope::from_json::<Permit>(&new.envelope)?;
        let committee = current.committee()?;
        without_conflict(
            &reviews.conflicted(&current.walked()?.committees),
            committee,
            &new.decision.recused,
            &envelope,
        )?;
        Ok(new.within(&newest.application)?)
    }
}

/// That this version was found complete, and nobody asked for changes since.
fn reviewed(newest: &Stored, reviews: &Reviews) -> Result<(), Refusal> {
    let Application { id, version, .. } = newest.application.document();
    if reviews.complete_since(newest.application.digest()).is_some() {
        return Ok(());
    }
    let why = if reviews.of(newest.application.digest(), Verdict::ChangesRequested).next().is_some() {
        "has changes requested, and nobody found it complete since"
    } else {
        "was found complete by nobody yet"
    };
    Err(Refusal::new(Code::NotReviewed, format!("application {id} version {version} {why}")))
}

fn stored(kept: &Kept) -> Result<Stored, Refusal> {
    let envelope = Envelope::from_json::<Application>(&kept.envelope).map_err(unavailable)?;
    let (claimed, _) = envelope.peek::<Application>().map_err(unavailable)?;
    let application = envelope.verify::<Application>(&claimed.keys(), 1).map_err(unavailable)?;
    Ok(Stored { application, put_at: kept.put_at })
}

#[cfg(test)]
mod tests;
