//! SQL text to admission.

use super::{plan, world::world};

/// Any text is admitted or refused; what is admitted keeps what [`plan::holds`] asks of it, and a refusal is short.
///
/// # Panics
/// When it is not.
pub fn run(input: &[u8]) {
    let Ok(sql) = std::str::from_utf8(input) else { return };
    match world().analyse(sql) {
        Ok(admitted) => plan::holds(sql, &admitted),
        Err(refusal) => {
            let characters = refusal.detail.chars().count();
            assert!(characters <= sekisho_protocol::refusal::MAX_DETAIL, "{characters} characters of a refusal");
        }
    }
}
