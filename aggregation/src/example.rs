//! A small schema and permit for this crate's tests.

use sekisho_protocol::{permit::Permit, schema::Schema};

/// Two protected tables: `stay` with several rows a patient, `summary` with one; and a public one.
pub(crate) fn schema() -> Schema {
    serde_json::from_str(
        r#"{"id":"t","version":1,"title":"test","tables":[
        {"name":"stay","patient":"patient_id","columns":[
            {"name":"patient_id","type":"int64"},
            {"name":"sex","type":"text","domain":["female","male"]},
            {"name":"age","type":"int64","bounds":{"min":"0","max":"120"}},
            {"name":"weight","type":"decimal","scale":1,"bounds":{"min":"0","max":"300"}},
            {"name":"days","type":"int64","bounds":{"min":"0","max":"100"}},
            {"name":"free","type":"int64"},
            {"name":"note","type":"text"},
            {"name":"died","type":"bool"},
            {"name":"admitted","type":"date","bounds":{"min":"2024-01-01","max":"2024-12-31"}}]},
        {"name":"summary","patient":"patient_id","one_row_per_patient":true,"columns":[
            {"name":"patient_id","type":"int64"},
            {"name":"sex","type":"text","domain":["female","male"]},
            {"name":"age","type":"int64","bounds":{"min":"0","max":"120"}}]},
        {"name":"chapter","public":"ICD-10 chapters","columns":[{"name":"code","type":"text"}]}]}"#,
    )
    .unwrap()
}

/// A permit for `stay` and `summary`: k = `rows`, G = `groups`, preset none.
pub(crate) fn permit(rows: u32, groups: u32) -> Permit {
    let key = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=";
    let fingerprint = key.parse::<sekisho_protocol::keys::PublicKey>().unwrap().fingerprint();
    let text = format!(
        r#"{{"id":"p","version":1,"basis":"EHDS-69","issuer":"i","decision":{{"date":"2026-01-01","reasons":"r"}},
        "purposes":["scientific_research"],"data_user":"u","principal_investigator":"pi",
        "authorised_persons":[{{"id":"a","role":"r","key":"{key}","key_fingerprint":"{fingerprint}"}}],
        "study_id":"s","schema":"{fingerprint}",
        "data":[{{"table":"stay","columns":["sex","age","weight","days","free","note","died","admitted"],"holder_nodes":["h"]}},
                {{"table":"summary","columns":["sex"],"holder_nodes":["h"]}}],
        "allowed_statistics":["count","count_distinct","sum","avg"],"release_kinds":["noised"],"disclosure":"none",
        "dp":{{"rows_per_patient":{rows},"groups_per_patient":{groups},"sites_per_patient":2,"micro_rho_per_query":1000000,
               "micro_rho_total":10000000,"delta_for_reports":"1e-6"}},
        "optout":{{"rule":"jp-ngmia","days":30}},
        "validity":{{"from":"2026-01-01T00:00:00Z","to":"2027-01-01T00:00:00Z"}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}
