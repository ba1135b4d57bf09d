//! The tables of the benchmarks: a schema, files in no order, and a register in which one patient in a hundred opted out.

use std::{fs::File, io::Write, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use clap::ValueEnum;
use miette::{IntoDiagnostic, Result};
use parquet::arrow::ArrowWriter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What is asked, of which tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// A group-by over events: five of a patient on average, few patients with very many.
    GroupBy,
    /// The same over persons: one row of each patient, declared and checked.
    OneRow,
    /// The same over events and persons, joined on the patient: keys of one table, values of the other.
    Join,
}

pub(super) const SCHEMA: &str = r#"{"id":"bench","version":1,"title":"Tables to measure","tables":[
    {"name":"event","patient":"patient_id","columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"109"}},
        {"name":"value","type":"int64","bounds":{"min":"0","max":"1000"}}]},
    {"name":"person","patient":"patient_id","one_row_per_patient":true,"columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"109"}},
        {"name":"value","type":"int64","bounds":{"min":"0","max":"1000"}}]}]}"#;

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GroupBy => "group-by",
            Self::OneRow => "one-row",
            Self::Join => "join",
        })
    }
}

impl Shape {
    /// Twenty cells (two sexes, NULL and outside; three bands, NULL and outside) of two aggregates.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::GroupBy => {
                "SELECT sex, age / 40 AS band, count(*) AS n, sum(value) AS total FROM event GROUP BY sex, age / 40"
            }
            Self::OneRow => {
                "SELECT sex, age / 40 AS band, count(*) AS n, sum(value) AS total FROM person GROUP BY sex, age / 40"
            }
            Self::Join => {
                "SELECT p.sex, p.age / 40 AS band, count(*) AS n, sum(e.value) AS total FROM event e \
                 JOIN person p ON e.patient_id = p.patient_id GROUP BY p.sex, p.age / 40"
            }
        }
    }

    /// Its tables.
    pub(super) fn tables(self) -> &'static [&'static str] {
        match self {
            Self::GroupBy => &["event"],
            Self::OneRow => &["person"],
            Self::Join => &["event", "person"],
        }
    }

    /// How many patients there are when its largest table has so many rows.
    pub(super) fn patients(self, rows: u64) -> u64 {
        match self {
            Self::GroupBy | Self::Join => (rows / 5).max(1),
            Self::OneRow => rows,
        }
    }
}

/// Writes the sources of `shape`, of which the largest has `rows` rows, and `register.csv` to `dir`.
pub(super) fn write(shape: Shape, rows: u64, dir: &Path) -> Result<()> {
    let patients = shape.patients(rows);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for name in shape.tables() {
        let path = dir.join(format!("{name}.parquet"));
        if *name == "event" {
            // The square of a uniform draw: few patients with many rows.
            let ids = std::iter::repeat_with(|| {
                let u = rng.random_range(0..patients);
                u * u / patients
            });
            table(&path, rows, ids)?;
        } else {
            // A step that has no common factor with the number of patients, which has no factor but 2, 3 and 5.
            table(&path, patients, (0..patients).map(|i| i.wrapping_mul(7_919) % patients))?;
        }
    }
    let mut register = std::io::BufWriter::new(File::create(dir.join("register.csv")).into_diagnostic()?);
    writeln!(register, "patient_id,notified_on,opted_out_on,died_on").into_diagnostic()?;
    for id in (0..patients).step_by(100) {
        writeln!(register, "{id},,2020-01-01,").into_diagnostic()?;
    }
    register.flush().into_diagnostic()
}

fn table(path: &Path, rows: u64, ids: impl Iterator<Item = u64>) -> Result<()> {
    let columns = ["patient_id", "sex", "age", "value"].map(|name| {
        let kind = if name == "sex" { DataType::Utf8 } else { DataType::Int64 };
        Field::new(name, kind, true)
    });
    let schema = Arc::new(Schema::new(columns.to_vec()));
    let mut writer =
        ArrowWriter::try_new(File::create(path).into_diagnostic()?, Arc::clone(&schema), None).into_diagnostic()?;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut ids = ids.filter_map(|id| i64::try_from(id).ok());
    let mut left = rows;
    while left > 0 {
        let n = left.min(65_536);
        left -= n;
        let ids: Vec<i64> = ids.by_ref().take(usize::try_from(n).unwrap_or(0)).collect();
        let ages: Int64Array = ids.iter().map(|id| Some((id * 7919) % 100)).collect();
        let sexes: StringArray = ids.iter().map(|id| Some(if id % 2 == 0 { "female" } else { "male" })).collect();
        let values: Int64Array = ids.iter().map(|_| Some(rng.random_range(0..1000_i64))).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(ids)), Arc::new(sexes), Arc::new(ages), Arc::new(values)];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).into_diagnostic()?).into_diagnostic()?;
    }
    writer.close().into_diagnostic()?;
    Ok(())
}
