//! One `put` a row: which documents are taken, and by which code the others are refused.

use chrono::Duration;
use sekisho_aggregation::{
    plan::PrivatePlan,
    release::{ExactHeader, MeasureHeader, PartHeader, Release, ReleaseHeader},
};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    keys::SecretKey,
    permit::{
        AuthorisedPerson, Basis, Decision, Dp, Mechanism, OptOut, OptOutRule, OutputReview, PermittedTable, Preset,
        Purpose, ReleaseKind, Statistic, Validity,
    },
    query::Query,
    schema::{Column, Kind as ColumnKind, Table},
    units::{AttoDelta, MicroRho},
};

use super::*;

pub(crate) fn now() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub(crate) fn key() -> SecretKey {
    SecretKey::generate(&mut rand::rng())
}

/// A release of a plan of one part, with these numbers; of an exact plan, a number of 0 is a hidden row.
pub(crate) fn release_of(
    plan: &PrivatePlan,
    query: &Query,
    nonce: String,
    numbers: impl Iterator<Item = i128>,
) -> Release {
    let (part, numbers) = (&plan.parts()[0], numbers.collect::<Vec<_>>());
    let exact = plan.exact().map(|rules| ExactHeader { rules: *rules, cut: now().date_naive() });
    let hidden = numbers.iter().zip(0..).filter(|(number, _)| exact.is_some() && **number == 0).map(|(_, row)| row);
    let measures = part.measures().iter();
    let measure = |m| MeasureHeader {
        kind: "rows".into(),
        unit: part.unit(m).to_string(),
        numbers: part.cells(),
        noise: part.noise(m),
    };
    let header = ReleaseHeader {
        permit: query.permit,
        query_key: query.key(),
        run: query.run,
        plan: plan.digest(),
        micro_rho: query.micro_rho,
        as_of: now().date_naive(),
        synthetic: true,
        nonce,
        atto_delta: AttoDelta::ZERO,
        parts: vec![PartHeader { names: None, measures: measures.map(measure).collect(), hidden: hidden.collect() }],
        exact,
    };
    let cells: Vec<u8> = numbers.into_iter().flat_map(i128::to_le_bytes).collect();
    Release::from_bytes(&serde_json::to_vec(&header).unwrap(), &cells).unwrap()
}

struct World {
    dir: tempfile::TempDir,
    governance: SecretKey,
    committee: [SecretKey; 3],
    person: SecretKey,
    documents: Documents,
}

impl World {
    async fn new() -> Self {
        let (dir, governance, committee) = (tempfile::tempdir().unwrap(), key(), [key(), key(), key()]);
        let documents = open(&dir, trust(&governance, &committee)).await.unwrap();
        Self { dir, governance, committee, person: key(), documents }
    }

    async fn put(&self, envelope: &Envelope) -> Result<Accepted, Code> {
        self.documents.put(&envelope.to_json(), now()).await.map_err(|refusal| refusal.code)
    }

    fn roster(&self, seq: u64, prev: Option<Digest>) -> Envelope {
        Envelope::sign(&roster(seq, prev), &[&self.governance]).unwrap()
    }

    fn status(&self, seq: u64, prev: Option<Digest>, void_keys: Vec<Digest>) -> Envelope {
        Envelope::sign(&status(seq, prev, void_keys), &[&self.governance]).unwrap()
    }

    async fn with_schema(&self) -> Digest {
        let envelope = Envelope::sign(&schema(), &[&self.governance]).unwrap();
        self.put(&envelope).await.unwrap().digest
    }

    fn permit(&self, version: u32, schema: Digest, signers: &[usize]) -> Envelope {
        let signers: Vec<_> = signers.iter().map(|i| &self.committee[*i]).collect();
        let mut permit = permit(&self.person, version, schema);
        let before = self.documents.get(&Want::Permit { name: permit.id.clone() });
        permit.supersedes = before
            .ok()
            .map(|before| Envelope::from_json::<Permit>(&before).unwrap().peek::<Permit>().unwrap())
            .filter(|(before, _)| before.version < version)
            .map(|(_, digest)| digest);
        Envelope::sign(&permit, &signers).unwrap()
    }
}

fn trust(governance: &SecretKey, committee: &[SecretKey]) -> Trust {
    let member = |(key, n): (&SecretKey, i32)| CommitteeMember {
        name: format!("m-{n}"),
        role: "ethics".into(),
        key: key.public(),
    };
    let members = committee.iter().zip(1..).map(member).collect();
    let committee = Committee::pinned(2, Vec::new(), false, members).unwrap();
    Trust { governance: governance.public(), committee, regulators: Vec::new(), application_required: false }
}

async fn open(dir: &tempfile::TempDir, trust: Trust) -> Result<Documents, DocumentsError> {
    Documents::open(Store::open(&dir.path().join("coordinator.db")).await.unwrap(), trust).await
}

pub(crate) fn roster(seq: u64, prev: Option<Digest>) -> Roster {
    Roster { seq, prev, issued: now(), expires: now() + Duration::hours(24), members: Vec::new() }
}

pub(crate) fn status(seq: u64, prev: Option<Digest>, void_keys: Vec<Digest>) -> Status {
    Status {
        seq,
        prev,
        issued: now(),
        expires: now() + Duration::hours(24),
        revoked_permits: Vec::new(),
        permit_versions: Vec::new(),
        suspended_studies: Vec::new(),
        void_keys,
    }
}

pub(crate) fn schema() -> Schema {
    let column = |name: &str, kind, domain: Option<[&str; 2]>| Column {
        name: name.into(),
        kind,
        scale: 0,
        bounds: None,
        domain: domain.map(|values| values.map(String::from).into()),
        unit: None,
    };
    let table = Table {
        name: "person".into(),
        patient: Some("person_id".into()),
        public: None,
        one_row_per_patient: true,
        columns: vec![column("person_id", ColumnKind::Int64, None), column("sex", ColumnKind::Text, Some(["f", "m"]))],
    };
    Schema { id: "s".into(), version: 1, title: "A table".into(), tables: vec![table] }
}

pub(crate) fn permit(person: &SecretKey, version: u32, schema: Digest) -> Permit {
    let rho = |n: u64| MicroRho::try_from(n).unwrap();
    let person = AuthorisedPerson {
        id: "p1".into(),
        role: "statistician".into(),
        key: person.public(),
        key_fingerprint: person.public().fingerprint(),
    };
    Permit {
        id: "permit-1".into(),
        version,
        supersedes: None,
        application_id: None,
        application: None,
        basis: Basis::JpEthics,
        issuer: "access body".into(),
        decision: Decision { date: now().date_naive(), reasons: "of use".into(), recused: Vec::new() },
        purposes: vec![Purpose::PublicHealth],
        data_user: "institute".into(),
        country: None,
        principal_investigator: "a person".into(),
        authorised_persons: vec![person],
        study_id: "study-1".into(),
        schema,
        data: vec![PermittedTable {
            table: "person".into(),
            columns: vec!["sex".into()],
            holder_nodes: vec!["a".into()],
        }],
        allowed_queries: None,
        allowed_statistics: vec![Statistic::Count],
        release_kinds: vec![ReleaseKind::Noised],
        disclosure: Preset::None,
        dp: Dp {
            rows_per_patient: 1,
            groups_per_patient: 1,
            sites_per_patient: 1,
            micro_rho_per_query: rho(1000),
            micro_rho_total: rho(10_000),
            delta_for_reports: "1e-6".into(),
            mechanism: Mechanism::Gaussian,
            atto_delta_per_query: AttoDelta::ZERO,
            atto_delta_total: AttoDelta::ZERO,
        },
        optout: OptOut { rule: OptOutRule::EuEhds, days: 0 },
        output_review: OutputReview::Automatic,
        validity: Validity { from: now(), to: now() + Duration::days(30) },
        results_due: None,
        conditions: Vec::new(),
    }
}

#[tokio::test]
async fn the_highest_roster_is_pinned_and_what_does_not_follow_it_is_refused() {
    let w = World::new().await;
    let first = w.put(&w.roster(3, None)).await.unwrap();
    assert_eq!(w.put(&w.roster(3, None)).await, Ok(first), "the same again");
    let wrong = Some(Digest::of(b"another"));
    for (fact, envelope, code) in [
        ("a lower one", w.roster(2, None), Code::OlderDocument),
        ("another of the same number", w.roster(3, wrong), Code::OlderDocument),
        ("the next, after another one", w.roster(4, wrong), Code::OlderDocument),
        ("the next, after none", w.roster(4, None), Code::OlderDocument),
        ("number 0", w.roster(0, None), Code::Malformed),
        ("by another key", Envelope::sign(&roster(4, Some(first.digest)), &[&key()]).unwrap(), Code::QuorumNotMet),
    ] {
        assert_eq!(w.put(&envelope).await, Err(code), "{fact}");
    }
    let next = w.put(&w.roster(4, Some(first.digest))).await.unwrap();
    assert_eq!(w.documents.current().pinned_roster().unwrap().digest(), next.digest);
    assert!(w.put(&w.roster(9, wrong)).await.is_ok(), "after a gap the predecessor is not known");
}

#[tokio::test]
async fn an_expired_roster_or_status_is_refused_and_goes_out_of_force_at_its_last_second() {
    let w = World::new().await;
    let late = now() + Duration::hours(24);
    for (envelope, code) in [(w.roster(1, None), Code::StaleRoster), (w.status(1, None, Vec::new()), Code::StaleStatus)]
    {
        assert_eq!(w.documents.put(&envelope.to_json(), late).await.unwrap_err().code, code);
        w.put(&envelope).await.unwrap();
    }
    let current = w.documents.current();
    assert!(current.roster(late - Duration::seconds(1)).is_ok() && current.status(late - Duration::seconds(1)).is_ok());
    assert_eq!(current.roster(late).unwrap_err().code, Code::StaleRoster);
    assert_eq!(current.status(late).unwrap_err().code, Code::StaleStatus);
}

#[tokio::test]
async fn a_permit_needs_the_committees_quorum_and_a_known_schema() {
    let w = World::new().await;
    assert_eq!(w.put(&w.permit(1, Digest::of(b"?"), &[0, 1])).await, Err(Code::SchemaMismatch));
    let schema = w.with_schema().await;
    for (fact, envelope, code) in [
        ("one signature", w.permit(1, schema, &[0]), Code::QuorumNotMet),
        ("one signer twice", w.permit(1, schema, &[0, 0]), Code::DuplicateSigner),
        (
            "governance is no committee",
            {
                let permit = permit(&w.person, 1, schema);
                Envelope::sign(&permit, &[&w.governance, &w.committee[0]]).unwrap()
            },
            Code::QuorumNotMet,
        ),
    ] {
        assert_eq!(w.put(&envelope).await, Err(code), "{fact}");
    }
    let accepted = w.put(&w.permit(1, schema, &[0, 1])).await.unwrap();
    assert_eq!(w.put(&w.permit(1, schema, &[1, 2])).await, Ok(accepted), "the same with other signatures");
    let mut other = permit(&w.person, 1, schema);
    other.data_user = "somebody else".into();
    let other = Envelope::sign(&other, &[&w.committee[0], &w.committee[1]]).unwrap();
    assert_eq!(w.put(&other).await, Err(Code::OlderDocument), "another permit of the same version");
}

#[tokio::test]
async fn a_permit_by_a_voided_key_is_not_used_until_others_sign_it() {
    let w = World::new().await;
    let schema = w.with_schema().await;
    let digest = w.put(&w.permit(1, schema, &[0, 1])).await.unwrap().digest;
    w.put(&w.status(1, None, vec![w.committee[0].public().fingerprint()])).await.unwrap();
    assert_eq!(w.documents.current().permit(digest).unwrap_err().code, Code::PermitUnknown);
    assert_eq!(w.put(&w.permit(1, schema, &[0, 1])).await, Err(Code::QuorumNotMet));
    w.put(&w.permit(1, schema, &[1, 2])).await.unwrap();
    assert!(w.documents.current().permit(digest).is_ok());
}

#[tokio::test]
async fn a_permit_is_found_by_digest_and_its_newest_version_by_id() {
    let w = World::new().await;
    let schema = w.with_schema().await;
    let one = w.permit(1, schema, &[0, 1]);
    let digest = w.put(&one).await.unwrap().digest;
    let two = w.permit(2, schema, &[0, 1]);
    w.put(&two).await.unwrap();
    let get = |name: String| w.documents.get(&Want::Permit { name });
    assert_eq!(get(digest.to_string()).unwrap(), one.to_json());
    assert_eq!(get("permit-1".into()).unwrap(), two.to_json());
    assert_eq!(get("permit-2".into()).unwrap_err().code, Code::PermitUnknown);
    assert_eq!(w.documents.get(&Want::Roster).unwrap_err().code, Code::StaleRoster);
    let current = w.documents.current();
    assert_eq!(current.permits_for("a", now()).count(), 2);
    assert_eq!(current.permits_for("b", now()).count(), 0);
    assert_eq!(current.permits_for("a", now() + Duration::days(30)).count(), 0);
}

#[tokio::test]
async fn documents_survive_a_restart_and_are_verified_again() {
    let w = World::new().await;
    let schema = w.with_schema().await;
    let digest = w.put(&w.permit(1, schema, &[0, 1])).await.unwrap().digest;
    w.put(&w.roster(1, None)).await.unwrap();
    w.documents.store.close().await;

    let again = open(&w.dir, trust(&w.governance, &w.committee)).await.unwrap();
    assert!(again.current().permit(digest).is_ok());
    assert_eq!(again.current().pinned_roster().unwrap().seq, 1);
    again.store.close().await;

    let refused = open(&w.dir, trust(&key(), &w.committee)).await.err();
    assert!(matches!(refused, Some(DocumentsError::Unverified { kind: Kind::Roster, .. })));
}

#[tokio::test]
async fn what_is_no_document_of_the_network_is_refused() {
    let w = World::new().await;
    let put = async |bytes: &[u8]| w.documents.put(bytes, now()).await.unwrap_err().code;
    assert_eq!(put(b"hello").await, Code::Malformed);
    assert_eq!(put(&vec![b' '; 8 << 20]).await, Code::TooLarge);
    let json = r#"{"payloadType":"application/vnd.sekisho.query.v1+json","payload":"","signatures":[]}"#;
    assert_eq!(put(json.as_bytes()).await, Code::Malformed);
}
