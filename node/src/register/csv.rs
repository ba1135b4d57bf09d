//! The CSV of the register: bounded lines, RFC 4180 quotes (no line breaks inside them), and two layouts, told by the header.
//!
//! Wide, a line per patient: `patient_id,notified_on,opted_out_on,died_on`. Long, a line per event:
//! `patient_id,event,on,said_by`. The columns stand in any order; Japanese names and full-width letters are read too. Days are
//! `YYYY-MM-DD`, blank for none.

use chrono::{DateTime, Utc};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::{
    EventKind, RegisterError,
    entry::{Entry, day},
};

/// The longest line that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 4096;
const WIDE: [[&str; 2]; 4] =
    [["patient_id", "患者id"], ["notified_on", "通知日"], ["opted_out_on", "利用停止日"], ["died_on", "死亡日"]];
const LONG: [[&str; 2]; 4] = [["patient_id", "患者id"], ["event", "区分"], ["on", "日付"], ["said_by", "申出者"]];

/// Reads lines of bounded length.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// The number of the line that was read last, the header being 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, RegisterError> {
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
        let end = self.line.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |last| last + 1);
        Ok((!ended).then(|| &self.line[..end]))
    }
}

/// Which column is where.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    Wide([usize; 4]),
    Long([usize; 4]),
}

impl Layout {
    /// The layout that a header has.
    pub(super) fn of(header: &str) -> Result<Self, &'static str> {
        let names: Vec<_> = fields(header)?.iter().map(|name| plain(name)).collect();
        let order = |columns: &[[&str; 2]; 4]| {
            let mut order = [0; 4];
            for (place, column) in order.iter_mut().zip(columns) {
                *place = names.iter().position(|name| column.contains(&name.as_str()))?;
            }
            Some(order)
        };
        let layout = order(&WIDE).map(Self::Wide).or_else(|| order(&LONG).map(Self::Long));
        layout.filter(|_| names.len() == WIDE.len()).ok_or(
            "the header must be patient_id,notified_on,opted_out_on,died_on (患者ID,通知日,利用停止日,死亡日) \
             or patient_id,event,on,said_by (患者ID,区分,日付,申出者)",
        )
    }

    /// The events of a line.
    pub(super) fn entries(self, line: &str, now: DateTime<Utc>) -> Result<Vec<Entry>, &'static str> {
        let fields = fields(line)?;
        if fields.len() != WIDE.len() {
            return Err("it does not have 4 fields");
        }
        let field = |place: usize| fields[place].trim();
        let given = |place: usize| Some(field(place)).filter(|text| !text.is_empty());
        match self {
            Self::Wide([id, days @ ..]) => {
                let mut entries = Vec::new();
                for (place, kind) in days.into_iter().zip([EventKind::Notified, EventKind::OptedOut, EventKind::Died]) {
                    if let Some(on) = given(place) {
                        entries.push(Entry::new(field(id), kind, Some(day(on)?), None, now)?);
                    }
                }
                if entries.is_empty() {
                    // The id is looked at all the same.
                    Entry::new(field(id), EventKind::Notified, None, None, now)?;
                }
                Ok(entries)
            }
            Self::Long([id, event, on, said_by]) => {
                let on = day(given(on).ok_or("the day is blank")?)?;
                let said_by = given(said_by).map(str::parse).transpose()?;
                Ok(vec![Entry::new(field(id), field(event).parse()?, Some(on), said_by, now)?])
            }
        }
    }
}

/// A name of a column in small letters of half width, without blanks around it.
fn plain(name: &str) -> String {
    let half = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        other => other,
    };
    name.trim().chars().map(half).collect::<String>().to_lowercase()
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
