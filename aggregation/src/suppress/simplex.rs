//! A small linear-programming solver for the tests: dense, from a point that is known to be allowed.
//!
//! Chvátal, Linear Programming (1983), chapters 2 and 3. What it reports is the value of an allowed point, so an early end or a
//! wrong turn makes too little of what an attacker cannot tell, never too much.

use std::collections::BTreeMap;

/// What is nothing but rounding.
const TINY: f64 = 1e-9;
/// After so many steps the choice that cannot go in circles.
const QUICK_STEPS: usize = 200;

/// Factors of unknowns.
pub(super) type Terms = BTreeMap<usize, f64>;

/// All points that are allowed, as differences from the true one.
#[derive(Default)]
pub(super) struct Polytope {
    /// Unknowns that are told by others.
    told: BTreeMap<usize, Terms>,
    /// Each is at least minus its number, which is not negative.
    rules: Vec<(Terms, f64)>,
}

impl Polytope {
    /// `equal`: each is 0; `rules`: each is at least minus its number.
    pub(super) fn new(equal: Vec<Terms>, rules: Vec<(Terms, f64)>) -> Self {
        let mut all = Self::default();
        for terms in equal {
            let terms = all.reduced(&terms);
            let Some((unknown, factor)) = terms.iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else { continue };
            let rest = terms.iter().filter(|(u, _)| *u != unknown).map(|(u, f)| (*u, -f / factor)).collect();
            all.told.insert(*unknown, rest);
        }
        let reduced = rules.into_iter().map(|(terms, room)| (all.reduced(&terms), room));
        all.rules = reduced.filter(|(terms, _)| !terms.is_empty()).collect();
        all
    }

    fn reduced(&self, terms: &Terms) -> Terms {
        let mut left: Vec<(usize, f64)> = terms.iter().map(|(u, f)| (*u, *f)).collect();
        let mut reduced = Terms::new();
        while let Some((unknown, factor)) = left.pop() {
            match self.told.get(&unknown) {
                Some(others) => left.extend(others.iter().map(|(u, f)| (*u, f * factor))),
                None => *reduced.entry(unknown).or_default() += factor,
            }
        }
        reduced.retain(|_, factor| factor.abs() > TINY);
        reduced
    }

    /// How much larger the expression can be than it is; stops where that is enough.
    pub(super) fn most(&self, of: &Terms, enough: f64) -> f64 {
        let aim = self.reduced(of);
        let mut names: Vec<usize> =
            self.rules.iter().flat_map(|(terms, _)| terms.keys()).chain(aim.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        // Each unknown is one number that is not negative less another; `rows` say what is left of each rule's room.
        let row = |terms: &Terms, room: f64| {
            let half: Vec<f64> = names.iter().map(|name| terms.get(name).copied().unwrap_or(0.0)).collect();
            half.iter().copied().chain(half.iter().map(|f| -f)).chain([room]).collect::<Vec<f64>>()
        };
        let width = 2 * names.len();
        let mut rows: Vec<Vec<f64>> = self.rules.iter().map(|(terms, room)| row(terms, *room)).collect();
        let mut aim = row(&aim, 0.0);
        let mut outside: Vec<usize> = (0..width).collect();
        let mut inside: Vec<usize> = (width..width + rows.len()).collect();
        for step in 0.. {
            if aim[width] >= enough {
                break;
            }
            let gains = (0..width).filter(|j| aim[*j] > TINY);
            let enters = if step < QUICK_STEPS {
                gains.max_by(|a, b| aim[*a].total_cmp(&aim[*b]))
            } else {
                gains.min_by_key(|j| outside[*j])
            };
            let Some(enters) = enters else { break };
            let limits = (0..rows.len()).filter(|i| rows[*i][enters] < -TINY);
            let limit = |i: &usize| rows[*i][width] / -rows[*i][enters];
            let Some(leaves) = limits.min_by(|a, b| limit(a).total_cmp(&limit(b)).then(inside[*a].cmp(&inside[*b])))
            else {
                return f64::INFINITY;
            };
            std::mem::swap(&mut outside[enters], &mut inside[leaves]);
            let mut new = std::mem::take(&mut rows[leaves]);
            let pivot = -new[enters];
            new[enters] = -1.0;
            new.iter_mut().for_each(|f| *f /= pivot);
            for row in rows.iter_mut().filter(|row| !row.is_empty()).chain([&mut aim]) {
                let factor = std::mem::take(&mut row[enters]);
                if factor != 0.0 {
                    row.iter_mut().zip(&new).for_each(|(f, new)| *f += factor * new);
                }
            }
            rows[leaves] = new;
        }
        aim[width]
    }
}
