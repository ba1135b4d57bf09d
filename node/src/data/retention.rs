//! Which snapshots are on disk, and which of them may go.
//!
//! A snapshot stays as long as it is the current one of its data set, a charged run is bound to it (a release must be
//! repeatable for an inspector, and a run without a release may yet be asked for again), or it is one of the newest of
//! its data set. What cannot be read stays too. For the operator's console only: it counts rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use parquet::file::metadata::ParquetMetaDataReader;
use sekisho_protocol::digest::Digest;

use super::{
    files::at,
    snapshot::{self, SnapshotError},
    staging::{self, Lock},
};

/// A snapshot on disk.
pub struct OnDisk {
    /// Its id.
    pub id: String,
    /// Its data set.
    pub data_set: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// Whether it is the current one of its data set.
    pub current: bool,
    /// The bytes of its tables.
    pub bytes: u64,
    /// Its tables, with their rows; none where the file cannot be read.
    pub tables: BTreeMap<String, Option<u64>>,
}

/// What is in a folder of snapshots.
pub struct Catalogue {
    /// By data set, the newest first.
    pub snapshots: Vec<OnDisk>,
    /// Folders that are named like a snapshot and hold none that can be read.
    pub unreadable: Vec<PathBuf>,
    /// Folders of snapshots that were begun; one may be in the making.
    pub unfinished: Vec<PathBuf>,
}

/// Reads what is in the folder `snapshots`.
///
/// # Errors
/// When the folder cannot be read, or what says which snapshot is current.
pub fn catalogue(snapshots: &Path) -> Result<Catalogue, SnapshotError> {
    let mut found = Catalogue { snapshots: Vec::new(), unreadable: Vec::new(), unfinished: Vec::new() };
    let entries = match fs::read_dir(snapshots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(at(snapshots))?,
    };
    let (mut ids, mut current) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let name = entry.map_err(at(snapshots))?.file_name();
        let name = name.to_string_lossy();
        if snapshot::is_id(&name) {
            ids.push(name.into_owned());
        } else if let Some(data_set) = name.strip_prefix(snapshot::CURRENT) {
            current.extend(snapshot::current(snapshots, data_set)?);
        }
    }
    for id in ids {
        match on_disk(snapshots, &id, &current) {
            Ok(snapshot) => found.snapshots.push(snapshot),
            Err(_) => found.unreadable.push(snapshots.join(id)),
        }
    }
    found.snapshots.sort_by(|a, b| {
        (&a.data_set, !a.current, b.taken_at, &a.id).cmp(&(&b.data_set, !b.current, a.taken_at, &b.id))
    });
    found.unreadable.sort();
    found.unfinished = staging::unfinished(snapshots)?;
    Ok(found)
}

fn on_disk(snapshots: &Path, id: &str, current: &BTreeSet<Digest>) -> Result<OnDisk, SnapshotError> {
    let (digest, manifest) = snapshot::manifest(snapshots, id)?;
    let rows = |file: &str| {
        let file = File::open(snapshots.join(id).join(file)).ok()?;
        let footer = ParquetMetaDataReader::new().parse_and_finish(&file).ok()?;
        footer.file_metadata().num_rows().try_into().ok()
    };
    Ok(OnDisk {
        id: id.into(),
        taken_at: manifest.taken_at,
        current: current.contains(&digest),
        bytes: manifest.tables.values().map(|table| table.bytes).sum(),
        tables: manifest.tables.iter().map(|(name, table)| (name.clone(), rows(&table.file))).collect(),
        data_set: manifest.data_set,
    })
}

/// The snapshots that nothing needs: neither current, nor among the `keep` newest of their data set, nor in `used`.
pub fn unneeded<'a>(catalogue: &'a Catalogue, used: &BTreeSet<String>, keep: usize) -> Vec<&'a OnDisk> {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    let unneeded = catalogue.snapshots.iter().filter(|snapshot| {
        let place = newest.entry(&snapshot.data_set).or_default();
        *place += 1;
        *place > keep && !snapshot.current && !used.contains(&snapshot.id)
    });
    unneeded.collect()
}

/// The right to remove snapshots: while it is held, none is taken.
pub struct Pruning {
    snapshots: PathBuf,
    lock: Lock,
}

impl Pruning {
    /// Begins; what a killed process left of spill files is removed.
    ///
    /// # Errors
    /// When a snapshot is being taken, or the disk fails.
    pub fn begin(snapshots: &Path) -> Result<Self, SnapshotError> {
        Ok(Self { snapshots: snapshots.into(), lock: Lock::take(snapshots)? })
    }

    /// Removes one snapshot, whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, snapshot: &OnDisk) -> Result<(), SnapshotError> {
        staging::remove(&self.lock, &self.snapshots.join(&snapshot.id))
    }

    /// Removes what was begun and not finished; the next snapshot begins from nothing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove_unfinished(&self) -> Result<(), SnapshotError> {
        staging::unfinished(&self.snapshots)?.iter().try_for_each(|folder| staging::remove(&self.lock, folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture::{Fixture, count_files};

    #[tokio::test]
    async fn current_used_and_newest_snapshots_stay_and_all_others_go() {
        let fixture = Fixture::new();
        assert!(catalogue(&fixture.snapshots()).unwrap().snapshots.is_empty());
        let mut ids = Vec::new();
        for day in 1..=6 {
            fixture.gzip("visit.csv.gz", &Fixture::VISITS.replace("40", &format!("4{day}"))).await;
            ids.push(fixture.take_on(day).await.unwrap().id().to_owned());
        }
        // The current one is an older one, as after a snapshot was put back.
        fs::copy(fixture.snapshots().join("CURRENT-west"), fixture.path("newest")).unwrap();
        let (digest, _) = snapshot::manifest(&fixture.snapshots(), &ids[1]).unwrap();
        fs::write(fixture.snapshots().join("CURRENT-west"), format!("{digest}\n")).unwrap();
        let damaged = fixture.snapshots().join("0123456789abcdef");
        fs::create_dir(&damaged).unwrap();
        let found = catalogue(&fixture.snapshots()).unwrap();
        let listed: Vec<_> = found.snapshots.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(listed, [1, 5, 4, 3, 2, 0].map(|n: usize| ids[n].as_str()), "the current one, then by age");
        assert!(found.snapshots.iter().all(|s| s.tables == [("visit".to_owned(), Some(4))].into() && s.bytes > 0));
        assert_eq!((found.unreadable, found.unfinished), (vec![damaged.clone()], vec![]));

        let used = BTreeSet::from([ids[0].clone()]);
        for (keep, expect) in [(2, &[4, 3, 2][..]), (4, &[2]), (0, &[5, 4, 3, 2]), (6, &[])] {
            let found = catalogue(&fixture.snapshots()).unwrap();
            let unneeded: Vec<_> = unneeded(&found, &used, keep).iter().map(|s| s.id.clone()).collect();
            assert_eq!(unneeded, expect.iter().map(|n: &usize| ids[*n].clone()).collect::<Vec<_>>(), "keep {keep}");
        }
        let pruning = Pruning::begin(&fixture.snapshots()).unwrap();
        assert!(matches!(fixture.take_on(7).await, Err(SnapshotError::Busy(_))), "none is taken meanwhile");
        let found = catalogue(&fixture.snapshots()).unwrap();
        for snapshot in unneeded(&found, &used, 2) {
            pruning.remove(snapshot).unwrap();
        }
        let left: Vec<_> = catalogue(&fixture.snapshots()).unwrap().snapshots.into_iter().map(|s| s.id).collect();
        assert_eq!(left, [ids[1].clone(), ids[5].clone(), ids[0].clone()]);
        assert!(damaged.exists() && count_files(&fixture.snapshots(), "tmp-") == 0);
        for id in left {
            snapshot::open_by_id(&fixture.load().unwrap(), &fixture.snapshots(), &id).unwrap().verify_files().unwrap();
        }
    }

    #[tokio::test]
    async fn nothing_is_listed_where_it_is_unclear_what_is_current() {
        let fixture = Fixture::with_visits().await;
        fixture.take(2).await.unwrap();
        fs::write(fixture.snapshots().join("CURRENT-west"), "?").unwrap();
        assert!(matches!(catalogue(&fixture.snapshots()), Err(SnapshotError::Damaged { .. })));
    }
}
