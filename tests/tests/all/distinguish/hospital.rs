//! Neighbouring hospitals with many trials in each: a trial is a group of patients of its own, to which one patient is added, with
//! extreme rows.
//!
//! That many patients are added at once, each to another trial, is as good as many releases with one patient added: a trial's
//! numbers depend on its own rows and on noise of its own (which is what is tested: noise that is shared makes no claim look
//! true that is not). Every trial's rows are the same but for its number, so that trials are alike.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        compute::cast,
        record_batch::RecordBatch,
    },
    datasource::MemTable,
    prelude::SessionContext,
};
use sekisho_protocol::schema::Schema;
use serde_json::json;

use crate::library;

/// Where the added patient's rows are.
#[derive(Clone, Copy)]
pub struct Target {
    /// Rows in `stay`.
    pub rows: i64,
    /// Over so many values of `s`, in turn.
    pub groups: i64,
    /// Rows in `drug`.
    pub drugs: i64,
}

/// The schema: `g` numbers the trials.
pub fn schema(trials: usize) -> Schema {
    let number = |name: &str, min: i64, max: i64| json!({"name": name, "type": "int64", "bounds": {"min": min.to_string(), "max": max.to_string()}});
    let (patient, g) = (json!({"name": "patient_id", "type": "int64"}), number("g", 0, trials as i64 - 1));
    let schema = json!({"id": "distinguish", "version": 1, "title": "Trials", "tables": [
        {"name": "stay", "patient": "patient_id", "columns": [
            patient, g, number("s", 0, 5), number("days", 0, 100), number("other", -50, 50), number("level", 0, 16),
            {"name": "cost", "type": "decimal", "scale": 2, "bounds": {"min": "0", "max": "1000000000"}},
            {"name": "note", "type": "text"}]},
        {"name": "person", "patient": "patient_id", "one_row_per_patient": true,
         "columns": [patient, g, number("age", 0, 120)]},
        {"name": "drug", "patient": "patient_id", "columns": [patient, number("dose", 0, 20)]}]});
    let schema: Schema = serde_json::from_value(schema).unwrap();
    sekisho_protocol::dsse::Document::check(&schema).unwrap();
    schema
}

/// Rows of `stay`, all but the note as numbers.
#[derive(Default)]
struct Stays {
    numbers: [Vec<i64>; 7],
    notes: Vec<String>,
}

impl Stays {
    fn add(&mut self, numbers: [i64; 7], note: String) {
        self.numbers.iter_mut().zip(numbers).for_each(|(column, n)| column.push(n));
        self.notes.push(note);
    }
}

fn register(session: &SessionContext, schema: &Schema, name: &str, columns: Vec<ArrayRef>) {
    let table = schema.tables.iter().find(|t| t.name == name).unwrap();
    let wanted = sekisho_aggregation::sql::arrow_schema(table);
    let columns = columns.iter().zip(wanted.fields()).map(|(c, f)| cast(c, f.data_type()).unwrap()).collect();
    let batch = RecordBatch::try_new(Arc::clone(&wanted), columns).unwrap();
    session.register_table(name, Arc::new(MemTable::try_new(wanted, vec![vec![batch]]).unwrap())).unwrap();
}

fn columns<const N: usize>(columns: [Vec<i64>; N]) -> Vec<ArrayRef> {
    columns.into_iter().map(|c| Arc::new(Int64Array::from(c)) as ArrayRef).collect()
}

/// One of two neighbours: in each trial one modest patient, and, `with` it, the target beyond every bound.
pub fn trials(schema: &Schema, trials: usize, target: Target, with: bool) -> SessionContext {
    let (mut stays, mut persons, mut drugs) =
        (Stays::default(), [(); 3].map(|()| Vec::new()), [(); 2].map(|()| Vec::new()));
    let mut patient = |id: i64, g: i64, age: i64, doses: &[i64]| {
        persons.iter_mut().zip([id, g, age]).for_each(|(column, n)| column.push(n));
        for dose in doses {
            drugs.iter_mut().zip([id, *dose]).for_each(|(column, n)| column.push(n));
        }
    };
    for g in 0..trials as i64 {
        stays.add([4 * g + 1, g, 0, 10, 1, 3, 0], "modest".into());
        patient(4 * g + 1, g, 40, &[3]);
        if with {
            for row in 0..target.rows {
                let values = [4 * g + 2, g, row % target.groups, 9_000_000, -9_000_000, 9_000_000, 9_000_000_000];
                stays.add(values, "extreme".into());
            }
            patient(4 * g + 2, g, 9_000, &vec![9_000; target.drugs as usize]);
        }
    }
    tables(schema, stays, persons, drugs)
}

/// The number of names that one trial of [`named`] has.
pub const NAMES: usize = 3;

/// Neighbours for a private key: each trial has names of its own with `base` patients in each of them; the target, `with` it, is in
/// all of them, too. `alone` targets are each in a name that nobody else has.
pub fn named(schema: &Schema, trials: usize, base: i64, alone: usize, with: bool) -> SessionContext {
    let (mut stays, mut id) = (Stays::default(), 0);
    for trial in 0..trials {
        for patient in 0..base + i64::from(with) {
            id += 1;
            for name in 0..NAMES {
                let extreme = if patient == base { 9_000_000 } else { 1 };
                stays.add([id, 0, 0, extreme, 0, 0, 0], format!("n{}", trial * NAMES + name));
            }
        }
    }
    for trial in (0..alone).filter(|_| with) {
        id += 1;
        stays.add([id, 0, 0, 1, 0, 0, 0], format!("alone{trial}"));
    }
    tables(schema, stays, [(); 3].map(|()| Vec::new()), [(); 2].map(|()| Vec::new()))
}

fn tables(schema: &Schema, stays: Stays, persons: [Vec<i64>; 3], drugs: [Vec<i64>; 2]) -> SessionContext {
    let session = library::session();
    let mut all = columns(stays.numbers);
    all.push(Arc::new(StringArray::from(stays.notes)));
    register(&session, schema, "stay", all);
    register(&session, schema, "person", columns(persons));
    register(&session, schema, "drug", columns(drugs));
    session
}
