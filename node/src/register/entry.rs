//! One event before it is recorded: checked, so that what is in an [`Entry`] may be written down.
//!
//! No day lies in the future, whoever writes it: a day has come once it has begun anywhere on earth, since a hospital in
//! Japan writes today's date while it is still yesterday in UTC, by which the node counts. An opt-out of such a day acts at once.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

use super::{EventKind, MAX_PATIENT_BYTES, RegisterError, SaidBy};

/// How far the clocks of the world are ahead of UTC at most, in hours.
const EARLIEST_ZONE_HOURS: i64 = 14;

/// One event that may be recorded.
#[derive(Clone)]
pub struct Entry {
    pub(super) patient: String,
    pub(super) kind: EventKind,
    pub(super) on: NaiveDate,
    pub(super) said_by: Option<SaidBy>,
}

impl Entry {
    /// An event of `patient` from the day `on` on (today, if there is none), for a register at the hour `now`.
    ///
    /// # Errors
    /// What is wrong with it, without a value: the id, the day, or somebody who says what nobody says.
    pub fn new(
        patient: &str,
        kind: EventKind,
        on: Option<NaiveDate>,
        said_by: Option<SaidBy>,
        now: DateTime<Utc>,
    ) -> Result<Self, &'static str> {
        let (patient, today) = (checked_patient(patient)?, now.date_naive());
        let on = on.unwrap_or(today);
        if !(1900..2200).contains(&on.year()) {
            return Err("a day is not of the years 1900 to 2199");
        }
        if on > (now + TimeDelta::hours(EARLIEST_ZONE_HOURS)).date_naive() {
            return Err("a day is in the future");
        }
        let said = matches!(kind, EventKind::OptedOut | EventKind::OptOutWithdrawn);
        if said_by.is_some() && !said {
            return Err("said_by goes with an opt-out or its withdrawal only");
        }
        let on = if kind == EventKind::OptedOut { on.min(today) } else { on };
        Ok(Self { patient: patient.into(), kind, on, said_by })
    }

    /// What it says of whom: two entries with the same are the same event.
    pub(crate) fn what(&self) -> (&str, EventKind, NaiveDate) {
        (&self.patient, self.kind, self.on)
    }
}

/// A patient id as the register keeps it: without blanks around it.
fn checked_patient(id: &str) -> Result<&str, &'static str> {
    let id = id.trim();
    if id.is_empty() {
        return Err("the patient id is blank");
    }
    if id.len() > MAX_PATIENT_BYTES {
        return Err("the patient id is longer than 256 bytes");
    }
    if id.chars().any(char::is_control) {
        return Err("the patient id has a control character");
    }
    Ok(id)
}

/// A day, written `YYYY-MM-DD`.
///
/// # Errors
/// When it is written otherwise, or there is no such day.
pub fn day(text: &str) -> Result<NaiveDate, &'static str> {
    const WRONG: &str = "a day is not written YYYY-MM-DD";
    let day: NaiveDate = text.parse().map_err(|_| WRONG)?;
    if day.to_string() == text { Ok(day) } else { Err(WRONG) }
}

/// The name of whoever records.
pub(super) fn recorder(by: &str) -> Result<&str, RegisterError> {
    let by = by.trim();
    if by.is_empty() || by.len() > 128 || by.chars().any(char::is_control) {
        return Err(RegisterError::Event("whoever records is named by 1 to 128 bytes"));
    }
    Ok(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_come_once_it_has_begun_anywhere_and_an_opt_out_of_it_acts_at_once() {
        // Nine in the morning in Japan, on 2 June, is midnight in UTC; an hour earlier it is still 1 June there.
        let before_nine = "2026-06-01T23:00:00Z".parse().unwrap();
        for (kind, on, expect) in [
            (EventKind::OptedOut, Some("2026-06-02"), Ok("2026-06-01")),
            (EventKind::OptedOut, None, Ok("2026-06-01")),
            (EventKind::OptedOut, Some("2026-05-31"), Ok("2026-05-31")),
            (EventKind::Notified, Some("2026-06-02"), Ok("2026-06-02")),
            (EventKind::Died, Some("2026-06-02"), Ok("2026-06-02")),
            (EventKind::OptOutWithdrawn, Some("2026-06-02"), Ok("2026-06-02")),
            (EventKind::OptedOut, Some("2026-06-03"), Err("a day is in the future")),
            (EventKind::OptOutWithdrawn, Some("2026-06-03"), Err("a day is in the future")),
            (EventKind::Notified, Some("1899-12-31"), Err("a day is not of the years 1900 to 2199")),
        ] {
            let on = on.map(|on| day(on).unwrap());
            let entry = Entry::new("1", kind, on, None, before_nine).map(|entry| entry.on.to_string());
            assert_eq!(entry.as_deref().map_err(|e| *e), expect, "{kind:?} {on:?}");
        }
    }

    #[test]
    fn only_an_opt_out_and_its_withdrawal_are_said_by_somebody() {
        let now = "2026-06-01T12:00:00Z".parse().unwrap();
        for (kind, expect) in [
            (EventKind::OptedOut, true),
            (EventKind::OptOutWithdrawn, true),
            (EventKind::Notified, false),
            (EventKind::Died, false),
        ] {
            assert_eq!(Entry::new("1", kind, None, Some(SaidBy::Bereaved), now).is_ok(), expect, "{kind:?}");
            assert!(Entry::new("1", kind, None, None, now).is_ok(), "{kind:?}");
        }
    }
}
