//! The Merkle tree of RFC 6962: hashes, and proofs made and checked.
//!
//! A proof is first planned, as the list of spans of leaves whose hashes it is made of; a reader then fetches the stored
//! hashes. So whoever keeps hashes in a database may read the planned [`Node`]s in one go. The same plan says how a proof
//! is checked, so a proof has exactly one length. From RFC 6962, section 2.1.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// The most leaves that a tree may have: what a signed 64-bit integer of a database holds.
pub const MAX_SIZE: u64 = i64::MAX as u64;
/// The most hashes that a proof in such a tree has.
pub const MAX_PROOF: usize = 64;

/// The hash of a leaf that holds `entry`.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The hash of an inner node.
pub fn node_hash(left: Digest, right: Digest) -> Digest {
    let hash = Sha256::new().chain_update([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// The root of a tree whose parts have these hashes, from left to right; each part is larger than all after it.
pub(super) fn fold(parts: &[Digest]) -> Digest {
    match parts.split_last() {
        None => Digest::of(b""),
        Some((last, before)) => before.iter().rev().fold(*last, |right, left| node_hash(*left, right)),
    }
}

/// Why a proof cannot be made, or proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More leaves than a tree may have.
    #[error("a tree has at most 2^63 - 1 leaves, this one claims {0}")]
    TooLarge(u64),
    /// No such leaf.
    #[error("there is no entry {index} in a log of {size} entries")]
    NoSuchEntry {
        /// The entry asked for.
        index: u64,
        /// How many there are.
        size: u64,
    },
    /// The log is shorter than it was.
    #[error("the log has {new} entries and had {old}: it was cut or rolled back")]
    Shrunk {
        /// How many there were.
        old: u64,
        /// How many there are.
        new: u64,
    },
    /// Hashes are missing or too many.
    #[error("the proof has {found} hashes; for these sizes it has {needed}")]
    Length {
        /// How many it has.
        found: usize,
        /// How many it must have.
        needed: usize,
    },
    /// The entry is not where it is said to be, or the log is not the one that was signed.
    #[error("the proof does not lead to the signed root: this entry is not at index {index} of that log")]
    NotIncluded {
        /// The index that was claimed.
        index: u64,
    },
    /// History was changed.
    #[error("the log of {new} entries does not continue the one of {old} entries: history was changed")]
    NotConsistent {
        /// The earlier size.
        old: u64,
        /// The later size.
        new: u64,
    },
}

/// A complete subtree: the `index`-th of those with 2^`level` leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The height; 0 is a leaf.
    pub level: u8,
    /// The place among those of its height.
    pub index: u64,
}

/// Where hashes come from.
pub trait HashReader {
    /// Why a hash cannot be read.
    type Error;

    /// The hash of `node`, all of whose leaves are in the log.
    ///
    /// # Errors
    /// When the storage fails, or lacks the hash.
    fn hash(&self, node: Node) -> Result<Digest, Self::Error>;
}

/// Consecutive leaves from `from` up to `until`, which is not one of them, that RFC 6962 hashes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    until: u64,
}

impl Span {
    /// The complete subtrees that it is made of, from left to right: at most 63.
    fn nodes(self) -> impl Iterator<Item = Node> {
        let mut from = self.from;
        std::iter::from_fn(move || {
            let level = (self.until - from).checked_ilog2()?;
            let node = Node { level: level as u8, index: from >> level };
            from += 1 << level;
            Some(node)
        })
    }
}

/// The complete subtrees that a tree of `size` leaves is made of, from left to right.
pub(super) fn peaks(size: u64) -> impl Iterator<Item = Node> {
    Span { from: 0, until: size }.nodes()
}

/// Where RFC 6962 splits `span`, which has at least two leaves: after the largest power of two below its length.
fn split(span: Span) -> u64 {
    span.from + (1 << (span.until - span.from - 1).ilog2())
}

/// What a proof is made of.
#[derive(Debug)]
pub struct Plan(Vec<Span>);

impl Plan {
    /// The proof that entry `index` is in the tree of `size` leaves: PATH of RFC 6962, section 2.1.1.
    ///
    /// # Errors
    /// When there is no such entry, or the tree is larger than a tree may be.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, ProofError> {
        if size > MAX_SIZE {
            return Err(ProofError::TooLarge(size));
        }
        if index >= size {
            return Err(ProofError::NoSuchEntry { index, size });
        }
        let mut plan = Vec::new();
        let mut rest = Span { from: 0, until: size };
        while rest.until - rest.from > 1 {
            rest = halve(rest, index, &mut plan);
        }
        plan.reverse();
        Ok(Self(plan))
    }

    /// The proof that the tree of `new` leaves begins with the tree of `old` leaves: PROOF of RFC 6962, section 2.1.2.
    /// It is empty when `old` is 0.
    ///
    /// # Errors
    /// When `old` is more than `new`, or the tree is larger than a tree may be.
    pub fn consistency(old: u64, new: u64) -> Result<Self, ProofError> {
        if new > MAX_SIZE {
            return Err(ProofError::TooLarge(new));
        }
        if old > new {
            return Err(ProofError::Shrunk { old, new });
        }
        let Some(last) = old.checked_sub(1) else { return Ok(Self(Vec::new())) };
        let mut plan = Vec::new();
        let mut rest = Span { from: 0, until: new };
        while rest.until != old {
            rest = halve(rest, last, &mut plan);
        }
        // The old tree's own root needs no proof: the reader has it.
        if rest.from > 0 {
            plan.push(rest);
        }
        plan.reverse();
        Ok(Self(plan))
    }

    /// The stored hashes that the proof needs: at most 126, since no more than one span is not a complete subtree.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.iter().flat_map(|span| span.nodes()).collect()
    }

    /// Makes the proof.
    ///
    /// # Errors
    /// Whatever the reader fails with.
    pub fn read<R: HashReader>(&self, reader: &R) -> Result<Vec<Digest>, R::Error> {
        let read = |span: &Span| Ok(fold(&span.nodes().map(|node| reader.hash(node)).collect::<Result<Vec<_>, _>>()?));
        self.0.iter().map(read).collect()
    }

    fn of_length(self, found: usize) -> Result<Self, ProofError> {
        let needed = self.0.len();
        if found == needed { Ok(self) } else { Err(ProofError::Length { found, needed }) }
    }
}

/// The half of `span` with leaf `wanted`; the other one goes to `plan`.
fn halve(span: Span, wanted: u64, plan: &mut Vec<Span>) -> Span {
    let middle = split(span);
    let (left, right) = (Span { until: middle, ..span }, Span { from: middle, ..span });
    let (chosen, other) = if wanted < middle { (left, right) } else { (right, left) };
    plan.push(other);
    chosen
}

/// How large a log is and what its root is: what a checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    size: u64,
    root: Digest,
}

impl TreeHead {
    /// The head of a log that has no entries.
    pub fn empty() -> Self {
        Self { size: 0, root: fold(&[]) }
    }

    /// A head as somebody states it; `None` when no tree can have it.
    pub fn new(size: u64, root: Digest) -> Option<Self> {
        (size <= MAX_SIZE && (size > 0 || root == fold(&[]))).then_some(Self { size, root })
    }

    /// How many entries the log has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of its tree.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Checks that the log has a leaf of hash `leaf` at `index`.
    ///
    /// # Errors
    /// When it does not, or when `proof` does not show it.
    pub fn includes(&self, index: u64, leaf: Digest, proof: &[Digest]) -> Result<(), ProofError> {
        let Plan(path) = Plan::inclusion(index, self.size)?.of_length(proof.len())?;
        let root = path.iter().zip(proof).fold(leaf, |hash, (span, sibling)| {
            if span.from > index { node_hash(hash, *sibling) } else { node_hash(*sibling, hash) }
        });
        if root == self.root { Ok(()) } else { Err(ProofError::NotIncluded { index }) }
    }

    /// Checks that the log begins with all of `old`.
    ///
    /// # Errors
    /// When it does not, or when `proof` does not show it.
    pub fn extends(&self, old: &Self, proof: &[Digest]) -> Result<(), ProofError> {
        let Plan(path) = Plan::consistency(old.size, self.size)?.of_length(proof.len())?;
        if old.size == 0 {
            return Ok(());
        }
        let mut steps = path.iter().zip(proof);
        // The proof begins with the last part of the old tree, unless the old tree is itself one subtree of the new one.
        let start = match path.first() {
            Some(span) if span.until == old.size => steps.next().map_or(old.root, |(_, hash)| *hash),
            Some(_) | None => old.root,
        };
        let (was, is) = steps.fold((start, start), |(was, is), (span, hash)| {
            if span.from >= old.size {
                (was, node_hash(is, *hash))
            } else {
                (node_hash(*hash, was), node_hash(*hash, is))
            }
        });
        if was == old.root && is == self.root {
            Ok(())
        } else {
            Err(ProofError::NotConsistent { old: old.size, new: self.size })
        }
    }
}
