//! Tests of the samplers' tails and independence against exact probabilities; the bodies are tested in [`super`].
//!
//! How often a draw passes a bound is a binomial variable, whose exact tail probabilities judge the count, rare events included.
//! What a dishonest sampler would do (a scale that is a tenth off, tails cut at four deviations) has to be told by the same counts.
//! Seeds are fixed; a count speaks against a sampler below a probability of 10^-6.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};

use super::{DiscreteGaussian, DiscreteLaplace, Variance};

const DRAWS: u64 = 150_000;
const LEAST: f64 = 1e-6;

/// Whether a count of `DRAWS` is not too small and not too large for a probability.
fn plausible(count: u64, p: f64) -> bool {
    let binomial = Binomial::new(p, DRAWS).unwrap();
    let at_least = if count == 0 { 1.0 } else { binomial.sf(count - 1) };
    binomial.cdf(count) > LEAST && at_least > LEAST
}

/// P[|x| > bound], by summing every weight up to where they vanish.
fn beyond(weight: impl Fn(i128) -> f64, bound: i128) -> f64 {
    let reach = (1..).find(|x| weight(*x) < 1e-30).unwrap();
    let sum = |from: i128| (from..=reach).map(&weight).sum::<f64>();
    2.0 * sum(bound + 1) / (weight(0) + 2.0 * sum(1))
}

/// Judges the tails of `draws` from one deviation to six. `weight` is of a scale that is so many times the true one.
fn check(name: &str, draws: &[i128], deviation: f64, weight: impl Fn(f64, i128) -> f64) {
    let mut told = [false; 3];
    for deviations in 1..=6 {
        let bound = (f64::from(deviations) * deviation) as i128;
        let count = draws.iter().filter(|x| x.unsigned_abs() > bound.unsigned_abs()).count() as u64;
        let p = beyond(|x| weight(1.0, x), bound);
        assert!(plausible(count, p), "{name}: {count} of {DRAWS} beyond {bound}, expected {}", p * DRAWS as f64);
        for (told, wrong) in told.iter_mut().zip([0.9, 1.1]) {
            *told |= !plausible(count, beyond(|x| weight(wrong, x), bound));
        }
        // Nothing beyond, if tails were cut there.
        told[2] |= deviations >= 3 && !plausible(0, p);
    }
    assert_eq!(told, [true; 3], "{name}: the counts cannot tell a scale of 0.9 or 1.1, or tails that are cut");
}

/// Judges whether consecutive draws, in four classes each, are independent: Pearson's test of a 4 by 4 table, and whether both
/// signs are alike and neither follows the other.
fn independent(name: &str, draws: &[i128]) {
    let mut sorted = draws.to_vec();
    sorted.sort_unstable();
    let quarter = |i: usize| sorted[draws.len() * i / 4];
    let class = |x: i128| (1..4).filter(|i| x >= quarter(*i)).count();
    let mut table = [[0.0_f64; 4]; 4];
    draws.chunks_exact(2).for_each(|pair| table[class(pair[0])][class(pair[1])] += 1.0);
    let (rows, total) = (table.map(|row| row.iter().sum::<f64>()), draws.len() as f64 / 2.0);
    let mut statistic = 0.0;
    for (row, cells) in rows.iter().zip(&table) {
        for (j, seen) in cells.iter().enumerate() {
            let expected = row * table.iter().map(|r| r[j]).sum::<f64>() / total;
            statistic += if expected > 0.0 { (seen - expected).powi(2) / expected } else { 0.0 };
        }
    }
    let p = ChiSquared::new(9.0).unwrap().sf(statistic);
    assert!(p > LEAST, "{name}: consecutive draws depend on each other: p = {p}");
    let (plus, minus) = (draws.iter().filter(|x| **x > 0).count(), draws.iter().filter(|x| **x < 0).count());
    let signs = Binomial::new(0.5, (plus + minus) as u64).unwrap();
    let fewer = signs.cdf(plus.min(minus) as u64);
    assert!(2.0 * fewer > LEAST, "{name}: {plus} above zero, {minus} below");
}

#[test]
fn the_gaussians_tails_are_exact_out_to_six_deviations() {
    for (seed, text) in [(1, "1/4"), (2, "7/3"), (3, "100/1"), (4, "12345/67"), (5, "1000003/1")] {
        let variance: Variance = text.parse().unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let sampler = DiscreteGaussian::new(&variance);
        let draws: Vec<i128> = (0..DRAWS).map(|_| sampler.sample(&mut rng)).collect();
        let of = variance.as_f64();
        check(text, &draws, of.sqrt(), |scale, x| (-(x as f64 / scale).powi(2) / (2.0 * of)).exp());
        independent(text, &draws);
    }
}

#[test]
fn the_laplaces_tails_are_exact_out_to_six_deviations() {
    for (seed, numerator, denominator) in [(11, 1, 2), (12, 5, 3), (13, 20, 1), (14, 1_000, 7)] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let sampler = DiscreteLaplace::new(numerator, denominator).unwrap();
        let draws: Vec<i128> = (0..DRAWS).map(|_| sampler.sample(&mut rng)).collect();
        let of = numerator as f64 / denominator as f64;
        let name = format!("{numerator}/{denominator}");
        check(&name, &draws, of * 2.0_f64.sqrt(), |scale, x| (-(x.abs() as f64) / (of * scale)).exp());
        independent(&name, &draws);
    }
}
