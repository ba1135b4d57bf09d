//! Where the cells of a table and of all its margins are: index arithmetic, nothing of what is in them.

/// The most keys of a table.
pub(crate) const MAX_KEYS: usize = 4;

/// Some of the keys: bit i is key i.
pub(crate) type Subset = usize;

/// A value of each key; 0 beyond the last key.
pub(crate) type Place = [usize; MAX_KEYS];

/// The cells of each subset, row-major: the last kept key runs fastest.
pub(crate) struct Grid {
    sizes: Vec<usize>,
    /// By subset, then key: how far apart two neighbouring values are; 0 where the key is not kept.
    strides: Vec<Place>,
    /// By subset: how many cells.
    cells: Vec<usize>,
}

impl Grid {
    /// `None` with too many keys, a key without values, or more cells than can be counted.
    pub(crate) fn new(sizes: &[usize]) -> Option<Self> {
        if sizes.len() > MAX_KEYS || sizes.contains(&0) {
            return None;
        }
        let mut grid = Self { sizes: sizes.to_vec(), strides: Vec::new(), cells: Vec::new() };
        for subset in 0..1 << sizes.len() {
            let mut strides = [0; MAX_KEYS];
            let mut cells = 1_usize;
            for key in (0..sizes.len()).rev().filter(|key| has(subset, *key)) {
                strides[key] = cells;
                cells = cells.checked_mul(sizes[key])?;
            }
            grid.strides.push(strides);
            grid.cells.push(cells);
        }
        Some(grid)
    }

    pub(crate) fn keys(&self) -> usize {
        self.sizes.len()
    }

    /// How many values a key has.
    pub(crate) fn size(&self, key: usize) -> usize {
        self.sizes[key]
    }

    /// The subset of all keys.
    pub(crate) fn full(&self) -> Subset {
        self.strides.len() - 1
    }

    /// All subsets, each after those that it contains.
    pub(crate) fn subsets(&self) -> std::ops::Range<Subset> {
        0..self.strides.len()
    }

    /// How many cells a subset has.
    pub(crate) fn cells(&self, subset: Subset) -> usize {
        self.cells[subset]
    }

    /// The subset's cell that holds this place.
    pub(crate) fn cell(&self, subset: Subset, place: &Place) -> usize {
        self.strides[subset].iter().zip(place).map(|(stride, value)| stride * value).sum()
    }

    /// A place in the subset's cell: keys that are not kept have their first value.
    pub(crate) fn place(&self, subset: Subset, cell: usize) -> Place {
        let mut place = [0; MAX_KEYS];
        for (key, size) in self.sizes.iter().enumerate().filter(|(key, _)| has(subset, *key)) {
            place[key] = cell / self.strides[subset][key] % size;
        }
        place
    }

    /// All places in the cell of `subset` at `place`, in the order of the detailed cells.
    pub(crate) fn within(&self, subset: Subset, place: Place) -> impl Iterator<Item = Place> + '_ {
        let free = self.full() & !subset;
        (0..self.cells(free)).map(move |cell| {
            let mut inside = self.place(free, cell);
            for (key, value) in place.iter().enumerate().filter(|(key, _)| has(subset, *key)) {
                inside[key] = *value;
            }
            inside
        })
    }

    /// The subsets that keep at least these keys.
    pub(crate) fn above(&self, subset: Subset) -> impl Iterator<Item = Subset> + '_ {
        self.subsets().filter(move |s| s & subset == subset)
    }

    /// The keys of a subset.
    pub(crate) fn kept(&self, subset: Subset) -> impl Iterator<Item = usize> + '_ {
        (0..self.keys()).filter(move |key| has(subset, *key))
    }
}

/// Whether the subset keeps the key.
pub(crate) fn has(subset: Subset, key: usize) -> bool {
    subset >> key & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_places_are_inverse_and_the_last_key_runs_fastest() {
        let grid = Grid::new(&[2, 3, 4]).unwrap();
        assert_eq!(grid.subsets().map(|s| grid.cells(s)).collect::<Vec<_>>(), [1, 2, 3, 6, 4, 8, 12, 24]);
        assert_eq!(grid.cell(grid.full(), &[1, 2, 3, 0]), 23);
        assert_eq!(grid.cell(0b101, &[1, 2, 3, 0]), 7);
        for subset in grid.subsets() {
            for cell in 0..grid.cells(subset) {
                assert_eq!(grid.cell(subset, &grid.place(subset, cell)), cell);
            }
        }
        let within: Vec<_> = grid.within(0b010, [0, 1, 0, 0]).collect();
        assert_eq!((within.len(), within[0], within[7]), (8, [0, 1, 0, 0], [1, 1, 3, 0]));
        assert!(Grid::new(&[1, 0]).is_none() && Grid::new(&[usize::MAX, 2]).is_none() && Grid::new(&[1; 5]).is_none());
        assert_eq!(Grid::new(&[]).unwrap().cells(0), 1);
    }
}
