//! A run is made again by the command of an inspector, beside the node that made it: it matches, or the broken link
//! is named.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::Duration;
use sekisho_node::{
    catalogue::{Declaration, publish, template},
    hooks::Hooks,
    ledger::Which,
    register::EventKind,
};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    dsse::Envelope,
    log::entry::Kind,
    permit::{OptOut, OptOutRule},
    refusal::Code,
    replay::{Link, Outcome, Replay},
};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};
use serde_json::Value;
use sqlx::SqlitePool;

const SQL: &str = "SELECT sex, count(*) AS n, count(DISTINCT patient_id) AS p, sum(days) AS d FROM stay GROUP BY sex";
/// Noise of some rows: a release differs from its exact cells.
const RHO: u64 = 100_000;

/// A node in this process, in a folder on which the command works beside it.
struct Hospital {
    dir: tempfile::TempDir,
    solo: Solo,
    permit: Digest,
}

impl Hospital {
    /// 300 patients, of whom 7 said no before, the first has more rows than count in full, and two stayed outside the bounds.
    async fn new(clock: &TestClock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stay.csv");
        let days = |patient: i64| match patient {
            299 => -4,
            300 => 250,
            _ => 3,
        };
        let row = |patient: i64| (patient, if patient % 3 == 0 { "female" } else { "male" }, 50, days(patient));
        stays(&csv, &[&[row(1); 8][..], &(1..=300).map(row).collect::<Vec<_>>()].concat());
        let plan = Plan {
            data: vec![(SCHEMA, mapping("set", &csv, false))],
            register_rule: "eu-ehds",
            register: None,
            budget: (50 * RHO, RHO),
        };
        let solo = Solo::build(dir.path(), &plan, Arc::new(clock.clone())).await.unwrap();
        solo.node.register.record("7", EventKind::OptedOut, clock.today(), "desk", clock.now()).await.unwrap();
        let permit = solo.grant(&solo.permit("study", "stay", &COLUMNS, |_| {}).unwrap()).await.unwrap();
        Self { dir, solo, permit }
    }

    async fn ask(&self, run: u32) {
        self.solo.ask(&self.solo.query(self.permit, SQL, RHO, run)).await.unwrap();
    }

    /// A copy of the folder, and its database.
    async fn copy(&self) -> (tempfile::TempDir, SqlitePool) {
        let to = tempfile::tempdir().unwrap();
        let from = database(self.dir.path()).await;
        copied(self.dir.path(), to.path());
        fs::remove_dir_all(to.path().join("state")).unwrap();
        copied(&self.dir.path().join("state/snapshots"), &to.path().join("state/snapshots"));
        let copy = to.path().join("state/node.db").display().to_string();
        sqlx::query("VACUUM INTO ?1").bind(copy).execute(&from).await.unwrap();
        from.close().await;
        let pool = database(to.path()).await;
        (to, pool)
    }
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copied(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

async fn database(dir: &Path) -> SqlitePool {
    SqlitePool::connect(&format!("sqlite://{}", dir.join("state/node.db").display())).await.unwrap()
}

/// The command on the node in `dir`.
fn node(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_party"))
        .arg("node")
        .args(args)
        .arg("--config")
        .arg(dir.join("node.toml"))
        .output()
        .unwrap()
}

const WHO: [&str; 4] = ["--by", "Inspector Mori", "--reason", "annual audit"];

/// Makes a run again: the exit code, the document and stderr.
fn replay(dir: &Path, name: &str, args: &[&str]) -> (Option<i32>, Value, String) {
    let made = node(dir, &[&["inspect", "replay", name, "--output", "json"], &WHO[..], args].concat());
    let said = String::from_utf8(made.stderr).unwrap();
    (made.status.code(), serde_json::from_slice(&made.stdout).unwrap_or(Value::Null), said)
}

/// The links of a document that are in `state`.
fn links<'a>(document: &'a Value, state: &str) -> Vec<&'a str> {
    let all = document["links"].as_array().unwrap_or_else(|| panic!("{document}"));
    all.iter().filter(|link| link["state"] == state).map(|link| link["link"].as_str().unwrap()).collect()
}

/// The replays in the log, in order.
async fn replays(solo: &Solo) -> Vec<Vec<u8>> {
    let entries = solo.node.ledger.log().entries(0, 99).await.unwrap();
    entries.into_iter().filter(|e| e.kind == Kind::Replay).map(|e| e.opened.unwrap().statement).collect()
}

fn assert_matches(dir: &Path, name: &str) -> Value {
    let (code, document, said) = replay(dir, name, &[]);
    assert_eq!((code, &document["outcome"]), (Some(0), &"match".into()), "{document:#} {said}");
    assert_eq!(links(&document, "holds"), Link::ALL.map(Link::as_str));
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_made_again_exactly_after_newer_snapshots_opt_outs_and_rules_and_each_time_is_in_the_log() {
    let clock = TestClock::new();
    let hospital = Hospital::new(&clock).await;
    let (solo, dir) = (&hospital.solo, hospital.dir.path());
    hospital.ask(1).await;
    // One more patient says no, a newer snapshot has other patients, a day passes, and the hospital's own rule is
    // another.
    clock.pass(Duration::days(1));
    let mut status = solo.status(3);
    status.expires = clock.now() + Duration::days(1);
    solo.put(&status, &[&solo.governance]).await.unwrap();
    solo.node.register.record("30", EventKind::OptedOut, clock.today(), "desk", clock.now()).await.unwrap();
    stays(&dir.join("stay.csv"), &(200..900).map(|i| (i, "female", 40, 9)).collect::<Vec<_>>());
    let taken = node(dir, &["data", "snapshot"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    hospital.ask(2).await;
    let config = fs::read_to_string(dir.join("node.toml")).unwrap();
    let stricter = config.replace("rule = \"eu-ehds\"", "rule = \"jp-ngmia\"").replace("\ndays = 0", "\ndays = 30");
    assert_ne!(config, stricter);
    fs::write(dir.join("node.toml"), stricter).unwrap();

    let document = assert_matches(dir, "1");
    assert_eq!((&document["sql"], &document["person"]), (&SQL.into(), &"r".into()));
    let charges = solo.node.ledger.charges(&Which { limit: 9, ..Which::default() }).await.unwrap();
    let short = charges[0].key.query_key.short();
    assert_matches(dir, &format!("{short}/2"));
    assert_eq!(document["explanation"]["parts"][0]["measures"].as_array().unwrap().len(), 3);

    let entries = replays(solo).await;
    assert_eq!(entries.len(), 2);
    let envelope = Envelope::from_json::<Replay>(&entries[0]).unwrap();
    let statement = envelope.verify::<Replay>(&[solo.node.signing.public()], 1).unwrap();
    assert_eq!((statement.charge, statement.run, statement.outcome), (1, 1, Outcome::Match));
    assert_eq!((statement.by.as_str(), statement.reason.as_str(), statement.exact_shown), (WHO[1], WHO[3], false));
    assert_eq!(statement.permit, hospital.permit);

    let listed = node(dir, &["inspect", "list", "--output", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let told = |i: usize| (listed[i]["charge"].as_u64(), listed[i]["kept"].as_bool(), listed[i]["replays"].as_u64());
    assert_eq!((told(0), told(1)), ((Some(2), Some(true), Some(1)), (Some(1), Some(true), Some(1))));
    // A run that is not there, or is not named or accounted for, is no replay, and not in the log.
    for (args, code, words) in [
        (vec!["9"], 1, "no such run"),
        (vec!["1/0"], 2, "QUESTION/RUN"),
        (vec!["1", "--show-exact"], 2, "--show-exact"),
    ] {
        let (name, rest) = args.split_first().unwrap();
        let (found, _, said) = replay(dir, name, rest);
        assert!(found == Some(code) && said.contains(words), "{args:?}: {found:?} {said}");
    }
    let nobody = node(dir, &["inspect", "replay", "1", "--reason", "why"]);
    assert_eq!(nobody.status.code(), Some(2));
    let piped = node(dir, &[&["inspect", "replay", "1", "--show-exact"], &WHO[..]].concat());
    assert_eq!(piped.status.code(), Some(1));
    assert!(piped.stdout.is_empty() && String::from_utf8_lossy(&piped.stderr).contains("terminal"));
    assert_eq!(replays(solo).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_died_goes_on_under_the_rule_of_its_charge_and_can_be_made_again() {
    let clock = TestClock::new();
    let mut hospital = Hospital::new(&clock).await;
    let dies = AtomicBool::new(true);
    let hooks =
        Hooks::new(move |passed| assert!(passed != "reserved" || !dies.swap(false, Ordering::SeqCst), "killed"));
    Arc::get_mut(&mut hospital.solo.node).unwrap().hooks = hooks;
    let died = hospital.solo.ask(&hospital.solo.query(hospital.permit, SQL, RHO, 1)).await;
    assert_eq!(died.map(|_| ()).unwrap_err().code, Code::NoAnswer);
    let (code, _, said) = replay(hospital.dir.path(), "1", &[]);
    assert!(code == Some(1) && said.contains("no release"), "{said}");
    // Under this rule nobody would count.
    let node = Arc::get_mut(&mut hospital.solo.node).unwrap();
    node.own_rule = OptOut { rule: OptOutRule::JpNgmia, days: 30 };
    hospital.ask(1).await;
    let document = assert_matches(hospital.dir.path(), "1");
    assert!(document["links"][1]["detail"].as_str().unwrap().contains("another message"), "{document:#}");
}

/// The command under `script`, which gives it a terminal.
fn on_a_terminal(dir: &Path, args: &[&str]) -> String {
    let quoted = args.iter().map(|arg| format!("'{arg}'")).collect::<Vec<_>>().join(" ");
    let config = dir.join("node.toml");
    let command = format!("'{}' node {quoted} --config '{}'", env!("CARGO_BIN_EXE_party"), config.display());
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_values_and_the_seed_are_shown_on_a_terminal_alone_and_are_nowhere_else() {
    let clock = TestClock::new();
    let hospital = Hospital::new(&clock).await;
    let dir = hospital.dir.path();
    hospital.ask(1).await;
    let shown = on_a_terminal(dir, &[&["inspect", "replay", "1", "--show-exact"], &WHO[..]].concat());
    for words in [
        "WARNING",
        "警告",
        "MATCH",
        "一致",
        "307 rows of 299 patients",
        "1 patients have more rows",
        "stay.days was clamped: 2.0000, by weight",
        SQL,
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // 199 males without patient 7; the nine rows of the first weigh a little less than five.
    let counted = "202.9999";
    assert!(shown.contains("100.0000") && shown.contains(counted) && !shown.contains("DIFFERS"), "{shown}");
    let seed = shown.lines().find(|line| line.starts_with("seed of the noise")).unwrap();
    let seed = hex::decode(seed.rsplit(' ').next().unwrap().trim()).unwrap();
    assert_eq!(seed.len(), 32);

    let entries = replays(&hospital.solo).await;
    let statement = Envelope::from_json::<Replay>(entries.last().unwrap()).unwrap();
    assert!(statement.peek::<Replay>().unwrap().0.exact_shown);
    let table = node(dir, &[&["inspect", "replay", "1"], &WHO[..]].concat());
    let (_, document, said) = replay(dir, "1", &[]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("MATCH") && table.contains("Scan stay"), "{table}");
    for text in [table, document.to_string(), said] {
        assert!(!text.contains("patients were read") && !text.contains(counted) && !text.contains(&hex::encode(&seed)));
    }
    let mut files = vec![dir.to_path_buf()];
    let mut searched = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(32).any(|part| part == seed)
                || String::from_utf8_lossy(&bytes).contains(&hex::encode(&seed));
            assert!(!found, "{} holds the seed", path.display());
            searched += 1;
        }
    }
    assert!(searched > 8, "{searched} files");
}

/// What is tampered with in a copy of the hospital's folder.
enum Tamper {
    /// The bytes of one value: table, column, place; a place from the end where it is negative.
    Byte(&'static str, &'static str, i64),
    /// A statement.
    Sql(&'static str),
    /// A byte in the middle of a file.
    File(&'static str),
    /// A file or folder is gone.
    Gone(&'static str),
}

impl Tamper {
    async fn act(&self, dir: &Path, database: &SqlitePool) {
        let triggers: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            .fetch_all(database)
            .await
            .unwrap();
        for trigger in triggers {
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(database).await.unwrap();
        }
        match self {
            Self::Byte(table, column, place) => {
                let read = format!("SELECT {column} FROM {table} WHERE charge_id = 1");
                let mut bytes: Vec<u8> =
                    sqlx::query_scalar(sqlx::AssertSqlSafe(read)).fetch_one(database).await.unwrap();
                let place = if *place < 0 { bytes.len() - place.unsigned_abs() as usize } else { *place as usize };
                bytes[place] ^= 1;
                let write = format!("UPDATE {table} SET {column} = ?1 WHERE charge_id = 1");
                sqlx::query(sqlx::AssertSqlSafe(write)).bind(bytes).execute(database).await.unwrap();
            }
            Self::Sql(statement) => {
                let done = sqlx::query(*statement).execute(database).await.unwrap();
                assert!(done.rows_affected() > 0, "{statement}");
            }
            Self::File(name) => {
                let path = found(dir, name);
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes).unwrap();
            }
            Self::Gone(name) => {
                let path = found(dir, name);
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
    }
}

/// The file called `name` in the one snapshot, or the snapshot itself, or a file of the folder.
fn found(dir: &Path, name: &str) -> std::path::PathBuf {
    let snapshots = fs::read_dir(dir.join("state/snapshots")).unwrap().flatten().map(|entry| entry.path());
    let snapshot = snapshots.into_iter().find(|path| path.join("manifest.json").exists()).unwrap();
    match name {
        "snapshot" => snapshot,
        "replay.pem" => dir.join(name),
        name => snapshot.join(name),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_tampered_with_is_named_and_nothing_else_is() {
    use Tamper::{Byte, File, Gone, Sql};
    let clock = TestClock::new();
    let hospital = Hospital::new(&clock).await;
    hospital.ask(1).await;
    hospital.ask(2).await;
    let snapshot = found(hospital.dir.path(), "snapshot").file_name().unwrap().display().to_string();
    let rule = "UPDATE asked SET own_rule = '{\"rule\":\"jp-ngmia\",\"days\":30}'";
    for (tamper, broken, unknown) in [
        (Byte("release", "cells", 0), &["release", "cells"][..], &[][..]),
        (Byte("release", "cells", -1), &["release", "cells"], &[]),
        (Byte("release", "salts", 0), &["snapshot"], &[]),
        (Byte("release", "salts", 63), &["register"], &[]),
        (Byte("release_seed", "sealed", 5), &["seed"], &["cells"]),
        (Byte("release_seed", "nonce", 5), &["seed"], &["cells"]),
        (Byte("release_seed", "key", 5), &[], &["seed", "cells"]),
        (Byte("release", "receipt", -12), &["receipt"], &[]),
        (
            Sql("UPDATE release SET receipt = (SELECT receipt FROM release WHERE charge_id = 2) WHERE charge_id = 1"),
            &["receipt", "release", "snapshot", "register"],
            &[],
        ),
        (
            Sql("UPDATE release_seed SET sealed = (SELECT sealed FROM release_seed WHERE charge_id = 2)"),
            &["seed"],
            &["cells"],
        ),
        (
            Sql(
                "UPDATE release SET header = CAST(replace(CAST(header AS TEXT), '\"synthetic\":false', '\"synthetic\":true ') AS BLOB)",
            ),
            &["release"],
            &[],
        ),
        (
            Sql("DELETE FROM log_statement WHERE envelope IN (SELECT receipt FROM release WHERE charge_id = 1)"),
            &["receipt"],
            &[],
        ),
        (
            Sql("UPDATE asked SET query = (SELECT query FROM asked WHERE charge_id = 2) WHERE charge_id = 1"),
            &["question"],
            &["plan", "cells"],
        ),
        (Sql("UPDATE asked_permit SET document = x'7b7d'"), &["question"], &["plan", "cells"]),
        (Sql("DELETE FROM asked"), &[], &["question", "plan", "cells"]),
        (Sql("DELETE FROM release_seed"), &[], &["seed", "cells"]),
        (Sql(rule), &["cells"], &[]),
        (Sql("UPDATE register_event SET patient = '9'"), &["register", "cells"], &[]),
        (Sql("UPDATE register_event SET by = 'another desk'"), &["register"], &[]),
        (Sql("DELETE FROM register_event"), &["register"], &["cells"]),
        (Sql("UPDATE charge SET register_seq = 0"), &["register", "cells"], &[]),
        (Sql("UPDATE charge SET as_of = '2026-06-02'"), &["receipt"], &[]),
        (Sql("UPDATE charge SET micro_rho = 1"), &["receipt", "plan"], &["cells"]),
        (File("stay.parquet"), &["snapshot"], &["cells"]),
        (File("manifest.json"), &["snapshot"], &["cells"]),
        (Gone("stay.parquet"), &["snapshot"], &["cells"]),
        (Gone("snapshot"), &[], &["snapshot", "cells"]),
        (Gone("replay.pem"), &[], &["seed", "cells"]),
    ] {
        let (dir, database) = hospital.copy().await;
        tamper.act(dir.path(), &database).await;
        let (code, document, said) = replay(dir.path(), "1", &[]);
        let what = match &tamper {
            Byte(table, column, place) => format!("{table}.{column}[{place}]"),
            Sql(statement) => (*statement).into(),
            File(name) | Gone(name) => (*name).into(),
        };
        let outcome = if broken.is_empty() { "incomplete" } else { "mismatch" };
        assert_eq!((code, &document["outcome"]), (Some(1), &outcome.into()), "{what}: {said}");
        assert_eq!(
            (links(&document, "broken"), links(&document, "unknown")),
            (broken.into(), unknown.into()),
            "{what}: {document:#}"
        );
        assert!(!said.contains(&snapshot) && !document.to_string().contains(&snapshot), "{what}: ids depend on data");
        for link in broken.iter().chain(unknown.iter().filter(|_| broken.is_empty())) {
            assert!(said.contains(link), "{what}: {said}");
        }
        let newest: Vec<u8> = sqlx::query_scalar("SELECT envelope FROM log_statement ORDER BY idx DESC LIMIT 1")
            .fetch_one(&database)
            .await
            .unwrap();
        let statement = Envelope::from_json::<Replay>(&newest).unwrap().peek::<Replay>().unwrap().0;
        assert_eq!(statement.outcome.as_str(), outcome, "{what}");
        assert!(
            !dir.path().join("replay.pem").exists() == matches!(tamper, Gone("replay.pem")),
            "no key is made by looking"
        );
        database.close().await;
    }
    let (dir, database) = hospital.copy().await;
    database.close().await;
    assert_matches(dir.path(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hospitals_own_counts_are_made_again_too() {
    let clock = TestClock::new();
    let hospital = Hospital::new(&clock).await;
    let (solo, dir) = (&hospital.solo, hospital.dir.path());
    let set = Arc::clone(&solo.node.data[0]);
    fs::write(dir.join("dataset-0.catalogue.toml"), template(set.mapping())).unwrap();
    let declaration = Declaration::load(&dir.join("dataset-0.toml"), set.mapping()).unwrap();
    publish(&solo.node, &solo.node.shelf, &[(set, declaration)]).await.unwrap();
    let document = assert_matches(dir, "1");
    assert_eq!(document["person"], Value::Null);
}
