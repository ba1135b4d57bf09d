//! Whose signatures the statements of a log carry: each is verified with the keys that the documents before it name.
//!
//! The chain begins with what the log's keeper is configured to trust ([`Anchors`]) and is walked in the order of the entries:
//! governance keys and committees sign rosters, schemas and permits; rosters name hospitals, permits name persons. A receipt is
//! matched to its query, or at a hospital to its charge; an exact release is one that the permit lists so, and its charge is zero.
//!
//! It promises: the first statement that is not signed by whoever had to sign it is named; what cannot be said, because a
//! statement that it needs was erased or never entered, is counted and named too, and is not called good.
//!
//! Deliberately absent: what a status voids (a key that is void now signed rightly before), expiry, and whether a statement is
//! true.

mod checks;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
};

use serde::Serialize;

use self::checks::Said;
use crate::{
    committee::{Committee, CommitteeChain},
    digest::Digest,
    keys::PublicKey,
    log::entry::Kind,
    orders::Regulator,
    permit::{Permit, ReleaseKind},
    units::MicroRho,
};

/// Where the signatures of a log begin.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// The governance keys that the configuration and the operator named.
    pub governance: Vec<PublicKey>,
    /// The first committee.
    pub committee: Committee,
    /// The regulators whose orders are taken.
    pub regulators: Vec<Regulator>,
    /// The keeper of the log, by roster name, and its keys: it signs before the first roster arrives.
    pub own: (String, Vec<PublicKey>),
}

/// The statement that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index}, a statement of the kind {kind}: {why}")]
pub struct WrongStatement {
    /// Which entry.
    pub index: u64,
    /// What it says that it is.
    pub kind: Kind,
    /// What is wrong.
    pub why: String,
}

/// What was found of the statements of a log when none of them is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many are signed by whoever had to sign them.
    pub verified: u64,
    /// How many receipts were matched to their query or charge.
    pub matched: u64,
    /// How many cannot be verified or matched, since what they need is not in the log.
    pub open: u64,
    /// The first of them, and why.
    pub first_open: Option<(u64, String)>,
}

impl Verified {
    /// In a line, or two when something is open.
    pub fn in_words(&self) -> String {
        let Self { verified, matched, open, first_open } = self;
        let words = format!("signatures: {verified} statements verified, {matched} receipts matched, {open} open");
        match first_open {
            None => words,
            Some((index, why)) => format!("{words}\nfirst open: entry {index}: {why}"),
        }
    }
}

/// A question of which receipts tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    permit: Digest,
    key: Digest,
    run: u32,
    /// As its permit lists it; as the receipt says.
    kind: ReleaseKind,
}

/// A charge of which a receipt tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Charged {
    study_id: String,
    micro_rho: MicroRho,
}

/// The keys and questions that were met so far.
pub struct Statements {
    governance: Vec<PublicKey>,
    chain: CommitteeChain,
    committees: Vec<Committee>,
    regulators: Vec<Regulator>,
    members: BTreeMap<String, Vec<PublicKey>>,
    /// Whose log it is, by roster name.
    keeper: String,
    permits: HashMap<Digest, Permit>,
    questions: HashMap<Digest, Question>,
    charged: HashMap<(Digest, u32), Charged>,
    /// Whether a lost log was written off: receipts of before it have no charge in the log.
    written_off: bool,
    found: Verified,
}

impl Statements {
    /// Nothing was met yet.
    pub fn new(anchors: Anchors) -> Self {
        let Anchors { governance, committee, regulators, own: (name, keys) } = anchors;
        Self {
            governance,
            committees: vec![committee.clone()],
            chain: CommitteeChain::pinned(committee),
            regulators,
            members: BTreeMap::from([(name.clone(), keys)]),
            keeper: name,
            permits: HashMap::new(),
            questions: HashMap::new(),
            charged: HashMap::new(),
            written_off: false,
            found: Verified::default(),
        }
    }

    /// Checks the next entries of the log, with `threads` at once; erased ones are left out by the caller.
    ///
    /// # Errors
    /// The first statement that is wrong.
    pub fn next(&mut self, entries: &[(u64, Kind, &[u8])], threads: NonZeroUsize) -> Result<(), WrongStatement> {
        // Documents that name keys come first: what they sign may follow them in these entries.
        let mut said: Vec<Option<Result<Said, String>>> = Vec::with_capacity(entries.len());
        for (_, kind, statement) in entries {
            said.push(if names_keys(*kind) { Some(self.learn(*kind, statement)) } else { None });
        }
        let mut rest: Vec<_> = said.iter_mut().zip(entries).filter(|(said, _)| said.is_none()).collect();
        let each = rest.len().div_ceil(threads.get()).max(1);
        let this = &*self;
        std::thread::scope(|scope| {
            for some in rest.chunks_mut(each) {
                scope.spawn(move || {
                    for (said, (_, kind, statement)) in some {
                        **said = Some(this.check(*kind, statement));
                    }
                });
            }
        });
        for (said, (index, kind, _)) in said.into_iter().zip(entries) {
            let said = said.unwrap_or_else(|| Err("it was not looked at".into()));
            let taken = said.and_then(|said| self.take(*index, said));
            taken.map_err(|why| WrongStatement { index: *index, kind: *kind, why })?;
        }
        Ok(())
    }

    /// What was found.
    pub fn found(&self) -> &Verified {
        &self.found
    }

    /// Takes what a statement says into account.
    fn take(&mut self, index: u64, said: Said) -> Result<(), String> {
        match said {
            Said::Signed => {}
            Said::WrittenOff => self.written_off = true,
            Said::Open(why) => {
                self.open(index, why);
                return Ok(());
            }
            Said::Query { digest, question } => drop(self.questions.insert(digest, question)),
            Said::Reservation { key, run, charged } => drop(self.charged.insert((key, run), charged)),
            Said::Receipt { query, question, charged } => self.matches(index, query, &question, &charged)?,
        }
        self.found.verified += 1;
        Ok(())
    }

    /// That a receipt is of the query and the charge that it names.
    fn matches(&mut self, index: u64, query: Digest, question: &Question, charged: &Charged) -> Result<(), String> {
        let asked = self.questions.get(&query);
        let reserved = self.charged.get(&(question.key, question.run));
        if let Some(asked) = asked {
            if (asked.permit, asked.key, asked.run) != (question.permit, question.key, question.run) {
                return Err("its query is of another permit, question or run".into());
            }
            if asked.kind != question.kind {
                let (said, listed) = (question.kind.as_str(), asked.kind.as_str());
                return Err(format!("it says that the release is {said}, and the permit lists the query as {listed}"));
            }
        }
        if let Some(reserved) = reserved
            && reserved != charged
        {
            return Err("its charge is of another study or amount".into());
        }
        let permit = self.permits.get(&question.permit);
        if permit.is_some_and(|permit| permit.study_id != charged.study_id) {
            return Err("its permit is of another study".into());
        }
        // A hospital's log has no query: what no query of the permit may be is wrong all the same.
        if permit.is_some_and(|permit| !permit.release_kinds.contains(&question.kind)) {
            return Err(format!("its permit allows no {} release", question.kind.as_str()));
        }
        if asked.is_some() || reserved.is_some() {
            self.found.matched += 1;
        } else if !self.written_off {
            self.open(index, "neither its query nor its charge is in this log".into());
        }
        Ok(())
    }

    fn open(&mut self, index: u64, why: String) {
        self.found.open += 1;
        self.found.first_open.get_or_insert((index, why));
    }
}

/// Whether a statement of this kind says whose signatures count after it.
const fn names_keys(kind: Kind) -> bool {
    match kind {
        Kind::Roster | Kind::Committee | Kind::Governance | Kind::Permit => true,
        Kind::Status
        | Kind::Orders
        | Kind::Catalogue
        | Kind::Application
        | Kind::Review
        | Kind::Decision
        | Kind::Acceptance
        | Kind::Query
        | Kind::Reservation
        | Kind::Receipt
        | Kind::Refusal
        | Kind::OutputReview
        | Kind::Release
        | Kind::Policy
        | Kind::Replay
        | Kind::Alert
        | Kind::Checkpoint
        | Kind::Schema
        | Kind::Publication
        | Kind::WriteOff => false,
    }
}
