//! What a question may cost a node: the deepest texts on the stack that planning has, and rows of one patient without end.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sekisho_aggregation::plan::WEIGHT_ONE;
use sekisho_node::departure::Departure;
use sekisho_protocol::refusal::Code;
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};

use crate::library::{Library, permit, session};

/// The stack of a node's threads (`sekisho-node run`).
const STACK: usize = 16 << 20;
/// What is admitted of data declared synthetic: noise far below one row.
const RHO: u64 = 1_000_000_000_000;

/// Texts that are as deep, or as long, as what reads them lets them be, and a little more.
fn deepest() -> Vec<String> {
    let of = |condition: String| format!("SELECT count(*) FROM stay WHERE {condition}");
    let nested = |n: usize, open: &str, middle: &str, close: &str| open.repeat(n) + middle + &close.repeat(n);
    let views = |n: usize, body: &dyn Fn(usize) -> String| {
        let all: Vec<_> = (1..=n).map(|i| format!("t{i} AS (SELECT {} FROM t{})", body(i), i - 1)).collect();
        format!("WITH t0 AS (SELECT age FROM stay), {} SELECT count(*) FROM t{n} WHERE age > 1", all.join(", "))
    };
    let mut texts = vec![
        of(vec!["age > 1"; 128].join(" AND ")),
        of(vec!["age > 1"; 127].join(" OR ")),
        of(format!("age{} > 0", " + 1".repeat(254))),
        of(format!("age IN ({})", vec!["1"; 3_900].join(", "))),
        of(format!("note IN ({})", vec!["'x'"; 9_000].join(", "))),
        format!("SELECT {} FROM stay", vec!["sum(days + age)"; 64].join(", ")),
        vec!["SELECT count(*) FROM stay"; 200].join(" UNION ALL "),
        format!("SELECT count(*) FROM ({}) t", vec!["SELECT age FROM stay"; 250].join(" UNION ALL ")),
    ];
    for n in [8, 12, 13, 45, 48, 60, 200] {
        texts.push(of(nested(n, "NOT ", "age > 1", "")));
        texts.push(of(nested(n, "- ", "age", "") + " < 1"));
        texts.push(of(nested(n, "(", "age > 1", ")")));
        texts.push(of(nested(n, "coalesce(", "age", ", 1)") + " > 0"));
        texts.push(of(nested(n, "CASE WHEN age > 1 THEN ", "age", " ELSE 0 END") + " > 0"));
        texts.push(nested(n, "SELECT count(*) FROM (SELECT age FROM stay WHERE age IN (", "1", "))"));
        texts.push(nested(n, "SELECT age FROM (", "SELECT age FROM stay", ") t"));
        texts.push(views(n, &|_| "age".into()));
        texts.push(views(n, &|_| "age + 1 AS age".into()));
        texts.push(views(n, &|_| "CASE WHEN age > 1 THEN age + 1 ELSE age END AS age".into()));
        texts.push(views(n, &|_| "coalesce(age, age, age, age) AS age".into()));
    }
    texts
}

#[test]
fn the_deepest_texts_are_planned_or_refused_on_the_stack_of_a_nodes_thread() {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let permit = permit(&schema, 5, 3);
    let library = Library { schema, permit, tables: session() };
    let plan = move || {
        let (mut admitted, mut longest) = (0, (Duration::ZERO, String::new()));
        for text in deepest() {
            let started = Instant::now();
            match library.analyse(&text) {
                Ok(_) => admitted += 1,
                Err(refusal) => assert!(
                    [Code::SqlSyntax, Code::SqlUnsupported, Code::UnboundedColumn, Code::RowLevel]
                        .contains(&refusal.code),
                    "{refusal}: {text:.200}"
                ),
            }
            longest = longest.max((started.elapsed(), text.chars().take(90).collect()));
        }
        (admitted, longest)
    };
    let (admitted, longest) = std::thread::Builder::new().stack_size(STACK).spawn(plan).unwrap().join().unwrap();
    println!("{admitted} of {} admitted; the longest took {longest:?}", deepest().len());
    assert!(admitted > 20, "{admitted} were admitted: the texts are too deep to say much");
}

/// A node whose patient 1 has so many stays, and 2 to 11 one each.
async fn node(dir: &Path, of_one: i64, memory_bytes: usize, departure: (Duration, Duration)) -> Solo {
    let csv = dir.join("stay.csv");
    let many = (0..of_one).map(|day| (1, "female", 50, day % 100));
    stays(&csv, &many.chain((2..12).map(|id| (id, "male", 60, 5))).collect::<Vec<_>>());
    let data = vec![(SCHEMA, mapping("set", &csv, true))];
    let plan = Plan { data, register_rule: "eu-ehds", register: None, budget: (100 * RHO, RHO) };
    let mut solo = Solo::build(&dir.join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
    let node = Arc::get_mut(&mut solo.node).unwrap();
    let (step, timeout) = departure;
    (node.memory_bytes, node.timeout, node.departure) = (memory_bytes, timeout, Departure::fixed(step, timeout));
    solo
}

#[test]
fn a_join_that_one_patient_blows_up_is_cut_to_the_bound_or_is_no_answer_and_ends_with_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(joins_of_one_patient());
    // What still works here is waited for: without an end, for hours.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    end.recv_timeout(Duration::from_secs(60)).expect("runs that were given up go on");
}

async fn joins_of_one_patient() {
    // Two reads of a table have twice the step, three or four have four times as much.
    let (step, timeout) = (Duration::from_secs(1), Duration::from_secs(9));
    let pairs = "SELECT count(*) AS n FROM stay a JOIN stay b ON a.patient_id = b.patient_id";
    let fours = format!(
        "{pairs} JOIN stay c ON a.patient_id = c.patient_id JOIN stay d ON a.patient_id = d.patient_id WHERE d.days >= c.days"
    );
    let never = format!("{pairs} AND a.days > b.days + 1000");
    for (sql, of_one, memory, class, expect) in [
        (pairs, 1, 1 << 28, 2, Ok(11)),
        // 250,000 rows count as five.
        (pairs, 500, 1 << 28, 2, Ok(15)),
        // 10^9 rows are not made in time, nor are those found of which there are none; 10^12 are not either, or memory does
        // not suffice; and 4 KiB do not for the first.
        (pairs, 40_000, 1 << 28, 2, Err(Code::NoAnswer)),
        (&never, 80_000, 1 << 28, 2, Err(Code::NoAnswer)),
        (&fours, 1_000, 1 << 28, 4, Err(Code::NoAnswer)),
        (pairs, 500, 4 << 10, 2, Err(Code::NoAnswer)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let solo = node(dir.path(), of_one, memory, (step, timeout)).await;
        let permit = solo.permit("study", "stay", &COLUMNS, |permit| {
            permit["dp"]["micro_rho_per_query"] = RHO.into();
            permit["dp"]["micro_rho_total"] = (10 * RHO).into();
        });
        let permit = solo.grant(&permit.unwrap()).await.unwrap();
        let asked = Instant::now();
        let answer = solo.ask(&solo.query(permit, sql, RHO, 1)).await;
        let (took, early, late) = (asked.elapsed(), step * class, timeout + step);
        let said = format!("{sql}, {of_one} stays of one patient, {memory} bytes: after {took:?}");
        assert!((early..late - step).contains(&took) || took >= late, "{said}");
        let found = answer.map(|answer| (answer.release.parts()[0][0][0] + WEIGHT_ONE / 2) / WEIGHT_ONE);
        let words = "the query was charged and has no answer";
        assert!(found.as_ref().err().is_none_or(|refusal| refusal.detail == words), "{said}");
        println!("{said}: {found:?}");
        assert_eq!(found.map_err(|refusal| refusal.code), expect, "{said}");
        assert_eq!(solo.node.ledger.budget().await.unwrap().spent.get(), RHO, "{said}");
    }
}
