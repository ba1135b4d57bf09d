//! The form that writes a query, and what it says of one.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use sekisho_protocol::pages::{Fault, Page, Posted, show};
use serde::Deserialize;

use super::{
    DataUser, Pages,
    question::{Analysis, Form, analysed},
    studies::{Own, own},
};
use crate::{
    pages::bounds::place,
    person::{failure::Failure, number::significant, query::CELL_SIZES},
};

/// Which permit the form begins with.
#[derive(Deserialize)]
pub struct Chosen {
    #[serde(default)]
    permit: String,
}

#[derive(Template)]
#[template(path = "user/query.html")]
struct QueryPage {
    page: Page,
    form: Form,
    /// Those under which something can be asked.
    permits: Vec<Own>,
    holders: Vec<String>,
    analysis: Option<Analysis>,
    failure: Option<Failure>,
}

impl QueryPage {
    fn is_chosen(&self, permit: &Own) -> bool {
        permit.permit.digest().to_string() == self.form.permit
    }

    fn sizes() -> [u32; 3] {
        CELL_SIZES
    }

    fn number(value: &f64) -> String {
        significant(*value)
    }
}

/// The empty form.
///
/// # Errors
/// When the permit is not one of the person's.
pub async fn page(
    State(pages): State<Arc<Pages>>,
    Query(chosen): Query<Chosen>,
    who: DataUser,
) -> Result<Response, Fault> {
    let form = Form { permit: chosen.permit, ..Form::default() };
    let (permits, form) = chosen_of(&pages, &who, form)?;
    show(&shown(&who, permits, form, None, None))
}

/// The form with what was found out about its question.
///
/// # Errors
/// When the permit is not one of the person's. A question that is not admitted is no error: the page says why.
pub async fn analyse(
    State(pages): State<Arc<Pages>>,
    who: DataUser,
    Posted(fields): Posted<Vec<(String, String)>>,
) -> Result<Response, Fault> {
    let (permits, form) = chosen_of(&pages, &who, Form::of(fields))?;
    let Some(own) = permits.iter().find(|own| own.permit.digest().to_string() == form.permit) else {
        // A permit that is named is the person's, or the request has ended: this person has none.
        return show(&shown(&who, permits, form, None, None));
    };
    let _place = place().await?;
    let found = analysed(&form, own, &pages.documents, &pages.store, pages.clock.now()).await;
    let (analysis, failure) = match found {
        Ok(analysis) => (Some(analysis), None),
        Err(failure) => (None, Some(failure)),
    };
    show(&shown(&who, permits, form, analysis, failure))
}

/// The permits under which the person may ask, with the form's own among them; the first, where the form names none.
fn chosen_of(pages: &Pages, who: &DataUser, mut form: Form) -> Result<(Vec<Own>, Form), Fault> {
    let mut permits = own(&pages.documents.current(), who.person, pages.clock.now());
    let named = permits.iter().any(|own| own.permit.digest().to_string() == form.permit);
    if !form.permit.is_empty() && !named {
        return Err(Fault::not_found());
    }
    permits.retain(|own| own.void.is_none() || own.permit.digest().to_string() == form.permit);
    permits.sort_by_key(|own| (own.permit.study_id.clone(), std::cmp::Reverse(own.permit.version)));
    if let Some(first) = permits.first().filter(|_| form.permit.is_empty()) {
        form.permit = first.permit.digest().to_string();
    }
    Ok((permits, form))
}

fn shown(
    who: &DataUser,
    permits: Vec<Own>,
    form: Form,
    analysis: Option<Analysis>,
    failure: Option<Failure>,
) -> QueryPage {
    let own = permits.iter().find(|own| own.permit.digest().to_string() == form.permit);
    let holders = own.map(|own| own.permit.holders()).unwrap_or_default();
    let page = who.visitor.page(who.visitor.say("Write a query", "照会の作成"));
    QueryPage { page, form, permits, holders, analysis, failure }
}
