//! The log goes on under another name after it was lost and written off.
//!
//! Promises: the node answers only once the coordinator has taken the write-off; until then it hands it over whenever it
//! connects. What the coordinator saw of the lost log is kept, so that a write-off names it.

use sekisho_protocol::{
    control::Succession,
    dsse::Envelope,
    log::{
        checkpoint::{SignedCheckpoint, successor, whose},
        note::{KeyName, NoteKey, Signs},
        store,
    },
    record::WriteOff,
    refusal::Refusal,
};

use super::{Log, standing::unreadable};
use crate::{answer::Answering, store::StoreError};

impl Log {
    /// The name of the newest log that a write-off began; none of the first one.
    pub(super) async fn succeeded(&self) -> Result<Option<KeyName>, StoreError> {
        let newest: Option<String> =
            sqlx::query_scalar("SELECT origin FROM log_succession ORDER BY generation DESC LIMIT 1")
                .fetch_optional(self.store.read())
                .await?;
        newest.map(|origin| origin.parse().map_err(|_| StoreError::Corrupt("log's name"))).transpose()
    }

    /// The newest write-off.
    async fn write_off(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT envelope FROM log_succession ORDER BY generation DESC LIMIT 1";
        Ok(sqlx::query_scalar(sql).fetch_optional(self.store.read()).await?)
    }

    /// Why this log does not continue what the network saw of it, and that; none when it does, or nothing is known of that.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn loss(&self, origin: &KeyName) -> Result<Option<(SignedCheckpoint, String)>, StoreError> {
        let Some(member) = whose(origin).map(|whose| whose.member) else { return Ok(None) };
        let newest = store::newest_of(&mut *self.store.read().acquire().await?, member).await?;
        let Some(newest) = newest else { return Ok(None) };
        // Written off already: this log came after it.
        if successor(newest.claimed().origin()).is_ok_and(|next| next == *origin) {
            return Ok(None);
        }
        let lost = self.lost(origin, newest.claimed()).await?;
        Ok(lost.map(|why| (newest, why)))
    }

    /// Keeps what the network saw of this log, which `key` signed.
    pub(super) async fn saw(&self, newest: &SignedCheckpoint, key: &NoteKey) -> Result<(), StoreError> {
        if newest.verify(key).is_err() {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let before = store::newest(&mut tx, newest.claimed().origin()).await?;
        if before.is_none_or(|before| before.claimed().head().size() < newest.claimed().head().size()) {
            store::keep(&mut tx, newest).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

impl Answering {
    /// The write-off of the log `lost`, when this one came after it, with a checkpoint of this one.
    pub(super) async fn succession(&self, lost: &KeyName) -> Result<Option<Succession>, Refusal> {
        let log = self.ledger.log();
        let Some(envelope) = log.write_off().await.map_err(|error| unreadable(&error))? else { return Ok(None) };
        let written = Envelope::from_json::<WriteOff>(&envelope).and_then(|envelope| envelope.peek::<WriteOff>());
        let of_lost =
            written.is_ok_and(|(written, _)| written.lost().is_ok_and(|(of, _)| of.claimed().origin() == lost));
        if !of_lost {
            return Ok(None);
        }
        let checkpoint = self.checkpoint(0).await?.checkpoint.to_string();
        let write_off = String::from_utf8(envelope).map_err(|_| unreadable(&StoreError::Corrupt("write-off")))?;
        Ok(Some(Succession { write_off, checkpoint }))
    }

    /// The key of this node's log under the name `origin`.
    pub(super) fn note_key(&self, origin: &KeyName) -> NoteKey {
        NoteKey::new(origin.clone(), Signs::Text, self.signing.public())
    }
}
