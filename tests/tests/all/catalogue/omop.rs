//! The OMOP CDM 5.4 subset that ships: a hospital maps a part of it, and answers.

use std::sync::Arc;

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{dsse::Document, schema::Schema, units::MicroRho};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{NEGLIGIBLE_NOISE, TestClock};

pub const SCHEMA: &str = include_str!("../../../../protocol/schemas/omop-cdm-5.4.json");

const PERSON: &str =
    "person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id,gender_source_value
1,8532,1950,0,0,F\n2,8507,1960,0,0,M\n-3,8532,1970,0,0,F\n";
const CONDITION: &str =
    "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_end_date,\
condition_type_concept_id,condition_status_concept_id,visit_occurrence_id,condition_source_value
1,1,201826,2020-01-01,,32020,0,1,E11\n2,1,201826,2020-05-01,,32020,0,2,E11\n3,-3,4329847,2021-01-01,,32020,0,3,I21\n";

fn mapping(schema: &Schema, dir: &std::path::Path, tables: &[&str]) -> String {
    let mut toml = String::from("id = \"omop\"\nsynthetic = true\n");
    for table in tables {
        let source = dir.join(format!("{table}.csv"));
        toml += &format!("[tables.{table}]\nsource = {source:?}\n[tables.{table}.columns]\n");
        for column in &schema.table(table).unwrap().columns {
            toml += &format!("{0} = \"{0}\"\n", column.name);
        }
    }
    toml
}

#[tokio::test]
async fn a_hospital_maps_two_tables_of_the_omop_subset_and_answers_a_query_over_both() {
    let schema: Schema = serde_json::from_str(SCHEMA).unwrap();
    schema.check().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("person.csv"), PERSON).unwrap();
    std::fs::write(dir.path().join("condition_occurrence.csv"), CONDITION).unwrap();
    let mapping = mapping(&schema, dir.path(), &["person", "condition_occurrence"]);
    let rho = NEGLIGIBLE_NOISE;
    let plan =
        Plan { data: vec![(SCHEMA, mapping)], register_rule: "eu-ehds", register: None, budget: (10 * rho, rho) };
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
    let permit = solo
        .permit("omop", "person", &["gender_source_value"], |permit| {
            permit["dp"]["micro_rho_per_query"] = rho.into();
            permit["dp"]["micro_rho_total"] = rho.into();
            let mut other = permit["data"][0].clone();
            other["table"] = "condition_occurrence".into();
            other["columns"] = serde_json::json!(["condition_concept_id"]);
            permit["data"].as_array_mut().unwrap().push(other);
        })
        .unwrap();
    let digest = solo.grant(&permit).await.unwrap();
    let sql = "SELECT p.gender_source_value, count(DISTINCT p.person_id) AS n FROM person p \
               JOIN condition_occurrence c ON p.person_id = c.person_id \
               WHERE c.condition_concept_id = 201826 GROUP BY p.gender_source_value";
    let release = solo.ask(&solo.query(digest, sql, rho, 1)).await.unwrap().release;
    let plan = PrivatePlan::analyse(sql, &schema, &permit, MicroRho::try_from(rho).unwrap()).unwrap();
    let part = &plan.parts()[0];
    let unit = part.unit(&part.measures()[0]);
    let women = (release.parts()[0][0][0] + unit / 2).div_euclid(unit);
    assert_eq!(women, 1, "one woman has the condition, twice");
}
