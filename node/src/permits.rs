//! Documents that the coordinator hands in, and this hospital's signed answer to a permit.
//!
//! The coordinator only carries them: rosters and statuses are believed by the governance key, permits by the
//! committee's quorum. Accepting a permit sets its rho aside from the register's lifetime cap, so that no study can
//! starve another. Its delta is not set aside, and a hospital that allows none accepts the permit all the same: queries
//! with public keys need none.

use sekisho_protocol::{
    dsse::{Document, Envelope, Verified},
    permit::Permit,
    receipt::Acceptance,
    refusal::{Code, Refusal},
    roster::Roster,
    status::Status,
    units::MicroRho,
};
use tracing::info;

use crate::{
    answer::Answering,
    guard::{in_force, verify_permit},
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
    if kind == Permit::PAYLOAD_TYPE {
        return answer_permit(node, bytes).await.map(Some);
    }
    Err(Refusal::new(Code::Malformed, "a node takes rosters, statuses and permits"))
}

/// The payload type of an envelope of at most the size of the largest document.
fn payload_type(bytes: &[u8]) -> Result<String, Refusal> {
    Ok(Envelope::from_json::<Status>(bytes)?.payload_type().to_string())
}

async fn answer_permit(node: &Answering, bytes: &[u8]) -> Result<Envelope, Refusal> {
    let now = node.clock.now();
    let envelope = Envelope::from_json::<Permit>(bytes)?;
    let status = node.documents.status(now).await?;
    let permit = verify_permit(&envelope, &node.trust.committee, &status)?;
    let stored = node.documents.permit(permit.digest()).await?;
    if let Some(acceptance) = stored.filter(|s| s.refused().is_none()).and_then(|s| s.acceptance()) {
        return Ok(acceptance);
    }
    let (refused, earmark) = match accept(node, &permit, &status).await {
        Ok(earmark) => (None, earmark),
        Err(refusal) => (Some(refusal.code), MicroRho::ZERO),
    };
    let name = node.trust.name.clone();
    let acceptance = Acceptance { node: name, permit: permit.digest(), refused, earmark, at: now };
    let acceptance = Envelope::sign(&acceptance, &[&node.signing])?;
    node.documents.put_permit(&permit, bytes, &acceptance.to_json(), refused, now).await?;
    match refused {
        None => info!(permit = %permit.digest().short(), study = %permit.study_id, "permit accepted"),
        Some(code) => info!(permit = %permit.digest().short(), study = %permit.study_id, %code, "permit refused"),
    }
    Ok(acceptance)
}

/// Whether this hospital accepts the permit, and what it sets aside.
async fn accept(node: &Answering, permit: &Verified<Permit>, status: &Status) -> Result<MicroRho, Refusal> {
    let now = node.clock.now();
    match in_force(permit, status, now) {
        // A permit for later is accepted now.
        Err(refusal) if refusal.code == Code::PermitNotYetValid => {}
        other => other?,
    }
    if !permit.holders().contains(&node.trust.name) {
        return Err(Refusal::new(Code::HolderNotPermitted, "the permit does not name this hospital"));
    }
    if !node.data.iter().any(|d| d.schema().digest() == permit.schema) {
        return Err(Refusal::new(Code::SchemaMismatch, "no data here is mapped to the permit's schema"));
    }
    Ok(node.ledger.earmark(&permit.study_id, permit.dp.micro_rho_total).await?)
}
