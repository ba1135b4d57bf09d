//! Plain SQL: the same text over the same rows in DataFusion, and in DuckDB as a process of its own.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::{
    compare::{Number, Rows, rows},
    source::{FOLDER, Source},
};

pub async fn datafusion(tables: &SessionContext, sql: &str, keys: usize) -> Result<Rows, String> {
    let frame = tables.sql(sql).await.map_err(|e| e.to_string())?;
    Ok(rows(&frame.collect().await.map_err(|e| e.to_string())?, keys))
}

/// A Python that has `duckdb`, if there is one.
#[expect(clippy::disallowed_methods, reason = "the edge of the tests: `.ci/run` names its Python in the environment")]
fn python() -> Option<String> {
    let python = std::env::var("SEKISHO_DUCKDB_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import duckdb"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!(
        "DuckDB is passed over: {python} has no duckdb (pip install duckdb into a venv, and name its python in \
         SEKISHO_DUCKDB_PYTHON)"
    );
    None
}

/// DuckDB's answers to all queries over the Parquet files in `folder`; `None` where there is no DuckDB.
pub fn duck(source: &Source, folder: &Path, queries: &[String]) -> Option<Vec<Value>> {
    let python = python()?;
    let file =
        |t: &super::source::Prepared| (t.schema.name.clone(), json!(folder.join(format!("{}.parquet", t.schema.name))));
    let tables: serde_json::Map<String, Value> = source.tables.iter().map(file).collect();
    let work = json!({"tables": tables, "queries": queries}).to_string();
    let mut child = Command::new(python)
        .arg(format!("{FOLDER}/duck.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads all of its input before it writes.
    child.stdin.take().unwrap().write_all(work.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "duck.py failed");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), queries.len());
    Some(answers)
}

/// One answer of `duck.py`.
pub fn of_json(answer: &Value, keys: usize) -> Result<Rows, String> {
    if let Some(error) = answer.as_str() {
        return Err(error.to_string());
    }
    let key = |v: &Value| match v {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let number = |v: &Value| match v {
        Value::Null => Number::Null,
        Value::String(decimal) => Number::Real(decimal.parse().unwrap(), 0.0),
        Value::Number(n) if n.is_f64() => Number::Real(n.as_f64().unwrap(), 0.0),
        Value::Number(n) => Number::Whole(n.as_f64().unwrap()),
        other => panic!("{other} is no number"),
    };
    let row = |row: &Value| {
        let row = row.as_array().unwrap();
        (row[..keys].iter().map(key).collect(), row[keys..].iter().map(number).collect())
    };
    Ok(Rows(answer.as_array().unwrap().iter().map(row).collect()))
}
