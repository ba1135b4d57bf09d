//! What roster and status have in common: the newest one is fetched, checked, changed, and signed anew.
//!
//! The newest document counts only when the governance key that will sign the next one signed it: a coordinator
//! that was broken into cannot slip a member or a resumption into what the access body signs.
//!
//! Deliberately absent: protection from a coordinator that serves an older document. The next one then has a
//! number that the hospitals have seen, and they refuse it. The same holds for one that hides that it has any.

use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope, Verified},
    governance::GovernanceChain,
    keys::SecretKey,
    refusal::{Code, Refusal},
};
use serde::Serialize;

use super::{
    door::Door,
    failure::Failure,
    print::{self, Output, Spinner},
};
use crate::report::{PutReport, Want};

/// The newest document of a kind, signed by `key`; none when the coordinator says `none`, its code for having none yet.
///
/// # Errors
/// When it cannot be fetched, or another key signed it.
pub async fn newest<D: Document>(
    door: &mut Door,
    want: &Want,
    none: Code,
    key: &SecretKey,
) -> Result<Option<Verified<D>>, Failure> {
    let envelope = match door.get::<D>(want).await {
        Ok((envelope, _, _)) => envelope,
        Err(failure) if failure.code() == none.as_str() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if let Ok(verified) = envelope.verify::<D>(&[key.public()], 1) {
        return Ok(Some(verified));
    }
    // After a rotation an earlier key counts, as far as rotations that this key signed itself lead back to it.
    let chain = chain(door).await?;
    let keys = if chain.seq() > 0 && chain.key() == key.public() { chain.keys() } else { &[key.public()] };
    let verified = envelope.verify::<D>(keys, 1).map_err(|e| {
        let fingerprint = key.public().fingerprint();
        Refusal::new(Code::BadSignature, format!("key {fingerprint} did not sign the {} in force: {e}", D::NAME))
    })?;
    Ok(Some(verified))
}

/// The chain of governance keys, walked from the one that the coordinator pins.
///
/// # Errors
/// When it cannot be fetched, or a link does not verify.
pub async fn chain(door: &mut Door) -> Result<GovernanceChain, Failure> {
    let report = door.trust().await?;
    let mut chain = GovernanceChain::pinned(report.governance);
    for link in &report.rotations {
        chain.take(link)?;
    }
    Ok(chain)
}

/// The number and the previous digest of the document after `current`.
pub fn following<D>(current: Option<(&D, Digest)>, seq: fn(&D) -> u64) -> (u64, Option<Digest>) {
    (current.map_or(1, |(document, _)| seq(document).saturating_add(1)), current.map(|(_, digest)| digest))
}

/// Signs `document` and hands it in.
///
/// # Errors
/// When it breaks its own rules, or the coordinator refuses it.
pub async fn publish<D: Document>(door: &mut Door, document: &D, key: &SecretKey) -> Result<PutReport, Failure> {
    let envelope = Envelope::sign(document, &[key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
    let _spinner = Spinner::start(format!("handing in the {}", D::NAME));
    door.put(&envelope).await
}

/// Prints a document with its digest and the keys that its signatures name.
///
/// # Errors
/// When it cannot be written.
pub fn show<D: Document>(
    envelope: &Envelope,
    document: &D,
    digest: Digest,
    output: Output,
    table: impl FnOnce(&D) -> String,
) -> Result<(), Failure> {
    let signers: Vec<String> = envelope.key_ids().map(|id| id.to_string()).collect();
    match output {
        Output::Table => {
            print::out(&table(document))?;
            let signers = if signers.is_empty() { vec!["nobody yet".into()] } else { signers };
            let mut facts = vec![("digest", digest.to_string())];
            facts.extend(signers.into_iter().map(|s| ("signed by", s)));
            print::out(&print::pairs(&facts))
        }
        Output::Json => print::out(&print::json(&Shown { digest, signed_by: signers, document })?),
    }
}

#[derive(Serialize)]
struct Shown<'a, D> {
    digest: Digest,
    signed_by: Vec<String>,
    document: &'a D,
}
