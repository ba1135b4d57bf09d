//! A random source under which the exact sampler draws 0: only for tests, which alone depend on this package.
//!
//! The discrete Gaussian asks for a candidate (its part below t, one coin for that, then its whole), a sign and an
//! acceptance. The words make the part 0, the whole 0, the sign positive, and accept. How many words the part takes depends
//! on t = floor(standard deviation) + 1. A sampler that asks for other words, or more, stops the test.

use rand::{CryptoRng, RngCore};
use sekisho_aggregation::{
    noise::{DiscreteGaussian, Noise, Variance},
    release::ReleaseHeader,
};

const ONES: u64 = u64::MAX;
/// After the part: its coin, twice for the whole, the sign, the acceptance.
const REST: [u64; 5] = [ONES, 0, ONES, 0, ONES];

/// The words of as many draws as it was made for.
pub struct ZeroNoise(std::vec::IntoIter<u64>);

impl ZeroNoise {
    /// For a release with the header of another one of the same plan, whose group keys are public.
    pub fn for_release(header: &ReleaseHeader) -> Self {
        let measures = header.parts.iter().flat_map(|part| &part.measures);
        let words = measures.flat_map(|m| match m.noise.as_ref().expect("a noised release") {
            Noise::Gaussian(variance) => words(variance, m.numbers),
            Noise::Laplace { .. } => panic!("the zero-noise source is for Gaussian noise"),
        });
        Self(words.collect::<Vec<_>>().into_iter())
    }
}

fn words(variance: &Variance, draws: usize) -> Vec<u64> {
    let deviation = variance.standard_deviation();
    // t = 1 takes no word, and one above 2^64 takes two.
    let part = if deviation < 1.0 { 0 } else { 1 + usize::from(deviation >= 2_f64.powi(64)) };
    let one: Vec<u64> = std::iter::repeat_n(0, part).chain(REST).collect();
    one.repeat(draws)
}

impl RngCore for ZeroNoise {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap_or_default()
    }

    fn next_u64(&mut self) -> u64 {
        self.0
            .next()
            .expect("the sampler asks for more words than a draw of 0 takes: the zero-noise source is out of date")
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        assert!(self.0.next().is_none(), "the sampler asks for fewer words: the zero-noise source is out of date");
        bytes.fill(0);
    }
}

impl CryptoRng for ZeroNoise {}

/// Whether noise of this variance is 0, draw after draw.
pub fn is_zero_for(variance: &Variance) -> bool {
    let noise = DiscreteGaussian::new(variance);
    let mut words = ZeroNoise(words(variance, 3).into_iter());
    (0..3).all(|_| noise.sample(&mut words) == 0) && words.0.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_zero_whatever_the_variance() {
        for exponent in [0_u32, 1, 2, 31, 64, 100, 126, 127] {
            for fraction in [format!("{}/1", 1_u128 << exponent), format!("{}/7", 1_u128 << exponent)] {
                assert!(is_zero_for(&fraction.parse().unwrap()), "{fraction}");
            }
        }
        for wide in ["340282366920938463463374607431768211456/1", "1000000000000000000000000000000000000000000000/3"] {
            assert!(is_zero_for(&wide.parse().unwrap()), "{wide}");
        }
    }
}
