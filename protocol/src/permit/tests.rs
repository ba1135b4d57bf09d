use super::*;
use crate::keys::SecretKey;

type Listed = (u8, ReleaseKind);

fn permit(kinds: &[ReleaseKind], listed: Option<&[Listed]>, disclosure: Preset) -> Permit {
    let key = SecretKey::generate(&mut rand::rng()).public();
    let mut permit: Permit = serde_json::from_value(serde_json::json!({
        "id": "p-1", "version": 1, "basis": "EHDS-69", "issuer": "body",
        "decision": {"date": "2026-01-01", "reasons": "public health"}, "purposes": ["scientific_research"],
        "data_user": "university", "principal_investigator": "somebody",
        "authorised_persons": [{"id": "a", "role": "analyst", "key": key, "key_fingerprint": key.fingerprint()}],
        "study_id": "s-1", "schema": Digest::of(b"schema"),
        "data": [{"table": "stay", "columns": ["sex"], "holder_nodes": ["tokyo"]}],
        "allowed_statistics": ["count"], "release_kinds": [], "disclosure": "jp-ndb",
        "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1, "micro_rho_per_query": 1,
            "micro_rho_total": 1, "delta_for_reports": "1e-6"},
        "optout": {"rule": "eu-ehds", "days": 0},
        "validity": {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
    }))
    .unwrap();
    permit.release_kinds = kinds.to_vec();
    permit.disclosure = disclosure;
    permit.allowed_queries = listed.map(|listed| {
        let one = |(n, release): &Listed| AllowedQuery { sha256: Digest::of(&[*n]), max_runs: 1, release: *release };
        listed.iter().map(one).collect()
    });
    permit
}

#[test]
fn an_aggregated_query_is_listed_and_has_a_preset() {
    use Preset::{Acro, JpNdb};
    use ReleaseKind::{Aggregated, Noised};
    let (noised, exact) = ((1, Noised), (2, Aggregated));
    for (kinds, listed, disclosure, expect) in [
        (&[Noised][..], None, Preset::None, ""),
        (&[Noised], Some(&[noised][..]), JpNdb, ""),
        (&[Noised, Aggregated], Some(&[noised, exact]), Acro, ""),
        (&[Aggregated], Some(&[exact]), JpNdb, ""),
        (&[], None, JpNdb, "must name"),
        (&[Noised, Aggregated], None, JpNdb, "must list such a query"),
        (&[Noised, Aggregated], Some(&[noised]), JpNdb, "must list such a query"),
        (&[Noised], Some(&[exact]), JpNdb, "has only noised"),
        (&[Aggregated], Some(&[exact, noised]), JpNdb, "has only aggregated"),
        (&[Aggregated], None, JpNdb, "must list such a query"),
        (&[Aggregated], Some(&[exact]), Preset::None, "need a disclosure preset"),
        (&[Noised, Aggregated], Some(&[(2, Noised), exact]), JpNdb, "each query once"),
    ] {
        let said = permit(kinds, listed, disclosure).check().err().unwrap_or_default();
        assert!(
            if expect.is_empty() { said.is_empty() } else { said.contains(expect) },
            "{kinds:?} {listed:?}: {said}"
        );
    }
}

#[test]
fn what_the_permit_does_not_list_as_aggregated_is_noised() {
    let kinds = [ReleaseKind::Noised, ReleaseKind::Aggregated];
    let mut permit = permit(&kinds, Some(&[(b'a', ReleaseKind::Aggregated), (b'b', ReleaseKind::Noised)]), Preset::Cms);
    for (sql, expect) in [("a", ReleaseKind::Aggregated), ("b", ReleaseKind::Noised), ("a ", ReleaseKind::Noised)] {
        assert_eq!(permit.release_of(sql), expect, "{sql}");
    }
    permit.allowed_queries = None;
    assert_eq!(permit.release_of("a"), ReleaseKind::Noised);
}
