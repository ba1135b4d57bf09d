//! The pages of the committee, in process: who opens what, what is handed in, and what hostile words become. The world
//! is also that of the data user's tests.

use std::sync::Arc;

use crate::{
    config::Trust,
    documents::{
        Documents,
        tests::{key, now, permit, release_of, roster, schema, status},
    },
    pages::fixture::{Answer, Noon, Served, form},
    store::{KeptResult, NewRound, Store},
    use_register,
};
use chrono::TimeDelta;
use sekisho_aggregation::{plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    application::Application,
    clock::Clock,
    committee::{Committee, CommitteeMember as Seat},
    digest::Digest,
    dsse::Envelope,
    keys::SecretKey,
    output_review::{OutputReview, Verdict as OutputVerdict},
    permit::{OutputReview as Rule, Permit, Preset},
    query::{Query, Terms},
    receipt::{Acceptance, DecidedBy, Receipt},
    refusal::Code,
    review::{Review, Step, Verdict},
    schema::Schema,
    units::{AttoDelta, MicroRho},
};

/// What strangers write, who would rather write markup.
pub(in crate::pages) const HOSTILE: &str =
    "</textarea></script><script>alert(1)</script><img src=x onerror=alert(1)> \"q\" & 'a' {{ 7*7 }} $(id)\u{202e}";
pub(in crate::pages) const SQL: &str = "SELECT sex, count(*) AS n FROM person GROUP BY sex";
const NAMES: [&str; 3] = ["sato", "suzuki", "takahashi"];

/// A coordinator with a committee of three of which two decide, two hospitals, and permits of Ada and of Bob.
pub(in crate::pages) struct World {
    dir: tempfile::TempDir,
    served: Served,
    pub(in crate::pages) documents: Arc<Documents>,
    pub(in crate::pages) store: Store,
    pub(in crate::pages) governance: SecretKey,
    pub(in crate::pages) committee: [SecretKey; 3],
    pub(in crate::pages) ada: SecretKey,
    pub(in crate::pages) bob: SecretKey,
    pub(in crate::pages) schema: Digest,
}

impl World {
    pub(in crate::pages) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let (governance, committee, ada, bob) = (key(), [key(), key(), key()], key(), key());
        let seat =
            |(name, key): (&str, &SecretKey)| Seat { name: name.into(), role: "ethics".into(), key: key.public() };
        let trust = Trust {
            governance: governance.public(),
            committee: Committee::pinned(2, Vec::new(), false, NAMES.into_iter().zip(&committee).map(seat).collect())
                .unwrap(),
            regulators: Vec::new(),
            application_required: false,
        };
        let documents = Arc::new(Documents::open(store.clone(), trust).await.unwrap());
        let put = async |envelope: Envelope| documents.put(&envelope.to_json(), now()).await.unwrap().digest;
        put(Envelope::sign(&roster(1, None), &[&governance]).unwrap()).await;
        put(Envelope::sign(&status(1, None, Vec::new()), &[&governance]).unwrap()).await;
        let schema = put(Envelope::sign(&schema(), &[&governance]).unwrap()).await;
        let served = Served::new(dir.path(), store.clone(), documents.clone()).await;
        Self { dir, served, documents, store, governance, committee, ada, bob, schema }
    }

    pub(in crate::pages) async fn ask(&self, method: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.served.ask(method, path, cookie, form).await
    }

    pub(in crate::pages) async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.served.get(path, cookie).await
    }

    pub(in crate::pages) async fn enter(&self, role: &str, subject: &str) -> String {
        self.served.enter(role, Some(subject)).await
    }

    pub(in crate::pages) async fn member(&self, place: usize) -> String {
        self.enter("committee", NAMES[place]).await
    }

    pub(in crate::pages) async fn person(&self, key: &SecretKey) -> String {
        self.enter("user", &key.public().fingerprint().to_string()).await
    }

    pub(in crate::pages) fn application(&self, version: u32, supersedes: Option<Digest>) -> Application {
        let granted = permit(&self.ada, 1, self.schema);
        let ada = self.ada.public();
        serde_json::from_value(serde_json::json!({
            "id": "application-1", "version": version, "supersedes": supersedes, "basis": "JP-ethics",
            "applicant": {"name": HOSTILE, "functions": "research", "sector": "academic", "country": "JP"},
            "principal_investigator": granted.principal_investigator,
            "people": [{"id": "p1", "role": "statistician", "key": ada, "key_fingerprint": ada.fingerprint(),
                "training": "2026"}],
            "purposes": ["public_health"], "use_description": "to plan", "expected_benefit": "fewer transfers",
            "study_id": granted.study_id, "schema": self.schema,
            "data": [{"table": "person", "columns": ["sex"], "holder_nodes": ["a"]}],
            "safeguards": "two keys", "period": {"from": granted.validity.from, "to": granted.validity.to},
            "ethics": {"body": "committee", "id": "1", "date": "2026-01-01"},
            "statistics": granted.allowed_statistics, "release_kinds": ["noised"], "disclosure": "none",
            "dp": granted.dp,
            "queries": [{"sql": SQL, "sha256": Digest::of(SQL.as_bytes())},
                {"sql": "SELECT sex FROM person", "sha256": Digest::of(b"SELECT sex FROM person")}],
        }))
        .unwrap()
    }

    pub(in crate::pages) async fn put(&self, envelope: &Envelope) -> Digest {
        self.documents.put(&envelope.to_json(), Noon.now()).await.unwrap().digest
    }

    async fn submitted(&self) -> Digest {
        self.put(&Envelope::sign(&self.application(1, None), &[&self.ada]).unwrap()).await
    }

    fn review(&self, member: usize, digest: Digest, verdict: Verdict, reasons: &str) -> Envelope {
        let by = &self.committee[member];
        let review = Review {
            application: "application-1".into(),
            digest,
            member: by.public().fingerprint(),
            step: Step::Completeness,
            verdict,
            reasons: reasons.into(),
            decision: None,
            at: now(),
        };
        Envelope::sign(&review, &[by]).unwrap()
    }

    /// A permit of Ada for study-1 at the hospitals `a` and `b`, signed by two.
    pub(in crate::pages) async fn permit(&self, change: impl FnOnce(&mut Permit)) -> (Permit, Digest) {
        let mut granted = permit(&self.ada, 1, self.schema);
        granted.data[0].holder_nodes = vec!["a".into(), "b".into()];
        change(&mut granted);
        let envelope = Envelope::sign(&granted, &[&self.committee[0], &self.committee[1]]).unwrap();
        let digest = self.put(&envelope).await;
        for (node, earmark) in [("a", 5000), ("b", 1000)] {
            let hospital = key();
            let answer = Acceptance {
                node: node.into(),
                permit: digest,
                refused: None,
                earmark: MicroRho::try_from(earmark).unwrap(),
                at: now(),
                reason: None,
                decided_by: DecidedBy::Policy,
            };
            let envelope = Envelope::sign(&answer, &[&hospital]).unwrap().to_json();
            self.store.put_acceptance(node, digest, &envelope, now()).await.unwrap();
        }
        (granted, digest)
    }

    /// A round that has ended, in which these hospitals released such patients in each cell; `b` did not answer where
    /// it is not named. Returns the result's digest.
    pub(in crate::pages) async fn round(
        &self,
        name: &str,
        (granted, digest): &(Permit, Digest),
        person: &SecretKey,
        sql: &str,
        released: &[(&str, [i128; 4])],
    ) -> Digest {
        let exact = !granted.release_of(sql).is_noised();
        let query = Query {
            permit: *digest,
            sql: sql.into(),
            holders: vec!["a".into(), "b".into()],
            micro_rho: MicroRho::try_from(if exact { 0 } else { 1000 }).unwrap(),
            run: 1,
            expires: now() + TimeDelta::hours(20),
            nonce: "0".repeat(32),
            terms: Terms::default(),
        };
        let question = Envelope::sign(&query, &[person]).unwrap();
        let query_digest = question.digest::<Query>().unwrap();
        let begun = NewRound {
            round: name.into(),
            query: query_digest,
            question: question.to_json(),
            query_key: query.key(),
            permit: *digest,
            run: 1,
            started: now(),
        };
        self.store.begin_round(&begun).await.unwrap();
        let schema: Schema = schema();
        let plan = PrivatePlan::analyse(sql, &schema, granted, query.micro_rho).unwrap();
        for (node, patients) in released {
            let release = release(&plan, &query, patients);
            let receipt = Receipt {
                node: (*node).into(),
                permit: *digest,
                study_id: granted.study_id.clone(),
                query: query_digest,
                query_key: query.key(),
                run: 1,
                plan: plan.digest(),
                micro_rho: query.micro_rho,
                atto_delta: AttoDelta::ZERO,
                synthetic: true,
                snapshot_commitment: Digest::of(b"snapshot"),
                register_commitment: Digest::of(b"register"),
                as_of: now().date_naive(),
                release: release.digest(),
                software: "fake".into(),
                at: now(),
                release_kind: granted.release_of(sql),
                exact_since: exact.then(|| now().date_naive()),
            };
            let receipt = Envelope::sign(&receipt, &[&key()]).unwrap().to_json();
            self.store.put_release(name, node, &release.to_bytes(), &receipt, b"proof").await.unwrap();
        }
        let holder = |node: &str| match released.iter().any(|(name, _)| *name == node) {
            true if exact => serde_json::json!({"name": node, "state": "answered", "exact_since": now().date_naive()}),
            true => serde_json::json!({"name": node, "state": "answered"}),
            false if exact => serde_json::json!({"name": node, "state": "refused", "code": "exact_waiting"}),
            false => serde_json::json!({"name": node, "state": "refused", "code": "policy", "detail": HOSTILE}),
        };
        let privacy = if exact {
            serde_json::json!({"micro_rho": 0, "exact": granted.disclosure.rules(), "noise": []})
        } else {
            serde_json::json!({"micro_rho": 1000, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
                "epsilon_all_sites": 0.1, "noise": []})
        };
        let report = serde_json::json!({
            "round": name, "permit": digest, "query": query_digest, "run": 1, "at": now(),
            "complete": released.len() == 2, "confidence": 0.95, "preset": granted.disclosure, "synthetic": true,
            "method": "weighted means", "privacy": privacy,
            "holders": [holder("a"), holder("b")],
        });
        self.store.end_round(name, Some(&report.to_string()), None, now()).await.unwrap();
        let round = self.store.kept_round(name).await.unwrap().unwrap();
        let result = use_register::result_of(&round, &self.store.releases(name).await.unwrap()).unwrap().unwrap();
        if granted.output_review == Rule::TwoPerson {
            let held = KeptResult {
                result,
                permit: *digest,
                query_key: query.key(),
                run: 1,
                round: name.into(),
                held_at: now(),
            };
            self.store.hold(&held).await.unwrap();
        }
        result
    }

    pub(in crate::pages) async fn output_review(
        &self,
        member: usize,
        result: Digest,
        verdict: OutputVerdict,
    ) -> Envelope {
        let held = self.store.held(result).await.unwrap().unwrap();
        let by = &self.committee[member];
        let review = OutputReview {
            permit: held.permit,
            query_key: held.query_key,
            run: held.run,
            result,
            reviewer: by.public().fingerprint(),
            verdict,
            reasons: "large cells".into(),
            at: now(),
        };
        Envelope::sign(&review, &[by]).unwrap()
    }

    /// Hands a document in by the page of the owner of `cookie`.
    async fn hand_in(&self, cookie: &str, envelope: &[u8]) -> Answer {
        let csrf = self.get("/committee/documents", cookie).await.csrf();
        let document = String::from_utf8(envelope.to_vec()).unwrap();
        self.ask("POST", "/committee/documents", cookie, &form(&[("csrf", &csrf), ("document", &document)])).await
    }
}

/// A release with so many patients in each cell.
fn release(plan: &PrivatePlan, query: &Query, patients: &[i128]) -> Release {
    let part = &plan.parts()[0];
    let cells = (0..part.measures().len()).flat_map(|_| &patients[..part.cells()]).copied();
    release_of(plan, query, "00".repeat(32), cells)
}

/// That nothing a stranger wrote became markup.
pub(in crate::pages) fn harmless(page: &str) {
    for bad in ["<script>alert", "<img src=x", "</textarea></script>"] {
        assert!(!page.contains(bad), "{bad}: {page}");
    }
}

#[tokio::test]
async fn each_page_opens_to_members_alone_and_not_to_one_who_left() {
    let w = World::new().await;
    w.submitted().await;
    let (member, left) = (w.member(0).await, w.enter("committee", "yamada").await);
    let others = [w.person(&w.ada).await, w.enter("regulator", "-").await];
    for (path, for_member) in [
        ("/committee", 200),
        ("/committee/applications/application-1", 200),
        ("/committee/applications/application-2", 404),
        ("/committee/applications/%3Cscript%3E", 404),
        ("/committee/results", 200),
        ("/committee/results/no-digest", 404),
        (&format!("/committee/results/{}", Digest::of(b"?")), 404),
        ("/committee/documents", 200),
    ] {
        assert_eq!(w.get(path, "").await.status, 303, "{path}");
        assert_eq!(w.get(path, &member).await.status, for_member, "{path}");
        assert_eq!(w.get(path, &left).await.status, 403, "{path}");
        for other in &others {
            assert_eq!(w.get(path, other).await.status, 403, "{path}");
        }
    }
    let void = status(
        2,
        w.documents.current().pinned_status().map(|s| s.digest()),
        vec![w.committee[0].public().fingerprint()],
    );
    w.put(&Envelope::sign(&void, &[&w.governance]).unwrap()).await;
    assert_eq!(w.get("/committee", &member).await.status, 403, "whose key is void");
}

#[tokio::test]
async fn a_member_reads_an_application_with_its_accuracy_and_its_changes() {
    let w = World::new().await;
    let first = w.submitted().await;
    let mut second = w.application(2, Some(first));
    second.expected_benefit = "shorter stays".into();
    second.data[0].columns.clear();
    second.data[0].columns.push("person_id".into());
    w.put(&Envelope::sign(&second, &[&w.ada]).unwrap()).await;
    let member = w.member(0).await;
    let list = w.get("/committee", &member).await.text();
    harmless(&list);
    assert!(list.contains("href=\"/committee/applications/application-1\"") && list.contains("submitted"), "{list}");
    let page = w.get("/committee/applications/application-1", &member).await.text();
    harmless(&page);
    for part in [
        "&#60;script&#62;alert(1)",
        "fewer transfers",
        "shorter stays",
        "expected_benefit",
        "SELECT sex, count(*) AS n FROM person GROUP BY sex",
        "1000 micro-rho",
        "row_level: ",
        "sekisho review complete application-1 --key YOUR-KEY.pem",
        "sekisho review request-changes application-1 --reasons &#39;WHAT IS TO BE CHANGED&#39;",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("sekisho permit new"), "what is not complete is not to be granted yet");
    let japanese = w.get("/committee/applications/application-1?lang=ja", &member).await.text();
    assert!(japanese.contains("lang=\"ja\"") && japanese.contains("期待される公益"), "{japanese}");
}

#[tokio::test]
async fn a_signed_review_that_is_handed_in_appears_and_nothing_else_does() {
    let w = World::new().await;
    let digest = w.submitted().await;
    let [sato, suzuki] = [w.member(0).await, w.member(1).await];
    let review = w.review(1, digest, Verdict::Complete, HOSTILE).to_json();
    let text = String::from_utf8(review.clone()).unwrap();
    let foreign = w.get("/committee/documents", &sato).await.csrf();
    for (fact, csrf) in [("none", None), ("an empty one", Some("")), ("of another session", Some(foreign.as_str()))] {
        let fields: Vec<_> = csrf.map(|csrf| ("csrf", csrf)).into_iter().chain([("document", text.as_str())]).collect();
        let refused = w.ask("POST", "/committee/documents", &suzuki, &form(&fields)).await;
        assert_eq!(refused.status, 403, "{fact}");
    }
    let unsigned = Envelope::sign(&w.application(1, None), &[]).unwrap().to_json();
    let tampered = text.replace("application/vnd.sekisho.review.v1+json", "application/vnd.sekisho.permit.v1+json");
    let mut forged: serde_json::Value = serde_json::from_str(&text).unwrap();
    forged["signatures"][0]["sig"] =
        serde_json::to_value(w.review(0, digest, Verdict::Complete, "x")).unwrap()["signatures"][0]["sig"].clone();
    let stranger = {
        let key = key();
        let review = Review {
            application: "application-1".into(),
            digest,
            member: key.public().fingerprint(),
            step: Step::Completeness,
            verdict: Verdict::Complete,
            reasons: String::new(),
            decision: None,
            at: now(),
        };
        Envelope::sign(&review, &[&key]).unwrap().to_json()
    };
    for (fact, bytes, code) in [
        ("no document", HOSTILE.as_bytes().to_vec(), Code::Malformed),
        ("of another kind than it says", tampered.into_bytes(), Code::BadSignature),
        ("a forged signature", forged.to_string().into_bytes(), Code::BadSignature),
        ("a stranger's", stranger, Code::NotAuthorised),
        ("what a committee does not sign", unsigned, Code::Malformed),
    ] {
        let refused = w.hand_in(&suzuki, &bytes).await;
        let page = refused.text();
        harmless(&page);
        assert_eq!(refused.status, 422, "{fact}");
        assert!(page.contains(&format!("<code>{code}</code>")), "{fact}: {page}");
        let todo = if code == Code::Malformed { "Paste the whole file" } else { code.advice() };
        assert!(page.contains(todo), "{fact}: {page}");
    }
    assert!(w.documents.reviews_of("application-1").await.unwrap().is_empty());

    let taken = w.hand_in(&suzuki, &review).await;
    assert_eq!(taken.status, 200);
    assert!(taken.text().contains("The document was taken.") && taken.text().contains("<code>review</code>"));
    let page = w.get("/committee/applications/application-1", &sato).await.text();
    harmless(&page);
    assert!(page.contains("suzuki") && page.contains("complete, to be decided"), "{page}");
    for line in [
        "sekisho permit new --from permit.toml --application application-1 --key YOUR-KEY.pem --out permit.dsse.json",
        "sekisho review approve application-1 --permit permit.dsse.json --reasons &#39;WHY THE USE IS LAWFUL&#39;",
        "sekisho permit submit permit.dsse.json",
        "sekisho review refuse application-1 --decision refusal.dsse.json",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    let list = w.get("/committee", &sato).await.text();
    assert!(list.contains("complete, to be decided"), "{list}");
}

#[tokio::test]
async fn a_conflict_of_interest_is_marked_and_nothing_of_the_application_opens() {
    let w = World::new().await;
    let mut own = w.application(1, None);
    let suzuki = w.committee[1].public();
    own.people[0].key = suzuki;
    own.people[0].key_fingerprint = suzuki.fingerprint();
    let digest = w.put(&Envelope::sign(&own, &[&w.committee[1]]).unwrap()).await;
    w.put(&w.review(0, digest, Verdict::Conflict, "my own unit")).await;
    for (place, opens, says) in
        [(0, 403, Some("conflict of interest declared")), (1, 403, Some("named in the application")), (2, 200, None)]
    {
        let member = w.member(place).await;
        let list = w.get("/committee", &member).await.text();
        assert_eq!(list.contains("href=\"/committee/applications/application-1\""), opens == 200, "{place}");
        assert_eq!(list.contains("alert(1)"), opens == 200, "the applicant's name, {place}");
        assert!(says.is_none_or(|says| list.contains(says)), "{place}: {list}");
        assert_eq!(w.get("/committee/applications/application-1", &member).await.status, opens, "{place}");
    }
}

#[tokio::test]
async fn a_held_result_is_shown_to_reviewers_and_released_by_what_they_hand_in() {
    let w = World::new().await;
    let granted = w
        .permit(|permit| {
            permit.output_review = Rule::TwoPerson;
            permit.disclosure = Preset::JpNdb;
            permit.decision.recused = vec![w.committee[2].public().fingerprint()];
        })
        .await;
    let cells = [120, 4, 300, 40];
    let result = w.round("r1", &granted, &w.ada, SQL, &[("a", cells), ("b", cells)]).await;
    let path = format!("/committee/results/{result}");
    let recused = w.member(2).await;
    assert_eq!(w.get(&path, &recused).await.status, 404);
    assert!(!w.get("/committee/results", &recused).await.text().contains(&result.short()));
    let [sato, suzuki] = [w.member(0).await, w.member(1).await];
    assert!(w.get("/committee/results", &sato).await.text().contains(&path));
    let page = w.get(&path, &sato).await.text();
    harmless(&page);
    let release =
        format!("sekisho output release {result} --reasons &#39;WHY IT DISCLOSES NOBODY&#39; --key YOUR-KEY.pem");
    for part in ["waits for reviewers", "240 [", "suppressed", "<svg", release.as_str(), "institute"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for (cookie, member) in [(&sato, 0), (&suzuki, 1)] {
        let review = w.output_review(member, result, OutputVerdict::Release).await.to_json();
        assert_eq!(w.hand_in(cookie, &review).await.status, 200);
    }
    let page = w.get(&path, &sato).await.text();
    assert!(page.contains("chip-ok") && page.contains("large cells") && !page.contains("output release"), "{page}");
    drop(w.dir);
}
