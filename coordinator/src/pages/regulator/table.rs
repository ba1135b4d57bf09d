//! A table of a regulator's page: the same rows on the page, in CSV and in tests.
//!
//! Texts of strangers stay as they were written: the template escapes them for HTML, [`Table::csv`] for spreadsheets.

use askama::Template;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use sekisho_protocol::pages::{Language, grouped};

use super::names::Signer;
use crate::{
    listing::{defused, quoted},
    use_register::{Coded, Text},
};

/// The most characters of SQL that are shown before somebody unfolds it.
const MAX_LINE: usize = 80;

/// The text of a pair that is in this language.
pub fn say(language: Language, text: &Text) -> &str {
    language.say(&text.en, &text.ja)
}

/// What a cell's text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Words.
    #[default]
    Words,
    /// A number, to the right.
    Number,
    /// A point in time, or a day.
    Time,
    /// SQL, with its line breaks.
    Code,
}

/// One line of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// Where it leads.
    pub link: Option<String>,
}

/// A cell: one line, none or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The lines.
    pub lines: Vec<Line>,
    /// What they are.
    pub shape: Shape,
}

impl Cell {
    /// Words.
    pub fn words(text: impl Into<String>) -> Self {
        Self { lines: vec![Line { text: text.into(), link: None }], shape: Shape::Words }
    }

    /// Words that lead to `link`, unless there are none.
    pub fn linked(text: impl Into<String>, link: String) -> Self {
        let text = text.into();
        let link = Some(link).filter(|_| !text.is_empty());
        Self { lines: vec![Line { text, link }], shape: Shape::Words }
    }

    /// A name for a code.
    pub fn coded(language: Language, coded: &Coded) -> Self {
        Self::words(say(language, &coded.label))
    }

    /// A number; [`Cell::shown`] has its thousands apart, [`Cell::plain`] not.
    pub fn number(number: u64) -> Self {
        Self { lines: vec![Line { text: number.to_string(), link: None }], shape: Shape::Number }
    }

    /// A point in time.
    pub fn time(at: DateTime<Utc>) -> Self {
        Self { shape: Shape::Time, ..Self::words(time(at)) }
    }

    /// A day.
    pub fn day(day: NaiveDate) -> Self {
        Self { shape: Shape::Time, ..Self::words(day.to_string()) }
    }

    /// SQL.
    pub fn sql(sql: Option<&str>) -> Self {
        Self { lines: vec![Line { text: sql.unwrap_or_default().into(), link: None }], shape: Shape::Code }
    }

    /// Several lines.
    pub fn lines(lines: impl IntoIterator<Item = Line>) -> Self {
        Self { lines: lines.into_iter().collect(), shape: Shape::Words }
    }

    /// Several lines of words.
    pub fn list(lines: impl IntoIterator<Item = String>) -> Self {
        Self::lines(lines.into_iter().map(|text| Line { text, link: None }))
    }

    /// Who signed, with what they are.
    pub fn signers(language: Language, signers: &[Signer]) -> Self {
        Self::list(signers.iter().map(|signer| format!("{}, {}", signer.label(), say(language, &signer.role))))
    }

    /// All of it in one line.
    pub fn plain(&self) -> String {
        self.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// A number as it is shown to people.
    pub fn shown(&self) -> String {
        let text = self.plain();
        text.parse().map(grouped).unwrap_or(text)
    }

    /// It is of [`Shape::Number`].
    pub fn is_number(&self) -> bool {
        self.shape == Shape::Number
    }

    /// The class of its column.
    pub fn class(&self) -> &'static str {
        let longest = self.lines.iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
        match self.shape {
            Shape::Words if longest > 60 => "wide",
            Shape::Words if longest > 20 || self.lines.len() > 1 => "lines",
            Shape::Words => "",
            Shape::Number => "number",
            Shape::Time => "date",
            Shape::Code => "wide",
        }
    }

    /// It is of [`Shape::Code`] and says something.
    pub fn is_code(&self) -> bool {
        self.shape == Shape::Code && self.lines.iter().any(|line| !line.text.is_empty())
    }

    /// The first words of what is longer than a line.
    pub fn beginning(&self) -> Option<String> {
        let text = self.plain();
        let first: String = text.chars().take(MAX_LINE).map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
        (text.chars().nth(MAX_LINE).is_some() || text.contains('\n')).then(|| format!("{}…", first.trim_end()))
    }
}

/// A table with its caption; it renders to HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Template)]
#[template(path = "regulator/table.html")]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The columns.
    pub head: Vec<String>,
    /// The rows, each with a cell for each column; the first cell names the row.
    pub rows: Vec<Vec<Cell>>,
    /// What each row is called in addresses, where it is.
    pub anchors: Vec<String>,
    /// What is said when there is no row.
    pub empty: String,
}

impl Table {
    /// A table without rows; `columns` are pairs of English and Japanese.
    pub fn new<const N: usize>(language: Language, caption: &str, columns: [(&str, &str); N]) -> Self {
        let head = columns.map(|(english, japanese)| language.say(english, japanese).to_string()).into();
        let empty = language.say("Nothing was found.", "該当する記録はありません。").into();
        Self { caption: caption.into(), head, rows: Vec::new(), anchors: Vec::new(), empty }
    }

    /// The same with these rows.
    #[must_use]
    pub fn with<const N: usize>(mut self, rows: impl IntoIterator<Item = [Cell; N]>) -> Self {
        self.rows.extend(rows.into_iter().map(Vec::from));
        self
    }

    /// Whether the column at `place` is one of numbers.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "templates pass references")]
    fn numeric(&self, place: &usize) -> bool {
        self.rows.first().and_then(|row| row.get(*place)).is_some_and(Cell::is_number)
    }

    /// What the row at `place` is called in addresses.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "templates pass references")]
    fn anchor(&self, place: &usize) -> Option<&String> {
        self.anchors.get(*place)
    }

    /// The table for a spreadsheet: RFC 4180, UTF-8, what would be taken for a formula begins with an apostrophe.
    pub fn csv(&self) -> String {
        let line = |fields: &mut dyn Iterator<Item = String>| {
            fields.map(|field| quoted(&defused(&field))).collect::<Vec<_>>().join(",") + "\r\n"
        };
        let head = line(&mut self.head.iter().cloned());
        let rows = self.rows.iter().map(|row| line(&mut row.iter().map(Cell::plain)));
        std::iter::once(head).chain(rows).collect()
    }
}

/// A point in time for people: `2026-11-21 19:07:05 UTC`.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true).replace('T', " ").replace('Z', " UTC")
}

/// A part of an address: whatever is not plain is escaped.
pub fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart_and_addresses_nothing_that_is_not_plain() {
        for (number, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), expect);
        }
        for (text, expect) in
            [("study-1", "study-1"), ("a/b?c", "a%2Fb%3Fc"), ("\"><", "%22%3E%3C"), ("関", "%E9%96%A2")]
        {
            assert_eq!(part(text), expect);
        }
    }

    #[test]
    fn a_table_for_spreadsheets_has_no_formula_and_keeps_every_text() {
        let table = Table::new(Language::En, "t", [("A", "あ"), ("B", "い")]);
        let table = table.with([[Cell::words("=1+1"), Cell::list(["a,b".into(), "\"c\"".into()])]]);
        assert_eq!(table.csv(), "A,B\r\n'=1+1,\"a,b; \"\"c\"\"\"\r\n");
    }
}
