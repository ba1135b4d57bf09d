//! A network on which every page has something to show, built by the commands of its people: one study that was applied for,
//! decided, asked about, published; one with a result under review; one that is suspended; one whose exact result waits; an application
//! that waits; and one that says hostile things in every text that it has.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use sekisho_sim::network::{Accept, Network, Setup, Site};
use sekisho_tests::{PermitText, SCHEMA, mapping, permit_toml, stays};
use serde_json::{Value, json};

use crate::watch::free;

/// Accepts permits by its policy.
pub(super) const FIRST: &str = "hospital-1";
/// Accepts permits by hand, and has a console.
pub(super) const SECOND: &str = "hospital-2";
/// Asked, answered and published.
pub(super) const STUDY: &str = "beds";
/// Its question.
pub(super) const SQL: &str = "SELECT sex, count(*) AS n, avg(days) AS days FROM stay GROUP BY sex ORDER BY sex";
/// Its result waits for a second reviewer.
pub(super) const HELD: &str = "discharges";
/// Suspended by the governance; its permit waits at the second hospital.
pub(super) const PAUSED: &str = "transfers";
/// Asked for exactly; a person of the second hospital has yet to look.
const EXACT: &str = "wards";
const EXACT_SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex";
/// An application that nobody has looked at.
pub(super) const NEW: &str = "readmissions";
/// Hostile in every text.
pub(super) const HOSTILE: &str = "hostile";
/// What a page must show as it is.
pub(super) const ATTACK: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>' onfocus='alert(3)' autofocus \
                                 javascript:alert(4) {{ 7*7 }} &lt;b&gt; \u{202e}fdp.exe";
/// In a question: its names and its literal are the asker's.
pub(super) const ATTACK_SQL: &str = "SELECT sex AS \"<img src=x onerror=alert(5)>\", count(*) AS \"<script>alert(6)</script>\" \
                                     FROM stay WHERE note <> '</code><script>alert(7)</script>' GROUP BY sex";
/// What one query may cost by permits; hospitals allow half of it.
const PER_QUERY: u64 = 2_000_000;

/// The network with its pages, its console, and who signs in.
pub(super) struct World {
    pub(super) network: Network,
    /// The coordinator's pages.
    pub(super) pages: SocketAddr,
    /// The console of [`SECOND`].
    pub(super) console: SocketAddr,
    /// Tokens by the names of their owners.
    pub(super) tokens: BTreeMap<&'static str, String>,
    /// What the command line said of [`SQL`], as JSON.
    pub(super) answer: Value,
    /// The digests of results by their studies.
    pub(super) results: BTreeMap<String, String>,
    /// Where files of people go.
    pub(super) dir: tempfile::TempDir,
}

impl World {
    /// Builds it and waits until all of it is known everywhere.
    pub(super) fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = |name: &str, accept| {
            let csv = dir.path().join(format!("{name}.csv"));
            stays(&csv, &(0..400).map(|i| (i, ["female", "male"][i as usize % 2], 50, 3)).collect::<Vec<_>>());
            Site { name: name.into(), mapping: mapping(name, &csv, true), register: None, accept }
        };
        let setup = Setup {
            budget: Some((1000 * PER_QUERY, PER_QUERY / 2)),
            ..Setup::new(
                dir.path().join("network"),
                vec![site(FIRST, Accept::Automatic), site(SECOND, Accept::ByHand)],
                SCHEMA,
            )
        };
        let network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
        let (pages, console) = (free(), free());
        let add = |file: String, text: String| fs::write(&file, fs::read_to_string(&file).unwrap() + &text).unwrap();
        let coordinator = network.dir().join("coordinator/coordinator.toml").display().to_string();
        add(coordinator, format!("\n[pages]\naddress = \"{pages}\"\n"));
        let table = format!(
            "\n[console]\naddress = \"{console}\"\ntoken_file = \"console-tokens\"\n[exact]\nmin_patients = 10\n"
        );
        add(network.node_file(SECOND, "node.toml"), table);
        network.person(&["keys", "new", "--out", &network.key("bob")]).unwrap();
        let mut world = Self {
            network,
            pages,
            console,
            tokens: BTreeMap::new(),
            answer: Value::Null,
            results: BTreeMap::new(),
            dir,
        };
        world.hand_out_tokens();
        world.network.kill_coordinator();
        world.network.start_coordinator().unwrap();
        world.network.kill_node(SECOND);
        world.network.start_node(SECOND).unwrap();
        world.network.wait_connected(2).unwrap();
        world.published_study();
        world.held_result();
        world.suspended_study();
        world.exact_study();
        world.applies(NEW, "to see who comes back", "fewer readmissions");
        world.hostile_study();
        let released = world.person("researcher", &["release", "list", "--output", "json"], 0);
        let released: Vec<Value> = serde_json::from_str(&released).unwrap();
        let named = |one: &Value| (one["study"].as_str().unwrap().into(), one["result"].as_str().unwrap().into());
        world.results.extend(released.iter().map(named));
        world
    }

    /// The address of the page of the release of a study.
    pub(super) fn release(&self, study: &str) -> String {
        format!("/releases/{}", self.results[study])
    }

    /// The address of the data user's page of the answer to [`SQL`].
    pub(super) fn result(&self) -> String {
        format!("/desk/results/{}", self.answer["report"]["round"].as_str().unwrap())
    }

    fn hand_out_tokens(&mut self) {
        let print = |key: &str| {
            let key: sekisho_protocol::keys::PublicKey = self.network.public_key(key).unwrap().parse().unwrap();
            key.fingerprint().to_string()
        };
        let (ada, bob) = (print("researcher"), print("bob"));
        for (name, role, person) in [
            ("mhlw", "regulator", None),
            ("gone", "regulator", None),
            ("ethicist", "committee", Some("ethicist")),
            ("patients", "committee", Some("patients")),
            ("ada", "user", Some(ada.as_str())),
            ("bob", "user", Some(bob.as_str())),
        ] {
            self.tokens.insert(name, self.token(name, role, person));
        }
        for (name, role) in [("sato", "operator"), ("suzuki", "viewer")] {
            let token = self.network.node(SECOND, &["console", "token", "add", name, "--role", role]).unwrap();
            self.tokens.insert(name, token.trim().into());
        }
    }

    /// A new token for the pages.
    pub(super) fn token(&self, name: &str, role: &str, person: Option<&str>) -> String {
        let person = person.map(|person| ["--person", person]);
        let args = ["pages", "token", "add", name, "--role", role];
        let args: Vec<&str> = args.into_iter().chain(person.into_iter().flatten()).collect();
        self.operator(&args)
    }

    /// Runs `sekisho-coordinator`, which must end well.
    pub(super) fn operator(&self, args: &[&str]) -> String {
        let output = self.network.coordinator_output(args).unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().into()
    }

    /// Runs `sekisho` with the key of `who`; it must end with this code.
    pub(super) fn person(&self, who: &str, args: &[&str], code: i32) -> String {
        let key = self.network.key(who);
        let with = if who.is_empty() { vec![] } else { vec!["--key", &key] };
        let output = self.network.ask(&[args, &with].concat()).unwrap();
        let (said, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{words}");
        format!("{said}{words}")
    }

    /// Runs a line that a page gave, with the files that it names in the network's folder, as a person would.
    pub(super) fn types(&self, line: &str, key: &str) -> std::process::Output {
        let line = line.trim().replace("YOUR-KEY.pem", &self.network.key(key));
        let words = words(&line);
        assert_eq!(words.first().map(String::as_str), Some("sekisho"), "{line}");
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        self.network.ask(&args).unwrap()
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(super) fn written(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        self.file(name)
    }

    fn applies(&self, id: &str, use_description: &str, benefit: &str) {
        let text = application(id, use_description, benefit, &self.network.public_key("researcher").unwrap());
        let file = self.written(&format!("{id}.toml"), &text);
        self.person("researcher", &["application", "submit", &file, "--schema", &self.schema()], 0);
    }

    fn schema(&self) -> String {
        self.network.dir().join("schema.dsse.json").display().to_string()
    }

    /// A permit that answers an application, signed by two, accepted by both hospitals.
    fn permits(&self, id: &str, reasons: &str) {
        self.person("ethicist", &["review", "complete", id, "--reasons", reasons], 0);
        let text = format!("issuer = \"Synthetic access body\"\n[decision]\nreasons = {}\n", json!(reasons));
        let (overrides, permit) = (self.written("overrides.toml", &text), self.file(&format!("{id}.dsse.json")));
        let draft = ["permit", "new", "--application", id, "--from", &overrides, "--out", &permit];
        self.person("ethicist", &draft, 0);
        for member in ["ethicist", "patients"] {
            self.person(member, &["review", "approve", id, "--permit", &permit, "--reasons", reasons], 0);
        }
        self.person("", &["permit", "submit", &permit], 4);
        let reason: String = reasons.chars().take(200).filter(|c| !c.is_control()).collect();
        self.network.node(SECOND, &["permits", "accept", id, "--reason", &reason]).unwrap();
    }

    fn published_study(&mut self) {
        self.applies(STUDY, "To plan beds: how many stay for how long", "Fewer transfers at night");
        self.permits(STUDY, "In the public interest");
        let query = ["query", "--permit", STUDY, "--sql", SQL, "--rho", "1000000"];
        let dry = [&query[..], &["--dry-run", "--output", "json"]].concat();
        self.until(|| {
            self.network
                .ask(&[&dry[..], &["--key", &self.network.key("researcher")]].concat())
                .unwrap()
                .status
                .success()
        });
        let said = self.person("researcher", &[&query[..], &["--output", "json"]].concat(), 0);
        self.answer = serde_json::from_str(said.split_inclusive("\n}").next().unwrap()).unwrap();
        // Twice what the hospitals allow.
        self.person("researcher", &["query", "--permit", STUDY, "--sql", SQL, "--run", "2"], 1);
        for (verb, who) in [("published", "ethicist"), ("results", "researcher")] {
            self.person(who, &["permit", verb, STUDY, "--url", "https://doi.org/10.5555/12345678"], 0);
        }
    }

    /// A permit that answers no application, at these hospitals.
    fn plain_permit(&self, study: &str, holders: &[&str], change: impl FnOnce(String) -> String, code: i32) {
        let holders: Vec<String> = holders.iter().map(|name| (*name).into()).collect();
        let text = PermitText {
            study,
            schema: &self.network.dir().join("schema.dsse.json"),
            researcher: &self.network.public_key("researcher").unwrap(),
            table: ("stay", &["sex", "days"]),
            holders: &holders,
            bounds: (5, 2),
            micro_rho: (PER_QUERY / 2, 10 * PER_QUERY),
        };
        let toml = permit_toml(&text, crate::now());
        let draft = self.written(&format!("{study}.toml"), &change(toml));
        let file = self.file(&format!("{study}.dsse.json"));
        self.person("", &["permit", "new", "--from", &draft, "--out", &file], 0);
        for member in ["ethicist", "patients"] {
            self.person(member, &["permit", "sign", &file], 0);
        }
        self.person("", &["permit", "submit", &file], code);
    }

    fn held_result(&mut self) {
        let held = |toml: String| toml.replace("disclosure =", "output_review = \"two_person\"\ndisclosure =");
        self.plain_permit(HELD, &[FIRST], held, 0);
        let said = self.person("researcher", &["query", "--permit", HELD, "--sql", SQL], 1);
        assert!(said.contains("awaiting_review"), "{said}");
        let held: Value =
            serde_json::from_str(&self.person("ethicist", &["output", "list", "--output", "json"], 0)).unwrap();
        let result = held[0]["result"].as_str().unwrap().to_string();
        self.person("ethicist", &["output", "release", &result, "--reasons", "large cells"], 0);
        self.results.insert(HELD.into(), result);
    }

    fn suspended_study(&self) {
        self.plain_permit(PAUSED, &[FIRST, SECOND], |toml| toml, 4);
        self.person("governance", &["status", "suspend", PAUSED], 0);
    }

    /// A question for an exact result, at which a person of [`SECOND`] has yet to look.
    fn exact_study(&self) {
        let sha256 = sekisho_protocol::digest::Digest::of(EXACT_SQL.as_bytes());
        let listed = format!("[[allowed_queries]]\nsha256 = \"{sha256}\"\nmax_runs = 1\nrelease = \"aggregated\"\n");
        let exact = |toml: String| {
            let kinds = toml.replace("release_kinds = [\"noised\"]", "release_kinds = [\"aggregated\"]");
            kinds.replace("disclosure = \"none\"", "disclosure = \"jp-ndb\"") + &listed
        };
        self.plain_permit(EXACT, &[SECOND], exact, 4);
        self.network.node(SECOND, &["permits", "accept", EXACT, "--reason", "two cells"]).unwrap();
        let key = self.network.key("researcher");
        let query = ["query", "--permit", EXACT, "--sql", EXACT_SQL, "--key", &key];
        self.until(|| String::from_utf8_lossy(&self.network.ask(&query).unwrap().stderr).contains("exact_waiting"));
    }

    fn hostile_study(&self) {
        let long = format!("{ATTACK} {}", "x".repeat(10_000));
        self.applies(HOSTILE, &long, ATTACK);
        self.permits(HOSTILE, &long);
        self.person("researcher", &["query", "--permit", HOSTILE, "--sql", ATTACK_SQL, "--rho", "1000000"], 0);
        let url = "https://example.org/\"><svg/onload=alert(8)>";
        self.person("researcher", &["permit", "results", HOSTILE, "--url", url], 0);
    }

    /// Waits until something that was done in one place is known in another.
    fn until(&self, holds: impl Fn() -> bool) {
        let end = std::time::Instant::now() + super::driver::WITHIN;
        while !holds() {
            assert!(std::time::Instant::now() < end, "what was done is not known everywhere in time");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

/// An application for counts and means of stays at both hospitals.
fn application(id: &str, use_description: &str, benefit: &str, researcher: &str) -> String {
    let from = crate::now().date_naive() - chrono::Duration::days(1);
    let (to, sql) = (from + chrono::Duration::days(300), SQL);
    let (use_description, benefit) = (json!(use_description), json!(benefit));
    let name = json!(if id == HOSTILE { ATTACK } else { "Synthetic University" });
    format!(
        r#"id = "{id}"
basis = "EHDS-69"
principal_investigator = {name}
purposes = ["scientific_research"]
use_description = {use_description}
expected_benefit = {benefit}
study_id = "{id}"
schema = "network/schema.dsse.json"
level = "statistics"
level_justification = "Counts answer the question"
safeguards = "Keys on two machines"
stigma_declaration = "No group but the two sexes is named"
prohibited_uses_acknowledged = true
result_expected = "A table"
statistic_content = "Stays by sex"
statistics = ["count", "avg"]
release_kinds = ["noised"]
disclosure = "none"
[applicant]
name = {name}
functions = "Research"
sector = "academic"
country = "JP"
[[people]]
id = "ada"
role = "analyst"
key = "{researcher}"
training = "data protection, 2026"
[[data]]
table = "stay"
columns = ["sex", "days", "note"]
holder_nodes = ["{FIRST}", "{SECOND}"]
dataset = "stays"
categories = ["electronic health records"]
time_range = "2020 to 2026"
geography = "JP"
[period]
from = "{from}"
to = "{to}"
justification = "One year of planning"
[dp]
rows_per_patient = 2
groups_per_patient = 1
sites_per_patient = 1
micro_rho_per_query = {PER_QUERY}
micro_rho_total = {}
delta_for_reports = "1e-6"
[[queries]]
sql = "{sql}"
max_runs = 4
"#,
        20 * PER_QUERY
    )
}

/// The words of a command line that is quoted for a shell: by the shell itself.
fn words(line: &str) -> Vec<String> {
    let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\0' {line}")]).output().unwrap();
    assert!(output.status.success(), "{line}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(Into::into).collect()
}
