//! The data sets that this node answers from: each a mapping and its current snapshot.
//!
//! A snapshot that is taken while the node runs is taken up by the next query, verified as at the start. The mapping is
//! read at the start only: where a snapshot was taken under another one, the node refuses with `source_changed` or
//! `schema_mismatch` until it is restarted. Runs that were charged on an older snapshot keep it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use sekisho_protocol::{
    digest::Digest,
    dsse::Verified,
    keys::PublicKey,
    refusal::{Code, Refusal},
    schema::Schema,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::data::{
    mapping::{Mapping, MappingError},
    protected::{Eligible, TableError, register_all, rows, session},
    snapshot::{self, Progress, Settings, Snapshot, SnapshotError},
};
use crate::{hooks::Hooks, policy::DataFacts, register::EligibleSet};

/// How long a query waits for a new snapshot to be taken up; it goes on without the query, which may come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// One data set with its current snapshot.
pub struct DataSet {
    source: Arc<Source>,
    /// Whether the data are synthetic; a snapshot that says otherwise needs a restart, since budgets depend on it.
    synthetic: bool,
    held: Arc<Mutex<Held>>,
}

/// Where snapshots come from, and what they must be.
struct Source {
    mapping: Mapping,
    snapshots: PathBuf,
    max_rows: u64,
}

/// The snapshot that was named as the current one by this digest, or why it cannot be used: it is looked at once.
struct Held {
    digest: Digest,
    snapshot: Result<Arc<Snapshot>, Refusal>,
}

/// Why a data set cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldingError {
    /// Its mapping.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Its snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A table of its snapshot.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A table is larger than the configuration says.
    #[error("table {table} has more rows than limits.max_rows allows ({max_rows})")]
    TooManyRows {
        /// The table.
        table: String,
        /// The configured limit.
        max_rows: u64,
    },
    /// The snapshot's declaration is another than at the start.
    #[error("the data set is declared synthetic otherwise than when the node started: restart it")]
    Redeclared,
}

impl DataSet {
    /// Opens the data set of the mapping file `path`, with its current snapshot; takes one if there is none.
    ///
    /// # Errors
    /// When the mapping or the snapshot is not as it must be, or a table has more than `max_rows` rows. That is looked
    /// at here and not in a query: a query that fails beyond an exact number of rows tells of one patient.
    pub async fn open(
        path: &Path,
        governance: &[PublicKey],
        snapshots: &Path,
        settings: &Settings,
        progress: &(dyn Fn(Progress<'_>) + Sync),
        now: DateTime<Utc>,
        max_rows: u64,
    ) -> Result<Self, HoldingError> {
        let mapping = Mapping::load(path, governance)?;
        snapshot::sweep(snapshots)?;
        if snapshot::current(snapshots, mapping.id())?.is_none() {
            snapshot::take(&mapping, snapshots, settings, progress, &Hooks::default(), now).await?;
        }
        let source = Source { mapping, snapshots: snapshots.into(), max_rows };
        let current = source.current()?;
        let synthetic = current.synthetic();
        let held = Held { digest: current.manifest_digest(), snapshot: Ok(Arc::new(current)) };
        Ok(Self { source: Arc::new(source), synthetic, held: Arc::new(Mutex::new(held)) })
    }

    /// The schema that the data is mapped to.
    pub fn schema(&self) -> &Verified<Schema> {
        self.source.mapping.schema()
    }

    /// The data set as the hospital's policy sees it.
    pub fn facts(&self) -> DataFacts<'_> {
        DataFacts { id: self.source.mapping.id(), synthetic: self.synthetic, schema: self.schema().document() }
    }

    /// The mapping, as it was read at the start.
    pub fn mapping(&self) -> &Mapping {
        &self.source.mapping
    }

    /// Whether the data are synthetic: declared so when the snapshot was taken, and still.
    pub fn synthetic(&self) -> bool {
        self.synthetic
    }

    /// The current snapshot, if it has all of `tables` and its sources are still what they were. One that was taken
    /// since the last query is verified and taken up.
    ///
    /// # Errors
    /// `schema_mismatch`, `source_changed`, `unavailable`, or `busy` while a new snapshot is verified.
    pub async fn snapshot(&self, tables: &[String]) -> Result<Arc<Snapshot>, Refusal> {
        let current = self.current().await?;
        if let Some(table) = tables.iter().find(|t| current.table_path(t).is_none()) {
            return Err(Refusal::new(Code::SchemaMismatch, format!("this hospital has no table {table}")));
        }
        // It may read a source to its end.
        let looked = Arc::clone(&current);
        let state = tokio::task::spawn_blocking(move || looked.source_state()).await;
        let state = state.map_err(|_| Refusal::new(Code::Unavailable, "the sources cannot be looked at"))?;
        state.inspect_err(|error| warn!(%error, "a source cannot be looked at"))?.require_unchanged()?;
        Ok(current)
    }

    /// The snapshot that is named as the current one now. Reading a new one may take long: a query that was charged after
    /// such a wait would have no time left, so it waits a little and is refused otherwise.
    async fn current(&self) -> Result<Arc<Snapshot>, Refusal> {
        let busy = |_| Refusal::new(Code::Busy, "a new snapshot is being verified; ask again in a while");
        let patience = Instant::now() + PATIENCE;
        let mut held = timeout_at(patience, Arc::clone(&self.held).lock_owned()).await.map_err(busy)?;
        let (source, synthetic) = (Arc::clone(&self.source), self.synthetic);
        let look = tokio::task::spawn_blocking(move || {
            source.renew(&mut held, synthetic);
            held.snapshot.clone()
        });
        let found = timeout_at(patience, look).await.map_err(busy)?;
        found.map_err(|_| Refusal::new(Code::Unavailable, "the snapshot cannot be looked at"))?
    }

    /// When the snapshot was taken that queries are answered from; nothing is looked at on the disk.
    ///
    /// # Errors
    /// When it cannot be used, or a new one is being verified.
    pub fn held_since(&self) -> Result<DateTime<Utc>, Refusal> {
        self.held().map(|snapshot| snapshot.taken_at())
    }

    /// The snapshot that queries are answered from; nothing is looked at on the disk.
    ///
    /// # Errors
    /// When it cannot be used, or a new one is being verified.
    pub fn held(&self) -> Result<Arc<Snapshot>, Refusal> {
        let busy = || Refusal::new(Code::Busy, format!("{}: a new snapshot is being verified", self.mapping().id()));
        let held = self.held.try_lock().map_err(|_| busy())?;
        held.snapshot.clone().map_err(|_| unusable())
    }

    /// The snapshot to which a run was bound when it was charged.
    ///
    /// # Errors
    /// `source_changed` when it is gone.
    pub fn snapshot_of_run(&self, current: &Arc<Snapshot>, id: &str) -> Result<Arc<Snapshot>, Refusal> {
        if current.id() == id {
            return Ok(Arc::clone(current));
        }
        let earlier = snapshot::open_by_id(&self.source.mapping, &self.source.snapshots, id);
        earlier.map(Arc::new).map_err(|_| Refusal::new(Code::SourceChanged, "the snapshot of the run is gone"))
    }
}

impl Source {
    /// The current snapshot, every byte of it verified. It blocks.
    fn current(&self) -> Result<Snapshot, HoldingError> {
        let missing = || SnapshotError::Unknown(format!("of {}", self.mapping.id()));
        let current = snapshot::open(&self.mapping, &self.snapshots)?.ok_or_else(missing)?;
        current.verify_files()?;
        for table in current.tables() {
            if rows(&current, table)? > self.max_rows {
                return Err(HoldingError::TooManyRows { table: table.into(), max_rows: self.max_rows });
            }
        }
        Ok(current)
    }

    /// Takes up the snapshot that is named as the current one now, if it is another. It blocks.
    fn renew(&self, held: &mut Held, synthetic: bool) {
        let named = match snapshot::current(&self.snapshots, self.mapping.id()) {
            Ok(named) if named == Some(held.digest) => return,
            Ok(Some(named)) => named,
            // Without a name nothing is answered, and the next query looks again.
            Ok(None) | Err(_) => {
                warn!(data_set = self.mapping.id(), "it cannot be read which snapshot is the current one");
                *held = Held { digest: Digest::of(b""), snapshot: Err(unusable()) };
                return;
            }
        };
        let snapshot = self.current().and_then(|fresh| {
            if fresh.synthetic() == synthetic { Ok(Arc::new(fresh)) } else { Err(HoldingError::Redeclared) }
        });
        match &snapshot {
            Ok(fresh) => info!(snapshot = fresh.id(), "a new snapshot is taken up"),
            Err(error) => warn!(%error, "the new snapshot cannot be used"),
        }
        // Verified was what is named now, which may be newer still.
        let digest = snapshot.as_ref().map_or(named, |fresh| fresh.manifest_digest());
        *held = Held { digest, snapshot: snapshot.map_err(|_| unusable()) };
    }
}

fn unusable() -> Refusal {
    Refusal::new(Code::Unavailable, "the data set's snapshot is not usable; its operator's log says why")
}

impl Eligible for EligibleSet {
    fn int_run(&self, id: i64, place: &mut usize) -> (bool, Option<i64>) {
        Self::int_run(self, id, place)
    }

    fn contains_text(&self, id: &str, place: &mut usize) -> bool {
        Self::contains_text(self, id, place)
    }
}

/// The tables of `snapshot` as a query may scan them: only the eligible patients' rows.
///
/// # Errors
/// When a file cannot be read.
pub fn tables(
    snapshot: &Snapshot,
    eligible: Arc<dyn Eligible>,
    memory_bytes: usize,
) -> Result<SessionContext, TableError> {
    let partitions = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let context = session(memory_bytes, partitions)?;
    register_all(&context, snapshot, &eligible)?;
    Ok(context)
}
