//! `sekisho schema`: what a study may assume of every hospital's data.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    key_file,
    schema::{Column, Kind, Schema, Table},
};

use super::{
    Context,
    failure::{Exit, Failure},
    file,
    print::{self, Output, Spinner},
};

/// What to do with a schema.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a schema and sign it.
    #[command(after_help = "Example:\n  sekisho schema sign stays.json --key governance.pem --out stays.dsse.json")]
    Sign {
        /// The schema, in JSON.
        file: PathBuf,
        /// The governance key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where the signed schema goes; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Hand in a signed schema.
    #[command(after_help = "Example:\n  sekisho schema submit stays.dsse.json")]
    Submit {
        /// The signed schema.
        file: PathBuf,
    },
    /// Print tables, columns and bounds of a schema, signed or not.
    #[command(after_help = "Example:\n  sekisho schema show stays.dsse.json")]
    Show {
        /// The schema.
        file: PathBuf,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When a file or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Sign { file, key, out } => {
            let schema = unsigned(file)?;
            let key = key_file::read(key)?;
            let envelope = Envelope::sign(&schema, &[&key]).map_err(|e| Failure::document(file, e))?;
            let (_, digest) = envelope.peek::<Schema>().map_err(|e| Failure::document(file, e))?;
            file::write_new(out, &envelope.to_json())?;
            print::out(&digest.to_string())?;
            Ok(Exit::Done)
        }
        Command::Submit { file } => {
            let envelope = file::read_envelope::<Schema>(file)?;
            let mut door = context.door().await?;
            let report = {
                let _spinner = Spinner::start("handing in the schema");
                door.put(&envelope).await?
            };
            print::put(&report, Output::Table, false)
        }
        Command::Show { file } => {
            let (schema, digest) = either(file)?;
            print::out(&table(&schema, digest))?;
            Ok(Exit::Done)
        }
    }
}

fn unsigned(path: &Path) -> Result<Schema, Failure> {
    let schema: Schema = serde_json::from_slice(&file::read(path)?)
        .map_err(|e| Failure::input(format!("{} is no schema: {e}", path.display()), "mend what the message names"))?;
    schema.check().map_err(|e| Failure::input(format!("{}: {e}", path.display()), "mend what the message names"))?;
    Ok(schema)
}

/// A schema from its envelope, with its digest, or from its plain JSON. Nobody's signature is checked.
///
/// # Errors
/// When the file is missing or is no schema.
pub fn either(path: &Path) -> Result<(Schema, Option<Digest>), Failure> {
    match Envelope::from_json::<Schema>(&file::read(path)?) {
        Ok(envelope) => envelope.peek::<Schema>().map(|(s, d)| (s, Some(d))).map_err(|e| Failure::document(path, e)),
        Err(_) => unsigned(path).map(|schema| (schema, None)),
    }
}

fn table(schema: &Schema, digest: Option<Digest>) -> String {
    let facts = [
        ("schema", format!("{} version {}", schema.id, schema.version)),
        ("title", schema.title.clone()),
        ("digest", digest.map_or_else(|| "none: it is not signed".into(), |d| d.to_string())),
    ];
    let tables = schema.tables.iter().map(|table| {
        let kind = match (&table.patient, &table.public) {
            (Some(patient), _) if table.one_row_per_patient => format!("one row per patient ({patient})"),
            (Some(patient), _) => format!("rows of patients ({patient})"),
            (None, reason) => format!("public: {}", reason.as_deref().unwrap_or_default()),
        };
        let columns =
            print::table(["column", "type", "bounds", "domain", "unit"], table.columns.iter().map(|c| row(table, c)));
        format!("\n{}: {}\n{columns}", print::plain(&table.name), print::plain(&kind))
    });
    let parts: Vec<String> = std::iter::once(print::pairs(&facts)).chain(tables).collect();
    parts.join("\n")
}

fn row(table: &Table, column: &Column) -> [String; 5] {
    let kind = match column.kind {
        Kind::Int64 => "int64".into(),
        Kind::Decimal => format!("decimal, {} digits", column.scale),
        Kind::Text => "text".into(),
        Kind::Date => "date".into(),
        Kind::Bool => "bool".to_string(),
    };
    let kind = if table.patient.as_deref() == Some(&column.name) { format!("{kind} (patient)") } else { kind };
    let bounds = column.bounds.as_ref().map(|b| format!("{} to {}", b.min, b.max)).unwrap_or_default();
    let domain = column.domain.as_ref().map(|values| domain(values)).unwrap_or_default();
    [column.name.clone(), kind, bounds, domain, column.unit.clone().unwrap_or_default()]
}

fn domain(values: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = values.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if values.len() > SHOWN {
        text.push_str(&format!(", … ({} values)", values.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_shows_its_columns_and_bounds() {
        let schema: Schema = serde_json::from_str(
            r#"{"id":"stays","version":1,"title":"在院","tables":[{"name":"stay","patient":"person_id","columns":[
                {"name":"person_id","type":"int64"},
                {"name":"days","type":"decimal","scale":1,"bounds":{"min":"0","max":"90"},"unit":"d"},
                {"name":"sex","type":"text","domain":["F","M"]}]}]}"#,
        )
        .unwrap();
        let text = table(&schema, None);
        for part in ["在院", "int64 (patient)", "0 to 90", "decimal, 1 digits", "F, M", "rows of patients (person_id)"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
