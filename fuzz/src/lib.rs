//! What the targets call: the functions of the tests, which replay what is kept of the inputs.

#[cfg(feature = "coordinator")]
#[path = "../../tests/src/fuzzed/answer.rs"]
pub mod answer;
#[path = "../../tests/src/fuzzed/batch.rs"]
pub mod batch;
#[cfg(feature = "coordinator")]
#[path = "../../tests/src/fuzzed/bundle.rs"]
pub mod bundle;
#[path = "../../tests/src/fuzzed/documents.rs"]
pub mod documents;
#[path = "../../tests/src/fuzzed/frames.rs"]
pub mod frames;
#[path = "../../tests/src/fuzzed/phrases.rs"]
mod phrases;
#[path = "../../tests/src/fuzzed/plan.rs"]
pub mod plan;
#[path = "../../tests/src/fuzzed/sql.rs"]
pub mod sql;
#[path = "../../tests/src/fuzzed/walk.rs"]
mod walk;
#[path = "../../tests/src/fuzzed/words.rs"]
mod words;
#[path = "../../tests/src/fuzzed/world.rs"]
pub mod world;
