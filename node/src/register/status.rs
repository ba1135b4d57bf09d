//! What the register knows of one patient: whether they count, since when, and whether they counted in a run.

use chrono::NaiveDate;
use sekisho_protocol::permit::OptOut;

use super::{
    Event, RegisterError,
    eligible::{History, Rule},
};

/// What the register knows of one patient, for the hospital's own screen. Without events it is of anybody unknown.
#[derive(Clone, Debug, Default)]
pub struct PatientStatus {
    /// Every event, in the order of recording.
    pub events: Vec<Event>,
}

/// Whether a patient counts, and for how long that has been and will be so, by what is recorded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the patient counts.
    pub counts: bool,
    /// The first day of the unbroken time for which that is so; none when it has always been so.
    pub since: Option<NaiveDate>,
    /// The next day on which it changes, if any is known.
    pub until: Option<NaiveDate>,
}

impl PatientStatus {
    /// The first day on which the patient is known to have been told.
    pub fn notified_on(&self) -> Option<NaiveDate> {
        self.history(i64::MAX).notified
    }

    /// The day of death, if one is recorded.
    pub fn died_on(&self) -> Option<NaiveDate> {
        self.history(i64::MAX).died
    }

    /// Whether an opt-out acts on the day `as_of`.
    pub fn opted_out(&self, as_of: NaiveDate) -> bool {
        self.history(i64::MAX).opted_out(as_of)
    }

    /// Whether the patient is eligible under all `rules` on the day `as_of`.
    ///
    /// # Errors
    /// [`RegisterError::NoRule`] when there is no rule.
    pub fn eligible(&self, rules: &[OptOut], as_of: NaiveDate) -> Result<bool, RegisterError> {
        self.eligible_at(rules, as_of, i64::MAX)
    }

    /// Whether the patient was in the set of a run: by the events up to place `at_seq`, on the day `as_of`. What was recorded
    /// later, of whatever day, does not change what a run used.
    ///
    /// # Errors
    /// [`RegisterError::NoRule`] when there is no rule.
    pub fn eligible_at(&self, rules: &[OptOut], as_of: NaiveDate, at_seq: i64) -> Result<bool, RegisterError> {
        Ok(Rule::of(rules)?.admits(&self.history(at_seq), as_of))
    }

    /// Whether the patient counts under all `rules` on the day `as_of`, since when without a break, and until when.
    ///
    /// # Errors
    /// [`RegisterError::NoRule`] when there is no rule.
    pub fn standing(&self, rules: &[OptOut], as_of: NaiveDate) -> Result<Standing, RegisterError> {
        let (rule, history) = (Rule::of(rules)?, self.history(i64::MAX));
        let counts = rule.admits(&history, as_of);
        // Between two days of these nothing changes.
        let days = rule.turning_days(&history);
        let turns = |on: &NaiveDate| {
            let before = on.pred_opt().is_some_and(|before| rule.admits(&history, before));
            before != rule.admits(&history, *on)
        };
        let since = days.iter().rev().copied().filter(|on| *on <= as_of).find(|on| turns(on));
        let until = days.iter().copied().filter(|on| *on > as_of).find(|on| turns(on));
        Ok(Standing { counts, since, until })
    }

    fn history(&self, at_seq: i64) -> History {
        let mut history = History::default();
        self.events.iter().filter(|e| e.seq <= at_seq).for_each(|e| history.add(e.seq, e.kind, e.on));
        history
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Days};
    use proptest::prelude::*;
    use sekisho_protocol::permit::OptOutRule;

    use super::*;
    use crate::register::EventKind;

    const KINDS: [EventKind; 4] =
        [EventKind::Notified, EventKind::OptedOut, EventKind::OptOutWithdrawn, EventKind::Died];

    fn first() -> NaiveDate {
        "2026-01-01".parse().unwrap()
    }

    fn status(events: &[(EventKind, u64)]) -> PatientStatus {
        let event = |(place, (kind, on)): (usize, &(EventKind, u64))| Event {
            seq: i64::try_from(place).unwrap() + 1,
            kind: *kind,
            on: first() + Days::new(*on),
            said_by: None,
            by: "tests".into(),
            recorded_at: DateTime::from_timestamp(0, 0).unwrap(),
        };
        PatientStatus { events: events.iter().enumerate().map(event).collect() }
    }

    #[test]
    fn since_when_a_patient_counts_is_told_without_breaks() {
        let (told, out, back, died) =
            (EventKind::Notified, EventKind::OptedOut, EventKind::OptOutWithdrawn, EventKind::Died);
        let (ngmia, ehds) =
            (OptOut { rule: OptOutRule::JpNgmia, days: 30 }, OptOut { rule: OptOutRule::EuEhds, days: 0 });
        for (rule, events, as_of, counts, since, until) in [
            (ehds, &[][..], 50, true, None, None),
            (ngmia, &[], 50, false, None, None),
            (ngmia, &[(told, 10)], 39, false, None, Some(40)),
            (ngmia, &[(told, 10)], 40, true, Some(40), None),
            (ngmia, &[(told, 10)], 99, true, Some(40), None),
            (ngmia, &[(told, 10), (died, 9)], 99, false, None, None),
            (ngmia, &[(told, 10), (died, 60)], 99, true, Some(40), None),
            (ngmia, &[(told, 10), (out, 50)], 99, false, Some(50), None),
            (ngmia, &[(told, 10), (out, 20)], 99, false, None, None),
            (ngmia, &[(told, 10), (out, 20), (back, 60)], 99, true, Some(60), None),
            (ngmia, &[(told, 10), (out, 20), (back, 30)], 99, true, Some(40), None),
            (ehds, &[(out, 20)], 19, true, None, Some(20)),
            (ehds, &[(out, 20), (out, 30), (back, 40)], 50, true, Some(40), None),
            (ehds, &[(out, 20), (back, 20)], 50, true, None, None),
            (ehds, &[(out, 20), (back, 30), (out, 40)], 35, true, Some(30), Some(40)),
        ] {
            let day = |n: Option<u64>| n.map(|n| first() + Days::new(n));
            let expect = Standing { counts, since: day(since), until: day(until) };
            let standing = status(events).standing(&[rule], first() + Days::new(as_of)).unwrap();
            assert_eq!(standing, expect, "{events:?} on day {as_of} under {rule:?}");
        }
    }

    proptest! {
        #[test]
        fn since_and_until_are_what_looking_at_every_day_says(
            events in prop::collection::vec((0_usize..4, 0_u64..60), 0..10),
            days in 0_u32..40,
            ngmia: bool,
            as_of in 0_u64..110,
        ) {
            let events: Vec<_> = events.into_iter().map(|(kind, on)| (KINDS[kind], on)).collect();
            let rule = if ngmia { OptOutRule::JpNgmia } else { OptOutRule::EuEhds };
            let (status, rules) = (status(&events), [OptOut { rule, days }]);
            let day = |n: u64| first() + Days::new(n);
            let counts = |n: u64| status.eligible(&rules, day(n)).unwrap();
            // The oracle goes day by day; nothing happens before day 0 nor after day 110.
            let before = |n: u64| status.eligible(&rules, day(n).pred_opt().unwrap()).unwrap();
            let since = (0..=as_of).rev().find(|n| before(*n) != counts(*n));
            let until = (as_of + 1..=111).find(|n| before(*n) != counts(*n));
            let expect = Standing { counts: counts(as_of), since: since.map(day), until: until.map(day) };
            prop_assert_eq!(status.standing(&rules, day(as_of)).unwrap(), expect, "{:?}", events);
        }
    }
}
