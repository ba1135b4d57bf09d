//! Files of a snapshot: readable by their owner only, hashed, and durable before they are named.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use sekisho_protocol::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::snapshot::SnapshotError;

/// Turns what the operating system said of `path` into an error.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> SnapshotError + '_ {
    |source| SnapshotError::Io { path: path.into(), source }
}

/// Makes a directory and its parents, open to their owner only.
pub(super) fn make_directory(path: &Path) -> Result<(), SnapshotError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path))
}

/// Creates a file of mode 0600.
pub(super) fn create(path: &Path) -> Result<File, SnapshotError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))
}

/// Writes a small file and makes it durable.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

/// The size in bytes, and the time of the last change in nanoseconds since 1970.
pub(super) fn size_and_mtime(path: &Path) -> io::Result<(u64, i64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.len(), metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())))
}

/// Writes a small file in place of the one that is there, at once and durably.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let fresh = path.with_extension("new");
    remove_if_there(&fresh)?;
    write(&fresh, bytes)?;
    fs::rename(&fresh, path).map_err(at(path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(path: &Path) -> Result<(), SnapshotError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The SHA-256 of a file's bytes; tells `progress` of them as they come.
pub(super) fn digest(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Digest> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that counts and hashes what is written to it.
pub(super) struct Hashed {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Hashed {
    /// Around a new, empty file.
    pub(super) fn new(file: File) -> Self {
        Self { file, hasher: Sha256::new(), bytes: 0 }
    }

    /// Makes the file durable and gives its digest and its size in bytes.
    pub(super) fn finish(self) -> io::Result<(Digest, u64)> {
        self.file.sync_all()?;
        Ok((Digest::from_bytes(self.hasher.finalize().into()), self.bytes))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
