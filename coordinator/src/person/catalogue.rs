//! `sekisho catalogue`: what the hospitals say they hold.
//!
//! A catalogue counts when the key that the roster gives its hospital signed it; the roster is the one that the coordinator
//! serves. Deliberately absent: any belief in what is declared, and any change: hospitals publish for themselves.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use sekisho_protocol::{
    catalogue::{Catalogue, DataSet, Estimate, TableEntry},
    dsse::Verified,
    roster::{Member, Role, Roster},
};
use serde_json::{Value, json};

use super::{
    Context,
    door::Door,
    failure::{Exit, Failure},
    file, print,
};
use crate::{
    catalogue::{
        dcat,
        difference::{Change, difference},
        rules,
        search::search,
    },
    listing::Listing,
    report::Want,
    store::Kind,
};

/// What to do with catalogues.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find data sets by words in titles, keywords, tables, columns and code systems; every word must be found.
    #[command(after_help = "Example:\n  sekisho catalogue search 入院 ICD-10 --output csv")]
    Search {
        /// The words, in Japanese or English.
        #[arg(required = true, value_name = "TEXT")]
        words: Vec<String>,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Show a hospital's data sets, tables and columns, with their noised counts.
    #[command(after_help = "Example:\n  sekisho catalogue show west")]
    Show {
        /// The hospital.
        node: String,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Show what changed between two of a hospital's catalogues.
    #[command(after_help = "Example:\n  sekisho catalogue diff west --from 1 --to 3")]
    Diff {
        /// The hospital.
        node: String,
        /// The number of the older one.
        #[arg(long, value_name = "SEQ")]
        from: u64,
        /// The number of the newer one.
        #[arg(long, value_name = "SEQ")]
        to: u64,
        /// For people, programs or spreadsheets.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Write data sets as HealthDCAT-AP (release 8), one file each.
    #[command(after_help = "Example:\n  sekisho catalogue export west --format turtle --out west.ttl")]
    Export(Export),
}

/// In which form of RDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rdf {
    Turtle,
    Jsonld,
}

impl Rdf {
    const fn ending(self) -> &'static str {
        match self {
            Self::Turtle => "ttl",
            Self::Jsonld => "jsonld",
        }
    }
}

/// What is written where.
#[derive(Debug, Args)]
pub struct Export {
    /// The hospital; without one, all of them, into --folder.
    node: Option<String>,
    /// The data set, where the hospital has several and --out is one file.
    #[arg(long, value_name = "ID")]
    dataset: Option<String>,
    /// The form.
    #[arg(long, value_enum, default_value = "turtle")]
    format: Rdf,
    /// The file for one data set; one that is there is replaced.
    #[arg(long, value_name = "FILE", required_unless_present = "folder", conflicts_with = "folder", requires = "node")]
    out: Option<PathBuf>,
    /// The folder for all data sets, as HOSPITAL.DATASET.ttl or .jsonld.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Does what `command` says.
///
/// # Errors
/// When the coordinator cannot be reached, there is no such catalogue, or a file cannot be written.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let mut door = context.door().await?;
    match command {
        Command::Search { words, output } => {
            let catalogues = all(&mut door).await?;
            let hits = search(catalogues.iter().map(|c| c.document()), words);
            let rows = hits.iter().map(|hit| {
                let places = hit.places.iter().map(|p| format!("{} {}", p.part, p.name).trim_end().to_string());
                let places: Vec<_> = places.collect();
                [hit.node.clone(), hit.data_set.clone(), hit.title.clone(), places.join(", ")]
            });
            print::list(*output, &hits, ["hospital", "data set", "title", "found in"], rows)?;
        }
        Command::Show { node, output } => {
            let catalogue = one(&mut door, node).await?;
            show(&catalogue, *output)?;
        }
        Command::Diff { node, from, to, output } => {
            let (before, after) = (numbered(&mut door, node, *from).await?, numbered(&mut door, node, *to).await?);
            let changes = difference(&json!(before.document()), &json!(after.document()));
            let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            let row = |change: &Change| [change.field.clone(), text(&change.before), text(&change.after)];
            print::list(*output, &changes, ["field", "before", "after"], changes.iter().map(row))?;
        }
        Command::Export(export) => return written(&mut door, export).await,
    }
    Ok(Exit::Done)
}

/// The hospitals of the roster.
async fn members(door: &mut Door) -> Result<Vec<Member>, Failure> {
    let (_, roster, _) = door.get::<Roster>(&Want::Roster).await?;
    Ok(roster.members.into_iter().filter(|member| member.role == Role::Node).collect())
}

async fn member(door: &mut Door, node: &str) -> Result<Member, Failure> {
    let found = members(door).await?.into_iter().find(|member| member.name == node);
    found.ok_or_else(|| Failure::input(format!("the roster has no hospital {node}"), "look at `sekisho roster show`"))
}

async fn fetched(door: &mut Door, member: &Member) -> Result<Verified<Catalogue>, Failure> {
    let (envelope, _, _) = door.get::<Catalogue>(&Want::Catalogue { node: member.name.clone() }).await?;
    let catalogue = envelope.verify::<Catalogue>(&[member.signing_key], 1);
    let catalogue = catalogue.map_err(|e| Failure::answer("catalogue", e))?;
    if catalogue.node != member.name {
        return Err(Failure::answer("catalogue", "it is another hospital's"));
    }
    Ok(catalogue)
}

/// The newest catalogue of one hospital.
async fn one(door: &mut Door, node: &str) -> Result<Verified<Catalogue>, Failure> {
    let member = member(door, node).await?;
    fetched(door, &member).await
}

/// The newest catalogue of every hospital that has one.
///
/// # Errors
/// When the coordinator cannot be reached.
pub(super) async fn all(door: &mut Door) -> Result<Vec<Verified<Catalogue>>, Failure> {
    let mut found = Vec::new();
    for member in members(door).await? {
        match fetched(door, &member).await {
            Ok(catalogue) => found.push(catalogue),
            Err(failure) if failure.exit() == Exit::Unreachable => return Err(failure),
            Err(failure) => print::note(&format!("{}: passed over: {failure}", member.name)),
        }
    }
    Ok(found)
}

async fn numbered(door: &mut Door, node: &str, seq: u64) -> Result<Verified<Catalogue>, Failure> {
    let member = member(door, node).await?;
    let listed = door.list(Kind::Catalogue, Some(node)).await?;
    let found = listed.into_iter().find(|listed| listed.seq == seq).ok_or_else(|| {
        Failure::input(format!("no catalogue {seq} of {node} is kept"), "look at the number with `catalogue show`")
    })?;
    found.envelope.verify(&[member.signing_key], 1).map_err(|e| Failure::answer("catalogue", e))
}

fn show(catalogue: &Verified<Catalogue>, output: Listing) -> Result<(), Failure> {
    const HEADER: [&str; 8] = ["data set", "table", "column", "type", "code system", "domain", "count", "complete"];
    let rows = catalogue.data_sets.iter().flat_map(|set| {
        set.tables.iter().flat_map(move |table| std::iter::once(table_row(set, table)).chain(column_rows(set, table)))
    });
    if output != Listing::Table {
        return print::list(output, catalogue.document(), HEADER, rows);
    }
    for set in &catalogue.data_sets {
        print::out(&print::pairs(&facts(catalogue, set)))?;
    }
    print::list(output, catalogue.document(), HEADER, rows)
}

fn facts(catalogue: &Verified<Catalogue>, set: &DataSet) -> Vec<(&'static str, String)> {
    let said = &set.declared;
    let period = said
        .temporal
        .map_or("not declared".into(), |p| format!("{} to {}", p.from, p.to.map_or("now".into(), |to| to.to_string())));
    let mut facts = vec![
        ("hospital", catalogue.node.clone()),
        ("catalogue", format!("{}, signed {}", catalogue.seq, catalogue.issued)),
        ("data set", format!("{}{}", set.id, if set.synthetic { " (synthetic)" } else { "" })),
        ("title", said.title.words().map(|(_, words)| words).collect::<Vec<_>>().join(" / ")),
        ("asked under", format!("{} version {}, {}", set.schema.id, set.schema.version, set.schema.digest)),
        ("period", period),
        ("counts", format!("drawn every {} days", set.redraw_days)),
    ];
    for conformity in &set.conforms {
        let how = if conformity.whole { "whole" } else { "in part" };
        let name = format!("{} version {}", conformity.schema.id, conformity.schema.version);
        facts.push(("conforms to", format!("{name}: {how}, {} columns", conformity.columns.len())));
    }
    facts
}

fn table_row(set: &DataSet, table: &TableEntry) -> [String; 8] {
    let shown = |e: Estimate| format!("{} ± {}", e.estimate, e.standard_deviation);
    let counts = table.counts.as_ref().map_or(String::new(), |c| {
        format!("{} records, {} patients ({})", shown(c.records), shown(c.individuals), c.drawn_on)
    });
    let empty = String::new;
    [set.id.clone(), table.name.clone(), empty(), empty(), empty(), empty(), counts, empty()]
}

fn column_rows(set: &DataSet, table: &TableEntry) -> impl Iterator<Item = [String; 8]> {
    table.columns.iter().map(|entry| {
        let column = &entry.column;
        let kind = json!(column.kind).as_str().unwrap_or_default().to_string();
        let domain = match (&column.domain, entry.extremes.as_ref().or(column.bounds.as_ref())) {
            (Some(values), _) if values.len() <= 8 => values.join(", "),
            (Some(values), _) => format!("{} values", values.len()),
            (None, Some(bounds)) => format!("{} to {}", bounds.min, bounds.max),
            (None, None) => String::new(),
        };
        let complete = table.counts.as_ref().and_then(|counts| counts.completeness(&column.name));
        let complete = complete
            .map_or(String::new(), |c| format!("{:.1} % ± {:.1}", c.share * 100.0, c.standard_deviation * 100.0));
        let code = entry.code_system.clone().unwrap_or_default();
        [set.id.clone(), table.name.clone(), column.name.clone(), kind, code, domain, String::new(), complete]
    })
}

async fn written(door: &mut Door, export: &Export) -> Result<Exit, Failure> {
    let catalogues = match &export.node {
        Some(node) => vec![one(door, node).await?],
        None => all(door).await?,
    };
    let mut sets: Vec<(&Verified<Catalogue>, &DataSet)> =
        catalogues.iter().flat_map(|catalogue| catalogue.data_sets.iter().map(move |set| (catalogue, set))).collect();
    sets.retain(|(_, set)| export.dataset.as_ref().is_none_or(|id| *id == set.id));
    if sets.is_empty() {
        return Err(Failure::input("there is no such data set", "look with `sekisho catalogue search`"));
    }
    match (&export.out, &export.folder) {
        (Some(path), _) => {
            let [(catalogue, set)] = sets.as_slice() else {
                let detail = format!("{} data sets do not go into one file", sets.len());
                return Err(Failure::input(detail, "name one with --dataset, or give --folder"));
            };
            file::replace(path, &rdf(catalogue, set, export.format)?)?;
            print::note(&format!("wrote {}", path.display()));
            Ok(Exit::Done)
        }
        (None, Some(folder)) => {
            let mut exit = Exit::Done;
            for (catalogue, set) in sets {
                // What one hospital declared wrongly keeps no other's description back.
                match rdf(catalogue, set, export.format) {
                    Ok(bytes) => into(folder, catalogue, set, export.format, &bytes)?,
                    Err(failure) => {
                        failure.to_string().lines().for_each(print::note);
                        exit = Exit::Incomplete;
                    }
                }
            }
            Ok(exit)
        }
        (None, None) => Err(Failure::input("there is no place to write to", "give --out or --folder")),
    }
}

fn into(folder: &Path, catalogue: &Catalogue, set: &DataSet, format: Rdf, bytes: &[u8]) -> Result<(), Failure> {
    // Both names are lower-case letters, digits and hyphens.
    let path = folder.join(format!("{}.{}.{}", catalogue.node, set.id, format.ending()));
    file::replace(&path, bytes)?;
    print::note(&format!("wrote {}", path.display()));
    Ok(())
}

/// The description of `set`, which keeps the rules of the release.
fn rdf(catalogue: &Catalogue, set: &DataSet, format: Rdf) -> Result<Vec<u8>, Failure> {
    let wrong = |why: String| {
        let detail = format!("{} of {}: {why}", set.id, catalogue.node);
        Failure::input(detail, "its hospital has to mend the declaration and publish again")
    };
    let triples = dcat::describe(&catalogue.node, catalogue.issued, set).map_err(|e| wrong(e.to_string()))?;
    let violations = rules::violations(&triples);
    if !violations.is_empty() {
        return Err(wrong(violations.join("; ")));
    }
    let written = match format {
        Rdf::Turtle => dcat::turtle(&triples),
        Rdf::Jsonld => dcat::jsonld(&triples),
    };
    written.map_err(|e| wrong(e.to_string()))
}
