//! SQL that is meant to cost a hospital its time or its memory. A node that dies of one patient's rows tells that they are there, and no
//! `no_answer` is counted for it.

use sekisho_protocol::refusal::Code;

use super::{Hospital, others};

fn list(n: usize, each: impl Fn(usize) -> String, between: &str) -> String {
    (0..n).map(each).collect::<Vec<_>>().join(between)
}

/// Each is refused by its code, in words that quote little of it; the node goes on.
#[tokio::test]
async fn bombs_are_refused_in_few_words_and_cost_nothing() {
    let hospital = Hospital::of(&others(), |_| {}).await;
    let doubled = list(40, |i| format!("t{} AS (SELECT * FROM t{i} UNION ALL SELECT * FROM t{i})", i + 1), ", ");
    let values = list(15, |v| format!("WHEN {v} THEN 'v{v}'"), " ");
    let keys = list(16, |i| format!("CASE days + {i} {values} ELSE 'v15' END AS k{i}"), ", ");
    for (name, sql, code) in [
        ("a list", format!("SELECT count(*) FROM stay WHERE age IN ({})", list(9_000, |i| i.to_string(), ",")), Code::SqlUnsupported),
        ("texts", format!("SELECT count(*) FROM stay WHERE note IN ({})", list(8_000, |i| format!("'{i}'"), ",")), Code::SqlUnsupported),
        ("VALUES", format!("SELECT count(*) FROM stay JOIN (VALUES {}) AS x(k) ON x.k = age", list(1_001, |i| format!("({i})"), ",")), Code::SqlUnsupported),
        ("views that double", format!("WITH t0 AS (SELECT patient_id FROM stay), {doubled} SELECT count(*) FROM t40"), Code::SqlUnsupported),
        ("itself", "WITH RECURSIVE r AS (SELECT patient_id, age FROM stay UNION ALL SELECT patient_id, age + 1 FROM r) SELECT count(*) FROM r".into(), Code::SqlUnsupported),
        ("every pair", "SELECT count(*) FROM stay a CROSS JOIN stay b".into(), Code::SqlUnsupported),
        ("every pair, by a comma", "SELECT count(*) FROM stay a, stay b WHERE a.age < b.age".into(), Code::SqlUnsupported),
        ("every pair, by a condition that always holds", "SELECT count(*) FROM stay a JOIN stay b ON 1 = 1".into(), Code::SqlUnsupported),
        ("every pair with literals", "SELECT count(*) FROM stay a JOIN (VALUES (1), (2)) AS x(k) ON x.k > 0".into(), Code::SqlUnsupported),
        ("nine joins", format!("SELECT count(*) FROM stay s {}", list(9, |i| format!("JOIN stay s{i} ON s.patient_id = s{i}.patient_id"), " ")), Code::SqlUnsupported),
        ("an exponent", "SELECT sum(power(days, 1000)) FROM stay".into(), Code::SqlUnsupported),
        ("parentheses", format!("SELECT count(*) FROM stay WHERE {}1 = 1{}", "(".repeat(5_000), ")".repeat(5_000)), Code::SqlUnsupported),
        ("a chain", format!("SELECT count(*) FROM stay WHERE age = 1{}", " OR age = 1".repeat(4_000)), Code::SqlUnsupported),
        // 16^16 cells are 2^64, which is 0 where numbers wrap.
        ("cells beyond all numbers", format!("SELECT {keys}, count(*) FROM stay GROUP BY {}", list(16, |i| (i + 1).to_string(), ",")), Code::UnknownDomain),
        ("a set twice", "SELECT sex, count(*) FROM stay GROUP BY GROUPING SETS ((sex, sex), (sex))".into(), Code::SqlUnsupported),
        ("cells", "SELECT age, days, age % 7, count(*) FROM stay GROUP BY 1, 2, 3".into(), Code::UnknownDomain),
    ] {
        let refusal = hospital.solo.ask(&hospital.solo.query(hospital.permit, &sql, 1_000, 1)).await.map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, code, "{name}: {refusal}");
        assert!(refusal.detail.len() < 1_000, "{name}: {} bytes", refusal.detail.len());
    }
    assert_eq!(hospital.spent().await, 0);
    assert_eq!(hospital.code(hospital.permit, "SELECT count(*) FROM stay", 1_000, 1).await, Ok(()));
}

/// In a process of its own, whose memory is its own.
const ALONE: &str = "SEKISHO_TEST_ALONE";

/// The most memory that this process ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A row that only one patient has is multiplied by two joins with literals, and thirty texts of 40,000 bytes are made of each. This took
/// 10 GB, whatever the limit (2 GiB), and as much as somebody wanted with more and longer texts; without that patient it took nothing. Now it
/// is an answer, or no answer that is counted.
#[test]
#[expect(clippy::disallowed_methods, reason = "the edge of a test: it starts itself anew")]
fn texts_of_one_patients_rows_take_no_memory_beside_the_limit() {
    let name = "attacks::exhausting::texts_of_one_patients_rows_take_no_memory_beside_the_limit";
    if std::env::var_os(ALONE).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let hospital = Hospital::of(&format!("{}777,male,77,77,1,E11\n", others()), |_| {}).await;
        let before = peak();
        let seven = |n: usize| list(n, |_| "(77)".into(), ",");
        let sql = format!(
            "SELECT {} FROM (SELECT s.patient_id, CASE WHEN s.days = 77 THEN '{}' END AS x FROM stay s JOIN (VALUES {}) AS a(k) \
             ON s.days = a.k JOIN (VALUES {}) AS b(k) ON s.days = b.k) t",
            list(30, |i| format!("count(x || '{i}')"), ", "),
            "x".repeat(40_000),
            seven(300),
            seven(30),
        );
        let said = hospital.code(hospital.permit, &sql, 10_000, 1).await;
        assert!(matches!(said, Ok(()) | Err(Code::NoAnswer)), "{said:?}");
        let more = peak() - before;
        println!("{said:?}, {more} MiB");
        assert!(more < 3_000, "{more} MiB");
    });
}

/// Medians of a patient whose one row became 160,000: what is kept of them are leaves, not rows.
#[tokio::test]
async fn quantiles_of_one_patients_rows_are_counted_and_not_kept() {
    let hospital = Hospital::of(&format!("{}777,male,77,77,1,E11\n", others()), |_| {}).await;
    let joins =
        list(2, |i| format!("JOIN (VALUES {}) AS v{i}(k) ON s.days = v{i}.k", list(400, |_| "(77)".into(), ",")), " ");
    let sql = format!("SELECT median(days) AS m, max(days) AS x FROM stay s {joins}");
    assert_eq!(hospital.code(hospital.permit, &sql, 100_000, 1).await, Ok(()));
}
