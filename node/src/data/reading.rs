//! Reads a table's sources as rows of the table, sorted by patient, in bounded memory.
//!
//! Every value of a CSV file is text until it is converted, so that ids keep their leading zeros. Several files are
//! read as one; they must have the same columns. What goes wrong is told by file, line, column and kind: an engine's
//! own words may hold a value of the source.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    datatypes::{Field, Schema as ArrowSchema},
    error::ArrowError,
};
use datafusion::{
    common::{
        Column as ColumnName, SchemaError,
        tree_node::{Transformed, TreeNode},
    },
    dataframe::DataFrame,
    datasource::file_format::file_compression_type::FileCompressionType,
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{Cast, Expr, ExprSchemable, TryCast},
    prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;
use parquet::file::metadata::ParquetMetaDataReader;
use sekisho_protocol::schema::Column;

use super::{
    columns::{Conversion, Counts, arrow_type, convertible},
    mapping::{Format, Origin, TableMapping},
    snapshot::SnapshotError,
};

/// What begins a text file that says it is UTF-8; it is no part of the first column's name.
const BOM: char = '\u{feff}';

/// The files of one table, open to be read together.
pub(super) struct SourceFiles<'a> {
    context: SessionContext,
    mapping: &'a TableMapping,
    files: &'a [PathBuf],
    /// The columns of each file.
    columns: ArrowSchema,
}

/// What each conversion counts, by column.
pub(super) type AllCounts = BTreeMap<String, Arc<Counts>>;

impl<'a> SourceFiles<'a> {
    /// Looks at the columns of `files`; sorting them will hold at most `memory_bytes` and spill into the folder `spill`.
    ///
    /// # Errors
    /// When there is no file, one cannot be read, or has other columns than the first.
    pub(super) async fn open(
        mapping: &'a TableMapping,
        files: &'a [PathBuf],
        memory_bytes: usize,
        spill: &Path,
    ) -> Result<Self, SnapshotError> {
        let table = &mapping.table().name;
        let unreadable = |reason: String| SnapshotError::Read { table: table.clone(), reason };
        let context = context(memory_bytes, spill).map_err(|e| unreadable(reason(&e)))?;
        let mut opened: Option<Self> = None;
        for file in files {
            let frame = match mapping.format() {
                Format::Parquet => context.read_parquet(url(file), ParquetReadOptions::default()).await,
                format @ (Format::Csv | Format::CsvGz) => context.read_csv(url(file), csv(format)).await,
            };
            let frame = frame.map_err(|e| unreadable(format!("{}: {}", file.display(), reason(&e))))?;
            let columns = columns(&frame, mapping.format());
            match &opened {
                None => opened = Some(Self { context: context.clone(), mapping, files, columns }),
                Some(first) if first.columns == columns => {}
                Some(_) => {
                    let other = "its columns are not those of the first file, in the same order and of the same types";
                    return Err(unreadable(format!("{}: {other}", file.display())));
                }
            }
        }
        opened.ok_or_else(|| unreadable("no file has a name that matches its pattern".into()))
    }

    /// How many rows the files have, where they say so.
    pub(super) fn rows(&self) -> Option<u64> {
        match self.mapping.format() {
            Format::Csv | Format::CsvGz => None,
            Format::Parquet => self.files.iter().try_fold(0_u64, |sum, file| {
                let footer = ParquetMetaDataReader::new().parse_and_finish(&File::open(file).ok()?).ok()?;
                sum.checked_add(footer.file_metadata().num_rows().try_into().ok()?)
            }),
        }
    }

    /// Begins to read: the rows as rows of the table, sorted by patient, and what the conversions will count.
    ///
    /// # Errors
    /// When the files do not fit the mapping.
    pub(super) async fn sorted(&self) -> Result<(SendableRecordBatchStream, AllCounts), SnapshotError> {
        let table = self.mapping.table().name.clone();
        let unreadable = |e: DataFusionError| SnapshotError::Read { table: table.clone(), reason: reason(&e) };
        let (frame, counts) = converted(self.frame(self.files).await.map_err(unreadable)?, self.mapping)?;
        Ok((frame.execute_stream().await.map_err(unreadable)?, counts))
    }

    /// What a failure while reading is told as: with the file, which is looked for among several.
    pub(super) async fn failure(&self, error: &DataFusionError) -> SnapshotError {
        let mut reason = reason(error);
        if self.mapping.format() != Format::Parquet && is_csv(error) {
            for file in self.files {
                if let Err(error) = self.read_through(file).await
                    && is_csv(&error)
                {
                    reason = format!("{}: {}", file.display(), self::reason(&error));
                    break;
                }
            }
        }
        SnapshotError::Read { table: self.mapping.table().name.clone(), reason }
    }

    async fn frame(&self, files: &[PathBuf]) -> Result<DataFrame, DataFusionError> {
        let urls: Vec<_> = files.iter().map(|file| url(file)).collect();
        match self.mapping.format() {
            Format::Parquet => self.context.read_parquet(urls, ParquetReadOptions::default()).await,
            format @ (Format::Csv | Format::CsvGz) => {
                self.context.read_csv(urls, csv(format).schema(&self.columns)).await
            }
        }
    }

    async fn read_through(&self, file: &Path) -> Result<(), DataFusionError> {
        let mut rows = self.frame(&[file.into()]).await?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            batch?;
        }
        Ok(())
    }
}

/// An engine for one table: one partition, bounded memory, spill files in `spill`.
fn context(memory_bytes: usize, spill: &Path) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_collect_statistics(false);
    let options = config.options_mut();
    options.execution.sort_spill_reservation_bytes = (memory_bytes / 8).min(10 << 20);
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // As much as the disk has.
    let spill = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.into()]))
        .with_max_temp_directory_size(u64::MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .with_disk_manager_builder(spill)
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// How a CSV file is written.
fn csv(format: Format) -> CsvReadOptions<'static> {
    let csv = CsvReadOptions::new().has_header(true).schema_infer_max_records(0).newlines_in_values(true);
    if format == Format::CsvGz {
        csv.file_extension(".csv.gz").file_compression_type(FileCompressionType::GZIP)
    } else {
        csv
    }
}

/// The columns of a file: names and types.
fn columns(frame: &DataFrame, format: Format) -> ArrowSchema {
    let fields = frame.schema().fields().iter().enumerate().map(|(at, field)| {
        let mut name = field.name().as_str();
        if at == 0
            && format != Format::Parquet
            && let Some(marked) = name.strip_prefix(BOM)
        {
            // After the mark the quotes of a quoted name were read as part of it.
            name = marked.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or(marked);
        }
        Field::new(name, field.data_type().clone(), true)
    });
    ArrowSchema::new(fields.collect::<Vec<_>>())
}

/// A path as DataFusion takes it literally, whatever characters it has.
fn url(path: &Path) -> String {
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

fn is_csv(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ArrowError(error, _) if matches!(error.as_ref(), ArrowError::CsvError(_)))
}

/// The source's rows as rows of the table, sorted by patient, and what each conversion will count.
fn converted(frame: DataFrame, mapping: &TableMapping) -> Result<(DataFrame, AllCounts), SnapshotError> {
    let table = mapping.table();
    let mut counts = BTreeMap::new();
    let mut columns = Vec::new();
    for (column, origin) in mapping.columns() {
        let value = expression(&frame, column, origin).map_err(|reason| SnapshotError::Mismatch {
            table: table.name.clone(),
            column: column.name.clone(),
            reason,
        })?;
        let (function, counted) = Conversion::function(table, column);
        columns.push(function.call(vec![value]).alias(&column.name));
        counts.insert(column.name.clone(), counted);
    }
    let mut frame = frame.select(columns);
    if let Some(patient) = &table.patient {
        let patient = Expr::Column(ColumnName::new_unqualified(patient));
        frame = frame
            .and_then(|frame| frame.filter(patient.clone().is_not_null()))
            .and_then(|frame| frame.sort(vec![patient.sort(true, false)]));
    }
    let frame = frame.map_err(|e| SnapshotError::Read { table: table.name.clone(), reason: reason(&e) })?;
    Ok((frame, counts))
}

/// The expression of a column over the source, or why it does not fit.
fn expression(frame: &DataFrame, column: &Column, origin: &Origin) -> Result<Expr, String> {
    let schema = frame.schema();
    let value = match origin {
        Origin::Source(name) if schema.has_column_with_unqualified_name(name) => {
            Expr::Column(ColumnName::new_unqualified(name))
        }
        Origin::Source(name) => return Err(format!("the source has no column \"{name}\"")),
        Origin::Sql(sql) => frame.parse_sql_expr(sql).and_then(total).map_err(|e| planning(&e))?,
    };
    let folds = value.exists(|e| Ok(matches!(e, Expr::AggregateFunction(_) | Expr::WindowFunction(_))));
    if folds.map_err(|e| planning(&e))? {
        return Err("its expression may use the columns of one row only: no aggregate, no window".into());
    }
    let from = value.get_type(schema).map_err(|e| planning(&e))?;
    if !convertible(&from, column) {
        return Err(format!("its origin has type {from}, which cannot become {}", arrow_type(column)));
    }
    Ok(value)
}

/// Makes every CAST of an operator's expression a TRY_CAST: what does not fit is NULL, not a failure.
fn total(expression: Expr) -> Result<Expr, DataFusionError> {
    let rewritten = expression.transform(|e| {
        Ok(if let Expr::Cast(Cast { expr, field }) = e {
            Transformed::yes(Expr::TryCast(TryCast { expr, field }))
        } else {
            Transformed::no(e)
        })
    })?;
    Ok(rewritten.data)
}

/// What planning said, without the list of the source's columns: in a file without header they are values.
fn planning(error: &DataFusionError) -> String {
    if let DataFusionError::SchemaError(schema, _) = error.find_root() {
        if let SchemaError::FieldNotFound { field, .. } = schema.as_ref() {
            return format!("the source has no column \"{}\"", field.name);
        }
        return "its expression does not fit the source's columns".into();
    }
    error.strip_backtrace()
}

/// The kind of an engine's failure. The engine's own words may hold a value of the source.
fn reason(error: &DataFusionError) -> String {
    let root = error.find_root();
    if let DataFusionError::ResourcesExhausted(limit) = root {
        return format!("memory or disk is exhausted: {limit}");
    }
    if let DataFusionError::IoError(error) = root {
        return error.to_string();
    }
    if let DataFusionError::ArrowError(error, _) = root {
        if let ArrowError::CsvError(line) = error.as_ref()
            && (line.starts_with("incorrect number of fields") || line.starts_with("Encountered invalid UTF-8 data"))
        {
            return line.clone();
        }
        if matches!(error.as_ref(), ArrowError::CastError(_) | ArrowError::ParseError(_)) {
            return "a comparison or conversion in the mapping meets a value that does not fit; use TRY_CAST".into();
        }
        if matches!(error.as_ref(), ArrowError::ArithmeticOverflow(_) | ArrowError::DivideByZero) {
            return "an expression of the mapping overflows or divides by zero; guard it with CASE or NULLIF".into();
        }
    }
    "it is no readable file of its format, or an expression of the mapping fails on it".into()
}

#[cfg(test)]
mod tests {
    use crate::data::fixture::{Fixture, rows, session};

    /// The rows of table chapter, read from `source`, after these files were written; or the error.
    async fn check(source: &str, files: &[(&str, &[u8])], expect: &str) {
        let fixture = Fixture::with_visits().await;
        for (name, bytes) in files {
            let path = fixture.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with(".gz") {
                fixture.gzip(name, std::str::from_utf8(bytes).unwrap()).await;
            } else {
                std::fs::write(path, bytes).unwrap();
            }
        }
        let table = format!("\n[tables.chapter]\nsource = {source}\n[tables.chapter.columns]\ncode = \"code\"\n");
        fixture.write("mapping.toml", &format!("{}{table}", Fixture::MAPPING));
        let found = match fixture.take(2).await {
            Ok((snapshot, _)) => rows(&session(&snapshot, 1, &[]), "SELECT code FROM chapter").await.join(" "),
            Err(error) => error.to_string().replace(fixture.path("").to_str().unwrap(), ""),
        };
        assert_eq!(found, expect, "{source}");
    }

    #[tokio::test]
    async fn files_of_several_makes_are_read() {
        check("\"c.csv\"", &[("c.csv", b"x,code\r\n1,A\r\n2,\"B\r\nC\"\r\n")], "A B C").await;
        check("\"c.csv\"", &[("c.csv", b"\xef\xbb\xbfcode,x\nA,1\n")], "A").await;
        check("\"c.csv\"", &[("c.csv", b"\xef\xbb\xbf\"code\",x\r\n\"A\",1\r\n")], "A").await;
        check("\"c.csv.gz\"", &[("c.csv.gz", b"\xef\xbb\xbfcode\r\nA\r\n")], "A").await;
        check("\"a [1]%.csv\"", &[("a [1]%.csv", b"code\nA\n")], "A").await;
        check("[\"b.csv\", \"a.csv\"]", &[("a.csv", b"code\nA\n"), ("b.csv", b"\xef\xbb\xbfcode\nB\n")], "A B").await;
        check("\"d/*.csv.gz\"", &[("d/2.csv.gz", b"x,code\n1,B\n"), ("d/1.csv.gz", b"x,code\n1,A\n")], "A B").await;
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_by_file_and_line_and_never_by_value() {
        let good: (&str, &[u8]) = ("a.csv", b"code,x\nA,1\n");
        let table = "table chapter: its source cannot be read: ";
        for (second, expect) in [
            (&b"code,x\nA,1\nsecret\n"[..], "b.csv: incorrect number of fields for line 3, expected 2 got 1"),
            (b"code,x\nA,1,secret\n", "b.csv: incorrect number of fields for line 2, expected 2 got 3"),
            (b"code,x\nA,1\nB,secret\xff\n", "b.csv: Encountered invalid UTF-8 data for line 3 and field 2"),
            (
                b"x,code\nsecret,A\n",
                "b.csv: its columns are not those of the first file, in the same order and of the same types",
            ),
        ] {
            check("\"?.csv\"", &[good, ("b.csv", second)], &format!("{table}{expect}")).await;
        }
        check("\"x*.csv\"", &[good], &format!("{table}no file has a name that matches its pattern")).await;
        check("\"b.csv\"", &[good], "b.csv: No such file or directory (os error 2)").await;
    }

    #[tokio::test]
    async fn parquet_files_with_other_columns_are_not_read_as_null() {
        let fixture = Fixture::with_visits().await;
        let person =
            "\n[tables.person]\nsource = \"p*.parquet\"\n[tables.person.columns]\npid = \"id\"\nweight = \"kg\"\n";
        fixture.write("mapping.toml", &format!("{}{person}", Fixture::MAPPING));
        fixture.parquet("p1.parquet", "SELECT 1 AS id, 2.0 AS kg").await;
        fixture.parquet("p2.parquet", "SELECT 2 AS id, 3.0 AS kg").await;
        let (snapshot, _) = fixture.take(2).await.unwrap();
        assert_eq!(rows(&session(&snapshot, 1, &[]), "SELECT * FROM person").await, ["1|2.0", "2|3.0"]);
        fixture.parquet("p3.parquet", "SELECT 3 AS id").await;
        assert_eq!(snapshot.source_state().unwrap().require_unchanged().unwrap_err().code.as_str(), "source_changed");
        let error = fixture.take(2).await.unwrap_err().to_string();
        assert!(error.contains("p3.parquet: its columns are not those of the first file"), "{error}");
    }
}
