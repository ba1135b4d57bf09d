//! What the coordinator keeps beside documents about whose signatures count: pins by hand, and the committee that each
//! permit was taken under.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, governance::GovernancePin, keys::PublicKey};
use sqlx::Row;

use super::{Store, StoreError, instant, number, read_digest, read_instant};

impl Store {
    /// The pins by hand, the one in force last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn governance_pins(&self) -> Result<Vec<GovernancePin>, StoreError> {
        let sql = "SELECT epoch, key, reason, at FROM governance_pin ORDER BY epoch";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let pin = |row: &sqlx::sqlite::SqliteRow| {
            let key: &str = row.try_get("key")?;
            Ok(GovernancePin {
                epoch: row.try_get::<i64, _>("epoch")?.unsigned_abs(),
                key: key.parse().map_err(|_| StoreError::Corrupt("pinned key"))?,
                reason: row.try_get("reason")?,
                at: read_instant(row.try_get("at")?)?,
            })
        };
        rows.iter().map(pin).collect()
    }

    /// Pins a governance key; its number.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn pin_governance(&self, key: PublicKey, reason: &str, at: DateTime<Utc>) -> Result<u64, StoreError> {
        let epoch = self.governance_pins().await?.last().map_or(0, |pin| pin.epoch) + 1;
        sqlx::query("INSERT INTO governance_pin (epoch, key, reason, at) VALUES (?1, ?2, ?3, ?4)")
            .bind(number(epoch)?)
            .bind(key.to_string())
            .bind(reason)
            .bind(instant(at))
            .execute(&self.pool)
            .await?;
        Ok(epoch)
    }

    /// Notes the committee that a permit was taken under.
    pub(crate) async fn note_committee(&self, permit: Digest, committee: Digest) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO permit_committee (permit, committee) VALUES (?1, ?2)
            ON CONFLICT (permit) DO UPDATE SET committee = excluded.committee",
        )
        .bind(permit.as_bytes().as_slice())
        .bind(committee.as_bytes().as_slice())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The committee that each permit was taken under.
    pub(crate) async fn committees_of_permits(&self) -> Result<BTreeMap<Digest, Digest>, StoreError> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT permit, committee FROM permit_committee").fetch_all(&self.pool).await?;
        rows.iter().map(|(permit, committee)| Ok((read_digest(permit)?, read_digest(committee)?))).collect()
    }

    /// The receipts of what hospitals released under a permit, by hospital.
    pub(crate) async fn receipts(&self, permit: Digest) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let sql = "SELECT node, receipt FROM release JOIN round USING (round) WHERE permit = ?1";
        Ok(sqlx::query_as(sql).bind(permit.as_bytes().as_slice()).fetch_all(&self.pool).await?)
    }
}
