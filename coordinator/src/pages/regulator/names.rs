//! Whose key signed: the fingerprints in signed documents as names.
//!
//! Every key that this coordinator ever took a document about has its name here, also one that is void today: who signed has
//! signed. Names are what rosters, committees, permits and applications say; nobody looks them up elsewhere.

use std::collections::BTreeMap;

use sekisho_protocol::{
    application::Application,
    committee::Committee,
    digest::Digest,
    dsse::{Document, Envelope},
    governance::Governance,
    permit::Permit,
    refusal::Refusal,
    roster::{Role, Roster},
};
use serde::Serialize;

use crate::{
    documents::{Documents, unavailable},
    store::{Kept, Kind, Store},
    use_register::{Text, words::text},
};

/// The most documents of a kind that are looked at for names.
const MAX_DOCUMENTS: u32 = 10_000;

/// Whoever signed something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Signer {
    /// The name, when the key is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What they are: a seat of the committee, a hospital, a person of a study, …
    pub role: Text,
    /// The fingerprint of the key.
    pub key: Digest,
}

impl Signer {
    /// The name with the first digits of the key's fingerprint.
    pub fn label(&self) -> String {
        let key = self.key.short();
        self.name.as_ref().map_or_else(|| key.clone(), |name| format!("{name} ({key})"))
    }
}

/// The owners of keys.
#[derive(Default)]
pub struct Names {
    known: BTreeMap<Digest, (String, Text)>,
}

impl Names {
    /// Everybody who is named in a document here.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(documents: &Documents, store: &Store) -> Result<Self, Refusal> {
        let mut names = Self::default();
        for permit in read::<Permit>(store, Kind::Permit).await? {
            for person in permit.authorised_persons {
                names.add(person.key_fingerprint, person.id, study_person(&person.role, &permit.study_id));
            }
        }
        for application in read::<Application>(store, Kind::Application).await? {
            for person in application.people {
                names.add(person.key_fingerprint, person.id, study_person(&person.role, &application.study_id));
            }
        }
        for roster in read::<Roster>(store, Kind::Roster).await? {
            for member in roster.members {
                let role = match member.role {
                    Role::Node => text("医療機関", "hospital"),
                    Role::Coordinator => text("調整機関", "coordinator"),
                };
                names.add(member.signing_key.fingerprint(), member.name, role);
            }
        }
        let trust = documents.trust()?;
        let elected =
            trust.committees.iter().map(|envelope| envelope.peek::<Committee>().map(|(document, _)| document));
        let elected = elected.collect::<Result<Vec<_>, _>>()?;
        for member in elected.into_iter().rev().chain([trust.committee]).flat_map(|committee| committee.members) {
            let role = text(&format!("審査委員会（{}）", member.role), &format!("committee ({})", member.role));
            names.add(member.key.fingerprint(), member.name, role);
        }
        for (name, key) in trust.regulators {
            names.add(key.fingerprint(), name, text("監督機関", "regulator"));
        }
        let governs = || text("運営主体", "governing body");
        names.add(trust.governance.fingerprint(), "governance".into(), governs());
        for rotation in &trust.rotations {
            let (rotation, _) = rotation.peek::<Governance>()?;
            names.add(rotation.new_key.fingerprint(), "governance".into(), governs());
        }
        Ok(names)
    }

    /// The newest word on a key counts: documents come with the latest first.
    fn add(&mut self, key: Digest, name: String, role: Text) {
        self.known.entry(key).or_insert((name, role));
    }

    /// Who owns the key with this fingerprint.
    pub fn of(&self, key: Digest) -> Signer {
        match self.known.get(&key) {
            Some((name, role)) => Signer { name: Some(name.clone()), role: role.clone(), key },
            None => Signer { name: None, role: text("不明な鍵", "unknown key"), key },
        }
    }

    /// Who owns these.
    pub fn all(&self, keys: impl IntoIterator<Item = Digest>) -> Vec<Signer> {
        keys.into_iter().map(|key| self.of(key)).collect()
    }
}

fn study_person(role: &str, study: &str) -> Text {
    text(&format!("{role}（研究 {study}）"), &format!("{role} (study {study})"))
}

async fn read<D: Document>(store: &Store, kind: Kind) -> Result<Vec<D>, Refusal> {
    let kept = store.kept(kind, None, MAX_DOCUMENTS).await.map_err(unavailable)?;
    let document = |kept: &Kept| Ok(Envelope::from_json::<D>(&kept.envelope)?.peek::<D>()?.0);
    kept.iter().map(document).collect()
}
