//! An attacker with a solver: what can be told of a hidden cell from everything that is shown, by linear programming,
//! and on tiny tables by trying all worlds. It shares no code with the search for witnesses.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, Error, OptimizationDirection, Problem};
use sekisho_protocol::{disclosure::Rules, permit::Preset};

use super::{
    Facts, Population, Why,
    grid::Grid,
    hidden,
    made::{Recipe, Row, facts, single},
};

/// A linear expression of what the attacker does not know.
#[derive(Clone, Default)]
struct Expr {
    terms: BTreeMap<usize, f64>,
    known: f64,
    truth: f64,
}

impl Expr {
    fn known(value: f64) -> Self {
        Self { terms: BTreeMap::new(), known: value, truth: value }
    }

    fn plus(mut self, factor: f64, other: &Self) -> Self {
        for (unknown, of) in &other.terms {
            *self.terms.entry(*unknown).or_default() += factor * of;
        }
        self.known += factor * other.known;
        self.truth += factor * other.truth;
        self
    }

    fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        parts.into_iter().fold(Self::default(), |sum, part| sum.plus(1.0, part))
    }
}

/// All that is known of the table.
#[derive(Default)]
struct Known {
    unknowns: usize,
    /// Each is at least 0.
    rules: Vec<Expr>,
    /// Each is 0.
    equal: Vec<Expr>,
}

impl Known {
    fn unknown(&mut self, truth: f64) -> Expr {
        self.unknowns += 1;
        Expr { terms: BTreeMap::from([(self.unknowns - 1, 1.0)]), known: 0.0, truth }
    }

    fn at_least(&mut self, large: &Expr, small: &Expr) {
        let rule = large.clone().plus(-1.0, small);
        assert!(rule.truth >= 0.0, "the table itself breaks what is known of every table");
        if !rule.terms.is_empty() {
            self.rules.push(rule);
        }
    }

    fn equal(&mut self, one: &Expr, other: &Expr) {
        let rule = one.clone().plus(-1.0, other);
        assert!(rule.truth == 0.0, "the table itself breaks what is known of every table");
        if !rule.terms.is_empty() {
            self.equal.push(rule);
        }
    }

    /// What an expression can be.
    fn range(&self, of: &Expr) -> (f64, f64) {
        (self.extreme(of, OptimizationDirection::Minimize), self.extreme(of, OptimizationDirection::Maximize))
    }

    fn extreme(&self, of: &Expr, direction: OptimizationDirection) -> f64 {
        if of.terms.is_empty() {
            return of.known;
        }
        let mut problem = Problem::new(direction);
        let unknowns: Vec<_> = (0..self.unknowns)
            .map(|i| problem.add_var(of.terms.get(&i).copied().unwrap_or(0.0), (f64::NEG_INFINITY, f64::INFINITY)))
            .collect();
        for (rules, op) in [(&self.rules, ComparisonOp::Ge), (&self.equal, ComparisonOp::Eq)] {
            for rule in rules {
                let terms: Vec<_> = rule.terms.iter().map(|(i, factor)| (unknowns[*i], *factor)).collect();
                problem.add_constraint(&terms[..], op, -rule.known);
            }
        }
        match problem.solve() {
            Ok(outcome) => outcome.into_solution().unwrap().objective() + of.known,
            Err(Error::Unbounded) => match direction {
                OptimizationDirection::Minimize => f64::NEG_INFINITY,
                OptimizationDirection::Maximize => f64::INFINITY,
            },
            Err(error) => panic!("{error}"),
        }
    }
}

/// The numbers of one table as the attacker sees them; by subset, then cell.
struct View {
    known: Known,
    patients: Vec<Vec<Vec<Expr>>>,
    rows: Vec<Vec<Vec<Expr>>>,
    sums: Vec<Vec<Vec<Expr>>>,
}

impl View {
    /// `single`: it is known that each patient has one row.
    fn new(facts: &Facts, why: &[Vec<Option<Why>>], rules: &Rules, single: bool) -> Self {
        let grid = Grid::new(&facts.sizes).unwrap();
        let mut view = Self { known: Known::default(), patients: vec![], rows: vec![], sums: vec![] };
        let populations = std::iter::once(&facts.all).chain(facts.columns.iter().map(|c| &c.present));
        for (i, population) in populations.enumerate() {
            let floor = if i == 0 && rules.zero_publishable { 1.0 } else { 0.0 };
            view.population(&grid, why, population, floor, single);
        }
        let detail = grid.full();
        let none = Expr::default();
        for (i, column) in facts.columns.iter().enumerate() {
            for cell in 0..grid.cells(detail) {
                let all = (&view.patients[0][detail][cell].clone(), &view.rows[0][detail][cell].clone());
                let some = (&view.patients[i + 1][detail][cell].clone(), &view.rows[i + 1][detail][cell].clone());
                view.known.at_least(all.1, some.1);
                // Who has no value has a row without one.
                view.known.at_least(&all.1.clone().plus(-1.0, some.1), &all.0.clone().plus(-1.0, some.0));
            }
            for subset in grid.subsets() {
                for cell in 0..grid.cells(subset) {
                    let (all, some) = (&view.patients[0][subset][cell], &view.patients[i + 1][subset][cell]);
                    view.known.at_least(all, some);
                }
            }
            let Some(sum) = &column.sum else { continue };
            let totals = view.additive(&grid, why, &sum.totals.iter().map(|s| *s as f64).collect::<Vec<_>>());
            for (cell, total) in totals[detail].iter().enumerate() {
                let values = &view.rows[i + 1][detail][cell];
                view.known.at_least(total, &none.clone().plus(sum.low as f64, values));
                view.known.at_least(&none.clone().plus(sum.high as f64, values), total);
            }
            view.sums.push(totals);
        }
        view
    }

    /// Numbers that add up, from those of the detailed cells.
    fn additive(&mut self, grid: &Grid, why: &[Vec<Option<Why>>], cells: &[f64]) -> Vec<Vec<Expr>> {
        let detail: Vec<Expr> = cells
            .iter()
            .zip(&why[grid.full()])
            .map(|(cell, why)| if why.is_some() { self.known.unknown(*cell) } else { Expr::known(*cell) })
            .collect();
        let mut all = Vec::new();
        for subset in grid.subsets() {
            let margin = |cell| {
                let inside = grid.within(subset, grid.place(subset, cell));
                Expr::sum(inside.map(|place| &detail[grid.cell(grid.full(), &place)]))
            };
            let margins: Vec<Expr> = (0..grid.cells(subset)).map(margin).collect();
            for (margin, _) in margins.iter().zip(&why[subset]).filter(|(_, why)| why.is_none()) {
                self.known.equal(margin, &Expr::known(margin.truth));
            }
            all.push(margins);
        }
        all
    }

    fn population(&mut self, grid: &Grid, why: &[Vec<Option<Why>>], of: &Population, floor: f64, single: bool) {
        let rows = self.additive(grid, why, &of.rows.iter().map(|r| *r as f64).collect::<Vec<_>>());
        let patients: Vec<Vec<Expr>> = if single {
            rows.clone()
        } else {
            let mut expr = |(patients, why): (&u64, &Option<Why>)| match why {
                Some(_) => self.known.unknown(*patients as f64),
                None => Expr::known(*patients as f64),
            };
            of.patients.iter().zip(why).map(|(p, why)| p.iter().zip(why).map(&mut expr).collect()).collect()
        };
        for (cells, why) in patients.iter().zip(why) {
            for (cell, _) in cells.iter().zip(why).filter(|(_, why)| why.is_some()) {
                self.known.at_least(cell, &Expr::known(floor));
            }
        }
        if !single {
            for (rows, patients) in rows[grid.full()].iter().zip(&patients[grid.full()]) {
                self.known.at_least(rows, patients);
            }
            for subset in grid.subsets() {
                for key in grid.kept(subset) {
                    let above = subset & !(1 << key);
                    let mut parts = vec![Expr::default(); grid.cells(above)];
                    for (cell, part) in patients[subset].iter().enumerate() {
                        let whole = grid.cell(above, &grid.place(subset, cell));
                        self.known.at_least(&patients[above][whole], part);
                        parts[whole] = parts[whole].clone().plus(1.0, part);
                    }
                    for (whole, parts) in patients[above].iter().zip(&parts) {
                        self.known.at_least(parts, whole);
                    }
                }
            }
        }
        self.patients.push(patients);
        self.rows.push(rows);
    }
}

/// How many hidden cells were looked at.
fn check(facts: &Facts, rules: &Rules, single: bool, case: &str) -> usize {
    const SLACK: f64 = 1e-6;
    let why = hidden(facts, rules).unwrap();
    let view = View::new(facts, &why, rules, single);
    let least = f64::from(rules.min_patients) - 1.0;
    let width = (least - f64::from(u8::from(rules.zero_publishable))).max(1.0);
    let percent = f64::from(rules.p_percent.unwrap_or(10)) / 100.0;
    let mut looked = 0;
    for (subset, cells) in why.iter().enumerate() {
        for (cell, why) in cells.iter().enumerate().filter_map(|(cell, why)| Some((cell, (*why)?))) {
            looked += 1;
            let case = format!("{case}: cell {cell} of subset {subset:#b}, {why:?}");
            let counts = view.patients.iter().chain(if single { &[][..] } else { &view.rows });
            for (i, count) in counts.enumerate() {
                let count = &count[subset][cell];
                let (low, high) = view.known.range(count);
                let enough = match why {
                    Why::Few | Why::Dominated => high - low >= width - SLACK && high >= least - SLACK,
                    Why::Complement => high - low >= 1.0 - SLACK,
                };
                assert!(enough, "{case}: count {i} is {}, and told to be {low} to {high}", count.truth);
            }
            for (sum, column) in view.sums.iter().zip(facts.columns.iter().filter_map(|c| c.sum.as_ref())) {
                let total = &sum[subset][cell];
                let (low, high) = view.known.range(total);
                let open = match why {
                    Why::Few | Why::Dominated => (column.shares[subset][cell].all as f64 * percent).max(1.0),
                    Why::Complement => 0.0,
                };
                let up = column.high <= 0 || high - total.truth >= open - SLACK;
                let down = column.low >= 0 || total.truth - low >= open - SLACK;
                assert!(
                    up && down && high - low >= 1.0 - SLACK,
                    "{case}: a sum is {}, told {low} to {high}",
                    total.truth
                );
            }
        }
    }
    looked
}

const PRESETS: [Preset; 6] =
    [Preset::JpNdb, Preset::Cms, Preset::Opensafely, Preset::Datashield, Preset::Acro, Preset::None];

#[test]
fn no_hidden_count_is_told_more_closely_than_the_rules_allow() {
    let mut looked = 0;
    for preset in PRESETS {
        for sizes in [&[][..], &[2], &[6], &[2, 3], &[4, 4], &[3, 6], &[2, 2, 2], &[3, 4, 2], &[2, 2, 2, 2]] {
            for (seed, patients) in [5, 20, 60, 150, 400, 1_000].into_iter().enumerate() {
                let skew = [0, 40, 60][seed % 3];
                let facts = Recipe::counts(sizes, patients, 1, skew).make(seed as u64);
                let case = format!("{preset:?} {sizes:?} {patients} patients, skew {skew}");
                looked += check(&facts, &preset.rules(), true, &case);
            }
        }
    }
    println!("{looked} hidden cells");
    assert!(looked > 2_000);
}

#[test]
fn nor_where_patients_are_in_several_cells() {
    let mut looked = 0;
    for preset in PRESETS {
        for sizes in [&[3][..], &[2, 3], &[3, 3], &[2, 2, 2]] {
            for (seed, patients) in [12, 60, 150, 400].into_iter().enumerate() {
                let facts = Recipe::counts(sizes, patients, 3, 50).make(seed as u64);
                let case = format!("{preset:?} {sizes:?} {patients} patients of 1 to 3 rows");
                looked += check(&facts, &preset.rules(), false, &case);
            }
        }
    }
    println!("{looked} hidden cells");
    assert!(looked > 300);
}

#[test]
fn nor_a_hidden_sum() {
    let mut looked = 0;
    for preset in PRESETS {
        for (seed, (sizes, patients, ranges, rows)) in [
            (&[4][..], 150, vec![(0, 120)], 1),
            (&[2, 3], 200, vec![(0, 1_000_000)], 1),
            (&[3, 3], 400, vec![(-500, 500)], 1),
            (&[3, 3], 300, vec![(0, 1)], 1),
            (&[2, 3], 200, vec![(40, 60), (0, 1)], 1),
            (&[2, 3], 150, vec![(0, 10_000)], 3),
            (&[2, 2, 2], 300, vec![(-20, -10)], 2),
        ]
        .into_iter()
        .enumerate()
        {
            for (null, giants) in [(0, 40), (20, u64::MAX)] {
                let recipe =
                    Recipe { ranges: ranges.clone(), null, giants, ..Recipe::counts(sizes, patients, rows, 50) };
                let case = format!("{preset:?} {recipe:?}");
                looked += check(&recipe.make(seed as u64), &preset.rules(), rows == 1, &case);
            }
        }
    }
    println!("{looked} hidden cells");
    assert!(looked > 300);
}

/// All ways to share out up to `most` among so many.
fn shared_out(most: u64, among: usize) -> Vec<Vec<u64>> {
    let Some(rest) = among.checked_sub(1) else { return vec![vec![]] };
    let longer = |first| shared_out(most - first, rest).into_iter().map(move |rest| [vec![first], rest].concat());
    (0..=most).flat_map(longer).collect()
}

#[test]
fn the_solver_tells_what_trying_all_tables_tells() {
    const MOST: u64 = 24;
    let rules = Preset::Datashield.rules();
    let mut compared = 0;
    for cells in [[1, 5, 4, 6], [2, 2, 9, 3], [0, 2, 5, 5], [1, 1, 1, 12], [7, 2, 0, 4]] {
        let facts = single(&[2, 2], &cells);
        let why = hidden(&facts, &rules).unwrap();
        let view = View::new(&facts, &why, &rules, true);
        let numbers = |x: &[u64]| {
            [vec![x.iter().sum()], vec![x[0] + x[1], x[2] + x[3]], vec![x[0] + x[2], x[1] + x[3]], x.to_vec()]
        };
        let truth = [0, 1, 2, 3].map(|subset| facts.all.patients[subset].clone());
        // Subset 1 keeps the first key, whose cells are the rows of the square.
        assert_eq!(truth, numbers(&cells));
        let fits = |world: &[Vec<u64>; 4]| {
            (0..4).all(|s| {
                (0..why[s].len())
                    .all(|c| if why[s][c].is_some() { world[s][c] >= 1 } else { world[s][c] == truth[s][c] })
            })
        };
        let worlds: Vec<_> = shared_out(MOST, 4).iter().map(|x| numbers(x)).filter(fits).collect();
        for (subset, cell) in (0..4).flat_map(|s| (0..why[s].len()).map(move |c| (s, c))) {
            let all = worlds.iter().map(|world| world[subset][cell]);
            let (low, high) = view.known.range(&view.patients[0][subset][cell]);
            assert_eq!(all.clone().min().unwrap() as f64, low.round(), "{cells:?} {subset} {cell}");
            // Where the number of all is hidden too, there is no end to the tables.
            assert!(high > MOST as f64 || all.max().unwrap() as f64 == high.round(), "{cells:?} {subset} {cell}");
            compared += 1;
        }
    }
    assert_eq!(compared, 45);
}

/// Worlds of whole patients, each in any of the four cells: what the solver knows of patients in several cells is less
/// than what a world of patients must keep, so here all such worlds are tried.
#[test]
fn patients_in_several_cells_can_be_others_too() {
    const MOST: u64 = 6;
    let rules = Rules { zero_publishable: true, ..Preset::Datashield.rules() };
    let count = |kinds: &[u64]| -> Vec<u64> {
        // Total, rows, columns, cells: as sets of the cells 0 to 3.
        let sets = [0b1111, 0b0011, 0b1100, 0b0101, 0b1010, 1, 2, 4, 8];
        let within =
            |set: usize| kinds.iter().enumerate().filter(move |(kind, _)| (kind + 1) & set != 0).map(|(_, n)| n);
        sets.map(|set| within(set).sum()).to_vec()
    };
    let worlds: Vec<Vec<u64>> = shared_out(MOST, 15).iter().map(|kinds| count(kinds)).collect();
    let mut looked = 0;
    for (i, kinds) in shared_out(MOST, 15).into_iter().enumerate().filter(|(i, _)| i % 997 == 0) {
        let rows: Vec<Row> = kinds
            .iter()
            .enumerate()
            .flat_map(|(kind, n)| vec![kind + 1; *n as usize])
            .enumerate()
            .flat_map(|(patient, set)| {
                (0..4).filter(move |c| set >> c & 1 == 1).map(move |c| (patient as u64, [c / 2, c % 2, 0, 0], vec![]))
            })
            .collect();
        let facts = facts(&[2, 2], &[], &rows);
        let truth: Vec<u64> = facts.all.patients.concat();
        assert_eq!(truth, worlds[i]);
        let why = hidden(&facts, &rules).unwrap().concat();
        let fits =
            |world: &&Vec<u64>| (0..9).all(|c| if why[c].is_some() { world[c] >= 1 } else { world[c] == truth[c] });
        let possible: Vec<_> = worlds.iter().filter(fits).collect();
        for cell in (0..9).filter(|c| why[*c].is_some()) {
            let least = possible.iter().map(|world| world[cell]).min().unwrap();
            let most = possible.iter().map(|world| world[cell]).max().unwrap();
            // Six patients are all that these worlds have: a cell of all of them could be larger.
            assert!((least < most && most >= 2) || why[0].is_some(), "{truth:?} {why:?}: {cell} is {least} to {most}");
            looked += 1;
        }
    }
    println!("{looked} hidden cells");
    assert!(looked > 100);
}
