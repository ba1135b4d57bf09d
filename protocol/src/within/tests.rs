use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::{
    digest::Digest,
    dsse::Document,
    keys::{PublicKey, SecretKey},
    permit::{AllowedQuery, AuthorisedPerson, Basis, Mechanism, PermittedTable, Purpose, ReleaseKind, Statistic},
    units::{AttoDelta, MicroRho},
};

fn key() -> PublicKey {
    SecretKey::generate(&mut rand::rng()).public()
}

/// An application, and a permit that grants exactly what it asks for.
fn pair() -> (Application, Permit) {
    let (ada, sql) = (key(), "SELECT sex, count(*) FROM stay GROUP BY sex");
    let person = serde_json::json!({"id": "ada", "role": "analyst", "key": ada, "key_fingerprint": ada.fingerprint()});
    let dp = serde_json::json!({"rows_per_patient": 4, "groups_per_patient": 2, "sites_per_patient": 2,
        "micro_rho_per_query": 50_000, "micro_rho_total": 500_000, "delta_for_reports": "1e-6",
        "atto_delta_per_query": 1_000, "atto_delta_total": 10_000});
    let (from, to) = ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
    let schema = Digest::of(b"schema");
    let data = serde_json::json!([{"table": "stay", "columns": ["sex", "days"], "holder_nodes": ["osaka", "tokyo"]}]);
    let application: Application = serde_json::from_value(serde_json::json!({
        "id": "a-1", "version": 1, "basis": "EHDS-69", "applicant": {"name": "university", "country": "JP"},
        "principal_investigator": "Ada", "people": [person], "purposes": ["scientific_research"], "study_id": "s-1",
        "schema": schema, "data": data, "period": {"from": from, "to": to}, "statistics": ["count", "avg"],
        "release_kinds": ["noised"], "disclosure": "jp-ndb", "dp": dp, "output_review": "two_person",
        "only_these_queries": true, "queries": [{"sql": sql, "sha256": Digest::of(sql.as_bytes()), "max_runs": 3}],
    }))
    .unwrap();
    let permit: Permit = serde_json::from_value(serde_json::json!({
        "id": "p-1", "version": 1, "application_id": "a-1", "application": Digest::of(b"application"),
        "basis": "EHDS-69", "issuer": "body", "decision": {"date": "2026-12-01", "reasons": "of use"},
        "purposes": ["scientific_research"], "data_user": "university", "country": "JP", "principal_investigator": "Ada",
        "authorised_persons": [person], "study_id": "s-1", "schema": schema, "data": data,
        "allowed_queries": [{"sha256": Digest::of(sql.as_bytes()), "max_runs": 3}],
        "allowed_statistics": ["count", "avg"], "release_kinds": ["noised"], "disclosure": "jp-ndb", "dp": dp,
        "optout": {"rule": "eu-ehds", "days": 0}, "output_review": "two_person", "validity": {"from": from, "to": to},
    }))
    .unwrap();
    application.check().unwrap();
    permit.check().unwrap();
    (application, permit)
}

type Change = fn(&mut Permit, u32);

fn rho(n: u64) -> MicroRho {
    MicroRho::try_from(n).unwrap()
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn atto(n: u64) -> AttoDelta {
    AttoDelta::try_from(n).unwrap()
}

/// Every way in which a permit can be wider, by the field that is named.
const WIDER: [(&str, Change); 36] = [
    ("application_id", |p, _| p.application_id = Some("a-2".into())),
    ("application_id", |p, _| p.application_id = None),
    ("basis", |p, _| p.basis = Basis::JpEthics),
    ("data_user", |p, n| p.data_user = format!("somebody else {n}")),
    ("country", |p, _| p.country = None),
    ("country", |p, _| p.country = Some("US".into())),
    ("principal_investigator", |p, _| p.principal_investigator = "Bob".into()),
    ("study_id", |p, n| p.study_id = format!("s-1-{n}")),
    ("schema", |p, n| p.schema = Digest::of(&n.to_be_bytes())),
    ("purposes", |p, _| p.purposes.push(Purpose::Education)),
    ("authorised_persons", |p, n| {
        let key = key();
        let id = format!("bob-{n}");
        p.authorised_persons.push(AuthorisedPerson {
            id,
            role: "analyst".into(),
            key,
            key_fingerprint: key.fingerprint(),
        });
    }),
    ("authorised_persons", |p, _| p.authorised_persons[0].role = "head".into()),
    ("authorised_persons", |p, _| p.authorised_persons[0].key = key()),
    ("data.table", |p, _| {
        let (columns, holder_nodes) = (vec!["sex".into()], vec!["tokyo".into()]);
        p.data.push(PermittedTable { table: "drug".into(), columns, holder_nodes });
    }),
    ("data.columns", |p, n| p.data[0].columns.push(format!("c{n}"))),
    ("data.holder_nodes", |p, n| p.data[0].holder_nodes.push(format!("h-{n}"))),
    ("allowed_statistics", |p, _| p.allowed_statistics.push(Statistic::Extreme)),
    ("disclosure", |p, _| p.disclosure = Preset::None),
    ("disclosure", |p, _| p.disclosure = Preset::Opensafely),
    ("output_review", |p, _| p.output_review = OutputReview::Automatic),
    ("dp.rows_per_patient", |p, n| p.dp.rows_per_patient = 4 + n),
    ("dp.groups_per_patient", |p, n| p.dp.groups_per_patient = 2 + n),
    ("dp.sites_per_patient", |p, _| p.dp.sites_per_patient = 1),
    ("dp.micro_rho_per_query", |p, n| p.dp.micro_rho_per_query = rho(50_000 + u64::from(n))),
    ("dp.micro_rho_total", |p, n| p.dp.micro_rho_total = rho(500_000 + u64::from(n))),
    ("dp.delta_for_reports", |p, n| p.dp.delta_for_reports = format!("{}e-6", n + 1)),
    ("dp.mechanism", |p, _| p.dp.mechanism = Mechanism::Laplace),
    ("dp.atto_delta_per_query", |p, n| p.dp.atto_delta_per_query = atto(1_000 + u64::from(n))),
    ("dp.atto_delta_total", |p, n| p.dp.atto_delta_total = atto(10_000 + u64::from(n))),
    ("allowed_queries", |p, _| p.allowed_queries = None),
    ("allowed_queries", |p, n| p.allowed_queries.as_mut().unwrap()[0].max_runs = 3 + n),
    ("allowed_queries", |p, n| {
        let other = AllowedQuery { sha256: Digest::of(&n.to_be_bytes()), max_runs: 1, release: ReleaseKind::Noised };
        p.allowed_queries.as_mut().unwrap().push(other);
    }),
    ("release_kinds", |p, _| p.release_kinds.push(ReleaseKind::Aggregated)),
    ("allowed_queries", |p, _| p.allowed_queries.as_mut().unwrap()[0].release = ReleaseKind::Aggregated),
    ("validity.from", |p, n| p.validity.from = instant("2027-01-01T00:00:00Z") - TimeDelta::seconds(n.into())),
    ("validity.to", |p, n| p.validity.to = instant("2028-01-01T00:00:00Z") + TimeDelta::seconds(n.into())),
];

/// Ways in which it can be narrower.
const NARROWER: [Change; 12] = [
    |p, _| drop(p.data[0].columns.pop()),
    |p, _| drop(p.data[0].holder_nodes.pop()),
    |p, _| p.allowed_statistics.truncate(1),
    |p, _| p.disclosure = Preset::Cms,
    |p, n| p.dp.rows_per_patient = 1 + n % 4,
    |p, n| p.dp.groups_per_patient = 1 + n % 2,
    |p, n| p.dp.micro_rho_per_query = rho(u64::from(1 + n % 50_000)),
    |p, n| p.dp.micro_rho_total = rho(u64::from(50_000 + n % 450_001)),
    |p, n| p.dp.atto_delta_per_query = atto((n % 1_001).into()),
    |p, n| p.allowed_queries.as_mut().unwrap()[0].max_runs = 1 + n % 3,
    |p, n| p.validity.from += TimeDelta::seconds((n % 1_000_000).into()),
    |p, n| p.validity.to -= TimeDelta::seconds((n % 1_000_000).into()),
];

proptest! {
    #[test]
    fn a_permit_that_is_wider_in_one_field_is_refused_by_that_fields_name(
        which in 0..WIDER.len(),
        by in 1_u32..100_000,
        narrower in prop::collection::vec((0..NARROWER.len(), 0_u32..1_000_000), 0..6),
    ) {
        let (application, mut permit) = pair();
        let (field, widen) = WIDER[which];
        for (narrow, by) in narrower {
            NARROWER[narrow](&mut permit, by);
        }
        prop_assert_eq!(permit.within(&application), Ok(()));
        widen(&mut permit, by);
        prop_assert_eq!(permit.within(&application).map_err(|wider| wider.field), Err(field));
    }
}

#[test]
fn what_was_not_applied_for_is_not_granted() {
    type Cut = fn(&mut Application);
    let cuts: [(&str, Cut); 6] = [
        ("dp", |a| a.dp = None),
        ("disclosure", |a| a.disclosure = None),
        ("schema", |a| a.schema = None),
        ("validity.from", |a| a.period.from = None),
        ("validity.to", |a| a.period.to = None),
        ("release_kinds", |a| a.release_kinds = Vec::<ReleaseKind>::new()),
    ];
    for (field, cut) in cuts {
        let (mut application, permit) = pair();
        cut(&mut application);
        assert_eq!(permit.within(&application).map_err(|wider| wider.field), Err(field));
    }
}

#[test]
fn without_a_list_any_query_within_the_rest_may_be_granted() {
    let (mut application, mut permit) = pair();
    application.only_these_queries = false;
    permit.allowed_queries = None;
    assert_eq!(permit.within(&application), Ok(()));
}
