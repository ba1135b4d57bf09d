//! `committee/1`: who decides on uses, and which signatures of them make a decision.
//!
//! The first committee (`seq` 0) is pinned in the configuration of everybody who relies on it; each later one is signed
//! by the quorum of the one before. Only [`Committee::verify`] says whether a document carries a quorum: k signatures
//! of different members, with every required role among them and, where the committee says so, k different roles.
//! Keys that the status voids and members who are recused do not count.

use std::{collections::BTreeSet, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::{Document, DsseError, Envelope, MAX_SIGNATURES, Verified},
    keys::PublicKey,
    permit::Permit,
    refusal::{Code, Refusal},
    sequence::{Gaps, Offered, follows},
};

/// The longest name or role in bytes.
const MAX_TEXT: usize = 64;
/// The most committees of one chain.
pub const MAX_CHAIN: usize = 1000;

/// One member: a name for people, the seat, and the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitteeMember {
    /// A name for people, one of its own.
    pub name: String,
    /// The seat: `ethicist`, `patient-representative`, …
    pub role: String,
    /// Signs reviews, permits and the next committee.
    pub key: PublicKey,
}

impl FromStr for CommitteeMember {
    type Err = String;

    /// Reads `NAME:ROLE:KEY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (Some(name), Some(role), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("a committee member is NAME:ROLE:KEY".into());
        };
        Ok(Self { name: name.into(), role: role.into(), key: key.parse().map_err(|e| format!("{e}"))? })
    }
}

/// The committee document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committee {
    /// Grows by one with each committee; 0 is the one of the configuration.
    pub seq: u64,
    /// The digest of the committee before; none for the first two.
    pub prev: Option<Digest>,
    /// When it was signed; none for the one of the configuration.
    pub issued: Option<DateTime<Utc>>,
    /// Why it changed.
    pub reason: String,
    /// How many members must sign: 1 to all.
    pub needed: usize,
    /// Roles that must be among the signers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_roles: Vec<String>,
    /// The signers must have `needed` different roles: two of one seat count once.
    #[serde(default)]
    pub distinct_roles: bool,
    /// The members.
    pub members: Vec<CommitteeMember>,
}

impl Committee {
    /// The committee that a configuration pins.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn pinned(
        needed: usize,
        required_roles: Vec<String>,
        distinct_roles: bool,
        members: Vec<CommitteeMember>,
    ) -> Result<Self, String> {
        let reason = "pinned in the configuration".into();
        let committee =
            Self { seq: 0, prev: None, issued: None, reason, needed, required_roles, distinct_roles, members };
        committee.check().map(|()| committee)
    }

    /// The member whose key has this fingerprint.
    pub fn member(&self, fingerprint: Digest) -> Option<&CommitteeMember> {
        self.members.iter().find(|m| m.key.fingerprint() == fingerprint)
    }

    /// Checks that a quorum of this committee signed `envelope`. `void` says of a fingerprint whether it does not count:
    /// the status voids it, or its owner is recused.
    ///
    /// # Errors
    /// When a signature is wrong, a signer appears twice, too few signed, or a role is missing among them.
    pub fn verify<D: Document>(
        &self,
        envelope: &Envelope,
        void: impl Fn(Digest) -> bool,
    ) -> Result<Verified<D>, DsseError> {
        let keys: Vec<_> = self.members.iter().map(|m| m.key).filter(|key| !void(key.fingerprint())).collect();
        let verified = envelope.verify::<D>(&keys, self.needed)?;
        let roles: BTreeSet<&str> =
            verified.signers().iter().filter_map(|signer| self.member(*signer)).map(|m| m.role.as_str()).collect();
        if let Some(role) = self.required_roles.iter().find(|role| !roles.contains(role.as_str())) {
            return Err(DsseError::Role { name: D::NAME, missing: role.clone() });
        }
        if self.distinct_roles && roles.len() < self.needed {
            let missing = format!("{} of {} different roles", self.needed - roles.len(), self.needed);
            return Err(DsseError::Role { name: D::NAME, missing });
        }
        Ok(verified)
    }

    /// [`Committee::verify`] for a permit; members whom it recuses do not count either. Nothing is read that was not
    /// verified.
    ///
    /// # Errors
    /// Those of [`Committee::verify`].
    pub fn verify_permit(
        &self,
        envelope: &Envelope,
        void: impl Fn(Digest) -> bool,
    ) -> Result<Verified<Permit>, DsseError> {
        let permit = self.verify::<Permit>(envelope, &void)?;
        let recused = &permit.decision.recused;
        if !permit.signers().iter().any(|signer| recused.contains(signer)) {
            return Ok(permit);
        }
        self.verify(envelope, |key| void(key) || recused.contains(&key))
    }
}

/// The committees, from the pinned one to the one in force.
#[derive(Clone, Debug)]
pub struct CommitteeChain {
    links: Vec<(Committee, Digest)>,
}

impl CommitteeChain {
    /// The chain that begins with the committee of the configuration.
    pub fn pinned(committee: Committee) -> Self {
        // Names and numbers only: this cannot fail.
        let digest = Digest::of(&serde_json::to_vec(&committee).unwrap_or_default());
        Self { links: vec![(committee, digest)] }
    }

    /// The committee in force.
    pub fn newest(&self) -> &Committee {
        &self.last().0
    }

    /// Its digest: that of its document, or of what the configuration says.
    pub fn digest(&self) -> Digest {
        self.last().1
    }

    /// The digest of the pinned committee: what the chain hangs from.
    pub fn root(&self) -> Digest {
        self.links[0].1
    }

    /// The last seat that the owner of this key has or had.
    pub fn seat(&self, key: Digest) -> Option<&CommitteeMember> {
        self.links.iter().rev().find_map(|(committee, _)| committee.member(key))
    }

    /// The keys of the members in force whose key, or an earlier one, is among `keys`.
    pub fn seats_of(&self, keys: impl IntoIterator<Item = Digest>) -> BTreeSet<Digest> {
        let names: BTreeSet<&str> =
            keys.into_iter().filter_map(|key| self.seat(key)).map(|m| m.name.as_str()).collect();
        let members = self.newest().members.iter().filter(|m| names.contains(m.name.as_str()));
        members.map(|m| m.key.fingerprint()).collect()
    }

    /// The committee with this digest, in force or not.
    pub fn with_digest(&self, digest: Digest) -> Option<&Committee> {
        self.links.iter().find(|(_, known)| *known == digest).map(|(committee, _)| committee)
    }

    /// Takes the next committee, when a quorum of the newest one signed it; says whether it is new. `void` says which
    /// keys do not count.
    ///
    /// # Errors
    /// `older_document` when it does not follow the newest one; or what its signatures lack.
    pub fn take(
        &mut self,
        envelope: &Envelope,
        void: impl Fn(Digest) -> bool,
    ) -> Result<Option<Verified<Committee>>, Refusal> {
        let (claimed, digest) = envelope.peek::<Committee>()?;
        let offered = Offered { name: Committee::NAME, seq: claimed.seq, prev: claimed.prev, digest };
        let pinned = (self.newest().seq > 0).then(|| (self.newest().seq, self.digest()));
        if !follows(&offered, pinned, Gaps::Refused)? {
            return Ok(None);
        }
        if self.links.len() > MAX_CHAIN {
            return Err(Refusal::new(Code::TooLarge, format!("at most {MAX_CHAIN} committees are kept")));
        }
        let verified: Verified<Committee> = self.newest().verify(envelope, void)?;
        self.links.push((verified.document().clone(), verified.digest()));
        Ok(Some(verified))
    }

    /// Verifies a permit: with the committee `under` that it was taken under before, or with the newest one, which may
    /// have signed it anew; the digest of the committee that did. Keys that the status voids, as `void` says, and the
    /// members whom the permit recuses do not count.
    ///
    /// # Errors
    /// Those of [`Committee::verify`] for the newest committee.
    pub fn verify_permit(
        &self,
        envelope: &Envelope,
        under: Option<Digest>,
        void: impl Fn(Digest) -> bool,
    ) -> Result<(Verified<Permit>, Digest), DsseError> {
        let earlier = under.and_then(|digest| Some((self.with_digest(digest)?, digest)));
        if let Some((committee, digest)) = earlier
            && let Ok(permit) = committee.verify_permit(envelope, &void)
        {
            return Ok((permit, digest));
        }
        self.newest().verify_permit(envelope, &void).map(|permit| (permit, self.digest()))
    }

    fn last(&self) -> &(Committee, Digest) {
        // There is a pinned committee, so the list is never empty.
        &self.links[self.links.len() - 1]
    }
}

impl Document for Committee {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.committee.v1+json";
    const NAME: &'static str = "committee";
    const MAX_BYTES: usize = 64 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule((1..=MAX_SIGNATURES).contains(&self.members.len()), "a committee has 1 to 32 members")?;
        rule((1..=self.members.len()).contains(&self.needed), "needed is 1 to the number of members")?;
        let text = |text: &str| !text.trim().is_empty() && text.len() <= MAX_TEXT;
        let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            rule(text(&member.name) && text(&member.role), "a member's name and role have 1 to 64 bytes")?;
            rule(names.insert(&member.name), "two members have one name")?;
            rule(keys.insert(member.key.fingerprint()), "two members have one key")?;
        }
        let roles: BTreeSet<_> = self.members.iter().map(|m| &m.role).collect();
        rule(
            self.required_roles.iter().collect::<BTreeSet<_>>().len() == self.required_roles.len(),
            "a role is required twice",
        )?;
        rule(self.required_roles.iter().all(|role| roles.contains(role)), "no member has a role that is required")?;
        rule(self.required_roles.len() <= self.needed, "more roles are required than signatures")?;
        rule(!self.distinct_roles || roles.len() >= self.needed, "there are fewer roles than signatures needed")?;
        rule(self.reason.len() <= 1000, "the reason has at most 1000 bytes")
    }
}

#[cfg(test)]
mod tests;
