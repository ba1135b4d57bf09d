//! A lost log is written off: what it charged is charged again, once, and its runs are never run again.

use std::collections::BTreeMap;

use sekisho_protocol::{
    dsse::Envelope,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        merkle::TreeHead,
    },
    receipt::Receipt,
    record::{WriteOff, WrittenOff},
};

use super::*;

/// The receipt of the run that `request` asked for.
pub(super) fn recovered(request: &ChargeRequest, key: &SecretKey) -> Recovered {
    let receipt = Receipt {
        node: "tokyo".into(),
        permit: request.key.permit,
        study_id: request.study_id.clone(),
        query: request.query,
        query_key: request.key.query_key,
        run: request.key.run,
        plan: Digest::of(b"plan"),
        micro_rho: request.cost.micro_rho,
        atto_delta: request.cost.atto_delta,
        synthetic: false,
        snapshot_commitment: Digest::of(b"snapshot"),
        register_commitment: Digest::of(b"register"),
        as_of: request.as_of,
        release: Digest::of(b"release"),
        software: "test".into(),
        at: request.at,
        release_kind: sekisho_protocol::permit::ReleaseKind::Noised,
        exact_since: None,
    };
    let envelope = Envelope::sign(&receipt, &[key]).unwrap().to_json();
    Recovered { receipt, envelope }
}

#[tokio::test]
async fn what_a_lost_log_charged_is_charged_again_once_and_never_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(50)).await.unwrap();
    let key = SecretKey::generate(&mut ChaCha12Rng::seed_from_u64(1));
    let (here, between, lost, unknown) =
        (request("a", 1, 1, 10), request("a", 2, 1, 10), request("a", 3, 1, 10), request("b", 1, 1, 7));
    let (_, run) = reserve(&ledger, &here).await.unwrap();
    ledger.complete(run.charge_id, &release(), &sealed()).await.unwrap();
    // Charged in the copy, and released only after it was made.
    let _ = reserve(&ledger, &between).await.unwrap();

    let head = TreeHead::new(9, Digest::of(b"root")).unwrap();
    let checkpoint = Checkpoint::new("sekisho-0/tokyo".parse().unwrap(), head);
    let checkpoint = SignedCheckpoint::sign(checkpoint, &key).unwrap();
    let receipts: Vec<_> = [&here, &between, &lost, &lost, &unknown].map(|r| recovered(r, &key)).into();
    let further = BTreeMap::from([("a".to_string(), rho(5)), ("c".to_string(), MicroRho::ZERO)]);
    let loss = Loss {
        node: "tokyo",
        lost: &checkpoint,
        receipts: &receipts,
        further: &further,
        by: "sato",
        reason: "the disk failed",
        at: at(9),
    };
    let sign = |written: &WriteOff| Envelope::sign(written, &[&key]).map(|envelope| envelope.to_json());
    let written = ledger.write_off(&loss, sign).await.unwrap();
    let study = |study_id: &str, receipts, micro_rho, further| WrittenOff {
        study_id: study_id.into(),
        receipts,
        micro_rho: rho(micro_rho),
        atto_delta: AttoDelta::ZERO,
        further_micro_rho: rho(further),
    };
    assert_eq!(written.studies, [study("a", 2, 10, 5), study("b", 1, 7, 0)]);
    assert_eq!((written.log.as_str(), written.kept), ("sekisho-0/tokyo/2", 3));

    let budget = ledger.budget().await.unwrap();
    let spent: Vec<_> = budget.studies.iter().map(|s| (s.study_id.as_str(), s.spent.get(), s.earmark.get())).collect();
    assert_eq!(spent, [("a", 35, 50), ("b", 7, 7)]);
    for (request, expect) in [(&here, "ok"), (&between, "lost"), (&lost, "lost"), (&unknown, "lost")] {
        // A message of its own, as whoever asks again sends it.
        let again = ChargeRequest { nonce: format!("again {}", request.nonce), ..request.clone() };
        assert_eq!(told(reserve(&ledger, &again).await), expect, "{:?}", request.key);
    }
    assert_eq!(ledger.budget().await.unwrap(), budget, "asking again costs nothing");
    assert_eq!(ledger.snapshots().await.unwrap().len(), 1, "a lost run is bound to no snapshot");

    // The same again: the receipts are known, and what is stated beside them is charged beside them.
    let again = SignedCheckpoint::sign(Checkpoint::new("sekisho-0/tokyo/2".parse().unwrap(), head), &key).unwrap();
    let written = ledger.write_off(&Loss { lost: &again, ..loss.clone() }, sign).await.unwrap();
    assert_eq!((written.studies, written.log.as_str()), (vec![study("a", 0, 0, 5)], "sekisho-0/tokyo/3"));
    let earlier = ledger.write_off(&loss, sign).await;
    assert!(earlier.is_err(), "a log keeps its later name");
    assert_eq!(ledger.budget().await.unwrap().spent, rho(47), "and nothing else was changed");
    assert_eq!(ledger.log().audit(|_| {}).await.unwrap().head.size(), ledger.log().len().await.unwrap());
}
