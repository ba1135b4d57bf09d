//! The patients that the current snapshots know: for the hospital's own console, when it fills its register.
//!
//! It cannot be printed, cloned or counted. Rows are read in the order of patients, of one column only; what is kept is one
//! id per patient, as an eligible set keeps it.

use std::{collections::HashSet, fs::File};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{protected::TableError, snapshot::Snapshot};

/// The ids of patients, integers and texts.
#[derive(Default)]
pub struct KnownPatients {
    integers: HashSet<i64>,
    texts: HashSet<Box<str>>,
}

impl KnownPatients {
    /// Whether a table has rows of the patient that a register writes so.
    pub fn holds(&self, patient: &str) -> bool {
        patient.parse().is_ok_and(|id| self.integers.contains(&id)) || self.texts.contains(patient)
    }

    /// Adds the patients of every table of `snapshot`. It blocks.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn add(&mut self, snapshot: &Snapshot) -> Result<(), TableError> {
        for name in snapshot.tables() {
            let (Some(path), Some(table)) = (snapshot.table_path(name), snapshot.schema().table(name)) else {
                return Err(TableError::Declaration(name.into()));
            };
            let Some(patient) = &table.patient else { continue };
            let unreadable = |reason: String| TableError::Unreadable { table: name.into(), path: path.clone(), reason };
            let file = File::open(&path).map_err(|e| unreadable(e.to_string()))?;
            let rows = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(e.to_string()))?;
            let column = ProjectionMask::columns(rows.parquet_schema(), [patient.as_str()]);
            for batch in rows.with_projection(column).build().map_err(|e| unreadable(e.to_string()))? {
                let batch = batch.map_err(|e| unreadable(e.to_string()))?;
                self.add_column(batch.column(0)).map_err(|e| unreadable(e.into()))?;
            }
        }
        Ok(())
    }

    fn add_column(&mut self, ids: &dyn Array) -> Result<(), &'static str> {
        // Rows of one patient follow each other.
        if ids.data_type() == &DataType::Int64 {
            let mut last = None;
            for id in ids.as_primitive::<Int64Type>().iter().flatten().filter(|id| last.replace(*id) != Some(*id)) {
                self.integers.insert(id);
            }
            return Ok(());
        }
        let texts = ids.as_string_opt::<i32>().ok_or("its patient column is neither integer nor text")?;
        let mut last = None;
        for id in texts.iter().flatten().filter(|id| last.replace(*id) != Some(*id)) {
            if !self.texts.contains(id) {
                self.texts.insert(id.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        data::fixture::Fixture,
        register::{Importing, Register, RegisterError},
        store::Store,
    };

    #[tokio::test]
    async fn the_patients_of_every_table_are_known_as_a_register_writes_them() {
        let fixture = Fixture::with_visits().await;
        let mapping = format!(
            "{}[tables.person]\nsource = \"person.csv\"\n[tables.person.columns]\npid = \"pid\"\nweight = \"kg\"\n",
            Fixture::MAPPING
        );
        fixture.write("mapping.toml", &mapping);
        fixture.write("person.csv", "pid,kg\n41,1\n42,2\n");
        let (snapshot, _) = fixture.take(2).await.unwrap();
        let mut known = KnownPatients::default();
        known.add(&snapshot).unwrap();
        for (id, expect) in [
            ("007", true),
            ("010", true),
            ("7", true),
            ("8", false),
            ("", false),
            ("41", true),
            ("0042", true),
            ("43", false),
            ("40", false),
        ] {
            assert_eq!(known.holds(id), expect, "{id}");
        }
        let register = Register::new(Store::open(&fixture.path("node.db")).await.unwrap());
        let csv = "patient_id,event,on,said_by\n7,notified,2025-01-01,\nx,notified,2025-01-01,\n\
            x,opted_out,2025-01-02,self\ny,notified,2025-01-01,\n";
        let importing =
            Importing { known: Some(&known), ..Importing::by("tests", "2026-01-01T00:00:00Z".parse().unwrap()) };
        let strict = Importing { known_only: true, ..importing };
        let refused = register.import(Cursor::new(csv), &strict, &|_| {}).await;
        assert!(matches!(refused, Err(RegisterError::Line { line: 3, .. })), "{refused:?}");
        assert_eq!(register.seq().await.unwrap(), 0);
        let done = register.import(Cursor::new(csv), &importing, &|_| {}).await.unwrap();
        assert_eq!((done.events, done.unknown), (4, Some(2)), "patients are counted, not lines");
    }
}
