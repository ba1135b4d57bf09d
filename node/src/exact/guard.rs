//! The history guard: whether an exact release lies too close to an earlier one of the same patient register.
//!
//! Two exact tables over nearly the same patients tell, subtracted, of the few patients between them. So a release is refused
//! when it is about fewer patients than the least number; when its patients are those of an earlier release but for fewer than
//! that number, none included (several tables of one cohort are asked for in one query, where they are protected together); and
//! when the same SQL was released on a cut of the data that is not earlier. The larger least number of the two holds. All
//! studies, persons and data sets of the register count: those who subtract may work together.
//!
//! Decisions over numbers that are handed in; who looks at every earlier release is [`crate::ledger::Ledger::record_exact`].
//!
//! Deliberately absent: trackers. Cohorts that differ by many pass, and sums and differences of several such tables may tell of
//! few; docs/privacy.md says so.

use chrono::NaiveDate;
use sekisho_aggregation::exact::Cohort;
use sekisho_protocol::digest::Digest;

/// A release that is to be.
pub struct Candidate<'a> {
    /// SHA-256 of the SQL's text.
    pub sql: Digest,
    /// The day of the snapshot.
    pub cut: NaiveDate,
    /// The least number of patients of its rules.
    pub min_patients: u32,
    /// Whom it is about.
    pub cohort: &'a Cohort,
    /// The fingerprint of the key that the cohort's hashes are under.
    pub key: Digest,
}

/// An exact release that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// QUESTION/RUN.
    pub name: String,
    /// The study.
    pub study_id: String,
    /// SHA-256 of the SQL's text; none where only a receipt tells of the release.
    pub sql: Option<Digest>,
    /// The day of its snapshot.
    pub cut: NaiveDate,
    /// The least number of patients of its rules.
    pub min_patients: u32,
    /// The day of its record.
    pub on: NaiveDate,
}

/// Why a release may not be. No variant has a number of patients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// It is about fewer patients than the least number.
    #[error("it is about fewer patients than an exact result may be about")]
    Few,
    /// The same SQL was released on this cut of the data, or on a later one.
    #[error("the same question was released on {on} ({name}, study {study}) on data that are not older: {cut}", name = .0.name, study = .0.study_id, on = .0.on, cut = .0.cut)]
    SameCut(Earlier),
    /// It is about nearly the patients of an earlier release, or just those.
    #[error("too close to an earlier release: {name} of {on} (study {study}) is about nearly the same patients", name = .0.name, study = .0.study_id, on = .0.on)]
    Near(Earlier),
    /// Nobody knows any more whom an earlier release was about.
    #[error("the patients of the exact release {name} of {on} were lost with the database that a write-off replaced: nothing can be compared with it", name = .0.name, on = .0.on)]
    Lost(Earlier),
}

impl Close {
    /// The stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Few => "few_patients",
            Self::SameCut(_) => "same_cut",
            Self::Near(_) => "near",
            Self::Lost(_) => "lost",
        }
    }

    /// The earlier release that it is too close to.
    pub const fn earlier(&self) -> Option<&Earlier> {
        match self {
            Self::Few => None,
            Self::SameCut(earlier) | Self::Near(earlier) | Self::Lost(earlier) => Some(earlier),
        }
    }
}

impl Candidate<'_> {
    /// Whether it is about too few patients.
    pub fn few(&self) -> Option<Close> {
        (self.cohort.len() < u64::from(self.min_patients)).then_some(Close::Few)
    }

    /// Whether the same SQL was released on this cut, or on a later one.
    pub fn same_cut(&self, earlier: &Earlier) -> Option<Close> {
        (earlier.sql == Some(self.sql) && earlier.cut >= self.cut).then(|| Close::SameCut(earlier.clone()))
    }

    /// Whether too few patients are in exactly one of the two releases.
    pub fn near(&self, earlier: &Earlier, cohort: &Cohort) -> Option<Close> {
        let least = self.min_patients.max(earlier.min_patients);
        let apart = self.cohort.difference(cohort);
        (apart < u64::from(least)).then(|| Close::Near(earlier.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many patients from `first` on.
    fn cohort(first: u64, patients: u64) -> Cohort {
        let bytes: Vec<u8> = (first..first + patients).flat_map(u64::to_le_bytes).collect();
        Cohort::from_bytes(&bytes).unwrap()
    }

    fn day(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, day).unwrap()
    }

    fn earlier(sql: Option<&[u8]>, cut: u32, min_patients: u32) -> Earlier {
        Earlier {
            name: "3fa9c2d1e0ab/1".into(),
            study_id: "another".into(),
            sql: sql.map(Digest::of),
            cut: day(cut),
            min_patients,
            on: day(28),
        }
    }

    #[test]
    fn a_cohort_of_fewer_patients_than_the_least_number_is_refused() {
        for (patients, min_patients, expect) in [(0, 1, true), (9, 10, true), (10, 10, false), (11, 10, false)] {
            let cohort = cohort(1, patients);
            let candidate =
                Candidate { sql: Digest::of(b"a"), cut: day(2), min_patients, cohort: &cohort, key: Digest::of(b"k") };
            assert_eq!(candidate.few().is_some(), expect, "{patients} of {min_patients}");
        }
    }

    #[test]
    fn whoever_differs_by_fewer_than_the_larger_least_number_is_too_close() {
        // 30 patients from 100 on were released.
        for (first, patients, own, earlier_min, expect) in [
            (100, 30, 10, 10, true),
            (100, 39, 10, 10, true),
            (100, 40, 10, 10, false),
            (100, 21, 10, 10, true),
            (100, 20, 10, 10, false),
            // Four have gone and five have come: nine are in one alone.
            (104, 31, 10, 10, true),
            (105, 30, 10, 10, false),
            (1000, 30, 10, 10, false),
            (100, 45, 10, 20, true),
            (100, 45, 20, 10, true),
            (100, 50, 20, 10, false),
        ] {
            let (own_cohort, other) = (cohort(first, patients), cohort(100, 30));
            let candidate = Candidate {
                sql: Digest::of(b"a"),
                cut: day(2),
                min_patients: own,
                cohort: &own_cohort,
                key: Digest::of(b"k"),
            };
            let close = candidate.near(&earlier(Some(b"b"), 1, earlier_min), &other);
            assert_eq!(close.is_some(), expect, "{patients} from {first} on, {own} and {earlier_min}");
            let told = close.map(|close| close.to_string()).unwrap_or_default();
            assert!(!told.contains("30") && !told.contains(&patients.to_string()), "no number of patients: {told}");
        }
    }

    #[test]
    fn the_same_sql_is_released_once_a_cut_and_on_later_cuts_only() {
        let cohort = cohort(1, 30);
        for (sql, earlier_cut, expect) in [
            (Some(&b"a"[..]), 2, true),
            (Some(b"a"), 3, true),
            (Some(b"a"), 1, false),
            (Some(b"b"), 2, false),
            (None, 2, false),
        ] {
            let candidate = Candidate {
                sql: Digest::of(b"a"),
                cut: day(2),
                min_patients: 10,
                cohort: &cohort,
                key: Digest::of(b"k"),
            };
            assert_eq!(candidate.same_cut(&earlier(sql, earlier_cut, 10)).is_some(), expect, "{sql:?} {earlier_cut}");
        }
    }
}
