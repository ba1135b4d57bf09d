//! Quantities with a unit, each with one way in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A zCDP cost (rho) in millionths; what every ledger counts. At most 10^15 (rho of a billion).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MicroRho(u64);

/// A rho that no ledger holds.
#[derive(Debug, thiserror::Error)]
#[error("rho must be at most {max} micro-rho")]
pub struct RhoTooLarge {
    max: u64,
}

impl MicroRho {
    /// The largest amount that can be written: 10^15 micro-rho.
    pub const MAX: Self = Self(1_000_000_000_000_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount in micro-rho.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or the largest amount when it would pass it: adding never makes a cost smaller.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::MAX.0))
    }

    /// What is left after `other`, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount as rho, for reports only.
    #[expect(clippy::cast_precision_loss, reason = "at most 10^15, below 2^53")]
    pub fn as_rho(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl TryFrom<u64> for MicroRho {
    type Error = RhoTooLarge;

    fn try_from(micro_rho: u64) -> Result<Self, RhoTooLarge> {
        if micro_rho > Self::MAX.0 {
            return Err(RhoTooLarge { max: Self::MAX.0 });
        }
        Ok(Self(micro_rho))
    }
}

impl From<MicroRho> for u64 {
    fn from(rho: MicroRho) -> u64 {
        rho.0
    }
}

impl fmt::Display for MicroRho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} micro-rho", self.0)
    }
}

/// A delta of (epsilon, delta)-privacy in units of 10^-18.
///
/// Only private group keys spend delta; every other charge carries zero. At most 10^15, a thousandth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AttoDelta(u64);

/// A delta that no ledger holds.
#[derive(Debug, thiserror::Error)]
#[error("delta must be at most {max} atto (10^-18)")]
pub struct DeltaTooLarge {
    max: u64,
}

impl TryFrom<u64> for AttoDelta {
    type Error = DeltaTooLarge;

    fn try_from(atto: u64) -> Result<Self, DeltaTooLarge> {
        if atto > Self::MAX.0 {
            return Err(DeltaTooLarge { max: Self::MAX.0 });
        }
        Ok(Self(atto))
    }
}

impl From<AttoDelta> for u64 {
    fn from(delta: AttoDelta) -> u64 {
        delta.0
    }
}

impl AttoDelta {
    /// The largest amount that can be written: 10^15 atto, a delta of 0.001.
    pub const MAX: Self = Self(1_000_000_000_000_000);
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The amount as a probability, for reports and for thresholds.
    #[expect(clippy::cast_precision_loss, reason = "at most 10^15, below 2^53")]
    pub fn as_delta(self) -> f64 {
        self.0 as f64 / 1e18
    }

    /// The amount in units of 10^-18.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or the largest amount when it would pass it: adding never makes a cost smaller.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(Self::MAX.0))
    }

    /// What is left after `other`, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for AttoDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} atto-delta", self.0)
    }
}
