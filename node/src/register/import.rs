//! Importing events from CSV: the whole file in one transaction, or nothing.
//!
//! The file is read line by line, twice when its encoding is to be found out. An event that the register has (same patient,
//! sort and day) is not added again, so importing a file twice is harmless; one that stands in the file twice is an error that
//! names both lines. A blank takes nothing back, which is what a withdrawal is for. Which patients the data does not know is
//! counted for the hospital's own console: a register may be ahead of the data.

use std::{io::SeekFrom, path::Path};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Row as _, SqliteConnection};
use tokio::io::{AsyncRead, AsyncSeek, AsyncSeekExt, BufReader};

use super::{
    Register, RegisterError,
    csv::{Layout, Lines},
    encoding::{Decided, Encoding},
    entry::{Entry, recorder},
};
use crate::{data::known::KnownPatients, store::instant};

/// How many events are written by one statement.
const BATCH: usize = 2000;
/// After how many lines `progress` is called.
const PROGRESS_LINES: u64 = 50_000;

/// How a file is imported.
#[derive(Clone, Copy)]
pub struct Importing<'a> {
    /// Who does it.
    pub by: &'a str,
    /// Now.
    pub at: DateTime<Utc>,
    /// How the file's characters are written.
    pub encoding: Encoding,
    /// The patients that the data knows, to look for others.
    pub known: Option<&'a KnownPatients>,
    /// Whether a patient that the data does not know is an error.
    pub known_only: bool,
}

impl<'a> Importing<'a> {
    /// By `by` at the hour `at`, whichever encoding it is, without a look at the data.
    pub fn by(by: &'a str, at: DateTime<Utc>) -> Self {
        Self { by, at, encoding: Encoding::Auto, known: None, known_only: false }
    }
}

/// What an import did; for the hospital's own console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Lines with a patient.
    pub lines: u64,
    /// Events that were new.
    pub events: u64,
    /// Patients with an event in the file that the data does not know, where that was looked at.
    pub unknown: Option<u64>,
}

/// One event to be written: line, patient, sort, day, who said it, whether the data knows the patient.
#[derive(Serialize)]
struct Row(u64, String, &'static str, String, Option<&'static str>, bool);

impl Register {
    /// Imports the CSV file at `path`. `progress` is called now and then with the number of lines that were read.
    ///
    /// # Errors
    /// [`RegisterError::Line`] and [`RegisterError::Twice`] name the first bad line and what is wrong, never its content; then,
    /// or when reading or the database fails, nothing is imported.
    pub async fn import_csv(
        &self,
        path: &Path,
        importing: &Importing<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Imported, RegisterError> {
        self.import(tokio::fs::File::open(path).await?, importing, progress).await
    }

    /// Imports from a reader, as [`import_csv`](Self::import_csv) does from a file.
    ///
    /// # Errors
    /// The same.
    pub async fn import<R: AsyncRead + AsyncSeek + Unpin + Send>(
        &self,
        mut reader: R,
        importing: &Importing<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Imported, RegisterError> {
        let by = recorder(importing.by)?;
        let encoding = importing.encoding.decide(&mut Lines::new(BufReader::new(&mut reader))).await?;
        reader.seek(SeekFrom::Start(0)).await?;
        let mut lines = Lines::new(BufReader::new(reader));
        let layout = layout(&mut lines, encoding).await?;
        let mut batches = Batches { tx: self.store.write().await?, rows: Vec::new(), by, at: importing.at, events: 0 };
        let mut read = 0;
        while let Some(line) = lines.next().await? {
            let text = encoding.text(line).ok_or(encoding.unreadable());
            if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                continue;
            }
            let rows = text.and_then(|text| rows(layout.entries(&text, importing.at)?, importing));
            let line = lines.number();
            batches.add(line, rows.map_err(|reason| RegisterError::Line { line, reason })?).await?;
            read += 1;
            if u64::is_multiple_of(read, PROGRESS_LINES) {
                progress(read);
            }
        }
        let (events, unknown) = batches.commit().await?;
        Ok(Imported { lines: read, events, unknown: importing.known.map(|_| unknown) })
    }
}

/// The layout that the first line tells.
async fn layout<R: tokio::io::AsyncBufRead + Unpin>(
    lines: &mut Lines<R>,
    encoding: Decided,
) -> Result<Layout, RegisterError> {
    let wrong = |reason| RegisterError::Line { line: 1, reason };
    let header = lines.next().await?.ok_or(wrong("the file is empty; it needs a header"))?;
    let header = encoding.text(header).ok_or(wrong(encoding.unreadable()))?;
    Layout::of(header.strip_prefix('\u{feff}').unwrap_or(&header)).map_err(wrong)
}

/// The rows of one line's entries, still without its number.
fn rows(entries: Vec<Entry>, importing: &Importing<'_>) -> Result<Vec<Row>, &'static str> {
    let row = |entry: Entry| {
        let known = importing.known.is_none_or(|known| known.holds(&entry.patient));
        if importing.known_only && !known {
            return Err("the patient is not in the data; leave out --known-only to import it all the same");
        }
        let said_by = entry.said_by.map(super::SaidBy::as_str);
        Ok(Row(0, entry.patient, entry.kind.as_str(), entry.on.to_string(), said_by, known))
    };
    entries.into_iter().map(row).collect()
}

/// Writes rows in batches, all in one transaction.
struct Batches<'a> {
    tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    rows: Vec<Row>,
    by: &'a str,
    at: DateTime<Utc>,
    events: u64,
}

impl Batches<'_> {
    async fn add(&mut self, line: u64, rows: Vec<Row>) -> Result<(), RegisterError> {
        self.rows.extend(rows.into_iter().map(|row| Row(line, row.1, row.2, row.3, row.4, row.5)));
        if self.rows.len() >= BATCH { self.write().await } else { Ok(()) }
    }

    /// Writes the events that are new, in their order.
    async fn write(&mut self) -> Result<(), RegisterError> {
        let json = serde_json::to_string(&self.rows).map_err(|e| RegisterError::Read(e.into()))?;
        let rows = self.rows.len() as u64;
        self.rows.clear();
        let from: i64 =
            sqlx::query_scalar("SELECT coalesce(max(place), 0) FROM register_import").fetch_one(&mut *self.tx).await?;
        let staged = sqlx::query(
            "INSERT INTO register_import (line, patient, kind, on_date, said_by, known)
            SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
            FROM json_each(?1) WHERE true ORDER BY key ON CONFLICT (patient, kind, on_date) DO NOTHING",
        )
        .bind(&json)
        .execute(&mut *self.tx)
        .await?;
        if staged.rows_affected() < rows {
            return Err(twice(&mut self.tx, &json).await?);
        }
        let done = sqlx::query(
            "INSERT INTO register_event (seq, patient, kind, on_date, by, recorded_at, said_by)
            SELECT (SELECT coalesce(max(seq), 0) FROM register_event) + row_number() OVER (ORDER BY place),
                patient, kind, on_date, ?2, ?3, said_by
            FROM register_import new
            WHERE place > ?1 AND NOT EXISTS (
                SELECT 1 FROM register_event old
                WHERE old.patient = new.patient AND old.kind = new.kind AND old.on_date = new.on_date
            )
            ORDER BY place",
        )
        .bind(from)
        .bind(self.by)
        .bind(instant(self.at))
        .execute(&mut *self.tx)
        .await?;
        self.events += done.rows_affected();
        Ok(())
    }

    /// Writes the rest and commits; returns how many events were new, and how many patients the data does not know.
    async fn commit(mut self) -> Result<(u64, u64), RegisterError> {
        self.write().await?;
        let unknown: i64 = sqlx::query_scalar("SELECT count(DISTINCT patient) FROM register_import WHERE NOT known")
            .fetch_one(&mut *self.tx)
            .await?;
        sqlx::query("DELETE FROM register_import").execute(&mut *self.tx).await?;
        self.tx.commit().await?;
        Ok((self.events, unknown.unsigned_abs()))
    }
}

/// The first event of the batch that stands in an earlier line too.
async fn twice(tx: &mut SqliteConnection, json: &str) -> Result<RegisterError, RegisterError> {
    let found = sqlx::query(
        "SELECT again.value ->> 0 AS line, first.line AS first
        FROM json_each(?1) again JOIN register_import first
            ON first.patient = again.value ->> 1 AND first.kind = again.value ->> 2 AND first.on_date = again.value ->> 3
        WHERE first.line <> again.value ->> 0 ORDER BY 1 LIMIT 1",
    )
    .bind(json)
    .fetch_one(tx)
    .await?;
    let line = |name: &str| found.try_get::<i64, _>(name).map(i64::unsigned_abs);
    Ok(RegisterError::Twice { line: line("line")?, first: line("first")? })
}
