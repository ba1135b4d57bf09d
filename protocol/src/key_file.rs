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
