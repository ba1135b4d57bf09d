//! The forms in which a table leaves this program, and where it goes: standard output, or a file that is whole or not
//! there.
//!
//! Arrow is an IPC stream, Parquet one file; neither is written to a terminal. Deliberately absent: what a table
//! says of itself in its schema, which its maker puts there.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use arrow::{error::ArrowError, ipc::writer::StreamWriter, record_batch::RecordBatch};
use clap::{Args, ValueEnum};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use super::{failure::Failure, file, print};

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: numbers rounded, with their intervals.
    Table,
    /// One object: report, rows, `by_holder`.
    Json,
    /// The combined table, exact; text that a spreadsheet would take for a formula is kept as it is.
    Csv,
    /// An Arrow IPC stream with typed columns; the report and the noise are in the schema's metadata.
    Arrow,
    /// One Parquet file, described as `arrow` is.
    Parquet,
}

/// In which form a result goes where.
#[derive(Debug, Args)]
pub struct Target {
    /// How the result is written.
    #[arg(long = "output", value_name = "FORMAT", value_enum, default_value = "table")]
    pub format: Format,
    /// Write it to this file instead of standard output; one that is there is replaced, whole or not at all.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl Target {
    /// Whether the result could be written there. Asked before a question is, since afterwards is too late to learn it.
    ///
    /// # Errors
    /// When it could not.
    pub fn check(&self) -> Result<(), Failure> {
        self.check_beside(io::stdout().is_terminal())
    }

    fn check_beside(&self, terminal: bool) -> Result<(), Failure> {
        let Some(path) = &self.out else {
            let name = match self.format {
                Format::Arrow if terminal => "Arrow",
                Format::Parquet if terminal => "Parquet",
                Format::Arrow | Format::Parquet | Format::Table | Format::Json | Format::Csv => return Ok(()),
            };
            let detail = format!("{name} is not text, and standard output is a terminal");
            return Err(Failure::input(detail, "redirect it, or name a file with --out FILE"));
        };
        // A rename would put a file in the place of a device or a pipe.
        if path.exists() && !path.is_file() {
            let detail = format!("--out {} is no regular file", path.display());
            return Err(Failure::input(detail, "name a file, or redirect standard output there"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Failure::input(format!("there is no folder {}", folder.display()), "make it first"));
        }
        Ok(())
    }

    /// Writes text, and a line end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        match &self.out {
            Some(path) => file::replace(path, bytes),
            None => print::bytes(bytes),
        }
    }
}

/// An Arrow IPC stream: the schema with its metadata, then one batch.
///
/// # Errors
/// When Arrow cannot write a column's type.
pub fn arrow(table: &RecordBatch) -> Result<Vec<u8>, Failure> {
    let written = || -> Result<Vec<u8>, ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), table.schema_ref())?;
        writer.write(table)?;
        writer.into_inner()
    };
    written().map_err(|e| Failure::answer("result", e))
}

/// One Parquet file, compressed by snappy. The schema's metadata is in the file's key-value metadata too, for readers that do
/// not decode the Arrow schema.
///
/// # Errors
/// When Parquet cannot write a column's type.
pub fn parquet(table: &RecordBatch) -> Result<Vec<u8>, Failure> {
    let schema = table.schema();
    let metadata = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(Some(metadata)).build();
    let written = || -> Result<Vec<u8>, ParquetError> {
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
        writer.write(table)?;
        writer.into_inner()
    };
    written().map_err(|e| Failure::answer("result", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(format: Format, out: Option<PathBuf>) -> Target {
        Target { format, out }
    }

    #[test]
    fn only_text_goes_to_a_terminal() {
        for (format, fits) in [
            (Format::Table, true),
            (Format::Json, true),
            (Format::Csv, true),
            (Format::Arrow, false),
            (Format::Parquet, false),
        ] {
            let failure = target(format, None).check_beside(true).err().map(|f| f.to_string());
            assert_eq!(failure.is_none(), fits, "{format:?}");
            assert!(failure.is_none_or(|f| f.contains("--out FILE")), "{format:?}");
            assert_eq!(target(format, None).check_beside(false), Ok(()), "{format:?}");
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(target(format, Some(folder.path().join("x"))).check_beside(true), Ok(()), "{format:?}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.txt");
        for text in ["one", "two"] {
            let target = target(Format::Table, Some(path.clone()));
            target.check().unwrap();
            target.text(text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{text}\n"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for (path, names) in [
            (PathBuf::from("/dev/null"), "no regular file"),
            (folder.path().to_path_buf(), "no regular file"),
            (folder.path().join("none/answer.txt"), "no folder"),
        ] {
            let failure = target(Format::Csv, Some(path)).check().unwrap_err().to_string();
            assert!(failure.contains(names), "{failure}");
        }
    }
}
