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
