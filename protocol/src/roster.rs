//! `roster/1`: who is a member of the network, signed by the governance key.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{digest::Digest, dsse::Document, keys::PublicKey};

/// The most members that a roster lists.
pub const MAX_MEMBERS: usize = 4096;

/// What a member does in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds data and answers.
    Node,
    /// Fans queries out and combines releases.
    Coordinator,
}

/// One member: a name, and the two keys that the roster binds together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Short name, unique in the roster: lower-case letters, digits and hyphens.
    pub name: String,
    /// What the member does.
    pub role: Role,
    /// The transport key's libp2p peer id.
    pub peer_id: String,
    /// The key that signs receipts and acceptances.
    pub signing_key: PublicKey,
}

/// The list of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// Grows by one with each roster; a lower one than the highest seen is refused.
    pub seq: u64,
    /// The digest of the roster before, none for the first.
    pub prev: Option<Digest>,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// From this second on it is void.
    pub expires: DateTime<Utc>,
    /// The members.
    pub members: Vec<Member>,
}

impl Roster {
    /// The member called `name`.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name == name)
    }

    /// The member with this peer id.
    pub fn member_by_peer(&self, peer_id: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.peer_id == peer_id)
    }
}

/// Whether `name` can name a member, a study, or a file: `[a-z0-9][a-z0-9-]*`, at most 64 long.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Document for Roster {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.roster.v1+json";
    const NAME: &'static str = "roster";
    const MAX_BYTES: usize = 1 << 20;

    fn check(&self) -> Result<(), String> {
        if self.members.len() > MAX_MEMBERS {
            return Err(format!("more than {MAX_MEMBERS} members"));
        }
        let (mut names, mut peers, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            if !is_name(&member.name) {
                return Err("a member's name is 1-64 lower-case letters, digits and hyphens".into());
            }
            if member.peer_id.len() > 128 || !peers.insert(&member.peer_id) {
                return Err(format!("member {}: its peer id is used twice or too long", member.name));
            }
            if !names.insert(&member.name) || !keys.insert(member.signing_key.fingerprint()) {
                return Err(format!("member {}: its name or signing key is used twice", member.name));
            }
        }
        if self.members.iter().filter(|m| m.role == Role::Coordinator).count() > 1 {
            return Err("a roster has one coordinator".into());
        }
        Ok(())
    }
}
