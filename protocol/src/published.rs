//! `release/1`: the coordinator's account of one result: whose releases are in it, and which files they came to.
//!
//! It is signed when the round ends and entered in the coordinator's log, whether or not the result may leave yet: it has
//! digests and no values. A result is stated once, by the first round that brought it.
//!
//! Deliberately absent: any word on whether the releases are true; each hospital's receipt says that, in its own log.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, output_review::result_digest, permit::MAX_ENTRIES, roster::is_name};

/// The most files of one result.
const MAX_FILES: usize = 16;
/// The longest name of a file, or of software.
const MAX_NAME: usize = 128;

/// What a hospital did with a query or a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderState {
    /// It answered, or accepted.
    Answered,
    /// It refused before charging.
    Refused,
    /// It charged and gave no answer, or none that was believed.
    NoAnswer,
    /// It could not be reached in time.
    Offline,
}

impl HolderState {
    /// The name in documents and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
            Self::Offline => "offline",
        }
    }
}

/// One hospital's part in a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderPart {
    /// The hospital, by roster name.
    pub name: String,
    /// What it did.
    pub state: HolderState,
    /// The digest of its release, when it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Digest>,
}

/// One file of the combined result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Its path in a bundle.
    pub path: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// The statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRelease {
    /// The result ([`result_digest`]).
    pub result: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// The study.
    pub study_id: String,
    /// The signed query, by digest.
    pub query: Digest,
    /// What makes the question the same one ([`crate::query::Query::key`]).
    pub query_key: Digest,
    /// Which run of it.
    pub run: u32,
    /// The coordinator's round.
    pub round: String,
    /// The hospitals asked, by name.
    pub holders: Vec<HolderPart>,
    /// The files of the combined result, by path.
    pub files: Vec<FilePart>,
    /// The coordinator's software.
    pub software: String,
    /// When the round ended.
    pub at: DateTime<Utc>,
}

impl PublishedRelease {
    /// The hospitals that answered, with the digests of their releases.
    pub fn releases(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.holders.iter().filter_map(|holder| Some((holder.name.as_str(), holder.release?)))
    }
}

impl Document for PublishedRelease {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.release.v1+json";
    const NAME: &'static str = "release statement";
    const MAX_BYTES: usize = 512 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(self.run > 0, "runs count from 1")?;
        rule(is_name(&self.study_id), "study_id is 1-64 lower-case letters, digits and hyphens")?;
        rule(self.round.len() <= 64, "a round's id has at most 64 bytes")?;
        rule(self.software.len() <= MAX_NAME, "software has at most 128 bytes")?;
        rule((1..=MAX_ENTRIES).contains(&self.holders.len()), "a result is of 1 to 1024 hospitals")?;
        rule(self.holders.iter().all(|h| is_name(&h.name)), "a hospital's name is that of a roster")?;
        rule(self.holders.windows(2).all(|pair| pair[0].name < pair[1].name), "hospitals are in order, each once")?;
        let fits = |h: &HolderPart| (h.state == HolderState::Answered) == h.release.is_some();
        rule(self.holders.iter().all(fits), "who answered has a release, and nobody else")?;
        rule(self.releases().next().is_some(), "a result has a release")?;
        rule((1..=MAX_FILES).contains(&self.files.len()), "a result has 1 to 16 files")?;
        rule(self.files.iter().all(|f| f.path.len() <= MAX_NAME), "a path has at most 128 bytes")?;
        rule(self.files.windows(2).all(|pair| pair[0].path < pair[1].path), "files are in order, each once")?;
        let result = result_digest(self.query_key, self.run, self.releases());
        rule(self.result == result, "the result's digest is not that of these releases")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> PublishedRelease {
        let (key, release) = (Digest::of(b"key"), Digest::of(b"release"));
        let holder = |name: &str, state, release| HolderPart { name: name.into(), state, release };
        PublishedRelease {
            result: result_digest(key, 1, [("kyoto", release)]),
            permit: Digest::of(b"permit"),
            study_id: "asthma".into(),
            query: Digest::of(b"query"),
            query_key: key,
            run: 1,
            round: "r".into(),
            holders: vec![
                holder("kyoto", HolderState::Answered, Some(release)),
                holder("tokyo", HolderState::Offline, None),
            ],
            files: vec![FilePart { path: "result/combined.csv".into(), sha256: Digest::of(b"") }],
            software: "sekisho-coordinator 0".into(),
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_statement_is_of_its_releases() {
        type Change = fn(&mut PublishedRelease);
        let rows: [(&str, bool, Change); 8] = [
            ("as it is", true, |_| {}),
            ("another release", false, |s| s.holders[0].release = Some(Digest::of(b"other"))),
            ("another run", false, |s| s.run = 2),
            ("a release of who did not answer", false, |s| s.holders[1].release = Some(Digest::of(b"x"))),
            ("an answer without release", false, |s| s.holders[1].state = HolderState::Answered),
            ("hospitals out of order", false, |s| s.holders.reverse()),
            ("no file", false, |s| s.files.clear()),
            ("a hospital that no roster can name", false, |s| s.holders[1].name = "../tokyo".into()),
        ];
        for (fact, holds, change) in rows {
            let mut statement = statement();
            change(&mut statement);
            assert_eq!(statement.check().is_ok(), holds, "{fact}: {:?}", statement.check());
        }
    }
}
