//! Exact (`aggregated`) releases: which plans are exact, who may let their cells out, and what of them leaves.
//!
//! A query is exact when its permit lists it so; nothing in a request decides it. Its plan has no noise and costs nothing, so
//! neither of the two doors lets the other's cells out: [`Release::make`](crate::release::Release::make) wants a charge and
//! noise, [`Release::exact`](crate::release::Release::exact) a [`Reviewed`] run and rules at least as strict as the permit's.
//!
//! Exact numbers are not differentially private, and what is said here is no such guarantee: small and dominated cells are
//! hidden with what would give them away (`suppress`), the rest is rounded. That two releases of nearly the same patients do
//! not leave is the node's guard, by their [`Cohort`]s.

use sekisho_protocol::{
    disclosure::Rules,
    permit::{Permit, ReleaseKind},
    query::Terms,
    refusal::{Code, Refusal},
    units::MicroRho,
};

use crate::{
    plan::{Part, PrivatePlan},
    relation::unsupported,
};

mod cohort;
mod combined;
#[cfg(test)]
pub(crate) mod example;
mod fit;
mod reviewed;
mod slack;
#[cfg(test)]
mod tests;

pub(crate) use cohort::first_bytes;
pub use cohort::{Cohort, CohortKey, NotACohort};
pub(crate) use combined::{combined, is_of};
pub(crate) use fit::{Fit, fit};
pub use fit::{HiddenWhy, Preview};
pub use reviewed::{Claim, History, Reviewed};
pub(crate) use slack::Slack;

/// The most group keys of an exact table: each doubles the margins that are looked at.
const MAX_KEYS: usize = 4;
/// The most cells over all keys.
const MAX_CELLS: usize = 10_000;
/// The most integers that a fold keeps to judge cells, over all margins.
const MAX_KEPT: usize = 4_000_000;

/// The rules of an exact plan of `sql`; none where the permit does not list it as `aggregated`.
///
/// # Errors
/// `budget_query` and `terms`: an exact query costs nothing and has no terms.
pub(crate) fn rules(sql: &str, permit: &Permit, micro_rho: MicroRho, terms: &Terms) -> Result<Option<Rules>, Refusal> {
    if permit.release_of(sql) == ReleaseKind::Noised {
        return Ok(None);
    }
    if micro_rho != MicroRho::ZERO {
        let detail = "the permit lists this query as aggregated: its release has no noise and costs nothing; ask with a rho of 0";
        return Err(Refusal::new(Code::BudgetQuery, detail));
    }
    if *terms != Terms::default() {
        let detail = "the permit lists this query as aggregated: it runs as it was permitted; ask without terms";
        return Err(Refusal::new(Code::Terms, detail));
    }
    Ok(Some(permit.disclosure.rules()))
}

/// Whether an aggregate may be in an exact plan.
///
/// # Errors
/// A refusal that says what to write instead.
pub(crate) fn admits(name: &str, distinct: bool, filtered: bool) -> Result<(), Refusal> {
    if !matches!(name, "count" | "sum" | "avg" | "grouping") {
        let detail = format!("{name} is not released exactly: write count, sum or avg, or ask for it under noise");
        return Err(Refusal::new(Code::StatisticNotPermitted, detail));
    }
    if distinct && filtered {
        let detail = "FILTER with DISTINCT in an aggregated query: make the condition a group key, and write GROUPING SETS \
                      where a total is wanted too";
        return Err(unsupported(detail));
    }
    Ok(())
}

/// Bounds the table of an exact plan, so that what hides its cells can look at all margins.
///
/// # Errors
/// A refusal that says what to write instead.
pub(crate) fn check(plan: &PrivatePlan) -> Result<(), Refusal> {
    let [part] = plan.parts() else {
        return Err(unsupported("an aggregated query has one aggregate across patients: ask the others by themselves"));
    };
    if part.keys.len() > MAX_KEYS || part.cells() > MAX_CELLS {
        let detail =
            format!("an aggregated query has at most {MAX_KEYS} group keys and {MAX_CELLS} cells: group more coarsely");
        return Err(unsupported(detail));
    }
    if kept(part) > MAX_KEPT {
        return Err(unsupported("an aggregated query of so many cells has fewer aggregates: ask in parts"));
    }
    Ok(())
}

/// How many integers of 8 bytes a fold keeps beside the measures: of every margin patients, and of each argument who contributes
/// to it.
fn kept(part: &Part) -> usize {
    let margins: usize = part.keys.iter().map(|key| key.cells() + 1).product();
    let of_argument = |summed: bool| if summed { 20 } else { 1 };
    margins * (1 + part.arguments.iter().map(|a| of_argument(a.range.is_some())).sum::<usize>())
}
