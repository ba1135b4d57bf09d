//! Private keys on disk: PKCS#8 PEM, mode 0600, never overwritten.
//!
//! Behind the feature `transport`, since it is the only part of this crate that touches the disk.
#![expect(clippy::disallowed_methods, reason = "keys are files; this module is where they are read and written")]

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::keys::{KeyError, SecretKey};

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file exists: a key is never overwritten.
    #[error("{0} exists; a key is never overwritten: move it away or name another file")]
    Exists(PathBuf),
    /// Others may read the file.
    #[error("{path} has mode {mode:o}; a key must be readable by its owner only: run `chmod 600 {path}`", path = path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The disk said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path}: {source}", path = path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// Writes `key` to a new file of mode 0600.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.into(), source };
    let pem = key.to_pem().map_err(|source| KeyFileError::Key { path: path.into(), source })?;
    let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(KeyFileError::Exists(path.into())),
        other => other.map_err(io)?,
    };
    file.write_all(pem.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Where the key lies that shall take the place of the one at `path`: `signing.pem` gives way to `signing.next.pem`.
pub fn next(path: &Path) -> PathBuf {
    path.with_extension("next.pem")
}

/// Reads the key that shall take the place of the one at `path`; none when there is none.
///
/// # Errors
/// When it is open to others, or no key.
pub fn read_next(path: &Path) -> Result<Option<SecretKey>, KeyFileError> {
    let next = next(path);
    if next.exists() { read(&next).map(Some) } else { Ok(None) }
}

/// Reads the next key where there is one, and otherwise the one at `path`.
///
/// # Errors
/// When the file is missing, open to others, or no key.
pub fn read_newest(path: &Path) -> Result<SecretKey, KeyFileError> {
    read_next(path)?.map_or_else(|| read(path), Ok)
}

/// Puts the next key in the place of the one at `path`, which stays beside it under its fingerprint, when `named` says
/// that it is the one that counts. Says whether it did.
///
/// # Errors
/// When a file cannot be read or moved.
pub fn promote(path: &Path, named: impl FnOnce(&SecretKey) -> bool) -> Result<bool, KeyFileError> {
    let Some(key) = read_next(path)? else { return Ok(false) };
    if !named(&key) {
        return Ok(false);
    }
    let io = |source| KeyFileError::Io { path: path.into(), source };
    // After a stop between the two the old one has moved away already.
    if path.exists() {
        let retired = format!("retired-{}.pem", read(path)?.public().fingerprint().short());
        fs::rename(path, path.with_extension(retired)).map_err(io)?;
    }
    fs::rename(next(path), path).map_err(io)?;
    Ok(true)
}

/// Reads a key, refusing a file that anybody but its owner may read.
///
/// # Errors
/// When the file is missing, open to others, or no key.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.into(), source };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.into(), mode });
    }
    let pem = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(io)?);
    SecretKey::from_pem(&pem).map_err(|source| KeyFileError::Key { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_takes_the_place_of_the_old_one_when_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.pem");
        let (old, new) = (SecretKey::generate(&mut rand::rng()), SecretKey::generate(&mut rand::rng()));
        write(&path, &old).unwrap();
        assert!(!promote(&path, |_| true).unwrap(), "there is no next key");
        write(&next(&path), &new).unwrap();
        assert!(!promote(&path, |key| key.public() == old.public()).unwrap());
        assert_eq!(read(&path).unwrap().public(), old.public());
        assert_eq!(read_newest(&path).unwrap().public(), new.public());
        assert!(promote(&path, |key| key.public() == new.public()).unwrap());
        assert_eq!(read(&path).unwrap().public(), new.public());
        assert!(read_next(&path).unwrap().is_none());
        let retired = format!("signing.retired-{}.pem", old.public().fingerprint().short());
        assert_eq!(read(&dir.path().join(retired)).unwrap().public(), old.public());
        // A stop after the old key moved away and before the new one took its place.
        fs::rename(&path, next(&path)).unwrap();
        assert!(promote(&path, |_| true).unwrap());
        assert_eq!(read(&path).unwrap().public(), new.public());
    }
}
