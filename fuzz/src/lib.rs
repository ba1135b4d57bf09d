//! The functions that the targets call are those of the tests, which replay what is kept of the inputs.

#[path = "../../tests/src/fuzzed/mod.rs"]
pub mod fuzzed;
