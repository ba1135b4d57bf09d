//! What the engine understood of a query, as plain facts.

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{permit::Permit, query::Terms, refusal::Refusal, schema::Schema, units::MicroRho};

pub use sekisho_aggregation::explain::{Explanation, KeyExplanation, MeasureExplanation, PartExplanation, Step};

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
) -> Result<Explanation, Refusal> {
    Ok(PrivatePlan::analyse_with(sql, schema, permit, micro_rho, terms)?.explain())
}
