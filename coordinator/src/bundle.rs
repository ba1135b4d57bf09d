//! Release bundles: one result with everything that a stranger needs to check it offline.
//!
//! A bundle is a set of files ([`layout`]), as a folder or a zip archive, described as a Process Run Crate (`describe.rs`).
//! [`make`] gathers it at the coordinator from documents, database and log; [`verify`] checks it, from its bytes and a few
//! keys that somebody compared by telephone, without network, disk or database.
//!
//! Promises: the same database gives the same bytes; a bundle is made of a result that may leave, and of nothing else;
//! whatever of it is changed is found ([`verify`] checks every byte).
//!
//! Deliberately absent: applications and reviews of applications, which are not public; and who may have a bundle, which is
//! the door's and the pages' to decide.

pub mod archive;
mod describe;
mod gather;
pub mod layout;
mod reading;
mod stated;
pub mod trust;
pub mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, time::Duration};

use sekisho_protocol::{
    digest::Digest,
    refusal::{Code, Refusal},
};

pub(crate) use self::reading::Asker;
pub use self::reading::{ReleaseReport, list};
pub(crate) use self::stated::{Ended, state_earlier};
use crate::{
    documents::{Documents, unavailable},
    store::{KeptStatement, Store},
};

/// How long a bundle waits for the hospitals to witness what is in it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// The files of a bundle, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle(BTreeMap<String, Vec<u8>>);

impl Bundle {
    /// The files, by path.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.0
    }

    /// The bundle as a zip archive, stored without compression.
    ///
    /// # Errors
    /// When it is larger than an archive may be.
    pub fn zip(&self) -> Result<Vec<u8>, archive::ArchiveError> {
        archive::zip(&self.0)
    }
}

/// The bundle of a result that may leave. It waits a little for the hospitals to witness the newest of its statements.
///
/// # Errors
/// `result_unknown`, `awaiting_review`, `output_refused`; `not_witnessed` while too few hospitals cosigned a checkpoint that
/// has all of it; `unavailable` when something of it is not kept any more.
pub async fn make(documents: &Documents, store: &Store, result: Digest) -> Result<Bundle, Refusal> {
    make_within(documents, store, result, PATIENCE).await
}

/// The same, waiting for so long.
async fn make_within(
    documents: &Documents,
    store: &Store,
    result: Digest,
    patience: Duration,
) -> Result<Bundle, Refusal> {
    let statement = stated(store, result).await?;
    let gathered = gather::all(documents, store, &statement).await?;
    let begun = tokio::time::Instant::now();
    loop {
        match gather::proofs(store, &gathered).await? {
            Ok(proofs) => {
                let mut files = gathered.into_files();
                files.extend(proofs);
                describe::add(&mut files).map_err(|e| Refusal::new(Code::Unavailable, e.to_string()))?;
                return Ok(Bundle(files));
            }
            Err(missing) if begun.elapsed() >= patience => {
                let detail = format!("no checkpoint that the hospitals cosigned has the {missing} of this result yet");
                return Err(Refusal::new(Code::NotWitnessed, detail));
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

async fn stated(store: &Store, result: Digest) -> Result<KeptStatement, Refusal> {
    let unknown = || Refusal::new(Code::ResultUnknown, format!("no result {} was released here", result.short()));
    store.published(result).await.map_err(unavailable)?.ok_or_else(unknown)
}
