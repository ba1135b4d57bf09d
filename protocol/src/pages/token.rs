//! The tokens of people: lines `NAME ROLE EXPIRES SHA-256 [SUBJECT]`.

use chrono::{DateTime, SubsecRound, Utc};

use crate::{
    digest::Digest,
    roster::is_name,
    token_file::{Line, hash_of},
};

/// The most characters of a subject.
const MAX_SUBJECT: usize = 128;

/// One person's token, hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Whose it is.
    pub name: String,
    /// What its owner may see; the site knows its roles.
    pub role: String,
    /// From when on it is void.
    pub expires: DateTime<Utc>,
    /// Its SHA-256.
    hash: Digest,
    /// Who its owner is in signed documents: a member's name, a key's fingerprint.
    pub subject: Option<String>,
}

impl PageToken {
    /// The line of a token with this hash.
    pub fn new(name: &str, role: &str, expires: DateTime<Utc>, subject: Option<&str>, hash: Digest) -> Self {
        let (name, role, subject) = (name.into(), role.into(), subject.map(Into::into));
        Self { name, role, expires: expires.trunc_subsecs(0), hash, subject }
    }
}

impl Line for PageToken {
    const FORM: &'static str = "NAME ROLE EXPIRES SHA-256 [SUBJECT]";
    // Messages put it between backticks, of which two commands need four.
    const MAKE: &'static str = "sekisho-coordinator pages token add` or `sekisho-node console token add";

    fn name(&self) -> &str {
        &self.name
    }

    fn hash(&self) -> &Digest {
        &self.hash
    }

    fn write(&self) -> String {
        let expires = self.expires.format("%Y-%m-%dT%H:%M:%SZ");
        let subject = self.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
        format!("{} {} {expires} {}{subject}", self.name, self.role, self.hash)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (name, role) = (words.next()?, words.next().filter(|role| is_name(role))?);
        let expires = words.next()?.parse().ok()?;
        let hash = hash_of(words.next()?)?;
        let subject = words.next();
        if words.next().is_some() || subject.is_some_and(|subject| subject.len() > MAX_SUBJECT) {
            return None;
        }
        Some(Self::new(name, role, expires, subject, hash))
    }
}
