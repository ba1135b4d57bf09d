//! The rule by which a newer document of a line takes the place of the pinned one.
//!
//! Numbers only go up; of two documents with one number the first stays; the next number must name its predecessor. A
//! line of which only the newest counts may skip numbers, and then the predecessor is not known; a chain, in which each
//! link says who may sign the next, may not.

use crate::{
    digest::Digest,
    refusal::{Code, Refusal},
};

/// Whether numbers may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// Only the newest document counts.
    Allowed,
    /// Every link is needed.
    Refused,
}

/// The number and the digest of the document that is pinned.
pub type Pin = (u64, Digest);

/// What an offered document says of its place.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// What a person calls it: "roster".
    pub name: &'a str,
    /// Its number.
    pub seq: u64,
    /// Its predecessor.
    pub prev: Option<Digest>,
    /// Its digest.
    pub digest: Digest,
}

/// Whether `offered` is new; the pinned document again is not, and is no error.
///
/// # Errors
/// `malformed` for a number that nobody counts to; `older_document` when it does not follow what is pinned.
pub fn follows(offered: &Offered<'_>, pinned: Option<Pin>, gaps: Gaps) -> Result<bool, Refusal> {
    let Offered { name, seq, prev, digest } = *offered;
    if seq == 0 || i64::try_from(seq).is_err() {
        return Err(Refusal::new(Code::Malformed, format!("the sequence numbers of {name} documents count from 1")));
    }
    let older = |detail: String| Err(Refusal::new(Code::OlderDocument, detail));
    let Some((newest, newest_digest)) = pinned else {
        let first = gaps == Gaps::Allowed || seq == 1;
        return if first { Ok(true) } else { older(format!("{name} {seq} comes before number 1 was seen")) };
    };
    if seq == newest && digest == newest_digest {
        return Ok(false);
    }
    if seq < newest {
        return older(format!("{name} {seq} is older than number {newest}, which was seen"));
    }
    if seq == newest {
        return older(format!("another {name} of number {seq} was seen first ({})", newest_digest.short()));
    }
    if gaps == Gaps::Refused && seq > newest + 1 {
        return older(format!("{name} {seq} does not follow number {newest}: hand in those between them first"));
    }
    if seq == newest + 1 && prev != Some(newest_digest) {
        let pinned = newest_digest.short();
        return older(format!("{name} {seq} does not name number {newest} ({pinned}), which was seen"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_and_name_their_predecessor() {
        use Code::{Malformed, OlderDocument};
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        for (fact, seq, prev, digest, pinned, newest_counts, chain) in [
            ("the first", 1, None, a, None, Ok(true), Ok(true)),
            ("a late first", 5, None, a, None, Ok(true), Err(OlderDocument)),
            ("number 0", 0, None, a, None, Err(Malformed), Err(Malformed)),
            ("beyond 2^63", u64::MAX, Some(b), a, Some((3, b)), Err(Malformed), Err(Malformed)),
            ("the same again", 3, None, b, Some((3, b)), Ok(false), Ok(false)),
            ("another of that number", 3, None, a, Some((3, b)), Err(OlderDocument), Err(OlderDocument)),
            ("a lower one", 2, Some(b), a, Some((3, b)), Err(OlderDocument), Err(OlderDocument)),
            ("the next", 4, Some(b), a, Some((3, b)), Ok(true), Ok(true)),
            ("the next of another", 4, Some(a), a, Some((3, b)), Err(OlderDocument), Err(OlderDocument)),
            ("the next of none", 4, None, a, Some((3, b)), Err(OlderDocument), Err(OlderDocument)),
            ("after a gap", 5, Some(a), a, Some((3, b)), Ok(true), Err(OlderDocument)),
        ] {
            let offered = Offered { name: "roster", seq, prev, digest };
            let said = |gaps| follows(&offered, pinned, gaps).map_err(|refusal| refusal.code);
            assert_eq!(said(Gaps::Allowed), newest_counts, "{fact}");
            assert_eq!(said(Gaps::Refused), chain, "{fact}, in a chain");
        }
    }
}
