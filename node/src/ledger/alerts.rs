//! Alerts: what the node noticed, signed, in the log; and what rules count.
//!
//! Promises: an alert, its entry in the log and the suspension that it brings are durable together before [`Ledger::raise`]
//! returns. How often alerts may come is its caller's to bound.

use chrono::{DateTime, Utc};
use sekisho_protocol::{alert::Rule, log::entry::Kind, units::MicroRho};
use sqlx::{Row, sqlite::SqliteRow};

use super::{Ledger, LedgerError, Suspended, suspension};
use crate::log::{append, append_once};
use crate::store::{StoreError, instant, read_amount, read_instant};

/// The most alerts that are read at once.
pub const MAX_ALERTS: u32 = 1000;

/// An alert as it goes to the log.
#[derive(Clone, Debug)]
pub struct NewAlert<'a> {
    /// What spoke.
    pub rule: Rule,
    /// About which study.
    pub study_id: Option<&'a str>,
    /// When.
    pub at: DateTime<Utc>,
    /// The DSSE envelope.
    pub envelope: &'a [u8],
    /// Signed checkpoints of another party's log that it is about: entered in the log with it.
    pub evidence: &'a [Vec<u8>],
}

/// When a rule's events happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// The rule.
    pub rule: Rule,
    /// About which study.
    pub study_id: Option<String>,
    /// The hours, the oldest first.
    pub times: Vec<DateTime<Utc>>,
}

/// How a study is stored; the empty text is no study's id.
fn key(study_id: Option<&str>) -> &str {
    study_id.unwrap_or_default()
}

impl Ledger {
    /// Suspends a study for the reason in `suspend`, appends an alert to the log, or both, in one transaction.
    ///
    /// # Errors
    /// When the database fails; then neither was done.
    pub async fn raise(
        &self,
        alert: Option<&NewAlert<'_>>,
        suspend: Option<(&str, &str, DateTime<Utc>)>,
    ) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        if let Some((study, reason, at)) = suspend {
            suspension::put(&mut tx, &Suspended::Study(study.into()), reason, at).await?;
        }
        if let Some(NewAlert { rule, study_id, at, envelope, evidence }) = alert {
            sqlx::query(
                "INSERT INTO alert (alert, rule, study_id, at, envelope)
                VALUES ((SELECT coalesce(max(alert), 0) + 1 FROM alert), ?1, ?2, ?3, ?4)",
            )
            .bind(rule.as_str())
            .bind(key(*study_id))
            .bind(instant(*at))
            .bind(*envelope)
            .execute(&mut *tx)
            .await?;
            for checkpoint in *evidence {
                append_once(&mut tx, Kind::Checkpoint, checkpoint).await?;
            }
            append(&mut tx, Kind::Alert, envelope).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The envelopes of the newest alerts, at most [`MAX_ALERTS`], the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alerts(&self, most: u32) -> Result<Vec<Vec<u8>>, LedgerError> {
        let envelopes = sqlx::query_scalar("SELECT envelope FROM alert ORDER BY alert DESC LIMIT ?1");
        Ok(envelopes.bind(most.min(MAX_ALERTS)).fetch_all(self.store.read()).await?)
    }

    /// When `rule` last spoke about this study.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_alert(&self, rule: Rule, study_id: Option<&str>) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let last: Option<String> = sqlx::query_scalar("SELECT max(at) FROM alert WHERE rule = ?1 AND study_id = ?2")
            .bind(rule.as_str())
            .bind(key(study_id))
            .fetch_one(self.store.read())
            .await?;
        Ok(last.as_deref().map(read_instant).transpose()?)
    }

    /// How many alerts there are from after `since` on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn alerts_after(&self, since: DateTime<Utc>) -> Result<u64, LedgerError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM alert WHERE at > ?1")
            .bind(instant(since))
            .fetch_one(self.store.read())
            .await?;
        Ok(count.unsigned_abs())
    }

    /// How often charged runs of a study gave no answer after `since`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn no_answers_after(&self, study_id: &str, since: DateTime<Utc>) -> Result<u64, LedgerError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM no_answer n JOIN charge c ON c.charge_id = n.charge_id
            WHERE n.at > ?1 AND c.study_id = ?2",
        )
        .bind(instant(since))
        .bind(study_id)
        .fetch_one(self.store.read())
        .await?;
        Ok(count.unsigned_abs())
    }

    /// What a study, or without one every study, was charged after `since`, in micro-rho.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn charged_after(&self, study_id: Option<&str>, since: DateTime<Utc>) -> Result<MicroRho, LedgerError> {
        let sum: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(micro_rho), 0) FROM charge WHERE charged_at > ?1 AND (?2 IS NULL OR study_id = ?2)",
        )
        .bind(instant(since))
        .bind(study_id)
        .fetch_one(self.store.read())
        .await?;
        Ok(read_amount(sum)?)
    }

    /// What is set aside for a study.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn earmarked(&self, study_id: &str) -> Result<Option<MicroRho>, LedgerError> {
        let mut connection = self.store.read().acquire().await?;
        super::statements::earmark_of(&mut connection, study_id).await
    }

    /// Whether the hospital suspended the study, or everything.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_suspended(&self, study_id: &str) -> Result<bool, LedgerError> {
        Ok(suspension::found(&mut *self.store.read().acquire().await?, study_id).await?.is_some())
    }

    /// What rules had counted when it was last written down.
    ///
    /// # Errors
    /// When the database fails, or holds what is no event.
    pub async fn sightings(&self) -> Result<Vec<Sighted>, LedgerError> {
        let rows = sqlx::query("SELECT rule, study_id, at FROM sighting ORDER BY rule, study_id, at");
        let mut sightings: Vec<Sighted> = Vec::new();
        for row in rows.fetch_all(self.store.read()).await? {
            let (rule, study_id, at) = sighting(&row)?;
            match sightings.last_mut().filter(|last| (last.rule, &last.study_id) == (rule, &study_id)) {
                Some(last) => last.times.push(at),
                None => sightings.push(Sighted { rule, study_id, times: vec![at] }),
            }
        }
        Ok(sightings)
    }

    /// Writes down what rules have counted, in the place of what was written of the same rule and study.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_sightings(&self, sightings: &[Sighted]) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        for Sighted { rule, study_id, times } in sightings {
            sqlx::query("DELETE FROM sighting WHERE rule = ?1 AND study_id = ?2")
                .bind(rule.as_str())
                .bind(key(study_id.as_deref()))
                .execute(&mut *tx)
                .await?;
            for at in times {
                sqlx::query("INSERT INTO sighting (rule, study_id, at) VALUES (?1, ?2, ?3)")
                    .bind(rule.as_str())
                    .bind(key(study_id.as_deref()))
                    .bind(instant(*at))
                    .execute(&mut *tx)
                    .await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// The lifetime cap, in micro-rho.
    pub fn lifetime(&self) -> MicroRho {
        self.caps.lifetime.micro_rho
    }

    /// That the database takes a writer.
    ///
    /// # Errors
    /// When it does not.
    pub async fn writable(&self) -> Result<(), LedgerError> {
        let tx = self.store.write().await?;
        Ok(tx.rollback().await?)
    }
}

fn sighting(row: &SqliteRow) -> Result<(Rule, Option<String>, DateTime<Utc>), LedgerError> {
    let rule = row.try_get::<&str, _>("rule")?.parse().map_err(|_| StoreError::Corrupt("rule"))?;
    let study: String = row.try_get("study_id")?;
    Ok((rule, Some(study).filter(|study| !study.is_empty()), read_instant(row.try_get("at")?)?))
}
