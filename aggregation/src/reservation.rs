//! A charge that is durable before the first row is read.
//!
//! A [`Reservation`] can only be had from a [`Ledger`] that says it wrote the charge down, and only
//! [`crate::release::Release::make`] takes it; nothing gives its rho back.

use std::future::Future;

use sekisho_protocol::{
    digest::Digest,
    units::{AttoDelta, MicroRho},
};

use crate::plan::PrivatePlan;

/// What one run of one query costs, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The permit, by digest.
    pub permit: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run, from 1.
    pub run: u32,
    /// The cost in micro-rho.
    pub micro_rho: MicroRho,
    /// The cost in delta: nothing while all group keys are public.
    pub atto_delta: AttoDelta,
}

/// Writes charges down.
pub trait Ledger {
    /// What it writes beside the charge, such as the eligible set's version.
    type Record;
    /// Why it did not.
    type Error;

    /// Makes `charge` durable, or finds it already made, exactly once; returns only then.
    fn charge(&self, charge: &Charge) -> impl Future<Output = Result<Self::Record, Self::Error>> + Send;
}

/// Proof that a charge is on disk.
#[must_use = "the rho is spent whether or not the reservation is used"]
pub struct Reservation<R> {
    charge: Charge,
    plan: Digest,
    record: R,
}

impl<R> Reservation<R> {
    /// Charges the cost of `plan` to `ledger`.
    ///
    /// # Errors
    /// The ledger's: over budget, or it could not write.
    pub async fn make<L: Ledger<Record = R>>(
        plan: &PrivatePlan,
        permit: Digest,
        query_key: Digest,
        run: u32,
        ledger: &L,
    ) -> Result<Self, L::Error> {
        let charge = Charge { permit, query_key, run, micro_rho: plan.micro_rho(), atto_delta: plan.atto_delta() };
        let record = ledger.charge(&charge).await?;
        Ok(Self { charge, plan: plan.digest(), record })
    }

    /// What was charged.
    pub fn charge(&self) -> &Charge {
        &self.charge
    }

    /// The plan that was charged for.
    pub fn plan(&self) -> Digest {
        self.plan
    }

    /// What the ledger wrote beside the charge.
    pub fn record(&self) -> &R {
        &self.record
    }
}
