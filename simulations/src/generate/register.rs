//! A hospital's patient register: its lines, the rule `jp-ngmia` on them, and `register.csv`.
//!
//! The rule follows the Next-Generation Medical Infrastructure Act: a patient may be used from 30 days
//! after written notice on, unless they opted out, or died before the notice. It is written here a second
//! time on purpose, apart from the node's, so that the truth does not come from what it judges.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate};

use super::GenerateError;
use super::stream::Draw;

/// The name of the register's file in a hospital's directory.
pub(super) const REGISTER_FILE: &str = "register.csv";

/// Days between written notice and first use.
const NOTICE_DAYS: u64 = 30;

/// One patient's line.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) notified_on: NaiveDate,
    pub(super) opted_out_on: Option<NaiveDate>,
    pub(super) died_on: Option<NaiveDate>,
}

impl Entry {
    /// Draws a line: 2 % were notified too recently, 3 % opted out, half of the dead died before notice.
    ///
    /// The edges of the rule are met more often than chance would: notice exactly 30 days ago, opting out
    /// on the as-of date itself, death on the day of notice.
    pub(super) fn draw(draw: &mut Draw, as_of: NaiveDate, died_on: Option<NaiveDate>) -> Self {
        let ago = |days: i64| as_of - Days::new(days.max(0) as u64);
        let notified_on = match died_on.map(|died| (as_of - died).num_days()) {
            Some(died_ago) if draw.chance(5000) => ago(draw.between(0, died_ago - 1)),
            Some(died_ago) => ago((died_ago + draw.between(-30, 700)).max(died_ago)),
            None => match draw.below(100) {
                0..2 => ago(draw.between(0, 29)),
                2 => ago(30),
                _ => ago(draw.between(30, 1400)),
            },
        };
        let opted_out_on = draw.chance(300).then(|| {
            let since_notice = (as_of - notified_on).num_days();
            match draw.below(10) {
                0 => as_of,
                _ => ago(draw.between(0, since_notice)),
            }
        });
        Self { notified_on, opted_out_on, died_on }
    }

    /// Whether the patient may be used on a day.
    pub(super) fn eligible_on(&self, day: NaiveDate) -> bool {
        let notice_ran = self.notified_on + Days::new(NOTICE_DAYS) <= day;
        let opted_out = self.opted_out_on.is_some_and(|on| on <= day);
        let died_before_notice = self.died_on.is_some_and(|on| on < self.notified_on);
        notice_ran && !opted_out && !died_before_notice
    }
}

/// Writes `register.csv`: patient_id, notified_on, opted_out_on, died_on; ISO dates, empty for none.
pub(super) struct RegisterFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl RegisterFile {
    pub(super) fn create(dir: &Path) -> Result<Self, GenerateError> {
        let path = dir.join(REGISTER_FILE);
        let file = File::create_new(&path).map_err(|e| GenerateError::io(&path, e))?;
        let mut file = BufWriter::new(file);
        writeln!(file, "patient_id,notified_on,opted_out_on,died_on").map_err(|e| GenerateError::io(&path, e))?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, patient_id: i64, entry: &Entry) -> Result<(), GenerateError> {
        let iso = |day: Option<NaiveDate>| day.map(|day| day.to_string()).unwrap_or_default();
        writeln!(self.file, "{patient_id},{},{},{}", entry.notified_on, iso(entry.opted_out_on), iso(entry.died_on))
            .map_err(|e| GenerateError::io(&self.path, e))
    }

    pub(super) fn finish(mut self) -> Result<(), GenerateError> {
        self.file.flush().map_err(|e| GenerateError::io(&self.path, e))
    }
}
