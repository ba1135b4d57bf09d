//! Benchmarks. Figures are ratios within one run, since machines are noisy; nothing asserts them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use chrono::{DateTime, Utc};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use miette::{IntoDiagnostic, Result, miette};
use parquet::arrow::ArrowWriter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sekisho_protocol::{clock::FixedClock, digest::Digest};
use serde_json::{Map, Value, json};

use crate::{
    cli::Output,
    solo::{Plan, Solo},
};

const SCHEMA: &str = r#"{"id":"bench","version":1,"title":"A table to measure","tables":[
    {"name":"event","patient":"patient_id","columns":[
        {"name":"patient_id","type":"int64"},
        {"name":"sex","type":"text","domain":["female","male"]},
        {"name":"age","type":"int64","bounds":{"min":"0","max":"109"}},
        {"name":"value","type":"int64","bounds":{"min":"0","max":"1000"}}]}]}"#;

const SQL: &str = "SELECT sex, age / 10 AS decade, count(*) AS n, sum(value) AS total, avg(value) AS mean \
                   FROM event GROUP BY sex, age / 10";

/// Measures a bounded, noised group-by over `rows` rows against the same group-by in plain DataFusion.
///
/// # Errors
/// When something cannot be set up or asked.
pub async fn query(rows: u64, repeat: u32, output: Output, now: DateTime<Utc>) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("sekisho-bench-").tempdir().into_diagnostic()?;
    eprintln!("writing {rows} rows");
    table(&dir.path().join("event.parquet"), rows)?;
    eprintln!("taking the snapshot");
    let started = Instant::now();
    let (solo, permit) = bench(dir.path(), now).await?;
    let snapshot_s = started.elapsed().as_secs_f64();
    let file = snapshot_file(&dir.path().join("state/snapshots"))?;
    reset_peak();
    let (mut bounded, mut plain) = (Duration::MAX, Duration::MAX);
    for run in 1..=repeat.max(1) {
        let started = Instant::now();
        // The whole path of one new run: signatures, admission, plan, durable charge, rows, noise, receipt.
        solo.ask(&solo.query(permit, SQL, 100_000, run)).await.into_diagnostic()?;
        bounded = bounded.min(started.elapsed());
        eprintln!("run {run}: bounded and noised {:.3} s", started.elapsed().as_secs_f64());
    }
    let peak_rss_mb = peak_mb();
    for run in 1..=repeat.max(1) {
        let started = Instant::now();
        group_by(&file).await?;
        plain = plain.min(started.elapsed());
        eprintln!("run {run}: plain {:.3} s", started.elapsed().as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "rows of a benchmark")]
    let rows_f = rows as f64;
    let figures = json!({
        "rows": rows,
        "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "snapshot_s": snapshot_s,
        "bounded_s": bounded.as_secs_f64(),
        "plain_s": plain.as_secs_f64(),
        "ratio_to_plain": bounded.as_secs_f64() / plain.as_secs_f64(),
        "rows_per_s": rows_f / bounded.as_secs_f64(),
        "peak_rss_mb": peak_rss_mb,
    });
    print(&figures, output);
    Ok(())
}

/// Prints named figures as a table or as one JSON object.
fn print(figures: &Value, output: Output) {
    match output {
        Output::Json => println!("{figures}"),
        Output::Table => {
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(["figure", "value"]);
            for (name, value) in figures.as_object().unwrap_or(&Map::new()) {
                let text =
                    value.as_f64().filter(|_| value.is_f64()).map_or_else(|| value.to_string(), |v| format!("{v:.3}"));
                table.add_row([name.clone(), text]);
            }
            println!("{table}");
        }
    }
}

/// Ten rows for each patient on average, up to a hundred, in no order.
fn table(path: &Path, rows: u64) -> Result<()> {
    let fields = [
        ("patient_id", DataType::Int64),
        ("sex", DataType::Utf8),
        ("age", DataType::Int64),
        ("value", DataType::Int64),
    ];
    let schema = Arc::new(ArrowSchema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()));
    let file = std::fs::File::create(path).into_diagnostic()?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), None).into_diagnostic()?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let patients = (rows / 10).max(1);
    let mut left = rows;
    while left > 0 {
        let n = left.min(65_536);
        left -= n;
        // The square of a uniform draw: few patients with many rows.
        let ids: Vec<i64> = (0..n)
            .map(|_| {
                let u = rng.random_range(0..patients);
                i64::try_from(u * u / patients).unwrap_or(0)
            })
            .collect();
        let ages: Int64Array = ids.iter().map(|id| Some((id * 7919) % 100)).collect();
        let sexes: StringArray = ids.iter().map(|id| Some(if id % 2 == 0 { "female" } else { "male" })).collect();
        let values: Int64Array = (0..n).map(|_| Some(rng.random_range(0..1000_i64))).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(ids)), Arc::new(sexes), Arc::new(ages), Arc::new(values)];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).into_diagnostic()?).into_diagnostic()?;
    }
    writer.close().into_diagnostic()?;
    Ok(())
}

fn snapshot_file(snapshots: &Path) -> Result<PathBuf> {
    let folders = std::fs::read_dir(snapshots).into_diagnostic()?.flatten().map(|e| e.path());
    let files = folders.filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten().map(|e| e.path());
    let mut parquet = files.filter(|f| f.extension().is_some_and(|e| e == "parquet"));
    parquet.next().ok_or_else(|| miette!("the snapshot has no Parquet file"))
}

/// The same group-by in plain DataFusion over the same file.
async fn group_by(file: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(cores));
    context
        .register_parquet("event", file.display().to_string(), ParquetReadOptions::default())
        .await
        .into_diagnostic()?;
    let batches = context.sql(SQL).await.into_diagnostic()?.collect().await.into_diagnostic()?;
    if batches.iter().map(RecordBatch::num_rows).sum::<usize>() == 0 {
        return Err(miette!("the plain group-by has no rows"));
    }
    Ok(())
}

/// Lets the peak of resident memory count from now on, where the kernel allows it.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak of resident memory in MiB; 0 where the kernel does not tell.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}

/// The node with the table, and a permit for it.
async fn bench(dir: &Path, now: DateTime<Utc>) -> Result<(Solo, Digest)> {
    let mapping = format!(
        "id = \"bench\"\nsynthetic = true\n[tables.event]\nsource = {:?}\n[tables.event.columns]\n\
         patient_id = \"patient_id\"\nsex = \"sex\"\nage = \"age\"\nvalue = \"value\"\n",
        dir.join("event.parquet").display().to_string()
    );
    let plan = Plan {
        data: vec![(SCHEMA, mapping)],
        register_rule: "eu-ehds",
        register: None,
        budget: (1_000_000_000, 1_000_000),
    };
    let solo = Solo::build(dir, &plan, Arc::new(FixedClock(now))).await?;
    let permit = solo.permit("bench", "event", &["sex", "age", "value"], |_| {})?;
    let permit = solo.grant(&permit).await.into_diagnostic()?;
    Ok((solo, permit))
}
