//! What the door says in JSON: dry runs, results, and the state of the network.

mod privacy;

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    committee::Committee,
    digest::Digest,
    dsse::Envelope,
    keys::PublicKey,
    log::{entry, store::Shown},
    refusal::Code,
    units::MicroRho,
};
use serde::{Deserialize, Serialize};

pub use sekisho_protocol::published::HolderState;

pub use self::privacy::{ExactReport, Guarantee, NoiseReport, PrivacyReport, Protection};
use crate::store::Kind;

/// The key of the [`ResultReport`] in the metadata of a result's arrow schema.
pub const RESULT_KEY: &str = "sekisho.result";
/// The gRPC metadata key of a request that chooses the confidence of intervals: "0.95".
pub const CONFIDENCE_KEY: &str = "sekisho-confidence";
/// The first column of a result: [`ALL_HOLDERS`], or the hospital whose own table the row is of.
pub const HOLDER: &str = "holder";
/// In the metadata of an aggregate's column, in files of Arrow and Parquet: the name of the column with its lower bound.
pub const LOW_KEY: &str = "sekisho.low";
/// The name of the column with its upper bound.
pub const HIGH_KEY: &str = "sekisho.high";
/// The confidence of its interval: "0.95".
pub const COLUMN_CONFIDENCE_KEY: &str = "sekisho.confidence";
/// What it is made of, as JSON: a list of `measure` and `standard_deviation` (per cell and hospital).
pub const NOISE_KEY: &str = "sekisho.noise";
/// Of a column that is a measure itself: the measure's name.
pub const MEASURE_KEY: &str = "sekisho.measure";
/// Of a column that is a measure itself: the standard deviation of its noise in a hospital's row, in the column's unit.
pub const NOISE_SD_KEY: &str = "sekisho.noise_sd";
/// The same in a row of [`ALL_HOLDERS`].
pub const NOISE_SD_ALL_KEY: &str = "sekisho.noise_sd_all";
/// The value of [`HOLDER`] in rows of the combined table.
pub const ALL_HOLDERS: &str = "(all)";
/// The `DoAction` that hands in a signed document: the body is its DSSE envelope.
pub const ACTION_PUT: &str = "put";
/// The `DoAction` that reads a document: the body is a [`Want`], the result its DSSE envelope.
pub const ACTION_GET: &str = "get";
/// The `DoAction` that tells of the network: no body, the result a [`NetworkReport`].
pub const ACTION_NETWORK: &str = "network";

/// The `DoAction` that lists public documents with their history: the body is a [`ListWant`], the result a list of
/// [`Listed`], the latest first.
pub const ACTION_LIST: &str = "list";
/// The `DoAction` that returns the public use register: the body is a [`RegisterWant`], the result a
/// [`crate::use_register::UseRegister`].
pub const ACTION_REGISTER: &str = "register";
/// The `DoAction` that reads what is not public: the body is the envelope of an `access/1`.
pub const ACTION_READ: &str = "read";

/// The `DoAction` that exports a result: the body is the envelope of an `access/1` that names it, the results are the pieces of
/// its bundle as a zip archive.
pub const ACTION_BUNDLE: &str = "bundle";
/// The `DoAction` that tells whose signatures count: no body, the result a [`TrustReport`].
pub const ACTION_TRUST: &str = "trust";
/// The `DoAction` that tells what a study has left: the body is a permit's id or digest, or a study's id, as JSON text; the
/// result a [`BudgetReport`].
pub const ACTION_BUDGET: &str = "budget";

/// What a reader is told of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogReport {
    /// Entries.
    Entries {
        /// Those that the reader may open, in order.
        entries: Vec<Shown>,
        /// From which entry on there are more; none at the end of the log.
        next: Option<u64>,
        /// The newest checkpoint that hospitals cosigned, as it was signed.
        checkpoint: Option<String>,
    },
    /// One statement.
    Statement {
        /// What it is.
        kind: entry::Kind,
        /// Its bytes, which are text.
        statement: String,
        /// The proof that it is in the log; none before hospitals cosigned a checkpoint with it.
        proof: Option<String>,
    },
}

/// Whose signatures count, from what the coordinator's operator pinned to what is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrustReport {
    /// The governance key that is pinned.
    pub governance: PublicKey,
    /// Its rotations, oldest first.
    pub rotations: Vec<Envelope>,
    /// The committee that is pinned.
    pub committee: Committee,
    /// Those after it, oldest first.
    pub committees: Vec<Envelope>,
    /// The regulators with their keys.
    pub regulators: Vec<(String, PublicKey)>,
    /// Their newest orders.
    pub orders: Vec<Envelope>,
}

/// What a study has left, as far as the coordinator can tell: from the hospitals' signed acceptances and receipts. Runs that
/// were charged without an answer are not in it, so the hospitals may have less.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BudgetReport {
    /// The study.
    pub study_id: String,
    /// The permits that belong to it, by id and version.
    pub permits: Vec<String>,
    /// Each hospital.
    pub holders: Vec<HolderBudget>,
}

/// What a study has left at a hospital, in micro-rho.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderBudget {
    /// The hospital, by roster name.
    pub name: String,
    /// Its answer to the newest permit: none yet, accepted, or the code of its refusal.
    pub answer: String,
    /// What it set aside for the study.
    pub earmark: MicroRho,
    /// What its receipts charged.
    pub spent: MicroRho,
    /// What is left at most.
    pub left: MicroRho,
    /// The day since which no guarantee of differential privacy holds for its patient register, by any of its receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_since: Option<NaiveDate>,
}

/// Which documents [`ACTION_LIST`] shall return.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListWant {
    /// Their kind.
    pub kind: Kind,
    /// Whose: a permit's id, a hospital's name; all, when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Which uses [`ACTION_REGISTER`] shall return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterWant {
    /// Those of this study; all, when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<String>,
}

/// One document of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// Whose it is; empty where there is one line of them.
    pub name: String,
    /// Its number, 0 for what has none.
    pub seq: u64,
    /// When it was handed in.
    pub put_at: DateTime<Utc>,
    /// The document, signed.
    pub envelope: Envelope,
}

/// How far an application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationState {
    /// Nobody has found its newest version complete.
    Submitted,
    /// A new version is needed.
    ChangesRequested,
    /// It is complete, and waits for a decision.
    Complete,
    /// A permit answers its newest version.
    Permitted,
    /// Its newest version was refused.
    Refused,
}

impl ApplicationState {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::ChangesRequested => "changes_requested",
            Self::Complete => "complete",
            Self::Permitted => "permitted",
            Self::Refused => "refused",
        }
    }
}

/// A review of an application.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReviewReport {
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// The member, as the committee in force calls them; none when they left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it was handed in.
    pub put_at: DateTime<Utc>,
    /// The review, signed.
    pub envelope: Envelope,
}

/// An application in a list: its newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationReport {
    /// Its id.
    pub id: String,
    /// Its newest version.
    pub version: u32,
    /// That version's digest.
    pub digest: Digest,
    /// The legal basis.
    pub basis: sekisho_protocol::permit::Basis,
    /// Who applies.
    pub applicant: String,
    /// How far it is.
    pub state: ApplicationState,
    /// When the newest version was handed in.
    pub put_at: DateTime<Utc>,
    /// Since when it has been complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<DateTime<Utc>>,
}

/// Which document [`ACTION_GET`] shall return.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Want {
    /// The roster in force.
    Roster,
    /// The status in force.
    Status,
    /// A schema.
    Schema {
        /// By digest.
        digest: Digest,
    },
    /// A hospital's newest catalogue.
    Catalogue {
        /// The hospital, by roster name.
        node: String,
    },
    /// A permit, by digest, or by id: then its newest version.
    Permit {
        /// A digest of 64 hexadecimal digits, or an id.
        name: String,
    },
}

/// One hospital's part in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HolderReport {
    /// The hospital, by roster name.
    pub name: String,
    /// What it did.
    pub state: HolderState,
    /// Its code, unless it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The day as of which its patients were eligible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<NaiveDate>,
    /// What the study has left there, in dry runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study_left: Option<MicroRho>,
    /// The run is stored there and costs nothing, in dry runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<bool>,
    /// Its data set is declared synthetic.
    #[serde(default)]
    pub synthetic: bool,
    /// The day since which no guarantee of differential privacy holds for its patient register, by its receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_since: Option<NaiveDate>,
    /// Its signed receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Envelope>,
}

impl HolderReport {
    /// It neither answered nor refused: a person there looks at the exact result first.
    pub fn waits(&self) -> bool {
        self.code == Some(Code::ExactWaiting)
    }
}

/// How often one bound bit: a noised count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BiteReport {
    /// What is counted: rows whose value was clamped, or patients whose rows were weighted down.
    pub counted: String,
    /// The noised count.
    pub estimate: f64,
    /// The lower end of its interval.
    pub low: f64,
    /// The upper end of its interval.
    pub high: f64,
}

/// The answer to a dry run: no row was touched, nothing was charged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRunReport {
    /// How many cells each release would have.
    pub cells: usize,
    /// Cost and protection.
    pub privacy: PrivacyReport,
    /// What each hospital says.
    pub holders: Vec<HolderReport>,
}

/// What a result is, beside its table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResultReport {
    /// The coordinator's round.
    pub round: String,
    /// The permit, by digest.
    pub permit: Digest,
    /// The signed query, by digest.
    pub query: Digest,
    /// Which run.
    pub run: u32,
    /// When the round ended.
    pub at: DateTime<Utc>,
    /// Every hospital that was asked answered; else the sums lack the others.
    pub complete: bool,
    /// The confidence of the intervals.
    pub confidence: f64,
    /// The disclosure preset that was applied.
    pub preset: sekisho_protocol::permit::Preset,
    /// Some of the data is declared synthetic: the compiled-in ceilings on rho may have been passed.
    pub synthetic: bool,
    /// What averages are: weighted means of clamped values; and what numbers of an exact result are.
    pub method: String,
    /// How much the bounds bit, over all hospitals that answered, where the query asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bites: Vec<BiteReport>,
    /// How many released cells of the combined table are hidden, by the preset or since a margin would give them away.
    #[serde(default)]
    pub suppressed_cells: usize,
    /// Cost and protection.
    pub privacy: PrivacyReport,
    /// What each hospital did.
    pub holders: Vec<HolderReport>,
}

/// What the coordinator did with a document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutReport {
    /// `roster`, `status`, `schema` or `permit`.
    pub kind: String,
    /// Its digest.
    pub digest: Digest,
    /// What the connected nodes said; empty for schemas.
    pub holders: Vec<HolderReport>,
}

/// One member as the coordinator sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberReport {
    /// Roster name.
    pub name: String,
    /// Connected now.
    pub connected: bool,
    /// The roster that it holds, by sequence number.
    pub roster_seq: u64,
    /// The status that it holds, by sequence number.
    pub status_seq: u64,
}

/// The state of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Sequence number of the roster in force, 0 for none.
    pub roster_seq: u64,
    /// Sequence number of the status in force, 0 for none.
    pub status_seq: u64,
    /// When the status expires.
    pub status_expires: Option<DateTime<Utc>>,
    /// The nodes of the roster.
    pub members: Vec<MemberReport>,
}
