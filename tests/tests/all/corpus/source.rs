//! A source of the corpus: its files, the tables of `schema/1` that are made of them, and the words that statements are
//! filled with.

use std::{collections::BTreeMap, path::Path};

use datafusion::{
    dataframe::DataFrameWriteOptions,
    datasource::file_format::file_compression_type::FileCompressionType,
    prelude::{CsvReadOptions, ParquetReadOptions, SessionContext},
};
use sekisho_protocol::{
    permit::Permit,
    schema::{Schema, Table},
};
use serde::Deserialize;

use crate::library;

pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

/// What a file in `tests/corpus/sources` says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub title: String,
    /// Where the real data are; none for generated ones.
    pub folder: Option<String>,
    /// The patient column of every protected table.
    pub patient: String,
    /// Bounds that do not bite.
    pub rows_per_patient: u32,
    pub groups_per_patient: u32,
    raw: Vec<Raw>,
    pub tables: Vec<Prepared>,
}

/// Files of one shape; CSV columns are text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    files: Vec<String>,
}

/// A table, made by `sql` of the files as `raw_<name>`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    sql: String,
    pub schema: Table,
    /// Pieces of SQL by what they are; `@` stands for the table's alias and a point.
    pub words: BTreeMap<String, Vec<String>>,
}

impl Source {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(format!("{FOLDER}/sources/{name}.toml")).unwrap();
        toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn schema(&self) -> Schema {
        let tables = self.tables.iter().map(|t| t.schema.clone()).collect();
        let schema = Schema { id: "corpus".into(), version: 1, title: self.title.clone(), tables };
        sekisho_protocol::dsse::Document::check(&schema).unwrap();
        schema
    }

    pub fn permit(&self) -> Permit {
        library::permit(&self.schema(), self.rows_per_patient, self.groups_per_patient)
    }

    /// The tables, in memory, and as `<table>.parquet` in `out` for the other engine.
    pub async fn load(&self, folder: &Path, out: &Path) -> SessionContext {
        let raw = SessionContext::new();
        for Raw { name, files } in &self.raw {
            for (i, file) in files.iter().enumerate() {
                let (path, table) = (folder.join(file).display().to_string(), format!("file_{name}_{i}"));
                if file.ends_with(".csv.gz") {
                    let options = CsvReadOptions::new().schema_infer_max_records(0).file_extension(".csv.gz");
                    let options = options.file_compression_type(FileCompressionType::GZIP);
                    raw.register_csv(table, path, options).await.unwrap();
                } else {
                    raw.register_parquet(table, path, ParquetReadOptions::default()).await.unwrap();
                }
            }
            let parts: Vec<_> = (0..files.len()).map(|i| format!("SELECT * FROM file_{name}_{i}")).collect();
            let view = format!("CREATE VIEW raw_{name} AS {}", parts.join(" UNION ALL "));
            raw.sql(&view).await.unwrap().collect().await.unwrap();
        }
        let tables = library::session();
        for Prepared { sql, schema, .. } in &self.tables {
            let wanted = sekisho_aggregation::sql::arrow_schema(schema);
            let casts =
                wanted.fields().iter().map(|f| format!("arrow_cast({0}, '{1}') AS {0}", f.name(), f.data_type()));
            let sql = format!("SELECT {} FROM ({sql}) t", casts.collect::<Vec<_>>().join(", "));
            let frame = raw.sql(&sql).await.unwrap_or_else(|e| panic!("{}: {e}", schema.name));
            let path = out.join(format!("{}.parquet", schema.name)).display().to_string();
            let frame = frame.cache().await.unwrap_or_else(|e| panic!("{}: {e}", schema.name));
            frame
                .clone()
                .write_parquet(&path, DataFrameWriteOptions::new().with_single_file_output(true), None)
                .await
                .unwrap();
            tables.register_table(schema.name.as_str(), frame.into_view()).unwrap();
        }
        tables
    }
}
