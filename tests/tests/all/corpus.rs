//! The engine without noise, and with bounds that do not bite, against plain DataFusion and DuckDB.
//!
//! Queries are generated: the statements in `tests/corpus/queries/*.sql` have places for the tables, keys, filters and
//! numbers that each source in `tests/corpus/sources/*.toml` has. Draws are of a fixed seed, so that the corpus is the same
//! in every run. DuckDB is PyPI's, in a process of its own (`tests/corpus/duck.py`). With bounds that bite, see `reference`.

mod compare;
mod exact;
mod generate;
mod plain;
mod reference;
mod source;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::library::Library;

/// The files of statements.
const STATEMENTS: &[&str] =
    &["aggregates", "cohorts", "per_patient", "windows", "relations", "moments", "quantiles", "afterwards"];

/// How many queries of each source must be admitted and equal, so that four sources have 500.
const AT_LEAST: usize = 130;

async fn agrees(name: &str, folder: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let source = source::Source::read(name);
    let tables = source.load(folder, dir.path()).await;
    let queries = generate::queries(&source, STATEMENTS);
    let library = Library { permit: source.permit(), schema: source.schema(), tables };
    let duck = plain::duck(&source, dir.path(), &queries);
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for (i, sql) in queries.iter().enumerate() {
        let plan = match library.analyse(sql) {
            Ok(plan) => Arc::new(plan),
            Err(refusal) => {
                wrong.push(format!("refused: {sql}\n  {refusal}"));
                continue;
            }
        };
        let (release, most_rows) = match library.release(&plan).await {
            Ok(release) => release,
            Err(error) => {
                wrong.push(format!("admitted, and cannot run: {sql}\n  {error}"));
                continue;
            }
        };
        let limit = source.rows_per_patient.min(source.groups_per_patient);
        assert!(most_rows <= limit.into(), "the bounds bite, a patient has {most_rows} rows: {sql}");
        let got = compare::released(&plan, &library.table(&plan, &release).await);
        let keys = compare::keys(&plan);
        let mut others = vec![("DataFusion", plain::datafusion(&library.tables, sql, keys).await)];
        others.extend(duck.as_ref().map(|answers| ("DuckDB", plain::of_json(&answers[i], keys))));
        let differences: Vec<String> = others
            .into_iter()
            .filter_map(|(engine, want)| Some(format!("{engine}: {}", want.and_then(|w| got.equals(&w)).err()?)))
            .collect();
        if differences.is_empty() {
            equal += 1;
        } else {
            wrong.push(format!("differs: {sql}\n  {}", differences.join("\n  ")));
        }
    }
    eprintln!("{}: {equal} of {} queries are equal", source.title, queries.len());
    assert!(wrong.is_empty(), "{}: {} of {}:\n{}", source.title, wrong.len(), queries.len(), wrong.join("\n"));
    assert!(equal >= AT_LEAST, "{}: only {equal} queries", source.title);
}

/// The files of the synthetic network, or the real data beside the checkout, if they are there.
fn files(name: &str, dir: &Path) -> Option<PathBuf> {
    if let Some(folder) = source::Source::read(name).folder {
        return sekisho_tests::real_data(&folder);
    }
    let as_of = chrono::NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let plan = sekisho_sim::generate::Plan { hospitals: 3, patients: 400, rows: 6_000, seed: 5, as_of };
    let out = dir.join("network");
    sekisho_sim::generate::generate(&plan, &out, &|_, _| {}).unwrap();
    Some(out)
}

#[tokio::test]
async fn exact_tables_are_those_of_plain_sql() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(folder) = files("network", dir.path()) {
        exact::agrees("network", &folder).await;
    }
}

/// Two tests for each source: bounds that do not bite, and bounds that do.
macro_rules! sources {
    ($($name:ident, $plain:ident, $bounded:ident;)*) => {$(
        #[tokio::test]
        async fn $plain() {
            let dir = tempfile::tempdir().unwrap();
            if let Some(folder) = files(stringify!($name), dir.path()) {
                agrees(stringify!($name), &folder).await;
            }
        }

        #[tokio::test]
        async fn $bounded() {
            let dir = tempfile::tempdir().unwrap();
            if let Some(folder) = files(stringify!($name), dir.path()) {
                reference::agrees(stringify!($name), &folder).await;
            }
        }
    )*};
}

sources! {
    network, plain_sql_agrees_on_the_synthetic_network, bounds_that_bite_agree_on_the_synthetic_network;
    synthea, plain_sql_agrees_on_synthea, bounds_that_bite_agree_on_synthea;
    mimic, plain_sql_agrees_on_mimic, bounds_that_bite_agree_on_mimic;
    eicu, plain_sql_agrees_on_eicu, bounds_that_bite_agree_on_eicu;
}
