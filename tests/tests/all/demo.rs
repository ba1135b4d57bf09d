//! The README's first command, smaller: it fails unless every interval holds its truth, and it leaves no identifier.

use sekisho_sim::demo::{self, Demo};

use crate::leaks;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well_and_no_planted_identifier_is_in_what_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo { dir: Some(dir.path().into()), keep: false, quic: false, seed: 7, patients: 5_000 };
    demo::run(&demo, crate::launcher(), crate::now()).await.unwrap();
    let hospitals: Vec<String> = (1..=5).map(|i| format!("hospital-{i}")).collect();
    let ids = leaks::ids(&dir.path().join("hospitals"), &hospitals, 25);
    let searched = leaks::search(&dir.path().join("network"), &hospitals, &ids).await;
    assert!(searched.iter().any(|file| file.starts_with(dir.path().join("network/receipts"))), "{searched:?}");
}
