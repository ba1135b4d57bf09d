//! Who may read applications and their reviews: the committee all of them, the people of an application its own.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    access::{Access, Item},
    application::Application,
    digest::Digest,
    dsse::{Envelope, Verified},
    keys::PublicKey,
    refusal::{Code, Refusal},
};
use serde::Serialize;

use super::{
    super::{Current, Documents, Kept, Kind, MAX_LISTED, fresh, listed, unavailable},
    MAX_REVIEWS, Stored, stored,
};
use crate::report::{ApplicationReport, Listed, ReviewReport};

/// Who asks to read.
struct Asker<'a> {
    envelope: &'a Envelope,
    /// The committee's keys.
    members: Vec<PublicKey>,
    current: &'a Current,
    now: DateTime<Utc>,
}

impl Asker<'_> {
    /// That one of `keys` signed the request, and that it is fresh.
    fn is_one_of(&self, keys: Vec<PublicKey>) -> Result<bool, Refusal> {
        let keys = self.current.in_force(keys);
        let named = |id: Digest| keys.iter().any(|key| key.fingerprint() == id);
        if !self.envelope.key_ids().any(named) {
            return Ok(false);
        }
        let access = self.envelope.verify::<Access>(&keys, 1)?;
        fresh(&access, self.now).map(|()| true)
    }

    fn may_read(&self, newest: &Stored) -> Result<bool, Refusal> {
        Ok(self.is_one_of(self.members.clone())? || self.is_one_of(newest.application.keys())?)
    }
}

impl Documents {
    /// What a signed request to read applications returns, in JSON: a list of [`Listed`] or [`ReviewReport`], the latest
    /// first, or of [`ApplicationReport`].
    ///
    /// # Errors
    /// `not_authorised` for whoever may not read it, or if it is not there; `stale_message`.
    pub async fn read_application(&self, envelope: &[u8], now: DateTime<Utc>) -> Result<Vec<u8>, Refusal> {
        let current = self.current();
        let members = current.committee()?.members.iter().map(|m| m.key).collect();
        let envelope = Envelope::from_json::<Access>(envelope)?;
        let (access, _) = envelope.peek::<Access>()?;
        let asker = Asker { envelope: &envelope, members, current: &current, now };
        match access.item {
            Item::Application { id } => {
                self.readable(&id, &asker).await?;
                let kept = self.store.kept(Kind::Application, Some(&id), MAX_LISTED).await.map_err(unavailable)?;
                json(&kept.into_iter().map(listed).collect::<Result<Vec<_>, _>>()?)
            }
            Item::Reviews { application } => {
                self.readable(&application, &asker).await?;
                json(&self.reviews_of(&application).await?)
            }
            Item::Applications => json(&self.reports(&asker).await?),
            Item::HeldResults
            | Item::HeldResult { .. }
            | Item::Releases
            | Item::Release { .. }
            | Item::LogEntries { .. }
            | Item::LogStatement { .. } => {
                Err(Refusal::new(Code::Malformed, "this request is not about an application"))
            }
        }
    }

    /// That the asker may read the application `id`. To others it is the same whether it is there.
    async fn readable(&self, id: &str, asker: &Asker<'_>) -> Result<(), Refusal> {
        let newest = self.versions(id).await?.into_iter().next();
        let stranger = || {
            let detail = format!("the signer is no member of the committee and no person of application {id}");
            Refusal::new(Code::NotAuthorised, detail)
        };
        match newest {
            Some(newest) if asker.may_read(&newest)? => Ok(()),
            None if asker.is_one_of(asker.members.clone())? => Err(super::unknown(id)),
            Some(_) | None => Err(stranger()),
        }
    }

    async fn reports(&self, asker: &Asker<'_>) -> Result<Vec<ApplicationReport>, Refusal> {
        let mut reports = Vec::new();
        for newest in self.newest_versions().await? {
            if asker.may_read(&newest)? {
                reports.push(self.report(&newest, asker.current).await?);
            }
        }
        // Nobody's list is empty for want of a signature that verifies.
        if reports.is_empty() && !asker.is_one_of(asker.members.clone())? {
            return Err(Refusal::new(
                Code::NotAuthorised,
                "the signer is a person of no application that is known here",
            ));
        }
        Ok(reports)
    }

    async fn newest_versions(&self) -> Result<Vec<Stored>, Refusal> {
        let kept: Vec<Kept> = self.store.newest_of_each(Kind::Application, MAX_LISTED).await.map_err(unavailable)?;
        kept.iter().map(stored).collect()
    }

    async fn report(&self, newest: &Stored, current: &Current) -> Result<ApplicationReport, Refusal> {
        let application = newest.application.document();
        let reviews = self.reviews(&application.id).await?;
        let digest = newest.application.digest();
        Ok(ApplicationReport {
            id: application.id.clone(),
            version: application.version,
            digest,
            basis: application.basis,
            applicant: application.applicant.name.clone(),
            state: self.state(newest, &reviews, current).await?,
            put_at: newest.put_at,
            complete_since: reviews.complete_since(digest),
        })
    }

    /// Every application in its newest version, and how far it is; for the committee, whose members the caller knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn applications(&self) -> Result<Vec<ApplicationReport>, Refusal> {
        let current = self.current();
        let mut reports = Vec::new();
        for newest in self.newest_versions().await? {
            reports.push(self.report(&newest, &current).await?);
        }
        Ok(reports)
    }

    /// How far the application `id` is, and its versions, the newest first, each with the time when it was handed in; for the
    /// committee, whose members the caller knows.
    ///
    /// # Errors
    /// `application_unknown`, or when the database cannot be read.
    pub(crate) async fn application(
        &self,
        id: &str,
    ) -> Result<(ApplicationReport, Vec<(Verified<Application>, DateTime<Utc>)>), Refusal> {
        let versions = self.versions(id).await?;
        let newest = versions.first().ok_or_else(|| super::unknown(id))?;
        let report = self.report(newest, &self.current()).await?;
        Ok((report, versions.into_iter().map(|stored| (stored.application, stored.put_at)).collect()))
    }

    /// What was said of the application `id`, the latest first; for the committee and its people, whom the caller knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn reviews_of(&self, id: &str) -> Result<Vec<ReviewReport>, Refusal> {
        let current = self.current();
        let committee = current.committee()?;
        let report = |kept: Kept| {
            let Listed { digest, put_at, envelope, .. } = listed(kept)?;
            let member = envelope.key_ids().find_map(|id| committee.member(id)).map(|m| m.name.clone());
            Ok(ReviewReport { digest, member, put_at, envelope })
        };
        let kept = self.store.kept(Kind::Review, Some(id), MAX_REVIEWS).await.map_err(unavailable)?;
        kept.into_iter().map(report).collect()
    }

    /// The keys of the members in force who declared a conflict of interest over the application `id`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn conflicted(&self, id: &str) -> Result<BTreeSet<Digest>, Refusal> {
        Ok(self.reviews(id).await?.conflicted(&self.current().walked()?.committees))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(unavailable)
}
