//! Where in the SQL a refusal points: the line of text, and a caret under the place.

use std::fmt::Write;

use super::print::plain;

/// How many characters of a long line are shown before and after the place.
const AROUND: usize = 60;

/// A place in a text: line and column count characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The last place that the words of a refusal name: `(line 2, column 8)`, or the parser's `Line: 2, Column: 8`.
    pub fn named_in(detail: &str) -> Option<Self> {
        let lower = detail.to_ascii_lowercase();
        let mut found = None;
        for (start, word) in lower.match_indices("line") {
            // No part of a longer word: "deadline 3".
            let inside = lower[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if let Some(place) = lower.get(start + word.len()..).filter(|_| !inside).and_then(after_line) {
                found = Some(place);
            }
        }
        found
    }

    /// The line of `sql` with its number, and under it a caret at the place; none where `sql` has no such place.
    pub fn shown_in(self, sql: &str) -> Option<String> {
        let line: Vec<char> = sql.lines().nth(self.line.checked_sub(1)?)?.chars().collect();
        let before = self.column.checked_sub(1).filter(|before| *before <= line.len())?;
        let from = before.saturating_sub(AROUND);
        let to = line.len().min(before.saturating_add(AROUND));
        let text: String = line.get(from..to)?.iter().collect();
        // As many columns of the screen as the text before the place.
        let gap: String = line.get(from..before)?.iter().map(|c| if is_wide(*c) { "  " } else { " " }).collect();
        let (cut, space) = if from > 0 { ("…", " ") } else { ("", "") };
        let more = if to < line.len() { "…" } else { "" };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let mut shown = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(shown, " {margin} ╭─ line {}, column {}", self.line, self.column);
        let _ = writeln!(shown, " {number} │ {cut}{}{more}", plain(&text));
        let _ = write!(shown, " {margin} · {space}{gap}^");
        Some(shown)
    }
}

/// ` 2, column 8` or `: 2, Column: 8`, in lower case.
fn after_line(text: &str) -> Option<Place> {
    let (line, rest) = number(text)?;
    let rest = rest.trim_start().strip_prefix(',')?.trim_start().strip_prefix("column")?;
    let (column, _) = number(rest)?;
    Some(Place { line, column })
}

fn number(text: &str) -> Option<(usize, &str)> {
    let text = text.strip_prefix(':').unwrap_or(text).trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

/// Whether a terminal gives a character two columns: scripts of East Asia and their full-width forms (UAX #11).
fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x20000..=0x3fffd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_the_words() {
        let place = |line, column| Some(Place { line, column });
        for (detail, expect) in [
            ("median is not admitted (line 2, column 8)", place(2, 8)),
            ("sql parser error: Expected: an expression, found: FROM at Line: 1, Column: 12", place(1, 12)),
            ("first (line 1, column 2), then (line 3, column 4)", place(3, 4)),
            ("the deadline 3, column 4 has passed", None),
            ("line 2", None),
            ("line x, column 3", None),
            ("line 99999999999999999999, column 3", None),
            ("no place", None),
        ] {
            assert_eq!(Place::named_in(detail), expect, "{detail}");
        }
    }

    #[test]
    fn the_caret_is_under_the_place() {
        let sql = "SELECT sex,\n\tmedian(days)\nFROM stay WHERE 病棟 = nowhere";
        for (line, column, expect) in [
            (1, 8, Some("   ╭─ line 1, column 8\n 1 │ SELECT sex,\n   ·        ^")),
            (2, 2, Some("   ╭─ line 2, column 2\n 2 │  median(days)\n   ·  ^")),
            (
                3,
                22,
                Some("   ╭─ line 3, column 22\n 3 │ FROM stay WHERE 病棟 = nowhere\n   ·                        ^"),
            ),
            (1, 12, Some("   ╭─ line 1, column 12\n 1 │ SELECT sex,\n   ·            ^")),
            (1, 13, None),
            (4, 1, None),
            (0, 1, None),
            (1, 0, None),
        ] {
            assert_eq!(Place { line, column }.shown_in(sql).as_deref(), expect, "{line} {column}");
        }
    }

    #[test]
    fn of_a_long_line_only_the_place_is_shown() {
        let sql = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let shown = Place { line: 1, column: 1001 }.shown_in(&sql).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        let at = |line: &str, c: char| line.chars().position(|found| found == c);
        assert_eq!(at(lines[1], '!'), at(lines[2], '^'), "{shown}");
        assert!(lines.iter().all(|line| line.chars().count() < 140), "{shown}");
    }
}
