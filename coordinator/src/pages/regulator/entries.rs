//! The pages of the coordinator's log: its entries, one entry, and the two files that prove it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query, State},
    response::{Redirect, Response},
    routing::get,
};
use sekisho_protocol::{
    digest::Digest,
    log::{
        entry::Kind,
        store::{LogError, Proved, Which},
    },
    pages::{Fault, Page, show},
};
use serde::Deserialize;

use super::{
    Choice, bad, download,
    filter::Wrong,
    log::{self, Statement},
    names::{Names, Signer},
    table::{self, Table, time},
};
use crate::{
    documents::unavailable,
    pages::{Pages, Regulator},
    store::{LogFilter, Logged, StoreError},
};

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new()
        .route("/regulator/documents/{digest}", get(document))
        .route("/regulator/log", get(entries))
        .route("/regulator/log/{index}", get(entry))
        .route("/regulator/log/{index}/statement", get(statement))
        .route("/regulator/log/{index}/proof", get(proof))
}

/// A document leads to its entry in the log.
async fn document(
    _: Regulator,
    State(pages): State<Arc<Pages>>,
    Path(digest): Path<String>,
) -> Result<Redirect, Fault> {
    let digest: Digest = digest.parse().map_err(|_| Fault::not_found())?;
    let envelope = pages.store.envelope(digest).await.map_err(unavailable)?.ok_or_else(Fault::not_found)?;
    Ok(Redirect::to(&format!("/regulator/log?statement={}", Digest::of(&envelope))))
}

/// Which entries of the log are wanted, as it was sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogForm {
    kind: String,
    statement: String,
    before: String,
}

impl TryFrom<&LogForm> for LogFilter {
    type Error = Wrong;

    fn try_from(form: &LogForm) -> Result<Self, Wrong> {
        fn read<T: std::str::FromStr>(text: &str, wrong: Wrong) -> Result<Option<T>, Wrong> {
            if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| wrong) }
        }
        Ok(Self {
            kind: read(&form.kind, ("There is no such kind of entry.", "そのような種類の記録はありません。"))?,
            statement: read(&form.statement, ("A digest has 64 digits.", "ダイジェストは64桁の16進数です。"))?,
            before: read(&form.before, ("An entry has a number.", "記録番号は数字です。"))?,
        })
    }
}

/// Entries of the log.
#[derive(Template)]
#[template(path = "regulator/log.html")]
struct LogPage {
    page: Page,
    kinds: Vec<Choice>,
    entries: Table,
    older: Option<String>,
    size: u64,
}

async fn entries(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Query(form): Query<LogForm>,
) -> Result<Response, Fault> {
    let (visitor, store) = (&regulator.visitor, &pages.store);
    let language = visitor.language();
    let filter = LogFilter::try_from(&form).map_err(bad)?;
    let names = Names::read(&pages.documents, store).await?;
    let (entries, next) = log::page(language, store, &names, filter).await?;
    let kind = |kind: &Kind| Choice {
        code: kind.to_string(),
        label: log::name(language, *kind).into(),
        chosen: filter.kind == Some(*kind),
    };
    show(&LogPage {
        page: visitor.page(visitor.say("Entries of the transparency log", "透明性ログの記録")),
        kinds: Kind::ALL.iter().map(kind).collect(),
        entries,
        older: next.map(|before| format!("/regulator/log?kind={}&before={before}", table::part(&form.kind))),
        size: store.log_size().await.map_err(unavailable)?,
    })
}

/// An entry of the log.
#[derive(Template)]
#[template(path = "regulator/entry.html")]
struct EntryPage {
    page: Page,
    index: u64,
    kind: &'static str,
    code: Kind,
    statement: Option<Statement>,
    known_at: Option<String>,
    signers: Table,
    proven: bool,
}

/// An entry with its statement, if it is there.
async fn found_entry(pages: &Pages, index: &str) -> Result<Logged, Fault> {
    let index: u64 = index.parse().map_err(|_| Fault::not_found())?;
    let before = Some(index.checked_add(1).ok_or_else(Fault::not_found)?);
    let newest =
        pages.store.newest_entries(LogFilter { before, ..LogFilter::default() }, 1).await.map_err(unavailable)?;
    newest.into_iter().find(|entry| entry.index == index).ok_or_else(Fault::not_found)
}

/// The proof of an entry, as of the newest checkpoint that was witnessed; none when it came after that, or was erased.
async fn proved(pages: &Pages, index: u64) -> Result<Option<Proved>, Fault> {
    let Some(checkpoint) = pages.store.own_checkpoint().await.map_err(unavailable)? else { return Ok(None) };
    match pages.store.prove(&Which::Index(index), checkpoint).await {
        Ok(proved) => Ok(Some(proved)),
        Err(StoreError::Log(LogError::Unprovable(_))) => Ok(None),
        Err(error) => Err(unavailable(error).into()),
    }
}

async fn entry(
    regulator: Regulator,
    State(pages): State<Arc<Pages>>,
    Path(index): Path<String>,
) -> Result<Response, Fault> {
    let (visitor, store) = (&regulator.visitor, &pages.store);
    let language = visitor.language();
    let found = found_entry(&pages, &index).await?;
    let names = Names::read(&pages.documents, store).await?;
    let statement = found.statement.as_deref().map(Statement::decode);
    let known_at = match &statement {
        Some(statement) => statement.known_at(store).await?.map(time),
        None => None,
    };
    let signed: Vec<Signer> = statement.as_ref().map(|statement| statement.signers(&names)).unwrap_or_default();
    let columns = [("Signed by", "署名者"), ("What they are", "役割"), ("Key fingerprint", "鍵の指紋")];
    let row = |signer: &Signer| {
        [
            table::Cell::words(signer.name.as_deref().unwrap_or_default()),
            table::Cell::words(table::say(language, &signer.role)),
            table::Cell::words(signer.key.to_string()),
        ]
    };
    let signers = Table::new(language, visitor.say("Signatures", "署名"), columns).with(signed.iter().map(row));
    show(&EntryPage {
        page: visitor.page(format!("{} {index}", visitor.say("Log entry", "ログの記録"))),
        index: found.index,
        kind: log::name(language, found.kind),
        code: found.kind,
        proven: proved(&pages, found.index).await?.is_some(),
        statement,
        known_at,
        signers,
    })
}

async fn statement(
    _: Regulator,
    State(pages): State<Arc<Pages>>,
    Path(index): Path<String>,
) -> Result<Response, Fault> {
    let entry = found_entry(&pages, &index).await?;
    let bytes = entry.statement.ok_or_else(Fault::not_found)?;
    Ok(download("application/octet-stream", &format!("entry-{}.statement", entry.index), bytes))
}

async fn proof(_: Regulator, State(pages): State<Arc<Pages>>, Path(index): Path<String>) -> Result<Response, Fault> {
    let index: u64 = index.parse().map_err(|_| Fault::not_found())?;
    let proof = proved(&pages, index).await?.ok_or_else(Fault::not_found)?.proof;
    let name = format!("entry-{index}.tlog-proof");
    Ok(download("text/plain; charset=utf-8", &name, proof.to_string().into_bytes()))
}
