//! Tables for the tests, counted from rows that are made up.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha20Rng;

use super::{
    Column, Facts, Population, Shares, Sum,
    grid::{Grid, MAX_KEYS, Place},
};

/// One row: whose, where, and the values of the arguments.
pub(super) type Row = (u64, Place, Vec<Option<i128>>);

/// How rows are made up.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) sizes: Vec<usize>,
    pub(super) patients: u64,
    /// The most rows of a patient.
    pub(super) rows: u64,
    /// How much rarer each value of a key is than the one before, in percent.
    pub(super) skew: u32,
    /// The ranges of the arguments, each summed.
    pub(super) ranges: Vec<(i128, i128)>,
    /// How many values are NULL, in percent.
    pub(super) null: u32,
    /// One of so many patients has by far the largest values.
    pub(super) giants: u64,
}

impl Recipe {
    pub(super) fn counts(sizes: &[usize], patients: u64, rows: u64, skew: u32) -> Self {
        Self { sizes: sizes.to_vec(), patients, rows, skew, ranges: Vec::new(), null: 0, giants: u64::MAX }
    }

    pub(super) fn make(&self, seed: u64) -> Facts {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut rows = Vec::new();
        for patient in 0..self.patients {
            for _ in 0..rng.random_range(1..=self.rows) {
                let mut place = [0; MAX_KEYS];
                for (value, size) in place.iter_mut().zip(&self.sizes) {
                    let weight = |v: &usize| (f64::from(100 - self.skew) / 100.0).powi(*v as i32);
                    let values: Vec<usize> = (0..*size).collect();
                    *value = *values.choose_weighted(&mut rng, weight).unwrap();
                }
                let mut value = |(low, high): &(i128, i128)| {
                    let giant = patient % self.giants == self.giants - 1;
                    let most = if giant || high - low <= 10 { *high } else { low + (high - low) / 10 };
                    (!rng.random_ratio(self.null, 100)).then(|| rng.random_range(*low..=most))
                };
                let values = self.ranges.iter().map(&mut value).collect();
                rows.push((patient, place, values));
            }
        }
        facts(&self.sizes, &self.ranges, &rows)
    }
}

/// A table without arguments whose patients have one row each: so many in each detailed cell.
pub(super) fn single(sizes: &[usize], cells: &[u64]) -> Facts {
    let grid = Grid::new(sizes).unwrap();
    let rows: Vec<Row> = cells
        .iter()
        .enumerate()
        .flat_map(|(cell, patients)| vec![grid.place(grid.full(), cell); *patients as usize])
        .enumerate()
        .map(|(patient, place)| (patient as u64, place, Vec::new()))
        .collect();
    facts(sizes, &[], &rows)
}

/// Counts a table.
pub(super) fn facts(sizes: &[usize], ranges: &[(i128, i128)], rows: &[Row]) -> Facts {
    let grid = Grid::new(sizes).unwrap();
    let all: Vec<_> = rows.iter().map(|(patient, place, _)| (*patient, *place, 0)).collect();
    let column = |(i, (low, high)): (usize, &(i128, i128))| {
        let present: Vec<_> = rows.iter().filter_map(|(p, place, values)| Some((*p, *place, values[i]?))).collect();
        let mut totals = vec![0; grid.cells(grid.full())];
        for (_, place, value) in &present {
            totals[grid.cell(grid.full(), place)] += value;
        }
        let shares = |subset| {
            let mut shares = vec![Shares::default(); grid.cells(subset)];
            for ((cell, _), sum) in by_patient(&grid, subset, &present) {
                shares[cell].add(sum);
            }
            shares
        };
        let sum = Sum { low: *low, high: *high, totals, shares: grid.subsets().map(shares).collect() };
        Column { present: population(&grid, &present), sum: Some(sum) }
    };
    Facts {
        sizes: sizes.to_vec(),
        all: population(&grid, &all),
        columns: ranges.iter().enumerate().map(column).collect(),
    }
}

fn population(grid: &Grid, rows: &[(u64, Place, i128)]) -> Population {
    let patients = |subset| {
        let mut patients = vec![0; grid.cells(subset)];
        by_patient(grid, subset, rows).into_keys().for_each(|(cell, _)| patients[cell] += 1);
        patients
    };
    let mut count = vec![0; grid.cells(grid.full())];
    rows.iter().for_each(|(_, place, _)| count[grid.cell(grid.full(), place)] += 1);
    Population { patients: grid.subsets().map(patients).collect(), rows: count }
}

fn by_patient(grid: &Grid, subset: usize, rows: &[(u64, Place, i128)]) -> BTreeMap<(usize, u64), i128> {
    let mut sums = BTreeMap::new();
    for (patient, place, value) in rows {
        *sums.entry((grid.cell(subset, place), *patient)).or_default() += value;
    }
    sums
}
