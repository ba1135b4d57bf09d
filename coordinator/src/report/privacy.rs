//! What a query costs, and what holds for a patient: the guarantee of the noise, or of an exact result the rules that hide cells.
//!
//! Promises: an exact result has no epsilon to be read, not even one of 0. Deliberately absent: since when a hospital has no
//! guarantee to give; that is its receipts' to say.

use sekisho_protocol::{disclosure::Rules, units::MicroRho};
use serde::{Deserialize, Serialize};

/// What a query costs and protects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrivacyReport {
    /// The charge at each hospital.
    pub micro_rho: MicroRho,
    /// What holds for a patient.
    #[serde(flatten)]
    pub protection: Protection,
    /// The noise; none in exact results.
    pub noise: Vec<NoiseReport>,
}

/// What holds for a patient: one of two, so that no exact result ever has an epsilon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Protection {
    /// Noise, and what it guarantees.
    Noised(Guarantee),
    /// Disclosure rules alone.
    Exact(ExactReport),
}

/// What noise guarantees, of this question alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guarantee {
    /// Delta of the reports, as the permit says.
    pub delta: String,
    /// Epsilon at that delta for a patient at one hospital.
    pub epsilon: f64,
    /// At how many hospitals a patient may be: an assumption.
    pub sites_per_patient: u32,
    /// Epsilon at that delta for a patient at so many hospitals.
    pub epsilon_all_sites: f64,
}

/// What hides an exact result's cells: no guarantee of differential privacy holds for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExactReport {
    /// The permit's rules; a hospital may apply stricter ones.
    pub exact: Rules,
}

impl Protection {
    /// What noise guarantees; nothing where there is none.
    pub fn guarantee(&self) -> Option<&Guarantee> {
        match self {
            Self::Noised(guarantee) => Some(guarantee),
            Self::Exact(_) => None,
        }
    }

    /// The rules of an exact result.
    pub fn rules(&self) -> Option<&Rules> {
        match self {
            Self::Noised(_) => None,
            Self::Exact(report) => Some(&report.exact),
        }
    }
}

/// The noise in one released quantity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NoiseReport {
    /// What is measured, in words: `rows`, `sum of days`, …
    pub measure: String,
    /// The standard deviation per cell and hospital, in rows, patients or natural units.
    pub standard_deviation: f64,
    /// It counts rows or patients, so that its error is a share of a cell's size.
    #[serde(default)]
    pub counts: bool,
    /// The answer's columns that are made of it, by name; empty when nobody says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Those of them that are the measure itself, so that its noise is theirs: a count or a sum as it was released, but
    /// neither an average, a quantile nor what was computed afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<String>,
}
