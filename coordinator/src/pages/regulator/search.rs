//! The lists of a regulator's search: rounds, and uses with those whom they name.

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{pages::Language, refusal::Refusal};
use serde::Serialize;

use super::{
    asked::{self, Asked},
    filter::{Filter, Subject},
    names::{Names, Signer},
    table::{Cell, Line, Table, part, say},
};
use crate::use_register::{self, Coded, Parts, Use};

/// A use, with the persons whom the public register does not name.
#[derive(Clone, Debug, Serialize)]
pub struct NamedUse {
    /// The application's id, or the permit's where there was no application.
    pub id: String,
    /// The study.
    pub study: String,
    /// Where it stands.
    pub state: Coded,
    /// The organisation.
    pub organisation: String,
    /// Who answers for the study.
    pub principal_investigator: String,
    /// Who may ask, or would.
    pub persons: Vec<Signer>,
    /// What for.
    pub purposes: Vec<Coded>,
    /// The hospitals.
    pub holders: Vec<String>,
    /// The first second of its period.
    pub from: Option<DateTime<Utc>>,
    /// The first second after it.
    pub to: Option<DateTime<Utc>>,
    /// The day of the last decision.
    pub decided: Option<NaiveDate>,
    /// How many runs of questions were asked.
    pub queries: usize,
    /// What they cost over all hospitals.
    pub micro_rho: u64,
}

/// The rounds that `filter` wants, the latest first.
///
/// # Errors
/// When what is stored cannot be read.
pub fn queries(parts: &Parts, names: &Names, filter: &Filter) -> Result<Vec<Asked>, Refusal> {
    let mut found = asked::all(parts, names)?;
    found.retain(|asked| {
        filter.wants(Subject {
            organisation: &asked.organisation,
            holders: asked.holders.iter().map(|holder| holder.name.as_str()).collect(),
            investigator: &asked.principal_investigator,
            persons: &asked.persons,
            purposes: asked.purposes.iter().map(|purpose| purpose.code.as_str()).collect(),
            state: &asked.state.code,
            span: (Some(asked.at), Some(asked.at)),
        })
    });
    found.reverse();
    Ok(found)
}

/// The uses that `filter` wants, the latest decision first, before them what is not decided.
///
/// # Errors
/// When what is stored cannot be read.
pub fn uses(parts: &Parts, names: &Names, filter: &Filter, now: DateTime<Utc>) -> Result<Vec<NamedUse>, Refusal> {
    let mut people: Vec<(String, String, Vec<Signer>)> = Vec::new();
    for application in parts.applications.iter().map(|dated| &dated.document) {
        let persons = names.all(application.people.iter().map(|person| person.key_fingerprint));
        people.push((application.id.clone(), application.principal_investigator.clone(), persons));
    }
    for permit in parts.permits.iter().map(|part| &part.permit.document) {
        let persons = names.all(permit.authorised_persons.iter().map(|person| person.key_fingerprint));
        let id = permit.application_id.as_ref().unwrap_or(&permit.id).clone();
        people.push((id, permit.principal_investigator.clone(), persons));
    }
    let named = |entry: Use| {
        let of = || people.iter().filter(|(id, _, _)| *id == entry.id);
        let mut persons: Vec<Signer> = of().flat_map(|(_, _, persons)| persons.clone()).collect();
        persons.sort();
        persons.dedup();
        let mut investigators: Vec<&str> = of().map(|(_, name, _)| name.as_str()).filter(|n| !n.is_empty()).collect();
        investigators.sort_unstable();
        investigators.dedup();
        let mut holders: Vec<String> = entry.data.iter().flat_map(|table| table.holders.clone()).collect();
        holders.sort();
        holders.dedup();
        NamedUse {
            principal_investigator: investigators.join("; "),
            persons,
            holders,
            organisation: entry.data_user,
            from: entry.period.from,
            to: entry.period.to,
            decided: entry.decisions.last().map(|decision| decision.date),
            queries: entry.queries.len(),
            micro_rho: entry.holders.iter().map(|holder| holder.micro_rho).fold(0, u64::saturating_add),
            id: entry.id,
            study: entry.study,
            state: entry.state,
            purposes: entry.purposes,
        }
    };
    let register = use_register::of(parts, now)?;
    let mut found: Vec<NamedUse> = register.uses.into_iter().map(named).collect();
    found.retain(|entry| {
        filter.wants(Subject {
            organisation: &entry.organisation,
            holders: entry.holders.iter().map(String::as_str).collect(),
            investigator: &entry.principal_investigator,
            persons: &entry.persons,
            purposes: entry.purposes.iter().map(|purpose| purpose.code.as_str()).collect(),
            state: &entry.state.code,
            span: (entry.from, entry.to),
        })
    });
    found.sort_by_key(|entry| std::cmp::Reverse(entry.decided.unwrap_or(NaiveDate::MAX)));
    Ok(found)
}

/// The page of a study.
pub fn study_page(study: &str) -> String {
    format!("/regulator/studies/{}", part(study))
}

/// Rounds as a table.
pub fn table_of_queries(language: Language, caption: &str, found: &[Asked]) -> Table {
    let columns = [
        ("Asked at", "照会日時"),
        ("Study", "研究"),
        ("Organisation", "利用者（組織）"),
        ("Asked by", "照会者"),
        ("Question (SQL)", "照会文（SQL）"),
        ("Hospitals", "医療機関"),
        ("What became of it", "結果の扱い"),
        ("Release", "公表の種類"),
        ("Cost (micro-rho)", "消費（micro-rho）"),
        ("Result", "結果"),
        ("Purposes", "利用目的"),
    ];
    let row = |asked: &Asked| {
        [
            Cell::time(asked.at),
            Cell::linked(&asked.study, format!("{}#{}", study_page(&asked.study), part(&asked.round))),
            Cell::words(&asked.organisation),
            Cell::list(asked.persons.iter().map(Signer::label)),
            Cell::sql(asked.sql.as_deref()),
            answers(language, asked),
            Cell::coded(language, &asked.state),
            asked.release_kind.as_ref().map(|kind| Cell::coded(language, kind)).unwrap_or_default(),
            Cell::number(asked.micro_rho),
            result(asked),
            purposes(language, &asked.purposes),
        ]
    };
    Table::new(language, caption, columns).with(found.iter().map(row))
}

/// What each hospital did.
pub fn answers(language: Language, asked: &Asked) -> Cell {
    Cell::list(asked.holders.iter().map(|holder| {
        let code = holder.code.map(|code| format!(" ({code})")).unwrap_or_default();
        format!("{}: {}{code}", holder.name, say(language, &holder.state.label))
    }))
}

/// The result of a round, which leads to its page.
pub fn result(asked: &Asked) -> Cell {
    match asked.result {
        None => Cell::default(),
        Some(result) => Cell::lines([Line { text: result.short(), link: Some(format!("/releases/{result}")) }]),
    }
}

/// Purposes by name.
pub fn purposes(language: Language, purposes: &[Coded]) -> Cell {
    Cell::list(purposes.iter().map(|purpose| say(language, &purpose.label).to_string()))
}

/// Uses as a table.
pub fn table_of_uses(language: Language, caption: &str, found: &[NamedUse]) -> Table {
    let columns = [
        ("Study", "研究"),
        ("Application or permit", "申請または許可"),
        ("State", "状態"),
        ("Organisation", "利用者（組織）"),
        ("Principal investigator", "研究責任者"),
        ("Persons who may ask", "照会を許可された者"),
        ("Purposes", "利用目的"),
        ("Hospitals", "医療機関"),
        ("From", "開始"),
        ("To", "終了"),
        ("Decided on", "決定日"),
        ("Runs", "実行回数"),
        ("Cost (micro-rho)", "消費（micro-rho）"),
    ];
    let day = |at: Option<DateTime<Utc>>| at.map(|at| Cell::day(at.date_naive())).unwrap_or_default();
    let row = |entry: &NamedUse| {
        [
            Cell::linked(&entry.study, study_page(&entry.study)),
            Cell::words(&entry.id),
            Cell::coded(language, &entry.state),
            Cell::words(&entry.organisation),
            Cell::words(&entry.principal_investigator),
            Cell::list(entry.persons.iter().map(Signer::label)),
            purposes(language, &entry.purposes),
            Cell::list(entry.holders.iter().cloned()),
            day(entry.from),
            day(entry.to),
            entry.decided.map(Cell::day).unwrap_or_default(),
            Cell::number(entry.queries as u64),
            Cell::number(entry.micro_rho),
        ]
    };
    Table::new(language, caption, columns).with(found.iter().map(row))
}
