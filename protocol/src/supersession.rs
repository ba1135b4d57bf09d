//! How versions of a permit follow one another.
//!
//! Version 1 supersedes nothing. Each later one names the digest of the version before it and belongs to the same study,
//! so that its spending goes on. Whoever has seen a version takes no older one, and no other one of the same number.
//! A chain of digests cannot have a cycle; what tries to look like one is refused here by name.

use crate::{
    digest::Digest,
    permit::Permit,
    refusal::{Code, Refusal},
};

/// A version of a permit that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The permit's id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// Its digest.
    pub digest: Digest,
    /// The study that it belongs to.
    pub study_id: String,
}

/// That the permit `new`, with this digest, follows the versions that were `seen`; it again is fine. `named` is the
/// permit of the digest that it supersedes, when that was seen.
///
/// # Errors
/// `older_document` for a version that is older than one seen, or another of the same number; `supersession` when it
/// names another predecessor than the version before it.
pub fn check(new: &Permit, digest: Digest, seen: &[Version], named: Option<&Version>) -> Result<(), Refusal> {
    let refuse = |code, detail: String| Err(Refusal::new(code, detail));
    let (id, number) = (&new.id, new.version);
    if seen.iter().any(|v| v.digest == digest) {
        return Ok(());
    }
    if seen.iter().any(|v| v.version == number) {
        return refuse(Code::OlderDocument, format!("another version {number} of permit {id} was seen first"));
    }
    let newest = seen.iter().max_by_key(|v| v.version);
    if let Some(newest) = newest.filter(|v| v.version > number) {
        return refuse(
            Code::OlderDocument,
            format!("version {number} of permit {id} is older than version {}, which was seen", newest.version),
        );
    }
    let Some(supersedes) = new.supersedes else {
        return match number {
            1 => Ok(()),
            _ => refuse(Code::Supersession, format!("version {number} of permit {id} names no version before it")),
        };
    };
    if number <= 1 {
        return refuse(Code::Supersession, format!("the first version of permit {id} supersedes nothing"));
    }
    if let Some(other) = named.filter(|v| v.id != *id || v.version.checked_add(1) != Some(number)) {
        let detail = format!(
            "version {number} of permit {id} supersedes version {} of permit {}, not the version before it",
            other.version, other.id
        );
        return refuse(Code::Supersession, detail);
    }
    let Some(newest) = newest else { return Ok(()) };
    if newest.version.checked_add(1) == Some(number) && newest.digest != supersedes {
        let detail = format!(
            "version {number} of permit {id} supersedes {}, but version {} is {}",
            supersedes.short(),
            newest.version,
            newest.digest.short()
        );
        return refuse(Code::Supersession, detail);
    }
    if newest.study_id != new.study_id {
        let detail = format!(
            "version {number} of permit {id} belongs to study {}, the one before to {}: spending would begin anew",
            new.study_id, newest.study_id
        );
        return refuse(Code::Supersession, detail);
    }
    Ok(())
}
