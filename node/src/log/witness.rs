//! The node as a witness of the coordinator's log, and of other hospitals' logs that the coordinator hands it.
//!
//! Promises: a checkpoint is cosigned only when it continues the newest one that was cosigned, and that one is durable before the
//! cosignature leaves; what contradicts it is not cosigned, and an alert tells of it: both checkpoints are entered in this node's
//! log with it, since together they are the evidence.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    control::MAX_OTHERS,
    keys::PublicKey,
    log::{
        checkpoint::{Whose, whose},
        cosignature::{Continued, WitnessError},
        merkle::ProofError,
        note::{KeyName, NoteKey, NoteSignature, Signs},
        proof::ConsistencyProof,
        store,
    },
    refusal::{Code, Refusal},
    roster::Role,
};

use super::{Log, refusal};
use crate::{answer::Answering, store::StoreError};

/// The most logs of others that are looked at.
const MAX_WATCHED: u32 = 10_000;
/// The most bytes of what is offered.
const MAX_OFFER: usize = 32 << 10;

/// A checkpoint that does not continue the newest one.
struct NotContinued {
    error: WitnessError,
    /// The newest one, and this one.
    evidence: Vec<Vec<u8>>,
}

impl NotContinued {
    /// Whether the coordinator is to blame: a proof that is merely of another length, or a checkpoint that is merely older,
    /// contradicts nothing.
    fn contradicts(&self) -> bool {
        match &self.error {
            WitnessError::Forked { .. } | WitnessError::Proof(ProofError::NotConsistent { .. }) => true,
            WitnessError::Proof(
                ProofError::TooLarge(_)
                | ProofError::NoSuchEntry { .. }
                | ProofError::Shrunk { .. }
                | ProofError::Length { .. }
                | ProofError::NotIncluded { .. },
            )
            | WitnessError::OtherLog { .. }
            | WitnessError::Time => false,
        }
    }
}

impl Log {
    /// How many entries of the log of the member `member` were witnessed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn witnessed(&self, member: &str) -> Result<u64, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        let newest = store::newest_of(&mut connection, member).await?;
        Ok(newest.map_or(0, |newest| newest.claimed().head().size()))
    }

    /// The logs of others of which a checkpoint is kept, with its size.
    async fn watched(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut connection = self.store.read().acquire().await?;
        Ok(store::watched(&mut connection, MAX_WATCHED).await?)
    }

    /// Keeps `offer` as the newest checkpoint of its log, if `key` signed it and it continues the one before.
    async fn continued(
        &self,
        offer: &ConsistencyProof,
        key: &NoteKey,
    ) -> Result<Result<Continued, NotContinued>, StoreError> {
        let offered = offer.checkpoint.verify(key).map_err(|error| StoreError::Log(error.into()))?;
        let mut tx = self.store.write().await?;
        let newest = store::newest(&mut tx, offered.origin()).await?;
        let continued = match Continued::check(newest.as_ref().map(|n| n.claimed()), offered, &offer.hashes) {
            Ok(continued) => continued,
            Err(error) => {
                let both = newest.into_iter().chain([offer.checkpoint.clone()]);
                let evidence = both.map(|checkpoint| checkpoint.to_string().into_bytes()).collect();
                return Ok(Err(NotContinued { error, evidence }));
            }
        };
        store::keep(&mut tx, &offer.checkpoint).await?;
        tx.commit().await?;
        Ok(Ok(continued))
    }
}

impl Answering {
    /// How many entries of the coordinator's log this node witnessed.
    ///
    /// # Errors
    /// When the database fails, or there is no roster.
    pub async fn witnessed(&self) -> Result<u64, Refusal> {
        let Ok((name, _)) = self.coordinator(self.clock.now()).await else { return Ok(0) };
        self.ledger.log().witnessed(&name).await.map_err(|error| refusal(&error))
    }

    /// Witnesses what the coordinator offers: the cosignature, as a line.
    ///
    /// # Errors
    /// When it is no checkpoint of the coordinator or another hospital of the roster in force, or does not continue what was
    /// witnessed.
    pub async fn witness(&self, offer: &str) -> Result<NoteSignature, Refusal> {
        let malformed = |detail: &str| Refusal::new(Code::Malformed, detail);
        if offer.len() > MAX_OFFER {
            return Err(malformed("what the coordinator offers to be witnessed is too large"));
        }
        let offer = ConsistencyProof::parse(offer.as_bytes());
        let offer = offer.map_err(|_| malformed("what the coordinator offers to be witnessed is no checkpoint"))?;
        let now = self.clock.now();
        let origin = offer.checkpoint.claimed().origin().clone();
        let key = self.keeper(&origin, now).await?;
        let network = whose(&origin).map_or("", |whose| whose.network);
        let witness: KeyName = format!("{network}/{}", self.trust.name)
            .parse()
            .map_err(|_| malformed("the name of the log cannot be that of a witness"))?;
        let key = NoteKey::new(origin.clone(), Signs::Text, key);
        let continued = self.ledger.log().continued(&offer, &key).await.map_err(|error| refusal(&error))?;
        let continued = match continued {
            Ok(continued) => continued,
            Err(not) => {
                tracing::error!(error = %not.error, log = %origin, "a log does not continue what it was");
                let refusal = Refusal::new(Code::Malformed, not.error.to_string());
                if not.contradicts() {
                    self.watch.forked(not.evidence).await;
                }
                return Err(refusal);
            }
        };
        let cosigned = continued.cosign(witness, &self.signing, now);
        cosigned.map_err(|error| Refusal::new(Code::Malformed, error.to_string()))
    }

    /// The key of the member whose log `origin` is: of the pinned coordinator, or of another hospital of this network.
    async fn keeper(&self, origin: &KeyName, now: DateTime<Utc>) -> Result<PublicKey, Refusal> {
        let malformed = |detail: &str| Refusal::new(Code::Malformed, detail);
        let Some(Whose { network, member: keeper, .. }) = whose(origin) else {
            return Err(malformed("the checkpoint is of no member's log"));
        };
        let (coordinator, key) = self.coordinator(now).await?;
        if keeper == coordinator {
            return Ok(key);
        }
        let own = self.origin().await.map_err(|error| refusal(&error))?;
        if keeper == self.trust.name || whose(&own).is_none_or(|own| own.network != network) {
            return Err(malformed("the checkpoint is of this hospital's own log, or of another network's"));
        }
        let (roster, status) = (self.documents.roster(now).await?, self.documents.status(now).await?);
        let member = roster.member(keeper).filter(|member| member.role == Role::Node);
        let counts = member.filter(|member| !status.void_keys.contains(&member.signing_key.fingerprint()));
        counts
            .map(|member| member.signing_key)
            .ok_or_else(|| malformed("the checkpoint is of no hospital of the roster"))
    }

    /// How many entries of other hospitals' logs this node witnessed.
    ///
    /// # Errors
    /// When the database fails, or there is no roster.
    pub async fn witnessed_others(&self) -> Result<Vec<(String, u64)>, Refusal> {
        let Ok((coordinator, _)) = self.coordinator(self.clock.now()).await else { return Ok(Vec::new()) };
        let watched = self.ledger.log().watched().await.map_err(|error| refusal(&error))?;
        let other = |origin: &String| {
            let origin = origin.parse::<KeyName>();
            origin.is_ok_and(|origin| {
                whose(&origin).is_some_and(|whose| whose.member != coordinator && whose.member != self.trust.name)
            })
        };
        Ok(watched.into_iter().filter(|(origin, _)| other(origin)).take(MAX_OTHERS).collect())
    }

    /// Name and key of the coordinator of the roster in force.
    async fn coordinator(&self, now: DateTime<Utc>) -> Result<(String, PublicKey), Refusal> {
        let (roster, status) = (self.documents.roster(now).await?, self.documents.status(now).await?);
        let member = roster.member_by_peer(&self.trust.coordinator_peer).filter(|m| m.role == Role::Coordinator);
        let counts = member.filter(|member| !status.void_keys.contains(&member.signing_key.fingerprint()));
        let none =
            || Refusal::new(Code::NotOnRoster, "the pinned coordinator is not on the roster, or its key is void");
        counts.map(|member| (member.name.clone(), member.signing_key)).ok_or_else(none)
    }
}
