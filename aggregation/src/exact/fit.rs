//! What of an exact table is fit to leave: cells are hidden, the rest is rounded, and only then is there something to release.
//!
//! Which cells are hidden is `suppress`'s to say, over all margins of the table whether or not they leave; here its answer is
//! put to the rows of the grouping sets that do.

use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use sekisho_protocol::disclosure::Rules;

use crate::{
    combine::{Combined, Own, combine_part},
    fold::{RawCells, RawPart},
    plan::{Keys, Part, PrivatePlan, Quantity},
    release::{PartHeader, part_header},
    suppress::{self, Why, rounded, rounded_sum},
};

/// How many rows of a table are hidden, and why: numbers of rows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenWhy {
    /// All rows.
    pub rows: usize,
    /// Of fewer patients than the rules say.
    pub few: usize,
    /// With a sum that few patients make up.
    pub dominated: usize,
    /// Hidden with them, since they would give them away.
    pub complementary: usize,
}

impl HiddenWhy {
    fn of(rows: &[Option<Why>]) -> Self {
        let mut all = Self { rows: rows.len(), ..Self::default() };
        for why in rows.iter().flatten() {
            match why {
                Why::Few => all.few += 1,
                Why::Dominated => all.dominated += 1,
                Why::Complement => all.complementary += 1,
            }
        }
        all
    }
}

/// A part of an exact release: nothing in it tells of a hidden row.
pub(crate) struct Fit {
    pub(crate) header: PartHeader,
    pub(crate) numbers: Vec<Vec<i128>>,
    pub(crate) why: HiddenWhy,
}

/// Hides and rounds the cells of an exact plan; `None` where they are another plan's, or `rules` weaker than the plan's.
pub(crate) fn fit(plan: &PrivatePlan, raw: &RawCells, rules: &Rules) -> Option<Fit> {
    let ([part], [raw]) = (plan.parts(), raw.parts.as_slice()) else { return None };
    if !rules.at_least(plan.exact()?) || rules.check().is_err() || raw.measures.len() != part.measures().len() {
        return None;
    }
    let contributions = raw.contributions.as_ref()?;
    let hidden = suppress::hidden(&contributions.facts(part), rules)?;
    let rows = part.sets().iter().map(|set| hidden.get(*set as usize).cloned()).collect::<Option<Vec<_>>>()?.concat();
    let numbers = part.measures().iter().enumerate().map(|(i, _)| numbers(part, raw, i, &hidden, rules));
    let numbers = numbers.collect::<Option<Vec<Vec<i128>>>>()?;
    let mut header = part_header(part, None)?;
    header.hidden = rows.iter().zip(0..).filter_map(|(why, row)| why.map(|_| row)).collect();
    let fits = header.measures.iter().zip(&numbers).all(|(header, numbers)| header.numbers == numbers.len());
    fits.then_some(Fit { header, numbers, why: HiddenWhy::of(&rows) })
}

/// A measure's numbers as they leave: those of every grouping set that it is over, one set after another.
fn numbers(
    part: &Part,
    raw: &RawPart,
    measure: usize,
    hidden: &[Vec<Option<Why>>],
    rules: &Rules,
) -> Option<Vec<i128>> {
    let measured = part.measures().get(measure)?;
    let own = raw.measures.get(measure)?;
    let mut all = Vec::with_capacity(part.released(measured, 1));
    for set in part.sets() {
        let (exact, values) = match measured.quantity {
            Quantity::Patients { .. } if measured.over != *set => continue,
            Quantity::Patients { .. } => (own.clone(), None),
            Quantity::Rows | Quantity::Present { .. } => (margin(part, own, *set)?, None),
            Quantity::Sum { argument, .. } => {
                let values = raw.measures.get(part.present(argument)?)?;
                (margin(part, own, *set)?, Some(margin(part, values, *set)?))
            }
            Quantity::Heavy | Quantity::Histogram { .. } => return None,
        };
        let hidden = hidden.get(*set as usize).filter(|hidden| hidden.len() == exact.len())?;
        for (cell, (number, hidden)) in exact.into_iter().zip(hidden).enumerate() {
            let count = |number: i128| u64::try_from(number).ok();
            all.push(match (hidden, &values) {
                (Some(_), _) => 0,
                (None, Some(values)) => rounded_sum(number, count(*values.get(cell)?)?, rules),
                (None, None) => rounded(count(number)?, rules).into(),
            });
        }
    }
    Some(all)
}

/// The sums of `detailed`, over all keys, for the keys of `set`.
fn margin(part: &Part, detailed: &[i128], set: Keys) -> Option<Vec<i128>> {
    let mut sums = vec![0_i128; part.cells_over(set)];
    for (number, place) in detailed.iter().zip(part.projection(part.every_key(), set)) {
        let sum = sums.get_mut(place as usize)?;
        *sum = sum.checked_add(*number)?;
    }
    Some(sums)
}

impl Part {
    /// The measure of how many values an argument has; an exact plan has one for each that is summed.
    pub(crate) fn present(&self, argument: usize) -> Option<usize> {
        self.measures().iter().position(|m| m.quantity == Quantity::Present { argument })
    }
}

/// A table as it would leave, for the person who reviews it: nothing of its hidden rows is in it.
pub struct Preview {
    combined: Combined,
    why: HiddenWhy,
}

impl Preview {
    /// Of `raw` under `rules`; none where [`Release::exact`](crate::release::Release::exact) would make no release of them.
    pub fn of(plan: &PrivatePlan, raw: &RawCells, rules: &Rules) -> Option<Self> {
        let Fit { header, numbers, why } = fit(plan, raw, rules)?;
        let own = Own { header: &header, numbers: &numbers, rounding: rules.rounding };
        let parts = vec![combine_part(plan.parts().first()?, &[own]).ok()?];
        Some(Self { combined: Combined { parts }, why })
    }

    /// The table as [`PrivatePlan::released_cells`] makes it of the release.
    ///
    /// # Errors
    /// None is expected; arrow's when lengths differ.
    pub fn cells(&self, plan: &PrivatePlan) -> Result<Vec<RecordBatch>, DataFusionError> {
        plan.released_cells(&self.combined, true, 1.0, &[])
    }

    /// How many rows are hidden, and why.
    pub fn hidden_why(&self) -> HiddenWhy {
        self.why
    }
}
