//! Since when hospitals release exact results, by the receipts that came from them.
//!
//! Promises: the day is the earliest that any receipt of the hospital named, of whatever study; it is kept in the transaction
//! that keeps the receipt, and is never taken back.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use sekisho_protocol::{dsse::Envelope, receipt::Receipt};
use sqlx::SqliteConnection;

use super::{Store, StoreError};

/// Keeps what a receipt says of its hospital. Whoever stores it has verified it.
pub(super) async fn note(tx: &mut SqliteConnection, node: &str, receipt: &[u8]) -> Result<(), StoreError> {
    let receipt = Envelope::from_json::<Receipt>(receipt).and_then(|envelope| envelope.peek::<Receipt>());
    let Some(day) = receipt.ok().and_then(|(receipt, _)| receipt.exact_since) else { return Ok(()) };
    sqlx::query(
        "INSERT INTO exact_since (node, day) VALUES (?1, ?2)
        ON CONFLICT (node) DO UPDATE SET day = min(day, excluded.day)",
    )
    .bind(node)
    .bind(day.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// The hospitals for whose patients no guarantee of differential privacy holds, and since when.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn exact_since(&self) -> Result<BTreeMap<String, NaiveDate>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT node, day FROM exact_since").fetch_all(&self.pool).await?;
        let day = |day: String| day.parse().map_err(|_| StoreError::Corrupt("exact_since"));
        rows.into_iter().map(|(node, since)| Ok((node, day(since)?))).collect()
    }
}
