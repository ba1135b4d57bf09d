//! The seeds of noise, sealed at rest: whoever has a release and its seed has the exact cells.
//!
//! Each release has a seed of its own, 32 bytes from the operating system. It is kept so that a hospital can make the
//! release again for an inspector, and only sealed: XChaCha20-Poly1305 under a key in a file beside the signing key,
//! mode 0600, which is in no backup of the database alone. The run is authenticated with it, so that a seed of
//! another run does not open.
//!
//! The key that cohorts of exact releases are hashed under ([`SeedKey::cohorts`]) is derived from the same file, and so in no
//! backup of the database alone either.
//!
//! Deliberately absent: any way to print a seed but one ([`Seed::shown`], for an inspector's screen), and any way to
//! have a lost key back. Losing it loses replays of what was released under it, and ends exact releases, whose
//! cohorts can be compared no more.

use std::path::{Path, PathBuf};

use chacha20poly1305::{AeadInPlace, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand::{CryptoRng, SeedableRng, TryRngCore, rngs::OsRng};
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::exact::CohortKey;
use sekisho_protocol::{
    digest::Digest,
    key_file::{self, KeyFileError},
    keys::SecretKey,
};
use zeroize::Zeroizing;

use crate::ledger::RunKey;

/// The seed of one release's noise.
pub struct Seed(Zeroizing<[u8; 32]>);

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

impl Seed {
    /// A seed from the operating system.
    ///
    /// # Errors
    /// When it gives none.
    pub fn draw() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng.try_fill_bytes(&mut *seed).map_err(|_| NoRandomness)?;
        Ok(Self(seed))
    }

    /// The generator of the release, from its first word.
    pub fn generator(&self) -> impl CryptoRng + Send + use<> {
        ChaCha20Rng::from_seed(*self.0)
    }

    /// The seed in hexadecimal, for an inspector's screen.
    pub fn shown(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(*self.0))
    }
}

/// A seed at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSeed {
    /// The fingerprint of the key that it is sealed under.
    pub key: Digest,
    /// 192 random bits.
    pub nonce: [u8; 24],
    /// The seed encrypted, and the tag.
    pub sealed: [u8; 48],
}

/// Why a seed does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// It is sealed under another key.
    #[error("it is sealed under key {sealed}, and {path} is key {found}", path = path.display())]
    OtherKey {
        /// The first digits of its key's fingerprint.
        sealed: String,
        /// Those of the key that is here.
        found: String,
        /// Where that is.
        path: PathBuf,
    },
    /// It was changed, or belongs to another run.
    #[error("it does not open: it was changed, or belongs to another run")]
    Changed,
}

/// The key that seeds are sealed under.
pub struct SeedKey {
    cipher: XChaCha20Poly1305,
    cohorts: Zeroizing<[u8; 32]>,
    fingerprint: Digest,
    path: PathBuf,
}

impl SeedKey {
    /// Where the key lies: beside the signing key.
    pub fn path_beside(signing_key: &Path) -> PathBuf {
        signing_key.with_file_name("replay.pem")
    }

    /// Makes a new key in a file of mode 0600.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn make(path: &Path) -> Result<(), KeyFileError> {
        key_file::write(path, &SecretKey::generate(&mut rand::rng()))
    }

    /// Reads the key.
    ///
    /// # Errors
    /// When its file is missing, open to others, or no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let file = key_file::read(path)?;
        // The file has the form of all key files; what seals is derived from its secret, and used for nothing else.
        let key = Zeroizing::new(*Digest::of_parts(&[b"sekisho replay key v1", &*file.seed()]).as_bytes());
        let cipher = XChaCha20Poly1305::new(Key::from_slice(&*key));
        let cohorts = Zeroizing::new(*Digest::of_parts(&[b"sekisho cohort key v1", &*file.seed()]).as_bytes());
        Ok(Self { cipher, cohorts, fingerprint: file.public().fingerprint(), path: path.into() })
    }

    /// Reads the key, and makes one first where there is none.
    ///
    /// # Errors
    /// When its file cannot be written, is open to others, or no key.
    pub fn read_or_make(path: &Path) -> Result<Self, KeyFileError> {
        if !path.exists() {
            match Self::make(path) {
                // Another process made it meanwhile.
                Ok(()) | Err(KeyFileError::Exists(_)) => {}
                Err(error @ (KeyFileError::Mode { .. } | KeyFileError::Io { .. } | KeyFileError::Key { .. })) => {
                    return Err(error);
                }
            }
        }
        Self::read(path)
    }

    /// The key that cohorts are hashed under.
    pub fn cohorts(&self) -> CohortKey {
        CohortKey::new(*self.cohorts)
    }

    /// Which key it is.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Seals the seed of a run's release.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, seed: &Seed, run: &RunKey) -> Result<SealedSeed, NoRandomness> {
        let (mut nonce, mut sealed) = ([0; 24], [0; 48]);
        OsRng.try_fill_bytes(&mut nonce).map_err(|_| NoRandomness)?;
        let (text, tag) = sealed.split_at_mut(32);
        text.copy_from_slice(&*seed.0);
        let made = self.cipher.encrypt_in_place_detached(XNonce::from_slice(&nonce), &of(run), text);
        // Only a text of 256 GiB or more is refused.
        tag.copy_from_slice(&made.map_err(|_| NoRandomness)?);
        Ok(SealedSeed { key: self.fingerprint, nonce, sealed })
    }

    /// Opens the seed of a run's release.
    ///
    /// # Errors
    /// When it is sealed under another key, was changed, or belongs to another run.
    pub fn open(&self, sealed: &SealedSeed, run: &RunKey) -> Result<Seed, SeedError> {
        if sealed.key != self.fingerprint {
            let (found, path) = (self.fingerprint.short(), self.path.clone());
            return Err(SeedError::OtherKey { sealed: sealed.key.short(), found, path });
        }
        let (text, tag) = sealed.sealed.split_at(32);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(text);
        let (nonce, tag) = (XNonce::from_slice(&sealed.nonce), Tag::from_slice(tag));
        let opened = self.cipher.decrypt_in_place_detached(nonce, &of(run), &mut *seed, tag);
        opened.map(|()| Seed(seed)).map_err(|_| SeedError::Changed)
    }
}

/// What a sealed seed is bound to.
fn of(run: &RunKey) -> [u8; 32] {
    let parts =
        [&b"sekisho sealed seed v1"[..], run.permit.as_bytes(), run.query_key.as_bytes(), &run.run.to_be_bytes()];
    *Digest::of_parts(&parts).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rand::RngCore;

    use super::*;

    fn run(run: u32) -> RunKey {
        RunKey { permit: Digest::of(b"p"), query_key: Digest::of(b"q"), run }
    }

    #[test]
    fn a_seed_opens_for_its_run_and_key_alone_and_gives_the_same_noise() {
        let dir = tempfile::tempdir().unwrap();
        let path = SeedKey::path_beside(&dir.path().join("signing.pem"));
        let key = SeedKey::read_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let seed = Seed::draw().unwrap();
        let sealed = key.seal(&seed, &run(1)).unwrap();
        assert!(!sealed.sealed.windows(32).any(|part| part == *seed.0), "it is encrypted");
        let again = SeedKey::read_or_make(&path).unwrap();
        let opened = again.open(&sealed, &run(1)).unwrap();
        assert_eq!(opened.shown(), seed.shown());
        assert_eq!(opened.generator().next_u64(), seed.generator().next_u64());
        assert_eq!(again.open(&sealed, &run(2)).err(), Some(SeedError::Changed));
        for byte in [0, 31, 32, 47] {
            let mut changed = sealed.clone();
            changed.sealed[byte] ^= 1;
            assert_eq!(again.open(&changed, &run(1)).err(), Some(SeedError::Changed), "byte {byte}");
        }
        std::fs::remove_file(&path).unwrap();
        let other = SeedKey::read_or_make(&path).unwrap();
        assert!(matches!(other.open(&sealed, &run(1)), Err(SeedError::OtherKey { .. })));
    }

    #[test]
    fn two_seeds_and_two_seals_are_never_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let key = SeedKey::read_or_make(&dir.path().join("replay.pem")).unwrap();
        let (a, b) = (Seed::draw().unwrap(), Seed::draw().unwrap());
        assert_ne!(a.shown(), b.shown());
        assert_ne!(key.seal(&a, &run(1)).unwrap(), key.seal(&a, &run(1)).unwrap());
    }

    static_assertions::assert_not_impl_any!(Seed: std::fmt::Debug, Clone, serde::Serialize);
    static_assertions::assert_not_impl_any!(SeedKey: std::fmt::Debug, Clone, serde::Serialize);
}
