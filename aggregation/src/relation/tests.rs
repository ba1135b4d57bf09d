use datafusion_expr::{col, lit};
use sekisho_protocol::{permit::Permit, units::MicroRho};

use super::*;
use crate::{example, plan::PrivatePlan, sql};

fn analyse_by(sql: &str, schema: &Schema, permit: &Permit) -> Result<PrivatePlan, Refusal> {
    PrivatePlan::analyse(sql, schema, permit, MicroRho::try_from(1000).unwrap())
}

fn analyse(sql: &str) -> Result<PrivatePlan, Refusal> {
    analyse_by(sql, &example::schema(), &example::permit(3, 2))
}

#[track_caller]
fn admitted(sql: &str) -> PrivatePlan {
    let plan = analyse(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    assert!(!plan.canonical().contains("Float64"), "{sql}\n{}", plan.canonical());
    plan
}

/// The range of the only sum of a query, at its scale.
#[track_caller]
fn range(sql: &str) -> (Option<(i128, i128)>, u32) {
    let plan = admitted(sql);
    (plan.parts[0].arguments[0].range, plan.parts[0].arguments[0].scale)
}

/// The aggregate under the select list.
#[track_caller]
fn reducing(plan: &LogicalPlan) -> &Aggregate {
    let LogicalPlan::Projection(last) = plan else { panic!("{plan}") };
    let LogicalPlan::Aggregate(aggregate) = &*last.input else { panic!("{plan}") };
    aggregate
}

/// A subquery over `stay` as one word, so that rows of cases stay short.
fn of_stay(select: &str, outer: &str) -> String {
    format!("SELECT {outer} FROM (SELECT {select} FROM stay) t")
}

fn per_patient(select: &str, outer: &str) -> String {
    format!("SELECT {outer} FROM (SELECT patient_id, {select} FROM stay GROUP BY patient_id) t")
}

#[test]
fn what_is_refused_per_patient_is_named() {
    use Code::{ColumnNotPermitted, SqlUnsupported, UnboundedColumn};
    let values = |n: usize| {
        let rows = vec!["(1)"; n].join(", ");
        format!("SELECT count(*) FROM stay s JOIN (VALUES {rows}) v(x) ON s.age = v.x")
    };
    let many = values(1_001);
    for (sql, code, names) in [
        (per_patient("stddev(days) AS x", "count(x)").as_str(), SqlUnsupported, "stddev"),
        (&per_patient("median(days) AS x", "count(x)"), SqlUnsupported, "median"),
        (&per_patient("sum(DISTINCT days) AS x", "count(x)"), SqlUnsupported, "DISTINCT"),
        (&per_patient("sum(admitted) AS x", "count(x)"), SqlUnsupported, "integer or a decimal"),
        (&per_patient("sum(note) AS x", "count(x)"), SqlUnsupported, "integer or a decimal"),
        (
            &per_patient("avg(weight * TRY_CAST(note AS decimal(18, 1))) AS x", "count(x)"),
            SqlUnsupported,
            "shorter decimal",
        ),
        (&per_patient("sum(free) AS x", "sum(x)"), UnboundedColumn, "range"),
        (&per_patient("max(patient_id) AS x", "count(x)"), ColumnNotPermitted, "patient"),
        (&of_stay("ntile(4) OVER (PARTITION BY patient_id ORDER BY age) AS x", "count(x)"), SqlUnsupported, "ntile"),
        (
            &of_stay("cume_dist() OVER (PARTITION BY patient_id ORDER BY age) AS x", "count(x)"),
            SqlUnsupported,
            "cume_dist",
        ),
        (
            &of_stay("lag(age, 1, 0) OVER (PARTITION BY patient_id ORDER BY age) AS x", "count(x)"),
            SqlUnsupported,
            "default",
        ),
        (
            &of_stay("lag(age, 0) OVER (PARTITION BY patient_id ORDER BY age) AS x", "count(x)"),
            SqlUnsupported,
            "offset",
        ),
        (
            &of_stay(
                "sum(age) OVER (PARTITION BY patient_id ORDER BY age GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS x",
                "count(x)",
            ),
            SqlUnsupported,
            "frame",
        ),
        // Joins that give every pair of rows.
        ("SELECT count(*) FROM stay s JOIN (VALUES (1), (2)) v(x) ON s.age > v.x", SqlUnsupported, "equality"),
        ("SELECT count(*) FROM stay, (VALUES (1), (2)) v(x)", SqlUnsupported, "equality"),
        ("SELECT count(*) FROM stay s JOIN (VALUES (1), (2)) v(x) ON v.x = 1", SqlUnsupported, "equality"),
        ("SELECT count(*) FROM stay s JOIN (VALUES (1), (2)) v(x) ON v.x = v.x", SqlUnsupported, "equality"),
        ("SELECT count(*) FROM stay s JOIN (VALUES (1 + 1)) v(x) ON s.age = v.x", SqlUnsupported, "literal"),
        (&many, SqlUnsupported, "1001 rows"),
        ("SELECT count(*) FROM stay INTERSECT SELECT count(*) FROM stay", SqlUnsupported, ""),
        (
            "SELECT count(*) FROM (SELECT patient_id FROM stay INTERSECT SELECT patient_id FROM summary) t",
            SqlUnsupported,
            "",
        ),
    ] {
        match analyse(sql) {
            Ok(plan) => panic!("admitted: {sql}\n{}", plan.canonical()),
            Err(refusal) => {
                assert_eq!(refusal.code, code, "{sql}: {refusal}");
                assert!(refusal.detail.contains(names), "{sql}: {refusal}");
            }
        }
    }
    admitted(&values(1_000));
}

#[test]
fn sums_and_means_of_a_patient_are_exact_and_have_ranges() {
    for (select, of, expect) in [
        ("sum(days) AS x", "sum(x)", (Some((0, 100_000_000_000)), 0)),
        ("sum(days - 5) AS x", "sum(x)", (Some((-5_000_000_000, 95_000_000_000)), 0)),
        ("sum(weight) AS x", "sum(x)", (Some((0, 3_000_000_000_000)), 1)),
        ("avg(days) AS x", "avg(x)", (Some((0, 1_000_000)), 4)),
        ("avg(weight) AS x", "avg(x)", (Some((0, 30_000_000)), 5)),
        ("avg(weight * weight) AS x", "sum(round(x))", (Some((0, 90_000)), 0)),
        ("sum(free) AS x", "sum(least(greatest(x, 0), 50))", (Some((0, 50)), 0)),
        ("avg(free) AS x", "sum(least(greatest(x, 0), 50))", (Some((0, 500_000)), 4)),
        ("count(*) AS x", "sum(least(x, 9))", (Some((0, 9)), 0)),
        ("count(DISTINCT note) AS x", "sum(least(x, 9))", (Some((0, 9)), 0)),
        ("sum(days) FILTER (WHERE died) AS x", "sum(least(x, 400))", (Some((0, 400)), 0)),
        ("max(admitted) - min(admitted) AS x", "avg(x)", (Some((-365, 365)), 0)),
        ("max(days) / nullif(min(days), 0) AS x", "sum(x)", (Some((-100, 100)), 0)),
    ] {
        assert_eq!(range(&per_patient(select, of)), expect, "{select}");
    }
    for (select, of, expect) in [
        ("sum(days) OVER (PARTITION BY patient_id ORDER BY admitted) AS x", "sum(least(x, 300))", (0, 300)),
        ("avg(days) OVER (PARTITION BY patient_id) AS x", "sum(x)", (0, 1_000_000)),
        ("row_number() OVER (PARTITION BY patient_id ORDER BY admitted) AS x", "sum(least(x, 5))", (0, 5)),
        ("admitted - lag(admitted) OVER (PARTITION BY patient_id ORDER BY admitted) AS x", "sum(x)", (-365, 365)),
    ] {
        assert_eq!(range(&of_stay(select, of)).0, Some(expect), "{select}");
    }
    let shown = |select: &str| admitted(&per_patient(select, "count(x)")).parts[0].rows().display_indent().to_string();
    let free = shown("sum(free) AS x");
    assert!(free.contains("sum(TRY_CAST(stay.free AS Decimal128(22, 0)))"), "{free}");
    assert!(free.contains("AS Int64) AS sum(stay.free)"), "{free}");
    let days = shown("avg(days) AS x");
    assert!(days.contains("avg(TRY_CAST(CASE WHEN stay.days < Int64(0)"), "{days}");
    assert!(shown("avg(weight) AS x").contains("Decimal128(22, 1)"));
}

#[test]
fn steps_per_patient_become_keys_and_conditions() {
    for (sql, cells) in [
        (per_patient("bool_or(died) AS x", "x, count(*)") + " GROUP BY x", 3),
        (per_patient("bool_and(age > 17) AS x", "count(*)") + " WHERE x", 1),
        (per_patient("min(sex) AS x", "x, count(*)") + " GROUP BY x", 4),
        (per_patient("min(note) AS x", "count(*)") + " WHERE x LIKE 'E11%'", 1),
        (per_patient("min(admitted) AS x", "date_trunc('quarter', x), count(*)") + " GROUP BY 1", 6),
        (per_patient("sum(days) AS x", "least(x, 3), count(*)") + " GROUP BY 1", 6),
        (per_patient("avg(days) AS x", "x > 3.5, count(*)") + " GROUP BY 1", 3),
        (
            of_stay("sex, row_number() OVER (PARTITION BY patient_id ORDER BY age) AS x", "least(x, 2), count(*)")
                + " GROUP BY 1",
            5,
        ),
        ("SELECT date_trunc('month', admitted), count(*) FROM stay GROUP BY 1".into(), 14),
        ("SELECT substr(sex, 1, 1), count(*) FROM stay GROUP BY 1".into(), 4),
        (
            "SELECT CASE WHEN left(note, 1) = 'I' THEN 'heart' WHEN left(note, 3) BETWEEN 'E10' AND 'E14' THEN 'diabetes' END, \
             count(*) FROM stay WHERE substr(note, 1, 1) <> 'Z' GROUP BY 1"
                .into(),
            3,
        ),
    ] {
        assert_eq!(admitted(&sql).cells(), cells, "{sql}");
    }
}

#[test]
fn ties_are_broken_by_the_columns_that_the_query_uses_and_by_no_others() {
    let shown = |select: &str, outer: &str| {
        let plan = admitted(&of_stay(&format!("*, {select}"), outer));
        (plan.parts[0].rows().display_indent().to_string(), plan.columns().len())
    };
    let over = "OVER (PARTITION BY patient_id ORDER BY admitted";
    let by = "ORDER BY [stay.admitted ASC NULLS LAST";
    for (select, order) in [
        (format!("row_number() {over}) AS x"), ", stay.days ASC NULLS FIRST] RANGE"),
        (format!("lag(age) {over}) AS x"), ", stay.age ASC NULLS FIRST, stay.days ASC NULLS FIRST] RANGE"),
        (
            format!("last_value(age) {over}) AS x"),
            ", stay.age ASC NULLS FIRST, stay.days ASC NULLS FIRST] ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
        ),
        (
            format!("first_value(age) {over} RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS x"),
            ", stay.age ASC NULLS FIRST, stay.days ASC NULLS FIRST] ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
        ),
        (
            format!("count(*) {over} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS x"),
            ", stay.days ASC NULLS FIRST] ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
        ),
        (format!("rank() {over}) AS x"), "] RANGE"),
        (format!("count(age) {over}) AS x"), "] RANGE"),
    ] {
        let (plan, columns) = shown(&select, "sum(days), count(x)");
        assert!(plan.contains(&format!("{by}{order}")), "{select}\n{plan}");
        assert_eq!(columns, if select.contains("age") { 3 } else { 2 }, "{select}");
    }
    // The permit names sex of summary, and not age.
    let first = "row_number() OVER (PARTITION BY patient_id ORDER BY sex) AS r";
    admitted(&format!("SELECT sex, count(*) FROM (SELECT *, {first} FROM summary) t WHERE r = 1 GROUP BY sex"));
    // A window over another one breaks ties by the other's result; what has no ties is in a node of its own.
    let two = "row_number() OVER (PARTITION BY patient_id ORDER BY days) AS a, row_number() OVER (PARTITION BY patient_id ORDER BY age) AS b, \
               dense_rank() OVER (PARTITION BY patient_id ORDER BY age) AS c";
    let plan =
        admitted(&(of_stay(two, "count(*)") + " WHERE a + b + c = 7")).parts[0].rows().display_indent().to_string();
    let windows: Vec<&str> = plan.lines().filter(|l| l.trim_start().starts_with("WindowAggr")).collect();
    assert_eq!(windows.len(), 3, "{plan}");
    assert_eq!(windows.iter().filter(|w| w.contains("windowExpr=[[dense_rank")).count(), 1, "{plan}");
    assert!(windows[0].contains("CURRENT ROW ASC NULLS FIRST, row_number() PARTITION BY"), "{plan}");
    // Without the second walk every column breaks ties.
    let planned = sql::plan(&of_stay(first, "count(r)"), &example::schema()).unwrap();
    let all = Walk::new(&example::schema()).relation(&reducing(&planned.typed).input).unwrap().plan;
    assert!(all.display_indent().to_string().contains("stay.note ASC NULLS FIRST, stay.died"), "{all}");
}

#[test]
fn joins_are_few() {
    let joins = |n: usize| {
        let more: String = (0..n).map(|i| format!(" JOIN summary s{i} ON s.patient_id = s{i}.patient_id")).collect();
        analyse(&format!("SELECT count(*) FROM stay s{more}"))
    };
    assert!(joins(8).is_ok());
    assert!(joins(9).err().unwrap().detail.contains("8 times"));
    let within = " AND patient_id IN (SELECT patient_id FROM summary)".repeat(9);
    let refusal = analyse(&format!("SELECT count(*) FROM stay WHERE age > 1{within}")).err().unwrap();
    assert!(refusal.detail.contains("8 times"), "{refusal}");
}

#[test]
fn an_outer_join_gives_null_to_the_other_side_alone() {
    let values = "(VALUES ('E11', 'diabetes'), ('I10', 'hypertension')) AS v(code, label)";
    let bands = "(SELECT patient_id, note, days, CASE WHEN age < 18 THEN 'a' ELSE 'b' END AS band FROM stay) s";
    for (join, key, cells) in
        [("JOIN", "v.label", 2), ("LEFT JOIN", "v.label", 3), ("JOIN", "s.band", 2), ("LEFT JOIN", "s.band", 2)]
    {
        let sql =
            format!("SELECT {key}, count(*), sum(days) FROM {bands} {join} {values} ON s.note = v.code GROUP BY 1");
        let plan = admitted(&sql);
        assert_eq!((plan.cells(), plan.parts[0].arguments[0].range), (cells, Some((0, 100))), "{sql}");
        assert_eq!(plan.parts[0].rows_per_patient, 3);
    }
    let right = format!("SELECT s.band, count(*) FROM {values} RIGHT JOIN {bands} ON s.note = v.code GROUP BY 1");
    assert_eq!(admitted(&right).cells(), 2);
}

/// `n` views on top of each other, each of which says `next` of the last one's x.
fn stacked(n: usize, next: &str, last: &str) -> String {
    let mut sql = String::from("WITH t0 AS (SELECT patient_id, age AS x, note FROM stay)");
    for i in 1..=n {
        sql += &format!(", t{i} AS (SELECT patient_id, {next} AS x, note FROM t{})", i - 1);
    }
    sql + &last.replace("LAST", &format!("t{n}"))
}

#[test]
fn views_that_double_each_other_are_refused_wherever_they_end() {
    for last in [
        " SELECT count(*) FROM LAST WHERE x > 3",
        " SELECT sum(x) FROM LAST",
        " SELECT count(*) FROM LAST GROUP BY x > 3",
        " SELECT count(*) FROM LAST a JOIN LAST b ON a.patient_id = b.patient_id AND a.x > b.x",
        " SELECT count(m) FROM (SELECT patient_id, max(x) AS m FROM LAST GROUP BY patient_id) t",
        " SELECT count(m) FROM (SELECT lag(x) OVER (PARTITION BY patient_id ORDER BY note) AS m FROM LAST) t",
        " SELECT count(*) FROM stay WHERE patient_id IN (SELECT patient_id FROM LAST WHERE x = 1)",
    ] {
        let refusal = analyse(&stacked(12, "x + x * 2", last)).err().unwrap_or_else(|| panic!("{last} is admitted"));
        assert!(refusal.detail.contains("parts"), "{last}: {refusal}");
    }
    let few = stacked(6, "x + x * 2", " SELECT count(*) FROM LAST WHERE x > 3");
    assert!(analyse(&few).is_ok());
    // Calls on top of each other: planned at once, since each view's columns have types.
    let calls = "coalesce(lower(upper(concat(x, 'y'))), upper(lower(x)), 'z')";
    assert!(analyse(&stacked(12, calls, " SELECT count(*) FROM LAST WHERE x > 'a'")).is_err());
    let calls = "lower(upper(trim(lower(upper(trim(CAST(x AS text)))))))";
    assert!(analyse(&stacked(12, calls, " SELECT count(*) FROM LAST WHERE x > 'a'")).is_ok());
    // No view can do what parentheses may not: nested calls are typed anew at each level.
    let deep = format!("SELECT count(*) FROM stay WHERE {}note{} = 'x'", "lower(".repeat(12), ")".repeat(12));
    assert!(analyse(&deep).is_ok());
}

#[test]
fn a_column_that_is_not_there_is_refused_and_so_is_what_the_engine_cannot_run() {
    let planned = sql::plan("SELECT count(age) FROM stay", &example::schema()).unwrap();
    let relation = Walk::new(&example::schema()).relation(&reducing(&planned.typed).input).unwrap();
    let nowhere = || Column::from_name("nowhere");
    for expr in [
        Expr::Column(nowhere()),
        Expr::Column(nowhere()).is_null(),
        Expr::Column(nowhere()).eq(lit(1_i64)),
        lit(u64::MAX),
        lit(u64::MAX).eq(lit(1_u64)),
        // Only texts are LIKE anything.
        col("stay.age").like(lit("1%")),
    ] {
        assert!(relation.admit(expr.clone()).is_err(), "{expr}");
    }
    assert!(relation.admit(col("stay.note").like(lit("1%"))).is_ok());
    assert!(fact_of(&Expr::Column(nowhere()), &relation).is_err());
    assert!(fact_of(&Expr::Column(nowhere()).is_null(), &relation).is_err());
    assert!(column_fact(example::schema().table("stay").unwrap(), "nowhere").is_err());
}

#[test]
fn a_walk_says_what_it_saw() {
    let sql = "SELECT avg(least(n, 20)) FROM (SELECT s.patient_id, count(*) AS n, sum(s.weight) AS w FROM stay s JOIN summary m \
               ON s.patient_id = m.patient_id WHERE m.sex = 'male' GROUP BY s.patient_id) t";
    let planned = sql::plan(sql, &example::schema()).unwrap();
    let schema = example::schema();
    let mut walk = Walk::new(&schema);
    walk.under(reducing(&planned.typed)).unwrap();
    let lines: Vec<(usize, &str)> = walk.steps.iter().map(|s| (s.depth, s.operator.as_str())).collect();
    let expect = [
        (0, "As t"),
        (1, "Select"),
        (2, "Aggregate per patient"),
        (3, "Filter"),
        (4, "Join on the patient"),
        (5, "As s"),
        (6, "Scan stay"),
        (5, "As m"),
        (6, "Scan summary"),
    ];
    assert_eq!(lines, expect);
    assert_eq!(
        walk.steps[0].facts,
        "patient patient_id; rows per patient 1; n 0 to 1000000000; w 0.0 to 300000000000.0"
    );
    assert_eq!(
        walk.steps[6].facts,
        "patient patient_id; rows per patient unbounded; sex 2 public values; age 0 to 120; weight 0.0 to 300.0; days 0 to 100; \
         free; note; died 2 public values; admitted 2024-01-01 to 2024-12-31"
    );
    assert_eq!(walk.steps[8].facts, "patient patient_id; rows per patient 1; sex 2 public values; age 0 to 120");
}

/// The schema and queries of `tests/tests/all/engine.rs`, which compares their answers with plain DataFusion's.
const ENGINE_SCHEMA: &str = r#"{"id":"engine","version":1,"title":"t","tables":[
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

const ENGINE: &[&str] = &[
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
];

#[test]
fn the_queries_of_the_end_to_end_test_are_admitted() {
    let schema: Schema = serde_json::from_str(ENGINE_SCHEMA).unwrap();
    let mut permit = example::permit(60, 20);
    permit.data = serde_json::from_str(
        r#"[{"table":"person","columns":["sex","age"],"holder_nodes":["h"]},
            {"table":"visit","columns":["code","days","seen"],"holder_nodes":["h"]},
            {"table":"chapter","columns":["code","label"],"holder_nodes":["h"]}]"#,
    )
    .unwrap();
    for sql in ENGINE {
        analyse_by(sql, &schema, &permit).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    }
}
