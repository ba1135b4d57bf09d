//! A release: what it is, how it came about, and its lineage, as a picture and as a list.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sekisho_protocol::{
    digest::Digest,
    pages::{Fault, Page, Visitor, show},
};
use tokio::sync::Semaphore;

use super::{Latest, chip, is_open, is_published, lineage::Lineage, picture, rho};
use crate::{
    pages::Pages,
    use_register::{QueryEntry, Use, UseRegister},
};

/// How many bundles are made at once: each reads every statement of its result.
static BUNDLES: Semaphore = Semaphore::const_new(2);
/// The least digits by which a result is named.
const LEAST_DIGITS: usize = 12;

#[derive(Template)]
#[template(path = "public/release.html")]
pub(super) struct ReleasePage<'a> {
    pub(super) page: Page,
    pub(super) used: &'a Use,
    pub(super) query: &'a QueryEntry,
    pub(super) result: Digest,
    /// None of a result that waits for reviewers, or was refused by them.
    pub(super) way: Option<Way>,
    pub(super) bundle: bool,
}

/// The lineage with its picture.
pub(super) struct Way {
    pub(super) lineage: Lineage,
    pub(super) picture: String,
    pub(super) description: String,
}

/// The result that these digits name: all of them, or the first where no other result begins so.
pub(super) fn find<'a>(register: &'a UseRegister, digits: &str) -> Option<(&'a Use, &'a QueryEntry, Digest)> {
    if digits.len() < LEAST_DIGITS {
        return None;
    }
    let all = register.uses.iter().flat_map(|used| used.queries.iter().map(move |query| (used, query)));
    let named = all.filter_map(|(used, query)| Some((used, query, query.result?)));
    let mut found = named.filter(|(_, _, result)| result.to_string().starts_with(digits));
    let first = found.next()?;
    // One result is there once, whatever named it.
    found.all(|(_, _, result)| result == first.2).then_some(first)
}

pub(super) async fn page(
    State(pages): State<Arc<Pages>>,
    Extension(latest): Extension<Arc<Latest>>,
    visitor: Visitor,
    Path(digits): Path<String>,
) -> Result<Response, Fault> {
    let register = latest.register(&pages).await?;
    let (used, query, result) = find(&register, &digits).ok_or_else(Fault::not_found)?;
    let page = visitor.page(format!("{} {}", visitor.say("Release", "集計結果"), result.short()));
    let way = if is_open(query) {
        let lineage = Lineage::of(&pages.store, used, query, result).await.map_err(Fault::unavailable)?;
        Some(drawn(lineage, &page)?)
    } else {
        None
    };
    let bundle = way.is_some() && is_published(used);
    show(&ReleasePage { page, used, query, result, way, bundle })
}

pub(super) async fn lineage(
    State(pages): State<Arc<Pages>>,
    Extension(latest): Extension<Arc<Latest>>,
    visitor: Visitor,
    Path(digits): Path<String>,
) -> Result<Response, Fault> {
    let register = latest.register(&pages).await?;
    let (used, query, result) = find(&register, &digits).ok_or_else(Fault::not_found)?;
    if !is_open(query) {
        return Err(Fault::not_found());
    }
    let lineage = Lineage::of(&pages.store, used, query, result).await.map_err(Fault::unavailable)?;
    let way = drawn(lineage, &visitor.page(""))?;
    let kind = HeaderValue::from_static("image/svg+xml; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], way.picture).into_response())
}

/// The bundle of a result of which the study's results were published.
pub(super) async fn bundle(
    State(pages): State<Arc<Pages>>,
    Extension(latest): Extension<Arc<Latest>>,
    Path(digits): Path<String>,
) -> Result<Response, Fault> {
    let register = latest.register(&pages).await?;
    let (used, query, result) = find(&register, &digits).ok_or_else(Fault::not_found)?;
    if !(is_open(query) && is_published(used)) {
        return Err(Fault::not_found());
    }
    let _place = BUNDLES.try_acquire().map_err(|_| Fault::too_many())?;
    let bundle = crate::bundle::make(&pages.documents, &pages.store, result).await?;
    let zip = bundle.zip().map_err(Fault::unavailable)?;
    let name = format!("attachment; filename=\"sekisho-{}.zip\"", result.short());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(Fault::unavailable)?),
    ];
    Ok((headers, zip).into_response())
}

pub(super) fn drawn(lineage: Lineage, page: &Page) -> Result<Way, Fault> {
    let description = in_words(&lineage, page);
    let picture = picture::svg(&lineage, page, &description).map_err(Fault::unavailable)?;
    Ok(Way { lineage, picture, description })
}

/// The picture in one paragraph, for those who do not see it.
fn in_words(lineage: &Lineage, page: &Page) -> String {
    let names: Vec<&str> = lineage.parts.iter().map(|part| part.receipt.node.as_str()).collect();
    let (logged, all) = lineage.logged();
    if page.is_japanese() {
        let begun = if lineage.application.is_some() { "申請、" } else { "" };
        format!(
            "{begun}決定、利用許可、署名付き照会の順に進み、{}の {} 医療機関が受領証に署名して回答し、それらの合計が集計結果となりました。\
             署名付き文書 {all} 件のうち {logged} 件が透明性ログに記録されています。",
            names.join("、"),
            names.len()
        )
    } else {
        let begun = if lineage.application.is_some() { "An application led to a decision" } else { "A decision led" };
        let to = if lineage.application.is_some() { " and a permit" } else { " to a permit" };
        format!(
            "{begun}{to}; under the permit a signed query was asked; {} hospitals ({}) answered, each with a signed receipt; their sum \
             is the release. {logged} of the {all} signed statements are in the transparency log.",
            names.len(),
            names.join(", ")
        )
    }
}
