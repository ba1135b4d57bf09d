//! The console over a node in this process: who may look and act, what an action does, and what no page holds.

use std::fmt::Write;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
    response::Response,
};
use chrono::TimeDelta;
use sekisho_protocol::{
    alert::Rule,
    digest::Digest,
    receipt::{Acceptance, Receipt},
};
use tower::ServiceExt;

use super::*;
use crate::{
    answer::tests::{Case, code},
    ledger::{Act, NewAlert},
    policy::{Policy, default_text},
    register::{Entry, EventKind},
};

/// The pages with a `GET`; of one permit and of one query the addresses are made.
const PAGES: [&str; 8] = ["/", "/permits", "/studies", "/queries", "/exact", "/patients", "/alerts", "/log"];
const SQL: &str = "SELECT count(*) AS planted FROM stay";
const HERE: &str = "127.0.0.1:8819";

struct Desk {
    case: Case,
    tokens: TokenFile<PageToken>,
    site: Router,
}

struct Answer {
    status: u16,
    cookies: Vec<String>,
    to: String,
    text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let text = |name| parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_string());
        Self {
            status: parts.status.as_u16(),
            cookies: text(header::SET_COOKIE).map(|set| set.split(';').next().unwrap().to_string()).collect(),
            to: text(header::LOCATION).next().unwrap_or_default(),
            text: String::from_utf8(to_bytes(body, 8 << 20).await.unwrap().to_vec()).unwrap(),
        }
    }

    fn cookie(&self, what: &str) -> String {
        self.cookies.iter().find(|set| set.starts_with(&format!("sekisho-console-{what}="))).unwrap().clone()
    }

    /// The value of the first hidden input of this name.
    fn hidden(&self, name: &str) -> String {
        let value = self.text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap_or_default();
        value.split('"').next().unwrap().to_string()
    }
}

impl Desk {
    fn over(case: Case) -> Self {
        let tokens = TokenFile::new(case.dir.path().join("console-tokens"));
        let gate = Arc::new(gate(tokens.clone(), Arc::clone(&case.node.clock)));
        let console = Arc::new(Console::new(Arc::clone(&case.node), Path::new("/srv/a node/node.toml")));
        Self { case, tokens, site: guarded(router(console), gate, HERE.parse().unwrap()) }
    }

    async fn send(&self, host: &str, path: &str, cookie: &str, form: Option<&str>) -> Answer {
        let request = Request::builder().uri(path).header("host", host).header("cookie", cookie);
        let request = match form {
            None => request.body(Body::empty()),
            Some(form) => request
                .method("POST")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Body::from(form.to_string())),
        };
        Answer::of(self.site.clone().oneshot(request.unwrap()).await.unwrap()).await
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.send(HERE, path, cookie, None).await
    }

    /// Signs in with a new token: the session's cookie.
    async fn enter(&self, name: &str, role: &str) -> String {
        let expires = self.case.node.clock.now() + TimeDelta::days(1);
        let line = |hash| PageToken::new(name, role, expires, None, hash);
        let token = self.tokens.add(line, &mut rand::rng()).unwrap();
        let login = self.get("/login", "").await;
        let form = format!("form={}&token={token}&next=/", login.hidden("form"));
        let entered = self.send(HERE, "/login", &login.cookie("login"), Some(&form)).await;
        assert_eq!((entered.status, entered.to.as_str()), (303, "/"));
        entered.cookie("session")
    }

    /// Sends a form as a person does from the page `from`.
    async fn post(&self, from: &str, path: &str, cookie: &str, rest: &str) -> Answer {
        let csrf = self.get(from, cookie).await.hidden("csrf");
        self.send(HERE, path, cookie, Some(&format!("csrf={csrf}&{rest}"))).await
    }

    /// What was done, the newest first.
    async fn operations(&self) -> Vec<(String, Act, String, String)> {
        let operations = self.case.node.ledger.operations(99).await.unwrap();
        operations.into_iter().map(|o| (o.by, o.act, o.what, o.reason)).collect()
    }
}

/// Whether a text has this number by itself, not within a digest.
fn has(text: &str, number: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ',')).any(|word| word == number)
}

/// An alert that the node raised.
async fn alert(case: &Case) {
    for _ in 0..3 {
        case.node
            .watch
            .refused(crate::watch::Asked::Query, sekisho_protocol::refusal::Code::SqlSyntax, Some("study"))
            .await;
    }
}

#[tokio::test]
async fn nobody_is_sent_to_the_login_a_viewer_looks_and_an_operator_acts() {
    let desk = Desk::over(Case::new(|_| {}).await);
    let permit = desk.case.permit(1, 10_000).await;
    assert_eq!(desk.case.ask(permit, 1).await, "ok");
    let (viewer, operator) = (desk.enter("mori", VIEWER).await, desk.enter("sato", OPERATOR).await);
    let other = desk.enter("stranger", "regulator").await;
    let (of_permit, of_query) = (format!("/permits/{permit}"), "/queries/1".to_string());
    for page in PAGES.iter().map(ToString::to_string).chain([of_permit.clone(), of_query]) {
        for (cookie, status) in [("", 303), (viewer.as_str(), 200), (&operator, 200), (&other, 403)] {
            let answer = desk.get(&page, cookie).await;
            assert_eq!(answer.status, status, "{page}: {}", answer.text);
        }
        assert!(desk.get(&page, "").await.to.starts_with("/login?next=/"), "{page}");
        assert_eq!(desk.send("console.example:8819", &page, &operator, None).await.status, 403, "{page}");
    }
    let actions = [
        (format!("{of_permit}/refuse"), "reason=no+staff"),
        (format!("{of_permit}/accept"), "reason=board+of+June"),
        ("/studies/study/suspend".into(), "reason=review"),
        ("/studies/study/resume".into(), "reason=done"),
        ("/everything/suspend".into(), "reason=fire"),
        ("/everything/resume".into(), "reason=out"),
        ("/alerts/seen".into(), "upto=0"),
    ];
    for (path, form) in &actions {
        // Without the session's own word, and from elsewhere.
        for (host, cookie, status) in [
            (HERE, "", 303),
            (HERE, viewer.as_str(), 403),
            (HERE, &operator, 403),
            (HERE, &other, 403),
            ("console.example:8819", &operator, 403),
        ] {
            assert_eq!(desk.send(host, path, cookie, Some(form)).await.status, status, "{path}");
        }
        let with_anothers = format!("csrf={}&{form}", desk.get("/", &viewer).await.hidden("csrf"));
        assert_eq!(desk.send(HERE, path, &operator, Some(&with_anothers)).await.status, 403, "{path}");
        assert_eq!(desk.post("/", path, &viewer, form).await.status, 403, "{path}");
        assert_eq!(desk.get(path, &operator).await.status, 405, "{path} is no page");
    }
    assert_eq!(desk.operations().await, []);
    for (path, form) in &actions {
        assert_eq!(desk.post("/", path, &operator, form).await.status, 303, "{path}");
    }
    assert_eq!(desk.operations().await.len(), actions.len());
    for (path, form) in [
        ("/studies/study/suspend", "reason="),
        ("/studies/study/suspend", "reason=a%0Ab"),
        ("/everything/suspend", ""),
        ("/alerts/seen", "upto=x"),
    ] {
        let status = desk.post("/", path, &operator, form).await.status;
        assert!(status == 400 || status == 422, "{path} {form}: {status}");
    }
    assert_eq!(desk.post("/", "/studies/A%20Study/suspend", &operator, "reason=x").await.status, 404);
    assert_eq!(desk.operations().await.len(), actions.len());
    desk.tokens.revoke("sato").unwrap();
    assert_eq!(desk.get("/", &operator).await.status, 303, "whose token is gone is signed out");
}

#[tokio::test]
async fn a_study_that_is_suspended_here_is_not_answered_from_the_next_query_on() {
    let desk = Desk::over(Case::new(|_| {}).await);
    let permit = desk.case.permit(1, 10_000).await;
    let sato = desk.enter("sato", OPERATOR).await;
    for (path, answered) in [
        ("/studies/study/suspend", "suspended"),
        ("/studies/study/resume", "ok"),
        ("/everything/suspend", "suspended"),
        ("/everything/resume", "ok"),
    ] {
        assert_eq!(desk.post("/", path, &sato, "reason=under+review").await.to, "/studies", "{path}");
        assert_eq!(desk.case.ask(permit, 1).await, answered, "{path}");
    }
    let studies = desk.get("/studies", &sato).await.text;
    assert!(studies.contains("10,000") && studies.contains("1,000"), "earmark and what was spent: {studies}");
    let done = |act, what: &str| ("sato".into(), act, what.into(), "under review".into());
    let expected =
        [done(Act::Resume, "*"), done(Act::Suspend, "*"), done(Act::Resume, "study"), done(Act::Suspend, "study")];
    assert_eq!(desk.operations().await, expected);
}

#[tokio::test]
async fn a_permit_that_waits_is_decided_by_a_person_whose_name_stays_in_the_hospital() {
    let by_hand = Policy::parse(&default_text(false)).unwrap();
    let desk = Desk::over(Case::new(|node| node.policy = by_hand).await);
    let permit = desk.case.permit(1, 10_000).await;
    let sato = desk.enter("sato", OPERATOR).await;
    assert_eq!(desk.case.ask(permit, 1).await, "permit_waiting");
    let page = desk.get(&format!("/permits/{permit}"), &sato).await.text;
    for shown in ["waits for a person", "Scientific research", "<bdi>stay</bdi>", "<bdi>age</bdi>", "10,000 micro-rho"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for (act, said, answered) in
        [("accept", "board+of+June", "ok"), ("refuse", "no+staff", "permit_refused"), ("accept", "again", "ok")]
    {
        let path = format!("/permits/{permit}/{act}");
        assert_eq!(desk.post("/", &path, &sato, &format!("reason={said}")).await.status, 303, "{act}");
        assert_eq!(desk.case.ask(permit, 1).await, answered, "{act}");
    }
    let named = |act, reason: &str| ("sato".into(), act, "permit/1".into(), reason.into());
    let expected = [
        named(Act::AcceptPermit, "again"),
        named(Act::RefusePermit, "no staff"),
        named(Act::AcceptPermit, "board of June"),
    ];
    assert_eq!(desk.operations().await, expected);
    let stored = desk.case.node.documents.permit(permit).await.unwrap().unwrap();
    let answer = stored.acceptance().unwrap();
    let (acceptance, _) = answer.peek::<Acceptance>().unwrap();
    assert_eq!((acceptance.refused, acceptance.reason.as_deref()), (None, Some("again")));
    assert!(!serde_json::to_string(&acceptance).unwrap().contains("sato"));
}

#[tokio::test]
async fn alerts_are_new_until_a_person_says_that_they_looked_and_later_ones_are_new_again() {
    let desk = Desk::over(Case::new(|_| {}).await);
    let sato = desk.enter("sato", OPERATOR).await;
    alert(&desk.case).await;
    let page = desk.get("/alerts", &sato).await;
    assert!(page.text.contains("chip-new") && page.text.contains("<code>refusals</code>"), "{}", page.text);
    assert_eq!(desk.case.node.ledger.unseen_alerts().await.unwrap(), (1, 1));
    let upto = page.hidden("upto");
    // One more comes after the page was made.
    let new = NewAlert {
        rule: Rule::UnexpectedPeer,
        study_id: None,
        at: desk.case.node.clock.now(),
        envelope: &desk.case.node.ledger.alerts(1).await.unwrap()[0],
        evidence: &[],
    };
    desk.case.node.ledger.raise(Some(&new), None).await.unwrap();
    desk.post("/", "/alerts/seen", &sato, &format!("upto={upto}")).await;
    assert_eq!(desk.case.node.ledger.unseen_alerts().await.unwrap(), (2, 1));
    desk.post("/", "/alerts/seen", &sato, "upto=99").await;
    assert_eq!(desk.case.node.ledger.unseen_alerts().await.unwrap(), (2, 0));
    desk.case.node.ledger.raise(Some(&new), None).await.unwrap();
    assert_eq!(desk.case.node.ledger.unseen_alerts().await.unwrap(), (3, 1), "none that is to come was seen");
}

#[tokio::test]
async fn what_others_wrote_is_text_on_every_page() {
    const HOSTILE: &str = "\"'><script>alert(1)</script>{{ 7*7 }}\u{202e}";
    let desk = Desk::over(Case::new(|_| {}).await);
    let permit = desk.case.permit_with(1, 10_000, (0, 0), |permit| {
        permit.data_user = HOSTILE.into();
        permit.principal_investigator = HOSTILE.into();
        permit.authorised_persons[0].id = HOSTILE.into();
        permit.decision.reasons = HOSTILE.into();
        permit.conditions = vec![HOSTILE.into()];
    });
    let permit = permit.await;
    let sql = "SELECT count(*) AS \"<script>alert(2)</script>\" FROM stay -- </pre><img src=x onerror=alert(3)>";
    desk.case.node.answer(&desk.case.query(permit, sql, 1)).await.map_err(|refusal| refusal.detail).unwrap();
    let sato = desk.enter("sato", OPERATOR).await;
    let reason = "reason=%3Cscript%3Ealert(4)%3C/script%3E";
    desk.post("/", "/studies/study/suspend", &sato, reason).await;
    let (of_permit, of_query) = (format!("/permits/{permit}"), "/queries/1?lang=ja".to_string());
    for page in PAGES.iter().map(ToString::to_string).chain([of_permit, of_query]) {
        let text = desk.get(&page, &sato).await.text;
        let scripts: Vec<_> = text.match_indices("<script").collect();
        assert_eq!(scripts.len(), 1, "{page} has its own script alone: {text}");
        assert!(!text.contains("<img src=x") && !text.contains("alert(4)</script>"), "{page}: {text}");
    }
    assert!(desk.get("/queries/1", &sato).await.text.contains("&#60;script&#62;alert(2)"), "and it is shown");
}

#[tokio::test]
async fn no_page_has_a_patient_or_a_number_from_before_the_noise_and_totals_are_for_operators() {
    const MARK: &str = "planted-patient-5c1d";
    const ROWS: usize = 7919;
    let mut case = Case::new(|_| {}).await;
    let mut stays = String::new();
    for n in 0..ROWS {
        writeln!(stays, "{MARK}-{n},40").unwrap();
    }
    case.over(&stays).await;
    let (at, today) = (case.node.clock.now(), case.node.clock.today());
    let told = |n| Entry::new(&format!("{MARK}-{n}"), EventKind::OptedOut, Some(today), None, at).unwrap();
    case.node.register.record_all(&(0..1543).map(told).collect::<Vec<_>>(), "records-office", at).await.unwrap();
    let desk = Desk::over(case);
    let permit = desk.case.permit(1, 10_000).await;
    let answer = desk.case.node.answer(&desk.case.query(permit, SQL, 1)).await.map_err(|r| r.detail).unwrap();
    let receipt: Digest = answer.receipt.peek::<Receipt>().unwrap().1;
    alert(&desk.case).await;
    let (viewer, operator) = (desk.enter("mori", VIEWER).await, desk.enter("sato", OPERATOR).await);
    for cookie in [&viewer, &operator] {
        for page in PAGES.iter().map(ToString::to_string).chain([format!("/permits/{permit}"), "/queries/1".into()]) {
            let text = desk.get(&page, cookie).await.text;
            assert!(!text.contains(MARK), "{page}");
            // The noised number may be any; it is in the table alone.
            let outside = match text.split_once("<tbody>") {
                Some((before, rest)) if page.starts_with("/queries/") => {
                    format!("{before}{}", rest.split_once("</tbody>").unwrap().1)
                }
                Some(_) | None => text,
            };
            let eligible = ROWS - 1543;
            for raw in
                [ROWS.to_string(), words::grouped(ROWS as u64), eligible.to_string(), words::grouped(eligible as u64)]
            {
                assert!(!has(&outside, &raw), "{page}: {raw}");
            }
            let totals = has(&outside, "1,543");
            assert_eq!(totals, page == "/patients" && cookie == &operator, "{page}");
        }
    }
    let page = desk.get("/queries/1", &viewer).await.text;
    let table = page.split_once("<tbody>").unwrap().1;
    let noised: i64 = table.split_once("<bdi>").unwrap().1.split_once("</bdi>").unwrap().0.parse().unwrap();
    // Its standard deviation is 22: twenty of them.
    assert!((noised - (ROWS as i64 - 1543)).abs() < 450, "{noised}");
    assert!(page.contains(&receipt.to_string()), "{page}");
    assert!(
        page.contains(
            "sekisho-node inspect replay 1 --by NAME --reason REASON --config &#39;/srv/a node/node.toml&#39;"
        )
    );
}

#[tokio::test]
async fn an_exact_result_is_looked_at_and_let_out_by_an_operator_and_others_see_no_table() {
    use crate::exact::tests::{BY_AGE, exact, stays};
    let mut case = Case::new(|node| node.trust.exact_min_patients = Some(10)).await;
    case.over(&stays(&[(0, 4711, 40), (10_000, 30, 60)])).await;
    let permit = case.permit_with(1, 10_000, (0, 0), |permit| exact(permit, "study", &[BY_AGE])).await;
    let desk = Desk::over(case);
    let ask = async || code(desk.case.node.answer(&desk.case.query_of(permit, BY_AGE, 1, (0, 0))).await);
    assert_eq!(ask().await, "exact_waiting");
    let (viewer, operator) = (desk.enter("mori", VIEWER).await, desk.enter("sato", OPERATOR).await);
    let list = desk.get("/exact", &viewer).await.text;
    assert!(list.contains("waits for a person") && list.contains("/exact/1"), "{list}");
    let page = desk.get("/exact/1", &viewer).await.text;
    assert!(!has(&page, "4711") && !page.contains("/exact/1/release"), "{page}");
    let page = desk.get("/exact/1", &operator).await;
    assert!(has(&page.text, "4711") && page.text.contains("<bdi>young</bdi>"), "{}", page.text);
    let seen = page.hidden("seen");
    for (form, status) in [
        (format!("reason=checked&seen={seen}0"), 400),
        (format!("reason=&seen={seen}"), 400),
        (format!("reason=checked&seen={seen}"), 303),
    ] {
        assert_eq!(ask().await, "exact_waiting");
        assert_eq!(desk.post("/", "/exact/1/release", &viewer, &form).await.status, 403);
        assert_eq!(desk.post("/", "/exact/1/release", &operator, &form).await.status, status, "{form}");
    }
    assert_eq!(ask().await, "ok");
    assert_eq!(desk.operations().await, [("sato".into(), Act::ReleaseExact, "1".into(), "checked".into())]);
    assert!(desk.get("/exact/1", &viewer).await.text.contains("released"));
    assert!(desk.get("/studies", &viewer).await.text.contains("No guarantee of differential privacy holds"));
    assert!(desk.get("/queries/1", &viewer).await.text.contains("These numbers have no noise"));
    // Once more, or to refuse it: the page tells what was decided.
    for act in ["release", "refuse"] {
        let again = desk.post("/", &format!("/exact/1/{act}"), &operator, &format!("reason=x&seen={seen}")).await;
        assert_eq!((again.status, again.to.as_str()), (303, "/exact/1"), "{act}");
    }
    assert_eq!(desk.operations().await.len(), 1);
}
