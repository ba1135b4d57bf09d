//! Refusals and anomalies: whatever did not go as it was asked, or shows that somebody changed what must not change.
//!
//! Each comes from a signed document, a stored round, or the record of refused requests. Promises: nothing is left out but by the
//! filter, and [`MAX_INCIDENTS`]. Deliberately absent: requests of whoever no permit names, which anybody could make up.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    log::{
        checkpoint::{SignedCheckpoint, whose},
        entry::Kind as Entry,
    },
    orders::Target,
    output_review::{OutputReview, Verdict},
    record::WriteOff,
    refusal::{Code, Refusal},
};

use super::{
    asked::{self, Asked},
    filter::{Filter, Subject},
    incidents::{Incident, Sort},
    names::Names,
    search::study_page,
    table::{part, time},
};
use crate::{
    documents::{Current, Documents, unavailable},
    store::{Kind, LogFilter, Logged, Request, Store},
    use_register::Parts,
};

/// The most that is read of each source.
pub const MAX_INCIDENTS: u32 = 100_000;
/// Everything that `filter` wants, the latest first, before them what has no time.
///
/// # Errors
/// When what is stored cannot be read.
pub async fn all(
    documents: &Documents,
    store: &Store,
    parts: &Parts,
    names: &Names,
    filter: &Filter,
    now: DateTime<Utc>,
) -> Result<Vec<Incident>, Refusal> {
    let current = documents.current();
    let mut found = decided(parts, names);
    for asked in asked::all(parts, names)? {
        found.extend(in_round(&asked));
    }
    found.extend(voided(&current, names, now));
    found.extend(refused_results(store, parts, names).await?);
    found.extend(refused_requests(store, parts, names).await?);
    found.extend(contradictions(store).await?);
    found.extend(lost_logs(store, names).await?);
    found.retain(|incident| {
        // What belongs to no study is of all of them.
        (incident.study.is_empty() || filter.wants_study(&incident.study))
            && filter.wants(Subject {
                organisation: &incident.organisation,
                holders: incident.holder.as_deref().into_iter().collect(),
                investigator: "",
                persons: &incident.persons,
                purposes: Vec::new(),
                state: &incident.sort.code,
                span: (incident.at, incident.at),
            })
    });
    found.sort_by(|a, b| a.at.is_some().cmp(&b.at.is_some()).then(b.at.cmp(&a.at)).then(a.holder.cmp(&b.holder)));
    Ok(found)
}

/// What committees and hospitals decided against.
fn decided(parts: &Parts, names: &Names) -> Vec<Incident> {
    let midnight = |day: chrono::NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    let mut found = Vec::new();
    for refusal in &parts.refusals {
        let application = parts.applications.iter().find(|a| a.document.id == refusal.document.application);
        found.push(Incident {
            study: application.map(|a| a.document.study_id.clone()).unwrap_or_default(),
            organisation: application.map(|a| a.document.applicant.name.clone()).unwrap_or_default(),
            persons: names.all(refusal.signers.iter().copied()),
            reason: refusal.document.reasons.clone(),
            ..Incident::new(Sort::ApplicationRefused, midnight(refusal.document.date))
        });
    }
    for part in &parts.permits {
        let permit = &part.permit.document;
        let of = |sort, at| Incident {
            study: permit.study_id.clone(),
            organisation: permit.data_user.clone(),
            link: Some(study_page(&permit.study_id)),
            ..Incident::new(sort, at)
        };
        let revoked = parts.status.iter().flat_map(|status| &status.revoked_permits);
        for revoked in revoked.filter(|revoked| revoked.permit == part.permit.digest) {
            let reason = revoked.reason.clone();
            found.push(Incident { reason, ..of(Sort::PermitRevoked, revoked.at) });
        }
        for said in part.acceptances.iter().filter(|said| said.refused.is_some_and(|code| code != Code::PermitWaiting))
        {
            found.push(Incident {
                code: said.refused,
                holder: Some(said.node.clone()),
                reason: said.reason.clone().unwrap_or_default(),
                ..of(Sort::PermitRefused, said.at)
            });
        }
    }
    for incident in &mut found {
        incident.link = Some(incident.study.as_str()).filter(|study| !study.is_empty()).map(study_page);
    }
    found
}

/// Each hospital that did not answer in a round.
fn in_round(asked: &Asked) -> Vec<Incident> {
    let of = |sort| Incident {
        study: asked.study.clone(),
        organisation: asked.organisation.clone(),
        persons: asked.persons.clone(),
        link: Some(format!("{}#{}", study_page(&asked.study), part(&asked.round))),
        ..Incident::new(sort, asked.at)
    };
    let mut found = Vec::new();
    if asked.state.code == "interrupted" {
        found.push(of(Sort::Interrupted));
    }
    for holder in &asked.holders {
        let sort = match (holder.state.code.as_str(), holder.code) {
            (_, Some(Code::LedgerForked | Code::LedgerRolledBack)) => Sort::LogContradicts,
            ("refused", _) => Sort::QueryRefused,
            ("no_answer", _) => Sort::NoAnswer,
            ("offline", _) => Sort::Offline,
            _ => continue,
        };
        found.push(Incident {
            code: holder.code,
            holder: Some(holder.name.clone()),
            reason: holder.detail.clone().unwrap_or_default(),
            ..of(sort)
        });
    }
    found
}

/// What is suspended or void today.
fn voided(current: &Current, names: &Names, now: DateTime<Utc>) -> Vec<Incident> {
    let mut found = Vec::new();
    for orders in current.chains().into_iter().flat_map(|chains| chains.orders()) {
        for entry in orders.entries.iter().filter(|entry| now < entry.expires) {
            let mut order = Incident {
                code: Some(Code::RegulatorOrder),
                persons: names.all(orders.signers().iter().copied()),
                reason: format!("{}; {}; – {}", entry.target, entry.reason, time(entry.expires)),
                ..Incident::new(Sort::Order, orders.issued)
            };
            match &entry.target {
                Target::Study(study) => (order.study, order.link) = (study.clone(), Some(study_page(study))),
                Target::DataUser(organisation) => order.organisation = organisation.clone(),
                Target::Holder(holder) => order.holder = Some(holder.clone()),
                Target::Coordinator(_) => {}
            }
            found.push(order);
        }
    }
    let Some(status) = current.pinned_status() else { return found };
    for study in &status.suspended_studies {
        let (study, link) = (study.clone(), Some(study_page(study)));
        found.push(Incident { study, link, ..Incident::new(Sort::StudySuspended, status.issued) });
    }
    for key in &status.void_keys {
        found.push(Incident { persons: vec![names.of(*key)], ..Incident::new(Sort::KeyVoid, status.issued) });
    }
    found
}

/// Reviews that refuse a result.
async fn refused_results(store: &Store, parts: &Parts, names: &Names) -> Result<Vec<Incident>, Refusal> {
    let mut found = Vec::new();
    for kept in store.kept(Kind::OutputReview, None, MAX_INCIDENTS).await.map_err(unavailable)? {
        let envelope = Envelope::from_json::<OutputReview>(&kept.envelope)?;
        let (review, _) = envelope.peek::<OutputReview>()?;
        let of = parts.permits.iter().find(|part| part.permit.digest == review.permit);
        let (Verdict::Refuse, Some(of)) = (review.verdict, of) else { continue };
        found.push(Incident {
            study: of.permit.document.study_id.clone(),
            organisation: of.permit.document.data_user.clone(),
            persons: names.all(envelope.key_ids()),
            reason: review.reasons,
            link: Some(format!("/releases/{}", review.result)),
            ..Incident::new(Sort::ResultRefused, review.at)
        });
    }
    Ok(found)
}

async fn refused_requests(store: &Store, parts: &Parts, names: &Names) -> Result<Vec<Incident>, Refusal> {
    let kept = store.refused_requests(MAX_INCIDENTS).await.map_err(unavailable)?;
    let incident = |refused: crate::store::RefusedRequest| {
        let of = parts.permits.iter().find(|part| part.permit.document.study_id == refused.study);
        let link = Some(refused.study.as_str()).filter(|study| !study.is_empty()).map(study_page);
        Incident {
            code: Some(refused.code),
            organisation: of.map(|part| part.permit.document.data_user.clone()).unwrap_or_default(),
            study: refused.study,
            persons: vec![names.of(refused.person)],
            reason: match refused.request {
                Request::Query => refused.code.advice().into(),
                Request::DryRun => format!("dry run; {}", refused.code.advice()),
            },
            times: refused.times,
            link,
            ..Incident::new(Sort::RequestRefused, refused.last)
        }
    };
    Ok(kept.into_iter().map(incident).collect())
}

/// Checkpoints of one hospital in the coordinator's log that state two histories of one length: the evidence of a fork. What a
/// hospital shows that is shorter than before is told by the code of its answer.
async fn contradictions(store: &Store) -> Result<Vec<Incident>, Refusal> {
    let filter = LogFilter { kind: Some(Entry::Checkpoint), ..LogFilter::default() };
    let entries = store.newest_entries(filter, MAX_INCIDENTS).await.map_err(unavailable)?;
    let mut shown: BTreeMap<(String, u64), (u64, Digest)> = BTreeMap::new();
    let mut found = Vec::new();
    for Logged { index, statement, .. } in entries.into_iter().rev() {
        let Some(checkpoint) = statement.and_then(|note| SignedCheckpoint::parse(&note).ok()) else { continue };
        let (origin, head) = (checkpoint.claimed().origin().to_string(), checkpoint.claimed().head());
        let (before, root) = *shown.entry((origin.clone(), head.size())).or_insert((index, head.root()));
        // The same with more signatures says nothing else.
        if root == head.root() {
            continue;
        }
        let member = whose(checkpoint.claimed().origin()).map_or(origin.as_str(), |whose| whose.member);
        let (size, a, b) = (head.size(), root.short(), head.root().short());
        found.push(Incident {
            code: Some(Code::LedgerForked),
            holder: Some(member.into()),
            reason: format!("{size} entries: {a} in log entry {before}, {b} in log entry {index}"),
            link: Some(format!("/regulator/log/{index}")),
            ..Incident::new(Sort::LogContradicts, None)
        });
    }
    Ok(found)
}

/// Logs that hospitals lost: their databases were put back from older copies.
async fn lost_logs(store: &Store, names: &Names) -> Result<Vec<Incident>, Refusal> {
    let filter = LogFilter { kind: Some(Entry::WriteOff), ..LogFilter::default() };
    let mut found = Vec::new();
    for Logged { index, statement, .. } in store.newest_entries(filter, MAX_INCIDENTS).await.map_err(unavailable)? {
        let Some(statement) = statement else { continue };
        let envelope = Envelope::from_json::<WriteOff>(&statement)?;
        let (lost, _) = envelope.peek::<WriteOff>()?;
        found.push(Incident {
            holder: Some(lost.node),
            persons: names.all(envelope.key_ids()),
            reason: format!("{}: {}", lost.by, lost.reason),
            link: Some(format!("/regulator/log/{index}")),
            ..Incident::new(Sort::LogLost, lost.at)
        });
    }
    Ok(found)
}
