//! How far a snapshot has come, on standard error: a bar on a terminal, elsewhere a line for each stage and now and then.

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::data::snapshot::{Progress, Stage};

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// The operator's screen.
pub(super) struct Screen {
    bar: ProgressBar,
    terminal: bool,
    shown: Mutex<Option<Shown>>,
}

/// What is on the screen.
struct Shown {
    table: String,
    stage: Stage,
    begun: Instant,
    line: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bar: ProgressBar::with_draw_target(None, target), terminal, shown: Mutex::new(None) }
    }

    /// Shows how far it is.
    pub(super) fn show(&self, progress: &Progress<'_>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Step { table, stage, done, total, bytes } => {
                let now = Instant::now();
                let same = shown.as_ref().is_some_and(|s| s.table == *table && s.stage == *stage);
                if !same {
                    let table = (*table).to_owned();
                    *shown = Some(Shown { table, stage: *stage, begun: now, line: now });
                    self.bar.reset();
                    self.bar.set_style(style(*stage, total.is_some()));
                }
                let Some(shown) = shown.as_mut() else { return };
                let rate = rate(*bytes, now.duration_since(shown.begun));
                self.bar.set_length(total.unwrap_or(*done));
                self.bar.set_message(format!("{table}: {}{rate}", what(*stage)));
                self.bar.set_position(*done);
                if !self.terminal && (!same || now.duration_since(shown.line) >= LINE) {
                    shown.line = now;
                    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
                    let unit = if *stage == Stage::Hashing { "bytes" } else { "rows" };
                    eprintln!("{table}: {}, {done}{of} {unit}{rate}", what(*stage));
                }
            }
            Progress::Finished(report) => {
                *shown = None;
                self.bar.finish_and_clear();
                let table = &report.table;
                let over = if report.taken_over { ", taken over from the run before" } else { "" };
                eprintln!("{table}: {} rows, {} dropped without a patient{over}", report.rows, report.without_patient);
                for (column, values) in &report.became_null {
                    eprintln!("{table}.{column}: {values} values did not fit the schema's type and became NULL");
                }
            }
        }
    }
}

fn what(stage: Stage) -> &'static str {
    match stage {
        Stage::Hashing => "hashing the source",
        Stage::Reading => "reading and sorting",
        Stage::Writing => "writing",
    }
}

/// Megabytes a second, where there are any.
fn rate(bytes: u64, time: Duration) -> String {
    let per_second = u128::from(bytes).saturating_mul(10).checked_div(time.as_micros()).unwrap_or(0);
    if per_second == 0 { String::new() } else { format!(", {}.{} MB/s", per_second / 10, per_second % 10) }
}

fn style(stage: Stage, known: bool) -> ProgressStyle {
    let template = match (stage, known) {
        (Stage::Hashing, _) => "{bar:20} {msg}, {eta} left",
        (Stage::Reading | Stage::Writing, true) => "{bar:20} {msg}, {human_pos}/{human_len} rows, {rows}, {eta} left",
        (Stage::Reading | Stage::Writing, false) => "{spinner} {msg}, {human_pos} rows, {rows}",
    };
    let rows = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Writing to a screen that is gone cannot be helped.
        let _ = write!(text, "{:.0} rows/s", state.per_sec());
    };
    // The templates are fixed and tested.
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_spinner(), |s| s.with_key("rows", rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_megabytes_a_second_with_a_digit() {
        for (bytes, micros, expect) in
            [(0, 5, ""), (5, 0, ""), (12_345_678, 1_000_000, ", 12.3 MB/s"), (1_000_000, 2_000_000, ", 0.5 MB/s")]
        {
            assert_eq!(rate(bytes, Duration::from_micros(micros)), expect);
        }
    }

    #[test]
    fn every_stage_has_a_template_that_is_one() {
        for stage in [Stage::Hashing, Stage::Reading, Stage::Writing] {
            for (known, total) in [(true, Some(10)), (false, None)] {
                let _ = style(stage, known);
                let screen = Screen::new();
                screen.show(&Progress::Step { table: "stay", stage, done: 5, total, bytes: 5 });
                let (position, length) = (screen.bar.position(), screen.bar.length());
                assert_eq!((position, length), (5, Some(total.unwrap_or(5))));
            }
        }
    }
}
