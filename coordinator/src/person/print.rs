//! What people see: tables, JSON, and a spinner while they wait.
//!
//! Data goes to standard output, everything else to standard error. Text that somebody else chose is printed
//! without its control characters, so that no answer can move the cursor or colour itself.
//!
//! Deliberately absent: colours, paging, and any rounding of numbers in JSON.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chrono::NaiveDate;
use clap::ValueEnum;
use comfy_table::{LineStyle, Table, TableStyle};
use indicatif::ProgressBar;
use sekisho_protocol::{disclosure::Rules, refusal::Code};
use serde::Serialize;

use super::{
    failure::{Exit, Failure},
    number::significant,
};
use crate::{
    listing::{self, Listing},
    report::{ExactReport, Guarantee, HolderReport, HolderState, PrivacyReport, Protection, PutReport},
};

/// Lines above, below and under the header; none between rows.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('═').junction('═'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// How a document is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// `text` with control and direction-changing characters replaced by U+FFFD; line ends become spaces.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Writes `text` and a line end to standard output. A reader that went away is no failure.
///
/// # Errors
/// When it cannot be written.
pub fn out(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes `bytes` to standard output as they are. A reader that went away is no failure.
///
/// # Errors
/// When they cannot be written.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::input(format!("standard output: {e}"), "check where it goes")),
    }
}

/// Writes a line of explanation to standard error.
pub fn note(text: &str) {
    // Nothing can be said when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{}", plain(text));
}

/// `value` as indented JSON.
///
/// # Errors
/// When a number or a key has no form in JSON, which no report has.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|e| Failure::input(e.to_string(), "use --output table"))
}

/// Prints a list: `rows` under `header`, or `value` as JSON. In CSV no text of a stranger is a formula.
///
/// # Errors
/// When it cannot be written.
pub fn list<const N: usize>(
    output: Listing,
    value: &impl Serialize,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    let safe = |row: [String; N]| row.map(|cell| listing::defused(&plain(&cell)));
    out(&match output {
        Listing::Table => table(header, rows),
        Listing::Json => json(value)?,
        Listing::Csv => listing::csv(header, rows.into_iter().map(safe)),
    })
}

/// A spinner on standard error, when that is a terminal. It goes when it is dropped.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Starts to turn beside `message`.
    pub fn start(message: impl Into<String>) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A table with a header, its cells cleaned by [`plain`].
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = empty();
    table.set_header(header.map(plain));
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    table.trim_fmt()
}

/// A table without rows, in the style of all tables.
pub fn empty() -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table
}

/// Names and values, one pair a line, the values in one column.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name:<width$}  {}", plain(value))).collect();
    lines.join("\n")
}

/// What a hospital did, in a word.
pub fn state(state: HolderState) -> &'static str {
    match state {
        HolderState::Answered => "answered",
        HolderState::Refused => "refused",
        HolderState::NoAnswer => "no_answer",
        HolderState::Offline => "offline",
    }
}

/// What a hospital did in a round: one where a person looks at an exact result has not refused.
pub fn did(report: &HolderReport) -> &'static str {
    if report.waits() { "waits" } else { state(report.state) }
}

/// The hospitals of a round.
pub fn holders(reports: &[HolderReport]) -> String {
    let row = |r: &HolderReport| {
        let code = r.code.map(|c| c.to_string()).unwrap_or_default();
        let as_of = r.as_of.map(|d| d.to_string()).unwrap_or_default();
        [r.name.clone(), did(r).into(), code, as_of, r.detail.clone().unwrap_or_default()]
    };
    table(["hospital", "state", "code", "as of", "detail"], reports.iter().map(row))
}

/// Cost and protection and noise, one fact a line.
pub fn privacy(report: &PrivacyReport) -> Vec<(&'static str, String)> {
    let mut facts = cost(report);
    for noise in &report.noise {
        let sd = significant(noise.standard_deviation);
        facts.push(("noise", format!("{}: standard deviation {sd} per cell and hospital", noise.measure)));
    }
    facts
}

/// Cost and protection, one fact a line.
pub fn cost(report: &PrivacyReport) -> Vec<(&'static str, String)> {
    let Guarantee { delta, epsilon, sites_per_patient, epsilon_all_sites } = match &report.protection {
        Protection::Noised(guarantee) => guarantee,
        Protection::Exact(ExactReport { exact }) => return self::exact(exact),
    };
    let mut facts = vec![
        ("cost", format!("{} at each hospital", report.micro_rho)),
        ("epsilon", format!("{epsilon:.4} at delta {delta}, for a patient at one hospital")),
    ];
    if *sites_per_patient > 1 {
        facts.push((
            "",
            format!("{epsilon_all_sites:.4} at delta {delta}, for a patient at {sites_per_patient} (assumed at most)"),
        ));
    }
    facts
}

/// What an exact result is.
fn exact(rules: &Rules) -> Vec<(&'static str, String)> {
    vec![
        ("cost", "none: an exact result costs no rho".into()),
        ("release", "exact: without noise, not differentially private, after a person at each hospital agreed".into()),
        ("rules", rules.in_words().0),
    ]
}

/// At which hospitals no guarantee holds, and since when, one fact a line.
pub fn unguarded(holders: &[HolderReport]) -> Vec<(&'static str, String)> {
    let since = holders.iter().filter_map(|holder| Some((&holder.name, holder.exact_since?)));
    since.map(|(name, day)| ("NO guarantee", format!("{name}: {}", no_guarantee(day)))).collect()
}

/// What holds for a hospital's patients once it released an exact result.
pub fn no_guarantee(since: NaiveDate) -> String {
    format!("since {since} no guarantee of differential privacy holds for its patients: it has released exact results")
}

/// Prints what became of a document, and says how the command ended. `each_must_answer` when a hospital that
/// does not answer leaves the work unfinished.
///
/// # Errors
/// When it cannot be written.
pub fn put(report: &PutReport, output: Output, each_must_answer: bool) -> Result<Exit, Failure> {
    match output {
        Output::Json => out(&json(report)?)?,
        Output::Table => {
            out(&format!("the coordinator took the {} {}", plain(&report.kind), report.digest))?;
            if !report.holders.is_empty() {
                out(&holders(&report.holders))?;
            }
        }
    }
    let any = |wanted| report.holders.iter().any(|h| h.state == wanted);
    // A hospital where a person decides has not refused.
    let waits = |h: &&HolderReport| h.code == Some(Code::PermitWaiting);
    let mut refused = report.holders.iter().filter(|h| h.state == HolderState::Refused && !waits(h)).peekable();
    if refused.peek().is_some() {
        refused.for_each(refusal);
        return Ok(Exit::Refused);
    }
    let waiting: Vec<&str> = report.holders.iter().filter(waits).map(|h| h.name.as_str()).collect();
    if !waiting.is_empty() {
        note(&format!(
            "permit_waiting: at {} a person decides; the use register shows the answer (`sekisho register export`)",
            waiting.join(", ")
        ));
    }
    let absent = any(HolderState::Offline) || any(HolderState::NoAnswer);
    if absent {
        note("some hospitals did not answer; they get the document when they connect");
    }
    Ok(if each_must_answer && (absent || !waiting.is_empty()) { Exit::Incomplete } else { Exit::Done })
}

/// Says on standard error that a hospital refused, and what to do.
pub fn refusal(report: &HolderReport) {
    let Some(code) = report.code else {
        return note(&format!("error[refused]: {} refused", report.name));
    };
    let detail = report.detail.as_deref().unwrap_or("it refused");
    note(&format!("error[{code}]: {}: {detail}", report.name));
    note(&format!("  do: {}", code.advice()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}d 東京"), "a\u{fffd}[31mb c\u{fffd}d 東京");
    }

    #[test]
    fn the_hospitals_are_a_table() {
        let report = HolderReport {
            name: "tokyo".into(),
            state: HolderState::Refused,
            code: Some(Code::BudgetStudy),
            detail: Some("10 micro-rho are left".into()),
            as_of: None,
            study_left: None,
            stored: None,
            synthetic: false,
            exact_since: None,
            receipt: None,
        };
        let text = holders(&[report]);
        assert!(text.contains("budget_study") && text.contains("refused") && text.contains("10 micro-rho"), "{text}");
    }
}
