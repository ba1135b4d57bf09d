//! What a stranger checks offline: that an entry is in a log (c2sp.org/tlog-proof), and what a witness is asked
//! with: that a log continues (the body of `add-checkpoint`, c2sp.org/tlog-witness).
//!
//! Extra data of a proof is not signed; ours is the opening of the commitment, which proves itself: another salt or kind
//! makes another leaf.

use std::fmt;

use crate::{
    digest::Digest,
    log::{
        checkpoint::{CheckpointError, SignedCheckpoint, VerifiedCheckpoint},
        entry::{Entry, EntryError, Opening},
        lines,
        merkle::ProofError,
        note::MAX_NOTE,
        policy::{Policy, TrustError, WitnessedCheckpoint},
    },
};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// The most bytes of extra data.
pub const MAX_EXTRA: usize = 4096;
/// The most bytes that a file of a proof may have.
pub const MAX_FILE: usize = MAX_NOTE + 16 * 1024;

/// Why a proof is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InclusionError {
    /// Longer than anybody needs.
    #[error("a proof has at most {MAX_FILE} bytes, this one has {0}")]
    TooLarge(usize),
    /// Not in the format.
    #[error("not a proof (c2sp.org/tlog-proof, c2sp.org/tlog-witness): {0}")]
    Malformed(&'static str),
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is not one to be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The hashes do not lead there.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A proof that an entry is in a log, as it arrived or is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    index: u64,
    hashes: Vec<Digest>,
    extra: Option<Vec<u8>>,
    checkpoint: SignedCheckpoint,
}

/// An entry that is in a log, as of a checkpoint that is good by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    entry: Entry,
    index: u64,
    witnessed: WitnessedCheckpoint,
}

impl Logged {
    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its place in the log.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The checkpoint as of which this holds.
    pub fn witnessed(&self) -> &WitnessedCheckpoint {
        &self.witnessed
    }
}

impl InclusionProof {
    /// The proof that the leaf at `index` is under `checkpoint`, with what opens its commitment.
    pub fn new(index: u64, hashes: Vec<Digest>, opening: &Opening, checkpoint: SignedCheckpoint) -> Self {
        Self { index, hashes, extra: Some(opening.to_bytes()), checkpoint }
    }

    /// Reads a proof. What parses is written back byte for byte.
    ///
    /// # Errors
    /// [`InclusionError::TooLarge`], [`InclusionError::Malformed`], [`InclusionError::Checkpoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InclusionError> {
        let malformed = InclusionError::Malformed;
        let (head, checkpoint) = halves(bytes)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("its first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            None => None,
            Some(base64) => {
                lines.next();
                let bytes = lines::base64(base64).filter(|bytes| bytes.len() <= MAX_EXTRA);
                Some(bytes.ok_or(malformed("its extra data is not base64 of at most 4096 bytes"))?)
            }
        };
        let index = lines.next().and_then(|line| lines::number(line.strip_prefix("index ")?));
        let index = index.ok_or(malformed("no line `index NUMBER`"))?;
        let hashes = lines::hashes(&mut lines).ok_or(malformed("its hashes are not base64 of 32 bytes, at most 64"))?;
        Ok(Self { index, hashes, extra, checkpoint })
    }

    /// What opens the commitment, if the proof carries it. It is not believed before [`InclusionProof::verify`].
    ///
    /// # Errors
    /// [`EntryError::Opening`].
    pub fn opening(&self) -> Result<Opening, EntryError> {
        Opening::from_bytes(self.extra.as_deref().unwrap_or_default())
    }

    /// The checkpoint in it, not believed.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// Checks that `entry` is under `checkpoint`, which somebody verified; its place in the log.
    ///
    /// # Errors
    /// When the proof is of another checkpoint, or its hashes do not lead there.
    pub fn under(&self, entry: &Entry, checkpoint: &VerifiedCheckpoint) -> Result<u64, InclusionError> {
        if self.checkpoint.claimed() != &**checkpoint {
            return Err(InclusionError::Malformed("its checkpoint is another one"));
        }
        checkpoint.head().includes(self.index, entry.leaf_hash(), &self.hashes)?;
        Ok(self.index)
    }

    /// Checks that `entry` is in a log that `policy` trusts.
    ///
    /// # Errors
    /// Which link broke.
    pub fn verify(&self, entry: Entry, policy: &Policy) -> Result<Logged, InclusionError> {
        let witnessed = policy.check(&self.checkpoint)?;
        witnessed.checkpoint().head().includes(self.index, entry.leaf_hash(), &self.hashes)?;
        Ok(Logged { entry, index: self.index, witnessed })
    }
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", lines::to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", lines::to_line(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// A checkpoint with the proof that it continues the one of `old` entries: what a witness is asked to cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The size of the checkpoint that it continues.
    pub old: u64,
    /// The hashes.
    pub hashes: Vec<Digest>,
    /// The later checkpoint, signed by its log.
    pub checkpoint: SignedCheckpoint,
}

impl ConsistencyProof {
    /// Reads it. What parses is written back byte for byte.
    ///
    /// # Errors
    /// [`InclusionError::TooLarge`], [`InclusionError::Malformed`], [`InclusionError::Checkpoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InclusionError> {
        let malformed = InclusionError::Malformed;
        let (head, checkpoint) = halves(bytes)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| lines::number(line.strip_prefix("old ")?));
        let old = old.ok_or(malformed("its first line is not `old NUMBER`"))?;
        let hashes = lines::hashes(&mut lines).ok_or(malformed("its hashes are not base64 of 32 bytes, at most 64"))?;
        Ok(Self { old, hashes, checkpoint })
    }
}

impl fmt::Display for ConsistencyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", lines::to_line(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The lines before the first empty line, which ends them, and the checkpoint after it.
fn halves(bytes: &[u8]) -> Result<(&str, SignedCheckpoint), InclusionError> {
    if bytes.len() > MAX_FILE {
        return Err(InclusionError::TooLarge(bytes.len()));
    }
    let malformed = InclusionError::Malformed("no empty line before its checkpoint");
    let text = str::from_utf8(bytes).map_err(|_| InclusionError::Malformed("it is not UTF-8"))?;
    let at = text.find("\n\n").ok_or(malformed)?;
    // The head keeps its last newline, so that its last line is the empty one.
    Ok((&text[..=at], SignedCheckpoint::parse(&text.as_bytes()[at + 2..])?))
}
