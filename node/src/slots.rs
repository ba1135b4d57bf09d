//! Who may work at once: so many queries in all, half of them of one study, and one request for one run.
//!
//! Both are held until the answer leaves: whoever waits for one, or is refused for want of it, learns no other time. Planning, of
//! queries and of dry runs, has places of its own, so that a dry run is not refused for what runs: a plan depends on no data.
//!
//! Whoever finds no place waits a while, in the order of arrival. Few of one study may wait: however much one asks, another
//! is at most so many places behind each of the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sekisho_protocol::refusal::{Code, Refusal};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::ledger::RunKey;

/// How many messages of one study may wait for a place.
const MAX_WAITING_OF_STUDY: usize = 2;
/// How many may wait in all: each has one of the 64 calls of the coordinator's connection, which documents need too.
const MAX_WAITING: usize = 16;

/// Places for queries that are worked on, or planned, at once.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: HashMap<String, usize>,
    /// Who waits, by number and study, in the order of arrival.
    waiting: Vec<(u64, String)>,
    arrivals: u64,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    study: String,
    waited_until: Option<Instant>,
}

impl Slot {
    /// When the place was got, where it was waited for.
    pub fn waited_until(&self) -> Option<Instant> {
        self.waited_until
    }
}

/// Somebody who waits, until this is dropped.
struct Waiting<'a> {
    slots: &'a Arc<Slots>,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.slots.state().waiting.retain(|(number, _)| *number != self.number);
        self.slots.changed.notify_waiters();
    }
}

impl Slots {
    /// `most` places, of which one study has at most half, and at least one.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), changed: Notify::new() })
    }

    /// A place for a query of `study`, at once or within `patience`.
    ///
    /// # Errors
    /// `busy` when there is none, or too many wait.
    pub async fn take(self: &Arc<Self>, study: &str, patience: Duration) -> Result<Arc<Slot>, Refusal> {
        let waiting = self.wait(study)?;
        let (until, mut waited) = (Instant::now() + patience, false);
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            if self.state().may_take(waiting.number, self.most) {
                let waited_until = waited.then(Instant::now);
                return Ok(Arc::new(Slot { slots: Arc::clone(self), study: study.into(), waited_until }));
            }
            waited = true;
            if timeout_at(until, changed).await.is_err() {
                let detail = format!("no place was free within {} s: too much at once", patience.as_secs());
                return Err(Refusal::new(Code::Busy, detail));
            }
        }
    }

    fn wait(self: &Arc<Self>, study: &str) -> Result<Waiting<'_>, Refusal> {
        let mut state = self.state();
        if state.waiting.len() >= MAX_WAITING {
            return Err(Refusal::new(Code::Busy, "too many queries at once"));
        }
        if state.waiting.iter().filter(|(_, waits)| waits == study).count() >= MAX_WAITING_OF_STUDY {
            return Err(Refusal::new(Code::Busy, "too many queries of this study at once"));
        }
        state.arrivals += 1;
        let number = state.arrivals;
        state.waiting.push((number, study.into()));
        Ok(Waiting { slots: self, number })
    }

    /// How many places are taken, and how many there are.
    pub fn taken(&self) -> (usize, usize) {
        (self.state().taken.values().sum(), self.most)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a place for whoever waits with this number, if it is the turn of that one: the first whose study has not had its part.
    fn may_take(&mut self, number: u64, most: usize) -> bool {
        let part = (most / 2).max(1);
        if self.taken.values().sum::<usize>() >= most {
            return false;
        }
        let of = |study: &String| self.taken.get(study).copied().unwrap_or_default();
        let next = self.waiting.iter().position(|(_, study)| of(study) < part);
        let Some(place) = next.filter(|place| self.waiting[*place].0 == number) else { return false };
        let (_, study) = self.waiting.remove(place);
        *self.taken.entry(study).or_default() += 1;
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        if let Some(own) = state.taken.get_mut(&self.study) {
            *own -= 1;
            if *own == 0 {
                state.taken.remove(&self.study);
            }
        }
        drop(state);
        self.slots.changed.notify_waiters();
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

    #[tokio::test]
    async fn a_study_has_half_of_the_places_and_all_studies_all_of_them() {
        for (most, asked, expect) in [
            (1, "aa", "ok busy"),
            (2, "aab", "ok busy ok"),
            (3, "aab", "ok busy ok"),
            (4, "aaabbc", "ok ok busy ok ok busy"),
        ] {
            let slots = Slots::new(most);
            let mut taken = Vec::new();
            for study in asked.chars() {
                taken.push(slots.take(&study.to_string(), Duration::ZERO).await);
            }
            let found: Vec<_> =
                taken.iter().map(|t| t.as_ref().map_or_else(|e| e.code.to_string(), |_| "ok".into())).collect();
            assert_eq!(found.join(" "), expect, "{most} places");
            drop(taken);
            assert!(slots.take("a", Duration::ZERO).await.is_ok(), "all places are free again");
            assert!(slots.state().taken.is_empty() && slots.state().waiting.is_empty());
        }
    }

    #[tokio::test]
    async fn who_waits_comes_in_turn_few_of_one_study_wait_and_whoever_goes_away_keeps_nobody_back() {
        let (slots, long) = (Slots::new(1), Duration::from_secs(60));
        let held = slots.take("a", long).await.unwrap();
        assert_eq!(held.waited_until(), None);
        let order = Arc::new(Mutex::new(String::new()));
        let mut asked = Vec::new();
        for study in ["a", "a", "a", "b", "c", "b"] {
            let (slots, order) = (Arc::clone(&slots), Arc::clone(&order));
            asked.push(tokio::spawn(async move {
                let slot = slots.take(study, long).await?;
                order.lock().unwrap().push_str(study);
                assert!(slot.waited_until().is_some());
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok::<_, Refusal>(())
            }));
            tokio::task::yield_now().await;
        }
        // The first of them hangs up.
        asked.remove(0).abort();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(held);
        let mut busy = 0;
        for asked in asked {
            busy += usize::from(asked.await.unwrap().is_err());
        }
        assert_eq!((order.lock().unwrap().as_str(), busy), ("abcb", 1), "a third of one study does not wait");
        assert_eq!(slots.taken(), (0, 1));
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
