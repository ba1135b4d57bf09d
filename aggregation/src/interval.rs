//! Confidence intervals for noised sums and for ratios of two of them.
//!
//! An interval speaks of the **noise only**: it says where the bounded, exact value of this node or
//! round lies. Sampling error, missing holders, clipped values and down-weighted rows are outside
//! it. Everything here is post-processing of released numbers and costs no rho.
//!
//! Half-widths are normal quantiles rounded up to a whole step. For one discrete Gaussian that is a
//! theorem: it exceeds m with no more probability than the normal of the same sigma exceeds m - 1
//! (Canonne, Kamath and Steinke 2020, on its tails). For a sum of several it is an approximation,
//! within the tolerance the tests state.

use statrs::distribution::{ContinuousCDF, Normal};

/// An estimate between two bounds, in the unit of the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The best single value.
    pub estimate: f64,
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
}

/// The number of standard deviations z for which a normal variable lies within ±z with probability
/// `level`: 1.95996 for 0.95.
///
/// A level of 1 or more, or none at all (NaN), gives infinity; one of 0 or less gives 0.
#[must_use]
pub fn z_two_sided(level: f64) -> f64 {
    if level <= 0.0 {
        0.0
    } else if level < 1.0 {
        // The lower tail keeps its digits where (1 + level) / 2 would round them off.
        -Normal::standard().inverse_cdf((1.0 - level) / 2.0)
    } else {
        f64::INFINITY
    }
}

/// How far the noise in a sum of released numbers may reach, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Gaussian: the variance of the sum.
    Gaussian {
        /// In squared steps.
        variance: f64,
    },
    /// A sum of independent discrete Laplace variables.
    Laplace {
        /// The scale of each, in steps.
        scale: f64,
        /// How many.
        terms: u32,
    },
}

impl Spread {
    /// That of a sum of `n` independent sums like this one.
    #[must_use]
    pub fn times(self, n: u32) -> Self {
        match self {
            Self::Gaussian { variance } => Self::Gaussian { variance: variance * f64::from(n) },
            Self::Laplace { scale, terms } => Self::Laplace { scale, terms: terms.saturating_mul(n) },
        }
    }

    /// Half the width, in whole steps, of an interval that holds the noise with probability `level` or more.
    ///
    /// For Gaussian noise the normal quantile. For one discrete Laplace variable of scale b its own tail,
    /// P(|X| > h) <= 2 exp(-h/b) / (1 + exp(-1/b)); for a sum of n the Chernoff bound
    /// P(|S| > h) <= 2 exp(-uh/b) / (1 - u²)^n at the best u in (0, 1): the moment generating function of the discrete Laplace is
    /// 1 / (1 - f(u/b) / f(1/b)) with f(x) = cosh x - 1, and f(x)/x² grows.
    #[must_use]
    pub fn half_width(self, level: f64) -> f64 {
        match self {
            // Of what is no variance nothing is known.
            Self::Gaussian { variance } if variance >= 0.0 => half_width(variance.sqrt(), level),
            Self::Gaussian { .. } => f64::INFINITY,
            Self::Laplace { terms: 0, .. } => 0.0,
            Self::Laplace { scale, terms } => {
                let alpha = 1.0 - level;
                if alpha <= 0.0 {
                    return f64::INFINITY;
                }
                if terms == 1 {
                    let tail = 2.0 / (1.0 + (-1.0 / scale).exp());
                    return (scale * (tail / alpha).ln()).max(0.0).ceil();
                }
                let width = |u: f64| ((2.0 / alpha).ln() - f64::from(terms) * (-u * u).ln_1p()) / u;
                // The width falls and then rises with u.
                let (mut low, mut high) = (1e-9, 1.0 - 1e-9);
                for _ in 0..200 {
                    let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                    if width(a) < width(b) { high = b } else { low = a }
                }
                (scale * width(f64::midpoint(low, high))).ceil()
            }
        }
    }
}

/// Zero times anything unbounded is zero here: the ends of intervals are limits.
fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// Interval arithmetic: if the true values of the operands lie inside their bounds, the true result lies inside the bounds of the
/// result (Moore, Kearfott and Cloud, Introduction to Interval Analysis, 2009), up to the rounding of floats. Whatever the dependence
/// between operands, the bounds hold. The estimate is that of plain arithmetic.
#[expect(
    clippy::should_implement_trait,
    reason = "named like the operations of SQL; no reference or scalar variants are needed"
)]
impl Interval {
    /// The interval of an exact integer that rounding moved by at most `slack`: `scale` is the worth of a step.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
    pub fn rounded(number: i128, slack: f64, scale: f64) -> Self {
        let value = number as f64;
        Self { estimate: value * scale, lower: (value - slack) * scale, upper: (value + slack) * scale }
    }

    /// The interval of a noised integer: `scale` is the worth of a step.
    #[must_use]
    pub fn of_number(noisy: i128, spread: Spread, scale: f64, level: f64) -> Self {
        let (value, half) = (noisy as f64, spread.half_width(level));
        Self { estimate: value * scale, lower: (value - half) * scale, upper: (value + half) * scale }
    }

    /// A number that is known.
    #[must_use]
    pub fn exact(value: f64) -> Self {
        Self { estimate: value, lower: value, upper: value }
    }

    /// The sum.
    #[must_use]
    pub fn add(self, other: Self) -> Self {
        Self {
            estimate: self.estimate + other.estimate,
            lower: self.lower + other.lower,
            upper: self.upper + other.upper,
        }
    }

    /// The negative.
    #[must_use]
    pub fn neg(self) -> Self {
        Self { estimate: -self.estimate, lower: -self.upper, upper: -self.lower }
    }

    /// The difference.
    #[must_use]
    pub fn sub(self, other: Self) -> Self {
        self.add(other.neg())
    }

    /// The product.
    #[must_use]
    pub fn mul(self, other: Self) -> Self {
        let ends = [
            product(self.lower, other.lower),
            product(self.lower, other.upper),
            product(self.upper, other.lower),
            product(self.upper, other.upper),
        ];
        Self {
            estimate: self.estimate * other.estimate,
            lower: ends.into_iter().fold(f64::INFINITY, f64::min),
            upper: ends.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// The ratio; without bounds where the divisor may be zero.
    #[must_use]
    pub fn div(self, other: Self) -> Self {
        let estimate = self.estimate / other.estimate;
        if other.lower <= 0.0 && other.upper >= 0.0 {
            return Self { estimate, lower: f64::NEG_INFINITY, upper: f64::INFINITY };
        }
        let inverse = Self { estimate: 1.0, lower: 1.0 / other.upper, upper: 1.0 / other.lower };
        Self { estimate, ..self.mul(inverse) }
    }

    /// The ratio of two noised numbers, such as a mean, known to lie from `lo` to `hi`: nothing more is known where the divisor may
    /// be 0 or less. Where it is estimated so, the estimate is the middle of `lo` and `hi`.
    #[must_use]
    pub fn ratio(self, other: Self, lo: f64, hi: f64) -> Self {
        let estimate = if other.estimate > 0.0 { self.estimate / other.estimate } else { f64::midpoint(lo, hi) };
        if !(other.lower > 0.0 && other.upper.is_finite()) {
            return Self { estimate, lower: lo, upper: hi }.within(lo, hi);
        }
        Self { estimate, ..self.div(other) }.within(lo, hi)
    }

    /// The distance from zero.
    #[must_use]
    pub fn abs(self) -> Self {
        let (a, b) = (self.lower.abs(), self.upper.abs());
        let lower = if self.lower <= 0.0 && self.upper >= 0.0 { 0.0 } else { a.min(b) };
        Self { estimate: self.estimate.abs(), lower, upper: a.max(b) }
    }

    /// The square root; what is below zero counts as zero.
    #[must_use]
    pub fn sqrt(self) -> Self {
        let root = |v: f64| v.max(0.0).sqrt();
        Self { estimate: root(self.estimate), lower: root(self.lower), upper: root(self.upper) }
    }

    /// The smaller of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            estimate: self.estimate.min(other.estimate),
            lower: self.lower.min(other.lower),
            upper: self.upper.min(other.upper),
        }
    }

    /// The larger of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.neg().min(other.neg()).neg()
    }

    /// Rounded to so many digits after the point, halves away from zero.
    #[must_use]
    pub fn round(self, digits: i32) -> Self {
        let ten = 10_f64.powi(digits);
        let round = |v: f64| if v.is_finite() { (v * ten).round() / ten } else { v };
        Self { estimate: round(self.estimate), lower: round(self.lower), upper: round(self.upper) }
    }

    /// With everything cut to lie between `lo` and `hi`, where the truth is known to lie.
    #[must_use]
    pub fn within(self, lo: f64, hi: f64) -> Self {
        // Unlike `clamp`, no panic should the bounds be crossed.
        let clip = |v: f64| v.max(lo).min(hi);
        let estimate = if self.estimate.is_nan() { f64::NAN } else { clip(self.estimate) };
        Self { estimate, lower: clip(self.lower), upper: clip(self.upper) }
    }

    /// n / (n - 1); without an upper bound where n may be 1 or less.
    fn bessel(self) -> Self {
        let of = |n: f64| if n == f64::INFINITY { 1.0 } else { n / (n - 1.0) };
        let upper = if self.lower > 1.0 { of(self.lower) } else { f64::INFINITY };
        let lower = if self.upper > 1.0 { of(self.upper) } else { 1.0 };
        let estimate = if self.estimate > 1.0 { of(self.estimate) } else { f64::NAN };
        Self { estimate, lower, upper }
    }
}

/// The covariance from the count of rows and the sums of x, of y and of their products; those of n - 1 where `sample`.
#[must_use]
pub fn covariance(n: Interval, x: Interval, y: Interval, xy: Interval, sample: bool) -> Interval {
    let of_all = xy.div(n).sub(x.div(n).mul(y.div(n)));
    let estimate = if n.estimate > 0.0 { of_all.estimate } else { f64::NAN };
    let of_all = Interval { estimate, ..of_all };
    if sample { of_all.mul(n.bessel()) } else { of_all }
}

/// The variance from the count of rows and the sums of x and of its squares; that of n - 1 where `sample`.
#[must_use]
pub fn variance(n: Interval, x: Interval, xx: Interval, sample: bool) -> Interval {
    covariance(n, x, x, xx, sample).within(0.0, f64::INFINITY)
}

/// The correlation from the count of rows and the sums of x, y, x², y² and xy.
#[must_use]
pub fn correlation(n: Interval, x: Interval, y: Interval, xx: Interval, yy: Interval, xy: Interval) -> Interval {
    let (vx, vy) = (variance(n, x, xx, false), variance(n, y, yy, false));
    covariance(n, x, y, xy, false).div(vx.mul(vy).sqrt()).within(-1.0, 1.0)
}

fn half_width(sd: f64, level: f64) -> f64 {
    // Exact values have no width, even at level 1.
    if sd == 0.0 { 0.0 } else { (z_two_sided(level) * sd).ceil() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{DiscreteGaussian, Variance};
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn z_matches_the_tables() {
        // Python: statistics.NormalDist().inv_cdf, and mpmath at 30 digits for the last two.
        let rows = [
            (0.5, 0.674_489_750_196_081_7, 1e-9),
            (0.90, 1.644_853_626_951_472_2, 1e-9),
            (0.95, 1.959_963_984_540_054, 1e-9),
            (0.99, 2.575_829_303_548_900_4, 1e-9),
            (1.0 - 1e-6, 4.891_638_475_698_59, 1e-8),
            (1.0 - 1e-9, 6.109_410_204_869_3, 1e-6),
            (0.0, 0.0, 0.0),
            (-1.0, 0.0, 0.0),
        ];
        for (level, expected, tolerance) in rows {
            assert!((z_two_sided(level) - expected).abs() <= tolerance, "{level}");
        }
        assert_eq!(z_two_sided(1.0), f64::INFINITY);
        assert_eq!(z_two_sided(f64::NAN), f64::INFINITY);
    }

    /// A sum whose noise has this deviation; one that is negative is none.
    fn of_sum(noisy: i128, sd: f64, scale: f64, level: f64) -> Interval {
        Interval::of_number(noisy, Spread::Gaussian { variance: sd * sd.abs() }, scale, level)
    }

    /// A ratio of two such sums, each of which fails half as often as the level allows.
    fn of_ratio(num: i128, num_sd: f64, den: i128, den_sd: f64, level: f64, lo: f64, hi: f64) -> Interval {
        let each = 1.0 - (1.0 - level) / 2.0;
        of_sum(num, num_sd, 1.0, each).ratio(of_sum(den, den_sd, 1.0, each), lo, hi)
    }

    fn check_sum(noisy: i128, sd: f64, scale: f64, level: f64, expected: [f64; 3]) {
        let got = of_sum(noisy, sd, scale, level);
        assert_eq!([got.estimate, got.lower, got.upper], expected);
    }

    #[test]
    fn a_sum_has_whole_steps_on_either_side() {
        check_sum(1000, 10.0, 1.0, 0.95, [1000.0, 980.0, 1020.0]); // 19.6 steps
        check_sum(1000, 10.0, 0.5, 0.95, [500.0, 490.0, 510.0]);
        check_sum(-3, 0.5, 1.0, 0.95, [-3.0, -4.0, -2.0]); // 0.98 steps
        check_sum(7, 0.0, 1.0, 1.0, [7.0, 7.0, 7.0]);
        check_sum(7, 1.0, 1.0, 1.0, [7.0, f64::NEG_INFINITY, f64::INFINITY]);
        check_sum(7, f64::NAN, 1.0, 0.9, [7.0, f64::NEG_INFINITY, f64::INFINITY]);
        check_sum(7, -1.0, 1.0, 0.9, [7.0, f64::NEG_INFINITY, f64::INFINITY]);
    }

    #[test]
    fn no_variance_makes_one_discrete_gaussian_miss_more_often_than_stated() {
        for variance in [0.05, 0.1, 0.25, 0.5, 1.0, 1.3, 7.0 / 3.0, 5.0, 20.0, 100.0f64] {
            let weight = |x: i128| (-(x as f64).powi(2) / (2.0 * variance)).exp();
            let total: f64 = (-200..=200).map(weight).sum();
            for level in [0.5, 0.8, 0.9, 0.95, 0.99, 0.999] {
                let half = half_width(variance.sqrt(), level) as i128;
                let covered = (-half..=half).map(weight).sum::<f64>() / total;
                assert!(covered >= level, "variance {variance}: {covered} at {level}");
            }
        }
    }

    fn noise(variance: &str, rng: &mut ChaCha20Rng) -> (i128, f64) {
        let variance: Variance = variance.parse().unwrap();
        (DiscreteGaussian::new(&variance).sample(rng), variance.standard_deviation())
    }

    #[test]
    fn sums_are_covered_as_often_as_stated_and_not_much_more() {
        const ROUNDS: usize = 4_000;
        for level in [0.80, 0.95] {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let covered = (0..ROUNDS)
                .filter(|_| {
                    let (x, sd) = noise("250000/1", &mut rng);
                    let interval = of_sum(123_456 + x, sd, 0.1, level);
                    (interval.lower..=interval.upper).contains(&12_345.6)
                })
                .count() as f64
                / ROUNDS as f64;
            assert!((covered - level).abs() < 0.02, "{covered} at {level}");
        }
    }

    #[test]
    fn a_sum_over_nodes_is_covered_within_one_percent() {
        const ROUNDS: usize = 3_000;
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let covered = (0..ROUNDS)
            .filter(|_| {
                let (x, sd) = noise("1/2", &mut rng);
                let (y, _) = noise("1/2", &mut rng);
                let (z, _) = noise("1/2", &mut rng);
                let interval = of_sum(40 + x + y + z, sd * 3f64.sqrt(), 1.0, 0.95);
                (interval.lower..=interval.upper).contains(&40.0)
            })
            .count() as f64
            / ROUNDS as f64;
        assert!(covered > 0.94, "{covered}");
    }

    #[test]
    fn ratios_are_covered_at_least_as_often_as_stated() {
        const ROUNDS: usize = 3_000;
        // (true numerator, true denominator): an age, a rate of nearly nothing, a negative mean.
        for (num, den) in [(54_000, 1_000), (5, 1_000), (-2_000, 400), (3_000, 60)] {
            let mut rng = ChaCha20Rng::seed_from_u64(3);
            let truth = num as f64 / den as f64;
            let mut width = 0.0;
            let covered = (0..ROUNDS)
                .filter(|_| {
                    let (x, num_sd) = noise("10000/1", &mut rng);
                    let (y, den_sd) = noise("400/1", &mut rng);
                    let i = of_ratio(num + x, num_sd, den + y, den_sd, 0.95, -150.0, 150.0);
                    assert!(-150.0 <= i.lower && i.lower <= i.estimate);
                    assert!(i.estimate <= i.upper && i.upper <= 150.0);
                    width += (i.upper - i.lower) / ROUNDS as f64;
                    (i.lower..=i.upper).contains(&truth)
                })
                .count() as f64
                / ROUNDS as f64;
            assert!(covered >= 0.95, "{num}/{den}: {covered}");
            assert!(width < 150.0, "{num}/{den}: a width of {width} says nothing");
        }
    }

    #[test]
    fn a_ratio_with_a_doubtful_denominator_says_only_its_bounds() {
        let rows = [
            (50, 0, 10.0, 75.0),
            (50, -3, 10.0, 75.0),
            (200, 4, 10.0, 50.0),
            (9_000, 4, 10.0, 150.0),
            (50, 5, f64::NAN, 10.0),
            (50, 5, f64::INFINITY, 10.0),
        ];
        for (num, den, den_sd, estimate) in rows {
            let got = of_ratio(num, 10.0, den, den_sd, 0.95, 0.0, 150.0);
            assert_eq!(got, Interval { estimate, lower: 0.0, upper: 150.0 }, "{num}/{den}");
        }
    }

    #[test]
    fn a_ratio_of_exact_numbers_has_no_width() {
        let got = of_ratio(-30, 0.0, 4, 0.0, 0.95, -100.0, 100.0).mul(Interval::exact(2.0));
        assert_eq!(got, Interval { estimate: -15.0, lower: -15.0, upper: -15.0 });
    }

    #[test]
    fn an_infinite_numerator_is_clipped_to_the_bounds() {
        let got = of_ratio(30, f64::NAN, 4, 0.0, 0.95, 0.0, 100.0);
        assert_eq!(got, Interval { estimate: 7.5, lower: 0.0, upper: 100.0 });
    }
}
