//! Mappings: which source file, and which column or expression of it, each schema column comes from.
//!
//! A mapping is a TOML file of the operator. [`Mapping`] is its checked form: the schema's envelope
//! verifies under the governance key, every column of every mapped table has an origin, and no key or
//! column is unknown. A table of the schema that is not mapped is absent at this hospital.
//!
//! Deliberately not done here: opening a source. Whether it has the columns is seen when a snapshot is taken.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, DsseError, Envelope, Verified},
    keys::PublicKey,
    refusal::{Code, Refusal},
    schema::{Column, Schema, Table},
};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::sources::{Names, Source};

/// The most bytes of a mapping file.
const MAX_BYTES: u64 = 4 << 20;

/// Why a mapping is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The mapping or the schema.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is larger than it may be.
    #[error("{path} has {bytes} bytes; at most {max} are read", path = path.display())]
    TooLarge {
        /// The mapping or the schema.
        path: PathBuf,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        max: u64,
    },
    /// No mapping: wrong TOML, a missing key, or an unknown one.
    #[error("{path}: {reason}", path = path.display())]
    Syntax {
        /// The mapping.
        path: PathBuf,
        /// What the parser said; it names the key.
        reason: String,
    },
    /// The schema is malformed or not signed by the governance key.
    #[error("{path}: {source}", path = path.display())]
    Schema {
        /// The schema.
        path: PathBuf,
        /// What is wrong with it.
        source: DsseError,
    },
    /// The id cannot name files.
    #[error("the data set's id must be 1-64 lower-case letters, digits or hyphens, and begin with a letter or digit")]
    Id,
    /// The format of a source is unknown.
    #[error("table {table}: its source must end in .parquet, .csv or .csv.gz, and all of them in the same")]
    Format {
        /// The table.
        table: String,
    },
    /// The mapping does not give what the schema says.
    #[error("{name} {reason}")]
    Mismatch {
        /// The table, or table.column.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl From<MappingError> for Refusal {
    fn from(error: MappingError) -> Self {
        match error {
            MappingError::Mismatch { .. } => Self::new(Code::SchemaMismatch, error.to_string()),
            MappingError::Io { .. }
            | MappingError::TooLarge { .. }
            | MappingError::Syntax { .. }
            | MappingError::Schema { .. }
            | MappingError::Id
            | MappingError::Format { .. } => {
                Self::new(Code::Unavailable, "the data set's mapping is not usable; its operator's log says why")
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingFile {
    id: String,
    #[serde(default)]
    synthetic: bool,
    schema: PathBuf,
    tables: BTreeMap<String, TableFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    source: Names,
    columns: BTreeMap<String, Origin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlFile {
    sql: String,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A column of the source, by its exact name.
    Source(String),
    /// An SQL expression over the source's columns, whose names keep their case.
    Sql(String),
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Origin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source column's name or { sql = \"…\" }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Origin, E> {
                Ok(Origin::Source(name.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Origin, A::Error> {
                SqlFile::deserialize(MapAccessDeserializer::new(map)).map(|file| Origin::Sql(file.sql))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Parquet.
    Parquet,
    /// Comma-separated text with a header.
    Csv,
    /// The same, compressed with gzip.
    CsvGz,
}

impl Format {
    fn of(name: &str) -> Option<Self> {
        [(".parquet", Self::Parquet), (".csv", Self::Csv), (".csv.gz", Self::CsvGz)]
            .into_iter()
            .find_map(|(end, format)| name.ends_with(end).then_some(format))
    }
}

/// A mapped table: its sources and the origin of each of its columns.
#[derive(Clone, Debug)]
pub struct TableMapping {
    table: Table,
    sources: Vec<Source>,
    format: Format,
    origins: Vec<Origin>,
    fingerprint: Digest,
}

impl TableMapping {
    /// The table as the schema declares it.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The paths and patterns of the files that it is read from, at least one.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// How the sources are written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Every column of the table in the schema's order, with its origin.
    pub fn columns(&self) -> impl Iterator<Item = (&Column, &Origin)> {
        self.table.columns.iter().zip(&self.origins)
    }

    /// A digest of the sources' paths and the origins: another one makes an existing snapshot stale.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    fn check(table: &Table, file: TableFile, base: &Path) -> Result<Self, MappingError> {
        let mismatch = |name: String, reason| MappingError::Mismatch { name, reason };
        let unknown = || MappingError::Format { table: table.name.clone() };
        let Names(names) = file.source;
        let format = names.first().and_then(|name| Format::of(name)).ok_or_else(unknown)?;
        if names.iter().any(|name| Format::of(name) != Some(format)) {
            return Err(unknown());
        }
        let sources: Vec<_> = names.iter().map(|name| Source::new(base, name)).collect();
        let mut given = file.columns;
        let mut origins = Vec::new();
        let paths: Vec<_> = sources.iter().map(|source| source.path().as_os_str().as_encoded_bytes()).collect();
        let mut parts = vec![paths.join(&0)];
        for column in &table.columns {
            let origin = given.remove(&column.name).ok_or_else(|| {
                mismatch(format!("{}.{}", table.name, column.name), "is a column of the schema that the mapping lacks")
            })?;
            let (kind, text) = match &origin {
                Origin::Source(name) => ("source", name),
                Origin::Sql(sql) => ("sql", sql),
            };
            parts.extend([&column.name, kind, text].map(|part| part.as_bytes().to_vec()));
            origins.push(origin);
        }
        if let Some(name) = given.keys().next() {
            return Err(mismatch(format!("{}.{name}", table.name), "is mapped but no column of the schema"));
        }
        let fingerprint = Digest::of_parts(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Ok(Self { table: table.clone(), sources, format, origins, fingerprint })
    }
}

/// A checked mapping of one data set to a verified schema.
#[derive(Clone, Debug)]
pub struct Mapping {
    id: String,
    synthetic: bool,
    schema: Arc<Verified<Schema>>,
    tables: BTreeMap<String, TableMapping>,
}

impl Mapping {
    /// Reads the mapping at `path` and the schema that it names, which one of the `governance` keys must have signed.
    ///
    /// # Errors
    /// When a file cannot be read, a key is unknown, the schema does not verify, or a column is missing.
    pub fn load(path: &Path, governance: &[PublicKey]) -> Result<Self, MappingError> {
        let syntax = |reason: String| MappingError::Syntax { path: path.into(), reason };
        let text = String::from_utf8(read(path, MAX_BYTES)?).map_err(|_| syntax("not UTF-8".into()))?;
        let file: MappingFile = toml::from_str(&text).map_err(|e| syntax(e.to_string()))?;
        if !is_id(&file.id) {
            return Err(MappingError::Id);
        }
        let base = path.parent().unwrap_or(Path::new(""));
        let base = std::path::absolute(base).map_err(|source| MappingError::Io { path: base.into(), source })?;
        let schema_path = base.join(&file.schema);
        let schema = read(&schema_path, 2 * Schema::MAX_BYTES as u64)?;
        let schema = Envelope::from_json::<Schema>(&schema)
            .and_then(|envelope| envelope.verify::<Schema>(governance, 1))
            .map_err(|source| MappingError::Schema { path: schema_path, source })?;
        let mut tables = BTreeMap::new();
        for (name, table) in file.tables {
            let Some(declared) = schema.table(&name) else {
                return Err(MappingError::Mismatch { name, reason: "is mapped but no table of the schema" });
            };
            tables.insert(name, TableMapping::check(declared, table, &base)?);
        }
        Ok(Self { id: file.id, synthetic: file.synthetic, schema: Arc::new(schema), tables })
    }

    /// The data set's id: lower-case letters, digits and hyphens.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the operator declares that no real patient is in it.
    pub fn synthetic(&self) -> bool {
        self.synthetic
    }

    /// The schema, signed by the governance key.
    pub fn schema(&self) -> &Arc<Verified<Schema>> {
        &self.schema
    }

    /// The mapped tables by name.
    pub fn tables(&self) -> &BTreeMap<String, TableMapping> {
        &self.tables
    }
}

fn is_id(id: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    id.len() <= 64 && id.bytes().next().is_some_and(letter) && id.bytes().all(|b| letter(b) || b == b'-')
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, MappingError> {
    let io = |source| MappingError::Io { path: path.into(), source };
    let bytes = fs::metadata(path).map_err(io)?.len();
    if bytes > max {
        return Err(MappingError::TooLarge { path: path.into(), bytes, max });
    }
    fs::read(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture::Fixture;

    #[test]
    fn a_mapping_gives_every_column_and_no_other_key() {
        let whole = Fixture::MAPPING;
        for (mapping, expect) in [
            (whole.to_owned(), "ok"),
            (whole.replace("age = ", "agee = "), "visit.age is a column of the schema that the mapping lacks"),
            (
                whole.replace("[tables.visit.columns]", "[tables.visit.columns]\nmore = \"x\""),
                "visit.more is mapped but",
            ),
            (whole.replace("tables.visit", "tables.stay"), "stay is mapped but no table"),
            (whole.replace("synthetic", "synthetc"), "unknown field `synthetc`"),
            (whole.replace("{ sql =", "{ sqll ="), "unknown field `sqll`"),
            (whole.replace("source =", "sourc ="), "unknown field `sourc`"),
            (whole.replace("visit.csv.gz", "visit.xlsx"), "must end in .parquet, .csv or .csv.gz"),
            (whole.replace("\"visit.csv.gz\"", "[\"a.csv.gz\", \"b-*.csv.gz\"]"), "ok"),
            (whole.replace("\"visit.csv.gz\"", "[\"a.csv.gz\", \"b.csv\"]"), "all of them in the same"),
            (whole.replace("\"visit.csv.gz\"", "[]"), "must end in"),
            (whole.replace("\"visit.csv.gz\"", "7"), "a path or a list of paths"),
            (whole.replace("id = \"west\"", "id = \"../west\""), "the data set's id"),
        ] {
            let fixture = Fixture::new();
            fixture.write("mapping.toml", &mapping);
            let found = match fixture.load() {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expect), "{expect}: {found}");
        }
    }

    #[test]
    fn a_missing_column_is_refused_as_schema_mismatch() {
        let fixture = Fixture::new();
        fixture.write("mapping.toml", &Fixture::MAPPING.replace("age = ", "agee = "));
        assert_eq!(Refusal::from(fixture.load().unwrap_err()).code, Code::SchemaMismatch);
    }

    #[test]
    fn a_schema_that_another_key_signed_is_not_used() {
        let fixture = Fixture::new();
        let stranger = Fixture::new();
        let error = Mapping::load(&fixture.path("mapping.toml"), &[stranger.governance()]).unwrap_err();
        assert!(matches!(error, MappingError::Schema { source: DsseError::Quorum { .. }, .. }), "{error}");
    }
}
