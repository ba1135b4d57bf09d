//! `schema/1`: what a study may assume of every hospital's data, signed by the governance key.
//!
//! A schema gives tables, columns, types, fixed-point scales, bounds and public domains, and the patient
//! column of each table. All of it is public: nothing in it comes from anybody's rows.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::dsse::Document;

/// The largest magnitude of a bound in fixed-point units: with weights and rows it stays inside i128.
pub const MAX_MAGNITUDE: i64 = 1_000_000_000_000_000;
/// The most values that a declared domain lists.
pub const MAX_DOMAIN: usize = 10_000;
/// The most tables, and the most columns of one table.
pub const MAX_COLUMNS: usize = 512;

/// The type of a column. Numbers are integers or fixed point; there is no floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Signed 64-bit integers.
    Int64,
    /// Fixed point with `scale` digits after the point.
    Decimal,
    /// Text in UTF-8.
    Text,
    /// Calendar days.
    Date,
    /// True or false.
    Bool,
}

/// The public range of a column: values outside are clamped before they are summed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The least value, as text: "0", "-3.5", "1900-01-01".
    pub min: String,
    /// The greatest value.
    pub max: String,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Lower-case name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Digits after the point, for `decimal` only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scale: u8,
    /// Its public range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
    /// Its public values, for `text` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Vec<String>>,
    /// The unit of measure, for people: "min", "kg".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Lower-case name.
    pub name: String,
    /// The column that names the patient: the privacy unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Why the table is public, when it has no patient column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// At most one row per patient; a node checks it when it takes a snapshot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_row_per_patient: bool,
    /// The columns.
    pub columns: Vec<Column>,
}

/// The schema document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// What it is called: "omop-5.4-subset".
    pub id: String,
    /// Its version.
    pub version: u32,
    /// A sentence for people.
    pub title: String,
    /// The tables.
    pub tables: Vec<Table>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(scale: &u8) -> bool {
    *scale == 0
}

impl Schema {
    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == name)
    }
}

impl Table {
    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

impl Column {
    /// The bounds in fixed-point units: as they are for integers, times 10^scale for decimals, days since
    /// 1970-01-01 for dates. None when the column has no bounds.
    ///
    /// # Errors
    /// When a bound is no value of the column's type, is out of range, or min is above max.
    pub fn fixed_bounds(&self) -> Result<Option<(i64, i64)>, String> {
        let Some(bounds) = &self.bounds else { return Ok(None) };
        let (min, max) = (self.fixed(&bounds.min)?, self.fixed(&bounds.max)?);
        if min > max {
            return Err(format!("column {}: its least bound is above its greatest", self.name));
        }
        Ok(Some((min, max)))
    }

    fn fixed(&self, text: &str) -> Result<i64, String> {
        let bad = || format!("column {}: \"{text}\" is no bound of its type", self.name);
        let value = match self.kind {
            Kind::Int64 => text.parse().map_err(|_| bad())?,
            Kind::Decimal => fixed_point(text, self.scale).ok_or_else(bad)?,
            Kind::Date => {
                let day: NaiveDate = text.parse().map_err(|_| bad())?;
                day.signed_duration_since(NaiveDate::default()).num_days()
            }
            Kind::Text | Kind::Bool => return Err(format!("column {}: its type has no bounds", self.name)),
        };
        if !(-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(&value) {
            return Err(format!("column {}: a bound is beyond ±10^15 fixed-point units", self.name));
        }
        Ok(value)
    }

    fn check(&self) -> Result<(), String> {
        if !is_identifier(&self.name) {
            return Err("a column's name is a lower-case SQL identifier of at most 64 bytes".into());
        }
        if self.scale > 9 || (self.scale > 0 && self.kind != Kind::Decimal) {
            return Err(format!("column {}: scale is 0-9, and for decimals only", self.name));
        }
        self.fixed_bounds()?;
        if let Some(domain) = &self.domain {
            let different: BTreeSet<_> = domain.iter().collect();
            if self.kind != Kind::Text || domain.len() > MAX_DOMAIN || different.len() != domain.len() {
                return Err(format!("column {}: a domain is at most {MAX_DOMAIN} different texts", self.name));
            }
            if domain.iter().any(|v| v.len() > 256) {
                return Err(format!("column {}: a domain's values have at most 256 bytes", self.name));
            }
        }
        Ok(())
    }
}

/// Reads a decimal text exactly as an integer of 10^-scale; `None` when it has more digits or is no number.
fn fixed_point(text: &str, scale: u8) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > scale as usize || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<width$}0", width = scale as usize).parse::<i64>().ok()? / 10;
    whole.checked_mul(10_i64.checked_pow(scale.into())?)?.checked_add(fraction)?.checked_mul(sign)
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.len() <= 64
}

impl Document for Schema {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.schema.v1+json";
    const NAME: &'static str = "schema";
    const MAX_BYTES: usize = 4 << 20;

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        if self.tables.len() > MAX_COLUMNS {
            return Err(format!("more than {MAX_COLUMNS} tables"));
        }
        for table in &self.tables {
            let at = |why: &str| Err(format!("table {}: {why}", table.name));
            if !is_identifier(&table.name) || !names.insert(&table.name) {
                return Err("a table's name is a lower-case SQL identifier, used once".into());
            }
            if table.columns.len() > MAX_COLUMNS {
                return at("too many columns");
            }
            let mut columns = BTreeSet::new();
            for column in &table.columns {
                column.check().map_err(|e| format!("table {}: {e}", table.name))?;
                if !columns.insert(&column.name) {
                    return at(&format!("column {} is there twice", column.name));
                }
            }
            match (&table.patient, &table.public) {
                (Some(patient), None) => match table.column(patient).map(|c| c.kind) {
                    Some(Kind::Int64 | Kind::Text) => {}
                    Some(Kind::Decimal | Kind::Date | Kind::Bool) | None => {
                        return at("its patient column must be one of its columns, an integer or text");
                    }
                },
                (None, Some(reason)) if !reason.trim().is_empty() => {}
                (None, Some(_) | None) | (Some(_), Some(_)) => {
                    return at("it needs a patient column, or a reason why it is public");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_point_is_exact_or_nothing() {
        for (text, scale, expect) in [
            ("0", 0, Some(0)),
            ("-3.5", 1, Some(-35)),
            ("3.5", 0, None),
            ("12.05", 3, Some(12_050)),
            ("-0.5", 1, Some(-5)),
            ("1e3", 1, None),
            ("", 1, None),
            ("9223372036854775807", 1, None),
        ] {
            assert_eq!(fixed_point(text, scale), expect, "{text} at scale {scale}");
        }
    }

    fn schema(table: &str) -> Result<(), String> {
        let table = serde_json::from_str(table).unwrap();
        Schema { id: "s".into(), version: 1, title: String::new(), tables: vec![table] }.check()
    }

    #[test]
    fn a_table_has_a_patient_or_a_reason() {
        let id = r#"{"name":"id","type":"int64"}"#;
        for (table, admitted) in [
            (format!(r#"{{"name":"t","patient":"id","columns":[{id}]}}"#), true),
            (format!(r#"{{"name":"t","public":"ICD-10 chapters","columns":[{id}]}}"#), true),
            (format!(r#"{{"name":"t","columns":[{id}]}}"#), false),
            (format!(r#"{{"name":"t","patient":"other","columns":[{id}]}}"#), false),
            (format!(r#"{{"name":"t","patient":"id","public":"no","columns":[{id}]}}"#), false),
            (format!(r#"{{"name":"T","patient":"id","columns":[{id}]}}"#), false),
            (format!(r#"{{"name":"t","patient":"id","columns":[{id},{id}]}}"#), false),
            (
                r#"{"name":"t","patient":"id","columns":[{"name":"id","type":"text","bounds":{"min":"0","max":"1"}}]}"#
                    .into(),
                false,
            ),
        ] {
            assert_eq!(schema(&table).is_ok(), admitted, "{table}");
        }
    }
}
