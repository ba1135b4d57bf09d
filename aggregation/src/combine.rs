//! Integers of several hospitals become one table of integers.
//!
//! A release is believed to be of the plan only if its header says exactly what this party's own analysis of the
//! signed SQL says: plan digest, units and variances. Cells add in checked i128, variances add as numbers.

use sekisho_protocol::digest::Digest;

use crate::{
    plan::PrivatePlan,
    release::{Release, measure_headers},
};

/// Sums over hospitals: cells in lattice units, and the noise in each.
#[derive(Clone)]
pub struct Combined {
    pub(crate) cells: Vec<Vec<i128>>,
    pub(crate) standard_deviations: Vec<f64>,
}

/// Why a release does not belong to the round.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CombineError {
    /// It answers another question.
    #[error("the release answers another permit, query or run")]
    OtherQuestion,
    /// It was made by another plan, or its measures are others.
    #[error("the release was made by another plan: software or schema differ")]
    OtherPlan,
    /// It has another number of cells.
    #[error("the release has {found} cells where the plan has {expected}")]
    Cells {
        /// How many it has.
        found: usize,
        /// How many it must have.
        expected: usize,
    },
    /// The sums are too large.
    #[error("the sums over hospitals are too large")]
    Overflow,
}

/// Checks that `release` is one of `plan` for this permit, query and run.
///
/// # Errors
/// When it is not.
pub fn check(
    plan: &PrivatePlan,
    permit: Digest,
    query_key: Digest,
    run: u32,
    release: &Release,
) -> Result<(), CombineError> {
    let header = release.header();
    if header.permit != permit || header.query_key != query_key || header.run != run {
        return Err(CombineError::OtherQuestion);
    }
    let measures = measure_headers(plan);
    if header.plan != plan.digest()
        || header.micro_rho != plan.micro_rho()
        || Some(&header.measures) != measures.as_ref()
    {
        return Err(CombineError::OtherPlan);
    }
    for cells in release.cells() {
        if cells.len() != plan.cells() {
            return Err(CombineError::Cells { found: cells.len(), expected: plan.cells() });
        }
    }
    Ok(())
}

/// Adds checked releases. With none, every cell is 0 and has no noise: callers show such a table as missing.
///
/// # Errors
/// [`CombineError::Overflow`] when a sum leaves i128, or a release was not checked.
pub fn combine(plan: &PrivatePlan, releases: &[&Release]) -> Result<Combined, CombineError> {
    let mut cells = vec![vec![0_i128; plan.cells()]; plan.measures().len()];
    for release in releases {
        for (total, part) in cells.iter_mut().zip(release.cells()) {
            for (total, part) in total.iter_mut().zip(part) {
                *total = total.checked_add(*part).ok_or(CombineError::Overflow)?;
            }
        }
    }
    let hospitals = u32::try_from(releases.len()).map_err(|_| CombineError::Overflow)?;
    let deviation = |m| plan.variance(m).map(|v| (v.as_f64() * f64::from(hospitals)).sqrt());
    let deviations: Option<Vec<f64>> = plan.measures().iter().map(deviation).collect();
    Ok(Combined { cells, standard_deviations: deviations.ok_or(CombineError::OtherPlan)? })
}
