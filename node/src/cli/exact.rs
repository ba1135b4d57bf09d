//! What a person at the hospital does with exact results: looks, and decides. It works beside the running node.
//!
//! What is printed of a table is what would leave; hidden cells are marked, and no number of theirs is here.

use std::{path::PathBuf, sync::Arc};

use chrono::NaiveDate;
use clap::Subcommand;
use miette::{IntoDiagnostic, Result};
use sekisho_protocol::{clock::Clock, key_file};
use serde_json::{Value, json};

use super::{Output, configured, inspect::plain, opened, progress::Screen, table};
use crate::{
    answer::Answering,
    daemon::{self, SystemClock},
    data::snapshot::Progress,
    exact::{self, Looked, Shown, hidden_in_words},
    hooks::Hooks,
    ledger::{COMMAND_LINE, ExactRelease, ExactRequest, Said, reason},
    released::Table,
};

/// What ends with the first exact release.
const NO_GUARANTEE: [&str; 2] = [
    "An exact result is not differentially private: from the first one on no such guarantee holds for these patients.",
    "正確な集計は差分プライバシーを満たしません。最初の公開以降、この患者登録簿についての保証はなくなります。",
];

#[derive(Subcommand)]
pub(super) enum Exact {
    /// Lists the exact results that were asked for, those that wait first. No row is read.
    #[command(after_help = "Example: sekisho-node exact list --waiting --config /srv/sekisho/node.toml")]
    List {
        /// Only those that wait for a person.
        #[arg(long)]
        waiting: bool,
        #[command(flatten)]
        at: At,
    },
    /// Shows one request. While it waits: its table as it would leave, what is hidden and by which rule, and what the guard says.
    #[command(after_help = "Example: sekisho-node exact show 3 --config /srv/sekisho/node.toml")]
    Show {
        /// The number of the request.
        request: i64,
        #[command(flatten)]
        at: At,
    },
    /// Lets an exact result out, if the guard agrees. It cannot be taken back; whoever asked gets it when they ask again.
    ///
    /// The guard looks at every exact release that this hospital ever made. When it says no, the request is refused for ever.
    #[command(
        after_help = "Example: sekisho-node exact release 3 --seen 5f0c21aa97be --by \"Dr Mori\" --reason \"checked with the table of 2 June\" \\\n  \
                      --config /srv/sekisho/node.toml"
    )]
    Release {
        /// The number of the request.
        request: i64,
        /// The mark that `show` printed: another table than the one that you looked at does not leave.
        #[arg(long, value_name = "MARK", value_parser = mark)]
        seen: String,
        #[command(flatten)]
        decided: Decided,
        #[command(flatten)]
        at: At,
    },
    /// Refuses an exact result for ever. Whoever asked is told that, and not why.
    #[command(
        after_help = "Example: sekisho-node exact refuse 3 --by \"Dr Mori\" --reason \"rare disease\" --config /srv/sekisho/node.toml"
    )]
    Refuse {
        /// The number of the request.
        request: i64,
        #[command(flatten)]
        decided: Decided,
        #[command(flatten)]
        at: At,
    },
    /// Lists every exact release of this hospital, which the guard looks back at, and since when no guarantee holds.
    #[command(after_help = "Example: sekisho-node exact history --config /srv/sekisho/node.toml --output json")]
    History {
        #[command(flatten)]
        at: At,
    },
}

#[derive(clap::Args)]
pub(super) struct Decided {
    /// Who decides; it stays in the hospital.
    #[arg(long, value_parser = reason)]
    by: String,
    /// Why, in one line; it stays in the hospital. Write nothing about patients.
    #[arg(long, value_parser = reason)]
    reason: String,
}

#[derive(clap::Args)]
pub(super) struct At {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

fn mark(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && text.len() == exact::MARK {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write the mark that `show` printed".into())
    }
}

/// Runs a command on exact results.
pub(super) async fn exact(command: Exact, clock: SystemClock, hooks: Hooks) -> Result<()> {
    match command {
        Exact::List { waiting, at } => {
            let (_, ledger, _) = opened(&at.config).await?;
            list(&ledger.exact_requests(waiting).await.into_diagnostic()?, at.output);
            Ok(())
        }
        Exact::History { at } => {
            let (_, ledger, _) = opened(&at.config).await?;
            let since = ledger.exact_since().await.into_diagnostic()?;
            history(&ledger.exact_releases().await.into_diagnostic()?, since, at.output);
            Ok(())
        }
        Exact::Show { request, at } => {
            let looked = answering(&at, clock, hooks).await?.look(request).await.into_diagnostic()?;
            match at.output {
                Output::Json => println!("{}", document(&looked)),
                Output::Table => print(&looked),
            }
            Ok(())
        }
        Exact::Release { request, seen, decided, at } => {
            let node = answering(&at, clock, hooks).await?;
            let said = Said { by: COMMAND_LINE, reason: &decided.reason, at: clock.now() };
            let out = node.let_out(request, &decided.by, said, &seen).await.into_diagnostic()?;
            let since = node.ledger.exact_since().await.into_diagnostic()?;
            if at.output == Output::Json {
                let (charge, receipt, cut, as_of) = (out.charge_id, out.receipt, out.cut, out.as_of);
                println!(
                    "{}",
                    json!({"request": request, "state": "released", "charge": charge, "receipt": receipt, "cut": cut,
                        "as_of": as_of, "exact_since": since})
                );
                return Ok(());
            }
            if let Some(released) = &out.table {
                println!("{}", rows(released));
            }
            println!("released request {request}, receipt {} / 要求 {request} の集計を公開しました", out.receipt);
            eprintln!("Whoever asked gets it when they ask the same run again.");
            if let Some(day) = since {
                eprintln!("Since {day} no guarantee of differential privacy holds for these patients.");
            }
            Ok(())
        }
        Exact::Refuse { request, decided, at } => {
            let (config, ledger, _) = opened(&at.config).await?;
            let key = key_file::read(&config.signing_key).into_diagnostic()?;
            let said = Said { by: COMMAND_LINE, reason: &decided.reason, at: clock.now() };
            let refused = exact::refuse(&ledger, (&config.name, &key), request, &decided.by, said).await;
            refused.into_diagnostic()?;
            match at.output {
                Output::Json => println!("{}", json!({"request": request, "state": "refused"})),
                Output::Table => println!("refused request {request}, for ever / 要求 {request} を拒否しました"),
            }
            Ok(())
        }
    }
}

async fn answering(at: &At, clock: SystemClock, hooks: Hooks) -> Result<Answering> {
    let (config, screen) = (configured(&at.config)?, Screen::new());
    let report = |progress: Progress<'_>| screen.show(&progress);
    daemon::answering(&config, &report, Arc::new(clock), hooks).await.into_diagnostic()
}

fn name(request: &ExactRequest) -> String {
    format!("{}/{}", request.key.query_key.short(), request.key.run)
}

fn summary(request: &ExactRequest) -> Value {
    let decision = request.decision.as_ref();
    json!({
        "request": request.request, "state": request.state(), "run": name(request), "permit": request.key.permit,
        "study_id": request.study_id, "asked_at": request.at, "decided_at": decision.map(|d| d.at),
        "by": decision.map(|d| &d.who), "reason": decision.map(|d| &d.reason),
    })
}

fn list(requests: &[ExactRequest], output: Output) {
    if output == Output::Json {
        println!("{}", requests.iter().map(summary).collect::<Value>());
        return;
    }
    let rows = requests.iter().map(|request| {
        let decision = request.decision.as_ref();
        vec![
            request.request.to_string(),
            request.state().into(),
            request.study_id.clone(),
            name(request),
            request.at.format("%Y-%m-%d %H:%M").to_string(),
            decision.map(|d| d.at.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default(),
            decision.map(|d| d.who.clone()).unwrap_or_default(),
        ]
    });
    println!("{}", table(["request", "state", "study", "run", "asked at (UTC)", "decided at", "by"], rows));
}

fn history(releases: &[ExactRelease], since: Option<NaiveDate>, output: Output) {
    if output == Output::Json {
        let one = |release: &ExactRelease| {
            let earlier = &release.earlier;
            json!({"release": release.release, "run": earlier.name, "study_id": earlier.study_id, "cut": earlier.cut,
                "min_patients": earlier.min_patients, "at": release.at, "made": release.made, "sql_sha256": earlier.sql})
        };
        println!("{}", json!({"exact_since": since, "releases": releases.iter().map(one).collect::<Value>()}));
        return;
    }
    let rows = releases.iter().map(|release| {
        let earlier = &release.earlier;
        vec![
            release.release.to_string(),
            earlier.name.clone(),
            earlier.study_id.clone(),
            earlier.cut.to_string(),
            release.at.format("%Y-%m-%d %H:%M").to_string(),
            earlier.min_patients.to_string(),
            if release.made { "yes" } else { "no" }.into(),
        ]
    });
    println!("{}", table(["release", "run", "study", "data of", "released at (UTC)", "least patients", "made"], rows));
    match since {
        Some(day) => println!(
            "since {day} no guarantee of differential privacy holds for these patients / {day} 以降、差分プライバシーの保証はありません"
        ),
        None => println!("nothing exact was released / 正確な集計は公開されていません"),
    }
}

fn rows(shown: &Table) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(shown.header.iter().map(|name| plain(name)));
    table.add_rows(shown.rows.iter().map(|row| row.iter().map(|cell| plain(cell))));
    table
}

fn document(looked: &Looked) -> Value {
    let shown = looked.shown.as_ref().map(|shown| {
        let why = shown.hidden;
        json!({
            "rules": shown.rules, "cut": shown.cut, "as_of": shown.as_of, "header": shown.table.header,
            "rows": shown.table.rows, "mark": shown.mark(), "recorded": shown.recorded,
            "hidden": {"rows": why.rows, "few": why.few, "dominated": why.dominated, "complementary": why.complementary},
            "guard": shown.close.as_ref().map(|close| json!({"code": close.as_str(), "why": close.to_string()})),
        })
    });
    json!({
        "request": summary(&looked.request), "permit": looked.permit, "person": looked.person, "sql": looked.sql,
        "shown": shown,
    })
}

fn print(looked: &Looked) {
    let request = &looked.request;
    let fact = |name: &str, value: &str| println!("{name:<12}{}", plain(value));
    fact("request", &format!("{}, {}", request.request, request.state()));
    fact("study", &request.study_id);
    fact("permit", &looked.permit);
    fact("asked by", &format!("{}, {}", looked.person, request.at.format("%Y-%m-%d %H:%M UTC")));
    fact("run", &name(request));
    if let Some(decision) = &request.decision {
        let by = format!("{}, {}: {}", decision.who, decision.at.format("%Y-%m-%d %H:%M UTC"), decision.reason);
        fact(decision.decided.as_str(), &by);
    }
    println!("\nSQL");
    looked.sql.lines().for_each(|line| println!("  {}", plain(line)));
    let Some(shown) = &looked.shown else { return };
    let Shown { rules, cut, as_of, table, hidden, close, recorded } = shown;
    println!("\nData of {cut}, patients eligible as of {as_of}. Least number of patients: {}.", rules.min_patients);
    let (en, ja) = rules.in_words();
    println!("Rules: {en}.\n規則: {ja}。\n\nThe table as it would leave / 公開される表");
    println!("{}", rows(table));
    println!("{}", hidden_in_words(hidden));
    match close {
        Some(close) => println!("\nguard: it would be refused: {close} / ガード: 公開できません"),
        None if *recorded => {
            println!("\nguard: it passed; the release is not made yet: run `release` once more / 公開処理が途中です")
        }
        None => println!("\nguard: it may be let out / ガード: 公開できます"),
    }
    println!("mark of this table / 表の照合記号: {}", shown.mark());
    NO_GUARANTEE.iter().for_each(|line| eprintln!("{line}"));
}
