//! The files of a bundle, and which of them a check has looked at.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use sekisho_protocol::dsse::{Document, Envelope};

use super::{super::layout, fault::Fault};

/// The files, by path.
pub(super) struct Files<'a> {
    all: &'a BTreeMap<String, Vec<u8>>,
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Files<'a> {
    pub(super) fn new(all: &'a BTreeMap<String, Vec<u8>>) -> Self {
        Self { all, read: RefCell::default() }
    }

    /// The file at `path`, if it is there.
    pub(super) fn get(&self, path: &str) -> Option<&'a [u8]> {
        let (path, bytes) = self.all.get_key_value(path)?;
        self.read.borrow_mut().insert(path);
        Some(bytes)
    }

    /// Counts `path` as read, where what it hangs from broke.
    pub(super) fn pass(&self, path: &str) {
        let _ = self.get(path);
    }

    /// The file at `path`.
    pub(super) fn need(&self, path: &str) -> Result<&'a [u8], Fault> {
        self.get(path).ok_or_else(|| Fault::Missing(path.into()))
    }

    /// The signed document at `path`.
    pub(super) fn envelope<D: Document>(&self, path: &str) -> Result<Envelope, Fault> {
        Ok(Envelope::from_json::<D>(self.need(path)?)?)
    }

    /// What is in a folder, between its path and `end`.
    pub(super) fn names(&self, folder: &str, end: &str) -> Vec<&'a str> {
        let name = |path: &'a String| path.strip_prefix(folder)?.strip_suffix(end);
        self.all.keys().filter_map(name).collect()
    }

    /// The paths of all signed statements.
    pub(super) fn statements(&self) -> Vec<&'a str> {
        self.all.keys().map(String::as_str).filter(|path| layout::kind(path).is_some()).collect()
    }

    /// What nobody has looked at.
    pub(super) fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        self.all.keys().filter(|path| !read.contains(path.as_str())).cloned().collect()
    }
}
