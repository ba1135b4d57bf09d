//! What a log holds: for each signed statement a commitment with a fresh salt.
//!
//! The commitment tells nobody what the statement is, not even to who guesses it, and goes on proving that nothing was
//! changed when statement and salt are erased. Whoever is given statement, kind and salt can check it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, log::merkle};

/// What kind of statement an entry commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The members of the network.
    Roster,
    /// What is revoked and suspended.
    Status,
    /// Whose signatures make a permit.
    Committee,
    /// A rotation of the governance key.
    Governance,
    /// A regulator's orders.
    Orders,
    /// What a hospital offers.
    Catalogue,
    /// An application for a permit.
    Application,
    /// A committee member's review.
    Review,
    /// The committee's decision.
    Decision,
    /// A permit.
    Permit,
    /// A hospital's acceptance of a permit.
    Acceptance,
    /// A data user's query.
    Query,
    /// A charge, before the first row is read.
    Reservation,
    /// A node's account of a release.
    Receipt,
    /// A refusal.
    Refusal,
    /// A reviewer's decision about a result.
    OutputReview,
    /// A combined result.
    Release,
    /// A version of a hospital's policy.
    Policy,
    /// An inspector's replay of a release.
    Replay,
    /// Something out of the ordinary.
    Alert,
    /// A checkpoint of another party's log.
    Checkpoint,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Roster,
        Self::Status,
        Self::Committee,
        Self::Governance,
        Self::Orders,
        Self::Catalogue,
        Self::Application,
        Self::Review,
        Self::Decision,
        Self::Permit,
        Self::Acceptance,
        Self::Query,
        Self::Reservation,
        Self::Receipt,
        Self::Refusal,
        Self::OutputReview,
        Self::Release,
        Self::Policy,
        Self::Replay,
        Self::Alert,
        Self::Checkpoint,
    ];

    /// Its name, which is hashed: never renamed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roster => "roster",
            Self::Status => "status",
            Self::Committee => "committee",
            Self::Governance => "governance",
            Self::Orders => "orders",
            Self::Catalogue => "catalogue",
            Self::Application => "application",
            Self::Review => "review",
            Self::Decision => "decision",
            Self::Permit => "permit",
            Self::Acceptance => "acceptance",
            Self::Query => "query",
            Self::Reservation => "reservation",
            Self::Receipt => "receipt",
            Self::Refusal => "refusal",
            Self::OutputReview => "output_review",
            Self::Release => "release",
            Self::Policy => "policy",
            Self::Replay => "replay",
            Self::Alert => "alert",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why text or bytes are not an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not one of the kinds.
    #[error("no such kind of log entry")]
    Kind,
    /// Not 32 bytes.
    #[error("a salt is 64 hexadecimal digits")]
    Salt,
    /// Not what a proof carries.
    #[error("what opens a log entry is a salt of 32 bytes and the name of its kind")]
    Opening,
}

impl FromStr for Kind {
    type Err = EntryError;

    fn from_str(name: &str) -> Result<Self, EntryError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(EntryError::Kind)
    }
}

/// 256 random bits that keep a commitment from being guessed. Erased with the statement; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt([u8; 32]);

impl Salt {
    /// A fresh salt from `rng`, which must be seeded by the operating system.
    pub fn fresh<R: rand::RngCore + rand::CryptoRng>(rng: &mut R) -> Self {
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        Self(salt)
    }

    /// A stored salt.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, to be stored beside the statement.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(hidden)")
    }
}

impl TryFrom<String> for Salt {
    type Error = EntryError;

    fn try_from(text: String) -> Result<Self, EntryError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| EntryError::Salt)?;
        Ok(Self(bytes))
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        hex::encode(salt.0)
    }
}

/// What opens a commitment, but for the statement itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// What kind of statement it is.
    pub kind: Kind,
    /// The salt.
    pub salt: Salt,
}

impl Opening {
    /// The bytes that a proof carries as its extra data: the salt, then the name of the kind.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.salt.0[..], self.kind.as_str().as_bytes()].concat()
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`EntryError::Opening`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let opened = bytes
            .split_first_chunk()
            .and_then(|(salt, kind)| Some(Self { kind: str::from_utf8(kind).ok()?.parse().ok()?, salt: Salt(*salt) }));
        opened.ok_or(EntryError::Opening)
    }
}

/// One entry of a log, as whoever holds the statement knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What kind of statement it is.
    pub kind: Kind,
    /// The salt of the commitment.
    pub salt: Salt,
    /// SHA-256 of the statement's bytes: of the whole DSSE envelope, with its signatures.
    pub statement: Digest,
}

impl Entry {
    /// The entry for `statement`, the bytes of a DSSE envelope (or of another party's signed checkpoint).
    pub fn of(opening: Opening, statement: &[u8]) -> Self {
        Self { kind: opening.kind, salt: opening.salt, statement: Digest::of(statement) }
    }

    /// What the log holds: SHA-256 over a label, the salt, the kind and the digest, each with its length before it.
    pub fn commitment(&self) -> Digest {
        Digest::of_parts(&[
            b"sekisho log leaf v1",
            &self.salt.0,
            self.kind.as_str().as_bytes(),
            self.statement.as_bytes(),
        ])
    }

    /// The hash of its leaf.
    pub fn leaf_hash(&self) -> Digest {
        merkle::leaf_hash(self.commitment().as_bytes())
    }
}
