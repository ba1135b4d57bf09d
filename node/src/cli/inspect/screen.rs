//! An inspector's screen: the one place where exact numbers are printed.

use sekisho_aggregation::{
    fold::Read,
    inspection::{Console, ShownMeasure, ShownNumber},
    plan::CellKey,
};

use crate::cli::table;

/// Text without what could move a terminal's cursor or turn its writing round.
pub(in crate::cli) fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// Prints tables, of which each is written when its measure is done.
pub(super) struct Screen {
    limit: usize,
    unit: i128,
    rows: Vec<Vec<String>>,
    left_out: bool,
}

impl Screen {
    /// A screen that shows at most `limit` numbers of each measure.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, unit: 1, rows: Vec::new(), left_out: false }
    }

    fn flush(&mut self) {
        if !self.rows.is_empty() {
            let header = ["cell", "exact value", "exact", "noise", "exact + noise", "released", ""];
            println!("{}", table(header, std::mem::take(&mut self.rows)));
        }
        if std::mem::take(&mut self.left_out) {
            println!("There are more; --numbers says how many are shown.");
        }
    }
}

impl Console for Screen {
    fn read(&mut self, part: usize, read: &Read, kept_back: usize) {
        self.flush();
        let Read { rows, patients, heavy, spread } = read;
        println!("Aggregate {}: {rows} rows of {patients} patients were read", part + 1);
        println!("  {heavy} patients have more rows than count in full, and are weighted down");
        println!("  {spread} patients are in more groups than count in full");
        if kept_back > 0 {
            println!("  {kept_back} names of the private key were kept back");
        }
    }

    fn clamped(&mut self, what: &str, exact: i128, unit: i128) {
        println!("  {}: {}, by weight", plain(what), decimal(exact, unit));
    }

    fn measure(&mut self, measure: &ShownMeasure<'_>) {
        self.flush();
        self.unit = measure.unit;
        println!("{}: in lattice units, {} of them are 1", plain(measure.name), measure.unit);
    }

    fn number(&mut self, number: &ShownNumber) -> bool {
        if self.rows.len() >= self.limit {
            self.left_out = true;
            return false;
        }
        let ShownNumber { cell, node, exact, noise, released } = number;
        let keys: Vec<_> = cell.iter().map(key).collect();
        let node = node.map(|node| format!("node {node}"));
        let cell = keys.into_iter().chain(node).collect::<Vec<_>>().join(", ");
        let sum = exact.saturating_add(*noise);
        let same = if *released == Some(sum) { "same" } else { "DIFFERS" };
        self.rows.push(vec![
            if cell.is_empty() { "(all)".into() } else { cell },
            decimal(*exact, self.unit),
            exact.to_string(),
            format!("{noise:+}"),
            sum.to_string(),
            released.map_or("none".into(), |released| released.to_string()),
            same.into(),
        ]);
        true
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.flush();
    }
}

fn key(key: &CellKey) -> String {
    match key {
        CellKey::Value(value) => plain(&value.to_string()),
        CellKey::Null => "NULL".into(),
        CellKey::Outside => "(outside the domain)".into(),
        CellKey::All => "(all)".into(),
    }
}

/// `number / unit` with four decimals, cut off.
fn decimal(number: i128, unit: i128) -> String {
    let (number, unit, sign) = (number.unsigned_abs(), unit.unsigned_abs().max(1), if number < 0 { "-" } else { "" });
    let rest = (number % unit).saturating_mul(10_000) / unit;
    format!("{sign}{}.{rest:04}", number / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lattice_units_are_shown_as_decimals() {
        for (number, unit, expect) in [
            (0, 1, "0.0000"),
            (7, 1, "7.0000"),
            (-3, 2, "-1.5000"),
            (-1, 4, "-0.2500"),
            (6_442_450_944, 4_294_967_296, "1.5000"),
            (2, 3, "0.6666"),
        ] {
            assert_eq!(decimal(number, unit), expect, "{number} / {unit}");
        }
    }

    #[test]
    fn what_moves_a_terminal_is_not_printed() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\rd"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(plain("女性 café"), "女性 café");
    }
}
