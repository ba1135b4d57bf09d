//! The gate over a small site: who is let in, until when, and what every answer says.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tower::ServiceExt;

use super::*;
use crate::{clock::Clock, token_file::TokenFile};

struct Hand(Mutex<DateTime<Utc>>);

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

#[derive(Deserialize)]
struct Word {
    word: String,
}

async fn desk(visitor: Visitor) -> Result<Response, Denied> {
    let who = visitor.demand("user")?.name.clone();
    Ok(Response::new(Body::from(format!("desk of {who} csrf={}", visitor.page("").csrf))))
}

struct Case {
    _dir: tempfile::TempDir,
    site: Router,
    clock: Arc<Hand>,
    tokens: TokenFile<PageToken>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tokens = TokenFile::new(dir.path().join("tokens"));
        let clock = Arc::new(Hand(Mutex::new(DateTime::from_timestamp(1_790_000_000, 0).unwrap())));
        let site = Site {
            key: "test",
            name: ("Register", "登録簿"),
            menu: |_| vec![("/", "Home", "ホーム")],
            home: |_| "/desk",
        };
        let gate = Arc::new(Gate::new(site, tokens.clone(), None, clock.clone()));
        let routes = Router::new()
            .route("/desk", get(desk))
            .route("/say", post(async |Posted(Word { word })| word))
            .route("/broken", get(async || Fault::unavailable("the cause is for the log")));
        let site = guarded(routes, gate, "127.0.0.1:8818".parse().unwrap());
        Self { _dir: dir, site, clock, tokens }
    }

    fn token(&self, name: &str, role: &str, days: i64) -> String {
        let expires = self.clock.now() + TimeDelta::days(days);
        self.tokens.add(|hash| PageToken::new(name, role, expires, None, hash), &mut rand::rng()).unwrap()
    }

    fn wait(&self, time: TimeDelta) {
        *self.clock.0.lock().unwrap() += time;
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], form: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8818");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if form.is_some() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let body = Body::from(form.unwrap_or_default().to_string());
        let response = self.site.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { parts, text }
    }

    /// Signs in, and returns the answer.
    async fn enter(&self, token: &str, next: &str) -> Answer {
        let form = self.ask("GET", "/login", &[], None).await;
        let value = form.text.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
        let cookie = form.cookie("test-login").unwrap();
        self.ask("POST", "/login", &[("cookie", &cookie)], Some(&format!("form={value}&token={token}&next={next}")))
            .await
    }
}

struct Answer {
    parts: axum::http::response::Parts,
    text: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    fn to(&self) -> &str {
        self.parts.headers.get(header::LOCATION).map_or("", |to| to.to_str().unwrap())
    }

    fn cookie(&self, name: &str) -> Option<String> {
        let mut set = self.parts.headers.get_all(header::SET_COOKIE).iter().map(|set| set.to_str().unwrap());
        set.find(|set| set.starts_with(&format!("{name}="))).map(|set| set.split(';').next().unwrap().to_string())
    }
}

#[tokio::test]
async fn a_session_begins_with_a_token_and_ends_when_the_token_is_revoked_or_at_the_logout() {
    let case = Case::new();
    let token = case.token("tanaka", "user", 90);
    let before = case.ask("GET", "/desk?study=x&lang=ja", &[], None).await;
    assert_eq!((before.status(), before.to()), (303, "/login?next=/desk%3Fstudy%3Dx"));
    let entered = case.enter(&token, "/desk").await;
    assert_eq!((entered.status(), entered.to()), (303, "/desk"));
    let cookie = entered.cookie("test-session").unwrap();
    let raw = entered.parts.headers.get_all(header::SET_COOKIE).iter().next().unwrap().to_str().unwrap();
    assert!(raw.contains("HttpOnly") && raw.contains("SameSite=Strict") && raw.contains("Path=/"), "{raw}");
    let desk = case.ask("GET", "/desk", &[("cookie", &cookie)], None).await;
    assert!(desk.text.starts_with("desk of tanaka"));
    assert_eq!(desk.parts.headers[header::CACHE_CONTROL], "no-store");
    let csrf = desk.text.split("csrf=").nth(1).unwrap();
    let out = case.ask("POST", "/logout", &[("cookie", &cookie)], Some(&format!("csrf={csrf}"))).await;
    assert_eq!((out.status(), out.to()), (303, "/"));
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &cookie)], None).await.status(), 303);

    let again = case.enter(&token, "").await.cookie("test-session").unwrap();
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &again)], None).await.status(), 200);
    case.tokens.revoke("tanaka").unwrap();
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &again)], None).await.status(), 303);
    case.token("tanaka", "user", 90);
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &again)], None).await.status(), 303, "another token, no session");
}

#[tokio::test]
async fn an_expired_token_and_another_role_let_nobody_in() {
    let case = Case::new();
    let (day, other) = (case.token("day", "user", 1), case.token("sato", "committee", 90));
    let other = case.enter(&other, "").await.cookie("test-session").unwrap();
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &other)], None).await.status(), 403);
    case.wait(TimeDelta::hours(23));
    let open = case.enter(&day, "").await.cookie("test-session").unwrap();
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &open)], None).await.status(), 200);
    case.wait(TimeDelta::hours(1));
    assert_eq!(case.ask("GET", "/desk", &[("cookie", &open)], None).await.status(), 303);
    assert_eq!(case.enter(&day, "").await.status(), 403);
}

#[tokio::test]
async fn a_form_needs_the_sessions_own_csrf_and_a_page_of_ours() {
    let case = Case::new();
    let (mine, yours) = (case.token("mine", "user", 9), case.token("yours", "user", 9));
    let mine = case.enter(&mine, "").await.cookie("test-session").unwrap();
    let yours = case.enter(&yours, "").await.cookie("test-session").unwrap();
    let csrf = async |cookie: &str| {
        let desk = case.ask("GET", "/desk", &[("cookie", cookie)], None).await;
        format!("word=hello&csrf={}", desk.text.split("csrf=").nth(1).unwrap())
    };
    let (form, other) = (csrf(&mine).await, csrf(&yours).await);
    for (headers, form, expect) in [
        (&[("cookie", mine.as_str())][..], form.as_str(), 200),
        (&[("cookie", &mine), ("origin", "http://127.0.0.1:8818"), ("sec-fetch-site", "same-origin")], &form, 200),
        (&[("cookie", &mine)], &other, 403),
        (&[("cookie", &mine)], "word=hello", 403),
        (&[("cookie", &mine)], "word=hello&csrf=", 403),
        (&[], &form, 403),
        (&[("cookie", &mine), ("origin", "https://evil.example")], &form, 403),
        (&[("cookie", &mine), ("origin", "null")], &form, 403),
        (&[("cookie", &mine), ("sec-fetch-site", "cross-site")], &form, 403),
        (&[("cookie", &mine)], &form.replace("word", "sword"), 422),
    ] {
        let answer = case.ask("POST", "/say", headers, Some(form)).await;
        assert_eq!(answer.status(), expect, "{headers:?} {form}");
    }
    let bare = case.ask("POST", "/login", &[], Some("form=&token=x")).await;
    assert_eq!(bare.status(), 403, "the login's form has a cookie of its own");
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_a_right_one_is_let_in_all_the_same() {
    let case = Case::new();
    let token = case.token("tanaka", "user", 90);
    let mut statuses = Vec::new();
    for _ in 0..21 {
        statuses.push(case.enter("wrong", "").await.status());
    }
    assert_eq!((statuses[0], statuses[19], statuses[20]), (403, 403, 429));
    assert_eq!(case.enter(&token, "").await.status(), 303);
    case.wait(TimeDelta::minutes(1));
    assert_eq!(case.enter("wrong", "").await.status(), 403);
}

#[tokio::test]
async fn nobody_is_sent_to_another_site_after_signing_in() {
    let case = Case::new();
    let token = case.token("tanaka", "user", 90);
    for (next, to) in [
        ("/desk?a=b", "/desk?a=b"),
        ("", "/desk"),
        ("https://evil.example", "/desk"),
        ("//evil.example", "/desk"),
        ("/%5Cevil.example", "/desk"),
        ("/x%0d%0aset-cookie:a", "/desk"),
    ] {
        assert_eq!(case.enter(&token, next).await.to(), to, "{next}");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_and_every_fault_a_page_in_the_readers_language() {
    let case = Case::new();
    for (method, path, host, expect, says) in [
        ("GET", "/login", "127.0.0.1:8818", 200, "Sign in"),
        ("GET", "/login?lang=ja", "127.0.0.1:8818", 200, "ログイン"),
        ("GET", "/nowhere?lang=ja", "127.0.0.1:8818", 404, "ページが見つかりません"),
        ("GET", "/assets/none.css", "127.0.0.1:8818", 404, "not_found"),
        ("GET", "/assets/style.css", "127.0.0.1:8818", 200, "--color-primitive-blue-900"),
        ("GET", "/assets/htmx.min.js", "127.0.0.1:8818", 200, "htmx"),
        ("GET", "/desk", "127.0.0.1:8818", 303, ""),
        ("DELETE", "/desk", "127.0.0.1:8818", 405, "not_found"),
        ("GET", "/broken", "127.0.0.1:8818", 500, "unavailable"),
        ("GET", "/login", "rebound.example", 403, "forbidden"),
    ] {
        let answer = case.ask(method, path, &[], None).await;
        let answer = if host == "127.0.0.1:8818" {
            answer
        } else {
            let request = Request::builder().uri(path).header("host", host).body(Body::empty()).unwrap();
            let (parts, body) = case.site.clone().oneshot(request).await.unwrap().into_parts();
            Answer { parts, text: String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap() }
        };
        assert_eq!(answer.status(), expect, "{path}");
        assert!(answer.text.contains(says) && !answer.text.contains("the cause is for the log"), "{path}");
        let headers = &answer.parts.headers;
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
        assert!(headers.contains_key("permissions-policy") && headers.contains_key(header::CACHE_CONTROL), "{path}");
    }
    let chosen = case.ask("GET", "/login?lang=ja", &[], None).await;
    assert_eq!(chosen.cookie("lang").as_deref(), Some("lang=ja"));
    assert!(chosen.text.contains("<html lang=\"ja\">") && chosen.text.contains("href=\"/login?lang=en\""));
    let kept = case.ask("GET", "/login", &[("cookie", "lang=ja")], None).await;
    assert!(kept.text.contains("<html lang=\"ja\">"));
    assert_eq!(StatusCode::OK, kept.parts.status);
}
