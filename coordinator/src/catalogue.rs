//! What is made of the hospitals' catalogues: descriptions in HealthDCAT-AP, what was found, what changed, and who can answer.
//!
//! Works on verified or fetched documents alone. Deliberately absent: storing them ([`crate::documents`]), and any look at a
//! hospital's data.

pub mod dcat;
pub mod difference;
pub mod fitness;
pub mod rules;
pub mod search;
mod terms;
