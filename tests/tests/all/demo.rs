//! The README's first command, smaller: it fails unless every interval holds its truth.

use sekisho_sim::demo::{self, Demo};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well() {
    let demo = Demo { dir: None, keep: false, quic: false, seed: 7, patients: 5_000 };
    demo::run(&demo, crate::launcher(), crate::now()).await.unwrap();
}
