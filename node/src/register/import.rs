//! Importing notices, opt-outs and deaths from CSV: the whole file in one transaction, or nothing.
//!
//! UTF-8 (a byte-order mark is passed over), one header line with `patient_id`, `notified_on`,
//! `opted_out_on` and `died_on` in any order, then a line per patient; days are `YYYY-MM-DD`, blank means
//! that there is none. RFC 4180 quotes are read, but no line breaks inside them. An event that the register
//! has (same patient, sort and day) is not added again, so importing a file twice is harmless; a blank takes
//! nothing back, which is what [`super::Register::record`] is for.

use std::path::Path;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde::Serialize;
use sqlx::SqliteConnection;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

use super::{EventKind, MAX_PATIENT_BYTES, Register, RegisterError};
use crate::store::instant;

/// The longest line that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 4096;
/// How many events are written by one statement.
const BATCH: usize = 2000;
/// After how many lines `progress` is called.
const PROGRESS_LINES: u64 = 50_000;
const COLUMNS: [&str; 4] = ["patient_id", "notified_on", "opted_out_on", "died_on"];

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Lines with a patient.
    pub lines: u64,
    /// Events that were new.
    pub events: u64,
}

/// One event to be written: patient, sort, day.
#[derive(Serialize)]
struct Row(String, &'static str, String);

impl Register {
    /// Imports the CSV file at `path`; `by` says who does it. `progress` is called now and then with the number of
    /// lines that were read.
    ///
    /// # Errors
    /// [`RegisterError::Line`] names the first bad line and what is wrong, never its content; then, or when
    /// reading or the database fails, nothing is imported.
    pub async fn import_csv(
        &self,
        path: &Path,
        by: &str,
        at: DateTime<Utc>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Imported, RegisterError> {
        self.import(tokio::fs::File::open(path).await?, by, at, progress).await
    }

    /// Imports from a reader, as [`import_csv`](Self::import_csv) does from a file.
    ///
    /// # Errors
    /// The same.
    pub async fn import<R: AsyncRead + Unpin + Send>(
        &self,
        reader: R,
        by: &str,
        at: DateTime<Utc>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Imported, RegisterError> {
        let by = recorder(by)?;
        let mut lines = Lines { reader: BufReader::new(reader), line: Vec::new(), number: 0 };
        let header = match lines.next().await? {
            Some(header) => header.strip_prefix('\u{feff}').unwrap_or(header),
            None => return Err(RegisterError::Line { line: 1, reason: "the file is empty; it needs a header" }),
        };
        let order = columns(header).map_err(|reason| RegisterError::Line { line: 1, reason })?;
        let mut tx = self.store.write().await?;
        let (mut batch, mut done) = (Vec::new(), Imported { lines: 0, events: 0 });
        while lines.next().await?.is_some() {
            let text = lines.text()?;
            if text.trim().is_empty() {
                continue;
            }
            let rows = events(text, order);
            batch.extend(rows.map_err(|reason| RegisterError::Line { line: lines.number, reason })?);
            done.lines += 1;
            if batch.len() >= BATCH {
                done.events += write(&mut tx, &mut batch, by, at).await?;
            }
            if done.lines.is_multiple_of(PROGRESS_LINES) {
                progress(done.lines);
            }
        }
        done.events += write(&mut tx, &mut batch, by, at).await?;
        tx.commit().await?;
        Ok(done)
    }
}

/// Writes the events of `batch` that are new, in their order, and empties it.
async fn write(
    tx: &mut SqliteConnection,
    batch: &mut Vec<Row>,
    by: &str,
    at: DateTime<Utc>,
) -> Result<u64, RegisterError> {
    let json = serde_json::to_string(batch).map_err(|e| RegisterError::Read(e.into()))?;
    batch.clear();
    let done = sqlx::query(
        "INSERT INTO register_event (seq, patient, kind, on_date, by, recorded_at)
        SELECT (SELECT coalesce(max(seq), 0) FROM register_event) + row_number() OVER (ORDER BY place),
            patient, kind, on_date, ?2, ?3
        FROM (
            SELECT min(key) AS place, value ->> 0 AS patient, value ->> 1 AS kind, value ->> 2 AS on_date
            FROM json_each(?1) GROUP BY patient, kind, on_date
        ) AS new
        WHERE NOT EXISTS (
            SELECT 1 FROM register_event old
            WHERE old.patient = new.patient AND old.kind = new.kind AND old.on_date = new.on_date
        )
        ORDER BY place",
    )
    .bind(json)
    .bind(by)
    .bind(instant(at))
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Reads lines of bounded length.
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// The next line without its end; none after the last.
    async fn next(&mut self) -> Result<Option<&str>, RegisterError> {
        self.line.clear();
        self.number += 1;
        let mut ended = true;
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|b| *b == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            if self.line.len() + taken > MAX_LINE_BYTES {
                return Err(RegisterError::Line { line: self.number, reason: "the line is longer than 4096 bytes" });
            }
            self.line.extend_from_slice(&chunk[..taken]);
            self.reader.consume(taken);
            ended = false;
            if end.is_some() {
                break;
            }
        }
        if ended { Ok(None) } else { self.text().map(Some) }
    }

    /// The line that was read last.
    fn text(&self) -> Result<&str, RegisterError> {
        let text = std::str::from_utf8(&self.line).map_err(|_| RegisterError::Line {
            line: self.number,
            reason: "it is not UTF-8; save the file as UTF-8",
        })?;
        Ok(text.trim_end_matches(['\n', '\r']))
    }
}

/// Where each of [`COLUMNS`] is in a line.
fn columns(header: &str) -> Result<[usize; 4], &'static str> {
    const WRONG: &str = "the header must be patient_id,notified_on,opted_out_on,died_on";
    let names = fields(header)?;
    if names.len() != COLUMNS.len() {
        return Err(WRONG);
    }
    let mut order = [0; 4];
    for (place, column) in order.iter_mut().zip(COLUMNS) {
        *place = names.iter().position(|name| name.trim() == column).ok_or(WRONG)?;
    }
    Ok(order)
}

fn events(line: &str, order: [usize; 4]) -> Result<Vec<Row>, &'static str> {
    let fields = fields(line)?;
    if fields.len() != COLUMNS.len() {
        return Err("it does not have 4 fields");
    }
    let [id, days @ ..] = order;
    let id = patient(&fields[id])?;
    let mut rows = Vec::new();
    for (place, kind) in days.into_iter().zip([EventKind::Notified, EventKind::OptedOut, EventKind::Died]) {
        let text = fields[place].trim();
        if !text.is_empty() {
            rows.push(Row(id.into(), kind.as_str(), day(text)?.to_string()));
        }
    }
    Ok(rows)
}

/// Splits a line at its commas; quotes as in RFC 4180.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut closed) = (false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().ok_or("it has no field")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => (quoted, closed) = (false, true),
            '"' if field.is_empty() && !closed => quoted = true,
            ',' if !quoted => {
                closed = false;
                fields.push(String::new());
            }
            '"' => return Err("a quotation mark stands inside a field"),
            _ if closed => return Err("something follows a closing quotation mark"),
            other => field.push(other),
        }
    }
    if quoted { Err("a quotation mark is not closed") } else { Ok(fields) }
}

/// A patient id as the register keeps it: without blanks around it.
pub(super) fn patient(id: &str) -> Result<&str, &'static str> {
    let id = id.trim();
    if id.is_empty() {
        return Err("the patient id is blank");
    }
    if id.len() > MAX_PATIENT_BYTES {
        return Err("the patient id is longer than 256 bytes");
    }
    if id.chars().any(char::is_control) {
        return Err("the patient id has a control character");
    }
    Ok(id)
}

/// A day, written `YYYY-MM-DD`, of 1900 to 2199.
pub(super) fn day(text: &str) -> Result<NaiveDate, &'static str> {
    let day: NaiveDate = text.parse().map_err(|_| "a day is not written YYYY-MM-DD")?;
    if day.to_string() != text {
        return Err("a day is not written YYYY-MM-DD");
    }
    if !(1900..2200).contains(&day.year()) {
        return Err("a day is not of the years 1900 to 2199");
    }
    Ok(day)
}

/// The name of whoever records.
pub(super) fn recorder(by: &str) -> Result<&str, RegisterError> {
    let by = by.trim();
    if by.is_empty() || by.len() > 128 || by.chars().any(char::is_control) {
        return Err(RegisterError::Event("whoever records is named by 1 to 128 bytes"));
    }
    Ok(by)
}
