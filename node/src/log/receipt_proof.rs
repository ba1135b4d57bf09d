//! The proof that a receipt is in the hospital's log, which leaves with the answer: so a hospital that hands out a receipt
//! which its log does not have is caught at once, and a stranger can check it later.
//!
//! Deliberately absent: proofs of anything else of the log; an answer opens the entry of its own receipt and no other.

use sekisho_protocol::{
    log::{
        checkpoint::SignedCheckpoint,
        entry::{Kind, Opening},
        proof::InclusionProof,
        store,
    },
    refusal::{Code, Refusal},
};

use super::{Log, standing::refusal};
use crate::{answer::Answering, store::StoreError};

impl Log {
    /// The proof that `receipt` is under `checkpoint`, one of this log; none when it was erased.
    async fn receipt_proof(
        &self,
        receipt: &[u8],
        checkpoint: &SignedCheckpoint,
    ) -> Result<Option<InclusionProof>, StoreError> {
        let mut tx = self.store.read().begin().await?;
        let Some(index) = store::find(&mut tx, Kind::Receipt, receipt).await? else { return Ok(None) };
        let opened = store::leaves(&mut tx, index, 1).await?.pop().and_then(|leaf| leaf.opened);
        let Some(opened) = opened else { return Ok(None) };
        let hashes = store::inclusion(&mut tx, index, checkpoint.claimed().head().size()).await?;
        let opening = Opening { kind: Kind::Receipt, salt: opened.salt };
        Ok(Some(InclusionProof::new(index, hashes, &opening, checkpoint.clone())))
    }
}

impl Answering {
    /// The proof that `receipt`, the bytes of its envelope, is under `checkpoint` of this node's log.
    ///
    /// # Errors
    /// `unavailable` when the log cannot be read, or the receipt was erased from it.
    pub async fn receipt_proof(
        &self,
        receipt: &[u8],
        checkpoint: &SignedCheckpoint,
    ) -> Result<InclusionProof, Refusal> {
        let proof = self.ledger.log().receipt_proof(receipt, checkpoint).await.map_err(|error| refusal(&error))?;
        proof.ok_or_else(|| Refusal::new(Code::Unavailable, "the receipt was erased from the hospital's log"))
    }
}
