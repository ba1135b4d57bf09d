//! How far sums over hospitals may be from the exact ones, when each hospital rounded its own: what the intervals of an exact
//! table say. They hold for certain, and are 0 wide where nothing was rounded.

use crate::{
    combine::Own,
    plan::{Argument, Part},
};

/// How far rounding may have moved one number, in lattice units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Slack {
    /// The number itself.
    pub(crate) number: f64,
    /// Of a sum, the mean that it makes with the count of its values; infinite where there may be none.
    pub(crate) mean: f64,
}

/// How far a hospital's count may be from its rounded one.
pub(crate) fn half(own: &Own) -> f64 {
    f64::from(own.rounding / 2)
}

/// One hospital's rounded sum and the rounded count of its values.
struct Rounded {
    sum: f64,
    count: f64,
    /// How far the count may be from the exact one.
    half: f64,
    /// How far the sum may be from that of `count` values with the exact mean.
    unit: f64,
}

/// Of each number of the sum at `place`, which is of `argument`.
pub(crate) fn sums_slack(part: &Part, place: usize, argument: usize, all: &[Own]) -> Vec<Slack> {
    let cells = part.measures().get(place).map_or(0, |measure| part.released(measure, 1));
    let counts = part.present(argument);
    let range = part.arguments.get(argument).map_or((0.0, 0.0), range);
    let of_cell = |cell: usize| {
        let rounded = |own: &Own| {
            let half = half(own);
            // A sum is scaled, cut to a whole number and then rounded as counts are.
            let unit = if own.rounding > 1 { half + 1.0 } else { 0.0 };
            Rounded { sum: number(own, Some(place), cell), count: number(own, counts, cell), half, unit }
        };
        let owns: Vec<Rounded> = all.iter().map(rounded).collect();
        Slack { number: owns.iter().map(|own| own.slack(range)).sum(), mean: mean(&owns, range) }
    };
    (0..cells).map(of_cell).collect()
}

#[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
fn range(argument: &Argument) -> (f64, f64) {
    argument.range.map_or((0.0, 0.0), |(lo, hi)| (lo as f64, hi as f64))
}

#[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
fn number(own: &Own, measure: Option<usize>, cell: usize) -> f64 {
    measure.and_then(|measure| own.numbers.get(measure)?.get(cell)).map_or(0.0, |number| *number as f64)
}

impl Rounded {
    /// How far the sum may be from the exact one: that of `half` values more or fewer.
    fn slack(&self, (lo, hi): (f64, f64)) -> f64 {
        if self.count > 0.0 {
            self.unit + (self.sum.abs() + self.unit) * self.half / self.count
        } else {
            self.half * lo.abs().max(hi.abs())
        }
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// How far the mean may be from the exact one: each hospital's own moves by `unit` over its count, and its weight by `half`.
fn mean(owns: &[Rounded], (lo, hi): (f64, f64)) -> f64 {
    let sum = |of: fn(&Rounded) -> f64| owns.iter().map(of).sum::<f64>();
    let (total, values, halves) = (sum(|own| own.sum), sum(|own| own.count), sum(|own| own.half));
    if values <= halves {
        return f64::INFINITY;
    }
    let all = total / values;
    let unit = owns.iter().filter(|own| own.count > 0.0).map(|own| own.unit / own.count).fold(0.0, f64::max);
    let weights = owns.iter().map(|own| own.half * own.mean().map_or(hi - lo + unit, |mean| (mean - all).abs()));
    unit + weights.sum::<f64>() / (values - halves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a hospital rounds.
    fn rounded(values: &[i32], base: i32) -> Rounded {
        let multiple = |x: f64| (x / f64::from(base)).round() * f64::from(base);
        let (count, sum) = (values.len() as f64, values.iter().map(|v| f64::from(*v)).sum::<f64>());
        let shown = multiple(count);
        let scaled = if count > 0.0 { (sum * shown / count).trunc() } else { 0.0 };
        let (half, unit) = if base > 1 { (f64::from(base / 2), f64::from(base / 2) + 1.0) } else { (0.0, 0.0) };
        Rounded { sum: if base > 1 { multiple(scaled) } else { sum }, count: shown, half, unit }
    }

    proptest! {
        #[test]
        fn sums_and_means_are_within_their_slack(
            hospitals in prop::collection::vec((prop::collection::vec(-20_i32..100, 0..60), 0_usize..3), 1..4),
        ) {
            let range = (-20.0, 100.0);
            let owns: Vec<Rounded> = hospitals.iter().map(|(v, base)| rounded(v, [1, 5, 10][*base])).collect();
            let exact: Vec<f64> = hospitals.iter().map(|(v, _)| v.iter().map(|v| f64::from(*v)).sum()).collect();
            let values: usize = hospitals.iter().map(|(v, _)| v.len()).sum();
            let slack: f64 = owns.iter().map(|own| own.slack(range)).sum();
            let (total, shown) = (exact.iter().sum::<f64>(), owns.iter().map(|own| own.sum).sum::<f64>());
            prop_assert!((total - shown).abs() <= slack + 1e-9, "{total} {shown} {slack}");
            let counts: f64 = owns.iter().map(|own| own.count).sum();
            if counts > 0.0 && values > 0 {
                let (exact, shown) = (total / values as f64, shown / counts);
                let slack = mean(&owns, range);
                prop_assert!((exact - shown).abs() <= slack + 1e-9, "{exact} {shown} {slack}");
            }
        }
    }
}
