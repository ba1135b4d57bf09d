//! Who may work at once: so many queries in all, half of them of one study, and one request for one run.
//!
//! Both are held until the answer leaves: whoever waits for one, or is refused for want of it, learns no other time. Planning, of
//! queries and of dry runs, has places of its own, so that a dry run is not refused for what runs: a plan depends on no data.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sekisho_protocol::refusal::{Code, Refusal};

use crate::ledger::RunKey;

/// Places for queries that are worked on, or planned, at once.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    study: String,
}

impl Slots {
    /// `most` places, of which one study has at most half, and at least one.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for a query of `study`.
    ///
    /// # Errors
    /// `busy` when there is none.
    pub fn take(self: &Arc<Self>, study: &str) -> Result<Arc<Slot>, Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return Err(Refusal::new(Code::Busy, "too many queries at once"));
        }
        let own = taken.entry(study.into()).or_default();
        if *own >= (self.most / 2).max(1) {
            return Err(Refusal::new(Code::Busy, "too many queries of this study at once"));
        }
        *own += 1;
        Ok(Arc::new(Slot { slots: Arc::clone(self), study: study.into() }))
    }

    /// How many places are taken, and how many there are.
    pub fn taken(&self) -> (usize, usize) {
        (self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().sum(), self.most)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.study) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.study);
            }
        }
    }
}

/// A lock for each run that is worked on: two requests for one run never execute side by side.
#[derive(Debug, Default)]
pub struct RunLocks(Mutex<HashMap<RunKey, Arc<tokio::sync::Mutex<()>>>>);

impl RunLocks {
    /// The lock of the run `key`.
    pub fn of(&self, key: RunKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // There are no more of them than slots.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::digest::Digest;

    use super::*;

    #[test]
    fn a_study_has_half_of_the_places_and_all_studies_all_of_them() {
        for (most, asked, expect) in [
            (1, "aa", "ok busy"),
            (2, "aab", "ok busy ok"),
            (3, "aab", "ok busy ok"),
            (4, "aaabbc", "ok ok busy ok ok busy"),
        ] {
            let slots = Slots::new(most);
            let taken: Vec<_> = asked.chars().map(|study| slots.take(&study.to_string())).collect();
            let found: Vec<_> =
                taken.iter().map(|t| t.as_ref().map_or_else(|e| e.code.to_string(), |_| "ok".into())).collect();
            assert_eq!(found.join(" "), expect, "{most} places");
            drop(taken);
            assert!(slots.take("a").is_ok() && slots.taken.lock().unwrap().is_empty(), "all places are free again");
        }
    }

    #[tokio::test]
    async fn a_run_has_one_lock_and_runs_that_nobody_works_on_have_none() {
        let locks = RunLocks::default();
        let key = |run| RunKey { permit: Digest::of(b"p"), query_key: Digest::of(b"q"), run };
        let held = locks.of(key(1)).lock_owned().await;
        assert!(locks.of(key(1)).try_lock().is_err());
        assert!(locks.of(key(2)).try_lock().is_ok());
        drop(held);
        assert!(locks.of(key(1)).try_lock().is_ok());
        drop(locks.of(key(3)));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
