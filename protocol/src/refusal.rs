//! Refusals: a stable code, what was wrong, and what to do about it.
//!
//! Codes are part of the interface: they are never renamed or reused. Before a charge is reserved nothing
//! that is said depends on data, so these codes may be distinct; after it there is only
//! [`Code::NoAnswer`]. The words of a refusal never hold a cell value, a row, or a count of either.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::dsse::DsseError;

/// The most characters of a refusal's detail.
pub const MAX_DETAIL: usize = 500;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $advice:literal;)*) => {
        /// Why nothing was released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text of the code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What the person who meets this refusal can do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(UnknownCode) }
            }
        }
    };
}

codes! {
    /// The permit's digest is not known here.
    PermitUnknown = "permit_unknown", "submit the permit with `sekisho permit submit`, or name an accepted one";
    /// The permit's last second has passed.
    PermitExpired = "permit_expired", "ask the committee for an extension";
    /// The permit's first second has not come.
    PermitNotYetValid = "permit_not_yet_valid", "wait until the permit's validity begins";
    /// The governance key revoked the permit.
    PermitRevoked = "permit_revoked", "the permit is void; ask the committee";
    /// A newer version of the permit is in force.
    PermitSuperseded = "permit_superseded", "name the newest version of the permit";
    /// The study, or everything, is suspended.
    Suspended = "suspended", "ask the hospital or the access body why the study is suspended";
    /// The hospital has not decided on the permit yet.
    PermitWaiting = "permit_waiting", "the hospital decides on this permit by hand; wait for it, or ask the others";
    /// The hospital refused the permit, or took its acceptance back.
    PermitRefused = "permit_refused", "the hospital's reason is in its signed answer; ask the others";
    /// The permit lists the queries that may be asked, and this is none of them, or asked too often.
    QueryNotListed = "query_not_listed", "ask a query that the permit lists, as often as it says";
    /// A regulator's order suspends this.
    RegulatorOrder = "regulator_order", "ask the regulator who signed the order";
    /// The permit does not name this hospital.
    HolderNotPermitted = "holder_not_permitted", "ask only hospitals that the permit names";
    /// The permit does not name this table.
    TableNotPermitted = "table_not_permitted", "use the permit's tables, or apply for this one";
    /// The permit does not name this column.
    ColumnNotPermitted = "column_not_permitted", "use the permit's columns, or apply for this one";
    /// The permit does not allow this statistic.
    StatisticNotPermitted = "statistic_not_permitted", "use the permit's statistics, or apply for this one";
    /// The hospital's own policy says no.
    Policy = "policy", "ask the hospital; its own policy is stricter than the permit";
    /// A signature does not verify.
    BadSignature = "bad_signature", "sign the document again, unaltered, with the right key";
    /// Too few signatures.
    QuorumNotMet = "quorum_not_met", "collect the missing signatures with `sekisho permit sign`";
    /// The same signer twice.
    DuplicateSigner = "duplicate_signer", "each signer signs once; ask another member";
    /// The person is not named in the permit.
    UnknownPerson = "unknown_person", "sign with the key of a person that the permit authorises";
    /// The message was meant for somebody else.
    NotAddressed = "not_addressed", "sign a query that names this hospital";
    /// The message's time has passed, or lies too far ahead.
    StaleMessage = "stale_message", "sign the query again; check the clock";
    /// The nonce was used by another message.
    ReplayedNonce = "replayed_nonce", "sign the query again with a fresh nonce";
    /// The newest status document that is known has expired.
    StaleStatus = "stale_status", "the access body must publish a fresh status; check the connection to the coordinator";
    /// There is no roster yet, or it has expired.
    StaleRoster = "stale_roster", "the access body must publish a fresh roster; check the connection to the coordinator";
    /// The sender is not on the roster.
    NotOnRoster = "not_on_roster", "the access body must add the member with `sekisho roster add`";
    /// A roster, status or permit that is older than the newest seen.
    OlderDocument = "older_document", "use the newest document";
    /// A purpose that the law prohibits.
    PurposeProhibited = "purpose_prohibited", "nobody may grant this purpose (EHDS Art. 54)";
    /// The application lacks what the law asks for.
    ApplicationIncomplete = "application_incomplete", "fill in the fields that the message names; `sekisho application check` lists them all";
    /// No such application is known here.
    ApplicationUnknown = "application_unknown", "submit the application first, or name its newest version";
    /// The permit grants what nobody applied for.
    WiderThanApplication = "wider_than_application", "narrow the permit to the application, or ask for a new version of the application";
    /// A member who declared a conflict of interest signed.
    ConflictOfInterest = "conflict_of_interest", "another member must sign; name the one with the conflict in decision.recused";
    /// A step of the review is missing.
    NotReviewed = "not_reviewed", "review the application first: completeness, then lawfulness";
    /// A version supersedes another one than that before it.
    Supersession = "supersession", "name the newest version's digest in supersedes, and the next number in version";
    /// The result waits for two reviewers.
    AwaitingReview = "awaiting_review", "ask the same run again when two reviewers have released it; it costs nothing";
    /// The reviewers refused to let the result out.
    OutputRefused = "output_refused", "the reviewers' reasons are on record; ask a coarser question";
    /// The exact result waits for a person at the hospital.
    ExactWaiting = "exact_waiting", "a person at the hospital looks at this exact result; ask the same run again later, it costs nothing";
    /// The hospital does not let this exact result out: a person said no, or it lies too close to an earlier one.
    ExactRefused = "exact_refused", "the hospital does not let this exact result out; ask for a noised one, or of a later cut of the data";
    /// No such result waits, waited or was released here, as far as the signer may know.
    ResultUnknown = "result_unknown", "name a result that `sekisho output list` or `sekisho release list` shows";
    /// Too few witnesses cosigned a checkpoint that has all of a result.
    NotWitnessed = "not_witnessed", "wait until enough hospitals are connected and have cosigned the coordinator's newest checkpoint, then try again";
    /// The signer may not read or do this.
    NotAuthorised = "not_authorised", "sign with the key of somebody who may";
    /// The query alone costs more than it may.
    BudgetQuery = "budget_query", "ask with a smaller rho or delta";
    /// The study's share is spent.
    BudgetStudy = "budget_study", "the study's budget is spent; ask the committee for more";
    /// The register's lifetime cap is reached.
    BudgetLifetime = "budget_lifetime", "the hospital's lifetime cap is reached; nothing more can be asked of these patients";
    /// The hospital's cap of a time window is reached.
    BudgetWindow = "budget_window", "the hospital's budget for this period is spent; ask again later";
    /// The SQL asks for rows.
    RowLevel = "row_level", "aggregate across patients: count, sum or avg, with GROUP BY";
    /// The terms of the query are wider than the schema or the permit, or do not fit its SQL.
    Terms = "terms", "ask for bounds inside those of the schema and permit, and for as many shares as aggregates";
    /// A value without bounds would be summed.
    UnboundedColumn = "unbounded_column", "use a column that the schema bounds";
    /// Group keys that are not public.
    UnknownDomain = "unknown_domain", "group by a column with a public domain, or by a CASE with literal results";
    /// The SQL does not parse.
    SqlSyntax = "sql_syntax", "mend the SQL";
    /// The SQL parses but is not admitted.
    SqlUnsupported = "sql_unsupported", "write it as the message says";
    /// The SQL names what the schema does not have.
    SqlUnknownName = "sql_unknown_name", "use the tables and columns of the permit's schema";
    /// The message is larger than is read.
    TooLarge = "too_large", "send less";
    /// The bytes are not what they should be.
    Malformed = "malformed", "check the software versions at both ends";
    /// This hospital does not hold what the permit's schema says.
    SchemaMismatch = "schema_mismatch", "the hospital must map its data to the permit's schema";
    /// The source files changed since the snapshot.
    SourceChanged = "source_changed", "the hospital must take a new snapshot with `sekisho-node data snapshot`";
    /// The hospital's own log is behind what the network saw of it.
    LedgerRolledBack = "ledger_rolled_back", "the hospital must run on its newest database; until then it answers nothing";
    /// The hospital's log does not continue what it was.
    LedgerForked = "ledger_forked", "the hospital showed two histories of its log; its operator and the governing body must look into it";
    /// Too much at once.
    Busy = "busy", "ask again in a minute";
    /// One person asks too much at once, or too much in a minute.
    TooManyRequests = "too_many_requests", "ask more slowly: wait as long as the message says";
    /// Something failed before any row was touched; nothing was charged.
    Unavailable = "unavailable", "ask the operator; nothing was charged";
    /// Charged, but no answer: one code, whatever the cause.
    NoAnswer = "no_answer", "the charge stands; ask the hospital, whose own log has the cause";
    /// The network's: the hospital could not be reached in time.
    Offline = "offline", "ask the same run again when the hospital is back; what it released is stored";
}

/// The text is no refusal code of this version.
#[derive(Debug, thiserror::Error)]
#[error("unknown refusal code")]
pub struct UnknownCode;

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: its code and what was wrong in this case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail} ({})", code.advice())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was wrong, with numbers and units; never a value of a patient.
    pub detail: String,
}

impl Refusal {
    /// A refusal with `code` because of the first [`MAX_DETAIL`] characters of `detail`, which may quote the asker's SQL.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self { code, detail: detail.chars().take(MAX_DETAIL).collect() }
    }
}

impl From<DsseError> for Refusal {
    fn from(error: DsseError) -> Self {
        let code = match &error {
            DsseError::TooLarge { .. } => Code::TooLarge,
            DsseError::Malformed { .. } => Code::Malformed,
            DsseError::BadSignature { .. } => Code::BadSignature,
            DsseError::DuplicateSigner { .. } => Code::DuplicateSigner,
            DsseError::Quorum { .. } | DsseError::Role { .. } => Code::QuorumNotMet,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_and_is_the_same_in_json() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>().unwrap(), *code);
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }

    #[test]
    fn the_documentation_lists_every_code_in_order_with_its_advice() {
        let documented = include_str!("../../docs/protocol.md").lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let code: Code = cells.next()?.strip_suffix('`')?.parse().ok()?;
            Some((code, cells.nth(1)?.strip_suffix(" |")?))
        });
        let known = Code::ALL.iter().map(|code| (*code, code.advice()));
        assert_eq!(documented.collect::<Vec<_>>(), known.collect::<Vec<_>>());
    }
}
