//! Chains: which governance key and which committee count now, and which one a permit was taken under.
//!
//! A chain is walked from its anchor whenever it is asked for, so that nothing counts only because it is in the database.
//! Links are checked with the keys that are void when they arrive, and not again later: a member whose key is voided
//! after having signed the next committee does not undo it.

use sekisho_protocol::{
    committee::{Committee, CommitteeChain},
    digest::Digest,
    dsse::{Document, Envelope, Verified},
    governance::{Governance, GovernanceChain},
    keys::PublicKey,
    permit::Permit,
    refusal::{Code, Refusal},
    status::Status,
    supersession::{self, Version},
};
use sqlx::SqliteConnection;

use super::{Documents, Pinned, number, pinned, unavailable};
use crate::{
    log::append_once,
    store::{StoreError, read_digest},
};

const GOVERNANCE: &str = "governance";
const COMMITTEE: &str = "committee";

impl Documents {
    /// The governance keys, from the pinned one to the one that counts.
    ///
    /// # Errors
    /// `unavailable` when the database fails, or a stored link does not verify.
    pub async fn governance(&self) -> Result<GovernanceChain, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        Ok(self.chain_of_keys(&mut connection).await?.1)
    }

    /// The committees, from the pinned one to the one in force.
    ///
    /// # Errors
    /// `unavailable` when the database fails, or a stored link does not verify.
    pub async fn committees(&self) -> Result<CommitteeChain, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        self.chain_of_committees(&mut connection).await
    }

    /// The committee that the permit with this digest was taken under; the newest one for a permit that was not.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn committee_of(&self, permit: Digest) -> Result<Committee, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        let chain = self.chain_of_committees(&mut connection).await?;
        let under = taken_under(&mut connection, permit).await?;
        Ok(under.and_then(|digest| chain.with_digest(digest)).unwrap_or_else(|| chain.newest()).clone())
    }

    /// The keys whose signature on a schema counts: every one that governed, unless the status voids it.
    ///
    /// # Errors
    /// `unavailable` when the database fails, or a stored link does not verify.
    pub async fn schema_keys(&self) -> Result<Vec<PublicKey>, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        let (_, chain) = self.chain_of_keys(&mut connection).await?;
        let void = self.void_keys(&mut connection).await?;
        Ok(chain.keys().iter().copied().filter(|key| !void.contains(&key.fingerprint())).collect())
    }

    /// Takes a rotation of the governance key; the newest one again is fine.
    ///
    /// # Errors
    /// When the old or the new key did not sign it, or it does not follow the newest one.
    pub async fn offer_governance(&self, bytes: &[u8]) -> Result<u64, Refusal> {
        let envelope = Envelope::from_json::<Governance>(bytes)?;
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let (epoch, mut chain) = self.chain_of_keys(&mut tx).await?;
        if let Some(link) = chain.take(&envelope)? {
            let digest = link.digest();
            add(&mut tx, GOVERNANCE, &epoch.to_string(), link.seq, digest, &envelope).await?;
            tx.commit().await.map_err(unavailable)?;
        }
        Ok(chain.seq())
    }

    /// Takes the next committee; the newest one again is fine.
    ///
    /// # Errors
    /// When no quorum of the committee before signed it, or it does not follow the newest one.
    pub async fn offer_committee(&self, bytes: &[u8]) -> Result<u64, Refusal> {
        let envelope = Envelope::from_json::<Committee>(bytes)?;
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let void = self.void_keys(&mut tx).await?;
        let mut chain = self.chain_of_committees(&mut tx).await?;
        if let Some(link) = chain.take(&envelope, |key| void.contains(&key))? {
            let line = chain.root().to_string();
            add(&mut tx, COMMITTEE, &line, link.seq, link.digest(), &envelope).await?;
            tx.commit().await.map_err(unavailable)?;
        }
        Ok(chain.newest().seq)
    }

    /// Believes a permit: with the committee that it was taken under, or with the newest one; and only a version that
    /// follows those that were seen. Which committee that was is noted; of a permit that is known the envelope is
    /// replaced, since it may carry other signatures.
    ///
    /// # Errors
    /// `quorum_not_met`, `duplicate_signer`, `bad_signature`, `malformed`, `older_document`, `supersession`.
    pub async fn believe_permit(&self, bytes: &[u8], status: &Status) -> Result<Verified<Permit>, Refusal> {
        let envelope = Envelope::from_json::<Permit>(bytes)?;
        let digest = envelope.digest::<Permit>()?;
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let under = taken_under(&mut tx, digest).await?;
        let chain = self.chain_of_committees(&mut tx).await?;
        let (permit, under) = chain.verify_permit(&envelope, under, |key| status.void_keys.contains(&key))?;
        let named = match permit.supersedes {
            Some(named) => versions(&mut tx, "digest", named.as_bytes().as_slice()).await?.pop(),
            None => None,
        };
        supersession::check(&permit, digest, &versions(&mut tx, "id", permit.id.as_str()).await?, named.as_ref())?;
        sqlx::query(
            "INSERT INTO permit_committee (permit, committee) VALUES (?1, ?2)
            ON CONFLICT (permit) DO UPDATE SET committee = excluded.committee",
        )
        .bind(digest.as_bytes().as_slice())
        .bind(under.as_bytes().as_slice())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        sqlx::query("UPDATE permit SET envelope = ?2 WHERE digest = ?1")
            .bind(digest.as_bytes().as_slice())
            .bind(envelope.to_json())
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)?;
        Ok(permit)
    }

    /// The keys that the newest status voids, expired or not.
    async fn void_keys(&self, connection: &mut SqliteConnection) -> Result<Vec<Digest>, Refusal> {
        let (epoch, governance) = self.chain_of_keys(connection).await?;
        let found = pinned(connection, Status::KIND, &epoch.to_string()).await.map_err(unavailable)?;
        let Some((_, _, bytes)) = found else { return Ok(Vec::new()) };
        let status: Verified<Status> = Envelope::from_json::<Status>(&bytes)?.verify(governance.keys(), 1)?;
        Ok(status.void_keys.clone())
    }

    /// The operator's pin by number, 0 for the configuration's, and the chain that begins with it.
    pub(super) async fn chain_of_keys(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(u64, GovernanceChain), Refusal> {
        let pin = super::pin::newest(connection).await.map_err(unavailable)?;
        let (epoch, key) = pin.map_or((0, self.anchors.governance), |pin| (pin.epoch, pin.key));
        let mut chain = GovernanceChain::pinned(key);
        for link in links(connection, GOVERNANCE, &epoch.to_string()).await? {
            chain.take(&link).map_err(|error| broken(&error, Governance::NAME))?;
        }
        Ok((epoch, chain))
    }

    pub(super) async fn chain_of_committees(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<CommitteeChain, Refusal> {
        let mut chain = CommitteeChain::pinned(self.anchors.committee.clone());
        for link in links(connection, COMMITTEE, &chain.root().to_string()).await? {
            chain.take(&link, |_| false).map_err(|error| broken(&error, Committee::NAME))?;
        }
        Ok(chain)
    }
}

async fn links(connection: &mut SqliteConnection, kind: &str, line: &str) -> Result<Vec<Envelope>, Refusal> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT envelope FROM chain WHERE kind = ?1 AND line = ?2 ORDER BY seq")
            .bind(kind)
            .bind(line)
            .fetch_all(connection)
            .await
            .map_err(unavailable)?;
    // Of both kinds a committee is the larger.
    rows.iter().map(|bytes| Ok(Envelope::from_json::<Committee>(bytes)?)).collect()
}

async fn add(
    connection: &mut SqliteConnection,
    kind: &str,
    line: &str,
    seq: u64,
    digest: Digest,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    sqlx::query("INSERT INTO chain (kind, line, seq, digest, envelope) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(kind)
        .bind(line)
        .bind(number(seq)?)
        .bind(digest.as_bytes().as_slice())
        .bind(envelope.to_json())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    let entry = kind.parse().map_err(|_| unavailable(StoreError::Corrupt("kind of chain")))?;
    append_once(connection, entry, &envelope.to_json()).await.map_err(unavailable)
}

async fn taken_under(connection: &mut SqliteConnection, permit: Digest) -> Result<Option<Digest>, Refusal> {
    let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT committee FROM permit_committee WHERE permit = ?1")
        .bind(permit.as_bytes().as_slice())
        .fetch_optional(connection)
        .await
        .map_err(unavailable)?;
    found.map(|digest| read_digest(&digest)).transpose().map_err(unavailable)
}

/// The versions of permits that were answered, where `column` is `value`.
async fn versions<'q, T>(
    connection: &mut SqliteConnection,
    column: &'static str,
    value: T,
) -> Result<Vec<Version>, Refusal>
where
    T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + 'q,
{
    let statement = match column {
        "id" => "SELECT id, version, digest, study_id FROM permit WHERE id = ?1",
        _ => "SELECT id, version, digest, study_id FROM permit WHERE digest = ?1",
    };
    let rows: Vec<(String, u32, Vec<u8>, String)> =
        sqlx::query_as(statement).bind(value).fetch_all(connection).await.map_err(unavailable)?;
    let version = |(id, version, digest, study_id): (String, u32, Vec<u8>, String)| {
        Ok(Version { id, version, digest: read_digest(&digest)?, study_id })
    };
    rows.into_iter().map(version).collect::<Result<_, StoreError>>().map_err(unavailable)
}

/// A stored link that does not verify any more: somebody wrote into the database, or changed the configured key.
fn broken(error: &Refusal, name: &str) -> Refusal {
    tracing::error!(%error, "a stored {name} document does not verify; see `sekisho-node trust show`");
    let detail = format!("the hospital's chain of {name} documents does not verify");
    Refusal::new(Code::Unavailable, detail)
}
