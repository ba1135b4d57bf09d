//! The demo's study: schema, mapping, permit and questions over the synthetic hospitals, and their truth.

use std::path::Path;

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int64Type},
};
use chrono::{DateTime, Duration, NaiveDate, Utc};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext};
use miette::{IntoDiagnostic, Result, miette};

/// The schema of the synthetic network, as JSON.
pub const SCHEMA: &str = include_str!("study/schema.json");

/// How many patients of the demo's age bands have mild diabetes without complications.
pub const FEASIBILITY: &str = "\
SELECT CASE WHEN age < 18 THEN '0-17' WHEN age < 40 THEN '18-39' WHEN age < 65 THEN '40-64'
            WHEN age < 75 THEN '65-74' ELSE '75+' END AS age_band,
       sex, count(*) AS patients
FROM patient_summary
WHERE diabetes_stage = 'mild' AND complications = 0
GROUP BY age_band, sex
ORDER BY age_band, sex";

/// The rate of the adverse event under drug A, drug B and neither.
pub const ADVERSE_EVENTS: &str = "\
SELECT first_drug, count(*) AS patients,
       sum(CASE WHEN adverse_event THEN 1 ELSE 0 END) AS events,
       avg(CASE WHEN adverse_event THEN 1 ELSE 0 END) AS rate
FROM patient_summary
GROUP BY first_drug
ORDER BY first_drug";

/// Rows of patients: must be refused.
pub const ROWS: &str = "SELECT age, sex, prefecture FROM patient_summary WHERE diabetes_stage = 'severe'";

/// The mapping of one synthetic hospital whose Parquet files are in `dir`, without the line of the schema.
pub fn mapping(name: &str, dir: &Path) -> String {
    let tables = [
        (
            "patient_summary",
            &[
                "patient_id",
                "age",
                "sex",
                "prefecture",
                "diabetes_stage",
                "complications",
                "first_drug",
                "adverse_event",
                "weight_kg",
            ][..],
        ),
        ("stay", &["patient_id", "admitted", "days", "dpc", "main_icd10", "outcome"]),
    ];
    let mut toml = format!("id = \"{name}\"\nsynthetic = true\n");
    for (table, columns) in tables {
        let source = dir.join(format!("{table}.parquet"));
        toml += &format!("[tables.{table}]\nsource = {:?}\n[tables.{table}.columns]\n", source.display().to_string());
        for column in columns {
            toml += &format!("{column} = \"{column}\"\n");
        }
    }
    toml
}

/// What the demo's permit says.
pub struct PermitText<'a> {
    /// The signed schema's file.
    pub schema: &'a Path,
    /// The researcher's public key, base64.
    pub researcher: &'a str,
    /// The hospitals.
    pub holders: Vec<&'a str>,
    /// The most that a query may cost.
    pub per_query: u64,
    /// What the study may cost.
    pub total: u64,
}

/// The demo's permit as TOML, valid from yesterday for a year.
pub fn permit(text: &PermitText<'_>, now: DateTime<Utc>) -> String {
    let holders = text.holders.iter().map(|h| format!("{h:?}")).collect::<Vec<_>>().join(", ");
    let (from, to) = ((now - Duration::days(1)).to_rfc3339(), (now + Duration::days(365)).to_rfc3339());
    format!(
        r#"id = "diabetes-trial"
version = 1
basis = "EHDS-69"
issuer = "Synthetic access body"
purposes = ["scientific_research"]
data_user = "Synthetic University"
principal_investigator = "Dr. Hanako Synthetic"
study_id = "diabetes-trial"
schema = {schema:?}
allowed_statistics = ["count", "count_distinct", "sum", "avg"]
release_kinds = ["noised"]
disclosure = "jp-ndb"

[decision]
date = "{date}"
reasons = "Feasibility of a diabetes trial, and drug safety."

[[authorised_persons]]
id = "researcher"
role = "analyst"
key = "{researcher}"

[[data]]
table = "patient_summary"
columns = ["age", "sex", "prefecture", "diabetes_stage", "complications", "first_drug", "adverse_event", "weight_kg"]
holder_nodes = [{holders}]

[[data]]
table = "stay"
columns = ["admitted", "days", "dpc", "main_icd10", "outcome"]
holder_nodes = [{holders}]

[dp]
rows_per_patient = 10
groups_per_patient = 4
sites_per_patient = 2
micro_rho_per_query = {per_query}
micro_rho_total = {total}
delta_for_reports = "1e-6"

[optout]
rule = "jp-ngmia"
days = 30

[validity]
from = "{from}"
to = "{to}"
"#,
        schema = text.schema.display().to_string(),
        date = now.date_naive(),
        researcher = text.researcher,
        per_query = text.per_query,
        total = text.total,
    )
}

/// One true cell: its keys as text, `None` for NULL, and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct TrueCell {
    /// The group keys.
    pub keys: Vec<Option<String>>,
    /// The aggregates.
    pub values: Vec<f64>,
}

/// The true answer of `sql` over the eligible patients of the hospitals in `dirs`: sums over hospitals, so that a patient
/// at two counts twice. Plain DataFusion over the generator's files; nothing of Sekisho's engine.
///
/// `sql` must be over `patient_summary`, which has one row per patient, so that no contribution bound bites; averages are
/// not summable and are left out. `register` names the register CSV of a hospital's folder.
///
/// # Errors
/// When a file cannot be read.
pub async fn truth(sql: &str, keys: usize, dirs: &[&Path], as_of: NaiveDate) -> Result<Vec<TrueCell>> {
    let mut cells: Vec<TrueCell> = Vec::new();
    for dir in dirs {
        for one in truth_of(sql, keys, dir, as_of).await? {
            match cells.iter_mut().find(|c| c.keys == one.keys) {
                Some(cell) => cell.values.iter_mut().zip(one.values).for_each(|(a, b)| *a += b),
                None => cells.push(one),
            }
        }
    }
    Ok(cells)
}

/// The generator's files of the hospital in `dir` as the tables `everyone` and `register`.
async fn files(dir: &Path) -> Result<SessionContext> {
    let context = SessionContext::new();
    let file = |name: &str| dir.join(name).display().to_string();
    context
        .register_parquet("everyone", file("patient_summary.parquet"), ParquetReadOptions::default())
        .await
        .into_diagnostic()?;
    context.register_csv("register", file("register.csv"), CsvReadOptions::default()).await.into_diagnostic()?;
    Ok(context)
}

async fn truth_of(sql: &str, keys: usize, dir: &Path, as_of: NaiveDate) -> Result<Vec<TrueCell>> {
    let context = files(dir).await?;
    let latest = as_of - Duration::days(30);
    let eligible = format!(
        "CREATE VIEW patient_summary AS SELECT * FROM everyone WHERE patient_id IN (SELECT patient_id FROM register \
         WHERE notified_on <= '{latest}' AND (opted_out_on IS NULL OR opted_out_on > '{as_of}') \
         AND (died_on IS NULL OR died_on >= notified_on))"
    );
    context.sql(&eligible).await.into_diagnostic()?.collect().await.into_diagnostic()?;
    let batches = context.sql(sql).await.into_diagnostic()?.collect().await.into_diagnostic()?;
    let mut cells = Vec::new();
    for batch in batches {
        let text = |i: usize| arrow::compute::cast(batch.column(i), &DataType::Utf8).into_diagnostic();
        let number = |i: usize| arrow::compute::cast(batch.column(i), &DataType::Float64).into_diagnostic();
        let names = (0..keys).map(text).collect::<Result<Vec<_>>>()?;
        let numbers = (keys..batch.num_columns()).map(number).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let key = |a: &arrow::array::ArrayRef| a.is_valid(row).then(|| a.as_string::<i32>().value(row).to_string());
            let value = |a: &arrow::array::ArrayRef| {
                if a.is_valid(row) { a.as_primitive::<Float64Type>().value(row) } else { 0.0 }
            };
            cells.push(TrueCell { keys: names.iter().map(key).collect(), values: numbers.iter().map(value).collect() });
        }
    }
    Ok(cells)
}

/// A patient of the hospital in `dir` whom the study counts: for the demo's opt-out.
///
/// # Errors
/// When there is none, or a file cannot be read.
pub async fn somebody(dir: &Path, as_of: NaiveDate) -> Result<i64> {
    let context = files(dir).await?;
    let latest = as_of - Duration::days(30);
    let sql = format!(
        "SELECT e.patient_id FROM everyone e JOIN register r ON e.patient_id = r.patient_id \
         WHERE diabetes_stage = 'mild' AND complications = 0 AND notified_on <= '{latest}' AND opted_out_on IS NULL \
         AND died_on IS NULL ORDER BY 1 LIMIT 1"
    );
    let batches = context.sql(&sql).await.into_diagnostic()?.collect().await.into_diagnostic()?;
    let found = batches.iter().find(|b| b.num_rows() > 0).ok_or_else(|| miette!("no such patient"))?;
    Ok(found.column(0).as_primitive::<Int64Type>().value(0))
}
