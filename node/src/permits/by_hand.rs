//! What a person at the hospital decides about a permit, by the command line or the console: both do it here.
//!
//! Promises: a permit is accepted only if its quorum, the status and the hospital's policy let a person do so, and its rho can be
//! set aside; the decision, its signed answer and who made it are durable together.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    keys::SecretKey,
    receipt::DecidedBy,
    refusal::{Code, Refusal},
};

use super::{Decision, Holder};
use crate::{
    documents::{Documents, StoredPermit},
    ledger::Ledger,
};

/// A person at the hospital who decides.
pub struct ByHand<'a> {
    /// The hospital's roster name.
    pub name: &'a str,
    /// Where rho is set aside.
    pub ledger: &'a Ledger,
    /// Where permits are.
    pub documents: &'a Documents,
    /// Signs the answer.
    pub key: &'a SecretKey,
    /// Who it is: the name of a console token, or [`COMMAND_LINE`](crate::ledger::COMMAND_LINE). It stays in the hospital.
    pub by: &'a str,
}

impl ByHand<'_> {
    /// Accepts a permit that arrived.
    ///
    /// # Errors
    /// When it is not believed, does not hold, is refused by the policy, or its rho cannot be set aside.
    pub async fn accept(
        &self,
        stored: &StoredPermit,
        holder: &Holder<'_>,
        reason: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let status = self.documents.status(now).await?;
        let envelope = stored.envelope()?.to_json();
        let permit = self.documents.believe_permit(&envelope, &status).await?;
        holder.judge(&permit, &status, now)?;
        let decision = Decision::accepted(self.ledger, &permit, DecidedBy::Hand, reason).await;
        if let Some((code, why)) = decision.is_refused() {
            return Err(Refusal::new(code, why));
        }
        self.decide(stored, &decision, now).await
    }

    /// Refuses a permit that arrived, also one that was accepted, and gives back what was set aside and not spent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refuse(&self, stored: &StoredPermit, reason: String, now: DateTime<Utc>) -> Result<(), Refusal> {
        let decision = Decision::refused(Code::PermitRefused, DecidedBy::Hand, Some(reason));
        self.decide(stored, &decision, now).await?;
        Ok(self.ledger.give_back(&stored.study_id).await?)
    }

    async fn decide(&self, stored: &StoredPermit, decision: &Decision, now: DateTime<Utc>) -> Result<(), Refusal> {
        let acceptance = decision.sign(self.name, stored.digest, self.key, now)?;
        self.documents.decide(stored.digest, &decision.kept(&acceptance), self.by, now).await
    }
}
