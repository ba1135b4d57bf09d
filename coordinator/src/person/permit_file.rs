//! A permit as a committee writes it: TOML or JSON with the fields of [`Permit`].
//!
//! Two things may be left to this program: a person's `key_fingerprint` is filled in from `key`, and `schema` may
//! be the path of a signed schema, whose digest is taken and whose tables and columns the permit must then name
//! rightly. Everything else must be there: no field of a permit has a default that grants anything.

use std::path::Path;

use sekisho_protocol::{
    digest::Digest,
    dsse::Document,
    keys::PublicKey,
    permit::{Permit, Purpose},
    purpose::PurposeError,
    refusal::Refusal,
    schema::Schema,
};
use serde_json::Value;

use super::{failure::Failure, file};

/// A permit in TOML with every field explained; it parses.
pub const TEMPLATE: &str = include_str!("permit_template.toml");

/// Reads and checks a permit.
///
/// # Errors
/// When the file, or the schema that it names, is missing or wrong.
pub fn read(path: &Path) -> Result<Permit, Failure> {
    of_value(value(path)?, path)
}

/// What the file at `path` holds, as JSON.
///
/// # Errors
/// When it is neither TOML nor JSON, as its name says.
pub fn value(path: &Path) -> Result<Value, Failure> {
    let wrong = |why: String| {
        let advice = "see `sekisho permit template` or `sekisho application new`";
        Failure::input(format!("{}: {why}", path.display()), advice)
    };
    let text = file::read_text(path)?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => from_toml(&text).map_err(wrong),
        Some("json") => serde_json::from_str(&text).map_err(|e| wrong(e.to_string())),
        _ => Err(wrong("its name ends neither in .toml nor in .json".into())),
    }
}

/// Fills in and checks a permit; paths in it begin where the file at `path` lies.
///
/// # Errors
/// When the value, or the schema that it names, is wrong.
pub fn of_value(mut value: Value, path: &Path) -> Result<Permit, Failure> {
    let wrong = |why: String| Failure::input(format!("{}: {why}", path.display()), "see `sekisho permit template`");
    fill_fingerprints(&mut value, "authorised_persons").map_err(wrong)?;
    refuse_prohibited(&value)?;
    let schema = fill_schema(&mut value, path.parent().unwrap_or(Path::new("")))?;
    let permit: Permit = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    permit.check().map_err(wrong)?;
    if let Some(schema) = schema {
        names_exist(&permit, &schema).map_err(wrong)?;
    }
    Ok(permit)
}

/// TOML as JSON; dates and times become text.
fn from_toml(text: &str) -> Result<Value, String> {
    let table: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
    to_json(toml::Value::Table(table))
}

fn to_json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(to_json).collect::<Result<_, _>>()?,
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(name, value)| Ok((name, to_json(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        toml::Value::Float(number) => return Err(format!("{number}: no field is a number with a point")),
    })
}

/// Refuses what nobody may grant by its name, before anything else is said of the draft.
///
/// # Errors
/// `purpose_prohibited`, or what is no purpose at all.
pub fn refuse_prohibited(draft: &Value) -> Result<(), Failure> {
    let purposes = draft.get("purposes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for purpose in purposes {
        purpose.parse::<Purpose>().map_err(|e| match e {
            PurposeError::Prohibited(_) => Refusal::from(e).into(),
            PurposeError::Unknown(_) => Failure::input(e.to_string(), "write one of these"),
        })?;
    }
    Ok(())
}

/// Fills in the fingerprint of each key of the list `name`.
///
/// # Errors
/// When a key is none.
pub fn fill_fingerprints(draft: &mut Value, name: &str) -> Result<(), String> {
    let persons = draft.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
    for person in persons.filter_map(Value::as_object_mut) {
        let Some(key) = person.get("key").and_then(Value::as_str) else { continue };
        let key: PublicKey = key.trim().parse().map_err(|e| format!("{name}: {e}"))?;
        person.entry("key_fingerprint").or_insert_with(|| key.fingerprint().to_string().into());
    }
    Ok(())
}

/// Puts the digest of a schema in the place of its path.
///
/// # Errors
/// When there is no signed schema.
pub fn fill_schema(permit: &mut Value, folder: &Path) -> Result<Option<Schema>, Failure> {
    let Some(field) = permit.get_mut("schema") else { return Ok(None) };
    let Some(name) = field.as_str().filter(|name| name.parse::<Digest>().is_err()) else { return Ok(None) };
    let path = folder.join(name);
    let (schema, digest) =
        file::read_envelope::<Schema>(&path)?.peek::<Schema>().map_err(|e| Failure::document(&path, e))?;
    *field = digest.to_string().into();
    Ok(Some(schema))
}

fn names_exist(permit: &Permit, schema: &Schema) -> Result<(), String> {
    for permitted in &permit.data {
        let table = schema.table(&permitted.table);
        let table = table.ok_or_else(|| format!("the schema has no table {}", permitted.table))?;
        if let Some(column) = permitted.columns.iter().find(|c| table.column(c).is_none()) {
            return Err(format!("table {} of the schema has no column {column}", permitted.table));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sekisho_protocol::dsse::Envelope;

    use super::*;

    fn written(name: &str, text: &str) -> Result<Permit, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let schema: Schema = serde_json::from_str(
            r#"{"id":"s","version":1,"title":"","tables":[{"name":"stay","patient":"id","columns":[
                {"name":"id","type":"int64"},{"name":"sex","type":"text"},{"name":"days","type":"int64"}]}]}"#,
        )
        .unwrap();
        fs::write(folder.path().join("s.dsse.json"), Envelope::sign(&schema, &[]).unwrap().to_json()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        read(&folder.path().join(name))
    }

    #[test]
    fn the_template_is_a_permit() {
        let permit = written("permit.toml", TEMPLATE).unwrap();
        let ada = &permit.authorised_persons[0];
        assert_eq!(ada.key_fingerprint, ada.key.fingerprint());
        assert_eq!(permit.holders(), ["osaka", "tokyo"]);
    }

    #[test]
    fn every_commented_field_of_the_template_is_a_field() {
        let mut text = String::new();
        for line in TEMPLATE.lines() {
            let field = line.strip_prefix("# ").filter(|l| {
                l.split_once(" = ").is_some_and(|(n, _)| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            });
            text.push_str(field.unwrap_or(line));
            text.push('\n');
        }
        let digest = Digest::of(b"the version before").to_string();
        let permit = written("permit.toml", &text.replace("64 hexadecimal digits", &digest)).unwrap();
        assert!(permit.supersedes.is_some() && permit.application_id.is_some());
        assert!(permit.results_due.is_some() && !permit.conditions.is_empty());
        assert!(permit.allowed_queries.is_some() && permit.country.is_some() && permit.application.is_some());
    }

    #[test]
    fn a_permit_is_the_same_from_json_and_with_unquoted_dates() {
        let permit = written("permit.toml", TEMPLATE).unwrap();
        assert_eq!(written("permit.json", &serde_json::to_string(&permit).unwrap()).unwrap(), permit);
        let unquoted = TEMPLATE
            .replace("\"2026-12-01\"", "2026-12-01")
            .replace("\"2026-12-01T00:00:00Z\"", "2026-12-01T00:00:00Z");
        assert_eq!(written("permit.toml", &unquoted).unwrap(), permit);
    }

    #[test]
    fn a_schema_may_be_a_path_and_must_have_the_names() {
        let zeros = "0".repeat(64);
        let with = |text: &str| written("permit.toml", &text.replace(&zeros, "s.dsse.json"));
        assert_ne!(with(TEMPLATE).unwrap().schema.to_string(), zeros);
        assert!(with(&TEMPLATE.replace("\"days\"", "\"weight\"")).is_err());
        assert!(with(&TEMPLATE.replace("table = \"stay\"", "table = \"visit\"")).is_err());
        assert!(written("permit.toml", &TEMPLATE.replace(&zeros, "missing.dsse.json")).is_err());
    }

    #[test]
    fn what_is_wrong_is_no_permit() {
        for (from, to) in [
            ("version = 1", "version = 0"),
            ("version = 1", ""),
            ("version = 1", "version = 1.5"),
            ("version = 1", "version = 1\nraw_rows = true"),
            (
                "id = \"ada\"",
                "id = \"ada\"\nkey_fingerprint = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            ),
            ("jp-ndb\"", "nothing\""),
            ("11qY", "AAAA"),
        ] {
            let failure = written("permit.toml", &TEMPLATE.replacen(from, to, 1)).unwrap_err();
            assert_eq!(failure.exit(), super::super::failure::Exit::Input, "{from} -> {to}");
        }
    }
}
