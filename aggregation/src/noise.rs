//! Exact integer noise: the discrete Gaussian, and the discrete Laplace it is made from.
//!
//! Algorithms 1 to 3 of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential
//! Privacy" (2020), on integers only: parameters are exact rationals, and every coin is decided
//! exactly, so that the distribution is the one that the theorems speak of (given uniform random
//! words). Floating-point samplers leak through their rounding (Mironov, CCS 2012).
//!
//! The random source is an argument and must be cryptographic. Every variance is positive: there is
//! deliberately no mode without noise.
//!
//! **Time is not constant**: how long a sample takes depends on the noise drawn. Answers therefore
//! leave a node at times fixed by the request, never when the sampler is done.

mod bernoulli;
mod kind;
#[cfg(test)]
mod tails;
mod variance;

use std::fmt;

use num_bigint::BigUint;
use rand::{CryptoRng, RngCore};
use thiserror::Error;

use bernoulli::{Bounds, Ratio};
pub use kind::{Noise, NoiseError, Sampler};
pub use variance::{MAX_VARIANCE_TEXT_BYTES, Variance, VarianceError};

/// Draws one value of the discrete Gaussian, in steps: P(x) proportional to exp(-x²/(2·variance)).
///
/// For many values of one variance, keep a [`DiscreteGaussian`].
pub fn sample_discrete_gaussian<R>(variance: &Variance, rng: &mut R) -> i128
where
    R: RngCore + CryptoRng + ?Sized,
{
    DiscreteGaussian::new(variance).sample(rng)
}

/// Draws one value of the discrete Laplace, in steps: P(x) proportional to
/// exp(-|x| · `scale_denominator` / `scale_numerator`).
///
/// # Errors
/// As [`DiscreteLaplace::new`].
pub fn sample_discrete_laplace<R>(
    scale_numerator: u128,
    scale_denominator: u128,
    rng: &mut R,
) -> Result<i128, ScaleError>
where
    R: RngCore + CryptoRng + ?Sized,
{
    Ok(DiscreteLaplace::new(scale_numerator, scale_denominator)?.sample(rng))
}

/// The discrete Gaussian of mean zero and a fixed variance (Algorithm 3), prepared for many draws.
///
/// It holds public parameters only; the noise drawn is nowhere kept.
pub struct DiscreteGaussian {
    variance: Variance,
    candidates: Exponential,
    /// Present where the fixed point of [`Acceptance`] can represent the parameters.
    acceptance: Option<Acceptance>,
}

impl DiscreteGaussian {
    /// Prepares the distribution.
    #[must_use]
    pub fn new(variance: &Variance) -> Self {
        Self {
            variance: variance.clone(),
            candidates: Exponential::new(variance.ceiling()),
            acceptance: Acceptance::new(variance),
        }
    }

    /// Draws one value, in steps.
    ///
    /// A value beyond an `i128` is cut to its nearest end. That is post-processing, and as the
    /// standard deviation is at most 2^120, its probability is below exp(-8000).
    pub fn sample<R>(&self, rng: &mut R) -> i128
    where
        R: RngCore + CryptoRng + ?Sized,
    {
        loop {
            let candidate = self.candidates.draw(rng);
            let negative = toss(rng);
            // Zero has one sign only, or it would come out twice as often.
            if negative && candidate.is_zero() {
                continue;
            }
            let bounds = self.acceptance.as_ref().and_then(|curve| curve.gamma(&candidate));
            let exact = || self.gamma(&candidate);
            if bernoulli::exp_minus(bounds.unwrap_or(Bounds::UNKNOWN), exact, rng) {
                return signed(self.candidates.floor_of(&candidate, 1), negative);
            }
        }
    }

    /// (|y| - variance/t)² / (2·variance), the exponent that turns Laplace into Gaussian.
    fn gamma(&self, candidate: &Candidate) -> Ratio {
        let (n, d) = (self.variance.numerator(), self.variance.denominator());
        let t = BigUint::from(self.candidates.t);
        let y = &t * candidate.whole + candidate.part;
        let (scaled, dt) = (y * d * &t, d * &t);
        let distance = if scaled >= *n { scaled - n } else { n - scaled };
        Ratio { numerator: &distance * &distance, denominator: n * dt * t * 2u8 }
    }

    /// The same distribution with every coin decided in big integers.
    #[cfg(test)]
    fn in_big_integers(variance: &Variance) -> Self {
        let mut gaussian = Self::new(variance);
        gaussian.acceptance = None;
        gaussian.candidates.always_exact = true;
        gaussian
    }
}

impl fmt::Debug for DiscreteGaussian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiscreteGaussian(variance {})", self.variance)
    }
}

/// The discrete Laplace of mean zero and a fixed rational scale (Algorithm 2), prepared for many draws.
///
/// A release of L1 sensitivity D steps with noise of scale D/epsilon is epsilon-private.
pub struct DiscreteLaplace {
    candidates: Exponential,
    scale_denominator: u128,
}

/// Why a scale was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScaleError {
    /// A part of the fraction was zero.
    #[error("a scale must be a positive fraction: neither part may be 0")]
    NotPositive,
    /// So little noise would be none.
    #[error("the scale is below 1/{MAX_INVERSE_SCALE}: lower epsilon, or use smaller steps")]
    TooSmall,
    /// The noise would outgrow its type.
    #[error("the numerator of a scale may be at most 2^120: use narrower bounds or larger steps")]
    TooLarge,
}

/// The least scale is one over this: epsilon²/2 then is a rho of a billion, the ceiling for synthetic data.
const MAX_INVERSE_SCALE: u128 = 44_722;

impl DiscreteLaplace {
    /// Prepares the distribution of scale `numerator`/`denominator`, in steps.
    ///
    /// # Errors
    /// Where a part is zero, the scale is below 1/44,722, or the numerator above 2^120.
    pub fn new(numerator: u128, denominator: u128) -> Result<Self, ScaleError> {
        if numerator == 0 || denominator == 0 {
            return Err(ScaleError::NotPositive);
        }
        if numerator > 1 << 120 {
            return Err(ScaleError::TooLarge);
        }
        if denominator.div_ceil(MAX_INVERSE_SCALE) > numerator {
            return Err(ScaleError::TooSmall);
        }
        Ok(Self { candidates: Exponential::new(numerator), scale_denominator: denominator })
    }

    /// Draws one value, in steps; one beyond an `i128` is cut to its nearest end, which is
    /// post-processing and has a probability below exp(-127).
    pub fn sample<R>(&self, rng: &mut R) -> i128
    where
        R: RngCore + CryptoRng + ?Sized,
    {
        loop {
            let candidate = self.candidates.draw(rng);
            let magnitude = self.candidates.floor_of(&candidate, self.scale_denominator);
            let negative = toss(rng);
            if !(negative && magnitude == 0) {
                return signed(magnitude, negative);
            }
        }
    }
}

impl fmt::Debug for DiscreteLaplace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiscreteLaplace(scale {}/{})", self.candidates.t, self.scale_denominator)
    }
}

/// The non-negative integers x with P(x) proportional to exp(-x/t): the loop inside Algorithm 2.
struct Exponential {
    t: u128,
    /// t without its lowest `shift` bits has at most 62.
    shift: u32,
    #[cfg(test)]
    always_exact: bool,
}

/// x = part + t·whole, with part below t. No `Debug`: it becomes noise.
struct Candidate {
    part: u128,
    whole: u64,
    /// Of part/t.
    bounds: Bounds,
}

impl Candidate {
    fn is_zero(&self) -> bool {
        self.part == 0 && self.whole == 0
    }
}

impl Exponential {
    /// `t` is from 1 to 2^120.
    fn new(t: u128) -> Self {
        let shift = (u128::BITS - t.leading_zeros()).saturating_sub(62);
        Self {
            t,
            shift,
            #[cfg(test)]
            always_exact: false,
        }
    }

    fn draw<R>(&self, rng: &mut R) -> Candidate
    where
        R: RngCore + CryptoRng + ?Sized,
    {
        loop {
            let part = below(self.t, rng);
            let bounds = self.bounds(part);
            let exact = || Ratio { numerator: part.into(), denominator: self.t.into() };
            if !bernoulli::exp_minus_fraction(bounds, exact, rng) {
                continue;
            }
            let mut whole = 0u64;
            while bernoulli::exp_minus_one(rng) {
                whole += 1;
            }
            return Candidate { part, whole, bounds };
        }
    }

    /// Bounds on part/t from the leading 62 bits of t.
    fn bounds(&self, part: u128) -> Bounds {
        #[cfg(test)]
        if self.always_exact {
            return Bounds::UNKNOWN;
        }
        let quotient = ((part >> self.shift) << 64) / (self.t >> self.shift);
        // The bits cut off part move the quotient by less than 2^64/2^61 = 8; so do those cut off t,
        // the other way.
        let slack = if self.shift == 0 { 0 } else { 8 };
        Bounds { lower: quotient.saturating_sub(slack), upper: quotient + 1 + slack }
    }

    /// floor(x / divisor), with x cut at 2^128 - 1.
    fn floor_of(&self, candidate: &Candidate, divisor: u128) -> u128 {
        let whole = self.t.saturating_mul(u128::from(candidate.whole));
        whole.saturating_add(candidate.part) / divisor
    }
}

/// Bounds on the exponent of Algorithm 3 in fixed point.
///
/// With r = variance/t² and y = |candidate|/t, the exponent is (y - r)² / (2r).
struct Acceptance {
    /// floor(r · 2^60); r < 1.
    ratio: u128,
    /// floor(2^48 / (2r)), at most 2^55.
    half_inverse: u128,
}

impl Acceptance {
    /// None where r is below 2^-8: the variance is then below 1/256, and rarely used.
    fn new(variance: &Variance) -> Option<Self> {
        let t = BigUint::from(variance.ceiling());
        let (n, dtt) = (variance.numerator(), variance.denominator() * &t * &t);
        let ratio = u128::try_from((n << 60u32) / &dtt).ok()?;
        let half_inverse = u128::try_from((dtt << 47u32) / n).ok()?;
        (half_inverse < 1 << 55).then_some(Self { ratio, half_inverse })
    }

    /// None where y is 15 or more, whose square would overflow.
    fn gamma(&self, candidate: &Candidate) -> Option<Bounds> {
        if candidate.whole >= 15 {
            return None;
        }
        let whole = u128::from(candidate.whole) << 60;
        let (y_lower, y_upper) = (whole + (candidate.bounds.lower >> 4), whole + (candidate.bounds.upper >> 4) + 1);
        let (r_lower, r_upper) = (self.ratio, self.ratio + 1);
        let nearest = y_lower.saturating_sub(r_upper).max(r_lower.saturating_sub(y_upper));
        let farthest = y_upper.saturating_sub(r_lower).max(r_upper.saturating_sub(y_lower));
        // Squares have 120 fractional bits, of which 60 are kept; the products have 108.
        let lower = ((nearest * nearest) >> 60) * self.half_inverse;
        let upper = (((farthest * farthest) >> 60) + 1) * (self.half_inverse + 1);
        Some(Bounds { lower: lower >> 44, upper: (upper >> 44) + 1 })
    }
}

/// A uniform integer below `limit`, which is at least 1, by rejection.
fn below<R>(limit: u128, rng: &mut R) -> u128
where
    R: RngCore + CryptoRng + ?Sized,
{
    let unused = (limit - 1).leading_zeros();
    if unused == u128::BITS {
        return 0;
    }
    let mask = u128::MAX >> unused;
    loop {
        let mut word = u128::from(rng.next_u64());
        if unused < 64 {
            word = word << 64 | u128::from(rng.next_u64());
        }
        if word & mask < limit {
            return word & mask;
        }
    }
}

fn toss<R>(rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    rng.next_u64() >> 63 == 1
}

/// Cut to `i128::MAX` where the magnitude is larger.
fn signed(magnitude: u128, negative: bool) -> i128 {
    let magnitude = i128::try_from(magnitude).unwrap_or(i128::MAX);
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use sekisho_protocol::units::MicroRho;
    use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};
    use std::collections::BTreeMap;

    fn variance(text: &str) -> Variance {
        text.parse().unwrap()
    }

    /// Sums of 2^32 rows of at most 30,000.00 at a rho of one thousandth.
    fn huge() -> Variance {
        Variance::for_sensitivity((1 << 32) * 100 * 30_000, MicroRho::try_from(1000).unwrap()).unwrap()
    }

    /// Its t is 2^99 + 2^38 - 1: the 38 bits cut off are all ones, below the least 62-bit number.
    fn ragged() -> Variance {
        let deviation = (BigUint::from(1u8) << 99u32) + (1u64 << 38) - 2u8;
        Variance::from_fraction(&deviation * &deviation, 1u8.into()).unwrap()
    }

    fn draw(gaussian: &DiscreteGaussian, count: usize, seed: u64) -> Vec<i128> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        (0..count).map(|_| gaussian.sample(&mut rng)).collect()
    }

    /// The p-value of Pearson's test of integers against weights, tails pooled to 5 expected or more.
    fn p_value(samples: &[i128], weight: impl Fn(i128) -> f64) -> f64 {
        let reach = (0..).find(|x| weight(*x) < 1e-12).unwrap();
        let total: f64 = (-reach..=reach).map(&weight).sum();
        let expected = |x: i128| weight(x) / total * samples.len() as f64;
        let edge = (0..reach).take_while(|x| expected(*x) >= 5.0).last().unwrap();
        let mut bins: BTreeMap<i128, (f64, f64)> = BTreeMap::new();
        for x in -reach..=reach {
            bins.entry(x.clamp(-edge, edge)).or_default().0 += expected(x);
        }
        for x in samples {
            bins.get_mut(&(*x).clamp(-edge, edge)).unwrap().1 += 1.0;
        }
        let statistic: f64 = bins.values().map(|(e, seen)| (seen - e).powi(2) / e).sum();
        ChiSquared::new(bins.len() as f64 - 1.0).unwrap().sf(statistic)
    }

    fn gaussian_weight(variance: f64) -> impl Fn(i128) -> f64 {
        move |x| (-(x as f64).powi(2) / (2.0 * variance)).exp()
    }

    #[test]
    fn the_gaussian_passes_chi_square_at_its_own_variance_and_fails_at_others() {
        for (seed, text) in [(1, "1/4"), (2, "1/1"), (3, "7/3"), (4, "100/1"), (5, "12345/67")] {
            let variance = variance(text);
            let samples = draw(&DiscreteGaussian::new(&variance), 40_000, seed);
            let p = p_value(&samples, gaussian_weight(variance.as_f64()));
            assert!(p > 1e-3, "{text}: p = {p}");
            for wrong in [0.9, 1.1] {
                let p = p_value(&samples, gaussian_weight(variance.as_f64() * wrong));
                assert!(p < 1e-6, "{text}: the test cannot tell a variance times {wrong}: p = {p}");
            }
        }
    }

    #[test]
    fn the_big_integer_path_has_the_same_distribution() {
        for (seed, text) in [(11, "1/4"), (12, "7/3"), (13, "100/1")] {
            let variance = variance(text);
            let samples = draw(&DiscreteGaussian::in_big_integers(&variance), 4_000, seed);
            let p = p_value(&samples, gaussian_weight(variance.as_f64()));
            assert!(p > 1e-3, "{text}: p = {p}");
            let p = p_value(&samples, gaussian_weight(variance.as_f64() * 1.5));
            assert!(p < 1e-6, "{text}: the test cannot tell a wrong variance: p = {p}");
        }
    }

    #[test]
    fn both_paths_give_the_same_values_from_the_same_words() {
        let texts = ["1/1000", "1/4", "1/2", "1/1", "7/3", "100/1", "999999999989/3"];
        for variance in texts.map(variance).into_iter().chain([huge(), ragged()]) {
            let mut fast = ChaCha20Rng::seed_from_u64(21);
            let mut exact = ChaCha20Rng::seed_from_u64(21);
            let (quick, big) = (DiscreteGaussian::new(&variance), DiscreteGaussian::in_big_integers(&variance));
            for _ in 0..300 {
                assert_eq!(quick.sample(&mut fast), big.sample(&mut exact), "{variance}");
            }
            assert_eq!(fast.get_word_pos(), exact.get_word_pos(), "{variance}");
        }
    }

    #[test]
    fn fixed_point_bounds_enclose_the_exact_exponents_closely() {
        // 4/3 and 1/4 have a whole half_inverse, which leaves no other slack than that of r.
        let plain = ["1/4", "1/1", "4/3", "7/3", "100/1", "999999999989/3"].map(variance);
        for variance in plain.into_iter().chain([huge(), ragged()]) {
            let gaussian = DiscreteGaussian::new(&variance);
            let t = gaussian.candidates.t;
            for part in [0, 1 % t, t / 3, t / 2, t - 1] {
                let bounds = gaussian.candidates.bounds(part);
                check_enclosed(bounds, &Ratio { numerator: part.into(), denominator: t.into() }, 17);
                for whole in 0..15 {
                    let candidate = Candidate { part, whole, bounds };
                    let gamma = gaussian.acceptance.as_ref().unwrap().gamma(&candidate).unwrap();
                    check_enclosed(gamma, &gaussian.gamma(&candidate), 1 << 25);
                }
            }
        }
    }

    fn check_enclosed(bounds: Bounds, exact: &Ratio, widest: u128) {
        let scaled = &exact.numerator << 64u32;
        assert!(&exact.denominator * bounds.lower <= scaled);
        assert!(scaled <= &exact.denominator * bounds.upper);
        assert!(bounds.upper - bounds.lower <= widest, "bounds so wide are no gain");
    }

    #[test]
    fn a_huge_variance_keeps_its_mean_variance_and_shape() {
        const COUNT: usize = 10_000;
        let variance = huge();
        let sigma = variance.standard_deviation();
        let scaled: Vec<f64> =
            draw(&DiscreteGaussian::new(&variance), COUNT, 31).iter().map(|x| *x as f64 / sigma).collect();
        let count = COUNT as f64;
        let mean = scaled.iter().sum::<f64>() / count;
        let square = scaled.iter().map(|x| x * x).sum::<f64>() / count;
        // Four standard errors: 0.04 and 0.057.
        assert!(mean.abs() < 4.0 / count.sqrt(), "mean {mean} sigma");
        assert!((square - 1.0).abs() < 4.0 * (2.0 / count).sqrt(), "variance {square} sigma²");
        // Twenty bins that a normal variable fills alike.
        let normal = Normal::standard();
        let mut bins = [0.0f64; 20];
        for x in &scaled {
            bins[(normal.cdf(*x) * 20.0) as usize] += 1.0;
        }
        let each = count / 20.0;
        let statistic: f64 = bins.iter().map(|seen| (seen - each).powi(2) / each).sum();
        assert!(ChiSquared::new(19.0).unwrap().sf(statistic) > 1e-3, "{bins:?}");
    }

    #[test]
    fn both_signs_are_alike_and_zero_comes_once() {
        const COUNT: usize = 40_000;
        let samples = draw(&DiscreteGaussian::new(&variance("7/3")), COUNT, 51);
        for size in 1..=4i128 {
            let plus = samples.iter().filter(|x| **x == size).count() as f64;
            let minus = samples.iter().filter(|x| **x == -size).count() as f64;
            assert!((plus - minus).abs() < 4.0 * (plus + minus).sqrt(), "{size}: {plus}, {minus}");
        }
        let weight = gaussian_weight(7.0 / 3.0);
        let p = 1.0 / (-50..=50).map(&weight).sum::<f64>();
        let zeros = samples.iter().filter(|x| **x == 0).count() as f64;
        let deviation = (COUNT as f64 * p * (1.0 - p)).sqrt();
        assert!((zeros - COUNT as f64 * p).abs() < 4.0 * deviation, "{zeros} zeros");
    }

    #[test]
    fn the_laplace_passes_chi_square_at_its_own_scale_and_fails_at_others() {
        for (numerator, denominator) in [(1, 2), (1, 1), (5, 3), (20, 1), (1 << 70, 1 << 68)] {
            let mut rng = ChaCha20Rng::seed_from_u64(61);
            let laplace = DiscreteLaplace::new(numerator, denominator).unwrap();
            let samples: Vec<i128> = (0..20_000).map(|_| laplace.sample(&mut rng)).collect();
            let scale = numerator as f64 / denominator as f64;
            let at = |scale: f64| p_value(&samples, move |x| (-(x.abs() as f64) / scale).exp());
            assert!(at(scale) > 1e-3, "{numerator}/{denominator}: p = {}", at(scale));
            assert!(at(scale * 1.1) < 1e-6, "{numerator}/{denominator}: {}", at(scale * 1.1));
        }
    }

    #[test]
    fn a_scale_without_noise_or_beyond_the_type_is_refused() {
        let rows = [
            (0, 1, Some(ScaleError::NotPositive)),
            (1, 0, Some(ScaleError::NotPositive)),
            (1, 44_722, None),
            (1, 44_723, Some(ScaleError::TooSmall)),
            (1, u128::MAX, Some(ScaleError::TooSmall)),
            (1 << 120, 1, None),
            ((1 << 120) + 1, 1, Some(ScaleError::TooLarge)),
        ];
        for (numerator, denominator, expected) in rows {
            assert_eq!(DiscreteLaplace::new(numerator, denominator).err(), expected);
        }
    }

    #[test]
    fn values_at_the_limit_of_the_type_are_cut_not_wrapped() {
        assert_eq!(signed(u128::MAX, false), i128::MAX);
        assert_eq!(signed(u128::MAX, true), -i128::MAX);
        let exponential = Exponential::new(1 << 120);
        let candidate = Candidate { part: 5, whole: u64::MAX, bounds: Bounds::UNKNOWN };
        assert_eq!(exponential.floor_of(&candidate, 1), u128::MAX);
        let widest = Variance::from_fraction((BigUint::from(1u8) << 240u32) - 1u8, 1u8.into());
        let samples = draw(&DiscreteGaussian::new(&widest.unwrap()), 200, 71);
        assert!(samples.iter().all(|x| x.unsigned_abs() < 1 << 124));
        assert!(samples.iter().any(|x| x.unsigned_abs() > 1 << 118));
    }

    #[test]
    fn a_sampler_prints_its_public_parameters_and_its_type_is_ready_for_threads() {
        let gaussian = DiscreteGaussian::new(&variance("7/3"));
        assert_eq!(format!("{gaussian:?}"), "DiscreteGaussian(variance 7/3)");
        let laplace = DiscreteLaplace::new(5, 3).unwrap();
        assert_eq!(format!("{laplace:?}"), "DiscreteLaplace(scale 5/3)");
        static_assertions::assert_impl_all!(DiscreteGaussian: Send, Sync);
        static_assertions::assert_not_impl_any!(Candidate: fmt::Debug, Clone);
    }
}
