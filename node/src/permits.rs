//! Documents that the coordinator hands in, and this hospital's signed answer to a permit.
//!
//! The coordinator only carries them: rosters and statuses are believed by the governance key, permits by the
//! committee's quorum, orders by the regulator's key; a new governance key or committee by the one before it. The
//! hospital's policy says whether a permit is accepted, refused, or waits for a person; what a person decided stands
//! whatever is handed in again. Accepting a permit sets its rho aside from the register's lifetime cap, so that no study
//! can starve another. Its delta is not set aside, and a hospital that allows none accepts the permit all the same:
//! queries with public keys need none.

mod by_hand;

use sekisho_protocol::{
    committee::Committee,
    digest::Digest,
    dsse::{Document, Envelope, Verified},
    governance::Governance,
    keys::SecretKey,
    orders::{Orders, obey},
    permit::{Permit, ReleaseKind},
    receipt::{Acceptance, DecidedBy, MAX_REASON},
    refusal::{Code, Refusal},
    roster::Roster,
    status::Status,
    units::MicroRho,
};
use tracing::info;

use chrono::{DateTime, Utc};

pub use self::by_hand::ByHand;

use crate::{
    answer::Answering,
    documents::PermitAnswer,
    guard::{gives, in_force},
    ledger::Ledger,
    policy::{DataFacts, Level, Offered, Policy},
};

/// Takes in a document; for a permit, returns the signed acceptance.
///
/// # Errors
/// When it is malformed, not signed as it must be, or older than the newest seen.
pub async fn put(node: &Answering, bytes: &[u8]) -> Result<Option<Envelope>, Refusal> {
    let kind = payload_type(bytes)?;
    let now = node.clock.now();
    if kind == Roster::PAYLOAD_TYPE {
        let roster = node.documents.offer_roster(bytes, now).await?;
        info!(seq = roster.seq, "roster taken");
        return Ok(None);
    }
    if kind == Status::PAYLOAD_TYPE {
        let status = node.documents.offer_status(bytes, now).await?;
        info!(seq = status.seq, "status taken");
        return Ok(None);
    }
    if kind == Governance::PAYLOAD_TYPE {
        let seq = node.documents.offer_governance(bytes).await?;
        info!(seq, "rotation of the governance key taken");
        return Ok(None);
    }
    if kind == Committee::PAYLOAD_TYPE {
        let seq = node.documents.offer_committee(bytes).await?;
        info!(seq, "committee taken");
        return Ok(None);
    }
    if kind == Orders::PAYLOAD_TYPE {
        let orders = node.documents.offer_orders(bytes).await?;
        info!(regulator = orders.regulator, seq = orders.seq, "orders taken");
        return Ok(None);
    }
    if kind == Permit::PAYLOAD_TYPE {
        return answer_permit(node, bytes).await.map(Some);
    }
    Err(Refusal::new(
        Code::Malformed,
        "a node takes rosters, statuses, permits, committees, rotations of the governance key, and orders",
    ))
}

/// The payload type of an envelope of at most the size of the largest document.
fn payload_type(bytes: &[u8]) -> Result<String, Refusal> {
    Ok(Envelope::from_json::<Status>(bytes)?.payload_type().to_string())
}

async fn answer_permit(node: &Answering, bytes: &[u8]) -> Result<Envelope, Refusal> {
    node.standing.check()?;
    let now = node.clock.now();
    let status = node.documents.status(now).await?;
    let permit = node.documents.believe_permit(bytes, &status).await?;
    let stored = node.documents.permit(permit.digest()).await?;
    let stands = |s: &crate::documents::StoredPermit| s.refused().is_none() || s.decided_by == DecidedBy::Hand;
    if let Some(stored) = stored.as_ref().filter(|s| stands(s))
        && let Some(acceptance) = stored.acceptance()
    {
        node.documents.delivered(stored).await?;
        return Ok(acceptance);
    }
    let holder = Holder::of(node);
    let orders = node.documents.orders().await?;
    let obeyed = obey(orders.iter().map(Verified::document), &node.trust.concern(&permit), now);
    let decision = match obeyed.and_then(|()| holder.judge(&permit, &status, now)) {
        Ok(Level::AtOnce) => Decision::accepted(&node.ledger, &permit, DecidedBy::Policy, None).await,
        Ok(Level::ByHand | Level::Refused) => Decision::refused(Code::PermitWaiting, DecidedBy::Policy, None),
        Err(refusal) => Decision::refused(refusal.code, DecidedBy::Policy, Some(refusal.detail)),
    };
    // The same answer as before is not signed again.
    if let Some(acceptance) = stored.filter(|s| s.refused() == decision.refused && s.reason == decision.reason)
        && let Some(acceptance) = acceptance.acceptance()
    {
        return Ok(acceptance);
    }
    let acceptance = decision.sign(&node.trust.name, permit.digest(), &node.signing, now)?;
    if !node.documents.put_permit(&permit, bytes, &decision.kept(&acceptance), now).await? {
        // A person decided in the meantime.
        let stored = node.documents.permit(permit.digest()).await?;
        return stored
            .and_then(|s| s.acceptance())
            .ok_or_else(|| Refusal::new(Code::Unavailable, "this hospital's answer cannot be read"));
    }
    match decision.refused {
        None => info!(permit = %permit.digest().short(), study = %permit.study_id, "permit accepted"),
        Some(Code::PermitWaiting) => {
            info!(permit = %permit.digest().short(), study = %permit.study_id, "permit waits: `sekisho-node permits list`");
        }
        Some(code) => info!(permit = %permit.digest().short(), study = %permit.study_id, %code, "permit refused"),
    }
    Ok(acceptance)
}

/// What this hospital judges a permit by.
pub struct Holder<'a> {
    /// The hospital's roster name.
    pub name: &'a str,
    /// The least number of patients in its exact results; none where it gives none.
    pub exact_min_patients: Option<u32>,
    /// Its policy.
    pub policy: &'a Policy,
    /// Its data sets, with the digest of the schema of each.
    pub data: Vec<(Digest, DataFacts<'a>)>,
}

impl<'a> Holder<'a> {
    /// This node.
    pub fn of(node: &'a Answering) -> Self {
        let (name, exact_min_patients) = (&node.trust.name, node.trust.exact_min_patients);
        Self { name, exact_min_patients, policy: &node.policy, data: node.held() }
    }

    /// Whether a permit may be accepted at once, or by a person; `permit`'s quorum was checked.
    ///
    /// # Errors
    /// Why neither: the permit does not hold, does not name this hospital, is of another schema, or the policy refuses it.
    pub fn judge(&self, permit: &Verified<Permit>, status: &Status, now: DateTime<Utc>) -> Result<Level, Refusal> {
        match in_force(permit, status, now) {
            // A permit for later is accepted now.
            Err(refusal) if refusal.code == Code::PermitNotYetValid => {}
            other => other?,
        }
        if !permit.holders().iter().any(|name| name == self.name) {
            return Err(Refusal::new(Code::HolderNotPermitted, "the permit does not name this hospital"));
        }
        permit.release_kinds.iter().try_for_each(|kind| gives(*kind, self.exact_min_patients))?;
        let (level, findings) = self.policy.answer(&self.offered(permit)?)?;
        if level == Level::Refused {
            let why = findings.iter().find(|finding| !finding.allowed);
            let unsaid = || Refusal::new(Code::Policy, "this hospital's policy refuses the permit");
            return Err(why.map_or_else(unsaid, crate::policy::Finding::refusal));
        }
        Ok(level)
    }

    /// The permit as the policy sees it.
    ///
    /// # Errors
    /// `schema_mismatch` when no data here is mapped to its schema.
    pub fn offered(&self, permit: &Permit) -> Result<Offered, Refusal> {
        Ok(Offered::new(permit, self.name, self.data_for(permit)?))
    }

    /// The data that the permit is about.
    ///
    /// # Errors
    /// `schema_mismatch` when no data here is mapped to its schema.
    pub fn data_for(&self, permit: &Permit) -> Result<DataFacts<'a>, Refusal> {
        let found = self.data.iter().find(|(schema, _)| *schema == permit.schema);
        let missing = || Refusal::new(Code::SchemaMismatch, "no data here is mapped to the permit's schema");
        found.map(|(_, data)| *data).ok_or_else(missing)
    }
}

/// A decision about a permit, before it is signed.
pub struct Decision {
    refused: Option<Code>,
    earmark: MicroRho,
    decided_by: DecidedBy,
    reason: Option<String>,
}

impl Decision {
    /// Accepts the permit and sets its rho aside; a refusal when the lifetime cap does not cover it.
    pub async fn accepted(ledger: &Ledger, permit: &Permit, decided_by: DecidedBy, reason: Option<String>) -> Self {
        // Exact results cost nothing.
        let noised = permit.release_kinds.contains(&ReleaseKind::Noised);
        let amount = if noised { permit.dp.micro_rho_total } else { MicroRho::ZERO };
        match ledger.earmark(&permit.study_id, amount).await {
            Ok(earmark) => Self { refused: None, earmark, decided_by, reason },
            Err(error) => {
                let refusal = Refusal::from(error);
                Self::refused(refusal.code, DecidedBy::Policy, Some(refusal.detail))
            }
        }
    }

    /// Refuses the permit, or has it wait.
    pub fn refused(code: Code, decided_by: DecidedBy, reason: Option<String>) -> Self {
        let line = |reason: String| reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
        Self { refused: Some(code), earmark: MicroRho::ZERO, decided_by, reason: reason.map(line) }
    }

    /// Why it is no acceptance.
    pub fn is_refused(&self) -> Option<(Code, &str)> {
        self.refused.map(|code| (code, self.reason.as_deref().unwrap_or_default()))
    }

    /// The answer of the hospital `name` to the permit `permit`.
    ///
    /// # Errors
    /// When the reason is no line of at most [`MAX_REASON`] characters.
    pub fn sign(&self, name: &str, permit: Digest, key: &SecretKey, at: DateTime<Utc>) -> Result<Envelope, Refusal> {
        let acceptance = Acceptance {
            node: name.into(),
            permit,
            refused: self.refused,
            earmark: self.earmark,
            at,
            reason: self.reason.clone(),
            decided_by: self.decided_by,
        };
        Ok(Envelope::sign(&acceptance, &[key])?)
    }

    /// The answer as it is kept.
    pub fn kept(&self, acceptance: &Envelope) -> PermitAnswer {
        PermitAnswer { acceptance: acceptance.to_json(), refused: self.refused, reason: self.reason.clone() }
    }
}
