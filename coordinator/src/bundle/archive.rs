//! A bundle as a zip archive or a folder.
//!
//! What is read is anybody's: the number of files, each size and their sum are bounded before they are read; paths are of
//! plain names; an archive's files must be stored without compression, so that none is larger than the archive.
//!
//! Deliberately absent: unpacking. What is checked stays in memory.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Write},
    path::Path,
};

use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

/// The most files of a bundle: eight for each of 1024 hospitals, and others.
pub const MAX_FILES: usize = 12_000;
/// The most bytes of all files together.
pub const MAX_BYTES: usize = 512 << 20;
/// The longest path.
const MAX_PATH: usize = 256;
/// How deep folders may be.
const MAX_DEPTH: usize = 8;

/// Why something is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The disk.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// Not a zip archive.
    #[error("not a zip archive that can be read: {0}")]
    Zip(#[from] ZipError),
    /// Compressed or encrypted.
    #[error("{0} is compressed, and only stored files are read: unpack the archive and name the folder")]
    Compressed(String),
    /// A path that a bundle cannot have.
    #[error(
        "{0:?} is no path of a bundle: lower-case letters, digits, `.`, `-`, `_` and `/`, and nothing that leaves the folder"
    )]
    Path(String),
    /// A path twice.
    #[error("{0} is in it twice")]
    Twice(String),
    /// Too much.
    #[error("more than {MAX_FILES} files, or more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// Neither a file nor a folder.
    #[error("{0} is neither a plain file nor a folder")]
    Special(String),
}

/// `files` as a zip archive: stored, in the order of their paths, without times, so that the same files are the same bytes.
///
/// # Errors
/// When they are too large.
pub fn zip(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        writer.start_file(path.as_str(), options)?;
        writer.write_all(bytes).map_err(|e| ArchiveError::File(path.clone(), e))?;
    }
    Ok(writer.finish()?.into_inner())
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Reading {
    /// Reads one file, as long as there is room.
    fn take(&mut self, path: &str, source: impl Read) -> Result<(), ArchiveError> {
        if !is_path(path) {
            return Err(ArchiveError::Path(path.chars().take(MAX_PATH).collect()));
        }
        let mut bytes = Vec::new();
        let left = MAX_BYTES - self.bytes;
        let read = source.take(left as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| ArchiveError::File(path.to_string(), e))?;
        if bytes.len() > left || self.files.len() >= MAX_FILES {
            return Err(ArchiveError::TooLarge);
        }
        self.bytes += bytes.len();
        match self.files.insert(path.to_string(), bytes) {
            None => Ok(()),
            Some(_) => Err(ArchiveError::Twice(path.to_string())),
        }
    }
}

fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    path.len() <= MAX_PATH && path.split('/').count() <= MAX_DEPTH && path.split('/').all(part)
}

/// The files of a zip archive.
///
/// # Errors
/// When it is none, is too large, or has what no bundle has.
pub fn unzip(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let mut archive = ZipArchive::new(Cursor::new(archive))?;
    if archive.len() > MAX_FILES {
        return Err(ArchiveError::TooLarge);
    }
    let mut reading = Reading::default();
    for index in 0..archive.len() {
        let raw = archive.by_index_raw(index)?;
        let (name, folder) = (raw.name()?.into_owned(), raw.is_dir());
        let stored = raw.compression() == CompressionMethod::Stored && !raw.encrypted();
        drop(raw);
        if folder {
            continue;
        }
        if !stored {
            return Err(ArchiveError::Compressed(name.chars().take(MAX_PATH).collect()));
        }
        reading.take(&name, archive.by_index(index)?)?;
    }
    Ok(reading.files)
}

/// The files of a folder.
///
/// # Errors
/// When it cannot be read, is too large, or has what no bundle has.
pub fn folder(root: &Path) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let mut reading = Reading::default();
    walk(root, "", &mut reading)?;
    Ok(reading.files)
}

fn walk(folder: &Path, prefix: &str, reading: &mut Reading) -> Result<(), ArchiveError> {
    let failed = |e| ArchiveError::File(folder.display().to_string(), e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| ArchiveError::Path(name.to_string_lossy().into_owned()))?;
        let (path, kind) = (format!("{prefix}{name}"), entry.file_type().map_err(failed)?);
        if kind.is_dir() && is_path(&path) {
            walk(&entry.path(), &format!("{path}/"), reading)?;
        } else if kind.is_file() {
            let file = fs::File::open(entry.path()).map_err(|e| ArchiveError::File(path.clone(), e))?;
            reading.take(&path, file)?;
        } else {
            return Err(ArchiveError::Special(path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        of.iter().map(|(path, bytes)| ((*path).to_string(), bytes.to_vec())).collect()
    }

    #[test]
    fn a_bundle_comes_out_of_its_archive_and_its_folder_as_it_went_in() {
        let bundle = files(&[("a.json", b"{}"), ("b/c-1.cells", &[0, 1, 2]), ("b/empty", b"")]);
        let archive = zip(&bundle).unwrap();
        assert_eq!(archive, zip(&bundle).unwrap(), "the same files are the same bytes");
        assert_eq!(unzip(&archive).unwrap(), bundle);
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in &bundle {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), bytes).unwrap();
        }
        assert_eq!(folder(dir.path()).unwrap(), bundle);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(matches!(folder(dir.path()), Err(ArchiveError::Special(_))));
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for (path, fits) in [
            ("a", true),
            ("a/b.json", true),
            ("../a", false),
            ("a/../b", false),
            ("/a", false),
            ("a//b", false),
            ("a\\b", false),
            (".hidden", false),
            ("", false),
            ("a/\u{202e}b", false),
            ("1/2/3/4/5/6/7/8/9", false),
        ] {
            assert_eq!(is_path(path), fits, "{path:?}");
            let mut reading = Reading::default();
            assert_eq!(reading.take(path, &b""[..]).is_ok(), fits, "{path:?}");
        }
    }

    #[test]
    fn a_damaged_archive_is_no_bundle() {
        let whole = zip(&files(&[("a", b"1234")])).unwrap();
        assert!(unzip(&whole[..whole.len() / 2]).is_err());
        assert!(unzip(b"").is_err());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            drop(unzip(&changed));
        }
    }
}
