//! Logs as they are on the disk: after kills, when a database was put back from an older copy, and when a log forked.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sekisho_node::{log::Log, store::Store};
use sekisho_protocol::log::{checkpoint::SignedCheckpoint, entry::Kind, policy::Policy};
use sekisho_sim::network::Network;
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::kill::{Case, RHO, case};

/// What a node's database has of each kind, when its log is whole: charges and reservations, releases and receipts, charged
/// runs without an answer and refusals.
fn agreed(network: &Network) -> [(i64, i64); 3] {
    let path = Path::new(&network.node_file("hospital-1", "state/node.db")).to_path_buf();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(&path).await.unwrap();
        Log::new(store.clone()).audit(|_| {}).await.unwrap();
        store.close().await;
        let mut plain = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
        let mut pairs = [(0, 0); 3];
        let kinds = [("charge", Kind::Reservation), ("release", Kind::Receipt), ("no_answer", Kind::Refusal)];
        for (pair, (table, kind)) in pairs.iter_mut().zip(kinds) {
            let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            pair.0 = sqlx::query_scalar(count).fetch_one(&mut plain).await.unwrap();
            let count = sqlx::query_scalar("SELECT count(*) FROM log_leaf WHERE kind = ?1").bind(kind.as_str());
            pair.1 = count.fetch_one(&mut plain).await.unwrap();
        }
        plain.close().await.unwrap();
        pairs
    })
}

fn restart(case: &mut Case) {
    case.network.kill_node("hospital-1");
    case.network.start_node("hospital-1").unwrap();
    case.network.wait_connected(2).unwrap();
}

#[test]
fn log_and_ledger_agree_after_every_kill() {
    let mut case = case();
    restart(&mut case);
    for (run, point, expected) in [
        (1, "reserved", [(1, 1), (0, 0), (0, 0)]),
        // The run during which the node stopped counted as no answer when it started again.
        (2, "released", [(2, 2), (1, 1), (1, 1)]),
        (3, "reserved", [(3, 3), (1, 1), (1, 1)]),
    ] {
        let (code, _) = case.killed_at(point, run, |network| network.kill_node("hospital-1"));
        assert_eq!(code, Some(4), "an incomplete answer");
        assert_eq!(agreed(&case.network), expected, "killed when {point} in run {run}");
        case.network.start_node("hospital-1").unwrap();
        case.network.wait_connected(2).unwrap();
    }
    for run in 1..=3 {
        assert_eq!(case.ask(run).0, Some(0));
    }
    assert_eq!(agreed(&case.network), [(3, 3), (3, 3), (2, 2)]);
}

/// How many times a process that appends is killed, and after how many of them another database begins.
const KILLS: u32 = 200;
const KILLS_EACH: u32 = 20;

#[test]
fn whenever_a_process_that_appends_is_killed_log_and_ledger_agree_and_nothing_acknowledged_is_lost() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let (mut dir, mut acknowledged) = (tempfile::tempdir().unwrap(), 0);
    for round in 0..KILLS {
        if round % KILLS_EACH == 0 {
            (dir, acknowledged) = (tempfile::tempdir().unwrap(), 0);
        }
        let path = dir.path().join("node.db");
        let mut child = Command::new(env!("CARGO_BIN_EXE_party"))
            .args(["charging", path.to_str().unwrap(), &acknowledged.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        acknowledged = lines.next().unwrap().unwrap().parse().unwrap();
        // SQLite takes some milliseconds for a charge here: so the kill meets any line of it.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..12_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).fold(acknowledged, u32::max);
        let (spent, reservations, entries) = runtime.block_on(async {
            let (store, ledger) = sekisho_tests::charging::unbounded(&path).await;
            let audited = ledger.log().audit(|_| {}).await.unwrap();
            let budget = ledger.budget().await.unwrap();
            let kinds = ledger.log().entries_of(Kind::Reservation, 0, 1000).await.unwrap();
            store.close().await;
            let numbers: Vec<_> = kinds.into_iter().map(|leaf| leaf.opened.unwrap().statement).collect();
            let expected: Vec<_> = (0..numbers.len()).map(|n| format!("reservation {n}").into_bytes()).collect();
            assert_eq!(numbers, expected, "round {round}");
            (budget.spent.get(), numbers.len() as u64, audited.head.size())
        });
        assert_eq!((spent, entries), (reservations, reservations), "round {round}: ledger and log");
        assert!(reservations > u64::from(acknowledged), "round {round}: charge {acknowledged} was acknowledged");
    }
}

const FILES: [&str; 3] = ["node.db", "node.db-wal", "node.db-shm"];

/// The folder of a hospital's state.
fn state(case: &Case) -> PathBuf {
    PathBuf::from(case.network.node_file("hospital-1", "state"))
}

/// Copies the hospital's database, whose node does not run.
fn copy(case: &Case, to: &str) {
    let state = state(case);
    fs::create_dir_all(state.join(to)).unwrap();
    for file in FILES.iter().filter(|file| state.join(file).exists()) {
        fs::copy(state.join(file), state.join(to).join(file)).unwrap();
    }
}

/// Puts a copy in the place of the hospital's database.
fn put_back(case: &Case, from: &str) {
    let state = state(case);
    for file in FILES {
        let _ = fs::remove_file(state.join(file));
        if state.join(from).join(file).exists() {
            fs::copy(state.join(from).join(file), state.join(file)).unwrap();
        }
    }
}

fn start(case: &mut Case) {
    case.network.start_node("hospital-1").unwrap();
    case.network.wait_connected(2).unwrap();
}

/// The state and the code of the first hospital in an answer.
fn held(answer: &Value) -> (&str, &str) {
    let holder = &answer["report"]["holders"][0];
    (holder["state"].as_str().unwrap_or_default(), holder["code"].as_str().unwrap_or_default())
}

#[test]
fn a_node_on_yesterdays_database_answers_nothing_until_the_newest_is_back() {
    let mut case = case();
    assert_eq!(case.ask(1).0, Some(0));
    case.network.kill_node("hospital-1");
    copy(&case, "yesterday");
    start(&mut case);
    let (code, newest) = case.ask(2);
    assert_eq!(code, Some(0));
    case.network.kill_node("hospital-1");
    copy(&case, "today");

    put_back(&case, "yesterday");
    start(&mut case);
    for run in [2, 3] {
        let (code, answer) = case.ask(run);
        assert_eq!(code, Some(4), "an incomplete answer");
        assert_eq!(held(&answer), ("refused", "ledger_rolled_back"), "{answer:#}");
    }
    let spent = (case.spent("hospital-1"), case.spent("hospital-2"));
    assert_eq!(spent, (RHO, 3 * RHO), "nothing was charged on the older copy");

    case.network.kill_node("hospital-1");
    put_back(&case, "today");
    start(&mut case);
    let (code, again) = case.ask(2);
    assert_eq!(code, Some(0));
    assert_eq!(again["rows"], newest["rows"], "the run has one release for ever");
    assert_eq!(case.ask(3).0, Some(0));
}

/// What a command printed when it ended well.
fn printed(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command said on standard error, however its lines were broken.
fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).replace(['\n', ' ', '│'], "")
}

/// The same as JSON.
fn json(output: std::process::Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

/// Whether the independent verifier accepts the proof of `entry` of the coordinator's log.
fn proved(case: &Case, entry: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let policy = printed(case.network.coordinator_output(&["log", "policy", "--quorum", "2"]).unwrap());
    fs::write(file("policy.txt"), policy).unwrap();
    let (proof, statement) = (file("entry.tlog-proof"), file("statement.json"));
    let args = ["log", "proof", entry, "--out", &proof, "--statement", &statement];
    printed(case.network.coordinator_output(&args).unwrap());
    let verify = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify.py");
    let args = [verify, "proof", &file("policy.txt"), &proof, &statement];
    let words = printed(Command::new("python3").args(args).output().unwrap());
    assert!(words.contains("the quorum hospitals of the policy is met"), "{words}");
    serde_json::from_slice(&fs::read(statement).unwrap()).unwrap()
}

#[test]
fn a_lost_log_is_written_off_by_name_and_what_it_charged_stays_spent() {
    let mut case = case();
    assert_eq!(case.ask(1).0, Some(0));
    case.network.kill_node("hospital-1");
    copy(&case, "yesterday");
    start(&mut case);
    let (before, whole) = (["log", "write-off", "--by", "T. Sato", "--reason", "the disk failed"], "receipts.jsonl");
    let receipts = case.network.dir().join(whole).display().to_string();
    let write_off = [&before[..], &["--register-restored", "--receipts", &receipts]].concat();
    assert_eq!(case.ask(2).0, Some(0));
    let told = printed(case.network.coordinator_output(&["log", "receipts", "hospital-1"]).unwrap());
    assert_eq!(told.lines().count(), 2);
    fs::write(&receipts, told).unwrap();
    let early = case.network.node_output("hospital-1", &[&write_off[..], &["--all-left"]].concat()).unwrap();
    assert!(!early.status.success() && said(&early).contains("nothingisknowntobelost"), "{}", said(&early));

    case.network.kill_node("hospital-1");
    put_back(&case, "yesterday");
    start(&mut case);
    assert_eq!(held(&case.ask(3).1), ("refused", "ledger_rolled_back"));
    let unsaid = case.network.node_output("hospital-1", &write_off).unwrap();
    assert!(!unsaid.status.success() && said(&unsaid).contains("--rhokill=AMOUNT"), "{}", said(&unsaid));
    let rho = format!("kill={RHO}");
    let written = [&write_off[..], &["--rho", &rho, "--output", "json"]].concat();
    let written = json(case.network.node_output("hospital-1", &written).unwrap());
    let study = &written["studies"][0];
    assert_eq!(
        (&study["receipts"], &study["micro_rho"], &study["further_micro_rho"]),
        (&1.into(), &RHO.into(), &RHO.into())
    );
    assert_eq!(case.spent("hospital-1"), 3 * RHO, "one of yesterday, one of the receipt, one as stated");

    // The running node hands it over, and answers again.
    let begun = Instant::now();
    let answer = loop {
        let (code, answer) = case.ask(3);
        if code == Some(0) {
            break answer;
        }
        assert_eq!(held(&answer), ("refused", "ledger_rolled_back"), "{answer:#}");
        assert!(begun.elapsed() < Duration::from_secs(120), "{answer:#}");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(held(&answer).0, "answered");
    assert_eq!(case.spent("hospital-1"), 4 * RHO);
    assert_eq!(
        held(&case.ask(2).1),
        ("refused", "ledger_rolled_back"),
        "its release left before, and there is no other"
    );
    assert_eq!(case.spent("hospital-1"), 4 * RHO);
    assert_eq!(case.ask(1).0, Some(0), "a release that is there is served");
    case.network.kill_node("hospital-1");
    start(&mut case);
    assert_eq!(case.ask(4).0, Some(0), "after a restart too");

    // Whoever inspects the coordinator sees it, with a proof; nothing of the lost log was forgotten.
    let listed = ["log", "show", "--kind", "write_off", "--output", "json"];
    let listed = json(case.network.coordinator_output(&listed).unwrap());
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
    witnessed(&case, listed["entries"][0]["index"].as_u64().unwrap());
    let statement = proved(&case, listed["entries"][0]["statement"].as_str().unwrap());
    assert_eq!(statement["payloadType"], "application/vnd.sekisho.write_off.v1+json");
    let check = ["log", "check", "--all", "--output", "json"];
    let coordinator = json(case.network.coordinator_output(&check).unwrap());
    assert_eq!(coordinator["statements"]["open"], 0, "{coordinator:#}");
    let node = json(case.network.node_output("hospital-1", &check).unwrap());
    assert_eq!(node["statements"]["open"], 0, "{node:#}");
    let database = case.network.dir().join("coordinator/state/coordinator.db");
    let kept = checkpoints(&database, "%/hospital-1%");
    assert_eq!(kept.len(), 2, "of both logs: {kept:?}");
}

/// Waits until hospitals have cosigned a checkpoint of the coordinator's log with entry `index`.
fn witnessed(case: &Case, index: u64) {
    let begun = Instant::now();
    loop {
        let check = json(case.network.coordinator_output(&["log", "check", "--output", "json"]).unwrap());
        if check["checkpoint"]["entries"].as_u64().is_some_and(|entries| entries > index) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{check:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_hospitals_checkpoints_are_cosigned_by_another_hospital_and_meet_a_policy() {
    let case = case();
    let policy = |of: &str| printed(case.network.coordinator_output(&["log", "policy", "--of", of]).unwrap());
    let mut sizes = [0, 0];
    for run in 1..=2 {
        assert_eq!(case.ask(run).0, Some(0));
        for (of, size) in ["hospital-1", "hospital-2"].into_iter().zip(&mut sizes) {
            let policy = Policy::parse(policy(of).as_bytes()).unwrap();
            let begun = Instant::now();
            *size = loop {
                let note = printed(case.network.coordinator_output(&["log", "checkpoint", "--of", of]).unwrap());
                let checkpoint = SignedCheckpoint::parse(note.as_bytes()).unwrap();
                let seen = checkpoint.claimed().head().size();
                if seen > *size && policy.check(&checkpoint).is_ok() {
                    break seen;
                }
                assert!(begun.elapsed() < Duration::from_secs(120), "nobody cosigned: {note}");
                std::thread::sleep(Duration::from_millis(500));
            };
        }
    }
}

#[test]
fn a_coordinator_that_forks_its_log_is_not_witnessed_and_the_hospitals_have_both_checkpoints() {
    let mut case = case();
    assert_eq!(case.ask(1).0, Some(0));
    case.network.keep_coordinator_state("yesterday").unwrap();
    case.network.wait_connected(2).unwrap();
    assert_eq!(case.ask(2).0, Some(0));
    let listed =
        json(case.network.coordinator_output(&["log", "show", "--limit", "1000", "--output", "json"]).unwrap());
    witnessed(&case, listed["entries"].as_array().unwrap().len() as u64 - 1);
    case.network.swap_coordinator_state("yesterday").unwrap();
    case.network.wait_connected(2).unwrap();
    // It goes on from the older copy, until it has more than the hospitals witnessed.
    let begun = Instant::now();
    let mut run = 3;
    let alerts = loop {
        let _ = case.ask(run);
        run += 1;
        let alerts = case.network.node("hospital-1", &["alerts", "list", "--output", "json"]).unwrap();
        if alerts.contains("forked_log") {
            break alerts;
        }
        assert!(begun.elapsed() < Duration::from_secs(240), "no alert: {alerts}");
        std::thread::sleep(Duration::from_secs(3));
    };
    assert_eq!(alerts.matches("forked_log").count(), 1, "{alerts}");
    let evidence = ["log", "show", "--kind", "checkpoint", "--output", "json"];
    let evidence = json(case.network.node_output("hospital-1", &evidence).unwrap());
    let entries = evidence["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "both checkpoints: {entries:?}");
    let check = json(case.network.node_output("hospital-1", &["log", "check", "--all", "--output", "json"]).unwrap());
    assert_eq!(check["statements"]["open"], 0, "both are signed by the coordinator: {check:#}");
    // Nobody cosigned what it says now.
    let confirmed = json(case.network.coordinator_output(&["log", "check", "--output", "json"]).unwrap());
    let kept = confirmed["checkpoint"]["entries"].as_u64().unwrap_or(0);
    assert!(kept < confirmed["entries"].as_u64().unwrap(), "{confirmed:#}");
}

/// The newest checkpoints that a database keeps of logs with such names: names and sizes.
fn checkpoints(database: &Path, like: &'static str) -> Vec<(String, i64)> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut plain = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap();
        let sql = "SELECT origin, size FROM log_checkpoint WHERE origin LIKE ?1 ORDER BY origin";
        let found = sqlx::query_as(sql).bind(like).fetch_all(&mut plain).await.unwrap();
        plain.close().await.unwrap();
        found
    })
}

/// The newest checkpoint that a database keeps of the log of the coordinator: its size and its note.
fn coordinators(database: &Path) -> Option<(i64, String)> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut plain = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(database)).await.unwrap();
        let sql = "SELECT size, note FROM log_checkpoint WHERE origin LIKE '%/coordinator'";
        let found: Option<(i64, Vec<u8>)> = sqlx::query_as(sql).fetch_optional(&mut plain).await.unwrap();
        plain.close().await.unwrap();
        found.map(|(size, note)| (size, String::from_utf8(note).unwrap()))
    })
}

#[test]
fn hospitals_witness_each_checkpoint_of_the_coordinator_before_the_next_one() {
    let case = case();
    let hub = case.network.dir().join("coordinator/state/coordinator.db");
    let mut sizes = Vec::new();
    for run in 1..=2 {
        assert_eq!(case.ask(run).0, Some(0));
        let begun = Instant::now();
        let (size, note) = loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint was witnessed: {sizes:?}");
            match coordinators(&hub) {
                Some((size, note)) if sizes.iter().all(|before| *before < size) => break (size, note),
                Some(_) | None => std::thread::sleep(Duration::from_millis(200)),
            }
        };
        assert_eq!(note.matches("\n\u{2014} ").count(), 3, "the coordinator and two hospitals: {note}");
        for hospital in ["hospital-1", "hospital-2"] {
            assert!(note.contains(&format!("/{hospital} ")), "{note}");
            let (witnessed, _) = coordinators(Path::new(&case.network.node_file(hospital, "state/node.db"))).unwrap();
            assert!(witnessed >= size, "durable at the witness before its cosignature left");
        }
        sizes.push(size);
    }
}
