use clap::Parser;
use sekisho_protocol::{dsse::Envelope, permit::AllowedQuery};

use super::{
    engine::{KeyExplanation, MeasureExplanation, PartExplanation, Step},
    *,
};
use crate::{
    person::permit_file,
    report::{Guarantee, Protection},
};

const SCHEMA: &str = r#"{"id":"stays","version":1,"title":"","tables":[{"name":"stay","patient":"id","columns":[
    {"name":"id","type":"int64"},{"name":"sex","type":"text","domain":["F","M"]},
    {"name":"days","type":"int64","bounds":{"min":"0","max":"30"}},{"name":"note","type":"text"}]}]}"#;
const NO_PERMIT: [&str; 3] = ["--rho=100000", "--rows-per-patient=4", "--groups-per-patient=1"];
const MEANS: &str = "SELECT sex, count(*) AS n, avg(days) FROM stay GROUP BY sex";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    command: Command,
}

fn command(sql: &str, more: &[&str]) -> Command {
    let line = ["explain", "--sql", sql].into_iter().chain(more.iter().copied());
    Line::try_parse_from(line).unwrap_or_else(|usage| panic!("{usage}")).command
}

/// A folder with a schema, plain and signed, and a permit about the signed one.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
    let signed = Envelope::sign(&schema, &[]).unwrap();
    let mut permit = {
        let path = folder.path().join("permit.toml");
        std::fs::write(&path, permit_file::TEMPLATE).unwrap();
        permit_file::read(&path).unwrap()
    };
    permit.schema = signed.peek::<Schema>().unwrap().1;
    let other = Schema { version: 2, ..schema };
    for (name, bytes) in [
        ("schema.json", SCHEMA.as_bytes().to_vec()),
        ("schema.dsse.json", signed.to_json()),
        ("other.dsse.json", Envelope::sign(&other, &[]).unwrap().to_json()),
        ("permit.dsse.json", Envelope::sign(&permit, &[]).unwrap().to_json()),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// What is printed, and the failure with which the command ends. No coordinator listens.
async fn explained_as(sql: &str, more: &[&str]) -> Result<(String, Option<Failure>), Failure> {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let context = Context { coordinator: "http://127.0.0.1:1".into(), ca: None, now };
    let command = command(sql, more);
    Known::of(&command, &context).await?.explain(sql, &command)
}

/// The words of a line, the first that starts with `start`.
fn line(text: &str, start: &str) -> String {
    let found = text.lines().find(|line| line.trim_start().starts_with(start));
    found.unwrap_or_else(|| panic!("{start}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_question_is_explained_from_files_alone() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let schema = path("schema.json");
    let flags = [NO_PERMIT.as_slice(), &["--schema", &schema]].concat();
    let (text, failure) = explained_as(MEANS, &flags).await.unwrap();
    assert_eq!(failure, None);
    assert_eq!(line(&text, "cost"), "cost 100000 micro-rho at each hospital");
    assert!(line(&text, "permit").contains("every column"), "{text}");
    let title = "Aggregate: 4 cells; a patient counts in full with 4 rows and in 1 group";
    assert_eq!(line(&text, "Aggregate:"), title);
    assert_eq!(line(&text, "sex"), "sex text 4 public");
    // Three measures share rho; k = 4 rows, values within 15 of the middle: sd = 4 / sqrt(2 * 0.033333), and 15 of it.
    assert_eq!(line(&text, "rows"), "rows rows 1 L2 4.000 33333 15.49");
    assert!(line(&text, "sum of").ends_with("L2 60.00 33333 232.4"), "{text}");

    let (signed, permit) = (path("schema.dsse.json"), path("permit.dsse.json"));
    let flags = ["--schema", &signed, "--permit", &permit, "--output", "json"];
    let (text, failure) = explained_as(MEANS, &flags).await.unwrap();
    assert_eq!(failure, None);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((report["admitted"].as_bool(), report["refusal"].is_null()), (Some(true), true));
    assert_eq!(report["privacy"]["micro_rho"], 50_000);
    // The permit's preset needs a count of patients beside the three.
    assert_eq!(report["explanation"]["parts"][0]["measures"].as_array().unwrap().len(), 4);
    assert_eq!(report["explanation"]["parts"][0]["measures"][0]["micro_rho"], 12_500);
    assert_eq!(report["explanation"]["parts"][0]["sets"], serde_json::json!([["sex"]]));
}

#[tokio::test]
async fn a_refusal_has_its_code_its_place_and_what_to_do() {
    let folder = files();
    let schema = folder.path().join("schema.json").display().to_string();
    let flags = [NO_PERMIT.as_slice(), &["--schema", &schema]].concat();
    let sql = "SELECT sex, count(*)\nFROM stay WHERE GROUP BY sex";
    let failure = explained_as(sql, &flags).await.unwrap_err();
    assert_eq!((failure.exit(), failure.code()), (Exit::Refused, "sql_syntax"));
    let text = failure.to_string();
    assert!(text.contains(" 2 │ FROM stay WHERE GROUP BY sex\n   · ") && text.contains("  do: mend the SQL"), "{text}");

    let (text, failure) = explained_as(sql, &[flags.as_slice(), &["--output=json"]].concat()).await.unwrap();
    assert_eq!(failure.unwrap().exit(), Exit::Refused);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["admitted"], &report["refusal"]["code"]), (&false.into(), &"sql_syntax".into()));
    assert_eq!(report["refusal"]["line"], 2);
    assert!(report["refusal"]["column"].as_u64().is_some_and(|column| column > 1), "{text}");

    let rows = explained_as("SELECT days FROM stay", &flags).await.unwrap_err();
    assert_eq!((rows.exit(), rows.code()), (Exit::Refused, "row_level"));
}

#[tokio::test]
async fn what_is_missing_or_does_not_fit_is_said() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (schema, other, permit) = (path("schema.json"), path("other.dsse.json"), path("permit.dsse.json"));
    for (flags, code) in [
        (vec!["--schema", &schema, "--rho=1000"], "bad_input"),
        (vec!["--schema", &other, "--permit", &permit], "bad_input"),
        (vec!["--schema", &schema, "--permit", &permit, "--rho=50001"], "budget_query"),
        (vec!["--schema", &schema, "--permit", &permit, "--rows-per-patient=5"], "terms"),
        (vec!["--schema", &permit, "--permit", &permit], "malformed"),
        // Nobody to fetch the schema from.
        (vec!["--permit", &permit], "unreachable"),
    ] {
        let failure = explained_as(MEANS, &flags).await.err();
        assert_eq!(failure.map(|failure| failure.code()), Some(code), "{flags:?}");
    }
    assert!(Line::try_parse_from(["explain", "--sql", MEANS]).is_err(), "neither schema nor permit");
}

#[tokio::test]
async fn a_question_that_the_permit_lists_as_aggregated_is_exact_and_costs_nothing() {
    let folder = files();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (mut permit, _) = Envelope::from_json::<Permit>(&std::fs::read(path("permit.dsse.json")).unwrap())
        .unwrap()
        .peek::<Permit>()
        .unwrap();
    permit.release_kinds = vec![ReleaseKind::Aggregated];
    let sha256 = Digest::of(MEANS.as_bytes());
    permit.allowed_queries = Some(vec![AllowedQuery { sha256, max_runs: 1, release: ReleaseKind::Aggregated }]);
    std::fs::write(path("exact.dsse.json"), Envelope::sign(&permit, &[]).unwrap().to_json()).unwrap();
    let (schema, exact) = (path("schema.dsse.json"), path("exact.dsse.json"));
    let flags = ["--schema", &schema, "--permit", &exact];
    let (text, failure) = explained_as(MEANS, &flags).await.unwrap();
    assert_eq!(failure, None);
    assert_eq!(line(&text, "cost"), "cost none: an exact result costs no rho");
    assert!(line(&text, "rules").starts_with("rules cells of 1 to 9 patients are hidden"), "{text}");
    assert_eq!(line(&text, "Aggregate:"), "Aggregate: 4 cells; every row of a patient counts in full");
    assert_eq!(line(&text, "sum of"), "sum of stay.days sum 1 0 to 30");
    for word in ["epsilon", "micro-rho", "deviation", "mechanism"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let (text, _) = explained_as(MEANS, &[flags.as_slice(), &["--output=json"]].concat()).await.unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["privacy"]["exact"]["min_patients"], 10);
    assert!(report["privacy"].get("epsilon").is_none(), "{text}");
    for given in ["--rho=1", "--rows-per-patient=2"] {
        let failure = explained_as(MEANS, &[flags.as_slice(), &[given]].concat()).await.unwrap_err();
        assert_eq!((failure.exit(), failure.code()), (Exit::Input, "bad_input"), "{given}");
    }
}

#[test]
fn an_explanation_for_people() {
    let step = |depth, operator: &str, facts: &str| Step { depth, operator: operator.into(), facts: facts.into() };
    let key = |name: &str, kind: &str, cells, private| KeyExplanation {
        name: name.into(),
        kind: kind.into(),
        cells,
        private,
    };
    let measure = |name: &str, kind: &str, sensitivity, standard_deviation, range| MeasureExplanation {
        name: name.into(),
        kind: kind.into(),
        numbers: 1,
        norm: "L1".into(),
        sensitivity,
        micro_rho: 25_000,
        standard_deviation,
        range,
    };
    let part = |keys, sets, measures| PartExplanation {
        keys,
        cells: 12,
        sets,
        rows_per_patient: 1,
        groups_per_patient: 2,
        measures,
        outputs: vec!["count(*)".into(), "sum(days)".into()],
    };
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<String>>();
    let explanation = Explanation {
        steps: vec![step(0, "Filter", "1 row a patient"), step(1, "Scan stay", "patient: id")],
        parts: vec![
            part(
                vec![key("sex", "text", 4, false), key("病棟", "text", 3, true)],
                vec![set(&["sex", "病棟"]), set(&[])],
                vec![measure("rows", "rows", 1.0, 4.472_135, None)],
            ),
            part(Vec::new(), vec![set(&[])], vec![measure("sum of days", "sum", 30.0, 134.2, Some((0.0, 30.0)))]),
        ],
        micro_rho: 50_000,
        atto_delta: 1_000_000_000,
        mechanism: "laplace".into(),
        exact: None,
    };
    let privacy = PrivacyReport {
        micro_rho: MicroRho::try_from(50_000).unwrap(),
        protection: Protection::Noised(Guarantee {
            delta: "1e-6".into(),
            epsilon: 1.5,
            sites_per_patient: 2,
            epsilon_all_sites: 2.25,
        }),
        noise: Vec::new(),
    };
    let text = text::explanation(vec![("schema", "stays version 1".into())], &privacy, &explanation);
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(text.join("\n"), include_str!("expected.txt").trim_end());
}
