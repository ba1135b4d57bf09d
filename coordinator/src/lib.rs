//! The coordinator's daemon and the person's CLI `sekisho`.
//!
//! The coordinator fans signed queries out to the hospitals of a permit and combines their releases. It
//! holds no rows and is not trusted with any: what may leave a hospital, the hospital decides.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bundle;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod documents;
pub mod door;
pub mod duties;
pub mod held;
pub mod listing;
pub mod metering;
pub mod network;
pub mod pages;
pub mod periods;
pub mod person;
pub mod reading;
pub mod report;
pub mod requirements;
pub mod result;
pub mod round;
pub mod store;
pub mod tiles;
pub mod use_register;
pub mod watch;
pub mod witnesses;
