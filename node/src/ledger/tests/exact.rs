//! The history of exact releases: nothing of it is changed, and what was lost is not forgotten.

use chrono::Days;
use sekisho_aggregation::exact::Cohort;
use sekisho_protocol::permit::ReleaseKind;

use super::*;
use crate::exact::guard::{Candidate, Close};

/// So many patients from `first` on.
fn cohort(first: u64, patients: u64) -> Cohort {
    let bytes: Vec<u8> = (first..first + patients).flat_map(u64::to_le_bytes).collect();
    Cohort::from_bytes(&bytes).unwrap()
}

fn candidate<'a>(cohort: &'a Cohort, key: &[u8]) -> Candidate<'a> {
    let cut = at(0).date_naive();
    Candidate { sql: Digest::of(key), cut, min_patients: 10, cohort, key: Digest::of(key) }
}

/// Asks for run `run` of an exact question, and lets it out.
async fn release_exact(ledger: &Ledger, run: u32, cohort: &Cohort, key: &[u8]) -> Result<Recorded, LedgerError> {
    let request = request("a", 1, run, 0);
    let new = NewRequest {
        key: request.key,
        study_id: "a",
        query: request.query,
        envelope: b"query",
        nonce: &request.nonce,
        nonce_expires: request.nonce_expires,
        at: request.at,
    };
    assert_eq!(ledger.request_exact(&new).await.unwrap(), None);
    let number = ledger.exact_requests(true).await.unwrap()[0].request;
    let new = NewRelease {
        request: number,
        charge: &request,
        candidate: candidate(cohort, key),
        who: "mori",
        said: Said { by: COMMAND_LINE, reason: "checked", at: at(1) },
        reservation: b"reservation",
        refusal: b"refusal",
    };
    ledger.record_exact(&new).await
}

#[tokio::test]
async fn what_was_released_exactly_is_never_changed_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", MicroRho::ZERO).await.unwrap();
    let Ok(Recorded::New(run)) = release_exact(&ledger, 1, &cohort(0, 30), b"key").await else {
        panic!("not recorded")
    };
    ledger.complete(run.charge_id, &release(), &sealed()).await.unwrap();
    assert_eq!((run.micro_rho, ledger.budget().await.unwrap().spent), (MicroRho::ZERO, MicroRho::ZERO));
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("node.db"));
    let tamper = sqlx::SqlitePool::connect_with(options).await.unwrap();
    for statement in [
        "UPDATE exact_request SET study_id = 'b'",
        "DELETE FROM exact_request",
        "INSERT OR REPLACE INTO exact_request SELECT request, permit, query_key, run, 'b', query, envelope, at FROM exact_request",
        "UPDATE exact_decision SET decision = 'refused'",
        "DELETE FROM exact_decision",
        "INSERT OR REPLACE INTO exact_decision SELECT request, 'refused', who, reason, at FROM exact_decision",
        "UPDATE exact_release SET cut = ''",
        "DELETE FROM exact_release",
        "INSERT OR REPLACE INTO exact_release SELECT release, permit, query_key, run, study_id, sql, '', 0, at FROM exact_release",
        "UPDATE cohort SET patients = x''",
        "DELETE FROM cohort",
        "INSERT OR REPLACE INTO cohort SELECT release, key, x'' FROM cohort",
        "UPDATE exact_since SET day = '2999-01-01'",
        "DELETE FROM exact_since",
        "INSERT INTO charge SELECT 2, permit, query_key, 2, study_id, query, 0, 0, register_seq, as_of, snapshot, charged_at FROM charge",
    ] {
        assert!(sqlx::query(statement).execute(&tamper).await.is_err(), "{statement}");
    }
}

#[tokio::test]
async fn cohorts_under_another_key_are_not_compared_and_nothing_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", MicroRho::ZERO).await.unwrap();
    assert!(matches!(release_exact(&ledger, 1, &cohort(0, 30), b"key").await, Ok(Recorded::New(_))));
    let other = release_exact(&ledger, 2, &cohort(100, 30), b"another key").await;
    assert!(matches!(other, Err(LedgerError::OtherCohorts { .. })));
    assert_eq!(ledger.exact_requests(true).await.unwrap().len(), 2, "one is not made, and one waits");
}

#[tokio::test]
async fn an_exact_release_that_was_lost_is_remembered_and_nothing_passes_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    let key = sekisho_protocol::keys::SecretKey::generate(&mut ChaCha12Rng::seed_from_u64(1));
    let head = sekisho_protocol::log::merkle::TreeHead::new(9, Digest::of(b"root")).unwrap();
    let day = at(0).date_naive();
    let before = day - Days::new(30);
    let receipts = [("a", 0, ReleaseKind::Aggregated, Some(day)), ("b", 7, ReleaseKind::Noised, Some(before))];
    let receipts: Vec<_> = receipts
        .map(|(study, micro_rho, kind, since)| {
            let mut recovered = write_off::recovered(&request(study, 1, 1, micro_rho), &key);
            (recovered.receipt.release_kind, recovered.receipt.exact_since) = (kind, since);
            recovered
        })
        .into();
    let checkpoint = sekisho_protocol::log::checkpoint::Checkpoint::new("sekisho-0/tokyo".parse().unwrap(), head);
    let checkpoint = sekisho_protocol::log::checkpoint::SignedCheckpoint::sign(checkpoint, &key).unwrap();
    let loss = Loss {
        node: "tokyo",
        lost: &checkpoint,
        receipts: &receipts,
        further: &Default::default(),
        by: "sato",
        reason: "the disk failed",
        at: at(9),
    };
    let sign =
        |written: &_| sekisho_protocol::dsse::Envelope::sign(written, &[&key]).map(|envelope| envelope.to_json());
    ledger.write_off(&loss, sign).await.unwrap();
    assert_eq!(ledger.exact_since().await.unwrap(), Some(before));
    let lost = ledger.find(&request("a", 1, 1, 0).key).await.unwrap().unwrap();
    assert_eq!((lost.state, lost.micro_rho), (RunState::Lost, MicroRho::ZERO));
    let close = ledger.exact_verdict(&candidate(&cohort(0, 30), b"key")).await.unwrap();
    assert!(matches!(close, Some(Close::Lost(_))));
}
