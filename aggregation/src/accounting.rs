//! What a release costs, in zCDP (rho), and what rho means in epsilon and delta.
//!
//! Ledgers count whole micro-rho. Costs are rounded up and shares down, so that rounding never
//! favours spending. The ceilings are compiled in: no configuration raises them, and only data that
//! its schema declares synthetic gets the higher ones.
//!
//! Composition is addition (Bun and Steinke, "Concentrated Differential Privacy", 2016, Lemma 1.7)
//! and lives in the ledger. [`epsilon_at_delta`] uses floating point and is for reports only:
//! nothing is admitted or refused by it.

use sekisho_protocol::units::{AttoDelta, MicroRho};
use thiserror::Error;

/// The most that one query may cost on patients' data, in micro-rho: a rho of 1.
pub const MAX_RHO_PER_QUERY: u64 = 1_000_000;

/// The most that all queries together may cost a patient register, in micro-rho: a rho of 10.
pub const MAX_RHO_LIFETIME: u64 = 10_000_000;

/// The most delta that one query may spend on patients' data, in units of 10^-18: 10^-6.
pub const MAX_ATTO_DELTA_PER_QUERY: u64 = 1_000_000_000_000;

/// The most delta that all queries together may spend on a patient register, in units of 10^-18: 10^-4.
pub const MAX_ATTO_DELTA_LIFETIME: u64 = 100_000_000_000_000;

/// Both ceilings on rho for data declared synthetic, in micro-rho: a rho of a billion.
pub const SYNTHETIC_CEILING: u64 = 1_000_000_000_000_000;

/// The ceilings that hold for one data set; nothing else can be constructed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    per_query: u64,
    lifetime: u64,
    delta_per_query: u64,
    delta_lifetime: u64,
}

/// A cost or budget above a compiled-in ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CeilingError {
    /// One query asks for too much.
    #[error("a query may cost at most {ceiling} micro-rho here, not {asked}: ask with a lower rho")]
    Query {
        /// What was asked, in micro-rho.
        asked: u64,
        /// What is allowed, in micro-rho.
        ceiling: u64,
    },
    /// A lifetime budget is set too high.
    #[error("a lifetime budget is at most {ceiling} micro-rho here, not {asked}: configure less")]
    Lifetime {
        /// What was asked, in micro-rho.
        asked: u64,
        /// What is allowed, in micro-rho.
        ceiling: u64,
    },
    /// One query asks for too much delta.
    #[error("a query may spend at most {ceiling} atto-delta here, not {asked}: ask with a lower delta")]
    QueryDelta {
        /// What was asked, in units of 10^-18.
        asked: u64,
        /// What is allowed, in units of 10^-18.
        ceiling: u64,
    },
    /// A lifetime delta is set too high.
    #[error("a lifetime budget is at most {ceiling} atto-delta here, not {asked}: configure less")]
    LifetimeDelta {
        /// What was asked, in units of 10^-18.
        asked: u64,
        /// What is allowed, in units of 10^-18.
        ceiling: u64,
    },
}

impl Ceilings {
    /// The ceilings for data about patients.
    pub const PATIENTS: Self = Self {
        per_query: MAX_RHO_PER_QUERY,
        lifetime: MAX_RHO_LIFETIME,
        delta_per_query: MAX_ATTO_DELTA_PER_QUERY,
        delta_lifetime: MAX_ATTO_DELTA_LIFETIME,
    };

    /// The ceilings for data that the schema declares synthetic; receipts must say so.
    pub const SYNTHETIC: Self = Self {
        per_query: SYNTHETIC_CEILING,
        lifetime: SYNTHETIC_CEILING,
        delta_per_query: AttoDelta::MAX.get(),
        delta_lifetime: AttoDelta::MAX.get(),
    };

    /// Checks the cost of one query.
    ///
    /// # Errors
    /// Where it is above the ceiling.
    pub fn check_query(self, cost: MicroRho) -> Result<(), CeilingError> {
        let (asked, ceiling) = (cost.get(), self.per_query);
        if asked > ceiling { Err(CeilingError::Query { asked, ceiling }) } else { Ok(()) }
    }

    /// Checks a lifetime budget.
    ///
    /// # Errors
    /// Where it is above the ceiling.
    pub fn check_lifetime(self, budget: MicroRho) -> Result<(), CeilingError> {
        let (asked, ceiling) = (budget.get(), self.lifetime);
        if asked > ceiling { Err(CeilingError::Lifetime { asked, ceiling }) } else { Ok(()) }
    }

    /// Checks the delta of one query.
    ///
    /// # Errors
    /// Where it is above the ceiling.
    pub fn check_query_delta(self, delta: AttoDelta) -> Result<(), CeilingError> {
        let (asked, ceiling) = (delta.get(), self.delta_per_query);
        if asked > ceiling { Err(CeilingError::QueryDelta { asked, ceiling }) } else { Ok(()) }
    }

    /// Checks a lifetime delta.
    ///
    /// # Errors
    /// Where it is above the ceiling.
    pub fn check_lifetime_delta(self, delta: AttoDelta) -> Result<(), CeilingError> {
        let (asked, ceiling) = (delta.get(), self.delta_lifetime);
        if asked > ceiling { Err(CeilingError::LifetimeDelta { asked, ceiling }) } else { Ok(()) }
    }
}

/// The share of `total` that falls to `weight` of the weights that add up to `whole`, rounded down: together they never exceed it.
///
/// None where there are no weights, or so many that a share would be nothing.
#[must_use]
pub fn share(total: u64, weight: u64, whole: u64) -> Option<u64> {
    let share = (u128::from(total) * u128::from(weight)).checked_div(whole.into())?;
    u64::try_from(share).ok().filter(|share| *share > 0)
}

/// The cost of an epsilon-private release: epsilon²/2, rounded up (Bun and Steinke 2016,
/// Proposition 1.4). `micro_epsilon` is epsilon in millionths.
///
/// None where it passes [`MicroRho::MAX`].
#[must_use]
pub fn pure_epsilon_cost(micro_epsilon: u64) -> Option<MicroRho> {
    // (m / 10^6)² / 2 rho is m² / (2 · 10^6) micro-rho.
    let cost = u128::from(micro_epsilon).pow(2).div_ceil(2_000_000);
    MicroRho::try_from(u64::try_from(cost).ok()?).ok()
}

/// The least epsilon for which zCDP at this rho implies (epsilon, delta)-privacy; for reports only.
///
/// The conversion of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy"
/// (2020), Corollary 13: delta is the infimum over alpha > 1 of
/// exp((alpha-1)(alpha·rho - epsilon))/(alpha-1) · (1 - 1/alpha)^alpha. Rounded towards a higher
/// epsilon within about one part in 10^12. A delta of 1 or more gives 0; one of 0 or less, or NaN,
/// gives infinity unless rho is zero.
#[must_use]
pub fn epsilon_at_delta(rho: MicroRho, delta: f64) -> f64 {
    if rho == MicroRho::ZERO || delta >= 1.0 {
        return 0.0;
    }
    if delta.is_nan() || delta <= 0.0 {
        return f64::INFINITY;
    }
    let (rho, log_delta) = (rho.as_rho(), delta.ln());
    if log_delta_at_epsilon(rho, 0.0) <= log_delta {
        return 0.0;
    }
    // The simple bound (Bun and Steinke 2016, Proposition 1.3) is always enough.
    let (mut too_small, mut enough) = (0.0, rho + 2.0 * (-rho * log_delta).sqrt());
    for _ in 0..STEPS {
        let middle = f64::midpoint(too_small, enough);
        if log_delta_at_epsilon(rho, middle) <= log_delta {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    enough
}

/// Halvings per search: past these, a float has no further digits.
const STEPS: u32 = 100;

/// The logarithm of the least delta at this epsilon, by bisection on the derivative in alpha, which
/// only grows. Any alpha gives a valid delta, so that an inexact minimum errs to the safe side.
fn log_delta_at_epsilon(rho: f64, epsilon: f64) -> f64 {
    // Over log(alpha - 1), for digits where alpha is close to 1.
    let (mut low, mut high) = (-60.0f64, 60.0f64);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        let excess = middle.exp();
        let slope = (2.0 * excess + 1.0) * rho - epsilon - (1.0 / excess).ln_1p();
        if slope < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let excess = high.exp();
    let alpha = 1.0 + excess;
    excess * (alpha * rho - epsilon) - alpha * (1.0 / excess).ln_1p() - high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rho(micro_rho: u64) -> MicroRho {
        MicroRho::try_from(micro_rho).unwrap()
    }

    #[test]
    fn shares_are_rounded_down_and_never_nothing() {
        let rows = [
            (10, 3, Some(3)),
            (9, 3, Some(3)),
            (3, 3, Some(1)),
            (2, 3, None),
            (0, 1, None),
            (5, 0, None),
            (1_000_000, 1, Some(1_000_000)),
        ];
        for (total, parts, expected) in rows {
            assert_eq!(share(total, 1, parts), expected);
        }
    }

    #[test]
    fn pure_epsilon_costs_half_its_square_rounded_up() {
        let rows = [
            (1_000_000, Some(500_000)),
            (2_000_000, Some(2_000_000)),
            (100_000, Some(5_000)),
            (1_001, Some(1)),
            (2_000, Some(2)),
            (2_001, Some(3)),
            (1, Some(1)),
            (0, Some(0)),
            (44_721_359_549, Some(999_999_999_955_467)),
            (44_721_359_550, None),
            (u64::MAX, None),
        ];
        for (micro_epsilon, expected) in rows {
            let cost = pure_epsilon_cost(micro_epsilon).map(MicroRho::get);
            assert_eq!(cost, expected, "{micro_epsilon}");
        }
    }

    #[test]
    fn only_synthetic_data_may_pass_the_patients_ceilings() {
        let (patients, synthetic) = (Ceilings::PATIENTS, Ceilings::SYNTHETIC);
        assert_eq!(patients.check_query(rho(1_000_000)), Ok(()));
        assert_eq!(
            patients.check_query(rho(1_000_001)),
            Err(CeilingError::Query { asked: 1_000_001, ceiling: 1_000_000 })
        );
        assert_eq!(patients.check_lifetime(rho(10_000_000)), Ok(()));
        assert_eq!(
            patients.check_lifetime(rho(10_000_001)),
            Err(CeilingError::Lifetime { asked: 10_000_001, ceiling: 10_000_000 })
        );
        assert_eq!(synthetic.check_query(MicroRho::MAX), Ok(()));
        assert_eq!(synthetic.check_lifetime(MicroRho::MAX), Ok(()));
        assert_eq!(SYNTHETIC_CEILING, MicroRho::MAX.get());
        let delta = |atto: u64| AttoDelta::try_from(atto).unwrap();
        let (query, lifetime) = (1_000_000_000_000, 100_000_000_000_000);
        assert_eq!(patients.check_query_delta(delta(query)), Ok(()));
        assert_eq!(
            patients.check_query_delta(delta(query + 1)),
            Err(CeilingError::QueryDelta { asked: query + 1, ceiling: query })
        );
        assert_eq!(patients.check_lifetime_delta(delta(lifetime)), Ok(()));
        assert_eq!(
            patients.check_lifetime_delta(delta(lifetime + 1)),
            Err(CeilingError::LifetimeDelta { asked: lifetime + 1, ceiling: lifetime })
        );
        assert_eq!(synthetic.check_query_delta(AttoDelta::MAX), Ok(()));
        assert_eq!(synthetic.check_lifetime_delta(AttoDelta::MAX), Ok(()));
    }

    #[test]
    fn epsilon_matches_values_worked_out_to_forty_digits() {
        // Python's decimal at 40 digits, ternary search over log(alpha - 1), bisection on epsilon.
        let rows = [
            (1, 1e-6, 0.004_496_493_980_65),
            (1_000, 1e-6, 0.182_895_377_190_08),
            (100_000, 1e-5, 1.914_238_832_003_60),
            (500_000, 1e-6, 5.221_534_444_530_17),
            (500_000, 1e-10, 6.839_329_413_120_85),
            (1_000_000, 1e-6, 7.766_216_625_311_72),
            (10_000_000, 1e-9, 37.637_453_577_913_26),
            (1_000_000, 0.1, 2.854_981_883_034_46),
            (1_000_000, 0.9, 0.0),
            (1_000_000_000_000_000, 1e-6, 1_000_235_068.751_249_8),
        ];
        for (micro_rho, delta, expected) in rows {
            let got = epsilon_at_delta(rho(micro_rho), delta);
            let error = (got - expected).abs() / f64::max(expected, 1e-9);
            assert!(error < 1e-10, "{micro_rho} at {delta}: {got}, not {expected}");
        }
    }

    #[test]
    fn epsilon_at_the_ends_of_delta_is_nothing_or_infinite() {
        let rows = [
            (0, 0.0, 0.0),
            (1, 1.0, 0.0),
            (1, 0.0, f64::INFINITY),
            (1, -1.0, f64::INFINITY),
            (1, f64::NAN, f64::INFINITY),
        ];
        for (micro_rho, delta, expected) in rows {
            assert_eq!(epsilon_at_delta(rho(micro_rho), delta), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn shares_never_exceed_the_total(total in 0..=MicroRho::MAX.get(), parts in 1..5_000u64) {
            if let Some(share) = share(total, 1, parts) {
                prop_assert!(share * parts <= total);
                prop_assert!((share + 1) * parts > total);
            }
        }

        #[test]
        fn epsilon_is_below_the_simple_bound_and_grows_with_rho(
            log_rho in 0.0..16.0f64, log_delta in -30.0..-0.01f64,
        ) {
            let (rho_of, delta) = (|log: f64| rho(log.exp() as u64), log_delta.exp());
            let (less, more) = (rho_of(log_rho), rho_of(log_rho + 0.7));
            let epsilon = epsilon_at_delta(less, delta);
            let simple = less.as_rho() + 2.0 * (-less.as_rho() * log_delta).sqrt();
            prop_assert!(epsilon <= simple);
            prop_assert!(epsilon <= epsilon_at_delta(more, delta) + 1e-12);
        }
    }
}
