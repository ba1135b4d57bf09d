//! The transparency log: what is hashed, what is signed, what proves what; in the text formats of C2SP.
//!
//! A party's log is a Merkle tree of RFC 6962 whose leaves are salted commitments to signed statements ([`entry`]). Its
//! hashes are kept and served as tiles (c2sp.org/tlog-tiles), its head is a signed [`checkpoint`]
//! (c2sp.org/tlog-checkpoint, c2sp.org/signed-note), other parties confirm with a [`cosignature`]
//! (c2sp.org/tlog-cosignature) that it never forgot anything, a [`policy`] (c2sp.org/tlog-policy) says whose word is
//! enough, and a [`proof`] (c2sp.org/tlog-proof) lets a stranger check one entry offline. `docs/provenance.md` has the bytes.
//!
//! It promises: every size is bounded before it is decoded, nothing panics on hostile input, each text has one form (what
//! parses is written back byte for byte), and a check leaves a type behind.
//!
//! Deliberately absent: network, clock and randomness; the disk, but for [`store`], which a feature turns on; ML-DSA cosignatures; and the statements themselves. The
//! arithmetic is our own, not that of the crate `tlog_tiles`, which panics on some paths that a stranger may write (a tile
//! of level 64); the tests compare the two on every tree they make.

pub mod checkpoint;
pub mod cosignature;
pub mod edge;
pub mod entry;
mod lines;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod statements;
#[cfg(feature = "log-store")]
pub mod store;
#[cfg(test)]
mod tests;
pub mod tile;
