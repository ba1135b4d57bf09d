//! What a bundle says of itself: `ro-crate-metadata.json` for programs and `README.txt` for people.
//!
//! Both are computed from the other files and nothing else, so that whoever checks a bundle makes them again and compares: no
//! byte of them is without meaning, and none is believed. The crate is an RO-Crate 1.1 with the profile Process Run Crate
//! 0.5: one action (the round) with its instruments, inputs and results, and the assessments before and after it in the terms of
//! the Five Safes (<https://w3id.org/shp>). Terms of other profiles are used where they fit; conformity to them is not claimed.

use std::collections::BTreeMap;

use sekisho_protocol::{
    digest::Digest,
    dsse::{DsseError, Envelope},
    log::checkpoint::{CheckpointError, SignedCheckpoint},
    permit::{Permit, ReleaseKind},
    published::PublishedRelease,
    query::Query,
    receipt::Receipt,
};
use serde_json::{Value, json};

use super::layout;

/// Why a bundle cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A file that every bundle has.
    #[error("the file {0} is missing")]
    Missing(&'static str),
    /// A document that cannot be read.
    #[error(transparent)]
    Document(#[from] DsseError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The most files that are named when they differ.
const MAX_NAMED: usize = 8;
/// The profile that the crate conforms to.
const PROFILE: &str = "https://w3id.org/ro/wfrun/process/0.5";

type Files = BTreeMap<String, Vec<u8>>;

/// Adds the description of `files` to them.
pub(super) fn add(files: &mut Files) -> Result<(), DescribeError> {
    let readme = readme(files)?;
    files.insert(layout::README.into(), readme.into_bytes());
    let described = metadata(files)?;
    files.insert(layout::CRATE.into(), described);
    Ok(())
}

fn file<'a>(files: &'a Files, path: &'static str) -> Result<&'a [u8], DescribeError> {
    files.get(path).map(Vec::as_slice).ok_or(DescribeError::Missing(path))
}

fn statement(files: &Files) -> Result<PublishedRelease, DescribeError> {
    let envelope = Envelope::from_json::<PublishedRelease>(file(files, layout::STATEMENT)?)?;
    Ok(envelope.peek::<PublishedRelease>()?.0)
}

/// How the permit lists the question.
fn kind(files: &Files) -> Result<ReleaseKind, DescribeError> {
    let query = Envelope::from_json::<Query>(file(files, layout::QUERY)?)?.peek::<Query>()?.0;
    let permit = Envelope::from_json::<Permit>(file(files, layout::PERMIT)?)?.peek::<Permit>()?.0;
    Ok(permit.release_of(&query.sql))
}

/// The text for people.
pub(super) fn readme(files: &Files) -> Result<String, DescribeError> {
    let said = statement(files)?;
    let checkpoint = SignedCheckpoint::parse(file(files, layout::CHECKPOINT)?)?;
    let (origin, size) = (checkpoint.claimed().origin(), checkpoint.claimed().head().size());
    let (numbers, promise, promise_ja) = match kind(files)? {
        ReleaseKind::Noised => (
            "numbers with noise",
            "No patient, and no exact number of a hospital, is in here.",
            "患者の情報や、病院の正確な数は入っていません。",
        ),
        ReleaseKind::Aggregated => (
            "exact numbers, small cells hidden",
            "No patient is in here. The numbers are EXACT: disclosure rules alone protect them, not differential privacy.",
            "患者個人の情報は入っていません。数値は正確な値で、秘匿規則だけで保護されており、差分プライバシーの保証はありません。",
        ),
    };
    Ok(include_str!("README.txt")
        .replace("{numbers}", numbers)
        .replace("{promise}", promise)
        .replace("{promise_ja}", promise_ja)
        .replace("{result}", &said.result.to_string())
        .replace("{study}", &said.study_id)
        .replace("{at}", &said.at.to_rfc3339())
        .replace("{origin}", origin.as_str())
        .replace("{size}", &size.to_string()))
}

/// The description for programs. It lists every file but itself, with size and SHA-256.
pub(super) fn metadata(files: &Files) -> Result<Vec<u8>, DescribeError> {
    let said = statement(files)?;
    let permit = Envelope::from_json::<Permit>(file(files, layout::PERMIT)?)?.peek::<Permit>()?.0;
    let listed = || files.iter().filter(|(path, _)| *path != layout::CRATE);
    let check = disclosure_check(files);
    let actions = ["#round", "#sign-off"].into_iter().chain(check.as_ref().map(|_| "#disclosure-check"));
    let mut graph = vec![descriptor(), root(&said, listed().map(|(path, _)| path.as_str()), ids(actions))];
    graph.push(json!({ "@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5" }));
    graph.push(project(&permit));
    graph.push(json!({ "@id": "#data-user", "@type": "Organization", "name": permit.data_user }));
    graph.push(json!({ "@id": "#coordinator", "@type": "SoftwareApplication", "name": said.software }));
    for (name, _) in said.releases() {
        let receipt = files.get(&layout::receipt(name)).map(|bytes| Envelope::from_json::<Receipt>(bytes));
        let software = receipt.transpose()?.map(|envelope| envelope.peek::<Receipt>()).transpose()?;
        let software = software.map(|(receipt, _)| receipt.software).unwrap_or_default();
        graph.push(json!({ "@id": format!("#{name}"), "@type": "SoftwareApplication", "name": software }));
    }
    graph.push(round(&said));
    graph.push(sign_off(&permit));
    graph.extend(check);
    graph.extend(listed().map(|(path, bytes)| data(path, bytes)));
    let crate_ = json!({ "@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph });
    let mut text = serde_json::to_vec_pretty(&crate_)?;
    text.push(b'\n');
    Ok(text)
}

fn ids<'a>(paths: impl Iterator<Item = &'a str>) -> Value {
    paths.map(|path| json!({ "@id": path })).collect()
}

fn descriptor() -> Value {
    json!({
        "@id": layout::CRATE,
        "@type": "CreativeWork",
        "about": { "@id": "./" },
        "conformsTo": { "@id": "https://w3id.org/ro/crate/1.1" },
    })
}

fn root<'a>(said: &PublishedRelease, paths: impl Iterator<Item = &'a str>, actions: Value) -> Value {
    json!({
        "@id": "./",
        "@type": "Dataset",
        "name": format!("Release {} of study {}", said.result.short(), said.study_id),
        "description": "One result of a federated query over hospitals, with what is needed to check it offline",
        "identifier": said.result,
        "datePublished": said.at.to_rfc3339(),
        "license": "As the permit says; see permit.dsse.json",
        "conformsTo": { "@id": PROFILE },
        "sourceOrganization": { "@id": "#project" },
        "mentions": actions,
        "hasPart": ids(paths),
    })
}

/// Safe projects.
fn project(permit: &Permit) -> Value {
    json!({
        "@id": "#project",
        "@type": "Project",
        "name": permit.study_id,
        "identifier": format!("{} {}", permit.id, permit.version),
        "member": { "@id": "#data-user" },
    })
}

/// The action: a question under a permit became releases, and these a table.
fn round(said: &PublishedRelease) -> Value {
    let receipts: Vec<String> =
        said.releases().flat_map(|(name, _)| [layout::receipt(name), layout::cells(name)]).collect();
    let inputs = [layout::QUERY, layout::PERMIT, layout::SCHEMA].into_iter().chain(receipts.iter().map(String::as_str));
    let instruments = said.releases().map(|(name, _)| format!("#{name}"));
    let instruments: Vec<String> = std::iter::once("#coordinator".to_string()).chain(instruments).collect();
    json!({
        "@id": "#round",
        "@type": "CreateAction",
        "name": format!("Run {} of question {}", said.run, said.query_key.short()),
        "agent": { "@id": "#data-user" },
        "instrument": ids(instruments.iter().map(String::as_str)),
        "object": ids(inputs),
        "result": ids(said.files.iter().map(|file| file.path.as_str())),
        "endTime": said.at.to_rfc3339(),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    })
}

/// The committee's decision.
fn sign_off(permit: &Permit) -> Value {
    json!({
        "@id": "#sign-off",
        "@type": "AssessAction",
        "additionalType": { "@id": "https://w3id.org/shp#SignOff" },
        "name": "Decision of the committee",
        "object": { "@id": layout::PERMIT },
        "endTime": permit.decision.date.to_string(),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    })
}

/// What the reviewers of the output said, where the permit wants them.
fn disclosure_check(files: &Files) -> Option<Value> {
    let mut reviews = files.keys().filter(|path| path.starts_with(layout::REVIEWS)).peekable();
    reviews.peek()?;
    Some(json!({
        "@id": "#disclosure-check",
        "@type": "AssessAction",
        "additionalType": { "@id": "https://w3id.org/shp#DisclosureCheck" },
        "name": "Review of the output by members of the committee",
        "instrument": ids(reviews.map(String::as_str)),
        "object": ids([layout::COMBINED_CSV, layout::BY_HOLDER_CSV].into_iter()),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }))
}

fn data(path: &str, bytes: &[u8]) -> Value {
    json!({
        "@id": path,
        "@type": "File",
        "encodingFormat": encoding(path),
        "contentSize": bytes.len().to_string(),
        "sha256": Digest::of(bytes),
    })
}

/// Which of `files` are not as the description `there` lists them, in words; nothing when it lists none.
pub(super) fn differences(there: &[u8], files: &Files) -> String {
    let described: Value = serde_json::from_slice(there).unwrap_or_default();
    let entities = described.get("@graph").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |entity: &Value, key: &str| entity.get(key).and_then(Value::as_str).map(String::from);
    let listed: BTreeMap<String, String> =
        entities.iter().filter_map(|entity| Some((text(entity, "@id")?, text(entity, "sha256")?))).collect();
    if listed.is_empty() {
        return String::new();
    }
    let of = |path: &str| files.get(path).map(|bytes| Digest::of(bytes).to_string());
    let changed = listed.iter().filter(|(path, digest)| of(path).is_some_and(|there| there != **digest));
    let missing = listed.keys().filter(|path| !files.contains_key(*path));
    let more = files.keys().filter(|path| *path != layout::CRATE && !listed.contains_key(*path));
    let named = |what: &str, paths: Vec<&String>| {
        let shown: Vec<&str> = paths.iter().take(MAX_NAMED).map(|path| path.as_str()).collect();
        let rest = if paths.len() > shown.len() { ", …" } else { "" };
        if shown.is_empty() { String::new() } else { format!("; {what}: {}{rest}", shown.join(", ")) }
    };
    let changed = named("changed", changed.map(|(path, _)| path).collect());
    [changed, named("missing", missing.collect()), named("not listed", more.collect())].concat()
}

fn encoding(path: &str) -> &'static str {
    let known = [
        (".dsse.json", "application/vnd.dsse+json"),
        (".json", "application/json"),
        (".csv", "text/csv"),
        (".arrow", "application/vnd.apache.arrow.stream"),
        (".cells", "application/octet-stream"),
    ];
    known.into_iter().find(|(end, _)| path.ends_with(end)).map_or("text/plain", |(_, encoding)| encoding)
}
