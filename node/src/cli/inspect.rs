//! What an operator does beside an inspector: lists the charged runs, and makes one again.
//!
//! Every replay is in the log before anything of it is shown. Without `--show-exact` it tells public facts and
//! whether it matches; exact values, noise and the seed are shown on a terminal only, never as JSON and never into a
//! file or a pipe.

mod screen;

use std::{
    io::{IsTerminal, stdout},
    path::PathBuf,
};

use clap::Subcommand;
use miette::{IntoDiagnostic, Result, miette};
use sekisho_aggregation::explain::Explanation;
use sekisho_protocol::{
    clock::Clock,
    dsse::Envelope,
    key_file,
    replay::{Outcome, Replay},
};
use serde_json::{Value, json};

use self::screen::Screen;
pub(super) use self::screen::plain;
use super::{Output, opened, schema_keys, table};
use crate::{
    answer::SOFTWARE,
    data::mapping::Mapping,
    documents::{Anchors, Documents},
    inspect::{Exact, Held, Inspecting, Replayed},
    ledger::{Charged, Ledger, RunName, Which, reason},
    register::Register,
};

/// The words before exact values.
const WARNING: &str = "WARNING: what follows are exact values about patients, and the seed of the noise. Whoever has the seed can take the \
    noise off what was released. Copy and photograph nothing; clear the screen when you are done.\n\
    警告:以下は患者についての正確な値と、雑音の種です。種を知る者は、公表された値から雑音を取り除けます。\
    写しや写真を取らず、終わったら画面を消してください。";

#[derive(Subcommand)]
pub(super) enum Inspect {
    /// Lists the charged runs, the newest first. It tells nothing that depends on data.
    #[command(after_help = "Example: sekisho-node inspect list --study diabetes-trial --config /srv/sekisho/node.toml")]
    List {
        /// Those of one study.
        #[arg(long)]
        study: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Makes a run again from what was stored, and says whether it gives exactly the release that was sent.
    ///
    /// It works beside the running node or without it, charges nothing and releases nothing. It is entered in the log.
    /// Exit code 0: it matches; 1: it does not, or it could not be looked at whole.
    #[command(
        after_help = "Example: sekisho-node inspect replay 12 --by \"Inspector Mori\" --reason \"annual audit\" --config /srv/sekisho/node.toml"
    )]
    Replay(Box<ReplayArgs>),
}

#[derive(clap::Args)]
pub(super) struct ReplayArgs {
    /// Which: the number of its charge (12), or QUESTION/RUN with the first digits of the question (3fa9c2d1e0ab/1).
    #[arg(value_name = "RUN")]
    name: RunName,
    /// Who has it made again, for the log.
    #[arg(long, value_parser = reason)]
    by: String,
    /// Why, in one line, for the log; write nothing about patients.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Shows exact values, noise and the seed, on a terminal only.
    #[arg(long, conflicts_with = "output")]
    show_exact: bool,
    /// How many numbers of each measure are shown.
    #[arg(long, default_value_t = 200, requires = "show_exact")]
    numbers: usize,
    /// An older mapping of a data set, where the configured one is of another schema than the run; repeat it.
    #[arg(long, value_name = "FILE")]
    mapping: Vec<PathBuf>,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Runs a command of inspection.
pub(super) async fn inspect(command: Inspect, clock: &impl Clock) -> Result<()> {
    match command {
        Inspect::List { study, limit, config, output } => {
            let (_, ledger, _) = opened(&config).await?;
            let which = Which { study, limit, ..Which::default() };
            list(&ledger.charges(&which).await.into_diagnostic()?, output);
            Ok(())
        }
        Inspect::Replay(args) => replay(&args, clock).await,
    }
}

fn list(charges: &[Charged], output: Output) {
    let run = |charged: &Charged| format!("{}/{}", charged.key.query_key.short(), charged.key.run);
    match output {
        Output::Json => {
            let document = |c: &Charged| {
                json!({
                    "charge": c.charge_id, "run": run(c), "query_key": c.key.query_key, "permit": c.key.permit,
                    "study_id": c.study_id, "micro_rho": c.cost.micro_rho, "atto_delta": c.cost.atto_delta,
                    "as_of": c.as_of, "charged_at": c.charged_at, "released": c.released, "kept": c.kept,
                    "replays": c.replays,
                })
            };
            println!("{}", charges.iter().map(document).collect::<Value>());
        }
        Output::Table => {
            let rows = charges.iter().map(|c| {
                let again = match (c.released, c.kept) {
                    (true, true) => "yes",
                    (true, false) => "in part: made by older software",
                    (false, _) => "no release",
                };
                [
                    c.charge_id.to_string(),
                    run(c),
                    c.study_id.clone(),
                    c.cost.micro_rho.get().to_string(),
                    c.as_of.to_string(),
                    c.charged_at.format("%Y-%m-%d %H:%M:%S").to_string(),
                    again.into(),
                    c.replays.to_string(),
                ]
                .to_vec()
            });
            let header =
                ["charge", "run", "study", "micro-rho", "as of", "charged at (UTC)", "can be made again", "replays"];
            println!("{}", table(header, rows));
        }
    }
}

/// The number of the one charge with this name.
async fn charge_of(ledger: &Ledger, name: &RunName) -> Result<i64> {
    let which = Which { name: Some(name.clone()), limit: 10, ..Which::default() };
    let found = ledger.charges(&which).await.into_diagnostic()?;
    match found.as_slice() {
        [charged] => Ok(charged.charge_id),
        [] => Err(miette!("there is no such run here: `sekisho-node inspect list` shows those that are")),
        several => {
            let numbers: Vec<_> = several.iter().map(|charged| charged.charge_id.to_string()).collect();
            Err(miette!("several charges have this name: {}; name one by its number", numbers.join(", ")))
        }
    }
}

async fn replay(args: &ReplayArgs, clock: &impl Clock) -> Result<()> {
    if args.show_exact && !stdout().is_terminal() {
        return Err(miette!(
            "--show-exact shows on a terminal only; run it without a pipe or a file / 正確な値は端末の画面にだけ表示します"
        ));
    }
    let (config, ledger, store) = opened(&args.config).await?;
    let keys = schema_keys(&config).await?;
    let paths = config.datasets.iter().chain(&args.mapping);
    let mappings = paths.map(|path| Mapping::load(path, &keys).into_diagnostic()).collect::<Result<Vec<_>>>()?;
    let signing = key_file::read(&config.signing_key).into_diagnostic()?;
    let charge_id = charge_of(&ledger, &args.name).await?;
    let inspecting = Inspecting {
        name: config.name.clone(),
        ledger: ledger.clone(),
        register: Register::new(store.clone()),
        documents: Documents::new(store.clone(), Anchors::from(&config.trust)),
        mappings,
        snapshots: config.state_dir.join("snapshots"),
        signing_key: config.signing_key.clone(),
        memory_bytes: usize::try_from(config.limits.memory_bytes).unwrap_or(usize::MAX),
        clamped: args.show_exact,
    };
    let replayed = inspecting.replay(charge_id).await.into_diagnostic()?;
    let exact = replayed.exact.as_ref().filter(|_| args.show_exact);
    let statement = Replay {
        node: config.name,
        charge: charge_id,
        study_id: replayed.charged.study_id.clone(),
        permit: replayed.charged.key.permit,
        query_key: replayed.charged.key.query_key,
        run: replayed.charged.key.run,
        by: args.by.clone(),
        reason: args.reason.clone(),
        exact_shown: exact.is_some(),
        outcome: replayed.outcome(),
        broken: replayed.broken(),
        unknown: replayed.unknown(),
        software: SOFTWARE.into(),
        at: clock.now(),
    };
    // Nothing is shown that is not in the log.
    let envelope = Envelope::sign(&statement, &[&signing]).into_diagnostic()?.to_json();
    ledger.record_replay(charge_id, &envelope, statement.at).await.into_diagnostic()?;
    store.close().await;
    match args.output {
        Output::Json => println!("{}", document(&replayed, &statement)),
        Output::Table => print(&replayed, exact, args.numbers),
    }
    said(&statement)
}

/// The outcome in a word for the exit code, and a sentence for people.
fn said(statement: &Replay) -> Result<()> {
    let names = |links: &[sekisho_protocol::replay::Link]| {
        links.iter().map(|link| link.as_str()).collect::<Vec<_>>().join(", ")
    };
    match statement.outcome {
        Outcome::Match => Ok(()),
        Outcome::Mismatch => Err(miette!(
            "MISMATCH: charge {} cannot be made again as it was released; broken: {} / 不一致:公表された結果を再現できません",
            statement.charge,
            names(&statement.broken)
        )),
        Outcome::Incomplete => Err(miette!(
            "INCOMPLETE: charge {} could not be made again whole; not looked at: {} / 未完了:再現できない部分があります",
            statement.charge,
            names(&statement.unknown)
        )),
    }
}

fn document(replayed: &Replayed, statement: &Replay) -> Value {
    let links = replayed.links.iter().map(|(link, held)| {
        let (state, text) = state(held);
        json!({"link": link, "state": state, "detail": text})
    });
    json!({
        "outcome": statement.outcome, "links": links.collect::<Value>(), "charge": replayed.charged.charge_id,
        "query_key": replayed.charged.key.query_key, "run": replayed.charged.key.run,
        "permit": replayed.charged.key.permit, "study_id": replayed.charged.study_id,
        "as_of": replayed.charged.as_of, "charged_at": replayed.charged.charged_at,
        "sql": replayed.question.as_ref().map(|question| &question.query.sql),
        "person": replayed.question.as_ref().and_then(|question| question.person.as_ref()),
        "receipt": replayed.receipt.as_ref().map(|(_, digest)| digest),
        "explanation": &replayed.explanation, "replay": statement,
    })
}

fn state(held: &Held) -> (&'static str, &str) {
    match held {
        Held::Holds(text) => ("holds", text),
        Held::Broken(text) => ("broken", text),
        Held::Unknown(text) => ("unknown", text),
    }
}

fn print(replayed: &Replayed, exact: Option<&Exact>, numbers: usize) {
    let charged = &replayed.charged;
    let mut facts = vec![
        ("charge", charged.charge_id.to_string()),
        ("run", format!("{}/{}", charged.key.query_key, charged.key.run)),
        ("study", charged.study_id.clone()),
        ("permit", charged.key.permit.to_string()),
        ("patients eligible as of", charged.as_of.to_string()),
        ("charged", format!("{} at {}", charged.cost.micro_rho, charged.charged_at.format("%Y-%m-%d %H:%M:%S UTC"))),
    ];
    if let Some(question) = &replayed.question {
        facts.push(("asked by", question.person.clone().unwrap_or_else(|| "the hospital itself".into())));
    }
    if let Some((receipt, digest)) = &replayed.receipt {
        facts.push(("receipt", digest.to_string()));
        facts.push(("made by", receipt.software.clone()));
    }
    facts.iter().for_each(|(name, value)| println!("{name:<24}{}", plain(value)));
    if let Some(question) = &replayed.question {
        println!("\nSQL");
        question.query.sql.lines().for_each(|line| println!("  {}", plain(line)));
    }
    if let Some(explanation) = &replayed.explanation {
        explain(explanation);
    }
    let rows = replayed.links.iter().map(|(link, held)| {
        let (state, text) = state(held);
        vec![link.as_str().into(), state.into(), plain(text)]
    });
    println!("\n{}", table(["link", "state", "what was found"], rows));
    if replayed.outcome() == Outcome::Match {
        println!("MATCH: made again, this run is exactly what was released / 一致:公表された結果と完全に一致しました");
    }
    if let Some(exact) = exact {
        println!("\n{WARNING}\n");
        exact.show(&mut Screen::new(numbers));
        println!("seed of the noise / 雑音の種: {}", *exact.seed());
    }
}

/// The private plan, as `sekisho explain` has it.
fn explain(explanation: &Explanation) {
    println!("\nPrivate plan, the outermost operator first");
    for step in &explanation.steps {
        let indent = "  ".repeat(step.depth + 1);
        println!("{indent}{}\n{indent}  [{}]", plain(&step.operator), plain(&step.facts));
    }
    for (place, part) in explanation.parts.iter().enumerate() {
        if let Some(rules) = &explanation.exact {
            println!("Aggregate {}: {} cells, exact: every row counts in full, without noise", place + 1, part.cells);
            println!("{}", plain(&rules.in_words().0));
            let measures = part.measures.iter().map(|measure| {
                let range = measure.range.map(|(low, high)| format!("{low} to {high}")).unwrap_or_default();
                vec![plain(&measure.name), range]
            });
            println!("{}", table(["measure", "clamped to"], measures));
            continue;
        }
        println!(
            "Aggregate {}: {} cells; a patient counts in full with {} rows and in {} groups; {} noise",
            place + 1,
            part.cells,
            part.rows_per_patient,
            part.groups_per_patient,
            explanation.mechanism,
        );
        let measures = part.measures.iter().map(|measure| {
            let range = measure.range.map(|(low, high)| format!("{low} to {high}")).unwrap_or_default();
            vec![
                plain(&measure.name),
                range,
                format!("{} {}", measure.norm, measure.sensitivity),
                measure.micro_rho.to_string(),
                format!("{:.4}", measure.standard_deviation),
            ]
        });
        println!("{}", table(["measure", "clamped to", "sensitivity", "micro-rho", "standard deviation"], measures));
    }
}
