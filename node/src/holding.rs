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

use crate::data::{
    mapping::{Mapping, MappingError},
    protected::{Eligible, TableError, register_all, session},
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
}

impl DataSet {
    /// Opens the data set of the mapping file `path`, with its current snapshot; takes one if there is none.
    ///
    /// # Errors
    /// When the mapping or the snapshot is not as it must be.
    pub async fn open(
        path: &Path,
        governance: &PublicKey,
        snapshots: &Path,
        progress: &(dyn Fn(Progress) + Sync),
        now: DateTime<Utc>,
    ) -> Result<Self, HoldingError> {
        let mapping = Mapping::load(path, governance)?;
        let current = match snapshot::open(&mapping, snapshots)? {
            Some(snapshot) => snapshot,
            None => snapshot::take(&mapping, snapshots, &Settings::default(), progress, now).await?,
        };
        current.verify_files()?;
        Ok(Self { mapping, snapshots: snapshots.into(), current: Arc::new(current) })
    }

    /// The schema that the data is mapped to.
    pub fn schema(&self) -> &Verified<Schema> {
        self.mapping.schema()
    }

    /// Whether the data set is declared synthetic.
    pub fn synthetic(&self) -> bool {
        self.mapping.synthetic()
    }

    /// The current snapshot, if it has all of `tables` and its sources are still what they were.
    ///
    /// # Errors
    /// `schema_mismatch`, `source_changed` or `unavailable`.
    pub fn snapshot(&self, tables: &[String]) -> Result<Arc<Snapshot>, Refusal> {
        if let Some(table) = tables.iter().find(|t| self.current.table_path(t).is_none()) {
            return Err(Refusal::new(Code::SchemaMismatch, format!("this hospital has no table {table}")));
        }
        let state = self.current.source_state().map_err(|e| Refusal::new(Code::Unavailable, e.to_string()))?;
        state.require_unchanged()?;
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
    fn contains_int(&self, id: i64) -> bool {
        Self::contains_int(self, id)
    }

    fn contains_text(&self, id: &str) -> bool {
        Self::contains_text(self, id)
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
