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

/// Every source file under `folder`, with its text.
fn sources(folder: &std::path::Path, found: &mut Vec<(std::path::PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn exact_cells_are_inspected_by_one_command_alone() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = Vec::new();
    for package in ["protocol", "node-config", "node", "coordinator", "simulations"] {
        sources(&root.join(package).join("src"), &mut all);
    }
    // How code outside `aggregation` would come to an inspection.
    let ways = ["inspection::", "Inspection", "Inspecting"];
    let mut users: Vec<_> = all
        .iter()
        .filter(|(_, text)| ways.iter().any(|way| text.contains(way)))
        .map(|(path, _)| path.strip_prefix(root).unwrap().display().to_string())
        .collect();
    users.sort();
    assert_eq!(
        users,
        [
            "node/src/cli/inspect.rs",
            "node/src/cli/inspect/screen.rs",
            "node/src/inspect.rs",
            "node/src/inspect/links.rs"
        ]
    );
}

/// A name of a test as the pages write it, between backticks: lower case, and several words.
fn is_fact(name: &str) -> bool {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    letters && name.matches('_').count() >= 4
}

#[test]
fn each_test_that_the_pages_name_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = Vec::new();
    for package in ["protocol", "aggregation", "node-config", "node", "coordinator", "simulations", "tests"] {
        sources(&root.join(package), &mut all);
    }
    for page in ["ARCHITECTURE.md", "docs/attacks.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        // Every second piece stands between backticks.
        let named: Vec<_> = text.split('`').skip(1).step_by(2).filter(|name| is_fact(name)).collect();
        assert!(named.len() > 20, "{page} names its tests");
        let lost: Vec<_> = named
            .into_iter()
            .filter(|name| !all.iter().any(|(_, text)| text.contains(&format!("fn {name}("))))
            .collect();
        assert!(lost.is_empty(), "{page} names tests that are not there: {lost:?}");
    }
}
