//! What a refusal or an anomaly is, as a row of a table and as a count.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sekisho_protocol::{pages::Language, refusal::Code};
use serde::Serialize;

use super::{
    names::Signer,
    table::{Cell, Table, say},
};
use crate::use_register::{Coded, Parts, words::coded};

/// The most rows of a table of counts.
const MAX_COUNTS: usize = 20;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// A hospital's log contradicts itself, or went back.
    LogContradicts,
    /// A hospital lost its log, and wrote off what it may have charged.
    LogLost,
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
    pub const ALL: [Self; 14] = [
        Self::LogContradicts,
        Self::LogLost,
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
            Self::LogLost => ("log_lost", "記録（ログ）の喪失", "A hospital lost its log and began another"),
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
    pub link: Option<String>,
}

impl Incident {
    /// Something of this kind, of which nothing else is known yet.
    pub fn new(sort: Sort, at: impl Into<Option<DateTime<Utc>>>) -> Self {
        let (study, organisation, reason) = (String::new(), String::new(), String::new());
        let (code, holder, persons, link) = (None, None, Vec::new(), None);
        Self { at: at.into(), sort: sort.coded(), code, study, organisation, holder, persons, reason, times: 1, link }
    }
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
            incident.at.map_or_else(|| Cell::words("–"), Cell::time),
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
