//! The governance key that an operator pinned by hand, after a theft: offline, with a reason, and for ever on record.
//!
//! A pin begins a new line of rotations, rosters and statuses: what the thief signed stays behind it, whatever numbers it
//! has. Committees, orders and permits are not touched, and neither is any budget.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    governance::GovernancePin,
    keys::PublicKey,
    refusal::{Code, Refusal},
};
use sqlx::SqliteConnection;

use super::{Documents, unavailable};
use crate::store::{StoreError, instant, read_instant};

impl Documents {
    /// The pins that operators set, the newest in force last.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn governance_pins(&self) -> Result<Vec<GovernancePin>, Refusal> {
        let rows: Vec<Row> = sqlx::query_as("SELECT epoch, key, reason, at FROM governance_pin ORDER BY epoch")
            .fetch_all(self.store.read())
            .await
            .map_err(unavailable)?;
        rows.into_iter().map(read).collect::<Result<_, _>>().map_err(unavailable)
    }

    /// Pins `key` as the governance key: roster and status are unknown until it signed some.
    ///
    /// # Errors
    /// `older_document` when the key counts already; `unavailable` when the database fails.
    pub async fn pin_governance(&self, key: PublicKey, reason: &str, at: DateTime<Utc>) -> Result<u64, Refusal> {
        if reason.trim().is_empty() {
            return Err(Refusal::new(Code::Malformed, "a pin needs a reason"));
        }
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let (epoch, chain) = self.chain_of_keys(&mut tx).await?;
        if chain.key() == key {
            return Err(Refusal::new(Code::OlderDocument, "this key counts already; nothing was changed"));
        }
        let epoch = epoch + 1;
        sqlx::query("INSERT INTO governance_pin (epoch, key, reason, at) VALUES (?1, ?2, ?3, ?4)")
            .bind(super::number(epoch)?)
            .bind(key.to_string())
            .bind(reason)
            .bind(instant(at))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        Ok(epoch)
    }
}

type Row = (i64, String, String, String);

fn read((epoch, key, reason, at): Row) -> Result<GovernancePin, StoreError> {
    let key = key.parse().map_err(|_| StoreError::Corrupt("pinned key"))?;
    Ok(GovernancePin { epoch: epoch.unsigned_abs(), key, reason, at: read_instant(&at)? })
}

/// The pin in force.
pub(super) async fn newest(connection: &mut SqliteConnection) -> Result<Option<GovernancePin>, StoreError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT epoch, key, reason, at FROM governance_pin ORDER BY epoch DESC LIMIT 1")
            .fetch_optional(connection)
            .await?;
    row.map(read).transpose()
}
