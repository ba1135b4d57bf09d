//! The search for witnesses: other tables that agree with everything shown, and differ enough in a hidden cell.
//!
//! Why a witness proves what `suppress` promises stands there. Here: which witnesses are tried, and that the cheapest
//! of them is taken. The work is bounded: for each hidden cell, all neighbours along each key are looked at once per
//! subset of its keys, and the best few of each are combined.

use sekisho_protocol::disclosure::Rules;

use super::{
    Sum, Why,
    grid::{MAX_KEYS, Place, Subset, has},
    room::{Room, Table},
};

/// By how many keys a witness changes: how many values of each key are combined. At most 81 combinations each.
const VALUES: [usize; MAX_KEYS + 1] = [0, 16, 8, 4, 3];
/// The most shifts that make up one witness.
const MAX_SHIFTS: usize = 16;
/// The most places tried within a hidden margin.
const MAX_PLACES: usize = 4;
/// The share of a hidden sum by which it stays open, in percent, where the rules name none.
const OPEN_PERCENT: u32 = 10;

/// What is asked of a witness of one cell.
struct Need {
    /// The cell's counts can be larger by at least this.
    reach: i128,
    /// The counts' interval is at least as wide.
    width: i128,
    /// By sum: how far it can be from what it is, away from zero.
    sums: Vec<i128>,
}

/// Patients moved between the corners of a box: those an even number of steps from the hidden cell gain what the others
/// lose.
struct Shift {
    /// The values of the changed keys at the far side.
    far: Place,
    /// Of the corners other than the hidden cell's own.
    room: Room,
    cost: u128,
}

/// Several shifts from one place that share nothing but it.
struct Witness {
    from: Place,
    changed: Subset,
    shifts: Vec<Shift>,
    cost: u128,
}

/// Hides what must be hidden besides.
pub(super) struct Search<'a> {
    table: &'a Table<'a>,
    rules: &'a Rules,
    /// By subset, then cell.
    why: Vec<Vec<Option<Why>>>,
    /// Cells looked at.
    work: u64,
}

impl<'a> Search<'a> {
    /// `why`: what the rules hide by themselves.
    pub(super) fn new(table: &'a Table<'a>, rules: &'a Rules, why: Vec<Vec<Option<Why>>>) -> Self {
        Self { table, rules, why, work: 0 }
    }

    /// What is hidden in the end, and how many cells were looked at for it.
    pub(super) fn run(mut self) -> (Vec<Vec<Option<Why>>>, u64) {
        let primary: Vec<Vec<usize>> = self
            .why
            .iter()
            .enumerate()
            .map(|(subset, cells)| {
                let mut hidden: Vec<usize> = (0..cells.len()).filter(|cell| cells[*cell].is_some()).collect();
                hidden.sort_by_key(|cell| self.table.patients(subset, *cell));
                hidden
            })
            .collect();
        // Coarse margins first: what they need hidden often serves the cells under them.
        let mut subsets: Vec<Subset> = (0..primary.len()).collect();
        subsets.sort_by_key(|subset| subset.count_ones());
        for subset in subsets {
            for cell in &primary[subset] {
                self.protect(subset, *cell);
            }
        }
        (self.why, self.work)
    }

    fn protect(&mut self, subset: Subset, cell: usize) {
        let need = self.need(subset, cell);
        let mut best: Option<Witness> = None;
        for from in self.places(subset, cell) {
            // Every subset of its keys, all of them first: the fewer keys change, the more margins do.
            for changed in (0..=subset).rev().filter(|changed| changed & subset == *changed) {
                let limit = best.as_ref().map_or(u128::MAX, |best| best.cost);
                if let Some(found) = self.witness(from, changed, &need, limit) {
                    best = Some(found);
                }
            }
        }
        match best {
            Some(witness) => self.hide(&witness),
            // A cell of patients without a detailed cell of patients: the facts are wrong, and nothing is shown.
            None => self.why.iter_mut().flatten().for_each(|why| *why = why.or(Some(Why::Complement))),
        }
    }

    fn need(&self, subset: Subset, cell: usize) -> Need {
        let least = i128::from(self.rules.min_patients) - 1;
        let percent = i128::from(self.rules.p_percent.unwrap_or(OPEN_PERCENT));
        let width = (least - i128::from(self.rules.zero_publishable)).max(1);
        let open = |sum: &Sum| {
            let share = sum.shares[subset][cell].all.saturating_mul(percent).saturating_add(99) / 100;
            share.max(if sum.flags() { width } else { 1 })
        };
        Need {
            reach: (least - i128::from(self.table.fewest(subset, cell))).max(0),
            width,
            sums: self.table.sums().iter().map(|summed| open(summed.sum)).collect(),
        }
    }

    /// Detailed cells of a cell from which patients may be moved: hidden ones first, then the fewest patients.
    fn places(&mut self, subset: Subset, cell: usize) -> Vec<Place> {
        let grid = &self.table.grid;
        let mut places: Vec<_> = grid
            .within(subset, grid.place(subset, cell))
            .map(|place| (grid.cell(grid.full(), &place), place))
            .filter(|(detail, _)| self.table.spare(*detail) >= 0)
            .map(|(detail, place)| {
                let patients = self.table.patients(grid.full(), detail);
                let rank = if self.why[grid.full()][detail].is_some() { u64::MAX - patients } else { patients };
                ((self.why[grid.full()][detail].is_none(), rank, detail), place)
            })
            .collect();
        self.work += grid.cells(grid.full() & !subset) as u64;
        best_of(&mut places, MAX_PLACES);
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// The cheapest witness found that changes exactly these keys and costs less than the limit.
    fn witness(&mut self, from: Place, changed: Subset, need: &Need, limit: u128) -> Option<Witness> {
        let own_cost = self.cost(&from, changed);
        let left = limit.checked_sub(own_cost).filter(|left| *left > 0)?;
        if changed == 0 {
            // One patient more, or a million, everywhere above: no number that is shown is touched.
            return Some(Witness { from, changed, shifts: Vec::new(), cost: own_cost });
        }
        let own = self.table.room(&from, changed);
        let mut shifts = self.shifts(&from, changed, need.reach.max(need.width - own.down), left);
        shifts.sort_by_key(|shift| (shift.cost, -shift.room.up - shift.room.down));
        let single = shifts.iter().position(|shift| self.holds(&from, own, std::slice::from_ref(shift), need));
        let left = single.map_or(left, |i| shifts[i].cost);
        let several = self.several(&from, changed, own, &shifts, need, left);
        let chosen = several.or(single.map(|i| vec![i]))?;
        let mut i = 0;
        shifts.retain(|_| {
            i += 1;
            chosen.contains(&(i - 1))
        });
        let cost = shifts.iter().fold(own_cost, |cost, shift| cost.saturating_add(shift.cost));
        Some(Witness { from, changed, shifts, cost })
    }

    /// Shifts that hold together and cost less than the limit.
    fn several(
        &self,
        from: &Place,
        changed: Subset,
        own: Room,
        shifts: &[Shift],
        need: &Need,
        limit: u128,
    ) -> Option<Vec<usize>> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut cost = 0;
        for (i, shift) in shifts.iter().enumerate() {
            let apart =
                |other: &usize| (0..MAX_KEYS).all(|k| !has(changed, k) || shifts[*other].far[k] != shift.far[k]);
            if !chosen.iter().all(apart) {
                continue;
            }
            cost += shift.cost;
            if cost >= limit || chosen.len() == MAX_SHIFTS {
                return None;
            }
            chosen.push(i);
            let together: Vec<&Shift> = chosen.iter().map(|i| &shifts[*i]).collect();
            if self.holds(from, own, &together, need) {
                return Some(chosen);
            }
        }
        None
    }

    /// The shifts from a place over the best values of each changed key, for a cell that must gain so many; below a
    /// cost.
    fn shifts(&mut self, from: &Place, changed: Subset, gain: i128, limit: u128) -> Vec<Shift> {
        let mut far = vec![*from];
        for key in (0..MAX_KEYS).filter(|key| has(changed, *key)) {
            let values = self.values(from, changed, key, gain);
            far = far
                .iter()
                .flat_map(|place| {
                    values.iter().map(move |value| {
                        let mut place = *place;
                        place[key] = *value;
                        place
                    })
                })
                .collect();
        }
        self.work += (far.len() << changed.count_ones()) as u64;
        far.into_iter().filter_map(|far| self.shift(from, far, changed, limit)).collect()
    }

    /// Other values of a key: half of them the cheapest that can lose so many at once, half the cheapest that can lose
    /// any.
    fn values(&mut self, from: &Place, changed: Subset, key: usize, gain: i128) -> Vec<usize> {
        let grid = &self.table.grid;
        let mut place = *from;
        let mut any = Vec::new();
        let mut enough = Vec::new();
        for value in (0..grid.size(key)).filter(|value| *value != from[key]) {
            place[key] = value;
            let spare = self.table.spare(grid.cell(grid.full(), &place));
            if spare >= 1 {
                let found = ((self.cost(&place, changed), -spare, value), value);
                any.push(found);
                if spare >= gain {
                    enough.push(found);
                }
            }
        }
        self.work += grid.size(key) as u64;
        let most = VALUES[changed.count_ones() as usize];
        best_of(&mut enough, most.div_ceil(2));
        any.retain(|found| !enough.contains(found));
        best_of(&mut any, most - enough.len());
        enough.into_iter().chain(any).map(|(_, value)| value).collect()
    }

    fn shift(&self, from: &Place, far: Place, changed: Subset, limit: u128) -> Option<Shift> {
        let mut shift = Shift { far, room: Room::ENDLESS, cost: 0 };
        for (place, gains) in corners(from, &far, changed).skip(1) {
            shift.cost += self.cost(&place, changed);
            if shift.cost >= limit {
                return None;
            }
            let room = self.table.room(&place, changed);
            shift.room = shift.room.and(if gains { room } else { room.turned() });
            if shift.room.up < 0 || shift.room.down < 0 || shift.room.up + shift.room.down == 0 {
                return None;
            }
        }
        Some(shift)
    }

    /// Whether the shifts together are a witness.
    fn holds<S: std::borrow::Borrow<Shift>>(&self, from: &Place, own: Room, shifts: &[S], need: &Need) -> bool {
        let total = |of: fn(&Room) -> i128| shifts.iter().map(|s| of(&s.borrow().room)).sum::<i128>();
        let (up, down) = (own.up.min(total(|r| r.up)), own.down.min(total(|r| r.down)));
        if up < need.reach || down < 0 || up + down < need.width {
            return false;
        }
        // Sums must be able to follow: where they cannot go all the way, perhaps they go half of it.
        let follows = |by: i128| self.follows(from, shifts, by);
        let (Some((up, above)), Some((down, below)), Some(here)) = (
            halves(up, need.reach).find_map(|by| follows(by).map(|ranges| (by, ranges))),
            halves(down, 0).find_map(|by| follows(-by).map(|ranges| (by, ranges))),
            follows(0),
        ) else {
            return false;
        };
        let open = |(i, summed): (usize, &super::room::Summed<'_>)| {
            let ranges = [above[i], below[i], here[i]];
            let least = ranges.iter().map(|r| r.0).min().unwrap_or(0);
            let most = ranges.iter().map(|r| r.1).max().unwrap_or(0);
            (summed.sum.high <= 0 || most >= need.sums[i]) && (summed.sum.low >= 0 || -least >= need.sums[i])
        };
        up + down >= need.width && self.table.sums().iter().enumerate().all(open)
    }

    /// By sum: how far the hidden cell's can be from what it is when the cell gains so many rows; `None` where one
    /// cannot be at all.
    fn follows<S: std::borrow::Borrow<Shift>>(
        &self,
        from: &Place,
        shifts: &[S],
        by: i128,
    ) -> Option<Vec<(i128, i128)>> {
        let grid = &self.table.grid;
        let detail = |place: &Place| grid.cell(grid.full(), place);
        let changed = |far: &Place| (0..MAX_KEYS).filter(|k| far[*k] != from[*k]).fold(0, |s, k| s | 1 << k);
        self.table
            .sums()
            .iter()
            .map(|summed| {
                let mut all = (0_i128, 0_i128);
                let mut left = by;
                for shift in shifts {
                    let Shift { far, room, .. } = shift.borrow();
                    let part = left.clamp(-room.down, room.up);
                    left -= part;
                    let (mut least, mut most) = (i128::MIN, i128::MAX);
                    for (place, gains) in corners(from, far, changed(far)).skip(1) {
                        let (low, high) = summed.range(detail(&place), if gains { part } else { -part });
                        let (low, high) = if gains { (low, high) } else { (-high, -low) };
                        (least, most) = (least.max(low), most.min(high));
                    }
                    if least > most {
                        return None;
                    }
                    all = (all.0.saturating_add(least), all.1.saturating_add(most));
                }
                let own = summed.range(detail(from), by);
                let range = (all.0.max(own.0), all.1.min(own.1));
                (range.0 <= range.1).then_some(range)
            })
            .collect()
    }

    /// How many patients are in the cells at `place` that would have to be hidden besides; one more for each cell.
    fn cost(&self, place: &Place, changed: Subset) -> u128 {
        let grid = &self.table.grid;
        grid.above(changed)
            .map(|subset| (subset, grid.cell(subset, place)))
            .filter(|(subset, cell)| self.why[*subset][*cell].is_none())
            .map(|(subset, cell)| u128::from(self.table.patients(subset, cell)) + 1)
            .sum()
    }

    fn hide(&mut self, witness: &Witness) {
        let grid = &self.table.grid;
        let Witness { from, changed, shifts, .. } = witness;
        let others = shifts.iter().flat_map(|shift| corners(from, &shift.far, *changed).skip(1));
        for place in std::iter::once(*from).chain(others.map(|(place, _)| place)) {
            for subset in grid.above(*changed) {
                self.why[subset][grid.cell(subset, &place)].get_or_insert(Why::Complement);
            }
        }
    }
}

/// The corners of a box, the near one first, and whether each gains when that one does.
fn corners(from: &Place, far: &Place, changed: Subset) -> impl Iterator<Item = (Place, bool)> {
    (0..=changed).filter(move |flipped| flipped & changed == *flipped).map(move |flipped| {
        let mut place = *from;
        for key in (0..MAX_KEYS).filter(|key| has(flipped, *key)) {
            place[key] = far[key];
        }
        (place, flipped.count_ones() % 2 == 0)
    })
}

/// From the most to the least, each time half of what is between.
fn halves(most: i128, least: i128) -> impl Iterator<Item = i128> {
    (0..8).map(move |i| least + ((most - least) >> i)).chain(std::iter::once(least))
}

/// The first so many in order.
fn best_of<R: Ord + Copy, T>(found: &mut Vec<(R, T)>, most: usize) {
    if found.len() > most && most > 0 {
        found.select_nth_unstable_by_key(most - 1, |(rank, _)| *rank);
    }
    found.truncate(most);
    found.sort_unstable_by_key(|(rank, _)| *rank);
}
