//! The whole log, read again from its first entry: does everything that is stored fit together?

use std::{collections::BTreeMap, num::NonZeroUsize};

use sqlx::SqliteConnection;

use super::{Leaf, LogError, MAX_PAGE, damaged, head, leaves, place};
use crate::log::{
    edge::Edge,
    entry::{Entry, Opening},
    merkle::{TreeHead, leaf_hash},
    statements::Statements,
    tile::WIDTH,
};

/// What was found of a log that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Its head, made again from its entries.
    pub head: TreeHead,
    /// How many of its statements were erased.
    pub erased: u64,
}

/// Makes every hash again, from the statements that are there and the commitments of those that were erased, and compares.
/// `seen` is told how many entries were checked.
///
/// # Errors
/// [`LogError::Damaged`] names the first entry or tile that is not what it was.
pub async fn audit(connection: &mut SqliteConnection, seen: impl FnMut(u64) + Send) -> Result<Audited, LogError> {
    audit_with(connection, None, NonZeroUsize::MIN, seen).await
}

/// The same; with `statements` every signature too, on so many `threads` at once.
///
/// # Errors
/// [`LogError::Damaged`], or [`LogError::Statement`] with the first statement that is wrong.
pub async fn audit_with(
    connection: &mut SqliteConnection,
    mut statements: Option<&mut Statements>,
    threads: NonZeroUsize,
    mut seen: impl FnMut(u64) + Send,
) -> Result<Audited, LogError> {
    let signed = head(connection).await?;
    let (mut edge, mut erased) = (Edge::empty(), 0);
    let mut tiles: BTreeMap<(u8, u64), Vec<u8>> = BTreeMap::new();
    loop {
        let from = edge.head().size();
        let page = leaves(connection, from, MAX_PAGE).await?;
        let mut hashes = Vec::with_capacity(page.len());
        for (index, leaf) in (from..signed.size()).zip(&page) {
            hashes.push(leaf_hash(checked(index, leaf)?.commitment.as_bytes()));
            erased += u64::from(leaf.opened.is_none());
        }
        if hashes.len() < page.len() {
            return Err(damaged(format!("it has more entries than the {} of its head", signed.size())));
        }
        for (node, hash) in edge.append(&hashes)? {
            tiles.entry(place(node)).or_default().extend(hash.as_bytes());
        }
        if let Some(statements) = &mut statements {
            let there = page.iter().filter_map(|leaf| Some((leaf, leaf.opened.as_ref()?)));
            let there: Vec<_> = there.map(|(leaf, opened)| (leaf.index, leaf.kind, &opened.statement[..])).collect();
            statements.next(&there, threads)?;
        }
        seen(edge.head().size());
        let last = page.is_empty();
        let full = usize::from(WIDTH) * 32;
        for ((level, index), hashes) in tiles.extract_if(.., |_, hashes| last || hashes.len() == full) {
            let sql = "SELECT hashes FROM log_tile WHERE level = ?1 AND idx = ?2";
            let stored: Option<Vec<u8>> =
                sqlx::query_scalar(sql).bind(level).bind(index.cast_signed()).fetch_optional(&mut *connection).await?;
            if stored.as_ref() != Some(&hashes) {
                return Err(damaged(format!("tile {index} of level {level} is not that of its entries")));
            }
        }
        if last {
            break;
        }
    }
    if edge.head() != signed {
        return Err(damaged(format!(
            "its {} entries do not have the root that is stored for {}",
            edge.head().size(),
            signed.size()
        )));
    }
    Ok(Audited { head: signed, erased })
}

/// That `leaf` is entry `index` and commits to its statement.
fn checked(index: u64, leaf: &Leaf) -> Result<&Leaf, LogError> {
    if leaf.index != index {
        return Err(damaged(format!("entry {index} is missing")));
    }
    let fits = leaf.opened.as_ref().is_none_or(|opened| {
        let opening = Opening { kind: leaf.kind, salt: opened.salt.clone() };
        Entry::of(opening, &opened.statement).commitment() == leaf.commitment
    });
    if fits {
        Ok(leaf)
    } else {
        Err(damaged(format!("the statement of entry {index} is not the one that was entered")))
    }
}
