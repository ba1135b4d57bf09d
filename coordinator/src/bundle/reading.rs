//! Which results there are to export, and who may: the persons of a permit its own, members of the committee and regulators all.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    access::{Access, Item},
    digest::Digest,
    dsse::Envelope,
    keys::PublicKey,
    output_review::Standing,
    permit::{OutputReview as Rule, Permit},
    published::PublishedRelease,
    refusal::{Code, Refusal},
    roster::{Member, Role, Roster},
};
use serde::{Deserialize, Serialize};

use crate::{
    documents::{Current, Documents, fresh, standing_of, unavailable},
    store::{KeptStatement, Store},
};

/// The most results that are listed at once.
const MAX_LISTED: u32 = 1000;

/// A result that was released here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Its digest, which names it.
    pub result: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// The permit's id.
    pub permit_id: String,
    /// The study.
    pub study: String,
    /// Which run of its question.
    pub run: u32,
    /// When the round ended.
    pub at: DateTime<Utc>,
    /// The hospitals that answered.
    pub answered: Vec<String>,
    /// How many were asked.
    pub asked: usize,
    /// Where it stands: `released` where nobody reviews.
    pub standing: Standing,
}

/// The coordinator of a roster.
pub(super) fn coordinator(roster: &Roster) -> Option<&Member> {
    roster.members.iter().find(|member| member.role == Role::Coordinator)
}

/// A result as it is listed; none when its permit is not in force here any more.
async fn report(
    documents: &Documents,
    store: &Store,
    current: &Current,
    kept: &KeptStatement,
) -> Result<Option<ReleaseReport>, Refusal> {
    let Ok(permit) = current.permit(kept.permit) else { return Ok(None) };
    let said = Envelope::from_json::<PublishedRelease>(&kept.envelope)?.peek::<PublishedRelease>()?.0;
    let standing = match permit.output_review {
        Rule::Automatic => Standing::Released,
        Rule::TwoPerson => match store.held(kept.result).await.map_err(unavailable)? {
            None => Standing::Awaiting,
            Some(held) => standing_of(&documents.output_reviews(&held).await?),
        },
    };
    Ok(Some(ReleaseReport {
        result: kept.result,
        permit: kept.permit,
        permit_id: permit.id.clone(),
        study: said.study_id.clone(),
        run: said.run,
        at: said.at,
        answered: said.releases().map(|(name, _)| name.to_string()).collect(),
        asked: said.holders.len(),
        standing,
    }))
}

/// The results under permits that `may` allows, the latest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    documents: &Documents,
    store: &Store,
    may: impl Fn(&Permit) -> bool,
) -> Result<Vec<ReleaseReport>, Refusal> {
    let (current, mut all) = (documents.current(), Vec::new());
    for kept in store.all_published(None, MAX_LISTED).await.map_err(unavailable)? {
        if current.permit(kept.permit).is_ok_and(|permit| may(permit)) {
            all.extend(report(documents, store, &current, &kept).await?);
        }
    }
    Ok(all)
}

/// Who signed a fresh request to read results: by key, and what it is about.
pub(crate) struct Asker {
    key: PublicKey,
    /// Members of the committee and regulators may have every result.
    all: bool,
    /// What is asked for.
    pub item: Item,
}

impl Asker {
    /// The asker who signed `envelope`, when the key is one that may read some result.
    ///
    /// # Errors
    /// `not_authorised`, `stale_message`, or what is wrong with the envelope.
    pub fn of(documents: &Documents, envelope: &[u8], now: DateTime<Utc>) -> Result<Self, Refusal> {
        let current = documents.current();
        let committee = current.committee()?.members.iter().map(|member| member.key);
        let overseers: Vec<PublicKey> = committee.chain(documents.regulators()).collect();
        let persons = current.permits().flat_map(|permit| permit.authorised_persons.iter().map(|p| p.key));
        let known: Vec<PublicKey> =
            overseers.iter().copied().chain(persons).filter(|key| !current.voids(key.fingerprint())).collect();
        let envelope = Envelope::from_json::<Access>(envelope)?;
        let stranger = || {
            let detail = "the signer is no person of a permit, no member of the committee and no regulator";
            Refusal::new(Code::NotAuthorised, detail)
        };
        let signer = envelope.key_ids().find_map(|id| known.iter().find(|key| key.fingerprint() == id));
        let key = *signer.ok_or_else(stranger)?;
        let access = envelope.verify::<Access>(&[key], 1)?;
        fresh(&access, now)?;
        Ok(Self { key, all: overseers.contains(&key), item: access.item.clone() })
    }

    /// Whether the asker may have what was released under `permit`.
    pub fn may(&self, permit: &Permit) -> bool {
        self.all || permit.person(self.key.fingerprint()).is_some()
    }

    /// That the asker may have this result. To others it is the same whether it is there.
    ///
    /// # Errors
    /// `result_unknown`.
    pub async fn may_have(&self, documents: &Documents, store: &Store, result: Digest) -> Result<(), Refusal> {
        let current = documents.current();
        let kept = store.published(result).await.map_err(unavailable)?;
        let permit = kept.and_then(|kept| current.permit(kept.permit).ok());
        if permit.is_some_and(|permit| self.may(permit)) {
            return Ok(());
        }
        Err(Refusal::new(Code::ResultUnknown, format!("no result {} was released to this signer", result.short())))
    }
}
