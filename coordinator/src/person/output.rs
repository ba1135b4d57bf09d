//! `sekisho output`: results that wait for reviewers, and the reviewers' word on them.
//!
//! Whoever reads or reviews signs with a committee member's key; the coordinator shows nothing to others. `show` prints the
//! tables as the person who asked would get them, after the facts that help to judge them.

use std::path::PathBuf;

use arrow::ipc::reader::StreamReader;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use clap::{Args, Subcommand};
use sekisho_protocol::{
    access::Item,
    digest::Digest,
    dsse::Envelope,
    key_file,
    keys::SecretKey,
    output_review::{OutputReview, Verdict},
    refusal::{Code, Refusal},
};

use super::{
    Context,
    answer::Rows,
    door::Answer,
    failure::{Exit, Failure},
    number::significant,
    print::{self, Output},
    review::written,
};
use crate::{
    held::{Facts, HeldReport, HeldResult},
    listing::{self, Listing},
    report::{RESULT_KEY, ResultReport},
};

/// Whose key signs.
#[derive(Debug, Args)]
pub struct Signing {
    /// The committee member's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// What a reviewer says of a result.
#[derive(Debug, Args)]
pub struct Word {
    /// The result's digest, or its first digits (8 at least).
    result: String,
    /// Why; whoever asked reads the reasons of a refusal, so they hold no numbers of the result.
    #[arg(long, value_name = "TEXT")]
    reasons: String,
    #[command(flatten)]
    signing: Signing,
    /// Only write the signed review into this file, which must not exist, and hand nothing in: the committee's page takes it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to do with results that wait.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the results that the member may review, those that wait first.
    #[command(after_help = "Example:\n  sekisho output list --key sato.pem")]
    List {
        #[command(flatten)]
        signing: Signing,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Show a result with its disclosure facts. As CSV, the tables alone.
    #[command(after_help = "Example:\n  sekisho output show 5f0c83d2 --key sato.pem")]
    Show {
        /// The result's digest, or its first digits (8 at least).
        result: String,
        #[command(flatten)]
        signing: Signing,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Sign that a result may go to the person who asked. Two different members must.
    #[command(
        after_help = "Example:\n  sekisho output release 5f0c83d2 --reasons 'large cells, no earlier result is close' --key sato.pem"
    )]
    Release(Word),
    /// Sign that a result may go to nobody. One member is enough, and nothing takes it back.
    #[command(
        after_help = "Example:\n  sekisho output refuse 5f0c83d2 --reasons 'differs from an earlier table by few people' --key sato.pem"
    )]
    Refuse(Word),
}

/// Does what `command` says.
///
/// # Errors
/// When a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { signing, output } => {
            let held = all(&key_file::read(&signing.key)?, context).await?;
            print::out(&match output {
                Listing::Table => list(&held),
                Listing::Json => print::json(&held)?,
                Listing::Csv => list_csv(&held),
            })?;
            Ok(Exit::Done)
        }
        Command::Show { result, signing, output } => {
            let key = key_file::read(&signing.key)?;
            let result = named(result, &key, context).await?;
            let shown = held(result, &key, context).await?;
            let rows = Rows::of(&answer(&shown)?)?;
            print::out(&match output {
                Listing::Table => [rows.table(true)?, print::pairs(&facts(&shown))].join("\n\n"),
                Listing::Json => print::json(&shown)?,
                Listing::Csv => rows.csv(true)?,
            })?;
            Ok(Exit::Done)
        }
        Command::Release(word) => review(word, Verdict::Release, context).await,
        Command::Refuse(word) => review(word, Verdict::Refuse, context).await,
    }
}

async fn all(key: &SecretKey, context: &Context) -> Result<Vec<HeldReport>, Failure> {
    context.door().await?.read(Item::HeldResults, key, context.now).await
}

async fn held(result: Digest, key: &SecretKey, context: &Context) -> Result<HeldResult, Failure> {
    context.door().await?.read(Item::HeldResult { result }, key, context.now).await
}

/// The result with this digest, or the one that begins with these digits.
async fn named(text: &str, key: &SecretKey, context: &Context) -> Result<Digest, Failure> {
    if let Ok(result) = text.parse() {
        return Ok(result);
    }
    if text.len() < 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::input(format!("{text:?} is no digest"), "give 8 to 64 of its hexadecimal digits"));
    }
    let held = all(key, context).await?;
    let mut found = held.iter().map(|h| h.result).filter(|d| d.to_string().starts_with(&text.to_ascii_lowercase()));
    match (found.next(), found.next()) {
        (Some(result), None) => Ok(result),
        (Some(_), Some(_)) => Err(Failure::input(format!("several results begin with {text}"), "give more digits")),
        (None, _) => Err(Refusal::new(Code::ResultUnknown, format!("no result begins with {text}")).into()),
    }
}

async fn review(word: &Word, verdict: Verdict, context: &Context) -> Result<Exit, Failure> {
    let key = key_file::read(&word.signing.key)?;
    let result = named(&word.result, &key, context).await?;
    let known = all(&key, context).await?.into_iter().find(|h| h.result == result);
    let unknown = || Refusal::new(Code::ResultUnknown, format!("no result {} is for this member", result.short()));
    let known = known.ok_or_else(unknown)?;
    let review = OutputReview {
        permit: known.permit,
        query_key: known.query_key,
        run: known.run,
        result,
        reviewer: key.public().fingerprint(),
        verdict,
        reasons: word.reasons.clone(),
        at: context.now,
    };
    let envelope = Envelope::sign(&review, &[&key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
    if let Some(path) = &word.out {
        return written(path, &envelope);
    }
    let mut door = context.door().await?;
    let report = door.put(&envelope).await?;
    let held: Vec<HeldReport> = door.read(Item::HeldResults, &key, context.now).await?;
    let exit = print::put(&report, Output::Table, false)?;
    if let Some(now) = held.iter().find(|h| h.result == result) {
        let released = now.reviews.iter().filter(|r| r.verdict == Verdict::Release).count();
        print::out(&format!("result {result} is {}: {released} released it", now.standing.as_str()))?;
    }
    Ok(exit)
}

fn list(held: &[HeldReport]) -> String {
    let row = |h: &HeldReport| {
        let said =
            |v: Verdict| h.reviews.iter().filter(|r| r.verdict == v).map(|r| r.name.as_str()).collect::<Vec<_>>();
        [
            h.result.short(),
            h.standing.as_str().into(),
            h.held_at.format("%Y-%m-%d %H:%M").to_string(),
            h.study.clone(),
            h.permit_id.clone(),
            h.run.to_string(),
            said(Verdict::Release).join(", "),
            said(Verdict::Refuse).join(", "),
        ]
    };
    let header = ["result", "standing", "since (UTC)", "study", "permit", "run", "released by", "refused by"];
    print::table(header, held.iter().map(row))
}

fn list_csv(held: &[HeldReport]) -> String {
    let row = |h: &HeldReport| {
        let count = |v: Verdict| h.reviews.iter().filter(|r| r.verdict == v).count().to_string();
        [
            h.result.to_string(),
            h.standing.as_str().into(),
            h.held_at.to_rfc3339(),
            h.study.clone(),
            h.permit_id.clone(),
            h.permit.to_string(),
            h.query_key.to_string(),
            h.run.to_string(),
            count(Verdict::Release),
            count(Verdict::Refuse),
        ]
    };
    let header =
        ["result", "standing", "held_at", "study", "permit_id", "permit", "query_key", "run", "released", "refused"];
    listing::csv(header, held.iter().map(row))
}

/// The tables of a result, as an answer to a query.
///
/// # Errors
/// When they are not what a coordinator writes.
pub(crate) fn answer(shown: &HeldResult) -> Result<Answer, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::answer("result", why);
    let bytes = BASE64.decode(&shown.tables).map_err(|e| wrong(&e))?;
    let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|e| wrong(&e))?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
    let report = schema.metadata().get(RESULT_KEY).ok_or_else(|| wrong(&"it has no report"))?;
    let report: ResultReport = serde_json::from_str(report).map_err(|e| wrong(&e))?;
    Ok(Answer { report, schema, batches })
}

/// What a reviewer reads beside the tables.
fn facts(shown: &HeldResult) -> Vec<(&'static str, String)> {
    let HeldResult { held, sql, asked, facts, tables: _ } = shown;
    let Facts {
        cells,
        hospital_cells,
        exact,
        hidden_by_preset,
        hidden_besides,
        smallest_shown,
        values,
        loose,
        loose_from,
        largest_share,
        dominated,
        dominant_from,
        compared,
        not_compared,
        close_below,
        close,
        spent,
    } = facts;
    let percent = |share: f64| format!("{} %", significant(100.0 * share));
    let (how, whom) = if *exact { ("EXACT, without noise", "the hospitals") } else { ("noised", "the preset") };
    let mut all = vec![
        ("result", held.result.to_string()),
        ("standing", held.standing.as_str().into()),
        ("study", format!("{}, permit {}, run {}", held.study, held.permit_id, held.run)),
        ("data user", held.data_user.clone()),
        ("question", sql.clone()),
        ("asked", asked.join(", ")),
        ("cells", format!("{cells} of all hospitals, {hospital_cells} of single ones (with margins, before LIMIT)")),
        ("hidden", format!("{hidden_by_preset} by {whom}, {hidden_besides} that others would give away")),
        ("smallest shown", smallest_shown.map_or("none".into(), |n| format!("{n} patients ({how})"))),
        ("uncertain", format!("{loose} of {values} values by more than {}", percent(*loose_from))),
    ];
    if let Some(share) = largest_share {
        let dominated = format!("; {dominated} cells with more than {}", percent(*dominant_from));
        all.push(("largest hospital", format!("{} of a cell at most{dominated}", percent(*share))));
    }
    let lost = if *not_compared > 0 { format!(", {not_compared} could not be") } else { String::new() };
    all.push(("earlier results", format!("{compared} of the study compared{lost}; close is below {close_below}")));
    for one in close {
        let what = if one.same_question { "the same question" } else { "another question" };
        let named = one.named.join("; ");
        let run = format!("{}, {what}, run {}", one.result.short(), one.run);
        all.push(("  close", format!("{} of {} cells of {run}: {named}", one.close, one.cells)));
    }
    for one in spent {
        all.push(("spent", format!("{}: {} micro-rho in {} runs", one.holder, one.micro_rho, one.runs)));
    }
    for review in &held.reviews {
        let verdict = review.verdict.as_str();
        all.push(("review", format!("{verdict} by {} ({}): {}", review.name, review.role, review.reasons)));
    }
    all
}
