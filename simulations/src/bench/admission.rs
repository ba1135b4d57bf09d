//! How long a node takes to decide about a query, before anything is charged: signatures, permit, status, plan, policy and a
//! dry look at the budget, at a node that has much to remember.

use std::{hint::black_box, path::Path, sync::Arc, time::Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use miette::{IntoDiagnostic, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_node::{
    ledger::{Caps, Cost, Ledger},
    policy::{Asked, Person, Policy, default_text},
    store::Store,
};
use sekisho_node_config::Window;
use sekisho_protocol::{
    clock::FixedClock,
    digest::Digest,
    log::{entry::Kind, store::append},
    permit::Permit,
    query::Terms,
    units::{AttoDelta, MicroRho},
};
use serde_json::json;
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};

use super::{print, source::SCHEMA};
use crate::{
    cli::Output,
    solo::{Plan, Solo},
};

/// What the node has to remember.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Permits, each of a study of its own.
    pub permits: u32,
    /// Changes in the patient register.
    pub changes: u32,
    /// Entries of the ledger.
    pub entries: u32,
    /// How many queries are asked.
    pub queries: u32,
}

const SQLS: [&str; 4] = [
    "SELECT count(*) AS n FROM event",
    "SELECT sex, count(*) AS n, avg(value) AS mean FROM event WHERE age > 40 GROUP BY sex",
    "SELECT sex, age / 40 AS band, count(*) AS n, sum(value) AS total FROM event GROUP BY sex, age / 40",
    "SELECT p.sex, count(*) AS n, sum(e.value) AS total FROM event e JOIN person p ON p.patient_id = e.patient_id \
     WHERE p.age BETWEEN 30 AND 60 GROUP BY p.sex",
];

/// More rules than the default has: what a hospital might add.
const RULES: &str = r#"
@id("no-education") forbid (principal, action, resource) when { context.purposes.contains(Purpose::"education") };
@id("not-example-pharma") forbid (principal in Organisation::"Example Pharma", action, resource);
@id("small") forbid (principal, action in Action::"query", resource) when { context.microRho > 200000 };
@id("no-quantiles") forbid (principal, action in [Action::"quantile", Action::"extreme"], resource);
@id("not-together") forbid (principal, action in Action::"query", resource)
    when { context.columns.containsAll([Column::"person.age", Column::"event.age"]) };
@id("elsewhere") forbid (principal, action, resource) when { principal has country && principal.country == "ZZ" };
"#;

/// Measures admission.
///
/// # Errors
/// When something cannot be set up, or a query is refused.
pub async fn admission(asked: Admission, output: Output, now: DateTime<Utc>) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sekisho-bench-").tempdir().into_diagnostic()?;
    let (solo, permits) = node(dir.path(), asked, now).await?;
    let mut routed = Vec::new();
    for run in 0..asked.queries as usize {
        let query = solo.query(permits[run % permits.len()], SQLS[run % SQLS.len()], 1000, 1);
        routed.push(serde_json::to_vec(&solo.routed(&query).into_diagnostic()?).into_diagnostic()?);
    }
    let mut whole = Vec::new();
    for bytes in &routed {
        let started = Instant::now();
        solo.node.dry_run(bytes).await.into_diagnostic()?;
        whole.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let (message, key) = ([7; 1024], &solo.researcher);
    let (signature, public) = (key.sign(&message), key.public());
    let check = times(asked.queries, || public.verifies(black_box(&message), &signature));
    let (plan, policy) = parts(&solo, asked.queries)?;
    let admission = median(&mut whole);
    let figures = json!({
        "permits": asked.permits,
        "patients' changes": asked.changes,
        "ledger entries": asked.entries,
        "queries": asked.queries,
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "admission, median (ms)": admission,
        "admission, 99th percentile (ms)": percentile(&whole, 99),
        "of it, plan (ms)": plan,
        "of it, policy (ms)": policy,
        "one signature check (ms)": check,
        "admission in signature checks": admission / check,
    });
    print(&figures, output);
    Ok(())
}

/// The median of `count` times in milliseconds.
fn times<T>(count: u32, mut run: impl FnMut() -> T) -> f64 {
    let mut all = Vec::new();
    for _ in 0..count.max(1) {
        let started = Instant::now();
        black_box(run());
        all.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    median(&mut all)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    percentile(times, 50)
}

/// Of times that are sorted.
fn percentile(times: &[f64], percent: usize) -> f64 {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The plan and the policy alone.
fn parts(solo: &Solo, count: u32) -> Result<(f64, f64)> {
    let permit = permit(solo, 0)?;
    let facts = solo.node.data[0].facts();
    let micro_rho = MicroRho::try_from(1000).into_diagnostic()?;
    let plan = |sql: &str| PrivatePlan::analyse_with(sql, facts.schema, &permit, micro_rho, &Terms::default());
    let made = plan(SQLS[2]).into_diagnostic()?;
    let person = Person { id: "r".into(), role: "analyst".into() };
    let asked = Asked::new(&permit, person, &made, AttoDelta::ZERO, facts);
    solo.node.policy.allow(&asked).into_diagnostic()?;
    Ok((times(count, || plan(SQLS[2])), times(count, || solo.node.policy.allow(&asked))))
}

fn permit(solo: &Solo, number: u32) -> Result<Permit> {
    solo.permit(&format!("study-{number}"), "event", &[], |permit| {
        let table =
            |name| json!({"table": name, "columns": ["sex", "age", "value"], "holder_nodes": [crate::solo::NAME]});
        permit["data"] = json!([table("event"), table("person")]);
    })
}

/// A node with all that it shall remember, and the digests of its permits.
async fn node(dir: &Path, asked: Admission, now: DateTime<Utc>) -> Result<(Solo, Vec<Digest>)> {
    let mut mapping = String::from("id = \"bench\"\nsynthetic = true\n");
    for table in ["event", "person"] {
        let source = dir.join(format!("{table}.csv"));
        std::fs::write(&source, "patient_id,sex,age,value\n1,female,50,7\n").into_diagnostic()?;
        mapping += &format!(
            "[tables.{table}]\nsource = {source:?}\n[tables.{table}.columns]\n\
             patient_id = \"patient_id\"\nsex = \"sex\"\nage = \"age\"\nvalue = \"value\"\n"
        );
    }
    let register = dir.join("register.csv");
    let day = now.date_naive();
    let lines = (0..asked.changes).map(|patient| format!("{patient},,{day},\n"));
    std::fs::write(&register, format!("patient_id,notified_on,opted_out_on,died_on\n{}", lines.collect::<String>()))
        .into_diagnostic()?;
    let lifetime = 1_000_000_000_000;
    let plan = Plan {
        data: vec![(SCHEMA, mapping)],
        register_rule: "eu-ehds",
        register: Some(&register),
        budget: (lifetime, 1_000_000),
    };
    let mut solo = Solo::build(&dir.join("node"), &plan, Arc::new(FixedClock(now))).await?;
    // A window is the dearest cap to look at.
    let window = Window { days: 30, micro_rho: MicroRho::try_from(lifetime).into_diagnostic()? };
    let caps = Caps { lifetime: Cost { micro_rho: window.micro_rho, ..Cost::ZERO }, window: Some(window) };
    let store = Store::open(&dir.join("node/state/node.db")).await.into_diagnostic()?;
    if let Some(node) = Arc::get_mut(&mut solo.node) {
        node.ledger = Ledger::new(store, caps);
        node.policy = Policy::parse(&(default_text(true) + RULES)).into_diagnostic()?;
    }
    let mut permits = Vec::new();
    for number in 0..asked.permits.max(1) {
        permits.push(solo.grant(&permit(&solo, number)?).await.into_diagnostic()?);
    }
    eprintln!("{} permits", permits.len());
    fill(&dir.join("node/state/node.db"), &permits, asked.entries, now).await?;
    Ok((solo, permits))
}

/// Fills the ledger with charges of one micro-rho in the last twenty days, through all triggers of the database, in one
/// transaction: a durable one for each would take minutes.
async fn fill(database: &Path, permits: &[Digest], entries: u32, now: DateTime<Utc>) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(database).pragma("recursive_triggers", "ON");
    let pool = SqlitePool::connect_with(options).await.into_diagnostic()?;
    let mut tx = pool.begin().await.into_diagnostic()?;
    for entry in 0..entries {
        let study = entry as usize % permits.len();
        let name = Digest::of(&entry.to_be_bytes());
        let at = now - chrono::Duration::seconds(i64::from(entry) * 17 % (20 * 86_400));
        sqlx::query("INSERT INTO charge VALUES (?1, ?2, ?3, 1, ?4, ?3, 1, 0, 0, ?5, 'bench', ?6)")
            .bind(entry + 1)
            .bind(permits[study].as_bytes().as_slice())
            .bind(name.as_bytes().as_slice())
            .bind(format!("study-{study}"))
            .bind(now.date_naive().to_string())
            .bind(at.to_rfc3339_opts(SecondsFormat::Nanos, true))
            .execute(&mut *tx)
            .await
            .into_diagnostic()?;
    }
    // About as long as the envelope of a reservation.
    let reservation = (Kind::Reservation, [b'x'; 700].as_slice());
    for from in (0..entries).step_by(1000) {
        let batch = vec![reservation; (entries - from).min(1000) as usize];
        append(&mut tx, &mut ChaCha20Rng::from_os_rng(), &batch).await.into_diagnostic()?;
    }
    tx.commit().await.into_diagnostic()?;
    pool.close().await;
    eprintln!("{entries} ledger entries");
    Ok(())
}
