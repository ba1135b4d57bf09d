//! `catalogue/1`: what a hospital says of its data sets, signed by its node.
//!
//! What the custodian declares stands beside what was counted. Declared are descriptions, tables, columns, domains, periods
//! and extremes: none of it comes from rows. Counted are records, individuals and how complete a column is: each is a noised
//! release that was charged to the patient register, with its standard deviation, its rho and its day. The fields are those of
//! HealthDCAT-AP release 8, NON_PUBLIC.
//!
//! Deliberately absent: any exact number of patients or rows, and any floating point.

mod conformity;
mod declared;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

pub use self::conformity::{Conformity, Gap, conforms, gaps};
pub use self::declared::{Agent, Contact, Declared, Distribution, Keywords, Period, Quality, Text};

use self::declared::{is_code, list};
use crate::{
    digest::Digest,
    dsse::Document,
    roster::is_name,
    schema::{Bounds, Column, MAX_COLUMNS, Schema, Table},
    units::MicroRho,
};

/// The study that a hospital's own counts are charged to. No permit may name it.
pub const STUDY: &str = "catalogue";
/// The most data sets of one hospital.
pub const MAX_DATA_SETS: usize = 64;

/// A noised number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// What was released, rounded to a whole number; noise may make it negative.
    pub estimate: i64,
    /// The standard deviation of the noise, rounded up.
    pub standard_deviation: u64,
}

/// In how many records a column has a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Present {
    /// The column.
    pub column: String,
    /// The records.
    pub records: Estimate,
}

/// What was counted of one table, in one charged release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The day as of which patients were eligible: those who said no are not counted.
    pub drawn_on: NaiveDate,
    /// What the release cost.
    pub micro_rho: MicroRho,
    /// At most so many records of a patient count in full: an assumption of the estimates.
    pub rows_per_patient: u32,
    /// The release, by digest; the node's receipt names it.
    pub release: Digest,
    /// The records.
    pub records: Estimate,
    /// The patients with a record.
    pub individuals: Estimate,
    /// For each column that was counted, the records in which it has a value.
    pub present: Vec<Present>,
}

/// How complete a column is: a share of the records, and the standard deviation of that share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completeness {
    /// From 0 to 1.
    pub share: f64,
    /// By the delta method.
    pub standard_deviation: f64,
}

impl Counts {
    /// How complete `column` is; none when it was not counted, or when the records are lost in the noise.
    #[expect(clippy::cast_precision_loss, reason = "a share, for display")]
    pub fn completeness(&self, column: &str) -> Option<Completeness> {
        let present = self.present.iter().find(|p| p.column == column)?.records;
        let (n, sd_n) = (self.records.estimate as f64, self.records.standard_deviation as f64);
        if n <= 2.0 * sd_n || n <= 0.0 {
            return None;
        }
        let ratio = present.estimate as f64 / n;
        let sd = (present.standard_deviation as f64).hypot(ratio * sd_n) / n;
        Some(Completeness { share: ratio.clamp(0.0, 1.0), standard_deviation: sd })
    }
}

/// One column, as the custodian declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnEntry {
    /// Name, type, bounds, domain and unit.
    pub column: Column,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Text>,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
    /// The code system of its values: `ICD-10`, `LOINC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_system: Option<String>,
    /// The least and the greatest value to expect, declared and not looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extremes: Option<Bounds>,
}

/// One table, as the custodian declares it, with what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Text>,
    /// What a record of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
    /// From when to when its records are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// The column that names the patient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Why it is public, when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// At most one record per patient.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_row_per_patient: bool,
    /// The columns.
    pub columns: Vec<ColumnEntry>,
    /// What was counted; none of a public table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

impl TableEntry {
    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&ColumnEntry> {
        self.columns.iter().find(|c| c.column.name == name)
    }

    /// The same as a table of a schema.
    fn as_table(&self) -> Table {
        Table {
            name: self.name.clone(),
            patient: self.patient.clone(),
            public: self.public.clone(),
            one_row_per_patient: self.one_row_per_patient,
            columns: self.columns.iter().map(|c| c.column.clone()).collect(),
        }
    }
}

/// Which schema is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaName {
    /// By digest.
    pub digest: Digest,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u32,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Its id at this hospital.
    pub id: String,
    /// No real patient is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
    /// The schema that it is mapped to: under this one it is asked.
    pub schema: SchemaName,
    /// The counts are drawn again after so many days.
    pub redraw_days: u32,
    /// What the custodian declares of it.
    pub declared: Declared,
    /// Its tables.
    pub tables: Vec<TableEntry>,
    /// For each schema in use at this hospital the tables and columns that are as it says.
    pub conforms: Vec<Conformity>,
}

impl DataSet {
    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&TableEntry> {
        self.tables.iter().find(|t| t.name == name)
    }

    fn check(&self) -> Result<(), String> {
        if !is_name(&self.id) {
            return Err("its id is 1-64 lower-case letters, digits and hyphens".into());
        }
        if !(1..=3660).contains(&self.redraw_days) {
            return Err("redraw_days is 1 to 3660".into());
        }
        self.declared.check()?;
        list("conforms", self.conforms.len(), MAX_DATA_SETS)?;
        // The rules of names, types, bounds and domains are those of a schema.
        let tables = self.tables.iter().map(TableEntry::as_table).collect();
        Schema { id: self.id.clone(), version: 1, title: String::new(), tables }.check()?;
        self.tables.iter().try_for_each(|t| t.check().map_err(|e| format!("tables.{}.{e}", t.name)))
    }
}

impl TableEntry {
    fn check(&self) -> Result<(), String> {
        for (field, text) in [("title", &self.title), ("description", &self.description)] {
            text.as_ref().map_or(Ok(()), |text| text.check(field))?;
        }
        self.period.map_or(Ok(()), |period| period.check("period"))?;
        for entry in &self.columns {
            entry.check().map_err(|e| format!("columns.{}.{e}", entry.column.name))?;
        }
        let Some(counts) = &self.counts else { return Ok(()) };
        if self.patient.is_none() {
            return Err("counts: a public table has no counts of patients".into());
        }
        list("counts.present", counts.present.len(), MAX_COLUMNS)?;
        let columns: BTreeSet<_> = counts.present.iter().map(|p| p.column.as_str()).collect();
        if columns.len() != counts.present.len() || columns.iter().any(|name| name.len() > 64) {
            return Err("counts.present: each column once".into());
        }
        Ok(())
    }
}

impl ColumnEntry {
    fn check(&self) -> Result<(), String> {
        for (field, text) in [("title", &self.title), ("description", &self.description)] {
            text.as_ref().map_or(Ok(()), |text| text.check(field))?;
        }
        if self.code_system.as_ref().is_some_and(|code| !is_code(code)) {
            return Err("code_system: a code is 1-64 letters, digits, '.', '_' and '-'".into());
        }
        if self.column.unit.as_ref().is_some_and(|unit| unit.len() > 64) {
            return Err("unit: at most 64 bytes".into());
        }
        let Some(extremes) = &self.extremes else { return Ok(()) };
        let bounded = Column { bounds: Some(extremes.clone()), domain: None, ..self.column.clone() };
        bounded.fixed_bounds().map(drop).map_err(|e| format!("extremes: {e}"))
    }
}

/// The catalogue document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The hospital, by roster name.
    pub node: String,
    /// Counts from 1 and grows by one.
    pub seq: u64,
    /// The digest of the catalogue before, none for the first.
    pub prev: Option<Digest>,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// The data sets.
    pub data_sets: Vec<DataSet>,
}

impl Catalogue {
    /// The data set called `id`.
    pub fn data_set(&self, id: &str) -> Option<&DataSet> {
        self.data_sets.iter().find(|d| d.id == id)
    }
}

impl Document for Catalogue {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.catalogue.v1+json";
    const NAME: &'static str = "catalogue";
    const MAX_BYTES: usize = 4 << 20;

    fn check(&self) -> Result<(), String> {
        if !is_name(&self.node) {
            return Err("node is a name of the roster".into());
        }
        if self.seq == 0 || (self.seq == 1) != self.prev.is_none() {
            return Err("seq counts from 1, and every later catalogue names the one before it in prev".into());
        }
        list("data_sets", self.data_sets.len(), MAX_DATA_SETS)?;
        let ids: BTreeSet<_> = self.data_sets.iter().map(|d| &d.id).collect();
        if ids.len() != self.data_sets.len() {
            return Err("data_sets names each data set once".into());
        }
        self.data_sets.iter().try_for_each(|d| d.check().map_err(|e| format!("data set {}: {e}", d.id)))
    }
}
