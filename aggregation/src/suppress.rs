//! Which cells of an exact table are hidden, and how what is shown is rounded.

use sekisho_protocol::disclosure::{Dominance, Rules};

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
}

impl Shares {
    /// Takes in one more patient's sum over the cell.
    pub(crate) fn add(&mut self, sum: i128) {
        let mut share = sum.saturating_abs();
        self.all = self.all.saturating_add(share);
        for place in &mut self.largest {
            if share > *place {
                std::mem::swap(place, &mut share);
            }
        }
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

/// By subset, then cell: why it is hidden; `None` is shown. No answer where the lists' lengths do not fit the sizes.
pub(crate) fn hidden(facts: &Facts, rules: &Rules) -> Option<Vec<Vec<Option<Why>>>> {
    let _ = (facts, rules);
    None
}

/// A count as it is shown: the nearest multiple, the larger of two.
pub(crate) fn rounded(count: u64, rules: &Rules) -> u64 {
    let base = u64::from(rules.rounding.max(1));
    (count.saturating_add(base / 2) / base).saturating_mul(base)
}

/// A sum as it is shown beside the rounded count of its values: scaled to that, then rounded to a multiple of so many units.
pub(crate) fn rounded_sum(sum: i128, values: u64, rules: &Rules) -> i128 {
    let _ = (values, rules);
    sum
}
