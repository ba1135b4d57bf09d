//! `sekisho register`: the public use register, for a web page, a spreadsheet or a reader.
//!
//! Nobody signs to read it. JSON keeps every text as it was written, with `<`, `>` and `&` escaped, so that it may stand in
//! a page; in CSV a text that a spreadsheet would take for a formula begins with an apostrophe.

use std::collections::BTreeSet;

use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use super::{
    Context,
    failure::{Exit, Failure},
    print,
};
use crate::{
    listing::{self, Listing},
    report::RegisterWant,
    use_register::{Coded, Text, Use, UseRegister},
};

/// The languages of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// Japanese.
    Ja,
    /// English.
    En,
}

impl Lang {
    /// The text in this language.
    pub fn of(self, text: &Text) -> &str {
        match self {
            Self::Ja => &text.ja,
            Self::En => &text.en,
        }
    }

    /// The one of two texts that is in this language.
    pub fn say(self, en: &'static str, ja: &'static str) -> &'static str {
        match self {
            Self::Ja => ja,
            Self::En => en,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Ja => "ja",
            Self::En => "en",
        }
    }
}

/// What to do with the register.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the public list of uses: applications, decisions, queries, costs and publications.
    #[command(after_help = "Example:\n  sekisho register export --lang ja --output json > register.ja.json")]
    Export {
        /// Only the uses of this study.
        #[arg(long, value_name = "ID")]
        study: Option<String>,
        /// The language of labels and names [default: both in JSON, English else].
        #[arg(long, value_enum)]
        lang: Option<Lang>,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When the coordinator refuses or cannot be reached.
pub(super) async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let Command::Export { study, lang, output } = command;
    let register = context.door().await?.register(&RegisterWant { study: study.clone() }).await?;
    print::out(&match output {
        Listing::Json => json(&register, *lang)?,
        Listing::Csv => csv(&register, lang.unwrap_or(Lang::En)),
        Listing::Table => table(&register, lang.unwrap_or(Lang::En)),
    })?;
    Ok(Exit::Done)
}

/// The register as JSON that may stand in a page, in one language or both.
pub fn json(register: &UseRegister, lang: Option<Lang>) -> Result<String, Failure> {
    let mut value = serde_json::to_value(register).map_err(|e| Failure::answer("register", e))?;
    if let Some(lang) = lang {
        only(&mut value, lang);
        value["lang"] = lang.code().into();
    }
    // In JSON these characters are found in strings alone.
    let text = print::json(&value)?;
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// Puts the text of one language in the place of each text in both.
fn only(value: &mut Value, lang: Lang) {
    // serde would take a list of two for a struct of two.
    if value.is_object()
        && let Ok(text) = serde_json::from_value::<Text>(value.clone())
    {
        *value = lang.of(&text).into();
        return;
    }
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| only(value, lang)),
        Value::Object(fields) => fields.values_mut().for_each(|value| only(value, lang)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A use in one line: the fields of its columns, and their names in the labels.
const COLUMNS: [&str; 14] = [
    "id",
    "study",
    "data_user",
    "purposes",
    "state",
    "date",
    "reasons",
    "from",
    "to",
    "holders",
    "queries",
    "micro_rho",
    "release_kind",
    "exact_since",
];

fn header(register: &UseRegister, lang: Lang) -> [String; 14] {
    COLUMNS.map(|name| register.labels.get(name).map_or(name, |label| lang.of(label)).to_string())
}

fn row(entry: &Use, lang: Lang) -> [String; 14] {
    let labels = |coded: &[Coded]| coded.iter().map(|c| lang.of(&c.label)).collect::<Vec<_>>().join("; ");
    let decision = entry.decisions.last();
    let day = |at: Option<chrono::DateTime<chrono::Utc>>| at.map(|t| t.date_naive().to_string()).unwrap_or_default();
    let holder = |h: &crate::use_register::HolderEntry| format!("{}: {}", h.name, lang.of(&h.answer.label));
    let asked = entry.queries.iter().filter_map(|query| query.release_kind.as_ref());
    let listed = entry.allowed_queries.iter().map(|query| &query.release_kind);
    let kinds: BTreeSet<&str> = listed.chain(asked).map(|kind| lang.of(&kind.label)).collect();
    let since = entry.holders.iter().filter_map(|h| Some(format!("{}: {}", h.name, h.exact_since?)));
    [
        entry.id.clone(),
        entry.study.clone(),
        entry.data_user.clone(),
        labels(&entry.purposes),
        lang.of(&entry.state.label).into(),
        decision.map(|d| d.date.to_string()).unwrap_or_default(),
        decision.map(|d| d.reasons.clone()).unwrap_or_default(),
        day(entry.period.from),
        day(entry.period.to),
        entry.holders.iter().map(holder).collect::<Vec<_>>().join("; "),
        entry.queries.len().to_string(),
        entry.holders.iter().map(|h| h.micro_rho).fold(0, u64::saturating_add).to_string(),
        kinds.into_iter().collect::<Vec<_>>().join("; "),
        since.collect::<Vec<_>>().join("; "),
    ]
}

/// One line for each use; its queries are in JSON alone.
pub fn csv(register: &UseRegister, lang: Lang) -> String {
    let header = header(register, lang);
    let rows = register.uses.iter().map(|entry| row(entry, lang).map(|text| listing::defused(&text)));
    listing::csv(header.each_ref().map(String::as_str), rows)
}

fn table(register: &UseRegister, lang: Lang) -> String {
    let header = header(register, lang);
    let uses = print::table(header.each_ref().map(String::as_str), register.uses.iter().map(|entry| row(entry, lang)));
    format!("{}, {}\n\n{uses}", lang.of(&register.title), register.generated_at.to_rfc3339())
}
