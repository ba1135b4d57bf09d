//! Exact releases as others read them: whether one is of a plan, and what is known of sums of several.

use super::slack::{Slack, half, sums_slack};
use crate::{
    combine::{CombinedExact, Own},
    plan::{Keys, Measure, Part, PrivatePlan, Quantity},
    release::{ExactHeader, PartHeader, Release},
};

/// Whether a release is exact as the plan is; and if so, whether its rules are at least as strict, and nothing is said of the rows
/// that it hides. Headers of parts are compared elsewhere.
pub(crate) fn is_of(plan: &PrivatePlan, release: &Release) -> bool {
    let header = release.header();
    let (rules, ExactHeader { rules: own, cut: _ }) = match (plan.exact(), &header.exact) {
        (Some(rules), Some(exact)) => (rules, exact),
        (None, None) => return header.parts.iter().all(|part| part.hidden.is_empty()),
        (Some(_), None) | (None, Some(_)) => return false,
    };
    let mut parts = plan.parts().iter().zip(&header.parts).zip(release.parts());
    own.check().is_ok()
        && own.at_least(rules)
        && parts.all(|((part, header), numbers)| hides(part, header, numbers, own.rounding))
}

/// Whether the hidden rows are rows, in order, with zeros for numbers; and whether shown counts are rounded.
fn hides(part: &Part, header: &PartHeader, numbers: &[Vec<i128>], rounding: u32) -> bool {
    let rows = hidden_rows(part, header);
    let in_order = header.hidden.windows(2).all(|pair| pair[0] < pair[1]);
    let in_range = header.hidden.last().is_none_or(|row| (*row as usize) < rows.len());
    let fits = |number: i128, hidden: bool, count: bool| match hidden {
        true => number == 0,
        false => !count || (number >= 0 && number % i128::from(rounding) == 0),
    };
    in_order
        && in_range
        && part.measures().iter().zip(numbers).all(|(measure, numbers)| {
            let count = !matches!(measure.quantity, Quantity::Sum { .. });
            let rows = rows_of(part, measure).and_then(|own| rows.get(own)).unwrap_or_default();
            rows.len() == numbers.len() && numbers.iter().zip(rows).all(|(n, hidden)| fits(*n, *hidden, count))
        })
}

/// Of each row of an exact table whether it is hidden.
fn hidden_rows(part: &Part, header: &PartHeader) -> Vec<bool> {
    let rows = part.sets().iter().map(|set| part.cells_over(*set)).sum();
    let mut hidden = vec![false; rows];
    for row in &header.hidden {
        if let Some(hidden) = hidden.get_mut(*row as usize) {
            *hidden = true;
        }
    }
    hidden
}

/// The rows of an exact table that a measure has numbers of.
fn rows_of(part: &Part, measure: &Measure) -> Option<std::ops::Range<usize>> {
    let rows = |sets: &[Keys]| sets.iter().map(|set| part.cells_over(*set)).sum::<usize>();
    if !matches!(measure.quantity, Quantity::Patients { .. }) {
        return Some(0..rows(part.sets()));
    }
    let place = part.sets().iter().position(|set| *set == measure.over)?;
    let first = rows(part.sets().get(..place)?);
    Some(first..first + part.cells_over(measure.over))
}

impl Part {
    /// Where the numbers of one grouping set are among an exact measure's; none where it has none of it.
    pub(crate) fn numbers_of(&self, measure: &Measure, set: Keys) -> Option<std::ops::Range<usize>> {
        if matches!(measure.quantity, Quantity::Patients { .. }) {
            return (measure.over == set).then(|| 0..self.cells_over(set));
        }
        let before = self.sets().iter().take_while(|other| **other != set).map(|other| self.cells_over(*other)).sum();
        Some(before..before + self.cells_over(set))
    }
}

/// What is hidden of the sums, and how far they may be from the exact ones; hidden sums become 0.
pub(crate) fn combined(part: &Part, all: &[Own], sums: &mut [Vec<i128>]) -> CombinedExact {
    let rows = part.sets().iter().map(|set| part.cells_over(*set)).sum();
    let mut hidden = vec![all.is_empty(); rows];
    for own in all {
        hidden.iter_mut().zip(hidden_rows(part, own.header)).for_each(|(all, own)| *all |= own);
    }
    for (measure, numbers) in part.measures().iter().zip(sums.iter_mut()) {
        let rows = rows_of(part, measure).and_then(|own| hidden.get(own)).unwrap_or_default();
        // What has no row is not shown.
        let hidden = rows.iter().copied().chain(std::iter::repeat(true));
        numbers.iter_mut().zip(hidden).filter(|(_, hidden)| *hidden).for_each(|(number, _)| *number = 0);
    }
    let slack = part.measures().iter().enumerate().map(|(place, measure)| match measure.quantity {
        Quantity::Sum { argument, .. } => sums_slack(part, place, argument, all),
        Quantity::Rows
        | Quantity::Present { .. }
        | Quantity::Patients { .. }
        | Quantity::Heavy
        | Quantity::Histogram { .. } => {
            let number = all.iter().map(half).sum();
            vec![Slack { number, mean: 0.0 }; part.released(measure, 1)]
        }
    });
    CombinedExact { hidden, slack: slack.collect() }
}
