//! A release as a table: the numbers that left the hospital, or that a person is asked to let out.
//!
//! Promises: it is made of a release, or of what would be one, and of public documents alone, as the coordinator makes the table
//! of one hospital: the permit's disclosure preset hides here what it hides there. No row is read for it.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::Float64Type,
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::prelude::{SessionConfig, SessionContext};
use sekisho_aggregation::{combine::combine, exact::Preview, plan::PrivatePlan, release::Release};
use sekisho_protocol::{digest::Digest, permit::Permit, query::Query};

use crate::{answer::Answering, ledger::StoredRelease};

/// The most rows of a table that left which are shown.
const MOST: usize = 200;
/// The most rows that a person can be asked to look at; an exact plan has fewer.
const WHOLE: usize = 1 << 20;
/// The level of the intervals.
const LEVEL: f64 = 0.95;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Cells in words.
pub struct Table {
    /// The columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// There are more rows.
    pub cut: bool,
}

impl Table {
    /// The table of a stored release; none when this software, or the data set's mapping of today, does not read it.
    pub async fn of(node: &Answering, query: &Query, permit: &Permit, stored: &StoredRelease) -> Option<Self> {
        let data = node.data.iter().find(|data| data.schema().digest() == permit.schema)?;
        let (data, query, permit) = (Arc::clone(data), query.clone(), permit.clone());
        // The text may nest: threads of the runtime have a deep stack.
        let analysis = tokio::task::spawn_blocking(move || {
            PrivatePlan::analyse_with(&query.sql, data.schema(), &permit, query.micro_rho, &query.terms)
        });
        let plan = analysis.await.ok()?.ok()?;
        let release = Release::from_bytes(&stored.header, &stored.cells).ok()?;
        if release.header().plan != plan.digest() {
            return None;
        }
        let shown = async {
            let combined = combine(&plan, &[&release])?;
            after(&plan, plan.released_cells(&combined, true, LEVEL, &[])?, MOST).await
        };
        let batches =
            shown.await.inspect_err(|error: &Failed| tracing::warn!(%error, "a stored release cannot be shown"));
        batches.ok().map(|batches| Self::read(&batches, MOST))
    }

    /// The whole table of an exact result as it would leave.
    ///
    /// # Errors
    /// What the engine says; no value is in it.
    pub async fn whole(plan: &PrivatePlan, preview: &Preview) -> Result<Self, Failed> {
        let whole = Self::read(&after(plan, preview.cells(plan)?, WHOLE).await?, WHOLE);
        if whole.cut { Err("the table has more rows than a person can look at".into()) } else { Ok(whole.brief()) }
    }

    /// Without the ends of intervals that are their values: those of numbers that are not rounded.
    fn brief(mut self) -> Self {
        let place = |name: &str| self.header.iter().position(|other| other == name);
        let said = |row: &Vec<String>, end: usize, value: usize| {
            let number = |place: usize| row.get(place).map(|cell| cell.parse::<f64>());
            row.get(end) == row.get(value)
                || matches!((number(end), number(value)), (Some(Ok(a)), Some(Ok(b))) if a == b)
        };
        let idle = |(end, name): (usize, &String)| {
            let value = name.strip_suffix("_low").or(name.strip_suffix("_high")).and_then(place);
            !value.is_some_and(|value| self.rows.iter().all(|row| said(row, end, value)))
        };
        let keep: Vec<bool> = self.header.iter().enumerate().map(idle).collect();
        for row in self.rows.iter_mut().chain([&mut self.header]) {
            let mut kept = keep.iter();
            row.retain(|_| kept.next().copied().unwrap_or(true));
        }
        self
    }

    /// What tells this table from any other.
    pub fn mark(&self) -> Digest {
        // Strings only: this cannot fail.
        let text = serde_json::to_vec(&(&self.header, &self.rows)).unwrap_or_default();
        Digest::of_parts(&[b"sekisho table v1", &text])
    }

    fn read(batches: &[RecordBatch], most: usize) -> Self {
        let header = batches.first().map(RecordBatch::schema);
        let header =
            header.iter().flat_map(|schema| schema.fields().iter().map(|field| field.name().clone())).collect();
        let options = FormatOptions::default().with_null("–");
        let (mut rows, mut cut) = (Vec::new(), false);
        for batch in batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
            for row in 0..batch.num_rows() {
                if rows.len() == most {
                    cut = true;
                    break;
                }
                let cell = |(array, column): (&ArrayRef, &Result<ArrayFormatter<'_>, _>)| {
                    let float = array.as_primitive_opt::<Float64Type>().filter(|floats| floats.is_valid(row));
                    match (float, column) {
                        (Some(floats), _) => rounded(floats.value(row)),
                        (None, Ok(column)) => column.value(row).to_string(),
                        (None, Err(_)) => String::new(),
                    }
                };
                rows.push(batch.columns().iter().zip(&columns).map(cell).collect());
            }
        }
        Self { header, rows, cut }
    }
}

/// A number for people: the noise leaves few of its digits.
fn rounded(number: f64) -> String {
    let decimals = if number.abs() < 10.0 { 3 } else { 1 };
    format!("{number:.decimals$}")
}

/// What the SQL says after its aggregates, over the released cells; one row more than `most` at the most.
async fn after(plan: &PrivatePlan, cells: Vec<RecordBatch>, most: usize) -> Result<Vec<RecordBatch>, Failed> {
    // One partition: rows keep the order of the cells, or that of the SQL.
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let mut scans = Vec::new();
    for (place, cells) in cells.into_iter().enumerate() {
        let name = format!("cells_{place}");
        session.register_batch(&name, cells)?;
        scans.push(session.table(&name).await?.into_unoptimized_plan());
    }
    let after = session.execute_logical_plan(plan.after_release(scans)?).await?;
    Ok(after.limit(0, Some(most + 1))?.collect().await?)
}
