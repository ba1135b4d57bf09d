//! A log in memory, as hospitals of tests keep theirs.

use sekisho_protocol::{
    digest::Digest,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        edge::Edge,
        entry::{Entry, Kind, Opening, Salt},
        merkle::{HashReader, Node, Plan, TreeHead, node_hash},
        note::KeyName,
        proof::InclusionProof,
    },
};

/// Leaves with fixed salts.
#[derive(Clone, Default)]
pub(crate) struct MemoryLog(Vec<Digest>);

impl HashReader for MemoryLog {
    type Error = std::convert::Infallible;

    fn hash(&self, node: Node) -> Result<Digest, Self::Error> {
        if node.level == 0 {
            return Ok(self.0[usize::try_from(node.index).unwrap()]);
        }
        let child = |right: u64| self.hash(Node { level: node.level - 1, index: 2 * node.index + right });
        Ok(node_hash(child(0)?, child(1)?))
    }
}

fn opening(kind: Kind, statement: &[u8]) -> Opening {
    Opening { kind, salt: Salt::from_bytes(*Digest::of(&[b"salt ", statement].concat()).as_bytes()) }
}

impl MemoryLog {
    /// Enters a statement, unless it is there; its index.
    pub(crate) fn enter(&mut self, kind: Kind, statement: &[u8]) -> u64 {
        let leaf = Entry::of(opening(kind, statement), statement).leaf_hash();
        let place = self.0.iter().position(|known| *known == leaf).unwrap_or_else(|| {
            self.0.push(leaf);
            self.0.len() - 1
        });
        place as u64
    }

    pub(crate) fn head(&self) -> TreeHead {
        let mut edge = Edge::empty();
        edge.append(&self.0).unwrap();
        edge.head()
    }

    pub(crate) fn signed(&self, origin: &KeyName, key: &SecretKey) -> SignedCheckpoint {
        SignedCheckpoint::sign(Checkpoint::new(origin.clone(), self.head()), key).unwrap()
    }

    pub(crate) fn consistency(&self, old: u64, new: u64) -> Vec<Digest> {
        Plan::consistency(old, new).unwrap().read(self).unwrap()
    }

    /// The proof that `statement`, which was entered, is under `checkpoint`.
    pub(crate) fn proof(&self, kind: Kind, statement: &[u8], checkpoint: SignedCheckpoint) -> InclusionProof {
        let index = self.clone().enter(kind, statement);
        let hashes = Plan::inclusion(index, self.0.len() as u64).unwrap().read(self).unwrap();
        InclusionProof::new(index, hashes, &opening(kind, statement), checkpoint)
    }
}
