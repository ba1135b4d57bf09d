//! Synthetic hospitals with known truth, whole networks of real processes, the demo, and the benchmarks.
//!
//! Everything here goes through the same binaries, files and sockets as a deployment; nothing depends on it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bench;
pub mod cli;
pub mod demo;
pub mod generate;
pub mod governance;
pub mod launch;
pub mod network;
pub mod solo;
pub mod study;
pub mod utility;
