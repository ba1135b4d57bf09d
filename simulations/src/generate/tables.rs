//! The five source tables of one hospital as Parquet, a batch at a time.
//!
//! Promises: no more than a batch and a row group of each table is held; rows are written in the order
//! pushed. Deliberately unsorted and with identifiers in them: making that safe is the node's work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::truth::RowsWritten;
use super::{BATCH_ROWS, GenerateError};

/// A row of one table.
trait Row: Sized {
    /// The table's name, and its file's without `.parquet`.
    const TABLE: &'static str;
    /// Columns in order: name, type, whether absent values occur.
    fn fields() -> Vec<(&'static str, DataType, bool)>;
    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError>;
}

/// `patient_summary`: one row per patient.
pub(super) struct Summary {
    pub(super) patient_id: i64,
    pub(super) name: String,
    pub(super) insurance_no: String,
    pub(super) age: i64,
    pub(super) sex: Option<&'static str>,
    pub(super) prefecture: u8,
    pub(super) diabetes_stage: &'static str,
    pub(super) complications: i64,
    pub(super) first_drug: &'static str,
    pub(super) adverse_event: bool,
    pub(super) weight_hectograms: Option<i64>,
}

/// `stay`: one row per hospital stay; dates are days since 1970-01-01.
pub(super) struct Stay {
    pub(super) patient_id: i64,
    pub(super) stay_id: i64,
    pub(super) admitted: i32,
    pub(super) discharged: i32,
    pub(super) days: i64,
    pub(super) dpc: &'static str,
    pub(super) main_icd10: &'static str,
    pub(super) outcome: &'static str,
}

/// `diagnosis`: one row per diagnosis made.
pub(super) struct Diagnosis {
    pub(super) patient_id: i64,
    pub(super) icd10: &'static str,
    pub(super) on_date: i32,
}

/// `prescription`: one row per drug prescribed; the amount in hundredths of the drug's unit.
pub(super) struct Prescription {
    pub(super) patient_id: i64,
    pub(super) atc: &'static str,
    pub(super) yj: &'static str,
    pub(super) on_date: i32,
    pub(super) days: i64,
    pub(super) amount_hundredths: i64,
}

/// `lab`: one row per laboratory result.
pub(super) struct Lab {
    pub(super) patient_id: i64,
    pub(super) jlac10: &'static str,
    pub(super) on_date: i32,
    pub(super) value: Option<f64>,
}

fn ints<R>(rows: &[R], of: impl Fn(&R) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
}

fn dates<R>(rows: &[R], of: impl Fn(&R) -> i32) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(rows.iter().map(of)))
}

fn texts<'a, R>(rows: &'a [R], of: impl Fn(&'a R) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn decimals<R>(
    rows: &[R],
    (precision, scale): (u8, i8),
    of: impl Fn(&R) -> Option<i64>,
) -> Result<ArrayRef, ArrowError> {
    let values: Decimal128Array = rows.iter().map(|row| of(row).map(i128::from)).collect();
    Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
}

const WEIGHT: (u8, i8) = (6, 1);
const AMOUNT: (u8, i8) = (9, 2);

impl Row for Summary {
    const TABLE: &'static str = "patient_summary";

    fn fields() -> Vec<(&'static str, DataType, bool)> {
        vec![
            ("patient_id", DataType::Int64, false),
            ("name", DataType::Utf8, false),
            ("insurance_no", DataType::Utf8, false),
            ("age", DataType::Int64, false),
            ("sex", DataType::Utf8, true),
            ("prefecture", DataType::Utf8, false),
            ("diabetes_stage", DataType::Utf8, false),
            ("complications", DataType::Int64, false),
            ("first_drug", DataType::Utf8, false),
            ("adverse_event", DataType::Boolean, false),
            ("weight_kg", DataType::Decimal128(WEIGHT.0, WEIGHT.1), true),
        ]
    }

    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError> {
        let sexes: StringArray = rows.iter().map(|r| r.sex).collect();
        let codes: Vec<String> = (0..100).map(|code| format!("{code:02}")).collect();
        let events: Vec<bool> = rows.iter().map(|r| r.adverse_event).collect();
        Ok(vec![
            ints(rows, |r| r.patient_id),
            texts(rows, |r| &r.name),
            texts(rows, |r| &r.insurance_no),
            ints(rows, |r| r.age),
            Arc::new(sexes),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &codes[usize::from(r.prefecture)]))),
            texts(rows, |r| r.diabetes_stage),
            ints(rows, |r| r.complications),
            texts(rows, |r| r.first_drug),
            Arc::new(BooleanArray::from(events)),
            decimals(rows, WEIGHT, |r| r.weight_hectograms)?,
        ])
    }
}

impl Row for Stay {
    const TABLE: &'static str = "stay";

    fn fields() -> Vec<(&'static str, DataType, bool)> {
        vec![
            ("patient_id", DataType::Int64, false),
            ("stay_id", DataType::Int64, false),
            ("admitted", DataType::Date32, false),
            ("discharged", DataType::Date32, false),
            ("days", DataType::Int64, false),
            ("dpc", DataType::Utf8, false),
            ("main_icd10", DataType::Utf8, false),
            ("outcome", DataType::Utf8, false),
        ]
    }

    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![
            ints(rows, |r| r.patient_id),
            ints(rows, |r| r.stay_id),
            dates(rows, |r| r.admitted),
            dates(rows, |r| r.discharged),
            ints(rows, |r| r.days),
            texts(rows, |r| r.dpc),
            texts(rows, |r| r.main_icd10),
            texts(rows, |r| r.outcome),
        ])
    }
}

impl Row for Diagnosis {
    const TABLE: &'static str = "diagnosis";

    fn fields() -> Vec<(&'static str, DataType, bool)> {
        vec![
            ("patient_id", DataType::Int64, false),
            ("icd10", DataType::Utf8, false),
            ("on_date", DataType::Date32, false),
        ]
    }

    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![ints(rows, |r| r.patient_id), texts(rows, |r| r.icd10), dates(rows, |r| r.on_date)])
    }
}

impl Row for Prescription {
    const TABLE: &'static str = "prescription";

    fn fields() -> Vec<(&'static str, DataType, bool)> {
        vec![
            ("patient_id", DataType::Int64, false),
            ("atc", DataType::Utf8, false),
            ("yj", DataType::Utf8, false),
            ("on_date", DataType::Date32, false),
            ("days", DataType::Int64, false),
            ("amount", DataType::Decimal128(AMOUNT.0, AMOUNT.1), false),
        ]
    }

    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![
            ints(rows, |r| r.patient_id),
            texts(rows, |r| r.atc),
            texts(rows, |r| r.yj),
            dates(rows, |r| r.on_date),
            ints(rows, |r| r.days),
            decimals(rows, AMOUNT, |r| Some(r.amount_hundredths))?,
        ])
    }
}

impl Row for Lab {
    const TABLE: &'static str = "lab";

    fn fields() -> Vec<(&'static str, DataType, bool)> {
        vec![
            ("patient_id", DataType::Int64, false),
            ("jlac10", DataType::Utf8, false),
            ("on_date", DataType::Date32, false),
            ("value", DataType::Float64, true),
        ]
    }

    fn columns(rows: &[Self]) -> Result<Vec<ArrayRef>, ArrowError> {
        let values: Float64Array = rows.iter().map(|r| r.value).collect();
        Ok(vec![ints(rows, |r| r.patient_id), texts(rows, |r| r.jlac10), dates(rows, |r| r.on_date), Arc::new(values)])
    }
}

/// One table's file and the rows not yet in it.
struct Table<R> {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<File>,
    waiting: Vec<R>,
    written: u64,
}

impl<R: Row> Table<R> {
    fn create(dir: &Path) -> Result<Self, GenerateError> {
        let path = dir.join(format!("{}.parquet", R::TABLE));
        let file = File::create_new(&path).map_err(|e| GenerateError::io(&path, e))?;
        let fields = R::fields();
        let fields = fields.into_iter().map(|(name, kind, nulls)| Field::new(name, kind, nulls));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(BATCH_ROWS))
            .build();
        match ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)) {
            Ok(writer) => Ok(Self { path, schema, writer, waiting: Vec::new(), written: 0 }),
            Err(source) => Err(GenerateError::Parquet { path, source }),
        }
    }

    /// Takes a row; writes the batch once it is full. Returns how many rows went to the file.
    fn push(&mut self, row: R, batch_rows: usize) -> Result<u64, GenerateError> {
        self.waiting.push(row);
        if self.waiting.len() < batch_rows {
            return Ok(0);
        }
        self.write()
    }

    fn write(&mut self) -> Result<u64, GenerateError> {
        let rows = self.waiting.len() as u64;
        R::columns(&self.waiting)
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns))
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|source| self.failed(source))?;
        self.waiting.clear();
        self.written += rows;
        Ok(rows)
    }

    /// Writes what waits and the footer; returns the rows of the whole file.
    fn finish(mut self) -> Result<u64, GenerateError> {
        self.write()?;
        match self.writer.close() {
            Ok(_) => Ok(self.written),
            Err(source) => Err(GenerateError::Parquet { path: self.path, source }),
        }
    }

    fn failed(&self, source: ParquetError) -> GenerateError {
        GenerateError::Parquet { path: self.path.clone(), source }
    }
}

/// The five tables of one hospital, being written.
pub(super) struct Tables<'a> {
    summaries: Table<Summary>,
    stays: Table<Stay>,
    diagnoses: Table<Diagnosis>,
    prescriptions: Table<Prescription>,
    labs: Table<Lab>,
    batch_rows: usize,
    written: u64,
    /// Hears how many rows of this hospital are in files.
    told: &'a dyn Fn(u64),
}

impl<'a> Tables<'a> {
    pub(super) fn create(dir: &Path, batch_rows: usize, told: &'a dyn Fn(u64)) -> Result<Self, GenerateError> {
        Ok(Self {
            summaries: Table::create(dir)?,
            stays: Table::create(dir)?,
            diagnoses: Table::create(dir)?,
            prescriptions: Table::create(dir)?,
            labs: Table::create(dir)?,
            batch_rows,
            written: 0,
            told,
        })
    }

    pub(super) fn summary(&mut self, row: Summary) -> Result<(), GenerateError> {
        let rows = self.summaries.push(row, self.batch_rows)?;
        self.tell(rows);
        Ok(())
    }

    pub(super) fn stay(&mut self, row: Stay) -> Result<(), GenerateError> {
        let rows = self.stays.push(row, self.batch_rows)?;
        self.tell(rows);
        Ok(())
    }

    pub(super) fn diagnosis(&mut self, row: Diagnosis) -> Result<(), GenerateError> {
        let rows = self.diagnoses.push(row, self.batch_rows)?;
        self.tell(rows);
        Ok(())
    }

    pub(super) fn prescription(&mut self, row: Prescription) -> Result<(), GenerateError> {
        let rows = self.prescriptions.push(row, self.batch_rows)?;
        self.tell(rows);
        Ok(())
    }

    pub(super) fn lab(&mut self, row: Lab) -> Result<(), GenerateError> {
        let rows = self.labs.push(row, self.batch_rows)?;
        self.tell(rows);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<RowsWritten, GenerateError> {
        Ok(RowsWritten {
            patient_summary: self.summaries.finish()?,
            stay: self.stays.finish()?,
            diagnosis: self.diagnoses.finish()?,
            prescription: self.prescriptions.finish()?,
            lab: self.labs.finish()?,
        })
    }

    fn tell(&mut self, rows: u64) {
        if rows > 0 {
            self.written += rows;
            (self.told)(self.written);
        }
    }
}
