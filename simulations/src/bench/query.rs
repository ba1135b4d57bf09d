//! A query at one node against the same query in plain DataFusion, over the same snapshot in the same run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_protocol::{clock::FixedClock, digest::Digest};
use serde_json::json;

use super::{
    print,
    source::{SCHEMA, Shape, write},
};
use crate::{
    cli::Output,
    solo::{NAME, Plan, Solo},
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Query {
    /// The query and its tables.
    pub shape: Shape,
    /// Rows of the largest table.
    pub rows: u64,
    /// How often each side runs; the fastest counts.
    pub repeat: u32,
    /// An empty folder in which the files stay; a temporary one if it is left out.
    pub dir: Option<PathBuf>,
}

/// Measures `asked`. The snapshot is taken in a process of its own, started from this executable, so that the peak of memory is the
/// queries'.
///
/// # Errors
/// When something cannot be set up or asked.
pub async fn query(asked: &Query, output: Output, now: DateTime<Utc>) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("sekisho-bench-").tempdir().into_diagnostic()?;
    let dir = asked.dir.as_deref().unwrap_or(temporary.path());
    let started = Instant::now();
    prepare_elsewhere(asked, dir)?;
    let prepared_s = started.elapsed().as_secs_f64();
    fs::create_dir(dir.join("state")).into_diagnostic()?;
    fs::rename(dir.join("first/state/snapshots"), dir.join("state/snapshots")).into_diagnostic()?;
    let (solo, permit) = node(asked.shape, dir, dir, now).await?;
    let sql = asked.shape.sql();
    let (mut bounded, mut bare) = (Fastest::default(), Fastest::default());
    reset_peak();
    for run in 1..=asked.repeat.max(1) {
        let started = Started::now();
        // The whole path of one new run: signatures, admission, plan, durable charge, rows, noise, receipt.
        solo.ask(&solo.query(permit, sql, 100_000, run)).await.into_diagnostic()?;
        bounded.add(&started, &format!("run {run}: bounded and noised"));
    }
    let peak_rss_mb = peak_mb();
    let (plain, files) = plain(asked.shape, &dir.join("state/snapshots")).await?;
    for run in 1..=asked.repeat.max(1) {
        let started = Started::now();
        let batches = plain.sql(sql).await.into_diagnostic()?.collect().await.into_diagnostic()?;
        bare.add(&started, &format!("run {run}: plain"));
        if batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 0 {
            return Err(miette!("the plain query has no rows"));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "rows of a benchmark")]
    let rows = asked.rows as f64;
    let figures = json!({
        "shape": asked.shape.to_string(),
        "sql": sql,
        "rows": asked.rows,
        "patients": asked.shape.patients(asked.rows),
        "cores": cores(),
        "files": files,
        "prepared_s": prepared_s,
        "bounded_s": bounded.wall_s,
        "bounded_cpu_s": bounded.cpu_s,
        "plain_s": bare.wall_s,
        "plain_cpu_s": bare.cpu_s,
        "ratio_to_plain": bounded.wall_s / bare.wall_s,
        "cpu_ratio_to_plain": bounded.cpu_s / bare.cpu_s,
        "rows_per_s": rows / bounded.wall_s,
        "peak_rss_mb": peak_rss_mb,
    });
    print(&figures, output);
    Ok(())
}

/// Writes the sources of `shape` to `dir` and takes their snapshot under `dir/first`.
///
/// # Errors
/// When something cannot be written.
pub async fn prepare(shape: Shape, rows: u64, dir: &Path, now: DateTime<Utc>) -> Result<()> {
    eprintln!("writing {rows} rows");
    write(shape, rows, dir)?;
    eprintln!("taking the snapshot");
    node(shape, dir, &dir.join("first"), now).await?;
    Ok(())
}

fn prepare_elsewhere(asked: &Query, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).into_diagnostic()?;
    if fs::read_dir(dir).into_diagnostic()?.next().is_some() {
        return Err(miette!("{} is not empty", dir.display()));
    }
    let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
    command.args(["bench", "prepare", "--shape", &asked.shape.to_string(), "--rows", &asked.rows.to_string(), "--dir"]);
    let status =
        command.arg(dir).stdin(Stdio::null()).status().into_diagnostic().wrap_err("starting the preparation")?;
    if status.success() { Ok(()) } else { Err(miette!("the preparation failed")) }
}

/// A node in `place` over the sources in `dir`, and a permit for them; it takes a snapshot if it has none.
async fn node(shape: Shape, dir: &Path, place: &Path, now: DateTime<Utc>) -> Result<(Solo, Digest)> {
    let mut mapping = String::from("id = \"bench\"\nsynthetic = true\n");
    for table in shape.tables() {
        let source = dir.join(format!("{table}.parquet")).display().to_string();
        mapping += &format!(
            "[tables.{table}]\nsource = {source:?}\n[tables.{table}.columns]\n\
             patient_id = \"patient_id\"\nsex = \"sex\"\nage = \"age\"\nvalue = \"value\"\n"
        );
    }
    let register = dir.join("register.csv");
    let plan = Plan {
        data: vec![(SCHEMA, mapping)],
        register_rule: "eu-ehds",
        register: Some(&register),
        budget: (1_000_000_000, 1_000_000),
    };
    let solo = Solo::build(place, &plan, Arc::new(FixedClock(now))).await?;
    let grant = |table: &&str| json!({"table": table, "columns": ["sex", "age", "value"], "holder_nodes": [NAME]});
    let permit = solo.permit("bench", "event", &[], |permit| {
        permit["data"] = shape.tables().iter().map(grant).collect();
    })?;
    let permit = solo.grant(&permit).await.into_diagnostic()?;
    Ok((solo, permit))
}

/// Plain DataFusion over the snapshot's files, with as many partitions as cores; and the files.
async fn plain(shape: Shape, snapshots: &Path) -> Result<(SessionContext, Vec<PathBuf>)> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(cores()));
    let folders = fs::read_dir(snapshots).into_diagnostic()?.flatten().map(|entry| entry.path());
    let folder = folders.into_iter().find(|folder| folder.join("manifest.json").exists());
    let folder = folder.ok_or_else(|| miette!("there is no snapshot"))?;
    let files = shape.tables().iter().map(|table| folder.join(format!("{table}.parquet"))).collect::<Vec<_>>();
    for (table, file) in shape.tables().iter().zip(&files) {
        let file = file.display().to_string();
        context.register_parquet(*table, file, ParquetReadOptions::default()).await.into_diagnostic()?;
    }
    Ok((context, files))
}

/// When a run started, and how much processor time this process had taken by then.
struct Started {
    at: Instant,
    cpu_s: f64,
}

impl Started {
    fn now() -> Self {
        Self { at: Instant::now(), cpu_s: cpu_s() }
    }
}

/// The least time and the least processor time of some runs, in seconds.
struct Fastest {
    wall_s: f64,
    cpu_s: f64,
}

impl Default for Fastest {
    fn default() -> Self {
        Self { wall_s: f64::INFINITY, cpu_s: f64::INFINITY }
    }
}

impl Fastest {
    /// Adds a run that ends now, and prints it under `name`.
    fn add(&mut self, started: &Started, name: &str) {
        let (wall_s, cpu_s) = (started.at.elapsed().as_secs_f64(), cpu_s() - started.cpu_s);
        (self.wall_s, self.cpu_s) = (self.wall_s.min(wall_s), self.cpu_s.min(cpu_s));
        eprintln!("{name} {wall_s:.3} s, {cpu_s:.2} s of processors");
    }
}

/// The processor time that this process has taken, in seconds, by hundredths as Linux tells it; 0 elsewhere.
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold blanks; the times are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets the peak of resident memory count from now on, where the kernel allows it.
fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The peak of resident memory in MiB; 0 where the kernel does not tell.
fn peak_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}
