//! What people are shown of a stored log, and the proofs that they are given; the same at hospitals and at the coordinator.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use super::{Leaf, LogError, Opened, damaged, head_at, inclusion, leaves};
use crate::{
    digest::Digest,
    log::{
        checkpoint::SignedCheckpoint,
        entry::{Kind, Opening},
        proof::InclusionProof,
    },
};

/// The fewest digits of a digest that name a statement.
const MIN_DIGITS: usize = 12;

/// An entry as it is listed: never its statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its place, from 0.
    pub index: u64,
    /// The kind of its statement.
    pub kind: Kind,
    /// What the tree holds.
    pub commitment: Digest,
    /// SHA-256 of its statement; none when it was erased.
    pub statement: Option<Digest>,
}

impl From<&Leaf> for Shown {
    fn from(leaf: &Leaf) -> Self {
        let Leaf { index, kind, commitment, opened } = leaf;
        let statement = opened.as_ref().map(|opened| Digest::of(&opened.statement));
        Self { index: *index, kind: *kind, commitment: *commitment, statement }
    }
}

impl Shown {
    /// Its cells in a table: place, kind, statement.
    pub fn cells(&self) -> [String; 3] {
        let statement = self.statement.map_or_else(|| "erased".into(), |digest| digest.to_string());
        [self.index.to_string(), self.kind.to_string(), statement]
    }
}

/// An entry as a person names it: by its place, or by the SHA-256 of its statement or the first digits of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By place.
    Index(u64),
    /// By the digest's first digits, at least 12.
    Statement(String),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digest = (MIN_DIGITS..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // A number of twelve digits is a digest: no log is so long.
        if digest {
            return Ok(Self::Statement(text.into()));
        }
        text.parse().map(Self::Index).map_err(|_| {
            "write the number of an entry, or the SHA-256 of its statement or the first 12 digits or more".into()
        })
    }
}

/// Where the entry is that `which` names.
///
/// # Errors
/// When there is none or more than one, or the database fails.
pub async fn place_of(connection: &mut SqliteConnection, which: &Which) -> Result<u64, LogError> {
    let digits = match which {
        Which::Index(index) => return Ok(*index),
        Which::Statement(digits) => digits,
    };
    let sql = "SELECT idx FROM log_statement WHERE substr(lower(hex(digest)), 1, length(?1)) = ?1 ORDER BY idx LIMIT 2";
    let found: Vec<i64> = sqlx::query_scalar(sql).bind(digits).fetch_all(connection).await?;
    match found[..] {
        [index] => Ok(index.cast_unsigned()),
        [] => {
            Err(LogError::Unprovable(format!("no statement of this log has the SHA-256 {digits}…, or it was erased")))
        }
        _ => Err(LogError::Unprovable(format!("more than one statement has the SHA-256 {digits}…: name the entry"))),
    }
}

/// A statement, and the proof that it is in the log.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The proof, with what opens the commitment and the checkpoint.
    pub proof: InclusionProof,
    /// Of which kind it is.
    pub kind: Kind,
    /// The statement's bytes.
    pub statement: Vec<u8>,
}

/// Proves that entry `index` is in the log of `checkpoint`, which must be this one.
///
/// # Errors
/// When there is no such entry, it was erased, it came after the checkpoint, or the checkpoint is of another log.
pub async fn prove(
    connection: &mut SqliteConnection,
    index: u64,
    checkpoint: SignedCheckpoint,
) -> Result<Proved, LogError> {
    let signed = *checkpoint.claimed().head();
    let leaf = leaves(connection, index, 1).await?.into_iter().find(|leaf| leaf.index == index);
    let leaf = leaf.ok_or_else(|| LogError::Unprovable(format!("there is no entry {index}")))?;
    if index >= signed.size() {
        return Err(LogError::Unprovable(format!(
            "the newest checkpoint that witnesses cosigned has {} entries, and this is entry {index}: wait until they \
             cosigned the next one",
            signed.size()
        )));
    }
    let erased = || LogError::Unprovable(format!("the statement of entry {index} was erased"));
    let Opened { salt, statement } = leaf.opened.ok_or_else(erased)?;
    if head_at(connection, signed.size()).await? != signed {
        return Err(damaged(format!(
            "its first {} entries do not have the root of the signed checkpoint",
            signed.size()
        )));
    }
    let hashes = inclusion(connection, index, signed.size()).await?;
    let opening = Opening { kind: leaf.kind, salt };
    Ok(Proved { proof: InclusionProof::new(index, hashes, &opening, checkpoint), kind: leaf.kind, statement })
}
