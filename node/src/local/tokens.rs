//! The tokens of the hospital's systems: a file of mode 0600 with a line `NAME:SHA-256` for each.
//!
//! A token is 256 random bits, so its plain SHA-256 tells nothing of it, and nobody guesses one. It is shown once, when it is
//! made. The file is read anew for each request: a token that was added or revoked is so at once.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rand::RngCore;
use sekisho_protocol::{digest::Digest, roster::is_name};
use subtle::ConstantTimeEq;

/// How many tokens there may be.
const MAX_TOKENS: usize = 100;
/// The most bytes of the file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why the token file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// There is none.
    #[error("there is no token file {0}: make a token with `sekisho-node local token NAME --config node.toml`")]
    Missing(PathBuf),
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
    #[error("{path}, line {line}: write NAME:SHA-256, each name once, as `sekisho-node local token NAME` does", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
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

/// One token, hashed.
struct Token {
    name: String,
    hash: Digest,
}

/// The file of the tokens.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The file at `path`; it is not looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The names of the tokens, in the order of the file.
    ///
    /// # Errors
    /// When the file is missing, open to others, or has a line that is no token.
    pub fn names(&self) -> Result<Vec<String>, TokenFileError> {
        Ok(self.read()?.into_iter().map(|token| token.name).collect())
    }

    /// Who has this token. Every token is compared, and each in constant time.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn caller(&self, token: &str) -> Result<Option<String>, TokenFileError> {
        let presented = Digest::of(token.as_bytes());
        let mut caller = None;
        for token in self.read()? {
            if bool::from(token.hash.as_bytes().ct_eq(presented.as_bytes())) {
                caller = Some(token.name);
            }
        }
        Ok(caller)
    }

    /// Makes a token for `name`, keeps its hash, and returns it: this is the only time that it is seen.
    ///
    /// # Errors
    /// When the name is taken or is none, or the file cannot be used.
    pub fn add(&self, name: &str, rng: &mut impl RngCore) -> Result<String, TokenFileError> {
        if !is_name(name) {
            return Err(TokenFileError::Name);
        }
        let known = match self.read() {
            Err(TokenFileError::Missing(_)) => Vec::new(),
            known => known?,
        };
        if known.iter().any(|token| token.name == name) {
            return Err(TokenFileError::Exists(name.into()));
        }
        if known.len() >= MAX_TOKENS {
            return Err(TokenFileError::TooLong(self.path.clone()));
        }
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let token = hex::encode(bytes);
        let line = line_of(&Token { name: name.into(), hash: Digest::of(token.as_bytes()) });
        let mut file =
            fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map_err(self.io())?;
        file.write_all(line.as_bytes()).map_err(self.io())?;
        file.sync_all().map_err(self.io())?;
        Ok(token)
    }

    /// Takes the token of `name` away.
    ///
    /// # Errors
    /// When there is none, or the file cannot be used.
    pub fn revoke(&self, name: &str) -> Result<(), TokenFileError> {
        let mut tokens = self.read()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(TokenFileError::Unknown(name.into()));
        }
        let rest: String = tokens.iter().map(line_of).collect();
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

    fn read(&self) -> Result<Vec<Token>, TokenFileError> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(TokenFileError::Missing(self.path.clone()));
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
        let mut tokens: Vec<Token> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let token = token(line).filter(|token| tokens.iter().all(|other| other.name != token.name));
            tokens.push(token.ok_or_else(|| TokenFileError::Line { path: self.path.clone(), line: number + 1 })?);
        }
        if tokens.len() > MAX_TOKENS {
            return Err(TokenFileError::TooLong(self.path.clone()));
        }
        Ok(tokens)
    }

    fn io(&self) -> impl Fn(io::Error) -> TokenFileError + use<> {
        let path: PathBuf = Path::to_path_buf(&self.path);
        move |source| TokenFileError::Io { path: path.clone(), source }
    }
}

fn token(line: &str) -> Option<Token> {
    let (name, hash) = line.trim().split_once(':')?;
    let hash = hex::decode(hash).ok()?.try_into().map(Digest::from_bytes).ok()?;
    is_name(name).then(|| Token { name: name.into(), hash })
}

fn line_of(token: &Token) -> String {
    format!("{}:{}\n", token.name, hex::encode(token.hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_name_until_it_is_revoked_and_only_its_hash_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(dir.path().join("tokens"));
        assert!(matches!(file.caller("x"), Err(TokenFileError::Missing(_))));
        let (desk, ehr) = (file.add("desk", &mut rand::rng()).unwrap(), file.add("ehr", &mut rand::rng()).unwrap());
        let kept = fs::read_to_string(&file.path).unwrap();
        assert!(!kept.contains(&desk) && !kept.contains(&ehr) && desk != ehr);
        for (token, expect) in
            [(desk.as_str(), Some("desk")), (&ehr, Some("ehr")), ("", None), ("desk", None), (&desk[1..], None)]
        {
            assert_eq!(file.caller(token).unwrap().as_deref(), expect);
        }
        assert!(matches!(file.add("desk", &mut rand::rng()), Err(TokenFileError::Exists(_))));
        assert!(matches!(file.add("The Desk", &mut rand::rng()), Err(TokenFileError::Name)));
        file.revoke("desk").unwrap();
        assert!(matches!(file.revoke("desk"), Err(TokenFileError::Unknown(_))));
        assert_eq!((file.caller(&desk).unwrap(), file.names().unwrap()), (None, vec!["ehr".to_string()]));
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_or_with_a_line_that_is_no_token_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(dir.path().join("tokens"));
        let token = file.add("desk", &mut rand::rng()).unwrap();
        let good = fs::read_to_string(&file.path).unwrap();
        let hash = "0".repeat(64);
        for (text, line) in [
            (format!("{good}nonsense\n"), 2),
            (format!("{good}\nehr:{}\n", &hash[1..]), 3),
            (format!("{good}{good}"), 2),
            (format!("Desk:{hash}\n{good}"), 1),
        ] {
            fs::write(&file.path, text).unwrap();
            assert!(matches!(file.caller(&token), Err(TokenFileError::Line { line: l, .. }) if l == line), "{line}");
        }
        let many: String = (0..101).map(|n| format!("t-{n}:{hash}\n")).collect();
        fs::write(&file.path, many).unwrap();
        assert!(matches!(file.names(), Err(TokenFileError::TooLong(_))));
        fs::write(&file.path, &good).unwrap();
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(file.caller(&token), Err(TokenFileError::Mode { mode: 0o640, .. })));
    }
}
