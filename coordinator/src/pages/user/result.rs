//! One result as a page, with charts, and as files.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sekisho_protocol::pages::{Fault, Language, Page, show};

use super::{
    DataUser, Pages,
    results::{NotShown, Row, Shown, shown},
    states,
};
use crate::{
    bundle,
    pages::{
        bounds::{MOST_ROWS, place},
        interval_chart::IntervalChart,
    },
    person::{answer::Grid, failure::Failure, format, number::significant},
    report::{ALL_HOLDERS, HolderState},
};

/// The table of one hospital, or of all, with its charts.
struct Part {
    /// The hospital; none of all.
    holder: Option<String>,
    /// Its rows.
    grid: Grid,
    /// How many rows it has, with those that are not on the page.
    all_rows: usize,
    /// A chart of each column with intervals.
    charts: Vec<IntervalChart>,
}

impl Part {
    fn caption(&self, language: &Language) -> String {
        let whose = self.holder.as_deref().unwrap_or(language.say("all hospitals together", "全医療機関の合計"));
        format!("{} {whose}", language.say("Values with their intervals:", "値と区間:"))
    }
}

#[derive(Template)]
#[template(path = "user/result.html")]
struct ResultPage {
    page: Page,
    round: String,
    shown: Shown,
    parts: Vec<Part>,
    missing: Vec<String>,
    percent: String,
}

impl ResultPage {
    fn number(value: &f64) -> String {
        significant(*value)
    }
}

#[derive(Template)]
#[template(path = "user/withheld.html")]
struct WithheldPage {
    page: Page,
    row: Row,
    why: Option<Failure>,
}

async fn told(pages: &Pages, who: &DataUser, round: &str) -> Result<Result<Shown, (Row, Option<Failure>)>, Fault> {
    let _place = place().await?;
    match shown(&pages.documents, &pages.store, round, who.person, pages.clock.now()).await {
        Ok(shown) => Ok(Ok(shown)),
        Err(NotShown::Unknown) => Err(Fault::not_found()),
        Err(NotShown::Failed(refusal)) => Err(refusal.into()),
        Err(NotShown::Withheld(row, why)) => Ok(Err((*row, why))),
    }
}

/// The page.
///
/// # Errors
/// When there is no such round of the person. Of one that may not be shown the page says so.
pub async fn page(
    State(pages): State<Arc<Pages>>,
    Path(round): Path<String>,
    who: DataUser,
) -> Result<Response, Fault> {
    let shown = match told(&pages, &who, &round).await? {
        Ok(shown) => shown,
        Err((row, why)) => {
            return show(&WithheldPage { page: who.visitor.page(who.visitor.say("Result", "結果")), row, why });
        }
    };
    let failed = |failure: Failure| Fault::unavailable(failure.detail());
    let mut parts = Vec::new();
    let hospitals: Vec<String> = shown.rows.hospitals().into_iter().map(String::from).collect();
    let all = [None].into_iter().chain(hospitals.into_iter().map(Some));
    for holder in all {
        let name = holder.as_deref().unwrap_or(ALL_HOLDERS);
        let (grid, all_rows) = shown.rows.of_holder(name, MOST_ROWS).map_err(failed)?;
        let charts = IntervalChart::all(&grid, name, who.visitor.language());
        parts.push(Part { all_rows, holder, grid, charts });
    }
    let missing = shown.report.holders.iter().filter(|holder| holder.state != HolderState::Answered);
    let missing = missing.map(|holder| holder.name.clone()).collect();
    let percent = significant(shown.report.confidence * 100.0);
    let percent = percent.trim_end_matches('0').trim_end_matches('.').to_string();
    let title = format!("{} {}", who.visitor.say("Result", "結果"), shown.result.short());
    let page = ResultPage { page: who.visitor.page(title), round, shown, parts, missing, percent };
    show(&page)
}

/// The same tables as a file: `result.csv`, `result.json` or `result.arrow`; and all that proves them, as `bundle.zip`.
///
/// # Errors
/// As [`page`]; when there is no such file, or the result may not be shown.
pub async fn file(
    State(pages): State<Arc<Pages>>,
    Path((round, file)): Path<(String, String)>,
    who: DataUser,
) -> Result<Response, Fault> {
    let kind = match file.as_str() {
        "result.csv" => "text/csv; charset=utf-8",
        "result.json" => "application/json",
        "result.arrow" => "application/vnd.apache.arrow.stream",
        "bundle.zip" => "application/zip",
        _ => return Err(Fault::not_found()),
    };
    let Shown { result, rows, report, .. } = told(&pages, &who, &round).await?.map_err(|_| Fault::not_found())?;
    let written = match file.as_str() {
        "bundle.zip" => {
            let _place = place().await?;
            let bundle = bundle::make(&pages.documents, &pages.store, result).await?;
            Ok(bundle.zip().map_err(Fault::unavailable)?)
        }
        "result.csv" => rows.csv(true).map(String::into_bytes),
        "result.json" => rows.json(&report).map(String::into_bytes),
        _ => rows.described(true, &report).and_then(|table| format::arrow(&table)),
    };
    let bytes = written.map_err(|failure| Fault::unavailable(failure.detail()))?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let name = format!("attachment; filename=\"{}-{file}\"", report.round);
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("attachment")),
    );
    Ok(response)
}
