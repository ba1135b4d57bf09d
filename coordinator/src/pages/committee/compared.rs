//! Two versions of an application, field by field.
//!
//! Promises: every field that differs is named, with what it was and what it is. Deliberately absent: the version's
//! number, what it supersedes, and the applicant's own dry runs, which follow from the rest.

use std::collections::BTreeMap;

use sekisho_protocol::application::Application;
use serde_json::Value;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which: `data[0].columns[2]`.
    pub field: String,
    /// What it was; none where it was not there.
    pub before: Option<String>,
    /// What it is; none where it is gone.
    pub after: Option<String>,
}

/// What is different in `after`, by field.
pub fn changes(before: &Application, after: &Application) -> Vec<Change> {
    let [before, after] = [before, after].map(|application| {
        let mut fields = BTreeMap::new();
        // Every application has a form in JSON: it was signed so.
        flatten(String::new(), &serde_json::to_value(application).unwrap_or_default(), &mut fields);
        fields
    });
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut changes: Vec<Change> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Change { field: name.clone(), before: before.get(name).cloned(), after: after.get(name).cloned() })
        .collect();
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let whole = path.is_empty();
                if whole && ["version", "supersedes"].contains(&name.as_str()) || name == "dry_run" {
                    continue;
                }
                flatten(if whole { name.clone() } else { format!("{path}.{name}") }, value, into);
            }
        }
        Value::Array(values) => {
            for (place, value) in values.iter().enumerate() {
                flatten(format!("{path}[{place}]"), value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(into.insert(path, text.clone())),
        Value::Bool(_) | Value::Number(_) => drop(into.insert(path, value.to_string())),
    }
}
