//! `sekisho verify`: a bundle is checked from its bytes and `trust.toml`; nobody is asked and nothing is written.
//!
//! `--template` alone asks the coordinator what it says of itself, as a draft of a `trust.toml` to be compared by telephone.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use sekisho_protocol::roster::Roster;
use serde::Serialize;

use super::{
    Context,
    failure::{Exit, Failure},
    file,
    print::{self, Output, plain},
    register::Lang,
};
use crate::{
    bundle::{
        archive::{self, MAX_BYTES},
        trust::{self, Trust},
        verify::{self, Check, Outcome, Report, link},
    },
    report::Want,
    use_register::Text,
};

/// Which bundle, and whom to trust.
#[derive(Debug, Args)]
pub struct Command {
    /// The bundle: a zip archive or a folder.
    #[arg(required_unless_present = "template")]
    bundle: Option<PathBuf>,
    /// The keys to trust.
    #[arg(long, value_name = "FILE", required_unless_present = "template")]
    trust: Option<PathBuf>,
    /// Print a trust.toml by what the coordinator says, and check nothing. Compare its keys by telephone before you use it.
    #[arg(long, conflicts_with_all = ["bundle", "trust"])]
    template: bool,
    /// In which language; why a link broke is told in English.
    #[arg(long, value_enum, default_value = "en")]
    lang: Lang,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// Does what `command` says.
///
/// # Errors
/// `not_verified` when a link broke; when a file cannot be read.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let (Some(bundle), Some(trust)) = (&command.bundle, &command.trust) else { return template(context).await };
    let trust = read_trust(trust)?;
    let files = read(bundle)?;
    let report = verify::verify(&files, &trust).await;
    print::out(&match command.output {
        Output::Table => told(&report, command.lang),
        Output::Json => print::json(&Whole::of(&report))?,
    })?;
    if report.verified {
        return Ok(Exit::Done);
    }
    let names: Vec<&str> = report.broken().into_iter().map(link::Link::as_str).collect();
    let detail = format!("{} is not what it says: {}", bundle.display(), names.join(", "));
    Err(Failure::refused("not_verified", detail, "do not rely on it; each broken link above says what to do"))
}

async fn template(context: &Context) -> Result<Exit, Failure> {
    let mut door = context.door().await?;
    let (report, (_, roster, _)) = (door.trust().await?, door.get::<Roster>(&Want::Roster).await?);
    let template = trust::template(&report, &roster).map_err(|e| Failure::answer("roster", e))?;
    print::out(template.trim_end())?;
    print::note("these keys are the coordinator's word: compare each by telephone before you use the file");
    Ok(Exit::Done)
}

fn read_trust(path: &Path) -> Result<Trust, Failure> {
    let beside = |policy: &Path| fs::read(path.parent().unwrap_or(Path::new(".")).join(policy));
    let text = file::read_text(path)?;
    Trust::parse(&text, beside).map_err(|e| {
        Failure::input(format!("{}: {e}", path.display()), "write it as `sekisho verify --template` prints it")
    })
}

fn read(path: &Path) -> Result<std::collections::BTreeMap<String, Vec<u8>>, Failure> {
    let wrong = |e: archive::ArchiveError| {
        Failure::input(
            format!("{}: {e}", path.display()),
            "name a bundle of `sekisho release export`: a zip archive or a folder",
        )
    };
    if path.is_dir() {
        return archive::folder(path).map_err(wrong);
    }
    let (mut bytes, most) = (Vec::new(), MAX_BYTES as u64 + (16 << 20));
    let file = fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| Failure::file(path, &e))?;
    if bytes.len() as u64 > most {
        return Err(wrong(archive::ArchiveError::TooLarge));
    }
    archive::unzip(&bytes).map_err(wrong)
}

/// The report with the words for each link, for programs.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    report: &'a Report,
    links: Vec<Words>,
    not_proved: Vec<Text>,
}

#[derive(Serialize)]
struct Words {
    link: link::Link,
    shown: Text,
    meaning: Text,
    advice: Text,
}

impl<'a> Whole<'a> {
    fn of(report: &'a Report) -> Self {
        let words = |link: &link::Link| Words {
            link: *link,
            shown: link.shown(),
            meaning: link.meaning(),
            advice: link.advice(),
        };
        Self { report, links: link::Link::ALL.iter().map(words).collect(), not_proved: link::not_proved() }
    }
}

/// The report in plain words: a line for each check.
fn told(report: &Report, lang: Lang) -> String {
    let mut lines = Vec::new();
    if let (Some(result), Some(study)) = (report.result, &report.study) {
        lines.push(format!("{} {result}\n{} {study}\n", lang.say("result", "結果"), lang.say("study", "研究")));
    }
    lines.extend(report.checks.iter().map(|check| line(check, lang)));
    lines.push(String::new());
    lines.extend(as_of(report, lang));
    lines.push(lang.say("Not proved by this:", "これで証明されないこと:").into());
    lines.extend(link::not_proved().iter().map(|text| format!("  - {}", lang.of(text))));
    lines.push(String::new());
    lines.push(match report.broken().len() {
        0 if report.verified => lang.say("Every link holds.", "すべての鎖がつながっています。").into(),
        broken => format!("{} {broken}", lang.say("NOT VERIFIED. Broken links:", "確認できません。切れた鎖の数:")),
    });
    lines.join("\n")
}

fn line(check: &Check, lang: Lang) -> String {
    let shown = check.link.shown();
    let about = if check.about.is_empty() { String::new() } else { format!(" ({})", plain(&check.about)) };
    let what = format!("{}{about}", lang.of(&shown));
    match &check.outcome {
        Outcome::Holds { found } => format!("ok      {what}: {}", plain(found)),
        Outcome::Broken { why } => {
            let (meaning, advice) = (check.link.meaning(), check.link.advice());
            let (means, todo) = (lang.say("means", "意味"), lang.say("do", "対処"));
            let (meaning, advice) = (lang.of(&meaning), lang.of(&advice));
            format!("BROKEN  {what}: {}\n          {means}: {meaning}\n          {todo}: {advice}", plain(why))
        }
        Outcome::NotChecked { since } => {
            let since = since.shown();
            format!(
                "--      {}: {what}; {}: {}",
                lang.say("not checked", "未確認"),
                lang.say("broken before it", "その前に切れた鎖"),
                lang.of(&since)
            )
        }
    }
}

fn as_of(report: &Report, lang: Lang) -> Vec<String> {
    let Some(as_of) = &report.as_of else { return Vec::new() };
    let witness = |(name, at): &(String, DateTime<Utc>)| {
        format!("{} ({})", plain(name), at.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let witnesses: Vec<String> = as_of.witnesses.iter().map(witness).collect();
    let nobody = lang.say("nobody", "なし").to_string();
    vec![
        format!("{} {}", lang.say("As of the checkpoint of", "チェックポイント:"), as_of.log),
        format!("  {} {}, root {}", lang.say("entries", "件数"), as_of.size, as_of.root),
        format!(
            "  {} {}",
            lang.say("cosigned by", "証人"),
            if witnesses.is_empty() { nobody } else { witnesses.join(", ") }
        ),
        String::new(),
    ]
}
