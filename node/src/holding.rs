//! The data sets that this node answers from: each a mapping and its current snapshot.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use sekisho_protocol::{
    dsse::Verified,
    keys::PublicKey,
    refusal::{Code, Refusal},
    schema::Schema,
};
use tracing::warn;

use crate::data::{
    mapping::{Mapping, MappingError},
    protected::{Eligible, TableError, register_all, rows, session},
    snapshot::{self, Progress, Settings, Snapshot, SnapshotError},
};
use crate::register::EligibleSet;

/// One data set with its current snapshot.
pub struct DataSet {
    mapping: Mapping,
    snapshots: PathBuf,
    current: Arc<Snapshot>,
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
}

impl DataSet {
    /// Opens the data set of the mapping file `path`, with its current snapshot; takes one if there is none.
    ///
    /// # Errors
    /// When the mapping or the snapshot is not as it must be, or a table has more than `max_rows` rows. That is looked
    /// at here and not in a query: a query that fails beyond an exact number of rows tells of one patient.
    pub async fn open(
        path: &Path,
        governance: &PublicKey,
        snapshots: &Path,
        progress: &(dyn Fn(Progress) + Sync),
        now: DateTime<Utc>,
        max_rows: u64,
    ) -> Result<Self, HoldingError> {
        let mapping = Mapping::load(path, governance)?;
        let current = match snapshot::open(&mapping, snapshots)? {
            Some(snapshot) => snapshot,
            None => snapshot::take(&mapping, snapshots, &Settings::default(), progress, now).await?,
        };
        current.verify_files()?;
        for table in current.tables() {
            if rows(&current, table)? > max_rows {
                return Err(HoldingError::TooManyRows { table: table.into(), max_rows });
            }
        }
        Ok(Self { mapping, snapshots: snapshots.into(), current: Arc::new(current) })
    }

    /// The schema that the data is mapped to.
    pub fn schema(&self) -> &Verified<Schema> {
        self.mapping.schema()
    }

    /// Whether the data are synthetic: declared so when the current snapshot was taken, and still.
    pub fn synthetic(&self) -> bool {
        self.current.synthetic()
    }

    /// The current snapshot, if it has all of `tables` and its sources are still what they were.
    ///
    /// # Errors
    /// `schema_mismatch`, `source_changed` or `unavailable`.
    pub async fn snapshot(&self, tables: &[String]) -> Result<Arc<Snapshot>, Refusal> {
        if let Some(table) = tables.iter().find(|t| self.current.table_path(t).is_none()) {
            return Err(Refusal::new(Code::SchemaMismatch, format!("this hospital has no table {table}")));
        }
        // It may read a source to its end.
        let current = Arc::clone(&self.current);
        let state = tokio::task::spawn_blocking(move || current.source_state()).await;
        let state = state.map_err(|_| Refusal::new(Code::Unavailable, "the sources cannot be looked at"))?;
        state.inspect_err(|error| warn!(%error, "a source cannot be looked at"))?.require_unchanged()?;
        Ok(Arc::clone(&self.current))
    }

    /// The snapshot to which a run was bound when it was charged.
    ///
    /// # Errors
    /// `source_changed` when it is gone.
    pub fn snapshot_of_run(&self, current: &Arc<Snapshot>, id: &str) -> Result<Arc<Snapshot>, Refusal> {
        if current.id() == id {
            return Ok(Arc::clone(current));
        }
        let earlier = snapshot::open_by_id(&self.mapping, &self.snapshots, id);
        earlier.map(Arc::new).map_err(|_| Refusal::new(Code::SourceChanged, "the snapshot of the run is gone"))
    }
}

impl Eligible for EligibleSet {
    fn contains_int(&self, id: i64, place: &mut usize) -> bool {
        Self::contains_int(self, id, place)
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
