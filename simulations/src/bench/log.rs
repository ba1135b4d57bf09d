//! How fast a log grows, durably, how long a proof takes, and how long it takes to verify everything in it.

mod network;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use miette::{IntoDiagnostic, Result, miette};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sekisho_node::store::Store;
use sekisho_protocol::log::{entry::Kind, statements::Statements, store};
use serde_json::{Value, json};
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::print;
use crate::cli::Output;

/// About as long as the envelope of a reservation.
const STATEMENT: [u8; 700] = [b'x'; 700];
/// How many proofs are made.
const PROOFS: u32 = 1000;

/// Appends `entries` in durable batches of `batch` to a node's database, makes inclusion proofs, and reads the whole log again; then the
/// same of a log with `queries` queries, of which every signature is verified.
///
/// # Errors
/// When the database fails, or the log is not whole.
pub async fn log(entries: u32, batch: u32, queries: u64, output: Output) -> Result<()> {
    let dir = tempfile::tempdir().into_diagnostic()?;
    let path = dir.path().join("node.db");
    Store::open(&path).await.into_diagnostic()?.close().await;
    let mut connection = connect(&path).await?;
    let mut rng = ChaCha20Rng::from_os_rng();

    let begun = Instant::now();
    for from in (0..entries).step_by(batch as usize) {
        let statements = vec![(Kind::Reservation, &STATEMENT[..]); (entries - from).min(batch) as usize];
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.into_diagnostic()?;
        store::append(&mut tx, &mut rng, &statements).await.into_diagnostic()?;
        tx.commit().await.into_diagnostic()?;
    }
    let appended = begun.elapsed();

    let head = store::head(&mut connection).await.into_diagnostic()?;
    let (mut total, mut longest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..PROOFS {
        let index = rng.random_range(0..head.size());
        let begun = Instant::now();
        let proof = store::inclusion(&mut connection, index, head.size()).await.into_diagnostic()?;
        let took = begun.elapsed();
        (total, longest) = (total + took, longest.max(took));
        let leaf = store::leaves(&mut connection, index, 1).await.into_diagnostic()?.remove(0);
        let hash = sekisho_protocol::log::merkle::leaf_hash(leaf.commitment.as_bytes());
        head.includes(index, hash, &proof).into_diagnostic()?;
    }
    let begun = Instant::now();
    store::audit(&mut connection, |_| {}).await.into_diagnostic()?;
    let figures = json!({
        "entries": entries,
        "entries in a durable batch": batch,
        "appended in a second": f64::from(entries) / appended.as_secs_f64(),
        "inclusion proof, mean of 1000, ms": total.as_secs_f64() * 1000.0 / f64::from(PROOFS),
        "inclusion proof, slowest, ms": longest.as_secs_f64() * 1000.0,
        "whole log read again, s": begun.elapsed().as_secs_f64(),
    });
    let mut figures = figures;
    if let (Some(figures), Value::Object(verified)) = (figures.as_object_mut(), verified(queries).await?) {
        figures.extend(verified);
    }
    print(&figures, output);
    Ok(())
}

/// The receipts of one query.
const RECEIPTS: u64 = 5;

/// Fills a log as a coordinator's is, with so many queries and five receipts of each, and verifies every signature in it.
async fn verified(queries: u64) -> Result<Value> {
    let dir = tempfile::tempdir().into_diagnostic()?;
    let path = dir.path().join("node.db");
    Store::open(&path).await.into_diagnostic()?.close().await;
    let mut connection = connect(&path).await?;
    let network = network::Signing::fresh();
    let mut rng = ChaCha20Rng::from_os_rng();
    let mut entries = network.documents()?;
    for from in (0..queries).step_by(100) {
        for number in from..queries.min(from + 100) {
            entries.extend(network.round(number, RECEIPTS)?);
        }
        let statements: Vec<_> = entries.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.into_diagnostic()?;
        store::append(&mut tx, &mut rng, &statements).await.into_diagnostic()?;
        tx.commit().await.into_diagnostic()?;
        entries.clear();
    }
    let threads = std::thread::available_parallelism().into_diagnostic()?;
    let mut statements = Statements::new(network.anchors()?);
    let begun = Instant::now();
    store::audit_with(&mut connection, Some(&mut statements), threads, |_| {}).await.into_diagnostic()?;
    let took = begun.elapsed();
    let found = statements.found();
    if (found.matched, found.open) != (queries * RECEIPTS, 0) {
        return Err(miette!("the log of the benchmark is not as it was made: {}", found.in_words()));
    }
    Ok(json!({
        "queries with five receipts each": queries,
        "signatures verified": found.verified,
        "threads": threads.get(),
        "everything verified, s": took.as_secs_f64(),
    }))
}

/// A connection with the settings of a node.
async fn connect(path: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("recursive_triggers", "ON");
    SqliteConnection::connect_with(&options).await.into_diagnostic()
}
