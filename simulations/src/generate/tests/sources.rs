//! Reads a generated network back, and judges eligibility anew.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Int64Type};
use chrono::{NaiveDate, TimeDelta};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::as_of;

/// Every file under a directory, with its bytes.
pub(super) fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let inner = bytes(&path);
            let name = PathBuf::from(path.file_name().unwrap());
            found.extend(inner.into_iter().map(|(p, b)| (name.join(p), b)));
        } else {
            let name = path.file_name().unwrap().into();
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// A whole table as one batch.
pub(super) fn table(dir: &Path, hospital: usize, name: &str) -> RecordBatch {
    let path = dir.join(format!("hospital-{hospital}/{name}.parquet"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

pub(super) fn ints<'a>(table: &'a RecordBatch, column: &str) -> &'a [i64] {
    let column = table.column_by_name(column).unwrap();
    column.as_primitive::<Int64Type>().values()
}

pub(super) fn dates<'a>(table: &'a RecordBatch, column: &str) -> &'a [i32] {
    let column = table.column_by_name(column).unwrap();
    column.as_primitive::<Date32Type>().values()
}

pub(super) fn texts<'a>(table: &'a RecordBatch, column: &str) -> Vec<Option<&'a str>> {
    let column = table.column_by_name(column).unwrap();
    column.as_string::<i32>().iter().collect()
}

/// A register's line: notified, opted out, died.
pub(super) type Line = [Option<NaiveDate>; 3];

pub(super) fn register(dir: &Path, hospital: usize) -> HashMap<i64, Line> {
    let path = dir.join(format!("hospital-{hospital}/register.csv"));
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("patient_id,notified_on,opted_out_on,died_on"));
    let mut register = HashMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), 4, "{line}");
        let day = |i: usize| (!cells[i].is_empty()).then(|| cells[i].parse().unwrap());
        let twice = register.insert(cells[0].parse().unwrap(), [day(1), day(2), day(3)]);
        assert!(twice.is_none(), "{line} is not the patient's first");
    }
    register
}

pub(super) fn eligible(line: Option<&Line>) -> bool {
    let Some([Some(notified), opted_out, died]) = line else {
        return false;
    };
    as_of().signed_duration_since(*notified) >= TimeDelta::days(30)
        && opted_out.is_none_or(|on| on > as_of())
        && died.is_none_or(|on| on >= *notified)
}
