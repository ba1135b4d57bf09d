//! What the end-to-end tests share; the tests themselves are in `tests/tests/`.

pub mod charging;
pub mod fuzzed;
pub mod zero_noise;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, Duration, Utc};
use sekisho_protocol::clock::Clock;

/// The schema of [`stays`].
pub const SCHEMA: &str = r#"{"id":"tests","version":1,"title":"A table for tests","tables":[
    {"name":"stay","patient":"patient_id","columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"120"}},
        {"name":"days","type":"int64","bounds":{"min":"0","max":"100"}},
        {"name":"free","type":"int64"},
        {"name":"note","type":"text"}]}]}"#;

/// All columns of [`stays`] but the patient's.
pub const COLUMNS: [&str; 5] = ["sex", "age", "days", "free", "note"];

/// A rho at which noise is far below one row; only data declared synthetic may have it.
pub const NEGLIGIBLE_NOISE: u64 = 1_000_000_000_000;

/// A clock that a test sets.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// Noon of 1 June 2026.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_780_315_200)))
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.num_seconds(), Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::SeqCst), 0).unwrap()
    }
}

/// Writes stays as CSV: patient, sex, age, days.
pub fn stays(path: &Path, rows: &[(i64, &str, i64, i64)]) {
    let mut csv = String::from("patient_id,sex,age,days,free,note\n");
    for (patient, sex, age, days) in rows {
        csv += &format!("{patient},{sex},{age},{days},1,E11\n");
    }
    std::fs::write(path, csv).unwrap();
}

/// The mapping of [`stays`] in `path`, without the line of the schema.
pub fn mapping(id: &str, path: &Path, synthetic: bool) -> String {
    let mut toml =
        format!("id = \"{id}\"\nsynthetic = {synthetic}\n[tables.stay]\nsource = {path:?}\n[tables.stay.columns]\n");
    for column in ["patient_id"].into_iter().chain(COLUMNS) {
        toml += &format!("{column} = \"{column}\"\n");
    }
    toml
}

/// The real data beside this checkout, if it is there; a user's clone has none.
pub fn real_data(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(folder);
    if path.exists() {
        return Some(path.canonicalize().unwrap());
    }
    eprintln!("skipped: {} is not there (the data is beside the developers' checkout only)", path.display());
    None
}

/// What a test's permit says.
pub struct PermitText<'a> {
    /// The study, and the permit's id.
    pub study: &'a str,
    /// The signed schema's file.
    pub schema: &'a Path,
    /// The researcher's public key, base64.
    pub researcher: &'a str,
    /// The table and its columns.
    pub table: (&'a str, &'a [&'a str]),
    /// The hospitals.
    pub holders: &'a [String],
    /// Rows and groups of one patient that count in full.
    pub bounds: (u32, u32),
    /// The most that a query, and the study, may cost in micro-rho.
    pub micro_rho: (u64, u64),
}

/// A permit as TOML, for `sekisho permit new`: valid from yesterday for a month, nothing hidden beyond the noise.
pub fn permit_toml(text: &PermitText<'_>, now: DateTime<Utc>) -> String {
    let list = |items: &[&str]| items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(", ");
    let holders: Vec<&str> = text.holders.iter().map(String::as_str).collect();
    format!(
        r#"id = "{study}"
version = 1
basis = "EHDS-69"
issuer = "tests"
purposes = ["scientific_research"]
data_user = "tests"
principal_investigator = "tests"
study_id = "{study}"
schema = {schema:?}
allowed_statistics = ["count", "count_distinct", "sum", "avg"]
release_kinds = ["noised"]
disclosure = "none"
[decision]
date = "{date}"
reasons = "a test"
[[authorised_persons]]
id = "researcher"
role = "analyst"
key = "{researcher}"
[[data]]
table = "{table}"
columns = [{columns}]
holder_nodes = [{holders}]
[dp]
rows_per_patient = {rows}
groups_per_patient = {groups}
sites_per_patient = 1
micro_rho_per_query = {query}
micro_rho_total = {total}
delta_for_reports = "1e-6"
[optout]
rule = "eu-ehds"
days = 0
[validity]
from = "{from}"
to = "{to}"
"#,
        study = text.study,
        schema = text.schema.display().to_string(),
        date = now.date_naive(),
        researcher = text.researcher,
        table = text.table.0,
        columns = list(text.table.1),
        holders = list(&holders),
        rows = text.bounds.0,
        groups = text.bounds.1,
        query = text.micro_rho.0,
        total = text.micro_rho.1,
        from = (now - Duration::days(1)).to_rfc3339(),
        to = (now + Duration::days(30)).to_rfc3339(),
    )
}

/// Waits until `file` is there.
///
/// # Panics
/// When it is not after a minute.
pub fn wait_for(file: &Path) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !file.exists() {
        assert!(std::time::Instant::now() < until, "{} was never reached", file.display());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
