//! From documents, rounds and receipts to the entries of the register: a pure function, so that the same record gives the
//! same register.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    output_review::Standing,
    permit::{AllowedQuery, Permit},
    publication::Published,
    query::Query,
    refusal::{Code, Refusal},
    status::Status,
};

use super::{
    AllowedEntry, ApplicationEntry, Dated, DecisionEntry, FORMAT, HolderEntry, MissingEntry, Parts, Period, PermitPart,
    PublicationEntry, QueryEntry, ReviewEntry, RevokedEntry, RoundPart, TableEntry, Use, UseRegister, result_of,
    words::{self, Output, PermitAnswer, State},
};
use crate::{
    documents::unavailable,
    metering::{Tally, Used},
    report::{HolderState, ResultReport},
    store::RoundState,
};

/// What belongs to one use.
#[derive(Default)]
struct Record<'a> {
    applications: Vec<&'a Dated<sekisho_protocol::application::Application>>,
    refusals: Vec<&'a Dated<sekisho_protocol::decision::RefusedApplication>>,
    permits: Vec<&'a PermitPart>,
}

/// The register of `parts`.
///
/// # Errors
/// When a stored report or receipt cannot be read.
pub(super) fn register(parts: &Parts, now: DateTime<Utc>) -> Result<UseRegister, Refusal> {
    let Parts { applications, refusals, permits, publications: _, status: _, exact_since: _ } = parts;
    let mut records: BTreeMap<String, Record<'_>> = BTreeMap::new();
    for application in applications {
        records.entry(application.document.id.clone()).or_default().applications.push(application);
    }
    for refusal in refusals {
        records.entry(refusal.document.application.clone()).or_default().refusals.push(refusal);
    }
    for part in permits {
        let permit = &part.permit.document;
        let id = permit.application_id.as_ref().unwrap_or(&permit.id).clone();
        records.entry(id).or_default().permits.push(part);
    }
    let mut uses = Vec::new();
    for (id, mut record) in records {
        record.applications.sort_by_key(|a| a.document.version);
        record.permits.sort_by(|a, b| {
            let of = |part: &PermitPart| (part.permit.document.id.clone(), part.permit.document.version);
            of(a).cmp(&of(b))
        });
        uses.extend(entry(id, &record, parts, now)?);
    }
    Ok(UseRegister {
        format: FORMAT.into(),
        title: words::title(),
        generated_at: now,
        software: concat!("sekisho-coordinator ", env!("CARGO_PKG_VERSION")).into(),
        labels: words::labels(),
        uses,
    })
}

fn entry(
    id: String,
    record: &Record<'_>,
    Parts { publications, status, exact_since, .. }: &Parts,
    now: DateTime<Utc>,
) -> Result<Option<Use>, Refusal> {
    let status = status.as_ref();
    let newest = record.permits.last();
    let applied = record.applications.last();
    let mut decisions: Vec<DecisionEntry> =
        record.permits.iter().map(|part| granted(part, &record.permits, status, now)).collect();
    decisions.extend(record.refusals.iter().copied().map(refused));
    decisions.sort_by_key(|decision| (decision.date, decision.version));
    let application = applied.map(|a| ApplicationEntry {
        version: a.document.version,
        submitted_at: a.put_at,
        use_description: (!decisions.is_empty()).then(|| a.document.use_description.clone()),
        expected_benefit: (!decisions.is_empty()).then(|| a.document.expected_benefit.clone()),
    });
    let published =
        publications.iter().filter(|p| p.id == id || record.permits.iter().any(|part| part.permit.document.id == p.id));
    let publications = published
        .map(|p| PublicationEntry {
            what: match p.what {
                Published::Decision => "decision".into(),
                Published::Results => "results".into(),
            },
            url: p.url.clone(),
            at: p.at,
        })
        .collect();
    if let Some(part) = newest {
        let permit = &part.permit.document;
        let (queries, holders) = (queries(&record.permits)?, holders(part, &record.permits, exact_since)?);
        return Ok(Some(Use {
            id,
            study: permit.study_id.clone(),
            state: words::state(permit_state(part, &record.permits, status, now)),
            data_user: permit.data_user.clone(),
            country: permit.country.clone(),
            basis: words::basis(permit.basis),
            purposes: permit.purposes.iter().map(|p| words::purpose(*p)).collect(),
            application,
            data: tables(permit.data.iter().map(|t| (&t.table, &t.columns, &t.holder_nodes))),
            period: Period { from: Some(permit.validity.from), to: Some(permit.validity.to) },
            results_due: permit.results_due,
            decisions,
            holders,
            allowed_queries: permit.allowed_queries.iter().flatten().map(allowed).collect(),
            queries,
            publications,
        }));
    }
    // A refusal of an application that is not known here says too little to be listed by itself.
    let Some(applied) = applied.map(|a| &a.document) else { return Ok(None) };
    let last_word = record.refusals.iter().any(|r| r.document.version == applied.version);
    Ok(Some(Use {
        id,
        study: applied.study_id.clone(),
        state: words::state(if last_word { State::Refused } else { State::UnderReview }),
        data_user: applied.applicant.name.clone(),
        country: Some(applied.applicant.country.clone()).filter(|country| !country.is_empty()),
        basis: words::basis(applied.basis),
        purposes: applied.purposes.iter().filter_map(|p| p.permissible().ok()).map(words::purpose).collect(),
        application,
        data: tables(applied.data.iter().map(|t| (&t.table, &t.columns, &t.holder_nodes))),
        period: Period { from: applied.period.from, to: applied.period.to },
        results_due: None,
        decisions,
        holders: Vec::new(),
        allowed_queries: Vec::new(),
        queries: Vec::new(),
        publications,
    }))
}

fn allowed(query: &AllowedQuery) -> AllowedEntry {
    AllowedEntry { sha256: query.sha256, max_runs: query.max_runs, release_kind: words::release_kind(query.release) }
}

fn tables<'a>(data: impl Iterator<Item = (&'a String, &'a Vec<String>, &'a Vec<String>)>) -> Vec<TableEntry> {
    data.map(|(table, columns, holders)| TableEntry {
        table: table.clone(),
        columns: columns.clone(),
        holders: holders.clone(),
    })
    .collect()
}

fn granted(part: &PermitPart, all: &[&PermitPart], status: Option<&Status>, now: DateTime<Utc>) -> DecisionEntry {
    let Permit { id, version, issuer, decision, conditions, .. } = &part.permit.document;
    let revoked = status.and_then(|s| s.revoked_permits.iter().find(|r| r.permit == part.permit.digest));
    DecisionEntry {
        outcome: words::outcome(true),
        id: id.clone(),
        version: *version,
        digest: part.permit.digest,
        issuer: Some(issuer.clone()),
        date: decision.date,
        reasons: decision.reasons.clone(),
        decided_by: part.permit.roles.clone(),
        conditions: conditions.clone(),
        state: words::state(permit_state(part, all, status, now)),
        revoked: revoked.map(|r| RevokedEntry { reasons: r.reason.clone(), at: r.at }),
    }
}

fn refused(refusal: &Dated<sekisho_protocol::decision::RefusedApplication>) -> DecisionEntry {
    DecisionEntry {
        outcome: words::outcome(false),
        id: refusal.document.application.clone(),
        version: refusal.document.version,
        digest: refusal.digest,
        issuer: None,
        date: refusal.document.date,
        reasons: refusal.document.reasons.clone(),
        decided_by: refusal.roles.clone(),
        conditions: Vec::new(),
        state: words::state(State::Refused),
        revoked: None,
    }
}

fn permit_state(part: &PermitPart, all: &[&PermitPart], status: Option<&Status>, now: DateTime<Utc>) -> State {
    let permit = &part.permit.document;
    let newer = |other: &&PermitPart| {
        other.counts && other.permit.document.id == permit.id && other.permit.document.version > permit.version
    };
    if status.is_some_and(|s| s.revokes(part.permit.digest)) {
        State::Revoked
    } else if !part.counts {
        State::WithoutQuorum
    } else if status.is_some_and(|s| s.supersedes(&permit.id, permit.version)) || all.iter().any(newer) {
        State::Superseded
    } else if now >= permit.validity.to {
        State::Expired
    } else if status.is_some_and(|s| s.suspended_studies.contains(&permit.study_id)) {
        State::Suspended
    } else if now < permit.validity.from {
        State::NotYetValid
    } else {
        State::InForce
    }
}

/// The hospitals of the newest permit, with what they spent under all versions.
fn holders(
    newest: &PermitPart,
    all: &[&PermitPart],
    exact_since: &BTreeMap<String, NaiveDate>,
) -> Result<Vec<HolderEntry>, Refusal> {
    let mut tally = Tally::default();
    for release in all.iter().flat_map(|part| &part.rounds).flat_map(|round| &round.releases) {
        tally.count(&release.header, &release.receipt, |_| true).map_err(unavailable)?;
    }
    let mut names: BTreeSet<String> = newest.permit.document.holders().into_iter().collect();
    names.extend(tally.rows().map(|(_, holder, _)| holder.to_string()));
    let one = |name: String| {
        let said = newest.acceptances.iter().find(|acceptance| acceptance.node == name);
        let used = tally.rows().filter(|(_, holder, _)| *holder == name);
        let used = used.fold(Used::default(), |sum, (_, _, used)| Used {
            runs: sum.runs + used.runs,
            cells: sum.cells.saturating_add(used.cells),
            micro_rho: sum.micro_rho.saturating_add(used.micro_rho),
        });
        let answer = match said.map(|said| said.refused) {
            None => PermitAnswer::None,
            Some(None) => PermitAnswer::Accepted,
            Some(Some(Code::PermitWaiting)) => PermitAnswer::Waiting,
            Some(Some(_)) => PermitAnswer::Refused,
        };
        let code = said.and_then(|said| said.refused).filter(|_| answer == PermitAnswer::Refused);
        HolderEntry {
            answer: words::permit_answer(answer),
            code: code.map(|code| code.to_string()),
            reason: said.and_then(|said| said.reason.clone()).filter(|_| code.is_some()),
            at: said.map(|said| said.at),
            runs: used.runs,
            micro_rho: used.micro_rho,
            exact_since: exact_since.get(&name).copied(),
            name,
        }
    };
    Ok(names.into_iter().map(one).collect())
}

/// Every run of every question: the rounds that asked it are one entry.
fn queries(permits: &[&PermitPart]) -> Result<Vec<QueryEntry>, Refusal> {
    let mut entries = Vec::new();
    for part in permits {
        let mut runs: BTreeMap<(Digest, u32), Vec<&RoundPart>> = BTreeMap::new();
        for round in &part.rounds {
            runs.entry((round.round.query_key, round.round.run)).or_default().push(round);
        }
        for ((query_key, run), rounds) in runs {
            entries.push(query(query_key, run, &part.permit.document, &rounds)?);
        }
    }
    entries.sort_by_key(|entry| (entry.asked_at, entry.query_key, entry.run));
    Ok(entries)
}

fn query(query_key: Digest, run: u32, permit: &Permit, rounds: &[&RoundPart]) -> Result<QueryEntry, Refusal> {
    let (mut sql, mut asked, mut answered) = (None, BTreeSet::new(), BTreeSet::new());
    let (mut tally, mut software) = (Tally::default(), BTreeSet::new());
    let mut last: Option<(&RoundPart, ResultReport)> = None;
    for part in rounds {
        if let Some(question) = &part.round.question {
            let (query, _) = Envelope::from_json::<Query>(question)?.peek::<Query>()?;
            asked.extend(query.holders);
            sql = Some(query.sql);
        }
        for release in &part.releases {
            answered.insert(release.node.clone());
            let counted = tally.count(&release.header, &release.receipt, |_| true).map_err(unavailable)?;
            software.extend(counted.map(|receipt| receipt.software));
        }
        if let RoundState::Done(report) = &part.round.state {
            last = Some((part, serde_json::from_str(report).map_err(unavailable)?));
        }
    }
    let missing: Vec<MissingEntry> = last.iter().flat_map(|(_, report)| missing(report, &answered)).collect();
    asked.extend(answered.iter().cloned());
    asked.extend(missing.iter().map(|m| m.name.clone()));
    let result = last.as_ref().map(|(part, _)| result_of(&part.round, &part.releases)).transpose()?.flatten();
    let review = last.as_ref().and_then(|(part, _)| part.review.as_ref());
    let output = Output::of(result, review.map(|review| review.standing));
    let left = matches!(output, Output::Automatic | Output::Reviewed(Standing::Released));
    Ok(QueryEntry {
        sha256: sql.as_ref().map(|sql| Digest::of(sql.as_bytes())),
        release_kind: sql.as_ref().map(|sql| words::release_kind(permit.release_of(sql))),
        sql,
        query_key,
        run,
        version: permit.version,
        asked_at: rounds.iter().map(|part| part.round.started).min().unwrap_or_default(),
        asked: asked.into_iter().collect(),
        answered: answered.into_iter().collect(),
        missing,
        micro_rho: tally.rows().map(|(_, _, used)| used.micro_rho).fold(0, u64::saturating_add),
        suppressed_cells: last.filter(|_| left).map(|(_, report)| report.suppressed_cells),
        result,
        output: words::output(output),
        reviews: review.map(reviews).unwrap_or_default(),
        software: software.into_iter().collect(),
    })
}

/// The hospitals without an answer in the last round, but for those that answered an earlier one.
fn missing(report: &ResultReport, answered: &BTreeSet<String>) -> Vec<MissingEntry> {
    let without = report.holders.iter().filter(|h| h.state != HolderState::Answered && !answered.contains(&h.name));
    without
        .map(|holder| MissingEntry {
            name: holder.name.clone(),
            state: words::unanswered(holder),
            code: holder.code.map(|code| code.to_string()),
        })
        .collect()
}

fn reviews(review: &super::Review) -> Vec<ReviewEntry> {
    let said = |(role, verdict, at): &(String, sekisho_protocol::output_review::Verdict, DateTime<Utc>)| ReviewEntry {
        role: role.clone(),
        verdict: words::verdict(*verdict),
        at: *at,
    };
    review.said.iter().map(said).collect()
}
