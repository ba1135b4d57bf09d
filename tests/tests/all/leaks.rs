//! Planted identifiers are looked for in everything a network writes and sends.
//!
//! Aside stand what must hold them: the hospitals' sources, snapshots and patient registers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use sekisho_sim::{
    generate::{self, generate},
    launch::Party,
    network::{Network, Setup, Site},
    study::{self, PermitText},
};
use serde_json::Value;
use sqlx::Row;

/// Passes bytes on to `to`, and keeps them all.
fn tap(to: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let captured = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&captured);
    std::thread::spawn(move || {
        for inbound in listener.incoming().flatten() {
            let Ok(outbound) = TcpStream::connect(&to) else { continue };
            for (mut from, mut into) in [
                (inbound.try_clone().unwrap(), outbound.try_clone().unwrap()),
                (outbound.try_clone().unwrap(), inbound.try_clone().unwrap()),
            ] {
                let all = Arc::clone(&all);
                std::thread::spawn(move || {
                    let mut buffer = [0; 16_384];
                    while let Ok(n) = from.read(&mut buffer) {
                        all.lock().unwrap().extend_from_slice(&buffer[..n]);
                        if n == 0 || into.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = into.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (address, captured)
}

/// What is planted in `bytes`: names and insurance numbers, and patient ids as text or as eight bytes.
fn planted(bytes: &[u8], ids: &[i64]) -> Option<String> {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    if has(b"PLANT-") {
        return Some("a name or an insurance number".into());
    }
    let id = ids.iter().find(|id| has(id.to_string().as_bytes()) || has(&id.to_le_bytes()) || has(&id.to_be_bytes()));
    id.map(|_| "a patient id".into())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("snapshots") {
                files(&path, found);
            }
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("node.db") {
            found.push(path);
        }
    }
}

/// Every value of every table of a node's database but the patient register. The node may run, or have been killed:
/// then its database is recovered, which writes.
async fn ledger_of(path: &Path) -> Vec<u8> {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}?mode=rw", path.display())).await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'register%'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert!(tables.len() > 3, "{tables:?}");
    let mut bytes = Vec::new();
    for table in tables {
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info(?1)").bind(&table).fetch_all(&pool).await.unwrap();
        for column in columns {
            let sql = format!("SELECT CAST(\"{column}\" AS BLOB) FROM \"{table}\" WHERE \"{column}\" IS NOT NULL");
            for row in sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&pool).await.unwrap() {
                bytes.extend(row.get::<Vec<u8>, _>(0));
                bytes.push(0);
            }
        }
    }
    bytes
}

/// The first `each` patients of every hospital.
pub fn ids(hospitals: &Path, names: &[String], each: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    for name in names {
        let register = std::fs::read_to_string(hospitals.join(name).join("register.csv")).unwrap();
        ids.extend(register.lines().skip(1).take(each).map(|l| l.split(',').next().unwrap().parse::<i64>().unwrap()));
        assert!(planted(register.as_bytes(), &ids).is_some(), "the search works");
    }
    ids
}

/// Asserts that nothing planted is in a network's folder: logs, receipts, keys, coordinator's state, ledgers. Returns
/// the files that were searched.
pub async fn search(network: &Path, names: &[String], ids: &[i64]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(network, &mut all);
    assert!(
        all.iter().any(|f| f.ends_with("logs/hospital-1.log")) && all.iter().any(|f| f.ends_with("coordinator.db"))
    );
    for file in &all {
        let found = planted(&std::fs::read(file).unwrap(), ids);
        assert!(found.is_none(), "{} holds {found:?}", file.display());
    }
    for name in names {
        let ledger = ledger_of(&network.join("nodes").join(name).join("state/node.db")).await;
        assert!(ledger.len() > 1000);
        assert_eq!(planted(&ledger, ids), None, "the ledger of {name}");
    }
    all
}

/// In no cell is exactly one of the combined table's and the hospitals' values hidden: the others would tell it.
/// Returns how many are hidden.
fn hidden_cells(answer: &Value) -> usize {
    let mut hidden: BTreeMap<String, usize> = BTreeMap::new();
    for table in [&answer["rows"]].into_iter().chain(answer["by_holder"].as_object().unwrap().values()) {
        for row in table.as_array().unwrap() {
            let note = row["cell_note"].as_str().unwrap();
            let (suppressed, facts): (Vec<&str>, Vec<&str>) = note.split("; ").partition(|part| *part == "suppressed");
            let cell = format!("{} {} {} {facts:?}", row["age_band"], row["sex"], row["first_drug"]);
            *hidden.entry(cell).or_default() += suppressed.len();
        }
    }
    assert!(hidden.values().all(|n| *n != 1), "{hidden:#?}");
    hidden.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_identifier_is_in_logs_state_ledgers_or_on_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let now = crate::now();
    let hospitals = dir.path().join("hospitals");
    let plan = generate::Plan { hospitals: 2, patients: 600, rows: 2_000, seed: 3, as_of: now.date_naive() };
    generate(&plan, &hospitals, &|_, _| {}).unwrap();
    let names = ["hospital-1".to_string(), "hospital-2".to_string()];
    let site = |name: &String| Site {
        register: Some(hospitals.join(name).join("register.csv")),
        ..Site::new(name, study::mapping(name, &hospitals.join(name)))
    };
    let setup = Setup {
        register_rule: "jp-ngmia".into(),
        ..Setup::new(dir.path().join("network"), names.iter().map(site).collect(), study::SCHEMA)
    };
    let mut network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    // The nodes' link and the researcher's go through taps, and logs say all they can.
    let (door, door_bytes) = tap(network.door().trim_start_matches("http://").into());
    let mut wires = vec![door_bytes];
    for name in &names {
        let path = network.node_file(name, "node.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let address = config.lines().find(|l| l.starts_with("address")).unwrap().split('"').nth(1).unwrap().to_string();
        let port = address.rsplit('/').next().unwrap();
        let (tapped, bytes) = tap(format!("127.0.0.1:{port}"));
        wires.push(bytes);
        let other = format!("/ip4/127.0.0.1/tcp/{}", tapped.rsplit(':').next().unwrap());
        let config = config.replace(&address, &other).replace("level = \"info\"", "level = \"debug\"");
        std::fs::write(&path, config.replace("format = \"text\"", "format = \"json\"")).unwrap();
        network.kill_node(name);
        network.start_node(name).unwrap();
    }
    network.wait_connected(2).unwrap();
    let schema = network.dir().join("schema.dsse.json");
    let researcher = network.public_key("researcher").unwrap();
    let holders = names.iter().map(String::as_str).collect();
    let text = PermitText { schema: &schema, researcher: &researcher, holders, per_query: 100_000, total: 400_000 };
    let permit = network.permit("permit", &study::permit(&text, now)).unwrap();
    let (door, key) = (format!("http://{door}"), network.key("researcher"));
    let mut hidden = 0;
    for (sql, code) in [(study::FEASIBILITY, 0), (study::ADVERSE_EVENTS, 0), (study::ROWS, 1)] {
        let args =
            ["--coordinator", &door, "query", "--permit", &permit, "--sql", sql, "--key", &key, "--output", "json"];
        let output = crate::launcher().output(Party::Person, &args).unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        if code == 0 {
            hidden += hidden_cells(&serde_json::from_slice(&output.stdout).unwrap());
        }
    }
    assert!(hidden > 0, "some of so many cells are small enough to be hidden");

    let ids = ids(&hospitals, &names, 60);
    let log = std::fs::read_to_string(network.dir().join("logs/hospital-1.log")).unwrap();
    assert!(
        log.lines().any(|l| l.starts_with('{') && l.contains("answered") && l.contains("query")),
        "spans carry the query: {log}"
    );
    search(network.dir(), &names, &ids).await;
    for (i, wire) in wires.iter().enumerate() {
        let bytes = wire.lock().unwrap();
        assert!(bytes.len() > 1000, "tap {i} saw {} bytes", bytes.len());
        assert_eq!(planted(&bytes, &ids), None, "tap {i}");
    }
}
