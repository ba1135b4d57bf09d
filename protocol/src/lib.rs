//! What crosses the wire and what is signed, and nothing else.
//!
//! Every other crate of Sekisho speaks through these types: digests, keys, DSSE envelopes, the
//! signed documents (`roster/1`, `status/1`, `schema/1`, `permit/1`, `query/1`, `receipt/1`, …), refusal
//! codes, and the control frames. A document that has been checked is a [`dsse::Verified`]; only
//! `verify` makes one.
//!
//! Deliberately absent: any disk, network, clock or random source of its own (feature
//! `transport`, off by default, adds the libp2p transport and the key files), any SQL, any row.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod alert;
pub mod application;
pub mod catalogue;
pub mod clock;
pub mod committee;
pub mod control;
pub mod decision;
pub mod digest;
pub mod disclosure;
pub mod dsse;
pub mod governance;
#[cfg(feature = "transport")]
pub mod key_file;
pub mod keys;
pub mod log;
#[cfg(feature = "transport")]
pub mod loopback;
pub mod orders;
pub mod output_review;
#[cfg(feature = "pages")]
pub mod pages;
pub mod permit;
pub mod publication;
pub mod published;
pub mod purpose;
pub mod query;
pub mod receipt;
pub mod record;
pub mod refusal;
pub mod replay;
pub mod review;
pub mod roster;
pub mod schema;
pub mod sequence;
pub mod status;
pub mod supersession;
#[cfg(feature = "transport")]
pub mod token_file;
#[cfg(feature = "transport")]
pub mod transport;
pub mod turns;
pub mod units;
#[cfg(feature = "transport")]
pub mod watching;
pub mod within;
