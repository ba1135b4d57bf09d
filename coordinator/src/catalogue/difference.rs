//! What changed from one catalogue to another, field by field.
//!
//! Entries of a list that have an id or a name are compared by it, others by their place.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

/// One field that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where: `data_sets.stays.tables.stay.counts.records.estimate`.
    pub field: String,
    /// What it was; none when it was not there.
    pub before: Option<Value>,
    /// What it is; none when it is no longer there.
    pub after: Option<Value>,
}

/// The fields in which `after` differs from `before`.
pub fn difference(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    walk("", Some(before), Some(after), &mut changes);
    changes
}

fn walk(field: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let (Some(one), Some(other)) = (before.and_then(parts), after.and_then(parts)) else {
        changes.push(Change { field: field.into(), before: before.cloned(), after: after.cloned() });
        return;
    };
    let names: BTreeSet<&String> = one.iter().chain(&other).map(|(name, _)| name).collect();
    for name in names {
        let below = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
        // A part that is there on one side only is shown whole.
        walk(&below, named(&one, name), named(&other, name), changes);
    }
}

fn named<'a>(parts: &[(String, &'a Value)], name: &str) -> Option<&'a Value> {
    parts.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
}

/// The named parts of an object or a list.
fn parts(value: &Value) -> Option<Vec<(String, &Value)>> {
    match value {
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.clone(), value)).collect()),
        Value::Array(entries) => {
            let name = |(i, entry): (usize, &Value)| {
                let keys = ["/id", "/name", "/column/name", "/column", "/schema/id"];
                let found = keys.into_iter().find_map(|key| entry.pointer(key)?.as_str());
                found.map_or_else(|| i.to_string(), str::to_string)
            };
            Some(entries.iter().enumerate().map(|(i, entry)| (name((i, entry)), entry)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
