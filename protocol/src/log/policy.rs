//! Trust policies: which logs, which witnesses, and how many of them make a checkpoint good (c2sp.org/tlog-policy).
//!
//! A file is read strictly: every line ends with a newline, is UTF-8, and names only what is defined above it. A policy
//! without a log accepts nothing. The cosignature of a log on its own checkpoint does not count, whatever its name.

use chrono::{DateTime, Utc};

use crate::log::{
    checkpoint::{CheckpointError, SignedCheckpoint, VerifiedCheckpoint},
    cosignature::cosigned,
    lines,
    note::{NoteError, NoteKey, Signs},
};

/// The most bytes that a policy may have.
pub const MAX_POLICY: usize = 128 << 10;
/// The most logs, and the most witnesses and groups together, that a policy may have.
pub const MAX_NAMED: usize = 128;

/// Why a text is not a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the trust policy (c2sp.org/tlog-policy): {reason}")]
pub struct PolicyError {
    /// Which line, from 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a checkpoint is not good enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The log is not in the policy, did not sign, or a signature does not verify.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Nobody told us to trust this log.
    #[error("the policy does not know the log {0}")]
    UnknownLog(String),
    /// Too few witnesses.
    #[error("the quorum {quorum} is not met: of the policy's witnesses, these cosigned: {}", list(.cosigned))]
    Quorum {
        /// The name of the witness or group that must be satisfied.
        quorum: String,
        /// The witnesses that cosigned.
        cosigned: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl From<NoteError> for TrustError {
    fn from(e: NoteError) -> Self {
        Self::Checkpoint(e.into())
    }
}

/// A witness, or some of the witnesses and groups before it, by place.
#[derive(Debug)]
enum Rule {
    Witness(NoteKey),
    Group { needed: usize, members: Vec<usize> },
}

/// Whose word is enough.
#[derive(Debug)]
pub struct Policy {
    logs: Vec<NoteKey>,
    rules: Vec<(String, Rule)>,
    /// `None` when no witness is needed.
    quorum: Option<usize>,
}

/// A checkpoint that its log signed and enough witnesses cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedCheckpoint {
    checkpoint: VerifiedCheckpoint,
    witnesses: Vec<(String, DateTime<Utc>)>,
}

impl WitnessedCheckpoint {
    /// The checkpoint.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// The policy's names of all witnesses that cosigned, and when.
    pub fn witnesses(&self) -> &[(String, DateTime<Utc>)] {
        &self.witnesses
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first line that breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let whole = |reason: &str| PolicyError { line: 0, reason: reason.into() };
        if bytes.len() > MAX_POLICY {
            return Err(whole("it has more than 128 KiB"));
        }
        let text = str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8"))?;
        if !text.ends_with('\n') {
            return Err(whole("it does not end with a newline: it may have been cut"));
        }
        let mut reading = Reading::default();
        for (number, line) in text.split_terminator('\n').enumerate() {
            reading.line(line).map_err(|reason| PolicyError { line: number + 1, reason })?;
        }
        let Reading { logs, rules, quorum, used: _ } = reading;
        Ok(Self { logs, rules, quorum: quorum.ok_or(whole("it has no quorum line"))? })
    }

    /// Checks that one of the policy's logs signed `checkpoint` and that its witnesses make the quorum.
    ///
    /// # Errors
    /// When they do not, or when the signature of any known key does not verify.
    pub fn check(&self, checkpoint: &SignedCheckpoint) -> Result<WitnessedCheckpoint, TrustError> {
        let origin = checkpoint.claimed().origin();
        // A log may have several keys while it rotates them: one that signed is enough, and each that signed must verify.
        let mut signed: Option<(VerifiedCheckpoint, &NoteKey)> = None;
        let mut unsigned = TrustError::UnknownLog(origin.to_string());
        for log in self.logs.iter().filter(|log| log.name() == origin) {
            match checkpoint.verify(log) {
                Ok(verified) => signed = signed.or(Some((verified, log))),
                Err(e @ CheckpointError::Unsigned(_)) => unsigned = e.into(),
                Err(e) => return Err(e.into()),
            }
        }
        let (verified, log) = signed.ok_or(unsigned)?;
        let mut witnesses = Vec::new();
        let mut met = Vec::with_capacity(self.rules.len());
        for (name, rule) in &self.rules {
            met.push(match rule {
                Rule::Witness(key) if key.key() == log.key() => false,
                Rule::Witness(key) => {
                    let time = cosigned(checkpoint, key)?;
                    witnesses.extend(time.map(|time| (name.clone(), time)));
                    time.is_some()
                }
                Rule::Group { needed, members } => {
                    members.iter().filter(|member| met.get(**member) == Some(&true)).count() >= *needed
                }
            });
        }
        match self.quorum {
            Some(quorum) if met.get(quorum) != Some(&true) => Err(TrustError::Quorum {
                quorum: self.rules.get(quorum).map(|(name, _)| name.clone()).unwrap_or_default(),
                cosigned: witnesses.into_iter().map(|(name, _)| name).collect(),
            }),
            Some(_) | None => Ok(WitnessedCheckpoint { checkpoint: verified, witnesses }),
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    logs: Vec<NoteKey>,
    rules: Vec<(String, Rule)>,
    /// Which of the rules are members of a group: each may be once.
    used: Vec<usize>,
    quorum: Option<Option<usize>>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err("control characters other than tab".into());
        }
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => Ok(()),
            [word, ..] if word.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => self.log(key),
            ["witness", name, key] | ["witness", name, key, _] => self.witness(name, key),
            ["group", name, needed, ref members @ ..] if !members.is_empty() => self.group(name, needed, members),
            ["quorum", name] => self.quorum(name),
            ["log" | "witness" | "group" | "quorum", ..] => Err("too few or too many words".into()),
            [word, ..] => Err(format!("`{}` is none of log, witness, group, quorum", word.escape_debug())),
        }
    }

    fn key(text: &str, signs: Signs) -> Result<NoteKey, String> {
        let key: NoteKey = text.parse().map_err(|e: NoteError| e.to_string())?;
        match (signs, key.signs()) {
            (Signs::Text, Signs::Text) | (Signs::Cosignature, Signs::Cosignature) => Ok(key),
            (Signs::Text, Signs::Cosignature) => {
                Err("a log has a key of type 1, this one is a witness' (type 4)".into())
            }
            (Signs::Cosignature, Signs::Text) => {
                Err("a witness has a key of type 4, this one is a log's (type 1)".into())
            }
        }
    }

    fn log(&mut self, key: &str) -> Result<(), String> {
        let key = Self::key(key, Signs::Text)?;
        if self.logs.len() >= MAX_NAMED || self.logs.iter().any(|log| log.key() == key.key()) {
            return Err("this log's key was named before, or there are more than 128 logs".into());
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str) -> Result<(), String> {
        let key = Self::key(key, Signs::Cosignature)?;
        let same = |rule: &Rule| matches!(rule, Rule::Witness(witness) if witness.key() == key.key());
        if self.rules.iter().any(|(_, rule)| same(rule)) {
            return Err("this witness' key was named before; each witness counts once".into());
        }
        self.define(name, Rule::Witness(key))
    }

    fn group(&mut self, name: &str, needed: &str, members: &[&str]) -> Result<(), String> {
        let needed = match needed {
            "any" => 1,
            "all" => members.len(),
            number => lines::number(number).and_then(|k| usize::try_from(k).ok()).unwrap_or(0),
        };
        if needed == 0 || needed > members.len() {
            return Err(format!("a group needs `any`, `all` or 1 to {} of its members", members.len()));
        }
        let mut places = Vec::new();
        for member in members {
            let place = self.place(member)?;
            if self.used.contains(&place) {
                return Err(format!("`{member}` is in a group already; each may be in one, once"));
            }
            self.used.push(place);
            places.push(place);
        }
        self.define(name, Rule::Group { needed, members: places })
    }

    fn quorum(&mut self, name: &str) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("a second quorum".into());
        }
        self.quorum = Some(if name == "none" { None } else { Some(self.place(name)?) });
        Ok(())
    }

    fn define(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.rules.iter().any(|(known, _)| known == name) || self.rules.len() >= MAX_NAMED {
            return Err(format!("`{name}` is taken, or there are more than 128 witnesses and groups"));
        }
        self.rules.push((name.into(), rule));
        Ok(())
    }

    fn place(&self, name: &str) -> Result<usize, String> {
        let place = self.rules.iter().position(|(known, _)| known == name);
        place.ok_or_else(|| format!("no witness or group `{name}` is defined above"))
    }
}
