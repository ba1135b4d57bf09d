//! Kill -9 at the worst lines: the charge stands, nothing is charged twice, and the run can be asked again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays};
use serde_json::Value;

const RHO: u64 = 1_000_000;
const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex ORDER BY sex";

struct Case {
    network: Network,
    permit: String,
    hold: tempfile::TempDir,
    _dir: tempfile::TempDir,
}

fn case() -> Case {
    let (dir, hold) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = ["hospital-1".to_string(), "hospital-2".to_string()];
    let site = |name: &String| {
        let csv = dir.path().join(format!("{name}.csv"));
        stays(&csv, &(0..200).map(|i| (i, if i % 2 == 0 { "female" } else { "male" }, 50, 3)).collect::<Vec<_>>());
        Site { name: name.clone(), mapping: mapping(name, &csv, true), register: None }
    };
    let setup = Setup {
        dir: dir.path().join("network"),
        sites: names.iter().map(site).collect(),
        schema: SCHEMA.into(),
        quic: false,
        register_rule: "eu-ehds".into(),
        budget: Some((100 * RHO, RHO)),
        status_lives: "24h".into(),
    };
    let mut network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    network.hide("SEKISHO_TEST_HOLD", hold.path());
    let text = PermitText {
        study: "kill",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: &names,
        bounds: (5, 2),
        micro_rho: (RHO, 20 * RHO),
    };
    let permit = network.permit("permit", &permit_toml(&text, crate::now())).unwrap();
    Case { network, permit, hold, _dir: dir }
}

impl Case {
    /// Asks a run; the exit code and what was printed.
    fn ask(&self, run: u32) -> (Option<i32>, Value) {
        let (key, run) = (self.network.key("researcher"), run.to_string());
        let args = ["query", "--permit", &self.permit, "--sql", SQL, "--key", &key, "--run", &run, "--output", "json"];
        let output = self.network.ask(&args).unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    fn spent(&self, node: &str) -> u64 {
        let ledger: Value =
            serde_json::from_str(&self.network.node(node, &["ledger", "--output", "json"]).unwrap()).unwrap();
        ledger["spent_micro_rho"].as_u64().unwrap()
    }

    /// Asks `run` while a party stands still at `point`, and calls `kill` when it does.
    fn killed_at(&mut self, point: &str, run: u32, kill: impl FnOnce(&mut Network)) -> Option<i32> {
        let (held, reached) =
            (self.hold.path().join(format!("hold-{point}")), self.hold.path().join(format!("reached-{point}")));
        std::fs::write(&held, "").unwrap();
        let (door, key, permit) =
            (self.network.door().to_string(), self.network.key("researcher"), self.permit.clone());
        let asking = std::thread::spawn(move || {
            let run = run.to_string();
            let args =
                ["--coordinator", &door, "query", "--permit", &permit, "--sql", SQL, "--key", &key, "--run", &run];
            crate::launcher().output(sekisho_sim::launch::Party::Person, &args).unwrap().status.code()
        });
        wait_for(&reached);
        kill(&mut self.network);
        std::fs::remove_file(held).unwrap();
        std::fs::remove_file(reached).unwrap();
        asking.join().unwrap()
    }
}

fn wait_for(file: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < until, "{} was never reached", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_kill_at_any_line_loses_nothing_and_charges_nothing_twice() {
    let mut case = case();
    let restart = |network: &mut Network| {
        network.kill_node("hospital-1");
        network.start_node("hospital-1").unwrap();
        network.wait_connected(2).unwrap();
    };
    restart(&mut case.network);

    // Between the reservation and the release: the other hospital's answer is not held up.
    let code = case.killed_at("reserved", 1, |network| network.kill_node("hospital-1"));
    assert_eq!(code, Some(4), "an incomplete answer");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (RHO, RHO));
    restart(&mut case.network);
    let (code, first) = case.ask(1);
    assert_eq!(code, Some(0), "{first:#}");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (RHO, RHO));
    let (_, again) = case.ask(1);
    assert_eq!(first["rows"], again["rows"], "the run has one release for ever");

    // Between the release and its sending: the stored release is the answer.
    let code = case.killed_at("released", 2, |network| network.kill_node("hospital-1"));
    assert_eq!(code, Some(4));
    restart(&mut case.network);
    let (code, second) = case.ask(2);
    assert_eq!(code, Some(0));
    assert_ne!(first["rows"], second["rows"], "another run has fresh noise");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (2 * RHO, 2 * RHO));

    // The coordinator in the middle of a round.
    case.network.kill_coordinator();
    case.network.start_coordinator().unwrap();
    case.network.wait_connected(2).unwrap();
    let code = case.killed_at("round_fanned_out", 3, Network::kill_coordinator);
    assert_ne!(code, Some(0), "no answer comes from a dead coordinator");
    case.network.start_coordinator().unwrap();
    case.network.wait_connected(2).unwrap();
    let (code, third) = case.ask(3);
    assert_eq!(code, Some(0), "roster, status, schema and permit are intact: {third:#}");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (3 * RHO, 3 * RHO));
    assert_eq!(case.ask(3).1["rows"], third["rows"]);
}
