//! The variance of the noise, as an exact rational that receipts can print.
//!
//! A release whose cells have joint L2 sensitivity D (neighbours differ by one patient with all
//! their rows) and whose every cell gets independent discrete Gaussian noise of variance
//! D² / (2 rho) is rho-zCDP: Theorems 4 and 14 of Canonne, Kamath and Steinke, "The Discrete
//! Gaussian for Differential Privacy" (2020).
//!
//! A value of this type is positive, within fixed limits, and has one spelling. There is
//! deliberately no zero: noise cannot be turned off through a parameter.

use std::fmt;
use std::str::FromStr;

use num_bigint::BigUint;
use sekisho_protocol::units::MicroRho;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest text form read, in bytes.
pub const MAX_VARIANCE_TEXT_BYTES: usize = 256;

/// The standard deviation stays below 2 to this power, so that noise fits an `i128`.
const MAX_DEVIATION_BITS: u64 = 120;

/// Numerator and denominator each stay below 2 to this power, which bounds the exact arithmetic.
const MAX_PART_BITS: u64 = 384;

/// The least variance is one over this: sensitivity 1 at the ceiling for synthetic data, 10^15 micro-rho.
const MAX_INVERSE: u64 = 2_000_000_000;

/// The variance of integer noise, in squared steps of the cell it is added to: an exact, positive,
/// reduced fraction from 1/(2·10^9) to below 2^240.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variance {
    numerator: BigUint,
    denominator: BigUint,
    /// floor(sigma) + 1, which the sampler needs and the upper limit is checked with.
    ceiling: u128,
}

/// Why a variance was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VarianceError {
    /// The rho was zero, which buys no release.
    #[error("rho is 0 micro-rho: a release needs at least 1")]
    NoRho,
    /// The sensitivity was zero: either nothing depends on patients, or an analysis went wrong.
    #[error("the sensitivity is 0: what no patient can change must not be sent through the noise")]
    NoSensitivity,
    /// The fraction was zero, or had a zero denominator.
    #[error("a variance must be a positive fraction: neither part may be 0")]
    NotPositive,
    /// So little noise would be none.
    #[error("the variance is below 1/{MAX_INVERSE}: lower rho, or use smaller steps")]
    TooSmall,
    /// The noise, or the exact arithmetic behind it, would outgrow its limits.
    #[error(
        "the variance must stay below 2^{} and its parts below 2^{MAX_PART_BITS}: use narrower bounds or larger steps",
        2 * MAX_DEVIATION_BITS
    )]
    TooLarge,
    /// The text was not two decimal numbers and a slash.
    #[error(
        "a variance is written `numerator/denominator` in lowest terms, digits only, no leading 0, at most {MAX_VARIANCE_TEXT_BYTES} bytes"
    )]
    Spelling,
}

impl Variance {
    /// The variance that makes a release of this L2 sensitivity (in steps) cost `rho`.
    ///
    /// # Errors
    /// As [`Variance::for_squared_sensitivity`].
    pub fn for_sensitivity(sensitivity: u128, rho: MicroRho) -> Result<Self, VarianceError> {
        let sensitivity = BigUint::from(sensitivity);
        Self::for_squared_sensitivity(&(&sensitivity * &sensitivity), rho)
    }

    /// The variance that makes a release of this *squared* L2 sensitivity (in squared steps) cost
    /// `rho`: exactly `squared_sensitivity` · 500,000 / `rho.get()`.
    ///
    /// # Errors
    /// Where sensitivity or rho is zero, or the variance lies outside the limits of the type.
    pub fn for_squared_sensitivity(squared_sensitivity: &BigUint, rho: MicroRho) -> Result<Self, VarianceError> {
        if rho == MicroRho::ZERO {
            return Err(VarianceError::NoRho);
        }
        if squared_sensitivity.bits() == 0 {
            return Err(VarianceError::NoSensitivity);
        }
        Self::from_fraction(squared_sensitivity * 500_000u32, BigUint::from(rho.get()))
    }

    /// The variance `numerator`/`denominator`, brought to lowest terms.
    ///
    /// # Errors
    /// Where either part is zero, or the value lies outside the limits of the type.
    pub fn from_fraction(numerator: BigUint, denominator: BigUint) -> Result<Self, VarianceError> {
        if numerator.bits() == 0 || denominator.bits() == 0 {
            return Err(VarianceError::NotPositive);
        }
        let divisor = greatest_common_divisor(numerator.clone(), denominator.clone());
        let (numerator, denominator) = (numerator / &divisor, denominator / &divisor);
        if &numerator * MAX_INVERSE < denominator {
            return Err(VarianceError::TooSmall);
        }
        if numerator.bits().max(denominator.bits()) > MAX_PART_BITS {
            return Err(VarianceError::TooLarge);
        }
        // The root of the whole part has the same whole part as the root.
        let ceiling = u128::try_from((&numerator / &denominator).sqrt() + 1u8)
            .ok()
            .filter(|ceiling| *ceiling <= 1 << MAX_DEVIATION_BITS)
            .ok_or(VarianceError::TooLarge)?;
        Ok(Self { numerator, denominator, ceiling })
    }

    /// The numerator, in lowest terms.
    #[must_use]
    pub fn numerator(&self) -> &BigUint {
        &self.numerator
    }

    /// The denominator, in lowest terms.
    #[must_use]
    pub fn denominator(&self) -> &BigUint {
        &self.denominator
    }

    /// The nearest float or its neighbour, in squared steps; for reports and intervals, never for sampling.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        let shift = 66 + bits(&self.denominator) - bits(&self.numerator);
        let quotient = if shift >= 0 {
            (&self.numerator << shift.unsigned_abs()) / &self.denominator
        } else {
            &self.numerator / (&self.denominator << shift.unsigned_abs())
        };
        // The quotient has 66 or 67 bits.
        let mantissa = u128::try_from(quotient).unwrap_or(u128::MAX);
        mantissa as f64 * 2f64.powi(-shift)
    }

    /// The standard deviation as a float, in steps; for reports and intervals, never for sampling.
    #[must_use]
    pub fn standard_deviation(&self) -> f64 {
        self.as_f64().sqrt()
    }

    /// floor(sigma) + 1, at most 2^120.
    pub(super) fn ceiling(&self) -> u128 {
        self.ceiling
    }
}

impl fmt::Display for Variance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

impl FromStr for Variance {
    type Err = VarianceError;

    fn from_str(text: &str) -> Result<Self, VarianceError> {
        if text.len() > MAX_VARIANCE_TEXT_BYTES {
            return Err(VarianceError::Spelling);
        }
        let (numerator, denominator) = text.split_once('/').ok_or(VarianceError::Spelling)?;
        let variance = Self::from_fraction(decimal(numerator)?, decimal(denominator)?)?;
        // One value, one spelling: receipts are compared as bytes.
        (variance.to_string() == text).then_some(variance).ok_or(VarianceError::Spelling)
    }
}

impl TryFrom<String> for Variance {
    type Error = VarianceError;

    fn try_from(text: String) -> Result<Self, VarianceError> {
        text.parse()
    }
}

impl From<Variance> for String {
    fn from(variance: Variance) -> Self {
        variance.to_string()
    }
}

/// Digits only: the library's own parser would also take signs and underscores.
fn decimal(text: &str) -> Result<BigUint, VarianceError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(VarianceError::Spelling);
    }
    BigUint::parse_bytes(text.as_bytes(), 10).ok_or(VarianceError::Spelling)
}

/// The length in bits, which the limits of the type keep far inside an `i32`.
fn bits(number: &BigUint) -> i32 {
    i32::try_from(number.bits()).unwrap_or(i32::MAX)
}

fn greatest_common_divisor(mut a: BigUint, mut b: BigUint) -> BigUint {
    while b.bits() > 0 {
        (a, b) = (b.clone(), a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rho(micro_rho: u64) -> MicroRho {
        MicroRho::try_from(micro_rho).unwrap()
    }

    fn check_text(text: &str, expected: Result<f64, VarianceError>) {
        let parsed: Result<Variance, _> = text.parse();
        assert_eq!(parsed.as_ref().map(Variance::as_f64).map_err(|e| *e), expected, "{text}");
        if let Ok(variance) = parsed {
            assert_eq!(variance.to_string(), text);
            let json = serde_json::to_string(&variance).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Variance>(&json).unwrap(), variance);
        }
    }

    #[test]
    fn a_variance_has_one_spelling() {
        let long = "9".repeat(MAX_VARIANCE_TEXT_BYTES);
        let rows = [
            ("1/4", Ok(0.25)),
            ("7/3", Ok(7.0 / 3.0)),
            ("100/1", Ok(100.0)),
            ("1/2000000000", Ok(5e-10)),
            ("1/2000000001", Err(VarianceError::TooSmall)),
            ("0/1", Err(VarianceError::NotPositive)),
            ("1/0", Err(VarianceError::NotPositive)),
            ("2/8", Err(VarianceError::Spelling)),
            ("01/4", Err(VarianceError::Spelling)),
            ("+1/4", Err(VarianceError::Spelling)),
            ("1_0/7", Err(VarianceError::Spelling)),
            (" 1/4", Err(VarianceError::Spelling)),
            ("1/4/1", Err(VarianceError::Spelling)),
            ("1", Err(VarianceError::Spelling)),
            ("/", Err(VarianceError::Spelling)),
            ("-1/4", Err(VarianceError::Spelling)),
            ("1.5/4", Err(VarianceError::Spelling)),
            (&format!("{}/1", &long[..200]), Err(VarianceError::TooLarge)),
            (&format!("{long}/1"), Err(VarianceError::Spelling)),
        ];
        for (text, expected) in rows {
            check_text(text, expected);
        }
    }

    #[test]
    fn the_variance_is_squared_sensitivity_over_twice_rho() {
        // (sensitivity, micro-rho, numerator/denominator)
        let rows = [
            (1, 500_000, "1/1"),
            (1, 1_000_000, "1/2"),
            (3, 7, "4500000/7"),
            (10, 3_000, "50000/3"),
            (1, 1_000_000_000_000_000, "1/2000000000"),
        ];
        for (sensitivity, micro_rho, expected) in rows {
            let variance = Variance::for_sensitivity(sensitivity, rho(micro_rho)).unwrap();
            assert_eq!(variance.to_string(), expected);
        }
    }

    #[test]
    fn no_rho_no_sensitivity_and_unbounded_noise_are_refused() {
        use VarianceError::*;
        let rows = [(1, 0, NoRho), (0, 1, NoSensitivity), (u128::MAX, 1, TooLarge)];
        for (sensitivity, micro_rho, expected) in rows {
            assert_eq!(Variance::for_sensitivity(sensitivity, rho(micro_rho)), Err(expected));
        }
    }

    #[test]
    fn the_upper_limit_is_a_deviation_of_2_to_the_120() {
        let limit = BigUint::from(1u8) << 240u32;
        let below = Variance::from_fraction(&limit - 1u8, BigUint::from(1u8)).unwrap();
        assert_eq!(below.ceiling(), 1 << 120);
        assert_eq!(below.as_f64(), 2f64.powi(240));
        assert_eq!(Variance::from_fraction(limit, BigUint::from(1u8)), Err(VarianceError::TooLarge));
    }

    #[test]
    fn the_largest_sensitivity_of_the_design_fits() {
        // 2^32 rows of 10^6 micro-weights, each worth up to 10^9 steps.
        let sensitivity = (1u128 << 32) * 1_000_000 * 1_000_000_000;
        let variance = Variance::for_sensitivity(sensitivity, rho(1)).unwrap();
        let expected = (sensitivity as f64).powi(2) * 500_000.0;
        assert!((variance.as_f64() / expected - 1.0).abs() < 1e-14);
        assert!(variance.to_string().len() < MAX_VARIANCE_TEXT_BYTES);
        assert!((variance.standard_deviation() / expected.sqrt() - 1.0).abs() < 1e-14);
    }
}
