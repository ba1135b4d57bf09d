//! Each role on each route, over HTTP: who is let in, what every answer says to the browser, which forms are taken, and when a
//! session ends. No browser is needed for it.

use std::{fs, net::SocketAddr};

use super::world::{HELD, NEW, SECOND, STUDY, World};
use crate::local::{Answer, request};

/// What every answer says.
const HEADERS: [&str; 7] = [
    "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options: nosniff",
    "referrer-policy: same-origin",
    "x-frame-options: deny",
    "cross-origin-opener-policy: same-origin",
    "cross-origin-resource-policy: same-origin",
    "permissions-policy: camera=()",
];

/// Somebody without a browser: what they send is what is written here.
#[derive(Clone, Default)]
pub(super) struct Caller {
    cookie: String,
    csrf: String,
}

/// The value of the first hidden input of this name.
fn hidden(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().into()
}

/// The cookies that an answer sets, as a browser sends them back.
fn set(answer: &Answer) -> Vec<String> {
    let lines = answer.head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
    lines.map(Into::into).collect()
}

impl Caller {
    fn ask(&self, site: SocketAddr, line: &str, more: &[&str], body: &str) -> Answer {
        let cookie = format!("Cookie: {}", self.cookie);
        let headers = [&[cookie.as_str(), "Content-Type: application/x-www-form-urlencoded"], more].concat();
        let answer = request(site, line, &headers, body);
        for header in HEADERS {
            assert!(answer.head.contains(header), "{line}: no {header} in\n{}", answer.head);
        }
        answer
    }

    fn get(&self, site: SocketAddr, path: &str) -> Answer {
        self.ask(site, &format!("GET {path}"), &[], "")
    }

    /// Posts a form of one's own page.
    fn post(&self, site: SocketAddr, path: &str, more: &[&str], form: &str) -> Answer {
        self.ask(site, &format!("POST {path}"), more, &format!("csrf={}&{form}", self.csrf))
    }

    /// Signs in; the answer that set the session's cookie, and the caller with it.
    pub(super) fn sign_in(site: SocketAddr, token: &str) -> (Answer, Self) {
        let nobody = Self::default();
        let form = nobody.get(site, "/login");
        let cookie = set(&form).concat().split(';').next().unwrap().to_string();
        let visitor = Self { cookie, csrf: String::new() };
        let body = format!("form={}&token={token}", hidden(&form.text, "form"));
        let answer = visitor.ask(site, "POST /login", &[], &body);
        let session =
            set(&answer).into_iter().find(|cookie| cookie.contains("-session=") && !cookie.contains("-session=;"));
        let cookie = session.unwrap_or_default().split(';').next().unwrap_or_default().to_string();
        let mut caller = Self { cookie, csrf: String::new() };
        if answer.status == 303 {
            let home = answer.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
            caller.csrf = hidden(&caller.get(site, home).text, "csrf");
        }
        (answer, caller)
    }
}

/// All of it.
pub(super) fn walk(world: &World) {
    let site = world.pages;
    let signed_in = |name: &str| Caller::sign_in(site, &world.tokens[name]).1;
    let [nobody, regulator, member, ada, bob] =
        [Caller::default(), signed_in("mhlw"), signed_in("ethicist"), signed_in("ada"), signed_in("bob")];
    let callers = [&nobody, &regulator, &member, &ada, &bob];
    pages(world, &callers);
    forms(world, &callers);
    sessions(world);
    console(world, &regulator);
}

/// Rows: a route, and what is answered to nobody, a regulator, a member of the committee, a data user and another one.
fn pages(world: &World, callers: &[&Caller; 5]) {
    const ALL: [u16; 5] = [200; 5];
    const NONE: [u16; 5] = [404; 5];
    const REGULATOR: [u16; 5] = [303, 200, 403, 403, 403];
    const MEMBER: [u16; 5] = [303, 403, 200, 403, 403];
    const USERS: [u16; 5] = [303, 403, 403, 200, 200];
    const ADA: [u16; 5] = [303, 403, 403, 200, 404];
    let (open, held, result) = (world.release(STUDY), world.release(HELD), world.result());
    let of = |base: &str, more: &str| format!("{base}{more}");
    let rows = [
        ("/".into(), ALL),
        ("/?text=beds&state=in_force&holder=hospital-1".into(), ALL),
        (of("/studies/", STUDY), ALL),
        ("/studies/nothing".into(), NONE),
        (open.clone(), ALL),
        (of(&open, "/lineage.svg"), ALL),
        (of(&open, "/bundle.zip"), ALL),
        (held.clone(), ALL),
        (of(&held, "/lineage.svg"), NONE),
        (of(&held, "/bundle.zip"), NONE),
        ("/releases/00".into(), NONE),
        ("/log".into(), ALL),
        ("/log/checkpoint".into(), ALL),
        ("/log/tile/0/000.p/1".into(), NONE),
        ("/login".into(), ALL),
        ("/regulator".into(), REGULATOR),
        ("/regulator?list=uses&study=beds".into(), REGULATOR),
        ("/regulator/refusals".into(), REGULATOR),
        (of("/regulator/studies/", STUDY), REGULATOR),
        ("/regulator/studies/nothing".into(), [303, 404, 403, 403, 403]),
        ("/regulator/export?format=csv".into(), REGULATOR),
        ("/regulator/export?format=json&list=uses".into(), REGULATOR),
        ("/regulator/log".into(), REGULATOR),
        ("/regulator/log/0".into(), REGULATOR),
        ("/regulator/log/999999".into(), [303, 404, 403, 403, 403]),
        ("/committee".into(), MEMBER),
        (of("/committee/applications/", NEW), MEMBER),
        ("/committee/applications/nothing".into(), [303, 403, 404, 403, 403]),
        ("/committee/results".into(), MEMBER),
        (of("/committee/results/", &world.results[HELD]), MEMBER),
        ("/committee/documents".into(), MEMBER),
        ("/desk".into(), USERS),
        ("/desk/query".into(), USERS),
        ("/desk/results".into(), USERS),
        (result.clone(), ADA),
        (of(&result, "/result.csv"), ADA),
        (of(&result, "/result.json"), ADA),
        (of(&result, "/result.arrow"), ADA),
        (of(&result, "/result.exe"), [303, 403, 403, 404, 404]),
        ("/nothing".into(), NONE),
        ("/assets/nothing".into(), NONE),
        ("/%2e%2e/%2e%2e/etc/passwd".into(), NONE),
    ];
    for (path, expect) in &rows {
        let answers = callers.map(|caller| caller.get(world.pages, path));
        assert_eq!(answers.each_ref().map(|answer| answer.status), *expect, "{path}");
        for answer in answers.iter().skip(1) {
            let kept = answer.head.contains("cache-control: no-store");
            // Files that are everybody's may be kept, and for /assets/ nobody is signed in.
            let file =
                expect[0] == 200 && !answer.head.contains("content-type: text/html") || path.starts_with("/assets/");
            assert!(kept || file || answer.status == 303, "{path}: {}", answer.head);
        }
        if expect[0] == 303 {
            assert!(answers[0].head.contains("location: /login?next=/"), "{path}: {}", answers[0].head);
        }
    }
    // Where an address takes no form there is no such page.
    for caller in callers {
        assert_eq!(caller.post(world.pages, "/", &[], "").status, 405);
    }
    // Another name for this machine, as in DNS rebinding.
    let elsewhere =
        crate::local::send(world.pages, "GET / HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n");
    assert_eq!(elsewhere.status, 403);
}

/// Rows: a form, and what is answered to whom; without the session's own secret, or from another site, to nobody.
fn forms(world: &World, callers: &[&Caller; 5]) {
    let site = world.pages;
    let documents = ("/committee/documents", "document=%7B%7D", [303, 403, 422, 403, 403]);
    let question = ("/desk/query", "permit=&sql=SELECT+1", [303, 403, 403, 200, 200]);
    // Under a permit that names one of them alone.
    let permit = format!("permit={}&sql=SELECT+1", world.answer["report"]["permit"].as_str().unwrap());
    let own = ("/desk/query", permit.as_str(), [303, 403, 403, 200, 404]);
    for (path, form, expect) in [documents, question, own] {
        let answers = callers.map(|caller| caller.post(site, path, &[], form).status);
        assert_eq!(answers, expect, "{path}");
        for (caller, other) in callers.iter().zip(callers.iter().cycle().skip(1)) {
            let without = Caller { csrf: String::new(), ..(*caller).clone() };
            let foreign = Caller { csrf: other.csrf.clone(), ..(*caller).clone() };
            for forged in [without, foreign] {
                assert!([303, 403].contains(&forged.post(site, path, &[], form).status), "{path}");
            }
            for header in ["Origin: https://elsewhere.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
                assert_eq!(caller.post(site, path, &[header], form).status, 403, "{path} {header}");
            }
        }
    }
    let forged = Caller { csrf: "0".repeat(64), ..callers[3].clone() };
    assert_eq!(forged.post(site, "/logout", &[], "").status, 403);
    assert_eq!(callers[3].get(site, "/desk").status, 200, "a forged logout ends nothing");
    // The login brings what its own cookie has.
    let bare = Caller::default().ask(site, "POST /login", &[], "form=&token=00");
    assert_eq!(bare.status, 403);
}

fn sessions(world: &World) {
    let site = world.pages;
    let (answer, caller) = Caller::sign_in(site, &world.tokens["gone"]);
    let session = set(&answer).into_iter().find(|cookie| cookie.starts_with("sekisho-pages-session=")).unwrap();
    for flag in ["httponly", "samesite=strict", "path=/"] {
        assert!(session.contains(flag), "{session}");
    }
    assert!(!session.contains(&world.tokens["gone"]) && !answer.head.contains("domain="), "{session}");
    // An address of another site is no place to go after signing in.
    assert!(answer.head.contains("location: /regulator"), "{}", answer.head);
    assert_eq!(caller.get(site, "/regulator").status, 200);

    // A token that has expired ends its session, and lets nobody in.
    let file = world.network.dir().join("coordinator/pages-tokens");
    let before = fs::read_to_string(&file).unwrap();
    let line = before.lines().find(|line| line.starts_with("gone ")).unwrap();
    let mut words: Vec<&str> = line.split(' ').collect();
    words[2] = "2026-01-01T00:00:00Z";
    fs::write(&file, before.replace(line, &words.join(" "))).unwrap();
    assert_eq!(caller.get(site, "/regulator").status, 303);
    assert_eq!(Caller::sign_in(site, &world.tokens["gone"]).0.status, 403);
    fs::write(&file, &before).unwrap();
    assert_eq!(caller.get(site, "/regulator").status, 303, "a session that ended does not come back");
    assert!(!before.contains(&world.tokens["gone"]), "tokens are hashed at rest");

    // So does one that was revoked.
    let (_, caller) = Caller::sign_in(site, &world.tokens["gone"]);
    assert_eq!(caller.get(site, "/regulator").status, 200);
    world.operator(&["pages", "token", "revoke", "gone"]);
    assert_eq!(caller.get(site, "/regulator").status, 303);
    assert_eq!(Caller::sign_in(site, &world.tokens["gone"]).0.status, 403);

    // Whoever signs out is out.
    let (_, caller) = Caller::sign_in(site, &world.tokens["mhlw"]);
    assert_eq!(caller.post(site, "/logout", &[], "").status, 303);
    assert_eq!(caller.get(site, "/regulator").status, 303);

    // One session asks so often in a minute, and nobody else waits for it.
    let (_, busy) = Caller::sign_in(site, &world.tokens["bob"]);
    let refused = (0..3000).any(|_| busy.get(site, "/login").status == 429);
    assert!(refused, "a session is answered without end");
    assert_eq!(Caller::default().get(site, "/").status, 200);
}

/// Guesses are counted; a right token is let in all the same.
pub(super) fn guesses(world: &World) {
    let (site, guess) = (world.pages, "ab".repeat(32));
    let refused = (0..3000).any(|_| Caller::sign_in(site, &guess).0.status == 429);
    assert!(refused, "somebody guesses without end");
    assert_eq!(Caller::sign_in(site, &world.tokens["mhlw"]).0.status, 303);
}

/// Rows: a route of a hospital's console, and what is answered to nobody, somebody who may look, and an operator.
fn console(world: &World, regulator: &Caller) {
    let site = world.console;
    let [viewer, operator] = ["suzuki", "sato"].map(|name| Caller::sign_in(site, &world.tokens[name]).1);
    let callers = [&Caller::default(), &viewer, &operator];
    for path in
        ["/", "/permits", "/studies", "/queries", "/queries?study=beds", "/exact", "/patients", "/alerts", "/log"]
    {
        let answers = callers.map(|caller| caller.get(site, path).status);
        assert_eq!(answers, [303, 200, 200], "{path}");
    }
    for path in ["/permits/00", "/queries/999999", "/exact/999999", "/exact/x", "/nothing"] {
        let answers = callers.map(|caller| caller.get(site, path).status);
        assert_eq!(answers[1..], [404, 404], "{path}");
    }
    for path in [
        "/studies/beds/suspend",
        "/studies/beds/resume",
        "/everything/suspend",
        "/everything/resume",
        "/alerts/seen",
        "/exact/1/release",
        "/exact/1/refuse",
    ] {
        let form = "reason=&seen=x";
        let answers = callers.map(|caller| caller.post(site, path, &[], form).status);
        assert!(answers[0] != 200 && answers[1] == 403, "{path}: {answers:?}");
        for caller in callers {
            let forged = Caller { csrf: regulator.csrf.clone(), ..caller.clone() };
            assert!([303, 403].contains(&forged.post(site, path, &[], "reason=x&through=1").status), "{path}");
            assert_eq!(caller.post(site, path, &["Origin: http://127.0.0.1:1"], "reason=x").status, 403, "{path}");
        }
    }
    // A session of the coordinator's pages is none here, and its tokens are not.
    assert_eq!(regulator.get(site, "/").status, 303);
    assert_eq!(Caller::sign_in(site, &world.tokens["mhlw"]).0.status, 403);
    let suspended = world.network.node(SECOND, &["studies", "list"]);
    assert!(!suspended.unwrap_or_default().contains("suspended"), "a forged form suspended something");
}
