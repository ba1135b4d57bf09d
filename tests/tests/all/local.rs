//! The local endpoint over real sockets: who gets in, what is recorded, what is answered, and that a patient's no sent there
//! takes the patient out of the next new run of a node that runs as a process of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use sekisho_node::local::{self, Local, Running, System};
use sekisho_protocol::{clock::Clock, token_file::TokenFile};
use sekisho_sim::{
    network::{Network, Setup, Site},
    solo::{Plan, Solo},
};
use sekisho_tests::{COLUMNS, NEGLIGIBLE_NOISE, PermitText, SCHEMA, TestClock, mapping, permit_toml, stays};
use serde_json::{Value, json};

/// What an HTTP server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    pub(crate) body: Value,
}

/// Sends a request as it is written and reads the answer to its end.
pub(crate) fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that does not read a body to its end closes hard; what it said before is there.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let json = serde_json::from_str(body).unwrap_or(Value::Null);
    Answer { status, head: head.to_lowercase(), text: body.into(), body: json }
}

/// A request with these further headers.
pub(crate) fn request(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    send(address, &text)
}

/// A node in this process with a served endpoint.
struct Case {
    solo: Solo,
    running: Running,
    token: String,
    tokens: TokenFile<System>,
    clock: TestClock,
    _dir: tempfile::TempDir,
}

impl Case {
    async fn new(rule: &str) -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
        let csv = dir.path().join("stay.csv");
        stays(&csv, &[(1, "female", 50, 3), (2, "male", 60, 5)]);
        let plan = Plan {
            data: vec![(SCHEMA, mapping("set", &csv, true))],
            register_rule: rule,
            register: None,
            budget: (2_000_000, 100_000),
        };
        let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(clock.clone())).await.unwrap();
        let tokens = TokenFile::new(dir.path().join("tokens"));
        let token = tokens.add(|hash| System::new("consent-desk", hash), &mut rand::rng()).unwrap();
        let routes = local::router(Arc::new(Local::new(&solo.node, tokens.clone())));
        let running = local::serve("127.0.0.1:0".parse().unwrap(), routes).await.unwrap();
        Self { solo, running, token, tokens, clock, _dir: dir }
    }

    async fn send(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let (address, line, body) = (self.running.address(), line.to_string(), body.to_string());
        let headers: Vec<String> = headers.iter().map(|header| (*header).into()).collect();
        let send = move || {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            request(address, &line, &headers, &body)
        };
        tokio::task::spawn_blocking(send).await.unwrap()
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    async fn post(&self, key: &str, body: &Value) -> Answer {
        let headers = [&self.bearer(), "Content-Type: application/json", &format!("Idempotency-Key: {key}")];
        self.send("POST /v1/patients/events", &headers, &body.to_string()).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send(&format!("GET {path}"), &[&self.bearer()], "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

#[tokio::test]
async fn each_problem_has_its_code_in_both_languages_quotes_nothing_and_records_nothing() {
    let case = Case::new("jp-ngmia").await;
    let (bearer, json_sort, key) = (case.bearer(), "Content-Type: application/json", "Idempotency-Key: k");
    let all = [bearer.as_str(), json_sort, key];
    let (post, day) = ("POST /v1/patients/events", case.clock.today() + chrono::Duration::days(2));
    let event = |more: Value| {
        let mut event = json!({"patient_id": "SECRET", "event": "opted_out"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    let good = event(json!({}));
    let long = format!("[{}]", vec![good.as_str(); 1001].join(","));
    let vast = format!("\"{}\"", "x".repeat(1 << 20));
    for (line, headers, body, status, code) in [
        ("GET /v1/patients/1", &[][..], "", 401, "token_unknown"),
        ("GET /v1/patients/1", &["Authorization: Bearer 00"], "", 401, "token_unknown"),
        ("GET /v1/patients/1", &["Authorization: Basic c2VjcmV0"], "", 401, "token_unknown"),
        (post, &[json_sort, key], &good, 401, "token_unknown"),
        (post, &[&bearer, json_sort], &good, 400, "key_missing"),
        (post, &[&bearer, key], &good, 415, "not_json"),
        (post, &[&bearer, key, "Content-Type: text/plain"], &good, 415, "not_json"),
        ("PUT /v1/patients/events", &all, &good, 405, "method_not_allowed"),
        ("GET /v1/patients", &all, "", 404, "not_found"),
        ("GET /v2/patients/1", &all, "", 404, "not_found"),
        ("GET /v1/patients/%ff", &all, "", 404, "not_found"),
        (post, &all, "{\"SECRET", 400, "malformed"),
        (post, &all, "\"SECRET\"", 400, "malformed"),
        (post, &all, "[]", 400, "malformed"),
        (post, &all, &vast, 413, "body_too_large"),
        (post, &all, &long, 413, "too_many_events"),
        (post, &all, "[7]", 422, "event_invalid"),
        (post, &all, &event(json!({"event": "SECRET"})), 422, "event_invalid"),
        (post, &all, &event(json!({"event": null})), 422, "event_invalid"),
        (post, &all, &event(json!({"patient_id": 1.5})), 422, "event_invalid"),
        (post, &all, &event(json!({"patient_id": " "})), 422, "event_invalid"),
        (post, &all, &event(json!({"on": day})), 422, "event_invalid"),
        (post, &all, &event(json!({"on": "2026-6-1"})), 422, "event_invalid"),
        (post, &all, &event(json!({"said_by": "SECRET"})), 422, "event_invalid"),
        (post, &all, &event(json!({"event": "died", "said_by": "bereaved"})), 422, "event_invalid"),
        (post, &all, &event(json!({"by": "SECRET"})), 422, "event_invalid"),
        (post, &all, &format!("[{good},{}]", event(json!({"said_by": "self"}))), 422, "event_twice"),
    ] {
        let answer = case.send(line, headers, body).await;
        let shown = answer.body.to_string();
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{line} {shown}");
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
        assert_eq!(answer.body["type"], format!("urn:sekisho:problem:{code}"));
        assert!(
            answer.body["title"].as_str().unwrap().is_ascii() && !answer.body["title_ja"].as_str().unwrap().is_ascii()
        );
        assert!(!shown.contains("SECRET"), "{shown}");
    }
    let address = case.running.address();
    let elsewhere =
        format!("GET /v1/patients/1 HTTP/1.1\r\nHost: rebound.example\r\n{bearer}\r\nConnection: close\r\n\r\n");
    let answer = tokio::task::spawn_blocking(move || send(address, &elsewhere)).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (403, Some("host_not_local")));
    assert_eq!(case.solo.node.register.seq().await.unwrap(), 0);
    let routes = local::router(Arc::new(Local::new(&case.solo.node, case.tokens.clone())));
    assert!(local::serve("0.0.0.0:0".parse().unwrap(), routes).await.is_err());
}

#[tokio::test]
async fn events_are_recorded_whole_once_and_by_the_name_of_the_token() {
    let case = Case::new("jp-ngmia").await;
    let events = json!([
        {"patient_id": 1, "event": "notified", "on": "2026-03-01"},
        {"patient_id": "1", "event": "opted_out", "on": "2026-04-20", "said_by": "guardian"},
        {"patient_id": "1", "event": "opt_out_withdrawn", "on": "2026-05-01", "said_by": "self"},
        {"patient_id": "山田/1", "event": "通知", "on": "2026-05-20"},
    ]);
    for (key, body, status, answer, replayed) in [
        ("one", &events, 200, json!({"recorded": 4, "register_seq": 4}), false),
        ("one", &events, 200, json!({"recorded": 4, "register_seq": 4}), true),
        ("one", &events[0], 409, Value::Null, false),
        ("two", &events[0], 200, json!({"recorded": 1, "register_seq": 5}), false),
    ] {
        let said = case.post(key, body).await;
        assert_eq!(said.status, status, "{}", said.body);
        assert_eq!(said.head.contains("idempotency-replayed: true"), replayed);
        assert_eq!(said.body.get("recorded"), answer.get("recorded"), "{}", said.body);
        assert_eq!(said.body.get("register_seq"), answer.get("register_seq"));
    }
    // One bad event among good ones records none.
    let mixed =
        json!([{"patient_id": "9", "event": "notified"}, {"patient_id": "9", "event": "died", "on": "2030-01-01"}]);
    let refused = case.post("three", &mixed).await;
    assert_eq!((refused.status, refused.body["index"].as_u64()), (422, Some(1)));
    assert_eq!(case.solo.node.register.seq().await.unwrap(), 5);

    let status = case.get("/v1/patients/1").await;
    assert_eq!(status["rule"], json!({"name": "jp-ngmia", "days": 30}));
    assert_eq!(
        (&status["counts"], &status["since"], &status["until"]),
        (&json!(true), &json!("2026-05-01"), &Value::Null)
    );
    assert_eq!(
        (&status["events"][1]["said_by"], &status["events"][1]["by"]),
        (&json!("guardian"), &json!("consent-desk"))
    );
    assert_eq!(status["events"][1]["recorded_at"], "2026-06-01T12:00:00Z");
    let soon = case.get("/v1/patients/%E5%B1%B1%E7%94%B0%2F1").await;
    assert_eq!((&soon["counts"], &soon["until"]), (&json!(false), &json!("2026-06-19")));
    assert_eq!(case.get("/v1/patients/9").await["known"], json!(false));

    // A revoked token is refused at once, and a wrong one too often; a right one gets in all the same.
    let other = case.tokens.add(|hash| System::new("ehr", hash), &mut rand::rng()).unwrap();
    let as_other = format!("Authorization: Bearer {other}");
    assert_eq!(case.send("GET /v1/patients/1", &[&as_other], "").await.status, 200);
    case.tokens.revoke("ehr").unwrap();
    let mut last = 0;
    for _ in 0..25 {
        last = case.send("GET /v1/patients/1", &[&as_other], "").await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(case.get("/v1/patients/9").await["known"], json!(false));
    case.running.stop().await;
}

#[tokio::test]
async fn uses_are_the_runs_that_were_made_while_the_patient_counted() {
    let case = Case::new("eu-ehds").await;
    let sql = "SELECT count(*) AS n FROM stay";
    let mut permits = Vec::new();
    for study in ["alpha", "beta"] {
        permits.push(case.solo.grant(&case.solo.permit(study, "stay", &COLUMNS, |_| {}).unwrap()).await.unwrap());
    }
    let ask =
        async |permit: usize, run| case.solo.ask(&case.solo.query(permits[permit], sql, 1000, run)).await.unwrap();
    ask(0, 1).await;
    ask(0, 2).await;
    assert_eq!(case.post("a", &json!({"patient_id": 1, "event": "opted_out", "said_by": "self"})).await.status, 200);
    ask(0, 3).await;
    ask(1, 1).await;
    // Dated back, it does not unmake what was done.
    let back = json!({"patient_id": 2, "event": "opted_out", "on": "2026-01-01", "said_by": "bereaved"});
    assert_eq!(case.post("b", &back).await.status, 200);
    ask(1, 2).await;
    for (patient, expect) in
        [("1", &[("alpha", 2)][..]), ("2", &[("alpha", 3), ("beta", 1)]), ("3", &[("alpha", 3), ("beta", 2)])]
    {
        let told = case.get(&format!("/v1/patients/{patient}/uses")).await;
        let uses: Vec<_> = told["uses"].as_array().unwrap().iter().collect();
        let runs: Vec<_> =
            uses.iter().map(|u| (u["study_id"].as_str().unwrap(), u["runs"].as_u64().unwrap())).collect();
        assert_eq!(runs, expect, "{patient}");
        for usage in uses {
            assert_eq!((&usage["first"], &usage["last"]), (&json!("2026-06-01"), &json!("2026-06-01")));
            assert_eq!((&usage["purposes"], &usage["tables"]), (&json!(["scientific_research"]), &json!(["stay"])));
        }
        assert!(told["means"].as_str().unwrap().contains("not looked up"));
    }
}

#[test]
fn a_no_sent_to_a_running_nodes_endpoint_takes_the_patient_out_of_the_next_new_run() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, name) = (dir.path().join("stay.csv"), "hospital-1".to_string());
    stays(&csv, &[(1, "female", 50, 3), (2, "male", 60, 5), (3, "male", 61, 7)]);
    let site = Site::new(&name, mapping(&name, &csv, true));
    let setup = Setup {
        budget: Some((10 * NEGLIGIBLE_NOISE, NEGLIGIBLE_NOISE)),
        ..Setup::new(dir.path().join("network"), vec![site], SCHEMA)
    };
    let mut network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    let config = network.node_file(&name, "node.toml");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let written = std::fs::read_to_string(&config).unwrap();
    let local = format!("\n[local]\naddress = \"127.0.0.1:{port}\"\ntoken_file = \"local-tokens\"\n");
    std::fs::write(&config, written + &local).unwrap();
    let token = network.node(&name, &["local", "token", "consent-desk"]).unwrap();
    network.kill_node(&name);
    network.start_node(&name).unwrap();
    network.wait_connected(1).unwrap();
    let text = PermitText {
        study: "local",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: std::slice::from_ref(&name),
        bounds: (5, 2),
        micro_rho: (NEGLIGIBLE_NOISE, 10 * NEGLIGIBLE_NOISE),
    };
    let permit = network.permit("permit", &permit_toml(&text, crate::now())).unwrap();
    let ask = |run: &str| {
        let (key, sql) = (network.key("researcher"), "SELECT sex, count(*) AS n FROM stay GROUP BY sex ORDER BY sex");
        let rho = NEGLIGIBLE_NOISE.to_string();
        let args = [
            "query", "--permit", &permit, "--sql", sql, "--key", &key, "--run", run, "--rho", &rho, "--output", "json",
        ];
        let answer: Value = serde_json::from_str(&network.sekisho(&args).unwrap()).unwrap();
        answer
    };
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let first = ask("1");
    let headers = [&bearer, "Content-Type: application/json", "Idempotency-Key: visit-7"];
    let no = json!({"patient_id": 2, "event": "opted_out", "said_by": "self"}).to_string();
    let answer = request(address, "POST /v1/patients/events", &headers, &no);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let second = ask("2");
    let counts = |answer: &Value| {
        let rows = answer["rows"].as_array().unwrap().iter();
        let known = rows.filter_map(|row| Some((row["sex"].as_str()?.to_string(), row["n"].as_f64()?.round())));
        known.collect::<Vec<_>>()
    };
    assert_eq!(counts(&first), [("female".into(), 1.0), ("male".into(), 2.0)]);
    assert_eq!(counts(&second), [("female".into(), 1.0), ("male".into(), 1.0)]);
    let status: Value =
        serde_json::from_str(&network.node(&name, &["patients", "status", "2", "--output", "json"]).unwrap()).unwrap();
    assert_eq!((&status["counts"], &status["events"][0]["by"]), (&json!(false), &json!("consent-desk")));
    let uses: Value =
        serde_json::from_str(&network.node(&name, &["patients", "uses", "2", "--output", "json"]).unwrap()).unwrap();
    assert_eq!((&uses[0]["study_id"], &uses[0]["runs"]), (&json!("local"), &json!(1)));
}
