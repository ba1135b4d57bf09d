//! HealthDCAT-AP: complete, readable by others, the same bytes each time, and proof against hostile words.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use oxjsonld::JsonLdParser;
use oxrdf::{Graph, Triple, dataset::CanonicalizationAlgorithm};
use oxttl::TurtleParser;
use proptest::prelude::*;
use sekisho_coordinator::catalogue::{dcat, difference::difference, rules::violations, search::search};
use sekisho_protocol::{catalogue::Catalogue, dsse::Document};
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("../../../catalogue/west.json");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/catalogue");

fn sample(change: impl FnOnce(&mut Value)) -> Catalogue {
    let mut json = serde_json::from_str(SAMPLE).unwrap();
    change(&mut json);
    let catalogue: Catalogue = serde_json::from_value(json).unwrap();
    catalogue.check().unwrap();
    catalogue
}

fn triples(catalogue: &Catalogue) -> Vec<Triple> {
    dcat::describe(&catalogue.node, catalogue.issued, &catalogue.data_sets[0]).unwrap()
}

fn graph(triples: impl IntoIterator<Item = Triple>) -> Graph {
    let mut graph: Graph = triples.into_iter().collect();
    graph.canonicalize(CanonicalizationAlgorithm::Unstable);
    graph
}

fn of_turtle(bytes: &[u8]) -> Graph {
    graph(TurtleParser::new().for_slice(bytes).map(Result::unwrap))
}

fn of_jsonld(bytes: &[u8]) -> Graph {
    graph(JsonLdParser::new().for_slice(bytes).map(|quad| Triple::from(quad.unwrap())))
}

/// Whether the snapshots are to be written anew, to be looked at before they are committed.
#[expect(clippy::disallowed_methods, reason = "the edge of the tests: a person asks for it in the environment")]
fn write_snapshots() -> bool {
    std::env::var_os("SEKISHO_WRITE_SNAPSHOTS").is_some()
}

#[test]
fn the_description_is_complete_and_its_bytes_are_those_that_were_reviewed() {
    let described = triples(&sample(|_| {}));
    assert_eq!(violations(&described), Vec::<String>::new());
    let (turtle, jsonld) = (dcat::turtle(&described).unwrap(), dcat::jsonld(&described).unwrap());
    for (name, bytes) in [("west.ttl", &turtle), ("west.jsonld", &jsonld)] {
        let path = Path::new(FOLDER).join(name);
        if write_snapshots() {
            std::fs::write(&path, bytes).unwrap();
        }
        let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(str::from_utf8(bytes).unwrap(), reviewed, "{name}: SEKISHO_WRITE_SNAPSHOTS=1 writes it anew");
    }
    assert_eq!(of_turtle(&turtle), of_jsonld(&jsonld));
    assert_eq!(of_turtle(&turtle), graph(described));
}

#[test]
fn whatever_is_mandatory_and_missing_is_named() {
    let all = triples(&sample(|_| {}));
    let without = |name: &str| {
        let of = |t: &Triple| {
            let predicate = t.predicate.as_str();
            // rdf:type makes a node what it is; dct:type is a property.
            !predicate.ends_with("rdf-syntax-ns#type")
                && (predicate.ends_with(&format!("/{name}")) || predicate.ends_with(&format!("#{name}")))
        };
        let rest: Vec<Triple> = all.iter().filter(|t| !of(t)).cloned().collect();
        assert!(rest.len() < all.len(), "{name} is not there at all");
        violations(&rest)
    };
    for name in [
        "title",
        "description",
        "identifier",
        "accessRights",
        "applicableLegislation",
        "theme",
        "hdab",
        "healthCategory",
        "hasStructuredData",
        "hasVariables",
        "contactPoint",
        "keyword",
        "type",
        "provenance",
        "distribution",
        "accessURL",
        "inScheme",
        "prefLabel",
        "column",
        "datatype",
        "table",
    ] {
        let found = without(name);
        assert!(found.iter().any(|v| v.contains(&format!("of {name};")) || v.contains(name)), "{name}: {found:?}");
    }
    let mut two = all.clone();
    let hdab = all.iter().find(|t| t.predicate.as_str().ends_with("hdab")).unwrap();
    let publisher = all.iter().find(|t| t.predicate.as_str().ends_with("publisher")).unwrap();
    two.push(Triple::new(hdab.subject.clone(), hdab.predicate.clone(), publisher.object.clone()));
    assert!(violations(&two).iter().any(|v| v.contains("2 of hdab; 1 to 1")));
}

#[test]
fn counts_are_rounded_to_their_noise_and_terminologies_are_no_standards() {
    let catalogue = sample(|json| json["data_sets"][0]["tables"][0]["counts"]["individuals"]["estimate"] = json!(-20));
    let turtle = String::from_utf8(dcat::turtle(&triples(&catalogue)).unwrap()).unwrap();
    for (line, there) in [
        ("healthdcatap:numberOfRecords \"18340\"", true),
        ("healthdcatap:numberOfUniqueIndividuals \"0\"", true),
        ("coding-system/ICD-11>", true),
        ("standard/ICD-10>", false),
        ("a dcat:Catalog", false),
        ("dqv:value 0.818", true),
    ] {
        assert_eq!(turtle.contains(line), there || turtle.contains(&line.replace('"', "'")), "{line}: {turtle}");
    }
}

#[test]
fn an_independent_library_reads_the_same_triples() {
    let Some(python) = python() else { return };
    let described = triples(&sample(|_| {}));
    for (format, bytes) in
        [("turtle", dcat::turtle(&described).unwrap()), ("json-ld", dcat::jsonld(&described).unwrap())]
    {
        let script = "import sys, rdflib\n\
            g = rdflib.Graph().parse(data=sys.stdin.buffer.read(), format=sys.argv[1])\n\
            print(len(g))\n\
            q = 'SELECT ?t WHERE { ?d a <http://www.w3.org/ns/dcat#Dataset> ; <http://purl.org/dc/terms/title> ?t \
                 FILTER(lang(?t) = \"ja\") }'\n\
            print(list(g.query(q))[0][0])";
        let mut child = Command::new(&python)
            .args(["-c", script, format])
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "rdflib does not read the {format}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [described.len().to_string().as_str(), "入院診療データ"],
            "{format}"
        );
    }
}

/// A Python that has `rdflib`, if there is one.
#[expect(clippy::disallowed_methods, reason = "the edge of the tests: `.ci/run` names its Python in the environment")]
fn python() -> Option<String> {
    let python = std::env::var("SEKISHO_RDFLIB_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import rdflib"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!(
        "rdflib is passed over: {python} has none (pip install rdflib into a venv, and name its python in \
         SEKISHO_RDFLIB_PYTHON)"
    );
    None
}

#[test]
fn search_finds_words_of_both_languages_and_codes_and_needs_all_of_them() {
    let catalogue = sample(|_| {});
    let found = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
        search([&catalogue], &words).pop().map(|hit| hit.places.iter().map(|p| p.part).collect::<Vec<_>>())
    };
    assert_eq!(found(&["在院"]), Some(vec!["table"]));
    assert_eq!(found(&["icd-11"]), Some(vec!["code system"]));
    assert_eq!(found(&["INPATIENT", "main_icd10"]).map(|places| places.contains(&"column")), Some(true));
    assert_eq!(found(&["inpatient", "nowhere"]), None);
}

#[test]
fn a_difference_names_the_field_and_both_values() {
    let (before, after) = (
        sample(|_| {}),
        sample(|json| {
            json["data_sets"][0]["tables"][0]["columns"][1]["column"]["domain"] = json!(["female"]);
            json["data_sets"][0]["declared"].as_object_mut().unwrap().remove("frequency");
        }),
    );
    let changes = difference(&json!(before), &json!(after));
    let shown: Vec<_> = changes.iter().map(|c| (c.field.as_str(), c.before.is_some(), c.after.is_some())).collect();
    assert_eq!(
        shown,
        [
            ("data_sets.stays.declared.frequency", true, false),
            ("data_sets.stays.tables.stay.columns.sex.column.domain.1", true, false)
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_words_come_back_as_they_were(words in "\\PC{1,40}", line in "[\\x00-\\x7f\u{202e}\u{feff}\"\\\\\n]{1,30}") {
        let catalogue = sample(|json| {
            let said = &mut json["data_sets"][0]["declared"];
            said["title"] = json!({"ja": format!("題{words}"), "en": format!("x{line}")});
            said["keywords"] = json!({"en": [format!("k{words}")]});
            said["provenance"] = json!({"en": format!("\"\"\" . <urn:x> a <urn:y> {line}")});
        });
        let described = triples(&catalogue);
        prop_assert_eq!(violations(&described), Vec::<String>::new());
        let wanted = graph(described.clone());
        prop_assert_eq!(&of_turtle(&dcat::turtle(&described).unwrap()), &wanted);
        prop_assert_eq!(&of_jsonld(&dcat::jsonld(&described).unwrap()), &wanted);
    }
}
