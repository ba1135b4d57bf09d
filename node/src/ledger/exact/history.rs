//! The history of exact releases: the record of a new one, and every earlier one that the guard looks back at.

use chrono::{DateTime, NaiveDate, Utc};
use futures::TryStreamExt;
use sekisho_aggregation::exact::Cohort;
use sekisho_protocol::{log::entry::Kind, permit::ReleaseKind, receipt::Receipt};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    super::{
        ChargeRequest, Ledger, LedgerError, Run, RunKey, Said,
        replays::insert_asked,
        statements::{find, insert_charge},
        suspension,
    },
    Decided, Decision, MAX_EXACT, decide, decision_of,
};
use crate::{
    exact::guard::{Candidate, Close, Earlier},
    log::append,
    store::{StoreError, instant, read_digest, read_instant},
};

/// An exact release that was recorded, as it is listed: not whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactRelease {
    /// Its number at this node.
    pub release: i64,
    /// What the guard knows of it.
    pub earlier: Earlier,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// Whether it was made.
    pub made: bool,
}

/// What a release is recorded with.
pub struct NewRelease<'a> {
    /// The request that is decided.
    pub request: i64,
    /// What the run is bound to. It costs nothing.
    pub charge: &'a ChargeRequest,
    /// What the guard looks at.
    pub candidate: Candidate<'a>,
    /// Who decides, by name.
    pub who: &'a str,
    /// Why, and by which door.
    pub said: Said<'a>,
    /// The envelope of the reservation.
    pub reservation: &'a [u8],
    /// The envelope of the refusal, should the guard say no.
    pub refusal: &'a [u8],
}

/// What became of a record.
pub enum Recorded {
    /// It is durable now.
    New(Run),
    /// It was before: the release may be missing.
    Existing(Run),
    /// It was refused before.
    Refused(Decision),
    /// The guard says no, for ever.
    TooClose(Close),
}

impl Ledger {
    /// Every exact release of this register that was recorded, the newest first; at most [`MAX_EXACT`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_releases(&self) -> Result<Vec<ExactRelease>, LedgerError> {
        let rows = sqlx::query(
            "SELECT e.release, e.query_key, e.run, e.study_id, e.sql, e.cut, e.min_patients, e.at,
                r.charge_id IS NOT NULL AS made
            FROM exact_release e
            LEFT JOIN charge c ON c.permit = e.permit AND c.query_key = e.query_key AND c.run = e.run
            LEFT JOIN release r ON r.charge_id = c.charge_id
            ORDER BY e.release DESC LIMIT ?1",
        )
        .bind(MAX_EXACT)
        .fetch_all(self.store.read())
        .await?;
        let read = |row: &SqliteRow| {
            Ok(ExactRelease {
                release: row.try_get("release")?,
                earlier: earlier(row)?,
                at: read_instant(row.try_get("at")?)?,
                made: row.try_get("made")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The day since which no guarantee of differential privacy holds for this register: none while nothing exact was released.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_since(&self) -> Result<Option<NaiveDate>, LedgerError> {
        let day: Option<String> =
            sqlx::query_scalar("SELECT min(day) FROM exact_since").fetch_one(self.store.read()).await?;
        Ok(day.map(|day| day.parse().map_err(|_| StoreError::Corrupt("day"))).transpose()?)
    }

    /// The least number of patients that an exact release was recorded with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn exact_least(&self, key: &RunKey) -> Result<Option<u32>, LedgerError> {
        let sql = "SELECT min_patients FROM exact_release WHERE permit = ?1 AND query_key = ?2 AND run = ?3";
        let least = sqlx::query_scalar(sql)
            .bind(key.permit.as_bytes().as_slice())
            .bind(key.query_key.as_bytes().as_slice())
            .bind(key.run)
            .fetch_optional(self.store.read());
        Ok(least.await?)
    }

    /// Whom an exact release is about, where that is known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cohort(&self, key: &RunKey) -> Result<Option<Cohort>, LedgerError> {
        let patients: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT c.patients FROM exact_release e JOIN cohort c ON c.release = e.release
            WHERE e.permit = ?1 AND e.query_key = ?2 AND e.run = ?3",
        )
        .bind(key.permit.as_bytes().as_slice())
        .bind(key.query_key.as_bytes().as_slice())
        .bind(key.run)
        .fetch_optional(self.store.read())
        .await?;
        let read = |bytes: Vec<u8>| Cohort::from_bytes(&bytes).map_err(|_| StoreError::Corrupt("cohort"));
        Ok(patients.map(read).transpose()?)
    }

    /// What the guard says of a release now. Nothing is written: [`Ledger::record_exact`] looks again.
    ///
    /// # Errors
    /// [`LedgerError::OtherCohorts`] when an earlier cohort is under another key; when the database fails.
    pub async fn exact_verdict(&self, candidate: &Candidate<'_>) -> Result<Option<Close>, LedgerError> {
        let mut tx = self.store.read().begin().await.map_err(StoreError::from)?;
        closest(&mut tx, candidate).await
    }

    /// Decides a request: the guard looks, and decision, cohort, and what the run is bound to become durable with their entry of
    /// the log, before anything is released. Of a request that was let out before the record is returned as it is.
    ///
    /// # Errors
    /// When the study is suspended, there is no such request, an earlier cohort is under another key, or the database fails; then
    /// nothing was written.
    pub async fn record_exact(&self, new: &NewRelease<'_>) -> Result<Recorded, LedgerError> {
        let (charge, candidate) = (new.charge, &new.candidate);
        let mut tx = self.store.write().await?;
        suspension::open(&mut tx, &charge.study_id, charge.key.permit).await?;
        match decision_of(&mut tx, new.request, &charge.key).await? {
            Some(Decision { decided: Decided::Released, .. }) => {
                let run = find(&mut tx, &charge.key).await?.ok_or(StoreError::Corrupt("exact release"))?;
                return Ok(Recorded::Existing(run));
            }
            Some(decision) => return Ok(Recorded::Refused(decision)),
            None => {}
        }
        if let Some(close) = closest(&mut tx, candidate).await? {
            decide(&mut tx, new.request, Decided::TooClose, new.who, &new.said).await?;
            append(&mut tx, Kind::Refusal, new.refusal).await?;
            tx.commit().await?;
            return Ok(Recorded::TooClose(close));
        }
        insert_release(&mut tx, new).await?;
        since(&mut tx, charge.as_of).await?;
        insert_charge(&mut tx, charge).await?;
        insert_asked(&mut tx, charge).await?;
        decide(&mut tx, new.request, Decided::Released, new.who, &new.said).await?;
        append(&mut tx, Kind::Reservation, new.reservation).await?;
        let run = find(&mut tx, &charge.key).await?.ok_or(StoreError::Corrupt("charge"))?;
        tx.commit().await?;
        Ok(Recorded::New(run))
    }
}

fn earlier(row: &SqliteRow) -> Result<Earlier, LedgerError> {
    let sql: Option<&[u8]> = row.try_get("sql")?;
    let run: u32 = row.try_get("run")?;
    let min_patients: i64 = row.try_get("min_patients")?;
    Ok(Earlier {
        name: format!("{}/{run}", read_digest(row.try_get("query_key")?)?.short()),
        study_id: row.try_get("study_id")?,
        sql: sql.map(read_digest).transpose()?,
        cut: row.try_get::<&str, _>("cut")?.parse().map_err(|_| StoreError::Corrupt("day"))?,
        min_patients: u32::try_from(min_patients).map_err(|_| StoreError::Corrupt("least number of patients"))?,
        on: read_instant(row.try_get("at")?)?.date_naive(),
    })
}

/// Why `candidate` may not be released: the first earlier release that it is too close to. One cohort after the other is read.
async fn closest(tx: &mut SqliteConnection, candidate: &Candidate<'_>) -> Result<Option<Close>, LedgerError> {
    if let Some(few) = candidate.few() {
        return Ok(Some(few));
    }
    let mut rows = sqlx::query(
        "SELECT e.query_key, e.run, e.study_id, e.sql, e.cut, e.min_patients, e.at, c.key AS cohort_key, c.patients
        FROM exact_release e LEFT JOIN cohort c ON c.release = e.release ORDER BY e.release",
    )
    .fetch(tx);
    while let Some(row) = rows.try_next().await? {
        let earlier = earlier(&row)?;
        if let Some(close) = candidate.same_cut(&earlier) {
            return Ok(Some(close));
        }
        let Some(patients) = row.try_get::<Option<&[u8]>, _>("patients")? else {
            return Ok(Some(Close::Lost(earlier)));
        };
        if read_digest(row.try_get("cohort_key")?)? != candidate.key {
            return Err(LedgerError::OtherCohorts { name: earlier.name });
        }
        let cohort = Cohort::from_bytes(patients).map_err(|_| StoreError::Corrupt("cohort"))?;
        if let Some(close) = candidate.near(&earlier, &cohort) {
            return Ok(Some(close));
        }
    }
    Ok(None)
}

/// Enters a release in the history, with its cohort.
async fn insert_release(tx: &mut SqliteConnection, new: &NewRelease<'_>) -> Result<(), LedgerError> {
    let (charge, candidate) = (new.charge, &new.candidate);
    let release = enter(tx, &charge.key, &charge.study_id, Some(candidate), (candidate.cut, charge.at)).await?;
    sqlx::query("INSERT INTO cohort (release, key, patients) VALUES (?1, ?2, ?3)")
        .bind(release)
        .bind(candidate.key.as_bytes().as_slice())
        .bind(candidate.cohort.to_bytes())
        .execute(tx)
        .await?;
    Ok(())
}

async fn enter(
    tx: &mut SqliteConnection,
    key: &RunKey,
    study_id: &str,
    candidate: Option<&Candidate<'_>>,
    (cut, at): (NaiveDate, DateTime<Utc>),
) -> Result<i64, LedgerError> {
    let release = sqlx::query_scalar(
        "INSERT INTO exact_release (release, permit, query_key, run, study_id, sql, cut, min_patients, at)
        VALUES ((SELECT coalesce(max(release), 0) + 1 FROM exact_release), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        RETURNING release",
    )
    .bind(key.permit.as_bytes().as_slice())
    .bind(key.query_key.as_bytes().as_slice())
    .bind(key.run)
    .bind(study_id)
    .bind(candidate.map(|candidate| candidate.sql.as_bytes().to_vec()))
    .bind(cut.to_string())
    .bind(candidate.map_or(0, |candidate| candidate.min_patients))
    .bind(instant(at))
    .fetch_one(tx)
    .await?;
    Ok(release)
}

/// Notes that no guarantee holds since `day`.
async fn since(tx: &mut SqliteConnection, day: NaiveDate) -> Result<(), LedgerError> {
    sqlx::query("INSERT INTO exact_since (day) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM exact_since WHERE day <= ?1)")
        .bind(day.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes what a receipt from a lost database tells of exact releases: this one, of which nobody knows the cohort any more, or
/// since when there were any.
pub(in crate::ledger) async fn remember(tx: &mut SqliteConnection, receipt: &Receipt) -> Result<(), LedgerError> {
    if let Some(day) = receipt.exact_since {
        since(tx, day).await?;
    }
    let key = RunKey { permit: receipt.permit, query_key: receipt.query_key, run: receipt.run };
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM exact_release WHERE permit = ?1 AND query_key = ?2 AND run = ?3)",
    )
    .bind(key.permit.as_bytes().as_slice())
    .bind(key.query_key.as_bytes().as_slice())
    .bind(key.run)
    .fetch_one(&mut *tx)
    .await?;
    if receipt.release_kind == ReleaseKind::Aggregated && !known {
        enter(tx, &key, &receipt.study_id, None, (receipt.as_of, receipt.at)).await?;
    }
    Ok(())
}
