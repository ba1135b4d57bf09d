//! What may be released, and how pieces combine.
//!
//! One query goes through here as: [`plan::PrivatePlan::analyse`] (SQL text to a private plan) →
//! [`reservation::Reservation::make`] (a durable charge) → [`fold::Fold`] (rows to [`fold::RawCells`]) →
//! [`release::Release::make`] (exact noise: the only door out) → [`combine::combine`] and
//! [`table`] (sums over hospitals, estimates, intervals, disclosure).
//!
//! [`inspection`] makes a release again beside the stored one, for an inspector at the hospital; nothing leaves by it.
//!
//! A library: no network, no disk, no clock; randomness is passed in. It knows DataFusion's SQL and
//! expression crates, never its execution engine. What is not understood is refused.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod accounting;
pub mod after;
pub mod analyse;
pub mod combine;
pub mod domain;
mod enclosure;
pub mod exact;
#[cfg(test)]
mod example;
pub mod explain;
pub mod fold;
pub mod inspection;
pub mod interval;
pub mod noise;
mod place;
pub mod plan;
mod price;
mod reduce;
mod relation;
pub mod release;
pub mod reservation;
#[cfg(test)]
mod roundtrip;
mod scalar;
pub mod sql;
mod suppress;
pub mod table;
mod terms;
pub mod texts;
mod threshold;
mod tree;
