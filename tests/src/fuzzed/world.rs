//! The schema, the permit and the cost that inputs are admitted under.

use std::{convert::Infallible, sync::OnceLock};

use sekisho_aggregation::{
    plan::PrivatePlan,
    reservation::{Charge, Ledger},
};
use sekisho_protocol::{
    digest::Digest, keys::PublicKey, permit::Permit, refusal::Refusal, schema::Schema, units::MicroRho,
};
use serde_json::json;

/// What a query costs: much, since extremes are told from noise by how much there may be.
pub const RHO: u64 = 1_000_000_000_000_000;

/// Every charge is durable at once.
pub struct NoLedger;

impl Ledger for NoLedger {
    type Record = ();
    type Error = Infallible;

    async fn charge(&self, _: &Charge) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A permit for everything in `schema`, at these bounds.
///
/// # Panics
/// When the permit's form changed.
pub fn permit(schema: &Schema, rows_per_patient: u32, groups_per_patient: u32) -> Permit {
    let key = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=";
    let fingerprint = key.parse::<PublicKey>().unwrap().fingerprint();
    let table = |t: &sekisho_protocol::schema::Table| {
        let columns = t.columns.iter().filter(|c| Some(&c.name) != t.patient.as_ref()).map(|c| c.name.clone());
        json!({"table": t.name, "columns": columns.collect::<Vec<_>>(), "holder_nodes": ["h"]})
    };
    let permit = json!({
        "id": "p", "version": 1, "basis": "EHDS-69", "issuer": "i", "study_id": "s", "schema": Digest::of(b"schema"),
        "decision": {"date": "2026-01-01", "reasons": "r"}, "purposes": ["scientific_research"],
        "data_user": "u", "principal_investigator": "pi",
        "authorised_persons": [{"id": "a", "role": "r", "key": key, "key_fingerprint": fingerprint}],
        "data": schema.tables.iter().map(table).collect::<Vec<_>>(),
        "allowed_statistics": ["count", "count_distinct", "sum", "avg", "variance", "covariance", "quantile", "extreme"],
        "release_kinds": ["noised"], "disclosure": "none",
        "dp": {"rows_per_patient": rows_per_patient, "groups_per_patient": groups_per_patient, "sites_per_patient": 1,
               "micro_rho_per_query": 1_000_000, "micro_rho_total": 10_000_000, "delta_for_reports": "1e-7"},
        "optout": {"rule": "eu-ehds", "days": 0},
        "validity": {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
    });
    serde_json::from_value(permit).unwrap()
}

/// What a question is asked under.
pub struct World {
    /// The hospital of the manual's examples.
    pub schema: Schema,
    /// All of it but the genome and incomes, at five rows and three groups of a patient.
    pub permit: Permit,
}

impl World {
    /// What the analysis makes of `sql`.
    ///
    /// # Errors
    /// The refusal.
    pub fn analyse(&self, sql: &str) -> Result<PrivatePlan, Refusal> {
        PrivatePlan::analyse(sql, &self.schema, &self.permit, MicroRho::try_from(RHO).unwrap())
    }
}

/// The one world of all inputs.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let schema: Schema = serde_json::from_str(include_str!("../../sql/schema.json")).unwrap();
        let mut permit = permit(&schema, 5, 3);
        permit.data.retain(|t| t.table != "genome");
        for table in &mut permit.data {
            table.columns.retain(|column| column != "income");
        }
        World { schema, permit }
    })
}
