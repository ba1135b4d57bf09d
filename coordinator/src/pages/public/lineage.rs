//! Where a result came from: application, decision and permit, the question, each hospital's receipt, the release, the log.
//!
//! Everything is read from signed documents and receipts as they are stored, each with its digest and its place in the
//! coordinator's log. Persons are not named.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    digest::Digest, dsse::Envelope, log::entry::Kind as Entry, permit::Permit, published::PublishedRelease,
    query::Query, receipt::Receipt, refusal::Refusal,
};

use crate::{
    documents::unavailable,
    store::{Kept, Kind, Store},
    use_register::{MissingEntry, QueryEntry, Use},
};

/// A signed document on the way.
pub(super) struct Document {
    /// Whose: its id, with its version.
    pub(super) name: String,
    /// SHA-256 of its payload.
    pub(super) digest: Digest,
    /// When it was handed in.
    pub(super) at: DateTime<Utc>,
    /// Its place in the log.
    pub(super) entry: Option<u64>,
}

/// A hospital's part.
pub(super) struct Part {
    pub(super) receipt: Receipt,
    /// SHA-256 of the receipt.
    pub(super) digest: Digest,
    pub(super) entry: Option<u64>,
}

/// The whole way of one result.
pub(super) struct Lineage {
    pub(super) application: Option<Document>,
    pub(super) permit: Document,
    pub(super) issuer: String,
    pub(super) decided: NaiveDate,
    pub(super) decided_by: Vec<String>,
    pub(super) query: Document,
    pub(super) parts: Vec<Part>,
    pub(super) missing: Vec<MissingEntry>,
    /// The coordinator's statement of the result.
    pub(super) release: Document,
    pub(super) result: Digest,
}

impl Lineage {
    /// The way of the result of `query`, which is one of `used`.
    ///
    /// # Errors
    /// When the database cannot be read, or what is stored is of another result.
    pub(super) async fn of(store: &Store, used: &Use, query: &QueryEntry, result: Digest) -> Result<Self, Refusal> {
        let lost = |what: &str| unavailable(std::io::Error::other(format!("the {what} of a result is not kept")));
        let stated = store.published(result).await.map_err(unavailable)?.ok_or_else(|| lost("statement"))?;
        let (_, statement) = Envelope::from_json::<PublishedRelease>(&stated.envelope)?.peek::<PublishedRelease>()?;
        let entry = store.entry_of(Entry::Release, &stated.envelope).await.map_err(unavailable)?;
        let release = Document { name: result.to_string(), digest: statement, at: stated.at, entry };
        let granted = used.decisions.iter().find(|decision| decision.digest == stated.permit);
        let decision = granted.ok_or_else(|| lost("permit"))?;
        let round = store.kept_round(&stated.round).await.map_err(unavailable)?.ok_or_else(|| lost("round"))?;
        let permits = store.kept(Kind::Permit, Some(&decision.id), u32::MAX).await.map_err(unavailable)?;
        let permit = permits.iter().find(|kept| kept.digest == decision.digest).ok_or_else(|| lost("permit"))?;
        let question = round.question.as_deref().ok_or_else(|| lost("question"))?;
        let (_, digest) = Envelope::from_json::<Query>(question)?.peek::<Query>()?;
        let entry = store.entry_of(Entry::Query, question).await.map_err(unavailable)?;
        let asked = Document { name: query.query_key.short(), digest, at: round.started, entry };
        let mut parts = BTreeMap::new();
        for (_, envelope) in store.receipts_of_round(&stated.round).await.map_err(unavailable)? {
            let (receipt, digest) = Envelope::from_json::<Receipt>(&envelope)?.peek::<Receipt>()?;
            let entry = store.entry_of(Entry::Receipt, &envelope).await.map_err(unavailable)?;
            parts.insert(receipt.node.clone(), Part { receipt, digest, entry });
        }
        Ok(Self {
            application: application(store, permit).await?,
            permit: document(store, permit, Entry::Permit).await?,
            issuer: decision.issuer.clone().unwrap_or_default(),
            decided: decision.date,
            decided_by: decision.decided_by.clone(),
            query: asked,
            parts: parts.into_values().collect(),
            missing: query.missing.clone(),
            release,
            result,
        })
    }

    /// How many of the statements on the way are in the log, and how many there are.
    pub(super) fn logged(&self) -> (usize, usize) {
        let documents =
            self.application.iter().chain([&self.permit, &self.query, &self.release]).map(|document| document.entry);
        let all: Vec<Option<u64>> = documents.chain(self.parts.iter().map(|part| part.entry)).collect();
        (all.iter().flatten().count(), all.len())
    }
}

/// The newest version of the application that was there when the permit was handed in.
async fn application(store: &Store, permit: &Kept) -> Result<Option<Document>, Refusal> {
    let (granted, _) = Envelope::from_json::<Permit>(&permit.envelope)?.peek::<Permit>()?;
    let Some(id) = &granted.application_id else { return Ok(None) };
    let kept = store.kept(Kind::Application, Some(id), u32::MAX).await.map_err(unavailable)?;
    let newest = kept.iter().filter(|one| one.put_at <= permit.put_at).max_by_key(|one| one.seq);
    match newest {
        None => Ok(None),
        Some(kept) => document(store, kept, Entry::Application).await.map(Some),
    }
}

async fn document(store: &Store, kept: &Kept, kind: Entry) -> Result<Document, Refusal> {
    let entry = store.entry_of(kind, &kept.envelope).await.map_err(unavailable)?;
    Ok(Document { name: format!("{} v{}", kept.name, kept.seq), digest: kept.digest, at: kept.put_at, entry })
}
