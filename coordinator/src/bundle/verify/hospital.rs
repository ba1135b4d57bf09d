//! What each hospital gave: its receipt, the release that this is of, its acceptance of the permit, and the proof from its own log.

use chrono::{SecondsFormat, TimeDelta};
use sekisho_aggregation::release::Release;
use sekisho_protocol::{
    dsse::{Envelope, Verified},
    log::{
        checkpoint::SignedCheckpoint,
        entry::{Entry, Kind},
        note::{NoteKey, Signs},
        proof::InclusionProof,
    },
    permit::ReleaseKind,
    published::PublishedRelease,
    query::Query,
    receipt::{Acceptance, Receipt},
};

use super::{
    super::{layout, trust::member_of},
    Checking,
    fault::{Fault, rule, same},
    link::Link,
    people::{Granted, People},
};
use crate::person::permit::word;

/// How much later than its check a charge may be: a query waits for its turn in between.
const WAITING: TimeDelta = TimeDelta::minutes(10);

/// What hospitals' documents are compared with.
pub(super) struct Chain<'a> {
    pub people: &'a People,
    pub permit: Option<&'a Granted>,
    pub query: Option<&'a Verified<Query>>,
    pub said: Option<&'a Verified<PublishedRelease>>,
}

impl<'a> Chain<'a> {
    /// All of it, or the first link that broke.
    pub fn whole(&self) -> Result<(&'a Granted, &'a Verified<Query>, &'a Verified<PublishedRelease>), Link> {
        Ok((self.permit.ok_or(Link::Permit)?, self.query.ok_or(Link::Query)?, self.said.ok_or(Link::Statement)?))
    }
}

/// A hospital whose receipt and release hold.
pub(super) struct Hospital {
    pub name: String,
    pub receipt: Verified<Receipt>,
    pub envelope: Envelope,
    pub release: Release,
}

impl Checking<'_> {
    /// The hospitals that answered; none when anything of them broke.
    pub(super) fn hospitals(&mut self, chain: &Chain<'_>) -> Option<Vec<Hospital>> {
        let names: Vec<String> = match chain.said {
            Some(said) => said.releases().map(|(name, _)| name.to_string()).collect(),
            None => self.files.names("receipts/", layout::DSSE).into_iter().map(String::from).collect(),
        };
        let all: Vec<Option<Hospital>> = names.iter().map(|name| self.hospital(name, chain)).collect();
        all.into_iter().collect()
    }

    fn hospital(&mut self, name: &str, chain: &Chain<'_>) -> Option<Hospital> {
        let signed = self.receipt(name, chain);
        let receipt = self.settle(Link::Receipt, name, signed);
        let accepted = self.accepted(name, chain);
        self.settle(Link::Acceptance, name, accepted);
        let own = self.own_log(name, chain.people);
        self.settle(Link::HospitalLog, name, own);
        let release = self.release(name, chain, receipt.as_ref().map(|(receipt, _)| receipt));
        let release = self.settle(Link::Release, name, release);
        let (receipt, envelope) = receipt?;
        Some(Hospital { name: name.to_string(), receipt, envelope, release: release? })
    }

    fn receipt(&self, name: &str, chain: &Chain<'_>) -> Result<((Verified<Receipt>, Envelope), String), Fault> {
        let envelope = self.files.envelope::<Receipt>(&layout::receipt(name))?;
        let receipt = envelope.verify::<Receipt>(&chain.people.hospital(name)?, 1)?;
        same(&receipt.node.as_str(), &name, "hospital", "its file")?;
        if let Some(Granted { permit, .. }) = chain.permit {
            same(&receipt.permit, &permit.digest(), "permit", "the bundle")?;
            same(&receipt.study_id, &permit.study_id, "study", "the permit")?;
            let valid = (permit.validity.from..permit.validity.to + WAITING).contains(&receipt.at);
            rule(valid, || {
                format!(
                    "it charged at {}, when the permit was not valid",
                    receipt.at.to_rfc3339_opts(SecondsFormat::Secs, true)
                )
            })?;
        }
        if let Some(query) = chain.query {
            same(&receipt.query_key, &query.key(), "question", "the query")?;
            same(&receipt.run, &query.run, "run", "the query")?;
            let (charged, asked) = (receipt.micro_rho, query.micro_rho);
            rule(charged <= asked, || format!("it charged {charged}, and {asked} were asked for"))?;
            // A stored release is served for later messages with the same question: its receipt names the first.
            let late = receipt.query == query.digest() && receipt.at >= query.expires + WAITING;
            rule(!late, || "it charged for a message that had expired".into())?;
        }
        if let (Some(Granted { permit, .. }), Some(query)) = (chain.permit, chain.query) {
            let (said, listed) = (receipt.release_kind, permit.release_of(&query.sql));
            let differs =
                || format!("it says {}, and the permit lists the query as {}", said.as_str(), listed.as_str());
            rule(said == listed, differs)?;
        }
        if let Some(said) = chain.said {
            let stated = said.releases().find(|(holder, _)| *holder == name).map(|(_, release)| release);
            same(&Some(receipt.release), &stated, "release", "the coordinator's account")?;
        }
        let synthetic = if receipt.synthetic { ", data declared synthetic" } else { "" };
        let cost = if receipt.release_kind.is_noised() { receipt.micro_rho.to_string() } else { "exact".into() };
        let since = receipt.exact_since.map(|day| format!(", no guarantee of differential privacy since {day}"));
        let found = format!("{cost}, {}{synthetic}{}", receipt.software, since.unwrap_or_default());
        Ok(((receipt, envelope), found))
    }

    fn release(
        &self,
        name: &str,
        chain: &Chain<'_>,
        receipt: Option<&Verified<Receipt>>,
    ) -> Result<(Release, String), Fault> {
        let (header, cells) = (self.files.need(&layout::header(name))?, self.files.need(&layout::cells(name))?);
        let release = Release::from_bytes(header, cells)?;
        let (again, _) = release.to_bytes();
        rule(again == header, || "its header is not in the one form that is hashed".into())?;
        if let Some(said) = chain.said {
            let stated = said.releases().find(|(holder, _)| *holder == name).map(|(_, release)| release);
            same(&Some(release.digest()), &stated, "digest", "the coordinator's account")?;
        }
        if let Some(receipt) = receipt {
            same(&release.digest(), &receipt.release, "digest", "the hospital's receipt")?;
            same(&release.header().as_of, &receipt.as_of, "day", "the receipt")?;
            same(&release.header().synthetic, &receipt.synthetic, "declaration of synthetic data", "the receipt")?;
            let exact = receipt.release_kind == ReleaseKind::Aggregated;
            same(&release.header().exact.is_some(), &exact, "kind of release", "the receipt")?;
        }
        if let (Some(exact), Some(Granted { permit, .. })) = (&release.header().exact, chain.permit) {
            let weaker =
                || format!("it was made by rules that hide less than the permit's {}", word(&permit.disclosure));
            rule(exact.rules.at_least(&permit.disclosure.rules()), weaker)?;
        }
        let numbers = cells.len() / 16;
        let found = match &release.header().exact {
            None => format!("{numbers} numbers with noise, patients as of {}", release.header().as_of),
            Some(exact) => {
                let hidden: usize = release.header().parts.iter().map(|part| part.hidden.len()).sum();
                format!("{numbers} exact numbers, {hidden} cells hidden, data of {}", exact.cut)
            }
        };
        Ok((release, found))
    }

    fn accepted(&self, name: &str, chain: &Chain<'_>) -> Result<((), String), Fault> {
        let envelope = self.files.envelope::<Acceptance>(&layout::acceptance(name))?;
        let answer = envelope.verify::<Acceptance>(&chain.people.hospital(name)?, 1)?;
        same(&answer.node.as_str(), &name, "hospital", "its file")?;
        if let Some(Granted { permit, .. }) = chain.permit {
            same(&answer.permit, &permit.digest(), "permit", "the bundle")?;
        }
        rule(answer.refused.is_none(), || "the hospital refused the permit".into())?;
        Ok((
            (),
            format!(
                "decided by {}, {}",
                answer.decided_by.as_str(),
                answer.at.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
        ))
    }

    /// The receipt in the hospital's own log.
    fn own_log(&self, name: &str, people: &People) -> Result<((), String), Fault> {
        let bytes = self.files.need(&layout::hospital_checkpoint(name))?;
        let proof = InclusionProof::parse(self.files.need(&layout::hospital_proof(name))?)?;
        let checkpoint = SignedCheckpoint::parse(bytes)?;
        same(proof.checkpoint(), &checkpoint, "checkpoint", "the hospital's log in the bundle")?;
        let origin = checkpoint.claimed().origin();
        same(&member_of(origin), &name, "name", "the hospital")?;
        let key = |key| NoteKey::new(origin.clone(), Signs::Text, key);
        let signed = people.hospital(name)?.into_iter().map(|known| checkpoint.verify(&key(known)));
        let signed = signed.reduce(Result::or).ok_or_else(|| Fault::NoKey(name.into()))??;
        let opening = proof.opening()?;
        rule(opening.kind == Kind::Receipt, || "the entry is no receipt".into())?;
        let receipt = self.files.need(&layout::receipt(name))?;
        let index = proof.under(&Entry::of(opening, receipt), &signed)?;
        Ok(((), format!("entry {index} of {} in {origin}", signed.head().size())))
    }
}
