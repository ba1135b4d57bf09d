//! The right edge of a tree: all that is needed to append leaves and to know the root.
//!
//! Deliberately absent: where hashes are stored. [`Edge::append`] names those that must be.

use crate::{
    digest::Digest,
    log::{
        merkle::{HashReader, MAX_SIZE, Node, ProofError, TreeHead, fold, node_hash, peaks},
        tile::HEIGHT,
    },
};

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
    pub fn nodes(size: u64) -> Vec<Node> {
        peaks(size.min(MAX_SIZE)).collect()
    }

    /// The edge of a stored log. Compare its [`Edge::head`] with the signed checkpoint before you go on.
    ///
    /// # Errors
    /// Whatever the reader fails with.
    pub fn read<R: HashReader>(size: u64, reader: &R) -> Result<Self, R::Error> {
        let size = size.min(MAX_SIZE);
        let peaks = peaks(size).map(|node| reader.hash(node)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// Appends leaves and returns what must be stored: the hashes that tiles are made of, in the order in which they came to be.
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
