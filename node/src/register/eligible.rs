//! Who is eligible: the rules, applied to one patient's history, and the set that comes of it.
//!
//! Where events contradict each other the patient is left out.

use std::{borrow::Borrow, collections::HashSet};

use chrono::{Days, NaiveDate};
use sekisho_protocol::{
    permit::{OptOut, OptOutRule},
    schema::Kind,
};

use super::{EventKind, RegisterError};

/// What all the rules together ask for. The longest notice period implies the shorter ones, and both rules
/// leave out whom opted out.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Rule {
    /// Days between notice and first use; none when no rule asks for a notice.
    notice_days: Option<u32>,
}

impl Rule {
    pub(super) fn of(rules: &[OptOut]) -> Result<Self, RegisterError> {
        if rules.is_empty() {
            return Err(RegisterError::NoRule);
        }
        let days = |rule: &OptOut| match rule.rule {
            OptOutRule::JpNgmia => Some(rule.days),
            OptOutRule::EuEhds => None,
        };
        Ok(Self { notice_days: rules.iter().filter_map(days).max() })
    }

    pub(super) fn admits(self, history: &History, as_of: NaiveDate) -> bool {
        if history.opted_out(as_of) {
            return false;
        }
        let Some(days) = self.notice_days else { return true };
        let (Some(notified), Some(latest)) = (history.notified, as_of.checked_sub_days(Days::new(days.into()))) else {
            return false;
        };
        notified <= latest && history.died.is_none_or(|died| died >= notified)
    }

    /// The days, ascending, on which what [`admits`](Self::admits) says of `history` may change.
    pub(super) fn turning_days(self, history: &History) -> Vec<NaiveDate> {
        let noticed = self.notice_days.and_then(|days| history.notified?.checked_add_days(Days::new(days.into())));
        let said = history.opt_outs.iter().chain(&history.withdrawals).map(|(_, on)| *on);
        let mut days: Vec<_> = noticed.into_iter().chain(said).collect();
        days.sort_unstable();
        days.dedup();
        days
    }
}

/// What happened to one patient, as far as eligibility depends on it.
#[derive(Default)]
pub(super) struct History {
    /// The first notice.
    pub(super) notified: Option<NaiveDate>,
    /// The first day of death.
    pub(super) died: Option<NaiveDate>,
    /// How many events.
    pub(super) events: u64,
    opt_outs: Vec<(i64, NaiveDate)>,
    withdrawals: Vec<(i64, NaiveDate)>,
}

impl History {
    pub(super) fn add(&mut self, seq: i64, kind: EventKind, on: NaiveDate) {
        let first = |known: Option<NaiveDate>| Some(known.map_or(on, |known| known.min(on)));
        self.events += 1;
        match kind {
            EventKind::Notified => self.notified = first(self.notified),
            EventKind::Died => self.died = first(self.died),
            EventKind::OptedOut => self.opt_outs.push((seq, on)),
            EventKind::OptOutWithdrawn => self.withdrawals.push((seq, on)),
        }
    }

    /// Whether an opt-out acts on the day `as_of`: one of that day or before, which no withdrawal took back.
    /// A withdrawal takes back what was recorded before it and dated no later than itself.
    pub(super) fn opted_out(&self, as_of: NaiveDate) -> bool {
        let taken_back = |seq: i64, on: NaiveDate| {
            self.withdrawals.iter().any(|(later, when)| *later > seq && on <= *when && *when <= as_of)
        };
        self.opt_outs.iter().any(|(seq, on)| *on <= as_of && !taken_back(*seq, *on))
    }
}

enum Ids {
    Int(HashSet<i64>),
    Text(HashSet<Box<str>>),
}

impl Ids {
    fn of(kind: Kind) -> Result<Self, RegisterError> {
        match kind {
            Kind::Int64 => Ok(Self::Int(HashSet::new())),
            Kind::Text => Ok(Self::Text(HashSet::new())),
            Kind::Decimal | Kind::Date | Kind::Bool => Err(RegisterError::Kind),
        }
    }

    fn insert(&mut self, patient: &str) {
        match self {
            Self::Int(ids) => {
                if let Ok(id) = patient.parse() {
                    ids.insert(id);
                }
            }
            Self::Text(ids) => {
                ids.insert(patient.into());
            }
        }
    }

    fn remove_all(&mut self, others: &Self) {
        match (self, others) {
            (Self::Int(ids), Self::Int(others)) => ids.retain(|id| !others.contains(id)),
            (Self::Text(ids), Self::Text(others)) => ids.retain(|id| !others.contains(id)),
            (Self::Int(ids), Self::Text(_)) => ids.clear(),
            (Self::Text(ids), Self::Int(_)) => ids.clear(),
        }
    }
}

/// Ids in ascending order: a scan asks in this order, so an answer is near the last one.
enum Sorted {
    Int(Box<[i64]>),
    Text(Box<[Box<str>]>),
}

impl From<Ids> for Sorted {
    fn from(ids: Ids) -> Self {
        match ids {
            Ids::Int(ids) => {
                let mut ids: Box<[i64]> = ids.into_iter().collect();
                ids.sort_unstable();
                Self::Int(ids)
            }
            Ids::Text(ids) => {
                let mut ids: Box<[Box<str>]> = ids.into_iter().collect();
                ids.sort_unstable();
                Self::Text(ids)
            }
        }
    }
}

/// Whether `id` is among `sorted`. `place` is where an earlier search ended, 0 at first: wherever it is, the answer is right.
fn holds<T: Borrow<U>, U: Ord + ?Sized>(sorted: &[T], id: &U, place: &mut usize) -> bool {
    let below = |listed: &T| listed.borrow() < id;
    let passed = (*place).min(sorted.len());
    let from = if passed > 0 && !below(&sorted[passed - 1]) { 0 } else { passed };
    let mut step = 1;
    while sorted.get(from + step - 1).is_some_and(below) {
        step *= 2;
    }
    // All before half a step are below, and what is at the end of the step is not.
    let (start, end) = (from + step / 2, (from + step).min(sorted.len()));
    *place = start + sorted[start..end].partition_point(below);
    sorted.get(*place).is_some_and(|listed| listed.borrow() == id)
}

/// The patients whose rows may be read. It cannot be printed, sent, cloned or counted.
pub struct EligibleSet {
    ids: Sorted,
    /// Whether `ids` are the eligible ones, or the only ones that are not.
    listed_are_eligible: bool,
}

impl EligibleSet {
    /// Whether the patient of this integer id is eligible, and below which id all that follow are like this one: none is eligible
    /// when the set is of text ids. `place` is 0 at first, and where the last search ended from then on: ids that ascend
    /// are found at once.
    pub fn int_run(&self, id: i64, place: &mut usize) -> (bool, Option<i64>) {
        match &self.ids {
            Sorted::Int(ids) if holds(ids, &id, place) => (self.listed_are_eligible, Some(id)),
            Sorted::Int(ids) => (!self.listed_are_eligible, ids.get(*place).copied()),
            Sorted::Text(_) => (false, None),
        }
    }

    /// Whether the patient of this text id is eligible, blanks around it left out as the register does; none
    /// is when the set is of integer ids. `place` is as above.
    pub fn contains_text(&self, id: &str, place: &mut usize) -> bool {
        match &self.ids {
            Sorted::Text(ids) => holds(ids, id.trim(), place) == self.listed_are_eligible,
            Sorted::Int(_) => false,
        }
    }
}

/// Collects an [`EligibleSet`], patient by patient.
pub(super) struct Builder {
    eligible: Ids,
    /// Known and not eligible. "7" and "007" are the same integer: if one of them is not eligible, 7 is not.
    barred: Ids,
    only_listed: bool,
}

impl Builder {
    pub(super) fn new(kind: Kind, rule: Rule) -> Result<Self, RegisterError> {
        Ok(Self { eligible: Ids::of(kind)?, barred: Ids::of(kind)?, only_listed: rule.notice_days.is_some() })
    }

    pub(super) fn add(&mut self, patient: &str, eligible: bool) {
        if !eligible {
            self.barred.insert(patient);
        } else if self.only_listed {
            self.eligible.insert(patient);
        }
    }

    pub(super) fn build(mut self) -> EligibleSet {
        if !self.only_listed {
            return EligibleSet { ids: self.barred.into(), listed_are_eligible: false };
        }
        self.eligible.remove_all(&self.barred);
        EligibleSet { ids: self.eligible.into(), listed_are_eligible: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_id_is_found_from_any_place() {
        for listed in [vec![], vec![5], (0..100).map(|i| i * 3 - 50).collect::<Vec<i64>>()] {
            for place in 0..110 {
                for id in -60..260 {
                    let mut at = place;
                    assert_eq!(holds(&listed, &id, &mut at), listed.contains(&id), "{id} from {place}");
                    assert_eq!(at, listed.partition_point(|l| *l < id), "{id} from {place}");
                }
            }
        }
        let texts: Vec<Box<str>> = ["1", "10", "9"].map(Into::into).into();
        let mut place = 0;
        for (id, expect) in
            [("", false), ("1", true), ("10", true), ("2", false), ("9", true), ("99", false), ("1", true)]
        {
            assert_eq!(holds(&texts, id, &mut place), expect, "{id}");
        }
    }

    #[test]
    fn what_is_said_of_an_id_holds_of_all_up_to_the_next_one_listed() {
        for listed_are_eligible in [true, false] {
            let set = EligibleSet { ids: Sorted::Int([3, 4, 9].into()), listed_are_eligible };
            for id in 0..12 {
                let (has, until) = set.int_run(id, &mut 0);
                assert_eq!(has, [3, 4, 9].contains(&id) == listed_are_eligible, "{id}");
                let alike = (id..until.unwrap_or(20)).all(|other| set.int_run(other, &mut 0).0 == has);
                assert!(alike && until.is_none_or(|until| until >= id), "{id} until {until:?}");
            }
        }
    }
}
