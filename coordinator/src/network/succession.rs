//! A hospital lost its log and goes on with another one: that is taken only with the hospital's signed word on what was lost.
//!
//! Promises: the lost log's newest checkpoint stays; the write-off is in the coordinator's log, with the first checkpoint of
//! the log that goes on, before an answer with a checkpoint of that is used; a write-off that names less than what was seen
//! here changes nothing.
//!
//! Deliberately absent: any opinion on the amounts that a hospital writes off. They are there for the regulator to read.

use sekisho_protocol::{
    control::Succession,
    dsse::Envelope,
    log::{
        checkpoint::SignedCheckpoint,
        note::{NoteKey, Signs},
    },
    record::WriteOff,
};

use super::{Nodes, keys_of};
use crate::store::StoreError;

impl Nodes {
    /// Takes what the hospital `name` says of a lost log, if it is signed and names the newest checkpoint that was seen.
    pub(super) async fn succeed(&self, name: &str, succession: &Succession) -> Result<(), StoreError> {
        let newest = self.store.newest_checkpoint(name).await?;
        match self.checked(name, newest.as_ref(), succession) {
            Ok((lost, envelope, checkpoint)) => {
                if self.store.succeed(name, lost, &envelope.to_json(), &checkpoint).await? {
                    tracing::warn!(hospital = name, log = %checkpoint.claimed().origin(), "a hospital wrote off a lost log");
                }
            }
            Err(why) => tracing::error!(hospital = name, why, "a write-off of a lost log is not taken"),
        }
        Ok(())
    }

    fn checked<'a>(
        &self,
        name: &str,
        newest: Option<&'a SignedCheckpoint>,
        succession: &Succession,
    ) -> Result<(&'a SignedCheckpoint, Envelope, SignedCheckpoint), String> {
        let current = self.documents.current();
        let member = current.pinned_roster().and_then(|roster| roster.member(name)).ok_or("it is not on the roster")?;
        let keys = keys_of(member, &current);
        let envelope = Envelope::from_json::<WriteOff>(succession.write_off.as_bytes()).map_err(|e| e.to_string())?;
        let written = envelope.verify::<WriteOff>(&keys, 1).map_err(|e| e.to_string())?;
        if written.node != name {
            return Err("it is another hospital's".into());
        }
        let (lost, log) = written.lost()?;
        let newest = newest.ok_or("nothing was seen of its log")?;
        if newest.claimed() != lost.claimed() {
            let (seen, named) = (newest.claimed(), lost.claimed());
            return Err(format!(
                "it names {} entries of {}, and {} of {} were seen",
                named.head().size(),
                named.origin(),
                seen.head().size(),
                seen.origin()
            ));
        }
        let checkpoint = SignedCheckpoint::parse(succession.checkpoint.as_bytes()).map_err(|e| e.to_string())?;
        let signed = |key| checkpoint.verify(&NoteKey::new(log.clone(), Signs::Text, key));
        let verified = keys.into_iter().find_map(|key| signed(key).ok());
        let verified = verified.ok_or("the hospital did not sign the checkpoint of the log that goes on")?;
        if verified.head().size() <= written.kept {
            return Err("the log that goes on does not have the write-off".into());
        }
        Ok((newest, envelope, checkpoint))
    }
}
