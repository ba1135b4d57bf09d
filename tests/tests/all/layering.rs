//! The dependency rule: who may depend on whom, over `cargo metadata`.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// The direct dependencies of each crate of the workspace: names, without those for development, and for the optional
/// ones whether a feature has to turn them on.
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = |package: &Value| {
        let direct = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let direct = direct.map(|d| (d["name"].as_str().unwrap().to_string(), d["optional"].as_bool().unwrap()));
        (package["name"].as_str().unwrap().to_string(), direct.collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn each_crate_depends_on_what_its_place_allows() {
    let all = dependencies();
    let ours = |name: &str| {
        let direct = all[name].iter().map(|(d, _)| d.as_str()).filter(|d| d.starts_with("sekisho"));
        direct.collect::<Vec<_>>()
    };
    for (name, may) in [
        ("sekisho-protocol", &[][..]),
        ("sekisho-aggregation", &["sekisho-protocol"]),
        ("sekisho-node-config", &["sekisho-protocol", "sekisho-aggregation"]),
        ("sekisho-node", &["sekisho-protocol", "sekisho-aggregation", "sekisho-node-config"]),
        ("sekisho-coordinator", &["sekisho-protocol", "sekisho-aggregation"]),
    ] {
        let others: Vec<_> = ours(name).into_iter().filter(|d| !may.contains(d)).collect();
        assert!(others.is_empty(), "{name} may not depend on {others:?}");
    }
    for (name, direct) in &all {
        let wrong = direct.iter().any(|(d, _)| d == "sekisho-tests" || (d == "sekisho-sim" && name != "sekisho-tests"));
        assert!(!wrong, "{name} depends on tests or simulations");
    }
}

#[test]
fn what_decides_and_what_is_signed_has_no_network_disk_or_engine() {
    let all = dependencies();
    let barred = ["tokio", "libp2p", "tonic", "sqlx", "datafusion", "arrow-flight", "hyper-util"];
    for (name, only_by_feature) in [("sekisho-aggregation", false), ("sekisho-protocol", true)] {
        for (dependency, optional) in &all[name] {
            let excused = only_by_feature && *optional;
            assert!(excused || !barred.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn only_the_node_runs_an_engine_on_rows() {
    // The coordinator has DataFusion for released cells, and writes them as Parquet; it has no way to a snapshot.
    let all = dependencies();
    assert!(all["sekisho-node"].iter().any(|(d, _)| d == "datafusion"));
    assert!(!all["sekisho-coordinator"].iter().any(|(d, _)| d == "sekisho-node"));
}
