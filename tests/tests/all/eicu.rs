//! Five hospitals' worth of real intensive-care stays (eICU demo, ODbL), one node process for each region.

use std::path::{Path, PathBuf};

use datafusion::{
    arrow::{array::AsArray, datatypes::Int64Type},
    prelude::{CsvReadOptions, SessionContext},
};
use sekisho_protocol::{dsse::Envelope, receipt::Receipt};
use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{PermitText, permit_toml, real_data};
use serde_json::Value;

const REGIONS: [&str; 5] = ["midwest", "northeast", "south", "unknown", "west"];
const SCHEMA: &str = r#"{"id":"eicu","version":1,"title":"Unit stays of the eICU demo","tables":[
    {"name":"patient","patient":"patient_id","columns":[
        {"name":"patient_id","type":"text"},
        {"name":"gender","type":"text","domain":["Female","Male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"90"},"unit":"a"},
        {"name":"died","type":"bool"},
        {"name":"unit_minutes","type":"int64","bounds":{"min":"0","max":"40000"},"unit":"min"}]}]}"#;
const COLUMNS: [&str; 4] = ["gender", "age", "died", "unit_minutes"];
const BANDS: &str = "CASE WHEN age < 40 THEN '0-39' WHEN age < 65 THEN '40-64' WHEN age <= 89 THEN '65-89' \
                     WHEN age > 89 THEN '> 89' ELSE 'not known' END";
/// At this rho the mean's noise is a tenth of a minute.
const RHO: u64 = 300_000_000_000_000;

fn mapping(region: &str, folder: &Path) -> String {
    format!(
        r#"id = "eicu-{region}"
synthetic = true
[tables.patient]
source = {:?}
[tables.patient.columns]
patient_id = "uniquepid"
gender = {{ sql = "NULLIF(gender, '')" }}
age = {{ sql = "CASE WHEN age = '> 89' THEN 90 ELSE TRY_CAST(age AS BIGINT) END" }}
died = {{ sql = "hospitaldischargestatus = 'Expired'" }}
unit_minutes = "unitdischargeoffset"
"#,
        folder.join("patient.csv.gz").display().to_string()
    )
}

fn ask(network: &Network, permit: &str, sql: &str, more: &[&str]) -> Value {
    let key = network.key("researcher");
    let args = ["query", "--permit", permit, "--sql", sql, "--key", &key, "--output", "json"];
    serde_json::from_str(&network.sekisho(&[&args[..], more].concat()).unwrap()).unwrap()
}

fn row<'a>(answer: &'a Value, column: &str, value: Option<&str>) -> &'a Value {
    let rows = answer["rows"].as_array().unwrap();
    let found =
        rows.iter().find(|r| r[column].as_str() == value && !r["cell_note"].as_str().unwrap().contains("outside"));
    found.unwrap_or_else(|| panic!("no row with {column} = {value:?} in {answer:#}"))
}

/// Rows per age band over all regions, in plain DataFusion over the same files.
async fn plain_bands(files: &[PathBuf]) -> Vec<(String, i64)> {
    let context = SessionContext::new();
    let options = CsvReadOptions::new().schema_infer_max_records(0).file_extension(".csv.gz");
    let options = options
        .file_compression_type(datafusion::datasource::file_format::file_compression_type::FileCompressionType::GZIP);
    let mut union = Vec::new();
    for (i, file) in files.iter().enumerate() {
        context.register_csv(format!("f{i}"), file.display().to_string(), options.clone()).await.unwrap();
        union.push(format!("SELECT CASE WHEN age = '> 89' THEN 90 ELSE TRY_CAST(age AS BIGINT) END AS age FROM f{i}"));
    }
    let sql = format!("SELECT {BANDS} AS band, count(*) FROM ({}) GROUP BY 1", union.join(" UNION ALL "));
    let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
    let mut bands = Vec::new();
    for batch in batches {
        for i in 0..batch.num_rows() {
            let band = datafusion::arrow::util::display::array_value_to_string(batch.column(0), i).unwrap();
            bands.push((band, batch.column(1).as_primitive::<Int64Type>().value(i)));
        }
    }
    bands
}

#[tokio::test(flavor = "multi_thread")]
async fn five_regions_agree_with_the_known_answers() {
    let (Some(data), Some(expected)) = (real_data("eicu-demo"), real_data("expected/dev_eicu.json")) else { return };
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(expected).unwrap()).unwrap();
    let folders: Vec<PathBuf> = REGIONS.iter().map(|r| data.join(format!("region_{r}"))).collect();
    let dir = tempfile::tempdir().unwrap();
    let site = |(region, folder): (&&str, &PathBuf)| Site::new(region, mapping(region, folder));
    let setup = Setup {
        budget: Some((3 * RHO, RHO)),
        ..Setup::new(dir.path().into(), REGIONS.iter().zip(&folders).map(site).collect(), SCHEMA)
    };
    let network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    let holders = REGIONS.map(String::from);
    let text = PermitText {
        study: "eicu",
        schema: &dir.path().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("patient", &COLUMNS),
        holders: &holders,
        bounds: (20, 2),
        micro_rho: (RHO, 3 * RHO),
    };
    let permit = network.permit("permit", &permit_toml(&text, crate::now())).unwrap();

    let sql = "SELECT count(*) AS stays, count(DISTINCT patient_id) AS patients, avg(unit_minutes) AS minutes, \
               sum(CASE WHEN died THEN 1 ELSE 0 END) AS deaths FROM patient";
    let receipts = dir.path().join("receipts");
    let answer = ask(&network, &permit, sql, &["--receipts", &receipts.display().to_string()]);
    let totals = &expected["checks"]["totals"]["rows"][0];
    let los = &expected["checks"]["los"]["rows"][0];
    let one = &answer["rows"][0];
    assert_eq!(one["stays"], totals[0], "{answer:#}");
    assert_eq!(one["patients"], totals[1]);
    let mean = los[5].as_f64().unwrap() / los[0].as_f64().unwrap();
    assert!((one["minutes"].as_f64().unwrap() - mean).abs() < 1.0, "{} and not {mean}", one["minutes"]);
    let by_region = expected["checks"]["by_region"]["rows"].as_array().unwrap();
    let deaths: f64 = by_region.iter().map(|r| r[3].as_f64().unwrap()).sum();
    assert_eq!(one["deaths"].as_f64().unwrap(), deaths);
    // Each region's own table, and its receipt, which says that the data set is declared synthetic.
    for region in by_region {
        let name = region[0].as_str().unwrap();
        assert_eq!(answer["by_holder"][name][0]["stays"], region[1], "{name}");
        let own = |f: &std::fs::DirEntry| f.file_name().to_string_lossy().starts_with(&format!("{name}."));
        let file = std::fs::read_dir(&receipts).unwrap().flatten().find(own);
        let envelope: Envelope = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let (receipt, _) = envelope.peek::<Receipt>().unwrap();
        assert!(receipt.synthetic && receipt.node == name && receipt.micro_rho.get() == RHO);
    }
    assert_eq!(answer["report"]["synthetic"], Value::Bool(true));

    let sql =
        "SELECT gender, count(*) AS n, sum(CASE WHEN died THEN 1 ELSE 0 END) AS died FROM patient GROUP BY gender";
    let answer = ask(&network, &permit, sql, &[]);
    for known in expected["checks"]["by_gender"]["rows"].as_array().unwrap() {
        let found = row(&answer, "gender", known[0].as_str());
        assert_eq!(found["n"], known[1], "{known}");
        assert_eq!(found["died"].as_f64(), known[2].as_f64(), "{known}");
    }

    let sql = format!("SELECT {BANDS} AS band, count(*) AS n FROM patient GROUP BY band ORDER BY band");
    let answer = ask(&network, &permit, &sql, &[]);
    let files: Vec<PathBuf> = folders.iter().map(|f| f.join("patient.csv.gz")).collect();
    let bands = plain_bands(&files).await;
    assert!(bands.len() == 5 && bands.iter().any(|(b, n)| b == "> 89" && *n == 31), "{bands:?}");
    for (band, n) in bands {
        assert_eq!(row(&answer, "band", Some(&band))["n"], Value::from(n), "{band}");
    }
}
