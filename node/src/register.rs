//! The patient register: who was told, who opted out or came back, who died; and from that, who is eligible.
//!
//! Promises: events are only ever added, so the set that a query ran on can be made again from its date and
//! its place in the register ([`Register::eligible`] counts events up to `at_seq` only); an opt-out acts from
//! its date on; an import, and a list of events, is taken whole or not at all. The rules are those of Japan's NGMIA (Act No. 28 of
//! 2017: notice and a period before first use) and of EHDS Art. 71.
//!
//! No patient id is in any error, log or `Debug` of this module. Deliberately absent: any count that leaves
//! the hospital ([`Register::counts`] is for its own screen), and correcting or deleting an event: a mistake is
//! followed by another event.

mod csv;
mod eligible;
mod encoding;
mod entry;
mod event;
mod import;
mod once;
mod shown;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, NaiveDate, Utc};
use futures::TryStreamExt;
use sekisho_protocol::{
    digest::Digest,
    permit::OptOut,
    refusal::{Code, Refusal},
    schema::Kind,
};
use sha2::{Digest as _, Sha256};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

pub use self::csv::MAX_LINE_BYTES;
pub use self::eligible::EligibleSet;
pub use self::encoding::Encoding;
pub use self::entry::{Entry, day};
pub use self::event::{Event, EventKind, SaidBy};
pub use self::import::{Imported, Importing};
pub use self::once::{KEPT_DAYS, Once, OnceKey};
pub use self::shown::rule_name;
pub use self::status::{PatientStatus, Standing};

use self::eligible::{Builder, History, Rule};
use crate::store::{Store, StoreError, instant, read_instant};

/// The longest patient id in bytes.
pub const MAX_PATIENT_BYTES: usize = 256;
/// How many eligible sets are kept, the latest used ones.
const KEPT_SETS: usize = 4;

/// How many patients there are of each sort; these numbers never leave the hospital.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Patients with at least one event.
    pub patients: u64,
    /// Told by that day.
    pub notified: u64,
    /// Opted out on that day.
    pub opted_out: u64,
    /// Dead by that day.
    pub died: u64,
    /// Events, of whatever day.
    pub events: u64,
}

/// Why the register was not read or not added to. Nothing here holds a value of the register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A line of the imported file is wrong; nothing was imported.
    #[error("line {line}: {reason}; nothing was imported")]
    Line {
        /// Which, the header being line 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An event stands in the imported file twice; nothing was imported.
    #[error("line {line}: the same event as in line {first}; nothing was imported")]
    Twice {
        /// The later line.
        line: u64,
        /// The earlier one.
        first: u64,
    },
    /// The imported file cannot be read; nothing was imported.
    #[error("the file cannot be read: {0}; nothing was imported")]
    Read(#[from] std::io::Error),
    /// An event cannot be recorded as it was given.
    #[error("{0}; nothing was recorded")]
    Event(&'static str),
    /// The register has no such place yet.
    #[error("the register has {newest} events, and event {asked} is asked for")]
    NotYet {
        /// The place that was asked for.
        asked: i64,
        /// The newest one.
        newest: i64,
    },
    /// Eligibility without a rule would be everybody.
    #[error("no rule says who is eligible; give at least one")]
    NoRule,
    /// Patients are named by integers or text only.
    #[error("a patient column is an integer or text")]
    Kind,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RegisterError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<RegisterError> for Refusal {
    /// What the asker hears before a charge; after one its caller says `no_answer`, whatever it was.
    fn from(error: RegisterError) -> Self {
        match &error {
            RegisterError::Line { .. }
            | RegisterError::Twice { .. }
            | RegisterError::Read(_)
            | RegisterError::Event(_)
            | RegisterError::NotYet { .. }
            | RegisterError::NoRule
            | RegisterError::Kind
            | RegisterError::Store(_) => Self::new(Code::Unavailable, "the hospital's register cannot be read"),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
struct SetKey {
    kind: Kind,
    rule: Rule,
    as_of: NaiveDate,
    at_seq: i64,
}

type KeptSet = (SetKey, Arc<EligibleSet>);

/// The register of one hospital. Clones share it.
#[derive(Clone)]
pub struct Register {
    store: Store,
    sets: Arc<Mutex<VecDeque<KeptSet>>>,
    /// The hash over the events up to a place, to go on from.
    hashed: Arc<Mutex<(i64, Sha256)>>,
}

impl Register {
    /// The register in `store`.
    pub fn new(store: Store) -> Self {
        let hasher = Sha256::new_with_prefix(b"sekisho register v1");
        Self { store, sets: Arc::default(), hashed: Arc::new(Mutex::new((0, hasher))) }
    }

    /// Records one event of which nobody knows who said it, and returns its place. The same event may be recorded again: an
    /// opt-out after a withdrawal of the same day counts.
    ///
    /// # Errors
    /// When the patient id, the day or the recorder is not one that the register takes.
    pub async fn record(
        &self,
        patient: &str,
        kind: EventKind,
        on: NaiveDate,
        by: &str,
        at: DateTime<Utc>,
    ) -> Result<i64, RegisterError> {
        let entry = Entry::new(patient, kind, Some(on), None, at).map_err(RegisterError::Event)?;
        self.record_all(&[entry], by, at).await
    }

    /// Records all of `entries` in their order, or none, and returns the place of the last one. `by` says who does it.
    ///
    /// # Errors
    /// When the recorder is not one that the register takes, or the database fails.
    pub async fn record_all(&self, entries: &[Entry], by: &str, at: DateTime<Utc>) -> Result<i64, RegisterError> {
        let mut tx = self.store.write().await?;
        let seq = Self::append(&mut tx, entries, by, at).await?;
        tx.commit().await?;
        Ok(seq)
    }

    /// Records `entries` inside the caller's transaction, and returns the register's last place.
    pub(crate) async fn append(
        tx: &mut SqliteConnection,
        entries: &[Entry],
        by: &str,
        at: DateTime<Utc>,
    ) -> Result<i64, RegisterError> {
        let by = entry::recorder(by)?;
        let last = "SELECT coalesce(max(seq), 0) FROM register_event";
        let mut seq: i64 = sqlx::query_scalar(last).fetch_one(&mut *tx).await?;
        for entry in entries {
            seq += 1;
            sqlx::query(
                "INSERT INTO register_event (seq, patient, kind, on_date, by, recorded_at, said_by)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .bind(seq)
            .bind(&entry.patient)
            .bind(entry.kind.as_str())
            .bind(entry.on.to_string())
            .bind(by)
            .bind(instant(at))
            .bind(entry.said_by.map(SaidBy::as_str))
            .execute(&mut *tx)
            .await?;
        }
        Ok(seq)
    }

    /// What the register knows of `patient`; none when it knows nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn status(&self, patient: &str) -> Result<Option<PatientStatus>, RegisterError> {
        let rows = sqlx::query(
            "SELECT seq, kind, on_date, by, recorded_at, said_by FROM register_event WHERE patient = ?1 ORDER BY seq",
        )
        .bind(patient.trim())
        .fetch_all(self.store.read())
        .await?;
        let event = |row: SqliteRow| {
            Ok::<_, RegisterError>(Event {
                seq: row.try_get("seq")?,
                kind: EventKind::read(row.try_get("kind")?)?,
                on: read_day(row.try_get("on_date")?)?,
                said_by: row.try_get::<Option<&str>, _>("said_by")?.map(SaidBy::read).transpose()?,
                by: row.try_get("by")?,
                recorded_at: read_instant(row.try_get("recorded_at")?)?,
            })
        };
        let events: Vec<_> = rows.into_iter().map(event).collect::<Result<_, _>>()?;
        Ok((!events.is_empty()).then_some(PatientStatus { events }))
    }

    /// The place of the newest event, 0 when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn seq(&self) -> Result<i64, RegisterError> {
        Ok(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM register_event").fetch_one(self.store.read()).await?)
    }

    /// How many patients there are of each sort on the day `as_of`, for the hospital's own screen only.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn counts(&self, as_of: NaiveDate) -> Result<Counts, RegisterError> {
        let mut counts = Counts::default();
        let newest = self.seq().await?;
        self.each_patient(newest, |_, history| {
            counts.patients += 1;
            counts.events += history.events;
            counts.notified += u64::from(history.notified.is_some_and(|on| on <= as_of));
            counts.opted_out += u64::from(history.opted_out(as_of));
            counts.died += u64::from(history.died.is_some_and(|on| on <= as_of));
        })
        .await?;
        Ok(counts)
    }

    /// The patients that are eligible under **all** `rules` on the day `as_of`, from the events up to place
    /// `at_seq`, for a patient column of `kind`. The same arguments give the same set, whatever is added later.
    ///
    /// Under `jp-ngmia` a patient was told at least `days` ago, has not opted out, and did not die before
    /// being told. Under `eu-ehds` a patient has not opted out; whom the register does not know is eligible.
    ///
    /// # Errors
    /// When `kind` is neither integer nor text, there is no rule, `at_seq` is yet to come, or the database
    /// fails.
    pub async fn eligible(
        &self,
        kind: Kind,
        rules: &[OptOut],
        as_of: NaiveDate,
        at_seq: i64,
    ) -> Result<Arc<EligibleSet>, RegisterError> {
        let key = SetKey { kind, rule: Rule::of(rules)?, as_of, at_seq };
        let mut builder = Builder::new(kind, key.rule)?;
        if let Some(set) = self.kept(key) {
            return Ok(set);
        }
        self.reached(at_seq).await?;
        self.each_patient(at_seq, |patient, history| builder.add(patient, key.rule.admits(history, as_of))).await?;
        let set = Arc::new(builder.build());
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.push_front((key, Arc::clone(&set)));
        sets.truncate(KEPT_SETS);
        Ok(set)
    }

    fn kept(&self, key: SetKey) -> Option<Arc<EligibleSet>> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let place = sets.iter().position(|(k, _)| *k == key)?;
        let found = sets.remove(place)?;
        let set = Arc::clone(&found.1);
        sets.push_front(found);
        Some(set)
    }

    /// SHA-256 over every event up to place `at_seq`, each field preceded by its length. It depends on data and
    /// leaves the hospital only inside a salted commitment.
    ///
    /// # Errors
    /// When `at_seq` is yet to come, or the database fails.
    pub async fn commitment(&self, at_seq: i64) -> Result<Digest, RegisterError> {
        self.reached(at_seq).await?;
        let (mut from, mut hasher) = self.hashed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if from > at_seq {
            (from, hasher) = (0, Sha256::new_with_prefix(b"sekisho register v1"));
        }
        let mut rows = sqlx::query(
            "SELECT seq, patient, kind, on_date, by, recorded_at, said_by FROM register_event
            WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        )
        .bind(from)
        .bind(at_seq)
        .fetch(self.store.read());
        let mut event = Vec::new();
        while let Some(row) = rows.try_next().await? {
            event.clear();
            event.extend_from_slice(&row.try_get::<i64, _>(0)?.to_be_bytes());
            for field in 1..6 {
                put_field(&mut event, row.try_get(field)?);
            }
            // Events without it hash as they did before there was such a field. No place is that large, so the mark is no next event.
            if let Some(said_by) = row.try_get(6)? {
                event.extend_from_slice(&u64::MAX.to_be_bytes());
                put_field(&mut event, said_by);
            }
            hasher.update(&event);
        }
        let digest = Digest::from_bytes(hasher.clone().finalize().into());
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if hashed.0 < at_seq {
            *hashed = (at_seq, hasher);
        }
        Ok(digest)
    }

    async fn reached(&self, at_seq: i64) -> Result<(), RegisterError> {
        let newest = self.seq().await?;
        if at_seq > newest {
            return Err(RegisterError::NotYet { asked: at_seq, newest });
        }
        Ok(())
    }

    /// Calls `each` with every patient's history up to place `at_seq`, one patient after the other.
    async fn each_patient(
        &self,
        at_seq: i64,
        mut each: impl FnMut(&str, &History) + Send,
    ) -> Result<(), RegisterError> {
        let mut rows =
            sqlx::query("SELECT patient, kind, on_date, seq FROM register_event WHERE seq <= ?1 ORDER BY patient")
                .bind(at_seq)
                .fetch(self.store.read());
        let (mut patient, mut history) = (String::new(), History::default());
        while let Some(row) = rows.try_next().await? {
            let next: &str = row.try_get(0)?;
            if next != patient {
                if history.events > 0 {
                    each(&patient, &history);
                }
                (patient, history) = (next.to_string(), History::default());
            }
            history.add(row.try_get(3)?, EventKind::read(row.try_get(1)?)?, read_day(row.try_get(2)?)?);
        }
        if history.events > 0 {
            each(&patient, &history);
        }
        Ok(())
    }
}

/// A field of a hash, preceded by its length.
fn put_field(bytes: &mut Vec<u8>, field: &str) {
    bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
    bytes.extend_from_slice(field.as_bytes());
}

fn read_day(text: &str) -> Result<NaiveDate, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt("day"))
}
