//! A hospital's data as queries meet it: mapped to the schema, frozen in snapshots, under the register.
//!
//! [`mapping`] says where the columns of a signed `schema/1` come from; [`snapshot`] freezes them as
//! Parquet sorted by patient; [`protected`] lets a query scan a snapshot, and only the eligible patients
//! of it, [`range_rows`] runs a plan over one range of patients after another, and [`row_plan`] asserts of which operators a physical plan consists.
//!
//! Promises: a scan of a protected table passes the register, whatever the SQL; no error, `Debug` text or
//! trace of these modules holds a cell value, a row or a count of rows.
//!
//! Deliberately absent: SQL analysis, budgets, noise, and any way to change a snapshot.

mod columns;
mod counted;
mod eligibility;
mod files;
pub mod known;
pub mod mapping;
mod patient_range;
pub mod protected;
pub mod range_rows;
mod reading;
pub mod retention;
mod row_groups;
pub mod row_plan;
pub mod snapshot;
mod sources;
mod staging;
mod table_file;
mod taking;
mod wanted;

#[cfg(test)]
mod fixture;
