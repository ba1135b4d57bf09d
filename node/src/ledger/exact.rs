//! Exact results in the ledger: the questions that wait for a person, what was decided, and the whole history of releases that
//! the guard looks back at.
//!
//! Promises: the guard's look at every earlier cohort and the record of a new one are one durable transaction, so that of two
//! releases that would be too close to each other only one passes; a decision is for ever, and is noted with who made it; nothing
//! is released that was not recorded. The rules of nearness are in [`crate::exact::guard`].
//!
//! Deliberately absent: any number of patients in an error, a note or the log.

mod history;

use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, log::entry::Kind};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

pub(super) use self::history::remember;
pub use self::history::{ExactRelease, NewRelease, Recorded};

use super::{Act, Ledger, LedgerError, RunKey, Said, note, statements::use_nonce, suspension};
use crate::{
    log::append,
    store::{StoreError, instant, read_digest, read_instant},
};

/// How many questions of one study may wait at once.
pub const MAX_WAITING: u32 = 100;
/// The most requests or releases that are listed at once.
pub const MAX_EXACT: u32 = 1000;

/// A question that asks for an exact result.
pub struct NewRequest<'a> {
    /// The run.
    pub key: RunKey,
    /// The study.
    pub study_id: &'a str,
    /// The digest of the signed message.
    pub query: Digest,
    /// The message.
    pub envelope: &'a [u8],
    /// Its nonce.
    pub nonce: &'a str,
    /// From when on the message is stale.
    pub nonce_expires: DateTime<Utc>,
    /// Now.
    pub at: DateTime<Utc>,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// A person let it out.
    Released,
    /// A person said no.
    Refused,
    /// A person would have let it out, and it was too close to an earlier release.
    TooClose,
}

impl Decided {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Refused => "refused",
            Self::TooClose => "too_close",
        }
    }

    fn read(name: &str) -> Result<Self, StoreError> {
        match name {
            "released" => Ok(Self::Released),
            "refused" => Ok(Self::Refused),
            "too_close" => Ok(Self::TooClose),
            _ => Err(StoreError::Corrupt("decision")),
        }
    }
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub decided: Decided,
    /// Who decided. It stays in the hospital.
    pub who: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A question that was asked for an exact result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactRequest {
    /// Its number at this node.
    pub request: i64,
    /// The run.
    pub key: RunKey,
    /// The study.
    pub study_id: String,
    /// The digest of the message that asked first.
    pub query: Digest,
    /// That message.
    pub envelope: Vec<u8>,
    /// When it came.
    pub at: DateTime<Utc>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Whether the release was made.
    pub made: bool,
}

impl ExactRequest {
    /// The stable name of its state.
    pub fn state(&self) -> &'static str {
        match self.decision.as_ref().map(|decision| decision.decided) {
            None => "waiting",
            Some(Decided::Released) if !self.made => "unfinished",
            Some(decided) => decided.as_str(),
        }
    }

    /// Whether there is something for a person to do.
    pub fn is_open(&self) -> bool {
        matches!(self.state(), "waiting" | "unfinished")
    }
}

impl Ledger {
    /// Notes a question once for each run, and says what was decided.
    ///
    /// # Errors
    /// When the study is suspended, another message used the nonce, too many of the study wait, or the database fails.
    pub async fn request_exact(&self, new: &NewRequest<'_>) -> Result<Option<Decided>, LedgerError> {
        let mut tx = self.store.write().await?;
        suspension::open(&mut tx, new.study_id, new.key.permit).await?;
        use_nonce(&mut tx, new.nonce, new.query, new.nonce_expires, new.at).await?;
        let known: Option<Option<String>> = sqlx::query_scalar(
            "SELECT d.decision FROM exact_request q LEFT JOIN exact_decision d ON d.request = q.request
            WHERE q.permit = ?1 AND q.query_key = ?2 AND q.run = ?3",
        )
        .bind(new.key.permit.as_bytes().as_slice())
        .bind(new.key.query_key.as_bytes().as_slice())
        .bind(new.key.run)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(decision) = known {
            tx.commit().await?;
            return Ok(decision.as_deref().map(Decided::read).transpose()?);
        }
        let waiting: u32 = sqlx::query_scalar(
            "SELECT count(*) FROM exact_request q WHERE q.study_id = ?1
                AND NOT EXISTS (SELECT 1 FROM exact_decision d WHERE d.request = q.request)",
        )
        .bind(new.study_id)
        .fetch_one(&mut *tx)
        .await?;
        if waiting >= MAX_WAITING {
            return Err(LedgerError::ManyWaiting { study: new.study_id.into() });
        }
        sqlx::query(
            "INSERT INTO exact_request (request, permit, query_key, run, study_id, query, envelope, at)
            VALUES ((SELECT coalesce(max(request), 0) + 1 FROM exact_request), ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(new.key.permit.as_bytes().as_slice())
        .bind(new.key.query_key.as_bytes().as_slice())
        .bind(new.key.run)
        .bind(new.study_id)
        .bind(new.query.as_bytes().as_slice())
        .bind(new.envelope)
        .bind(instant(new.at))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(None)
    }

    /// What was decided about a run that was asked for; outer none when nobody asked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_decision(&self, key: &RunKey) -> Result<Option<Option<Decided>>, LedgerError> {
        let known: Option<Option<String>> = sqlx::query_scalar(
            "SELECT d.decision FROM exact_request q LEFT JOIN exact_decision d ON d.request = q.request
            WHERE q.permit = ?1 AND q.query_key = ?2 AND q.run = ?3",
        )
        .bind(key.permit.as_bytes().as_slice())
        .bind(key.query_key.as_bytes().as_slice())
        .bind(key.run)
        .fetch_optional(self.store.read())
        .await?;
        known.map(|decision| Ok(decision.as_deref().map(Decided::read).transpose()?)).transpose()
    }

    /// The requests, those that wait first and otherwise the newest first; at most [`MAX_EXACT`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_requests(&self, open_only: bool) -> Result<Vec<ExactRequest>, LedgerError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{REQUESTS} WHERE NOT ?1 OR d.decision IS NULL OR (d.decision = 'released' AND r.charge_id IS NULL)
            ORDER BY d.decision IS NOT NULL, q.request DESC LIMIT ?2"
        )))
        .bind(open_only)
        .bind(MAX_EXACT)
        .fetch_all(self.store.read())
        .await?;
        rows.iter().map(request).collect()
    }

    /// One request; none when there is none of this number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_request(&self, number: i64) -> Result<Option<ExactRequest>, LedgerError> {
        let sql = sqlx::AssertSqlSafe(format!("{REQUESTS} WHERE q.request = ?1"));
        let row = sqlx::query(sql).bind(number).fetch_optional(self.store.read()).await?;
        row.as_ref().map(request).transpose()
    }

    /// Refuses a request for ever, and appends `refusal` (the envelope of its record) to the log.
    ///
    /// # Errors
    /// [`LedgerError::Decided`] when it was decided before, [`LedgerError::UnknownRequest`], or when the database fails.
    pub async fn refuse_exact(
        &self,
        number: i64,
        key: &RunKey,
        who: &str,
        said: &Said<'_>,
        refusal: &[u8],
    ) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        if let Some(decision) = decision_of(&mut tx, number, key).await? {
            return Err(LedgerError::Decided { decision: Box::new(decision) });
        }
        decide(&mut tx, number, Decided::Refused, who, said).await?;
        append(&mut tx, Kind::Refusal, refusal).await?;
        Ok(tx.commit().await?)
    }
}

/// Requests with what became of them.
const REQUESTS: &str = "SELECT q.request, q.permit, q.query_key, q.run, q.study_id, q.query, q.envelope, q.at,
        d.decision, d.who, d.reason, d.at AS decided_at, r.charge_id IS NOT NULL AS made
    FROM exact_request q
    LEFT JOIN exact_decision d ON d.request = q.request
    LEFT JOIN charge c ON c.permit = q.permit AND c.query_key = q.query_key AND c.run = q.run
    LEFT JOIN release r ON r.charge_id = c.charge_id";

fn key(row: &SqliteRow) -> Result<RunKey, LedgerError> {
    Ok(RunKey {
        permit: read_digest(row.try_get("permit")?)?,
        query_key: read_digest(row.try_get("query_key")?)?,
        run: row.try_get("run")?,
    })
}

fn request(row: &SqliteRow) -> Result<ExactRequest, LedgerError> {
    let decided: Option<&str> = row.try_get("decision")?;
    let decision = match decided {
        None => None,
        Some(decided) => Some(Decision {
            decided: Decided::read(decided)?,
            who: row.try_get("who")?,
            reason: row.try_get("reason")?,
            at: read_instant(row.try_get("decided_at")?)?,
        }),
    };
    Ok(ExactRequest {
        request: row.try_get("request")?,
        key: key(row)?,
        study_id: row.try_get("study_id")?,
        query: read_digest(row.try_get("query")?)?,
        envelope: row.try_get("envelope")?,
        at: read_instant(row.try_get("at")?)?,
        decision,
        made: row.try_get("made")?,
    })
}

/// The decision about the request of this number, which is of the run `key`.
async fn decision_of(tx: &mut SqliteConnection, number: i64, key: &RunKey) -> Result<Option<Decision>, LedgerError> {
    let row = sqlx::query(
        "SELECT d.decision, d.who, d.reason, d.at FROM exact_request q
        LEFT JOIN exact_decision d ON d.request = q.request
        WHERE q.request = ?1 AND q.permit = ?2 AND q.query_key = ?3 AND q.run = ?4",
    )
    .bind(number)
    .bind(key.permit.as_bytes().as_slice())
    .bind(key.query_key.as_bytes().as_slice())
    .bind(key.run)
    .fetch_optional(tx)
    .await?;
    let row = row.ok_or(LedgerError::UnknownRequest(number))?;
    let Some(decided) = row.try_get::<Option<&str>, _>("decision")? else { return Ok(None) };
    Ok(Some(Decision {
        decided: Decided::read(decided)?,
        who: row.try_get("who")?,
        reason: row.try_get("reason")?,
        at: read_instant(row.try_get("at")?)?,
    }))
}

/// Writes a decision down, and notes who acted.
async fn decide(
    tx: &mut SqliteConnection,
    number: i64,
    decided: Decided,
    who: &str,
    said: &Said<'_>,
) -> Result<(), LedgerError> {
    sqlx::query("INSERT INTO exact_decision (request, decision, who, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(number)
        .bind(decided.as_str())
        .bind(who)
        .bind(said.reason)
        .bind(instant(said.at))
        .execute(&mut *tx)
        .await?;
    let act = match decided {
        // They would have released it; what the guard said is in the decision.
        Decided::Released | Decided::TooClose => Act::ReleaseExact,
        Decided::Refused => Act::RefuseExact,
    };
    Ok(note(tx, act, &number.to_string(), said).await?)
}
