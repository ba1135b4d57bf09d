//! Refusals and anomalies: whatever did not go as it was asked, or shows that somebody changed what must not change.
//!
//! Each comes from a signed document, a stored round, or the record of refused requests. Promises: nothing is left out but by the
//! filter, and [`MAX_INCIDENTS`]. Deliberately absent: requests of whoever no permit names, which anybody could make up.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveTime, Utc};
use sekisho_protocol::{
    dsse::Envelope,
    log::{checkpoint::SignedCheckpoint, entry::Kind as Entry},
    orders::Target,
    output_review::{OutputReview, Verdict},
    pages::Language,
    refusal::{Code, Refusal},
};
use serde::Serialize;

use super::{
    asked::{self, Asked},
    filter::{Filter, Subject},
    names::{Names, Signer},
    search::study_page,
    table::{Cell, Table, part, say},
};
use crate::{
    documents::{Current, Documents, unavailable},
    store::{Kind, LogFilter, Logged, Request, Store},
    use_register::{Coded, Parts, words::coded},
};

/// The most that is read of each source.
pub const MAX_INCIDENTS: u32 = 100_000;
/// The most rows of a table of counts.
const MAX_COUNTS: usize = 20;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// A hospital's log contradicts itself, or went back.
    LogContradicts,
    /// A regulator's order is in force.
    Order,
    /// A study is suspended.
    StudySuspended,
    /// A permit was revoked.
    PermitRevoked,
    /// A key is void.
    KeyVoid,
    /// An application was refused.
    ApplicationRefused,
    /// A hospital refused a permit.
    PermitRefused,
    /// Reviewers refused a result.
    ResultRefused,
    /// The coordinator refused a request.
    RequestRefused,
    /// A hospital refused a query.
    QueryRefused,
    /// A hospital charged and gave no answer, or none that could be believed.
    NoAnswer,
    /// A hospital was not reached.
    Offline,
    /// The coordinator stopped in a round.
    Interrupted,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::LogContradicts,
        Self::Order,
        Self::StudySuspended,
        Self::PermitRevoked,
        Self::KeyVoid,
        Self::ApplicationRefused,
        Self::PermitRefused,
        Self::ResultRefused,
        Self::RequestRefused,
        Self::QueryRefused,
        Self::NoAnswer,
        Self::Offline,
        Self::Interrupted,
    ];

    /// Code and name.
    pub fn coded(self) -> Coded {
        let (code, ja, en) = match self {
            Self::LogContradicts => ("log_contradicts", "記録（ログ）の矛盾", "A hospital's log contradicts itself"),
            Self::Order => ("order", "監督機関の命令（有効）", "Regulator's order in force"),
            Self::StudySuspended => ("study_suspended", "研究の停止", "Study suspended"),
            Self::PermitRevoked => ("permit_revoked", "許可の取消し", "Permit revoked"),
            Self::KeyVoid => ("key_void", "鍵の失効", "Key declared void"),
            Self::ApplicationRefused => ("application_refused", "申請の不許可", "Application refused"),
            Self::PermitRefused => ("permit_refused", "医療機関による許可の拒否", "Permit refused by a hospital"),
            Self::ResultRefused => ("result_refused", "出力審査による提供拒否", "Result refused by a reviewer"),
            Self::RequestRefused => {
                ("request_refused", "調整機関による照会の拒否", "Request refused by the coordinator")
            }
            Self::QueryRefused => ("query_refused", "医療機関による照会の拒否", "Query refused by a hospital"),
            Self::NoAnswer => ("no_answer", "消費されたが回答なし", "Charged, but no answer"),
            Self::Offline => ("offline", "医療機関に接続できず", "Hospital not reached"),
            Self::Interrupted => ("interrupted", "照会の中断", "Round interrupted"),
        };
        coded(code, ja, en)
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// When; of an order or a suspension since when its newest document is in force; none of what has no time.
    pub at: Option<DateTime<Utc>>,
    /// What.
    pub sort: Coded,
    /// The stable code of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The study; empty where there is none.
    pub study: String,
    /// The organisation; empty where it is not known.
    pub organisation: String,
    /// The hospital.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whose request it was, or who signed.
    pub persons: Vec<Signer>,
    /// Why, in the words of whoever refused.
    pub reason: String,
    /// How often, that day.
    pub times: u64,
    /// Where more is shown.
    #[serde(skip)]
    link: Option<String>,
}

impl Incident {
    fn new(sort: Sort, at: impl Into<Option<DateTime<Utc>>>) -> Self {
        let (study, organisation, reason) = (String::new(), String::new(), String::new());
        let (code, holder, persons, link) = (None, None, Vec::new(), None);
        Self { at: at.into(), sort: sort.coded(), code, study, organisation, holder, persons, reason, times: 1, link }
    }
}

/// Everything that `filter` wants, the latest first, before them what has no time.
///
/// # Errors
/// When what is stored cannot be read.
pub async fn incidents(
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

/// Whether it is of the study that `parts` are of, or of somebody who takes part in it.
pub fn concerns(incident: &Incident, study: &str, parts: &Parts) -> bool {
    if !incident.study.is_empty() {
        return incident.study == study;
    }
    let Incident { organisation, holder, persons, .. } = incident;
    if organisation.is_empty() && holder.is_none() && persons.is_empty() {
        return true;
    }
    let mut permits = parts.permits.iter().map(|part| &part.permit.document);
    permits.any(|permit| {
        permit.data_user == *organisation
            || holder.as_ref().is_some_and(|holder| permit.holders().contains(holder))
            || persons.iter().any(|signer| permit.person(signer.key).is_some())
    })
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
                reason: format!("{}; {}; – {}", entry.target, entry.reason, super::table::time(entry.expires)),
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

/// Checkpoints of one hospital in the coordinator's log of which one cannot continue the other: the evidence of a fork.
async fn contradictions(store: &Store) -> Result<Vec<Incident>, Refusal> {
    let filter = LogFilter { kind: Some(Entry::Checkpoint), ..LogFilter::default() };
    let entries = store.newest_entries(filter, MAX_INCIDENTS).await.map_err(unavailable)?;
    let mut newest: BTreeMap<String, (u64, SignedCheckpoint)> = BTreeMap::new();
    let mut found = Vec::new();
    // The earliest first: what was kept only grows, so that whatever does not was entered as evidence.
    for Logged { index, statement, .. } in entries.into_iter().rev() {
        let Some(shown) = statement.and_then(|note| SignedCheckpoint::parse(&note).ok()) else { continue };
        let (origin, head) = (shown.claimed().origin().to_string(), *shown.claimed().head());
        if let Some((before, kept)) = newest.get(&origin) {
            let kept = kept.claimed().head();
            if head.size() <= kept.size() {
                let member = origin.split_once('/').map_or(origin.as_str(), |(_, member)| member);
                let (a, b) = (kept.root().short(), head.root().short());
                found.push(Incident {
                    code: Some(Code::LedgerForked),
                    holder: Some(member.into()),
                    reason: format!(
                        "log entry {before}: {} entries, {a}; log entry {index}: {} entries, {b}",
                        kept.size(),
                        head.size()
                    ),
                    link: Some(format!("/regulator/log/{index}")),
                    ..Incident::new(Sort::LogContradicts, None)
                });
                continue;
            }
        }
        newest.insert(origin, (index, shown));
    }
    Ok(found)
}

/// Incidents as a table.
pub fn table(language: Language, caption: &str, found: &[Incident]) -> Table {
    let columns = [
        ("At", "日時"),
        ("What", "事象"),
        ("Code", "コード"),
        ("Study", "研究"),
        ("Organisation", "利用者（組織）"),
        ("Hospital", "医療機関"),
        ("Persons", "関係者"),
        ("Reason", "理由"),
        ("Times", "回数"),
    ];
    let row = |incident: &Incident| {
        [
            Cell::words(incident.at.map_or_else(|| "–".into(), super::table::time)),
            match &incident.link {
                Some(link) => Cell::linked(say(language, &incident.sort.label), link.clone()),
                None => Cell::coded(language, &incident.sort),
            },
            Cell::words(incident.code.map(Code::as_str).unwrap_or_default()),
            Cell::words(&incident.study),
            Cell::words(&incident.organisation),
            Cell::words(incident.holder.as_deref().unwrap_or_default()),
            Cell::list(incident.persons.iter().map(Signer::label)),
            Cell::words(&incident.reason),
            Cell::number(incident.times),
        ]
    };
    Table::new(language, caption, columns).with(found.iter().map(row))
}

/// How many of them there are by kind, code, study, hospital, person and day; the most frequent first, the latest days.
pub fn counts(language: Language, found: &[Incident]) -> Vec<Table> {
    type Of<'a> = &'a dyn Fn(&Incident) -> Vec<String>;
    let one = |text: &str| Vec::from_iter(Some(text.to_string()).filter(|text| !text.is_empty()));
    let by: [((&str, &str), Of<'_>); 6] = [
        (("Kind", "事象"), &|i| one(say(language, &i.sort.label))),
        (("Code", "コード"), &|i| one(i.code.map(Code::as_str).unwrap_or_default())),
        (("Study", "研究"), &|i| one(&i.study)),
        (("Hospital", "医療機関"), &|i| one(i.holder.as_deref().unwrap_or_default())),
        (("Person", "関係者"), &|i| i.persons.iter().map(Signer::label).collect()),
        (("Day", "日"), &|i| Vec::from_iter(i.at.map(|at| at.date_naive().to_string()))),
    ];
    let table = |(name, of): ((&str, &str), Of<'_>)| {
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for incident in found {
            for key in of(incident) {
                let count = counted.entry(key).or_default();
                *count = count.saturating_add(incident.times);
            }
        }
        let mut rows: Vec<(String, u64)> = counted.into_iter().collect();
        if name.0 == "Day" {
            rows.reverse();
        } else {
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        rows.truncate(MAX_COUNTS);
        let caption = language.say("Count by: ", "集計：").to_string() + language.say(name.0, name.1);
        let table = Table::new(language, &caption, [name, ("Times", "回数")]);
        table.with(rows.into_iter().map(|(key, count)| [Cell::words(key), Cell::number(count)]))
    };
    by.into_iter().map(table).filter(|table| !table.rows.is_empty()).collect()
}
