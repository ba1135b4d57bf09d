use chrono::Duration;
use sekisho_protocol::{committee::CommitteeMember, keys::SecretKey, units::MicroRho};

use super::*;

fn at(hour: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap() + Duration::hours(hour)
}

/// Status `seq` after `prev`, which expires at `hour`; `mark` makes its bytes different.
fn status(seq: u64, prev: Option<Digest>, hour: i64, mark: &str) -> Status {
    Status {
        seq,
        prev,
        issued: at(0),
        expires: at(hour),
        revoked_permits: Vec::new(),
        permit_versions: Vec::new(),
        suspended_studies: vec![mark.into()],
        void_keys: Vec::new(),
    }
}

fn signed<D: Document>(document: &D, key: &SecretKey) -> (Vec<u8>, Digest) {
    let envelope = Envelope::sign(document, &[key]).unwrap();
    (envelope.to_json(), envelope.peek::<D>().unwrap().1)
}

fn anchors(key: &SecretKey) -> Anchors {
    let member = CommitteeMember { name: "m".into(), role: "ethics".into(), key: key.public() };
    let committee = Committee::pinned(1, Vec::new(), false, vec![member]).unwrap();
    Anchors { governance: key.public(), committee, regulators: Vec::new() }
}

async fn open(dir: &tempfile::TempDir, key: &SecretKey) -> Documents {
    Documents::new(Store::open(&dir.path().join("node.db")).await.unwrap(), anchors(key))
}

fn code<T>(result: Result<T, Refusal>) -> String {
    result.err().map_or("ok".into(), |r| r.code.to_string())
}

#[tokio::test]
async fn only_a_newer_document_that_follows_replaces_the_pinned_one() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate(&mut rand::rng());
    let documents = open(&dir, &key).await;
    let (five, five_is) = signed(&status(5, None, 24, "a"), &key);
    let other = Some(Digest::of(b"other"));
    for (offered, expect, pinned) in [
        (signed(&status(5, None, 0, "a"), &key).0, "stale_status", 0),
        (signed(&status(5, None, 24, "a"), &SecretKey::generate(&mut rand::rng())).0, "quorum_not_met", 0),
        (b"nonsense".to_vec(), "malformed", 0),
        (five.clone(), "ok", 5),
        (five.clone(), "ok", 5),
        (signed(&status(5, None, 24, "b"), &key).0, "older_document", 5),
        (signed(&status(4, None, 24, "a"), &key).0, "older_document", 5),
        (signed(&status(6, other, 24, "a"), &key).0, "older_document", 5),
        (signed(&status(6, None, 24, "a"), &key).0, "older_document", 5),
        (signed(&status(6, Some(five_is), 24, "a"), &key).0, "ok", 6),
        (five, "older_document", 6),
        (signed(&status(9, other, 24, "a"), &key).0, "ok", 9),
        (signed(&status(u64::MAX, other, 24, "a"), &key).0, "malformed", 9),
    ] {
        assert_eq!(code(documents.offer_status(&offered, at(0)).await), expect);
        let seqs = documents.seqs().await.unwrap();
        assert_eq!((seqs.roster, seqs.status), (0, pinned));
    }
}

#[tokio::test]
async fn a_document_is_in_force_until_its_last_second_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate(&mut rand::rng());
    let documents = open(&dir, &key).await;
    assert_eq!(code(documents.roster(at(0)).await), "stale_roster");
    assert_eq!(code(documents.status(at(0)).await), "stale_status");
    let roster = Roster { seq: 1, prev: None, issued: at(0), expires: at(24), members: Vec::new() };
    let (roster, digest) = signed(&roster, &key);
    documents.offer_roster(&roster, at(0)).await.unwrap();
    documents.offer_status(&signed(&status(1, None, 24, "a"), &key).0, at(0)).await.unwrap();
    documents.store.close().await;
    let documents = open(&dir, &key).await;
    let second = Duration::seconds(1);
    assert_eq!(documents.roster(at(24) - second).await.unwrap().digest(), digest);
    assert_eq!(code(documents.status(at(24) - second).await), "ok");
    assert_eq!(code(documents.roster(at(24)).await), "stale_roster");
    assert_eq!(code(documents.status(at(24)).await), "stale_status");
    documents.store.close().await;
    let other_governance = open(&dir, &SecretKey::generate(&mut rand::rng())).await;
    assert_eq!(code(other_governance.roster(at(0)).await), "stale_roster");
}

#[tokio::test]
async fn the_database_never_goes_back_to_an_older_document() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate(&mut rand::rng());
    let documents = open(&dir, &key).await;
    documents.offer_status(&signed(&status(5, None, 24, "a"), &key).0, at(0)).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("node.db"));
    let tamper = sqlx::SqlitePool::connect_with(options).await.unwrap();
    for statement in [
        "UPDATE pinned SET seq = 4",
        "UPDATE pinned SET envelope = x'00'",
        "UPDATE pinned SET kind = 'roster', seq = 9",
        "DELETE FROM pinned",
        "INSERT OR REPLACE INTO pinned SELECT kind, line, 4, digest, envelope FROM pinned",
        "UPDATE pinned SET line = '1', seq = 9",
    ] {
        assert!(sqlx::query(statement).execute(&tamper).await.is_err(), "{statement}");
    }
}

fn permit(key: &SecretKey) -> Permit {
    let json = serde_json::json!({
        "id": "p-1", "version": 2, "basis": "JP-ethics", "issuer": "committee",
        "decision": {"date": "2025-06-01", "reasons": "good"},
        "purposes": ["scientific_research"], "data_user": "university", "principal_investigator": "x",
        "authorised_persons": [{"id": "x", "role": "analyst", "key": key.public(),
            "key_fingerprint": key.public().fingerprint()}],
        "study_id": "study-1", "schema": Digest::of(b"schema"),
        "data": [{"table": "visit", "columns": ["age"], "holder_nodes": ["tokyo"]}],
        "allowed_statistics": ["count"], "release_kinds": ["noised"], "disclosure": "jp-ndb",
        "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1,
            "micro_rho_per_query": 10, "micro_rho_total": 100, "delta_for_reports": "1e-6"},
        "optout": {"rule": "jp-ngmia", "days": 30},
        "validity": {"from": at(0), "to": at(24)},
    });
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn a_permit_is_kept_with_the_latest_answer_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate(&mut rand::rng());
    let documents = open(&dir, &key).await;
    let envelope = Envelope::sign(&permit(&key), &[&key]).unwrap();
    let verified: Verified<Permit> = envelope.verify(&[key.public()], 1).unwrap();
    let digest = verified.digest();
    assert!(documents.permit(digest).await.unwrap().is_none());
    for (refused, hour) in [(Some(Code::Policy), 1), (None, 2)] {
        let node = "tokyo".to_string();
        let (decided_by, reason) = (DecidedBy::Policy, refused.map(|_| "why".to_string()));
        let (earmark, at) = (MicroRho::ZERO, at(hour));
        let acceptance = Acceptance { node, permit: digest, refused, earmark, at, reason: reason.clone(), decided_by };
        let acceptance = Envelope::sign(&acceptance, &[&key]).unwrap();
        let answer = PermitAnswer { acceptance: acceptance.to_json(), refused, reason: reason.clone() };
        assert!(documents.put_permit(&verified, &envelope.to_json(), &answer, at).await.unwrap());
        let expect = StoredPermit {
            digest,
            id: "p-1".into(),
            version: 2,
            study_id: "study-1".into(),
            envelope: envelope.to_json(),
            acceptance: acceptance.to_json(),
            refused,
            decided_by,
            reason,
            at,
        };
        let found = documents.permit(digest).await.unwrap().unwrap();
        assert_eq!(found, expect);
        assert_eq!(found.refused(), refused);
        assert_eq!(found.envelope().unwrap().to_json(), envelope.to_json());
        assert_eq!(found.acceptance().unwrap().to_json(), acceptance.to_json());
        assert_eq!(documents.permits().await.unwrap(), [expect]);
    }
    assert_eq!(documents.permit_digests().await.unwrap(), [digest]);
}

#[tokio::test]
async fn what_a_person_decided_only_a_person_changes_and_the_coordinator_is_to_ask_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate(&mut rand::rng());
    let documents = open(&dir, &key).await;
    let envelope = Envelope::sign(&permit(&key), &[&key]).unwrap();
    let verified: Verified<Permit> = envelope.verify(&[key.public()], 1).unwrap();
    let digest = verified.digest();
    let (policy, hand) = (DecidedBy::Policy, DecidedBy::Hand);
    for (decided_by, refused, kept, held) in [
        (policy, Some(Code::PermitWaiting), true, true),
        (policy, Some(Code::Policy), true, true),
        (hand, None, true, false),
        (policy, Some(Code::PermitWaiting), false, false),
        (hand, Some(Code::PermitRefused), true, false),
        (policy, None, false, false),
    ] {
        let acceptance = format!("{decided_by:?} {refused:?}").into_bytes();
        let answer = PermitAnswer { acceptance: acceptance.clone(), refused, reason: None };
        match decided_by {
            DecidedBy::Policy => {
                let put = documents.put_permit(&verified, &envelope.to_json(), &answer, at(1)).await.unwrap();
                assert_eq!(put, kept, "{refused:?}");
            }
            DecidedBy::Hand => documents.decide(digest, &answer, "(command line)", at(1)).await.unwrap(),
        }
        let stored = documents.permit(digest).await.unwrap().unwrap();
        assert_eq!(stored.acceptance == acceptance, kept, "{decided_by:?} {refused:?}");
        assert_eq!(documents.permit_digests().await.unwrap().contains(&digest), held, "{decided_by:?} {refused:?}");
    }
    let stored = documents.permit(digest).await.unwrap().unwrap();
    documents.delivered(&StoredPermit { acceptance: b"an older answer".into(), ..stored.clone() }).await.unwrap();
    assert!(documents.permit_digests().await.unwrap().is_empty());
    documents.delivered(&stored).await.unwrap();
    assert_eq!(documents.permit_digests().await.unwrap(), [digest]);
}
