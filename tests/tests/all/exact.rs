//! Exact results through processes: a person of the study asks, persons of two hospitals look and decide, and what lies too close
//! to a release is refused.

use std::process::Output;

use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays};
use serde_json::Value;

const NAMES: [&str; 2] = ["hospital-1", "hospital-2"];
const SQL: &str =
    "SELECT sex, count(*) AS n, count(DISTINCT patient_id) AS patients FROM stay GROUP BY sex ORDER BY sex";
/// Four patients of each hospital are younger.
const OLDER: &str = "SELECT count(*) AS n FROM stay WHERE age > 20";
/// A patient whose number is no other number's part.
const PLANTED: i64 = 918_273_645;

/// Two hospitals that give exact results; each has 40 women, of whom one has two stays, and 30 men.
fn network(dir: &std::path::Path) -> Network {
    let site = |name: &str| {
        let csv = dir.join(format!("{name}.csv"));
        let age = |n: i64| if n < 4 { 18 } else { 60 };
        let mut rows: Vec<_> =
            (0..70).map(|n| (PLANTED + n, if n < 40 { "female" } else { "male" }, age(n), 3)).collect();
        rows.insert(0, rows[0]);
        stays(&csv, &rows);
        Site::new(name, mapping(name, &csv, true))
    };
    let setup = Setup::new(dir.join("network"), NAMES.map(site).into(), SCHEMA);
    let mut network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    for name in NAMES {
        let file = network.node_file(name, "node.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let switched = text.replace("# [exact]\n# min_patients", "[exact]\nmin_patients");
        assert_ne!(text, switched);
        std::fs::write(&file, switched).unwrap();
        network.kill_node(name);
        network.start_node(name).unwrap();
    }
    network.wait_connected(NAMES.len()).unwrap();
    network
}

fn permit(network: &Network) -> String {
    let text = PermitText {
        study: "study",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: &NAMES.map(String::from),
        bounds: (5, 2),
        micro_rho: (1000, 10_000),
    };
    let listed = [SQL, OLDER].map(|sql| {
        let sha256 = sekisho_protocol::digest::Digest::of(sql.as_bytes());
        format!("[[allowed_queries]]\nsha256 = \"{sha256}\"\nmax_runs = 3\nrelease = \"aggregated\"\n")
    });
    let toml = permit_toml(&text, crate::now())
        .replace("release_kinds = [\"noised\"]", "release_kinds = [\"aggregated\"]")
        .replace("disclosure = \"none\"", "disclosure = \"jp-ndb\"");
    network.permit("exact", &(toml + &listed.concat())).unwrap()
}

struct Desk {
    network: Network,
    permit: String,
}

impl Desk {
    fn ask(&self, sql: &str, output: &str) -> Output {
        let key = self.network.key("researcher");
        let query = ["query", "--permit", &self.permit, "--sql", sql, "--key", &key, "--output", output];
        self.network.ask(&query).unwrap()
    }

    /// What each hospital says to a question: its code, or its state.
    fn said(&self, sql: &str) -> Vec<String> {
        let output = self.ask(sql, "json");
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let report = said.get("report").unwrap_or(&said);
        let holders = report["holders"].as_array().unwrap().iter();
        holders.map(|h| h["code"].as_str().or(h["state"].as_str()).unwrap().to_owned()).collect()
    }

    fn json(&self, name: &str, args: &[&str]) -> Value {
        let text = self.network.node(name, &[args, &["--output", "json"]].concat()).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }

    fn release(&self, name: &str, request: &str, mark: &str) -> Output {
        let args = ["exact", "release", request, "--seen", mark, "--by", "Dr Mori", "--reason", "checked"];
        self.network.node_output(name, &args).unwrap()
    }
}

#[test]
fn an_exact_result_leaves_two_hospitals_after_persons_looked_and_one_that_lies_close_to_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    let permit = permit(&network);
    let desk = Desk { network, permit };
    for _ in 0..2 {
        assert_eq!(desk.said(SQL), ["exact_waiting"; 2]);
    }
    let mut printed = String::new();
    for (place, name) in NAMES.into_iter().enumerate() {
        let waiting = desk.json(name, &["exact", "list", "--waiting"]);
        assert_eq!(
            (waiting.as_array().unwrap().len(), waiting[0]["state"].as_str()),
            (1, Some("waiting")),
            "{waiting}"
        );
        assert_eq!(desk.json(name, &["budget"])["exact_since"], Value::Null);
        let shown = desk.json(name, &["exact", "show", "1"]);
        assert_eq!((&shown["shown"]["guard"], shown["sql"].as_str()), (&Value::Null, Some(SQL)), "{shown}");
        let mark = shown["shown"]["mark"].as_str().unwrap();
        let text = desk.network.node(name, &["exact", "show", "1"]).unwrap();
        let rows = text.contains("│ female   41   40") && text.contains("│ male     30   30");
        assert!(rows && text.contains("it may be let out") && text.contains(mark), "{text}");
        let unseen = desk.release(name, "1", "000000000000");
        assert!(!unseen.status.success(), "a table that nobody looked at does not leave");
        let released = desk.release(name, "1", mark);
        assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
        printed += &shown.to_string();
        printed += &String::from_utf8_lossy(&released.stdout);
        let expect = if place == 0 { ["answered", "exact_waiting"] } else { ["answered"; 2] };
        assert_eq!(desk.said(SQL), expect);
    }
    // The same table for ever: 80 women with 82 stays, 60 men.
    let tables = [0, 1].map(|_| desk.ask(SQL, "csv"));
    assert!(tables.iter().all(|table| table.status.success()));
    assert_eq!(tables[0].stdout, tables[1].stdout);
    let table = String::from_utf8(tables[0].stdout.clone()).unwrap();
    let row = |sex: &str| {
        table.lines().find(|line| line.contains(&format!(",{sex},"))).unwrap_or_else(|| panic!("{table}")).to_owned()
    };
    assert!(row("female").contains("82") && row("female").contains("80") && row("male").contains("60"), "{table}");

    // Four patients of each hospital are not in the next one.
    assert_eq!(desk.said(OLDER), ["exact_waiting"; 2]);
    let shown = desk.json(NAMES[0], &["exact", "show", "2"]);
    assert_eq!(shown["shown"]["guard"]["code"], "near", "{shown}");
    let close = desk.release(NAMES[0], "2", shown["shown"]["mark"].as_str().unwrap());
    let said = String::from_utf8_lossy(&close.stderr).to_string();
    assert!(!close.status.success() && said.contains("too close to an earlier release"), "{said}");
    let args = ["exact", "refuse", "2", "--by", "Dr Sato", "--reason", "not now"];
    desk.network.node(NAMES[1], &args).unwrap();
    assert_eq!(desk.said(OLDER), ["exact_refused"; 2]);
    printed += &said;

    let today = crate::now().date_naive().to_string();
    for name in NAMES {
        let history = desk.json(name, &["exact", "history"]);
        assert_eq!(history["releases"].as_array().unwrap().len(), 1, "{history}");
        // The test may pass midnight.
        let since = desk.json(name, &["budget"])["exact_since"].as_str().unwrap().to_owned();
        assert!(since <= today && history["exact_since"] == *since, "{since}");
        assert_eq!(desk.json(name, &["exact", "list"]).as_array().unwrap().len(), 2);
        printed += &desk.network.node(name, &["log", "check", "--all"]).unwrap();
        let args = ["inspect", "replay", "1", "--by", "Inspector", "--reason", "audit"];
        let replay = desk.network.node(name, &args).unwrap();
        assert!(replay.contains("MATCH"), "{replay}");
    }
    assert!(!printed.contains(&PLANTED.to_string()), "{printed}");
}
