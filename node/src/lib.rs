//! A hospital's node: its data, its patients' no, its privacy ledger, and the one door out.
//!
//! One query goes [`service`] → [`answer`]: [`guard`] (verify, admit) → plan → [`policy`] → [`ledger`] (reserve) →
//! [`execute`] → release → log. A node dials and never listens to the network ([`local`] is for its own machine); it
//! decides for itself whether to answer.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod answer;
pub mod catalogue;
pub mod cli;
pub mod console;
pub mod daemon;
pub mod data;
pub mod departure;
pub mod documents;
pub mod exact;
pub mod execute;
pub mod guard;
pub mod holding;
pub mod hooks;
pub mod inspect;
pub mod keys;
pub mod ledger;
pub mod link;
pub mod local;
pub mod log;
pub mod permits;
pub mod policy;
pub mod register;
pub mod released;
pub mod seeds;
pub mod service;
pub mod slots;
pub mod store;
pub mod uses;
pub mod watch;
