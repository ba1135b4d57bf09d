//! That the receipt of an answer is in its hospital's own log, as of the checkpoint that came with it.
//!
//! Promises: an answer without a good proof is not believed; the proof is kept with the release, for whoever checks it later.

use sekisho_protocol::{
    dsse::Envelope,
    log::{
        checkpoint::VerifiedCheckpoint,
        entry::{Entry, Kind},
        proof::InclusionProof,
    },
};

use super::collect::{NoRelease, unbelieved};

/// The proof that `receipt` is under `checkpoint` of its hospital, as it is kept.
pub(super) fn proven(
    text: Option<&String>,
    receipt: &Envelope,
    checkpoint: &VerifiedCheckpoint,
) -> Result<Vec<u8>, NoRelease> {
    let text = text.ok_or_else(|| unbelieved("the answer has no proof that its receipt is in the hospital's log"))?;
    let malformed = || unbelieved("the proof of the receipt cannot be read");
    let proof = InclusionProof::parse(text.as_bytes()).map_err(|_| malformed())?;
    let opening = proof.opening().map_err(|_| malformed())?;
    if opening.kind != Kind::Receipt {
        return Err(malformed());
    }
    let absent = |why| unbelieved(format!("the receipt is not in the hospital's log: {why}"));
    proof.under(&Entry::of(opening, &receipt.to_json()), checkpoint).map_err(absent)?;
    Ok(text.as_bytes().to_vec())
}
