//! The first page: every use, searched and narrowed by plain query parameters.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::Response,
};
use sekisho_protocol::pages::{Fault, Page, Visitor, show};
use serde::Deserialize;

use super::{Latest, chip};
use crate::{
    pages::Pages,
    use_register::{Text, Use, UseRegister},
};

/// How many uses one page has.
const ON_A_PAGE: usize = 50;

/// What somebody looks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    pub(super) text: String,
    pub(super) state: String,
    pub(super) holder: String,
    pub(super) page: Option<usize>,
}

impl Asked {
    /// Whether a use is one of those that are looked for.
    fn wants(&self, used: &Use) -> bool {
        let states = self.state.is_empty() || used.state.code == self.state;
        let holders = self.holder.is_empty() || holders(used).any(|holder| holder == self.holder);
        states && holders && self.text.split_whitespace().all(|word| mentions(used, &word.to_lowercase()))
    }

    /// The address of the page `number` of the same search.
    fn address(&self, number: usize) -> String {
        let mut pairs = vec![];
        for (name, value) in [("text", &self.text), ("state", &self.state), ("holder", &self.holder)] {
            if !value.is_empty() {
                pairs.push(format!("{name}={}", escaped(value)));
            }
        }
        pairs.push(format!("page={number}"));
        format!("/?{}", pairs.join("&"))
    }
}

/// A value for an address.
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn holders(used: &Use) -> impl Iterator<Item = &str> {
    let named = used.holders.iter().map(|holder| holder.name.as_str());
    named.chain(used.data.iter().flat_map(|table| &table.holders).map(String::as_str))
}

/// Whether one of the texts of a use, in either language, has this word in it.
fn mentions(used: &Use, word: &str) -> bool {
    let application = used.application.as_ref();
    let prose = application.into_iter().flat_map(|a| [&a.use_description, &a.expected_benefit]).flatten();
    let labels = used.purposes.iter().chain([&used.basis]).flat_map(|coded| [&coded.label.ja, &coded.label.en]);
    let data = used.data.iter().flat_map(|table| std::iter::once(&table.table).chain(&table.columns));
    let mut all = [&used.id, &used.study, &used.data_user].into_iter().chain(prose).chain(labels).chain(data);
    all.any(|text| text.to_lowercase().contains(word))
}

#[derive(Template)]
#[template(path = "public/register.html")]
pub(super) struct RegisterPage<'a> {
    page: Page,
    asked: &'a Asked,
    states: Vec<(&'a str, &'a Text)>,
    holders: BTreeSet<&'a str>,
    found: usize,
    pub(super) shown: Vec<&'a Use>,
    number: usize,
    numbers: usize,
    before: Option<String>,
    after: Option<String>,
    uses: usize,
    in_force: usize,
    queries: usize,
    hospitals: usize,
}

pub(super) async fn page(
    State(pages): State<Arc<Pages>>,
    Extension(latest): Extension<Arc<Latest>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let register = latest.register(&pages).await?;
    show(&found(&register, &asked, &visitor))
}

/// What the first page shows of a search.
pub(super) fn found<'a>(register: &'a UseRegister, asked: &'a Asked, visitor: &Visitor) -> RegisterPage<'a> {
    // The newest first: what was decided last, then what was applied for last.
    let mut uses: Vec<&Use> = register.uses.iter().collect();
    let newest = |used: &Use| {
        let submitted = used.application.as_ref().map(|a| a.submitted_at.date_naive());
        used.decisions.iter().map(|d| d.date).max().max(submitted)
    };
    uses.sort_by_key(|used| (std::cmp::Reverse(newest(used)), &used.id));
    let found: Vec<&Use> = uses.into_iter().filter(|used| asked.wants(used)).collect();
    let numbers = found.len().div_ceil(ON_A_PAGE).max(1);
    let number = asked.page.unwrap_or(1).clamp(1, numbers);
    let states: BTreeMap<&str, &Text> =
        register.uses.iter().map(|used| (used.state.code.as_str(), &used.state.label)).collect();
    let holders: BTreeSet<&str> = register.uses.iter().flat_map(holders).collect();
    RegisterPage {
        page: visitor.page(visitor.say("Register of uses of health data", "医療データ利用登録簿")),
        states: states.into_iter().collect(),
        found: found.len(),
        shown: found.into_iter().skip((number - 1) * ON_A_PAGE).take(ON_A_PAGE).collect(),
        number,
        numbers,
        before: (number > 1).then(|| asked.address(number - 1)),
        after: (number < numbers).then(|| asked.address(number + 1)),
        uses: register.uses.len(),
        in_force: register.uses.iter().filter(|used| used.state.code == "in_force").count(),
        queries: register.uses.iter().map(|used| used.queries.len()).sum(),
        hospitals: holders.len(),
        holders,
        asked,
    }
}
