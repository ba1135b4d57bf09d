//! The pages of a data user, in process: whose they are, what a question is found to be, and what of a result is shown.

use arrow::ipc::reader::StreamReader;
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    output_review::Verdict,
    permit::{AllowedQuery, OutputReview as Rule, Permit, Preset, ReleaseKind},
    refusal::Code,
    status::RevokedPermit,
};

use super::super::{
    committee::tests::{HOSTILE, SQL, World, harmless},
    fixture::{Answer, form},
};
use crate::documents::tests::{now, status};

const CELLS: [i128; 4] = [120, 4, 300, 40];

impl World {
    /// Sends the form of a query.
    async fn question(&self, cookie: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.get("/desk/query", cookie).await.csrf();
        let fields: Vec<_> = [("csrf", csrf.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.ask("POST", "/desk/query", cookie, &form(&fields)).await
    }
}

#[tokio::test]
async fn each_page_is_of_the_persons_whom_the_permit_names_and_of_nobody_else() {
    let w = World::new().await;
    let granted = w.permit(|_| {}).await;
    w.round("r1", &granted, &w.ada, SQL, &[("a", CELLS)]).await;
    let (ada, bob) = (w.person(&w.ada).await, w.person(&w.bob).await);
    let others = [w.member(0).await, w.enter("regulator", "-").await, w.enter("user", "no-fingerprint").await];
    for (path, for_ada, for_bob) in [
        ("/desk", 200, 200),
        ("/desk/query", 200, 200),
        (&format!("/desk/query?permit={}", granted.1), 200, 404),
        ("/desk/query?permit=%3Cscript%3E", 404, 404),
        ("/desk/results", 200, 200),
        ("/desk/results/r1", 200, 404),
        ("/desk/results/r1/result.csv", 200, 404),
        ("/desk/results/r1/result.json", 200, 404),
        ("/desk/results/r1/result.arrow", 200, 404),
        // Of this result no statement is in the log.
        ("/desk/results/r1/bundle.zip", 404, 404),
        ("/desk/results/r1/result.exe", 404, 404),
        ("/desk/results/r2", 404, 404),
    ] {
        assert_eq!(w.get(path, "").await.status, 303, "{path}");
        assert_eq!(w.get(path, &ada).await.status, for_ada, "{path}");
        assert_eq!(w.get(path, &bob).await.status, for_bob, "{path}");
        for other in &others {
            assert_eq!(w.get(path, other).await.status, 403, "{path}");
        }
    }
    let desk = w.get("/desk", &ada).await.text();
    // Hospital a set 5000 aside, of which one receipt charged 1000.
    for part in [
        "study-1",
        "<td class=\"number\">5000</td><td class=\"number\">1000</td><td class=\"number\">4000</td>",
        "20 %",
    ] {
        assert!(desk.contains(part), "{part}: {desk}");
    }
    let other = w.get("/desk", &bob).await.text();
    assert!(!other.contains("study-1") && other.contains("No permit names your key"), "{other}");
    assert!(!w.get("/desk/results", &bob).await.text().contains("r1"));

    let before = w.documents.current().pinned_status().map(|s| s.digest());
    let void = status(2, before, vec![w.ada.public().fingerprint()]);
    w.put(&Envelope::sign(&void, &[&w.governance]).unwrap()).await;
    assert!(!w.get("/desk", &ada).await.text().contains("study-1"), "a key that is void");
    assert_eq!(w.get("/desk/results/r1", &ada).await.status, 404);
}

#[tokio::test]
async fn a_question_ends_in_the_line_that_asks_it() {
    let w = World::new().await;
    let granted = w.permit(|_| {}).await;
    w.round("r1", &granted, &w.ada, SQL, &[("a", CELLS)]).await;
    let ada = w.person(&w.ada).await;
    let permit = granted.1.to_string();
    let page = w.question(&ada, &[("permit", &permit), ("sql", SQL), ("run", "1")]).await.text();
    for part in [
        "This question is admitted.",
        "sekisho query --permit permit-1 --sql &#39;SELECT sex, count(*) AS n FROM person GROUP BY sex&#39; --run 1 --key \
         YOUR-KEY.pem",
        "--dry-run",
        // k = 1 row, rho = 0.001: sd = 1 / sqrt(0.002) = 22.36, of which 1.96 are 43.83, and sqrt(2) of that at two
        // hospitals.
        "22.36",
        "± 43.83",
        "± 61.98",
        "was answered: free",
        "new: charged",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let one = [
        ("permit", permit.as_str()),
        ("sql", "-- it's\r\nSELECT count(*) FROM person"),
        ("holder", "b"),
        ("rho", "500"),
    ];
    let page = w.question(&ada, &one).await.text();
    let line =
        "&#39;--sql=-- it&#39;\\&#39;&#39;s\nSELECT count(*) FROM person&#39; --holders b --rho 500 --key YOUR-KEY.pem";
    assert!(page.contains(line), "{page}");
    let japanese = w.ask("GET", "/desk/query?lang=ja", &ada, "").await.text();
    assert!(japanese.contains("照会文（SQL）"), "{japanese}");
}

#[tokio::test]
async fn a_question_that_would_be_refused_says_why_and_where() {
    let w = World::new().await;
    let granted = w.permit(|_| {}).await;
    let (ada, bob) = (w.person(&w.ada).await, w.person(&w.bob).await);
    let permit = granted.1.to_string();
    let huge = "x".repeat(65 << 10);
    for (field, value, code, says) in [
        ("sql", "SELECT sex FROM person", Code::RowLevel.as_str(), "row"),
        ("sql", "SELECT sex, count(*)\nFROM person WHERE GROUP BY sex", Code::SqlSyntax.as_str(), "line 2"),
        ("sql", HOSTILE, "sql_", ""),
        ("sql", "", "bad_input", "there is no SQL"),
        ("sql", &huge, Code::TooLarge.as_str(), "65536"),
        ("rho", "1001", Code::BudgetQuery.as_str(), "1000"),
        ("rho", HOSTILE, "bad_input", "invalid value"),
        ("rho", "--help", "bad_input", "invalid value"),
        ("holder", "c", Code::HolderNotPermitted.as_str(), "the permit does not name c"),
        ("rows_per_patient", "2", Code::Terms.as_str(), "above the permit"),
        ("bounds", "nonsense", "bad_input", "table.column=MIN..MAX"),
        ("confidence", "2", "bad_input", "between 0 and 1"),
    ] {
        let fields: Vec<_> = [("permit", permit.as_str())]
            .into_iter()
            .chain((field != "sql").then_some(("sql", SQL)))
            .chain([(field, value)])
            .collect();
        let answer = w.question(&ada, &fields).await;
        let page = answer.text();
        harmless(&page);
        assert_eq!(answer.status, 200, "{field} {code}");
        assert!(page.contains(&format!("<code>{code}")) && page.contains(says), "{field} {code}: {page}");
        assert!(!page.contains("id=\"line\""), "{field} {code}");
    }
    let another = w.question(&bob, &[("permit", permit.as_str()), ("sql", SQL)]).await;
    assert_eq!(another.status, 404, "another's permit");
    let none = w.question(&bob, &[("sql", SQL)]).await;
    assert!(none.status == 200 && none.text().contains("no permit under which you could ask"), "{}", none.text());
    let csrf = w.get("/desk/query", &bob).await;
    let foreign = csrf.text().split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    for csrf in ["", foreign.as_str()] {
        let sent = form(&[("csrf", csrf), ("permit", &permit), ("sql", SQL)]);
        assert_eq!(w.ask("POST", "/desk/query", &ada, &sent).await.status, 403);
    }
}

#[tokio::test]
async fn a_result_is_a_table_and_a_chart_and_what_is_hidden_is_no_zero() {
    let w = World::new().await;
    let granted = w.permit(|permit| permit.disclosure = Preset::JpNdb).await;
    w.round("r1", &granted, &w.ada, SQL, &[("a", CELLS)]).await;
    let ada = w.person(&w.ada).await;
    let list = w.get("/desk/results", &ada).await.text();
    assert!(list.contains("incomplete") && list.contains("1 / 2") && list.contains("p1"), "{list}");
    let page = w.get("/desk/results/r1", &ada).await.text();
    harmless(&page);
    for part in ["the sums lack", "<bdi>b</bdi>", "120 [", "suppressed", "role=\"img\"", "hidden</text>", "result.csv"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(">0 [") && !page.contains(">4 ["), "{page}");
    let csv = w.get("/desk/results/r1/result.csv", &ada).await;
    assert_eq!(csv.headers["content-disposition"], "attachment; filename=\"r1-result.csv\"");
    assert!(csv.text().starts_with("holder,sex,n,n_low,n_high,cell_note\n(all),"), "{}", csv.text());
    let json: serde_json::Value =
        serde_json::from_slice(&w.get("/desk/results/r1/result.json", &ada).await.body).unwrap();
    assert_eq!((&json["report"]["round"], json["rows"][0]["n"].as_i64()), (&"r1".into(), Some(120)));
    let arrow = w.get("/desk/results/r1/result.arrow", &ada).await.body;
    let batches: Vec<_> = StreamReader::try_new(arrow.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches[0].num_rows(), 8, "four cells of all and of the one hospital");
}

/// Lists [`SQL`] as aggregated.
fn lists_exact(permit: &mut Permit) {
    let sha256 = Digest::of(SQL.as_bytes());
    permit.release_kinds = vec![ReleaseKind::Aggregated];
    permit.disclosure = Preset::JpNdb;
    permit.allowed_queries = Some(vec![AllowedQuery { sha256, max_runs: 1, release: ReleaseKind::Aggregated }]);
}

#[tokio::test]
async fn of_an_exact_result_there_is_no_epsilon_and_the_hospital_without_a_guarantee_is_named() {
    let w = World::new().await;
    let granted = w.permit(lists_exact).await;
    // A cell of 0 is a hidden one; at the other hospital a person has yet to look.
    w.round("r1", &granted, &w.ada, SQL, &[("a", [120, 0, 300, 40])]).await;
    let ada = w.person(&w.ada).await;
    let permit = granted.1.to_string();
    let asked = w.question(&ada, &[("permit", &permit), ("sql", SQL)]).await.text();
    let result = w.get("/desk/results/r1", &ada).await.text();
    let desk = w.get("/desk", &ada).await.text();
    for (page, parts) in [
        (
            &asked,
            ["An exact answer", "cells of 1 to 9 patients are hidden", "no guarantee of differential privacy holds"],
        ),
        (&result, ["Exact numbers, without noise.", "suppressed", "no guarantee of differential privacy holds"]),
        (&result, ["waits for a person there", "<bdi>a</bdi>: since", ">120<"]),
        (&desk, ["Exact under disclosure rules", "No guarantee since", "<td class=\"number\">0</td>"]),
    ] {
        for part in parts {
            assert!(page.contains(part), "{part}: {page}");
        }
        for nothing in ["epsilon", "± ", "120 [", ">0 ["] {
            assert!(!page.contains(nothing), "{nothing}: {page}");
        }
    }
    for (field, value) in [("rho", "1000"), ("rows_per_patient", "1")] {
        let page = w.question(&ada, &[("permit", &permit), ("sql", SQL), (field, value)]).await.text();
        assert!(page.contains("lists as aggregated") && !page.contains("id=\"line\""), "{page}");
    }
    let japanese = w.ask("GET", "/desk/results/r1?lang=ja", &ada, "").await.text();
    assert!(
        japanese.contains("差分プライバシーの保証はありません") && japanese.contains("1〜9人のセルを秘匿"),
        "{japanese}"
    );
}

#[tokio::test]
async fn a_result_under_review_and_one_of_a_revoked_permit_show_no_number() {
    let w = World::new().await;
    let granted = w.permit(|permit| permit.output_review = Rule::TwoPerson).await;
    let result = w.round("r1", &granted, &w.ada, SQL, &[("a", CELLS), ("b", CELLS)]).await;
    let ada = w.person(&w.ada).await;
    let withheld = async |says: &str| {
        let page = w.get("/desk/results/r1", &ada).await;
        let text = page.text();
        assert!(page.status == 200 && text.contains(says) && !text.contains("240 ["), "{says}: {text}");
        assert!(w.get("/desk/results", &ada).await.text().contains(says), "{says}");
        for file in ["result.csv", "result.json", "result.arrow", "bundle.zip"] {
            assert_eq!(w.get(&format!("/desk/results/r1/{file}"), &ada).await.status, 404, "{says}");
        }
    };
    withheld("waits for reviewers").await;
    w.put(&w.output_review(0, result, Verdict::Release).await).await;
    withheld("waits for reviewers").await;
    w.put(&w.output_review(1, result, Verdict::Release).await).await;
    assert!(w.get("/desk/results/r1", &ada).await.text().contains("240 ["));

    let mut revoking = status(2, w.documents.current().pinned_status().map(|s| s.digest()), Vec::new());
    revoking.revoked_permits = vec![RevokedPermit { permit: granted.1, reason: HOSTILE.into(), at: now() }];
    w.put(&Envelope::sign(&revoking, &[&w.governance]).unwrap()).await;
    withheld("the permit does not hold any more").await;
}

#[tokio::test]
async fn a_refused_result_says_so_with_its_reasons() {
    let w = World::new().await;
    let granted = w.permit(|permit| permit.output_review = Rule::TwoPerson).await;
    let result = w.round("r1", &granted, &w.ada, SQL, &[("a", CELLS), ("b", CELLS)]).await;
    w.put(&w.output_review(0, result, Verdict::Refuse).await).await;
    let page = w.get("/desk/results/r1", &w.person(&w.ada).await).await.text();
    assert!(
        page.contains("refused by a reviewer") && page.contains("large cells") && !page.contains("240 ["),
        "{page}"
    );
}
