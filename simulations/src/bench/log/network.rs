//! The signatures of a network without its processes: what a coordinator's log has of its rounds.

use chrono::{DateTime, TimeDelta, Utc};
use miette::{IntoDiagnostic, Result, miette};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    digest::Digest,
    dsse::{Document, Envelope},
    keys::SecretKey,
    log::{entry::Kind, statements::Anchors},
    permit::Permit,
    query::{Query, Terms},
    receipt::Receipt,
    roster::{Member, Role, Roster},
    units::{AttoDelta, MicroRho},
};
use serde_json::json;

/// How many hospitals there are.
const HOSPITALS: usize = 5;

/// Everybody's keys.
pub struct Signing {
    governance: SecretKey,
    committee: [SecretKey; 2],
    person: SecretKey,
    hospitals: [SecretKey; HOSPITALS],
}

impl Signing {
    /// Fresh keys.
    pub fn fresh() -> Self {
        let key = || SecretKey::generate(&mut rand::rng());
        let (committee, hospitals) = (std::array::from_fn(|_| key()), std::array::from_fn(|_| key()));
        Self { governance: key(), committee, person: key(), hospitals }
    }

    /// Whom the log's keeper trusts.
    pub fn anchors(&self) -> Result<Anchors> {
        let member = |(number, key): (usize, &SecretKey)| {
            let name = format!("member-{number}");
            CommitteeMember { name: name.clone(), role: name, key: key.public() }
        };
        let members = self.committee.iter().enumerate().map(member).collect();
        let committee = Committee::pinned(2, Vec::new(), false, members).map_err(|why| miette!("{why}"))?;
        let (governance, own) = (vec![self.governance.public()], ("coordinator".into(), Vec::new()));
        Ok(Anchors { governance, committee, regulators: Vec::new(), own })
    }

    /// Roster and permit.
    pub fn documents(&self) -> Result<Vec<(Kind, Vec<u8>)>> {
        let member = |(number, key): (usize, &SecretKey)| Member {
            name: format!("hospital-{number}"),
            role: Role::Node,
            peer_id: format!("peer-{number}"),
            signing_key: key.public(),
        };
        let members = self.hospitals.iter().enumerate().map(member).collect();
        let roster = Roster { seq: 1, prev: None, issued: at(), expires: at() + TimeDelta::days(300), members };
        let [first, second] = &self.committee;
        Ok(vec![
            (Kind::Roster, signed(&roster, &[&self.governance])?),
            (Kind::Permit, signed(&self.permit()?, &[first, second])?),
        ])
    }

    /// The query `number` and what so many hospitals released.
    pub fn round(&self, number: u64, receipts: u64) -> Result<Vec<(Kind, Vec<u8>)>> {
        let permit = Digest::of(&serde_json::to_vec(&self.permit()?).into_diagnostic()?);
        let micro_rho = MicroRho::try_from(1000).into_diagnostic()?;
        let query = Query {
            permit,
            sql: format!("SELECT sex, age / 10, count(*) AS n, avg(days) FROM stay WHERE age < {number} GROUP BY 1, 2"),
            holders: (0..HOSPITALS).map(|number| format!("hospital-{number}")).collect(),
            micro_rho,
            run: 1,
            expires: at(),
            nonce: format!("{number:032x}"),
            terms: Terms::default(),
        };
        let envelope = Envelope::sign(&query, &[&self.person]).into_diagnostic()?;
        let some = Digest::of(&number.to_be_bytes());
        let receipt = |node| Receipt {
            node,
            permit,
            study_id: "study".into(),
            query: some,
            query_key: query.key(),
            run: 1,
            plan: some,
            micro_rho,
            atto_delta: AttoDelta::ZERO,
            synthetic: false,
            snapshot_commitment: some,
            register_commitment: some,
            as_of: at().date_naive(),
            release: some,
            software: "benchmark".into(),
            at: at(),
            release_kind: sekisho_protocol::permit::ReleaseKind::Noised,
            exact_since: None,
        };
        let asked = envelope.digest::<Query>().into_diagnostic()?;
        let mut entries = vec![(Kind::Query, envelope.to_json())];
        for (node, key) in query.holders.iter().zip(&self.hospitals).take(usize::try_from(receipts).into_diagnostic()?)
        {
            entries.push((Kind::Receipt, signed(&Receipt { query: asked, ..receipt(node.clone()) }, &[key])?));
        }
        Ok(entries)
    }

    fn permit(&self) -> Result<Permit> {
        let key = self.person.public();
        let holders: Vec<_> = (0..HOSPITALS).map(|number| format!("hospital-{number}")).collect();
        let permit = json!({
            "id": "permit", "version": 1, "supersedes": null, "basis": "JP-ethics", "issuer": "committee",
            "decision": {"date": "2026-01-01", "reasons": "good"}, "purposes": ["scientific_research"],
            "data_user": "university", "principal_investigator": "x",
            "authorised_persons": [{"id": "x", "role": "analyst", "key": key, "key_fingerprint": key.fingerprint()}],
            "study_id": "study", "schema": Digest::of(b"schema"),
            "data": [{"table": "stay", "columns": ["age"], "holder_nodes": holders}],
            "allowed_statistics": ["count"], "release_kinds": ["noised"], "disclosure": "jp-ndb",
            "dp": {"rows_per_patient": 1, "groups_per_patient": 1, "sites_per_patient": 1,
                "micro_rho_per_query": 1000, "micro_rho_total": 100_000, "delta_for_reports": "1e-6"},
            "optout": {"rule": "jp-ngmia", "days": 30},
            "validity": {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"},
        });
        serde_json::from_value(permit).into_diagnostic()
    }
}

fn signed<D: Document>(document: &D, by: &[&SecretKey]) -> Result<Vec<u8>> {
    Ok(Envelope::sign(document, by).into_diagnostic()?.to_json())
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_780_000_000, 0).unwrap_or_default()
}
