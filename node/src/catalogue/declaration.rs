//! What the custodian declares of one data set: a TOML file beside its mapping (`west.toml` has `west.catalogue.toml`).
//!
//! Every error names the field. Whatever a table or column is not told of is described by the schema alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use sekisho_protocol::{
    catalogue::{ColumnEntry, Counts, Declared, Period, TableEntry, Text},
    schema::{Bounds, Column, Table},
    units::MicroRho,
};
use serde::Deserialize;

use crate::data::mapping::Mapping;

/// The most bytes of the file.
const MAX_BYTES: u64 = 4 << 20;
/// Counts are drawn at least so many days apart.
pub const MIN_REDRAW_DAYS: u32 = 28;

/// Why a declaration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// The file cannot be read.
    #[error("{path}: {source}; `sekisho-node catalogue template` writes one", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than it may be.
    #[error("{path} has more than {MAX_BYTES} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Wrong TOML, a missing field, or an unknown one.
    #[error("{path}: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said; it names the field.
        reason: String,
    },
    /// A field is not as it must be.
    #[error("{path}: {reason}", path = path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    counts: CountsFile,
    data_set: Declared,
    #[serde(default)]
    tables: BTreeMap<String, TableFile>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountsFile {
    micro_rho_per_table: u64,
    total_micro_rho: u64,
    redraw_days: u32,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TableFile {
    title: Option<Text>,
    description: Option<Text>,
    period: Option<Period>,
    rows_per_patient: Option<u32>,
    completeness: Option<Vec<String>>,
    columns: BTreeMap<String, ColumnFile>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ColumnFile {
    title: Option<Text>,
    description: Option<Text>,
    code_system: Option<String>,
    extremes: Option<Bounds>,
}

/// The counts of one table: how they are bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// At most so many records of a patient count in full.
    pub(super) rows_per_patient: u32,
    /// The columns whose completeness is counted.
    pub(super) columns: Vec<String>,
}

/// A checked declaration.
#[derive(Clone, Debug)]
pub struct Declaration {
    declared: Declared,
    micro_rho: MicroRho,
    total: MicroRho,
    redraw_days: u32,
    tables: Vec<(TableEntry, Option<Counted>)>,
}

impl Declaration {
    /// Where the declaration of the mapping at `mapping` lies.
    pub fn path_of(mapping: &Path) -> PathBuf {
        mapping.with_extension("catalogue.toml")
    }

    /// Reads the declaration beside the mapping file at `path`.
    ///
    /// # Errors
    /// When it is missing, or a field is not as it must be.
    pub fn load(path: &Path, mapping: &Mapping) -> Result<Self, DeclarationError> {
        let path = Self::path_of(path);
        let io = |source| DeclarationError::Io { path: path.clone(), source };
        if fs::metadata(&path).map_err(io)?.len() > MAX_BYTES {
            return Err(DeclarationError::TooLarge { path });
        }
        let text = fs::read_to_string(&path).map_err(io)?;
        let file: File = toml::from_str(&text)
            .map_err(|e| DeclarationError::Syntax { path: path.clone(), reason: e.to_string() })?;
        Self::check(file, mapping).map_err(|reason| DeclarationError::Field { path, reason })
    }

    fn check(mut file: File, mapping: &Mapping) -> Result<Self, String> {
        let CountsFile { micro_rho_per_table, total_micro_rho, redraw_days } = file.counts;
        if redraw_days < MIN_REDRAW_DAYS {
            return Err(format!("counts.redraw_days: counts are drawn at least {MIN_REDRAW_DAYS} days apart"));
        }
        if micro_rho_per_table == 0 || total_micro_rho < micro_rho_per_table {
            return Err("counts.total_micro_rho: at least micro_rho_per_table, which is at least 1".into());
        }
        let rho = |field: &str, micro| MicroRho::try_from(micro).map_err(|e| format!("counts.{field}: {e}"));
        file.data_set.check().map_err(|e| format!("data_set.{e}"))?;
        let mut tables = Vec::new();
        for (name, mapped) in mapping.tables() {
            let said = file.tables.remove(name).unwrap_or_default();
            tables.push(entry(mapped.table(), said).map_err(|e| format!("tables.{name}.{e}"))?);
        }
        if let Some(name) = file.tables.keys().next() {
            return Err(format!("tables.{name}: the mapping has no such table"));
        }
        let (micro_rho, total) =
            (rho("micro_rho_per_table", micro_rho_per_table)?, rho("total_micro_rho", total_micro_rho)?);
        Ok(Self { declared: file.data_set, micro_rho, total, redraw_days, tables })
    }

    /// The custodian's words.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// What the counts of one table cost each time.
    pub fn micro_rho(&self) -> MicroRho {
        self.micro_rho
    }

    /// What all counts of this data set may ever cost.
    pub fn total(&self) -> MicroRho {
        self.total
    }

    /// After how many days counts are drawn again.
    pub fn redraw_days(&self) -> u32 {
        self.redraw_days
    }

    /// The tables of patients with how they are counted.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&TableEntry, &Counted)> {
        self.tables.iter().filter_map(|(table, counted)| Some((table, counted.as_ref()?)))
    }

    /// The tables, with the counts that `counts` knows of each.
    pub(super) fn entries(&self, mut counts: impl FnMut(&str) -> Option<Counts>) -> Vec<TableEntry> {
        let entry = |(table, _): &(TableEntry, _)| TableEntry { counts: counts(&table.name), ..table.clone() };
        self.tables.iter().map(entry).collect()
    }
}

fn entry(table: &Table, mut said: TableFile) -> Result<(TableEntry, Option<Counted>), String> {
    let mut columns = Vec::new();
    for column in &table.columns {
        let ColumnFile { title, description, code_system, extremes } =
            said.columns.remove(&column.name).unwrap_or_default();
        columns.push(ColumnEntry { column: column.clone(), title, description, code_system, extremes });
    }
    if let Some(name) = said.columns.keys().next() {
        return Err(format!("columns.{name}: the schema has no such column"));
    }
    let counted = match &table.patient {
        Some(patient) => Some(counted(table, patient, said.rows_per_patient, said.completeness)?),
        None if said.rows_per_patient.is_some() || said.completeness.is_some() => {
            return Err("rows_per_patient: a public table is not counted".into());
        }
        None => None,
    };
    let entry = TableEntry {
        name: table.name.clone(),
        title: said.title,
        description: said.description,
        period: said.period,
        patient: table.patient.clone(),
        public: table.public.clone(),
        one_row_per_patient: table.one_row_per_patient,
        columns,
        counts: None,
    };
    Ok((entry, counted))
}

fn counted(
    table: &Table,
    patient: &str,
    rows: Option<u32>,
    completeness: Option<Vec<String>>,
) -> Result<Counted, String> {
    let rows_per_patient = match (table.one_row_per_patient, rows) {
        (true, None | Some(1)) => 1,
        (true, Some(_)) => return Err("rows_per_patient: the schema says one row per patient".into()),
        (false, Some(rows)) if (1..=1_000_000).contains(&rows) => rows,
        (false, Some(_)) => return Err("rows_per_patient: 1 to 1000000".into()),
        (false, None) => return Err("rows_per_patient: say how many records of one patient count in full".into()),
    };
    let every = || table.columns.iter().map(|c: &Column| c.name.clone()).filter(|name| name != patient).collect();
    let columns: Vec<String> = completeness.unwrap_or_else(every);
    let different: BTreeSet<_> = columns.iter().collect();
    if different.len() != columns.len() {
        return Err("completeness: each column once".into());
    }
    match columns.iter().find(|name| *name == patient || table.column(name).is_none()) {
        Some(name) => Err(format!("completeness: {name} is no column to count")),
        None => Ok(Counted { rows_per_patient, columns }),
    }
}
