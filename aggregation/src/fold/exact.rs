//! What a fold of an exact plan keeps beside its measures: who the patients are, and for every margin of the table how many
//! patients are in each cell and who contributes most to it. By these cells are hidden; none of it leaves.

use datafusion_expr::Expr;
use sekisho_protocol::digest::Digest;

use super::{Fold, FoldError, OnePatient, Patient};
use crate::{
    exact::first_bytes,
    plan::{Argument, Keys, Part},
    suppress::{Column, Facts, Population, Shares, Sum},
};

/// Contributions to all margins: as raw as the cells.
pub(crate) struct Contributions {
    /// Whose rows were read, as the first 64 bits of a hash.
    patients: Vec<u64>,
    /// For every subset of the keys, bit i for key i: the grand total first, the cells over all keys last.
    margins: Vec<Margin>,
    /// Rows in each cell over all keys.
    rows: Vec<u64>,
    arguments: Vec<Summed>,
    /// The cells of one margin that a patient is in, with the detailed one of each; kept for its memory.
    places: Vec<(u32, u32)>,
}

/// What one argument's values are, and over all keys how many there are and what they add up to.
struct Summed {
    range: Option<(i128, i128)>,
    /// Its values are 0 and 1, so that a sum counts rows.
    indicator: bool,
    /// It is NULL by a condition of the query's own.
    conditional: bool,
    present: Vec<u64>,
    totals: Vec<i128>,
}

/// The cells of one subset of the keys.
struct Margin {
    /// For each cell over all keys its cell here.
    projection: Vec<u32>,
    /// Different patients.
    patients: Vec<u64>,
    arguments: Vec<Contributors>,
}

/// The patients behind one argument, for each cell of a margin.
struct Contributors {
    /// Those with a value.
    present: Vec<u64>,
    /// Of an indicator: those with a 1.
    ones: Vec<u64>,
    /// Those with a row that has no value; of an indicator, no 1.
    without: Vec<u64>,
    /// Of a summed argument.
    shares: Vec<Shares>,
}

/// One patient's part in one cell of a margin.
#[derive(Default)]
struct Inside {
    rows: u64,
    present: u64,
    sum: i128,
}

impl Summed {
    fn new(argument: &Argument, cells: usize) -> Self {
        Self {
            range: argument.range,
            indicator: argument.scale == 0 && argument.range == Some((0, 1)),
            conditional: matches!(argument.expr, Expr::Case(_)),
            present: vec![0; cells],
            totals: vec![0; cells],
        }
    }
}

impl Contributors {
    fn new(cells: usize, of: &Summed) -> Self {
        let shares = if of.range.is_some() { cells } else { 0 };
        Self {
            present: vec![0; cells],
            ones: vec![0; if of.indicator { cells } else { 0 }],
            without: vec![0; cells],
            shares: vec![Shares::default(); shares],
        }
    }

    fn add(&mut self, place: usize, of: &Summed, one: &Inside) {
        let with = if of.indicator { one.sum } else { i128::from(one.present) };
        more(&mut self.present, place, one.present > 0);
        more(&mut self.ones, place, one.sum > 0);
        more(&mut self.without, place, with < i128::from(one.rows));
        if let Some(shares) = self.shares.get_mut(place) {
            shares.add(one.sum);
        }
    }

    fn join(&mut self, other: &Self) {
        add_all(&mut self.present, &other.present);
        add_all(&mut self.ones, &other.ones);
        add_all(&mut self.without, &other.without);
        for (own, other) in self.shares.iter_mut().zip(&other.shares) {
            let all = own.all.saturating_add(other.all);
            other.largest.iter().for_each(|share| own.add(*share));
            own.all = all;
        }
    }
}

impl Contributions {
    pub(super) fn new(part: &Part) -> Self {
        let every = part.every_key();
        let arguments: Vec<Summed> = part.arguments.iter().map(|a| Summed::new(a, part.cells())).collect();
        let margin = |set: Keys| {
            let cells = part.cells_over(set);
            Margin {
                projection: part.projection(every, set),
                patients: vec![0; cells],
                arguments: arguments.iter().map(|of| Contributors::new(cells, of)).collect(),
            }
        };
        let margins = (0..=every).map(margin).collect();
        Self { patients: Vec::new(), margins, rows: vec![0; part.cells()], arguments, places: Vec::new() }
    }

    /// Whose rows were read, each once.
    pub(crate) fn patients(&self) -> &[u64] {
        &self.patients
    }

    /// Adds what `one` patient's rows add up to.
    pub(super) fn add(&mut self, patient: &Patient, one: &OnePatient) -> Result<(), FoldError> {
        self.patients.push(hashed(patient));
        for slot in one.touched.iter().map(|slot| *slot as usize) {
            add_to(&mut self.rows, slot, one.count[slot])?;
            for (i, own) in self.arguments.iter_mut().enumerate() {
                add_to(&mut own.present, slot, one.present[i][slot])?;
                let total = own.totals.get_mut(slot).ok_or(FoldError::TooMany)?;
                *total = total.checked_add(one.sum[i][slot]).ok_or(FoldError::TooMany)?;
            }
        }
        for margin in &mut self.margins {
            let places = &mut self.places;
            places.clear();
            let place = |slot: &u32| margin.projection.get(*slot as usize).map(|place| (*place, *slot));
            places.extend(one.touched.iter().filter_map(place));
            places.sort_unstable();
            for cells in places.chunk_by(|a, b| a.0 == b.0) {
                let Some((place, _)) = cells.first() else { continue };
                more(&mut margin.patients, *place as usize, true);
                for (i, (of, own)) in self.arguments.iter().zip(&mut margin.arguments).enumerate() {
                    own.add(*place as usize, of, &inside(one, i, cells));
                }
            }
        }
        Ok(())
    }

    /// Adds those of another partition, which shares no patient.
    fn join(&mut self, other: Self) -> Result<(), FoldError> {
        self.patients.extend(other.patients);
        add_all(&mut self.rows, &other.rows);
        for (own, other) in self.arguments.iter_mut().zip(other.arguments) {
            add_all(&mut own.present, &other.present);
            for (own, other) in own.totals.iter_mut().zip(other.totals) {
                *own = own.checked_add(other).ok_or(FoldError::TooMany)?;
            }
        }
        for (own, other) in self.margins.iter_mut().zip(other.margins) {
            add_all(&mut own.patients, &other.patients);
            own.arguments.iter_mut().zip(&other.arguments).for_each(|(own, other)| own.join(other));
        }
        Ok(())
    }

    /// What the hiding of the table looks at.
    ///
    /// A condition of the query's own, and a sum of 0 and 1, is a group key by another name: those for whom it holds and those for
    /// whom it does not are looked at as columns of their own.
    pub(crate) fn facts(&self, part: &Part) -> Facts {
        let by_subset = |of: &dyn Fn(&Margin) -> Vec<u64>| self.margins.iter().map(of).collect::<Vec<_>>();
        let mut columns = Vec::new();
        for (i, of) in self.arguments.iter().enumerate() {
            let population = |own: fn(&Contributors) -> &Vec<u64>, rows: Vec<u64>| Population {
                patients: by_subset(&|margin| margin.arguments.get(i).map(own).cloned().unwrap_or_default()),
                rows,
            };
            let sum = of.range.map(|(low, high)| Sum {
                low,
                high,
                totals: of.totals.clone(),
                shares: self.margins.iter().map(|m| m.arguments.get(i).map(|a| a.shares.clone()).unwrap_or_default()).collect(),
            });
            columns.push(Column { present: population(|own| &own.present, of.present.clone()), sum });
            let with: Vec<u64> = if of.indicator {
                of.totals.iter().map(|ones| u64::try_from(*ones).unwrap_or(u64::MAX)).collect()
            } else {
                of.present.clone()
            };
            let without: Vec<u64> = self.rows.iter().zip(&with).map(|(rows, with)| rows.saturating_sub(*with)).collect();
            if of.indicator {
                columns.push(Column { present: population(|own| &own.ones, with), sum: None });
            }
            if (of.indicator || of.conditional) && without.iter().any(|rows| *rows > 0) {
                columns.push(Column { present: population(|own| &own.without, without), sum: None });
            }
        }
        Facts {
            sizes: part.keys.iter().map(crate::plan::Key::cells).collect(),
            all: Population { patients: by_subset(&|margin| margin.patients.clone()), rows: self.rows.clone() },
            columns,
        }
    }
}

/// What a patient has of one argument in these cells.
fn inside(one: &OnePatient, argument: usize, cells: &[(u32, u32)]) -> Inside {
    let mut own = Inside::default();
    for slot in cells.iter().map(|(_, slot)| *slot as usize) {
        own.rows += one.count[slot];
        own.present += one.present[argument][slot];
        own.sum += one.sum[argument][slot];
    }
    own
}

/// Counts one more where `counts`.
fn more(cells: &mut [u64], place: usize, counts: bool) {
    if let Some(cell) = cells.get_mut(place) {
        *cell += u64::from(counts);
    }
}

fn add_to(cells: &mut [u64], place: usize, amount: u64) -> Result<(), FoldError> {
    let cell = cells.get_mut(place).ok_or(FoldError::TooMany)?;
    *cell = cell.checked_add(amount).ok_or(FoldError::TooMany)?;
    Ok(())
}

fn add_all(own: &mut [u64], other: &[u64]) {
    own.iter_mut().zip(other).for_each(|(own, other)| *own = own.saturating_add(*other));
}

/// A patient as 64 bits: of a number its digits, so that a register's numbers and texts agree.
fn hashed(patient: &Patient) -> u64 {
    match patient {
        Patient::Int(id) => first_bytes(&Digest::of(id.to_string().as_bytes())),
        Patient::Text(id) => first_bytes(&Digest::of(id.as_bytes())),
    }
}

/// What all partitions keep; nothing of a noised plan.
pub(super) fn joined(partitions: &mut [Fold]) -> Result<Option<Contributions>, FoldError> {
    let mut all: Option<Contributions> = None;
    for own in partitions.iter_mut().filter_map(|partition| partition.contributions.take()) {
        match &mut all {
            Some(all) => all.join(own)?,
            None => all = Some(own),
        }
    }
    Ok(all)
}
