//! Writes batches that are sorted by patient as Parquet whose row groups never split a patient.
//!
//! A reader may therefore give row groups to different threads, and each patient stays with one. A patient
//! with more rows than a group should have makes that group larger. Texts with a public domain are written as
//! dictionaries, one for each row group.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    compute::partition,
    datatypes::SchemaRef,
};
use datafusion::common::ScalarValue;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use sekisho_protocol::{digest::Digest, schema::Table};

use super::{
    columns::{is_dictionary, stored},
    files::{self, Hashed},
    snapshot::SnapshotError,
};

/// How large the dictionary of a row group may become: every text of the largest public domain, with room for others.
const DICTIONARY_BYTES: usize = 4 << 20;

/// What was written.
pub(super) struct Written {
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
    pub(super) row_groups: usize,
}

/// A Parquet file in the making.
pub(super) struct RowGroups<'a> {
    writer: ArrowWriter<Hashed>,
    table: &'a Table,
    schema: SchemaRef,
    /// The index of the patient column; none in a public table.
    patient: Option<usize>,
    /// The patient of the last row that was written.
    last: Option<ScalarValue>,
    /// From so many rows on, a group ends at the next patient.
    group_rows: usize,
    in_group: usize,
}

impl<'a> RowGroups<'a> {
    /// Begins the file at `path`, whose groups end at the first new patient after `group_rows` rows.
    pub(super) fn create(
        path: &Path,
        table: &'a Table,
        schema: SchemaRef,
        group_rows: usize,
    ) -> Result<Self, SnapshotError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(None);
        for column in table.columns.iter().filter(|column| is_dictionary(table, column)) {
            properties = properties
                .set_column_dictionary_page_size_limit(ColumnPath::new(vec![column.name.clone()]), DICTIONARY_BYTES);
        }
        let patient = table.patient.as_ref().and_then(|name| schema.index_of(name).ok());
        let writer =
            ArrowWriter::try_new(Hashed::new(files::create(path)?), Arc::clone(&schema), Some(properties.build()))
                .map_err(|e| failed(table, &e))?;
        Ok(Self { writer, table, schema, patient, last: None, group_rows: group_rows.max(1), in_group: 0 })
    }

    /// Writes a batch whose rows come after those of the batches before it.
    ///
    /// # Errors
    /// When the disk fails, or a patient has a second row where the schema allows one.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<(), SnapshotError> {
        let mut from = 0;
        for start in self.boundaries(batch)? {
            if start - from + self.in_group >= self.group_rows {
                self.write(&batch.slice(from, start - from))?;
                self.writer.flush().map_err(|e| failed(self.table, &e))?;
                (from, self.in_group) = (start, 0);
            }
        }
        self.write(&batch.slice(from, batch.num_rows() - from))
    }

    /// The bytes that are in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Ends the file and makes it durable.
    pub(super) fn finish(mut self) -> Result<Written, SnapshotError> {
        self.writer.flush().map_err(|e| failed(self.table, &e))?;
        let row_groups = self.writer.flushed_row_groups().len();
        let file = self.writer.into_inner().map_err(|e| failed(self.table, &e))?;
        let (sha256, bytes) = file.finish().map_err(|e| failed(self.table, &e))?;
        Ok(Written { sha256, bytes, row_groups })
    }

    /// The rows of `batch` before which a group may end.
    fn boundaries(&mut self, batch: &RecordBatch) -> Result<Vec<usize>, SnapshotError> {
        let Some(patient) = self.patient else { return Ok((0..batch.num_rows()).collect()) };
        let ids = batch.column(patient);
        let Some(end) = ids.len().checked_sub(1) else { return Ok(Vec::new()) };
        let runs = partition(std::slice::from_ref(ids)).map_err(|e| failed(self.table, &e))?.ranges();
        let first = ScalarValue::try_from_array(ids, 0).map_err(|e| failed(self.table, &e))?;
        let continued = self.last.as_ref() == Some(&first);
        if self.table.one_row_per_patient && (continued || runs.len() < ids.len()) {
            return Err(SnapshotError::ManyRows { table: self.table.name.clone() });
        }
        self.last = Some(ScalarValue::try_from_array(ids, end).map_err(|e| failed(self.table, &e))?);
        Ok(runs.iter().map(|run| run.start).skip(usize::from(continued)).collect())
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), SnapshotError> {
        self.in_group += rows.num_rows();
        let rows = stored(rows, &self.schema).map_err(|e| failed(self.table, &e))?;
        self.writer.write(&rows).map_err(|e| failed(self.table, &e))
    }
}

fn failed(table: &Table, error: &dyn std::error::Error) -> SnapshotError {
    SnapshotError::Write { table: table.name.clone(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use arrow::array::{ArrayRef, StringArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use sekisho_protocol::schema::Schema;

    use super::*;
    use crate::data::columns::arrow_schema;

    fn check(table: &str, batches: &[&[&str]], group_rows: usize, expect: &[&str]) {
        let json = format!(r#"{{"id":"s","version":1,"title":"","tables":[{table}]}}"#);
        let schema: Schema = serde_json::from_str(&json).unwrap();
        let table = &schema.tables[0];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.parquet");
        let mut writer = RowGroups::create(&path, table, arrow_schema(table), group_rows).unwrap();
        for ids in batches {
            let ids: ArrayRef = std::sync::Arc::new(StringArray::from(ids.to_vec()));
            writer.push(&RecordBatch::try_new(arrow_schema(table), vec![ids]).unwrap()).unwrap();
        }
        assert_eq!(writer.finish().unwrap().row_groups, expect.len());
        let found: Vec<String> = (0..expect.len())
            .map(|group| {
                let file = File::open(&path).unwrap();
                let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_row_groups(vec![group]);
                let ids = |batch: RecordBatch| {
                    batch.column(0).as_any().downcast_ref::<StringArray>().unwrap().iter().flatten().collect::<String>()
                };
                reader.build().unwrap().map(|batch| ids(batch.unwrap())).collect()
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn no_group_splits_a_patient() {
        let table = r#"{"name":"t","patient":"id","columns":[{"name":"id","type":"text"}]}"#;
        check(table, &[&["a", "a", "a", "b", "c", "c", "d"]], 2, &["aaa", "bcc", "d"]);
        check(table, &[&["a"], &["a"], &[], &["a", "b"], &["b"], &["c"]], 2, &["aaa", "bb", "c"]);
        check(table, &[&["a", "a"], &["a", "a"], &["a"]], 1, &["aaaaa"]);
        check(table, &[&["a", "b"], &["c"]], 0, &["a", "b", "c"]);
        check(table, &[&["a", "b"], &["c"]], 100, &["abc"]);
        check(table, &[], 100, &[]);
    }

    #[test]
    fn a_public_table_is_cut_anywhere() {
        let table = r#"{"name":"t","public":"codes","columns":[{"name":"id","type":"text"}]}"#;
        check(table, &[&["a", "a", "a"], &["a", "b"]], 2, &["aa", "aa", "b"]);
    }

    #[test]
    fn a_text_with_a_public_domain_is_stored_as_a_dictionary_and_a_patients_id_is_not() {
        let json = r#"{"id":"s","version":1,"title":"","tables":[{"name":"t","patient":"id","columns":[
            {"name":"id","type":"text","domain":["a","b"]},{"name":"sex","type":"text","domain":["f","m"]},
            {"name":"free","type":"text"}]}]}"#;
        let schema: Schema = serde_json::from_str(json).unwrap();
        let table = &schema.tables[0];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.parquet");
        let mut writer = RowGroups::create(&path, table, arrow_schema(table), 100).unwrap();
        // More different texts than fit one dictionary: the reader gives them back all the same.
        let texts: Vec<_> = (0..50_000).map(|n| (n % 7 > 0).then(|| format!("{n:0>120}"))).collect();
        let text: ArrayRef = std::sync::Arc::new(StringArray::from(texts.clone()));
        let ids: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["a"; texts.len()]));
        let plain = [("id", ids), ("sex", std::sync::Arc::clone(&text)), ("free", text)];
        writer.push(&RecordBatch::try_from_iter_with_nullable(plain.map(|(n, c)| (n, c, true))).unwrap()).unwrap();
        writer.finish().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let types: Vec<_> = reader.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
        assert_eq!(types, ["Utf8", "Dictionary(Int32, Utf8)", "Utf8"]);
        let encodings =
            |at: usize| format!("{:?}", reader.metadata().row_group(0).column(at).encodings().collect::<Vec<_>>());
        assert!(encodings(1).contains("RLE_DICTIONARY"), "{}", encodings(1));
        let mut found = Vec::new();
        for batch in reader.build().unwrap() {
            let column = arrow::compute::cast(batch.unwrap().column(1), &arrow::datatypes::DataType::Utf8).unwrap();
            let column = column.as_any().downcast_ref::<StringArray>().unwrap();
            found.extend(column.iter().map(|text| text.map(String::from)));
        }
        assert_eq!(found, texts);
    }
}
