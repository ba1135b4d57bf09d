//! Every key of a running network gives way to another one, by the commands that its people type, and a study goes on.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use sekisho_protocol::roster::Member;
use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays};

const RHO: u64 = 1_000_000;
const SQL: &str = "SELECT count(*) AS n FROM stay";
const HOSPITAL: &str = "hospital-1";
const CHANGED_OVER: Duration = Duration::from_secs(120);

struct Case {
    network: Network,
    permit: String,
    runs: u32,
    governance: String,
}

impl Case {
    fn new(dir: &Path) -> Self {
        let csv = dir.join("stay.csv");
        stays(&csv, &(0..200).map(|i| (i, "female", 50, 3)).collect::<Vec<_>>());
        let setup = Setup {
            budget: Some((100 * RHO, RHO)),
            ..Setup::new(dir.join("network"), vec![Site::new(HOSPITAL, mapping(HOSPITAL, &csv, true))], SCHEMA)
        };
        let network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
        let researcher = network.public_key("researcher").unwrap();
        let text = PermitText {
            study: "long-study",
            schema: &network.dir().join("schema.dsse.json"),
            researcher: &researcher,
            table: ("stay", &COLUMNS),
            holders: &[HOSPITAL.into()],
            bounds: (5, 2),
            micro_rho: (RHO, 40 * RHO),
        };
        let permit = network.permit("permit", &permit_toml(&text, crate::now())).unwrap();
        let governance = network.key("governance");
        Self { network, permit, runs: 0, governance }
    }

    fn file(&self, name: &str) -> String {
        self.network.dir().join(name).display().to_string()
    }

    /// Asks a new run; the exit code and what was said on standard error.
    fn ask(&mut self) -> (i32, String) {
        self.runs += 1;
        let (key, run) = (self.network.key("researcher"), self.runs.to_string());
        let args = ["query", "--permit", &self.permit, "--sql", SQL, "--key", &key, "--run", &run, "--output", "csv"];
        let output = self.network.ask(&args).unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn answered(&mut self, when: &str) {
        let (code, said) = self.ask();
        assert_eq!(code, 0, "{when}: {said}");
    }

    fn refused(&mut self, code: &str, when: &str) {
        let (_, said) = self.ask();
        assert!(said.contains(&format!("error[{code}]")), "{when}: {said}");
    }

    fn sekisho(&self, args: &[&str]) -> String {
        let said = self.network.sekisho(args).unwrap();
        println!("$ sekisho {}\n{said}", args.join(" "));
        said
    }

    fn node(&self, args: &[&str]) -> String {
        let said = self.network.node(HOSPITAL, args).unwrap();
        println!("$ sekisho-node {}\n{said}", args.join(" "));
        said
    }

    /// Hands the member that a rotation printed to the access body, which puts it on the roster.
    fn replace_member(&self, printed: &str) -> Member {
        let file = self.file("member.json");
        fs::write(&file, printed).unwrap();
        self.sekisho(&["roster", "add", &file, "--replace", "--key", &self.governance]);
        serde_json::from_str(printed).unwrap()
    }

    /// Waits until the node shows only keys in use, and these are `member`'s.
    fn changed_over(&self, member: &Member) {
        let until = Instant::now() + CHANGED_OVER;
        let next = ["keys/signing.next.pem", "keys/transport.next.pem"].map(|f| self.network.node_file(HOSPITAL, f));
        while next.iter().any(|file| Path::new(file).exists()) {
            assert!(Instant::now() < until, "the node did not change over");
            std::thread::sleep(Duration::from_millis(100));
        }
        let shown: Member = serde_json::from_str(&self.network.node(HOSPITAL, &["keys", "show"]).unwrap()).unwrap();
        assert_eq!(shown, *member);
    }

    fn pin_regulator(&mut self) {
        self.network.person(&["keys", "new", "--out", &self.network.key("ministry")]).unwrap();
        let key = self.network.public_key("ministry").unwrap();
        for config in [self.file("coordinator/coordinator.toml"), self.network.node_file(HOSPITAL, "node.toml")] {
            let mut file = fs::OpenOptions::new().append(true).open(config).unwrap();
            write!(file, "\n[[trust.regulators]]\nname = \"ministry\"\nkey = \"{key}\"\n").unwrap();
        }
        self.network.kill_node(HOSPITAL);
        self.network.kill_coordinator();
        self.network.start_coordinator().unwrap();
        self.network.start_node(HOSPITAL).unwrap();
        self.network.wait_connected(1).unwrap();
    }
}

#[test]
fn keys_and_committees_of_a_running_network_give_way_and_a_study_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut case = Case::new(dir.path());
    case.answered("at the start");

    // The hospital's signing key, while the node runs; then its transport key.
    let printed = case.node(&["keys", "rotate", "signing"]);
    case.answered("before the roster names the next key");
    let member = case.replace_member(&printed);
    case.changed_over(&member);
    case.answered("with the next signing key");
    let printed = case.node(&["keys", "rotate", "transport"]);
    let member = case.replace_member(&printed);
    case.changed_over(&member);
    case.network.wait_connected(1).unwrap();
    case.answered("with the next transport key");
    // What the first key signed is verified with the roster of its time.
    assert!(case.sekisho(&["roster", "show", "--seq", "1"]).contains("signing key"));

    // The governance key.
    let new = case.network.key("governance-2");
    case.network.person(&["keys", "new", "--out", &new]).unwrap();
    let old = std::mem::replace(&mut case.governance, new.clone());
    case.sekisho(&["governance", "rotate", "--key", &old, "--new-key", &new, "--reason", "a year has passed"]);
    case.sekisho(&["governance", "show"]);
    case.network.wait_connected(1).unwrap();
    case.answered("under the next governance key");
    assert!(!case.network.ask(&["status", "refresh", "--key", &old]).unwrap().status.success());

    // A member of the committee leaves for another.
    case.network.person(&["keys", "new", "--out", &case.network.key("successor")]).unwrap();
    let (add, draft) =
        (format!("abe:ethicist:{}", case.network.public_key("successor").unwrap()), case.file("c.dsse.json"));
    case.sekisho(&[
        "committee",
        "new",
        "--remove",
        "ethicist",
        "--add",
        &add,
        "--reason",
        "term ended",
        "--out",
        &draft,
    ]);
    case.sekisho(&["committee", "sign", &draft, "--key", &case.network.key("patients")]);
    case.sekisho(&["committee", "sign", &draft, "--key", &case.network.key("statistician")]);
    case.sekisho(&["committee", "submit", &draft]);
    case.sekisho(&["committee", "show"]);
    assert!(case.node(&["trust", "show"]).contains("abe (ethicist)"));
    case.answered("under a permit that the former committee signed");

    // The next version of the permit: who left cannot sign it, who came can, and the spending goes on.
    let (json, file) = (case.file("amended.json"), case.file("amended.dsse.json"));
    case.sekisho(&["permit", "amend", "long-study", "--out", &json]);
    case.sekisho(&["permit", "new", "--from", &json, "--out", &file]);
    for member in ["ethicist", "patients"] {
        case.sekisho(&["permit", "sign", &file, "--key", &case.network.key(member)]);
    }
    assert!(!case.network.ask(&["permit", "submit", &file]).unwrap().status.success(), "who left signs nothing new");
    case.sekisho(&["permit", "sign", &file, "--key", &case.network.key("successor")]);
    case.sekisho(&["permit", "submit", &file]);
    case.sekisho(&["status", "supersede", "long-study", "--version", "2", "--key", &new]);
    case.refused("permit_superseded", "under the first version");
    case.permit = "long-study".into();
    case.answered("under the second version");
    let budget = case.sekisho(&["budget", "long-study", "--output", "json"]);
    let budget: serde_json::Value = serde_json::from_str(&budget).unwrap();
    assert_eq!(budget["holders"][0]["spent"], 7 * RHO, "seven runs were answered: {budget}");
    assert_eq!(budget["holders"][0]["left"], 33 * RHO);
    case.sekisho(&["budget", "long-study"]);

    // A regulator's order, and its end.
    case.pin_regulator();
    case.answered("after a restart of everything");
    let (key, first, second) = (case.network.key("ministry"), case.file("o1.dsse.json"), case.file("o2.dsse.json"));
    let by = ["--regulator", "ministry", "--key", &key];
    let about = ["--study", "long-study"];
    let add = ["orders", "add", "--reason", "an inspection", "--out", &first];
    case.sekisho(&[&add[..], &about, &by].concat());
    case.sekisho(&["orders", "submit", &first]);
    case.refused("regulator_order", "under an order");
    assert!(case.node(&["orders", "show"]).contains("long-study"));
    case.sekisho(&[&["orders", "lift", "--out", &second][..], &about, &by].concat());
    case.sekisho(&["orders", "submit", &second]);
    case.sekisho(&["orders", "show"]);
    case.answered("after the order was lifted");

    // The coordinator's signing key: it signs with the one that the roster names.
    let config = case.file("coordinator/coordinator.toml");
    let coordinator = |args: &[&str]| {
        let party = std::process::Command::new(env!("CARGO_BIN_EXE_party"));
        let mut party = party;
        let output = party.arg("coordinator").args(args).args(["--config", &config]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = coordinator(&["keys", "rotate", "signing"]);
    case.network.kill_coordinator();
    case.network.start_coordinator().unwrap();
    case.network.wait_connected(1).unwrap();
    case.answered("with the coordinator's key still in use");
    case.replace_member(&printed);
    case.network.wait_connected(1).unwrap();
    case.answered("with the coordinator's next key");
    println!("{}", coordinator(&["trust", "show"]));
}
