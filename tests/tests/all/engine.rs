//! The engine's answers, with negligible noise and bounds that do not bite, against plain DataFusion over the same files.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use datafusion::{
    arrow::{array::Array, compute::cast, datatypes::DataType, record_batch::RecordBatch},
    prelude::SessionContext,
};
use rand::{Rng, SeedableRng};
use sekisho_aggregation::{combine::combine, plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    digest::Digest,
    permit::Permit,
    receipt::Receipt,
    refusal::{Code, Refusal},
    units::{AttoDelta, MicroRho},
};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::TestClock;

const SCHEMA: &str = r#"{"id":"engine","version":1,"title":"Two protected tables and a public one","tables":[
    {"name":"person","patient":"patient_id","one_row_per_patient":true,"columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"100"}}]},
    {"name":"visit","patient":"patient_id","columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"code","type":"text"},
        {"name":"days","type":"int64","bounds":{"min":"0","max":"20"}},
        {"name":"seen","type":"date","bounds":{"min":"2024-01-01","max":"2024-12-31"}}]},
    {"name":"chapter","public":"chapters of codes","columns":[
        {"name":"code","type":"text"},
        {"name":"label","type":"text","domain":["blood","heart","lung"]}]}]}"#;

/// What one query costs: at so much its noise is far below one.
const RHO: u64 = 100_000_000_000_000;

const QUERIES: &[&str] = &[
    "SELECT sex, count(*) AS n, avg(age) AS a FROM person GROUP BY sex",
    "SELECT code = 'A' AS a, count(*) AS n, sum(days) AS d FROM visit GROUP BY code = 'A'",
    "SELECT p.sex, count(*) AS n, sum(v.days) AS d FROM visit v JOIN person p ON v.patient_id = p.patient_id GROUP BY p.sex",
    "SELECT p.sex, count(*) AS n FROM person p LEFT JOIN visit v ON v.patient_id = p.patient_id AND v.days > 10 GROUP BY p.sex",
    "SELECT count(*) AS n FROM person p LEFT JOIN visit v ON v.patient_id = p.patient_id WHERE v.patient_id IS NULL",
    "SELECT count(DISTINCT v.patient_id) AS n FROM visit v JOIN visit w ON v.patient_id = w.patient_id AND w.seen > v.seen",
    "SELECT c.label, count(*) AS n FROM visit v JOIN chapter c ON v.code = c.code GROUP BY c.label",
    "SELECT x.label, count(*) AS n, avg(v.days) AS d FROM visit v JOIN (VALUES ('A', 'one'), ('B', 'two')) AS x(code, label) \
     ON v.code = x.code GROUP BY x.label",
    "SELECT sex, count(*) AS n FROM person WHERE patient_id IN (SELECT patient_id FROM visit WHERE code = 'B') GROUP BY sex",
    "SELECT sex, count(*) AS n FROM person WHERE patient_id NOT IN (SELECT patient_id FROM visit WHERE code = 'B') GROUP BY sex",
    "SELECT count(*) AS n FROM person p WHERE EXISTS (SELECT 1 FROM visit v WHERE v.patient_id = p.patient_id AND v.days > 15)",
    "SELECT count(*) AS n FROM person p WHERE NOT EXISTS (SELECT 1 FROM visit v WHERE v.patient_id = p.patient_id AND v.days > 15)",
    "SELECT count(*) AS n FROM (SELECT patient_id, code FROM visit UNION ALL SELECT patient_id, sex FROM person) t",
    "SELECT count(*) AS n FROM (SELECT DISTINCT patient_id, code FROM visit) t",
    "SELECT least(n, 10) AS visits, count(*) AS patients FROM (SELECT patient_id, count(*) AS n FROM visit GROUP BY patient_id) t \
     GROUP BY least(n, 10)",
    "SELECT avg(longest) AS a, sum(longest) AS s FROM (SELECT patient_id, max(days) AS longest FROM visit GROUP BY patient_id) t",
    "SELECT p.sex, count(*) AS n, avg(longest) AS a FROM person p JOIN (SELECT patient_id, max(days) AS longest FROM visit GROUP BY patient_id) t \
     ON p.patient_id = t.patient_id GROUP BY p.sex",
    "SELECT date_part('month', first) AS m, count(*) AS n FROM (SELECT patient_id, min(seen) AS first FROM visit GROUP BY patient_id) t \
     GROUP BY date_part('month', first)",
    "SELECT count(*) AS n, sum(days) AS d FROM (SELECT days, row_number() OVER (PARTITION BY patient_id ORDER BY seen, code, days) AS r \
     FROM visit) t WHERE r = 2",
    "SELECT count(*) AS n FROM (SELECT days, lag(days) OVER (PARTITION BY patient_id ORDER BY seen, code, days) AS before FROM visit) t \
     WHERE days > before",
    "SELECT sum(first) AS s FROM (SELECT first_value(days) OVER (PARTITION BY patient_id ORDER BY seen, code, days) AS first FROM visit) t",
    "SELECT count(*) FILTER (WHERE days > 10) AS long, count(*) AS n, avg(days) FILTER (WHERE code = 'A') AS a FROM visit",
    "SELECT count(DISTINCT patient_id) FILTER (WHERE days > 10) AS p, sum(days) FILTER (WHERE code <> 'A') AS s FROM visit",
    "WITH old AS (SELECT patient_id FROM person WHERE age >= 65), stays AS (SELECT v.days FROM visit v JOIN old o \
     ON v.patient_id = o.patient_id) SELECT count(*) AS n, avg(days) AS d FROM stays",
    "SELECT CASE WHEN gap > 30 THEN 'late' WHEN gap >= 0 THEN 'early' ELSE 'first' END AS gap, count(*) AS n FROM \
     (SELECT seen - lag(seen) OVER (PARTITION BY patient_id ORDER BY seen, code, days) AS gap FROM visit) t GROUP BY 1",
    // Texts with a public domain are dictionaries in the snapshot.
    "SELECT CASE WHEN sex = 'male' THEN 'm' WHEN sex IS NULL THEN 'u' ELSE 'f' END AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT CASE WHEN age > 50 THEN sex ELSE 'young' END AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT coalesce(sex, 'none') AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT nullif(sex, 'male') AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT upper(sex) AS s, count(*) AS n, count(sex) AS c FROM person GROUP BY 1",
    "SELECT substr(sex, 1, 1) AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT character_length(sex) AS s, count(*) AS n FROM person GROUP BY 1",
    "SELECT count(*) AS n FROM person WHERE sex LIKE 'f%'",
    "SELECT count(*) AS n FROM person WHERE sex IN ('male', 'other')",
    "SELECT count(*) AS n FROM person WHERE sex NOT IN ('male', 'other')",
    "SELECT count(*) AS n FROM person WHERE sex IS DISTINCT FROM 'male'",
    "SELECT count(*) AS n FROM person WHERE sex <> 'male' OR sex IS NULL",
    "SELECT count(*) AS n FROM person WHERE sex BETWEEN 'g' AND 'n' AND sex > 'a'",
    "SELECT count(DISTINCT patient_id) FILTER (WHERE sex = 'male') AS n FROM person",
    "SELECT sex, count(*) AS n FROM (SELECT patient_id, sex FROM person UNION ALL SELECT patient_id, sex FROM person WHERE age > 50) t GROUP BY sex",
    "SELECT count(*) AS n FROM (SELECT patient_id, 'x' AS s FROM visit UNION ALL SELECT patient_id, sex FROM person) t WHERE s = 'x'",
    "SELECT s, count(*) AS n FROM (SELECT patient_id, min(sex) AS s FROM person GROUP BY patient_id) t GROUP BY s",
    "SELECT s, count(*) AS n FROM (SELECT first_value(sex) OVER (PARTITION BY patient_id ORDER BY age) AS s FROM person) t GROUP BY s",
    "SELECT sex, count(*) AS n FROM (SELECT DISTINCT patient_id, sex FROM person) t GROUP BY sex",
    "SELECT sex, count(*) AS n FROM (SELECT patient_id, sex, max(age) AS a FROM person GROUP BY patient_id, sex) t GROUP BY sex",
    "SELECT x.label, count(*) AS n FROM person p JOIN (VALUES ('male', 'M'), ('female', 'F')) AS x(sex, label) ON p.sex = x.sex GROUP BY x.label",
    "SELECT count(*) AS n FROM visit v JOIN chapter c ON v.code = c.code WHERE c.label = 'heart'",
    "SELECT count(*) AS n FROM visit WHERE code IN (SELECT code FROM chapter WHERE label <> 'lung')",
    "SELECT p.sex, c.label, count(*) AS n FROM visit v JOIN person p ON v.patient_id = p.patient_id JOIN chapter c ON v.code = c.code \
     GROUP BY p.sex, c.label",
    "SELECT count(*) AS n FROM person p LEFT JOIN chapter c ON p.sex = c.label WHERE c.label IS NULL",
];

fn write_files(dir: &Path) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(11);
    let (mut person, mut visit) = (String::from("patient_id,sex,age\n"), String::from("patient_id,code,days,seen\n"));
    for id in 0..300_i64 {
        let id = id * 7919 % 1009 - 500;
        let sex = ["female", "male", "female", "male", ""][rng.random_range(0..5)];
        person += &format!("{id},{sex},{}\n", rng.random_range(0..100));
        for _ in 0..rng.random_range(0..8) {
            let code = ["A", "B", "C", "D"][rng.random_range(0..4)];
            let day = rng.random_range(1..29);
            visit += &format!("{id},{code},{},2024-{:02}-{day:02}\n", rng.random_range(0..21), rng.random_range(1..13));
        }
    }
    std::fs::write(dir.join("person.csv"), person).unwrap();
    std::fs::write(dir.join("visit.csv"), visit).unwrap();
    std::fs::write(dir.join("chapter.csv"), "code,label\nA,blood\nB,heart\nC,lung\n").unwrap();
}

fn mapping(dir: &Path) -> String {
    let mut toml = "id = \"engine\"\nsynthetic = true\n".to_string();
    for (table, columns) in
        [("person", "patient_id sex age"), ("visit", "patient_id code days seen"), ("chapter", "code label")]
    {
        toml +=
            &format!("[tables.{table}]\nsource = {:?}\n[tables.{table}.columns]\n", dir.join(format!("{table}.csv")));
        for column in columns.split(' ') {
            let sex = "sex = { sql = \"NULLIF(sex, '')\" }\n".to_string();
            toml += &if column == "sex" { sex } else { format!("{column} = \"{column}\"\n") };
        }
    }
    toml
}

/// Keys as text, and values as numbers; cells that hold nothing but zeros and NULLs are left out, since plain SQL has none.
fn cells(batches: &[RecordBatch], keys: usize, values: usize) -> BTreeMap<String, Vec<f64>> {
    let mut all = BTreeMap::new();
    for batch in batches {
        let column = |i: usize, to: &DataType| cast(batch.column(i), to).unwrap();
        for row in 0..batch.num_rows() {
            let text = |i: usize| {
                let array = column(i, &DataType::Utf8);
                let text = datafusion::arrow::util::display::array_value_to_string(&array, row).unwrap();
                if array.is_null(row) { "NULL".into() } else { text }
            };
            let number = |i: usize| {
                use datafusion::arrow::array::AsArray;
                let array = column(i, &DataType::Float64);
                let array = array.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
                if array.is_null(row) { f64::NAN } else { array.value(row) }
            };
            let key: Vec<String> = (0..keys).map(text).collect();
            let numbers: Vec<f64> = (keys..keys + values).map(number).collect();
            let key = key.join("|");
            let sum: &mut Vec<f64> = all.entry(key).or_insert_with(|| vec![0.0; values]);
            // NULL and "outside" print alike, and only one of them has rows here: the first value is a count, unless there is one
            // cell alone. A mean over nothing is the middle of its range.
            if keys == 0 || numbers[0].abs() > 0.5 {
                *sum = numbers;
            }
        }
    }
    all.retain(|_, values| values.iter().any(|v| v.abs() > 0.5));
    all
}

async fn plain(dir: &Path) -> SessionContext {
    let context = SessionContext::new();
    for (table, select) in [
        ("person", "CAST(patient_id AS BIGINT) AS patient_id, NULLIF(sex, '') AS sex, CAST(age AS BIGINT) AS age"),
        (
            "visit",
            "CAST(patient_id AS BIGINT) AS patient_id, code, CAST(days AS BIGINT) AS days, CAST(seen AS DATE) AS seen",
        ),
        ("chapter", "code, label"),
    ] {
        let options = datafusion::prelude::CsvReadOptions::new().schema_infer_max_records(0);
        let file = dir.join(format!("{table}.csv")).display().to_string();
        context.register_csv(format!("raw_{table}"), file, options).await.unwrap();
        let view = format!("CREATE VIEW {table} AS SELECT {select} FROM raw_{table}");
        context.sql(&view).await.unwrap().collect().await.unwrap();
    }
    context
}

/// What one query may spend on names, in 10^-18; the permit has twice as much.
const DELTA: u64 = 1_000_000_000;

/// A node over the files in `dir`, with a permit at these bounds that lasts for nine queries.
async fn node(dir: &Path, name: &str, bounds: (u32, u32)) -> (Solo, Permit, Digest) {
    let plan =
        Plan { data: vec![(SCHEMA, mapping(dir))], register_rule: "eu-ehds", register: None, budget: (10 * RHO, RHO) };
    let solo = Solo::build(&dir.join(name), &plan, Arc::new(TestClock::new())).await.unwrap();
    let permit = solo.permit("engine", "person", &["sex", "age"], |p| {
        p["data"] = serde_json::json!([
            {"table": "person", "columns": ["sex", "age"], "holder_nodes": ["solo"]},
            {"table": "visit", "columns": ["code", "days", "seen"], "holder_nodes": ["solo"]},
            {"table": "chapter", "columns": ["code", "label"], "holder_nodes": ["solo"]},
        ]);
        p["dp"]["rows_per_patient"] = bounds.0.into();
        p["dp"]["groups_per_patient"] = bounds.1.into();
        p["dp"]["micro_rho_per_query"] = RHO.into();
        p["dp"]["micro_rho_total"] = (10 * RHO).into();
        p["allowed_statistics"] = serde_json::json!([
            "count",
            "count_distinct",
            "sum",
            "avg",
            "variance",
            "covariance",
            "quantile",
            "extreme"
        ]);
        p["dp"]["atto_delta_per_query"] = DELTA.into();
        p["dp"]["atto_delta_total"] = (2 * DELTA).into();
    });
    let permit = permit.unwrap();
    let digest = solo.grant(&permit).await.unwrap();
    (solo, permit, digest)
}

fn analysed(sql: &str, permit: &Permit) -> PrivatePlan {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let plan = PrivatePlan::analyse(sql, &schema, permit, MicroRho::try_from(RHO).unwrap());
    plan.unwrap_or_else(|refusal| panic!("{sql}: {refusal}"))
}

async fn released(solo: &Solo, permit: Digest, sql: &str) -> Release {
    let answer = solo.ask(&solo.query(permit, sql, RHO, 1)).await;
    answer.unwrap_or_else(|refusal| panic!("{sql}: {refusal}")).release
}

#[tokio::test(flavor = "multi_thread")]
async fn with_negligible_noise_the_engine_agrees_with_plain_datafusion() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path());
    let plain = plain(dir.path()).await;
    // A register's lifetime cap, even a synthetic one, is spent after ten such queries.
    for (batch, queries) in QUERIES.chunks(9).enumerate() {
        let (solo, permit, digest) = node(dir.path(), &format!("node-{batch}"), (60, 20)).await;
        for sql in queries {
            let plan = analysed(sql, &permit);
            let combined = combine(&plan, &[&released(&solo, digest, sql).await]).unwrap();
            let released = plan.released_cells(&combined, true, 0.95, &[]).unwrap();
            let (keys, values) = (plan.parts()[0].keys().len(), plan.parts()[0].outputs().len());
            let got = cells(&released, keys, values);
            let truth = plain.sql(sql).await.unwrap().collect().await.unwrap();
            let want = cells(&truth, keys, values);
            assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{sql}\n{got:?}\n{want:?}");
            for (key, want) in &want {
                for (got, want) in got[key].iter().zip(want) {
                    let near = (got - want).abs() < 0.6 || (got.is_nan() && want.is_nan());
                    assert!(near, "{sql}, cell {key}: {got} and not {want}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_patient_moves_no_answer_by_more_than_the_bounds_say() {
    one_patient_moves(QUERIES).await;
}

/// Neighbours: the same hospital with one patient more, who has extreme values in hundreds of rows of every table. No measure of
/// any part moves by more than its sensitivity, and nothing else of a release does.
pub(crate) async fn one_patient_moves(queries: &[&str]) {
    let (without, with) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_files(without.path());
    write_files(with.path());
    let append = |file: &str, text: &str| {
        let path = with.path().join(file);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + text).unwrap();
    };
    append("person.csv", "70000,male,9999\n");
    let row = |i: i32| {
        format!(
            "70000,{},{},2024-{:02}-{:02}\n",
            ["A", "B", "C", "D"][i as usize % 4],
            i * 1000 - 99_999,
            i % 12 + 1,
            i % 28 + 1
        )
    };
    append("visit.csv", &(0..200).map(row).collect::<String>());
    for (batch, queries) in queries.chunks(9).enumerate() {
        let name = format!("node-{batch}");
        let (left, permit, digest) = node(without.path(), &name, (3, 2)).await;
        let (right, _, other) = node(with.path(), &name, (3, 2)).await;
        for sql in queries {
            let plan = analysed(sql, &permit);
            let (a, b) = (released(&left, digest, sql).await, released(&right, other, sql).await);
            assert_eq!(a.header().parts, b.header().parts, "{sql}: what a release is");
            for (place, part) in plan.parts().iter().enumerate() {
                for (i, measure) in part.measures().iter().enumerate() {
                    #[expect(clippy::cast_precision_loss)]
                    let moved = a.parts()[place][i]
                        .iter()
                        .zip(&b.parts()[place][i])
                        .map(|(a, b)| ((b - a) as f64).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    let bound = part.sensitivity(measure).0.to_string().parse::<f64>().unwrap().sqrt();
                    // The noise of a cell is some ten-thousandths of the bound.
                    assert!(moved <= bound * 1.01, "{sql}: {measure:?} moved by {moved}, the bound is {bound}");
                }
            }
        }
    }
}

/// Codes have no public domain: those of several patients come out, that of one patient does not, and delta is charged.
#[tokio::test(flavor = "multi_thread")]
async fn names_come_out_only_with_delta_and_only_with_several_patients() {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path());
    let path = dir.path().join("visit.csv");
    let rare: String = (0..50).map(|i| format!("90000,RARE,1,2024-01-{:02}\n", i % 28 + 1)).collect();
    let common: String = (0..40).map(|i| format!("{},COMMON,1,2024-01-01\n", 91_000 + i)).collect();
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &rare + &common).unwrap();
    let (solo, _, digest) = node(dir.path(), "node", (100, 5)).await;
    let sql = "SELECT code, count(*) AS n, count(DISTINCT patient_id) AS p FROM visit GROUP BY code";
    let code = |answer: Result<sekisho_node::answer::Answer, Refusal>| answer.err().map(|refusal| refusal.code);
    let ask = |atto_delta: u64, run: u32| {
        let mut query = solo.query(digest, sql, RHO, run);
        query.terms.atto_delta = AttoDelta::try_from(atto_delta).unwrap();
        query
    };
    assert_eq!(code(solo.ask(&ask(0, 1)).await), Some(Code::UnknownDomain));
    assert_eq!(code(solo.ask(&ask(DELTA + 1, 1)).await), Some(Code::BudgetQuery));
    let answer = solo.ask(&ask(DELTA, 1)).await.unwrap();
    let receipt = answer.receipt.peek::<Receipt>().unwrap().0;
    assert_eq!(receipt.atto_delta.get(), DELTA);
    let header = answer.release.header();
    let names: Vec<String> = header.parts[0].names.iter().flatten().flatten().map(ToString::to_string).collect();
    assert_eq!(names, ["A", "B", "C", "COMMON", "D"]);
    // The fourth name's patients, in steps of 2^32.
    let patients = answer.release.parts()[0][1][3] as f64 / f64::from(2.0_f32.powi(32));
    assert!((patients - 40.0).abs() < 0.5, "{patients}");
    assert!(solo.ask(&ask(DELTA, 1)).await.is_ok(), "the same run is served again");
    assert!(solo.ask(&ask(DELTA, 2)).await.is_ok());
    assert_eq!(code(solo.ask(&ask(DELTA, 3)).await), Some(Code::BudgetStudy));
}
