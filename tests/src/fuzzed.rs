//! What the fuzz targets call: one function for each, from bytes that anybody may have sent.
//!
//! Each promises no panic, no hang and bounded memory for every input, and asserts what must hold of what is accepted. The crate
//! `fuzz/` (outside the workspace, docs/fuzzing.md) includes these files, and `tests/all/fuzzed.rs` gives the kept inputs to the
//! same functions.

pub mod answer;
pub mod batch;
pub mod bundle;
pub mod documents;
pub mod frames;
mod phrases;
pub mod plan;
pub mod sql;
mod walk;
mod words;
pub mod world;
