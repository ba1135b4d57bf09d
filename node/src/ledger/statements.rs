//! The statements that several operations of the ledger share; each runs inside its caller's transaction.

use chrono::{DateTime, Utc};
use sekisho_protocol::digest::Digest;
use sqlx::{Row, SqliteConnection};

use super::{ChargeRequest, LedgerError, MicroRho, Run, RunKey, RunState, StoredRelease, replays::read_rule};
use crate::store::{StoreError, amount, instant, read_amount, read_instant};

/// The run, with its release when there is one.
pub(super) async fn find(connection: &mut SqliteConnection, key: &RunKey) -> Result<Option<Run>, LedgerError> {
    let row = sqlx::query(
        "SELECT c.charge_id, c.register_seq, c.as_of, c.snapshot, c.charged_at, c.micro_rho, r.header, r.cells, r.receipt, r.salts,
            a.own_rule, EXISTS (SELECT 1 FROM lost_run l WHERE l.charge_id = c.charge_id) AS lost
        FROM charge c LEFT JOIN release r ON r.charge_id = c.charge_id LEFT JOIN asked a ON a.charge_id = c.charge_id
        WHERE c.permit = ?1 AND c.query_key = ?2 AND c.run = ?3",
    )
    .bind(key.permit.as_bytes().as_slice())
    .bind(key.query_key.as_bytes().as_slice())
    .bind(key.run)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state = match row.try_get::<Option<Vec<u8>>, _>("header")? {
        None if row.try_get("lost")? => RunState::Lost,
        None => RunState::Reserved,
        Some(header) => RunState::Released(StoredRelease {
            header,
            cells: row.try_get("cells")?,
            receipt: row.try_get("receipt")?,
            salts: row.try_get("salts")?,
        }),
    };
    let as_of: &str = row.try_get("as_of")?;
    Ok(Some(Run {
        charge_id: row.try_get("charge_id")?,
        state,
        register_seq: row.try_get("register_seq")?,
        as_of: as_of.parse().map_err(|_| StoreError::Corrupt("day"))?,
        own_rule: row.try_get::<Option<&str>, _>("own_rule")?.map(read_rule).transpose()?,
        snapshot: row.try_get("snapshot")?,
        charged_at: read_instant(row.try_get("charged_at")?)?,
        micro_rho: read_amount(row.try_get("micro_rho")?)?,
    }))
}

/// What is set aside for the study, if anything.
pub(super) async fn earmark_of(
    connection: &mut SqliteConnection,
    study_id: &str,
) -> Result<Option<MicroRho>, LedgerError> {
    let stored: Option<i64> = sqlx::query_scalar("SELECT earmark FROM study WHERE study_id = ?1")
        .bind(study_id)
        .fetch_optional(connection)
        .await?;
    Ok(stored.map(read_amount).transpose()?)
}

/// That no other message used the nonce, and that the message `by` now has until it is stale; nonces of stale messages are dropped.
pub(super) async fn use_nonce(
    tx: &mut SqliteConnection,
    nonce: &str,
    by: Digest,
    expires: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), LedgerError> {
    sqlx::query("DELETE FROM nonce WHERE expires <= ?1").bind(instant(now)).execute(&mut *tx).await?;
    let used: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT query FROM nonce WHERE nonce = ?1").bind(nonce).fetch_optional(&mut *tx).await?;
    match used {
        Some(query) if query == by.as_bytes() => Ok(()),
        Some(_) => Err(LedgerError::ReplayedNonce),
        None => {
            sqlx::query("INSERT INTO nonce (nonce, query, expires) VALUES (?1, ?2, ?3)")
                .bind(nonce)
                .bind(by.as_bytes().as_slice())
                .bind(instant(expires))
                .execute(&mut *tx)
                .await?;
            Ok(())
        }
    }
}

/// Writes the charge down and numbers it.
pub(super) async fn insert_charge(tx: &mut SqliteConnection, request: &ChargeRequest) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO charge (charge_id, permit, query_key, run, study_id, query, micro_rho, atto_delta,
            register_seq, as_of, snapshot, charged_at)
        VALUES ((SELECT coalesce(max(charge_id), 0) + 1 FROM charge), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )
    .bind(request.key.permit.as_bytes().as_slice())
    .bind(request.key.query_key.as_bytes().as_slice())
    .bind(request.key.run)
    .bind(&request.study_id)
    .bind(request.query.as_bytes().as_slice())
    .bind(amount(request.cost.micro_rho))
    // At most 10^15.
    .bind(request.cost.atto_delta.get().cast_signed())
    .bind(request.register_seq)
    .bind(request.as_of.to_string())
    .bind(&request.snapshot)
    .bind(instant(request.at))
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// That the charge exists and has no release yet.
pub(super) async fn open_charge(tx: &mut SqliteConnection, charge_id: i64) -> Result<(), LedgerError> {
    let released: Option<bool> = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM release r WHERE r.charge_id = c.charge_id) FROM charge c WHERE c.charge_id = ?1",
    )
    .bind(charge_id)
    .fetch_optional(&mut *tx)
    .await?;
    match released {
        None => Err(LedgerError::UnknownCharge),
        Some(true) => Err(LedgerError::AlreadyReleased),
        Some(false) => Ok(()),
    }
}
