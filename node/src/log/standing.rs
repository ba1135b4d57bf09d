//! What the coordinator has seen of the hospital's log, against what is here.
//!
//! Promises: a checkpoint that leaves is signed over what is durable; a node that is told of a checkpoint of its own that its
//! log does not continue (its database was rolled back to an older copy, or lost) answers no query and no permit until it runs on
//! a database that does. Which of the two is right the node cannot know, so it takes the coordinator's word: that costs answers,
//! which the coordinator can withhold anyway.
//!
//! With the older copy it goes on only after an operator wrote the lost log off ([`super::succession`]).

use std::sync::{Mutex, PoisonError};

use sekisho_protocol::{
    control::Succession,
    digest::Digest,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        note::KeyName,
        proof::ConsistencyProof,
        store::{self, LogError},
    },
    refusal::{Code, Refusal},
};

use super::Log;
use crate::{answer::Answering, store::StoreError};

/// The most bytes of a checkpoint that the coordinator tells of.
const MAX_TOLD: usize = 8 << 10;

/// Whether the node may answer, as far as its log is concerned.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Option<String>>);

impl Standing {
    /// That nobody has seen more of the log, or another one.
    ///
    /// # Errors
    /// `ledger_rolled_back`.
    pub fn check(&self) -> Result<(), Refusal> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => Err(Refusal::new(Code::LedgerRolledBack, why.as_str())),
        }
    }

    fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl Log {
    /// The log's name, which it gets the first time: `wanted`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn origin(&self, wanted: &KeyName) -> Result<KeyName, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        let first = store::origin(&mut connection).await?;
        drop(connection);
        if let Some(first) = first {
            return Ok(self.succeeded().await?.unwrap_or(first));
        }
        let mut tx = self.store.write().await?;
        let origin = store::name(&mut tx, wanted).await?;
        tx.commit().await?;
        Ok(origin)
    }

    /// The log as it is now, signed with `key`, with the proof that it continues what it was at `seen` entries.
    ///
    /// # Errors
    /// [`StoreError::Log`] when it is shorter than `seen`.
    pub async fn checkpoint(
        &self,
        origin: &KeyName,
        key: &SecretKey,
        seen: u64,
    ) -> Result<ConsistencyProof, StoreError> {
        let mut tx = self.store.read().begin().await?;
        let checkpoint = store::checkpoint(&mut tx, origin.clone(), key).await?;
        let hashes = store::consistency(&mut tx, seen, checkpoint.claimed().head().size()).await?;
        Ok(ConsistencyProof { old: seen, hashes, checkpoint })
    }

    /// The proof that the log of `new` entries continues the one of `old`.
    ///
    /// # Errors
    /// [`StoreError::Log`] when it is shorter than `new`, or `new` less than `old`.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, StoreError> {
        let mut tx = self.store.read().begin().await?;
        Ok(store::consistency(&mut tx, old, new).await?)
    }

    /// Why this log does not continue `newest`, if it does not.
    pub(super) async fn lost(&self, origin: &KeyName, newest: &Checkpoint) -> Result<Option<String>, StoreError> {
        if newest.origin() != origin {
            return Ok(Some(format!(
                "the network saw a log {} of this hospital, and this one is {origin}",
                newest.origin()
            )));
        }
        let mut tx = self.store.read().begin().await?;
        let (seen, here) = (newest.head(), store::head(&mut tx).await?.size());
        match store::head_at(&mut tx, seen.size()).await {
            Ok(head) if head == *seen => Ok(None),
            Ok(_) => {
                Ok(Some(format!("the first {} entries of its log are not those that the network saw", seen.size())))
            }
            Err(LogError::Proof(_)) => {
                Ok(Some(format!("its log has {here} entries, and the network saw {}", seen.size())))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Answering {
    /// The name of this node's log.
    pub(crate) async fn origin(&self) -> Result<KeyName, StoreError> {
        let wanted = self.documents.log_origin(&self.trust.name).map_err(|_| StoreError::Corrupt("node's name"))?;
        self.ledger.log().origin(&wanted).await
    }

    /// Goes by what the coordinator says that it saw last of this node's log; what the coordinator must take before this node
    /// answers, if the lost log was written off.
    ///
    /// # Errors
    /// When it is no checkpoint, or the database fails; then the standing is as it was.
    pub async fn told(&self, newest: Option<&str>) -> Result<Option<Succession>, Refusal> {
        let Some(newest) = newest else {
            self.standing.set(None);
            return Ok(None);
        };
        let malformed = |detail: &str| Refusal::new(Code::Malformed, detail);
        if newest.len() > MAX_TOLD {
            return Err(malformed("the coordinator's checkpoint of this node is too large"));
        }
        let newest = SignedCheckpoint::parse(newest.as_bytes());
        let newest = newest.map_err(|_| malformed("what the coordinator saw of this node's log is no checkpoint"))?;
        let origin = self.origin().await.map_err(|error| unreadable(&error))?;
        let told = newest.claimed().origin();
        if *told != origin
            && let Some(succession) = self.succession(told).await?
        {
            self.standing.set(Some("the coordinator has not taken the write-off of the lost log yet".into()));
            return Ok(Some(succession));
        }
        let saw = self.ledger.log().saw(&newest, &self.note_key(told)).await;
        saw.map_err(|error| unreadable(&error))?;
        let lost = self.ledger.log().lost(&origin, newest.claimed()).await.map_err(|error| unreadable(&error))?;
        if let Some(why) = &lost {
            tracing::error!(
                why,
                "this node runs on an older copy of its database, or on another one: it answers nothing until the newest one \
                 is back, or what is lost was written off (docs/node.md, ledger_rolled_back)"
            );
        }
        self.standing.set(lost);
        Ok(None)
    }

    /// This node's checkpoint for whoever saw `seen` entries of its log.
    ///
    /// # Errors
    /// `ledger_rolled_back` when there are fewer.
    pub async fn checkpoint(&self, seen: u64) -> Result<ConsistencyProof, Refusal> {
        let signed = async {
            let origin = self.origin().await?;
            self.ledger.log().checkpoint(&origin, &self.signing, seen).await
        };
        signed.await.map_err(|error| refusal(&error))
    }

    /// That the log has `seen` entries at least.
    ///
    /// # Errors
    /// `ledger_rolled_back`.
    pub async fn has_seen(&self, seen: u64) -> Result<(), Refusal> {
        let here = self.ledger.log().len().await.map_err(|error| refusal(&error))?;
        if seen > here {
            let detail = format!("its log has {here} entries, and the network saw {seen}");
            return Err(Refusal::new(Code::LedgerRolledBack, detail));
        }
        Ok(())
    }
}

/// What the coordinator hears when a proof cannot be made.
pub(crate) fn refusal(error: &StoreError) -> Refusal {
    if let StoreError::Log(LogError::Proof(why)) = error {
        return Refusal::new(Code::LedgerRolledBack, why.to_string());
    }
    unreadable(error)
}

pub(super) fn unreadable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the node's log cannot be read");
    Refusal::new(Code::Unavailable, "the hospital's log cannot be read")
}
