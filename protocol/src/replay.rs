//! `replay/1`: a hospital made a release again for an inspector, and what came of it.
//!
//! The node that made the release signs it. It says who looked, why, and whether every link from the question to the
//! released cells held; of the data it says nothing: neither an exact value nor a seed, nor how far a cell was off.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, receipt::MAX_REASON};

/// One link between a question and its released cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The stored question and permit are those that were charged, signed by those who may.
    Question,
    /// The receipt is this node's, about this run, and in its log.
    Receipt,
    /// The stored release is the one that the receipt names.
    Release,
    /// The snapshot is whole, and the receipt's commitment to it opens.
    Snapshot,
    /// The receipt's commitment to the state of the register opens.
    Register,
    /// The plan of the question is the receipt's.
    Plan,
    /// The sealed seed of the noise opens.
    Seed,
    /// Exact cells and noise together are the released cells.
    Cells,
}

impl Link {
    /// Every link, in the order in which they are looked at.
    pub const ALL: [Self; 8] = [
        Self::Question,
        Self::Receipt,
        Self::Release,
        Self::Snapshot,
        Self::Register,
        Self::Plan,
        Self::Seed,
        Self::Cells,
    ];

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Receipt => "receipt",
            Self::Release => "release",
            Self::Snapshot => "snapshot",
            Self::Register => "register",
            Self::Plan => "plan",
            Self::Seed => "seed",
            Self::Cells => "cells",
        }
    }
}

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every link holds.
    Match,
    /// A link is broken.
    Mismatch,
    /// No link is broken, and some could not be looked at.
    Incomplete,
}

impl Outcome {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Mismatch => "mismatch",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The replay document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The hospital, by roster name.
    pub node: String,
    /// The number of the charge at this node.
    pub charge: i64,
    /// The study that was charged.
    pub study_id: String,
    /// The permit, by digest.
    pub permit: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// Who had it made again.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether exact values were shown.
    pub exact_shown: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The links that are broken, in order.
    pub broken: Vec<Link>,
    /// The links that could not be looked at, in order.
    pub unknown: Vec<Link>,
    /// The software that made it again.
    pub software: String,
    /// When.
    pub at: DateTime<Utc>,
}

impl Replay {
    /// The outcome for these links.
    pub fn outcome_of(broken: &[Link], unknown: &[Link]) -> Outcome {
        match (broken, unknown) {
            ([], []) => Outcome::Match,
            ([], _) => Outcome::Incomplete,
            (_, _) => Outcome::Mismatch,
        }
    }
}

impl Document for Replay {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.replay.v1+json";
    const NAME: &'static str = "replay";
    const MAX_BYTES: usize = 16 << 10;

    fn check(&self) -> Result<(), String> {
        for (name, text) in [("by", &self.by), ("reason", &self.reason)] {
            let length = text.chars().count();
            if length == 0 || length > MAX_REASON || text.chars().any(char::is_control) {
                return Err(format!("{name} is one line of 1 to {MAX_REASON} characters"));
            }
        }
        let in_order = |links: &[Link]| links.windows(2).all(|pair| pair[0] < pair[1]);
        if !in_order(&self.broken) || !in_order(&self.unknown) {
            return Err("links are in order, each once".into());
        }
        if self.broken.iter().any(|link| self.unknown.contains(link)) {
            return Err("a link is broken or could not be looked at, not both".into());
        }
        if self.outcome != Self::outcome_of(&self.broken, &self.unknown) {
            return Err("the outcome is not that of the links".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_of_each_link_one_thing_and_the_outcome_follows() {
        let replay = |outcome, broken: &[Link], unknown: &[Link]| Replay {
            node: "west".into(),
            charge: 1,
            study_id: "study".into(),
            permit: Digest::of(b"p"),
            query_key: Digest::of(b"q"),
            run: 1,
            by: "inspector".into(),
            reason: "audit".into(),
            exact_shown: false,
            outcome,
            broken: broken.into(),
            unknown: unknown.into(),
            software: "s".into(),
            at: DateTime::default(),
        };
        use {Link::*, Outcome::*};
        for (replay, holds) in [
            (replay(Match, &[], &[]), true),
            (replay(Mismatch, &[Snapshot], &[Cells]), true),
            (replay(Incomplete, &[], &[Seed, Cells]), true),
            (replay(Match, &[Cells], &[]), false),
            (replay(Match, &[], &[Cells]), false),
            (replay(Incomplete, &[Seed], &[Cells]), false),
            (replay(Mismatch, &[Cells, Seed], &[]), false),
            (replay(Mismatch, &[Cells, Cells], &[]), false),
            (replay(Mismatch, &[Cells], &[Cells]), false),
            (Replay { by: String::new(), ..replay(Match, &[], &[]) }, false),
            (Replay { reason: "two\nlines".into(), ..replay(Match, &[], &[]) }, false),
        ] {
            assert_eq!(replay.check().is_ok(), holds, "{replay:?}");
        }
        let named = |link: Link| serde_json::to_value(link).unwrap() == link.as_str();
        assert!(Link::ALL.into_iter().all(named) && Link::ALL.is_sorted());
    }
}
