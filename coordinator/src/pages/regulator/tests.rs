//! Each page by each role; what a search finds; what an export holds; and texts of strangers that try to break out.

use std::sync::Arc;

use super::*;
use crate::{
    config::Trust,
    documents::{
        Documents,
        tests::{key, now, permit, roster, schema, status},
    },
    metering::tests::header as release_header,
    pages::fixture::{Answer, Served},
    store::{NewRound, Request as Asking, Store},
    use_register::tests::HOSTILE,
};
use axum::http::header;
use chrono::TimeDelta;
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    digest::Digest,
    dsse::Envelope,
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        entry::Entry,
        merkle::TreeHead,
        note::{KeyName, NoteKey, Signs},
        policy::Policy,
        proof::InclusionProof,
    },
    orders,
    permit::Permit,
    query::{Query as Question, Terms},
    receipt::{Acceptance, DecidedBy, Receipt},
    refusal::Code,
    roster::{Member, Role as MemberRole},
    status::RevokedPermit,
    units::{AttoDelta, MicroRho},
};

fn at(hour: i64) -> DateTime<Utc> {
    now() + TimeDelta::hours(hour)
}

/// A coordinator's database of two studies, its pages, and tokens for them.
struct World {
    _dir: tempfile::TempDir,
    served: Served,
    own: SecretKey,
    ann: SecretKey,
}

const SQL: &str = "SELECT sex, count(*) FROM person GROUP BY sex";

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let (governance, member, regulator, own) = (key(), key(), key(), key());
        let (ann, bob, tokyo, nara) = (key(), key(), key(), key());
        let sato = CommitteeMember { name: "sato".into(), role: "ethicist".into(), key: member.public() };
        let ministry = orders::Regulator { name: "ministry".into(), key: regulator.public() };
        let trust = Trust {
            governance: governance.public(),
            committee: Committee::pinned(1, Vec::new(), false, vec![sato]).unwrap(),
            regulators: vec![ministry],
            application_required: false,
        };
        let documents = Arc::new(Documents::open(store.clone(), trust).await.unwrap());
        let put = async |envelope: Envelope| documents.put(&envelope.to_json(), now()).await.unwrap().digest;
        let mut members = roster(1, None);
        let named = |name: &str, key: &SecretKey| Member {
            name: name.into(),
            role: MemberRole::Node,
            peer_id: name.into(),
            signing_key: key.public(),
        };
        members.members = vec![named("tokyo", &tokyo), named("nara", &nara)];
        put(Envelope::sign(&members, &[&governance]).unwrap()).await;
        let schema = put(Envelope::sign(&schema(), &[&governance]).unwrap()).await;
        let mut granted = permit(&ann, 1, schema);
        granted.data_user = "Kyoto University".into();
        granted.authorised_persons[0].id = "ann".into();
        granted.data[0].holder_nodes = vec!["tokyo".into(), "nara".into()];
        let first = put(Envelope::sign(&granted, &[&member]).unwrap()).await;
        let mut other = permit(&bob, 1, schema);
        (other.id, other.study_id) = ("permit-2".into(), "study-2".into());
        (other.data_user, other.decision.reasons) = (HOSTILE.into(), "x".repeat(10_000));
        other.authorised_persons[0].id = "<b>bob</b>".into();
        other.principal_investigator = HOSTILE.into();
        other.data[0].holder_nodes = vec!["tokyo".into()];
        let second = put(Envelope::sign(&other, &[&member]).unwrap()).await;
        let mut stops = status(1, None, Vec::new());
        stops.revoked_permits.push(RevokedPermit { permit: second, reason: HOSTILE.into(), at: at(9) });
        put(Envelope::sign(&stops, &[&governance]).unwrap()).await;
        let list = orders::Orders {
            regulator: "ministry".into(),
            seq: 1,
            prev: None,
            issued: at(0),
            entries: vec![orders::Entry {
                target: orders::Target::DataUser("Kyoto University".into()),
                reason: "an inspection".into(),
                expires: at(100),
            }],
        };
        put(Envelope::sign(&list, &[&regulator]).unwrap()).await;

        let made = Made { store: store.clone(), tokyo, nara };
        made.said("tokyo", first, None, 1).await;
        made.said("nara", first, Some(Code::Policy), 1).await;
        made.round("r1", &granted, first, &ann, SQL, 2, &[("tokyo", None), ("nara", Some(Code::Policy))]).await;
        made.round("r2", &granted, first, &ann, SQL, 3, &[("tokyo", None), ("nara", None)]).await;
        made.round("r3", &other, second, &bob, HOSTILE, 30, &[("tokyo", Some(Code::LedgerForked))]).await;
        let ann_is = ann.public().fingerprint();
        store.note_refused(Asking::Query, Code::BudgetQuery, "study-1", ann_is, at(5)).await.unwrap();
        // Two checkpoints of one size: the second is evidence.
        for history in [b"one", b"two"] {
            let origin: KeyName = "sekisho-test/nara".parse().unwrap();
            let checkpoint = Checkpoint::new(origin, TreeHead::new(9, Digest::of(history)).unwrap());
            let checkpoint = SignedCheckpoint::sign(checkpoint, &made.nara).unwrap();
            store.enter_checkpoint(&checkpoint).await.unwrap();
        }
        let served = Served::new(dir.path(), store, documents).await;
        Self { _dir: dir, served, own, ann }
    }

    async fn ask(&self, method: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.served.ask(method, path, cookie, form).await
    }

    async fn enter(&self, role: &str, subject: Option<String>) -> String {
        self.served.enter(role, subject.as_deref()).await
    }

    async fn regulator(&self) -> String {
        self.enter("regulator", None).await
    }
}

/// Puts rounds and answers into a database, as they would have come from hospitals.
struct Made {
    store: Store,
    tokyo: SecretKey,
    nara: SecretKey,
}

impl Made {
    fn key(&self, node: &str) -> &SecretKey {
        if node == "tokyo" { &self.tokyo } else { &self.nara }
    }

    async fn said(&self, node: &str, permit: Digest, refused: Option<Code>, hour: i64) {
        let earmark = if refused.is_some() { MicroRho::ZERO } else { MicroRho::try_from(5000).unwrap() };
        let (node, at, reason) = (node.to_string(), at(hour), refused.map(|_| HOSTILE.replace('\n', " ")));
        let answer = Acceptance { node, permit, refused, earmark, at, reason, decided_by: DecidedBy::Hand };
        let envelope = Envelope::sign(&answer, &[self.key(&answer.node)]).unwrap().to_json();
        self.store.put_acceptance(&answer.node, permit, &envelope, at).await.unwrap();
    }

    #[expect(clippy::too_many_arguments, reason = "a row of a test")]
    async fn round(
        &self,
        name: &str,
        permit: &Permit,
        digest: Digest,
        person: &SecretKey,
        sql: &str,
        hour: i64,
        holders: &[(&str, Option<Code>)],
    ) {
        let mut asked: Vec<String> = holders.iter().map(|(name, _)| (*name).into()).collect();
        asked.sort();
        let query = Question {
            permit: digest,
            sql: sql.into(),
            holders: asked,
            micro_rho: MicroRho::try_from(1000).unwrap(),
            run: 1,
            expires: at(hour + 1),
            nonce: format!("{hour:032}"),
            terms: Terms::default(),
        };
        let question = Envelope::sign(&query, &[person]).unwrap();
        let round = NewRound {
            round: name.into(),
            query: question.digest::<Question>().unwrap(),
            question: question.to_json(),
            query_key: query.key(),
            permit: digest,
            run: 1,
            started: at(hour),
        };
        self.store.begin_round(&round).await.unwrap();
        for (node, _) in holders.iter().filter(|(_, code)| code.is_none()) {
            let receipt = Receipt {
                node: (*node).into(),
                permit: digest,
                study_id: permit.study_id.clone(),
                query: Digest::of(b"the first message"),
                query_key: query.key(),
                run: 1,
                plan: digest,
                micro_rho: query.micro_rho,
                atto_delta: AttoDelta::ZERO,
                synthetic: true,
                snapshot_commitment: digest,
                register_commitment: digest,
                as_of: now().date_naive(),
                release: Digest::of(node.as_bytes()),
                software: "sekisho-node 0.1.0".into(),
                at: at(2),
                release_kind: sekisho_protocol::permit::ReleaseKind::Noised,
                exact_since: None,
            };
            let receipt = Envelope::sign(&receipt, &[self.key(node)]).unwrap().to_json();
            let release = (release_header(digest, &[&[("rows", 2)]]), vec![1]);
            self.store.put_release(name, node, &release, &receipt, b"proof").await.unwrap();
        }
        let state = |(name, code): &(&str, Option<Code>)| match code {
            None => serde_json::json!({"name": name, "state": "answered"}),
            Some(Code::LedgerForked) => {
                serde_json::json!({"name": name, "state": "no_answer", "code": "ledger_forked", "detail": HOSTILE})
            }
            Some(code) => serde_json::json!({"name": name, "state": "refused", "code": code, "detail": HOSTILE}),
        };
        let report = serde_json::json!({
            "round": name, "permit": digest, "query": digest, "run": 1, "at": at(hour), "complete": false,
            "confidence": 0.95, "preset": "jp-ndb", "synthetic": true, "method": "",
            "privacy": {"micro_rho": 1000, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
                "epsilon_all_sites": 0.1, "noise": []},
            "holders": holders.iter().map(state).collect::<Vec<_>>(),
        });
        self.store.end_round(name, Some(&report.to_string()), None, at(hour)).await.unwrap();
    }
}

const PATHS: [&str; 12] = [
    "/regulator",
    "/regulator?list=uses",
    "/regulator?from=yesterday",
    "/regulator/refusals",
    "/regulator/export?list=queries",
    "/regulator/export?format=json&list=incidents",
    "/regulator/studies/study-1",
    "/regulator/studies/study-2",
    "/regulator/log",
    "/regulator/log/0",
    "/regulator/log/0/statement",
    "/regulator/log?kind=query",
];

#[tokio::test]
async fn every_page_is_a_regulators_alone() {
    let w = World::new().await;
    let (regulator, member) = (w.regulator().await, w.enter("committee", Some("sato".into())).await);
    let user = w.enter("user", Some(w.ann.public().fingerprint().to_string())).await;
    for path in PATHS {
        for (who, cookie, expect) in
            [("nobody", "", 303), ("committee", &member, 403), ("user", &user, 403), ("regulator", &regulator, 200)]
        {
            assert_eq!(w.ask("GET", path, cookie, "").await.status, expect, "{path} by {who}");
        }
        assert_eq!(w.ask("POST", path, &regulator, "").await.status, 405, "{path} takes no form");
    }
    for path in [
        "/regulator/studies/study-9",
        "/regulator/log/99",
        "/regulator/log/-1",
        "/regulator/log/18446744073709551615",
        "/regulator/log/0/proof",
        "/regulator/documents/x",
    ] {
        assert_eq!(w.ask("GET", path, &regulator, "").await.status, 404, "{path}");
    }
    for path in ["/regulator/export?format=pdf", "/regulator/export?from=x", "/regulator/log?kind=secret"] {
        assert_eq!(w.ask("GET", path, &regulator, "").await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn a_search_finds_what_its_conditions_say() {
    let w = World::new().await;
    let cookie = w.regulator().await;
    let ann = w.ann.public().fingerprint().short();
    let of_ann = format!("person={ann}");
    for (query, field, expect) in [
        ("", "round", vec!["r3", "r2", "r1"]),
        ("study=study-1", "round", vec!["r2", "r1"]),
        ("study=STUDY", "round", vec!["r3", "r2", "r1"]),
        ("organisation=kyoto", "round", vec!["r2", "r1"]),
        ("holder=nara", "round", vec!["r2", "r1"]),
        ("person=bob", "round", vec!["r3"]),
        (&of_ann, "round", vec!["r2", "r1"]),
        ("purpose=art53-1-e", "round", vec![]),
        ("state=none", "round", vec!["r3"]),
        ("state=automatic&holder=tokyo", "round", vec!["r2", "r1"]),
        ("from=2026-01-02", "round", vec!["r3"]),
        ("to=2026-01-01", "round", vec!["r2", "r1"]),
        ("from=2026-01-03", "round", vec![]),
        ("study=%22%3E%3Cscript%3E", "round", vec![]),
        ("list=uses", "study", vec!["study-1", "study-2"]),
        ("list=uses&state=revoked", "study", vec!["study-2"]),
        ("list=uses&person=ann", "study", vec!["study-1"]),
        ("list=uses&holder=nara", "study", vec!["study-1"]),
        ("list=uses&from=2027-01-01", "study", vec![]),
        ("list=incidents&state=query_refused", "holder", vec!["nara"]),
        ("list=incidents&state=permit_refused", "holder", vec!["nara"]),
        ("list=incidents&state=request_refused", "code", vec!["budget_query"]),
        ("list=incidents&state=permit_revoked", "study", vec!["study-2"]),
        ("list=incidents&state=order", "organisation", vec!["Kyoto University"]),
        ("list=incidents&state=log_contradicts", "holder", vec!["nara", "tokyo"]),
        ("list=incidents&state=log_contradicts&study=study-2&holder=tokyo", "code", vec!["ledger_forked"]),
    ] {
        let answer = w.ask("GET", &format!("/regulator/export?format=json&{query}"), &cookie, "").await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let entries = json["entries"].as_array().unwrap();
        let found: Vec<_> = entries.iter().map(|entry| entry[field].as_str().unwrap_or_default()).collect();
        assert_eq!(found, expect, "{query}");
    }
    let all = w.ask("GET", "/regulator/export?format=json", &cookie, "").await;
    let json: serde_json::Value = serde_json::from_slice(&all.body).unwrap();
    let costs: Vec<_> = json["entries"].as_array().unwrap().iter().map(|entry| entry["micro_rho"].clone()).collect();
    assert_eq!(costs, [0, 1000, 1000], "a run that is served again costs nothing");
}

#[tokio::test]
async fn an_export_is_the_table_of_the_page() {
    let w = World::new().await;
    let cookie = w.regulator().await;
    for (list, page) in [("queries", "/regulator"), ("uses", "/regulator"), ("incidents", "/regulator/refusals")] {
        for (language, lang) in [(Language::En, "en"), (Language::Ja, "ja")] {
            let form = Form { list: list.into(), ..Form::default() };
            let filter = Filter::try_from(&form).unwrap();
            let table = Found::of(&w.served.pages, &filter).await.unwrap().table(language, 0, PAGE);
            let shown = w.ask("GET", &format!("{page}?list={list}&lang={lang}"), &cookie, "").await.text();
            assert!(!table.rows.is_empty() && shown.contains(&table.render().unwrap()), "{list} {lang}");
            let path = format!("/regulator/export?list={list}&format=csv&lang={lang}");
            let file = w.ask("GET", &path, &cookie, "").await;
            assert_eq!(file.text(), format!("\u{feff}{}", table.csv()), "{list} {lang}");
            let name = file.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
            assert_eq!(name, format!("attachment; filename=\"sekisho-{list}-2026-01-01.csv\""));
        }
    }
}

#[tokio::test]
async fn texts_of_strangers_stay_texts() {
    let w = World::new().await;
    let cookie = w.regulator().await;
    for path in PATHS.iter().filter(|path| !path.contains("export") && !path.contains("statement")) {
        for lang in ["en", "ja"] {
            let joint = if path.contains('?') { '&' } else { '?' };
            let hostile = "study=%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
            let path = format!("{path}{joint}lang={lang}");
            for path in [path.clone(), format!("{path}&{hostile}")] {
                let page = w.ask("GET", &path, &cookie, "").await.text();
                for sign in ["<img src=x", "<b>bob", "</script><", "onerror=alert(1)>", "style=\"", "javascript:"] {
                    assert!(!page.contains(sign), "{path}: {sign}");
                }
                assert_eq!(page.matches("<script").count(), 1, "{path}: htmx alone");
            }
        }
    }
    let study = w.ask("GET", "/regulator/studies/study-2", &cookie, "").await.text();
    assert!(study.contains(&"x".repeat(10_000)), "a long text is all there");
    assert!(study.contains('\u{202e}') && study.contains("<bdi>"), "a text that turns round does so by itself");
}

#[tokio::test]
async fn a_study_has_its_chain_and_a_chart_with_a_table_of_the_same_numbers() {
    let w = World::new().await;
    let cookie = w.regulator().await;
    let page = w.ask("GET", "/regulator/studies/study-1", &cookie, "").await.text();
    for part in [
        "sato",
        "ann",
        "Kyoto University",
        "/releases/",
        "/regulator/log?statement=",
        "served again, not charged",
        "Request refused by the coordinator",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 2, "one for each hospital");
    assert!(page.contains("<desc") && page.contains("5,000") && page.contains("4,000"), "set aside, and left");
    let parts =
        use_register::gather(&w.served.pages.documents, &w.served.pages.store, |of| of == "study-1").await.unwrap();
    let budget = w.served.pages.documents.budget("study-1").await.unwrap();
    for (spent, holder) in spending::spending(&parts).unwrap().into_iter().zip(budget.holders) {
        let last = spent.points.last().unwrap();
        let expect = (holder.name.as_str(), holder.earmark.get(), holder.spent.get(), holder.left.get());
        assert_eq!((spent.holder.as_str(), last.set_aside, last.spent, last.left()), expect);
        let table = drawn::draw(Language::En, 0, spent, at(12)).table.render().unwrap();
        assert!(page.contains(&table), "{}", holder.name);
    }
}

#[tokio::test]
async fn an_entry_of_the_log_comes_with_its_statement_and_a_proof_that_holds() {
    let w = World::new().await;
    let cookie = w.regulator().await;
    let origin: KeyName = "sekisho-test/coordinator".parse().unwrap();
    let checkpoint = w.served.pages.store.checkpoint(&origin, &w.own).await.unwrap();
    w.served.pages.store.keep_own(&checkpoint).await.unwrap();
    let log = NoteKey::new(origin, Signs::Text, w.own.public());
    let policy = Policy::parse(format!("log {log}\nquorum none\n").as_bytes()).unwrap();
    let size = w.served.pages.store.log_size().await.unwrap();
    for index in 0..size {
        let page = w.ask("GET", &format!("/regulator/log/{index}"), &cookie, "").await;
        assert!(page.text().contains("Download the proof"), "{index}");
        let statement = w.ask("GET", &format!("/regulator/log/{index}/statement"), &cookie, "").await.body;
        let proof = w.ask("GET", &format!("/regulator/log/{index}/proof"), &cookie, "").await.body;
        let proof = InclusionProof::parse(&proof).unwrap();
        let entry = Entry::of(proof.opening().unwrap(), &statement);
        assert_eq!(proof.verify(entry, &policy).unwrap().index(), index);
    }
    let found = w.ask("GET", "/regulator/log?kind=checkpoint", &cookie, "").await.text();
    assert_eq!(found.matches("sekisho-test/nara, 9").count(), 2);
    // A document leads to its entry, and an erased statement leaves its place.
    let permits = w.served.pages.store.kept(crate::store::Kind::Permit, None, 9).await.unwrap();
    let to = w.ask("GET", &format!("/regulator/documents/{}", permits[0].digest), &cookie, "").await;
    let to = to.headers[header::LOCATION].to_str().unwrap().to_string();
    let entry = w.ask("GET", &to, &cookie, "").await.text();
    assert!(entry.contains("sato") && entry.contains("Permit"), "{entry}");
}
