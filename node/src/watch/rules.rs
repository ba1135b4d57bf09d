//! When a rule speaks, and what follows from it: decisions over numbers and hours that are handed in.
//!
//! An event counts from the moment it happens until its window has passed, and, as with charges, one that lies in the future
//! counts too: a clock that was put back forgives nothing. When a rule has spoken it begins again from nothing, so that an
//! operator who resumes a study is not met by the events of before.

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_node_config::CountRule;
use sekisho_protocol::{refusal::Code, units::MicroRho};

/// A rule is silent about a study for at least so long after it spoke, and for its window; what it counts meanwhile is a
/// metric alone, unless it has the study to suspend.
pub const QUIET: Duration = Duration::from_secs(600);
/// The most alerts of 24 hours, of all rules and studies: whoever floods the node does not fill its disk.
pub const MAX_ALERTS_A_DAY: u64 = 200;

/// The beginning of a window that ends at `now`.
pub fn begin(window: Duration, now: DateTime<Utc>) -> DateTime<Utc> {
    let window = TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(window).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Whether a refusal with this code speaks of whoever asked, and not of the hospital, its network or its load.
pub fn is_askers(code: Code) -> bool {
    !matches!(
        code,
        Code::Suspended
            | Code::PermitWaiting
            | Code::PermitRefused
            | Code::ExactWaiting
            | Code::ExactRefused
            | Code::RegulatorOrder
            | Code::StaleStatus
            | Code::StaleRoster
            | Code::NotOnRoster
            | Code::SourceChanged
            | Code::Busy
            | Code::Unavailable
            | Code::NoAnswer
            | Code::Offline
    )
}

/// When events of one kind happened: never more of them than the rule's count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings(VecDeque<DateTime<Utc>>);

impl Sightings {
    /// What was counted before, the oldest first.
    pub fn of(times: impl IntoIterator<Item = DateTime<Utc>>) -> Self {
        Self(times.into_iter().collect())
    }

    /// The hours that are counted, the oldest first.
    pub fn times(&self) -> impl Iterator<Item = DateTime<Utc>> {
        self.0.iter().copied()
    }

    /// Whether nothing in the window is counted.
    pub fn is_over(&self, rule: &CountRule, now: DateTime<Utc>) -> bool {
        let begin = begin(rule.window, now);
        self.0.iter().all(|at| *at <= begin)
    }

    /// Counts one event more; when there are enough in the window, forgets them and says how many they were.
    pub fn one_more(&mut self, rule: &CountRule, now: DateTime<Utc>) -> Option<u64> {
        let begin = begin(rule.window, now);
        self.0.retain(|at| *at > begin);
        self.0.push_back(now);
        let count = self.0.len();
        if count < usize::try_from(rule.count).unwrap_or(usize::MAX) {
            return None;
        }
        self.0.clear();
        u64::try_from(count).ok()
    }
}

/// From which amount on a share of a budget is too much: `percent` of `total`, rounded up, and never nothing.
pub fn share(total: MicroRho, percent: u32) -> u64 {
    let share = (u128::from(total.get()) * u128::from(percent)).div_ceil(100);
    u64::try_from(share).unwrap_or(u64::MAX).max(1)
}

/// What is known when a rule speaks.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// When it last spoke about the same study.
    pub last: Option<DateTime<Utc>>,
    /// How many alerts there were in 24 hours.
    pub today: u64,
    /// The study is one that the rule suspends, and it is not suspended yet.
    pub open: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// An alert is written.
    pub alert: bool,
    /// The study is suspended.
    pub suspend: bool,
}

/// What follows when a rule with this window speaks. A suspension is never left out, and is always told unless the day's
/// alerts are used up.
pub fn follows(before: &Before, window: Duration, now: DateTime<Utc>) -> Follows {
    let quiet = before.last.is_some_and(|last| last > begin(window.max(QUIET), now));
    let alert = before.today < MAX_ALERTS_A_DAY && (!quiet || before.open);
    Follows { alert, suspend: before.open }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn rule(count: u32, seconds: u64) -> CountRule {
        CountRule { count, window: Duration::from_secs(seconds), suspend: false }
    }

    #[test]
    fn a_rule_speaks_at_the_event_that_makes_its_count_within_the_window_and_begins_again() {
        let check = |rule: CountRule, events: &[i64], expect: &[i64]| {
            let mut sightings = Sightings::default();
            let spoke: Vec<i64> = events
                .iter()
                .copied()
                .filter(|second| sightings.one_more(&rule, at(*second)) == Some(u64::from(rule.count)))
                .collect();
            assert_eq!(spoke, expect, "{rule:?} {events:?}");
            assert!(sightings.0.len() < usize::try_from(rule.count).unwrap());
        };
        check(rule(1, 60), &[0, 0, 5], &[0, 0, 5]);
        check(rule(3, 60), &[0, 1], &[]);
        check(rule(3, 60), &[0, 1, 2], &[2]);
        check(rule(3, 60), &[0, 1, 59], &[59]);
        // An event is out of the window from its last second on.
        check(rule(3, 60), &[0, 1, 60], &[]);
        check(rule(3, 60), &[0, 1, 60, 60], &[60]);
        check(rule(3, 60), &[0, 1, 2, 3, 4, 5, 6], &[2, 5]);
        check(rule(3, 60), &[0, 30, 60, 90, 120], &[]);
        // A clock that was put back: what lies ahead counts.
        check(rule(3, 60), &[1000, 1001, 0], &[0]);
    }

    #[test]
    fn a_share_of_a_budget_is_rounded_up_and_is_never_nothing() {
        let check = |total: u64, percent, expect| {
            assert_eq!(share(MicroRho::try_from(total).unwrap(), percent), expect, "{percent} % of {total}");
        };
        check(100, 50, 50);
        check(101, 50, 51);
        check(1, 1, 1);
        check(0, 50, 1);
        check(MicroRho::MAX.get(), 100, MicroRho::MAX.get());
    }

    #[test]
    fn a_rule_speaks_once_in_a_while_a_suspension_always_and_a_day_has_its_most() {
        let check = |last: Option<i64>, today, open, window, expect: (bool, bool)| {
            let before = Before { last: last.map(at), today, open };
            let found = follows(&before, Duration::from_secs(window), at(10_000));
            assert_eq!((found.alert, found.suspend), expect, "{before:?}");
        };
        check(None, 0, false, 60, (true, false));
        check(Some(9_400), 0, false, 60, (true, false));
        check(Some(9_401), 0, false, 60, (false, false));
        check(Some(9_400), 0, false, 601, (false, false));
        check(Some(9_399), 0, false, 601, (true, false));
        check(Some(9_999), 0, true, 60, (true, true));
        check(None, MAX_ALERTS_A_DAY - 1, false, 60, (true, false));
        check(None, MAX_ALERTS_A_DAY, false, 60, (false, false));
        check(None, MAX_ALERTS_A_DAY, true, 60, (false, true));
    }

    #[test]
    fn refusals_that_are_the_hospitals_own_say_nothing_of_the_asker() {
        for (code, expect) in [
            (Code::SqlUnsupported, true),
            (Code::BudgetStudy, true),
            (Code::ReplayedNonce, true),
            (Code::BadSignature, true),
            (Code::Busy, false),
            (Code::Suspended, false),
            (Code::StaleStatus, false),
            (Code::NoAnswer, false),
        ] {
            assert_eq!(is_askers(code), expect, "{code}");
        }
    }
}
