//! The ledger: what every study was charged against the patient register, and what each run released.
//!
//! Promises: a charge is durable, and its record in the log, before [`Ledger::reserve`] returns; a study is
//! never charged beyond its earmark or its permit's totals, nor all studies beyond the lifetime caps or, in a time
//! window, beyond its cap ([`Caps`]), nor one run twice; a run has one release, ever; the charges and the
//! releases are append-only (triggers in the database see to it). Amounts are zCDP in integer micro-rho, so sums are
//! exact (Bun and Steinke 2016, Lemma 1.7), and delta in units of 10^-18, which adds up beside it. Earmarks are of rho:
//! delta is not set aside for a study.
//!
//! Deliberately absent: any refund (a run that fails has cost), any reset of what a study spent when its
//! permit is superseded, the compiled-in ceilings (checked before a [`ChargeRequest`] is made), and any
//! knowledge of what the bytes of a release mean.

mod alerts;
mod caps;
mod error;
mod exact;
mod operations;
mod releases;
mod replays;
mod run;
mod statements;
mod suspension;
#[cfg(test)]
mod tests;
mod write_off;

use chrono::{DateTime, Utc};
use sekisho_node_config::Window;
use sekisho_protocol::{
    log::entry::Kind,
    units::{AttoDelta, MicroRho},
};
use sqlx::{Row, sqlite::SqliteRow};

pub use self::alerts::{MAX_ALERTS, NewAlert, Sighted};
pub use self::caps::{Caps, Cost, Left};
pub use self::error::LedgerError;
pub use self::exact::{
    Decided, Decision, ExactRelease, ExactRequest, MAX_EXACT, MAX_WAITING, NewRelease, NewRequest, Recorded,
};
pub(crate) use self::operations::note;
pub use self::operations::{Act, COMMAND_LINE, MAX_OPERATIONS, Operation, Said, reason};
pub use self::releases::ReleasedRuns;
pub use self::replays::{Asked, Charged, Kept, RunName, Which};
pub use self::run::{ChargeRequest, Reserved, Run, RunKey, RunState, StoredRelease};
pub use self::suspension::{Suspended, Suspension};
pub use self::write_off::{Loss, Recovered, WriteOffError};

use self::caps::{read_delta, spent_in};
use self::replays::{insert_asked, insert_seed};
use self::statements::{earmark_of, find, insert_charge, open_charge, use_nonce};
use crate::{
    log::{Log, append},
    seeds::SealedSeed,
    store::{self, Store, StoreError, instant, read_amount},
};

/// How many charged runs without an answer suspend their study; answers between them change nothing.
pub const MAX_NO_ANSWERS: u32 = 3;

/// What the register may still be asked, in micro-rho where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The lifetime cap.
    pub cap: MicroRho,
    /// What all studies spent.
    pub spent: MicroRho,
    /// What is set aside for all studies, spent or not.
    pub earmarked: MicroRho,
    /// The lifetime cap on delta.
    pub cap_delta: AttoDelta,
    /// The delta that all studies spent.
    pub spent_delta: AttoDelta,
    /// The studies, by id.
    pub studies: Vec<StudyBudget>,
}

/// The window's cap, and what counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBudget {
    /// The days and the cap.
    pub window: Window,
    /// What all studies spent in these days, in micro-rho.
    pub spent: MicroRho,
}

impl WindowBudget {
    /// What may be spent now, in micro-rho.
    pub fn left(&self) -> MicroRho {
        self.window.micro_rho.saturating_sub(self.spent)
    }
}

/// One study's share, in micro-rho where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyBudget {
    /// The study.
    pub study_id: String,
    /// What is set aside for it.
    pub earmark: MicroRho,
    /// What it spent of that.
    pub spent: MicroRho,
    /// The delta that it spent; its permit says how much it may.
    pub spent_delta: AttoDelta,
    /// Whether it rests after too many runs without an answer, or is suspended by the hospital.
    pub suspended: bool,
}

/// A snapshot that runs are bound to: it must stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotUse {
    /// The snapshot's id.
    pub snapshot: String,
    /// The runs that were charged on it.
    pub runs: u64,
    /// How many of them have their release; the others may be asked for again.
    pub releases: u64,
}

/// The ledger of one patient register. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    caps: Caps,
}

impl Ledger {
    /// The ledger in `store`, under the hospital's caps.
    pub fn new(store: Store, caps: Caps) -> Self {
        Self { store, caps }
    }

    /// The log that the ledger writes to.
    pub fn log(&self) -> Log {
        Log::new(self.store.clone())
    }

    /// Sets `amount` aside for a study: its earmark becomes the greater of `amount` and what it was, so a
    /// permit's newer version adds nothing to what an older one gave. Returns the earmark.
    ///
    /// # Errors
    /// [`LedgerError::Lifetime`] when all earmarks together would pass the lifetime cap.
    pub async fn earmark(&self, study_id: &str, amount: MicroRho) -> Result<MicroRho, LedgerError> {
        let mut tx = self.store.write().await?;
        let before = earmark_of(&mut tx, study_id).await?;
        if let Some(before) = before.filter(|before| *before >= amount) {
            return Ok(before);
        }
        let others: i64 = sqlx::query_scalar("SELECT coalesce(sum(earmark), 0) FROM study WHERE study_id <> ?1")
            .bind(study_id)
            .fetch_one(&mut *tx)
            .await?;
        let left = self.caps.lifetime.micro_rho.saturating_sub(read_amount(others)?);
        if amount > left {
            return Err(LedgerError::Lifetime { left, asked: amount });
        }
        let statement = match before {
            Some(_) => "UPDATE study SET earmark = ?2 WHERE study_id = ?1",
            None => "INSERT INTO study (study_id, earmark) VALUES (?1, ?2)",
        };
        sqlx::query(statement).bind(study_id).bind(store::amount(amount)).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(amount)
    }

    /// What is left at `now` before a charge of `cost` under a permit of `permit_total`, for dry runs: nothing is written.
    ///
    /// # Errors
    /// [`LedgerError::Study`], [`LedgerError::StudyDelta`], [`LedgerError::Lifetime`], [`LedgerError::LifetimeDelta`] or
    /// [`LedgerError::Window`] when the charge would be refused.
    pub async fn check(
        &self,
        study_id: &str,
        permit_total: Cost,
        cost: Cost,
        now: DateTime<Utc>,
    ) -> Result<Left, LedgerError> {
        // A read transaction: all sums are of one state.
        let mut tx = self.store.read().begin().await.map_err(StoreError::from)?;
        self.caps.affordable(&mut tx, study_id, permit_total, cost, now).await
    }

    /// The run `key`, when it was charged.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, key: &RunKey) -> Result<Option<Run>, LedgerError> {
        let mut connection = self.store.read().acquire().await?;
        find(&mut connection, key).await
    }

    /// Charges a run, stores its question and appends `log_entry` (the envelope of its reservation record) to the
    /// log, in one transaction that is durable on return. A run that was charged before is returned as it is.
    ///
    /// # Errors
    /// When the study is suspended, another message used the nonce, the study or the register cannot pay, or the database
    /// fails; then nothing was charged.
    pub async fn reserve(&self, request: &ChargeRequest, log_entry: &[u8]) -> Result<Reserved, LedgerError> {
        let mut tx = self.store.write().await?;
        suspension::open(&mut tx, &request.study_id, request.key.permit).await?;
        use_nonce(&mut tx, &request.nonce, request.query, request.nonce_expires, request.at).await?;
        if let Some(run) = find(&mut tx, &request.key).await? {
            if run.state == RunState::Lost {
                return Err(LedgerError::Lost);
            }
            tx.commit().await?;
            return Ok(Reserved::Existing(run));
        }
        let (study, total) = (&request.study_id, request.permit_total);
        self.caps.affordable(&mut tx, study, total, request.cost, request.at).await?;
        insert_charge(&mut tx, request).await?;
        insert_asked(&mut tx, request).await?;
        append(&mut tx, Kind::Reservation, log_entry).await?;
        let run = find(&mut tx, &request.key).await?.ok_or(StoreError::Corrupt("charge"))?;
        tx.commit().await?;
        Ok(Reserved::New(run))
    }

    /// Stores the one release of a charged run with the sealed seed of its noise, and appends its receipt to the log,
    /// in one transaction that is durable on return.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyReleased`] when the run has a release, [`LedgerError::UnknownCharge`] when it was
    /// not charged, or when the database fails; then the release must not leave the node.
    pub async fn complete(
        &self,
        charge_id: i64,
        release: &StoredRelease,
        seed: &SealedSeed,
    ) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        open_charge(&mut tx, charge_id).await?;
        sqlx::query("INSERT INTO release (charge_id, header, cells, receipt, salts) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(charge_id)
            .bind(release.header.as_slice())
            .bind(release.cells.as_slice())
            .bind(release.receipt.as_slice())
            .bind(release.salts.as_slice())
            .execute(&mut *tx)
            .await?;
        insert_seed(&mut tx, charge_id, seed).await?;
        append(&mut tx, Kind::Receipt, &release.receipt).await?;
        Ok(tx.commit().await?)
    }

    /// Notes that a charged run gave no answer, and appends `log_entry` (the envelope of its record) to the log; the charge
    /// stands.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyReleased`] when it did give one, [`LedgerError::UnknownCharge`] when it was not
    /// charged, or when the database fails.
    pub async fn fail(&self, charge_id: i64, log_entry: &[u8], at: DateTime<Utc>) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        open_charge(&mut tx, charge_id).await?;
        sqlx::query("INSERT INTO no_answer (charge_id, at) VALUES (?1, ?2)")
            .bind(charge_id)
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        let count = "UPDATE study SET no_answers = no_answers + 1
            WHERE study_id = (SELECT study_id FROM charge WHERE charge_id = ?1)";
        sqlx::query(count).bind(charge_id).execute(&mut *tx).await?;
        append(&mut tx, Kind::Refusal, log_entry).await?;
        Ok(tx.commit().await?)
    }

    /// Gives back what is set aside for a study and was not spent, when none of its permits is accepted here any longer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn give_back(&self, study_id: &str) -> Result<(), LedgerError> {
        let mut tx = self.store.write().await?;
        sqlx::query(
            "UPDATE study SET earmark = spent WHERE study_id = ?1
                AND NOT EXISTS (SELECT 1 FROM permit WHERE permit.study_id = ?1 AND refused IS NULL)",
        )
        .bind(study_id)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// What was set aside and spent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn budget(&self) -> Result<Budget, LedgerError> {
        let rows = sqlx::query(
            "SELECT study_id, earmark, no_answers, spent, spent_delta,
                EXISTS (SELECT 1 FROM suspension WHERE study_id IN ('*', study.study_id)) AS suspended
            FROM study ORDER BY study_id",
        )
        .fetch_all(self.store.read())
        .await?;
        let mut budget = Budget {
            cap: self.caps.lifetime.micro_rho,
            spent: MicroRho::ZERO,
            earmarked: MicroRho::ZERO,
            cap_delta: self.caps.lifetime.atto_delta,
            spent_delta: AttoDelta::ZERO,
            studies: Vec::new(),
        };
        for row in rows {
            let study = StudyBudget {
                study_id: row.try_get("study_id")?,
                earmark: read_amount(row.try_get("earmark")?)?,
                spent: read_amount(row.try_get("spent")?)?,
                spent_delta: read_delta(row.try_get("spent_delta")?)?,
                suspended: rests(row.try_get("no_answers")?) || row.try_get::<bool, _>("suspended")?,
            };
            budget.spent = budget.spent.saturating_add(study.spent);
            budget.earmarked = budget.earmarked.saturating_add(study.earmark);
            budget.spent_delta = budget.spent_delta.saturating_add(study.spent_delta);
            budget.studies.push(study);
        }
        Ok(budget)
    }

    /// The window that ends at `now`, where the hospital set one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn window(&self, now: DateTime<Utc>) -> Result<Option<WindowBudget>, LedgerError> {
        let Some(window) = self.caps.window else { return Ok(None) };
        let mut connection = self.store.read().acquire().await?;
        Ok(Some(WindowBudget { window, spent: spent_in(&mut connection, window, now).await? }))
    }

    /// The snapshots that charged runs are bound to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotUse>, LedgerError> {
        let rows = sqlx::query(
            "SELECT c.snapshot, count(*) AS runs, count(r.charge_id) AS releases
            FROM charge c LEFT JOIN release r ON r.charge_id = c.charge_id
            WHERE NOT EXISTS (SELECT 1 FROM lost_run l WHERE l.charge_id = c.charge_id)
            GROUP BY c.snapshot ORDER BY c.snapshot",
        )
        .fetch_all(self.store.read())
        .await?;
        let count = |row: &SqliteRow, name: &str| {
            let count: i64 = row.try_get(name)?;
            Ok::<_, LedgerError>(u64::try_from(count).map_err(|_| StoreError::Corrupt("count"))?)
        };
        let usage = |row: SqliteRow| {
            let snapshot = row.try_get("snapshot")?;
            Ok(SnapshotUse { snapshot, runs: count(&row, "runs")?, releases: count(&row, "releases")? })
        };
        rows.into_iter().map(usage).collect()
    }
}

fn rests(no_answers: i64) -> bool {
    no_answers >= i64::from(MAX_NO_ANSWERS)
}
