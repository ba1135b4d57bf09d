//! How versions of a permit follow one another.
//!
//! Version 1 supersedes nothing. Each later one names the digest of the version before it and belongs to the same study,
//! so that its spending goes on. Whoever has seen a version takes no older one, and no other one of the same number.
//! A chain of digests cannot have a cycle; what tries to look like one is refused here by name.

use crate::{
    digest::Digest,
    permit::Permit,
    refusal::{Code, Refusal},
};

/// A version of a permit that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The permit's id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// Its digest.
    pub digest: Digest,
    /// The study that it belongs to.
    pub study_id: String,
}

/// That the permit `new`, with this digest, follows the versions that were `seen`; it again is fine. `named` is the
/// permit of the digest that it supersedes, when that was seen.
///
/// # Errors
/// `older_document` for a version that is older than one seen, or another of the same number; `supersession` when it
/// names another predecessor than the version before it.
pub fn check(new: &Permit, digest: Digest, seen: &[Version], named: Option<&Version>) -> Result<(), Refusal> {
    let refuse = |code, detail: String| Err(Refusal::new(code, detail));
    let (id, number) = (&new.id, new.version);
    if seen.iter().any(|v| v.digest == digest) {
        return Ok(());
    }
    if seen.iter().any(|v| v.version == number) {
        return refuse(Code::OlderDocument, format!("another version {number} of permit {id} was seen first"));
    }
    let newest = seen.iter().max_by_key(|v| v.version);
    if let Some(newest) = newest.filter(|v| v.version > number) {
        return refuse(
            Code::OlderDocument,
            format!("version {number} of permit {id} is older than version {}, which was seen", newest.version),
        );
    }
    let Some(supersedes) = new.supersedes else {
        return match number {
            1 => Ok(()),
            _ => refuse(Code::Supersession, format!("version {number} of permit {id} names no version before it")),
        };
    };
    if number <= 1 {
        return refuse(Code::Supersession, format!("the first version of permit {id} supersedes nothing"));
    }
    if let Some(other) = named.filter(|v| v.id != *id || v.version.checked_add(1) != Some(number)) {
        let detail = format!(
            "version {number} of permit {id} supersedes version {} of permit {}, not the version before it",
            other.version, other.id
        );
        return refuse(Code::Supersession, detail);
    }
    let Some(newest) = newest else { return Ok(()) };
    if newest.version.checked_add(1) == Some(number) && newest.digest != supersedes {
        let detail = format!(
            "version {number} of permit {id} supersedes {}, but version {} is {}",
            supersedes.short(),
            newest.version,
            newest.digest.short()
        );
        return refuse(Code::Supersession, detail);
    }
    if newest.study_id != new.study_id {
        let detail = format!(
            "version {number} of permit {id} belongs to study {}, the one before to {}: spending would begin anew",
            new.study_id, newest.study_id
        );
        return refuse(Code::Supersession, detail);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A permit with this id and version.
    pub(crate) fn permit(id: &str, version: u32, supersedes: Option<Digest>) -> Permit {
        let permit = json!({
            "id": id, "version": version, "supersedes": supersedes, "basis": "JP-ethics", "issuer": "committee",
            "decision": {"date": "2025-06-01", "reasons": "good"}, "purposes": ["scientific_research"],
            "data_user": "university", "principal_investigator": "x",
            "authorised_persons": [{"id": "x", "role": "analyst", "key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
                "key_fingerprint": "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"}],
            "study_id": "study-1", "schema": Digest::of(b"schema"),
            "data": [{"table": "visit", "columns": ["age"], "holder_nodes": ["tokyo"]}],
            "allowed_statistics": ["count"], "release_kinds": ["noised"], "disclosure": "jp-ndb",
            "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1,
                "micro_rho_per_query": 10, "micro_rho_total": 100, "delta_for_reports": "1e-6"},
            "optout": {"rule": "jp-ngmia", "days": 30},
            "validity": {"from": "2025-06-01T00:00:00Z", "to": "2026-06-01T00:00:00Z"},
        });
        serde_json::from_value(permit).unwrap()
    }

    fn version(id: &str, version: u32, mark: &str) -> Version {
        Version { id: id.into(), version, digest: Digest::of(mark.as_bytes()), study_id: "study-1".into() }
    }

    #[test]
    fn a_version_names_the_one_before_it_and_goes_on_with_its_study() {
        use Code::{OlderDocument, Supersession};
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let seen = [version("p", 1, "a"), version("p", 2, "b")];
        let elsewhere = version("q", 1, "other");
        let moved = Permit { study_id: "study-2".into(), ..permit("p", 3, Some(b)) };
        for (fact, new, seen, expect) in [
            ("the first", permit("p", 1, None), &[][..], Ok(())),
            ("the first, of something", permit("p", 1, Some(a)), &[], Err(Supersession)),
            ("a later one that nobody has seen the start of", permit("p", 3, Some(a)), &[], Ok(())),
            ("a later one of nothing", permit("p", 3, None), &[], Err(Supersession)),
            ("the next", permit("p", 3, Some(b)), &seen, Ok(())),
            ("the next, of the one before the last", permit("p", 3, Some(a)), &seen, Err(Supersession)),
            ("the next, of another permit", permit("p", 3, Some(elsewhere.digest)), &seen, Err(Supersession)),
            ("the next, of one not seen", permit("p", 3, Some(Digest::of(b"?"))), &seen, Err(Supersession)),
            ("the next, of nothing", permit("p", 3, None), &seen, Err(Supersession)),
            ("one after a version that was not seen", permit("p", 4, Some(Digest::of(b"c"))), &seen, Ok(())),
            ("one after a gap, of the wrong one", permit("p", 4, Some(b)), &seen, Err(Supersession)),
            ("one in another study", moved, &seen, Err(Supersession)),
            ("another of a known number", permit("p", 2, Some(a)), &seen, Err(OlderDocument)),
            ("an older one", permit("p", 1, None), &seen[1..], Err(OlderDocument)),
        ] {
            let all = seen.iter().chain([&elsewhere]);
            let named = all.clone().find(|v| Some(v.digest) == new.supersedes);
            let said = check(&new, Digest::of(b"new"), seen, named).map_err(|refusal| refusal.code);
            assert_eq!(said, expect, "{fact}");
        }
        assert!(check(&permit("p", 2, Some(a)), b, &seen, None).is_ok(), "the same again is fine");
    }

    proptest! {
        #[test]
        fn no_order_of_offers_lets_an_older_version_in(
            offers in prop::collection::vec((1_u32..8, 0_u8..3, prop::option::of((1_u32..8, 0_u8..3))), 1..40),
        ) {
            let digest = |version: u32, rival: u8| Digest::of(&[version as u8, rival]);
            let mut seen: Vec<Version> = Vec::new();
            for (number, rival, supersedes) in offers {
                let new = permit("p", number, supersedes.map(|(version, rival)| digest(version, rival)));
                let named = seen.iter().find(|v| Some(v.digest) == new.supersedes);
                let known = seen.iter().any(|v| v.digest == digest(number, rival));
                let newest = seen.iter().map(|v| v.version).max().unwrap_or(0);
                let taken = check(&new, digest(number, rival), &seen, named).is_ok();
                prop_assert!(!taken || known || number > newest, "{} after {}", number, newest);
                if taken && !known {
                    let before = seen.iter().find(|v| v.version + 1 == number);
                    prop_assert!(before.is_none_or(|v| new.supersedes == Some(v.digest)));
                    let (id, study_id) = ("p".into(), "study-1".into());
                    seen.push(Version { id, version: number, digest: digest(number, rival), study_id });
                }
            }
        }
    }
}
