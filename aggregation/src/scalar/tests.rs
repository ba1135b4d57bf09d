use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, StringArray},
    record_batch::RecordBatch,
    util::display::array_value_to_string,
};
use datafusion_common::{
    DFSchema,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{Expr, execution_props::ExecutionProps};
use datafusion_physical_expr::create_physical_expr;
use sekisho_protocol::{
    refusal::{Code, Refusal},
    units::MicroRho,
};

use crate::{example, plan::PrivatePlan, sql::arrow_schema};

/// Rows of `stay` with the worst values that a snapshot holds.
fn extremes() -> RecordBatch {
    let schema = example::schema();
    let numbers = [Some(i64::MIN), Some(i64::MAX), Some(0), Some(-1), Some(104), None, Some(1), Some(-7)];
    let long = "x".repeat(1 << 20);
    let texts = [
        Some(""),
        Some("é"),
        Some("9223372036854775808"),
        Some("-0.0e400"),
        Some(long.as_str()),
        None,
        Some("+262142-12-31"),
        Some(" E11.9 "),
    ];
    let integers = || Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef;
    let text = || Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let most = 10_i128.pow(18) - 1;
    let decimals =
        Decimal128Array::from(vec![Some(most), Some(-most), Some(0), Some(1), Some(-1), None, Some(25), Some(-25)]);
    // 0001-01-01 and 9999-12-31: what a snapshot admits.
    let dates = vec![Some(-719_162), Some(2_932_896), Some(0), Some(-1), Some(1), None, Some(19_782), Some(19_783)];
    let dates = Date32Array::from(dates);
    let bools = [Some(true), Some(false), None, Some(true), Some(false), None, None, Some(true)];
    let bools = BooleanArray::from(bools.to_vec());
    let ids = Int64Array::from(vec![i64::MIN, -1, 0, 1, 2, i64::MAX, 3, 4]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        text(),
        integers(),
        Arc::new(decimals.with_precision_and_scale(18, 1).unwrap()),
        integers(),
        integers(),
        text(),
        Arc::new(bools),
        Arc::new(dates),
    ];
    RecordBatch::try_new(arrow_schema(schema.table("stay").unwrap()), columns).unwrap()
}

fn plan(sql: &str) -> Result<PrivatePlan, Refusal> {
    let rho = MicroRho::try_from(1000).unwrap();
    PrivatePlan::analyse(sql, &example::schema(), &example::permit(3, 2), rho)
}

fn evaluate(expr: &Expr) -> datafusion_common::Result<ArrayRef> {
    let batch = extremes();
    let schema = DFSchema::try_from_qualified_schema("stay", &batch.schema())?;
    let run = create_physical_expr(expr, &schema, &ExecutionProps::new(), &Default::default())?;
    run.evaluate(&batch)?.into_array(batch.num_rows())
}

/// Evaluates all of a plan's expressions over the extremes; `None` when the SQL is refused.
fn fails(condition: &str) -> Option<String> {
    let sql = format!("SELECT sex, count({condition}) FROM stay WHERE ({condition}) IS NOT NULL GROUP BY sex");
    let plan = plan(&sql).ok()?;
    let mut expressions = Vec::new();
    plan.parts[0]
        .rows()
        .apply(|node| {
            expressions.extend(node.expressions());
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
    Some(expressions.iter().find_map(|e| evaluate(e).err()).map(|e| e.to_string()).unwrap_or_default())
}

/// What an expression is in some row of the extremes, and its range.
#[track_caller]
fn is(expr: &str, row: usize, value: &str, range: Option<(i128, i128)>) {
    let counted = plan(&format!("SELECT count({expr}) FROM stay")).unwrap_or_else(|r| panic!("{expr}: {r}"));
    let array = evaluate(&counted.parts[0].arguments[0].expr).unwrap();
    assert_eq!(array_value_to_string(&array, row).unwrap(), value, "{expr}, row {row}");
    let summed = plan(&format!("SELECT sum({expr}) FROM stay")).ok().and_then(|p| p.parts[0].arguments[0].range);
    assert_eq!(summed, range, "{expr}");
}

#[test]
fn what_an_expression_is_and_its_range() {
    // Rows of `extremes`: 0 the least of all, 1 the largest, 5 NULL.
    is("free / age", 0, "1", None);
    is("free / age", 2, "", None);
    is("age / free", 7, "1", Some((-120, 120)));
    is("free / (free - free)", 0, "", None);
    is("free / -1", 0, "", None);
    is("days / nullif(age, 0)", 4, "1", Some((-100, 100)));
    is("days / least(greatest(age, 5), 50)", 4, "2", Some((0, 20)));
    is("free % age", 7, "0", None);
    is("days % free", 2, "", Some((-100, 100)));
    is("weight / 4", 6, "0.62500", Some((0, 7_500_000)));
    is("weight / free", 2, "", Some((-30_000_000, 30_000_000)));
    is("weight / 0.5", 6, "5.00000", Some((0, 60_000_000)));
    is("abs(free)", 0, "", None);
    is("abs(days - 60)", 7, "67", Some((0, 60)));
    is("abs(weight)", 7, "2.5", Some((0, 3000)));
    is("sign(weight)", 7, "-1", Some((-1, 1)));
    is("round(weight)", 7, "-3", Some((0, 300)));
    is("floor(weight)", 7, "-3", Some((0, 300)));
    is("ceil(weight)", 7, "-2", Some((0, 300)));
    is("floor(weight / 10)", 7, "-1", Some((0, 30)));
    is("admitted + INTERVAL '1 month'", 6, "2024-03-29", None);
    is("admitted - INTERVAL '1' YEAR", 6, "2023-02-28", None);
    is("admitted + INTERVAL '10' DAY", 1, "", None);
    is("admitted - INTERVAL '1 month 1 day'", 7, "2024-01-31", None);
    is("admitted - (admitted - INTERVAL '7' DAY)", 6, "7", Some((-358, 372)));
    is("date_trunc('month', admitted)", 6, "2024-02-01", None);
    is("date_trunc('week', admitted)", 0, "0001-01-01", None);
    is("admitted - DATE '2024-01-01'", 6, "59", Some((0, 365)));
    is("date_part('year', admitted) - date_part('year', admitted - INTERVAL '3' YEAR)", 6, "3", Some((3, 3)));
    is("note || '-' || sex", 1, "é-é", None);
    is("concat(note, 'x', sex)", 5, "x", None);
    is("note || 'x'", 5, "", None);
    is("note || 'x'", 4, "", None);
    is("trim(note)", 7, "E11.9", None);
    is("right(trim(note), 1)", 7, "9", None);
    is("strpos(note, '11')", 7, "3", None);
    is("position('E' IN note)", 7, "2", None);
    is("replace(note, '.', '')", 7, " E119 ", None);
    is("CASE WHEN left(trim(note), 3) BETWEEN 'E10' AND 'E14' THEN 1 ELSE 0 END", 7, "1", Some((0, 1)));
    is("left(trim(note), 1)", 7, "E", None);
}

#[test]
fn what_is_admitted_fails_on_no_value() {
    for condition in [
        "age + days - free * 7",
        "-free",
        "free / 3 + free % 7",
        "weight + weight > 1.5",
        "weight * weight > 1",
        "weight - 0.1",
        "TRY_CAST(note AS bigint)",
        "TRY_CAST(note AS int)",
        "TRY_CAST(note AS date)",
        "TRY_CAST(note AS boolean)",
        "TRY_CAST(note AS decimal(18, 3))",
        "date_part('year', TRY_CAST(note AS date))",
        "date_part('week', TRY_CAST(note AS date) + INTERVAL '5' MONTH)",
        "date_trunc('quarter', TRY_CAST(note AS date))",
        "TRY_CAST(note AS date) - admitted",
        "admitted - INTERVAL '2000' YEAR",
        "admitted + 30",
        "date_trunc('week', admitted)",
        "free / age",
        "free % age",
        "free / weight",
        "weight / free",
        "weight / -0.1",
        "(weight * weight) / weight",
        "date_part('year', admitted) / date_part('month', admitted)",
        "date_part('year', admitted) - 2000",
        "-weight",
        "abs(free) + sign(free)",
        "abs(weight)",
        "round(weight * weight) + floor(weight) - ceil(weight)",
        "note || note || 'x'",
        "concat(note, free, died)",
        "right(note, 3)",
        "trim(note)",
        "trim(LEADING 'x' FROM note)",
        "replace(note, 'xx', 'yy')",
        "strpos(note, 'x')",
        "position('x' IN note)",
        "TRY_CAST(free AS int)",
        "TRY_CAST(free AS decimal(10, 2))",
        "TRY_CAST(free AS text)",
        "TRY_CAST(weight AS bigint)",
        "TRY_CAST(weight AS text)",
        "CAST(free AS text)",
        "CAST(died AS bigint)",
        "CAST(free AS decimal(30, 4))",
        "left(note, 3)",
        "left(note, 0)",
        "substr(note, 1, 3)",
        "substring(note FROM 2)",
        "upper(note) = lower(note)",
        "character_length(note)",
        "starts_with(note, 'E11')",
        "note LIKE 'E1_%'",
        "note ILIKE '%x%'",
        "NOT (note LIKE '%_%_%_x')",
        "coalesce(free, age, 0)",
        "nullif(free, 0)",
        "nullif(note, '')",
        "date_part('year', admitted)",
        "date_part('week', admitted)",
        "date_part('doy', admitted)",
        "extract(month FROM admitted)",
        "admitted BETWEEN DATE '2024-01-01' AND DATE '2024-12-31'",
        "admitted - admitted > 30",
        "free IN (1, 2, 3)",
        "note NOT IN ('a', 'b')",
        "CASE free WHEN 1 THEN age WHEN 2 THEN days ELSE free END",
        "CASE WHEN died IS TRUE THEN 1 WHEN died IS UNKNOWN THEN 2 END",
        "free IS DISTINCT FROM age",
        "died AND age > 3 OR NOT died",
    ] {
        assert_eq!(fails(condition).as_deref(), Some(""), "{condition} (None: refused)");
    }
}

#[test]
fn what_fails_on_some_value_is_refused() {
    let long = format!("note LIKE '{}%x'", "_".repeat(30_000));
    for condition in [
        "CAST(TRY_CAST(CASE WHEN age = 104 THEN 2000000000 ELSE 0 END AS date) AS text)",
        "TRY_CAST(TRY_CAST(free AS timestamp(0)) AS text)",
        "TRY_CAST(free AS time)",
        "TRY_CAST(note AS timestamp)",
        "CAST(admitted AS text)",
        "substr(note, -9223372036854775808, 1)",
        "substr(note, 0, 1)",
        "substr(note, 1, -1)",
        "left(note, -1)",
        "left(note, age)",
        long.as_str(),
        "note LIKE 'a!_' ESCAPE '!'",
        "note LIKE note",
        "note ~ 'a'",
        "TRY_CAST(note AS double)",
        "TRY_CAST(free AS decimal(5, -2))",
        "CAST(free AS double) > 1",
        "CAST(18446744073709551615 AS bigint) = free",
        "free > 1e300",
        "admitted < TIMESTAMP '2024-01-01 00:00:00'",
        "admitted + INTERVAL '1 hour'",
        "admitted + free",
        "admitted + free * INTERVAL '1 day'",
        "date_part('year', note)",
        "date_part('epoch', admitted)",
        "date_trunc('hour', admitted)",
        "right(note, -1)",
        "replace(note, '', 'x')",
        "replace(note, 'x', 'xy')",
        "replace(note, sex, 'x')",
        "strpos(note, note)",
        "trim(BOTH sex FROM note)",
        "round(weight, 2)",
        "free / 0",
        "weight / 0.0",
        "free / NULL",
        "free % 0",
        "CAST(note AS bigint)",
        "CAST(free AS int)",
        "CAST(weight AS bigint)",
        "CAST(free AS timestamp)",
        "weight * weight * weight",
    ] {
        assert_eq!(fails(condition), None, "{condition} is admitted");
    }
}

#[test]
fn a_refusal_says_where() {
    for (sql, place) in [
        ("SELECT count(*)\nFROM stay\nWHERE age > 1 AND note ~ 'a'", "(line 3, column 19)"),
        ("SELECT count(*) FROM stay WHERE age > 1 AND substr(note, age) = 'x'", "(line 1, column 52)"),
        ("SELECT count(*) FROM stay WHERE nothing = 1", "(line 1, column 33)"),
        ("SELECT count(*) FROM stay WHERE age = 3 OR\n patient_id = 5", "(line 2, column 2)"),
        ("SELECT count(*)\nFROM (SELECT sex FROM stay LIMIT 1) t", "(line 2, column 28)"),
        ("SELECT count(*) FROM stay WHERE sex = mode(sex)", "(line 1, column 39)"),
        (
            "SELECT count(*) FROM (SELECT patient_id, sum(\nfree * free * weight) AS s FROM stay GROUP BY 1) t",
            "(line 2, column 1)",
        ),
    ] {
        let refusal = plan(sql).err().unwrap_or_else(|| panic!("{sql} is admitted"));
        assert!(refusal.detail.ends_with(place), "{sql}: {refusal}");
    }
    assert_eq!(plan("SELECT count(*) FROM stay LIMIT 1 LIMIT 1").err().unwrap().code, Code::SqlSyntax);
}
