//! Reviews of output: who may give one, and which count.
//!
//! A review is of a result that waits here, and is signed by one member of the committee in force: neither recused by the
//! permit's decision, nor void, nor of the data user's own. Members carry no organisation; of the data user's own is whoever
//! some permit of the same data user authorises to ask. Each member has one word on each result.
//!
//! Reviews are checked again whenever they are counted, so that a key that is voided later takes its word with it.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    committee::CommitteeMember,
    digest::Digest,
    dsse::{Envelope, Verified},
    output_review::{OutputReview, Standing, standing},
    permit::Permit,
    refusal::{Code, Refusal},
};

use super::{Checked, Current, Documents, SKEW, unavailable};
use crate::store::{Kept, KeptResult, Kind, Place};

/// The most reviews of one result: a committee has fewer members.
const MAX_REVIEWS: u32 = 256;

/// A review that counts, and whose it is.
#[derive(Clone, Debug)]
pub struct Reviewed {
    /// What was said.
    pub review: Verified<OutputReview>,
    /// By whom.
    pub member: CommitteeMember,
}

/// Where a result stands by the reviews that count.
pub fn standing_of(reviews: &[Reviewed]) -> Standing {
    standing(reviews.iter().map(|r| (r.member.key.fingerprint(), r.review.verdict)))
}

impl Current {
    /// Why the owner of the key may not review what was released under `permit`; none when they may.
    pub fn conflict(&self, permit: &Permit, key: Digest) -> Option<&'static str> {
        if permit.decision.recused.contains(&key) {
            return Some("the permit's decision names this member as recused");
        }
        let same_user = self.permits.values().filter(|p| p.data_user == permit.data_user);
        let own = permit.person(key).is_some() || same_user.into_iter().any(|p| p.person(key).is_some());
        own.then_some("a permit of this data user authorises this member to ask")
    }

    /// The member whose key this is or was, unless the key is void: who left has still said what was said.
    pub fn seat(&self, key: Digest) -> Option<&CommitteeMember> {
        self.chains.as_ref()?.committees.seat(key).filter(|_| !self.voids(key))
    }

    /// The member who alone signed a review, verified.
    fn reviewed(&self, envelope: &Envelope) -> Result<Reviewed, Refusal> {
        let mut keys = envelope.key_ids();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(Refusal::new(Code::Malformed, "an output review carries the signature of its reviewer alone"));
        };
        let stranger = || Refusal::new(Code::NotAuthorised, "no member of the committee signed the review");
        let member = self.seat(key).ok_or_else(stranger)?.clone();
        let review = envelope.verify::<OutputReview>(&[member.key], 1)?;
        if review.reviewer != key {
            return Err(Refusal::new(Code::Malformed, "the review names another reviewer than its signer"));
        }
        Ok(Reviewed { review, member })
    }
}

impl Documents {
    /// The reviews of a result that count, the earliest first.
    ///
    /// # Errors
    /// When the permit is not in force here, or the database cannot be read.
    pub async fn output_reviews(&self, held: &KeptResult) -> Result<Vec<Reviewed>, Refusal> {
        let current = self.current();
        let permit = current.permit(held.permit)?;
        let mut counted = Vec::new();
        for kept in self.kept_reviews(held.result).await? {
            let reviewed = Envelope::from_json::<OutputReview>(&kept.envelope)
                .map_err(Refusal::from)
                .and_then(|envelope| current.reviewed(&envelope));
            match reviewed {
                Ok(reviewed) if current.conflict(permit, reviewed.member.key.fingerprint()).is_none() => {
                    counted.push(reviewed);
                }
                Ok(_) => tracing::warn!("a review of output by a member with a conflict of interest does not count"),
                Err(refusal) => tracing::warn!(code = %refusal.code, "a stored review of output does not count"),
            }
        }
        Ok(counted)
    }

    async fn kept_reviews(&self, result: Digest) -> Result<Vec<Kept>, Refusal> {
        let kept = self.store.kept(Kind::OutputReview, Some(&result.to_string()), MAX_REVIEWS).await;
        let mut kept = kept.map_err(unavailable)?;
        kept.reverse();
        Ok(kept)
    }

    pub(super) async fn check_output_review(
        &self,
        envelope: &[u8],
        current: &Current,
        now: DateTime<Utc>,
    ) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<OutputReview>(envelope)?;
        let Reviewed { review, member } = current.reviewed(&envelope)?;
        let unknown = || Refusal::new(Code::ResultUnknown, format!("no result {} waits here", review.result.short()));
        let held = self.store.held(review.result).await.map_err(unavailable)?.ok_or_else(unknown)?;
        if (review.permit, review.query_key, review.run) != (held.permit, held.query_key, held.run) {
            let detail = format!("the result {} is of another permit, question or run", review.result.short());
            return Err(Refusal::new(Code::Malformed, detail));
        }
        let key = member.key.fingerprint();
        if current.committee()?.member(key).is_none() {
            return Err(Refusal::new(Code::NotAuthorised, "the reviewer has left the committee"));
        }
        if let Some(why) = current.conflict(current.permit(held.permit)?, key) {
            return Err(Refusal::new(Code::ConflictOfInterest, why));
        }
        if review.at > now + SKEW {
            return Err(Refusal::new(Code::StaleMessage, format!("the review is dated {}; it is {now}", review.at)));
        }
        for earlier in self.kept_reviews(review.result).await? {
            let same = Envelope::from_json::<OutputReview>(&earlier.envelope)?.key_ids().any(|id| id == key);
            if same && earlier.digest != review.digest() {
                let detail = format!("{} has reviewed the result {} already", member.name, review.result.short());
                return Err(Refusal::new(Code::DuplicateSigner, detail));
            }
        }
        Ok((review.digest(), Place { name: review.result.to_string(), seq: 0 }, envelope.to_json()))
    }
}
