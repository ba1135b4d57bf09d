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
};

/// The longest name or role in bytes.
const MAX_TEXT: usize = 64;

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
