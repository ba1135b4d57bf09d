//! The signed documents that a node goes by: governance key, committee, roster, status, regulators' orders, and the
//! permits it answered.
//!
//! Promises: a document replaces the pinned one only if its sequence number is higher, so a revocation that was seen is
//! never unseen; of two documents with one number the first stays; a chain of committees or keys has no gaps; nothing is
//! served past its expiry, whether or not the node is connected. What is served is verified again from the stored
//! envelope.
//!
//! Deliberately absent: fetching documents, and deciding about a permit (that is the guard's).

mod chains;
mod orders;
mod pin;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use sekisho_node_config::Trust;
use sekisho_protocol::{
    committee::Committee,
    digest::Digest,
    dsse::{Document, Envelope, Verified},
    keys::PublicKey,
    log::{
        checkpoint::origin,
        entry::Kind,
        note::{KeyName, NoteError},
    },
    orders::{Orders, Regulator},
    permit::Permit,
    receipt::{Acceptance, DecidedBy},
    refusal::{Code, Refusal},
    roster::Roster,
    sequence::{Gaps, Offered, follows},
    status::Status,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::{
    ledger::{Act, Said, note},
    log::append_once,
    store::{Store, StoreError, instant, read_digest, read_instant},
};

/// A permit that this node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPermit {
    /// The permit, by digest.
    pub digest: Digest,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// The study that it belongs to.
    pub study_id: String,
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Why, in the hospital's words.
    pub reason: Option<String>,
    envelope: Vec<u8>,
    acceptance: Vec<u8>,
    refused: Option<Code>,
}

/// This node's answer to a permit, as it is kept.
#[derive(Clone, Debug)]
pub struct PermitAnswer {
    /// The JSON of the signed acceptance.
    pub acceptance: Vec<u8>,
    /// Why it is refused, or not accepted yet.
    pub refused: Option<Code>,
    /// Why, in the hospital's words.
    pub reason: Option<String>,
}

impl StoredPermit {
    /// The permit as it arrived; its signatures are to be verified again.
    ///
    /// # Errors
    /// `unavailable` when what is stored is no envelope.
    pub fn envelope(&self) -> Result<Envelope, Refusal> {
        Envelope::from_json::<Permit>(&self.envelope).map_err(|_| unavailable(StoreError::Corrupt("permit")))
    }

    /// This node's signed answer; none when what is stored is no envelope.
    pub fn acceptance(&self) -> Option<Envelope> {
        Envelope::from_json::<Acceptance>(&self.acceptance).ok()
    }

    /// Why it was refused, or is not accepted yet; none when it was accepted.
    pub fn refused(&self) -> Option<Code> {
        self.refused
    }
}

/// Whom the configuration trusts: where every chain of signatures begins.
#[derive(Clone, Debug)]
pub struct Anchors {
    /// The first governance key, unless the operator pinned another by hand.
    pub governance: PublicKey,
    /// The first committee.
    pub committee: Committee,
    /// Whose orders are obeyed.
    pub regulators: Vec<Regulator>,
}

impl From<&Trust> for Anchors {
    fn from(trust: &Trust) -> Self {
        let Trust { governance_key, committee, regulators } = trust.clone();
        Self { governance: governance_key, committee, regulators }
    }
}

/// The documents of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Documents {
    store: Store,
    anchors: Anchors,
}

/// The numbers of the newest documents that were seen, expired or not; 0 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seqs {
    /// Rotations of the governance key.
    pub governance: u64,
    /// The committee; 0 is the pinned one.
    pub committee: u64,
    /// The roster.
    pub roster: u64,
    /// The status.
    pub status: u64,
    /// Each pinned regulator with its newest orders.
    pub orders: Vec<(String, u64)>,
}

/// A document of which a node goes by the newest.
trait Pinned: Document {
    const KIND: &'static str;
    const ENTRY: Kind;
    fn seq(&self) -> u64;
    fn prev(&self) -> Option<Digest>;
}

/// One that holds for a while, and without which nothing is answered.
trait Expiring: Pinned {
    const STALE: Code;
    fn expires(&self) -> DateTime<Utc>;
}

macro_rules! pinned {
    ($($document:ty = $kind:literal, $entry:ident;)*) => {$(
        impl Pinned for $document {
            const KIND: &'static str = $kind;
            const ENTRY: Kind = Kind::$entry;

            fn seq(&self) -> u64 {
                self.seq
            }

            fn prev(&self) -> Option<Digest> {
                self.prev
            }
        }
    )*};
}

pinned! {
    Roster = "roster", Roster;
    Status = "status", Status;
    Orders = "orders", Orders;
}

impl Expiring for Roster {
    const STALE: Code = Code::StaleRoster;

    fn expires(&self) -> DateTime<Utc> {
        self.expires
    }
}

impl Expiring for Status {
    const STALE: Code = Code::StaleStatus;

    fn expires(&self) -> DateTime<Utc> {
        self.expires
    }
}

impl Documents {
    /// The documents in `store`, believed when what they are signed with leads back to the `anchors`.
    pub fn new(store: Store, anchors: Anchors) -> Self {
        Self { store, anchors }
    }

    /// What the log of the member `name` is called in this network.
    ///
    /// # Errors
    /// When the name cannot be part of one.
    pub(crate) fn log_origin(&self, name: &str) -> Result<KeyName, NoteError> {
        origin(&self.anchors.governance, name)
    }

    /// Pins the roster in the envelope `bytes` if it is newer than the pinned one; the pinned one again is fine.
    ///
    /// # Errors
    /// When the governance key did not sign it, it has expired, it is older than the pinned one, or it does not
    /// follow it.
    pub async fn offer_roster(&self, bytes: &[u8], now: DateTime<Utc>) -> Result<Verified<Roster>, Refusal> {
        self.offer(bytes, now).await
    }

    /// Pins the status in the envelope `bytes`, under the rules of [`offer_roster`](Self::offer_roster).
    ///
    /// # Errors
    /// As for a roster.
    pub async fn offer_status(&self, bytes: &[u8], now: DateTime<Utc>) -> Result<Verified<Status>, Refusal> {
        self.offer(bytes, now).await
    }

    /// The roster in force.
    ///
    /// # Errors
    /// `stale_roster` when there is none, or it has expired.
    pub async fn roster(&self, now: DateTime<Utc>) -> Result<Verified<Roster>, Refusal> {
        self.in_force(now).await
    }

    /// The status in force.
    ///
    /// # Errors
    /// `stale_status` when there is none, or it has expired.
    pub async fn status(&self, now: DateTime<Utc>) -> Result<Verified<Status>, Refusal> {
        self.in_force(now).await
    }

    /// The numbers of the newest documents that were seen.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn seqs(&self) -> Result<Seqs, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        let (epoch, governance) = self.chain_of_keys(&mut connection).await?;
        let committees = self.chain_of_committees(&mut connection).await?;
        let mut orders = Vec::new();
        for regulator in &self.anchors.regulators {
            let pinned = pinned(&mut connection, Orders::KIND, &orders::line(regulator)).await.map_err(unavailable)?;
            orders.push((regulator.name.clone(), pinned.map_or(0, |(seq, _, _)| seq)));
        }
        let mut seq = async |kind| {
            let found = pinned(&mut connection, kind, &epoch.to_string()).await.map_err(unavailable)?;
            Ok::<_, Refusal>(found.map_or(0, |(seq, _, _)| seq))
        };
        let (roster, status) = (seq(Roster::KIND).await?, seq(Status::KIND).await?);
        Ok(Seqs { governance: governance.seq(), committee: committees.newest().seq, roster, status, orders })
    }

    /// Keeps a permit, as the JSON of its envelope, with the answer of this node's policy, in place of an earlier one. What a
    /// person decided stays: then nothing is kept, and false returned.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn put_permit(
        &self,
        permit: &Verified<Permit>,
        envelope: &[u8],
        answer: &PermitAnswer,
        at: DateTime<Utc>,
    ) -> Result<bool, Refusal> {
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let kept = sqlx::query(
            "INSERT INTO permit (digest, id, version, study_id, envelope, acceptance, refused, at, reason)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
            ON CONFLICT (digest) DO UPDATE SET envelope = ?5, acceptance = ?6, refused = ?7, at = ?8, reason = ?9
            WHERE permit.decided_by = 'policy'",
        )
        .bind(permit.digest().as_bytes().as_slice())
        .bind(&permit.id)
        .bind(permit.version)
        .bind(&permit.study_id)
        .bind(envelope)
        .bind(&answer.acceptance)
        .bind(answer.refused.map(Code::as_str))
        .bind(instant(at))
        .bind(&answer.reason)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        let kept = kept.rows_affected() > 0;
        if kept {
            append_once(&mut tx, Kind::Permit, envelope).await.map_err(unavailable)?;
            append_once(&mut tx, Kind::Acceptance, &answer.acceptance).await.map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)?;
        Ok(kept)
    }

    /// Keeps what a person decided about a permit that arrived before, and who it was. It is undelivered, so that the coordinator asks for it.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn decide(
        &self,
        permit: Digest,
        answer: &PermitAnswer,
        by: &str,
        at: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let mut tx = self.store.write().await.map_err(unavailable)?;
        sqlx::query(
            "UPDATE permit SET acceptance = ?2, refused = ?3, at = ?4, reason = ?5, decided_by = 'hand', delivered = 0
            WHERE digest = ?1",
        )
        .bind(permit.as_bytes().as_slice())
        .bind(&answer.acceptance)
        .bind(answer.refused.map(Code::as_str))
        .bind(instant(at))
        .bind(&answer.reason)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        append_once(&mut tx, Kind::Acceptance, &answer.acceptance).await.map_err(unavailable)?;
        let named: Option<String> = sqlx::query_scalar("SELECT id || '/' || version FROM permit WHERE digest = ?1")
            .bind(permit.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await
            .map_err(unavailable)?;
        let act = if answer.refused.is_none() { Act::AcceptPermit } else { Act::RefusePermit };
        let said = Said { by, reason: answer.reason.as_deref().unwrap_or_default(), at };
        note(&mut tx, act, &named.unwrap_or_default(), &said).await.map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    /// Notes that the coordinator was given this answer.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn delivered(&self, permit: &StoredPermit) -> Result<(), Refusal> {
        let mut tx = self.store.write().await.map_err(unavailable)?;
        // Another answer may have taken its place since it was read.
        sqlx::query("UPDATE permit SET delivered = 1 WHERE digest = ?1 AND acceptance = ?2 AND delivered = 0")
            .bind(permit.digest.as_bytes().as_slice())
            .bind(&permit.acceptance)
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        tx.commit().await.map_err(unavailable)
    }

    /// The permit of this digest, when this node answered it. Its signatures are to be verified again: a
    /// committee's key may have become void.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn permit(&self, digest: Digest) -> Result<Option<StoredPermit>, Refusal> {
        let row = sqlx::query("SELECT * FROM permit WHERE digest = ?1")
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(self.store.read())
            .await
            .map_err(unavailable)?;
        row.as_ref().map(stored_permit).transpose().map_err(unavailable)
    }

    /// Every permit that was answered, by id and version.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn permits(&self) -> Result<Vec<StoredPermit>, Refusal> {
        let rows = sqlx::query("SELECT * FROM permit ORDER BY id, version, digest")
            .fetch_all(self.store.read())
            .await
            .map_err(unavailable)?;
        rows.iter().map(stored_permit).collect::<Result<_, _>>().map_err(unavailable)
    }

    /// How many permits are accepted, refused, and wait for a person.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn permit_counts(&self) -> Result<[u64; 3], Refusal> {
        let counts: (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE refused IS NULL),
                count(*) FILTER (WHERE refused IS NOT NULL AND refused <> ?1), count(*) FILTER (WHERE refused = ?1)
            FROM permit",
        )
        .bind(Code::PermitWaiting.as_str())
        .fetch_one(self.store.read())
        .await
        .map_err(unavailable)?;
        Ok([counts.0, counts.1, counts.2].map(i64::unsigned_abs))
    }

    /// The digests of every permit whose answer the coordinator was given; the latest answers first.
    ///
    /// # Errors
    /// `unavailable` when the database fails.
    pub async fn permit_digests(&self) -> Result<Vec<Digest>, Refusal> {
        let stored: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT digest FROM permit WHERE delivered = 1 ORDER BY at DESC, digest")
                .fetch_all(self.store.read())
                .await
                .map_err(unavailable)?;
        stored.iter().map(|digest| read_digest(digest)).collect::<Result<_, _>>().map_err(unavailable)
    }

    async fn offer<D: Expiring>(&self, bytes: &[u8], now: DateTime<Utc>) -> Result<Verified<D>, Refusal> {
        let envelope = Envelope::from_json::<D>(bytes)?;
        let mut tx = self.store.write().await.map_err(unavailable)?;
        let (epoch, governance) = self.chain_of_keys(&mut tx).await?;
        let offered: Verified<D> = envelope.verify(&[governance.key()], 1)?;
        fresh(&offered, now)?;
        pin(&mut tx, &epoch.to_string(), &offered, &envelope).await?;
        tx.commit().await.map_err(unavailable)?;
        Ok(offered)
    }

    /// The pinned document, if it is in force. It may be signed by an earlier key: it was taken while that one counted.
    async fn in_force<D: Expiring>(&self, now: DateTime<Utc>) -> Result<Verified<D>, Refusal> {
        let mut connection = self.store.read().acquire().await.map_err(unavailable)?;
        let (epoch, governance) = self.chain_of_keys(&mut connection).await?;
        let Some((_, _, bytes)) = pinned(&mut connection, D::KIND, &epoch.to_string()).await.map_err(unavailable)?
        else {
            return Err(Refusal::new(D::STALE, format!("no {} has arrived yet", D::NAME)));
        };
        let verified = Envelope::from_json::<D>(&bytes).and_then(|envelope| envelope.verify(governance.keys(), 1));
        let document: Verified<D> =
            verified.map_err(|e| Refusal::new(D::STALE, format!("the pinned {} no longer verifies: {e}", D::NAME)))?;
        fresh(&document, now)?;
        Ok(document)
    }
}

fn fresh<D: Expiring>(document: &Verified<D>, now: DateTime<Utc>) -> Result<(), Refusal> {
    if now < document.expires() {
        return Ok(());
    }
    let detail = format!("{} {} expired at {}", D::NAME, document.seq(), document.expires().to_rfc3339());
    Err(Refusal::new(D::STALE, detail))
}

/// Pins `offered` in its line, if it follows what is there.
async fn pin<D: Pinned>(
    connection: &mut SqliteConnection,
    line: &str,
    offered: &Verified<D>,
    envelope: &Envelope,
) -> Result<(), Refusal> {
    let (seq, digest) = (offered.seq(), offered.digest());
    let before = pinned(connection, D::KIND, line).await.map_err(unavailable)?.map(|(seq, digest, _)| (seq, digest));
    if !follows(&Offered { name: D::NAME, seq, prev: offered.prev(), digest }, before, Gaps::Allowed)? {
        return Ok(());
    }
    let statement = match before {
        None => "INSERT INTO pinned (kind, line, seq, digest, envelope) VALUES (?1, ?2, ?3, ?4, ?5)",
        Some(_) => "UPDATE pinned SET seq = ?3, digest = ?4, envelope = ?5 WHERE kind = ?1 AND line = ?2",
    };
    sqlx::query(statement)
        .bind(D::KIND)
        .bind(line)
        .bind(number(seq)?)
        .bind(digest.as_bytes().as_slice())
        .bind(envelope.to_json())
        .execute(&mut *connection)
        .await
        .map_err(unavailable)?;
    append_once(connection, D::ENTRY, &envelope.to_json()).await.map_err(unavailable)
}

async fn pinned(
    connection: &mut SqliteConnection,
    kind: &str,
    line: &str,
) -> Result<Option<(u64, Digest, Vec<u8>)>, StoreError> {
    let row: Option<(i64, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT seq, digest, envelope FROM pinned WHERE kind = ?1 AND line = ?2")
            .bind(kind)
            .bind(line)
            .fetch_optional(connection)
            .await?;
    row.map(|(seq, digest, envelope)| Ok((seq.unsigned_abs(), read_digest(&digest)?, envelope))).transpose()
}

/// A number as it is stored.
fn number(seq: u64) -> Result<i64, Refusal> {
    seq.try_into().map_err(|_| unavailable(StoreError::Corrupt("sequence number")))
}

fn stored_permit(row: &SqliteRow) -> Result<StoredPermit, StoreError> {
    let refused: Option<&str> = row.try_get("refused")?;
    let decided_by = match row.try_get("decided_by")? {
        "policy" => DecidedBy::Policy,
        "hand" => DecidedBy::Hand,
        _ => return Err(StoreError::Corrupt("decision")),
    };
    Ok(StoredPermit {
        decided_by,
        reason: row.try_get("reason")?,
        digest: read_digest(row.try_get("digest")?)?,
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        study_id: row.try_get("study_id")?,
        envelope: row.try_get("envelope")?,
        acceptance: row.try_get("acceptance")?,
        refused: refused.map(str::parse).transpose().map_err(|_| StoreError::Corrupt("refusal code"))?,
        at: read_instant(row.try_get("at")?)?,
    })
}

/// The asker hears that the database failed, the node's log hears why.
fn unavailable(error: impl Into<StoreError>) -> Refusal {
    tracing::error!(error = %error.into(), "the node's documents cannot be read or written");
    Refusal::new(Code::Unavailable, "the hospital's documents cannot be read or written")
}
