//! The engine without noise, and with bounds that bite, against a slow and obvious implementation of DESIGN.md §5.
//!
//! The rows come from plain SQL; what the bounds make of them is worked out here, a patient at a time, in integers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        datatypes::{DataType, Decimal128Type, Int64Type},
        util::display::array_value_to_string,
    },
    prelude::SessionContext,
};
use rand::{SeedableRng, rngs::StdRng};
use sekisho_aggregation::plan::{CellKey, Part, Quantity};
use sekisho_protocol::schema::{Bounds, Kind, Schema};

use super::{
    generate::{Draw, is_bounded_number},
    source::Source,
};
use crate::library::{Library, permit};

/// A question, and the rows that it is about: patient, key, value, condition.
const STATEMENTS: &[&str] = &[
    "{e} e",
    "{e} e WHERE {e.filter#f}",
    "{e} e JOIN {p} p ON p.{pid} = e.{pid} WHERE {p.filter#f}",
    "{e} e LEFT JOIN {o} o ON o.{pid} = e.{pid} AND {o.filter#f} WHERE {e.filter#f}",
    "{e} e WHERE e.{pid} IN (SELECT o.{pid} FROM {o} o WHERE {o.filter#f})",
    "{e} e WHERE NOT EXISTS (SELECT 1 FROM {o} o WHERE o.{pid} = e.{pid} AND {o.filter#f})",
    "{e} e {e.join#j} WHERE {e.filter#f}",
];

fn statement(from: &str) -> String {
    let (key, value, condition) = ("{e.key#k}", "{e.bounded#v}", "{e.filter#c}");
    format!(
        "SELECT {key} AS k, count(*) AS n, count({value}) AS v, sum({value}) AS s, avg({value}) AS a, count(DISTINCT e.{{pid}}) AS d, \
         count(*) FILTER (WHERE {condition}) AS f, count(DISTINCT e.{{pid}}) FILTER (WHERE {condition}) AS g FROM {from} GROUP BY 1 \
         ;; SELECT e.{{pid}} AS p, {key} AS k, {value} AS v, {condition} AS c FROM {from}"
    )
}

/// One row: its key, its value in fixed point, and whether the condition holds.
struct Row {
    key: Option<String>,
    value: Option<i128>,
    holds: bool,
}

async fn rows(tables: &SessionContext, sql: &str) -> BTreeMap<String, Vec<Row>> {
    let mut patients: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for batch in tables.sql(sql).await.unwrap().collect().await.unwrap() {
        let text = |column: usize, row: usize| {
            let array = batch.column(column);
            array.is_valid(row).then(|| array_value_to_string(array, row).unwrap())
        };
        for row in 0..batch.num_rows() {
            let value = batch.column(2);
            let value = value.is_valid(row).then(|| match value.data_type() {
                DataType::Int64 => value.as_primitive::<Int64Type>().value(row).into(),
                _ => value.as_primitive::<Decimal128Type>().value(row),
            });
            let holds = text(3, row).as_deref() == Some("true");
            patients.entry(text(0, row).unwrap()).or_default().push(Row { key: text(1, row), value, holds });
        }
    }
    patients
}

/// The cell of each key that the rows have: its value's, or that of NULL, or that of whatever is outside.
fn cells(part: &Part, patients: &BTreeMap<String, Vec<Row>>) -> BTreeMap<Option<String>, usize> {
    let keys: Vec<CellKey> = (0..part.cells()).map(|i| part.cell(1, i, None).remove(0)).collect();
    let place = |key: &Option<String>| {
        let own = keys.iter().position(|k| match (k, key) {
            (CellKey::Value(value), Some(key)) => value.to_string() == *key,
            (CellKey::Null, None) => true,
            _ => false,
        });
        own.unwrap_or_else(|| keys.iter().position(|k| *k == CellKey::Outside).unwrap())
    };
    let found: BTreeSet<Option<String>> = patients.values().flatten().map(|row| row.key.clone()).collect();
    found.into_iter().map(|key| (key.clone(), place(&key))).collect()
}

/// floor(bound · one / n) where n is more than the bound, else one.
fn weight(one: i128, bound: u32, n: usize) -> i128 {
    if n > bound as usize { i128::from(bound) * one / i128::try_from(n).unwrap() } else { one }
}

/// The cells of every measure of `part`, in lattice units.
fn reference(
    part: &Part,
    patients: &BTreeMap<String, Vec<Row>>,
    k: u32,
    g: u32,
    range: (i128, i128),
) -> Vec<Vec<i128>> {
    const ONE: i128 = 1 << 32;
    let of_patients = if g as usize >= part.cells() { 1 } else { ONE };
    let argument = part
        .measures()
        .iter()
        .find_map(|m| if let Quantity::Sum { argument, .. } = m.quantity { Some(argument) } else { None });
    let places = cells(part, patients);
    let mut all = vec![vec![0; part.cells()]; part.measures().len()];
    for rows in patients.values() {
        let row_weight = weight(ONE, k, rows.len());
        // Cell by cell: its rows, the rows with a value, the sum of clamped values, the rows where the condition holds.
        let mut cells: BTreeMap<usize, [i128; 4]> = BTreeMap::new();
        for row in rows {
            let here = cells.entry(places[&row.key]).or_default();
            here[0] += 1;
            here[1] += i128::from(row.value.is_some());
            here[2] += row.value.map_or(0, |v| v.max(range.0).min(range.1));
            here[3] += i128::from(row.holds);
        }
        let with_condition = cells.values().filter(|c| c[3] > 0).count();
        for (cell, [n, present, sum, holds]) in &cells {
            for (measure, totals) in part.measures().iter().zip(&mut all) {
                totals[*cell] += match &measure.quantity {
                    Quantity::Rows => n * row_weight,
                    Quantity::Present { argument: a } if Some(*a) == argument => present * row_weight,
                    Quantity::Present { .. } => holds * row_weight,
                    Quantity::Sum { centre, .. } => (sum - centre * present) * row_weight,
                    Quantity::Patients { present: None } => weight(of_patients, g, cells.len()),
                    Quantity::Patients { present: Some(_) } if *holds > 0 => weight(of_patients, g, with_condition),
                    Quantity::Patients { present: Some(_) } => 0,
                    Quantity::Heavy | Quantity::Histogram { .. } => panic!("not asked for"),
                };
            }
        }
    }
    all
}

/// The schema with the bounds of every number drawn in to the middle half of its values.
async fn narrowed(source: &Source, tables: &SessionContext) -> Schema {
    let mut schema = source.schema();
    for table in &mut schema.tables {
        for column in table.columns.iter_mut().filter(|c| is_bounded_number(c)) {
            let scale = if column.kind == Kind::Decimal { column.scale } else { 0 };
            let sql = format!(
                "SELECT CAST(min({0}) * 1{2} AS BIGINT), CAST(max({0}) * 1{2} AS BIGINT) FROM {1}",
                column.name,
                table.name,
                "0".repeat(scale.into())
            );
            let batches = tables.sql(&sql).await.unwrap().collect().await.unwrap();
            let of = |i: usize| batches[0].column(i).as_primitive::<Int64Type>().value(0);
            let (least, most) = (of(0), of(1).max(of(0) + 4));
            let text = |value: i64| {
                let unit = 10_i64.pow(scale.into());
                let fraction = format!("{:0width$}", value.abs() % unit, width = usize::from(scale));
                let sign = if value < 0 { "-" } else { "" };
                if scale == 0 { value.to_string() } else { format!("{sign}{}.{fraction}", value.abs() / unit) }
            };
            let quarter = (most - least) / 4;
            column.bounds = Some(Bounds { min: text(least + quarter), max: text(most - quarter) });
        }
    }
    schema
}

/// How the bounds of one statement bite, so that a test of nothing is noticed.
#[derive(Default)]
struct Bitten {
    statements: usize,
    rows: usize,
    groups: usize,
    values: usize,
}

pub async fn agrees(name: &str, folder: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::read(name);
    let tables = source.load(folder, dir.path()).await;
    let schema = narrowed(&source, &tables).await;
    let mut rng = StdRng::seed_from_u64(4);
    let mut bitten = Bitten::default();
    for (i, from) in STATEMENTS.iter().cycle().take(5 * STATEMENTS.len()).enumerate() {
        let Some(texts) = Draw::new(&source, &mut rng).fill(&statement(from)) else { continue };
        let (sql, plain) = texts.split_once(" ;; ").unwrap();
        let (k, g) = [(1, 1), (3, 2), (10, 1)][i % 3];
        let library = Library { permit: permit(&schema, k, g), schema: schema.clone(), tables: tables.clone() };
        let plan = Arc::new(library.analyse(sql).unwrap_or_else(|refusal| panic!("{sql}\n{refusal}")));
        let patients = rows(&tables, plain).await;
        let value = sql.split("count(e.").nth(1).and_then(|s| s.split(')').next()).unwrap();
        let table = schema.tables.iter().find(|t| sql.contains(&format!("FROM {} e", t.name))).unwrap();
        let (lo, hi) = table.column(value).unwrap().fixed_bounds().unwrap().unwrap();
        let (release, _) = library.release(&plan).await.unwrap();
        let want = reference(&plan.parts()[0], &patients, k, g, (lo.into(), hi.into()));
        assert_eq!(release.parts()[0], want, "{sql}\nk = {k}, G = {g}, {lo} to {hi}");
        bitten.statements += 1;
        for rows in patients.values() {
            bitten.rows += usize::from(rows.len() > k as usize);
            let keys: BTreeSet<_> = rows.iter().map(|r| &r.key).collect();
            bitten.groups += usize::from(keys.len() > g as usize);
            let outside = |v: i128| v < i128::from(lo) || v > i128::from(hi);
            bitten.values += rows.iter().filter(|r| r.value.is_some_and(outside)).count();
        }
    }
    let Bitten { statements, rows, groups, values } = bitten;
    eprintln!(
        "{}: {statements} statements; bounds bit on rows {rows}, groups {groups}, values {values} times",
        source.title
    );
    assert!(statements > 15 && rows > 100 && groups > 50 && values > 100, "the bounds hardly bit");
}
