use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn declared() -> Value {
    let agent =
        json!({"name": {"ja": "西病院", "en": "West"}, "type": "healthcare-providers", "email": "data@west.example"});
    json!({
        "title": {"ja": "入院", "en": "Stays"}, "description": {"en": "Stays of inpatients"},
        "keywords": {"en": ["stay"], "ja": ["入院"]}, "health_categories": ["EHRS"], "types": ["STATISTICAL"],
        "legislation": ["http://data.europa.eu/eli/reg/2025/327/oj"], "hdab": agent, "custodian": agent, "publisher": agent,
        "contact": {"name": {"en": "Desk"}, "page": "https://west.example/data"}, "provenance": {"en": "From the records"},
        "distribution": {"title": {"en": "On application"}, "access_url": "https://west.example/apply"},
        "temporal": {"from": "2020-01-01", "to": "2024-12-31"}, "min_age": 0, "max_age": 110,
    })
}

fn catalogue() -> Value {
    let estimate = |n: i64| json!({"estimate": n, "standard_deviation": 3});
    let schema = json!({"digest": "00".repeat(32), "id": "stays", "version": 1});
    json!({
        "node": "west", "seq": 1, "prev": null, "issued": "2026-11-21T00:00:00Z",
        "data_sets": [{
            "id": "stays", "schema": schema, "redraw_days": 90, "declared": declared(), "conforms": [],
            "tables": [{
                "name": "stay", "patient": "pid", "columns": [
                    {"column": {"name": "pid", "type": "int64"}},
                    {"column": {"name": "days", "type": "int64", "bounds": {"min": "0", "max": "90"}},
                     "extremes": {"min": "1", "max": "60"}, "code_system": "UCUM"},
                    {"column": {"name": "sex", "type": "text", "domain": ["F", "M"]}}],
                "counts": {"drawn_on": "2026-11-20", "micro_rho": 2000, "rows_per_patient": 4, "release": "11".repeat(32),
                    "records": estimate(1000), "individuals": estimate(700),
                    "present": [{"column": "sex", "records": estimate(900)}]},
            }],
        }],
    })
}

fn read(json: Value) -> Result<Catalogue, String> {
    let catalogue: Catalogue = serde_json::from_value(json).map_err(|e| e.to_string())?;
    catalogue.check().map(|()| catalogue)
}

#[test]
fn a_catalogue_is_complete_and_bounded_and_its_errors_name_the_field() {
    read(catalogue()).unwrap();
    let at = |path: &str, value: Value, expect: &str| {
        let mut json = catalogue();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        let error = read(json).expect_err(path);
        assert!(error.contains(expect), "{path}: {error}");
    };
    let declared = |field: &str| format!("/data_sets/0/declared/{field}");
    at("/seq", json!(0), "seq counts from 1");
    at("/seq", json!(2), "prev");
    at("/node", json!("West"), "node");
    at("/data_sets/0/redraw_days", json!(0), "redraw_days");
    for (field, value, expect) in [
        ("title", json!({}), "title: write it in ja"),
        ("title", json!({"en": "x".repeat(4001)}), "title: at most"),
        ("title", json!({"fr": "x"}), "unknown field `fr`"),
        ("keywords", json!({}), "keywords: at least one"),
        ("health_categories", json!([]), "health_categories: at least one"),
        ("health_categories", json!(["E HR"]), "health_categories: \"E HR\" is no code"),
        ("legislation", json!(["ftp://x"]), "legislation: it is no address"),
        ("legislation", json!(["https://x/<y>"]), "legislation: it is no address"),
        ("legislation", json!(vec!["https://x"; 101]), "legislation: at most 100"),
        ("hdab/email", json!("nobody"), "hdab.email"),
        ("contact/page", json!("https://x/%zz"), "contact.page"),
        ("contact/page", json!(null), "contact: give email or page"),
        ("distribution/access_url", json!("https://"), "distribution.access_url"),
        ("temporal/to", json!("2019-01-01"), "temporal: it ends before it begins"),
        ("max_age", json!(200), "max_age"),
    ] {
        at(&declared(field), value, expect);
    }
    let column = "/data_sets/0/tables/0/columns/1";
    at(&format!("{column}/extremes"), json!({"min": "x", "max": "2"}), "tables.stay.columns.days.extremes");
    at(&format!("{column}/code_system"), json!("a b"), "tables.stay.columns.days.code_system");
    at("/data_sets/0/tables/0/patient", json!("nobody"), "patient column");
}

#[test]
fn completeness_is_a_share_of_the_noised_records() {
    let catalogue = read(catalogue()).unwrap();
    let counts = catalogue.data_sets[0].tables[0].counts.clone().unwrap();
    let sex = counts.completeness("sex").unwrap();
    assert!((sex.share - 0.9).abs() < 1e-9 && (sex.standard_deviation - 0.00404).abs() < 1e-4, "{sex:?}");
    assert_eq!(counts.completeness("days"), None, "it was not counted");
    let few = Counts { records: Estimate { estimate: 5, standard_deviation: 3 }, ..counts };
    assert_eq!(few.completeness("sex"), None, "the records are lost in the noise");
}

#[test]
fn a_data_set_conforms_column_by_column() {
    let tables = read(catalogue()).unwrap().data_sets.remove(0).tables;
    let check = |change: &dyn Fn(&mut Value), expect: &[&str]| {
        let mut schema = json!({"id": "s", "version": 1, "title": "", "tables": [{"name": "stay", "patient": "pid", "columns": [
            {"name": "pid", "type": "int64"}, {"name": "days", "type": "int64", "bounds": {"min": "0", "max": "90"}},
            {"name": "sex", "type": "text", "domain": ["M", "F", "X"]}]}]});
        change(&mut schema);
        let schema: Schema = serde_json::from_value(schema).unwrap();
        schema.check().unwrap();
        let found: Vec<_> = gaps(&tables, &schema, |_| true, |_, _| true).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
        let name = SchemaName { digest: Digest::of(b"s"), id: "s".into(), version: 1 };
        assert_eq!(conforms(&tables, name, &schema).whole, expect.is_empty());
    };
    let columns = "/tables/0/columns";
    check(&|_| {}, &[]);
    check(&|s| s["tables"][0]["name"] = json!("visit"), &["missing table visit"]);
    check(&|s| s["tables"][0]["one_row_per_patient"] = json!(true), &["patient differs stay"]);
    check(&|s| *s.pointer_mut(&format!("{columns}/1/name")).unwrap() = json!("hours"), &["missing column stay.hours"]);
    check(&|s| *s.pointer_mut(&format!("{columns}/1/type")).unwrap() = json!("decimal"), &["type differs stay.days"]);
    check(
        &|s| *s.pointer_mut(&format!("{columns}/1/bounds/max")).unwrap() = json!("30"),
        &["domain differs stay.days"],
    );
    check(&|s| *s.pointer_mut(&format!("{columns}/2/domain")).unwrap() = json!(["F"]), &["domain differs stay.sex"]);
}

proptest! {
    #[test]
    fn an_address_that_is_admitted_has_no_character_that_ends_an_iri(text in "https?://[ -~]{0,40}|.{0,40}") {
        let mut json = catalogue();
        *json.pointer_mut("/data_sets/0/declared/legislation").unwrap() = json!([text]);
        if read(json).is_ok() {
            prop_assert!(!text.contains(['<', '>', '"', ' ', '\\', '{', '}', '|', '^', '`']), "{text}");
        }
    }
}
