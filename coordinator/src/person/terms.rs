//! The flags by which a person narrows or divides a question: [`Terms`].
//!
//! Promises: what is written is what is signed, exactly; a delta that is no whole number of 10^-18 is refused and not
//! rounded. Deliberately absent: whether the terms fit the SQL and the schema, which the engine says.

use clap::Args;
use sekisho_protocol::{
    permit::Permit,
    query::{NarrowBounds, Terms},
    refusal::{Code, Refusal},
    schema::Bounds,
    units::AttoDelta,
};

use super::failure::Failure;

/// 10^-ATTO is the unit of [`AttoDelta`].
const ATTO: i32 = 18;

/// Terms of a question; none can widen what schema and permit allow.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Clamp a column to narrower bounds than the schema's; may be given for several columns.
    #[arg(long, value_name = "TABLE.COLUMN=MIN..MAX", value_parser = bounds)]
    bounds: Vec<NarrowBounds>,
    /// How many rows of a patient count in full [default: the permit's; never more].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rows_per_patient: Option<u32>,
    /// In how many groups a patient counts in full [default: the permit's; never more].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub groups_per_patient: Option<u32>,
    /// A weight for each aggregate, in the order of the SELECT, by which rho is divided [default: evenly over what is measured].
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    shares: Vec<u32>,
    /// Spend this percentage of rho on a noised report of how much the bounds bit.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=50))]
    bite: Option<u8>,
    /// The delta to spend on group keys that are not public, a decimal such as 1e-9.
    #[arg(long, value_name = "DELTA", value_parser = delta, default_value = "0", hide_default_value = true)]
    delta: AttoDelta,
}

impl Flags {
    /// The terms as they are signed.
    pub fn terms(&self) -> Terms {
        Terms {
            bounds: self.bounds.clone(),
            rows_per_patient: self.rows_per_patient,
            groups_per_patient: self.groups_per_patient,
            shares: self.shares.clone(),
            bite_percent: self.bite,
            atto_delta: self.delta,
        }
    }
}

/// Refuses terms that are wider than `permit`.
///
/// # Errors
/// `terms` or `budget_query`.
pub fn check(terms: &Terms, permit: &Permit) -> Result<(), Failure> {
    let wider = |name: &str, asked: Option<u32>, permitted: u32| match asked {
        Some(asked) if asked > permitted => {
            Err(Refusal::new(Code::Terms, format!("--{name} {asked} is above the permit's {permitted}")))
        }
        Some(_) | None => Ok(()),
    };
    wider("rows-per-patient", terms.rows_per_patient, permit.dp.rows_per_patient)?;
    wider("groups-per-patient", terms.groups_per_patient, permit.dp.groups_per_patient)?;
    if terms.atto_delta > permit.dp.atto_delta_per_query {
        let (asked, permitted) = (terms.atto_delta.as_delta(), permit.dp.atto_delta_per_query.as_delta());
        let detail = format!("--delta {asked:e} is above the permit's {permitted:e} a query");
        return Err(Refusal::new(Code::BudgetQuery, detail).into());
    }
    Ok(())
}

/// `stay.days=0..30`.
fn bounds(text: &str) -> Result<NarrowBounds, String> {
    let form =
        || "write it as table.column=MIN..MAX: stay.days=0..30, lab.value=-0.5..7.25, stay.day=2024-01-01..2024-12-31";
    let (name, range) = text.split_once('=').ok_or_else(form)?;
    let (table, column) = name.split_once('.').ok_or_else(form)?;
    let (min, max) = range.split_once("..").ok_or_else(form)?;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !is_name(table) || !is_name(column) {
        return Err(form().into());
    }
    let (Some(low), Some(high)) = (Value::of(min), Value::of(max)) else { return Err(form().into()) };
    if low.partial_cmp(&high).is_none() {
        return Err("a number and a day do not bound the same column".into());
    }
    if low > high {
        return Err(format!("{min} is above {max}"));
    }
    let bounds = Bounds { min: min.into(), max: max.into() };
    Ok(NarrowBounds { table: table.into(), column: column.into(), bounds })
}

/// A bound as far as it is understood without its column.
#[derive(PartialEq)]
enum Value {
    Number(f64),
    Day(chrono::NaiveDate),
}

impl Value {
    fn of(text: &str) -> Option<Self> {
        if let Ok(day) = text.parse() {
            return Some(Self::Day(day));
        }
        // Neither exponents nor infinities: the schema's bounds have none.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('.');
        let plain = plain && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse().ok().filter(|_| plain).map(Self::Number)
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            (Self::Day(a), Self::Day(b)) => a.partial_cmp(b),
            (Self::Number(_), Self::Day(_)) | (Self::Day(_), Self::Number(_)) => None,
        }
    }
}

/// A decimal such as `1e-9`, `0.000001` or `2.5E-7`, exactly.
fn delta(text: &str) -> Result<AttoDelta, String> {
    let form = || "write it as a decimal: 1e-9 or 0.000000001".to_string();
    let large = || "it is above 0.001, the most that a ledger holds".to_string();
    let fine = || "it is no whole number of 10^-18: write fewer digits".to_string();
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| form())?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(form());
    }
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(AttoDelta::ZERO);
    }
    // The value is `significant` times 10^power atto.
    let count = |text: &str| i32::try_from(text.len()).map_err(|_| form());
    let zeros = count(digits)? - count(significant)?;
    let power = exponent.saturating_add(ATTO).saturating_add(zeros).saturating_sub(count(fraction)?);
    let power = u32::try_from(power).map_err(|_| fine())?;
    let number: u64 = significant.parse().map_err(|_| large())?;
    let atto = 10_u64.checked_pow(power).and_then(|ten| number.checked_mul(ten)).ok_or_else(large)?;
    AttoDelta::try_from(atto).map_err(|_| large())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::person::permit_file;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn terms(more: &[&str]) -> Result<Terms, String> {
        Line::try_parse_from(["query"].iter().chain(more)).map(|l| l.flags.terms()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_written_is_what_is_signed() {
        assert!(terms(&[]).unwrap().is_default());
        let all = terms(&[
            "--bounds=stay.days=0..30",
            "--bounds",
            "lab.value=-0.5..7.25",
            "--bounds=stay.day=2024-01-01..2024-12-31",
            "--rows-per-patient=2",
            "--groups-per-patient=1",
            "--shares",
            "2,1,1",
            "--bite=10",
            "--delta=1e-9",
        ])
        .unwrap();
        let text = serde_json::to_value(&all).unwrap();
        let expect = serde_json::json!({
            "bounds": [{"table": "stay", "column": "days", "bounds": {"min": "0", "max": "30"}},
                {"table": "lab", "column": "value", "bounds": {"min": "-0.5", "max": "7.25"}},
                {"table": "stay", "column": "day", "bounds": {"min": "2024-01-01", "max": "2024-12-31"}}],
            "rows_per_patient": 2, "groups_per_patient": 1, "shares": [2, 1, 1], "bite_percent": 10,
            "atto_delta": 1_000_000_000});
        assert_eq!(text, expect);
    }

    #[test]
    fn what_is_malformed_says_how_to_write_it() {
        for (flag, says) in [
            ("--bounds=days=0..30", "table.column=MIN..MAX"),
            ("--bounds=stay.days", "table.column=MIN..MAX"),
            ("--bounds=stay.days=0-30", "table.column=MIN..MAX"),
            ("--bounds=stay.days=0..", "table.column=MIN..MAX"),
            ("--bounds=stay.days=0..inf", "table.column=MIN..MAX"),
            ("--bounds=stay.days=0..1e3", "table.column=MIN..MAX"),
            ("--bounds=stay.days=0...5", "table.column=MIN..MAX"),
            ("--bounds=Stay.days=0..3", "table.column=MIN..MAX"),
            ("--bounds=a.stay.days=0..3", "table.column=MIN..MAX"),
            ("--bounds=stay.days=30..0", "30 is above 0"),
            ("--bounds=stay.days=0..2024-01-01", "a number and a day"),
            ("--rows-per-patient=0", "0 is not in 1..=1000000"),
            ("--groups-per-patient=-1", "1..=1000000"),
            ("--shares=2,,1", "--shares"),
            ("--shares=2,0", "1..=1000000"),
            ("--shares=1000001", "1..=1000000"),
            ("--bite=51", "1..=50"),
            ("--bite=0", "1..=50"),
            ("--delta=much", "write it as a decimal"),
            ("--delta=-1e-9", "write it as a decimal"),
            ("--delta=.", "write it as a decimal"),
            ("--delta=1e", "write it as a decimal"),
            ("--delta=0.0011", "above 0.001"),
            ("--delta=1e300", "above 0.001"),
            ("--delta=1e-19", "no whole number of 10^-18"),
            ("--delta=1.5e-18", "no whole number of 10^-18"),
        ] {
            let said = terms(&[flag]).unwrap_err();
            assert!(said.contains(says), "{flag}: {said}");
        }
    }

    #[test]
    fn a_delta_is_exact() {
        for (text, atto) in [
            ("1e-9", 1_000_000_000),
            ("1E-9", 1_000_000_000),
            ("0.000000001", 1_000_000_000),
            ("2.50e-7", 250_000_000_000),
            ("0.0010", 1_000_000_000_000_000),
            ("1000000000000000e-18", 1_000_000_000_000_000),
            ("123456789012345.000e-18", 123_456_789_012_345),
            ("1e-18", 1),
            ("10.0e-19", 1),
            ("0.1e-2", 1_000_000_000_000_000),
            (".5e-6", 500_000_000_000),
            ("0", 0),
            ("0.0e5", 0),
        ] {
            assert_eq!(delta(text).map(AttoDelta::get), Ok(atto), "{text}");
        }
    }

    #[test]
    fn terms_wider_than_the_permit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("permit.toml");
        std::fs::write(&path, permit_file::TEMPLATE).unwrap();
        let permit = permit_file::read(&path).unwrap();
        for (flag, code) in [
            ("--rows-per-patient=4", None),
            ("--rows-per-patient=5", Some("terms")),
            ("--groups-per-patient=1", None),
            ("--groups-per-patient=2", Some("terms")),
            ("--delta=0", None),
            ("--delta=1e-18", Some("budget_query")),
        ] {
            let code_of = check(&terms(&[flag]).unwrap(), &permit).err().map(|failure| failure.code());
            assert_eq!(code_of, code, "{flag}");
        }
    }
}
