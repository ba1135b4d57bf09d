//! Where a snapshot is made: finished tables outlive a kill, unfinished ones are made again.
//!
//! `snapshots_dir/staging-<data set>/data/` becomes the snapshot. `journal/<table>.json` beside it says of each
//! finished table what it was made from; a table is taken over only if that is still so and its bytes are what they
//! were. The file `current` names the snapshot from just before `data` is renamed until it is the current one. Spill
//! files are under `tmp-…`, which goes with this process, or when the next one begins.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sekisho_protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{
    files::{self, at},
    mapping::{Mapping, TableMapping},
    snapshot::{self, Manifest, Snapshot, SnapshotError, SourceState, TableRecord},
    sources,
    taking::TableReport,
};
use crate::hooks::Hooks;

/// What begins the names of folders that hold nothing of worth.
const SCRATCH: &str = "tmp-";
/// What begins the names of folders in which a snapshot is made.
const STAGING: &str = "staging-";

/// Lets one process at a time take or remove snapshots.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder of snapshots if need be, locks it, and removes what a killed process left of spill files.
    pub(super) fn take(snapshots: &Path) -> Result<Self, SnapshotError> {
        files::make_directory(snapshots)?;
        let path = snapshots.join("LOCK");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SnapshotError::Busy(snapshots.into())),
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        for left in folders(snapshots, &[SCRATCH])? {
            fs::remove_dir_all(&left).map_err(at(&left))?;
        }
        Ok(Self { _file: file })
    }
}

/// Removes what a killed process left of spill files, unless a snapshot is being taken.
///
/// # Errors
/// When the disk fails.
pub fn sweep(snapshots: &Path) -> Result<(), SnapshotError> {
    match Lock::take(snapshots) {
        Ok(_) | Err(SnapshotError::Busy(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The folders of snapshots that were begun and are not finished.
pub(super) fn unfinished(snapshots: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    folders(snapshots, &[STAGING, SCRATCH])
}

/// Removes a folder such that it is there whole or not at all.
pub(super) fn remove(_lock: &Lock, folder: &Path) -> Result<(), SnapshotError> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let gone = parent.join(format!("{SCRATCH}{}", name.to_string_lossy()));
    fs::rename(folder, &gone).map_err(at(folder))?;
    files::sync_directory(parent)?;
    fs::remove_dir_all(&gone).map_err(at(&gone))
}

fn folders(snapshots: &Path, beginnings: &[&str]) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(snapshots).map_err(at(snapshots))? {
        let entry = entry.map_err(at(snapshots))?;
        if beginnings.iter().any(|b| entry.file_name().as_encoded_bytes().starts_with(b.as_bytes())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// What is known of a finished table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What the table depends on beside its sources.
    key: Digest,
    record: TableRecord,
    report: TableReport,
}

/// The place where a snapshot of one data set is made.
pub(super) struct Staging {
    snapshots: PathBuf,
    path: PathBuf,
    scratch: PathBuf,
    _lock: Lock,
}

impl Staging {
    /// Locks the folder of snapshots and makes the place, or finds it as a killed process left it.
    pub(super) fn open(snapshots: &Path, data_set: &str) -> Result<Self, SnapshotError> {
        let lock = Lock::take(snapshots)?;
        let path = snapshots.join(format!("{STAGING}{data_set}"));
        let scratch = snapshots.join(format!("{SCRATCH}{}", std::process::id()));
        let staging = Self { snapshots: snapshots.into(), path, scratch, _lock: lock };
        for folder in [&staging.data(), &staging.journal(), &staging.scratch] {
            files::make_directory(folder)?;
        }
        Ok(staging)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    fn entry(&self, table: &str) -> PathBuf {
        self.journal().join(format!("{table}.json"))
    }

    /// The file of `named`, the snapshot that is to become the current one.
    fn named(&self) -> PathBuf {
        self.path.join("current")
    }

    /// Where spill files go.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The file of a table, which is not there yet.
    pub(super) fn fresh(&self, file: &str) -> Result<PathBuf, SnapshotError> {
        let path = self.data().join(file);
        files::remove_if_there(&path)?;
        Ok(path)
    }

    /// The table as an earlier process finished it, if it would be the same today.
    pub(super) fn finished(&self, mapping: &TableMapping, key: Digest) -> Option<(TableRecord, TableReport)> {
        let name = &mapping.table().name;
        let Entry { key: found, record, report } = self.noted(name)?;
        if found != key || record.file != snapshot::file_of(name) {
            return None;
        }
        let file = self.data().join(&record.file);
        let same = sources::unchanged(&record.source, mapping.sources()).ok()?
            && files::size_and_mtime(&file).ok()?.0 == record.bytes
            && files::digest(&file, &mut |_| {}).ok()? == record.sha256;
        same.then_some((record, report))
    }

    fn noted(&self, table: &str) -> Option<Entry> {
        serde_json::from_slice(&fs::read(self.entry(table)).ok()?).ok()
    }

    /// What became of the rows of a table that an earlier process finished.
    pub(super) fn report(&self, table: &str) -> Option<TableReport> {
        Some(self.noted(table)?.report)
    }

    /// Notes durably that a table is finished.
    pub(super) fn finish(&self, key: Digest, record: TableRecord, report: TableReport) -> Result<(), SnapshotError> {
        let path = self.entry(&report.table);
        let table = report.table.clone();
        let entry = serde_json::to_vec(&Entry { key, record, report })
            .map_err(|e| SnapshotError::Write { table, reason: e.to_string() })?;
        files::sync_directory(&self.data())?;
        files::replace(&path, &entry)
    }

    /// The snapshot that an earlier process named and did not make the current one, if it would be the same today.
    pub(super) fn nearly(&self, mapping: &Mapping) -> Option<Snapshot> {
        let text = fs::read_to_string(self.named()).ok()?;
        let digest: Digest = text.trim_end().parse().ok()?;
        let found = snapshot::open_by_id(mapping, &self.snapshots, &snapshot::id_of(digest)).ok()?;
        let same = found.manifest_digest() == digest
            && found.synthetic() == mapping.synthetic()
            && found.source_state().is_ok_and(|state| state == SourceState::Unchanged)
            && found.verify_files().is_ok();
        same.then_some(found)
    }

    /// Makes the finished tables of `manifest` a snapshot, names it and makes it the current one; gives its id.
    pub(super) fn publish(&self, manifest: &Manifest, hooks: &Hooks) -> Result<String, SnapshotError> {
        let bytes = serde_json::to_vec(manifest)
            .map_err(|e| SnapshotError::Write { table: "manifest".into(), reason: e.to_string() })?;
        let (data, digest) = (self.data(), Digest::of(&bytes));
        // What an earlier process began and this one does not need.
        for entry in fs::read_dir(&data).map_err(at(&data))? {
            let path = entry.map_err(at(&data))?.path();
            if !manifest.tables.values().any(|table| data.join(&table.file) == path) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        files::write(&data.join("manifest.json"), &bytes)?;
        files::sync_directory(&data)?;
        files::replace(&self.named(), format!("{digest}\n").as_bytes())?;
        hooks.at("snapshot_complete");
        let id = snapshot::id_of(digest);
        let directory = self.snapshots.join(&id);
        // The same digest means the same tables: a snapshot that is there stays.
        if !directory.exists() {
            fs::rename(&data, &directory).map_err(at(&directory))?;
            files::sync_directory(&self.snapshots)?;
        }
        hooks.at("snapshot_named");
        self.make_current(&manifest.data_set, hooks)?;
        Ok(id)
    }

    /// Makes the snapshot that is named the current one; nothing is left of the place.
    pub(super) fn make_current(&self, data_set: &str, hooks: &Hooks) -> Result<(), SnapshotError> {
        let current = snapshot::current_path(&self.snapshots, data_set);
        fs::rename(self.named(), &current).map_err(at(&current))?;
        files::sync_directory(&self.snapshots)?;
        hooks.at("snapshot_current");
        fs::remove_dir_all(&self.path).map_err(at(&self.path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.scratch.display(), "spill files stay until the next snapshot");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
