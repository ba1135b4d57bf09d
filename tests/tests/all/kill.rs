//! Kill -9 and standstill at the worst lines: the charge stands, nothing is charged twice, the others' answer is not
//! held up, and the run can be asked again.

use std::time::{Duration, Instant};

use sekisho_sim::{
    launch::Party,
    network::{Network, Setup, Site},
};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays, wait_for};
use serde_json::Value;

pub(crate) const RHO: u64 = 1_000_000;
const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex ORDER BY sex";

/// Two hospitals and a permit, with all kill points.
pub(crate) struct Case {
    pub(crate) network: Network,
    permit: String,
    hold: tempfile::TempDir,
    _dir: tempfile::TempDir,
}

pub(crate) fn case() -> Case {
    let (dir, hold) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = ["hospital-1".to_string(), "hospital-2".to_string()];
    let site = |name: &String| {
        let csv = dir.path().join(format!("{name}.csv"));
        stays(&csv, &(0..200).map(|i| (i, if i % 2 == 0 { "female" } else { "male" }, 50, 3)).collect::<Vec<_>>());
        Site::new(name, mapping(name, &csv, true))
    };
    let setup = Setup {
        budget: Some((100 * RHO, RHO)),
        ..Setup::new(dir.path().join("network"), names.iter().map(site).collect(), SCHEMA)
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
    pub(crate) fn ask(&self, run: u32) -> (Option<i32>, Value) {
        self.asking(run, "hospital-1,hospital-2")()
    }

    /// The same, to be done by another thread.
    fn asking(&self, run: u32, holders: &'static str) -> impl FnOnce() -> (Option<i32>, Value) + Send + 'static {
        let (door, key) = (self.network.door().to_string(), self.network.key("researcher"));
        let (permit, run) = (self.permit.clone(), run.to_string());
        move || {
            let query = ["--coordinator", &door, "query", "--permit", &permit, "--sql", SQL, "--key", &key];
            let args = [&query[..], &["--run", &run, "--holders", holders, "--output", "json"]].concat();
            let output = crate::launcher().output(Party::Person, &args).unwrap();
            (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
        }
    }

    /// What a hospital charged, in micro-rho.
    pub(crate) fn spent(&self, node: &str) -> u64 {
        let ledger: Value =
            serde_json::from_str(&self.network.node(node, &["ledger", "--output", "json"]).unwrap()).unwrap();
        ledger["spent_micro_rho"].as_u64().unwrap()
    }

    /// Asks `run` while a party stands still at `point` until it is killed, and calls `kill` when it does.
    pub(crate) fn killed_at(&mut self, point: &str, run: u32, kill: impl FnOnce(&mut Network)) -> (Option<i32>, Value) {
        let (held, reached) =
            (self.hold.path().join(format!("hold-{point}")), self.hold.path().join(format!("reached-{point}")));
        std::fs::write(&held, "").unwrap();
        let asking = std::thread::spawn(self.asking(run, "hospital-1,hospital-2"));
        wait_for(&reached);
        kill(&mut self.network);
        std::fs::remove_file(held).unwrap();
        std::fs::remove_file(reached).unwrap();
        asking.join().unwrap()
    }
}

#[test]
fn a_kill_at_any_line_loses_nothing_and_charges_nothing_twice() {
    let mut case = case();
    restart(&mut case.network);

    // Between the reservation and the release: the other hospital's answer is not held up.
    let (code, _) = case.killed_at("reserved", 1, |network| network.kill_node("hospital-1"));
    assert_eq!(code, Some(4), "an incomplete answer");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (RHO, RHO));
    restart(&mut case.network);
    let (code, first) = case.ask(1);
    assert_eq!(code, Some(0), "{first:#}");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (RHO, RHO));
    let (_, again) = case.ask(1);
    assert_eq!(first["rows"], again["rows"], "the run has one release for ever: {again:#}");

    // Between the release and its sending: the stored release is the answer.
    let (code, _) = case.killed_at("released", 2, |network| network.kill_node("hospital-1"));
    assert_eq!(code, Some(4));
    restart(&mut case.network);
    let (code, second) = case.ask(2);
    assert_eq!(code, Some(0));
    assert_ne!(first["rows"], second["rows"], "another run has fresh noise");
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (2 * RHO, 2 * RHO));

    // The coordinator when the round is recorded and nobody was asked; and in the middle of a round.
    restart_coordinator(&mut case.network);
    for (run, point, charged) in [(3, "round_started", 2 * RHO), (4, "round_fanned_out", 4 * RHO)] {
        let (code, _) = case.killed_at(point, run, Network::kill_coordinator);
        assert_ne!(code, Some(0), "no answer comes from a dead coordinator");
        assert!(case.spent("hospital-1") <= charged && case.spent("hospital-2") <= charged, "{point}");
        restart_coordinator(&mut case.network);
        let (code, answer) = case.ask(run);
        assert_eq!(code, Some(0), "{point}: roster, status, schema and permit are intact: {answer:#}");
        let spent = u64::from(run) * RHO;
        assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (spent, spent), "{point}");
        let again = case.ask(run).1;
        assert_eq!(again["rows"], answer["rows"], "{point}: {again:#}");
    }

    // A hospital that neither answers nor dies: the others' answer comes at the deadline, and the run can be completed.
    // The other one has its release already: a busy machine cannot make it slow too.
    assert_eq!(case.asking(5, "hospital-2")().0, Some(0));
    let config = case.network.dir().join("coordinator/coordinator.toml");
    let patient = std::fs::read_to_string(&config).unwrap();
    let impatient = patient.replace("query_deadline_s = 120", "query_deadline_s = 5");
    assert_ne!(patient, impatient);
    std::fs::write(&config, impatient).unwrap();
    restart_coordinator(&mut case.network);
    let asked = Instant::now();
    let (code, answer) = case.killed_at("reserved", 5, |_| {});
    assert_eq!(code, Some(4), "an incomplete answer: {answer:#}");
    assert!(asked.elapsed() < Duration::from_secs(60), "the deadline is 5 s, and it took {:?}", asked.elapsed());
    let state = |answer: &Value| {
        let holders = answer["report"]["holders"].as_array().unwrap();
        holders.iter().map(|h| h["state"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(state(&answer), ["offline", "answered"]);
    std::fs::write(&config, patient).unwrap();
    restart(&mut case.network);
    restart_coordinator(&mut case.network);
    let (code, answer) = case.ask(5);
    assert_eq!((code, state(&answer)), (Some(0), vec!["answered".to_string(); 2]));
    assert_eq!((case.spent("hospital-1"), case.spent("hospital-2")), (5 * RHO, 5 * RHO));
}

#[test]
fn a_kill_between_noise_and_its_release_or_after_it_leaves_a_run_that_can_be_made_again() {
    let mut case = case();
    restart(&mut case.network);
    for (run, point) in [(1, "noised"), (2, "released")] {
        let (code, _) = case.killed_at(point, run, |network| network.kill_node("hospital-1"));
        assert_eq!(code, Some(4), "{point}: an incomplete answer");
        let made_again = |case: &Case| {
            let who = ["--by", "i", "--reason", "r", "--output", "json"];
            let charge = run.to_string();
            let args = [&["inspect", "replay", &charge], &who[..]].concat();
            let output = case.network.node_output("hospital-1", &args).unwrap();
            (
                output.status.code(),
                serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null)["outcome"].clone(),
            )
        };
        // What was noised and not stored is lost, and was seen by nobody; what was stored is there with its seed.
        let before = if point == "noised" { (Some(1), Value::Null) } else { (Some(0), "match".into()) };
        assert_eq!(made_again(&case), before, "{point}: beside a node that is dead");
        restart(&mut case.network);
        let (code, answer) = case.ask(run);
        assert_eq!((code, case.spent("hospital-1")), (Some(0), u64::from(run) * RHO), "{point}: {answer:#}");
        assert_eq!(made_again(&case), (Some(0), "match".into()), "{point}: beside a node that runs");
    }
}

/// What takes the process down may depend on a row, like any other cause of no answer; so it is counted like one, when the node starts.
#[test]
fn runs_that_take_the_node_down_count_as_no_answer_and_the_third_suspends_the_study() {
    let mut case = case();
    restart(&mut case.network);
    for run in 1..=3 {
        let (code, _) = case.killed_at("reserved", run, |network| network.kill_node("hospital-1"));
        assert_eq!(code, Some(4), "an incomplete answer");
        restart(&mut case.network);
        let log = case.network.node("hospital-1", &["log", "show", "--output", "json"]).unwrap();
        assert_eq!(log.matches("\"refusal\"").count(), run as usize, "{log}");
    }
    let (_, refused) = case.ask(4);
    let first = refused["report"]["holders"].as_array().unwrap().iter().find(|h| h["name"] == "hospital-1").unwrap();
    assert_eq!(first["code"], "suspended", "{refused:#}");
    assert_eq!(case.spent("hospital-1"), 3 * RHO, "three charges, and none for what was refused");
}

fn restart(network: &mut Network) {
    network.kill_node("hospital-1");
    network.start_node("hospital-1").unwrap();
    network.wait_connected(2).unwrap();
}

fn restart_coordinator(network: &mut Network) {
    network.kill_coordinator();
    network.start_coordinator().unwrap();
    network.wait_connected(2).unwrap();
}
