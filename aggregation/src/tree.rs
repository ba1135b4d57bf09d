//! Quantiles, minima and maxima from a noised hierarchical histogram.
//!
//! A node releases, for each cell, the weighted numbers of rows in the leaves of a tree over the argument's range and in
//! the nodes above them (Hay, Rastogi, Miklau and Suciu, "Boosting the accuracy of differentially private histograms through
//! consistency", 2010). Any prefix of the leaves is then the sum of few noised numbers, and the numbers of hospitals add, which
//! quantiles themselves would not. The fan-out is 16 (Qardaji, Yang and Li, "Understanding hierarchical methods for differentially
//! private histograms", 2013, find 8 to 16 the best).
//!
//! With one noise of deviation s for each number a prefix of 4096 leaves is the sum of at most 45 numbers, and on average 22: its
//! deviation is below 7 s, where a flat histogram's is up to 64 times that of a noise which is sqrt(3) smaller.

use crate::interval::{Interval, Spread};

/// The most leaves of a tree.
const MAX_LEAVES: i128 = 4096;
/// How many children a node has; the last of a level may have fewer.
const FAN_OUT: u32 = 16;

/// A tree over a closed range of integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    lo: i128,
    width: i128,
    leaves: u32,
}

impl Tree {
    /// The tree over `lo` to `hi`: its leaves are as wide as they must be for at most 4096 of them, of the widths 1, 2, 5, 10, 20, …
    /// `None` for a range of one value or none.
    pub fn over(lo: i128, hi: i128) -> Option<Self> {
        let span = hi.checked_sub(lo).filter(|span| *span > 0)?.checked_add(1)?;
        let leaves = |width: i128| span / width + i128::from(span % width > 0);
        let widths = (0..37_u32).flat_map(|digits| [1, 2, 5].map(|step| step * 10_i128.pow(digits)));
        let width = widths.into_iter().find(|width| leaves(*width) <= MAX_LEAVES)?;
        let leaves = u32::try_from(leaves(width)).ok()?;
        Some(Self { lo, width, leaves })
    }

    /// How many nodes each level has, from the leaves up; the last has at most 16.
    pub fn levels(&self) -> Vec<u32> {
        let mut levels = vec![self.leaves];
        let mut nodes = self.leaves;
        while nodes > FAN_OUT {
            nodes = nodes.div_ceil(FAN_OUT);
            levels.push(nodes);
        }
        levels
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.levels().iter().map(|n| *n as usize).sum()
    }

    /// The leaf of a value; one outside the range falls into the first or last.
    pub fn leaf_of(&self, value: i128) -> u32 {
        let leaf = value.saturating_sub(self.lo).div_euclid(self.width);
        u32::try_from(leaf.clamp(0, i128::from(self.leaves) - 1)).unwrap_or(0)
    }

    /// Sums the leaves, the first of `numbers`, up into the nodes above them; `None` on overflow, or when there are other than
    /// [`nodes`](Self::nodes) numbers.
    pub fn fill(&self, numbers: &mut [i128]) -> Option<()> {
        if numbers.len() != self.nodes() {
            return None;
        }
        let levels = self.levels();
        let mut start = 0;
        for pair in levels.windows(2) {
            let (below, above) = numbers[start..].split_at_mut(pair[0] as usize);
            for (sum, children) in above.iter_mut().zip(below.chunks(FAN_OUT as usize)) {
                *sum = children.iter().try_fold(0_i128, |sum, n| sum.checked_add(*n))?;
            }
            start += pair[0] as usize;
        }
        Some(())
    }

    /// The nodes whose numbers add up to that of the first `end` leaves, or of those from `end` on.
    fn cover(&self, end: u32, before: bool) -> Vec<usize> {
        let levels = self.levels();
        let (mut nodes, mut start, mut edge) = (Vec::new(), 0_usize, end);
        for (level, count) in levels.iter().enumerate() {
            let last = level + 1 == levels.len();
            let (from, to) = match (before, last) {
                (true, true) => (0, edge),
                (true, false) => (edge - edge % FAN_OUT, edge),
                (false, true) => (edge, *count),
                // Up to the next multiple of the fan-out; a last node with fewer children is whole at the end of its level.
                (false, false) => (edge, edge.next_multiple_of(FAN_OUT).min(*count)),
            };
            nodes.extend((from..to).map(|i| start + i as usize));
            start += *count as usize;
            edge = if before { edge / FAN_OUT } else { edge.div_ceil(FAN_OUT) };
        }
        nodes
    }

    /// The least value of a leaf.
    fn low(&self, leaf: usize) -> i128 {
        self.lo + self.width * leaf as i128
    }
}

/// What a noised tree says of its values.
pub struct Estimate {
    tree: Tree,
    /// For each leaf the estimated number of rows, none below zero.
    leaves: Vec<f64>,
    /// The noised numbers, in rows.
    numbers: Vec<f64>,
    spread: Spread,
    unit: f64,
    scale: f64,
    level: f64,
}

impl Estimate {
    /// From the noised numbers of a tree, in lattice units of which `unit` make a row; each has noise of its own of this `spread`.
    /// `scale` is the worth of an integer of the range in natural units; intervals are at `level`.
    pub fn of(tree: Tree, numbers: &[i128], spread: Spread, unit: f64, scale: f64, level: f64) -> Self {
        let numbers: Vec<f64> = numbers.iter().map(|n| *n as f64 / unit).collect();
        let leaves = rising(&consistent(&tree, &numbers));
        Self { tree, leaves, numbers, spread, unit, scale, level }
    }

    /// The half width, in rows, of the noise of a weighted sum of numbers: of some with weight `a`, of others with weight `b`.
    fn half(&self, (a, n): (f64, usize), (b, m): (f64, usize), level: f64) -> f64 {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let spread = match self.spread {
            Spread::Gaussian { variance } => {
                Spread::Gaussian { variance: variance * (a * a * n as f64 + b * b * m as f64) }
            }
            // Weights are at most 1, which only narrows.
            Spread::Laplace { .. } => self.spread.times(count(n + m)),
        };
        spread.half_width(level) / self.unit
    }

    fn exact(&self) -> bool {
        matches!(self.spread, Spread::Gaussian { variance: 0.0 } | Spread::Laplace { terms: 0, .. })
    }

    fn sum(&self, nodes: &[usize]) -> f64 {
        nodes.iter().filter_map(|i| self.numbers.get(*i)).sum()
    }

    fn natural(&self, value: f64) -> f64 {
        value * self.scale
    }

    /// The value of the row at `rank`, counted from 0, of the estimated rows: spread evenly over its leaf.
    fn at(&self, rank: f64) -> f64 {
        let mut before = 0.0;
        for (leaf, rows) in self.leaves.iter().enumerate() {
            // Sums of floats may miss a whole rank by a little.
            if before + rows > rank + 1e-9 {
                let inside = ((rank - before + 0.5) / rows).clamp(0.0, 1.0);
                return self.tree.low(leaf) as f64 + inside * (self.tree.width - 1) as f64;
            }
            before += rows;
        }
        self.tree.low(self.leaves.len()) as f64 - 1.0
    }

    /// The quantile at `q` of the weighted rows, in natural units, as `percentile_cont` has it: between the rows at the ranks around
    /// q·(n - 1). Of no rows nothing is known.
    ///
    /// The interval holds every leaf i that may be the quantile's: with F the share of rows up to a leaf, those where neither
    /// F(i) < q nor F(i - 1) > q can be told from the noised numbers, each with half of what the level leaves. That the true leaf is
    /// left out then has at most the probability that the level allows; no union over leaves is needed.
    pub fn quantile(&self, q: f64) -> Interval {
        let total: f64 = self.leaves.iter().sum();
        let (lo, hi) = (self.natural(self.tree.lo as f64), self.natural(self.tree.low(self.leaves.len()) as f64 - 1.0));
        if total < 0.5 {
            return Interval { estimate: f64::NAN, lower: lo, upper: hi };
        }
        let rank = q * (total - 1.0).max(0.0);
        // A rank that is whole but for the rounding of floats is whole.
        let below = (rank + 1e-9).floor();
        let (first, second) = (self.at(below), self.at((below + 1.0).min((total - 1.0).max(0.0))));
        let estimate = first + (rank - below).max(0.0) * (second - first);
        let (mut lower, mut upper) = (f64::INFINITY, f64::NEG_INFINITY);
        // (1-q)·(rows up to leaf i) - q·(rows after it), with its half width.
        let balance = |end: u32| {
            let (before, after) = (self.tree.cover(end, true), self.tree.cover(end, false));
            let value = (1.0 - q) * self.sum(&before) - q * self.sum(&after);
            (value, self.half((1.0 - q, before.len()), (q, after.len()), self.level))
        };
        let mut left = balance(0);
        for leaf in 0..self.tree.leaves {
            let right = balance(leaf + 1);
            if left.0 - left.1 <= 0.0 && right.0 + right.1 >= 0.0 {
                lower = lower.min(self.tree.low(leaf as usize) as f64);
                upper = upper.max(self.tree.low(leaf as usize + 1) as f64 - 1.0);
            }
            left = right;
        }
        let estimate = self.natural(estimate);
        Interval { estimate, lower: self.natural(lower).min(estimate), upper: self.natural(upper).max(estimate) }
    }

    /// The greatest value: the last leaf from which on there are rows beyond doubt. With noise the true one may be greater.
    pub fn maximum(&self) -> Interval {
        let end = self.extreme((0..self.tree.leaves).rev(), |leaf| self.tree.cover(leaf, false));
        let hi = self.natural(self.tree.low(self.leaves.len()) as f64 - 1.0);
        let Some(leaf) = end else {
            return Interval { estimate: f64::NAN, lower: self.natural(self.tree.lo as f64), upper: hi };
        };
        let (low, high) = (self.tree.low(leaf as usize) as f64, self.tree.low(leaf as usize + 1) as f64 - 1.0);
        let upper = if self.exact() { self.natural(high) } else { hi };
        Interval { estimate: self.natural(high), lower: self.natural(low), upper }
    }

    /// The least value: the first leaf up to which there are rows beyond doubt. With noise the true one may be less.
    pub fn minimum(&self) -> Interval {
        let end = self.extreme(0..self.tree.leaves, |leaf| self.tree.cover(leaf + 1, true));
        let lo = self.natural(self.tree.lo as f64);
        let hi = self.natural(self.tree.low(self.leaves.len()) as f64 - 1.0);
        let Some(leaf) = end else { return Interval { estimate: f64::NAN, lower: lo, upper: hi } };
        let (low, high) = (self.tree.low(leaf as usize) as f64, self.tree.low(leaf as usize + 1) as f64 - 1.0);
        let lower = if self.exact() { self.natural(low) } else { lo };
        Interval { estimate: self.natural(low), lower, upper: self.natural(high) }
    }

    /// The first leaf beyond which there are rows beyond doubt, at a level at which all leaves hold together: so far out there may be
    /// none, and each leaf is one chance for noise to look like rows.
    fn extreme(&self, mut leaves: impl Iterator<Item = u32>, cover: impl Fn(u32) -> Vec<usize>) -> Option<u32> {
        let level = 1.0 - (1.0 - self.level) / f64::from(self.tree.leaves);
        leaves.find(|leaf| {
            let nodes = cover(*leaf);
            let sum = self.sum(&nodes);
            sum > self.half((1.0, nodes.len()), (0.0, 0), level) && sum > 1e-9
        })
    }
}

/// The least-squares estimate of the leaves from all numbers, which all have noise of one variance: up the tree each node's own
/// number and the sum of its children are averaged by their variances; down the tree what a node has more than its children is
/// given to them by their variances (Hay et al. 2010, section 4, here for a last node with fewer children too).
fn consistent(tree: &Tree, numbers: &[f64]) -> Vec<f64> {
    let levels: Vec<usize> = tree.levels().iter().map(|n| *n as usize).collect();
    let starts: Vec<usize> = levels.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
    let mut best = numbers.to_vec();
    let mut variances = vec![1.0; numbers.len()];
    let children = |level: usize, node: usize| {
        let from = node * FAN_OUT as usize;
        (starts[level - 1] + from)..(starts[level - 1] + (from + FAN_OUT as usize).min(levels[level - 1]))
    };
    for level in 1..levels.len() {
        for node in 0..levels[level] {
            let (mut sum, mut variance) = (0.0, 0.0);
            for child in children(level, node) {
                sum += best[child];
                variance += variances[child];
            }
            let place = starts[level] + node;
            best[place] = (best[place] * variance + sum) / (1.0 + variance);
            variances[place] = variance / (1.0 + variance);
        }
    }
    for level in (1..levels.len()).rev() {
        for node in 0..levels[level] {
            let of = children(level, node);
            let (sum, variance) = of.clone().fold((0.0, 0.0), |(s, v), c| (s + best[c], v + variances[c]));
            let more = best[starts[level] + node] - sum;
            for child in of {
                best[child] += more * variances[child] / variance;
            }
        }
    }
    best.truncate(levels[0]);
    best
}

/// Leaves without negative numbers: the sums up to each leaf become the nearest ones that never fall (isotonic regression by pooling
/// adjacent violators, Ayer et al. 1955), from 0 to the total. Cutting each leaf at zero instead would turn the noise of
/// empty leaves into rows.
fn rising(leaves: &[f64]) -> Vec<f64> {
    let total = leaves.iter().sum::<f64>().max(0.0);
    let mut pools: Vec<(f64, usize)> = Vec::with_capacity(leaves.len());
    let mut sum = 0.0;
    for leaf in leaves {
        sum += leaf;
        let mut pool = (sum, 1);
        while let Some((mean, n)) = pools.last().copied().filter(|(mean, _)| *mean > pool.0) {
            pools.pop();
            pool = ((mean * n as f64 + pool.0 * pool.1 as f64) / (n + pool.1) as f64, n + pool.1);
        }
        pools.push(pool);
    }
    let mut before = 0.0;
    let sums = pools.into_iter().flat_map(|(mean, n)| std::iter::repeat_n(mean.clamp(0.0, total), n));
    let mut rising: Vec<f64> = sums.map(|sum| sum - std::mem::replace(&mut before, sum)).collect();
    if let Some(last) = rising.last_mut() {
        *last += total - before;
    }
    rising
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;
    use sekisho_protocol::units::MicroRho;

    use super::*;
    use crate::noise::Noise;

    fn filled(tree: &Tree, values: &[i128]) -> Vec<i128> {
        let mut numbers = vec![0; tree.nodes()];
        values.iter().for_each(|v| numbers[tree.leaf_of(*v) as usize] += 1);
        tree.fill(&mut numbers).unwrap();
        numbers
    }

    #[test]
    fn leaves_are_as_wide_as_they_must_be() {
        for (lo, hi, width, leaves, levels) in [
            (0, 1, 1, 2, 1),
            (-5, 10, 1, 16, 1),
            (0, 109, 1, 110, 2),
            (0, 4095, 1, 4096, 3),
            (0, 4096, 2, 2049, 3),
            (0, 8192, 5, 1639, 3),
            (0, 20_480, 10, 2049, 3),
            (0, 50_000, 20, 2501, 3),
            (0, 1_000_000_000_000_000, 500_000_000_000, 2001, 3),
        ] {
            let tree = Tree::over(lo, hi).unwrap();
            assert_eq!((tree.width, tree.leaves, tree.levels().len()), (width, leaves, levels), "{lo} to {hi}");
        }
        assert_eq!(Tree::over(3, 3), None);
    }

    proptest! {
        #[test]
        fn covers_add_up(lo in -1000_i128..1000, span in 1_i128..10_000, seed in any::<u64>(), share in 0.0..1.0_f64) {
            let tree = Tree::over(lo, lo + span).unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let values: Vec<i128> = (0..300).map(|_| rng.random_range(lo..=lo + span)).collect();
            let numbers = filled(&tree, &values);
            let end = (f64::from(tree.leaves) * share) as u32;
            for (before, expect) in [
                (true, numbers[..end as usize].iter().sum::<i128>()),
                (false, numbers[end as usize..tree.leaves as usize].iter().sum::<i128>()),
            ] {
                let cover = tree.cover(end, before);
                prop_assert_eq!(cover.iter().map(|i| numbers[*i]).sum::<i128>(), expect);
                prop_assert!(cover.len() <= 15 * tree.levels().len() + 1);
            }
        }

        #[test]
        fn without_noise_quantiles_are_exact(
            mut values in prop::collection::vec(-30_i128..400, 1..80),
            millionths in 0_u32..=1_000_000,
        ) {
            let tree = Tree::over(-30, 400).unwrap();
            let numbers = filled(&tree, &values);
            let none = Spread::Gaussian { variance: 0.0 };
            let estimate = Estimate::of(tree, &numbers, none, 1.0, 1.0, 0.95);
            values.sort_unstable();
            let q = f64::from(millionths) / 1e6;
            let rank = q * (values.len() - 1) as f64;
            let (a, b) = (values[rank.floor() as usize] as f64, values[rank.ceil() as usize] as f64);
            let expect = a + rank.fract() * (b - a);
            prop_assert!((estimate.quantile(q).estimate - expect).abs() < 1e-3, "{} {expect}", estimate.quantile(q).estimate);
            prop_assert_eq!(estimate.minimum().estimate, values[0] as f64);
            prop_assert_eq!(estimate.maximum().estimate, values[values.len() - 1] as f64);
        }
    }

    /// Of 300 releases of skewed values at least 94 % have the true quantile inside their 95 % interval; and it tells something.
    #[test]
    fn intervals_cover_the_truth() {
        let tree = Tree::over(0, 2000).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let mut values: Vec<i128> = (0..20_000)
            .map(|_| {
                let u: f64 = rng.random_range(0.0..1.0);
                (-(1.0 - u).ln() * 150.0).min(2000.0) as i128
            })
            .collect();
        let exact = filled(&tree, &values);
        values.sort_unstable();
        let rho = MicroRho::try_from(5_000).unwrap();
        for noise in [
            Noise::gaussian(&BigUint::from(3_u8), rho).unwrap(),
            Noise::laplace(&BigUint::from(3_u8), 100_000).unwrap(),
        ] {
            let sampler = noise.sampler().unwrap();
            let (mut inside, mut width, mut beyond, rounds) = ([0; 3], [0.0; 3], 0, 300);
            for _ in 0..rounds {
                let numbers: Vec<i128> = exact.iter().map(|n| n + sampler.sample(&mut rng)).collect();
                let estimate = Estimate::of(tree.clone(), &numbers, noise.spread(1), 1.0, 1.0, 0.95);
                for (i, q) in [0.1, 0.5, 0.95].into_iter().enumerate() {
                    let truth = values[(q * 20_000.0) as usize] as f64;
                    let interval = estimate.quantile(q);
                    inside[i] += u32::from(interval.lower <= truth && truth <= interval.upper);
                    width[i] += interval.upper - interval.lower;
                }
                beyond += u32::from(estimate.maximum().estimate > values[19_999] as f64);
            }
            // A maximum above the true one comes from noise alone: one time in forty, at this level.
            assert!(beyond <= rounds / 20, "{noise:?}: {beyond}");
            for i in 0..3 {
                assert!(inside[i] >= rounds * 94 / 100, "{noise:?}: {inside:?}");
                // In the thin tail the rigorous bound for sums of Laplace noise says little.
                let thin = i == 2 && matches!(noise, Noise::Laplace { .. });
                assert!(thin || width[i] / f64::from(rounds) < 400.0, "{noise:?}: {width:?}");
            }
        }
    }
}
