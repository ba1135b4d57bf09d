//! Lengths of time as people write them on a command line: `30s`, `15m`, `24h`, `365d`.
//!
//! One whole number and one unit; no fractions, no sums, nothing above ten years.

use chrono::TimeDelta;

const LONGEST_DAYS: i64 = 3653;

/// Reads a length of time.
///
/// # Errors
/// A sentence that says how to write one.
pub fn parse(text: &str) -> Result<TimeDelta, String> {
    let wrong = || format!("write a whole number and s, m, h or d, up to {LONGEST_DAYS}d: 30s, 15m, 24h, 365d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    let length = match unit {
        's' => TimeDelta::try_seconds(number),
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        _ => None,
    };
    length.filter(|l| *l > TimeDelta::zero() && *l <= TimeDelta::days(LONGEST_DAYS)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("15m", Some(900)),
            ("24h", Some(86_400)),
            ("365d", Some(31_536_000)),
            ("0s", None),
            ("-1h", None),
            ("+1h", None),
            ("1.5h", None),
            ("h", None),
            ("", None),
            ("10", None),
            ("10w", None),
            ("10日", None),
            ("3654d", None),
            ("99999999999999999999d", None),
            ("9223372036854775807d", None),
        ] {
            assert_eq!(parse(text).ok().map(|l| l.num_seconds()), seconds, "{text}");
        }
    }
}
