//! The formats of a log against published vectors, against another implementation, and against tampering.

use std::{collections::BTreeMap, convert::Infallible};

use chrono::DateTime;

use super::{
    checkpoint::{Checkpoint, SignedCheckpoint, VerifiedCheckpoint},
    cosignature::Continued,
    edge::Edge,
    entry::{Entry, Kind, Opening, Salt},
    merkle::{Node, Plan, TreeHead, leaf_hash},
    note::{KeyName, NoteKey, NoteSignature, Signs},
    policy::Policy,
    proof::{ConsistencyProof, InclusionProof},
    tile::{Tile, TileHashes, TileReader},
};
use crate::{digest::Digest, keys::SecretKey};

mod notes;
mod proofs;
mod trees;

/// A log in memory: the hashes of its tiles, as storage would have them.
struct Log {
    edge: Edge,
    tiles: BTreeMap<(u8, u64), Vec<u8>>,
    heads: Vec<TreeHead>,
    leaves: Vec<Digest>,
}

impl Log {
    fn new() -> Self {
        let edge = Edge::empty();
        Self { heads: vec![edge.head()], edge, tiles: BTreeMap::new(), leaves: Vec::new() }
    }

    /// A log whose entries are the numbers from 0, but for the one at `changed`.
    fn counting(size: u64, changed: Option<u64>) -> Self {
        let mut log = Self::new();
        (0..size).for_each(|i| log.add(leaf_hash(&if Some(i) == changed { !i } else { i }.to_be_bytes())));
        log
    }

    fn add(&mut self, leaf: Digest) {
        self.store(leaf);
        self.heads.push(self.edge.head());
    }

    fn store(&mut self, leaf: Digest) {
        self.leaves.push(leaf);
        for (Node { level, index }, hash) in self.edge.append(&[leaf]).unwrap() {
            let tile = self.tiles.entry((level / 8, index / 256)).or_default();
            assert_eq!(tile.len() as u64, index % 256 * 32, "hashes come in order");
            tile.extend(hash.as_bytes());
        }
    }

    fn head(&self, size: u64) -> TreeHead {
        self.heads[size as usize]
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<Digest> {
        Plan::inclusion(index, size).unwrap().read(&TileHashes::new(self, size)).unwrap()
    }

    fn consistency(&self, old: u64, new: u64) -> Vec<Digest> {
        Plan::consistency(old, new).unwrap().read(&TileHashes::new(self, new)).unwrap()
    }
}

impl TileReader for Log {
    type Error = Infallible;

    fn tile(&self, tile: Tile) -> Result<Vec<u8>, Infallible> {
        Ok(self.tiles[&(tile.level(), tile.index())][..usize::from(tile.width()) * 32].to_vec())
    }
}

/// A key whose 32 secret bytes are all `byte`.
fn key(byte: u8) -> SecretKey {
    struct Constant(u8);
    impl rand::RngCore for Constant {
        fn next_u32(&mut self) -> u32 {
            self.0.into()
        }
        fn next_u64(&mut self) -> u64 {
            self.0.into()
        }
        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    impl rand::CryptoRng for Constant {}
    SecretKey::generate(&mut Constant(byte))
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

const ORIGIN: &str = "sekisho.example/coordinator";
const WITNESSES: [(&str, u8); 3] =
    [("tokyo.example/witness", 2), ("osaka.example/witness", 3), ("nagoya.example/witness", 4)];

fn checkpoint(head: TreeHead) -> SignedCheckpoint {
    SignedCheckpoint::sign(Checkpoint::new(name(ORIGIN), head), &key(1)).unwrap()
}

fn verified(head: TreeHead) -> VerifiedCheckpoint {
    checkpoint(head).verify(&NoteKey::new(name(ORIGIN), Signs::Text, key(1).public())).unwrap()
}

fn cosignature(head: TreeHead, witness: usize, time: i64) -> NoteSignature {
    let (witness, byte) = WITNESSES[witness];
    let continued = Continued::check(None, verified(head), &[]).unwrap();
    continued.cosign(name(witness), &key(byte), DateTime::from_timestamp(time, 0).unwrap()).unwrap()
}

/// Two of three witnesses.
fn policy_text() -> String {
    let mut text = format!("# The coordinator's log, and any two of three hospitals.\n\nlog {}\n", {
        NoteKey::new(name(ORIGIN), Signs::Text, key(1).public())
    });
    for ((witness, byte), hospital) in WITNESSES.into_iter().zip(["tokyo", "osaka", "nagoya"]) {
        text +=
            &format!("witness {hospital} {}\n", NoteKey::new(name(witness), Signs::Cosignature, key(byte).public()));
    }
    text + "group hospitals 2 tokyo osaka nagoya\nquorum hospitals\n"
}

/// What opens entry `i` of the vectors: kinds in turn, and as salt the SHA-256 of `salt i`.
fn opening(i: u64) -> Opening {
    let kind = Kind::ALL[i as usize % 21];
    Opening { kind, salt: Salt::from_bytes(*Digest::of(format!("salt {i}").as_bytes()).as_bytes()) }
}
