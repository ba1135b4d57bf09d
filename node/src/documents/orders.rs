//! Regulators' orders: the newest list of each regulator whose key the configuration pins.
//!
//! They come from the coordinator, or from the operator's hand when the coordinator withholds them. A list is in force
//! until a newer one comes; each entry lapses by itself. Orders that cannot be read back suspend everything.

use sekisho_protocol::{
    dsse::{Document, Envelope, Verified},
    orders::{Orders, Regulator},
    refusal::{Code, Refusal},
};

use super::{Documents, Pinned, pin, pinned, unavailable};

/// The line of a regulator's orders: with another key they count anew.
pub(super) fn line(regulator: &Regulator) -> String {
    format!("{}@{}", regulator.name, regulator.key.fingerprint())
}

impl Documents {
    /// Takes a regulator's orders if they are newer than those that were seen; the same again is fine.
    ///
    /// # Errors
    /// `not_authorised` when the configuration pins no such regulator; when its key did not sign them, or they are older
    /// than those that were seen.
    pub async fn offer_orders(&self, bytes: &[u8]) -> Result<Verified<Orders>, Refusal> {
        let envelope = Envelope::from_json::<Orders>(bytes)?;
        let (claimed, _) = envelope.peek::<Orders>()?;
        let Some(regulator) = self.anchors.regulators.iter().find(|r| r.name == claimed.regulator) else {
            let detail = format!("no regulator {} is pinned in trust.regulators", claimed.regulator);
            return Err(Refusal::new(Code::NotAuthorised, detail));
        };
        let offered: Verified<Orders> = envelope.verify(&[regulator.key], 1)?;
        let mut tx = self.store.write().await.map_err(unavailable)?;
        pin(&mut tx, &line(regulator), &offered, &envelope).await?;
        tx.commit().await.map_err(unavailable)?;
        Ok(offered)
    }

    /// The newest orders of each pinned regulator.
    ///
    /// # Errors
    /// `unavailable` when the database fails or a list cannot be read back.
    pub async fn orders(&self) -> Result<Vec<Verified<Orders>>, Refusal> {
        let mut orders = Vec::new();
        if self.anchors.regulators.is_empty() {
            return Ok(orders);
        }
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        for regulator in &self.anchors.regulators {
            let found = pinned(&mut connection, Orders::KIND, &line(regulator)).await.map_err(unavailable)?;
            let Some((_, _, bytes)) = found else { continue };
            let verified = Envelope::from_json::<Orders>(&bytes).and_then(|e| e.verify(&[regulator.key], 1));
            orders.push(verified.map_err(|error| {
                tracing::error!(%error, regulator = regulator.name, "pinned orders cannot be read back");
                Refusal::new(Code::Unavailable, format!("the pinned {} cannot be read back", Orders::NAME))
            })?);
        }
        Ok(orders)
    }
}
