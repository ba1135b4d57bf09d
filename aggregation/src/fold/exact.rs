//! What a fold of an exact plan keeps beside its measures: who the patients are, and for every margin of the table how many
//! patients are in each cell and who contributes most to it. By these cells are hidden; none of it leaves.

use sekisho_protocol::digest::Digest;

use super::{Fold, FoldError, OnePatient, Patient};
use crate::{exact::first_bytes, plan::{Keys, Part}};

/// How many of the largest contributions are kept.
pub(crate) const LARGEST: usize = 8;

/// Contributions to all margins: as raw as the cells.
pub(crate) struct Contributions {
    /// Whose rows were read, as the first 64 bits of a hash.
    patients: Vec<u64>,
    /// For every subset of the keys, bit i for key i: the grand total first, the cells over all keys last.
    pub(crate) margins: Vec<Margin>,
    /// For each argument whether it is summed, and whether its values are 0 and 1.
    arguments: Vec<Kind>,
    /// The cells of one margin that a patient is in, with the detailed one of each; kept for its memory.
    places: Vec<(u32, u32)>,
}

#[derive(Clone, Copy)]
struct Kind {
    summed: bool,
    indicator: bool,
}

/// The cells of one subset of the keys.
pub(crate) struct Margin {
    /// For each detailed cell its cell here.
    pub(crate) projection: Vec<u32>,
    /// Different patients.
    pub(crate) patients: Vec<u64>,
    /// What each argument's values are from.
    pub(crate) arguments: Vec<Contributors>,
}

/// The patients behind one argument, for each cell of a margin.
pub(crate) struct Contributors {
    /// Those with a value.
    pub(crate) valued: Vec<u64>,
    /// Those whose values are not all 0; of an argument that is only counted, those with a value.
    pub(crate) moving: Vec<u64>,
    /// Those with a row that has no value, or a 0 where values are 0 and 1.
    pub(crate) without: Vec<u64>,
    /// Of a summed argument: the sum, that of the patients' contributions by absolute value, and the largest of these,
    /// in descending order.
    pub(crate) total: Vec<i128>,
    pub(crate) absolute: Vec<i128>,
    pub(crate) largest: Vec<[i128; LARGEST]>,
}

impl Contributors {
    fn new(cells: usize, kind: Kind) -> Self {
        let summed = if kind.summed { cells } else { 0 };
        Self {
            valued: vec![0; cells],
            moving: vec![0; cells],
            without: vec![0; cells],
            total: vec![0; summed],
            absolute: vec![0; summed],
            largest: vec![[0; LARGEST]; summed],
        }
    }
}

/// One patient's part in one cell of a margin.
#[derive(Default)]
struct Share {
    rows: u64,
    present: u64,
    sum: i128,
    moves: bool,
}

impl Contributions {
    pub(super) fn new(part: &Part) -> Self {
        let every = part.every_key();
        let kind = |a: &crate::plan::Argument| Kind {
            summed: a.range.is_some(),
            indicator: a.scale == 0 && a.range.is_some_and(|(lo, hi)| (0, 1) == (lo, hi)),
        };
        let arguments: Vec<Kind> = part.arguments.iter().map(kind).collect();
        let margin = |set: Keys| {
            let cells = part.cells_over(set);
            Margin {
                projection: part.projection(every, set),
                patients: vec![0; cells],
                arguments: arguments.iter().map(|kind| Contributors::new(cells, *kind)).collect(),
            }
        };
        let margins = (0..=every).map(margin).collect();
        Self { patients: Vec::new(), margins, arguments, places: Vec::new() }
    }

    /// Whose rows were read, each once.
    pub(crate) fn patients(&self) -> &[u64] {
        &self.patients
    }

    /// Adds what `one` patient's rows add up to.
    pub(super) fn add(&mut self, patient: &Patient, one: &OnePatient) -> Result<(), FoldError> {
        self.patients.push(hashed(patient));
        for margin in &mut self.margins {
            let places = &mut self.places;
            places.clear();
            let place = |slot: &u32| margin.projection.get(*slot as usize).map(|place| (*place, *slot));
            places.extend(one.touched.iter().filter_map(place));
            places.sort_unstable();
            for cells in places.chunk_by(|a, b| a.0 == b.0) {
                let Some((place, _)) = cells.first() else { continue };
                let place = *place as usize;
                more(&mut margin.patients, place, true);
                for (i, (kind, own)) in self.arguments.iter().zip(&mut margin.arguments).enumerate() {
                    own.add(place, *kind, &share(one, i, cells)).ok_or(FoldError::TooMany)?;
                }
            }
        }
        Ok(())
    }

    /// Adds those of another partition, which shares no patient.
    pub(super) fn join(&mut self, other: Self) -> Result<(), FoldError> {
        self.patients.extend(other.patients);
        for (own, other) in self.margins.iter_mut().zip(other.margins) {
            add_all(&mut own.patients, &other.patients);
            for (own, other) in own.arguments.iter_mut().zip(&other.arguments) {
                own.join(other).ok_or(FoldError::TooMany)?;
            }
        }
        Ok(())
    }
}

/// What a patient has of one argument in these cells.
fn share(one: &OnePatient, argument: usize, cells: &[(u32, u32)]) -> Share {
    let mut share = Share::default();
    for (_, slot) in cells {
        let slot = *slot as usize;
        share.rows += one.count[slot];
        share.present += one.present[argument][slot];
        share.sum += one.sum[argument][slot];
        share.moves |= one.sum[argument][slot] != 0;
    }
    share
}

impl Contributors {
    fn add(&mut self, place: usize, kind: Kind, share: &Share) -> Option<()> {
        let valued = share.present > 0;
        more(&mut self.valued, place, valued);
        more(&mut self.moving, place, if kind.summed { share.moves } else { valued });
        let zeros = kind.indicator && share.sum < i128::from(share.rows);
        more(&mut self.without, place, zeros || share.present < share.rows);
        if kind.summed {
            let (total, absolute) = (self.total.get_mut(place)?, self.absolute.get_mut(place)?);
            *total = total.checked_add(share.sum)?;
            *absolute = absolute.checked_add(share.sum.checked_abs()?)?;
            insert(self.largest.get_mut(place)?, share.sum.checked_abs()?);
        }
        Some(())
    }

    fn join(&mut self, other: &Self) -> Option<()> {
        add_all(&mut self.valued, &other.valued);
        add_all(&mut self.moving, &other.moving);
        add_all(&mut self.without, &other.without);
        for (own, other) in self.total.iter_mut().zip(&other.total).chain(self.absolute.iter_mut().zip(&other.absolute)) {
            *own = own.checked_add(*other)?;
        }
        for (own, other) in self.largest.iter_mut().zip(&other.largest) {
            other.iter().for_each(|contribution| insert(own, *contribution));
        }
        Some(())
    }
}

/// Counts one more where `counts`; a cell is never counted more often than there are patients.
fn more(cells: &mut [u64], place: usize, counts: bool) {
    if let Some(cell) = cells.get_mut(place) {
        *cell += u64::from(counts);
    }
}

fn add_all(own: &mut [u64], other: &[u64]) {
    own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
}

/// Keeps `contribution` where it is among the largest.
fn insert(largest: &mut [i128; LARGEST], contribution: i128) {
    let place = largest.partition_point(|kept| *kept >= contribution);
    if let Some(tail) = largest.get_mut(place..).filter(|tail| !tail.is_empty()) {
        tail.rotate_right(1);
        tail[0] = contribution;
    }
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
