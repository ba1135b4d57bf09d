//! What the engine understood of a query, as plain facts.

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{permit::Permit, query::Terms, refusal::Refusal, schema::Schema, units::MicroRho};

use crate::{report::PrivacyReport, result};

pub use sekisho_aggregation::explain::{Explanation, KeyExplanation, MeasureExplanation, PartExplanation, Step};

/// What was understood.
pub struct Understood {
    /// The plan, as plain facts.
    pub explanation: Explanation,
    /// Cost and protection; the noise of each measure is in the explanation.
    pub privacy: PrivacyReport,
}

/// Understands `sql` as a node would.
///
/// # Errors
/// The refusal with which a node and the coordinator would answer.
pub fn explained(
    sql: &str,
    schema: &Schema,
    permit: &Permit,
    micro_rho: MicroRho,
    terms: &Terms,
) -> Result<Understood, Refusal> {
    let plan = PrivatePlan::analyse_with(sql, schema, permit, micro_rho, terms)?;
    let privacy = PrivacyReport { noise: Vec::new(), ..result::privacy(&plan, permit) };
    Ok(Understood { explanation: plan.explain(), privacy })
}
