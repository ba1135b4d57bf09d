//! What a mechanism claims of two neighbouring data sets, and how counts of events speak for or against it.
//!
//! A claim is a curve: for every event E and every epsilon, P[E] ≤ e^epsilon·P'[E] + delta(epsilon). The curves are the mechanisms' own,
//! which are tighter than those that zCDP implies: of the Gaussian Balle and Wang 2018 (Theorem 8); of the discrete Gaussian on few
//! steps its sum, term by term (Canonne, Kamath and Steinke 2020, Theorem 7); of pure epsilon Kairouz, Oh and Viswanath 2015
//! (Theorem 3.4, one mechanism). Probabilities are bounded from counts after Clopper and Pearson 1934.

use statrs::{
    distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal},
    function::beta::beta_reg,
};

/// What is claimed.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// Gaussian noise; one patient moves the numbers by so many deviations.
    Gaussian(f64),
    /// Discrete Gaussian noise of this variance, on one number that moves by so many steps.
    Steps { variance: f64, shift: i32 },
    /// Pure epsilon.
    Pure(f64),
    /// The same as the Gaussian but for a probability of this delta.
    But { deviations: f64, delta: f64 },
}

/// Where curves are looked at; a pure claim is looked at in its own epsilon, too.
const EPSILONS: [f64; 10] = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0];

fn normal(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

impl Claim {
    /// The least delta at this epsilon.
    pub fn delta(self, epsilon: f64) -> f64 {
        match self {
            Self::Gaussian(mu) => normal(mu / 2.0 - epsilon / mu) - epsilon.exp() * normal(-mu / 2.0 - epsilon / mu),
            Self::Steps { variance, shift } => {
                let weight = |x: i32| (-f64::from(x).powi(2) / (2.0 * variance)).exp();
                let (far, total) = (4_000, (-4_000..=4_000).map(weight).sum::<f64>());
                (-far..=far).map(|x| (weight(x) - epsilon.exp() * weight(x + shift)).max(0.0)).sum::<f64>() / total
            }
            Self::Pure(most) => ((most.exp() - epsilon.exp()) / (1.0 + most.exp())).max(0.0),
            Self::But { deviations, delta } => Self::Gaussian(deviations).delta(epsilon) + delta,
        }
    }

    /// Epsilons with their deltas.
    pub fn points(self) -> Vec<(f64, f64)> {
        let own = match self {
            Self::Pure(most) => Some(most),
            Self::Gaussian(_) | Self::Steps { .. } | Self::But { .. } => None,
        };
        EPSILONS.into_iter().chain(own).map(|epsilon| (epsilon, self.delta(epsilon))).collect()
    }

    /// Whether a mechanism that breaks the claim by this factor is found with a probability of at least 0.99, with so many held-out
    /// trials of each data set, by one of the likelihood ratio's events. The event is known here; that it is also found, planted
    /// faults and the audit's own test show.
    pub fn finds(self, factor: f64, trials: u64, alpha: f64) -> bool {
        let found = |event: (f64, f64)| self.found(event, trials, alpha);
        match self {
            Self::Gaussian(mu) | Self::But { deviations: mu, .. } => (-8..=8).any(|t| {
                let (t, half) = (f64::from(t) / 4.0, mu * factor / 2.0);
                found((normal(half - t), normal(-half - t)))
            }),
            Self::Pure(most) => found((0.5, (-most * factor).exp() / 2.0)),
            Self::Steps { variance, shift } => (-4..=8).any(|t| {
                // Of too little noise: a variance smaller by the factor's square.
                let weight = |x: i32| (-f64::from(x).powi(2) * factor * factor / (2.0 * variance)).exp();
                let total: f64 = (-400..=400).map(weight).sum();
                let from = |t: i32| (t..=400).map(weight).sum::<f64>() / total;
                found((from(t - shift), from(t)))
            }),
        }
    }

    /// Whether an event of these probabilities breaks the claim in at least 99 of 100 sets of trials.
    fn found(self, (more, less): (f64, f64), trials: u64, alpha: f64) -> bool {
        let count = |p: f64, quantile: f64| Binomial::new(p.min(1.0), trials).unwrap().inverse_cdf(quantile);
        let (more, less) = (count(more, 0.005), count(less, 0.995));
        self.points().into_iter().any(|point| broken(point, more, less, trials, alpha))
    }
}

/// Whether so many times E, and so many times E of the neighbour, show P[E] > e^epsilon·P'[E] + delta, with a probability
/// of error below alpha.
#[expect(clippy::cast_precision_loss)]
pub fn broken((epsilon, delta): (f64, f64), more: u64, less: u64, trials: u64, alpha: f64) -> bool {
    let rate = |count: u64| count as f64 / trials as f64;
    // Most events need no bounds: the rates themselves do not break it.
    rate(more) > epsilon.exp() * rate(less) + delta
        && lower(more, trials, alpha / 2.0) > epsilon.exp() * upper(less, trials, alpha / 2.0) + delta
}

/// Clopper and Pearson's lower end: the p at which so many or more have the probability alpha.
pub fn lower(count: u64, trials: u64, alpha: f64) -> f64 {
    if count == 0 { 0.0 } else { bisected(|p| at_least(count, trials, p) < alpha) }
}

/// Clopper and Pearson's upper end: the p at which so few or fewer have the probability alpha.
pub fn upper(count: u64, trials: u64, alpha: f64) -> f64 {
    if count >= trials { 1.0 } else { bisected(|p| 1.0 - at_least(count + 1, trials, p) > alpha) }
}

#[expect(clippy::cast_precision_loss)]
fn at_least(count: u64, trials: u64, p: f64) -> f64 {
    beta_reg(count as f64, (trials - count) as f64 + 1.0, p)
}

/// The p up to which `below` holds.
fn bisected(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn curves_and_bounds_have_the_values_that_papers_and_tables_give() {
    // 2·Phi(1/2) - 1, and tanh(1/2), at epsilon 0.
    for (claim, epsilon, expect) in [
        (Claim::Gaussian(1.0), 0.0, 0.382_925),
        (Claim::Gaussian(1.0), 1.0, 0.126_937),
        (Claim::Gaussian(2.0), 2.0, 0.331_894),
        (Claim::Pure(1.0), 0.0, 0.462_117),
        (Claim::Pure(1.0), 1.0, 0.0),
        // A variance of 1 and a step of 1: the weight of 0, 1/2.506628.
        (Claim::Steps { variance: 1.0, shift: 1 }, 0.0, 0.398_942),
        (Claim::Steps { variance: 250_000.0, shift: 500 }, 1.0, 0.126_937),
        (Claim::But { deviations: 1.0, delta: 0.1 }, 0.0, 0.482_925),
    ] {
        let got = claim.delta(epsilon);
        assert!((got - expect).abs() < 2e-4, "{claim:?} at {epsilon}: {got}, not {expect}");
    }
    // 95 % two-sided: 5 of 20 lies in 0.0866 to 0.4910; none of 10 below 0.3085.
    for (got, expect) in
        [(lower(5, 20, 0.025), 0.086_57), (upper(5, 20, 0.025), 0.491_05), (upper(0, 10, 0.025), 0.308_50)]
    {
        assert!((got - expect).abs() < 1e-4, "{got}, not {expect}");
    }
}
