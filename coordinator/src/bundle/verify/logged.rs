//! The coordinator's log: its cosigned checkpoint, and that every signed document of the bundle is under it.

use std::collections::BTreeMap;

use sekisho_protocol::log::{
    checkpoint::SignedCheckpoint, entry::Entry, policy::WitnessedCheckpoint, proof::InclusionProof,
};

use super::{
    super::{layout, trust::member_of},
    AsOf, Checking,
    fault::{Fault, rule, same},
    link::Link,
    people::{Granted, People},
};

/// A checkpoint that is good enough, as it is in the bundle.
pub(super) struct Witnessed {
    signed: SignedCheckpoint,
    good: WitnessedCheckpoint,
}

/// What a report says of it.
pub(super) fn as_of(witnessed: &Witnessed) -> AsOf {
    let checkpoint = witnessed.good.checkpoint();
    AsOf {
        log: checkpoint.origin().to_string(),
        size: checkpoint.head().size(),
        root: checkpoint.head().root(),
        witnesses: witnessed.good.witnesses().to_vec(),
    }
}

impl Checking<'_> {
    /// The checkpoint, by the policy of whoever checks.
    pub(super) fn checkpoint(&mut self, people: &People) -> Option<Witnessed> {
        let came = self.witnessed(people);
        self.settle(Link::Checkpoint, "", came)
    }

    fn witnessed(&self, people: &People) -> Result<(Witnessed, String), Fault> {
        let signed = SignedCheckpoint::parse(self.files.need(layout::CHECKPOINT)?)?;
        let good = self.trust.policy.check(&signed)?;
        let checkpoint = good.checkpoint();
        let ours = people.coordinators();
        let named = ours.is_empty() || ours.contains(&member_of(checkpoint.origin()));
        rule(named, || format!("it is of the log {}, which is not the coordinator's", checkpoint.origin()))?;
        let witnesses: Vec<&str> = good.witnesses().iter().map(|(name, _)| name.as_str()).collect();
        let witnesses = if witnesses.is_empty() { "nobody".into() } else { witnesses.join(", ") };
        let found = format!("{} entries, cosigned by {witnesses}", checkpoint.head().size());
        Ok((Witnessed { signed, good }, found))
    }

    /// Where each signed document is in the log.
    pub(super) fn logged(&mut self, witnessed: Option<&Witnessed>) -> BTreeMap<String, u64> {
        let mut places = BTreeMap::new();
        let paths: Vec<String> = self.files.statements().into_iter().map(String::from).collect();
        for path in &paths {
            self.files.pass(&layout::proof(path));
            let Some(witnessed) = witnessed else { continue };
            match self.place(path, witnessed) {
                Ok(index) => drop(places.insert(path.clone(), index)),
                Err(fault) => drop(self.settle::<()>(Link::Log, path, Err(fault))),
            }
        }
        match witnessed {
            None => self.skip(Link::Log, "", Link::Checkpoint),
            Some(_) if places.is_empty() => {}
            Some(_) => {
                let others = if places.len() < paths.len() { "the other " } else { "" };
                self.settle(Link::Log, "", Ok(((), format!("{others}{} documents", places.len()))));
            }
        }
        places
    }

    fn place(&self, path: &str, witnessed: &Witnessed) -> Result<u64, Fault> {
        let proof = InclusionProof::parse(self.files.need(&layout::proof(path))?)?;
        same(proof.checkpoint(), &witnessed.signed, "checkpoint", "the bundle")?;
        let opening = proof.opening()?;
        let kind = layout::kind(path);
        rule(Some(opening.kind) == kind, || format!("the proof is of a {}", opening.kind))?;
        let entry = Entry::of(opening, self.files.need(path)?);
        Ok(proof.under(&entry, witnessed.good.checkpoint())?)
    }

    /// That a permit of a committee which gave way was in the log before the next one was.
    pub(super) fn committee_in_force(&mut self, granted: Option<&Granted>, places: &BTreeMap<String, u64>) {
        let Some(granted) = granted.filter(|granted| granted.by + 1 < granted.of) else { return };
        let next = places.get(&layout::committee(granted.by as u64 + 1));
        let (Some(permit), Some(next)) = (places.get(layout::PERMIT), next) else { return };
        let why = || "a committee that had given way granted it: it was logged after the next committee".into();
        let came = rule(permit < next, why).map(|()| ((), "logged before the next committee was".into()));
        self.settle(Link::Permit, layout::PERMIT, came);
    }
}
