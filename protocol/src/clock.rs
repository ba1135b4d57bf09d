//! Time as an argument: what needs the hour takes a [`Clock`], so that a test can choose it.

use chrono::{DateTime, NaiveDate, Utc};

/// Tells the present moment.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> DateTime<Utc>;

    /// Today's date in UTC; notices and opt-outs count by whole days.
    fn today(&self) -> NaiveDate {
        self.now().date_naive()
    }
}

/// A clock that stands still, for tests and for replaying an earlier decision.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub DateTime<Utc>);

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}
