//! The coordinator's account of a result, `release/1`: made when a round ends, and at a start for earlier rounds.
//!
//! The files that it names are made here, for the account, the bundle and its check alike: the same tables and the same report
//! give the same bytes.

use std::collections::BTreeMap;

use arrow::{datatypes::Schema, error::ArrowError, record_batch::RecordBatch};
use sekisho_protocol::{
    digest::Digest,
    dsse::{DsseError, Envelope},
    keys::SecretKey,
    output_review::result_digest,
    published::{FilePart, HolderPart, PublishedRelease},
    query::Query,
    receipt::Receipt,
    refusal::Refusal,
};

use super::layout;
use crate::{
    documents::{Documents, unavailable},
    held::{Made, ipc},
    person::{answer::Rows, failure::Failure},
    report::ResultReport,
    round::signing_key,
    store::{KeptStatement, RoundState, Store},
};

/// This software, as statements name it.
pub const SOFTWARE: &str = concat!("sekisho-coordinator ", env!("CARGO_PKG_VERSION"));

/// Why the account of a result cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StatedError {
    /// A table cannot be written.
    #[error("the tables: {0}")]
    Table(#[from] ArrowError),
    /// A table cannot be written as text.
    #[error("the tables: {0}")]
    Text(Failure),
    /// The document breaks its own rules.
    #[error(transparent)]
    Document(#[from] DsseError),
}

/// The files of a result: `tables` is that of all hospitals, then that of each; `report` the report as it is stored.
pub(super) fn files(report: &str, tables: &[RecordBatch]) -> Result<BTreeMap<String, Vec<u8>>, StatedError> {
    let (combined, own) = tables.split_at(tables.len().min(1));
    let mut files = BTreeMap::from([(layout::REPORT.to_string(), report.as_bytes().to_vec())]);
    for (tables, arrow, csv) in [
        (combined, layout::COMBINED_ARROW, layout::COMBINED_CSV),
        (own, layout::BY_HOLDER_ARROW, layout::BY_HOLDER_CSV),
    ] {
        let tables: Vec<RecordBatch> = tables.iter().map(plain).collect::<Result<_, _>>()?;
        let schema = tables.first().map(RecordBatch::schema);
        let schema = schema.ok_or_else(|| ArrowError::InvalidArgumentError("no table".into()))?;
        let text = Rows::of_batches(&schema, &tables).and_then(|rows| rows.csv(true)).map_err(StatedError::Text)?;
        files.insert(arrow.into(), ipc(&tables)?);
        files.insert(csv.into(), format!("{text}\n").into_bytes());
    }
    Ok(files)
}

/// A table without the report in its schema: that is a file of its own.
fn plain(table: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(table.schema().fields().clone());
    RecordBatch::try_new(schema.into(), table.columns().to_vec())
}

/// A round that ended.
pub(crate) struct Ended<'a> {
    /// The permit, by digest.
    pub permit: Digest,
    /// The study.
    pub study_id: &'a str,
    /// The question.
    pub query: &'a Query,
    /// The signed query, by digest.
    pub query_digest: Digest,
    /// What it brought, beside the tables.
    pub report: &'a ResultReport,
    /// The same as it is stored.
    pub text: &'a str,
    /// The tables, that of all hospitals first.
    pub batches: &'a [RecordBatch],
    /// The hospitals that answered, with the digests of their releases.
    pub releases: &'a [(String, Digest)],
}

impl Ended<'_> {
    /// The account of its result, signed with `key`; none without any release.
    ///
    /// # Errors
    /// When a table cannot be written.
    pub fn stated(&self, key: &SecretKey) -> Result<Option<KeptStatement>, StatedError> {
        if self.releases.is_empty() {
            return Ok(None);
        }
        let query_key = self.query.key();
        let releases: BTreeMap<&str, Digest> = self.releases.iter().map(|(name, d)| (name.as_str(), *d)).collect();
        let file = |(path, bytes): (String, Vec<u8>)| FilePart { path, sha256: Digest::of(&bytes) };
        let mut holders: Vec<HolderPart> = self
            .report
            .holders
            .iter()
            .map(|h| HolderPart {
                name: h.name.clone(),
                state: h.state,
                release: releases.get(h.name.as_str()).copied(),
            })
            .collect();
        holders.sort_by(|a, b| a.name.cmp(&b.name));
        let statement = PublishedRelease {
            result: result_digest(query_key, self.query.run, releases),
            permit: self.permit,
            study_id: self.study_id.to_string(),
            query: self.query_digest,
            query_key,
            run: self.query.run,
            round: self.report.round.clone(),
            holders,
            files: files(self.text, self.batches)?.into_iter().map(file).collect(),
            software: SOFTWARE.into(),
            at: self.report.at,
        };
        let envelope = Envelope::sign(&statement, &[key])?.to_json();
        let PublishedRelease { result, permit, round, at, .. } = statement;
        Ok(Some(KeptStatement { result, permit, round, envelope, at }))
    }
}

/// Writes and enters the accounts of results that ended before there were any.
///
/// # Errors
/// When the database fails. A round that cannot be made again is passed over, and named in the log.
pub(crate) async fn state_earlier(documents: &Documents, store: &Store, keys: &[SecretKey]) -> Result<(), Refusal> {
    for round in store.rounds_without_statement().await.map_err(unavailable)? {
        match one(documents, store, keys, &round).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(round, %error, "an earlier result could not be stated"),
        }
    }
    Ok(())
}

async fn one(documents: &Documents, store: &Store, keys: &[SecretKey], round: &str) -> Result<(), Refusal> {
    let Some(kept) = store.kept_round(round).await.map_err(unavailable)? else { return Ok(()) };
    let mut releases = Vec::new();
    for (node, receipt) in store.receipts_of_round(round).await.map_err(unavailable)? {
        releases.push((node, Envelope::from_json::<Receipt>(&receipt)?.peek::<Receipt>()?.0.release));
    }
    let named = releases.iter().map(|(name, release)| (name.as_str(), *release));
    if store.published(result_digest(kept.query_key, kept.run, named)).await.map_err(unavailable)?.is_some() {
        return Ok(());
    }
    let RoundState::Done(text) = &kept.state else { return Ok(()) };
    let current = documents.current();
    let made = Made::again(&current, store, &kept).await?;
    let permit = current.permit(kept.permit)?;
    let ended = Ended {
        permit: kept.permit,
        study_id: &permit.study_id,
        query: &made.query,
        query_digest: kept.query,
        report: &made.report,
        text,
        batches: &made.batches,
        releases: &releases,
    };
    let Some(key) = signing_key(keys, &current) else { return Ok(()) };
    if let Some(statement) = ended.stated(key).map_err(unavailable)? {
        store.publish(&statement).await.map_err(unavailable)?;
    }
    Ok(())
}
