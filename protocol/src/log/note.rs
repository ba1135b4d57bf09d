//! Signed notes: a text, an empty line, and signature lines (c2sp.org/signed-note).
//!
//! A note that arrived is only text: [`Note::signed_by`] tells whether a known key signed it. Signatures by unknown keys
//! are passed over; one by a known key must verify, or the whole note is refused; a key that signs twice is refused.

use std::{fmt, str::FromStr};

use crate::{digest::Digest, keys::PublicKey, log::lines};

/// The most bytes that a note may have.
pub const MAX_NOTE: usize = 256 << 10;
/// The most signatures that a note may carry.
pub const MAX_SIGNATURES: usize = 64;
/// The most bytes that a key's name may have.
pub const MAX_NAME: usize = 255;
const DASH: &str = "\u{2014} ";

/// Why a note is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than anybody needs.
    #[error("a note has at most {MAX_NOTE} bytes, this one has {0}")]
    TooLarge(usize),
    /// Not in the format.
    #[error("not a signed note (c2sp.org/signed-note): {0}")]
    Malformed(&'static str),
    /// Not a verifier key.
    #[error("not a key `NAME+ID+BASE64` (c2sp.org/signed-note, verifier keys): {0}")]
    Key(&'static str),
    /// A signature line is not what its key signed.
    #[error("the signature of {0} does not verify: the text was changed after it was signed, or the signature was")]
    BadSignature(KeyName),
    /// One key, two signature lines.
    #[error("{0} signed more than once; each signer counts once")]
    DuplicateSigner(KeyName),
}

/// The name of a key, which for a log is its origin: no spaces, no control characters, no `+`, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = NoteError;

    fn from_str(name: &str) -> Result<Self, NoteError> {
        let barred = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > MAX_NAME || name.contains(barred) {
            return Err(NoteError::Malformed("a key's name has 1 to 255 bytes and no space, control character or `+`"));
        }
        Ok(Self(name.into()))
    }
}

/// What a key signs: the signature types of the specifications that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// The text of the note: what a log does (type 1).
    Text,
    /// The text and a time: what a witness does, `cosignature/v1` (type 4).
    Cosignature,
}

impl Signs {
    fn byte(self) -> u8 {
        match self {
            Self::Text => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key with its name and its use; as text `NAME+ID+BASE64`, called a vkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: KeyName,
    signs: Signs,
    key: PublicKey,
}

impl NoteKey {
    /// A key of this name, for this use.
    pub fn new(name: KeyName, signs: Signs, key: PublicKey) -> Self {
        Self { name, signs, key }
    }

    /// Its name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Its use.
    pub fn signs(&self) -> Signs {
        self.signs
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key id: the first four bytes of SHA-256 over the name, a newline, the type and the key. It tells keys apart,
    /// and proves nothing.
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] =
            *Digest::of(&[self.name.0.as_bytes(), b"\n", &[self.signs.byte()], self.key.as_bytes()].concat())
                .as_bytes();
        [a, b, c, d]
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.signs.byte()][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), lines::to_base64(&key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        // Base64 may hold a `+`, a name and an id may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it has three parts"));
        };
        let name = name.parse()?;
        let key = if key.len() <= 64 { lines::base64(key) } else { None };
        let (signs, key) = match key.as_deref().and_then(|bytes| bytes.split_first()) {
            Some((0x01, key)) => (Signs::Text, key),
            Some((0x04, key)) => (Signs::Cosignature, key),
            Some(_) => return Err(NoteError::Key("only types 1 (Ed25519) and 4 (cosignature/v1) are known")),
            None => return Err(NoteError::Key("its third part is base64 of a type and a key")),
        };
        let key = key.try_into().ok().and_then(|bytes| PublicKey::from_bytes(bytes).ok());
        let key = Self { name, signs, key: key.ok_or(NoteError::Key("32 bytes that are a point of Ed25519"))? };
        if hex::encode(key.id()) != id {
            return Err(NoteError::Key("the id is not that of this name and key"));
        }
        Ok(key)
    }
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// A signature by `key`.
    pub(super) fn new(key: &NoteKey, bytes: Vec<u8>) -> Self {
        Self { name: key.name.clone(), id: key.id(), bytes }
    }

    /// The name of the key that is said to have signed.
    pub fn name(&self) -> &KeyName {
        &self.name
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{DASH}{} {}", self.name, lines::to_base64(&[&self.id[..], &self.bytes].concat()))
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// Reads one line with its newline.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        let parts = line.strip_prefix(DASH).and_then(|rest| rest.strip_suffix('\n')?.split_once(' '));
        let (name, base64) = parts.ok_or(NoteError::Malformed("a signature line is `\u{2014} NAME BASE64`"))?;
        let bytes = lines::base64(base64).filter(|bytes| bytes.len() > 4);
        let bytes = bytes.ok_or(NoteError::Malformed("a signature is base64 of more than four bytes"))?;
        let Some((id, bytes)) = bytes.split_first_chunk::<4>() else {
            return Err(NoteError::Malformed("a signature is base64 of more than four bytes"));
        };
        Ok(Self { name: name.parse()?, id: *id, bytes: bytes.to_vec() })
    }
}

/// A text with signatures, of which none is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Reads a note. What parses is written back byte for byte.
    ///
    /// # Errors
    /// [`NoteError::TooLarge`], [`NoteError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLarge(bytes.len()));
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before its signatures"))?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        if signatures.is_empty() {
            return Err(NoteError::Malformed("it has no signature"));
        }
        let mut parsed = Self::new(text.into())?;
        for line in signatures.split_inclusive('\n') {
            parsed.add(line.parse()?)?;
        }
        Ok(parsed)
    }

    /// A text that nobody has signed yet.
    pub(super) fn new(text: String) -> Result<Self, NoteError> {
        if !text.ends_with('\n') || text.bytes().any(|b| b < b' ' && b != b'\n') {
            return Err(NoteError::Malformed("its text ends with a newline and has no other control characters"));
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// The text, which is not believed before [`Note::signed_by`] says who signed it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a signature line.
    ///
    /// # Errors
    /// When the note is full.
    pub(super) fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(NoteError::Malformed("more than 64 signatures"));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// The bytes that `key` is said to have signed with, if there is such a line.
    pub(super) fn signature(&self, key: &NoteKey) -> Result<Option<&[u8]>, NoteError> {
        let id = key.id();
        let mut lines = self.signatures.iter().filter(|line| line.id == id && line.name == key.name);
        let first = lines.next();
        if lines.next().is_some() {
            return Err(NoteError::DuplicateSigner(key.name.clone()));
        }
        Ok(first.map(|line| &line.bytes[..]))
    }

    /// Whether `key`, which signs texts, signed this one.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when its line does not verify, [`NoteError::DuplicateSigner`] when it has two.
    pub fn signed_by(&self, key: &NoteKey) -> Result<bool, NoteError> {
        let Some(bytes) = self.signature(key)? else { return Ok(false) };
        let verifies = |signature: &[u8; 64]| key.key.verifies(self.text.as_bytes(), signature);
        match (key.signs, bytes.try_into()) {
            (Signs::Text, Ok(signature)) if verifies(signature) => Ok(true),
            (Signs::Text | Signs::Cosignature, _) => Err(NoteError::BadSignature(key.name.clone())),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}
