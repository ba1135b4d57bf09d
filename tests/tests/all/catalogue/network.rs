//! Catalogues through a network of processes: published at a hospital, found, compared and exported by a person.

use std::time::{Duration, Instant};

use sekisho_node::catalogue::{Declaration, template};
use sekisho_node::data::mapping::Mapping;
use sekisho_protocol::keys::PublicKey;
use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{SCHEMA, mapping, stays};
use serde_json::Value;

const RHO: u64 = 1_000_000_000;

fn network(dir: &std::path::Path) -> Network {
    let site = |name: &str| {
        let csv = dir.join(format!("{name}.csv"));
        stays(&csv, &(0..200).map(|i| (i, if i % 2 == 0 { "female" } else { "male" }, 50, 3)).collect::<Vec<_>>());
        Site::new(name, mapping("stays", &csv, true))
    };
    let setup = Setup {
        budget: Some((100 * RHO, RHO)),
        ..Setup::new(dir.join("network"), vec![site("hospital-1"), site("hospital-2")], SCHEMA)
    };
    Network::build(&setup, crate::launcher(), &|_| {}).unwrap()
}

/// Writes the declaration of a node, and publishes.
fn published(network: &Network, name: &str, title: &str) {
    let key: PublicKey = network.public_key("governance").unwrap().parse().unwrap();
    let path = network.dir().join("nodes").join(name).join("data/dataset.toml");
    let mapped = Mapping::load(&path, &[key]).unwrap();
    let text = template(&mapped)
        .replace("micro_rho_per_table = 2000", &format!("micro_rho_per_table = {RHO}"))
        .replace("total_micro_rho = 100000", &format!("total_micro_rho = {}", 10 * RHO))
        .replace("Inpatient records", title);
    std::fs::write(Declaration::path_of(&path), text).unwrap();
    let draft = network.node(name, &["catalogue", "draft"]).unwrap();
    assert!(draft.contains("stay"), "{draft}");
    let shown = network.node(name, &["catalogue", "publish"]).unwrap();
    assert!(shown.contains("stay"), "{shown}");
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_catalogue_is_published_found_compared_exported_and_says_who_can_answer() {
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let json = |args: &[&str]| -> Value { serde_json::from_str(&network.sekisho(args).unwrap()).unwrap() };
    assert!(network.sekisho(&["catalogue", "show", "hospital-1"]).is_err(), "nothing is published yet");
    published(&network, "hospital-1", "Records of the first");
    eventually("the coordinator fetches the catalogue", || {
        network.sekisho(&["catalogue", "show", "hospital-1"]).is_ok()
    });
    let shown = json(&["catalogue", "show", "hospital-1", "--output", "json"]);
    let table = &shown["data_sets"][0]["tables"][0];
    let records = table["counts"]["records"]["estimate"].as_i64().unwrap();
    assert!((195..=205).contains(&records), "{table}");
    let text = network.sekisho(&["catalogue", "show", "hospital-1"]).unwrap();
    for part in ["Records of the first", "hospital-1", "stay", "female, male", "± 1", "conforms to"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let hits = json(&["catalogue", "search", "入院", "first", "--output", "json"]);
    assert_eq!(hits[0]["node"], "hospital-1");
    let csv = network.sekisho(&["catalogue", "search", "inpatient", "--output", "csv"]).unwrap();
    assert!(csv.starts_with("hospital,data set,title,found in"), "{csv}");
    // A second one follows, and the first is kept.
    published(&network, "hospital-1", "Records renamed");
    eventually("the second catalogue", || json(&["catalogue", "show", "hospital-1", "--output", "json"])["seq"] == 2);
    let changes = network.sekisho(&["catalogue", "diff", "hospital-1", "--from", "1", "--to", "2"]).unwrap();
    assert!(changes.contains("declared.title.en") && changes.contains("Records of the first"), "{changes}");
    assert!(!changes.contains("counts"), "nothing was counted again: {changes}");

    let out = dir.path().join("west.ttl");
    network.sekisho(&["catalogue", "export", "hospital-1", "--out", out.to_str().unwrap()]).unwrap();
    let turtle = std::fs::read_to_string(&out).unwrap();
    assert!(turtle.contains("healthdcatap:hasVariables") && turtle.contains("Records renamed"), "{turtle}");
    let folder = dir.path().join("all");
    std::fs::create_dir(&folder).unwrap();
    network.sekisho(&["catalogue", "export", "--format", "jsonld", "--folder", folder.to_str().unwrap()]).unwrap();
    assert!(folder.join("hospital-1.stays.jsonld").exists());

    check_study(&network, dir.path(), &json);
}

fn check_study(network: &Network, dir: &std::path::Path, json: &dyn Fn(&[&str]) -> Value) {
    let signed = network.dir().join("schema.dsse.json").display().to_string();
    let sql = "SELECT sex, avg(days) FROM stay GROUP BY sex";
    let check =
        |schema: &str, sql: &str| json(&["study", "check", "--schema", schema, "--sql", sql, "--output", "json"]);
    let report = check(&signed, sql);
    assert_eq!(report["hospitals"].as_array().unwrap().len(), 1, "one has published");
    assert_eq!(report["hospitals"][0]["answer"], "yes");
    let digest = report["schema_digest"].as_str().unwrap().to_string();
    assert_eq!(check(&digest, sql)["hospitals"][0]["answer"], "yes");
    // Another schema: what differs is named, and what the question does not touch is no hindrance.
    let other = dir.join("other.json");
    let text = SCHEMA
        .replace("[\"female\",\"male\"]", "[\"f\",\"m\"]")
        .replace("{\"name\":\"note\",\"type\":\"text\"}", "{\"name\":\"ward\",\"type\":\"text\",\"domain\":[\"a\"]}");
    std::fs::write(&other, text).unwrap();
    let other = other.display().to_string();
    for (sql, answer, lacks) in [
        ("SELECT avg(days) FROM stay", "after_mapping", ""),
        (sql, "no", "domain_differs"),
        ("SELECT ward, count(*) FROM stay GROUP BY ward", "no", "missing_column"),
    ] {
        let found = check(&other, sql);
        let hospital = &found["hospitals"][0];
        assert_eq!(hospital["answer"], answer, "{sql}: {found}");
        assert_eq!(hospital["lacks"][0]["gap"].as_str().unwrap_or_default(), lacks, "{sql}");
    }
    let table = network.sekisho(&["study", "check", "--schema", &other, "--sql", sql]).unwrap();
    assert!(table.contains("domain differs stay.sex"), "{table}");
}
