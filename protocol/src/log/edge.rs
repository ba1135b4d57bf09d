//! The right edge of a tree: all that is needed to append leaves and to know the root.
//!
//! An edge is read only together with the head that was signed, and compared with it. Deliberately absent: where hashes
//! are stored. [`Edge::append`] names those that must be.

use crate::{
    digest::Digest,
    log::{
        merkle::{HashReader, MAX_SIZE, Node, ProofError, TreeHead, fold, node_hash, peaks},
        tile::HEIGHT,
    },
};

/// Why a stored log cannot be appended to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError<E> {
    /// The storage said so.
    #[error(transparent)]
    Reader(E),
    /// The storage was changed or damaged since the checkpoint was signed.
    #[error(
        "the stored hashes of the log's {size} entries do not have the root that was signed: restore them from a copy"
    )]
    OtherRoot {
        /// How many entries the log has.
        size: u64,
    },
}

/// The roots of the complete subtrees that a tree is made of, from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    peaks: Vec<Digest>,
}

impl Edge {
    /// The edge of a log that has no entries.
    pub fn empty() -> Self {
        Self { size: 0, peaks: Vec::new() }
    }

    /// The hashes that [`Edge::read`] reads: at most 63.
    pub fn nodes(head: &TreeHead) -> Vec<Node> {
        peaks(head.size()).collect()
    }

    /// The edge of a stored log whose newest checkpoint says `head`.
    ///
    /// # Errors
    /// Whatever the reader fails with; [`EdgeError::OtherRoot`] when the stored hashes are not those that were signed.
    pub fn read<R: HashReader>(head: &TreeHead, reader: &R) -> Result<Self, EdgeError<R::Error>> {
        let hashes = peaks(head.size()).map(|node| reader.hash(node).map_err(EdgeError::Reader));
        let edge = Self { size: head.size(), peaks: hashes.collect::<Result<_, _>>()? };
        if edge.head() == *head { Ok(edge) } else { Err(EdgeError::OtherRoot { size: edge.size }) }
    }

    /// Appends leaves and returns what must be stored: the hashes that tiles are made of, in the order of their making.
    ///
    /// # Errors
    /// When the tree would be larger than a tree may be; then nothing is appended.
    pub fn append(&mut self, leaf_hashes: &[Digest]) -> Result<Vec<(Node, Digest)>, ProofError> {
        let size = self.size.saturating_add(leaf_hashes.len() as u64);
        if size > MAX_SIZE {
            return Err(ProofError::TooLarge(size));
        }
        let mut stored = Vec::with_capacity(leaf_hashes.len() + leaf_hashes.len() / 128 + 1);
        for leaf in leaf_hashes {
            let (mut node, mut hash) = (Node { level: 0, index: self.size }, *leaf);
            stored.push((node, hash));
            // A subtree that is the right half of its parent completes it.
            while node.index % 2 == 1 {
                let Some(left) = self.peaks.pop() else { break };
                hash = node_hash(left, hash);
                node = Node { level: node.level + 1, index: node.index / 2 };
                if node.level % HEIGHT == 0 {
                    stored.push((node, hash));
                }
            }
            self.peaks.push(hash);
            self.size += 1;
        }
        Ok(stored)
    }

    /// The size and the root.
    pub fn head(&self) -> TreeHead {
        TreeHead::new(self.size, fold(&self.peaks)).unwrap_or_else(TreeHead::empty)
    }
}
