//! A random source under which the exact samplers draw 0: only for tests, which alone depend on this package.
//!
//! The discrete Gaussian asks for a candidate (part, then whole), a sign and an acceptance. Words that are all zeros and
//! all ones by turns make the part 0, the whole 0, the sign positive, and accept. So it is for variances from 1 to 2^127;
//! [`is_zero_for`] says whether it is for a given one, and everything that relies on this source asks it.

use rand::{CryptoRng, RngCore};
use sekisho_aggregation::noise::{DiscreteGaussian, Variance};

/// Zeros and ones by turns.
#[derive(Default)]
pub struct ZeroNoise {
    ones: bool,
}

impl RngCore for ZeroNoise {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap_or_default()
    }

    fn next_u64(&mut self) -> u64 {
        self.ones = !self.ones;
        if self.ones { 0 } else { u64::MAX }
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

impl CryptoRng for ZeroNoise {}

/// Whether noise of this variance is 0, draw after draw.
pub fn is_zero_for(variance: &Variance) -> bool {
    let (noise, mut words) = (DiscreteGaussian::new(variance), ZeroNoise::default());
    (0..4).all(|_| noise.sample(&mut words) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_zero_for_variances_from_1_to_2_to_the_127() {
        for (variance, zero) in [
            ("1/1", true),
            ("3/2", true),
            ("1000/1", true),
            ("18446744073709551616/1", true),
            ("170141183460469231731687303715884105727/1", true),
            ("1/4", false),
        ] {
            assert_eq!(is_zero_for(&variance.parse().unwrap()), zero, "{variance}");
        }
    }
}
