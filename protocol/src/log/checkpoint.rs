//! Checkpoints: a log's signed statement of its size and root (c2sp.org/tlog-checkpoint).
//!
//! A log's key is named as its origin, so the origin is a key's name: the specification only recommends that, our
//! policies need it. That a log never signs two checkpoints which do not continue one another is for its keeper to see to.

use std::fmt;

use crate::{
    keys::{PublicKey, SecretKey},
    log::{
        lines,
        merkle::TreeHead,
        note::{KeyName, Note, NoteError, NoteKey, NoteSignature, Signs},
    },
};

/// The most extension lines that a checkpoint may have.
pub const MAX_EXTENSIONS: usize = 16;
/// The most bytes that an extension line may have.
pub const MAX_EXTENSION: usize = 1024;

/// Why a checkpoint is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text of the note.
    #[error("not a checkpoint (c2sp.org/tlog-checkpoint): {0}")]
    Malformed(&'static str),
    /// Of another log than the key.
    #[error("this is a checkpoint of {origin}, and the key is that of {key}")]
    OtherLog {
        /// Whose it says it is.
        origin: KeyName,
        /// Whose it should be.
        key: KeyName,
    },
    /// The log did not sign.
    #[error("{0} did not sign this checkpoint with the key that you trust")]
    Unsigned(KeyName),
}

/// The name of the log of the member `member`, in the network that the governance key `governance` began.
///
/// # Errors
/// When the member's name cannot be part of a key's name.
pub fn origin(governance: &PublicKey, member: &str) -> Result<KeyName, NoteError> {
    format!("sekisho-{}/{member}", governance.fingerprint().short()).parse()
}

/// The parts of the name of a member's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose<'a> {
    /// What the names of all logs and witnesses of the network begin with.
    pub network: &'a str,
    /// The member, by roster name.
    pub member: &'a str,
    /// Which of the member's logs, from 1: it begins another one only when it lost the one before.
    pub generation: u32,
}

/// Reads the name of a log as [`origin`] and [`successor`] write it; `None` for other names.
pub fn whose(origin: &KeyName) -> Option<Whose<'_>> {
    let (network, rest) = origin.as_str().split_once('/')?;
    let Some((member, number)) = rest.split_once('/') else {
        return Some(Whose { network, member: rest, generation: 1 });
    };
    let generation = number.parse().ok().filter(|generation: &u32| *generation > 1)?;
    (generation.to_string() == number).then_some(Whose { network, member, generation })
}

/// The name of the log that a member begins after it lost the log `lost`.
///
/// # Errors
/// When `lost` is not a member's log, or the last one that can be named.
pub fn successor(lost: &KeyName) -> Result<KeyName, NoteError> {
    let last = NoteError::Malformed("no other log of this member can be named");
    let Whose { network, member, generation } = whose(lost).ok_or(last.clone())?;
    format!("{network}/{member}/{}", generation.checked_add(1).ok_or(last)?).parse()
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: KeyName,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// The checkpoint of the log `origin` at `head`.
    pub fn new(origin: KeyName, head: TreeHead) -> Self {
        Self { origin, head, extensions: Vec::new() }
    }

    /// Which log.
    pub fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// Its size and root.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Lines that the log added. No witness vouches for what they say.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// What is signed.
    pub(super) fn text(&self) -> String {
        let Self { origin, head, extensions } = self;
        let lines = [origin.to_string(), head.size().to_string(), lines::to_line(&head.root())];
        lines.iter().chain(extensions).flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.split_terminator('\n');
        let mut line = || lines.next().ok_or(malformed("it has fewer than three lines"));
        let origin = line()?.parse()?;
        let size =
            lines::number(line()?).ok_or(malformed("its second line is the size of the tree, at most 2^63 - 1"))?;
        let root = lines::hash(line()?).ok_or(malformed("its third line is the root, base64 of 32 bytes"))?;
        let head = TreeHead::new(size, root).ok_or(malformed("the root is not that of an empty tree"))?;
        let extensions: Vec<String> = lines.take(MAX_EXTENSIONS + 1).map(str::to_owned).collect();
        if extensions.len() > MAX_EXTENSIONS || extensions.iter().any(|e| e.is_empty() || e.len() > MAX_EXTENSION) {
            return Err(malformed("at most 16 extension lines, none empty or longer than 1024 bytes"));
        }
        Ok(Self { origin, head, extensions })
    }
}

/// A checkpoint with its signature lines; nothing in it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Reads a checkpoint. What parses is written back byte for byte.
    ///
    /// # Errors
    /// [`CheckpointError::Note`], [`CheckpointError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        Ok(Self { checkpoint: Checkpoint::parse(note.text())?, note })
    }

    /// Signs `checkpoint` with its log's key.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] when the text cannot be a note's, which a [`Checkpoint`] does not let happen.
    pub fn sign(checkpoint: Checkpoint, key: &SecretKey) -> Result<Self, CheckpointError> {
        let mut note = Note::new(checkpoint.text())?;
        let name = NoteKey::new(checkpoint.origin.clone(), Signs::Text, key.public());
        note.add(NoteSignature::new(&name, key.sign(note.text().as_bytes()).to_vec()))?;
        Ok(Self { checkpoint, note })
    }

    /// Adds a signature line, as a witness returns it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), CheckpointError> {
        Ok(self.note.add(signature)?)
    }

    /// What it says, not believed.
    pub fn claimed(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(super) fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that the log signed it with `key`.
    ///
    /// # Errors
    /// When it is of another log, not signed, or a signature does not verify.
    pub fn verify(&self, key: &NoteKey) -> Result<VerifiedCheckpoint, CheckpointError> {
        let origin = &self.checkpoint.origin;
        if origin != key.name() {
            return Err(CheckpointError::OtherLog { origin: origin.clone(), key: key.name().clone() });
        }
        if self.note.signed_by(key)? {
            Ok(VerifiedCheckpoint(self.checkpoint.clone()))
        } else {
            Err(CheckpointError::Unsigned(origin.clone()))
        }
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A checkpoint that its log signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint(Checkpoint);

impl std::ops::Deref for VerifiedCheckpoint {
    type Target = Checkpoint;

    fn deref(&self) -> &Checkpoint {
        &self.0
    }
}
