//! A run is made again, for an inspector on the hospital's premises: from the stored question to the stored release.
//!
//! Beside the running node or without it, from its database, its snapshots and its keys. Each [`Link`] is looked at
//! by itself, so that what is broken is named: the question, the receipt, the release, the snapshot, the register,
//! the plan, the seed, and last whether exact cells and noise are the released cells. Nothing is charged and nothing
//! is released.
//!
//! Promises: exact cells and the seed are in [`Exact`] alone, which nothing but an inspector's [`Console`] is shown;
//! everything else here is public or the hospital's own bookkeeping. Whether a replay was made is the caller's to
//! record, before it shows anything.
//!
//! Deliberately absent: any way here from the network (the daemon does not know this module).

mod links;

use std::path::PathBuf;

use sekisho_aggregation::{
    explain::Explanation,
    inspection::{Console, Inspection},
};
use sekisho_protocol::{
    digest::Digest,
    permit::Permit,
    query::Query,
    receipt::Receipt,
    replay::{Link, Outcome, Replay},
};
use zeroize::Zeroizing;

use crate::{
    data::mapping::Mapping,
    documents::Documents,
    ledger::{Charged, Ledger, LedgerError, RunState},
    register::Register,
    seeds::Seed,
};

/// What a run is made again with.
pub struct Inspecting {
    /// This hospital, by roster name.
    pub name: String,
    /// Charges, releases and questions.
    pub ledger: Ledger,
    /// The patient register.
    pub register: Register,
    /// The committees that permits were taken under.
    pub documents: Documents,
    /// The data sets, and older mappings of them.
    pub mappings: Vec<Mapping>,
    /// The folder of the snapshots.
    pub snapshots: PathBuf,
    /// The signing key's file; the keys that it replaced lie beside it, and the key of seeds.
    pub signing_key: PathBuf,
    /// Memory of the execution in bytes.
    pub memory_bytes: usize,
    /// Count what was clamped too, for which the rows are read a second time.
    pub clamped: bool,
}

/// What is known of a link, with a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It holds.
    Holds(String),
    /// It is broken.
    Broken(String),
    /// It could not be looked at.
    Unknown(String),
}

/// A question as it was asked.
pub struct Question {
    /// The query.
    pub query: Query,
    /// The permit.
    pub permit: Permit,
    /// Who signed it, by the permit's name; none of the hospital's own counts.
    pub person: Option<String>,
}

/// The exact cells beside the release, and the seed between them.
pub struct Exact {
    inspection: Inspection,
    seed: Seed,
}

impl Exact {
    /// Shows everything on an inspector's screen.
    pub fn show(&self, console: &mut dyn Console) {
        self.inspection.show(console);
    }

    /// The seed in hexadecimal, for the same screen.
    pub fn seed(&self) -> Zeroizing<String> {
        self.seed.shown()
    }
}

/// A run that was made again.
pub struct Replayed {
    /// The charge.
    pub charged: Charged,
    /// What was asked, where it is known.
    pub question: Option<Question>,
    /// The receipt with its digest, where it can be read.
    pub receipt: Option<(Receipt, Digest)>,
    /// What was understood of the SQL.
    pub explanation: Option<Explanation>,
    /// Every link, in order.
    pub links: Vec<(Link, Held)>,
    /// What an inspector may see on the screen.
    pub exact: Option<Exact>,
}

/// Why a run is not made again.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such charge.
    #[error("there is no charge {0}: `sekisho-node inspect list` shows those that are")]
    NoCharge(i64),
    /// It has no release.
    #[error("charge {0} has no release: there is nothing to compare with")]
    NotReleased(i64),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Replayed {
    /// The links that are broken, in order.
    pub fn broken(&self) -> Vec<Link> {
        self.links.iter().filter(|(_, held)| matches!(held, Held::Broken(_))).map(|(link, _)| *link).collect()
    }

    /// The links that could not be looked at, in order.
    pub fn unknown(&self) -> Vec<Link> {
        self.links.iter().filter(|(_, held)| matches!(held, Held::Unknown(_))).map(|(link, _)| *link).collect()
    }

    /// What came of it.
    pub fn outcome(&self) -> Outcome {
        Replay::outcome_of(&self.broken(), &self.unknown())
    }
}

impl Inspecting {
    /// Makes the run of a charge again. Nothing is written.
    ///
    /// # Errors
    /// When there is no such charge, it has no release, or the ledger cannot be read.
    pub async fn replay(&self, charge_id: i64) -> Result<Replayed, InspectError> {
        let kept = self.ledger.kept(charge_id).await?.ok_or(InspectError::NoCharge(charge_id))?;
        let RunState::Released(stored) = &kept.run.state else { return Err(InspectError::NotReleased(charge_id)) };
        let mut links = Vec::new();
        let mut at = |link, held| links.push((link, held));

        let (question, held) = self.question(&kept).await;
        at(Link::Question, held);
        let (receipt, held) = self.receipt(&kept, &stored.receipt);
        at(Link::Receipt, held);
        let said = receipt.as_ref().map(|(receipt, _)| receipt);
        let (release, held) = links::release(stored, said);
        at(Link::Release, held);
        let (snapshot, held) = self.snapshot(&kept, stored, said).await;
        at(Link::Snapshot, held);
        at(Link::Register, self.register(&kept, stored, said).await);
        let (plan, held) = self.plan(&kept, question.as_ref(), said).await;
        at(Link::Plan, held);
        let explanation = plan.as_ref().map(|plan| plan.explain());
        let (seed, held) = self.seed(&kept);
        at(Link::Seed, held);
        let again = match (question.as_ref(), plan, snapshot, release, seed) {
            (Some(question), Some(plan), Some(snapshot), Some(release), Some(seed)) => {
                Some(links::Again { kept: &kept, question, plan, snapshot, release, seed })
            }
            _ => None,
        };
        let (exact, held) = match again {
            Some(again) => self.cells(again, said).await,
            None => (None, Held::Unknown("without the links above there are no cells to compare".into())),
        };
        at(Link::Cells, held);
        Ok(Replayed { charged: kept.charged, question, receipt, explanation, links, exact })
    }
}
