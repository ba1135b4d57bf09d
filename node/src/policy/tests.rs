use super::*;

const SMALL: &str = r#"{"id":"s","version":1,"title":"","tables":[{"name":"stay","patient":"pid","columns":[
    {"name":"pid","type":"text"},{"name":"age","type":"int64","bounds":{"min":"0","max":"120"}},
    {"name":"postcode","type":"text"}]}]}"#;

fn study() -> Study {
    Study {
        organisation: Organisation { name: "Kyoto University".into(), country: Some("JP".into()) },
        permit_id: "permit-1".into(),
        study_id: "study-1".into(),
        purposes: vec![sekisho_protocol::permit::Purpose::ScientificResearch],
        basis: sekisho_protocol::permit::Basis::Ehds69,
        mechanism: sekisho_protocol::permit::Mechanism::Gaussian,
        data_set: "west".into(),
        synthetic: false,
    }
}

fn scope() -> Scope {
    let column = |name: &str| ("stay".to_string(), name.to_string());
    Scope {
        tables: ["stay".to_string()].into(),
        columns: [column("age"), column("postcode")].into(),
        statistics: [Statistic::Count, Statistic::Sum].into(),
    }
}

fn asked() -> Asked {
    Asked {
        study: study(),
        person: Person { id: "hanako".into(), role: "analyst".into() },
        scope: scope(),
        release: sekisho_protocol::permit::ReleaseKind::Noised,
        micro_rho: 1000.try_into().unwrap(),
        atto_delta: Default::default(),
    }
}

fn offered() -> Offered {
    Offered {
        study: study(),
        scope: scope(),
        releases: vec![sekisho_protocol::permit::ReleaseKind::Noised],
        micro_rho_per_query: 1000.try_into().unwrap(),
        micro_rho_total: 9000.try_into().unwrap(),
        atto_delta_per_query: Default::default(),
        atto_delta_total: Default::default(),
        people: 2,
        days: 365,
        listed_queries: false,
        two_person_review: false,
    }
}

fn policy(rules: &str) -> Policy {
    Policy::parse(rules).unwrap_or_else(|error| panic!("{error}"))
}

const ALL: &str = "permit (principal, action, resource);";

#[test]
fn the_default_policy_answers_queries_and_leaves_permits_to_a_person_or_not() {
    for (at_once, level) in [(false, Level::ByHand), (true, Level::AtOnce)] {
        let policy = policy(&default_text(at_once));
        assert!(policy.allow(&asked()).is_ok());
        assert_eq!(policy.answer(&offered()).unwrap().0, level);
        assert_eq!(policy.warnings(), [""; 0]);
    }
}

#[test]
fn every_example_of_the_default_policy_is_a_rule_when_its_slashes_go() {
    let (_, examples) = DEFAULT.split_once("examples: remove").unwrap();
    let mut found = 0;
    for example in examples.split("\n\n").filter(|e| e.contains("// @id(")) {
        let (_, rule) = example.split_once("// @id(").unwrap();
        policy(&format!("{ALL}\n@id({}", rule.replace("\n// ", "\n")));
        found += 1;
    }
    assert_eq!(found, 10);
}

#[test]
fn every_name_of_a_closed_list_of_documents_is_in_the_schema() {
    let names = |kind: &str| {
        let (_, list) = SCHEMA.split_once(&format!("entity {kind} enum [")).unwrap();
        let list = list.split_once(']').unwrap().0;
        list.split(',').map(|name| name.trim().trim_matches('"').to_string()).collect::<Vec<_>>()
    };
    // Each of them is one of its type's, and a query with it fits the schema.
    let policy = policy(ALL);
    let json = |name: &String| serde_json::Value::String(name.clone());
    let read = |name: &String| serde_json::from_value::<Statistic>(json(name)).unwrap();
    assert_eq!(names("Statistic").iter().map(|n| read(n).as_str()).collect::<Vec<_>>(), names("Statistic"));
    for statistic in names("Statistic") {
        let scope = Scope { statistics: [read(&statistic)].into(), ..scope() };
        assert!(policy.allow(&Asked { scope, ..asked() }).is_ok(), "{statistic}");
    }
    for purpose in names("Purpose") {
        let study = Study { purposes: vec![serde_json::from_value(json(&purpose)).unwrap()], ..study() };
        assert!(policy.allow(&Asked { study, ..asked() }).is_ok(), "{purpose}");
    }
    for basis in names("Basis") {
        let study = Study { basis: serde_json::from_value(json(&basis)).unwrap(), ..study() };
        assert!(policy.allow(&Asked { study, ..asked() }).is_ok(), "{basis}");
    }
    for mechanism in names("Mechanism") {
        let study = Study { mechanism: serde_json::from_value(json(&mechanism)).unwrap(), ..study() };
        assert!(policy.allow(&Asked { study, ..asked() }).is_ok(), "{mechanism}");
    }
}

#[test]
fn a_bad_policy_is_refused_with_the_place_and_what_is_wrong() {
    let query = "permit (principal, action in Action::\"query\", resource)\nwhen";
    for (rules, line, at, words) in [
        ("permit (principal, action, resource)", 1, "", "unexpected end"),
        (
            "// 方針\npermit (principal, action, resource);\nforbid (principal action, resource);",
            3,
            "action",
            "unexpected token",
        ),
        (&format!("{query} {{ context.microRo > 5 }};"), 2, "context.microRo", "microRo"),
        (&format!("{query} {{ context.microRho > \"5\" }};"), 2, "\"5\"", "String"),
        ("\n  permit (principal, action == Action::\"cuont\", resource);", 2, "Action::\"cuont\"", "cuont"),
        ("permit (principal is Doctor, action, resource);", 1, "Doctor", "Doctor"),
        (&format!("{query} {{ context.purposes.contains(Purpose::\"marketing\") }};"), 2, "Purpose", "marketing"),
        (
            "permit (principal, action, resource) when { principal.country == \"JP\" };",
            1,
            "principal.country",
            "country",
        ),
        ("permit (principal == ?principal, action, resource);", 1, "permit", "slot"),
        (
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);",
            2,
            "@id",
            "another rule has the @id",
        ),
        (
            "permit (principal, action, resource);\nforbid (principal, action, resource) when { false };",
            2,
            "forbid",
            "impossible",
        ),
        ("forbid (principal is Organisation, action in Action::\"query\", resource);", 1, "", "action"),
    ] {
        match Policy::parse(rules) {
            Err(PolicyError::Rule { line: found, column, excerpt, reason }) => {
                assert_eq!(found, line, "{rules}: {reason}");
                let there: String = excerpt.chars().skip(column - 1).collect();
                assert!(there.starts_with(at), "{rules}: column {column}, {reason}");
                assert!(reason.contains(words), "{rules}: {reason}");
                assert!(!reason.contains("policy0"), "{rules}: {reason}");
            }
            other => panic!("{rules}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_missing_too_large_or_not_text_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let said = || Policy::load(&path).unwrap_err().to_string();
    assert!(said().contains("policy.cedar") && said().contains("policy.file"), "{}", said());
    fs::write(&path, " ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
    assert!(said().contains("bytes"), "{}", said());
    fs::write(&path, b"permit (principal,\n \xff").unwrap();
    assert!(said().contains("policy.cedar, line 2, column 2") && said().contains("UTF-8"), "{}", said());
    fs::write(&path, format!("{ALL}\nforbid").as_bytes()).unwrap();
    assert!(said().contains("policy.cedar, line 2, column 7"), "{}", said());
}

#[test]
fn what_no_data_set_has_is_named_with_its_line() {
    let schema: sekisho_protocol::schema::Schema = serde_json::from_str(SMALL).unwrap();
    let data = [DataFacts { id: "west", synthetic: false, schema: &schema }];
    for (resource, expect) in [
        ("== Column::\"stay.age\"", Ok(())),
        ("in Table::\"stay\"", Ok(())),
        ("in DataSet::\"west\"", Ok(())),
        ("== Column::\"stay.agee\"", Err("no data set of this hospital has the column stay.agee")),
        ("in Table::\"stays\"", Err("no data set of this hospital has the table stays")),
        ("in DataSet::\"east\"", Err("no data set of this hospital has the data set east")),
    ] {
        let rules = format!("{ALL}\nforbid (principal, action, resource {resource});");
        let checked = policy(&rules).check_names(&data).map_err(|e| e.to_string());
        match (checked, expect) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(words)) => {
                assert!(said.starts_with("line 2, column 40") && said.contains(words), "{said}");
            }
            (said, _) => panic!("{resource}: {said:?}"),
        }
    }
    // Inside a condition it is named at its own line.
    let rule = format!(
        "{ALL}\nforbid (principal, action in Action::\"query\", resource)\nwhen {{ context.columns.contains(Column::\"stay.agee\") }};"
    );
    let said = policy(&rule).check_names(&data).unwrap_err().to_string();
    assert!(said.starts_with("line 3, column 33"), "{said}");
}

/// What a query hears of `ALL` and this `forbid`.
fn forbidden(forbid: &str, asked: &Asked) -> Result<(), String> {
    let policy = policy(&format!("{ALL}\n@id(\"it\")\nforbid {forbid};"));
    policy.allow(asked).map(|_| ()).map_err(|refusal| {
        assert_eq!(refusal.code, Code::Policy);
        refusal.detail
    })
}

#[test]
fn one_forbidden_column_statistic_or_circumstance_denies_the_whole_query() {
    let forbids = |what: &str| Err(format!("this hospital's policy forbids {what}: it (line 2)"));
    for (rule, expect) in [
        ("(principal, action, resource == Column::\"stay.postcode\")", forbids("count of stay.postcode")),
        ("(principal, action == Action::\"sum\", resource)", forbids("sum of stay")),
        ("(principal, action == Action::\"quantile\", resource)", Ok(())),
        ("(principal, action, resource in Table::\"stay\")", forbids("count of stay")),
        ("(principal, action, resource in DataSet::\"west\")", forbids("count of stay")),
        ("(principal, action, resource in DataSet::\"east\")", Ok(())),
        ("(principal in Organisation::\"Kyoto University\", action, resource)", forbids("count of stay")),
        ("(principal == DataUser::\"hanako\", action in Action::\"query\", resource)", forbids("count of stay")),
        ("(principal == DataUser::\"taro\", action in Action::\"query\", resource)", Ok(())),
        ("(principal, action, resource) unless { principal has country && principal.country == \"JP\" }", Ok(())),
        (
            "(principal, action, resource) when { principal has country && principal.country == \"JP\" }",
            forbids("count of stay"),
        ),
        (
            "(principal, action in Action::\"query\", resource) when { context.microRho > 999 }",
            forbids("count of stay"),
        ),
        ("(principal, action in Action::\"query\", resource) when { context.microRho > 1000 }", Ok(())),
        ("(principal, action, resource) when { context.purposes.contains(Purpose::\"education\") }", Ok(())),
        ("(principal, action, resource) when { context.basis == Basis::\"EHDS-69\" }", forbids("count of stay")),
        ("(principal, action in Action::\"query\", resource) when { context.privateKeys }", Ok(())),
        ("(principal, action, resource) when { context.synthetic }", Ok(())),
        (
            "(principal, action in Action::\"query\", resource) when { context.columns.containsAll([Column::\"stay.age\", Column::\"stay.postcode\"]) }",
            forbids("count of stay"),
        ),
    ] {
        assert_eq!(forbidden(rule, &asked()), expect, "{rule}");
    }
}

#[test]
fn what_no_rule_permits_is_denied_and_so_is_a_query_of_nothing() {
    let only_table = "permit (principal, action in Action::\"query\", resource == Table::\"stay\");";
    let refused = policy(only_table).allow(&asked()).unwrap_err();
    assert_eq!(refused.detail, "no rule of this hospital's policy permits count of stay.age");
    assert!(policy("").allow(&asked()).is_err());
    for scope in [
        Scope { statistics: BTreeSet::new(), ..scope() },
        Scope { tables: BTreeSet::new(), columns: BTreeSet::new(), ..scope() },
    ] {
        assert!(policy(ALL).allow(&Asked { scope, ..asked() }).is_err());
    }
    let scope = Scope { tables: BTreeSet::new(), columns: BTreeSet::new(), ..scope() };
    assert!(policy(ALL).answer(&Offered { scope, ..offered() }).is_err());
}

#[test]
fn a_rule_that_fails_denies_whatever_it_says() {
    let overflows = "when { context.microRho * 9223372036854775807 > 0 }";
    for effect in ["forbid", "permit"] {
        let policy =
            policy(&format!("{ALL}\n{effect} (principal, action in Action::\"query\", resource) {overflows};"));
        let refused = policy.allow(&asked()).unwrap_err();
        assert_eq!(refused.code, Code::Policy);
        assert!(refused.detail.contains("failed on count of stay: the rule in line 2"), "{}", refused.detail);
        let finding = policy.explain(&asked()).unwrap().remove(0);
        assert!(!finding.allowed && finding.failed.len() == 1, "{finding:?}");
    }
    let overflows = overflows.replace("microRho", "microRhoTotal");
    let policy =
        policy(&format!("{ALL}\nforbid (principal, action == Action::\"acceptPermit\", resource) {overflows};"));
    assert_eq!(policy.answer(&offered()).unwrap().0, Level::Refused, "not by hand either");
}

#[test]
fn a_permit_is_answered_as_the_least_of_its_tables_and_columns() {
    let at_once = "permit (principal, action == Action::\"acceptPermit\", resource)";
    let by_hand = "permit (principal, action == Action::\"acceptPermitByHand\", resource)";
    let not = |what: &str| format!("unless {{ resource == Column::\"stay.{what}\" }}");
    for (rules, level) in [
        (format!("{at_once};"), Level::AtOnce),
        (format!("{by_hand};"), Level::ByHand),
        (String::new(), Level::Refused),
        (format!("{at_once} {}; {by_hand};", not("age")), Level::ByHand),
        (format!("{at_once} {};", not("age")), Level::Refused),
        (format!("{at_once} {}; {by_hand} {};", not("age"), not("postcode")), Level::ByHand),
        (
            format!("{ALL} forbid (principal, action in Action::\"accept\", resource == Column::\"stay.age\");"),
            Level::Refused,
        ),
        (
            format!(
                "{ALL} forbid (principal, action == Action::\"acceptPermit\", resource) when {{ context.microRhoTotal > 8999 }};"
            ),
            Level::ByHand,
        ),
        (
            format!(
                "{ALL} forbid (principal, action == Action::\"acceptPermit\", resource) when {{ context.people > 2 || context.days > 365 }};"
            ),
            Level::AtOnce,
        ),
    ] {
        assert_eq!(policy(&rules).answer(&offered()).unwrap().0, level, "{rules}");
    }
}
