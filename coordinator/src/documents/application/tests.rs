//! The life of an application at the coordinator, and each refusal as a row.

use chrono::TimeDelta;
use sekisho_protocol::{
    application::Application,
    committee::CommitteeMember,
    decision::Outcome,
    dsse::Document,
    keys::SecretKey,
    permit::{AuthorisedPerson, Basis, Purpose},
    review::{Review, Step, Verdict},
};

use super::{
    super::{
        Accepted, ListWant, Store, Trust,
        tests::{key, now, permit, schema, status},
    },
    *,
};
use crate::report::{ApplicationReport, Listed, ReviewReport};

struct World {
    dir: tempfile::TempDir,
    governance: SecretKey,
    committee: [SecretKey; 3],
    ada: SecretKey,
    schema: Digest,
    documents: Documents,
    clock: std::cell::Cell<i64>,
}

fn trust(governance: &SecretKey, committee: &[SecretKey], application_required: bool) -> Trust {
    let seats = ["ethicist", "patient-representative", "physician"];
    let member = |(key, role): (&SecretKey, &str)| CommitteeMember {
        name: format!("the-{role}"),
        role: role.into(),
        key: key.public(),
    };
    let members = committee.iter().zip(seats).map(member).collect();
    let committee = Committee::pinned(2, Vec::new(), true, members).unwrap();
    Trust { governance: governance.public(), committee, regulators: Vec::new(), application_required }
}

impl World {
    async fn new() -> Self {
        let (dir, governance, committee) = (tempfile::tempdir().unwrap(), key(), [key(), key(), key()]);
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let documents = Documents::open(store, trust(&governance, &committee, true)).await.unwrap();
        let envelope = Envelope::sign(&schema(), &[&governance]).unwrap();
        let schema = documents.put(&envelope.to_json(), now()).await.unwrap().digest;
        let clock = std::cell::Cell::new(0);
        Self { dir, governance, committee, ada: key(), schema, documents, clock }
    }

    /// A second later each time.
    fn tick(&self) -> DateTime<Utc> {
        self.clock.set(self.clock.get() + 1);
        now() + TimeDelta::seconds(self.clock.get())
    }

    async fn put(&self, envelope: &Envelope) -> Result<Accepted, Refusal> {
        self.documents.put(&envelope.to_json(), self.tick()).await
    }

    async fn code(&self, envelope: &Envelope) -> Result<(), Code> {
        self.put(envelope).await.map(|_| ()).map_err(|refusal| refusal.code)
    }

    /// An application that lacks nothing, for all that [`permit`] grants.
    fn application(&self, version: u32, supersedes: Option<Digest>) -> Application {
        let granted = permit(&self.ada, 1, self.schema);
        let sql = "SELECT sex, count(*) FROM person GROUP BY sex";
        let ada = self.ada.public();
        serde_json::from_value(serde_json::json!({
            "id": "application-1", "version": version, "supersedes": supersedes, "basis": "JP-ethics",
            "applicant": {"name": granted.data_user, "functions": "research", "sector": "academic", "country": "JP"},
            "principal_investigator": granted.principal_investigator,
            "people": [{"id": "p1", "role": "statistician", "key": ada, "key_fingerprint": ada.fingerprint(),
                "training": "2026"}],
            "purposes": ["public_health"], "use_description": "to plan", "expected_benefit": "fewer transfers",
            "study_id": granted.study_id, "schema": self.schema,
            "data": [{"table": "person", "columns": ["sex"], "holder_nodes": ["a"]}],
            "safeguards": "two keys", "period": {"from": granted.validity.from, "to": granted.validity.to},
            "ethics": {"body": "committee", "id": "1", "date": "2026-01-01"},
            "statistics": granted.allowed_statistics, "release_kinds": ["noised"], "disclosure": "none",
            "dp": granted.dp, "queries": [{"sql": sql, "sha256": Digest::of(sql.as_bytes())}],
        }))
        .unwrap()
    }

    async fn submitted(&self) -> Digest {
        let envelope = Envelope::sign(&self.application(1, None), &[&self.ada]).unwrap();
        self.put(&envelope).await.unwrap().digest
    }

    async fn complete(&self) -> Digest {
        let digest = self.submitted().await;
        self.put(&self.review(0, digest, Verdict::Complete)).await.unwrap();
        digest
    }

    fn review(&self, member: usize, digest: Digest, verdict: Verdict) -> Envelope {
        let by = &self.committee[member];
        Envelope::sign(&self.reviewed(by, digest, verdict), &[by]).unwrap()
    }

    fn reviewed(&self, by: &SecretKey, digest: Digest, verdict: Verdict) -> Review {
        let lawfulness = matches!(verdict, Verdict::Approve | Verdict::Refuse);
        Review {
            application: "application-1".into(),
            digest,
            member: by.public().fingerprint(),
            step: if lawfulness { Step::Lawfulness } else { Step::Completeness },
            verdict,
            reasons: "because".into(),
            decision: lawfulness.then(|| Digest::of(b"the permit")),
            at: self.tick(),
        }
    }

    fn permit(&self, application: Digest, change: impl FnOnce(&mut Permit)) -> Permit {
        let mut permit = permit(&self.ada, 1, self.schema);
        permit.application_id = Some("application-1".into());
        permit.application = Some(application);
        permit.country = Some("JP".into());
        change(&mut permit);
        permit
    }

    fn signed<D: Document>(&self, document: &D, members: &[usize]) -> Envelope {
        let keys: Vec<_> = members.iter().map(|i| &self.committee[*i]).collect();
        Envelope::sign(document, &keys).unwrap()
    }

    fn refusal(&self, digest: Digest, recused: Vec<Digest>) -> RefusedApplication {
        RefusedApplication {
            application: "application-1".into(),
            version: 1,
            digest,
            basis: Basis::JpEthics,
            outcome: Outcome::Refused,
            reasons: "no benefit".into(),
            date: now().date_naive(),
            recused,
        }
    }

    fn access(&self, item: Item, by: &SecretKey) -> Vec<u8> {
        let access = Access { item, issued: now(), expires: now() + TimeDelta::minutes(10) };
        Envelope::sign(&access, &[by]).unwrap().to_json()
    }

    async fn states(&self, by: &SecretKey) -> Result<Vec<ApplicationState>, Code> {
        let read = self.documents.read_application(&self.access(Item::Applications, by), now()).await;
        let reports: Vec<ApplicationReport> = serde_json::from_slice(&read.map_err(|r| r.code)?).unwrap();
        Ok(reports.into_iter().map(|r| r.state).collect())
    }
}

use sekisho_protocol::access::{Access, Item};

#[tokio::test]
async fn an_application_is_changed_completed_approved_by_two_of_three_and_permitted() {
    let w = World::new().await;
    let state = async || w.states(&w.committee[2]).await.unwrap();
    let first = w.submitted().await;
    assert_eq!(state().await, [ApplicationState::Submitted]);
    w.put(&w.review(1, first, Verdict::ChangesRequested)).await.unwrap();
    assert_eq!(state().await, [ApplicationState::ChangesRequested]);

    let second = Application { expected_benefit: "clearer".into(), ..w.application(2, Some(first)) };
    let second = w.put(&Envelope::sign(&second, &[&w.ada]).unwrap()).await.unwrap().digest;
    assert_eq!(state().await, [ApplicationState::Submitted], "a new version is reviewed anew");
    assert_eq!(
        w.code(&w.review(0, first, Verdict::Complete)).await,
        Err(Code::ApplicationUnknown),
        "of the old version"
    );
    assert_eq!(w.code(&w.review(0, second, Verdict::Approve)).await, Err(Code::NotReviewed));
    w.put(&w.review(0, second, Verdict::Complete)).await.unwrap();
    assert_eq!(state().await, [ApplicationState::Complete]);
    let permit = w.permit(second, |_| {});
    for member in [0, 1] {
        w.put(&w.review(member, second, Verdict::Approve)).await.unwrap();
    }
    let of_first = w.permit(first, |_| {});
    assert_eq!(w.code(&w.signed(&of_first, &[0, 1])).await, Err(Code::ApplicationUnknown), "the version before");
    let digest = w.put(&w.signed(&permit, &[0, 1])).await.unwrap().digest;
    assert_eq!(state().await, [ApplicationState::Permitted]);

    // A later version of the application takes nothing from the permit, which is handed in again at will.
    let third = w.application(3, Some(second));
    w.put(&Envelope::sign(&third, &[&w.ada]).unwrap()).await.unwrap();
    assert_eq!(w.put(&w.signed(&permit, &[1, 2])).await.unwrap().digest, digest);

    // And all of it is there after a restart.
    w.documents.store.close().await;
    let store = Store::open(&w.dir.path().join("coordinator.db")).await.unwrap();
    let again = Documents::open(store, trust(&w.governance, &w.committee, true)).await.unwrap();
    assert!(again.current().permit(digest).is_ok());
    assert_eq!(again.versions("application-1").await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_signed_by_the_quorum_and_no_permit_follows_it() {
    let w = World::new().await;
    let digest = w.submitted().await;
    let refusal = w.refusal(digest, Vec::new());
    assert_eq!(w.code(&w.signed(&refusal, &[0, 1])).await, Err(Code::NotReviewed), "before completeness");
    w.put(&w.review(0, digest, Verdict::Complete)).await.unwrap();
    w.put(&w.review(0, digest, Verdict::Refuse)).await.unwrap();
    assert_eq!(w.code(&w.signed(&refusal, &[0])).await, Err(Code::QuorumNotMet));
    w.put(&w.signed(&refusal, &[0, 1])).await.unwrap();
    w.put(&w.signed(&refusal, &[1, 2])).await.unwrap();
    let other = RefusedApplication { reasons: "other reasons".into(), ..refusal };
    assert_eq!(w.code(&w.signed(&other, &[0, 1])).await, Err(Code::OlderDocument), "decided once");
    assert_eq!(w.states(&w.ada).await, Ok(vec![ApplicationState::Refused]));
    let permit = w.permit(digest, |_| {});
    assert_eq!(w.code(&w.signed(&permit, &[0, 1])).await, Err(Code::NotReviewed));
}

#[tokio::test]
async fn an_application_is_by_its_people_follows_its_version_and_has_no_prohibited_purpose() {
    let w = World::new().await;
    let first = w.submitted().await;
    let bob = key();
    let with_bob = |version, supersedes| {
        let mut application = w.application(version, supersedes);
        let mut person = application.people[0].clone();
        (person.id, person.key, person.key_fingerprint) = ("bob".into(), bob.public(), bob.public().fingerprint());
        application.people.push(person);
        application
    };
    let changed = |version, supersedes, change: fn(&mut Application)| {
        let mut application = w.application(version, supersedes);
        change(&mut application);
        application
    };
    let other = Some(Digest::of(b"another"));
    let prohibited = |a: &mut Application| a.purposes.push("insurance".parse().unwrap());
    let elsewhere = |a: &mut Application| a.schema = Some(Digest::of(b"?"));
    let renamed = |a: &mut Application| a.use_description = "something else".into();
    for (fact, application, by, code) in [
        ("the same again", w.application(1, None), &w.ada, Ok(())),
        ("another of the same number", changed(1, None, renamed), &w.ada, Err(Code::OlderDocument)),
        ("by a stranger", w.application(2, Some(first)), &bob, Err(Code::QuorumNotMet)),
        ("by somebody new", with_bob(2, Some(first)), &bob, Err(Code::NotAuthorised)),
        ("after another one", w.application(2, other), &w.ada, Err(Code::Supersession)),
        ("with a gap", w.application(3, Some(first)), &w.ada, Err(Code::Supersession)),
        ("prohibited", changed(2, Some(first), prohibited), &w.ada, Err(Code::PurposeProhibited)),
        ("an unknown schema", changed(2, Some(first), elsewhere), &w.ada, Err(Code::SchemaMismatch)),
        ("by somebody of both", with_bob(2, Some(first)), &w.ada, Ok(())),
    ] {
        assert_eq!(w.code(&Envelope::sign(&application, &[by]).unwrap()).await, code, "{fact}");
    }
    let refusal = w.put(&Envelope::sign(&changed(3, other, prohibited), &[&w.ada]).unwrap()).await.unwrap_err();
    assert!(refusal.detail.contains("insurance") && refusal.detail.contains("EHDS Art. 54(b)"), "{}", refusal.detail);
    let voided = status(1, None, vec![w.ada.public().fingerprint()]);
    w.put(&Envelope::sign(&voided, &[&w.governance]).unwrap()).await.unwrap();
    let second = w.documents.versions("application-1").await.unwrap()[0].application.digest();
    let third = Envelope::sign(&w.application(3, Some(second)), &[&w.ada]).unwrap();
    assert_eq!(w.code(&third).await, Err(Code::QuorumNotMet), "by a voided key");
}

#[tokio::test]
async fn a_review_is_by_one_member_in_force_and_lawfulness_comes_after_completeness() {
    let w = World::new().await;
    let digest = w.submitted().await;
    let (stranger, member) = (key(), &w.committee[0]);
    let as_other = Envelope::sign(&w.reviewed(&w.committee[1], digest, Verdict::Comment), &[member]).unwrap();
    let by_two = w.signed(&w.reviewed(member, digest, Verdict::Comment), &[0, 1]);
    let by_stranger = Envelope::sign(&w.reviewed(&stranger, digest, Verdict::Comment), &[&stranger]).unwrap();
    for (fact, review, code) in [
        ("by a stranger", by_stranger, Err(Code::NotAuthorised)),
        ("in another's name", as_other, Err(Code::NotAuthorised)),
        ("by two", by_two, Err(Code::NotAuthorised)),
        ("of nothing", w.review(0, Digest::of(b"?"), Verdict::Comment), Err(Code::ApplicationUnknown)),
        ("a comment", w.review(0, digest, Verdict::Comment), Ok(())),
        ("lawful first", w.review(0, digest, Verdict::Approve), Err(Code::NotReviewed)),
        ("unlawful first", w.review(0, digest, Verdict::Refuse), Err(Code::NotReviewed)),
        ("complete", w.review(0, digest, Verdict::Complete), Ok(())),
        ("lawful", w.review(1, digest, Verdict::Approve), Ok(())),
        ("changes after all", w.review(2, digest, Verdict::ChangesRequested), Ok(())),
        ("lawful no more", w.review(0, digest, Verdict::Approve), Err(Code::NotReviewed)),
        ("complete again", w.review(1, digest, Verdict::Complete), Ok(())),
        ("a conflict", w.review(1, digest, Verdict::Conflict), Ok(())),
        ("after the conflict", w.review(1, digest, Verdict::Approve), Err(Code::ConflictOfInterest)),
        ("not even a comment", w.review(1, digest, Verdict::Comment), Err(Code::ConflictOfInterest)),
        ("another member", w.review(0, digest, Verdict::Approve), Ok(())),
    ] {
        assert_eq!(w.code(&review).await, code, "{fact}");
    }
    let voided = status(1, None, vec![w.committee[2].public().fingerprint()]);
    w.put(&Envelope::sign(&voided, &[&w.governance]).unwrap()).await.unwrap();
    assert_eq!(w.code(&w.review(2, digest, Verdict::Comment)).await, Err(Code::NotAuthorised), "a voided key");
}

#[tokio::test]
async fn what_lacks_a_field_of_the_law_is_found_complete_by_nobody() {
    let w = World::new().await;
    let application = Application { safeguards: String::new(), ethics: None, ..w.application(1, None) };
    let digest = w.put(&Envelope::sign(&application, &[&w.ada]).unwrap()).await.unwrap().digest;
    let refusal = w.put(&w.review(0, digest, Verdict::Complete)).await.unwrap_err();
    assert_eq!(refusal.code, Code::ApplicationIncomplete);
    assert!(refusal.detail.contains("ethics.body"), "{}", refusal.detail);
}

#[tokio::test]
async fn a_permit_answers_an_application_and_is_no_wider() {
    let w = World::new().await;
    let digest = w.complete().await;
    let other = key();
    let person = AuthorisedPerson {
        id: "p2".into(),
        role: "statistician".into(),
        key: other.public(),
        key_fingerprint: other.public().fingerprint(),
    };
    let without = |p: &mut Permit| (p.application, p.application_id) = (None, None);
    let unknown = |p: &mut Permit| p.application_id = Some("application-2".into());
    let another = |p: &mut Permit| p.application = Some(Digest::of(b"?"));
    for (fact, permit, code, names) in [
        ("none", w.permit(digest, without), Code::ApplicationUnknown, "names no application"),
        ("unknown", w.permit(digest, unknown), Code::ApplicationUnknown, "application-2"),
        ("another digest", w.permit(digest, another), Code::ApplicationUnknown, "not the newest"),
        ("purpose", w.permit(digest, |p| p.purposes.push(Purpose::Education)), Code::WiderThanApplication, "purposes"),
        ("person", w.permit(digest, |p| p.authorised_persons.push(person)), Code::WiderThanApplication, "authorised"),
        (
            "hospital",
            w.permit(digest, |p| p.data[0].holder_nodes.push("b".into())),
            Code::WiderThanApplication,
            "data.holder_nodes",
        ),
        (
            "a day more",
            w.permit(digest, |p| p.validity.to += TimeDelta::days(1)),
            Code::WiderThanApplication,
            "validity.to",
        ),
        ("supersedes", w.permit(digest, |p| p.supersedes = Some(digest)), Code::Supersession, "supersedes nothing"),
    ] {
        let refusal = w.put(&w.signed(&permit, &[0, 1])).await.unwrap_err();
        assert_eq!(refusal.code, code, "{fact}: {}", refusal.detail);
        assert!(refusal.detail.contains(names), "{fact}: {}", refusal.detail);
    }
    w.put(&w.signed(&w.permit(digest, |_| {}), &[0, 1])).await.unwrap();
}

#[tokio::test]
async fn a_member_with_a_conflict_is_recused_and_signs_no_decision() {
    let w = World::new().await;
    let digest = w.complete().await;
    w.put(&w.review(1, digest, Verdict::Conflict)).await.unwrap();
    let conflicted = w.committee[1].public().fingerprint();
    let recusing = |recused: Vec<Digest>| w.permit(digest, move |p| p.decision.recused = recused);
    for (fact, permit, signers, code) in [
        ("not named", recusing(Vec::new()), &[0, 2][..], Err(Code::ConflictOfInterest)),
        ("named, and signed", recusing(vec![conflicted]), &[0, 1, 2], Err(Code::ConflictOfInterest)),
        ("counted", recusing(vec![conflicted]), &[0, 1], Err(Code::QuorumNotMet)),
        ("named", recusing(vec![conflicted]), &[0, 2], Ok(())),
    ] {
        assert_eq!(w.code(&w.signed(&permit, signers)).await, code, "{fact}");
    }
    let refusal = w.refusal(digest, vec![conflicted]);
    assert_eq!(w.code(&w.signed(&refusal, &[0, 2])).await, Err(Code::OlderDocument), "it was granted");
}

#[tokio::test]
async fn a_new_key_does_not_end_a_conflict() {
    let mut w = World::new().await;
    let digest = w.complete().await;
    w.put(&w.review(1, digest, Verdict::Conflict)).await.unwrap();
    let new_key = key();
    let mut next = trust(&w.governance, &w.committee, true).committee;
    (next.seq, next.issued, next.reason) = (1, Some(now()), "a lost key".into());
    next.members[1].key = new_key.public();
    w.put(&w.signed(&next, &[0, 2])).await.unwrap();
    w.committee[1] = new_key;
    assert_eq!(w.code(&w.review(1, digest, Verdict::Comment)).await, Err(Code::ConflictOfInterest));
    let recusing = |recused: Vec<Digest>| w.permit(digest, move |p| p.decision.recused = recused);
    assert_eq!(w.code(&w.signed(&recusing(Vec::new()), &[0, 2])).await, Err(Code::ConflictOfInterest), "not named");
    let named = recusing(vec![w.committee[1].public().fingerprint()]);
    assert_eq!(w.code(&w.signed(&named, &[0, 2])).await, Ok(()));
}

#[tokio::test]
async fn a_permit_supersedes_the_version_before_it_and_never_itself_or_a_later_one() {
    let w = World::new().await;
    let digest = w.complete().await;
    let first = w.put(&w.signed(&w.permit(digest, |_| {}), &[0, 1])).await.unwrap().digest;
    let version = |version: u32, supersedes: Option<Digest>| {
        let permit = w.permit(digest, |p| (p.version, p.supersedes) = (version, supersedes));
        w.signed(&permit, &[0, 1])
    };
    // A permit's digest covers what it supersedes, so that a circle needs the digest of what is yet to be written.
    let own = version(2, None).peek::<Permit>().unwrap().1;
    for (fact, permit, code) in [
        ("nothing", version(2, None), Err(Code::Supersession)),
        ("itself", version(2, Some(own)), Err(Code::Supersession)),
        ("over a gap", version(3, Some(first)), Err(Code::Supersession)),
        ("the one before", version(2, Some(first)), Ok(())),
        ("the one before the one before", version(3, Some(first)), Err(Code::Supersession)),
        ("the first, of the second", version(1, Some(own)), Err(Code::OlderDocument)),
    ] {
        assert_eq!(w.code(&permit).await, code, "{fact}");
    }
}

#[tokio::test]
async fn applications_are_read_by_the_committee_and_by_their_own_people_alone() {
    let w = World::new().await;
    let digest = w.submitted().await;
    w.put(&w.review(0, digest, Verdict::Comment)).await.unwrap();
    let stranger = key();
    let (id, nothing) = ("application-1".to_string(), "application-9".to_string());
    let read = async |item: &Item, by: &SecretKey| {
        let read = w.documents.read_application(&w.access(item.clone(), by), now()).await;
        read.map_err(|refusal| refusal.code)
    };
    let (one, reviews) = (Item::Application { id: id.clone() }, Item::Reviews { application: id.clone() });
    for by in [&w.ada, &w.committee[2]] {
        let versions: Vec<Listed> = serde_json::from_slice(&read(&one, by).await.unwrap()).unwrap();
        assert_eq!(versions[0].digest, digest);
        let said: Vec<ReviewReport> = serde_json::from_slice(&read(&reviews, by).await.unwrap()).unwrap();
        assert_eq!(said[0].member.as_deref(), Some("the-ethicist"));
        assert_eq!(w.states(by).await, Ok(vec![ApplicationState::Submitted]));
    }
    let missing = Item::Application { id: nothing };
    for (fact, item, by, code) in [
        ("a stranger", &one, &stranger, Code::NotAuthorised),
        ("a stranger's reviews", &reviews, &stranger, Code::NotAuthorised),
        ("a stranger's list", &Item::Applications, &stranger, Code::NotAuthorised),
        ("what is not there, a stranger", &missing, &stranger, Code::NotAuthorised),
        ("what is not there, a member", &missing, &w.committee[0], Code::ApplicationUnknown),
    ] {
        assert_eq!(read(item, by).await, Err(code), "{fact}");
    }
    let late = w.documents.read_application(&w.access(one.clone(), &w.ada), now() + TimeDelta::minutes(10)).await;
    assert_eq!(late.unwrap_err().code, Code::StaleMessage);
    for kind in [Kind::Application, Kind::Review] {
        let want = ListWant { kind, name: None };
        assert_eq!(w.documents.list(&want).await.unwrap_err().code, Code::NotAuthorised, "{kind:?}");
    }
}

#[tokio::test]
async fn results_are_published_by_a_person_of_the_permit_and_decisions_by_a_member() {
    let w = World::new().await;
    let digest = w.complete().await;
    let permit = w.put(&w.signed(&w.permit(digest, |_| {}), &[0, 1])).await.unwrap().digest;
    let said = |what, digest, by: &SecretKey| {
        let url = "https://example.org/1".into();
        let publication = Publication { what, id: "permit-1".into(), digest, url, at: now() };
        Envelope::sign(&publication, &[by]).unwrap()
    };
    for (fact, envelope, code) in [
        ("of nothing", said(Published::Results, Digest::of(b"?"), &w.ada), Err(Code::PermitUnknown)),
        ("results by a member", said(Published::Results, permit, &w.committee[0]), Err(Code::NotAuthorised)),
        ("a decision by a person", said(Published::Decision, permit, &w.ada), Err(Code::NotAuthorised)),
        ("results", said(Published::Results, permit, &w.ada), Ok(())),
        ("a decision", said(Published::Decision, permit, &w.committee[0]), Ok(())),
    ] {
        assert_eq!(w.code(&envelope).await, code, "{fact}");
    }
    let want = ListWant { kind: Kind::Publication, name: Some("permit-1".into()) };
    assert_eq!(w.documents.list(&want).await.unwrap().len(), 2);
}
