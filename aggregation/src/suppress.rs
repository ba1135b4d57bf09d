//! Which cells of an exact table are hidden, and how what is shown is rounded. Integers only: no plan, no query, no
//! noise.
//!
//! **Who attacks.** Somebody who knows the table's keys, the rules, everything shown, and every margin over every
//! subset of the keys unless it is hidden, asked for or not: another release, or the world, may tell it. They know of
//! every table that rows and sums add up; that a cell has at least as many patients as each part of it and at most as
//! many as its parts together; at least as many rows as patients, as many of either as of those with a value; values
//! within the schema's range; and, where zeros are shown, that a hidden cell has somebody. They may know that each
//! patient has one row. They have a solver.
//!
//! **What is promised.** W is `min_patients - 1`, less 1 where zeros are shown, and at least 1. Of a cell of any subset
//! that the rules hide by themselves (*primary*), the least and the greatest possible number of patients, of rows, of
//! patients with a value of each argument, and of values are at least W apart, and the greatest is at least
//! `min_patients - 1`: a sliding protection level in the words of Fischetti and Salazar. A sum in it can be larger by
//! the percent of the p% rule (10 where the rules have none) of all contributions, and smaller where values can be
//! negative; a sum of flags by as many as a count. No other hidden cell (*complement*) is determined.
//!
//! **Why it holds.** For each primary cell there is a *witness*: other tables that agree in all that is shown. Take two
//! values of each key of a set D; the corners of that box are detailed cells, and those an even number of steps from
//! the hidden one gain δ patients, each with one row, that the others lose. A margin that sums out a key of D has as
//! many gaining as losing corners, and stays; one that keeps all of D changes where a corner is in it, and is hidden.
//! This is the hypercube method of Giessing and Repsilber (2002), with margins. All counts move by the same δ at once,
//! so whatever adds up still does, equal counts stay equal, and the smaller of two stays the smaller: a witness is one
//! table, not one for each number. δ ends where a corner would have too few to lose ([`room`]), or, as patients in
//! several cells do not add up, where a part would have more patients than its whole. Several boxes that share only the
//! hidden cell are a witness too. Sums move by what suits all corners at once. A margin is protected by a detailed cell
//! inside it. With D empty a cell gains alone and all margins over it are hidden, the grand total too: that always
//! holds, so the search never fails, and is taken only where nothing is cheaper. A witness needs certain cells hidden
//! and none shown, so what is hidden later takes nothing from it: one pass is enough. Rounding looks at single shown
//! cells, so tables that agree in what is shown agree in what is rounded.
//!
//! **What is not promised.** Nothing against who knows patients of the table, or the differences between hidden numbers
//! of one cell (rows without a value), or reasons backwards from which cells this method chose to hide, or knows the
//! cohort in another table that shares no margin with this one: for that the hospital's guard is there. Of patients in
//! several cells, only the relations above are reckoned with. More is hidden than an optimal method would hide.
//!
//! Sources: S. Giessing, D. Repsilber, "Tools and Strategies to Protect Multiple Tables with the GHQUAR Cell
//! Suppression Engine", in Inference Control in Statistical Databases, LNCS 2316 (2002); M. Fischetti, J.-J. Salazar
//! González, "Solving the Cell Suppression Problem on Tabular Data with Linear Constraints", Management Science 47
//! (2001); A. Hundepool et al., Statistical Disclosure Control (2012), chapter 4: (n, k) and p% rules, protection
//! levels; ACRO (UWE Bristol): defaults of the checks.

mod grid;
#[cfg(test)]
mod made;
mod room;
#[cfg(test)]
mod simplex;
#[cfg(test)]
mod solver;
mod witness;

use sekisho_protocol::disclosure::{Dominance, Rules};

use self::{grid::Grid, room::Table, witness::Search};

/// What the hiding of one table looks at: its exact numbers, over all margins.
///
/// *Cells.* A table has one key per entry of `sizes`; a *subset* of the keys is a number whose bit i says that key i is
/// kept, so 0 is the grand total and `2^keys - 1` the detailed cells. A list *by subset* has `2^keys` entries; entry
/// `s` has a value for each combination of the kept keys' values, row-major: the last kept key runs fastest. A table
/// without keys has one subset, 0, of one cell. NULL and "outside" are values like others: each row counted anywhere is
/// in exactly one detailed cell. Whatever is shown of the table, all subsets are filled in.
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

/// What single patients contribute to a cell. A patient's contribution is the absolute value of the sum of all its
/// values there.
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

/// By subset, then cell: why it is hidden; `None` is shown. No answer where the lists' lengths do not fit the sizes, or
/// with more than four keys.
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

/// A sum as it is shown beside the rounded count of its values: scaled to that count, so that means stay what they are,
/// then rounded to the same multiple of its smallest unit, so that the exact count is not what makes the sum a whole
/// number.
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

#[cfg(test)]
mod tests {
    use sekisho_protocol::permit::Preset;

    use super::{
        made::{Recipe, facts, single},
        *,
    };

    /// What is shown, cell by cell: a dot; hidden by the rules `f` or `d`; besides `c`. Subsets apart.
    fn look(facts: &Facts, rules: &Rules) -> String {
        let sign = |why: &Option<Why>| match why {
            None => '.',
            Some(Why::Few) => 'f',
            Some(Why::Dominated) => 'd',
            Some(Why::Complement) => 'c',
        };
        let cells = hidden(facts, rules).unwrap();
        cells.iter().map(|cells| cells.iter().map(sign).collect::<String>()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_hidden() {
        let jp = Preset::JpNdb.rules();
        let acro = Preset::Acro.rules();
        for (rules, sizes, cells, expect) in [
            // A table of one cell.
            (jp, &[][..], &[9][..], "f"),
            (jp, &[], &[10], "."),
            (jp, &[], &[0], "."),
            (acro, &[], &[0], "f"),
            (Preset::None.rules(), &[2], &[1, 5], ". .."),
            // The smallest that is large enough keeps the small one company.
            (jp, &[4], &[5, 30, 12, 0], ". f.c."),
            // Two small ones do, where each can be the other; else not.
            (jp, &[3], &[5, 5, 40], ". ff."),
            (jp, &[3], &[1, 2, 40], ". ffc"),
            // All others are shown zeros: the margin is the same number.
            (jp, &[2, 3], &[5, 0, 0, 20, 30, 40], ". fc ... f..c.."),
            // Nobody can keep it company: the total goes.
            (jp, &[3], &[5, 0, 0], "f f.."),
            // A square: no margin need be hidden.
            (jp, &[2, 2], &[5, 30, 40, 50], ". .. .. fccc"),
            // Zeros are hidden too: they can be anything up to the threshold.
            (acro, &[3], &[0, 30, 40], ". fc."),
        ] {
            assert_eq!(look(&single(sizes, cells), &rules), expect, "{cells:?}");
        }
    }

    #[test]
    fn a_sum_is_hidden_for_what_is_in_it() {
        let acro = Preset::Acro.rules();
        let jp = Preset::JpNdb.rules();
        // One cell of so many patients with one row each, and their values.
        let cell = |range: (i128, i128), values: &[Option<i128>]| {
            let rows: Vec<_> = values.iter().enumerate().map(|(p, v)| (p as u64, [0; 4], vec![*v])).collect();
            facts(&[], &[range], &rows)
        };
        let some = |n: usize, value: i128| vec![Some(value); n];
        for (rules, range, values, expect) in [
            (acro, (0, 1_000), some(20, 10), "."),
            // Two of 22 have more than nine tenths; the second could tell the first.
            (acro, (0, 1_000), [some(20, 1), some(2, 1_000)].concat(), "d"),
            (acro, (-1_000, 0), [some(20, -1), some(2, -1_000)].concat(), "d"),
            (acro, (0, 1_000), [some(20, 15), some(1, 1_000), some(1, 900)].concat(), "."),
            (Rules { dominance: None, ..acro }, (0, 1_000), [some(20, 1), some(2, 1_000)].concat(), "d"),
            (Rules { dominance: None, ..acro }, (0, 1_000), [some(20, 5), some(2, 1_000)].concat(), "."),
            (jp, (0, 1_000), [some(20, 1), some(2, 1_000)].concat(), "."),
            // Few have a value, or lack one; nobody has, all have.
            (jp, (0, 1_000), [some(9, 5), vec![None; 30]].concat(), "f"),
            (jp, (0, 1_000), [some(30, 5), vec![None; 9]].concat(), "f"),
            (jp, (0, 1_000), vec![None; 30], "."),
            // Few have anything but nothing; a flag is set for few, or for all but few.
            (jp, (0, 1_000), [some(9, 5), some(30, 0)].concat(), "f"),
            (jp, (0, 1), [some(9, 1), some(30, 0)].concat(), "f"),
            (jp, (0, 1), [some(30, 1), some(9, 0)].concat(), "f"),
            (jp, (0, 1), [some(30, 1), some(10, 0)].concat(), "."),
            (jp, (0, 1), some(30, 0), "."),
        ] {
            assert_eq!(look(&cell(range, &values), &rules), expect, "{range:?} {values:?}");
        }
    }

    #[test]
    fn facts_of_other_lengths_have_no_answer() {
        let rules = Preset::JpNdb.rules();
        let table = || Recipe { ranges: vec![(0, 9)], ..Recipe::counts(&[2, 3], 50, 1, 0) }.make(1);
        assert!(hidden(&table(), &rules).is_some());
        let broken: [fn(&mut Facts); 6] = [
            |f| f.sizes.push(2),
            |f| f.all.patients.truncate(3),
            |f| f.all.patients[1].push(0),
            |f| f.all.rows.truncate(5),
            |f| f.columns[0].sum.as_mut().unwrap().totals.truncate(5),
            |f| f.columns[0].sum.as_mut().unwrap().shares[0].clear(),
        ];
        for breaks in broken {
            let mut facts = table();
            breaks(&mut facts);
            assert!(hidden(&facts, &rules).is_none());
        }
    }

    /// Patients in cells that are hidden though the rules would show them, of all in shown or hidden cells, in percent;
    /// and how many margins are.
    fn loss(facts: &Facts, rules: &Rules) -> (f64, usize) {
        let why = hidden(facts, rules).unwrap();
        let detail = why.len() - 1;
        let patients = &facts.all.patients[detail];
        let besides = patients.iter().zip(&why[detail]).filter(|(_, why)| **why == Some(Why::Complement));
        let lost: u64 = besides.map(|(patients, _)| patients).sum();
        let margins = why[..detail].iter().flatten().filter(|why| **why == Some(Why::Complement)).count();
        (100.0 * lost as f64 / patients.iter().sum::<u64>() as f64, margins)
    }

    #[test]
    fn not_everything_is_hidden() {
        for (case, recipe, most, most_margins) in [
            ("dense", Recipe::counts(&[10, 10], 20_000, 1, 0), 0.0, 0),
            ("dense, three keys", Recipe::counts(&[4, 5, 6], 20_000, 1, 10), 0.0, 0),
            ("skewed", Recipe::counts(&[10, 12], 10_000, 1, 25), 5.0, 0),
            ("skewed, three keys", Recipe::counts(&[2, 6, 10], 10_000, 1, 25), 5.0, 0),
            ("skewed, several rows", Recipe::counts(&[10, 12], 10_000, 4, 25), 5.0, 0),
            ("sparse", Recipe::counts(&[12, 12], 1_000, 1, 15), 40.0, 10),
            ("one long key", Recipe::counts(&[200], 10_000, 1, 4), 5.0, 0),
            ("a sum", Recipe { ranges: vec![(0, 120)], ..Recipe::counts(&[10, 12], 10_000, 1, 25) }, 5.0, 0),
        ] {
            for preset in [Preset::JpNdb, Preset::Opensafely, Preset::Acro] {
                let (lost, margins) = loss(&recipe.make(7), &preset.rules());
                println!("{case}, {preset:?}: {lost:.1} % of patients and {margins} margins hidden besides");
                assert!(lost <= most && margins <= most_margins, "{case}, {preset:?}: {lost} %, {margins} margins");
            }
        }
    }

    #[test]
    fn the_work_is_bounded_by_cells_times_values() {
        for sizes in [&[100, 100][..], &[1_000], &[8, 8, 8], &[5, 5, 5, 5]] {
            let cells: usize = sizes.iter().product();
            let numbers: Vec<u64> =
                (0..cells as u64).map(|i| if i * 7_919 % 10 < 3 { 1 + i % 9 } else { 10 + i % 50 }).collect();
            let (facts, rules) = (single(sizes, &numbers), Preset::JpNdb.rules());
            let table = Table::new(&facts, &rules).unwrap();
            let first = primary(&facts, &rules, &table.grid);
            assert!(first.last().unwrap().iter().flatten().count() * 100 >= cells * 29);
            let (why, work) = Search::new(&table, &rules, first).run();
            let bound = 10 * cells * (sizes.iter().sum::<usize>() + 100);
            println!("{sizes:?}: {work} cells looked at, {} times as many as there are", work / cells as u64);
            assert!(work <= bound as u64, "{sizes:?}: {work}");
            assert!(why[0][0].is_none());
        }
    }

    #[test]
    fn counts_and_sums_are_rounded_together() {
        let five = Preset::Opensafely.rules();
        let two = Rules { rounding: 2, ..five };
        let none = Preset::JpNdb.rules();
        for (rules, count, expect) in [(five, 0, 0), (five, 12, 10), (five, 13, 15), (two, 11, 12), (none, 11, 11)] {
            assert_eq!(rounded(count, &rules), expect, "{count}");
        }
        for (rules, sum, values, expect) in [
            // 12 values of 50 on average are shown as 10 of 50.
            (five, 600, 12, 500),
            (five, -600, 12, -500),
            (five, 601, 12, 500),
            (five, 632, 13, 730),
            (five, 0, 0, 0),
            (none, 601, 12, 601),
            (five, i128::MAX, u64::MAX, i128::MAX / 5 * 5),
        ] {
            assert_eq!(rounded_sum(sum, values, &rules), expect, "{sum} {values}");
        }
    }
}
