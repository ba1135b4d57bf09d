//! `governance/1`: the governance key gives way to another one.
//!
//! The first key is pinned by whoever relies on it; each rotation is signed by the key that goes **and** by the one that
//! comes, so that nobody can name a key that they do not hold. From then on only the new key signs rosters, statuses
//! and schemas; what an earlier key signed and was taken while it was the newest stays.
//!
//! Deliberately absent: protection from a thief of the key, who can rotate as well as its owner can. Against that, people
//! pin another first key by hand, after comparing fingerprints (docs/keys.md); then the chain begins anew.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::{Document, Envelope, Verified},
    keys::PublicKey,
    refusal::{Code, Refusal},
    sequence::{Gaps, Offered, Pin, follows},
};

/// The most rotations of one chain.
pub const MAX_ROTATIONS: usize = 1000;

/// One rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Governance {
    /// Grows by one with each rotation, from 1.
    pub seq: u64,
    /// The digest of the rotation before; none for the first.
    pub prev: Option<Digest>,
    /// The key that counts from now on.
    pub new_key: PublicKey,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

impl Document for Governance {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.governance.v1+json";
    const NAME: &'static str = "governance";
    const MAX_BYTES: usize = 4096;

    fn check(&self) -> Result<(), String> {
        if self.reason.trim().is_empty() || self.reason.len() > 1000 {
            return Err("the reason has 1 to 1000 bytes".into());
        }
        Ok(())
    }
}

/// The governance keys, from the pinned one to the one that counts.
#[derive(Clone, Debug)]
pub struct GovernanceChain {
    keys: Vec<PublicKey>,
    newest: Option<Pin>,
}

impl GovernanceChain {
    /// The chain that begins with the pinned key.
    pub fn pinned(key: PublicKey) -> Self {
        Self { keys: vec![key], newest: None }
    }

    /// The key that counts.
    pub fn key(&self) -> PublicKey {
        // There is a pinned key, so the list is never empty.
        self.keys[self.keys.len() - 1]
    }

    /// Every key that has counted, the pinned one first.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The number of the newest rotation; 0 when the pinned key counts.
    pub fn seq(&self) -> u64 {
        self.newest.map_or(0, |(seq, _)| seq)
    }

    /// The digest of the newest rotation.
    pub fn digest(&self) -> Option<Digest> {
        self.newest.map(|(_, digest)| digest)
    }

    /// Takes the next rotation; says whether it is new.
    ///
    /// # Errors
    /// When the old or the new key did not sign it, it does not follow the newest one, or names a key that has counted
    /// before.
    pub fn take(&mut self, envelope: &Envelope) -> Result<Option<Verified<Governance>>, Refusal> {
        let (claimed, digest) = envelope.peek::<Governance>()?;
        let offered = Offered { name: Governance::NAME, seq: claimed.seq, prev: claimed.prev, digest };
        if !follows(&offered, self.newest, Gaps::Refused)? {
            return Ok(None);
        }
        if self.keys.contains(&claimed.new_key) {
            return Err(Refusal::new(Code::OlderDocument, "a key that governed before does not govern again"));
        }
        if self.keys.len() > MAX_ROTATIONS {
            return Err(Refusal::new(Code::TooLarge, format!("at most {MAX_ROTATIONS} rotations are kept")));
        }
        let verified: Verified<Governance> = envelope.verify(&[self.key(), claimed.new_key], 2)?;
        self.keys.push(verified.new_key);
        self.newest = Some((verified.seq, verified.digest()));
        Ok(Some(verified))
    }
}

/// A governance key that an operator pinned by hand, after a theft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GovernancePin {
    /// Its number, from 1.
    pub epoch: u64,
    /// The key.
    pub key: PublicKey,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    fn key() -> SecretKey {
        SecretKey::generate(&mut rand::rng())
    }

    fn rotation(seq: u64, prev: Option<Digest>, to: &SecretKey) -> Governance {
        let issued = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        Governance { seq, prev, new_key: to.public(), issued, reason: "a year has passed".into() }
    }

    #[test]
    fn a_rotation_is_signed_by_the_old_and_the_new_key_and_follows_the_one_before() {
        let (old, new, third) = (key(), key(), key());
        let signed = |document: &Governance, by: &[&SecretKey]| Envelope::sign(document, by).unwrap();
        let first = rotation(1, None, &new);
        for (fact, envelope, code) in [
            ("by the old key alone", signed(&first, &[&old]), Code::QuorumNotMet),
            ("by the new key alone", signed(&first, &[&new]), Code::QuorumNotMet),
            ("by the old key and a stranger", signed(&first, &[&old, &third]), Code::QuorumNotMet),
            ("by the old key twice", signed(&first, &[&old, &old]), Code::DuplicateSigner),
            ("to itself", signed(&rotation(1, None, &old), &[&old]), Code::OlderDocument),
            ("with a gap", signed(&rotation(2, None, &new), &[&old, &new]), Code::OlderDocument),
        ] {
            let mut chain = GovernanceChain::pinned(old.public());
            assert_eq!(chain.take(&envelope).unwrap_err().code, code, "{fact}");
            assert_eq!((chain.key(), chain.seq()), (old.public(), 0), "{fact}");
        }
        let mut chain = GovernanceChain::pinned(old.public());
        let envelope = signed(&first, &[&old, &new]);
        let taken = chain.take(&envelope).unwrap().unwrap();
        assert!(chain.take(&envelope).unwrap().is_none(), "the same again is not new");
        let back = signed(&rotation(2, Some(taken.digest()), &old), &[&old, &new]);
        assert_eq!(chain.take(&back).unwrap_err().code, Code::OlderDocument, "an old key never comes back");
        let by_the_first = signed(&rotation(2, Some(taken.digest()), &third), &[&old, &third]);
        assert_eq!(chain.take(&by_the_first).unwrap_err().code, Code::QuorumNotMet);
        chain.take(&signed(&rotation(2, Some(taken.digest()), &third), &[&new, &third])).unwrap();
        assert_eq!((chain.key(), chain.seq(), chain.keys().len()), (third.public(), 2, 3));
    }
}
