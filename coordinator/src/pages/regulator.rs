//! What regulators see: who used what for what, what was refused, what it cost patients' privacy, and the log that proves it.
//!
//! Promises: persons are named here and on no public page; a search is an address that can be kept; what is exported is what the
//! table shows, all pages of it. Deliberately absent: anything that a regulator could change here. Orders are signed elsewhere.

mod asked;
mod drawn;
mod entries;
mod filter;
mod incidents;
mod log;
mod names;
mod refusals;
mod search;
mod spending;
mod study;
pub(super) mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use sekisho_protocol::{
    pages::{Fault, Language, Page, show},
    permit::Purpose,
    refusal::Refusal,
};

use self::{
    asked::Asked,
    drawn::Drawn,
    filter::{Filter, Form, List, Wrong},
    incidents::{Incident, Sort},
    names::Names,
    search::NamedUse,
    table::Table,
};
use super::{Pages, Regulator};
use crate::use_register::{self, Coded, words};

/// How many hits a page has.
const PAGE: usize = 50;
/// The most hits of an export.
const MAX_EXPORT: usize = 100_000;
/// The most incidents on a study's page.
const MAX_ON_STUDY: usize = 100;

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new()
        .route("/regulator", get(search))
        .route("/regulator/refusals", get(refused))
        .route("/regulator/export", get(exported))
        .route("/regulator/studies/{study}", get(one_study))
        .merge(entries::routes())
}

/// What was found.
enum Found {
    Queries(Vec<Asked>),
    Uses(Vec<NamedUse>),
    Incidents(Vec<Incident>),
}

impl Found {
    async fn of(pages: &Pages, filter: &Filter) -> Result<Self, Refusal> {
        let (documents, store, now) = (&pages.documents, &pages.store, pages.clock.now());
        let names = Names::read(documents, store).await?;
        let parts = use_register::gather(documents, store, |study| filter.wants_study(study)).await?;
        Ok(match filter.list {
            List::Queries => Self::Queries(search::queries(&parts, &names, filter)?),
            List::Uses => Self::Uses(search::uses(&parts, &names, filter, now)?),
            List::Incidents => Self::Incidents(refusals::all(documents, store, &parts, &names, filter, now).await?),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Queries(found) => found.len(),
            Self::Uses(found) => found.len(),
            Self::Incidents(found) => found.len(),
        }
    }

    /// So many of it from one place on, as a table.
    fn table(&self, language: Language, from: usize, most: usize) -> Table {
        fn part<T>(found: &[T], from: usize, most: usize) -> &[T] {
            let from = from.min(found.len());
            &found[from..found.len().min(from.saturating_add(most))]
        }
        match self {
            Self::Queries(found) => {
                let caption = language.say("Queries, the latest first", "照会（新しい順）");
                search::table_of_queries(language, caption, part(found, from, most))
            }
            Self::Uses(found) => {
                let caption = language.say("Uses, the latest decision first", "利用（決定の新しい順）");
                search::table_of_uses(language, caption, part(found, from, most))
            }
            Self::Incidents(found) => {
                let caption = language.say("Refusals and anomalies, the latest first", "拒否と異常（新しい順）");
                incidents::table(language, caption, part(found, from, most))
            }
        }
    }

    fn json(&self, list: List, now: DateTime<Utc>) -> Result<Vec<u8>, serde_json::Error> {
        let entries = match self {
            Self::Queries(found) => serde_json::to_value(found),
            Self::Uses(found) => serde_json::to_value(found),
            Self::Incidents(found) => serde_json::to_value(found),
        };
        let report = serde_json::json!({
            "format": "sekisho regulator export 1",
            "list": list.as_str(),
            "generated_at": now,
            "entries": entries?,
        });
        serde_json::to_vec_pretty(&report)
    }
}

/// A choice of a form.
struct Choice {
    code: String,
    label: String,
    chosen: bool,
}

fn choices(language: Language, options: impl IntoIterator<Item = Coded>, chosen: &str) -> Vec<Choice> {
    let choice = |coded: Coded| Choice {
        label: table::say(language, &coded.label).into(),
        chosen: coded.code == chosen,
        code: coded.code,
    };
    options.into_iter().map(choice).collect()
}

/// A search with what it found.
#[derive(Template)]
#[template(path = "regulator/search.html")]
struct SearchPage {
    page: Page,
    form: Form,
    list: List,
    /// The address of the form.
    action: &'static str,
    wrong: Option<String>,
    purposes: Vec<Choice>,
    states: Vec<Choice>,
    states_of_uses: Vec<Choice>,
    warning: bool,
    counts: Vec<Table>,
    found: String,
    hits: Option<Table>,
    before: Option<String>,
    after: Option<String>,
    csv: String,
    json: String,
}

const PURPOSES: [Purpose; 6] = [
    Purpose::PublicHealth,
    Purpose::PolicyAndRegulation,
    Purpose::OfficialStatistics,
    Purpose::Education,
    Purpose::ScientificResearch,
    Purpose::ImprovingCare,
];

async fn search(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Query(form): Query<Form>,
) -> Result<Response, Fault> {
    listed(&regulator, &pages, form, "/regulator").await
}

async fn refused(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Query(form): Query<Form>,
) -> Result<Response, Fault> {
    let form = Form { list: List::Incidents.as_str().into(), ..form };
    listed(&regulator, &pages, form, "/regulator/refusals").await
}

async fn exported(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Query(form): Query<Form>,
) -> Result<Response, Fault> {
    export(&regulator, &pages, &form).await
}

fn bad((english, japanese): Wrong) -> Fault {
    Fault::bad_request(english, japanese)
}

async fn export(regulator: &Regulator, pages: &Pages, form: &Form) -> Result<Response, Fault> {
    let filter = Filter::try_from(form).map_err(bad)?;
    let (found, now) = (Found::of(pages, &filter).await?, pages.clock.now());
    if found.len() > MAX_EXPORT {
        return Err(bad((
            "There is more than one export may have: narrow the search.",
            "件数が一度に出力できる上限を超えています。条件を絞ってください。",
        )));
    }
    let (kind, extension, bytes) = match form.format.as_str() {
        "" | "csv" => {
            let text = found.table(regulator.visitor.language(), 0, MAX_EXPORT).csv();
            // Spreadsheets take a text without this mark for one in the local encoding.
            ("text/csv; charset=utf-8", "csv", format!("\u{feff}{text}").into_bytes())
        }
        "json" => ("application/json", "json", found.json(filter.list, now).map_err(Fault::unavailable)?),
        _ => return Err(bad(("An export is csv or json.", "出力形式は csv または json です。"))),
    };
    let name = format!("sekisho-{}-{}.{extension}", filter.list.as_str(), now.date_naive());
    Ok(download(kind, &name, bytes))
}

/// A file to keep; `name` is ours and plain.
fn download(kind: &'static str, name: &str, bytes: Vec<u8>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, kind.to_string()), (header::CONTENT_DISPOSITION, disposition)], bytes).into_response()
}

async fn listed(regulator: &Regulator, pages: &Pages, form: Form, action: &'static str) -> Result<Response, Fault> {
    if !form.format.is_empty() {
        return export(regulator, pages, &form).await;
    }
    let visitor = &regulator.visitor;
    let language = visitor.language();
    let checked = Filter::try_from(&form);
    let wrong = checked.as_ref().err().map(|(english, japanese)| language.say(english, japanese).to_string());
    let filter = checked.unwrap_or_default();
    let found = match &wrong {
        Some(_) => None,
        None => Some(Found::of(pages, &filter).await?),
    };
    let list = if action == "/regulator" { filter.list } else { List::Incidents };
    let (total, from) = (found.as_ref().map_or(0, Found::len), filter.page.saturating_mul(PAGE));
    let to = |page: usize| format!("{action}{}", form.query(list.as_str(), Some(page), None));
    let incidents = match &found {
        Some(Found::Incidents(found)) => found.as_slice(),
        Some(Found::Queries(_) | Found::Uses(_)) | None => &[],
    };
    let contradicts = Sort::LogContradicts.coded();
    let title = match list {
        List::Queries | List::Uses => visitor.say("Search uses and queries", "利用と照会の検索"),
        List::Incidents => visitor.say("Refusals and anomalies", "拒否と異常"),
    };
    let states = match list {
        List::Incidents => choices(language, Sort::ALL.map(Sort::coded), &form.state),
        List::Queries | List::Uses => choices(language, asked::states(), &form.state),
    };
    let shown = SearchPage {
        page: visitor.page(title),
        list,
        action,
        purposes: choices(language, PURPOSES.map(words::purpose), &form.purpose),
        states,
        states_of_uses: choices(language, words::states(), &form.state),
        warning: incidents.iter().any(|incident| incident.sort.code == contradicts.code),
        counts: incidents::counts(language, incidents),
        found: number_found(language, total, from),
        hits: found.map(|found| found.table(language, from, PAGE)),
        before: (filter.page > 0 && wrong.is_none()).then(|| to(filter.page)),
        after: (from.saturating_add(PAGE) < total).then(|| to(filter.page + 2)),
        csv: format!("/regulator/export{}", form.query(list.as_str(), None, Some("csv"))),
        json: format!("/regulator/export{}", form.query(list.as_str(), None, Some("json"))),
        wrong,
        form,
    };
    show(&shown)
}

/// How much was found, and which part of it is on the page.
fn number_found(language: Language, total: usize, from: usize) -> String {
    let (first, last) = (from.saturating_add(1), from.saturating_add(PAGE).min(total));
    match language {
        Language::En if total == 0 => "Nothing was found.".into(),
        Language::Ja if total == 0 => "該当する記録はありません。".into(),
        Language::En => format!("{total} found; this page shows {first} to {last}."),
        Language::Ja => format!("{total}件見つかりました。{first}件目から{last}件目を表示しています。"),
    }
}

/// A study.
#[derive(Template)]
#[template(path = "regulator/study.html")]
struct StudyPage {
    page: Page,
    study: String,
    facts: Vec<(String, table::Cell)>,
    budget: Vec<Drawn>,
    chain: Vec<Table>,
    incidents: Table,
    all_incidents: String,
}

async fn one_study(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Path(study): Path<String>,
) -> Result<Response, Fault> {
    let (documents, store, now) = (&pages.documents, &pages.store, pages.clock.now());
    let visitor = &regulator.visitor;
    let language = visitor.language();
    let parts = use_register::gather(documents, store, |of| of == study).await?;
    if parts.permits.is_empty() && parts.applications.is_empty() {
        return Err(Fault::not_found());
    }
    let (names, uses) = (Names::read(documents, store).await?, use_register::of(&parts, now)?.uses);
    let found = asked::all(&parts, &names)?;
    let mut incidents = refusals::all(documents, store, &parts, &names, &Filter::default(), now).await?;
    incidents.retain(|incident| incidents::concerns(incident, &study, &parts));
    incidents.truncate(MAX_ON_STUDY);
    let caption = visitor.say("Refusals, suspensions and anomalies, the latest first", "拒否、停止、異常（新しい順）");
    let incidents = incidents::table(language, caption, &incidents);
    let budget = spending::spending(&parts)?.into_iter().enumerate();
    let budget = budget.map(|(number, spending)| drawn::draw(language, number, spending, now)).collect();
    let mut chain = vec![
        study::applications(language, &parts, &names),
        study::reviews(language, store, &parts, &names).await?,
        study::decisions(language, &uses, &parts, &names),
        study::persons(language, &parts, &names),
        study::holders(language, &parts),
        study::rounds(language, &found),
    ];
    if study::reviews_results(&parts) {
        chain.push(study::output_reviews(language, store, &found, &names).await?);
    }
    chain.push(study::publications(language, &uses));
    let title = format!("{} {study}", visitor.say("Study", "研究"));
    show(&StudyPage {
        page: visitor.page(title),
        facts: study::facts(language, &uses),
        all_incidents: format!("/regulator/refusals?study={}", table::part(&study)),
        budget,
        chain,
        incidents,
        study,
    })
}
