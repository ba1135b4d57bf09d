//! A run: what is charged for it, and what became of it.

use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{digest::Digest, permit::OptOut, units::MicroRho};

use super::{Asked, Cost};

/// What one stored release is the release of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// The permit, by digest.
    pub permit: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run, from 1.
    pub run: u32,
}

/// What is charged, and what the run is bound to.
#[derive(Clone, Debug)]
pub struct ChargeRequest {
    /// The run.
    pub key: RunKey,
    /// The study that pays.
    pub study_id: String,
    /// What the permit lets the study spend here in total; the study's earmark holds beside it.
    pub permit_total: Cost,
    /// The digest of the signed message that asks.
    pub query: Digest,
    /// The message's nonce.
    pub nonce: String,
    /// From when on the message is stale, and its nonce need not be kept.
    pub nonce_expires: DateTime<Utc>,
    /// What it costs; its rho is above zero, but for an exact release, which costs nothing.
    pub cost: Cost,
    /// The state of the patient register that fixes who is eligible.
    pub register_seq: i64,
    /// The day as of which patients are eligible.
    pub as_of: NaiveDate,
    /// The snapshot that is read.
    pub snapshot: String,
    /// The question, for an inspector.
    pub asked: Asked,
    /// Now.
    pub at: DateTime<Utc>,
}

/// A release as it is stored: bytes that are served again as they are, and the salts that are not.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRelease {
    /// The release's header.
    pub header: Vec<u8>,
    /// The released cells.
    pub cells: Vec<u8>,
    /// The envelope of the receipt.
    pub receipt: Vec<u8>,
    /// The salts that open the receipt's commitments, for an inspector on the hospital's premises; never sent.
    pub salts: Vec<u8>,
}

impl fmt::Debug for StoredRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredRelease(..)")
    }
}

/// What became of a charged run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Charged; nothing was released.
    Reserved,
    /// Charged and released.
    Released(StoredRelease),
    /// Charged in a database that was lost: its release is not here, and it is not run again.
    Lost,
}

/// A charged run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The charge's number at this node.
    pub charge_id: i64,
    /// What became of it.
    pub state: RunState,
    /// The state of the patient register at the charge.
    pub register_seq: i64,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// The hospital's own rule at the charge; none of a charge of older software, which did not note it.
    pub own_rule: Option<OptOut>,
    /// The snapshot that is read.
    pub snapshot: String,
    /// When it was charged.
    pub charged_at: DateTime<Utc>,
    /// What it cost.
    pub micro_rho: MicroRho,
}

/// What a reservation found or made.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Charged now.
    New(Run),
    /// Charged before; nothing was charged now.
    Existing(Run),
}
