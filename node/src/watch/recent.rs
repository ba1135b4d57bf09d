//! The newest messages that were refused before anything was charged, for the hospital's own screen.
//!
//! In memory only, so that whoever may ask cannot fill the disk with what is refused; a restart forgets them. Deliberately
//! absent: the SQL, the person, and anything of a message that nobody is known to have signed but its code.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use sekisho_protocol::refusal::Code;

use super::Asked;

/// How many are kept.
const MOST: usize = 100;

/// A message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMessage {
    /// When.
    pub at: DateTime<Utc>,
    /// What it asked for.
    pub asked: Asked,
    /// Why it was refused.
    pub code: Code,
    /// The study in whose name an authorised person signed it; none where that is not proven.
    pub study_id: Option<String>,
}

/// The newest of them.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<RefusedMessage>>);

impl Recent {
    pub(super) fn add(&self, refused: RefusedMessage) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.pop_back();
        }
        kept.push_front(refused);
    }

    pub(super) fn newest_first(&self) -> Vec<RefusedMessage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_no_more_than_so_many() {
        let recent = Recent::default();
        for second in 0..250 {
            let at = DateTime::from_timestamp(second, 0).unwrap();
            recent.add(RefusedMessage { at, asked: Asked::Query, code: Code::Policy, study_id: None });
        }
        let seconds: Vec<i64> = recent.newest_first().iter().map(|refused| refused.at.timestamp()).collect();
        assert_eq!(seconds, (150..250).rev().collect::<Vec<_>>());
    }
}
