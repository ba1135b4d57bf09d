//! Checkpoints of hospitals' logs go round: each is handed to a few other hospitals to be cosigned.
//!
//! Promises: it comes with the proof from what that hospital witnessed of the log last, made by the log's own hospital; it is
//! offered on the control stream, when the coordinator has no checkpoint of its own to offer; a cosignature is kept with the
//! checkpoint only when it verifies. A hospital that shows the coordinator one history and was seen with another one by a
//! colleague is found out by the colleague.
//!
//! Deliberately absent: haste. An answer does not wait for it.

use std::time::Duration;

use arrow_flight::Action;
use futures::StreamExt;
use sekisho_protocol::{
    control::ACTION_CONSISTENCY,
    digest::Digest,
    log::{checkpoint::SignedCheckpoint, proof::ConsistencyProof},
    refusal::{Code, Refusal},
    roster::{MAX_MEMBERS, Member},
};
use tokio::time::timeout;

use super::{Nodes, lock, nodes_of, refusal_of_node};
use crate::{documents::Current, store::StoreError, witnesses::has_cosigned};

/// How often it is looked whether there is something to hand on.
const EVERY: Duration = Duration::from_secs(5);
/// How many other hospitals are handed a checkpoint.
const WITNESSES: usize = 2;
/// How long a hospital may take over one proof.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// The most bytes of a proof, and its framing.
const MAX_PROOF_BYTES: usize = 16 << 10;

impl Nodes {
    /// Hands checkpoints round for as long as it is polled.
    pub(super) async fn circulate(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.turn().await {
                tracing::error!(%error, "checkpoints of hospitals cannot be handed on");
            }
        }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        let current = self.documents.current();
        let hospitals: Vec<&Member> = nodes_of(&current).take(MAX_MEMBERS).collect();
        for (place, keeper) in hospitals.iter().enumerate() {
            let Some(newest) = self.store.newest_checkpoint(&keeper.name).await? else { continue };
            // The next ones on the roster, so that everybody is asked as often.
            let others = hospitals.iter().cycle().skip(place + 1).take(WITNESSES.min(hospitals.len() - 1));
            for witness in others {
                if let Some(offer) = self.to_cosign(keeper, witness, &newest, &current).await {
                    self.witnesses.hand_on(&witness.name, offer);
                }
            }
        }
        Ok(())
    }

    /// The newest checkpoint of `keeper`, as `witness` can cosign it; none when it has, is not connected, or there is no proof.
    async fn to_cosign(
        &self,
        keeper: &Member,
        witness: &Member,
        newest: &SignedCheckpoint,
        current: &Current,
    ) -> Option<ConsistencyProof> {
        let peer = self.connected(witness)?;
        let (origin, size) = (newest.claimed().origin(), newest.claimed().head().size());
        if has_cosigned(witness, current, newest) {
            return None;
        }
        let peer = lock(&self.peers).get(&peer).cloned()?;
        let old =
            lock(&peer.holdings).others.iter().find(|(log, _)| log == origin.as_str()).map_or(0, |(_, size)| *size);
        let hashes = match old {
            0 => Vec::new(),
            old if old >= size => Vec::new(),
            old => self.log_proof(keeper, old, size).await.ok()?,
        };
        (old <= size).then(|| ConsistencyProof { old, hashes, checkpoint: newest.clone() })
    }

    /// Asks a hospital for the proof that its log of `new` entries continues the one of `old`.
    ///
    /// # Errors
    /// When it is not connected, refuses, or takes too long.
    pub(crate) async fn log_proof(&self, member: &Member, old: u64, new: u64) -> Result<Vec<Digest>, Refusal> {
        let mut client = self.flight(member, MAX_PROOF_BYTES)?;
        let asked = async {
            let answers = client.do_action(Action::new(ACTION_CONSISTENCY, format!("{old} {new}"))).await?;
            answers.into_inner().next().await.transpose()
        };
        let late = |_| Refusal::new(Code::Offline, "the hospital's proof did not arrive in time");
        let answer = timeout(PROOF_TIME, asked).await.map_err(late)?.map_err(|status| refusal_of_node(&status))?;
        let body = answer.map(|answer| answer.body).unwrap_or_default();
        let (hashes, _) = body.as_chunks::<32>();
        Ok(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
    }
}
