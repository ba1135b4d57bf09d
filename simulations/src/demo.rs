//! The demo: five synthetic hospitals, one approved study, three questions, real processes.
//!
//! It succeeds only if every cell that is shown has its truth within a simultaneous 99.9 % interval (Bonferroni over
//! all intervals of the demo), the third question is refused, and the opted-out patient is in no answer. Tables go to
//! stdout, progress to stderr; all that was started is stopped, unless it is to be kept. The folder stays, for its
//! receipts and logs.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveDate, Utc};
use miette::{IntoDiagnostic, Result, miette};
use serde_json::Value;

use crate::{
    generate::{self, generate},
    launch::Launcher,
    network::{Network, Setup, Site},
    study::{self, PermitText, TrueCell},
};

/// What one question of the demo may cost at each hospital.
const PER_QUERY: u64 = 100_000;
/// What the demo's study may cost at each hospital.
const TOTAL: u64 = 300_000;
/// How likely it is that all intervals hold.
const SIMULTANEOUS: f64 = 0.999;

/// What the demo shall do.
#[derive(Clone, Debug)]
pub struct Demo {
    /// Where everything goes; a fresh temporary folder if it is left out. It stays.
    pub dir: Option<PathBuf>,
    /// Leave the network running.
    pub keep: bool,
    /// QUIC instead of TCP.
    pub quic: bool,
    /// The seed of the hospitals.
    pub seed: u64,
    /// Patients over all hospitals.
    pub patients: u64,
}

struct Question {
    title: &'static str,
    sql: &'static str,
    keys: usize,
    /// The columns whose truth adds up over hospitals, in the order of the true values.
    sums: &'static [&'static str],
    /// A column that is the ratio of two true values.
    ratio: Option<(&'static str, usize, usize)>,
    /// How many cells it has.
    cells: usize,
}

const QUESTIONS: [Question; 2] = [
    Question {
        title: "1. Feasibility of a diabetes trial: mild diabetes without complications",
        sql: study::FEASIBILITY,
        keys: 2,
        sums: &["patients"],
        ratio: None,
        cells: 20,
    },
    Question {
        title: "2. Drug safety: adverse events under drug A, drug B and neither",
        sql: study::ADVERSE_EVENTS,
        keys: 1,
        sums: &["patients", "events"],
        ratio: Some(("rate", 1, 0)),
        cells: 5,
    },
];

/// The confidence of one interval, when all of the demo's shall hold together: Bonferroni over the combined cells.
fn each() -> f64 {
    let intervals: usize = QUESTIONS.iter().map(|q| q.cells * (q.sums.len() + usize::from(q.ratio.is_some()))).sum();
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let share = (1.0 - SIMULTANEOUS) / intervals as f64;
    1.0 - share
}

/// Runs the demo with parties that `launcher` starts, at the hour `now`.
///
/// # Errors
/// When a step fails, or an answer is not what it must be.
pub async fn run(demo: &Demo, launcher: Launcher, now: DateTime<Utc>) -> Result<()> {
    if let Some(dir) = &demo.dir {
        return play(demo, dir, launcher, now).await;
    }
    let dir = tempfile::Builder::new().prefix("sekisho-demo-").tempdir().into_diagnostic()?.keep();
    let played = play(demo, &dir, launcher, now).await;
    // Only of a folder of our own, and whether or not the demo went well.
    eprintln!("Everything of this demo is in {0}; remove it with: rm -r {0}", dir.display());
    played
}

/// The demo in `dir`.
async fn play(demo: &Demo, dir: &Path, launcher: Launcher, now: DateTime<Utc>) -> Result<()> {
    let started = Instant::now();
    let say = |text: &str| eprintln!("[{:5.1} s] {text}", started.elapsed().as_secs_f64());
    say(&format!("five synthetic hospitals in {}", dir.display()));
    let hospitals = dir.join("hospitals");
    let plan = generate::Plan {
        hospitals: 5,
        patients: demo.patients,
        rows: demo.patients * 4,
        seed: demo.seed,
        as_of: now.date_naive(),
    };
    generate(&plan, &hospitals, &|_, _| {}).into_diagnostic()?;
    let names: Vec<String> = (1..=5).map(|i| format!("hospital-{i}")).collect();
    let folders: Vec<PathBuf> = names.iter().map(|n| hospitals.join(n)).collect();
    let site = |(name, folder): (&String, &PathBuf)| Site {
        register: Some(folder.join("register.csv")),
        ..Site::new(name, study::mapping(name, folder))
    };
    let setup = Setup {
        quic: demo.quic,
        register_rule: "jp-ngmia".into(),
        ..Setup::new(dir.join("network"), names.iter().zip(&folders).map(site).collect(), study::SCHEMA)
    };
    let network = Network::build(&setup, launcher, &say)?;
    say("one coordinator and five nodes run, each a process of its own");

    let patient = study::somebody(&folders[0], now.date_naive()).await?;
    network.node(&names[0], &["patients", "opt-out", &patient.to_string(), "--by", "front-desk"])?;
    opt_out_of_truth(&folders[0], patient, now.date_naive())?;
    say("hospital-1: one patient opted out");

    let researcher = network.public_key("researcher")?;
    let schema = network.dir().join("schema.dsse.json");
    let text = PermitText {
        schema: &schema,
        researcher: &researcher,
        holders: names.iter().map(String::as_str).collect(),
        per_query: PER_QUERY,
        total: TOTAL,
    };
    let permit = network.permit("permit", &study::permit(&text, now))?;
    say("permit drafted, signed by two of three committee members, accepted by the hospitals");

    let mut outside = 0;
    for question in &QUESTIONS {
        outside += ask(&network, question, &permit, &folders, now.date_naive()).await?;
    }
    refused(&network, &permit)?;
    budgets(&network, &names)?;
    println!("\nReceipts: {}", network.dir().join("receipts").display());
    println!("Logs: {}", network.dir().join("logs").display());
    println!("Every interval: {outside} true values outside their simultaneous {:.1} % interval", SIMULTANEOUS * 100.0);
    say("done");
    if demo.keep {
        keep(&network, &permit);
        network.leave();
    } else if started.elapsed() > Duration::from_secs(60) {
        say("the demo took more than a minute on this machine");
    }
    if outside > 0 {
        return Err(miette!("{outside} true values lie outside their intervals"));
    }
    Ok(())
}

/// The truth's register is the generator's file: the opt-out is written there too.
fn opt_out_of_truth(folder: &Path, patient: i64, on: NaiveDate) -> Result<()> {
    let path = folder.join("register.csv");
    let text = std::fs::read_to_string(&path).into_diagnostic()?;
    let mut found = false;
    let lines = text.lines().map(|line| {
        let mut fields: Vec<String> = line.split(',').map(str::to_string).collect();
        if fields[0] == patient.to_string() && fields.len() == 4 {
            found = true;
            fields[2] = on.to_string();
        }
        fields.join(",")
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    if !found {
        return Err(miette!("the patient who opts out is not in the register"));
    }
    std::fs::write(&path, text).into_diagnostic()
}

/// Asks a question twice, at 95 % for people and at the simultaneous level for the check: the second time is the same
/// run, served again free. Returns how many true values lie outside.
async fn ask(
    network: &Network,
    question: &Question,
    permit: &str,
    folders: &[PathBuf],
    as_of: NaiveDate,
) -> Result<usize> {
    let (key, receipts) = (network.key("researcher"), network.dir().join("receipts").display().to_string());
    let query = ["query", "--permit", permit, "--sql", question.sql, "--key", &key];
    let print = network.ask(&[&query[..], &["--receipts", &receipts]].concat())?;
    println!("\n{}\n{}", question.title, String::from_utf8_lossy(&print.stdout));
    if !print.status.success() {
        return Err(miette!("{}: {}", question.title, String::from_utf8_lossy(&print.stderr)));
    }
    let level = each().to_string();
    let json = network.sekisho(&[&query[..], &["--output", "json", "--confidence", &level]].concat())?;
    let answer: Value = serde_json::from_str(&json).into_diagnostic()?;
    let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let truth = study::truth(question.sql, question.keys, &paths, as_of).await?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["cell", "value", "answer", "simultaneous 99.9 %", "truth", ""]);
    let mut outside = 0;
    for row in answer["rows"].as_array().ok_or_else(|| miette!("an answer without rows"))? {
        let cell = names_of(row, question);
        let true_values = true_values(row, question, &truth);
        let columns = question.sums.iter().copied().chain(question.ratio.map(|r| r.0));
        for (column, truth) in columns.zip(true_values) {
            let number = |suffix: &str| row[format!("{column}{suffix}")].as_f64();
            let (Some(value), Some(low), Some(high)) = (number(""), number("_low"), number("_high")) else { continue };
            let within = (low..=high).contains(&truth);
            outside += usize::from(!within);
            let mark = if within { "" } else { "outside" };
            let digits = if question.ratio.is_some_and(|r| r.0 == column) { 4 } else { 0 };
            table.add_row([
                cell.clone(),
                column.to_string(),
                format!("{value:.digits$}"),
                format!("{low:.digits$} to {high:.digits$}"),
                format!("{truth:.digits$}"),
                mark.to_string(),
            ]);
        }
    }
    println!("Beside the truth (cells that the preset hides are left out):\n{table}");
    Ok(outside)
}

/// The keys of a row, as the question names them: the first columns.
fn keys_of(row: &Value, question: &Question) -> Vec<Option<String>> {
    let names: &[&str] = if question.keys == 2 { &["age_band", "sex"] } else { &["first_drug"] };
    names.iter().map(|n| row[*n].as_str().map(str::to_string)).collect()
}

fn names_of(row: &Value, question: &Question) -> String {
    let note = row["cell_note"].as_str().unwrap_or_default();
    let keys = keys_of(row, question).into_iter().map(|k| k.unwrap_or_else(|| "NULL".into()));
    let keys = keys.collect::<Vec<_>>().join(" / ");
    if note.is_empty() { keys } else { format!("{keys} ({note})") }
}

/// The true values of a row; zero for a cell that no patient is in.
fn true_values(row: &Value, question: &Question, truth: &[TrueCell]) -> Vec<f64> {
    let outside = row["cell_note"].as_str().is_some_and(|note| note.contains("outside"));
    let found = truth.iter().find(|cell| !outside && cell.keys == keys_of(row, question));
    let sums = found.map_or_else(|| vec![0.0; question.sums.len()], |cell| cell.values[..question.sums.len()].to_vec());
    let ratio = question.ratio.map(|(_, part, whole)| if sums[whole] > 0.0 { sums[part] / sums[whole] } else { 0.5 });
    sums.into_iter().chain(ratio).collect()
}

fn refused(network: &Network, permit: &str) -> Result<()> {
    let key = network.key("researcher");
    println!("\n3. Rows of patients: must be refused\n{}", study::ROWS);
    let output = network.ask(&["query", "--permit", permit, "--sql", study::ROWS, "--key", &key])?;
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{}", said.trim());
    if output.status.code() != Some(1) || !said.contains("row_level") {
        return Err(miette!("rows were not refused with row_level"));
    }
    Ok(())
}

fn budgets(network: &Network, names: &[String]) -> Result<()> {
    println!("\nBudget of the study at each hospital, in micro-rho:");
    for name in names {
        let text = network.node(name, &["ledger", "--output", "json"])?;
        let ledger: Value = serde_json::from_str(&text).into_diagnostic()?;
        for study in ledger["studies"].as_array().into_iter().flatten() {
            let (earmark, spent) = (study["earmark_micro_rho"].as_u64(), study["spent_micro_rho"].as_u64());
            let (Some(earmark), Some(spent)) = (earmark, spent) else {
                return Err(miette!("a ledger without amounts"));
            };
            println!("  {name}: spent {spent} of {earmark}, left {}", earmark - spent);
            if spent != 2 * PER_QUERY {
                return Err(miette!("{name} charged {spent} micro-rho for two questions of {PER_QUERY}"));
            }
        }
    }
    Ok(())
}

fn keep(network: &Network, permit: &str) {
    let key = network.key("researcher");
    println!("\nThe network keeps running. Ask it, for instance:");
    println!("  cargo run --bin sekisho -- --coordinator {} query --permit {permit} --key {key} \\", network.door());
    println!("    --sql \"SELECT sex, count(*) AS patients FROM patient_summary GROUP BY sex\"");
    let ids: Vec<String> = network.process_ids().iter().map(ToString::to_string).collect();
    println!("Stop it with: kill {}", ids.join(" "));
}
