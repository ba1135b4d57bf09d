//! A held result as its reviewers see it: the facts that help to judge it, its tables, and the line that releases or
//! refuses it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use sekisho_protocol::{
    digest::Digest,
    output_review::Standing,
    pages::{Fault, Page, show},
};

use super::{CommitteeMember, Pages, commands::KEY, refused, seated};
use crate::{
    held::{self, HeldResult},
    pages::{
        bounds::{MOST_ROWS, place},
        command_line::line,
        interval_chart::IntervalChart,
        states,
    },
    person::{
        answer::{Grid, Rows},
        number::significant,
        output::answer,
    },
    report::{ALL_HOLDERS, ResultReport},
};

#[derive(Template)]
#[template(path = "committee/result.html")]
struct ResultPage {
    page: Page,
    shown: HeldResult,
    report: ResultReport,
    grid: Grid,
    all_rows: usize,
    charts: Vec<IntervalChart>,
    release: String,
    refuse: String,
    waits: bool,
    said_already: bool,
}

impl ResultPage {
    fn percent(share: &f64) -> String {
        format!("{} %", significant(100.0 * share))
    }
}

/// The page.
///
/// # Errors
/// When there is no such result for this member.
pub async fn page(
    State(pages): State<Arc<Pages>>,
    Path(result): Path<String>,
    who: CommitteeMember,
) -> Result<Response, Fault> {
    let member = seated(&pages, &who)?;
    let result: Digest = result.parse().map_err(|_| Fault::not_found())?;
    let _place = place().await?;
    let shown = held::show(&pages.documents, &pages.store, &member, result).await.map_err(refused)?;
    let told = answer(&shown).map_err(|failure| Fault::unavailable(failure.detail()))?;
    let rows = Rows::of(&told).map_err(|failure| Fault::unavailable(failure.detail()))?;
    let grid = rows.grid(true, MOST_ROWS).map_err(|failure| Fault::unavailable(failure.detail()))?;
    let name = result.to_string();
    let word = |verb, reasons| line(["sekisho", "output", verb, &name, "--reasons", reasons, "--key", KEY]);
    let title = who.visitor.say("Result", "結果");
    show(&ResultPage {
        page: who.visitor.page(format!("{title} {}", result.short())),
        charts: IntervalChart::all(&grid, ALL_HOLDERS, who.visitor.language()),
        all_rows: rows.count(),
        grid,
        report: told.report,
        release: word("release", "WHY IT DISCLOSES NOBODY"),
        refuse: word("refuse", "WHY NOT, WITHOUT NUMBERS OF THE RESULT"),
        waits: shown.held.standing == Standing::Awaiting,
        said_already: shown.held.reviews.iter().any(|review| review.name == member.name),
        shown,
    })
}
