//! A party's log in its SQLite database, the same for hospitals and the coordinator (feature `log-store`).
//!
//! Every function works on the caller's connection, and [`append`] inside the caller's transaction: so the log and what it
//! is a log of agree after any crash. What the database alone can promise, its triggers do ([`SCHEMA`]): leaves and tiles
//! only grow, and a statement may be erased with its salt while every proof stays valid. Whoever can write the file can do
//! anything to it; that is what checkpoints at other parties are for, and [`audit`] finds what does not fit together.
//!
//! Deliberately absent: signing for others, any wire, and any meaning of a statement.

mod audit;
mod checkpoint;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

pub use self::{
    audit::{Audited, audit, audit_with},
    checkpoint::{checkpoint, keep, name, newest, newest_of, origin, watched},
    shown::{Proved, Shown, Which, place_of, prove},
};
use crate::{
    digest::Digest,
    log::{
        checkpoint::CheckpointError,
        edge::{Edge, EdgeError},
        entry::{Entry, Kind, Opening, Salt},
        merkle::{self, HashReader, Node, Plan, ProofError, TreeHead},
        statements::WrongStatement,
        tile::{Tile, TileError, TileHashes, TileReader, WIDTH},
    },
};

/// The tables and triggers: a migration of whoever keeps a log.
pub const SCHEMA: &str = include_str!("store.sql");
/// The most entries that are read at once.
pub const MAX_PAGE: u32 = 1000;

/// Why a stored log cannot be read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// SQLite said no.
    #[error("the log's tables: {0}")]
    Sql(#[from] sqlx::Error),
    /// What is stored does not fit together.
    #[error("the stored log is damaged: {0}; restore the database from a copy")]
    Damaged(String),
    /// No such entry, or another log.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A statement that is not signed by whoever had to sign it.
    #[error(transparent)]
    Statement(#[from] WrongStatement),
    /// No proof can be made of this entry.
    #[error("{0}")]
    Unprovable(String),
}

fn damaged(what: impl Into<String>) -> LogError {
    LogError::Damaged(what.into())
}

impl From<TileError<LogError>> for LogError {
    fn from(error: TileError<LogError>) -> Self {
        match error {
            TileError::Reader(error) => error,
            TileError::Outside { .. } | TileError::Length { .. } => damaged(error.to_string()),
        }
    }
}

/// One entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its place, from 0.
    pub index: u64,
    /// What kind of statement it commits to.
    pub kind: Kind,
    /// What the tree holds.
    pub commitment: Digest,
    /// What opens it; none when it was erased.
    pub opened: Option<Opened>,
}

/// A statement with its salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The salt of the commitment.
    pub salt: Salt,
    /// The statement: a DSSE envelope, or a signed checkpoint.
    pub statement: Vec<u8>,
}

/// Appends statements and returns the index of the first. They are in the log once the caller's transaction is committed.
///
/// # Errors
/// When the database fails, or the stored hashes are not those of the stored root; then the transaction must be dropped.
pub async fn append<R: RngCore + CryptoRng + Send>(
    tx: &mut SqliteConnection,
    rng: &mut R,
    statements: &[(Kind, &[u8])],
) -> Result<u64, LogError> {
    let before = head(tx).await?;
    let mut edge = edge(tx, &before).await?;
    let mut leaves = Vec::with_capacity(statements.len());
    for (index, (kind, statement)) in (before.size()..).zip(statements) {
        let entry = Entry::of(Opening { kind: *kind, salt: Salt::fresh(rng) }, statement);
        insert(tx, index, &entry, statement).await?;
        leaves.push(entry.leaf_hash());
    }
    let hashes = edge.append(&leaves)?;
    let mut tiles: BTreeMap<(u8, u64), Vec<u8>> = BTreeMap::new();
    for (node, hash) in hashes {
        tiles.entry(place(node)).or_default().extend(hash.as_bytes());
    }
    for ((level, index), hashes) in tiles {
        extend(tx, level, index, &hashes).await?;
    }
    if !leaves.is_empty() {
        set_head(tx, &edge.head()).await?;
    }
    Ok(before.size())
}

/// Level and index of the tile that `node`, one of those that tiles hold, is in.
fn place(node: Node) -> (u8, u64) {
    (node.level / crate::log::tile::HEIGHT, node.index / u64::from(WIDTH))
}

async fn insert(tx: &mut SqliteConnection, index: u64, entry: &Entry, statement: &[u8]) -> Result<(), LogError> {
    sqlx::query("INSERT INTO log_leaf (idx, kind, commitment) VALUES (?1, ?2, ?3)")
        .bind(index.cast_signed())
        .bind(entry.kind.as_str())
        .bind(entry.commitment().as_bytes().as_slice())
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO log_statement (idx, salt, digest, envelope) VALUES (?1, ?2, ?3, ?4)")
        .bind(index.cast_signed())
        .bind(entry.salt.as_bytes().as_slice())
        .bind(entry.statement.as_bytes().as_slice())
        .bind(statement)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

async fn extend(tx: &mut SqliteConnection, level: u8, index: u64, hashes: &[u8]) -> Result<(), LogError> {
    let grow = "UPDATE log_tile SET hashes = CAST(hashes || ?3 AS BLOB) WHERE level = ?1 AND idx = ?2";
    let grown = sqlx::query(grow).bind(level).bind(index.cast_signed()).bind(hashes).execute(&mut *tx).await?;
    if grown.rows_affected() == 0 {
        let insert = "INSERT INTO log_tile (level, idx, hashes) VALUES (?1, ?2, ?3)";
        sqlx::query(insert).bind(level).bind(index.cast_signed()).bind(hashes).execute(tx).await?;
    }
    Ok(())
}

async fn set_head(tx: &mut SqliteConnection, head: &TreeHead) -> Result<(), LogError> {
    let (size, root) = (head.size().cast_signed(), head.root());
    let update = "UPDATE log_head SET size = ?1, root = ?2";
    let moved = sqlx::query(update).bind(size).bind(root.as_bytes().as_slice()).execute(&mut *tx).await?;
    if moved.rows_affected() == 0 {
        let insert = "INSERT INTO log_head (only, size, root) VALUES (0, ?1, ?2)";
        sqlx::query(insert).bind(size).bind(root.as_bytes().as_slice()).execute(tx).await?;
    }
    Ok(())
}

/// How many entries the log has, and its root.
///
/// # Errors
/// When the database fails.
pub async fn head(connection: &mut SqliteConnection) -> Result<TreeHead, LogError> {
    let row: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT size, root FROM log_head").fetch_optional(connection).await?;
    let Some((size, root)) = row else { return Ok(TreeHead::empty()) };
    TreeHead::new(size.cast_unsigned(), digest(&root)?).ok_or_else(|| damaged("its head"))
}

/// The head that the log had when it had `size` entries.
///
/// # Errors
/// [`ProofError::Shrunk`] when it has fewer.
pub async fn head_at(connection: &mut SqliteConnection, size: u64) -> Result<TreeHead, LogError> {
    let now = head(connection).await?;
    if size >= now.size() {
        let shrunk = ProofError::Shrunk { old: size, new: now.size() };
        return if size == now.size() { Ok(now) } else { Err(shrunk.into()) };
    }
    let nodes: Vec<Node> = merkle::peaks(size).collect();
    let tiles = tiles(connection, &nodes, size).await?;
    let hashes = TileHashes::new(&tiles, size);
    let peaks = nodes.into_iter().map(|node| hashes.hash(node)).collect::<Result<Vec<_>, _>>()?;
    TreeHead::new(size, merkle::fold(&peaks)).ok_or_else(|| damaged("its size"))
}

async fn edge(connection: &mut SqliteConnection, head: &TreeHead) -> Result<Edge, LogError> {
    let tiles = tiles(connection, &Edge::nodes(head), head.size()).await?;
    Edge::read(head, &TileHashes::new(&tiles, head.size())).map_err(|error| match error {
        EdgeError::Reader(error) => error.into(),
        EdgeError::OtherRoot { size } => damaged(format!("the hashes of its {size} entries do not have their root")),
    })
}

/// The proof that entry `index` is in the log of `size` entries.
///
/// # Errors
/// When there is no such entry, or the log is shorter.
pub async fn inclusion(connection: &mut SqliteConnection, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
    proof(connection, &Plan::inclusion(index, size)?, size).await
}

/// The proof that the log of `new` entries continues the one of `old`.
///
/// # Errors
/// When `old` is more than `new`, or the log is shorter.
pub async fn consistency(connection: &mut SqliteConnection, old: u64, new: u64) -> Result<Vec<Digest>, LogError> {
    proof(connection, &Plan::consistency(old, new)?, new).await
}

async fn proof(connection: &mut SqliteConnection, plan: &Plan, size: u64) -> Result<Vec<Digest>, LogError> {
    let tiles = tiles(connection, &plan.nodes(), size).await?;
    Ok(plan.read(&TileHashes::new(&tiles, size))?)
}

/// The tiles that a proof needs, read before it is made.
struct Tiles(BTreeMap<Tile, Vec<u8>>);

impl TileReader for Tiles {
    type Error = LogError;

    fn tile(&self, tile: Tile) -> Result<Vec<u8>, LogError> {
        self.0.get(&tile).cloned().ok_or_else(|| damaged(format!("it lacks {tile}")))
    }
}

async fn tiles(connection: &mut SqliteConnection, nodes: &[Node], size: u64) -> Result<Tiles, LogError> {
    let mut tiles = BTreeMap::new();
    for node in nodes {
        let tile = Tile::holding(*node, size).ok_or_else(|| damaged(format!("it has no {size} entries")))?;
        if let std::collections::btree_map::Entry::Vacant(gap) = tiles.entry(tile)
            && let Some(bytes) = self::tile(connection, tile).await?
        {
            gap.insert(bytes);
        }
    }
    Ok(Tiles(tiles))
}

/// The bytes of a tile, none when the log does not have it.
///
/// # Errors
/// When the database fails.
pub async fn tile(connection: &mut SqliteConnection, tile: Tile) -> Result<Option<Vec<u8>>, LogError> {
    let bytes = u32::from(tile.width()) * 32;
    let sql = "SELECT substr(hashes, 1, ?3) FROM log_tile WHERE level = ?1 AND idx = ?2 AND length(hashes) >= ?3";
    let found = sqlx::query_scalar(sql).bind(tile.level()).bind(tile.index().cast_signed()).bind(bytes);
    Ok(found.fetch_optional(connection).await?)
}

const LEAF: &str = "SELECT l.idx, l.kind, l.commitment, s.salt, s.envelope
    FROM log_leaf l LEFT JOIN log_statement s ON s.idx = l.idx";

/// Entries from `from` on, in order; at most `limit` of them and at most [`MAX_PAGE`].
///
/// # Errors
/// When the database fails or holds what was not written there.
pub async fn leaves(connection: &mut SqliteConnection, from: u64, limit: u32) -> Result<Vec<Leaf>, LogError> {
    let sql = sqlx::AssertSqlSafe(format!("{LEAF} WHERE l.idx >= ?1 ORDER BY l.idx LIMIT ?2"));
    let rows = sqlx::query(sql).bind(i64::try_from(from).unwrap_or(i64::MAX)).bind(limit.min(MAX_PAGE));
    rows.fetch_all(connection).await?.iter().map(leaf).collect()
}

/// The same of one kind.
///
/// # Errors
/// When the database fails or holds what was not written there.
pub async fn leaves_of(
    connection: &mut SqliteConnection,
    kind: Kind,
    from: u64,
    limit: u32,
) -> Result<Vec<Leaf>, LogError> {
    let sql = sqlx::AssertSqlSafe(format!("{LEAF} WHERE l.idx >= ?1 AND l.kind = ?3 ORDER BY l.idx LIMIT ?2"));
    let rows = sqlx::query(sql).bind(i64::try_from(from).unwrap_or(i64::MAX)).bind(limit.min(MAX_PAGE));
    rows.bind(kind.as_str()).fetch_all(connection).await?.iter().map(leaf).collect()
}

/// Where `statement` was entered as `kind`: the first time, unless it was erased.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut SqliteConnection, kind: Kind, statement: &[u8]) -> Result<Option<u64>, LogError> {
    let sql =
        "SELECT min(s.idx) FROM log_statement s JOIN log_leaf l ON l.idx = s.idx WHERE s.digest = ?1 AND l.kind = ?2";
    let found: Option<i64> = sqlx::query_scalar(sql)
        .bind(Digest::of(statement).as_bytes().as_slice())
        .bind(kind.as_str())
        .fetch_one(connection)
        .await?;
    Ok(found.map(i64::cast_unsigned))
}

/// Erases the statement of entry `index` and its salt; whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn erase(tx: &mut SqliteConnection, index: u64) -> Result<bool, LogError> {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    let erased = sqlx::query("DELETE FROM log_statement WHERE idx = ?1").bind(index).execute(tx).await?;
    Ok(erased.rows_affected() > 0)
}

fn leaf(row: &SqliteRow) -> Result<Leaf, LogError> {
    let index: i64 = row.try_get("idx")?;
    let broken = || damaged(format!("its entry {index}"));
    let opened = match row.try_get::<Option<&[u8]>, _>("salt")? {
        None => None,
        Some(salt) => {
            let salt = Salt::from_bytes(salt.try_into().map_err(|_| broken())?);
            Some(Opened { salt, statement: row.try_get("envelope")? })
        }
    };
    Ok(Leaf {
        index: index.cast_unsigned(),
        kind: row.try_get::<&str, _>("kind")?.parse().map_err(|_| broken())?,
        commitment: digest(row.try_get("commitment")?)?,
        opened,
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, LogError> {
    bytes.try_into().map(Digest::from_bytes).map_err(|_| damaged("a hash"))
}
