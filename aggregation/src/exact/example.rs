//! Exact plans for this crate's tests.

use std::sync::Arc;

use sekisho_protocol::{
    digest::Digest,
    permit::{AllowedQuery, Permit, Preset, ReleaseKind},
    query::Terms,
    refusal::Refusal,
    units::MicroRho,
};

use crate::{example, plan::PrivatePlan};

/// A permit that lists `sql` as aggregated.
pub(crate) fn permit(sql: &str, preset: Preset) -> Permit {
    let mut permit = example::permit(1, 1);
    permit.disclosure = preset;
    permit.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
    let sha256 = Digest::of(sql.as_bytes());
    permit.allowed_queries = Some(vec![AllowedQuery { sha256, max_runs: 1, release: ReleaseKind::Aggregated }]);
    permit
}

pub(crate) fn analyse(sql: &str, permit: &Permit, micro_rho: u64, terms: &Terms) -> Result<PrivatePlan, Refusal> {
    let rho = MicroRho::try_from(micro_rho).unwrap();
    PrivatePlan::analyse_with(sql, &example::schema(), permit, rho, terms)
}

pub(crate) fn plan(sql: &str, preset: Preset) -> Arc<PrivatePlan> {
    Arc::new(analyse(sql, &permit(sql, preset), 0, &Terms::default()).unwrap_or_else(|refusal| panic!("{refusal}")))
}
