//! What the hospitals show of their logs: each answer has a checkpoint, which must continue the newest one that was kept.
//!
//! Promises: an answer is believed only with a checkpoint that its hospital signed and that fits all that were kept before; the
//! newest is durable, and in the coordinator's own log, before the answer is used; a checkpoint that contradicts is entered in
//! the log too, since both together are the evidence.
//!
//! Answers arrive out of order, so that a checkpoint may be older than the newest: then the hospital must prove that the newest
//! continues it.

use super::{
    Rounds,
    authorise::PermittedQuery,
    collect::{NoRelease, unbelieved},
    failed,
};
use crate::network::keys_of;
use sekisho_protocol::{
    log::{
        checkpoint::{SignedCheckpoint, VerifiedCheckpoint, whose},
        cosignature::{Continued, WitnessError},
        note::{NoteKey, Signs},
        proof::ConsistencyProof,
    },
    refusal::{Code, Refusal},
    roster::Member,
};

/// How often it is tried again when other answers of the hospital arrive at the same time.
const TURNS: usize = 64;

impl Rounds {
    /// How many entries of a hospital's log were seen.
    pub(super) async fn seen(&self, member: &Member) -> Result<u64, NoRelease> {
        let newest = self.store.newest_checkpoint(&member.name).await.map_err(|error| failed(&error))?;
        Ok(newest.map_or(0, |newest| newest.claimed().head().size()))
    }

    /// Keeps what a hospital shows of its log, if it fits what it showed before. One that others have overtaken is entered too:
    /// receipts are proven under it.
    pub(super) async fn witness(
        &self,
        query: &PermittedQuery,
        member: &Member,
        shown: Option<&String>,
    ) -> Result<VerifiedCheckpoint, NoRelease> {
        let shown = shown.ok_or_else(|| unbelieved("the answer has no checkpoint of the hospital's log"))?;
        let malformed = |_| unbelieved("what the hospital shows of its log is no checkpoint");
        let shown = ConsistencyProof::parse(shown.as_bytes()).map_err(malformed)?;
        let offered = verified(&shown.checkpoint, query, member)?;
        for _ in 0..TURNS {
            let newest = self.store.newest_checkpoint(&member.name).await.map_err(|error| failed(&error))?;
            if let Err(why) = self.fits(member, newest.as_ref(), &offered, &shown).await? {
                tracing::error!(hospital = member.name, %why, "a hospital showed two histories of its log");
                self.store.enter_checkpoint(&shown.checkpoint).await.map_err(|error| failed(&error))?;
                return Err(NoRelease::Unbelieved(Refusal::new(Code::LedgerForked, why.to_string())));
            }
            let size = |checkpoint: &SignedCheckpoint| checkpoint.claimed().head().size();
            if newest.as_ref().is_some_and(|newest| size(newest) >= size(&shown.checkpoint)) {
                self.store.enter_checkpoint(&shown.checkpoint).await.map_err(|error| failed(&error))?;
                return Ok(offered);
            }
            let kept = self.store.keep_checkpoint(&member.name, newest.as_ref(), &shown.checkpoint).await;
            if kept.map_err(|error| failed(&error))? {
                return Ok(offered);
            }
        }
        Err(Refusal::new(Code::Busy, "too many answers of the hospital at once").into())
    }

    /// Whether `offered` and the newest checkpoint are of one history.
    async fn fits(
        &self,
        member: &Member,
        newest: Option<&SignedCheckpoint>,
        offered: &VerifiedCheckpoint,
        shown: &ConsistencyProof,
    ) -> Result<Result<(), WitnessError>, NoRelease> {
        let Some(newest) = newest.map(SignedCheckpoint::claimed) else { return Ok(Ok(())) };
        let (old, new) = (newest.head().size(), offered.head().size());
        if newest.origin() == offered.origin() && new < old {
            let hashes = self.nodes.log_proof(member, new, old).await?;
            return Ok(newest.head().extends(offered.head(), &hashes).map_err(WitnessError::from));
        }
        let fetched =
            if shown.old == old || old >= new { None } else { Some(self.nodes.log_proof(member, old, new).await?) };
        let hashes = if old == new { &[][..] } else { fetched.as_deref().unwrap_or(&shown.hashes) };
        Ok(Continued::check(Some(newest), offered.clone(), hashes).map(drop))
    }
}

/// A checkpoint that the hospital signed for its own log.
fn verified(
    checkpoint: &SignedCheckpoint,
    query: &PermittedQuery,
    member: &Member,
) -> Result<VerifiedCheckpoint, NoRelease> {
    let origin = checkpoint.claimed().origin();
    if whose(origin).is_none_or(|whose| whose.member != member.name) {
        return Err(unbelieved("the hospital shows a checkpoint of another member's log"));
    }
    let key = |key| NoteKey::new(origin.clone(), Signs::Text, key);
    let signed = keys_of(member, &query.current).into_iter().find_map(|k| checkpoint.verify(&key(k)).ok());
    signed.ok_or_else(|| unbelieved("the hospital did not sign the checkpoint of its log"))
}
