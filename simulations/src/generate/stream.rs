//! Random streams: one for each hospital, patient and purpose, so that no draw moves another.
//!
//! Promises: a stream depends on the seed, the hospital, the patient's slot and the purpose only, and
//! every draw is integer arithmetic, so a seed gives the same network on every machine. Not for privacy:
//! noise and its generator live in `aggregation`. Ranges are reduced by multiplication, whose bias
//! (below 2^-20 for the ranges here) does not matter in made-up patients.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream is for; each patient has one of each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Who the person is, wherever they are treated.
    Person = 0,
    /// What one hospital did and wrote about them.
    Place = 1,
    /// How much they are seen.
    Volume = 2,
    /// Their event rows.
    Events = 3,
}

const PURPOSES: u64 = 4;

/// The streams of one hospital.
#[derive(Clone)]
pub(super) struct Streams(ChaCha8Rng);

impl Streams {
    pub(super) fn new(seed: u64, hospital: usize) -> Self {
        let mut key = *b"........,,,,,,,,sekisho-sim/gen1";
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(hospital as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The stream of one patient for one purpose, from its beginning.
    pub(super) fn open(&self, purpose: Purpose, slot: u64) -> Draw {
        let mut rng = self.0.clone();
        rng.set_stream((slot + 1) * PURPOSES + purpose as u64);
        Draw(rng)
    }

    /// The stream of the hospital itself, for what no patient owns.
    pub(super) fn own(&self) -> Draw {
        Draw(self.0.clone())
    }
}

/// Draws from one stream.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// 64 uniform bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// Uniform in `low..=high`, which must not be wider than 32 bits.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::from(self.below((high - low + 1) as u32))
    }

    /// True with `per_myriad` chances in 10,000.
    pub(super) fn chance(&mut self, per_myriad: u32) -> bool {
        self.below(10_000) < per_myriad
    }

    /// An index, drawn in proportion to the weights.
    pub(super) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    /// An element, all alike.
    pub(super) fn one_of<T: Copy>(&mut self, of: &'static [T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    /// Bell-shaped around `mean` with standard deviation `sd`, within 3.5 of them (four bytes summed).
    pub(super) fn bell(&mut self, mean: i64, sd: i64) -> i64 {
        let sum: i64 = self.0.next_u32().to_le_bytes().map(i64::from).iter().sum();
        mean + sd * (sum - 510) / 148
    }
}

/// A fixed bijection of 64 bits (the finaliser of SplitMix64): distinct in, distinct and unordered out.
pub(super) fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
