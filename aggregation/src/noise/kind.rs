//! The noise of one measure: which distribution, at which exact scale.

use num_bigint::BigUint;
use rand::{CryptoRng, RngCore};
use sekisho_protocol::units::MicroRho;
use serde::{Deserialize, Serialize};

use super::{DiscreteGaussian, DiscreteLaplace, ScaleError, Variance, VarianceError};
use crate::interval::Spread;

/// A distribution of noise, in steps, by exact numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Noise {
    /// Discrete Gaussian of this variance.
    Gaussian(Variance),
    /// Discrete Laplace of the scale `numerator`/`denominator`.
    Laplace {
        /// Written in decimal digits.
        numerator: Digits,
        /// Written in decimal digits.
        denominator: Digits,
    },
}

/// A number that JSON holds as text, since it may pass 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digits(u128);

impl TryFrom<String> for Digits {
    type Error = NoiseError;

    fn try_from(text: String) -> Result<Self, NoiseError> {
        let number: u128 = text.parse().map_err(|_| NoiseError::Spelling)?;
        if number.to_string() == text { Ok(Self(number)) } else { Err(NoiseError::Spelling) }
    }
}

impl From<Digits> for String {
    fn from(digits: Digits) -> Self {
        digits.0.to_string()
    }
}

/// Why there is no such noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// No such variance.
    #[error(transparent)]
    Variance(#[from] VarianceError),
    /// No such scale.
    #[error(transparent)]
    Scale(#[from] ScaleError),
    /// The text is no number as this crate writes it.
    #[error("a number of a scale is written in decimal digits without a leading 0")]
    Spelling,
}

/// A prepared sampler of a [`Noise`].
pub enum Sampler {
    /// Of the discrete Gaussian.
    Gaussian(DiscreteGaussian),
    /// Of the discrete Laplace.
    Laplace(DiscreteLaplace),
}

impl Sampler {
    /// Draws one value, in steps.
    pub fn sample<R: RngCore + CryptoRng>(&self, rng: &mut R) -> i128 {
        match self {
            Self::Gaussian(gaussian) => gaussian.sample(rng),
            Self::Laplace(laplace) => laplace.sample(rng),
        }
    }
}

impl Noise {
    /// Gaussian noise that makes a release of this squared L2 sensitivity cost `rho`.
    ///
    /// # Errors
    /// Those of [`Variance::for_squared_sensitivity`].
    pub fn gaussian(squared_sensitivity: &BigUint, rho: MicroRho) -> Result<Self, NoiseError> {
        Ok(Self::Gaussian(Variance::for_squared_sensitivity(squared_sensitivity, rho)?))
    }

    /// Laplace noise that makes a release of this L1 sensitivity epsilon-private: of scale `sensitivity` · 10^6 / `micro_epsilon`.
    ///
    /// # Errors
    /// Those of [`DiscreteLaplace::new`].
    pub fn laplace(sensitivity: &BigUint, micro_epsilon: u64) -> Result<Self, NoiseError> {
        let numerator = u128::try_from(sensitivity * 1_000_000_u32).map_err(|_| ScaleError::TooLarge)?;
        let noise = Self::Laplace { numerator: Digits(numerator), denominator: Digits(micro_epsilon.into()) };
        noise.sampler().map(|_| noise)
    }

    /// The sampler.
    ///
    /// # Errors
    /// When the numbers, which may come from elsewhere, make none.
    pub fn sampler(&self) -> Result<Sampler, NoiseError> {
        Ok(match self {
            Self::Gaussian(variance) => Sampler::Gaussian(DiscreteGaussian::new(variance)),
            Self::Laplace { numerator, denominator } => {
                Sampler::Laplace(DiscreteLaplace::new(numerator.0, denominator.0)?)
            }
        })
    }

    /// How far `terms` independent ones of this noise together may reach.
    #[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
    pub fn spread(&self, terms: u32) -> Spread {
        match self {
            Self::Gaussian(variance) => Spread::Gaussian { variance: variance.as_f64() * f64::from(terms) },
            Self::Laplace { numerator, denominator } => {
                Spread::Laplace { scale: numerator.0 as f64 / denominator.0 as f64, terms }
            }
        }
    }

    /// The standard deviation, in steps; for reports and intervals.
    ///
    /// The variance of the discrete Laplace of scale b is 2p/(1-p)² with p = exp(-1/b) (Inusah and Kozubowski 2006).
    pub fn standard_deviation(&self) -> f64 {
        match self.spread(1) {
            Spread::Gaussian { variance } => variance.sqrt(),
            Spread::Laplace { scale, .. } => {
                let p = (-1.0 / scale).exp();
                (2.0 * p).sqrt() / (-(-1.0 / scale).exp_m1())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn json_has_one_spelling() {
        let rho = MicroRho::try_from(500_000).unwrap();
        let gaussian = Noise::gaussian(&BigUint::from(9_u8), rho).unwrap();
        assert_eq!(serde_json::to_string(&gaussian).unwrap(), r#"{"gaussian":"9/1"}"#);
        let laplace = Noise::laplace(&BigUint::from(3_u8), 1_500_000).unwrap();
        let text = r#"{"laplace":{"numerator":"3000000","denominator":"1500000"}}"#;
        assert_eq!(serde_json::to_string(&laplace).unwrap(), text);
        for noise in [gaussian, laplace] {
            let text = serde_json::to_string(&noise).unwrap();
            assert_eq!(serde_json::from_str::<Noise>(&text).unwrap(), noise);
        }
        for wrong in ["\"03\"", "\"-3\"", "\"\"", "\"1e3\"", "3"] {
            assert!(serde_json::from_str::<Digits>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_kinds_have_the_deviation_that_they_say_and_stay_within_their_spread() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let rho = MicroRho::try_from(20_000).unwrap();
        for noise in [
            Noise::gaussian(&BigUint::from(4_u8), rho).unwrap(),
            Noise::laplace(&BigUint::from(2_u8), 200_000).unwrap(),
            Noise::laplace(&BigUint::from(2_u8), 3_000_000).unwrap(),
        ] {
            let sampler = noise.sampler().unwrap();
            let n = 40_000;
            let draws: Vec<f64> = (0..n).map(|_| sampler.sample(&mut rng) as f64).collect();
            let deviation = (draws.iter().map(|d| d * d).sum::<f64>() / f64::from(n)).sqrt();
            let expect = noise.standard_deviation();
            assert!((deviation / expect - 1.0).abs() < 0.03, "{noise:?}: {deviation}, not {expect}");
            for (terms, level) in [(1_u32, 0.95), (1, 0.99), (5, 0.95), (20, 0.9)] {
                let half = noise.spread(terms).half_width(level);
                let sums: Vec<f64> = draws.chunks(terms as usize).map(|c| c.iter().sum()).collect();
                let inside = sums.iter().filter(|s| s.abs() <= half).count() as f64 / sums.len() as f64;
                assert!(inside > level - 0.012, "{noise:?}, {terms} terms: {inside} inside {half}");
                // And it is no wider than half as much again as a normal one at a stricter level.
                let normal = expect * f64::from(terms).sqrt() * crate::interval::z_two_sided(1.0 - (1.0 - level) / 4.0);
                assert!(half <= 1.5 * normal + 2.0, "{noise:?}, {terms} terms: {half} is wide");
            }
        }
    }
}
