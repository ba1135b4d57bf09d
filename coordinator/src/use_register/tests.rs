//! The register of one record, in both languages, against files of the repository; and hostile texts.

use sekisho_protocol::{
    application::Applicant,
    decision::Outcome,
    permit::{AllowedQuery, Basis, OutputReview, Purpose, ReleaseKind},
    publication::Published,
    purpose::DeclaredPurpose,
    query::{Query, Terms},
    refusal::Code,
    status::RevokedPermit,
    units::{AttoDelta, MicroRho},
};

use super::*;
use crate::{
    documents::tests::{key, now, permit, status},
    metering::tests::header,
    person::register::{Lang, csv, json},
};

/// A text that breaks out of whatever is not careful.
pub(crate) const HOSTILE: &str = "</script><img src=x onerror=alert(1)> \"q\" & 'a',\n=1+1\u{202e}";

fn at(hour: i64) -> DateTime<Utc> {
    now() + chrono::Duration::hours(hour)
}

fn dated<D>(document: D, name: &str) -> Dated<D> {
    Dated {
        document,
        digest: Digest::of(name.as_bytes()),
        put_at: now(),
        signers: Vec::new(),
        roles: vec!["ethicist".into(), "patient".into()],
    }
}

fn round(name: &str, sql: &str, run: u32, hour: i64, holders: &[(&str, Option<Code>)]) -> RoundPart {
    let (permit, key) = (Digest::of(b"permit"), Digest::of(sql.as_bytes()));
    let query = Query {
        permit,
        sql: sql.into(),
        holders: holders.iter().map(|(name, _)| (*name).into()).collect(),
        micro_rho: MicroRho::try_from(1000).unwrap(),
        run,
        expires: at(hour + 1),
        nonce: "0".repeat(32),
        terms: Terms::default(),
    };
    let receipt = |node: &str| Receipt {
        node: node.into(),
        permit,
        study_id: "study-1".into(),
        query: key,
        query_key: key,
        run,
        plan: key,
        micro_rho: query.micro_rho,
        atto_delta: AttoDelta::ZERO,
        synthetic: false,
        snapshot_commitment: key,
        register_commitment: key,
        as_of: now().date_naive(),
        release: Digest::of(node.as_bytes()),
        software: "sekisho-node 0.1.0".into(),
        at: at(1),
        release_kind: ReleaseKind::Noised,
        exact_since: None,
    };
    let answered = holders.iter().filter(|(_, code)| code.is_none()).map(|(node, _)| KeptRelease {
        round: name.into(),
        node: (*node).into(),
        header: header(permit, &[&[("rows", 3)]]),
        cells: Vec::new(),
        receipt: Envelope::sign(&receipt(node), &[]).unwrap().to_json(),
    });
    let states: Vec<_> = holders
        .iter()
        .map(|(name, code)| match code {
            None => serde_json::json!({"name": name, "state": "answered"}),
            Some(code) => serde_json::json!({"name": name, "state": "refused", "code": code, "detail": HOSTILE}),
        })
        .collect();
    let report = serde_json::json!({
        "round": name, "permit": permit, "query": key, "run": run, "at": at(hour), "complete": false,
        "confidence": 0.95, "preset": "jp-ndb", "synthetic": false, "method": "weighted means", "suppressed_cells": 2,
        "privacy": {"micro_rho": 1000, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
            "epsilon_all_sites": 0.1, "noise": []},
        "holders": states,
    });
    let round = KeptRound {
        round: name.into(),
        query: Digest::of(name.as_bytes()),
        query_key: key,
        permit,
        run,
        state: RoundState::Done(report.to_string()),
        started: at(hour),
        question: Some(Envelope::sign(&query, &[]).unwrap().to_json()),
    };
    RoundPart { round, releases: answered.collect(), review: None }
}

/// A use that was granted and revoked, one that was refused, one that is under review.
pub(crate) fn record() -> Parts {
    let person = key();
    let mut granted = permit(&person, 1, Digest::of(b"schema"));
    granted.application_id = Some("application-1".into());
    granted.output_review = OutputReview::TwoPerson;
    granted.data_user = "京都大学".into();
    granted.country = Some("JP".into());
    granted.decision.reasons = HOSTILE.into();
    granted.conditions = vec!["Results are published in both languages.".into()];
    granted.results_due = Some(now().date_naive());
    granted.data[0].holder_nodes = vec!["nara".into(), "tokyo".into(), "osaka".into(), "uji".into()];
    let answer = |node: &str, refused| Acceptance {
        node: node.into(),
        permit: Digest::of(b"permit"),
        refused,
        earmark: MicroRho::ZERO,
        at: at(1),
        reason: refused.map(|_| HOSTILE.into()),
        decided_by: sekisho_protocol::receipt::DecidedBy::Policy,
    };
    let (sql, refuses) = ("SELECT sex, count(*) FROM person GROUP BY sex", Some(Code::Policy));
    let mut first = round("r1", sql, 1, 2, &[("nara", refuses), ("tokyo", None)]);
    let mut again = round("r2", sql, 1, 3, &[("nara", refuses), ("tokyo", None)]);
    let said = |role: &str, verdict| (role.to_string(), verdict, at(4));
    for part in [&mut first, &mut again] {
        let said = vec![said("ethicist", Verdict::Release), said("lawyer", Verdict::Release)];
        part.review = Some(Review { standing: Standing::Released, said });
    }
    let mut waits = round("r3", sql, 2, 5, &[("nara", None), ("tokyo", None)]);
    waits.review = Some(Review { standing: Standing::Awaiting, said: vec![said("ethicist", Verdict::Release)] });
    let exact = "SELECT count(*) FROM person";
    let nothing = round("r4", exact, 1, 6, &[("nara", refuses), ("uji", Some(Code::ExactWaiting))]);
    let listed = |sql: &str, release| AllowedQuery { sha256: Digest::of(sql.as_bytes()), max_runs: 2, release };
    granted.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
    granted.allowed_queries = Some(vec![listed(sql, ReleaseKind::Noised), listed(exact, ReleaseKind::Aggregated)]);
    let applied = |id: &str, purposes: Vec<Purpose>| -> Application {
        let mut application: Application =
            serde_json::from_value(serde_json::json!({"id": id, "version": 1, "basis": "EHDS-69"})).unwrap();
        application.applicant =
            Applicant { name: "Institute of <b>Health</b>".into(), country: "NL".into(), ..Applicant::default() };
        application.principal_investigator = "Ada Person".into();
        application.study_id = format!("study-of-{id}");
        application.purposes = purposes.into_iter().map(DeclaredPurpose::Permissible).collect();
        application.use_description = "Waiting times by region.".into();
        application.basis = Basis::Ehds69;
        application
    };
    let refusal = RefusedApplication {
        application: "application-2".into(),
        version: 1,
        digest: Digest::of(b"application-2"),
        basis: Basis::Ehds69,
        outcome: Outcome::Refused,
        reasons: "The purpose does not need these data.".into(),
        date: now().date_naive(),
        recused: Vec::new(),
    };
    let results = Publication {
        what: Published::Results,
        id: "permit-1".into(),
        digest: Digest::of(b"permit"),
        url: "https://example.org/results?a=1&b=2".into(),
        at: at(9),
    };
    let mut status = status(1, None, Vec::new());
    let reason = "misuse".to_string();
    status.revoked_permits.push(RevokedPermit { permit: Digest::of(b"permit"), reason, at: at(8) });
    let permit = PermitPart {
        permit: dated(granted, "permit"),
        counts: true,
        acceptances: vec![
            answer("tokyo", None),
            answer("nara", Some(Code::Policy)),
            answer("osaka", Some(Code::PermitWaiting)),
        ],
        rounds: vec![first, again, waits, nothing],
    };
    Parts {
        applications: vec![
            dated(applied("application-1", vec![Purpose::PublicHealth]), "application-1"),
            dated(applied("application-2", vec![Purpose::Education, Purpose::ImprovingCare]), "application-2"),
            dated(applied("application-3", vec![Purpose::ScientificResearch]), "application-3"),
        ],
        refusals: vec![dated(refusal, "refusal")],
        publications: vec![results],
        permits: vec![permit],
        status: Some(status),
        exact_since: BTreeMap::from([("tokyo".into(), at(7).date_naive())]),
    }
}

/// The register of [`record`].
pub(crate) fn register() -> UseRegister {
    UseRegister { software: "sekisho-coordinator".into(), ..build::register(&record(), at(10)).unwrap() }
}

#[test]
fn the_register_of_a_record_is_as_reviewed_in_japanese_and_english() {
    for (lang, golden, name) in [
        (Lang::Ja, include_str!("golden.ja.json"), "golden.ja.json"),
        (Lang::En, include_str!("golden.en.json"), "golden.en.json"),
    ] {
        let text = json(&register(), Some(lang)).unwrap();
        if text != golden.trim_end() {
            let made = std::env::temp_dir().join(name);
            std::fs::write(&made, &text).unwrap();
            panic!("the register differs from {name}; when it should, copy {} there", made.display());
        }
    }
}

#[test]
fn each_use_stands_where_its_documents_say() {
    let register = register();
    let states: Vec<_> = register.uses.iter().map(|u| (u.id.as_str(), u.state.code.as_str())).collect();
    assert_eq!(states, [("application-1", "revoked"), ("application-2", "refused"), ("application-3", "under_review")]);
    let granted = &register.uses[0];
    let answers: Vec<_> =
        granted.holders.iter().map(|h| (h.name.as_str(), h.answer.code.as_str(), h.micro_rho)).collect();
    let expect =
        [("nara", "refused", 1000), ("osaka", "waiting", 0), ("tokyo", "accepted", 2000), ("uji", "no_answer", 0)];
    assert_eq!(answers, expect);
    let queries: Vec<_> = granted
        .queries
        .iter()
        .map(|q| (q.run, q.output.code.as_str(), q.micro_rho, q.suppressed_cells, q.answered.len(), q.missing.len()))
        .collect();
    // The second round of run 1 served what the first had paid for.
    let expect = [(1, "released", 1000, Some(2), 1, 1), (2, "awaiting", 2000, None, 2, 0), (1, "none", 0, None, 0, 2)];
    assert_eq!(queries, expect);
    let kinds: Vec<_> =
        granted.queries.iter().map(|q| (q.release_kind.as_ref().unwrap().code.as_str(), q.is_exact())).collect();
    assert_eq!(kinds, [("noised", false), ("noised", false), ("aggregated", true)]);
    let missing: Vec<_> = granted.queries[2].missing.iter().map(|m| (m.name.as_str(), m.state.code.as_str())).collect();
    assert_eq!(missing, [("nara", "refused"), ("uji", "waiting")], "a person who looks has not refused");
    let since: Vec<_> = granted.holders.iter().filter(|h| h.exact_since.is_some()).map(|h| h.name.as_str()).collect();
    assert_eq!(since, ["tokyo"], "whatever study it was released in");
    assert!(register.uses[2].application.as_ref().unwrap().use_description.is_none(), "not before a decision");
}

#[test]
fn a_permit_stands_where_time_status_and_versions_put_it() {
    let state = |change: &dyn Fn(&mut Parts), hour| {
        let mut parts = record();
        parts.status.as_mut().unwrap().revoked_permits.clear();
        change(&mut parts);
        build::register(&parts, at(hour)).unwrap().uses[0].decisions[0].state.code.clone()
    };
    let month = 30 * 24;
    for (fact, change, hour, expect) in [
        ("nothing", &(|_: &mut Parts| {}) as &dyn Fn(&mut Parts), 0, "in_force"),
        ("its last second", &|_| {}, month, "expired"),
        ("before its first", &|_| {}, -1, "not_yet_valid"),
        ("no quorum", &|p| p.permits[0].counts = false, 0, "without_quorum"),
        ("suspended", &|p| p.status.as_mut().unwrap().suspended_studies.push("study-1".into()), 0, "suspended"),
        ("without a status", &|p| p.status = None, 0, "in_force"),
        (
            "a newer version",
            &|p| {
                let mut newer = record().permits.remove(0);
                newer.permit.document.version = 2;
                p.permits.push(newer);
            },
            0,
            "superseded",
        ),
    ] {
        assert_eq!(state(change, hour), expect, "{fact}");
    }
}

#[test]
fn hostile_texts_stay_texts_and_persons_are_not_named() {
    let register = register();
    let both = json(&register, None).unwrap();
    assert!(!both.contains(['<', '>', '&']), "a page may hold it");
    let back: UseRegister = serde_json::from_str(&both).unwrap();
    assert_eq!(back, register, "nothing is lost by that");
    assert_eq!(back.uses[0].decisions[0].reasons, HOSTILE);
    for lang in [Lang::Ja, Lang::En] {
        let text = json(&register, Some(lang)).unwrap();
        assert!(!text.contains("\"ja\": {") && !text.contains("\"en\":"), "one language");
        for person in ["Ada Person", "a person", "p1"] {
            assert!(!text.contains(person), "{person}");
        }
    }
    let csv = csv(&register, Lang::Ja);
    // One line for the header and each use, and one for the line end inside the hostile text.
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(csv.starts_with("番号,研究,"), "{csv}");
    assert!(csv.contains("\"\"q\"\""), "{csv}");
}
