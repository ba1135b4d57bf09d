//! Files of tokens: who may ask a listener of ours, one line each, as the hash of 256 random bits.
//!
//! Promises: a file that others may read, that is too long, or that has a line that is no token lets nobody in; a token is compared
//! in constant time with all of them; it is shown once, when it is made. The file is read anew each time it is asked, so that a
//! token that was added or revoked is so at once. A token is 256 random bits, so its plain SHA-256 tells nothing of it, and nobody
//! guesses one: [`WrongTokens`] keeps those who try from filling a log.
//!
//! Deliberately absent: passwords, and what a token's owner may do: that is the line's, and of whoever reads it.
#![expect(
    clippy::disallowed_methods,
    reason = "tokens are kept in a file; this module is where it is read and written"
)]

use std::{
    fs,
    io::{self, Write},
    marker::PhantomData,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngCore;
use subtle::ConstantTimeEq;

use crate::{digest::Digest, roster::is_name};

/// How many tokens there may be.
const MAX_TOKENS: usize = 100;
/// The most bytes of the file.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// How many wrong tokens are looked at in a minute before it is said that they are many.
const MAX_WRONG_TOKENS: u32 = 20;

/// One line of a token file.
pub trait Line: Sized {
    /// How a line is written, for those who made a mistake in one.
    const FORM: &'static str;
    /// The command that makes a token.
    const MAKE: &'static str;

    /// Whose token it is.
    fn name(&self) -> &str;
    /// The SHA-256 of the token.
    fn hash(&self) -> &Digest;
    /// The line, without its end.
    fn write(&self) -> String;
    /// Reads a line; none when it is no token.
    fn read(line: &str) -> Option<Self>;
}

/// Why the token file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// There is none.
    #[error("there is no token file {path}: make a token with `{make}`", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The command.
        make: &'static str,
    },
    /// Others may read it.
    #[error("{path} has mode {mode:o}; it must be its owner's only: run `chmod 600 {path}`", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The disk said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line is no token.
    #[error("{path}, line {line}: write {form}, each name once, as `{make}` does", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// How a line is written.
        form: &'static str,
        /// The command that writes one.
        make: &'static str,
    },
    /// The file is longer than it may be.
    #[error("{0} has more than 100 tokens or 64 KiB: revoke what is not used")]
    TooLong(PathBuf),
    /// The name cannot be a token's.
    #[error("a token's name is 1-64 lower-case letters, digits and hyphens")]
    Name,
    /// There is such a token.
    #[error("there is a token {0}: revoke it first, or choose another name")]
    Exists(String),
    /// There is no such token.
    #[error("there is no token {0}")]
    Unknown(String),
}

/// A file of tokens, with lines of the kind `L`.
#[derive(Debug)]
pub struct TokenFile<L> {
    path: PathBuf,
    line: PhantomData<fn() -> L>,
}

/// Whatever its lines are.
impl<L> Clone for TokenFile<L> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), line: PhantomData }
    }
}

impl<L: Line> TokenFile<L> {
    /// The file at `path`; it is not looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), line: PhantomData }
    }

    /// The names of the tokens, in the order of the file.
    ///
    /// # Errors
    /// When the file is missing, open to others, or has a line that is no token.
    pub fn names(&self) -> Result<Vec<String>, TokenFileError> {
        Ok(self.lines()?.into_iter().map(|line| line.name().to_string()).collect())
    }

    /// The line of this token. Every line is compared, and each in constant time.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn find(&self, token: &str) -> Result<Option<L>, TokenFileError> {
        self.with_hash(&Digest::of(token.as_bytes()))
    }

    /// The line of the token with this hash: whether a token that was let in is there still.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn with_hash(&self, hash: &Digest) -> Result<Option<L>, TokenFileError> {
        let mut found = None;
        for line in self.lines()? {
            if bool::from(line.hash().as_bytes().ct_eq(hash.as_bytes())) {
                found = Some(line);
            }
        }
        Ok(found)
    }

    /// Makes a token, keeps the line that `line` makes of its hash, and returns it: this is the only time that it is seen.
    ///
    /// # Errors
    /// When the name is taken or is none, or the file cannot be used.
    pub fn add(&self, line: impl FnOnce(Digest) -> L, rng: &mut impl RngCore) -> Result<String, TokenFileError> {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let token = hex::encode(bytes);
        let line = line(Digest::of(token.as_bytes()));
        if !is_name(line.name()) {
            return Err(TokenFileError::Name);
        }
        let known = match self.lines() {
            Err(TokenFileError::Missing { .. }) => Vec::new(),
            known => known?,
        };
        if known.iter().any(|known| known.name() == line.name()) {
            return Err(TokenFileError::Exists(line.name().into()));
        }
        if known.len() >= MAX_TOKENS {
            return Err(TokenFileError::TooLong(self.path.clone()));
        }
        let text = format!("{}\n", line.write());
        let mut file =
            fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map_err(self.io())?;
        file.write_all(text.as_bytes()).map_err(self.io())?;
        file.sync_all().map_err(self.io())?;
        Ok(token)
    }

    /// Takes the token of `name` away.
    ///
    /// # Errors
    /// When there is none, or the file cannot be used.
    pub fn revoke(&self, name: &str) -> Result<(), TokenFileError> {
        let mut lines = self.lines()?;
        let before = lines.len();
        lines.retain(|line| line.name() != name);
        if lines.len() == before {
            return Err(TokenFileError::Unknown(name.into()));
        }
        let rest: String = lines.iter().map(|line| line.write() + "\n").collect();
        let staged = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .map_err(self.io())?;
        file.write_all(rest.as_bytes()).map_err(self.io())?;
        file.sync_all().map_err(self.io())?;
        fs::rename(&staged, &self.path).map_err(self.io())
    }

    /// The lines of the file.
    ///
    /// # Errors
    /// When the file is missing, open to others, or has a line that is no token.
    pub fn lines(&self) -> Result<Vec<L>, TokenFileError> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(TokenFileError::Missing { path: self.path.clone(), make: L::MAKE });
            }
            metadata => metadata.map_err(self.io())?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenFileError::Mode { path: self.path.clone(), mode });
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(TokenFileError::TooLong(self.path.clone()));
        }
        let text = fs::read_to_string(&self.path).map_err(self.io())?;
        let mut lines: Vec<L> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let read = L::read(line.trim()).filter(|line| is_name(line.name()));
            let read = read.filter(|line| lines.iter().all(|other| other.name() != line.name()));
            let wrong =
                || TokenFileError::Line { path: self.path.clone(), line: number + 1, form: L::FORM, make: L::MAKE };
            lines.push(read.ok_or_else(wrong)?);
        }
        if lines.len() > MAX_TOKENS {
            return Err(TokenFileError::TooLong(self.path.clone()));
        }
        Ok(lines)
    }

    fn io(&self) -> impl Fn(io::Error) -> TokenFileError + use<L> {
        let path = self.path.clone();
        move |source| TokenFileError::Io { path: path.clone(), source }
    }
}

/// A digest from its hexadecimal digits, as lines have it.
pub fn hash_of(hex_digits: &str) -> Option<Digest> {
    hex::decode(hex_digits).ok()?.try_into().map(Digest::from_bytes).ok()
}

/// Counts wrong tokens. A right one is let in whatever came before it: a token cannot be guessed, and a program that tries
/// must not keep those who have one out.
#[derive(Debug, Default)]
pub struct WrongTokens(Mutex<Option<(DateTime<Utc>, u32)>>);

impl WrongTokens {
    /// Counts one more at the hour `now`; whether there were too many in this minute.
    pub fn one_more(&self, now: DateTime<Utc>) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = counted.filter(|(since, _)| now - *since < TimeDelta::minutes(1)).unwrap_or((now, 0));
        *counted = Some((since, count.saturating_add(1)));
        if count == MAX_WRONG_TOKENS {
            tracing::warn!("many requests with wrong tokens come");
        }
        count >= MAX_WRONG_TOKENS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(String, Digest);

    impl Line for Named {
        const FORM: &'static str = "NAME:SHA-256";
        const MAKE: &'static str = "make NAME";

        fn name(&self) -> &str {
            &self.0
        }

        fn hash(&self) -> &Digest {
            &self.1
        }

        fn write(&self) -> String {
            format!("{}:{}", self.0, self.1)
        }

        fn read(line: &str) -> Option<Self> {
            let (name, hash) = line.split_once(':')?;
            Some(Self(name.into(), hash_of(hash)?))
        }
    }

    fn add(file: &TokenFile<Named>, name: &str) -> Result<String, TokenFileError> {
        file.add(|hash| Named(name.into(), hash), &mut rand::rng())
    }

    #[test]
    fn a_token_is_known_by_its_name_until_it_is_revoked_and_only_its_hash_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::<Named>::new(dir.path().join("tokens"));
        let caller = |token: &str| file.find(token).map(|line| line.map(|line| line.0));
        assert!(matches!(caller("x"), Err(TokenFileError::Missing { .. })));
        let (desk, ehr) = (add(&file, "desk").unwrap(), add(&file, "ehr").unwrap());
        let kept = fs::read_to_string(&file.path).unwrap();
        assert!(!kept.contains(&desk) && !kept.contains(&ehr) && desk != ehr);
        for (token, expect) in
            [(desk.as_str(), Some("desk")), (&ehr, Some("ehr")), ("", None), ("desk", None), (&desk[1..], None)]
        {
            assert_eq!(caller(token).unwrap().as_deref(), expect);
        }
        assert!(matches!(add(&file, "desk"), Err(TokenFileError::Exists(_))));
        assert!(matches!(add(&file, "The Desk"), Err(TokenFileError::Name)));
        file.revoke("desk").unwrap();
        assert!(matches!(file.revoke("desk"), Err(TokenFileError::Unknown(_))));
        assert_eq!((caller(&desk).unwrap(), file.names().unwrap()), (None, vec!["ehr".to_string()]));
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_or_with_a_line_that_is_no_token_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::<Named>::new(dir.path().join("tokens"));
        let token = add(&file, "desk").unwrap();
        let good = fs::read_to_string(&file.path).unwrap();
        let hash = "0".repeat(64);
        for (text, line) in [
            (format!("{good}nonsense\n"), 2),
            (format!("{good}\nehr:{}\n", &hash[1..]), 3),
            (format!("{good}{good}"), 2),
            (format!("Desk:{hash}\n{good}"), 1),
        ] {
            fs::write(&file.path, text).unwrap();
            let found = file.find(&token).map(drop);
            assert!(matches!(found, Err(TokenFileError::Line { line: l, .. }) if l == line), "{line}");
        }
        let many: String = (0..101).map(|n| format!("t-{n}:{hash}\n")).collect();
        fs::write(&file.path, many).unwrap();
        assert!(matches!(file.names(), Err(TokenFileError::TooLong(_))));
        fs::write(&file.path, &good).unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(file.find(&token).map(drop), Err(TokenFileError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn so_many_wrong_tokens_are_looked_at_in_a_minute() {
        let (wrong, at) = (WrongTokens::default(), |s| DateTime::from_timestamp(1_750_000_000 + s, 0).unwrap());
        for n in 0..MAX_WRONG_TOKENS {
            assert!(!wrong.one_more(at(i64::from(n))));
        }
        assert!(wrong.one_more(at(59)));
        assert!(!wrong.one_more(at(60)));
    }
}
