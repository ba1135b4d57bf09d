//! What the SQL says after its aggregates runs at the coordinator: a person with a permit could take its memory or its time, and so
//! everybody else's answers.

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_coordinator::result::{self, ResultError};
use sekisho_protocol::{refusal::Code, units::MicroRho};
use sekisho_tests::SCHEMA;
use serde_json::json;

use super::{Hospital, others};

const RHO: u64 = 20_000;
/// 38,007 cells, of which two thirds have the same first key.
const MANY: &str = "SELECT age > 60 AS k, age AS a, days AS d, count(*) AS n FROM stay GROUP BY 1, 2, 3";

/// What becomes of `sql`: rows of the combined table, or why there are none.
async fn asked(hospital: &Hospital, sql: &str) -> Result<usize, String> {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let plan = PrivatePlan::analyse(sql, &schema, &hospital.granted, MicroRho::try_from(RHO).unwrap());
    let plan = plan.map_err(|refusal| format!("{}: {}", refusal.code, refusal.detail))?;
    let release = hospital.solo.ask(&hospital.solo.query(hospital.permit, sql, RHO, 1)).await.unwrap().release;
    let report = json!({
        "round": "r", "permit": hospital.permit, "query": hospital.permit, "run": 1, "at": "2026-01-01T00:00:00Z", "complete": true,
        "confidence": 0.95, "preset": "none", "synthetic": false, "method": "m", "holders": [],
        "privacy": result::privacy(&plan, &hospital.granted),
    });
    match result::tables(&plan, serde_json::from_value(report).unwrap(), &[("solo", &release)]).await {
        Ok((_, tables)) => Ok(tables[0].num_rows()),
        Err(error @ ResultError::TooMuch(_)) => Err(error.to_string()),
        Err(other) => panic!("{sql}: {other}"),
    }
}

/// On threads with as deep a stack as the daemons' have.
#[test]
fn what_follows_a_release_takes_no_more_than_the_coordinator_gives() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(16 << 20).build().unwrap();
    runtime.block_on(async { tokio::spawn(followed()).await.unwrap() });
}

async fn followed() {
    let hospital = Hospital::of(&others(), |_| {}).await;
    let stacked = |n: usize, next: &str| {
        let first = "WITH t0 AS (SELECT sex AS x, count(*) AS n FROM stay GROUP BY sex)".to_string();
        let views = (1..=n).map(|i| format!(", t{i} AS (SELECT {next} FROM t{})", i - 1)).collect::<String>();
        format!("{first}{views} SELECT character_length(x) AS l, n FROM t{n}")
    };
    let pairs = |select: &str| format!("WITH b AS ({MANY}) SELECT {select} FROM b x JOIN b y ON x.k = y.k");
    for (sql, expect) in [
        // Forty doublings are more than 10^12 bytes; beyond 65,536 there is no text.
        (stacked(40, "x || x AS x, n"), Ok(4)),
        (stacked(40, "concat(x, x) AS x, n"), Ok(4)),
        (stacked(40, "x, n + n * 2 AS n"), Ok(4)),
        (stacked(6, "replace(x, 'e', 'eeeeeeeeeeeeeeee') AS x, n"), Err("replace by a longer text")),
        // The answer has an interval beside n: a name of its own.
        ("SELECT count(*) AS n, sum(days) AS n_low FROM stay".into(), Err("choose another name")),
        ("SELECT count(*) AS cell_note FROM stay".into(), Err("choose another name")),
        // Some 480 million pairs.
        (pairs("x.a, y.d"), Err("too much room")),
        (format!("{} ORDER BY x.n, y.n", pairs("x.a, y.d")), Err("too much memory")),
        (pairs("x.a, rank() OVER (PARTITION BY x.d) AS r"), Err("a window over a join")),
        // What people ask.
        (format!("WITH b AS ({MANY}) SELECT x.a, y.d, x.n + y.n AS n FROM b x JOIN b y ON x.k = y.k AND x.a = y.a AND x.d = y.d LIMIT 7"), Ok(7)),
        ("SELECT sex || '/' || upper(sex) AS s, rank() OVER (ORDER BY n) AS r FROM (SELECT sex, count(*) AS n FROM stay GROUP BY sex) t".into(), Ok(4)),
        ("SELECT replace(sex, 'male', 'm') AS s, count(*) AS n FROM stay GROUP BY sex".into(), Ok(4)),
    ] {
        let found = asked(&hospital, &sql).await;
        match (&found, expect) {
            (Ok(rows), Ok(expect)) => assert_eq!(*rows, expect, "{sql}"),
            (Err(why), Err(expect)) => assert!(why.contains(expect), "{sql}: {why}"),
            (_, _) => panic!("{sql}: {found:?}"),
        }
    }
    assert_eq!(hospital.code(hospital.permit, "SELECT count(*) FROM stay", RHO, 1).await, Ok::<(), Code>(()));
}
