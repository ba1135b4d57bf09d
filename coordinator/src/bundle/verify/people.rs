//! Whose signatures count, and what they signed: governance, committees, status, rosters; then permit, schema, question and the
//! coordinator's account.

use chrono::SecondsFormat;
use sekisho_protocol::{
    committee::{Committee, CommitteeChain},
    digest::Digest,
    dsse::{DsseError, Verified},
    governance::{Governance, GovernanceChain},
    keys::PublicKey,
    permit::Permit,
    published::PublishedRelease,
    query::Query,
    roster::{Member, Role, Roster},
    schema::Schema,
    status::Status,
    units::MicroRho,
};

use super::{
    super::{layout, reading::coordinator},
    Checking,
    fault::{Fault, rule, same},
    link::Link,
};

/// Whose signatures count, as far as the chains hold.
pub(super) struct People {
    governance: GovernanceChain,
    committees: CommitteeChain,
    /// The committees by digest, the pinned one first.
    digests: Vec<Digest>,
    status: Option<Verified<Status>>,
    rosters: Vec<Verified<Roster>>,
}

impl People {
    /// Whether the status voids this key.
    pub fn void(&self, key: Digest) -> bool {
        self.status.as_ref().is_some_and(|status| status.void_keys.contains(&key))
    }

    fn keys<'a>(&'a self, member: impl Fn(&'a Roster) -> Option<&'a Member>) -> Vec<PublicKey> {
        let all = self.rosters.iter().filter_map(|roster| member(roster.document()));
        let mut keys: Vec<PublicKey> = Vec::new();
        for key in all.map(|member| member.signing_key) {
            if !self.void(key.fingerprint()) && !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// The keys of a hospital, by the rosters.
    pub fn hospital(&self, name: &str) -> Result<Vec<PublicKey>, Fault> {
        let keys = self.keys(|roster| roster.member(name).filter(|member| member.role == Role::Node));
        if keys.is_empty() { Err(Fault::NoKey(name.into())) } else { Ok(keys) }
    }

    /// The keys of the coordinator, by the rosters.
    pub fn coordinator(&self) -> Result<Vec<PublicKey>, Fault> {
        let keys = self.keys(coordinator);
        if keys.is_empty() { Err(Fault::NoKey("the coordinator".into())) } else { Ok(keys) }
    }

    /// The coordinator's names, by the rosters.
    pub fn coordinators(&self) -> Vec<&str> {
        self.rosters.iter().filter_map(|roster| coordinator(roster.document())).map(|us| us.name.as_str()).collect()
    }

    /// The last seat of this key in any committee, unless the key is void.
    pub fn seat(&self, key: Digest) -> Option<&sekisho_protocol::committee::CommitteeMember> {
        self.committees.seat(key).filter(|_| !self.void(key))
    }
}

/// A permit that a committee granted.
pub(super) struct Granted {
    pub permit: Verified<Permit>,
    /// Which committee, from 0 for the pinned one.
    pub by: usize,
    /// How many committees there are.
    pub of: usize,
}

impl Checking<'_> {
    /// Walks the chains.
    pub(super) fn people(&mut self) -> People {
        let (mut governance, mut committees) =
            (GovernanceChain::pinned(self.trust.governance), CommitteeChain::pinned(self.trust.committee.clone()));
        let walked = self.governance(&mut governance);
        self.settle(Link::Governance, "", walked);
        let mut digests = vec![committees.root()];
        let walked = self.elections(&mut committees, &mut digests);
        self.settle(Link::Committee, "", walked);
        let status = self.status(&governance);
        let status = self.settle(Link::Status, "", status);
        let mut people = People { governance, committees, digests, status, rosters: Vec::new() };
        let numbers = self.files.names(layout::ROSTERS, layout::DSSE);
        if numbers.is_empty() {
            self.settle::<()>(Link::Roster, "", Err(Fault::Missing(layout::roster(1))));
        }
        for number in numbers {
            let about = format!("{}{number}{}", layout::ROSTERS, layout::DSSE);
            let roster = self.roster(&about, &people.governance);
            people.rosters.extend(self.settle(Link::Roster, &about, roster));
        }
        people
    }

    fn governance(&self, chain: &mut GovernanceChain) -> Result<((), String), Fault> {
        for seq in 1.. {
            let path = layout::governance(seq);
            if self.files.get(&path).is_none() {
                break;
            }
            chain.take(&self.files.envelope::<Governance>(&path)?)?;
            same(&chain.seq(), &seq, "number", "its file")?;
        }
        Ok(((), format!("rotated {} times; the key in force is {}", chain.seq(), chain.key().fingerprint().short())))
    }

    fn elections(&self, chain: &mut CommitteeChain, digests: &mut Vec<Digest>) -> Result<((), String), Fault> {
        for seq in 1.. {
            let path = layout::committee(seq);
            if self.files.get(&path).is_none() {
                break;
            }
            chain.take(&self.files.envelope::<Committee>(&path)?, |_| false)?;
            same(&chain.newest().seq, &seq, "number", "its file")?;
            digests.push(chain.digest());
        }
        let newest = chain.newest();
        Ok((
            (),
            format!(
                "elected {} times since the pinned one; {} of {} members must sign",
                newest.seq,
                newest.needed,
                newest.members.len()
            ),
        ))
    }

    fn status(&self, governance: &GovernanceChain) -> Result<(Verified<Status>, String), Fault> {
        let status = self.files.envelope::<Status>(layout::STATUS)?.verify::<Status>(governance.keys(), 1)?;
        let found = format!("number {}, of {}", status.seq, status.issued.to_rfc3339_opts(SecondsFormat::Secs, true));
        Ok((status, found))
    }

    fn roster(&self, path: &str, governance: &GovernanceChain) -> Result<(Verified<Roster>, String), Fault> {
        let roster = self.files.envelope::<Roster>(path)?.verify::<Roster>(governance.keys(), 1)?;
        rule(layout::roster(roster.seq) == path, || format!("it is roster {}", roster.seq))?;
        let found = format!(
            "number {}, {} members, of {}",
            roster.seq,
            roster.members.len(),
            roster.issued.to_rfc3339_opts(SecondsFormat::Secs, true)
        );
        Ok((roster, found))
    }

    /// The permit, by the committee that granted it: the newest that it carries a quorum of.
    pub(super) fn permit(&mut self, people: &People) -> Option<Granted> {
        let granted = self.granted(people);
        self.settle(Link::Permit, "", granted)
    }

    fn granted(&self, people: &People) -> Result<(Granted, String), Fault> {
        let envelope = self.files.envelope::<Permit>(layout::PERMIT)?;
        let mut failed: Option<DsseError> = None;
        for (by, digest) in people.digests.iter().enumerate().rev() {
            let Some(committee) = people.committees.with_digest(*digest) else { continue };
            match committee.verify_permit(&envelope, |key| people.void(key)) {
                Ok(permit) => {
                    let signers = permit.signers().iter().filter_map(|signer| committee.member(*signer));
                    let signers: Vec<String> = signers.map(|m| format!("{} ({})", m.name, m.role)).collect();
                    let found = format!("{} version {}, signed by {}", permit.id, permit.version, signers.join(", "));
                    return Ok((Granted { permit, by, of: people.digests.len() }, found));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.map_or_else(|| Fault::Rule("there is no committee".into()), Fault::from))
    }

    /// The schema of the permit.
    pub(super) fn schema(&mut self, people: &People, granted: Option<&Granted>) -> Option<Verified<Schema>> {
        let Some(granted) = granted else {
            self.files.pass(layout::SCHEMA);
            self.skip(Link::Schema, "", Link::Permit);
            return None;
        };
        let keys = people.governance.keys().iter().copied().filter(|key| !people.void(key.fingerprint()));
        let signed = || {
            let schema =
                self.files.envelope::<Schema>(layout::SCHEMA)?.verify::<Schema>(&keys.collect::<Vec<_>>(), 1)?;
            same(&schema.digest(), &granted.permit.schema, "digest", "the permit's schema")?;
            let found = format!("{} version {}", schema.id, schema.version);
            Ok((schema, found))
        };
        let came = signed();
        self.settle(Link::Schema, "", came)
    }

    /// The question, by a person of the permit and within it.
    pub(super) fn query(&mut self, people: &People, granted: Option<&Granted>) -> Option<Verified<Query>> {
        let Some(granted) = granted else {
            self.files.pass(layout::QUERY);
            self.skip(Link::Query, "", Link::Permit);
            return None;
        };
        let came = self.asked(people, &granted.permit);
        self.settle(Link::Query, "", came)
    }

    fn asked(&self, people: &People, permit: &Verified<Permit>) -> Result<(Verified<Query>, String), Fault> {
        let keys = permit.authorised_persons.iter().map(|person| person.key);
        let keys: Vec<PublicKey> = keys.filter(|key| !people.void(key.fingerprint())).collect();
        let query = self.files.envelope::<Query>(layout::QUERY)?.verify::<Query>(&keys, 1)?;
        same(&query.permit, &permit.digest(), "permit", "the bundle")?;
        let holders = permit.holders();
        if let Some(other) = query.holders.iter().find(|name| !holders.contains(name)) {
            return Err(Fault::Rule(format!("the permit does not name hospital {other}")));
        }
        let (asked, most) = (query.micro_rho, permit.dp.micro_rho_per_query);
        rule(asked <= most, || format!("it asks for {asked}; the permit allows {most}"))?;
        if permit.allowed_queries.is_some() {
            let allowed = permit.listed(&query.sql).is_some_and(|entry| query.run <= entry.max_runs);
            rule(allowed, || "the permit lists its queries, and this is none of them".into())?;
        }
        let kind = permit.release_of(&query.sql);
        rule(kind.is_noised() || asked == MicroRho::ZERO, || format!("it asks for {asked} of an exact release"))?;
        let person = query.signers().iter().find_map(|signer| permit.person(*signer));
        let person = person.map(|person| person.id.clone()).unwrap_or_default();
        let price = if kind.is_noised() { format!("{asked} a hospital") } else { "as an exact release".into() };
        let found = format!("run {} asked by {person} of {}, {price}", query.run, permit.data_user);
        Ok((query, found))
    }

    /// The coordinator's account of the result.
    pub(super) fn statement(
        &mut self,
        people: &People,
        granted: Option<&Granted>,
        query: Option<&Verified<Query>>,
    ) -> Option<Verified<PublishedRelease>> {
        let came = self.said(people, granted, query);
        self.settle(Link::Statement, "", came)
    }

    fn said(
        &self,
        people: &People,
        granted: Option<&Granted>,
        query: Option<&Verified<Query>>,
    ) -> Result<(Verified<PublishedRelease>, String), Fault> {
        let envelope = self.files.envelope::<PublishedRelease>(layout::STATEMENT)?;
        let said = envelope.verify::<PublishedRelease>(&people.coordinator()?, 1)?;
        if let Some(Granted { permit, .. }) = granted {
            same(&said.permit, &permit.digest(), "permit", "the bundle")?;
            same(&said.study_id, &permit.study_id, "study", "the permit")?;
        }
        if let Some(query) = query {
            same(&said.query, &query.digest(), "query", "the bundle")?;
            same(&said.query_key, &query.key(), "question", "the query")?;
            same(&said.run, &query.run, "run", "the query")?;
            let names: Vec<&String> = said.holders.iter().map(|holder| &holder.name).collect();
            same(&names, &query.holders.iter().collect(), "list of hospitals", "the query")?;
        }
        if let (Some(Granted { permit, .. }), Some(status)) = (granted, &people.status) {
            let void = status.revokes(permit.digest()) && status.issued <= said.at;
            rule(!void, || {
                format!(
                    "the permit was revoked when the round ended, {}",
                    said.at.to_rfc3339_opts(SecondsFormat::Secs, true)
                )
            })?;
        }
        let (answered, asked) = (said.releases().count(), said.holders.len());
        let found =
            format!("{answered} of {asked} hospitals answered, {}", said.at.to_rfc3339_opts(SecondsFormat::Secs, true));
        Ok((said, found))
    }
}
