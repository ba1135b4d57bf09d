//! What a lost database charged is charged again, as far as the hospital's own receipts tell it and its operator says it.
//!
//! Promises: everything is in one durable transaction: the signed write-off and its entry, the new name of the log, the
//! receipts and their charges; nothing that was spent becomes less; a run that was released before is never run again, since
//! its release left and another one would tell more than was charged; a receipt that is here already is charged once.
//!
//! Deliberately absent: any guess at what nobody has a receipt of.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::DsseError,
    log::{
        checkpoint::{SignedCheckpoint, successor, whose},
        entry::Kind,
        note::{KeyName, NoteError},
        store as log_store,
    },
    receipt::Receipt,
    record::{WriteOff, WrittenOff},
    units::{AttoDelta, MicroRho},
};
use sqlx::SqliteConnection;

use super::{Cost, Ledger, LedgerError, RunKey, RunState, exact, statements::find};
use crate::{
    log::{append, append_once},
    store::{StoreError, amount, instant},
};

/// Why nothing was written off.
#[derive(Debug, thiserror::Error)]
pub enum WriteOffError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The statement cannot be signed.
    #[error("the write-off: {0}")]
    Sign(#[from] DsseError),
    /// The log cannot be named.
    #[error("the name of the next log: {0}")]
    Name(#[from] NoteError),
}

impl From<StoreError> for WriteOffError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<sqlx::Error> for WriteOffError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(error.into())
    }
}

/// A receipt that came back; the caller has verified it.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What it tells.
    pub receipt: Receipt,
    /// Its envelope.
    pub envelope: Vec<u8>,
}

/// What is written off, and by whom.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// The hospital, by roster name.
    pub node: &'a str,
    /// The newest checkpoint of the lost log that the network has.
    pub lost: &'a SignedCheckpoint,
    /// The hospital's own receipts.
    pub receipts: &'a [Recovered],
    /// What studies are charged for what nobody has a receipt of, in micro-rho.
    pub further: &'a BTreeMap<String, MicroRho>,
    /// Who says so.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When.
    pub at: DateTime<Utc>,
}

/// One charge that is made again.
struct Recharged<'a> {
    key: RunKey,
    study_id: &'a str,
    query: Digest,
    cost: Cost,
    as_of: chrono::NaiveDate,
    at: DateTime<Utc>,
}

impl Ledger {
    /// Charges what a lost log charged and gives this log its next name. `sign` makes the envelope of the statement.
    ///
    /// # Errors
    /// When the database fails or the statement cannot be signed; then nothing was changed.
    pub async fn write_off(
        &self,
        loss: &Loss<'_>,
        sign: impl FnOnce(&WriteOff) -> Result<Vec<u8>, DsseError> + Send,
    ) -> Result<WriteOff, WriteOffError> {
        let log = successor(loss.lost.claimed().origin())?;
        let mut tx = self.store.write().await?;
        let kept = log_store::head(&mut tx).await.map_err(StoreError::from)?.size();
        let mut lost = Vec::new();
        let mut told = HashSet::new();
        for recovered in loss.receipts.iter().filter(|recovered| told.insert(key_of(&recovered.receipt))) {
            let found = find(&mut tx, &key_of(&recovered.receipt)).await?;
            match found.as_ref().map(|run| (&run.state, run.charge_id)) {
                Some((RunState::Released(_) | RunState::Lost, _)) => {}
                // Charged here, and released later in the lost log.
                Some((RunState::Reserved, charge)) => lost.push((recovered, Some(charge))),
                None => lost.push((recovered, None)),
            }
        }
        let written = WriteOff {
            node: loss.node.into(),
            lost: loss.lost.to_string(),
            log: log.to_string(),
            kept,
            studies: studies(&lost, loss.further),
            register_restored: true,
            by: loss.by.into(),
            reason: loss.reason.into(),
            at: loss.at,
        };
        let envelope = sign(&written)?;
        let entry = append(&mut tx, Kind::WriteOff, &envelope).await?;
        succeed(&mut tx, &log, entry, &envelope).await?;
        for (Recovered { receipt, envelope }, charge) in lost {
            exact::remember(&mut tx, receipt).await?;
            let charge = match charge {
                Some(charge) => charge,
                None => recharge(&mut tx, &of_receipt(receipt)).await?,
            };
            forget(&mut tx, charge).await?;
            append_once(&mut tx, Kind::Receipt, envelope).await?;
        }
        for (study_id, further) in loss.further.iter().filter(|(_, further)| **further > MicroRho::ZERO) {
            // A charge of no run: its key is that of no question.
            let query_key = Digest::of_parts(&[b"sekisho write-off v1", &envelope, study_id.as_bytes()]);
            let (permit, query) = (Digest::of(&envelope), Digest::of(&envelope));
            let cost = Cost { micro_rho: *further, atto_delta: AttoDelta::ZERO };
            let key = RunKey { permit, query_key, run: 1 };
            let charge = Recharged { key, study_id, query, cost, as_of: loss.at.date_naive(), at: loss.at };
            let charge = recharge(&mut tx, &charge).await?;
            forget(&mut tx, charge).await?;
        }
        tx.commit().await?;
        Ok(written)
    }
}

fn key_of(receipt: &Receipt) -> RunKey {
    RunKey { permit: receipt.permit, query_key: receipt.query_key, run: receipt.run }
}

fn of_receipt(receipt: &Receipt) -> Recharged<'_> {
    Recharged {
        key: key_of(receipt),
        study_id: &receipt.study_id,
        query: receipt.query,
        cost: Cost { micro_rho: receipt.micro_rho, atto_delta: receipt.atto_delta },
        as_of: receipt.as_of,
        at: receipt.at,
    }
}

/// What each study is charged now; a receipt of a charge that is here adds nothing to its amounts.
fn studies(lost: &[(&Recovered, Option<i64>)], further: &BTreeMap<String, MicroRho>) -> Vec<WrittenOff> {
    let mut studies: BTreeMap<&str, WrittenOff> = BTreeMap::new();
    let empty = |study_id: &str| WrittenOff {
        study_id: study_id.into(),
        receipts: 0,
        micro_rho: MicroRho::ZERO,
        atto_delta: AttoDelta::ZERO,
        further_micro_rho: MicroRho::ZERO,
    };
    for (Recovered { receipt, .. }, charge) in lost {
        let study = studies.entry(&receipt.study_id).or_insert_with(|| empty(&receipt.study_id));
        study.receipts = study.receipts.saturating_add(1);
        if charge.is_none() {
            study.micro_rho = study.micro_rho.saturating_add(receipt.micro_rho);
            study.atto_delta = study.atto_delta.saturating_add(receipt.atto_delta);
        }
    }
    for (study_id, further) in further.iter().filter(|(_, further)| **further > MicroRho::ZERO) {
        studies.entry(study_id).or_insert_with(|| empty(study_id)).further_micro_rho = *further;
    }
    studies.into_values().collect()
}

/// Notes the name that the log has from now on.
async fn succeed(tx: &mut SqliteConnection, log: &KeyName, entry: u64, envelope: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO log_succession (generation, origin, idx, envelope) VALUES (?1, ?2, ?3, ?4)")
        .bind(whose(log).map_or(0, |whose| whose.generation))
        .bind(log.as_str())
        .bind(entry.cast_signed())
        .bind(envelope)
        .execute(tx)
        .await?;
    Ok(())
}

/// Charges a run of before; what is set aside for its study grows with it where it must. Its number.
async fn recharge(tx: &mut SqliteConnection, charge: &Recharged<'_>) -> Result<i64, LedgerError> {
    let (rho, study) = (amount(charge.cost.micro_rho), charge.study_id);
    let known =
        "INSERT INTO study (study_id, earmark) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM study WHERE study_id = ?1)";
    sqlx::query(known).bind(study).execute(&mut *tx).await?;
    let covered = "UPDATE study SET earmark = max(earmark, spent + ?2) WHERE study_id = ?1";
    sqlx::query(covered).bind(study).bind(rho).execute(&mut *tx).await?;
    let charge_id = sqlx::query_scalar(
        "INSERT INTO charge (charge_id, permit, query_key, run, study_id, query, micro_rho, atto_delta, register_seq,
            as_of, snapshot, charged_at)
        VALUES ((SELECT coalesce(max(charge_id), 0) + 1 FROM charge), ?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, '', ?9)
        RETURNING charge_id",
    )
    .bind(charge.key.permit.as_bytes().as_slice())
    .bind(charge.key.query_key.as_bytes().as_slice())
    .bind(charge.key.run)
    .bind(study)
    .bind(charge.query.as_bytes().as_slice())
    .bind(rho)
    .bind(charge.cost.atto_delta.get().cast_signed())
    .bind(charge.as_of.to_string())
    .bind(instant(charge.at))
    .fetch_one(tx)
    .await?;
    Ok(charge_id)
}

/// Notes that the release of this charge is not here.
async fn forget(tx: &mut SqliteConnection, charge: i64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO lost_run (charge_id) VALUES (?1)").bind(charge).execute(tx).await?;
    Ok(())
}
