//! Every round as a regulator sees it: who asked what under which permit, what each hospital did, and what it cost.
//!
//! Promises: a receipt's charge is counted once, in the round that brought it first, as in [`crate::metering`]; a round is never left
//! out, whatever became of it. Deliberately absent: any released value.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    query::Query,
    receipt::Receipt,
    refusal::{Code, Refusal},
};
use serde::Serialize;

use super::names::{Names, Signer};
use crate::{
    documents::unavailable,
    report::{HolderState, ResultReport},
    store::RoundState,
    use_register::{
        Coded, Parts, PermitPart, RoundPart,
        words::{self, coded},
    },
};

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// Its id.
    pub round: String,
    /// When it began.
    pub at: DateTime<Utc>,
    /// The study.
    pub study: String,
    /// The permit, by id.
    pub permit: String,
    /// Its version.
    pub version: u32,
    /// The organisation that asked.
    pub organisation: String,
    /// Who answers for the study.
    pub principal_investigator: String,
    /// What for.
    pub purposes: Vec<Coded>,
    /// Who signed the query.
    pub persons: Vec<Signer>,
    /// The SQL, as it was signed; none of rounds before queries were kept.
    pub sql: Option<String>,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run of it.
    pub run: u32,
    /// How its answer is released; none of rounds before queries were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_kind: Option<Coded>,
    /// What became of it.
    pub state: Coded,
    /// The result, by digest.
    pub result: Option<Digest>,
    /// What was charged for it, over all hospitals; a run that is served again costs nothing.
    pub micro_rho: u64,
    /// Each hospital.
    pub holders: Vec<Answer>,
}

/// What a hospital did in a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The hospital.
    pub name: String,
    /// What it did.
    pub state: Coded,
    /// Its code, unless it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Charge>,
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Charge {
    /// Its digest.
    pub receipt: Digest,
    /// SHA-256 of its envelope, by which the log has it.
    pub statement: Digest,
    /// When the hospital charged.
    pub at: DateTime<Utc>,
    /// How much.
    pub micro_rho: u64,
    /// The day since which no guarantee of differential privacy holds for the hospital's patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_since: Option<NaiveDate>,
    /// An earlier round had it already: nothing was charged again.
    pub again: bool,
}

/// What may become of a round, for filters: stable code and name.
pub fn states() -> Vec<Coded> {
    use sekisho_protocol::output_review::Standing;
    use words::{Output, output};
    let reviewed = [Standing::Awaiting, Standing::Released, Standing::Refused].map(|s| output(Output::Reviewed(s)));
    [output(Output::Automatic), output(Output::Nothing), running(), interrupted()].into_iter().chain(reviewed).collect()
}

fn running() -> Coded {
    coded("running", "実行中", "Running")
}

fn interrupted() -> Coded {
    coded("interrupted", "中断", "Interrupted: the coordinator stopped meanwhile")
}

/// Every round of `parts`, the earliest first.
///
/// # Errors
/// When a stored query, report or receipt cannot be read.
pub fn all(parts: &Parts, names: &Names) -> Result<Vec<Asked>, Refusal> {
    let mut rounds: Vec<(&PermitPart, &RoundPart)> =
        parts.permits.iter().flat_map(|permit| permit.rounds.iter().map(move |round| (permit, round))).collect();
    rounds.sort_by(|(_, a), (_, b)| (a.round.started, &a.round.round).cmp(&(b.round.started, &b.round.round)));
    let mut seen = BTreeSet::new();
    rounds.into_iter().map(|(permit, round)| asked(permit, round, names, &mut seen)).collect()
}

fn asked(
    PermitPart { permit, .. }: &PermitPart,
    part: &RoundPart,
    names: &Names,
    seen: &mut BTreeSet<Digest>,
) -> Result<Asked, Refusal> {
    let (permit, round) = (&permit.document, &part.round);
    let question = round.question.as_deref().map(Envelope::from_json::<Query>).transpose()?;
    let query = question.as_ref().map(|question| question.peek::<Query>()).transpose()?.map(|(query, _)| query);
    let signers = question.iter().flat_map(|question| question.key_ids().collect::<Vec<_>>());
    // Whoever else may have signed beside is not who asked.
    let persons = names.all(signers.filter(|key| permit.person(*key).is_some()));
    let (result, output) = part.output()?;
    let (state, report) = match &round.state {
        RoundState::Running => (running(), None),
        RoundState::Interrupted => (interrupted(), None),
        RoundState::Done(report) => {
            let report: ResultReport = serde_json::from_str(report).map_err(unavailable)?;
            (words::output(output), Some(report))
        }
    };
    let asked = query.as_ref().map(|query| query.holders.clone()).unwrap_or_default();
    let holders = answers(part, report, asked, seen)?;
    Ok(Asked {
        round: round.round.clone(),
        at: round.started,
        study: permit.study_id.clone(),
        permit: permit.id.clone(),
        version: permit.version,
        organisation: permit.data_user.clone(),
        principal_investigator: permit.principal_investigator.clone(),
        purposes: permit.purposes.iter().map(|purpose| words::purpose(*purpose)).collect(),
        persons,
        release_kind: query.as_ref().map(|query| words::release_kind(permit.release_of(&query.sql))),
        sql: query.map(|query| query.sql),
        query_key: round.query_key,
        run: round.run,
        state,
        result,
        micro_rho: holders
            .iter()
            .filter_map(|holder| holder.receipt.as_ref())
            .filter(|charge| !charge.again)
            .fold(0, |sum, charge| sum.saturating_add(charge.micro_rho)),
        holders,
    })
}

/// Each hospital: as the report has it, or else by what it released, or as one of those that were asked.
fn answers(
    part: &RoundPart,
    report: Option<ResultReport>,
    asked: Vec<String>,
    seen: &mut BTreeSet<Digest>,
) -> Result<Vec<Answer>, Refusal> {
    let mut holders: Vec<Answer> = Vec::new();
    let absent = |name: &str, state| Answer { name: name.into(), state, code: None, detail: None, receipt: None };
    for holder in report.into_iter().flat_map(|report| report.holders) {
        let state = words::unanswered(&holder);
        holders.push(Answer { code: holder.code, detail: holder.detail, ..absent(&holder.name, state) });
    }
    for name in asked.iter().chain(part.releases.iter().map(|release| &release.node)) {
        if !holders.iter().any(|holder| holder.name == *name) {
            holders.push(absent(name, coded("unknown", "記録なし", "No record")));
        }
    }
    for release in &part.releases {
        let envelope = Envelope::from_json::<Receipt>(&release.receipt)?;
        let (receipt, digest) = envelope.peek::<Receipt>()?;
        let charge = Charge {
            receipt: digest,
            statement: Digest::of(&release.receipt),
            at: receipt.at,
            micro_rho: receipt.micro_rho.get(),
            exact_since: receipt.exact_since,
            again: !seen.insert(digest),
        };
        for holder in holders.iter_mut().filter(|holder| holder.name == release.node) {
            if holder.state.code == "unknown" {
                holder.state = words::holder_state(HolderState::Answered);
            }
            holder.receipt = Some(charge.clone());
        }
    }
    Ok(holders)
}
