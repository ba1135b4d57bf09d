//! What a log holds: for each signed statement a commitment with a fresh salt.
//!
//! The commitment tells nobody what the statement is, not even to who guesses it, and goes on proving that nothing was
//! changed when statement and salt are erased. Whoever is given statement, kind and salt can check it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, log::merkle};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// What kind of statement an entry commits to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, which is hashed: never renamed or reused.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for Kind {
            type Err = EntryError;

            fn from_str(name: &str) -> Result<Self, EntryError> {
                match name { $($text => Ok(Self::$variant),)* _ => Err(EntryError::Kind) }
            }
        }
    };
}

kinds! {
    /// The members of the network.
    Roster = "roster";
    /// What is revoked and suspended.
    Status = "status";
    /// Whose signatures make a permit.
    Committee = "committee";
    /// A rotation of the governance key.
    Governance = "governance";
    /// A regulator's orders.
    Orders = "orders";
    /// What a hospital offers.
    Catalogue = "catalogue";
    /// An application for a permit.
    Application = "application";
    /// A committee member's review.
    Review = "review";
    /// The committee's decision.
    Decision = "decision";
    /// A permit.
    Permit = "permit";
    /// A hospital's acceptance of a permit.
    Acceptance = "acceptance";
    /// A data user's query.
    Query = "query";
    /// A charge, before the first row is read.
    Reservation = "reservation";
    /// A node's account of a release.
    Receipt = "receipt";
    /// A refusal.
    Refusal = "refusal";
    /// A reviewer's decision about a result.
    OutputReview = "output_review";
    /// A combined result.
    Release = "release";
    /// A version of a hospital's policy.
    Policy = "policy";
    /// An inspector's replay of a release.
    Replay = "replay";
    /// Something out of the ordinary.
    Alert = "alert";
    /// A checkpoint of another party's log.
    Checkpoint = "checkpoint";
    /// What the data of a study are.
    Schema = "schema";
    /// Where results were published.
    Publication = "publication";
    /// What a hospital's lost log is taken to have charged.
    WriteOff = "write_off";
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
