//! Cosignatures: a witness' word that a log forgot and changed nothing (c2sp.org/tlog-cosignature, `cosignature/v1`).
//!
//! The only way to one is through [`Continued`], which [`Continued::check`] makes of the newest checkpoint that the
//! witness cosigned before. Deliberately absent: where that newest checkpoint is kept. It must be durable before the
//! cosignature leaves.

use chrono::{DateTime, Utc};

use crate::{
    digest::Digest,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint, VerifiedCheckpoint},
        merkle::{ProofError, TreeHead},
        note::{KeyName, NoteError, NoteKey, NoteSignature, Signs},
    },
};

/// Why a witness does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// Another log.
    #[error("the checkpoint is of {offered}; the newest one cosigned is of {newest}")]
    OtherLog {
        /// Of which log the newest one is.
        newest: KeyName,
        /// Of which log this one is.
        offered: KeyName,
    },
    /// Two heads of one size: both are signed, so the log shows different people different histories.
    #[error("{origin} signed two different roots for {size} entries: keep both checkpoints, they are the evidence")]
    Forked {
        /// Which log.
        origin: KeyName,
        /// At which size.
        size: u64,
    },
    /// The log got shorter, or the proof is no proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A time before 1970.
    #[error("a cosignature's time is at or after 1970-01-01")]
    Time,
}

/// A checkpoint that continues all that the witness has cosigned of this log.
#[derive(Debug)]
pub struct Continued(VerifiedCheckpoint);

impl Continued {
    /// A witness' rule: never cosign a checkpoint that is not consistent with the newest one it cosigned. `None` when it
    /// has cosigned none of this log; then no proof is needed. It verified the newest one before it kept it, perhaps with a key
    /// that the log has rotated since.
    ///
    /// # Errors
    /// When the log forked, got shorter, or the proof does not show that it continues.
    pub fn check(
        newest: Option<&Checkpoint>,
        offered: VerifiedCheckpoint,
        proof: &[Digest],
    ) -> Result<Self, WitnessError> {
        let empty = TreeHead::empty();
        let head = match newest {
            Some(newest) if newest.origin() != offered.origin() => {
                let (newest, offered) = (newest.origin().clone(), offered.origin().clone());
                return Err(WitnessError::OtherLog { newest, offered });
            }
            Some(newest) => newest.head(),
            None => &empty,
        };
        if head.size() == offered.head().size() && head.root() != offered.head().root() {
            return Err(WitnessError::Forked { origin: offered.origin().clone(), size: head.size() });
        }
        offered.head().extends(head, proof)?;
        Ok(Self(offered))
    }

    /// Cosigns it, as `name`, at `now`.
    ///
    /// # Errors
    /// [`WitnessError::Time`].
    pub fn cosign(&self, name: KeyName, key: &SecretKey, now: DateTime<Utc>) -> Result<NoteSignature, WitnessError> {
        let time = u64::try_from(now.timestamp()).map_err(|_| WitnessError::Time)?;
        let signature = key.sign(message(time, &self.0.text()).as_bytes());
        let key = NoteKey::new(name, Signs::Cosignature, key.public());
        Ok(NoteSignature::new(&key, [&time.to_be_bytes()[..], &signature].concat()))
    }

    /// The checkpoint, to be kept as the newest one before its cosignature leaves.
    pub fn into_checkpoint(self) -> VerifiedCheckpoint {
        self.0
    }
}

/// What a witness signs.
fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// When the witness with `key` cosigned `checkpoint`, if it did.
///
/// # Errors
/// [`NoteError::BadSignature`] when its line does not verify, [`NoteError::DuplicateSigner`] when it has two.
pub fn cosigned(checkpoint: &SignedCheckpoint, key: &NoteKey) -> Result<Option<DateTime<Utc>>, NoteError> {
    let Some(bytes) = checkpoint.note().signature(key)? else { return Ok(None) };
    let time = |time: &[u8; 8], signature: &[u8]| {
        let seconds = u64::from_be_bytes(*time);
        let verifies =
            key.key().verifies(message(seconds, checkpoint.note().text()).as_bytes(), signature.try_into().ok()?);
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
            .filter(|_| verifies && key.signs() == Signs::Cosignature)
    };
    let time = bytes.split_first_chunk().and_then(|(seconds, signature)| time(seconds, signature));
    time.map(Some).ok_or_else(|| NoteError::BadSignature(key.name().clone()))
}
