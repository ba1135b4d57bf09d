//! One statement: who had to sign it, and what it says that later ones are compared with.

use super::{Charged, Question, Statements};
use crate::{
    alert::Alert,
    application::Application,
    catalogue::Catalogue,
    committee::Committee,
    decision::RefusedApplication,
    digest::Digest,
    dsse::{Document, DsseError, Envelope},
    governance::Governance,
    keys::PublicKey,
    log::{
        checkpoint::{SignedCheckpoint, whose},
        entry::Kind,
        note::{NoteKey, Signs},
    },
    orders::Orders,
    output_review::OutputReview,
    permit::Permit,
    publication::Publication,
    published::PublishedRelease,
    query::Query,
    receipt::{Acceptance, Receipt, ReservationRecord},
    record::{PolicyRecord, RefusalRecord, WriteOff},
    replay::Replay,
    review::Review,
    roster::Roster,
    schema::Schema,
    status::Status,
};

/// What a statement says, once its signatures are verified.
pub(super) enum Said {
    /// Nothing that others are compared with.
    Signed,
    /// It cannot be verified, since what names its signer is not there.
    Open(String),
    /// A question.
    Query {
        /// Of the signed message.
        digest: Digest,
        question: Question,
    },
    /// A charge.
    Reservation { key: Digest, run: u32, charged: Charged },
    /// A release.
    Receipt { query: Digest, question: Question, charged: Charged },
    /// What a lost log charged was written off.
    WrittenOff,
}

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn read<D: Document>(bytes: &[u8]) -> Result<(Envelope, D, Digest), String> {
    let envelope = Envelope::from_json::<D>(bytes).map_err(wrong)?;
    let (claimed, digest) = envelope.peek::<D>().map_err(wrong)?;
    Ok((envelope, claimed, digest))
}

/// That one of `keys` signed.
fn by<D: Document>(envelope: &Envelope, keys: &[PublicKey]) -> Result<Said, String> {
    envelope.verify::<D>(keys, 1).map(|_| Said::Signed).map_err(wrong)
}

impl Statements {
    /// Takes a document that names keys.
    pub(super) fn learn(&mut self, kind: Kind, bytes: &[u8]) -> Result<Said, String> {
        if kind == Kind::Governance {
            let (envelope, rotation, _) = read::<Governance>(bytes)?;
            // The old key signs and the new one too: of all keys that governed, at least one is not the new one.
            let keys: Vec<_> = self.governance.iter().copied().filter(|key| *key != rotation.new_key).collect();
            envelope.verify::<Governance>(&keys, 1).map_err(wrong)?;
            envelope.verify::<Governance>(&[rotation.new_key], 1).map_err(wrong)?;
            self.governance.push(rotation.new_key);
        } else if kind == Kind::Committee {
            let (envelope, ..) = read::<Committee>(bytes)?;
            let taken = self.chain.take(&envelope, |_| false).map_err(|refusal| refusal.detail)?;
            self.committees.extend(taken.map(|committee| committee.document().clone()));
        } else if kind == Kind::Permit {
            let (envelope, ..) = read::<Permit>(bytes)?;
            let permit = self.of_a_committee(|c| c.verify_permit(&envelope, |_| false))?;
            self.permits.insert(permit.digest(), permit.document().clone());
        } else {
            let (envelope, ..) = read::<Roster>(bytes)?;
            let roster = envelope.verify::<Roster>(&self.governance, 1).map_err(wrong)?;
            for member in &roster.members {
                let keys = self.members.entry(member.name.clone()).or_default();
                if !keys.contains(&member.signing_key) {
                    keys.push(member.signing_key);
                }
            }
        }
        Ok(Said::Signed)
    }

    /// Checks any other statement.
    pub(super) fn check(&self, kind: Kind, bytes: &[u8]) -> Result<Said, String> {
        match kind {
            Kind::Roster | Kind::Committee | Kind::Governance | Kind::Permit => Err("it was to be read before".into()),
            Kind::Status => by::<Status>(&read::<Status>(bytes)?.0, &self.governance),
            Kind::Schema => by::<Schema>(&read::<Schema>(bytes)?.0, &self.governance),
            Kind::Orders => {
                let (envelope, orders, _) = read::<Orders>(bytes)?;
                let regulators = self.regulators.iter().filter(|regulator| regulator.name == orders.regulator);
                let keys: Vec<_> = regulators.map(|regulator| regulator.key).collect();
                if keys.is_empty() {
                    return Ok(Said::Open(format!(
                        "the configuration names no regulator {} any more",
                        orders.regulator
                    )));
                }
                by::<Orders>(&envelope, &keys)
            }
            Kind::Application => {
                let (envelope, application, _) = read::<Application>(bytes)?;
                by::<Application>(&envelope, &application.keys())
            }
            Kind::Review => self.of_a_seat::<Review>(bytes),
            Kind::OutputReview => self.of_a_seat::<OutputReview>(bytes),
            Kind::Decision => {
                let (envelope, decision, _) = read::<RefusedApplication>(bytes)?;
                let recused = |key: Digest| decision.recused.contains(&key);
                self.of_a_committee(|c| c.verify::<RefusedApplication>(&envelope, recused)).map(|_| Said::Signed)
            }
            Kind::Publication => {
                let envelope = read::<Publication>(bytes)?.0;
                let mut keys = self.seats(&envelope);
                let ids: Vec<_> = envelope.key_ids().collect();
                let persons = self.permits.values().flat_map(|permit| &permit.authorised_persons);
                keys.extend(persons.filter(|person| ids.contains(&person.key_fingerprint)).map(|person| person.key));
                by::<Publication>(&envelope, &keys)
            }
            Kind::Query => self.query(bytes),
            Kind::Receipt => self.receipt(bytes),
            Kind::Reservation => {
                let record = self.of_member::<ReservationRecord>(bytes, |record| &record.node)?;
                let charged = Charged { study_id: record.study_id, micro_rho: record.micro_rho };
                Ok(Said::Reservation { key: record.query_key, run: record.run, charged })
            }
            Kind::Acceptance => self.of_member::<Acceptance>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::Catalogue => self.of_member::<Catalogue>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::Refusal => self.of_member::<RefusalRecord>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::Policy => self.of_member::<PolicyRecord>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::Replay => self.of_member::<Replay>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::Alert => self.of_member::<Alert>(bytes, |d| &d.node).map(|_| Said::Signed),
            Kind::WriteOff => self.of_member::<WriteOff>(bytes, |d| &d.node).map(|_| Said::WrittenOff),
            Kind::Checkpoint => self.checkpoint(bytes),
            // The coordinator states results, in its own log alone.
            Kind::Release => {
                let keys = self.members.get(&self.keeper).map(Vec::as_slice).unwrap_or_default();
                by::<PublishedRelease>(&read::<PublishedRelease>(bytes)?.0, keys)
            }
        }
    }

    fn query(&self, bytes: &[u8]) -> Result<Said, String> {
        let (envelope, query, digest) = read::<Query>(bytes)?;
        let Some(permit) = self.permits.get(&query.permit) else {
            return Ok(Said::Open(format!("its permit {} is not in this log before it", query.permit.short())));
        };
        let keys: Vec<_> = permit.authorised_persons.iter().map(|person| person.key).collect();
        by::<Query>(&envelope, &keys)?;
        let kind = permit.release_of(&query.sql);
        Ok(Said::Query { digest, question: Question { permit: query.permit, key: query.key(), run: query.run, kind } })
    }

    fn receipt(&self, bytes: &[u8]) -> Result<Said, String> {
        let receipt = self.of_member::<Receipt>(bytes, |receipt| &receipt.node)?;
        let Receipt { permit, query_key: key, run, release_kind: kind, .. } = receipt;
        let question = Question { permit, key, run, kind };
        let charged = Charged { study_id: receipt.study_id, micro_rho: receipt.micro_rho };
        Ok(Said::Receipt { query: receipt.query, question, charged })
    }

    /// A checkpoint that a member's log signed.
    fn checkpoint(&self, bytes: &[u8]) -> Result<Said, String> {
        let checkpoint = SignedCheckpoint::parse(bytes).map_err(wrong)?;
        let origin = checkpoint.claimed().origin();
        let member = whose(origin).ok_or("its origin is no member's")?.member;
        let keys = self.members.get(member).map(Vec::as_slice).unwrap_or_default();
        let signed = |key: &PublicKey| checkpoint.verify(&NoteKey::new(origin.clone(), Signs::Text, *key)).is_ok();
        if keys.iter().any(signed) {
            return Ok(Said::Signed);
        }
        Err(format!("no key of {member} that a roster names signed it"))
    }

    /// A document that the member whom it names signed.
    fn of_member<D: Document>(&self, bytes: &[u8], name: impl Fn(&D) -> &String) -> Result<D, String> {
        let (envelope, document, _) = read::<D>(bytes)?;
        let name = name(&document);
        let keys = self.members.get(name).ok_or_else(|| format!("no roster before it names {name}"))?;
        by::<D>(&envelope, keys)?;
        Ok(document)
    }

    /// The keys of members of any committee that this envelope names.
    fn seats(&self, envelope: &Envelope) -> Vec<PublicKey> {
        envelope.key_ids().filter_map(|id| self.chain.seat(id)).map(|member| member.key).collect()
    }

    fn of_a_seat<D: Document>(&self, bytes: &[u8]) -> Result<Said, String> {
        let envelope = read::<D>(bytes)?.0;
        by::<D>(&envelope, &self.seats(&envelope))
    }

    /// What one of the committees makes of it, the newest first.
    fn of_a_committee<T>(&self, verify: impl Fn(&Committee) -> Result<T, DsseError>) -> Result<T, String> {
        let mut first = None;
        for committee in self.committees.iter().rev() {
            match verify(committee) {
                Ok(verified) => return Ok(verified),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.map_or_else(|| "there is no committee".into(), wrong))
    }
}
