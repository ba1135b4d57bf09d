//! The search for an event that two neighbouring data sets make too differently likely.
//!
//! After StatDP (Ding, Wang, Wang, Zhang and Kifer, CCS 2018) and DP-Auditorium (Kong, Muñoz Medina, Ribero and Syed 2023): the
//! event is chosen on one part of the trials and judged on the other, so that the judgement's error is a binomial's. Events
//! are thresholds of statistics: the likelihood ratio of the noise that the header names, with the patient's effect
//! learned; every number by itself; differences of two numbers, in which noise that was used twice goes away; and the
//! low bits of small numbers, in which floating point shows (Mironov, CCS 2012).

use sekisho_aggregation::{interval::Spread, noise::Noise};

use super::claim::{Claim, broken};

/// The probability that one statistic speaks against a claim that holds.
pub const ALPHA: f64 = 1e-5;

/// How many of the trials choose the event; the rest judge it.
const TRAINING: (usize, usize) = (1, 3);

/// Releases of two neighbouring data sets: for each trial its numbers, in lattice units.
pub struct Trials {
    pub without: Vec<Vec<i128>>,
    pub with: Vec<Vec<i128>>,
    /// The noise of each number.
    pub noise: Vec<Noise>,
}

/// A number of one trial's numbers.
type Statistic = Box<dyn Fn(&[i128]) -> f64>;

/// A claim that does not hold.
#[derive(Debug)]
#[expect(dead_code, reason = "printed when a test fails")]
pub struct Broken {
    what: String,
    claim: Claim,
    epsilon: f64,
    delta: f64,
    /// How often the event came, with one data set and with the other, of how many trials each.
    counts: (u64, u64, u64),
}

/// How many trials of each data set judge, of so many.
pub fn held_out(trials: usize) -> usize {
    trials - trials * TRAINING.0 / TRAINING.1
}

#[expect(clippy::cast_precision_loss, reason = "statistics are real numbers")]
fn real(number: i128) -> f64 {
    number as f64
}

impl Trials {
    /// Whether the numbers at `places` break `claim`, by their likelihood ratio.
    pub fn likelihood(&self, name: &str, places: std::ops::Range<usize>, claim: Claim) -> Option<Broken> {
        self.judge(format!("likelihood ratio of {name}"), &self.ratio(places)?, claim)
    }

    /// Whether any of the other statistics, over all numbers together, breaks `claim`.
    pub fn others(&self, claim: Claim) -> Vec<Broken> {
        let mut statistics: Vec<(String, Statistic)> = Vec::new();
        for (i, noise) in self.noise.iter().enumerate() {
            statistics.push((format!("number {i}"), Box::new(move |x| real(x[i]))));
            let deviation = noise.standard_deviation();
            // Floats of 53 bits have steps above one beyond that.
            if deviation > 2_f64.powi(53) {
                for (bits, window) in [(51, 1.0), (52, 1.0), (51, 2.0), (52, 2.0)] {
                    let step = 1_i128 << (deviation.log2() as u32 - bits);
                    let small = move |x: &[i128]| real(x[i]).abs() < window * deviation && x[i] % step != 0;
                    let name = format!("low bits of number {i}");
                    statistics.push((name, Box::new(move |x| f64::from(u8::from(small(x))))));
                }
            }
        }
        // Neighbours in one measure or in the next, and the same number of another measure or run.
        let half = self.noise.len() / 2;
        for i in 0..self.noise.len() {
            for j in [i + 1, i + half].into_iter().filter(|j| *j < self.noise.len() && *j != i) {
                if self.noise[i] == self.noise[j] {
                    statistics.push((format!("number {i} less number {j}"), Box::new(move |x| real(x[i] - x[j]))));
                }
            }
        }
        statistics.into_iter().filter_map(|(name, statistic)| self.judge(name, &statistic, claim)).collect()
    }

    /// The logarithm of the likelihood ratio, with means learned in the training part. Numbers that do not move are left out.
    fn ratio(&self, places: std::ops::Range<usize>) -> Option<Statistic> {
        let training = self.without.len() * TRAINING.0 / TRAINING.1;
        let mean = |of: &[Vec<i128>], i: usize| {
            of[..training].iter().map(|x| real(x[i])).sum::<f64>() / real(training as i128)
        };
        let mut terms = Vec::new();
        for i in places {
            let (low, high) = (mean(&self.without, i), mean(&self.with, i));
            if (high - low).abs() > 5.0 * self.noise[i].standard_deviation() * (2.0 / real(training as i128)).sqrt() {
                terms.push((i, low, high, self.noise[i].spread(1)));
            }
        }
        let ratio = move |x: &[i128]| {
            let one = |(i, low, high, spread): &(usize, f64, f64, Spread)| match spread {
                Spread::Gaussian { variance } => (high - low) * (real(x[*i]) - (low + high) / 2.0) / variance,
                Spread::Laplace { scale, .. } => ((real(x[*i]) - low).abs() - (real(x[*i]) - high).abs()) / scale,
            };
            terms.iter().map(one).sum()
        };
        (!self.without.is_empty()).then(|| Box::new(ratio) as Statistic)
    }

    /// Chooses the event of one statistic on the training part, and judges it on the rest.
    fn judge(&self, what: String, statistic: &Statistic, claim: Claim) -> Option<Broken> {
        let points = claim.points();
        let values = |of: &[Vec<i128>]| of.iter().map(|x| statistic(x)).collect::<Vec<f64>>();
        let (without, with) = (values(&self.without), values(&self.with));
        let training = without.len() * TRAINING.0 / TRAINING.1;
        let sorted = |of: &[f64]| {
            let mut sorted = of[..training].to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        let (low, high) = (sorted(&without), sorted(&with));
        let all = { [low.clone(), high.clone()].concat() };
        let mut thresholds = all;
        thresholds.sort_by(f64::total_cmp);
        let step = (thresholds.len() / 50).max(1);
        // The best event: above or not above a threshold, more likely with the patient or without.
        let mut best: Option<(f64, _)> = None;
        let n = real(training as i128);
        for threshold in thresholds.iter().step_by(step).copied() {
            let above = |of: &[f64]| 1.0 - of.partition_point(|v| *v <= threshold) as f64 / n;
            let (p, q) = (above(&low), above(&high));
            for (over, swapped, more, less) in [
                (true, false, q, p),
                (true, true, p, q),
                (false, false, 1.0 - q, 1.0 - p),
                (false, true, 1.0 - p, 1.0 - q),
            ] {
                for (epsilon, delta) in &points {
                    let factor = epsilon.exp();
                    let spread =
                        (more * (1.0 - more) + 1.0 / n).sqrt() + factor * (less * (1.0 - less) + 2.0 / n).sqrt();
                    // By how much it would surely be broken: a large gap of rare events is chance.
                    let score = more - factor * less - delta - 4.0 * spread / n.sqrt();
                    if best.is_none_or(|(highest, _)| score > highest) {
                        best = Some((score, (threshold, over, swapped, (*epsilon, *delta))));
                    }
                }
            }
        }
        let (_, (threshold, over, swapped, point)) = best?;
        let count = |of: &[f64]| of[training..].iter().filter(|v| (**v > threshold) == over).count() as u64;
        let (more, less) = if swapped { (&without, &with) } else { (&with, &without) };
        let (more, less, judged) = (count(more), count(less), (without.len() - training) as u64);
        let wrong = broken(point, more, less, judged, ALPHA);
        wrong.then_some(Broken { what, claim, epsilon: point.0, delta: point.1, counts: (more, less, judged) })
    }
}
