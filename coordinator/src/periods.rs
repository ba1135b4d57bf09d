//! The periods that the law gives, as data (`periods.toml`), and the days on which they end.
//!
//! Deliberately absent: any hour; the law counts days, and a day is one of UTC. Which days are holidays is data, too.

use std::collections::BTreeMap;

use chrono::{Datelike, Days, Months, NaiveDate, Weekday};
use sekisho_protocol::permit::Basis;
use serde::Deserialize;

const PERIODS: &str = include_str!("periods.toml");

/// A length of time; its parts are added up, working days last.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    #[serde(default)]
    years: u32,
    #[serde(default)]
    months: u32,
    /// Whole days.
    #[serde(default)]
    pub days: u32,
    #[serde(default)]
    working_days: u32,
    /// Where the law says so.
    pub article: String,
}

/// The periods of one law; one that is left out is not watched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Periods {
    /// Days on which nobody works, beside Saturdays and Sundays.
    #[serde(default)]
    holidays: Vec<NaiveDate>,
    /// From a complete application to its decision.
    pub decision: Option<Period>,
    /// From a decision to its publication.
    pub publish_decision: Option<Period>,
    /// From the end of a permit to the publication of results.
    pub publish_results: Option<Period>,
    /// How long logs of access are kept after a permit's end.
    pub keep_logs: Option<Period>,
    /// Between a patient's notice and the first use.
    pub notice: Option<Period>,
}

impl Periods {
    /// The periods of `text`, by the name of their preset.
    ///
    /// # Errors
    /// What is malformed, and where.
    pub fn parse(text: &str) -> Result<BTreeMap<String, Self>, toml::de::Error> {
        toml::from_str(text)
    }

    /// The presets that this software ships.
    ///
    /// # Errors
    /// When they are not well-formed, which a test rules out.
    pub fn presets() -> Result<BTreeMap<String, Self>, toml::de::Error> {
        Self::parse(PERIODS)
    }

    /// The name of the preset of a legal basis.
    pub const fn preset_of(basis: Basis) -> &'static str {
        match basis {
            Basis::Ehds68 | Basis::Ehds69 | Basis::Ehds72 => "eu-ehds",
            Basis::JpNgmiaAnonymised | Basis::JpNgmiaPseudonymised | Basis::JpEthics => "jp-ngmia",
        }
    }

    /// The last day of `period`, when it begins on the day `from`: the day after is its first.
    pub fn end(&self, period: &Period, from: NaiveDate) -> NaiveDate {
        let months = period.years.saturating_mul(12).saturating_add(period.months);
        let whole = from.checked_add_months(Months::new(months));
        let whole = whole.and_then(|day| day.checked_add_days(Days::new(period.days.into())));
        let mut day = whole.unwrap_or(NaiveDate::MAX);
        for _ in 0..period.working_days.min(10_000) {
            day = day.succ_opt().unwrap_or(NaiveDate::MAX);
            while self.rests(day) {
                day = day.succ_opt().unwrap_or(NaiveDate::MAX);
            }
        }
        day
    }

    fn rests(&self, day: NaiveDate) -> bool {
        day < NaiveDate::MAX && (matches!(day.weekday(), Weekday::Sat | Weekday::Sun) || self.holidays.contains(&day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn every_basis_has_a_preset() {
        let presets = Periods::presets().unwrap();
        for basis in [Basis::Ehds68, Basis::Ehds69, Basis::Ehds72, Basis::JpNgmiaAnonymised, Basis::JpEthics] {
            assert!(presets.contains_key(Periods::preset_of(basis)));
        }
    }

    #[test]
    fn a_period_ends_on_its_last_day() {
        let holidays = "[p]\nholidays = [\"2026-12-25\", \"2027-01-01\"]\n";
        for (text, holidays, from, end) in [
            ("working_days = 1", "[p]\n", "2026-11-20", "2026-11-23"),
            ("working_days = 5", "[p]\n", "2026-11-21", "2026-11-27"),
            ("working_days = 30", "[p]\n", "2026-12-01", "2027-01-12"),
            ("working_days = 30", holidays, "2026-12-01", "2027-01-14"),
            ("months = 18", "[p]\n", "2026-08-31", "2028-02-29"),
            ("years = 10", "[p]\n", "2026-02-28", "2036-02-28"),
            ("days = 30", "[p]\n", "2026-02-01", "2026-03-03"),
        ] {
            let toml = format!("{holidays}decision = {{ {text}, article = \"a\" }}\n");
            let periods = Periods::parse(&toml).unwrap().remove("p").unwrap();
            let period = periods.decision.clone().unwrap();
            assert_eq!(periods.end(&period, day(from)), day(end), "{text} from {from}");
        }
    }
}
