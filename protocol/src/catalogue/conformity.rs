//! Which tables and columns of a data set are as a schema says: compared one by one, by declaration alone.
//!
//! A column conforms when its type and scale are the schema's, and what it may hold lies within the schema's domain and bounds. A
//! hospital that conforms and is not mapped to the schema still has to map its data before it answers.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{ColumnEntry, SchemaName, TableEntry};
use crate::schema::{Column, Schema, Table};

/// The tables and columns that are as one schema says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conformity {
    /// The schema.
    pub schema: SchemaName,
    /// Every column of the schema is here, as it says.
    pub whole: bool,
    /// The columns that are as it says, as `table.column`.
    pub columns: Vec<String>,
}

/// What a data set lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gap")]
pub enum Gap {
    /// There is no such table.
    MissingTable {
        /// The table.
        table: String,
    },
    /// Patients are named otherwise, or a table that has one row per patient may have more.
    PatientDiffers {
        /// The table.
        table: String,
    },
    /// There is no such column.
    MissingColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The column has another type or scale.
    TypeDiffers {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The column may hold values outside the schema's domain or bounds.
    DomainDiffers {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
}

impl Gap {
    /// The name in reports: "missing column".
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MissingTable { .. } => "missing table",
            Self::PatientDiffers { .. } => "patient differs",
            Self::MissingColumn { .. } => "missing column",
            Self::TypeDiffers { .. } => "type differs",
            Self::DomainDiffers { .. } => "domain differs",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingTable { table } | Self::PatientDiffers { table } => write!(f, "{} {table}", self.name()),
            Self::MissingColumn { table, column }
            | Self::TypeDiffers { table, column }
            | Self::DomainDiffers { table, column } => write!(f, "{} {table}.{column}", self.name()),
        }
    }
}

/// What `tables` lack of the columns that `needs` says are needed, given a table and a column of `schema`; a table of which no
/// column is needed is passed over, unless `needs_table` says that it is.
pub fn gaps(
    tables: &[TableEntry],
    schema: &Schema,
    needs_table: impl Fn(&str) -> bool,
    needs: impl Fn(&str, &str) -> bool,
) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for asked in schema.tables.iter().filter(|t| needs_table(&t.name)) {
        let Some(held) = tables.iter().find(|t| t.name == asked.name) else {
            gaps.push(Gap::MissingTable { table: asked.name.clone() });
            continue;
        };
        if !same_patients(held, asked) {
            gaps.push(Gap::PatientDiffers { table: asked.name.clone() });
        }
        gaps.extend(asked.columns.iter().filter(|c| needs(&asked.name, &c.name)).filter_map(|c| gap(held, c)));
    }
    gaps
}

/// Which columns of `schema` are in `tables` as it says.
pub fn conforms(tables: &[TableEntry], name: SchemaName, schema: &Schema) -> Conformity {
    let lacking = gaps(tables, schema, |_| true, |_, _| true);
    let mut columns = Vec::new();
    for asked in &schema.tables {
        let Some(held) = tables.iter().find(|t| t.name == asked.name && same_patients(t, asked)) else { continue };
        let there = asked.columns.iter().filter(|column| gap(held, column).is_none());
        columns.extend(there.map(|column| format!("{}.{}", asked.name, column.name)));
    }
    Conformity { schema: name, whole: lacking.is_empty(), columns }
}

fn same_patients(held: &TableEntry, asked: &Table) -> bool {
    held.patient == asked.patient && (held.one_row_per_patient || !asked.one_row_per_patient)
}

fn gap(held: &TableEntry, asked: &Column) -> Option<Gap> {
    let (table, column) = (held.name.clone(), asked.name.clone());
    let Some(ColumnEntry { column: found, .. }) = held.column(&asked.name) else {
        return Some(Gap::MissingColumn { table, column });
    };
    if found.kind != asked.kind || found.scale != asked.scale {
        return Some(Gap::TypeDiffers { table, column });
    }
    (!within(found, asked)).then_some(Gap::DomainDiffers { table, column })
}

/// Whether what `found` may hold is what `asked` may hold.
fn within(found: &Column, asked: &Column) -> bool {
    let domain = match (&found.domain, &asked.domain) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(found), Some(asked)) => {
            let asked: BTreeSet<_> = asked.iter().collect();
            found.iter().all(|value| asked.contains(value))
        }
    };
    let bounds = match (found.fixed_bounds(), asked.fixed_bounds()) {
        (_, Ok(None)) => true,
        (Ok(Some((low, high))), Ok(Some((least, most)))) => least <= low && high <= most,
        (Ok(None) | Err(_), Ok(Some(_))) | (_, Err(_)) => false,
    };
    domain && bounds
}
