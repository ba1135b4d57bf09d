//! The coordinator's log, read by role: a regulator opens every statement, a person those of the own queries and receipts, nobody
//! else any.
//!
//! Promises: who asks has signed for it ([`Documents::log_reader`](crate::documents::Documents::log_reader)); what a reader may
//! not open is not listed either, and is refused as if it were not there.
//!
//! Deliberately absent: what is public (commitments, tiles and checkpoints: [`crate::tiles`]).

use sekisho_protocol::{
    access::Item,
    digest::Digest,
    dsse::Envelope,
    log::{
        entry::Kind,
        store::{Leaf, Opened, Shown, Which},
    },
    query::Query,
    receipt::Receipt,
    refusal::{Code, Refusal},
};

use crate::{
    documents::{LogReader, unavailable},
    report::LogReport,
    store::{Store, StoreError},
};

/// What `reader` is told of `item`.
///
/// # Errors
/// `not_authorised` for a statement that is not the reader's or not there; `malformed` for what is not of the log.
pub async fn read(store: &Store, reader: LogReader, item: &Item) -> Result<LogReport, Refusal> {
    match item {
        Item::LogEntries { from, limit } => entries(store, reader, *from, *limit).await,
        Item::LogStatement { index } => statement(store, reader, *index).await,
        Item::Application { .. }
        | Item::Applications
        | Item::Reviews { .. }
        | Item::HeldResults
        | Item::HeldResult { .. }
        | Item::Releases
        | Item::Release { .. } => Err(Refusal::new(Code::Malformed, "this request is not about the log")),
    }
}

async fn entries(store: &Store, reader: LogReader, from: u64, limit: u32) -> Result<LogReport, Refusal> {
    let leaves = store.log_entries(from, limit).await.map_err(unavailable)?;
    let next = leaves.last().map(|leaf| leaf.index + 1);
    let mut entries = Vec::new();
    for leaf in &leaves {
        if may_open(store, reader, leaf).await.map_err(unavailable)? {
            entries.push(Shown::from(leaf));
        }
    }
    let checkpoint = store.own_checkpoint().await.map_err(unavailable)?.map(|checkpoint| checkpoint.to_string());
    Ok(LogReport::Entries { entries, next, checkpoint })
}

async fn statement(store: &Store, reader: LogReader, index: u64) -> Result<LogReport, Refusal> {
    let none = || {
        Refusal::new(Code::NotAuthorised, format!("entry {index} is not there, was erased, or is not for this reader"))
    };
    let leaf = store.log_entries(index, 1).await.map_err(unavailable)?.into_iter().find(|leaf| leaf.index == index);
    let leaf = leaf.ok_or_else(none)?;
    if !may_open(store, reader, &leaf).await.map_err(unavailable)? {
        return Err(none());
    }
    let proof = match store.own_checkpoint().await.map_err(unavailable)? {
        Some(checkpoint) if checkpoint.claimed().head().size() > index => {
            let proved = store.prove(&Which::Index(index), checkpoint).await.map_err(unavailable)?;
            Some(proved.proof.to_string())
        }
        Some(_) | None => None,
    };
    let (kind, opened) = (leaf.kind, leaf.opened.ok_or_else(none)?);
    let statement = String::from_utf8(opened.statement).map_err(|_| unavailable(StoreError::Corrupt("statement")))?;
    Ok(LogReport::Statement { kind, statement, proof })
}

/// Whether `reader` may open the statement of `leaf`, which is there.
async fn may_open(store: &Store, reader: LogReader, leaf: &Leaf) -> Result<bool, StoreError> {
    match (reader, leaf) {
        (_, Leaf { opened: None, .. }) => Ok(false),
        (LogReader::Regulator, Leaf { opened: Some(_), .. }) => Ok(true),
        (LogReader::Person(key), Leaf { kind: Kind::Query, opened: Some(Opened { statement, .. }), .. }) => {
            Ok(signed_by(statement, key))
        }
        (LogReader::Person(key), Leaf { kind: Kind::Receipt, opened: Some(Opened { statement, .. }), .. }) => {
            let receipt = Envelope::from_json::<Receipt>(statement).and_then(|receipt| receipt.peek::<Receipt>());
            let Ok((receipt, _)) = receipt else { return Ok(false) };
            Ok(store.question(receipt.query).await?.is_some_and(|question| signed_by(&question, key)))
        }
        (LogReader::Person(_), Leaf { opened: Some(_), .. }) => Ok(false),
    }
}

/// Whether a query that was taken, and verified then, names this key as its signer.
fn signed_by(query: &[u8], key: Digest) -> bool {
    Envelope::from_json::<Query>(query).is_ok_and(|query| query.key_ids().any(|id| id == key))
}
