//! Checks a bundle: bytes and trusted keys in, a report out. Nothing else is read.
//!
//! Promises: every byte of every file is covered by a check; what does not depend on a broken link is checked all the same, and
//! every broken link is named; what a stranger wrote is bounded before it is decoded and nothing of it makes this panic; the plan
//! and the tables are computed again, so that nobody's word is taken for them.
//!
//! What is deliberately absent, since no file can prove it, is in [`link::not_proved`].

mod fault;
mod files;
mod hospital;
pub mod link;
mod logged;
mod people;
mod result;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, published::PublishedRelease};
use serde::Serialize;

use self::{fault::Fault, files::Files, link::Link};
use super::{describe, layout, trust::Trust};

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It holds.
    Holds {
        /// What was found.
        found: String,
    },
    /// It does not.
    Broken {
        /// Why, in the checker's words.
        why: String,
    },
    /// It was not looked at, since it hangs from a link that broke.
    NotChecked {
        /// That link.
        since: Link,
    },
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which link of the chain.
    pub link: Link,
    /// The hospital or file that it is about; empty for the one there is.
    pub about: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The checkpoint as of which all this holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AsOf {
    /// The log.
    pub log: String,
    /// How many entries it had.
    pub size: u64,
    /// Its root, in hexadecimal.
    pub root: Digest,
    /// The witnesses that cosigned, and when.
    pub witnesses: Vec<(String, DateTime<Utc>)>,
}

/// What was checked, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every check holds.
    pub verified: bool,
    /// The result, once the coordinator's account of it holds.
    pub result: Option<Digest>,
    /// Its study.
    pub study: Option<String>,
    /// The checkpoint.
    pub as_of: Option<AsOf>,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

impl Report {
    /// The links that broke.
    pub fn broken(&self) -> BTreeSet<Link> {
        let broken = |check: &&Check| matches!(check.outcome, Outcome::Broken { .. });
        self.checks.iter().filter(broken).map(|check| check.link).collect()
    }
}

/// A check that is under way.
struct Checking<'a> {
    files: Files<'a>,
    trust: &'a Trust,
    checks: Vec<Check>,
}

impl Checking<'_> {
    /// Writes down what came of a check; what it left behind, if it holds.
    fn settle<T>(&mut self, link: Link, about: &str, came: Result<(T, String), Fault>) -> Option<T> {
        let (left, outcome) = match came {
            Ok((left, found)) => (Some(left), Outcome::Holds { found }),
            Err(fault) => (None, Outcome::Broken { why: fault.to_string() }),
        };
        self.checks.push(Check { link, about: about.to_string(), outcome });
        left
    }

    /// Writes down that a check was not made.
    fn skip(&mut self, link: Link, about: &str, since: Link) {
        self.checks.push(Check { link, about: about.to_string(), outcome: Outcome::NotChecked { since } });
    }

    /// That the descriptions are those of these files.
    fn description(&mut self, all: &BTreeMap<String, Vec<u8>>) {
        let described = |made: Result<Vec<u8>, describe::DescribeError>, path: &'static str| {
            let there = self.files.need(path)?;
            if made? == there { Ok(()) } else { Err(Fault::NotOfThese(path, describe::differences(there, all))) }
        };
        let mut rest = all.clone();
        let readme = rest.remove(layout::README);
        let text = described(describe::readme(&rest).map(String::into_bytes), layout::README);
        rest.extend(readme.map(|readme| (layout::README.to_string(), readme)));
        rest.remove(layout::CRATE);
        let metadata = described(describe::metadata(&rest), layout::CRATE);
        let listed = format!("{} files, each with the SHA-256 that is listed", all.len());
        self.settle(Link::Files, "", metadata.and(text).map(|()| ((), listed)));
    }

    /// That nothing is there that no check looked at.
    fn nothing_else(&mut self) {
        for path in self.files.unread() {
            self.settle::<()>(Link::Files, &path, Err(Fault::Unread));
        }
    }
}

/// Checks the files of a bundle.
pub async fn verify(files: &BTreeMap<String, Vec<u8>>, trust: &Trust) -> Report {
    let mut checking = Checking { files: Files::new(files), trust, checks: Vec::new() };
    checking.description(files);
    let people = checking.people();
    let permit = checking.permit(&people);
    let schema = checking.schema(&people, permit.as_ref());
    let query = checking.query(&people, permit.as_ref());
    let statement = checking.statement(&people, permit.as_ref(), query.as_ref());
    let chain =
        hospital::Chain { people: &people, permit: permit.as_ref(), query: query.as_ref(), said: statement.as_ref() };
    let hospitals = checking.hospitals(&chain);
    checking.result(&chain, schema.as_ref(), hospitals.as_deref()).await;
    checking.reviews(&chain);
    let witnessed = checking.checkpoint(&people);
    let places = checking.logged(witnessed.as_ref());
    checking.committee_in_force(permit.as_ref(), &places);
    checking.nothing_else();
    let Checking { checks, .. } = checking;
    let said = statement.as_deref();
    Report {
        verified: checks.iter().all(|check| matches!(check.outcome, Outcome::Holds { .. })),
        result: said.map(|said: &PublishedRelease| said.result),
        study: said.map(|said: &PublishedRelease| said.study_id.clone()),
        as_of: witnessed.as_ref().map(logged::as_of),
        checks,
    }
}
