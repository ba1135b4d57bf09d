//! Checkpoints: of one's own log, and the newest that was seen of each other party's.

use sqlx::SqliteConnection;

use super::{LogError, damaged, head};
use crate::{
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint, whose},
        note::KeyName,
    },
};

/// What this log is called; none before [`name`].
///
/// # Errors
/// When the database fails.
pub async fn origin(connection: &mut SqliteConnection) -> Result<Option<KeyName>, LogError> {
    let origin: Option<String> = sqlx::query_scalar("SELECT origin FROM log_origin").fetch_optional(connection).await?;
    origin.map(|origin| origin.parse().map_err(|_| damaged("its name"))).transpose()
}

/// Calls this log `wanted` unless it has a name; the one that it has then.
///
/// # Errors
/// When the database fails.
pub async fn name(tx: &mut SqliteConnection, wanted: &KeyName) -> Result<KeyName, LogError> {
    if let Some(origin) = origin(tx).await? {
        return Ok(origin);
    }
    sqlx::query("INSERT INTO log_origin (only, origin) VALUES (0, ?1)").bind(wanted.as_str()).execute(tx).await?;
    Ok(wanted.clone())
}

/// The log's head as it is now, signed.
///
/// # Errors
/// When the database fails.
pub async fn checkpoint(
    connection: &mut SqliteConnection,
    origin: KeyName,
    key: &SecretKey,
) -> Result<SignedCheckpoint, LogError> {
    Ok(SignedCheckpoint::sign(Checkpoint::new(origin, head(connection).await?), key)?)
}

/// The newest checkpoint that was kept of the log `origin`; its signatures are to be checked again.
///
/// # Errors
/// When the database fails, or holds something else.
pub async fn newest(connection: &mut SqliteConnection, origin: &KeyName) -> Result<Option<SignedCheckpoint>, LogError> {
    let note: Option<Vec<u8>> = sqlx::query_scalar("SELECT note FROM log_checkpoint WHERE origin = ?1")
        .bind(origin.as_str())
        .fetch_optional(connection)
        .await?;
    note.map(|note| read(&note, origin.as_str())).transpose()
}

/// The newest checkpoint that was kept of the newest log of the member `member`, whatever its network is called.
///
/// # Errors
/// When the database fails, or holds something else.
pub async fn newest_of(connection: &mut SqliteConnection, member: &str) -> Result<Option<SignedCheckpoint>, LogError> {
    // A member's name has no `/`; `0` is the character after it.
    let sql = "SELECT origin, note FROM (
            SELECT origin, note, substr(origin, instr(origin, '/') + 1) AS rest FROM log_checkpoint
        ) WHERE rest = ?1 OR (rest > ?1 || '/' AND rest < ?1 || '0')";
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(sql).bind(member).fetch_all(connection).await?;
    let generation = |(origin, _): &(String, Vec<u8>)| {
        origin.parse().ok().and_then(|origin: KeyName| whose(&origin).map(|whose| whose.generation))
    };
    let newest = rows.into_iter().max_by_key(generation);
    newest.map(|(_, note)| read(&note, member)).transpose()
}

/// The names of the logs of which a checkpoint was kept, with its size; at most `most`.
///
/// # Errors
/// When the database fails.
pub async fn watched(connection: &mut SqliteConnection, most: u32) -> Result<Vec<(String, u64)>, LogError> {
    let sql = "SELECT origin, size FROM log_checkpoint ORDER BY origin LIMIT ?1";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(most).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(origin, size)| (origin, size.cast_unsigned())).collect())
}

fn read(note: &[u8], whose: &str) -> Result<SignedCheckpoint, LogError> {
    SignedCheckpoint::parse(note).map_err(|_| damaged(format!("the checkpoint of {whose}")))
}

/// Keeps `checkpoint` as the newest of its log. The caller has checked that it continues the one before.
///
/// # Errors
/// When the database fails, or keeps a larger one.
pub async fn keep(tx: &mut SqliteConnection, checkpoint: &SignedCheckpoint) -> Result<(), LogError> {
    let claimed = checkpoint.claimed();
    let (size, note) = (claimed.head().size().cast_signed(), checkpoint.to_string().into_bytes());
    let update = "UPDATE log_checkpoint SET size = ?2, note = ?3 WHERE origin = ?1";
    let origin = claimed.origin().as_str();
    let moved = sqlx::query(update).bind(origin).bind(size).bind(note.as_slice()).execute(&mut *tx).await?;
    if moved.rows_affected() == 0 {
        let insert = "INSERT INTO log_checkpoint (origin, size, note) VALUES (?1, ?2, ?3)";
        sqlx::query(insert).bind(origin).bind(size).bind(note.as_slice()).execute(tx).await?;
    }
    Ok(())
}
