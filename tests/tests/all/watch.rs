//! Metrics, readiness and alerts of a node and a coordinator that run as processes of their own.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays};
use serde_json::Value;

use crate::local::{Answer, request, send};

const RHO: u64 = 1_000_000;
const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex ORDER BY sex";
const NAME: &str = "hospital-1";
/// Ids that are no other number's part.
const PATIENTS: [i64; 2] = [918_273_645, 918_273_646];

pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, &format!("GET {path}"), &[], "")
}

fn scrape(address: SocketAddr) -> String {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    answer.text
}

/// The value of a line of the scrape: its name with its labels.
fn value(scrape: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    scrape.lines().find_map(value)
}

/// Waits until `what` holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The checks of `/readyz` that fail; none of them when a busy machine did not answer in time.
fn faults(ready: &Answer) -> Vec<String> {
    let checks = ready.body["checks"].as_array().into_iter().flatten();
    checks.filter(|check| check["ok"] == false).map(|check| check["check"].as_str().unwrap().into()).collect()
}

/// Has `promtool check metrics` look at a scrape, where it is installed.
fn lint(scrape: &str) {
    let started =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut promtool) = started else {
        eprintln!("skipped: promtool is not installed (Debian's package prometheus has it)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}{scrape}", String::from_utf8_lossy(&said.stdout));
}

/// A hospital and a coordinator that are watched; five refusals suspend a study.
fn watched(dir: &std::path::Path) -> (Network, SocketAddr, SocketAddr) {
    let csv = dir.join("stay.csv");
    stays(&csv, &[(PATIENTS[0], "female", 50, 3), (PATIENTS[1], "male", 60, 5)]);
    let site = Site::new(NAME, mapping(NAME, &csv, true));
    let setup = Setup { budget: Some((100 * RHO, RHO)), ..Setup::new(dir.join("network"), vec![site], SCHEMA) };
    let mut network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    let (node, hub) = (free(), free());
    let write = |file: &str, changes: &[(&str, String)]| {
        let mut text = std::fs::read_to_string(file).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(file, text).unwrap();
    };
    let address = |at: SocketAddr| format!("address = \"{at}\"");
    let burst = "count = 5\nwindow_s = 600\nsuspend = true".to_string();
    write(
        &network.node_file(NAME, "node.toml"),
        &[("# address = \"127.0.0.1:9816\"", address(node)), ("count = 30\nwindow_s = 600\nsuspend = false", burst)],
    );
    let file = network.dir().join("coordinator/coordinator.toml").display().to_string();
    write(&file, &[("# address = \"127.0.0.1:9817\"", address(hub))]);
    network.kill_coordinator();
    network.start_coordinator().unwrap();
    network.kill_node(NAME);
    network.start_node(NAME).unwrap();
    network.wait_connected(1).unwrap();
    (network, node, hub)
}

#[test]
fn a_node_and_its_coordinator_tell_how_they_are_and_a_burst_of_refusals_suspends_the_study() {
    let dir = tempfile::tempdir().unwrap();
    let (mut network, node, hub) = watched(dir.path());
    let text = PermitText {
        study: "watched",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: &[NAME.to_string()],
        bounds: (5, 2),
        micro_rho: (2 * RHO, 20 * RHO),
    };
    let toml = permit_toml(&text, crate::now()).replace("id = \"researcher\"", "id = \"hanako-yamada\"");
    let permit = network.permit("permit", &toml).unwrap();
    // What the hospital said: its code where it refused, else its state.
    let ask = |rho: u64, run: &str, more: &[&str]| -> String {
        let (key, rho) = (network.key("researcher"), rho.to_string());
        let query = ["query", "--permit", &permit, "--sql", SQL, "--key", &key, "--run", run, "--rho", &rho];
        let output = network.ask(&[&query[..], &["--output", "json"], more].concat()).unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let report = said.get("report").unwrap_or(&said);
        let holder = &report["holders"][0];
        holder["code"].as_str().or(holder["state"].as_str()).unwrap().to_owned()
    };

    // All is well.
    for at in [node, hub] {
        until("it is ready", || get(at, "/readyz").status == 200);
        let ready = get(at, "/readyz");
        assert_eq!((ready.body["ready"].as_bool(), ready.body["checks"].as_array().unwrap().len()), (Some(true), 5));
        assert_eq!((get(at, "/healthz").status, get(at, "/healthz").text.as_str()), (200, "live\n"));
        assert_eq!(get(at, "/").status, 404);
        assert_eq!(request(at, "POST /metrics", &[], "").status, 405);
        let elsewhere = "GET /metrics HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
        assert_eq!(send(at, elsewhere).status, 403);
    }

    // One query is answered; five are refused by the hospital's own ceiling, and the sixth by the suspension.
    assert_eq!(ask(RHO, "1", &[]), "answered");
    let answered = "sekisho_node_queries_total{code=\"\",outcome=\"answered\"}";
    until("the answer is counted", || value(&scrape(node), answered) == Some(1.0));
    for run in ["2", "3", "4", "5"] {
        assert_eq!(ask(2 * RHO, run, &[]), "policy");
    }
    let study = "{study=\"watched\"}";
    assert_eq!(value(&scrape(node), &format!("sekisho_node_study_suspended{study}")), Some(0.0));
    assert_eq!(ask(2 * RHO, "6", &["--dry-run"]), "policy");
    for run in ["7", "8"] {
        assert_eq!(ask(RHO, run, &[]), "suspended");
    }
    let alerts = || -> Value {
        serde_json::from_str(&network.node(NAME, &["alerts", "list", "--output", "json"]).unwrap()).unwrap()
    };
    let told = alerts();
    assert_eq!(told["alerts"].as_array().unwrap().len(), 1, "{told}");
    let alert = &told["alerts"][0];
    assert_eq!(
        (&alert["rule"], &alert["study_id"], &alert["node"]),
        (&"refusals".into(), &"watched".into(), &NAME.into())
    );
    assert_eq!((&alert["observed"], &alert["threshold"], &alert["suspended"]), (&5.into(), &5.into(), &true.into()));
    let csv = network.node(NAME, &["alerts", "list", "--output", "csv"]).unwrap();
    assert!(csv.trim().ends_with("refusals,watched,5,5,events,600,true"), "{csv}");

    let seen = scrape(node);
    for (name, expect) in [
        (answered, 1.0),
        ("sekisho_node_queries_total{code=\"policy\",outcome=\"refused\"}", 4.0),
        ("sekisho_node_queries_total{code=\"suspended\",outcome=\"refused\"}", 2.0),
        ("sekisho_node_dry_runs_total{code=\"policy\",outcome=\"refused\"}", 1.0),
        ("sekisho_node_alerts_total{rule=\"refusals\"}", 1.0),
        ("sekisho_node_suspensions_total{rule=\"refusals\"}", 1.0),
        ("sekisho_node_alerts_total{rule=\"unexpected_peer\"}", 0.0),
        (&format!("sekisho_node_study_suspended{study}"), 1.0),
        (&format!("sekisho_node_study_micro_rho_spent_total{study}"), 1_000_000.0),
        (&format!("sekisho_node_study_micro_rho_left{study}"), 19_000_000.0),
        ("sekisho_node_lifetime_micro_rho_left", 99_000_000.0),
        ("sekisho_node_document_sequence{document=\"status\"}", 1.0),
        ("sekisho_node_permits{state=\"accepted\"}", 1.0),
        ("sekisho_node_check_ok{check=\"coordinator\"}", 1.0),
        ("sekisho_node_slots_used", 0.0),
    ] {
        assert_eq!(value(&seen, name), Some(expect), "{name} in\n{seen}");
    }
    // Roster, status, permit, acceptance, policy, reservation, receipt and alert.
    assert!(value(&seen, "sekisho_node_log_entries_total").is_some_and(|entries| entries >= 8.0), "{seen}");
    let hub_seen = scrape(hub);
    for (name, expect) in [
        ("sekisho_coordinator_nodes", 1.0),
        ("sekisho_coordinator_nodes_connected", 1.0),
        ("sekisho_coordinator_documents{kind=\"permit\"}", 1.0),
        ("sekisho_coordinator_documents{kind=\"application\"}", 0.0),
        ("sekisho_coordinator_rounds_total{outcome=\"done\"}", 7.0),
        ("sekisho_coordinator_results_held_total", 0.0),
        ("sekisho_coordinator_check_ok{check=\"transport\"}", 1.0),
    ] {
        assert_eq!(value(&hub_seen, name), Some(expect), "{name} in\n{hub_seen}");
    }
    let fingerprint = sekisho_protocol::keys::PublicKey::fingerprint(
        &network.public_key("researcher").unwrap().parse::<sekisho_protocol::keys::PublicKey>().unwrap(),
    );
    for text in [&seen, &hub_seen] {
        let hidden = [PATIENTS[0].to_string(), PATIENTS[1].to_string(), "yamada".into(), fingerprint.to_string()];
        assert!(hidden.iter().all(|hidden| !text.contains(hidden)), "{text}");
        assert!(!text.contains("opt_out") && !text.contains("rows") && !text.contains("patient"), "{text}");
        lint(text);
    }

    // What was told is not told again after a kill; and without its coordinator the node is alive and not ready.
    network.kill_node(NAME);
    network.start_node(NAME).unwrap();
    network.wait_connected(1).unwrap();
    until("it is ready", || get(node, "/readyz").status == 200);
    network.kill_coordinator();
    until("the coordinator alone is missed", || faults(&get(node, "/readyz")) == ["coordinator"]);
    assert_eq!(get(node, "/healthz").status, 200);
    network.start_coordinator().unwrap();
    until("it is ready again", || get(node, "/readyz").status == 200);

    // A status that runs out is seen at both.
    network.refresh_status("20s").unwrap();
    for at in [node, hub] {
        until("the status alone has expired", || faults(&get(at, "/readyz")) == ["status"]);
        assert_eq!(get(at, "/readyz").status, 503);
    }
    assert_eq!(value(&scrape(node), "sekisho_node_document_expiry_timestamp_seconds{document=\"status\"}"), Some(0.0));
    let told: Value =
        serde_json::from_str(&network.node(NAME, &["alerts", "list", "--output", "json"]).unwrap()).unwrap();
    assert_eq!(told["alerts"].as_array().unwrap().len(), 1);
}
