//! Which cells of an exact table are hidden, and how what is shown is rounded.

mod grid;
#[cfg(test)]
mod made;
mod room;
#[cfg(test)]
mod solver;
mod witness;

use sekisho_protocol::disclosure::{Dominance, Rules};

use self::{grid::Grid, room::Table, witness::Search};

/// What the hiding of one table looks at: its exact numbers, over all margins.
///
/// *Cells.* A table has one key per entry of `sizes`; a *subset* of the keys is a number whose bit i says that key i is kept, so
/// 0 is the grand total and `2^keys - 1` the detailed cells. A list *by subset* has `2^keys` entries; entry `s` has a value for
/// each combination of the kept keys' values, row-major: the last kept key runs fastest. A table without keys has one subset, 0,
/// of one cell. NULL and "outside" are values like others: each row counted anywhere is in exactly one detailed cell.
/// Whatever is shown of the table, all subsets are filled in.
///
/// As raw as cells can be: no `Debug`, no `Clone`.
pub(crate) struct Facts {
    /// How many values each key has, at least 1.
    pub(crate) sizes: Vec<usize>,
    /// All rows of the table and their patients.
    pub(crate) all: Population,
    /// For each argument that is counted, summed or averaged: the rows in which it is not NULL.
    pub(crate) columns: Vec<Column>,
}

/// Some of the rows, and the patients that have them.
pub(crate) struct Population {
    /// Different patients with at least one of the rows in the cell: by subset.
    pub(crate) patients: Vec<Vec<u64>>,
    /// Rows, in the detailed cells only (they add up).
    pub(crate) rows: Vec<u64>,
}

/// An argument.
pub(crate) struct Column {
    /// Rows where the argument is not NULL.
    pub(crate) present: Population,
    /// Its sum, where a sum or a mean of it is shown.
    pub(crate) sum: Option<Sum>,
}

/// The sum of an argument, in units of 10^-scale.
pub(crate) struct Sum {
    /// The least value after clamping.
    pub(crate) low: i128,
    /// The greatest value after clamping.
    pub(crate) high: i128,
    /// Sums of the values, in the detailed cells only.
    pub(crate) totals: Vec<i128>,
    /// By subset: what single patients contribute to the cell.
    pub(crate) shares: Vec<Vec<Shares>>,
}

/// What single patients contribute to a cell. A patient's contribution is the absolute value of the sum of all its values there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shares {
    /// The largest contributions, the largest first; 0 where there are fewer patients.
    pub(crate) largest: [i128; Dominance::MOST as usize],
    /// All contributions added up.
    pub(crate) all: i128,
    /// Patients whose contribution is not 0.
    pub(crate) patients: u64,
}

impl Sum {
    /// It counts the rows in which a flag is set.
    fn flags(&self) -> bool {
        self.high.saturating_sub(self.low) == 1
    }
}

impl Shares {
    /// Takes in one more patient's sum over the cell.
    pub(crate) fn add(&mut self, sum: i128) {
        let mut share = sum.saturating_abs();
        self.patients += u64::from(share > 0);
        self.all = self.all.saturating_add(share);
        for place in &mut self.largest {
            if share > *place {
                std::mem::swap(place, &mut share);
            }
        }
    }

    /// Whether the rules hide a sum of such contributions.
    fn dominate(&self, rules: &Rules) -> bool {
        let [first, second, ..] = self.largest;
        let few = rules.dominance.is_some_and(|Dominance { n, k_percent }| {
            let largest = self.largest.iter().take(n as usize).fold(0_i128, |all, share| all.saturating_add(*share));
            largest.saturating_mul(100) > self.all.saturating_mul(k_percent.into())
        });
        let told = rules
            .p_percent
            .is_some_and(|p| (self.all - first - second).saturating_mul(100) < first.saturating_mul(p.into()));
        few || told
    }
}

/// Why a cell is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// Too few patients in it, or too few with a value of an argument.
    Few,
    /// A few patients make up too much of a sum in it.
    Dominated,
    /// It would tell another hidden cell.
    Complement,
}

/// By subset, then cell: why it is hidden; `None` is shown. No answer where the lists' lengths do not fit the sizes, or with
/// more than four keys.
pub(crate) fn hidden(facts: &Facts, rules: &Rules) -> Option<Vec<Vec<Option<Why>>>> {
    let table = Table::new(facts, rules)?;
    Some(Search::new(&table, rules, primary(facts, rules, &table.grid)).run().0)
}

/// What the rules hide by themselves.
fn primary(facts: &Facts, rules: &Rules, grid: &Grid) -> Vec<Vec<Option<Why>>> {
    let rows: Vec<_> = facts.columns.iter().map(|c| margins(grid, &facts.all.rows, &c.present.rows)).collect();
    let why = |subset: usize, cell: usize| {
        let patients = |p: &Population| p.patients[subset][cell];
        let few = |p: u64| rules.hides(p.into());
        // What is left when one number of a row is taken from another: shown by itself where it is nothing.
        let rest = |p: u64| p > 0 && few(p);
        let few_values = |(c, without): (&Column, &Vec<Vec<u64>>)| {
            let present = patients(&c.present);
            let few_in_sum = c.sum.as_ref().is_some_and(|sum| {
                let nonzero = sum.shares[subset][cell].patients;
                present > 0 && few(nonzero) || sum.flags() && rest(present.saturating_sub(nonzero))
            });
            few(present)
                || rest(patients(&facts.all).saturating_sub(present))
                || rest(without[subset][cell])
                || few_in_sum
        };
        let dominated = |c: &Column| c.sum.as_ref().is_some_and(|sum| sum.shares[subset][cell].dominate(rules));
        if few(patients(&facts.all)) || facts.columns.iter().zip(&rows).any(few_values) {
            Some(Why::Few)
        } else if facts.columns.iter().any(dominated) {
            Some(Why::Dominated)
        } else {
            None
        }
    };
    grid.subsets().map(|subset| (0..grid.cells(subset)).map(|cell| why(subset, cell)).collect()).collect()
}

/// By subset: how many more of `all` there are than of `some`.
fn margins(grid: &Grid, all: &[u64], some: &[u64]) -> Vec<Vec<u64>> {
    let mut more: Vec<Vec<u64>> = grid.subsets().map(|subset| vec![0; grid.cells(subset)]).collect();
    for (cell, (all, some)) in all.iter().zip(some).enumerate() {
        let place = grid.place(grid.full(), cell);
        for subset in grid.subsets() {
            more[subset][grid.cell(subset, &place)] += all.saturating_sub(*some);
        }
    }
    more
}

/// A count as it is shown: the nearest multiple, the larger of two.
pub(crate) fn rounded(count: u64, rules: &Rules) -> u64 {
    let base = u64::from(rules.rounding.max(1));
    (count.saturating_add(base / 2) / base).saturating_mul(base)
}

/// A sum as it is shown beside the rounded count of its values: scaled to that count, so that means stay what they are, then
/// rounded to the same multiple of its smallest unit, so that the exact count is not what makes the sum a whole number.
pub(crate) fn rounded_sum(sum: i128, values: u64, rules: &Rules) -> i128 {
    let base = i128::from(rules.rounding.max(1));
    if base == 1 || values == 0 {
        return sum;
    }
    let (shown, values) = (i128::from(rounded(values, rules)), i128::from(values));
    // Whole and rest apart: their products stay far inside i128.
    let scaled = (sum / values).saturating_mul(shown).saturating_add((sum % values).saturating_mul(shown) / values);
    scaled.saturating_add(base / 2 * scaled.signum()) / base * base
}
