//! An application's life by the commands that its people type: change asked, handed in anew, found complete, approved by two,
//! permitted, and put to use; and what is refused on the way, with its code and the words that help.

use std::{fs, process::Output};

use sekisho_sim::network::{Network, Rules, Setup, Site};
use sekisho_tests::{PermitText, SCHEMA, mapping, permit_toml, stays};
use serde_json::Value;

const HOSPITAL: &str = "hospital-1";
const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex";

/// A draft that lacks nothing but what each test takes away.
fn draft(researcher: &str) -> String {
    let from = crate::now().date_naive();
    let to = from + chrono::Duration::days(300);
    format!(
        r#"id = "stays"
basis = "EHDS-69"
principal_investigator = "Ada"
purposes = ["scientific_research"]
use_description = "to plan beds"
expected_benefit = "fewer transfers"
study_id = "stays"
schema = "network/schema.dsse.json"
safeguards = "keys on two machines"
stigma_declaration = "no group is named"
prohibited_uses_acknowledged = true
result_expected = "a table"
statistic_content = "stays by sex"
statistics = ["count"]
release_kinds = ["noised"]
disclosure = "none"
only_these_queries = true
[applicant]
name = "University"
functions = "research"
country = "JP"
[[people]]
id = "ada"
role = "analyst"
key = "{researcher}"
[[data]]
table = "stay"
columns = ["sex"]
holder_nodes = ["{HOSPITAL}"]
[period]
from = "{from}"
to = "{to}"
[dp]
rows_per_patient = 2
groups_per_patient = 1
sites_per_patient = 1
micro_rho_per_query = 100000
micro_rho_total = 300000
delta_for_reports = "1e-6"
[[queries]]
sql = "{SQL}"
max_runs = 2
"#
    )
}

struct Case {
    network: Network,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stay.csv");
        stays(&csv, &(0..300).map(|i| (i, "female", 50, 3)).collect::<Vec<_>>());
        let setup = Setup {
            budget: Some((1_000_000, 100_000)),
            rules: Rules { application_required: true, ..Rules::default() },
            ..Setup::new(dir.path().join("network"), vec![Site::new(HOSPITAL, mapping(HOSPITAL, &csv, false))], SCHEMA)
        };
        Self { network: Network::build(&setup, crate::launcher(), &|_| {}).unwrap(), dir }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn written(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        self.file(name)
    }

    /// Runs `sekisho` with the key of `who`, if anybody's.
    fn run(&self, who: &str, args: &[&str]) -> Output {
        let key = self.network.key(who);
        let with = if who.is_empty() { vec![] } else { vec!["--key", &key] };
        self.network.ask(&[args, &with].concat()).unwrap()
    }

    fn done(&self, who: &str, args: &[&str]) -> String {
        let output = self.run(who, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// It is refused with this code, and its words say `says`.
    fn refused(&self, who: &str, args: &[&str], code: &str, says: &str) {
        let output = self.run(who, args);
        let said = String::from_utf8(output.stderr).unwrap();
        let expect = if code == "bad_input" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(expect), "{args:?}: {said}");
        assert!(said.contains(&format!("error[{code}]: ")) && said.contains(says), "{args:?}: {said}");
        assert!(said.contains("  do: "), "{args:?}: {said}");
    }

    fn json(&self, who: &str, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(who, &[args, &["--output", "json"]].concat())).unwrap()
    }

    fn state(&self) -> String {
        self.json("ethicist", &["application", "list"])[0]["state"].as_str().unwrap().to_string()
    }
}

#[test]
fn an_application_is_changed_completed_approved_by_two_permitted_and_its_query_answered() {
    let case = Case::new();
    let text = draft(&case.network.public_key("researcher").unwrap());
    let whole = case.written("application.toml", &text);
    let lacks = case.written("lacks.toml", &text.replace("safeguards = ", "# "));
    let overrides =
        case.written("overrides.toml", "issuer = \"Body\"\n[decision]\nreasons = \"in the public interest\"\n");
    let permit = case.file("permit.dsse.json");

    // The applicant.
    case.refused("", &["application", "check", &lacks], "application_incomplete", "safeguards");
    case.done("", &["application", "check", &whole]);
    let runs = case.json("", &["application", "dry-run", &whole]);
    let run = &runs[0];
    assert_eq!((&run["admissible"], &run["micro_rho"]), (&true.into(), &100_000.into()));
    // k = 2 rows of a patient in full: sd = 2 / sqrt(2 * 0.1) = 4.472, so 4.472 % of a cell of 100.
    assert_eq!(
        (&run["measures"][0]["standard_deviation"], &run["measures"][0]["relative"][1]),
        (&"4.472".into(), &"4.472 %".into())
    );
    for (who, prohibited) in [("", "check"), ("researcher", "submit")] {
        let text = text.replace("scientific_research", "insurance");
        let insurance = case.written("insurance.toml", &text);
        case.refused(who, &["application", prohibited, &insurance], "purpose_prohibited", "EHDS Art. 54(b)");
    }
    case.refused("ethicist", &["application", "submit", &whole], "not_authorised", "people");
    case.done("researcher", &["application", "submit", &lacks]);
    case.refused("researcher", &["application", "submit", &lacks], "bad_input", "says the same");

    // The committee asks for a change; nobody else reads along.
    case.refused("governance", &["review", "show", "stays"], "not_authorised", "no member of the committee");
    case.refused("ethicist", &["review", "complete", "stays"], "application_incomplete", "safeguards");
    case.done("ethicist", &["review", "request-changes", "stays", "--reasons", "What of safeguards?"]);
    assert_eq!(case.state(), "changes_requested");
    let draft = ["permit", "new", "--application", "stays", "--from", &overrides, "--out", &permit];
    case.done("researcher", &["application", "submit", &whole]);
    let shown = case.json("ethicist", &["review", "show", "stays", "--recompute"]);
    assert_eq!((&shown["document"]["version"], &shown["differing"]), (&2.into(), &serde_json::json!([])));
    assert_eq!(shown["reviews"][0]["review"]["reasons"], "What of safeguards?");

    // Complete first, then lawful.
    case.done("ethicist", &draft);
    let approve = ["review", "approve", "stays", "--permit", &permit, "--reasons", "worth it"];
    case.refused("ethicist", &approve, "not_reviewed", "complete by nobody");
    case.done("patients", &["review", "complete", "stays"]);
    assert_eq!(case.state(), "complete");
    let due = case.json("ethicist", &["permit", "due", "--all"]);
    assert_eq!((&due[0]["task"], &due[0]["state"]), (&"decide".into(), &"open".into()));
    case.done("ethicist", &approve);
    case.refused("", &["permit", "submit", &permit], "quorum_not_met", "1 of the 2");
    case.done("patients", &approve);
    let said = case.done("", &["permit", "submit", &permit]);
    assert!(said.contains(HOSPITAL) && said.contains("answered"), "{said}");
    assert_eq!(case.state(), "permitted");

    // The one query that was applied for is answered, as often as applied for; another is not.
    let query = ["query", "--permit", "stays", "--sql"];
    case.done("researcher", &[&query[..], &[SQL]].concat());
    case.refused("researcher", &[&query[..], &["SELECT count(*) FROM stay"]].concat(), "query_not_listed", "");

    // What is left to do, and what was done.
    let published = ["permit", "published", "stays", "--url", "https://example.org/1"];
    case.refused("researcher", &published, "not_authorised", "a member of the committee");
    case.done("ethicist", &published);
    let due = case.json("", &["permit", "due", "--all", "--at", "2099-01-01"]);
    let state = |task: &str| {
        let duty = due.as_array().unwrap().iter().find(|duty| duty["task"] == task).unwrap();
        duty["state"].as_str().unwrap().to_string()
    };
    assert_eq!([state("publish_decision"), state("publish_results")], ["done", "late"]);
    let by_name = ["permit", "due", "--all", "--periods", "jp-ngmia"];
    assert!(case.done("", &by_name).contains("certified operators"));
}

#[test]
fn a_permit_is_no_wider_has_an_application_and_no_signature_of_a_member_with_a_conflict() {
    let case = Case::new();
    let researcher = case.network.public_key("researcher").unwrap();
    let application = case.written("application.toml", &draft(&researcher));
    case.done("researcher", &["application", "submit", &application]);
    case.done("ethicist", &["review", "complete", "stays"]);

    // One that answers no application.
    let (schema, holders) = (case.dir.path().join("network/schema.dsse.json"), [HOSPITAL.to_string()]);
    let text = PermitText {
        study: "alone",
        schema: &schema,
        researcher: &researcher,
        table: ("stay", &["sex"]),
        holders: &holders,
        bounds: (2, 1),
        micro_rho: (100_000, 300_000),
    };
    let alone = case.written("alone.toml", &permit_toml(&text, crate::now()));
    let file = case.file("alone.dsse.json");
    case.done("", &["permit", "new", "--from", &alone, "--out", &file]);
    for member in ["ethicist", "patients"] {
        case.done(member, &["permit", "sign", &file]);
    }
    case.refused("", &["permit", "submit", &file], "application_unknown", "names no application");

    // Wider than what was applied for, field by field.
    let permit = case.file("permit.dsse.json");
    let reasons = "issuer = \"Body\"\n[decision]\nreasons = \"good\"\n";
    let new = |overrides: &str| {
        let from = case.written("overrides.toml", overrides);
        ["permit", "new", "--application", "stays", "--from", &from, "--out", &permit].map(String::from)
    };
    for (overrides, code, says) in [
        ("[dp]\nmicro_rho_total = 300001", "wider_than_application", "dp.micro_rho_total"),
        (
            "[[data]]\ntable = \"stay\"\ncolumns = [\"age\"]\nholder_nodes = [\"hospital-1\"]",
            "wider_than_application",
            "data.columns",
        ),
        ("[validity]\nto = \"2090-01-01T00:00:00Z\"", "bad_input", "at most 10 years"),
        ("[optout]\nrule = \"nobody\"", "bad_input", "nobody"),
    ] {
        let args = new(&format!("{reasons}{overrides}\n"));
        case.refused("ethicist", &args.each_ref().map(String::as_str), code, says);
    }
    let wider = format!("purposes = [\"education\"]\n{reasons}");
    case.refused("ethicist", &new(&wider).each_ref().map(String::as_str), "wider_than_application", "purposes");
    let prohibited = format!("purposes = [\"marketing\"]\n{reasons}");
    case.refused("ethicist", &new(&prohibited).each_ref().map(String::as_str), "purpose_prohibited", "marketing");

    // The drafter's machine names the member with a conflict; a signature of that member spoils the permit.
    let draft = new(reasons);
    let draft = draft.each_ref().map(String::as_str);
    let again = || {
        let _ = fs::remove_file(&permit);
        case.done("ethicist", &draft);
    };
    let approve = ["review", "approve", "stays", "--permit", &permit, "--reasons", "good"];
    case.done("ethicist", &draft);
    case.done("statistician", &["review", "conflict", "stays", "--reasons", "my own unit"]);
    case.refused("ethicist", &approve, "conflict_of_interest", "statistician");
    again();
    case.refused("statistician", &approve, "conflict_of_interest", "recused");
    case.done("statistician", &["permit", "sign", &permit]);
    case.done("ethicist", &approve);
    case.refused("", &["permit", "submit", &permit], "quorum_not_met", "1 of the 2");
    case.done("patients", &approve);
    case.refused("", &["permit", "submit", &permit], "conflict_of_interest", "statistician");
    again();
    for member in ["ethicist", "patients"] {
        case.done(member, &approve);
    }
    case.done("", &["permit", "submit", &permit]);

    // The next version follows the one before it, and nothing else.
    let other = "0".repeat(64);
    for (overrides, code) in
        [(format!("supersedes = \"{other}\"\n{reasons}"), Some("supersession")), (reasons.into(), None)]
    {
        case.written("overrides.toml", &overrides);
        again();
        for member in ["ethicist", "patients"] {
            case.done(member, &approve);
        }
        match code {
            Some(code) => case.refused("", &["permit", "submit", &permit], code, "version 1 is"),
            None => assert!(case.done("", &["permit", "submit", &permit]).contains("answered")),
        }
    }
    assert_eq!(case.json("", &["permit", "show", "stays"])["document"]["version"], 2);
}
