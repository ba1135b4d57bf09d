//! Numbers for people: as many digits as mean something, never for programs.

const MOST_DIGITS: usize = 9;

/// How many digits after the point show `more` digits of `size` beside its first.
#[expect(clippy::cast_possible_truncation, reason = "a logarithm of an f64 is below 400")]
pub fn digits_for(size: f64, more: i32) -> usize {
    if !size.is_finite() || size <= 0.0 {
        return 3;
    }
    let digits = more - size.log10().floor() as i32;
    usize::try_from(digits).unwrap_or(0).min(MOST_DIGITS)
}

/// A number to four significant digits or more, for people.
pub fn significant(value: f64) -> String {
    fixed(value, digits_for(value.abs(), 3))
}

/// How large noise of this standard deviation is in a cell of `size` rows: for a count its share of the cell, else how much it is
/// for each row, as in a mean.
pub fn relative(standard_deviation: f64, counts: bool, size: u32) -> String {
    let each = standard_deviation / f64::from(size);
    if counts { format!("{} %", significant(each * 100.0)) } else { format!("{} a row", significant(each)) }
}

/// A number with so many digits after the point.
pub fn fixed(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "n/a".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "-∞" }.into();
    }
    let text = format!("{value:.digits$}");
    // Nothing rounds to less than nothing.
    if text.bytes().all(|b| b"-0.".contains(&b)) { text.trim_start_matches('-').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_for_people_only() {
        for (value, text) in [(0.012_345_6, "0.01235"), (123_456.7, "123457"), (3.0, "3.000"), (f64::NAN, "n/a")] {
            assert_eq!(significant(value), text);
        }
    }
}
