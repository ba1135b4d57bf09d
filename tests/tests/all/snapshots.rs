//! An operator's snapshots, by the command: killed in the middle, listed, and removed when nothing needs them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use sekisho_protocol::{dsse::Envelope, keys::SecretKey, schema::Schema, transport::peer_id_of_seed};
use sekisho_tests::wait_for;
use serde_json::Value;

const SCHEMA: &str = r#"{"id":"s","version":1,"title":"","tables":[
    {"name":"person","patient":"pid","one_row_per_patient":true,"columns":[{"name":"pid","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]}]},
    {"name":"stay","patient":"pid","columns":[{"name":"pid","type":"int64"},{"name":"days","type":"int64"}]}]}"#;
const MAPPING: &str = "id = \"west\"\nschema = \"schema.dsse.json\"\n\
    [tables.person]\nsource = \"person.csv\"\n[tables.person.columns]\npid = \"pid\"\nsex = \"sex\"\n\
    [tables.stay]\nsource = \"stay-*.csv\"\n[tables.stay.columns]\npid = \"pid\"\ndays = \"days\"\n";

/// A hospital's folder.
struct Hospital(tempfile::TempDir);

impl Hospital {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = || SecretKey::generate(&mut rand::rng());
        let (governance, member, hub) = (key(), key().public(), peer_id_of_seed(&key().seed()).unwrap().to_string());
        let hospital = Self(dir);
        let (node, governance_key) = (hospital.path("node"), governance.public().to_string());
        let node = node.to_str().unwrap();
        let trust =
            ["--coordinator", "/ip4/127.0.0.1/tcp/1", "--coordinator-peer", &hub, "--governance", &governance_key];
        let committee =
            ["--quorum", "1", "--committee", &format!("m:ethics:{member}"), "--dataset", "data/dataset.toml"];
        let made = party(&[&["init", node, "--name", "west"], &trust[..], &committee[..]].concat()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::create_dir(hospital.path("node/data")).unwrap();
        let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
        let schema = Envelope::sign(&schema, &[&governance]).unwrap();
        hospital.write("schema.dsse.json", std::str::from_utf8(&schema.to_json()).unwrap());
        hospital.write("dataset.toml", MAPPING);
        hospital.write("person.csv", "pid,sex\r\n2,male\r\n1,female\r\n");
        hospital.write("stay-1.csv", "pid,days\n2,5\n1,3\n");
        hospital.write("stay-2.csv", "\u{feff}pid,days\n1,4\n");
        hospital
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("node/data").join(name), text).unwrap();
    }

    fn data(&self, args: &[&str]) -> Command {
        let config = self.path("node/node.toml");
        party(&[&["data"], args, &["--config", config.to_str().unwrap(), "--output", "json"]].concat())
    }

    /// What a command prints, which must succeed.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.data(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Exit code and message of a command that fails; without blanks, since lines are broken anywhere.
    fn fails(&self, args: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.data(args).output().unwrap();
        assert!(stdout.is_empty());
        (status.code(), String::from_utf8_lossy(&stderr).replace(['\n', '│', ' '], ""))
    }
}

fn party(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
    command.arg("node").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_killed_snapshot_goes_on_and_old_ones_are_removed_when_nothing_needs_them() {
    let hospital = Hospital::new();
    let hold = tempfile::tempdir().unwrap();
    fs::write(hold.path().join("hold-snapshot_table"), "").unwrap();
    let mut killed = hospital.data(&["snapshot"]).env("SEKISHO_TEST_HOLD", hold.path()).spawn().unwrap();
    wait_for(&hold.path().join("reached-snapshot_table"));
    let (code, said) = hospital.fails(&["snapshot"]);
    assert!(code == Some(1) && said.contains("anothersnapshotisbeingtaken"), "{said}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(hospital.json(&["list"]), Value::Array(Vec::new()), "nothing half is shown");

    let taken = hospital.json(&["snapshot"]);
    let tables = taken[0]["tables"].as_array().unwrap();
    let found: Vec<_> =
        tables.iter().map(|t| (t["table"].as_str(), t["rows"].as_u64(), t["taken_over"].as_bool())).collect();
    assert_eq!(found, [(Some("person"), Some(2), Some(true)), (Some("stay"), Some(3), Some(false))]);
    let mut ids = vec![taken[0]["snapshot"].as_str().unwrap().to_owned()];
    for _ in 0..3 {
        ids.push(hospital.json(&["snapshot"])[0]["snapshot"].as_str().unwrap().to_owned());
    }
    ids.reverse();
    let listed = |list: &Value| {
        list.as_array().unwrap().iter().map(|s| s["snapshot"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let list = hospital.json(&["list"]);
    assert_eq!(listed(&list), ids);
    assert_eq!((&list[0]["current"], &list[1]["current"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(list[0]["tables"], serde_json::json!({"person": 2, "stay": 3}));

    let (code, said) = hospital.fails(&["prune"]);
    assert!(code == Some(1) && said.contains("nothingwasremoved"), "without a ledger: {said}");
    let config = hospital.path("node/node.toml");
    let ledger = party(&["ledger", "--config", config.to_str().unwrap()]).output().unwrap();
    assert!(ledger.status.success());
    assert_eq!(listed(&hospital.json(&["prune", "--dry-run"])), ids[2..]);
    assert_eq!(listed(&hospital.json(&["list"])), ids);
    assert_eq!(listed(&hospital.json(&["prune"])), ids[2..]);
    assert_eq!(listed(&hospital.json(&["list"])), ids[..2]);
}

#[test]
fn what_is_wrong_with_a_source_is_told_without_a_patient_or_a_count() {
    let hospital = Hospital::new();
    hospital.write("person.csv", "pid,sex\n4711,male\n4711,female\n");
    let (code, said) = hospital.fails(&["snapshot"]);
    assert_eq!(code, Some(1));
    for word in ["tableperson", "onerowperpatient"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(!said.contains("4711"), "{said}");
    hospital.write("person.csv", "pid,sex\n1,male\n");
    hospital.write("stay-2.csv", "pid,days\n1,4\n4711\n");
    let (_, said) = hospital.fails(&["snapshot"]);
    assert!(said.contains("stay-2.csv") && said.contains("line3") && !said.contains("4711"), "{said}");
    assert_eq!(hospital.data(&["snapshot", "--what"]).output().unwrap().status.code(), Some(2));
}
