//! `output_review/1`: one reviewer's word on a result that waits at the coordinator.
//!
//! It is signed by one member of the committee and names the result by a digest of what was released, so that other
//! releases are another result. [`standing`] is the whole rule: one refusal ends it, releases by [`NEEDED`] different
//! members let it out. That is a procedure of the coordinator: a node has long released when a reviewer looks.
//!
//! The reviewer's key is in it, so that the same words of two reviewers are two documents. Deliberately absent: the
//! reviewer's name (the committee has it), and any number of the result.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document};

/// How many different members must release a result.
pub const NEEDED: usize = 2;
/// The longest reasons in bytes.
pub const MAX_REASONS: usize = 4000;

/// What a reviewer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The person who asked may have it.
    Release,
    /// Nobody may have it.
    Refuse,
}

impl Verdict {
    /// The name in documents and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Refuse => "refuse",
        }
    }
}

/// The review document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputReview {
    /// The permit, by digest.
    pub permit: Digest,
    /// The question ([`crate::query::Query::key`]).
    pub query_key: Digest,
    /// Which run of it.
    pub run: u32,
    /// The result ([`result_digest`]).
    pub result: Digest,
    /// The fingerprint of the reviewer's key, which signs it.
    pub reviewer: Digest,
    /// What the reviewer says.
    pub verdict: Verdict,
    /// Why, for the person who asked and for the record: no numbers of a result that is refused.
    pub reasons: String,
    /// When it was signed.
    pub at: DateTime<Utc>,
}

impl Document for OutputReview {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.output-review.v1+json";
    const NAME: &'static str = "output review";
    const MAX_BYTES: usize = 32 << 10;

    fn check(&self) -> Result<(), String> {
        if self.run == 0 {
            return Err("runs count from 1".into());
        }
        if self.reasons.trim().is_empty() || self.reasons.len() > MAX_REASONS {
            return Err(format!("reasons have 1 to {MAX_REASONS} bytes"));
        }
        Ok(())
    }
}

/// The digest of a result: SHA-256 over question, run, and each hospital's name with the digest of its release, hospitals in
/// order of their names. The same stored releases give the same result; one hospital more or less gives another.
pub fn result_digest<'a>(query_key: Digest, run: u32, releases: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
    let mut releases: Vec<(&str, Digest)> = releases.into_iter().collect();
    releases.sort_unstable_by_key(|(name, _)| *name);
    let run = run.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![b"sekisho result v1", query_key.as_bytes(), &run];
    for (name, release) in &releases {
        parts.extend([name.as_bytes(), release.as_bytes().as_slice()]);
    }
    Digest::of_parts(&parts)
}

/// Where a result stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It waits for more reviewers.
    Awaiting,
    /// The person who asked may have it.
    Released,
    /// A reviewer refused it.
    Refused,
}

impl Standing {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Released => "released",
            Self::Refused => "refused",
        }
    }
}

/// Where a result stands by its reviews, each with the fingerprint of its reviewer's key: whatever their order, one refusal
/// ends it, and [`NEEDED`] different reviewers let it out.
pub fn standing(reviews: impl IntoIterator<Item = (Digest, Verdict)>) -> Standing {
    let mut released = BTreeSet::new();
    for (reviewer, verdict) in reviews {
        match verdict {
            Verdict::Refuse => return Standing::Refused,
            Verdict::Release => drop(released.insert(reviewer)),
        }
    }
    if released.len() >= NEEDED { Standing::Released } else { Standing::Awaiting }
}

#[cfg(test)]
mod tests {
    use super::{Standing::*, Verdict::*, *};

    #[test]
    fn two_different_members_let_a_result_out_and_one_refusal_ends_it() {
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        for (reviews, expect) in [
            (vec![], Awaiting),
            (vec![(a, Release)], Awaiting),
            (vec![(a, Release), (a, Release)], Awaiting),
            (vec![(a, Release), (b, Release)], Released),
            (vec![(a, Refuse)], Refused),
            (vec![(a, Release), (b, Refuse)], Refused),
            (vec![(a, Release), (b, Release), (c, Refuse)], Refused),
            (vec![(a, Refuse), (b, Release), (c, Release)], Refused),
        ] {
            assert_eq!(standing(reviews.clone()), expect, "{reviews:?}");
        }
    }

    #[test]
    fn a_result_is_of_its_releases_whatever_their_order() {
        let (key, one, two) = (Digest::of(b"key"), Digest::of(b"1"), Digest::of(b"2"));
        let both = result_digest(key, 1, [("kyoto", one), ("tokyo", two)]);
        assert_eq!(both, result_digest(key, 1, [("tokyo", two), ("kyoto", one)]));
        for other in [
            result_digest(key, 1, [("kyoto", two), ("tokyo", one)]),
            result_digest(key, 1, [("kyoto", one)]),
            result_digest(key, 2, [("kyoto", one), ("tokyo", two)]),
            result_digest(one, 1, [("kyoto", one), ("tokyo", two)]),
        ] {
            assert_ne!(other, both);
        }
    }

    #[test]
    fn a_review_has_reasons() {
        let zero = Digest::of(b"");
        let review = |reasons: &str, run| OutputReview {
            permit: zero,
            query_key: zero,
            run,
            result: zero,
            reviewer: zero,
            verdict: Release,
            reasons: reasons.into(),
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        for (review, holds) in [
            (review("large cells only", 1), true),
            (review(" \n", 1), false),
            (review("x", 0), false),
            (review(&"x".repeat(MAX_REASONS + 1), 1), false),
        ] {
            assert_eq!(review.check().is_ok(), holds, "{:?}", review.reasons);
        }
    }
}
