//! A decision that is durable before exact cells leave.
//!
//! A [`Reviewed`] can only be had from a [`History`] that says it wrote down the cohort and the decision, and only
//! [`Release::exact`](crate::release::Release::exact) takes it. It is to exact releases what a reservation is to noised ones.

use std::future::Future;

use sekisho_protocol::digest::Digest;

use super::Cohort;
use crate::plan::PrivatePlan;

/// Which run of which exact query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The permit, by digest.
    pub permit: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run, from 1.
    pub run: u32,
}

/// All exact releases of a hospital.
pub trait History {
    /// What it writes beside the claim, such as who decided and on which snapshot.
    type Record;
    /// Why it did not: the cohort is too close to an earlier one, or it could not write.
    type Error;

    /// Makes claim, cohort and decision durable, or finds the same already made, exactly once; returns only then.
    fn record(&self, claim: &Claim, cohort: &Cohort) -> impl Future<Output = Result<Self::Record, Self::Error>> + Send;
}

/// Proof that a person decided, the guard let it pass, and both are on disk.
#[must_use = "the history has it whether or not it is used"]
pub struct Reviewed<R> {
    claim: Claim,
    plan: Digest,
    patients: u64,
    record: R,
}

impl<R> Reviewed<R> {
    /// Has `ledger` write down that this run of `plan`, of this cohort, may leave.
    ///
    /// # Errors
    /// The ledger's: it is refused, or it could not write.
    pub async fn make<H: History<Record = R>>(
        plan: &PrivatePlan,
        permit: Digest,
        query_key: Digest,
        run: u32,
        cohort: &Cohort,
        ledger: &H,
    ) -> Result<Self, H::Error> {
        let claim = Claim { permit, query_key, run };
        let record = ledger.record(&claim, cohort).await?;
        Ok(Self { claim, plan: plan.digest(), patients: cohort.len(), record })
    }

    /// Which run.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The plan that was reviewed.
    pub fn plan(&self) -> Digest {
        self.plan
    }

    /// How many patients the cohort has that was compared.
    pub(crate) fn patients(&self) -> u64 {
        self.patients
    }

    /// What the ledger wrote beside the claim.
    pub fn record(&self) -> &R {
        &self.record
    }
}
