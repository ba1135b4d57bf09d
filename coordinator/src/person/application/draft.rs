//! An application as a person writes it: TOML or JSON with the fields of [`Application`], or a signed one.
//!
//! This program fills in what follows from the rest: a person's `key_fingerprint` from `key`, a query's `sha256` from its `sql`
//! or from the text of its `file`, the schema's digest from the path of its `.dsse.json`, and the first second of a day that
//! stands where a point in time belongs. A draft need not be complete. It is refused at once for a purpose that is prohibited.

use std::path::Path;

use chrono::NaiveDate;
use sekisho_protocol::{
    application::Application,
    digest::Digest,
    dsse::{Document, Envelope},
};
use serde_json::Value;

use crate::person::{failure::Failure, file, permit_file};

/// An application in TOML with every field explained; it parses.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Reads a draft, or the application of an envelope, as JSON with everything filled in.
///
/// # Errors
/// When a file is missing or malformed, or a purpose is prohibited.
pub fn read(path: &Path) -> Result<Value, Failure> {
    if let Ok(envelope) = Envelope::from_json::<Application>(&file::read(path)?) {
        let (application, _) = envelope.peek::<Application>().map_err(|e| Failure::document(path, e))?;
        return serde_json::to_value(application).map_err(|e| wrong(path, e));
    }
    let mut draft = permit_file::value(path)?;
    permit_file::fill_fingerprints(&mut draft, "people").map_err(|e| wrong(path, e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    permit_file::fill_schema(&mut draft, folder)?;
    fill_queries(&mut draft, folder)?;
    fill_period(&mut draft);
    refuse_prohibited(&draft)?;
    Ok(draft)
}

/// The application of a draft, which may lack what the law asks for.
///
/// # Errors
/// When a field is malformed, unknown, or beyond its bounds.
pub fn application(draft: Value, path: &Path) -> Result<Application, Failure> {
    let application: Application = serde_json::from_value(draft).map_err(|e| wrong(path, e))?;
    application.check().map_err(|e| wrong(path, e))?;
    Ok(application)
}

/// Refuses a purpose that nobody may grant, by its name.
///
/// # Errors
/// `purpose_prohibited`, or what is no purpose at all.
pub fn refuse_prohibited(draft: &Value) -> Result<(), Failure> {
    permit_file::refuse_prohibited(draft)
}

/// A day as its first second.
pub fn instant(text: &str) -> Option<String> {
    text.parse::<NaiveDate>().ok().map(|day| format!("{day}T00:00:00Z"))
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::input(format!("{}: {why}", path.display()), "see `sekisho application new`")
}

/// What is no list of tables is left as it is, and is no application.
fn fill_queries(draft: &mut Value, folder: &Path) -> Result<(), Failure> {
    let queries = draft.get_mut("queries").and_then(Value::as_array_mut).into_iter().flatten();
    for query in queries.filter_map(Value::as_object_mut) {
        if let Some(Value::String(name)) = query.remove("file") {
            query.insert("sql".into(), file::read_text(&folder.join(name))?.into());
        }
        let Some(Value::String(sql)) = query.get_mut("sql") else { continue };
        *sql = sql.trim().to_string();
        let digest = Digest::of(sql.as_bytes()).to_string();
        query.entry("sha256").or_insert_with(|| digest.into());
    }
    Ok(())
}

fn fill_period(draft: &mut Value) {
    let Some(period) = draft.get_mut("period").and_then(Value::as_object_mut) else { return };
    for end in ["from", "to"] {
        if let Some(Value::String(text)) = period.get_mut(end)
            && let Some(first) = instant(text)
        {
            *text = first;
        }
    }
}
