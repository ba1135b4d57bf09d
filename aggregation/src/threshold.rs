//! When the name of a private group key may be let out: when its noised number of patients reaches a threshold.
//!
//! This is the stability-based histogram (Bun, Nissim and Stemmer, "Simultaneous private learning of multiple concepts", 2016; Wilson et
//! al., "Differentially private SQL with bounded user contribution", 2020). A release is then (rho, delta)-approximately zCDP (Bun and
//! Steinke 2016, section 8): rho for the noised numbers of names that both neighbours have, delta for those that only one patient has.

use sekisho_protocol::units::AttoDelta;

use crate::noise::Variance;

/// The least number, in lattice units, at which a name is let out.
///
/// `unit` is one patient in lattice units, `variance` that of the noise, `names` the most names that one patient can have. Returns
/// `None` for a delta of zero, or where the threshold would not fit.
///
/// A patient alone in g <= `names` names weighs at most `unit` in each (less when g is above the bound on groups). One of them is let
/// out with probability at most P[unit + N >= threshold], and P[N >= m] <= exp(-m²/(2·variance)) for the discrete Gaussian (Canonne,
/// Kamath and Steinke 2020, Proposition 25): so with threshold - unit >= sqrt(2·variance·ln(names/delta)) any of them with at
/// most delta. The bound on groups does not help here: a patient in many names has little weight in each, but many chances.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "rounded up by far more than floats lose"
)]
pub(crate) fn threshold(variance: &Variance, unit: i128, names: u64, delta: AttoDelta) -> Option<i128> {
    if delta.is_zero() || names == 0 {
        return None;
    }
    let nats = (names as f64 / delta.as_delta()).ln();
    // Floats of 53 bits lose less than one part in 10^15 at each of these few steps.
    let reach = (2.0 * variance.as_f64() * nats).sqrt() * (1.0 + 1e-9) + 1.0;
    if reach < 1e37 { unit.checked_add(reach.ceil() as i128) } else { None }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::noise::DiscreteGaussian;

    fn delta(atto: u64) -> AttoDelta {
        AttoDelta::try_from(atto).unwrap()
    }

    #[test]
    fn the_threshold_grows_with_noise_and_names_and_falls_with_delta() {
        let variance = |v: u64| Variance::from_fraction(BigUint::from(v), BigUint::from(1_u8)).unwrap();
        let at = |v: u64, names: u64, atto: u64| threshold(&variance(v), 1, names, delta(atto)).unwrap();
        // sqrt(2 · 100 · ln(10 / 10^-9)) = 67.9.
        assert_eq!(at(100, 10, 1_000_000_000), 70);
        assert!(at(400, 10, 1_000_000_000) > at(100, 10, 1_000_000_000));
        assert!(at(100, 1000, 1_000_000_000) > at(100, 10, 1_000_000_000));
        assert!(at(100, 10, 1_000) > at(100, 10, 1_000_000_000));
        assert_eq!(threshold(&variance(100), 1, 10, AttoDelta::ZERO), None);
    }

    /// At a delta that can be seen: a patient alone in g names, with the weights of a bound of 2 groups.
    #[test]
    fn names_of_one_patient_come_out_no_more_often_than_delta() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        // The largest delta that can be written is 0.001: many names at once make it visible.
        let (unit, rounds) = (1_i128 << 16, 4_000);
        let sd = 1_u64 << 15;
        let variance = Variance::from_fraction(BigUint::from(sd * sd), BigUint::from(1_u8)).unwrap();
        let least = threshold(&variance, unit, 64, AttoDelta::MAX).unwrap();
        let noise = DiscreteGaussian::new(&variance);
        for g in [1_i128, 2, 3, 8, 64] {
            let weight = if g <= 2 { unit } else { 2 * unit / g };
            let out = (0..rounds).filter(|_| (0..g).any(|_| weight + noise.sample(&mut rng) >= least)).count();
            // Four expected at most; more than sixteen has a probability below 10^-5.
            assert!(out <= 16, "{g} names: {out} of {rounds}");
        }
    }
}
