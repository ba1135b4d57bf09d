//! What a fold of an exact plan keeps beside its measures: who the patients are, and for every margin of the table how many
//! patients are in each cell and who contributes most to it. By these cells are hidden; none of it leaves.

use sekisho_protocol::digest::Digest;

use super::{Fold, FoldError, OnePatient, Patient};
use crate::{
    exact::first_bytes,
    plan::{Argument, Key, Keys, Part},
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
    /// Of a summed argument: to what its values are clamped.
    range: Option<(i128, i128)>,
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
    /// Of a summed argument.
    shares: Vec<Shares>,
}

impl Summed {
    fn new(argument: &Argument, cells: usize) -> Self {
        Self { range: argument.range, present: vec![0; cells], totals: vec![0; cells] }
    }
}

impl Contributors {
    fn new(cells: usize, of: &Summed) -> Self {
        let shares = if of.range.is_some() { cells } else { 0 };
        Self { present: vec![0; cells], shares: vec![Shares::default(); shares] }
    }

    fn join(&mut self, other: &Self) {
        add_all(&mut self.present, &other.present);
        for (own, other) in self.shares.iter_mut().zip(&other.shares) {
            let (all, patients) = (own.all.saturating_add(other.all), own.patients + other.patients);
            other.largest.iter().for_each(|share| own.add(*share));
            (own.all, own.patients) = (all, patients);
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
                let place = *place as usize;
                add_to(&mut margin.patients, place, 1)?;
                for (i, own) in margin.arguments.iter_mut().enumerate() {
                    let slots = || cells.iter().map(|(_, slot)| *slot as usize);
                    let present = slots().any(|slot| one.present[i][slot] > 0);
                    add_to(&mut own.present, place, present.into())?;
                    // Who has no value contributes nothing.
                    if let Some(shares) = own.shares.get_mut(place).filter(|_| present) {
                        shares.add(slots().map(|slot| one.sum[i][slot]).sum());
                    }
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
    pub(crate) fn facts(&self, part: &Part) -> Facts {
        let column = |(i, of): (usize, &Summed)| {
            let own = || self.margins.iter().filter_map(move |margin| margin.arguments.get(i));
            let present = own().map(|own| own.present.clone()).collect();
            let sum = of.range.map(|(low, high)| {
                let shares = own().map(|own| own.shares.clone()).collect();
                Sum { low, high, totals: of.totals.clone(), shares }
            });
            Column { present: Population { patients: present, rows: of.present.clone() }, sum }
        };
        let patients = self.margins.iter().map(|margin| margin.patients.clone()).collect();
        Facts {
            sizes: part.keys.iter().map(Key::cells).collect(),
            all: Population { patients, rows: self.rows.clone() },
            columns: self.arguments.iter().enumerate().map(column).collect(),
        }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use arrow::{
        array::{ArrayRef, BooleanArray, Int64Array, StringArray},
        record_batch::RecordBatch,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{exact::example, plan::PrivatePlan};

    /// Patient, sex (0 female, 1 male, 2 NULL, 3 outside), died, days.
    type Row = (i64, u8, bool, Option<i64>);

    fn fold(plan: &Arc<PrivatePlan>, rows: &[Row]) -> Fold {
        let columns: [(&str, ArrayRef); 4] = [
            ("c0", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>())),
            ("c1", {
                let sex = |row: &Row| [Some("female"), Some("male"), None, Some("x")][row.1 as usize];
                Arc::new(rows.iter().map(sex).collect::<StringArray>())
            }),
            ("c2", Arc::new(rows.iter().map(|row| Some(row.2)).collect::<BooleanArray>())),
            ("c3", Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>())),
        ];
        let mut fold = Fold::new(plan, 0).unwrap();
        fold.push(&RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()).unwrap();
        fold
    }

    fn facts(plan: &Arc<PrivatePlan>, partitions: &[&[Row]]) -> Facts {
        let folds = partitions.iter().map(|rows| fold(plan, rows)).collect();
        Fold::finish(plan, 0, folds).unwrap().contributions.unwrap().facts(&plan.parts()[0])
    }

    /// The cell of a row over a subset of the keys: four of sex, three of died.
    fn cell(row: &Row, subset: usize) -> usize {
        let sex = if subset & 1 != 0 { row.1 as usize } else { 0 };
        if subset & 2 != 0 { sex * 3 + usize::from(row.2) } else { sex }
    }

    proptest! {
        #[test]
        fn every_margin_has_its_patients_and_their_contributions_in_however_many_partitions(
            mut rows in prop::collection::vec((0_i64..20, 0_u8..4, any::<bool>(), prop::option::of(-50_i64..150)), 1..80),
            split in 0_i64..20,
        ) {
            let sql = "SELECT sex, died, sum(days - 50) FROM stay GROUP BY sex, died";
            let plan = example::plan(sql, sekisho_protocol::permit::Preset::Acro);
            rows.sort_by_key(|row| row.0);
            let (first, second) = rows.split_at(rows.partition_point(|row| row.0 < split));
            let facts = facts(&plan, &[second, first]);
            // What the fold is given is the argument: it clamps to -50 to 50.
            let value = |row: &Row| row.3.map(|v| i128::from(v.clamp(-50, 50)));
            prop_assert_eq!(&facts.sizes, &[4, 3]);
            for subset in 0..4 {
                let mut cells: BTreeMap<usize, BTreeMap<i64, (bool, i128)>> = BTreeMap::new();
                for row in &rows {
                    let own = cells.entry(cell(row, subset)).or_default().entry(row.0).or_default();
                    *own = (own.0 || row.3.is_some(), own.1 + value(row).unwrap_or(0));
                }
                let column = &facts.columns[0];
                let sum = column.sum.as_ref().unwrap();
                for place in 0..facts.all.patients[subset].len() {
                    let own = cells.remove(&place).unwrap_or_default();
                    let mut shares: Vec<i128> = own.values().map(|(_, sum)| sum.abs()).collect();
                    shares.sort_unstable_by(|a, b| b.cmp(a));
                    prop_assert_eq!(facts.all.patients[subset][place], own.len() as u64);
                    prop_assert_eq!(column.present.patients[subset][place], own.values().filter(|o| o.0).count() as u64);
                    let found = &sum.shares[subset][place];
                    prop_assert_eq!((found.all, found.patients), (shares.iter().sum(), shares.iter().filter(|s| **s > 0).count() as u64));
                    shares.resize(found.largest.len(), 0);
                    prop_assert_eq!(&found.largest[..], &shares[..]);
                }
            }
            for place in 0..12 {
                let own = || rows.iter().filter(|row| cell(row, 3) == place);
                let column = &facts.columns[0];
                prop_assert_eq!(facts.all.rows[place], own().count() as u64);
                prop_assert_eq!(column.present.rows[place], own().filter(|row| row.3.is_some()).count() as u64);
                prop_assert_eq!(column.sum.as_ref().unwrap().totals[place], own().filter_map(value).sum::<i128>());
            }
        }
    }
}
