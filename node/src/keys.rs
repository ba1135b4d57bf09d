//! The node's own keys, and how each gives way to the next one while the node runs.
//!
//! `sekisho-node keys rotate` puts the next key beside the one in use. Which of the two counts is said by the roster: the
//! node signs with the one that it names, and dials with the one that the coordinator lets in. A next key that the roster
//! names takes the place of the one in use on the disk; the old file stays beside it, under its fingerprint.
//!
//! Deliberately absent: a second rotation of the signing key in one run of the node; it waits for the next start.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use sekisho_protocol::{
    clock::Clock,
    key_file::{self, KeyFileError},
    keys::SecretKey,
    roster::{Member, Roster},
    transport::{Network, PeerId, peer_id_of_seed},
};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::documents::Documents;

/// How often it is looked whether a key shall give way.
const EVERY: Duration = Duration::from_secs(1);
/// How long one transport key is tried before the other one is.
const PATIENCE: Duration = Duration::from_secs(15);

/// The signing key: the one in use, or the next one once the roster names it.
pub struct Signing {
    first: SecretKey,
    next: OnceLock<SecretKey>,
}

impl From<SecretKey> for Signing {
    fn from(first: SecretKey) -> Self {
        Self { first, next: OnceLock::new() }
    }
}

impl Deref for Signing {
    type Target = SecretKey;

    fn deref(&self) -> &SecretKey {
        self.next.get().unwrap_or(&self.first)
    }
}

/// Which transport key the node dials with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialling {
    /// The key in use.
    Current,
    /// The one beside it.
    Next,
}

/// The files of the node's keys, and who it is.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// Its name on the roster.
    pub name: String,
    /// The signing key.
    pub signing: PathBuf,
    /// The transport key.
    pub transport: PathBuf,
}

impl KeyFiles {
    /// The transport key to dial with.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn transport(&self, dialling: Dialling) -> Result<SecretKey, KeyFileError> {
        match dialling {
            Dialling::Current => key_file::read(&self.transport),
            Dialling::Next => key_file::read_newest(&self.transport),
        }
    }

    /// The entry that a roster must have for the newest keys, those in use or beside them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn member(&self) -> Result<Member, KeyFileError> {
        let transport = key_file::read_newest(&self.transport)?;
        Ok(Member {
            name: self.name.clone(),
            role: sekisho_protocol::roster::Role::Node,
            peer_id: peer_of(&transport).unwrap_or_default(),
            signing_key: key_file::read_newest(&self.signing)?.public(),
        })
    }

    /// Puts next keys that `roster` names in the place of those in use.
    ///
    /// # Errors
    /// When a file cannot be read or moved.
    pub fn settle(&self, roster: &Roster) -> Result<(), KeyFileError> {
        let Some(us) = roster.member(&self.name) else { return Ok(()) };
        if key_file::promote(&self.signing, |next| next.public() == us.signing_key)? {
            info!(fingerprint = %us.signing_key.fingerprint(), "the next signing key is in use");
        }
        if key_file::promote(&self.transport, |next| peer_of(next).as_ref() == Some(&us.peer_id))? {
            info!(peer = us.peer_id, "the next transport key is in use");
        }
        Ok(())
    }
}

fn peer_of(key: &SecretKey) -> Option<String> {
    peer_id_of_seed(&key.seed()).ok().map(|peer| peer.to_string())
}

/// Follows the roster until the other transport key shall be dialled with, because this one was not let in for 15 seconds;
/// returns which. Meanwhile a next signing key that the roster names signs.
pub async fn follow(
    files: &KeyFiles,
    documents: &Documents,
    signing: &Signing,
    network: &Network,
    coordinator: PeerId,
    dialling: Dialling,
    clock: &dyn Clock,
) -> Dialling {
    let (mut since, mut told) = (Instant::now(), false);
    loop {
        tokio::time::sleep(EVERY).await;
        if let Ok(roster) = documents.roster(clock.now()).await {
            let taken = take_next(&files.signing, &files.name, &roster, signing);
            match taken.and_then(|known| files.settle(&roster).map(|()| known)) {
                Ok(known) if known || told => told &= !known,
                Ok(_) => {
                    warn!("the roster names a signing key that this run does not have: restart, or see `keys show`");
                    told = true;
                }
                Err(error) if !told => {
                    warn!(%error, "a next key cannot take its place");
                    told = true;
                }
                Err(_) => {}
            }
        }
        if network.connected().borrow().contains(&coordinator) {
            since = Instant::now();
        } else if since.elapsed() >= PATIENCE {
            // Once the next key is in use there is no other to try.
            let other = match dialling {
                Dialling::Current => Dialling::Next,
                Dialling::Next => Dialling::Current,
            };
            if key_file::next(&files.transport).exists() {
                return other;
            }
            since = Instant::now();
        }
    }
}

/// Signs with the next key from now on, if `roster` names it; says whether the key that the roster names is here.
fn take_next(path: &Path, name: &str, roster: &Roster, signing: &Signing) -> Result<bool, KeyFileError> {
    let Some(named) = roster.member(name).map(|us| us.signing_key) else { return Ok(true) };
    if named == signing.public() {
        return Ok(true);
    }
    match key_file::read_next(path)? {
        Some(next) if named == next.public() => Ok(signing.next.set(next).is_ok()),
        Some(_) | None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Duration as Days};

    use super::*;

    fn key() -> SecretKey {
        SecretKey::generate(&mut rand::rng())
    }

    #[test]
    fn each_next_key_counts_when_the_roster_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles {
            name: "west".into(),
            signing: dir.path().join("signing.pem"),
            transport: dir.path().join("transport.pem"),
        };
        let (old, next) = (key(), key());
        key_file::write(&files.signing, &old).unwrap();
        key_file::write(&files.transport, &key()).unwrap();
        let before = files.member().unwrap();
        let at = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        let roster = |member: Member| Roster {
            seq: 1,
            prev: None,
            issued: at,
            expires: at + Days::days(1),
            members: vec![member],
        };
        let signing = Signing::from(key_file::read(&files.signing).unwrap());
        key_file::write(&key_file::next(&files.signing), &next).unwrap();
        let rotated = files.member().unwrap();
        assert_eq!((&rotated.peer_id, rotated.signing_key), (&before.peer_id, next.public()));

        assert!(take_next(&files.signing, "west", &roster(before.clone()), &signing).unwrap());
        files.settle(&roster(before)).unwrap();
        assert_eq!(signing.public(), old.public(), "the roster does not name it yet");

        assert!(take_next(&files.signing, "west", &roster(rotated.clone()), &signing).unwrap());
        files.settle(&roster(rotated.clone())).unwrap();
        assert_eq!(signing.public(), next.public());
        assert_eq!(key_file::read(&files.signing).unwrap().public(), next.public());
        assert_eq!(files.member().unwrap(), rotated);

        key_file::write(&key_file::next(&files.transport), &key()).unwrap();
        let moved = files.member().unwrap();
        let dialled = |dialling| peer_of(&files.transport(dialling).unwrap()).unwrap();
        assert_eq!((dialled(Dialling::Current), dialled(Dialling::Next)), (rotated.peer_id, moved.peer_id.clone()));
        files.settle(&roster(moved.clone())).unwrap();
        assert_eq!((dialled(Dialling::Current), dialled(Dialling::Next)), (moved.peer_id.clone(), moved.peer_id));
    }
}
