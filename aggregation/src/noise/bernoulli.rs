//! Coins that fall with probability exp(-gamma), for a rational gamma, decided exactly.
//!
//! Algorithm 1 of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy"
//! (2020). A coin of probability gamma/k compares a uniform real, read 64 bits at a time, with
//! gamma/k. The first word decides by [`Bounds`] on gamma; only when they leave it open (about once
//! in 2^40 coins) is the exact [`Ratio`] worked out in big integers. The bounds save time and can
//! never change an outcome, nor how many words are drawn.
//!
//! It deliberately uses no floating point, and does not run in constant time.

use num_bigint::BigUint;
use rand::{CryptoRng, RngCore};

/// One, in the fixed point of [`Bounds`].
const ONE: u128 = 1 << 64;

/// An exact non-negative rational; the denominator is not zero.
pub(super) struct Ratio {
    pub(super) numerator: BigUint,
    pub(super) denominator: BigUint,
}

/// Proven bounds of a rational times 2^64, both ends included.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) lower: u128,
    pub(super) upper: u128,
}

impl Bounds {
    /// Bounds that decide nothing, so that every coin takes the exact path.
    pub(super) const UNKNOWN: Self = Self { lower: 0, upper: u128::MAX };

    /// The bounds of exactly one.
    const EXACTLY_ONE: Self = Self { lower: ONE, upper: ONE };

    /// The whole part and the bounds of the fraction, where the two ends agree on the whole part.
    fn split(self) -> Option<(u128, Self)> {
        let whole = self.lower >> 64;
        (whole == self.upper >> 64).then_some((whole, Self { lower: self.lower % ONE, upper: self.upper % ONE }))
    }
}

/// True with probability exp(-gamma), for any gamma of at least zero.
///
/// `exact` must give a ratio within `bounds`.
pub(super) fn exp_minus<R>(bounds: Bounds, exact: impl Fn() -> Ratio, rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    if let Some((whole, fraction)) = bounds.split() {
        return exp_minus_whole(whole, rng) && exp_minus_fraction(fraction, || fraction_of(exact()), rng);
    }
    let Ratio { numerator, denominator } = exact();
    // A whole part beyond 128 bits is cut; the loop never gets anywhere near it.
    let whole = u128::try_from(&numerator / &denominator).unwrap_or(u128::MAX);
    let fraction = || fraction_of(Ratio { numerator: numerator.clone(), denominator: denominator.clone() });
    exp_minus_whole(whole, rng) && exp_minus_fraction(Bounds::UNKNOWN, fraction, rng)
}

/// True with probability exp(-1).
pub(super) fn exp_minus_one<R>(rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    let exact = || Ratio { numerator: BigUint::from(1u8), denominator: BigUint::from(1u8) };
    exp_minus_fraction(Bounds::EXACTLY_ONE, exact, rng)
}

/// True with probability exp(-gamma), for gamma from zero to one.
pub(super) fn exp_minus_fraction<R>(bounds: Bounds, exact: impl Fn() -> Ratio, rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    let mut k = 1u64;
    while coin(bounds, &exact, k, rng) {
        k += 1;
    }
    k % 2 == 1
}

/// True with probability exp(-whole): the first failure ends it, so the loop is short.
fn exp_minus_whole<R>(whole: u128, rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    let mut left = whole;
    while left > 0 {
        if !exp_minus_one(rng) {
            return false;
        }
        left -= 1;
    }
    true
}

/// True with probability gamma/k: is the uniform real u, times k, below gamma?
fn coin<R>(bounds: Bounds, exact: &impl Fn() -> Ratio, k: u64, rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    let word = rng.next_u64();
    // u lies in [word, word + 1) / 2^64.
    let least = u128::from(word) * u128::from(k);
    if least + u128::from(k) <= bounds.lower {
        return true;
    }
    if least >= bounds.upper {
        return false;
    }
    settle(word, &exact(), k, rng)
}

/// Decides a coin in big integers, drawing further words only while u's interval straddles gamma/k.
#[cold]
fn settle<R>(first: u64, gamma: &Ratio, k: u64, rng: &mut R) -> bool
where
    R: RngCore + CryptoRng + ?Sized,
{
    let step = &gamma.denominator * k;
    let mut drawn = BigUint::from(first);
    let mut target = &gamma.numerator << 64u32;
    loop {
        let least = &drawn * &step;
        if least >= target {
            return false;
        }
        if least + &step <= target {
            return true;
        }
        drawn = (drawn << 64u32) + rng.next_u64();
        target <<= 64u32;
    }
}

fn fraction_of(ratio: Ratio) -> Ratio {
    Ratio { numerator: ratio.numerator % &ratio.denominator, denominator: ratio.denominator }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    /// Gives the words of a script, then fails the test.
    struct Script(Vec<u64>);

    impl RngCore for Script {
        fn next_u32(&mut self) -> u32 {
            panic!("the coins read 64-bit words")
        }
        fn next_u64(&mut self) -> u64 {
            assert!(!self.0.is_empty(), "more words drawn than needed");
            self.0.remove(0)
        }
        fn fill_bytes(&mut self, _: &mut [u8]) {
            panic!("the coins read 64-bit words")
        }
    }

    impl CryptoRng for Script {}

    fn ratio(numerator: u64, denominator: u64) -> Ratio {
        Ratio { numerator: numerator.into(), denominator: denominator.into() }
    }

    /// Bounds one unit wide, as a caller would give them.
    fn tight(numerator: u64, denominator: u64) -> Bounds {
        let lower = (u128::from(numerator) << 64) / u128::from(denominator);
        Bounds { lower, upper: lower + 1 }
    }

    #[test]
    fn a_coin_of_exp_minus_gamma_falls_at_its_probability() {
        const TOSSES: u32 = 30_000;
        for (numerator, denominator) in [(1, 1000), (1, 2), (1, 1), (7, 3), (3, 1), (19, 4)] {
            let gamma = numerator as f64 / denominator as f64;
            let mut rng = ChaCha20Rng::seed_from_u64(numerator * 1000 + denominator);
            let fallen = (0..TOSSES)
                .filter(|_| {
                    let exact = || ratio(numerator, denominator);
                    exp_minus(tight(numerator, denominator), exact, &mut rng)
                })
                .count() as f64;
            let p = (-gamma).exp();
            let deviation = (f64::from(TOSSES) * p * (1.0 - p)).sqrt();
            let z = (fallen - f64::from(TOSSES) * p) / deviation;
            assert!(z.abs() < 4.0, "gamma {gamma}: {z} standard deviations off");
        }
    }

    #[test]
    fn gamma_of_zero_always_falls_and_a_vast_gamma_never_does() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for _ in 0..200 {
            assert!(exp_minus(tight(0, 1), || ratio(0, 1), &mut rng));
            assert!(!exp_minus(Bounds::UNKNOWN, || ratio(u64::MAX, 1), &mut rng));
        }
    }

    #[test]
    fn bounds_change_neither_the_outcome_nor_the_words_drawn() {
        for (numerator, denominator) in [(0, 1), (1, 3), (1, 1), (5, 2), (u64::MAX - 1, u64::MAX)] {
            let mut bounded = ChaCha20Rng::seed_from_u64(7);
            let mut unbounded = ChaCha20Rng::seed_from_u64(7);
            let exact = || ratio(numerator, denominator);
            for _ in 0..500 {
                assert_eq!(
                    exp_minus(tight(numerator, denominator), exact, &mut bounded),
                    exp_minus(Bounds::UNKNOWN, exact, &mut unbounded),
                );
            }
            assert_eq!(bounded.get_word_pos(), unbounded.get_word_pos());
        }
    }

    #[test]
    fn a_tied_word_is_settled_by_the_words_after_it() {
        const THIRD: u64 = u64::MAX / 3; // every digit of 1/3 in base 2^64
        let rows: [(&[u64], bool); 6] = [
            (&[THIRD - 1], true),
            (&[THIRD + 1], false),
            (&[THIRD, THIRD - 1], true),
            (&[THIRD, THIRD + 1], false),
            (&[THIRD, THIRD, THIRD, 0], true),
            (&[THIRD, THIRD, THIRD, u64::MAX], false),
        ];
        for (words, expected) in rows {
            for bounds in [tight(1, 3), Bounds::UNKNOWN] {
                let mut script = Script(words.to_vec());
                assert_eq!(coin(bounds, &|| ratio(1, 3), 1, &mut script), expected);
                assert!(script.0.is_empty(), "every word of {words:?} is needed");
            }
        }
    }
}
