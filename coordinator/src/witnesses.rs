//! The coordinator's checkpoints, and the hospitals that witness them.
//!
//! Promises: one checkpoint at a time is offered, on the control stream and with the proof from what the hospital witnessed last;
//! a cosignature is kept only when it verifies with the key of the hospital that sent it; a checkpoint that has enough of them is
//! durable as the newest one, and published ([`crate::tiles`]), before the next is offered; a later one continues it, since the log only grows.
//!
//! Deliberately absent: any belief in who witnessed what before this process began. A hospital says the size that it witnessed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    keys::SecretKey,
    log::{
        checkpoint::{SignedCheckpoint, origin, whose},
        cosignature::cosigned,
        note::{KeyName, NoteKey, NoteSignature, Signs},
        policy::{MAX_NAMED, Policy},
        proof::ConsistencyProof,
    },
    roster::{Member, Role},
};

use crate::{
    documents::{Current, Documents},
    network::keys_of,
    store::{Store, StoreError},
    tiles::{Tiles, TilesError},
};

/// How often it is looked whether there is something to sign.
const EVERY: Duration = Duration::from_secs(2);
/// How many hospitals must witness a checkpoint where no policy says it: all that are on the roster, and at most so many.
const MOST_NEEDED: usize = 2;

/// The checkpoint that hospitals are asked to witness.
pub struct Witnesses {
    store: Store,
    documents: Arc<Documents>,
    signing_keys: Arc<[SecretKey]>,
    tiles: Tiles,
    policy: Option<Policy>,
    offered: Mutex<Option<SignedCheckpoint>>,
    /// Another hospital's checkpoint that a hospital is asked to witness, by the name of that witness.
    handed_on: Mutex<BTreeMap<String, ConsistencyProof>>,
    published: Mutex<Option<SignedCheckpoint>>,
}

impl Witnesses {
    /// Nothing is offered before [`Witnesses::run`]. Without a `policy` two hospitals of the roster are enough, or the only one.
    pub fn new(
        store: Store,
        documents: Arc<Documents>,
        signing_keys: Arc<[SecretKey]>,
        tiles: Tiles,
        policy: Option<Policy>,
    ) -> Self {
        let (offered, handed_on, published) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { store, documents, signing_keys, tiles, policy, offered, handed_on, published }
    }

    /// Signs and offers checkpoints for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        loop {
            if let Err(error) = self.turn().await {
                tracing::error!(%error, "the coordinator's log cannot be signed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Keeps the offered checkpoint when it has enough cosignatures, and offers the next one when the log has grown.
    async fn turn(&self) -> Result<(), TilesError> {
        let current = self.documents.current();
        let offered = self.offered().clone();
        if let Some(offered) = &offered {
            if !self.enough(&current, offered) {
                return Ok(());
            }
            if self.published().as_ref() != Some(offered) {
                self.store.keep_own(offered).await?;
                self.tiles.publish(offered).await?;
                *self.published() = Some(offered.clone());
            }
        }
        Ok(self.renew(&current).await?)
    }

    /// The name of our log and the key that signs it, once the roster has us.
    fn own(&self, current: &Current) -> Option<(KeyName, &SecretKey)> {
        let us = current.pinned_roster()?.members.iter().find(|member| member.role == Role::Coordinator)?;
        let key = self.signing_keys.iter().find(|key| key.public() == us.signing_key)?;
        Some((origin(&self.documents.governance_anchor(), &us.name).ok()?, key))
    }

    /// Whether enough witnessed `offered`.
    fn enough(&self, current: &Current, offered: &SignedCheckpoint) -> bool {
        if let Some(policy) = &self.policy {
            return policy.check(offered).is_ok();
        }
        let nodes = current.pinned_roster().map(|roster| roster.members.iter().filter(|m| m.role == Role::Node));
        let nodes: Vec<_> = nodes.into_iter().flatten().collect();
        let witnessed = nodes.iter().filter(|member| has_cosigned(member, current, offered));
        witnessed.count() >= nodes.len().min(MOST_NEEDED)
    }

    /// What a hospital that witnessed the log at `witnessed` entries is asked to witness now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn offer(&self, member: &Member, witnessed: u64) -> Result<Option<ConsistencyProof>, StoreError> {
        Ok(self.own_offer(member, witnessed).await?.or_else(|| self.handed_on().get(&member.name).cloned()))
    }

    async fn own_offer(&self, member: &Member, witnessed: u64) -> Result<Option<ConsistencyProof>, StoreError> {
        let Some(checkpoint) = self.offered().clone() else { return Ok(None) };
        let size = checkpoint.claimed().head().size();
        if witnessed > size {
            let here = self.store.log_size().await?;
            if witnessed > here {
                tracing::error!(
                    hospital = member.name,
                    witnessed,
                    here,
                    "a hospital witnessed more of the coordinator's log than there is: this is an older copy of its database"
                );
            }
            let current = self.documents.current();
            let nodes = current.pinned_roster().map(|roster| roster.members.iter()).into_iter().flatten();
            let cosigned = nodes.filter(|node| has_cosigned(node, &current, &checkpoint)).count();
            // An older copy that went on: only the log as it is now shows hospitals whether it continues what they witnessed. What
            // somebody cosigned stays: one hospital's word must not keep the others' from counting.
            if witnessed <= here && cosigned == 0 {
                self.renew(&current).await?;
            }
            return Ok(None);
        }
        let current = self.documents.current();
        if has_cosigned(member, &current, &checkpoint) {
            return Ok(None);
        }
        let hashes = self.store.log_consistency(witnessed, size).await?;
        Ok(Some(ConsistencyProof { old: witnessed, hashes, checkpoint }))
    }

    /// Offers the log as it is now, when it is longer than what is offered.
    async fn renew(&self, current: &Current) -> Result<(), StoreError> {
        let Some((origin, key)) = self.own(current) else { return Ok(()) };
        let next = self.store.checkpoint(&origin, key).await?;
        let size = |checkpoint: &SignedCheckpoint| checkpoint.claimed().head().size();
        let mut offered = self.offered();
        if offered.as_ref().is_none_or(|offered| size(offered) < size(&next)) {
            *offered = Some(next);
        }
        Ok(())
    }

    /// Takes the cosignature of a hospital on what is offered; whether it was one.
    pub(crate) fn take(&self, member: &Member, line: &str) -> bool {
        let Ok(signature) = line.parse::<NoteSignature>() else { return false };
        let current = self.documents.current();
        let mut offered = self.offered();
        let Some(checkpoint) = offered.as_ref() else { return false };
        let mut with = checkpoint.clone();
        let verifies = with.add(signature).is_ok() && has_cosigned(member, &current, &with);
        if verifies {
            *offered = Some(with);
        }
        verifies
    }

    /// Asks `witness` to cosign another hospital's checkpoint, when there is none of the coordinator to cosign.
    pub(crate) fn hand_on(&self, witness: &str, offer: ConsistencyProof) {
        self.handed_on().insert(witness.into(), offer);
    }

    /// Takes the cosignature of a hospital on another's checkpoint that it was handed; whether it was one.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn take_of_other(&self, member: &Member, line: &str) -> Result<bool, StoreError> {
        let Ok(signature) = line.parse::<NoteSignature>() else { return Ok(false) };
        let handed_on = self.handed_on().get(&member.name).map(|offer| offer.checkpoint.clone());
        let Some(mut with) = handed_on else { return Ok(false) };
        if with.add(signature.clone()).is_err() || !has_cosigned(member, &self.documents.current(), &with) {
            return Ok(false);
        }
        self.handed_on().remove(&member.name);
        self.store.add_cosignature(with.claimed(), signature).await?;
        Ok(true)
    }

    fn handed_on(&self) -> MutexGuard<'_, BTreeMap<String, ConsistencyProof>> {
        self.handed_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> MutexGuard<'_, Option<SignedCheckpoint>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self) -> MutexGuard<'_, Option<SignedCheckpoint>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys that count as the witness `member` of the log `log`: as a witness it is called as its own first log is.
pub(crate) fn witness_keys(member: &Member, current: &Current, log: &KeyName) -> Vec<NoteKey> {
    let network = whose(log).map_or("", |whose| whose.network);
    let Ok(name) = format!("{network}/{}", member.name).parse::<KeyName>() else { return Vec::new() };
    keys_of(member, current).into_iter().map(|key| NoteKey::new(name.clone(), Signs::Cosignature, key)).collect()
}

/// Whether the member cosigned this checkpoint, with a key that counts.
pub(crate) fn has_cosigned(member: &Member, current: &Current, checkpoint: &SignedCheckpoint) -> bool {
    let keys = witness_keys(member, current, checkpoint.claimed().origin());
    keys.iter().any(|key| matches!(cosigned(checkpoint, key), Ok(Some(_))))
}

/// A checkpoint of a member's log that it signed, and the hospitals that cosigned it.
#[derive(Debug)]
pub struct Confirmed {
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// Who cosigned it, by roster name, and when.
    pub witnesses: Vec<(String, DateTime<Utc>)>,
}

impl Confirmed {
    /// The checkpoint in one line.
    pub fn in_words(&self) -> String {
        let claimed = self.checkpoint.claimed();
        let by = |(name, at): &(String, DateTime<Utc>)| format!("{name} on {}", at.to_rfc3339());
        let witnesses: Vec<_> = self.witnesses.iter().map(by).collect();
        let witnesses = if witnesses.is_empty() { "nobody".into() } else { witnesses.join(", ") };
        format!("checkpoint: {} signed {} entries; cosigned by {witnesses}", claimed.origin(), claimed.head().size())
    }
}

/// Checks a checkpoint of a member's log with the keys of the newest roster.
///
/// # Errors
/// A sentence, when that member did not sign it, or a cosignature on it does not verify.
pub fn confirmed(documents: &Documents, checkpoint: SignedCheckpoint) -> Result<Confirmed, String> {
    let current = documents.current();
    let roster = current.pinned_roster().ok_or("there is no roster")?;
    let origin = checkpoint.claimed().origin();
    let keeper =
        whose(origin).and_then(|whose| roster.member(whose.member)).ok_or("it is of no member of the roster")?;
    let key = NoteKey::new(origin.clone(), Signs::Text, keeper.signing_key);
    checkpoint.verify(&key).map_err(|error| error.to_string())?;
    let mut witnesses = Vec::new();
    for member in roster.members.iter().filter(|member| member.role == Role::Node) {
        for key in witness_keys(member, &current, origin) {
            let at = cosigned(&checkpoint, &key).map_err(|error| error.to_string())?;
            witnesses.extend(at.map(|at| (member.name.clone(), at)));
        }
    }
    Ok(Confirmed { checkpoint, witnesses })
}

/// The keys of a member's first log and of it as a witness.
///
/// # Errors
/// A sentence, when its name cannot be that of a key.
pub fn keys(documents: &Documents, member: &Member) -> Result<(NoteKey, NoteKey), String> {
    let name = origin(&documents.governance_anchor(), &member.name).map_err(|error| error.to_string())?;
    let key = |signs| NoteKey::new(name.clone(), signs, member.signing_key);
    Ok((key(Signs::Text), key(Signs::Cosignature)))
}

/// A policy (c2sp.org/tlog-policy) over the log of `of`, or the coordinator's own: all other hospitals of the roster are its
/// witnesses, of which `quorum` must have cosigned; without it two, or the only one.
///
/// # Errors
/// A sentence, when there is no such member, or fewer hospitals than must cosign.
pub fn policy_of(documents: &Documents, of: Option<&str>, quorum: Option<usize>) -> Result<String, String> {
    let current = documents.current();
    let roster = current.pinned_roster().ok_or("there is no roster yet")?;
    let is_log = |member: &&Member| match of {
        None => member.role == Role::Coordinator,
        Some(name) => member.name == name,
    };
    let keeper = roster.members.iter().find(is_log).ok_or("the roster has no such member")?;
    let witnesses: Vec<_> = roster.members.iter().filter(|m| m.role == Role::Node && m.name != keeper.name).collect();
    let needed = quorum.unwrap_or(witnesses.len().min(MOST_NEEDED));
    if needed > witnesses.len() || witnesses.len() >= MAX_NAMED {
        return Err(format!("{needed} of {} hospitals cannot cosign: choose --quorum", witnesses.len()));
    }
    let mut lines =
        vec![format!("# roster {} of {}", roster.seq, roster.issued), format!("log {}", keys(documents, keeper)?.0)];
    for member in &witnesses {
        lines.push(format!("witness {} {}", member.name, keys(documents, member)?.1));
    }
    if needed == 0 {
        lines.push("quorum none".into());
    } else {
        // A hospital may be called as the group would be.
        let mut group = "hospitals".to_string();
        while witnesses.iter().any(|member| member.name == group) {
            group.push('-');
        }
        let names: Vec<_> = witnesses.iter().map(|member| member.name.as_str()).collect();
        lines.push(format!("group {group} {needed} {}", names.join(" ")));
        lines.push(format!("quorum {group}"));
    }
    Ok(lines.join("\n") + "\n")
}
