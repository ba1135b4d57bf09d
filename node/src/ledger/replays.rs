//! What a run is made again from, which runs there are, and who had one made again.
//!
//! Promises: the question is stored in the transaction of its charge, the sealed seed in that of its release, and
//! neither is ever changed; a replay is a durable entry of the log. Runs that were charged before the software kept
//! questions have none.

use std::{fmt, str::FromStr};

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{
    digest::Digest,
    log::{entry::Kind, store as log_store},
    permit::OptOut,
    units::{AttoDelta, MicroRho},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    ChargeRequest, Cost, Ledger, LedgerError, RunKey,
    caps::read_delta,
    run::{Run, RunState},
    statements::find,
};
use crate::{
    log::append,
    seeds::SealedSeed,
    store::{StoreError, instant, read_amount, read_digest, read_instant},
};

/// A question as it was asked when its run was charged.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whether `query` and `permit` are envelopes; of the hospital's own counts they are plain documents.
    pub signed: bool,
    /// The query.
    pub query: Vec<u8>,
    /// The permit.
    pub permit: Vec<u8>,
    /// The hospital's own rule for its patients at that hour.
    pub own_rule: OptOut,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked(..)")
    }
}

/// How a person names a run: by the number of its charge, or as QUESTION/RUN with the first digits of the query key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunName {
    /// The number of the charge at this node.
    Charge(i64),
    /// Which run of which question.
    Run {
        /// The first hexadecimal digits of the query key, at least four.
        question: String,
        /// The run.
        run: u32,
    },
}

impl FromStr for RunName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "name a charge by its number (12), or a run as QUESTION/RUN (3fa9c2d1e0ab/1)";
        let Some((question, run)) = text.split_once('/') else {
            let charge: i64 = text.parse().map_err(|_| WRONG)?;
            return if charge > 0 { Ok(Self::Charge(charge)) } else { Err(WRONG) };
        };
        let question = question.to_ascii_lowercase();
        let run: u32 = run.parse().map_err(|_| WRONG)?;
        let digits = question.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits || !(4..=64).contains(&question.len()) || run == 0 {
            return Err(WRONG);
        }
        Ok(Self::Run { question, run })
    }
}

/// Which charges are listed.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Those of one study.
    pub study: Option<String>,
    /// Those with one name.
    pub name: Option<RunName>,
    /// At most so many, the newest.
    pub limit: u32,
}

/// A charge, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// Its number at this node.
    pub charge_id: i64,
    /// The run.
    pub key: RunKey,
    /// The study that was charged.
    pub study_id: String,
    /// The digest of the message that was charged.
    pub query: Digest,
    /// What it cost.
    pub cost: Cost,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// When.
    pub charged_at: DateTime<Utc>,
    /// Whether it has its release.
    pub released: bool,
    /// Whether it was executed, at least once, without an answer.
    pub failed: bool,
    /// Whether it was charged in a database that was lost, so that its release is not here.
    pub lost: bool,
    /// Whether question and seed were kept, so that it can be made again.
    pub kept: bool,
    /// How often it was made again.
    pub replays: u64,
}

/// All that is kept of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The charge.
    pub charged: Charged,
    /// What the run is bound to, and its release.
    pub run: Run,
    /// The question.
    pub asked: Option<Asked>,
    /// The sealed seed of the release's noise.
    pub seed: Option<SealedSeed>,
    /// Whether the log has the release's receipt.
    pub logged: bool,
}

/// Stores the question of the charge that `request` made.
pub(super) async fn insert_asked(tx: &mut SqliteConnection, request: &ChargeRequest) -> Result<(), LedgerError> {
    let (key, asked) = (&request.key, &request.asked);
    sqlx::query(
        "INSERT INTO asked_permit (digest, document) SELECT ?1, ?2
        WHERE NOT EXISTS (SELECT 1 FROM asked_permit WHERE digest = ?1)",
    )
    .bind(key.permit.as_bytes().as_slice())
    .bind(asked.permit.as_slice())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO asked (charge_id, signed, query, own_rule) SELECT charge_id, ?4, ?5, ?6 FROM charge
        WHERE permit = ?1 AND query_key = ?2 AND run = ?3",
    )
    .bind(key.permit.as_bytes().as_slice())
    .bind(key.query_key.as_bytes().as_slice())
    .bind(key.run)
    .bind(asked.signed)
    .bind(asked.query.as_slice())
    // A name and a number: this cannot fail.
    .bind(serde_json::to_string(&asked.own_rule).unwrap_or_default())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Stores the sealed seed of a new release.
pub(super) async fn insert_seed(
    tx: &mut SqliteConnection,
    charge_id: i64,
    seed: &SealedSeed,
) -> Result<(), LedgerError> {
    sqlx::query("INSERT INTO release_seed (charge_id, key, nonce, sealed) VALUES (?1, ?2, ?3, ?4)")
        .bind(charge_id)
        .bind(seed.key.as_bytes().as_slice())
        .bind(seed.nonce.as_slice())
        .bind(seed.sealed.as_slice())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// The hospital's own rule, as it is stored.
pub(super) fn read_rule(stored: &str) -> Result<OptOut, StoreError> {
    serde_json::from_str(stored).map_err(|_| StoreError::Corrupt("opt-out rule"))
}

impl Ledger {
    /// The charges that are `wanted`, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn charges(&self, wanted: &Which) -> Result<Vec<Charged>, LedgerError> {
        let (charge, question, run) = match &wanted.name {
            None => (None, None, None),
            Some(RunName::Charge(charge)) => (Some(*charge), None, None),
            Some(RunName::Run { question, run }) => (None, Some(question.as_str()), Some(*run)),
        };
        let rows = sqlx::query(
            "SELECT c.charge_id, c.permit, c.query_key, c.run, c.study_id, c.query, c.micro_rho, c.atto_delta, c.as_of,
                c.charged_at, r.charge_id IS NOT NULL AS released,
                EXISTS (SELECT 1 FROM no_answer n WHERE n.charge_id = c.charge_id) AS failed,
                EXISTS (SELECT 1 FROM lost_run l WHERE l.charge_id = c.charge_id) AS lost,
                EXISTS (SELECT 1 FROM asked a WHERE a.charge_id = c.charge_id)
                    AND EXISTS (SELECT 1 FROM release_seed s WHERE s.charge_id = c.charge_id) AS kept,
                (SELECT count(*) FROM replay p WHERE p.charge_id = c.charge_id) AS replays
            FROM charge c LEFT JOIN release r ON r.charge_id = c.charge_id
            WHERE (?1 IS NULL OR c.study_id = ?1) AND (?2 IS NULL OR c.charge_id = ?2)
                AND (?3 IS NULL OR (substr(lower(hex(c.query_key)), 1, length(?3)) = ?3 AND c.run = ?4))
            ORDER BY c.charge_id DESC LIMIT ?5",
        )
        .bind(wanted.study.as_deref())
        .bind(charge)
        .bind(question)
        .bind(run)
        .bind(wanted.limit)
        .fetch_all(self.store.read())
        .await?;
        rows.iter().map(charged).collect()
    }

    /// All that is kept of a charge; none when there is no such charge.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn kept(&self, charge_id: i64) -> Result<Option<Kept>, LedgerError> {
        let wanted = Which { name: Some(RunName::Charge(charge_id)), limit: 1, ..Which::default() };
        let Some(charged) = self.charges(&wanted).await?.pop() else { return Ok(None) };
        let mut connection = self.store.read().acquire().await?;
        let run = find(&mut connection, &charged.key).await?.ok_or(StoreError::Corrupt("charge"))?;
        let asked = asked(&mut connection, &charged).await?;
        let seed = sqlx::query("SELECT key, nonce, sealed FROM release_seed WHERE charge_id = ?1")
            .bind(charge_id)
            .fetch_optional(&mut *connection)
            .await?;
        let seed = seed.map(|row| sealed(&row)).transpose()?;
        let logged = match &run.state {
            RunState::Released(release) => {
                let found = log_store::find(&mut connection, Kind::Receipt, &release.receipt).await;
                found.map_err(StoreError::from)?.is_some()
            }
            RunState::Reserved | RunState::Lost => false,
        };
        Ok(Some(Kept { charged, run, asked, seed, logged }))
    }

    /// The question of a charge, where it was kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn asked(&self, charged: &Charged) -> Result<Option<Asked>, LedgerError> {
        asked(&mut *self.store.read().acquire().await?, charged).await
    }

    /// Notes a replay, and appends the signed account of it to the log, in one transaction that is durable on return.
    ///
    /// # Errors
    /// When the database fails; then nothing of the replay may be shown.
    pub async fn record_replay(&self, charge_id: i64, envelope: &[u8], at: DateTime<Utc>) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        sqlx::query("INSERT INTO replay (charge_id, at) VALUES (?1, ?2)")
            .bind(charge_id)
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        append(&mut tx, Kind::Replay, envelope).await?;
        Ok(tx.commit().await?)
    }
}

async fn asked(connection: &mut SqliteConnection, charged: &Charged) -> Result<Option<Asked>, LedgerError> {
    let asked = sqlx::query(
        "SELECT a.signed, a.query, a.own_rule, p.document FROM asked a
        LEFT JOIN asked_permit p ON p.digest = ?2 WHERE a.charge_id = ?1",
    )
    .bind(charged.charge_id)
    .bind(charged.key.permit.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    let read = |row: SqliteRow| {
        Ok(Asked {
            signed: row.try_get("signed")?,
            query: row.try_get("query")?,
            permit: row.try_get::<Option<Vec<u8>>, _>("document")?.unwrap_or_default(),
            own_rule: read_rule(row.try_get("own_rule")?)?,
        })
    };
    asked.map(read).transpose()
}

fn sealed(row: &SqliteRow) -> Result<SealedSeed, LedgerError> {
    let wrong = |_| StoreError::Corrupt("sealed seed");
    Ok(SealedSeed {
        key: read_digest(row.try_get("key")?)?,
        nonce: row.try_get::<&[u8], _>("nonce")?.try_into().map_err(wrong)?,
        sealed: row.try_get::<&[u8], _>("sealed")?.try_into().map_err(wrong)?,
    })
}

fn charged(row: &SqliteRow) -> Result<Charged, LedgerError> {
    let (micro_rho, atto_delta): (MicroRho, AttoDelta) =
        (read_amount(row.try_get("micro_rho")?)?, read_delta(row.try_get("atto_delta")?)?);
    Ok(Charged {
        charge_id: row.try_get("charge_id")?,
        key: RunKey {
            permit: read_digest(row.try_get("permit")?)?,
            query_key: read_digest(row.try_get("query_key")?)?,
            run: row.try_get("run")?,
        },
        study_id: row.try_get("study_id")?,
        query: read_digest(row.try_get("query")?)?,
        cost: Cost { micro_rho, atto_delta },
        as_of: row.try_get::<&str, _>("as_of")?.parse().map_err(|_| StoreError::Corrupt("day"))?,
        charged_at: read_instant(row.try_get("charged_at")?)?,
        released: row.try_get("released")?,
        failed: row.try_get("failed")?,
        lost: row.try_get("lost")?,
        kept: row.try_get("kept")?,
        replays: row.try_get::<i64, _>("replays")?.unsigned_abs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_charge_or_by_question_and_run() {
        let run = |question: &str, run| RunName::Run { question: question.into(), run };
        for (text, expect) in [
            ("12", Some(RunName::Charge(12))),
            ("3FA9c2/2", Some(run("3fa9c2", 2))),
            ("0", None),
            ("-1", None),
            ("", None),
            ("3fa9", None),
            ("3fa/1", None),
            ("3fax/1", None),
            ("3fa9/0", None),
            ("3fa9/", None),
            (&format!("{}/1", "a".repeat(65)), None),
        ] {
            assert_eq!(text.parse::<RunName>().ok(), expect, "{text}");
        }
    }
}
