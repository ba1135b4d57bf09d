//! What is kept of results for those who check them later: the coordinator's signed account of each, hospitals' proofs of
//! their receipts, and the proofs of the coordinator's own log.
//!
//! Promises: an account is entered in the log in the transaction that keeps it, once for each result.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    log::{
        checkpoint::SignedCheckpoint,
        entry::{Kind as Entry, Opening},
        proof::InclusionProof,
        store,
    },
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Store, StoreError, instant, log, read_digest, read_instant};

/// A coordinator's account of a result, as it is kept.
#[derive(Clone, Debug)]
pub struct KeptStatement {
    /// The result.
    pub result: Digest,
    /// The permit, by digest.
    pub permit: Digest,
    /// The round that brought it first.
    pub round: String,
    /// The envelope of the `release/1`.
    pub envelope: Vec<u8>,
    /// When the round ended.
    pub at: DateTime<Utc>,
}

const STATEMENT: &str = "SELECT result, permit, round, envelope, at FROM published";

/// Keeps and enters `statement`, unless its result has one.
pub(super) async fn publish(tx: &mut SqliteConnection, statement: &KeptStatement) -> Result<(), StoreError> {
    let insert = "INSERT OR IGNORE INTO published (result, permit, round, envelope, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let kept = sqlx::query(insert)
        .bind(statement.result.as_bytes().as_slice())
        .bind(statement.permit.as_bytes().as_slice())
        .bind(&statement.round)
        .bind(&statement.envelope)
        .bind(instant(statement.at))
        .execute(&mut *tx)
        .await?;
    if kept.rows_affected() > 0 {
        log::enter(tx, Entry::Release, &statement.envelope).await?;
    }
    Ok(())
}

/// Keeps the proof that came with a release.
pub(super) async fn keep_proof(
    tx: &mut SqliteConnection,
    round: &str,
    node: &str,
    proof: &[u8],
) -> Result<(), StoreError> {
    let insert = "INSERT INTO receipt_proof (round, node, proof) VALUES (?1, ?2, ?3)";
    sqlx::query(insert).bind(round).bind(node).bind(proof).execute(tx).await?;
    Ok(())
}

impl Store {
    /// Keeps and enters the account of a result of an earlier round, unless it has one.
    pub(crate) async fn publish(&self, statement: &KeptStatement) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        publish(&mut tx, statement).await?;
        Ok(tx.commit().await?)
    }

    /// The account of this result.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn published(&self, result: Digest) -> Result<Option<KeptStatement>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{STATEMENT} WHERE result = ?1"));
        let row = sqlx::query(sql).bind(result.as_bytes().as_slice()).fetch_optional(&self.pool).await?;
        row.as_ref().map(statement_of).transpose()
    }

    /// The accounts of results, of one permit or of all, the latest first; `most` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all_published(&self, permit: Option<Digest>, most: u32) -> Result<Vec<KeptStatement>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "{STATEMENT} WHERE ?1 IS NULL OR permit = ?1 ORDER BY at DESC, result LIMIT ?2"
        ));
        let permit = permit.map(|permit| permit.as_bytes().to_vec());
        let rows = sqlx::query(sql).bind(permit).bind(most).fetch_all(&self.pool).await?;
        rows.iter().map(statement_of).collect()
    }

    /// The rounds that ended with releases and have no account of their own, the earliest first.
    pub(crate) async fn rounds_without_statement(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT round FROM round r WHERE state = 'done'
            AND EXISTS (SELECT 1 FROM release WHERE release.round = r.round)
            AND NOT EXISTS (SELECT 1 FROM published p WHERE p.round = r.round) ORDER BY started_at";
        Ok(sqlx::query_scalar(sql).fetch_all(&self.pool).await?)
    }

    /// The signed receipts of a round, by hospital.
    pub(crate) async fn receipts_of_round(&self, round: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sql = "SELECT node, receipt FROM release WHERE round = ?1 ORDER BY node";
        Ok(sqlx::query_as(sql).bind(round).fetch_all(&self.pool).await?)
    }

    /// The proof that this receipt is in its hospital's log, from whichever round brought one last.
    pub(crate) async fn receipt_proof(&self, node: &str, receipt: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT p.proof FROM receipt_proof p JOIN release r ON r.round = p.round AND r.node = p.node
            JOIN round o ON o.round = p.round WHERE p.node = ?1 AND r.receipt = ?2 ORDER BY o.started_at DESC LIMIT 1";
        Ok(sqlx::query_scalar(sql).bind(node).bind(receipt).fetch_optional(&self.pool).await?)
    }

    /// The earliest statement of a kind in the log that is `wanted`.
    pub(crate) async fn find_statement(
        &self,
        kind: Entry,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT s.envelope FROM log_leaf l JOIN log_statement s ON s.idx = l.idx
            WHERE l.kind = ?1 ORDER BY l.idx";
        let all: Vec<Vec<u8>> = sqlx::query_scalar(sql).bind(kind.as_str()).fetch_all(&self.pool).await?;
        Ok(all.into_iter().find(|statement| wanted(statement)))
    }

    /// The proof that a statement is under `checkpoint` of the coordinator's own log; none when it is not, or not yet.
    pub(crate) async fn proof(
        &self,
        kind: Entry,
        statement: &[u8],
        checkpoint: &SignedCheckpoint,
    ) -> Result<Option<InclusionProof>, StoreError> {
        let (mut tx, size) = (self.pool.begin().await?, checkpoint.claimed().head().size());
        let Some(index) = store::find(&mut tx, kind, statement).await?.filter(|index| *index < size) else {
            return Ok(None);
        };
        let opened = store::leaves(&mut tx, index, 1).await?.pop().and_then(|leaf| leaf.opened);
        let Some(opened) = opened else { return Ok(None) };
        let hashes = store::inclusion(&mut tx, index, size).await?;
        Ok(Some(InclusionProof::new(index, hashes, &Opening { kind, salt: opened.salt }, checkpoint.clone())))
    }
}

fn statement_of(row: &SqliteRow) -> Result<KeptStatement, StoreError> {
    Ok(KeptStatement {
        result: read_digest(row.try_get("result")?)?,
        permit: read_digest(row.try_get("permit")?)?,
        round: row.try_get("round")?,
        envelope: row.try_get("envelope")?,
        at: read_instant(row.try_get("at")?)?,
    })
}
