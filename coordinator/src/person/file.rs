//! Files that the commands read and write.
//!
//! A new file never replaces another; a changed one is replaced whole or not at all. Private keys are
//! not here: [`sekisho_protocol::key_file`] reads and writes those.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use sekisho_protocol::dsse::{Document, Envelope};

use super::failure::Failure;

/// The most bytes of any file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a whole file.
///
/// # Errors
/// When it cannot be read, or is larger than any document.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let io = |e| Failure::file(path, &e);
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::input(format!("{} is larger than 16 MiB", path.display()), "name another file"));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8.
///
/// # Errors
/// When it cannot be read or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::input(format!("{} is not UTF-8", path.display()), "save it as UTF-8"))
}

/// Reads the envelope of a `D`. Nobody's signature is checked.
///
/// # Errors
/// When the file is missing or holds something else.
pub fn read_envelope<D: Document>(path: &Path) -> Result<Envelope, Failure> {
    let envelope = Envelope::from_json::<D>(&read(path)?).map_err(|e| Failure::document(path, e))?;
    envelope.peek::<D>().map_err(|e| Failure::document(path, e))?;
    Ok(envelope)
}

/// Writes a new file.
///
/// # Errors
/// When it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::input(format!("{} exists", path.display()), "move it away or name another file")
        } else {
            Failure::file(path, &e)
        }
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Failure::file(path, &e))
}

/// Replaces a file, whole or not at all.
///
/// # Errors
/// When the new content cannot be written beside the old or take its place.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    write_new(&beside, bytes)?;
    fs::rename(&beside, path).map_err(|e| {
        // The old file stands; what is left beside it is only in the way.
        let _ = fs::remove_file(&beside);
        Failure::file(path, &e)
    })
}
