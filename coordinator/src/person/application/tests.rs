use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Verified},
    schema::Schema,
};

use super::*;

const SCHEMA: &str = r#"{"id":"stays","version":1,"title":"","tables":[{"name":"stay","patient":"id","columns":[
    {"name":"id","type":"int64"},{"name":"sex","type":"text","domain":["F","M"]},
    {"name":"days","type":"int64","bounds":{"min":"0","max":"30"}},{"name":"note","type":"text"}]}]}"#;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("application.toml");
    std::fs::write(&path, text).unwrap();
    let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
    std::fs::write(folder.path().join("s.dsse.json"), Envelope::sign(&schema, &[]).unwrap().to_json()).unwrap();
    (folder, path)
}

fn template() -> Application {
    let (_folder, path) = written(draft::TEMPLATE);
    draft::application(versioned(draft::read(&path).unwrap(), None), &path).unwrap()
}

fn signed_by(key: &SecretKey) -> Verified<Application> {
    let mut first = template();
    (first.people[0].key, first.people[0].key_fingerprint) = (key.public(), key.public().fingerprint());
    Envelope::sign(&first, &[key]).unwrap().verify::<Application>(&first.keys(), 1).unwrap()
}

#[test]
fn an_application_that_says_the_same_is_no_new_version() {
    let newest = signed_by(&SecretKey::generate(&mut rand::rng()));
    let mut next = newest.document().clone();
    (next.version, next.supersedes) = (2, Some(newest.digest()));
    next.queries[0].dry_run = dry_run::all(&next, &serde_json::from_str(SCHEMA).unwrap(), now()).unwrap().pop();
    assert!(next.queries[0].dry_run.is_some() && says_the_same(&newest, &next));
    next.queries[0].max_runs += 1;
    assert!(!says_the_same(&newest, &next));
}

fn now() -> DateTime<Utc> {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

#[test]
fn the_template_is_a_complete_application_that_grants_itself() {
    let application = template();
    assert_eq!(missing(&application).unwrap(), []);
    let permit = super::super::grant::permit(&application, Digest::of(b"a"), now()).unwrap();
    assert_eq!(permit.within(&application), Ok(()));
    assert_eq!(permit.check(), Ok(()));
}

#[test]
fn every_commented_field_of_the_template_is_a_field() {
    let mut text = String::new();
    for line in draft::TEMPLATE.lines() {
        let field = line.strip_prefix("# ").filter(|l| {
            let named = |(n, _): (&str, &str)| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            l.split_once(" = ").is_some_and(named) || ["[ethics]", "[jp]"].contains(l)
        });
        text.push_str(field.unwrap_or(line));
        text.push('\n');
    }
    let (_folder, path) = written(&text);
    let application = draft::application(versioned(draft::read(&path).unwrap(), None), &path).unwrap();
    assert!(application.ethics.is_some() && application.jp.is_some() && !application.public_mandate.is_empty());
}

#[test]
fn a_draft_names_what_it_lacks_and_is_refused_for_what_is_prohibited() {
    let run = |from: &str, to: &str| {
        let (_folder, path) = written(&draft::TEMPLATE.replacen(from, to, 1));
        check(&path, Listing::Csv)
    };
    assert_eq!(run("ada", "ada").unwrap(), Exit::Done);
    for (from, to, code, says) in [
        ("safeguards = ", "# ", "application_incomplete", "safeguards"),
        ("role = \"analyst\"", "", "application_incomplete", "people[1].role"),
        ("[\"scientific_research\"]", "[\"official_statistics\"]", "application_incomplete", "public_mandate"),
        ("[\"scientific_research\"]", "[\"insurance\"]", "purpose_prohibited", "EHDS Art. 54(b)"),
        ("[\"scientific_research\"]", "[\"curiosity\"]", "bad_input", "improving_care"),
        ("basis = \"EHDS-69\"", "", "application_incomplete", "basis"),
        ("level = \"statistics\"", "level = \"rows\"", "bad_input", "rows"),
        ("max_runs = 2", "max_runs = 0", "bad_input", "max_runs"),
    ] {
        let failure = run(from, to).unwrap_err();
        assert_eq!(failure.code(), code, "{to}: {failure}");
        assert!(failure.to_string().contains(says), "{to}: {failure}");
    }
}

#[test]
fn a_query_may_be_a_file_and_the_schema_a_path() {
    let zeros = "0".repeat(64);
    let text = draft::TEMPLATE.replace(&zeros, "s.dsse.json");
    let sql = "sql = \"SELECT sex, count(*), avg(days) FROM stay GROUP BY sex\"";
    let (folder, path) = written(&text.replace(sql, "file = \"q.sql\""));
    std::fs::write(folder.path().join("q.sql"), "  SELECT count(*) FROM stay\n").unwrap();
    let application = draft::application(versioned(draft::read(&path).unwrap(), None), &path).unwrap();
    assert_eq!(application.queries[0].sha256, Digest::of(b"SELECT count(*) FROM stay"));
    assert_ne!(application.schema.unwrap().to_string(), zeros);
    assert_eq!(application.period.from.unwrap().to_rfc3339(), "2026-12-01T00:00:00+00:00");
}

#[test]
fn a_dry_run_needs_no_permit_and_is_compared_with_the_applicants() {
    let mut application = template();
    let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
    let rows = sekisho_protocol::application::RequestedQuery {
        sql: "SELECT days FROM stay".into(),
        sha256: Digest::of(b"SELECT days FROM stay"),
        ..application.queries[0].clone()
    };
    let mut forbidden = rows.clone();
    forbidden.sql = "SELECT count(note) FROM stay".into();
    forbidden.sha256 = Digest::of(forbidden.sql.as_bytes());
    application.queries.extend([rows, forbidden]);
    let made = dry_run::all(&application, &schema, now()).unwrap();
    let first = &made[0];
    assert!(first.admissible && first.micro_rho.get() == 50_000);
    assert_eq!(first.cell_sizes, [10, 100, 1000, 10_000]);
    // Four measures share rho (one counts patients, for the preset): k = 4 rows, sd = 4 / sqrt(2 * 0.0125) = 25.30.
    let rows = first.measures.iter().find(|m| m.measure == "rows").unwrap();
    assert_eq!((rows.standard_deviation.as_str(), rows.relative[1].as_str()), ("25.30", "25.30 %"));
    assert!(made[1].refusal.as_ref().unwrap().starts_with("row_level: "), "{:?}", made[1].refusal);
    assert!(made[2].refusal.as_ref().unwrap().starts_with("column_not_permitted: "), "{:?}", made[2].refusal);

    for (query, run) in application.queries.iter_mut().zip(&made) {
        query.dry_run = Some(run.clone());
    }
    assert_eq!(application.check(), Ok(()));
    assert!(dry_run::compare(&application, &made).is_empty());
    application.queries[0].dry_run.as_mut().unwrap().measures[0].standard_deviation = "0.1".into();
    application.queries[2].dry_run = None;
    assert_eq!(dry_run::compare(&application, &made), [1, 3]);
}

#[test]
fn a_draft_without_a_version_is_the_next_one() {
    let (_folder, path) = written(draft::TEMPLATE);
    let application = signed_by(&SecretKey::generate(&mut rand::rng()));
    let digest = application.digest();
    let newest = Fetched { application, put_at: None };
    let next = versioned(draft::read(&path).unwrap(), Some(&newest));
    assert_eq!((&next["version"], &next["supersedes"]), (&2.into(), &digest.to_string().into()));
    let chosen = serde_json::json!({"version": 7});
    assert!(versioned(chosen, Some(&newest)).get("supersedes").is_none(), "what was written stays");
}

#[test]
fn answers_one_a_line_make_a_draft_that_lacks_nothing() {
    let (folder, _) = written("");
    let schema = folder.path().join("s.dsse.json").display().to_string();
    let key = SecretKey::generate(&mut rand::rng()).public().to_string();
    let answers = [
        "stays-1",
        "JP-ethics",
        "大学",
        "academic",
        "JP",
        "Ada",
        "ada",
        "analyst",
        &key,
        "2026-04",
        "",
        "scientific_research",
        "to plan beds",
        "stay-study",
        &schema,
        "stay",
        "sex, days",
        "tokyo、osaka",
        "inpatient stays",
        "",
        "",
        "",
        "2027-01-01",
        "2028-01-01",
        "ethics committee",
        "17",
        "2026-06-01",
        "count,avg",
        "jp-ndb",
        "4",
        "1",
        "2",
        "50000",
        "500000",
        "1e-6",
        "SELECT count(*) FROM stay",
        "",
    ]
    .join("\n");
    let mut questions = Vec::new();
    let talk = guided::Talk::piped(answers.as_bytes(), &mut questions);
    let made = talk.fill(Value::Null, &requirements().unwrap()).unwrap();
    assert_eq!(requirements().unwrap().missing(&made), []);
    let questions = String::from_utf8(questions).unwrap();
    assert!(
        questions.contains("利用目的") && questions.contains("Purposes: ") && questions.contains("ethical guidelines")
    );

    let (_folder, path) = written(&toml::to_string(&made).unwrap());
    let application = draft::application(versioned(draft::read(&path).unwrap(), None), &path).unwrap();
    assert_eq!(application.data[0].holder_nodes, ["tokyo", "osaka"]);
    assert_eq!(application.applicant.name, "大学");

    // The end of the input loses nothing, and a prohibited purpose is refused by its name.
    let talk = guided::Talk::piped("a-1\nEHDS-69\nuniversity\n".as_bytes(), Vec::new());
    let part = talk.fill(Value::Null, &requirements().unwrap()).unwrap();
    assert_eq!(part["applicant"]["name"], "university");
    let talk = guided::Talk::piped("marketing\n".as_bytes(), Vec::new());
    let from = serde_json::json!({"id": "a-1", "basis": "JP-ethics", "applicant": {"name": "x", "sector": "x", "country": "JP"},
        "principal_investigator": "y", "people": []});
    let refused = talk.fill(from, &requirements().unwrap()).unwrap_err();
    assert_eq!(refused.code(), "purpose_prohibited");
}
