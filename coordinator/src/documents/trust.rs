//! Whose signatures count, as it changes: the chains of governance keys and committees, and regulators' orders.
//!
//! The lines are those of the nodes: roster, status and rotations belong to the operator's pin, committees to the pinned
//! one, orders to the regulator and its key. Deliberately absent: any protection; each hospital walks its own chains.

use std::sync::Arc;

use sekisho_protocol::{
    committee::{Committee, CommitteeChain},
    digest::Digest,
    dsse::{Document, Envelope},
    governance::{Governance, GovernanceChain},
    keys::PublicKey,
    orders::{Concern, Orders, Regulator, obey},
    permit::Permit,
    refusal::{Code, Refusal},
    roster::Role,
    sequence::{Gaps, Offered, follows},
    supersession::{self, Version},
};

use super::{Checked, Current, Documents, DocumentsError, Held, held, unavailable};
use crate::{
    config::Trust,
    report::TrustReport,
    store::{Kind, Place, Store},
};

/// The most versions of one permit that are looked at.
const MAX_VERSIONS: u32 = 1000;

/// The chains as of one moment.
#[derive(Clone, Debug)]
pub struct Chains {
    /// The name of the line of roster, status and rotations.
    pub(super) line: String,
    pub(super) governance: GovernanceChain,
    pub(super) committees: CommitteeChain,
    rotations: Vec<Arc<Held<Governance>>>,
    elections: Vec<Arc<Held<Committee>>>,
    orders: Vec<Arc<Held<Orders>>>,
}

impl Chains {
    /// Reads and walks the chains.
    pub(super) async fn load(store: &Store, trust: &Trust) -> Result<Self, DocumentsError> {
        let pin = store.governance_pins().await?.pop();
        let line = pin.as_ref().map(|pin| pin.epoch.to_string()).unwrap_or_default();
        let mut chains = Self {
            line,
            governance: GovernanceChain::pinned(pin.map_or(trust.governance, |pin| pin.key)),
            committees: CommitteeChain::pinned(trust.committee.clone()),
            rotations: Vec::new(),
            elections: Vec::new(),
            orders: Vec::new(),
        };
        let broken = |kind| move |source: Refusal| DocumentsError::Broken { kind, source };
        for envelope in store.line(Kind::Governance, &chains.line).await? {
            let link = Envelope::from_json::<Governance>(&envelope).map_err(Refusal::from);
            let link = link.and_then(|link| chains.governance.take(&link));
            let link = link.map_err(broken(Kind::Governance))?;
            chains.rotations.extend(link.map(|verified| Arc::new(Held { verified, envelope })));
        }
        let root = chains.committees.root().to_string();
        for envelope in store.line(Kind::Committee, &root).await? {
            let link = Envelope::from_json::<Committee>(&envelope).map_err(Refusal::from);
            let link = link.and_then(|link| chains.committees.take(&link, |_| false));
            let link = link.map_err(broken(Kind::Committee))?;
            chains.elections.extend(link.map(|verified| Arc::new(Held { verified, envelope })));
        }
        for regulator in &trust.regulators {
            let Some(envelope) = store.newest(Kind::Orders, &line_of(regulator)).await? else { continue };
            let orders = held::<Orders>(&envelope, &[regulator.key], 1);
            let unverified = |source| DocumentsError::Unverified { kind: Kind::Orders, source };
            chains.orders.push(Arc::new(orders.map_err(unverified)?));
        }
        Ok(chains)
    }

    /// The name of the line that roster and status belong to.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// The committees, from the pinned one to the one in force.
    pub(crate) fn committees(&self) -> &CommitteeChain {
        &self.committees
    }

    /// The rotations of the governance key, oldest first.
    pub fn rotations(&self) -> &[Arc<Held<Governance>>] {
        &self.rotations
    }

    /// The committees after the pinned one, oldest first.
    pub fn elections(&self) -> &[Arc<Held<Committee>>] {
        &self.elections
    }

    /// The newest orders of each regulator.
    pub fn orders(&self) -> &[Arc<Held<Orders>>] {
        &self.orders
    }
}

impl Current {
    /// The keys whose signature on a schema counts: every one that governed, unless the status voids it.
    pub(super) fn schema_keys(&self, chains: &Chains) -> Vec<PublicKey> {
        chains.governance.keys().iter().copied().filter(|key| !self.voids(key.fingerprint())).collect()
    }

    /// The chains; none before anything was read from the disk.
    pub fn chains(&self) -> Option<&Chains> {
        self.chains.as_deref()
    }

    /// That no regulator suspends the study, its user or this coordinator; an order against one hospital is that
    /// hospital's to obey.
    ///
    /// # Errors
    /// `regulator_order`.
    pub fn obey(&self, permit: &Permit, now: chrono::DateTime<chrono::Utc>) -> Result<(), Refusal> {
        let roster = self.roster.as_ref();
        let us = roster.and_then(|roster| roster.members.iter().find(|member| member.role == Role::Coordinator));
        let coordinator = us.map(|us| us.peer_id.as_str()).unwrap_or_default();
        let orders = self.chains().map(Chains::orders).unwrap_or_default();
        let concern = Concern { permit, holder: None, coordinator };
        obey(orders.iter().map(|held| held.verified().document()), &concern, now)
    }

    pub(super) fn walked(&self) -> Result<&Chains, Refusal> {
        self.chains().ok_or_else(|| Refusal::new(Code::Unavailable, "no document has been read"))
    }
}

impl Documents {
    /// Whose signatures count here, for whoever asks.
    ///
    /// # Errors
    /// `unavailable` before anything was read, or when a document cannot be written as JSON.
    pub fn trust(&self) -> Result<TrustReport, Refusal> {
        let current = self.current();
        let chains = current.walked()?;
        let json = |envelope: &[u8]| serde_json::from_slice(envelope).map_err(unavailable);
        Ok(TrustReport {
            governance: chains.governance.keys()[0],
            rotations: chains.rotations.iter().map(|held| json(held.envelope())).collect::<Result<_, _>>()?,
            committee: self.trust.committee.clone(),
            committees: chains.elections.iter().map(|held| json(held.envelope())).collect::<Result<_, _>>()?,
            regulators: self.trust.regulators.iter().map(|r| (r.name.clone(), r.key)).collect(),
            orders: chains.orders.iter().map(|held| json(held.envelope())).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn check_governance(&self, bytes: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let chains = current.walked()?;
        let envelope = Envelope::from_json::<Governance>(bytes)?;
        let (claimed, digest) = envelope.peek::<Governance>()?;
        let place = Place { name: chains.line.clone(), seq: claimed.seq };
        let new = chains.governance.clone().take(&envelope)?.map(|_| envelope.to_json());
        Ok((digest, place, new.unwrap_or_else(|| kept(&chains.rotations))))
    }

    pub(super) fn check_committee(&self, bytes: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let chains = current.walked()?;
        let envelope = Envelope::from_json::<Committee>(bytes)?;
        let (claimed, digest) = envelope.peek::<Committee>()?;
        let place = Place { name: chains.committees.root().to_string(), seq: claimed.seq };
        let new = chains.committees.clone().take(&envelope, |key| current.voids(key))?.map(|_| envelope.to_json());
        Ok((digest, place, new.unwrap_or_else(|| kept(&chains.elections))))
    }

    pub(super) fn check_orders(&self, bytes: &[u8], current: &Current) -> Result<Checked, Refusal> {
        let envelope = Envelope::from_json::<Orders>(bytes)?;
        let (claimed, digest) = envelope.peek::<Orders>()?;
        let Some(regulator) = self.trust.regulators.iter().find(|r| r.name == claimed.regulator) else {
            let detail = format!("no regulator {} is pinned in trust.regulators", claimed.regulator);
            return Err(Refusal::new(Code::NotAuthorised, detail));
        };
        let new = envelope.verify::<Orders>(&[regulator.key], 1)?;
        let pinned = current.walked()?.orders.iter().find(|held| held.regulator == regulator.name);
        let pinned = pinned.map(|held| (held.seq, held.digest()));
        let offered = Offered { name: Orders::NAME, seq: new.seq, prev: new.prev, digest };
        follows(&offered, pinned, Gaps::Allowed)?;
        Ok((digest, Place { name: line_of(regulator), seq: new.seq }, envelope.to_json()))
    }

    /// Whether `permit` is new here; a new one must follow the versions that are known, with a quorum still or without.
    pub(super) async fn is_new_version(
        &self,
        permit: &Permit,
        digest: Digest,
        current: &Current,
    ) -> Result<bool, Refusal> {
        let place = Place { name: permit.id.clone(), seq: permit.version.into() };
        if self.store.digest_at(Kind::Permit, &place).await.map_err(unavailable)? == Some(digest) {
            return Ok(false);
        }
        let kept = self.store.kept(Kind::Permit, Some(&permit.id), MAX_VERSIONS).await.map_err(unavailable)?;
        let mut seen = Vec::new();
        for known in kept {
            let (document, digest) = Envelope::from_json::<Permit>(&known.envelope)?.peek::<Permit>()?;
            seen.push(version_of(&document, digest));
        }
        let named = permit.supersedes.and_then(|digest| Some((current.permits.get(&digest)?, digest)));
        let named = named.map(|(permit, digest)| version_of(permit.verified().document(), digest));
        supersession::check(permit, digest, &seen, named.as_ref())?;
        Ok(true)
    }
}

/// The newest link as it is kept: of one that is handed in again nobody has looked at the signatures.
fn kept<D: Document>(links: &[Arc<Held<D>>]) -> Vec<u8> {
    links.last().map(|held| held.envelope().to_vec()).unwrap_or_default()
}

fn version_of(permit: &Permit, digest: Digest) -> Version {
    Version { id: permit.id.clone(), version: permit.version, digest, study_id: permit.study_id.clone() }
}

/// The line of a regulator's orders: with another key they count anew.
fn line_of(regulator: &Regulator) -> String {
    format!("{}@{}", regulator.name, regulator.key.fingerprint())
}
