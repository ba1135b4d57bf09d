//! The files that a table is read from: which they are now, and whether they are still what was read.
//!
//! A mapping names one path or several; `*` and `?` in them match files. A file that comes or goes under such a
//! pattern changes the source like one that is written to.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern, glob_with};
use sekisho_protocol::digest::Digest;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};

use super::files;

/// How `*` and `?` match: not the dot that hides a file.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A path of a mapping, or a pattern that several files match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    pattern: bool,
}

impl Source {
    /// What a mapping in the folder `base` names so.
    pub(super) fn new(base: &Path, name: &str) -> Self {
        if name.contains(['*', '?']) {
            Self { path: Path::new(&Pattern::escape(&base.to_string_lossy())).join(name), pattern: true }
        } else {
            Self { path: base.join(name), pattern: false }
        }
    }

    /// The path, or the pattern.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The files of `sources` as they are now, each once, by their paths.
///
/// # Errors
/// When a folder cannot be read, or a pattern is none. Whether the file at a plain path is there is not looked at.
pub(super) fn expand(sources: &[Source]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for source in sources {
        if !source.pattern {
            files.push(source.path.clone());
            continue;
        }
        let found = glob_with(&source.path.to_string_lossy(), MATCH);
        for path in found.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.msg))? {
            files.push(path.map_err(io::Error::from)?);
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The `source` of a table in a mapping file: one name or a list of them.
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A source file as it was read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceRecord {
    pub(super) path: PathBuf,
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
    pub(super) mtime_ns: i64,
}

impl SourceRecord {
    /// The file as it is now; reads all of it, and tells `read` of the bytes as they come.
    pub(super) fn of(path: &Path, read: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let (bytes, mtime_ns) = files::size_and_mtime(path)?;
        Ok(Self { path: path.into(), sha256: files::digest(path, read)?, bytes, mtime_ns })
    }

    /// Whether size and time are as they were.
    pub(super) fn is_untouched(&self) -> io::Result<bool> {
        Ok(files::size_and_mtime(&self.path)? == (self.bytes, self.mtime_ns))
    }

    fn is_unchanged(&self) -> io::Result<bool> {
        match files::size_and_mtime(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => {
                let (bytes, mtime_ns) = found?;
                Ok(bytes == self.bytes
                    && (mtime_ns == self.mtime_ns || files::digest(&self.path, &mut |_| {})? == self.sha256))
            }
        }
    }
}

/// Whether `sources` are still the files that were read, by size and time, and where the time differs, by SHA-256.
///
/// # Errors
/// When one cannot be read; one that is gone has changed.
pub(super) fn unchanged(records: &[SourceRecord], sources: &[Source]) -> io::Result<bool> {
    if !expand(sources)?.iter().eq(records.iter().map(|record| &record.path)) {
        return Ok(false);
    }
    for record in records {
        if !record.is_unchanged()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the sources of a manifest; manifests from before there could be several have one, without a list.
pub(super) fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SourceRecord>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(SourceRecord),
        Several(Vec<SourceRecord>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(record) => vec![record],
        Either::Several(records) => records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_files_once_and_not_the_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("a[1]*");
        std::fs::create_dir_all(base.join("more")).unwrap();
        for name in ["b.csv", "a.csv", ".c.csv", "d.txt", "more/e.csv"] {
            std::fs::write(base.join(name), "").unwrap();
        }
        for (names, expect) in [
            (&["*.csv"][..], &["a.csv", "b.csv"][..]),
            (&["?.csv", "a.csv"], &["a.csv", "b.csv"]),
            (&["*/*.csv"], &["more/e.csv"]),
            (&["x*.csv"], &[]),
            (&["absent.csv"], &["absent.csv"]),
        ] {
            let sources: Vec<_> = names.iter().map(|name| Source::new(&base, name)).collect();
            let expect: Vec<_> = expect.iter().map(|name| base.join(name)).collect();
            assert_eq!(expand(&sources).unwrap(), expect, "{names:?}");
        }
        assert!(expand(&[Source::new(&base, "***.csv")]).is_err());
    }

    #[test]
    fn a_manifest_of_one_source_is_still_read() {
        let record = r#"{"path":"/a","sha256":"ZERO","bytes":1,"mtime_ns":2}"#.replace("ZERO", &"0".repeat(64));
        for (json, expect) in [(record.clone(), 1), (format!("[{record},{record}]"), 2), ("[]".into(), 0)] {
            let found = one_or_several(&mut serde_json::Deserializer::from_str(&json)).unwrap();
            assert_eq!(found.len(), expect, "{json}");
        }
    }
}
