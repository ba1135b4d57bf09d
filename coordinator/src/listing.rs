//! Lists as text for other programs: RFC 4180 with LF line ends, and the choice between that, JSON and a table.
//!
//! Deliberately absent: any change of a text, unless it is asked for by [`defused`].

use clap::ValueEnum;

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// A field: quoted when it must be, and when it is empty, so that it is not taken for NULL.
pub fn quoted(text: &str) -> String {
    let must = text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.trim() != text;
    if must { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

/// Text that strangers wrote, for a spreadsheet: what it would take for a formula begins with an apostrophe.
pub fn defused(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_string() }
}

/// A header and rows.
pub fn csv<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |fields: [String; N]| fields.map(|field| quoted(&field)).join(",");
    let header = header.map(String::from);
    std::iter::once(header).chain(rows).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_field_stays_in_it() {
        let rows = [["a,b".into(), "say \"x\"\nand y".into()], [String::new(), " z".into()]];
        assert_eq!(csv(["one", "two"], rows), "one,two\n\"a,b\",\"say \"\"x\"\"\nand y\"\n\"\",\" z\"");
        for (text, expect) in [("=1+1", "'=1+1"), ("@x", "'@x"), ("-1", "'-1"), ("plain", "plain"), ("関所", "関所")]
        {
            assert_eq!(defused(text), expect);
        }
    }
}
