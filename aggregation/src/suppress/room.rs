//! How far the numbers of a cell can move before what is known of every such table contradicts them.

use sekisho_protocol::disclosure::Rules;

use super::{
    Facts, Population, Sum,
    grid::{Grid, Place, Subset, has},
};

/// How far a shift can go: `up` where the first cell gains, `down` where it loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) up: i128,
    pub(super) down: i128,
}

impl Room {
    /// More than any count.
    pub(super) const ENDLESS: Self = Self { up: 1 << 64, down: 1 << 64 };

    pub(super) fn turned(self) -> Self {
        Self { up: self.down, down: self.up }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { up: self.up.min(other.up), down: self.down.min(other.down) }
    }
}

/// A table's facts in their places.
pub(super) struct Table<'a> {
    pub(super) grid: Grid,
    /// All rows first, then each argument's.
    counted: Vec<Counted<'a>>,
    summed: Vec<Summed<'a>>,
    /// A cell without patients is shown: so a hidden one is known to have at least one.
    zeros_shown: bool,
}

struct Counted<'a> {
    of: &'a Population,
    /// By subset, key that it does not keep, cell.
    rivals: Vec<Vec<Vec<Rival>>>,
}

/// Of the cells into which a key splits a cell: the one with the most patients, and the most of the others.
#[derive(Clone, Copy, Default)]
struct Rival {
    value: usize,
    most: u64,
    next: u64,
}

/// A sum and the number of its values in each detailed cell.
pub(super) struct Summed<'a> {
    pub(super) sum: &'a Sum,
    rows: &'a [u64],
}

impl Summed<'_> {
    /// The least and the most that may be added to the sum of a detailed cell whose values become more by `rows`.
    pub(super) fn range(&self, cell: usize, rows: i128) -> (i128, i128) {
        let values = i128::from(self.rows[cell]) + rows;
        let to = |bound: i128| values.saturating_mul(bound).saturating_sub(self.sum.totals[cell]);
        (to(self.sum.low), to(self.sum.high))
    }
}

impl<'a> Table<'a> {
    /// `None` where the facts do not have the lengths that they must.
    pub(super) fn new(facts: &'a Facts, rules: &Rules) -> Option<Self> {
        let grid = Grid::new(&facts.sizes)?;
        let full = grid.cells(grid.full());
        let fits = |lengths: &mut dyn Iterator<Item = usize>| lengths.eq(grid.subsets().map(|s| grid.cells(s)));
        let populations = || std::iter::once(&facts.all).chain(facts.columns.iter().map(|c| &c.present));
        let sums = || facts.columns.iter().filter_map(|c| c.sum.as_ref().map(|sum| (sum, &c.present)));
        let populations_fit = populations().all(|p| fits(&mut p.patients.iter().map(Vec::len)) && p.rows.len() == full);
        let sums_fit = sums().all(|(sum, _)| fits(&mut sum.shares.iter().map(Vec::len)) && sum.totals.len() == full);
        if !populations_fit || !sums_fit {
            return None;
        }
        let counted = populations().map(|of| Counted { of, rivals: rivals(&grid, of) }).collect();
        let summed = sums().map(|(sum, present)| Summed { sum, rows: &present.rows }).collect();
        Some(Self { grid, counted, summed, zeros_shown: rules.zero_publishable })
    }

    pub(super) fn sums(&self) -> &[Summed<'a>] {
        &self.summed
    }

    /// The patients of a cell.
    pub(super) fn patients(&self, subset: Subset, cell: usize) -> u64 {
        self.counted[0].of.patients[subset][cell]
    }

    /// The fewest patients of a cell, by all rows or by those of an argument.
    pub(super) fn fewest(&self, subset: Subset, cell: usize) -> u64 {
        self.counted.iter().map(|c| c.of.patients[subset][cell]).min().unwrap_or(0)
    }

    /// How many patients a detailed cell can lose, looking at nothing else.
    pub(super) fn spare(&self, cell: usize) -> i128 {
        let full = self.grid.full();
        self.counted
            .iter()
            .enumerate()
            .map(|(i, c)| {
                let patients = c.of.patients[full][cell];
                // Nobody is left in a cell only where no row is: each patient takes one row along.
                let floor = (i == 0 && self.zeros_shown) || c.of.rows[cell] > patients;
                i128::from(patients) - i128::from(floor)
            })
            .min()
            .unwrap_or(0)
    }

    /// How far the detailed cell at `place`, and every cell above it that keeps the keys of `changed`, can gain and
    /// lose patients and rows while all other margins stay.
    pub(super) fn room(&self, place: &Place, changed: Subset) -> Room {
        let mut room = Room { down: self.spare(self.grid.cell(self.grid.full(), place)), ..Room::ENDLESS };
        for Counted { of, rivals } in &self.counted {
            let patients = |subset: Subset| i128::from(of.patients[subset][self.grid.cell(subset, place)]);
            for subset in self.grid.above(changed) {
                for key in 0..self.grid.keys() {
                    if has(changed, key) {
                        // The margin over it stays, and has at least as many patients.
                        room.up = room.up.min(patients(subset & !(1 << key)) - patients(subset));
                    } else if !has(subset, key) {
                        // The other cells under it stay, and have at most as many patients.
                        let rival = rivals[subset][key][self.grid.cell(subset, place)];
                        let other = if rival.value == place[key] { rival.next } else { rival.most };
                        room.down = room.down.min(patients(subset) - i128::from(other));
                    }
                }
            }
        }
        room
    }
}

fn rivals(grid: &Grid, of: &Population) -> Vec<Vec<Vec<Rival>>> {
    let mut rivals: Vec<Vec<Vec<Rival>>> = grid
        .subsets()
        .map(|subset| {
            let split = |key| if has(subset, key) { 0 } else { grid.cells(subset) };
            (0..grid.keys()).map(|key| vec![Rival::default(); split(key)]).collect()
        })
        .collect();
    for subset in grid.subsets() {
        for (cell, patients) in of.patients[subset].iter().enumerate() {
            let place = grid.place(subset, cell);
            for key in grid.kept(subset) {
                let above = subset & !(1 << key);
                let rival = &mut rivals[above][key][grid.cell(above, &place)];
                if *patients > rival.most {
                    *rival = Rival { value: place[key], most: *patients, next: rival.most };
                } else {
                    rival.next = rival.next.max(*patients);
                }
            }
        }
    }
    rivals
}
