//! The hospital's log as it is on the disk: after kills, and when the database was put back from an older copy.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use sekisho_node::{log::Log, store::Store};
use sekisho_protocol::log::entry::Kind;
use sekisho_sim::network::Network;
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
        (2, "released", [(2, 2), (1, 1), (0, 0)]),
        (3, "reserved", [(3, 3), (1, 1), (0, 0)]),
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
    assert_eq!(agreed(&case.network), [(3, 3), (3, 3), (0, 0)]);
}

#[test]
fn a_node_on_yesterdays_database_answers_nothing_until_the_newest_is_back() {
    let mut case = case();
    let state = Path::new(&case.network.node_file("hospital-1", "state")).to_path_buf();
    let files = ["node.db", "node.db-wal", "node.db-shm"];
    let copy = |to: &str| {
        fs::create_dir_all(state.join(to)).unwrap();
        for file in files.iter().filter(|file| state.join(file).exists()) {
            fs::copy(state.join(file), state.join(to).join(file)).unwrap();
        }
    };
    let put_back = |from: &str| {
        for file in files {
            let _ = fs::remove_file(state.join(file));
            if state.join(from).join(file).exists() {
                fs::copy(state.join(from).join(file), state.join(file)).unwrap();
            }
        }
    };
    let start = |case: &mut Case| {
        case.network.start_node("hospital-1").unwrap();
        case.network.wait_connected(2).unwrap();
    };
    assert_eq!(case.ask(1).0, Some(0));
    case.network.kill_node("hospital-1");
    copy("yesterday");
    start(&mut case);
    let (code, newest) = case.ask(2);
    assert_eq!(code, Some(0));
    case.network.kill_node("hospital-1");
    copy("today");

    put_back("yesterday");
    start(&mut case);
    for run in [2, 3] {
        let (code, answer) = case.ask(run);
        assert_eq!(code, Some(4), "an incomplete answer");
        let holder = &answer["report"]["holders"][0];
        assert_eq!(
            (&holder["state"], &holder["code"]),
            (&"refused".into(), &"ledger_rolled_back".into()),
            "{answer:#}"
        );
    }
    let spent = (case.spent("hospital-1"), case.spent("hospital-2"));
    assert_eq!(spent, (RHO, 3 * RHO), "nothing was charged on the older copy");

    case.network.kill_node("hospital-1");
    put_back("today");
    start(&mut case);
    let (code, again) = case.ask(2);
    assert_eq!(code, Some(0));
    assert_eq!(again["rows"], newest["rows"], "the run has one release for ever");
    assert_eq!(case.ask(3).0, Some(0));
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
