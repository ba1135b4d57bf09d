//! Signed documents: JSON payloads in DSSE envelopes.
//!
//! The bytes are signed, not the meaning: there is no canonical form, a document's digest is the SHA-256
//! of the payload bytes, and the payload type is part of what is signed. From the DSSE specification v1.0
//! (<https://github.com/secure-systems-lab/dsse>).
//!
//! A document that arrived is an [`Envelope`]; only [`Envelope::verify`] makes a [`Verified`] of it.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    digest::Digest,
    keys::{PublicKey, SecretKey},
};

/// The most signatures that one envelope may carry.
pub const MAX_SIGNATURES: usize = 32;

/// A kind of document: its payload type, its size limit, and its own rules.
pub trait Document: Serialize + DeserializeOwned {
    /// The `payloadType`, which carries the version.
    const PAYLOAD_TYPE: &'static str;
    /// What a person calls it: "permit".
    const NAME: &'static str;
    /// The most bytes that its payload may have.
    const MAX_BYTES: usize;

    /// The rules that a well-formed document of this kind keeps, whoever signed it.
    ///
    /// # Errors
    /// A sentence that names the field and the rule.
    fn check(&self) -> Result<(), String>;
}

/// Why a document is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DsseError {
    /// Larger than documents of its kind may be.
    #[error("the {name} has {bytes} bytes; at most {max} are read")]
    TooLarge {
        /// The kind of document.
        name: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// Not an envelope, or not this kind of document.
    #[error("not a {name}: {reason}")]
    Malformed {
        /// The kind that was expected.
        name: &'static str,
        /// What is wrong, without its content.
        reason: String,
    },
    /// A signature does not belong to the bytes.
    #[error("a signature of the {name} by key {key} does not verify")]
    BadSignature {
        /// The kind of document.
        name: &'static str,
        /// The fingerprint's first digits.
        key: String,
    },
    /// One signer appears twice.
    #[error("key {key} signed the {name} more than once; each signer counts once")]
    DuplicateSigner {
        /// The kind of document.
        name: &'static str,
        /// The fingerprint's first digits.
        key: String,
    },
    /// Too few of those who may sign did.
    #[error("the {name} carries {found} of the {needed} signatures that it needs")]
    Quorum {
        /// The kind of document.
        name: &'static str,
        /// How many known signers signed.
        found: usize,
        /// How many must.
        needed: usize,
    },
    /// Enough signed, but not the right ones.
    #[error("the {name} lacks a signature by the committee's role: {missing}")]
    Role {
        /// The kind of document.
        name: &'static str,
        /// The role that is missing, or how many.
        missing: String,
    },
}

/// One signature of an envelope.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: Digest,
    sig: String,
}

/// A DSSE envelope as it arrived: nothing in it is believed yet.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({}, {} signatures)", self.payload_type, self.signatures.len())
    }
}

/// A document whose signatures were checked, with its digest and its signers.
#[derive(Clone, Debug)]
pub struct Verified<D> {
    document: D,
    digest: Digest,
    signers: Vec<Digest>,
}

impl<D> Verified<D> {
    /// The document.
    pub fn document(&self) -> &D {
        &self.document
    }

    /// SHA-256 of the signed payload.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The fingerprints of the known keys that signed, each once.
    pub fn signers(&self) -> &[Digest] {
        &self.signers
    }
}

impl<D> std::ops::Deref for Verified<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.document
    }
}

/// The pre-authentication encoding of DSSE: what is really signed.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Writes `document` down and signs it with `keys`.
    ///
    /// # Errors
    /// When the document breaks its own rules or is too large.
    pub fn sign<D: Document>(document: &D, keys: &[&SecretKey]) -> Result<Self, DsseError> {
        document.check().map_err(|reason| DsseError::Malformed { name: D::NAME, reason })?;
        let payload =
            serde_json::to_vec(document).map_err(|e| DsseError::Malformed { name: D::NAME, reason: e.to_string() })?;
        limit::<D>(payload.len())?;
        let mut envelope =
            Self { payload_type: D::PAYLOAD_TYPE.into(), payload: BASE64.encode(&payload), signatures: Vec::new() };
        for key in keys {
            envelope.add_signature::<D>(key)?;
        }
        Ok(envelope)
    }

    /// Adds one more signature over the same bytes, as a second committee member does.
    ///
    /// # Errors
    /// When the envelope holds another kind of document, or is full.
    pub fn add_signature<D: Document>(&mut self, key: &SecretKey) -> Result<(), DsseError> {
        let payload = self.payload::<D>()?;
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(DsseError::Malformed {
                name: D::NAME,
                reason: format!("more than {MAX_SIGNATURES} signatures"),
            });
        }
        let sig = BASE64.encode(key.sign(&pae(D::PAYLOAD_TYPE, &payload)));
        self.signatures.push(EnvelopeSignature { keyid: key.public().fingerprint(), sig });
        Ok(())
    }

    /// Reads an envelope of a `D` from JSON bytes; its size is checked before anything is decoded.
    ///
    /// # Errors
    /// When it is too large or no envelope.
    pub fn from_json<D: Document>(bytes: &[u8]) -> Result<Self, DsseError> {
        // Base64 takes 4/3 of the payload; the rest holds the signatures.
        let max = D::MAX_BYTES / 3 * 4 + 256 * MAX_SIGNATURES;
        if bytes.len() > max {
            return Err(DsseError::TooLarge { name: D::NAME, bytes: bytes.len(), max });
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(|e| DsseError::Malformed {
            name: D::NAME,
            reason: format!("not a DSSE envelope ({})", place(&e)),
        })?;
        if envelope.signatures.len() > MAX_SIGNATURES {
            return Err(DsseError::Malformed {
                name: D::NAME,
                reason: format!("more than {MAX_SIGNATURES} signatures"),
            });
        }
        Ok(envelope)
    }

    /// The envelope as JSON, one document a line.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and hexadecimal digits only: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What kind of document this says it is; not believed before [`verify`](Self::verify).
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The key ids that the envelope names, in order; not believed before [`verify`](Self::verify).
    pub fn key_ids(&self) -> impl Iterator<Item = Digest> + '_ {
        self.signatures.iter().map(|s| s.keyid)
    }

    fn payload<D: Document>(&self) -> Result<Vec<u8>, DsseError> {
        let malformed = |reason: &str| DsseError::Malformed { name: D::NAME, reason: reason.into() };
        if self.payload_type != D::PAYLOAD_TYPE {
            return Err(malformed(&format!("its payloadType is not {}", D::PAYLOAD_TYPE)));
        }
        limit::<D>(self.payload.len() / 4 * 3)?;
        BASE64.decode(&self.payload).map_err(|_| malformed("its payload is not base64"))
    }

    /// The document's digest, of bytes that nobody has read yet.
    ///
    /// # Errors
    /// When it is of another type, or too large.
    pub fn digest<D: Document>(&self) -> Result<Digest, DsseError> {
        Ok(Digest::of(&self.payload::<D>()?))
    }

    /// Reads the document **without** checking who signed it, for display and for choosing keys.
    ///
    /// # Errors
    /// When it is not a well-formed `D`.
    pub fn peek<D: Document>(&self) -> Result<(D, Digest), DsseError> {
        let payload = self.payload::<D>()?;
        let document: D = serde_json::from_slice(&payload)
            .map_err(|e| DsseError::Malformed { name: D::NAME, reason: format!("{e}") })?;
        document.check().map_err(|reason| DsseError::Malformed { name: D::NAME, reason })?;
        Ok((document, Digest::of(&payload)))
    }

    /// Checks that at least `needed` different keys of `keys` signed these bytes.
    ///
    /// A signature by a key outside `keys` is passed over; one by a key of `keys` must verify.
    ///
    /// # Errors
    /// When the document is malformed, a signature is wrong, a signer appears twice, or too few signed.
    pub fn verify<D: Document>(&self, keys: &[PublicKey], needed: usize) -> Result<Verified<D>, DsseError> {
        let payload = self.payload::<D>()?;
        let message = pae(D::PAYLOAD_TYPE, &payload);
        let mut signers: Vec<Digest> = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|k| k.fingerprint() == signature.keyid) else { continue };
            let short = || signature.keyid.short();
            let sig: Option<[u8; 64]> = BASE64.decode(&signature.sig).ok().and_then(|s| s.try_into().ok());
            if !sig.is_some_and(|sig| key.verifies(&message, &sig)) {
                return Err(DsseError::BadSignature { name: D::NAME, key: short() });
            }
            if signers.contains(&signature.keyid) {
                return Err(DsseError::DuplicateSigner { name: D::NAME, key: short() });
            }
            signers.push(signature.keyid);
        }
        if signers.len() < needed.max(1) {
            return Err(DsseError::Quorum { name: D::NAME, found: signers.len(), needed: needed.max(1) });
        }
        let (document, digest) = self.peek::<D>()?;
        Ok(Verified { document, digest, signers })
    }
}

fn limit<D: Document>(bytes: usize) -> Result<(), DsseError> {
    if bytes > D::MAX_BYTES {
        return Err(DsseError::TooLarge { name: D::NAME, bytes, max: D::MAX_BYTES });
    }
    Ok(())
}

fn place(e: &serde_json::Error) -> String {
    format!("line {}, column {}", e.line(), e.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Document for Note {
        const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.note.v1+json";
        const NAME: &'static str = "note";
        const MAX_BYTES: usize = 100;

        fn check(&self) -> Result<(), String> {
            Ok(())
        }
    }

    fn key() -> SecretKey {
        SecretKey::generate(&mut rand::rng())
    }

    fn note() -> Note {
        Note { text: "関所".into() }
    }

    fn code(result: Result<Verified<Note>, DsseError>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(DsseError::TooLarge { .. }) => "too_large",
            Err(DsseError::Malformed { .. }) => "malformed",
            Err(DsseError::BadSignature { .. }) => "bad_signature",
            Err(DsseError::DuplicateSigner { .. }) => "duplicate_signer",
            Err(DsseError::Quorum { .. }) => "quorum",
            Err(DsseError::Role { .. }) => "role",
        }
    }

    #[test]
    fn the_encoding_is_that_of_the_dsse_specification() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn two_of_three_make_a_quorum_and_one_signing_twice_does_not() {
        let (a, b, c) = (key(), key(), key());
        let keys = [a.public(), b.public(), c.public()];
        let sign = |by: &[&SecretKey]| Envelope::sign(&note(), by).unwrap();
        assert_eq!(code(sign(&[&a, &c]).verify(&keys, 2)), "ok");
        assert_eq!(code(sign(&[&a]).verify(&keys, 2)), "quorum");
        assert_eq!(code(sign(&[&a, &a]).verify(&keys, 2)), "duplicate_signer");
        assert_eq!(code(sign(&[&a, &key()]).verify(&keys, 2)), "quorum");
        assert_eq!(code(sign(&[]).verify(&keys, 0)), "quorum");
    }

    #[test]
    fn a_changed_byte_or_another_type_voids_the_signature() {
        let a = key();
        let mut changed = Envelope::sign(&note(), &[&a]).unwrap();
        changed.payload = BASE64.encode(r#"{"text":"other"}"#);
        assert_eq!(code(changed.verify(&[a.public()], 1)), "bad_signature");
        let mut renamed = Envelope::sign(&note(), &[&a]).unwrap();
        renamed.payload_type = "application/vnd.sekisho.other.v1+json".into();
        assert_eq!(code(renamed.verify(&[a.public()], 1)), "malformed");
    }

    #[test]
    fn size_is_checked_before_anything_is_decoded() {
        let huge = vec![b'{'; 1 << 20];
        assert!(matches!(Envelope::from_json::<Note>(&huge), Err(DsseError::TooLarge { .. })));
        let long = Note { text: "x".repeat(200) };
        assert!(matches!(Envelope::sign(&long, &[]), Err(DsseError::TooLarge { .. })));
    }
}
