//! The story of one study, as `sekisho-sim demo --story governance` plays it: it fails when a step does not end as it must.

use sekisho_sim::governance::{self, Governance};

#[tokio::test(flavor = "multi_thread")]
async fn a_study_goes_from_the_catalogue_to_the_register_and_is_stopped_by_whoever_may() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Governance { dir: Some(dir.path().into()), seed: 7, patients: 3_000 };
    governance::run(&plan, crate::launcher(), crate::now()).await.unwrap();
}
