//! How much one person may ask: so many messages at once, and so many in a minute.
//!
//! Coordinator and node each keep such an account by the key that signed, over all studies, of queries and dry runs
//! together. Whether there is a turn depends on messages and their arrival alone, never on data.
//!
//! Bounded: whoever asks for a turn has verified a signature by a person of some permit, so nobody else has an account; one
//! that holds nothing any more is forgotten as soon as somebody new comes. Accounts are in memory: a restart forgets a minute.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    digest::Digest,
    refusal::{Code, Refusal},
};

const MINUTE: Duration = Duration::from_secs(60);

/// How much one person may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many messages of a person are worked on at once.
    pub at_once: usize,
    /// How many messages of a person are taken in any minute.
    pub a_minute: usize,
}

impl Pace {
    /// What a configuration says when it says nothing.
    pub const DEFAULT: Self = Self { at_once: 4, a_minute: 60 };
    /// The most that a configuration may say.
    pub const MOST: Self = Self { at_once: 64, a_minute: 6000 };
}

/// What is known of one person.
#[derive(Debug, Default)]
struct Account {
    working: usize,
    /// When the messages of the last minute were taken, the oldest first.
    taken: VecDeque<Instant>,
}

impl Account {
    fn forget(&mut self, now: Instant) {
        while self.taken.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            self.taken.pop_front();
        }
    }

    fn holds_something(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.working > 0 || !self.taken.is_empty()
    }
}

/// The accounts of all persons.
#[derive(Debug)]
pub struct Turns {
    pace: Pace,
    accounts: Mutex<HashMap<Digest, Account>>,
}

/// One message that is worked on, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    person: Digest,
}

impl Turns {
    /// Everybody may ask at this pace.
    pub fn new(pace: Pace) -> Arc<Self> {
        Arc::new(Self { pace, accounts: Mutex::default() })
    }

    /// A turn for a message that came at `now`, signed with the key of this fingerprint.
    ///
    /// # Errors
    /// `too_many_requests`, which says how long to wait. It is not counted itself.
    pub fn take(self: &Arc<Self>, person: Digest, now: Instant) -> Result<Turn, Refusal> {
        let mut accounts = self.accounts();
        if !accounts.contains_key(&person) {
            accounts.retain(|_, account| account.holds_something(now));
        }
        let account = accounts.entry(person).or_default();
        account.forget(now);
        let Pace { at_once, a_minute } = self.pace;
        if account.working >= at_once {
            let detail = format!("{at_once} of your messages are worked on, which is the most; wait for an answer");
            return Err(Refusal::new(Code::TooManyRequests, detail));
        }
        if let Some(oldest) = account.taken.front().filter(|_| account.taken.len() >= a_minute) {
            let wait = MINUTE.saturating_sub(now.duration_since(*oldest)).as_secs() + 1;
            let detail = format!("{a_minute} messages in a minute are the most; wait {wait} s");
            return Err(Refusal::new(Code::TooManyRequests, detail));
        }
        account.taken.push_back(now);
        account.working += 1;
        Ok(Turn { turns: Arc::clone(self), person })
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Digest, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(account) = self.turns.accounts().get_mut(&self.person) {
            account.working -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn person(name: u8) -> Digest {
        Digest::of(&[name])
    }

    #[test]
    fn a_person_has_so_many_turns_at_once_and_so_many_a_minute_and_is_told_how_long_to_wait() {
        let (turns, start) = (Turns::new(Pace { at_once: 2, a_minute: 3 }), Instant::now());
        let take = |name, second| turns.take(person(name), start + Duration::from_secs(second));
        let said = |turn: Result<Turn, Refusal>| turn.map(drop).map_err(|refusal| refusal.detail);
        let (first, second) = (take(1, 0).unwrap(), take(1, 10).unwrap());
        let full = "2 of your messages are worked on, which is the most; wait for an answer";
        assert_eq!(said(take(1, 11)), Err(full.into()));
        assert_eq!(said(take(2, 11)), Ok(()), "another person");
        drop(first);
        assert_eq!(said(take(1, 20)), Ok(()));
        for (now, expect) in [
            (20, Err("3 messages in a minute are the most; wait 41 s")),
            (59, Err("3 messages in a minute are the most; wait 2 s")),
            (60, Ok(())),
            (61, Err("3 messages in a minute are the most; wait 10 s")),
            (70, Ok(())),
        ] {
            assert_eq!(said(take(1, now)), expect.map_err(String::from), "after {now} s");
        }
        drop(second);
    }

    #[test]
    fn whoever_holds_nothing_is_forgotten() {
        let (turns, start) = (Turns::new(Pace::DEFAULT), Instant::now());
        let (later, last) = (start + Duration::from_secs(59), start + Duration::from_secs(61));
        let held = turns.take(person(0), start).unwrap();
        for name in 1..100 {
            turns.take(person(name), start).unwrap();
        }
        turns.take(person(100), later).unwrap();
        assert_eq!(turns.accounts().len(), 101);
        turns.take(person(101), last).unwrap();
        assert_eq!(turns.accounts().len(), 3, "who is worked for, who asked within a minute, and who asks");
        drop(held);
        assert!(turns.accounts().values().all(|account| account.working == 0));
    }

    proptest! {
        #[test]
        fn in_no_minute_are_more_taken_than_the_pace_says(
            gaps in prop::collection::vec(0_u64..30_000, 1..200), a_minute in 1_usize..8
        ) {
            let (turns, start) = (Turns::new(Pace { at_once: 1, a_minute }), Instant::now());
            let (mut now, mut taken) = (0, Vec::<u64>::new());
            for gap in gaps {
                now += gap;
                let free = taken.iter().filter(|at| **at + 60_000 > now).count() < a_minute;
                let turn = turns.take(person(0), start + Duration::from_millis(now));
                prop_assert_eq!(turn.is_ok(), free);
                if free {
                    taken.push(now);
                }
            }
        }
    }
}
