//! Generated histories against the tree in memory, and tampering behind the triggers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sqlx::{Connection, SqliteConnection};

use super::*;
use crate::{
    keys::SecretKey,
    log::{
        checkpoint::SignedCheckpoint,
        merkle::leaf_hash,
        note::{KeyName, NoteKey, Signs},
    },
};

async fn empty() -> SqliteConnection {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql("PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON").execute(&mut connection).await.unwrap();
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await.unwrap();
    connection
}

/// A log of `size` entries, in batches of `rng`'s choice.
async fn filled(size: u64, rng: &mut ChaCha12Rng) -> SqliteConnection {
    let mut log = empty().await;
    let mut from = 0;
    while from < size {
        let batch = rng.random_range(1..=40).min(size - from);
        let statements: Vec<_> = (from..from + batch).map(|i| (kind(i), format!("statement {i}"))).collect();
        let statements: Vec<_> = statements.iter().map(|(kind, text)| (*kind, text.as_bytes())).collect();
        assert_eq!(append(&mut log, rng, &statements).await.unwrap(), from);
        from += batch;
    }
    log
}

fn kind(i: u64) -> Kind {
    Kind::ALL[i as usize % Kind::ALL.len()]
}

#[tokio::test]
async fn whatever_the_batches_and_whatever_is_erased_every_proof_holds() {
    for (seed, size) in [(1, 1), (2, 255), (3, 256), (4, 257), (5, 700)] {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut log = filled(size, &mut rng).await;
        let before = head(&mut log).await.unwrap();
        for index in (0..size).filter(|i| i % 3 == 0) {
            assert!(erase(&mut log, index).await.unwrap());
            assert!(!erase(&mut log, index).await.unwrap(), "erased once");
        }
        let audited = audit(&mut log, |_| {}).await.unwrap();
        assert_eq!(audited, Audited { head: before, erased: size.div_ceil(3) });
        let mut entries = Vec::new();
        while (entries.len() as u64) < size {
            entries.extend(leaves(&mut log, entries.len() as u64, 100).await.unwrap());
        }
        for _ in 0..60 {
            let new = rng.random_range(1..=size);
            let (old, index) = (rng.random_range(0..=new), rng.random_range(0..new));
            let (earlier, later) = (head_at(&mut log, old).await.unwrap(), head_at(&mut log, new).await.unwrap());
            later.extends(&earlier, &consistency(&mut log, old, new).await.unwrap()).unwrap();
            let leaf = &entries[index as usize];
            let proof = inclusion(&mut log, index, new).await.unwrap();
            later.includes(index, leaf_hash(leaf.commitment.as_bytes()), &proof).unwrap();
            let statement = format!("statement {index}");
            assert_eq!((leaf.kind, leaf.opened.is_none()), (kind(index), index % 3 == 0));
            assert_eq!(
                find(&mut log, kind(index), statement.as_bytes()).await.unwrap(),
                (index % 3 != 0).then_some(index)
            );
        }
        assert!(matches!(head_at(&mut log, size + 1).await, Err(LogError::Proof(ProofError::Shrunk { .. }))));
        assert!(inclusion(&mut log, size, size).await.is_err());
        assert!(consistency(&mut log, 0, size).await.unwrap().is_empty());
        assert!(inclusion(&mut log, 0, size + 1).await.is_err());
    }
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_neither_the_entry_nor_what_it_is_about() {
    let mut log = filled(300, &mut ChaCha12Rng::seed_from_u64(1)).await;
    sqlx::raw_sql("CREATE TABLE charge (amount INTEGER)").execute(&mut log).await.unwrap();
    let (before, mut rng) = (head(&mut log).await.unwrap(), ChaCha12Rng::seed_from_u64(2));
    for committed in [false, true] {
        let mut tx = log.begin().await.unwrap();
        sqlx::raw_sql("INSERT INTO charge VALUES (1)").execute(&mut *tx).await.unwrap();
        append(&mut tx, &mut rng, &[(Kind::Reservation, b"charge")]).await.unwrap();
        if committed {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        let charges: i64 = sqlx::query_scalar("SELECT count(*) FROM charge").fetch_one(&mut log).await.unwrap();
        let size = audit(&mut log, |_| {}).await.unwrap().head.size();
        assert_eq!((charges, size - before.size()), if committed { (1, 1) } else { (0, 0) });
    }
}

#[tokio::test]
async fn the_triggers_refuse_every_change_but_growth_and_erasing() {
    let mut log = filled(300, &mut ChaCha12Rng::seed_from_u64(1)).await;
    keep(&mut log, &signed("a.example/log", 3)).await.unwrap();
    name(&mut log, &"a.example/log".parse().unwrap()).await.unwrap();
    let before = head(&mut log).await.unwrap();
    for statement in [
        "UPDATE log_leaf SET kind = 'alert'",
        "DELETE FROM log_leaf",
        "INSERT INTO log_leaf VALUES (301, 'alert', zeroblob(32))",
        "INSERT OR REPLACE INTO log_leaf VALUES (0, 'alert', zeroblob(32))",
        "UPDATE log_statement SET envelope = x'00'",
        "INSERT INTO log_statement VALUES (300, zeroblob(32), zeroblob(32), x'00')",
        "INSERT OR REPLACE INTO log_statement VALUES (299, zeroblob(32), zeroblob(32), x'00')",
        "UPDATE log_tile SET hashes = zeroblob(8192)",
        "UPDATE log_tile SET hashes = substr(hashes, 1, 32) WHERE level = 0",
        "UPDATE log_tile SET idx = 7 WHERE idx = 1",
        "DELETE FROM log_tile",
        "INSERT OR REPLACE INTO log_tile VALUES (0, 0, zeroblob(32))",
        "UPDATE log_head SET size = 299",
        "UPDATE log_head SET root = zeroblob(32)",
        "DELETE FROM log_head",
        "INSERT OR REPLACE INTO log_head VALUES (0, 9, zeroblob(32))",
        "UPDATE log_origin SET origin = 'b.example/log'",
        "DELETE FROM log_origin",
        "INSERT OR REPLACE INTO log_origin VALUES (0, 'b.example/log')",
        "UPDATE log_checkpoint SET size = 2",
        "DELETE FROM log_checkpoint",
        "INSERT OR REPLACE INTO log_checkpoint VALUES ('a.example/log', 9, x'00')",
    ] {
        assert!(sqlx::query(statement).execute(&mut log).await.is_err(), "{statement}");
    }
    assert_eq!(audit(&mut log, |_| {}).await.unwrap().head, before);
}

#[tokio::test]
async fn what_was_changed_behind_the_triggers_is_found_and_named() {
    for (tampering, named) in [
        ("UPDATE log_leaf SET commitment = zeroblob(32) WHERE idx = 260", "the statement of entry 260"),
        ("UPDATE log_leaf SET kind = 'alert' WHERE idx = 7", "the statement of entry 7"),
        ("UPDATE log_statement SET envelope = x'00' WHERE idx = 7", "the statement of entry 7"),
        ("UPDATE log_statement SET salt = zeroblob(32) WHERE idx = 7", "the statement of entry 7"),
        (
            "DELETE FROM log_statement WHERE idx = 7; UPDATE log_leaf SET commitment = zeroblob(32) WHERE idx = 7",
            "tile 0 of level 0",
        ),
        ("DELETE FROM log_statement WHERE idx = 9; DELETE FROM log_leaf WHERE idx = 9", "entry 9 is missing"),
        ("DELETE FROM log_statement WHERE idx = 299; DELETE FROM log_leaf WHERE idx = 299", "tile 1 of level 0"),
        ("UPDATE log_head SET size = 299", "more entries than the 299"),
        ("UPDATE log_tile SET hashes = zeroblob(32) WHERE level = 1", "tile 0 of level 1"),
        ("DELETE FROM log_tile WHERE level = 0 AND idx = 0", "tile 0 of level 0"),
        ("UPDATE log_head SET root = zeroblob(32)", "do not have the root"),
    ] {
        let mut log = filled(300, &mut ChaCha12Rng::seed_from_u64(1)).await;
        untriggered(&mut log).await;
        sqlx::raw_sql(tampering).execute(&mut log).await.unwrap();
        let found = audit(&mut log, |_| {}).await.unwrap_err().to_string();
        assert!(found.contains(named), "{tampering}: {found}");
        // A root that is not that of the stored hashes is not built on either.
        let appended = append(&mut log, &mut ChaCha12Rng::seed_from_u64(2), &[(Kind::Alert, b"next")]).await;
        assert!(appended.is_err() || !tampering.contains("log_head SET root"), "{tampering}");
    }
}

/// One thing that is done to the database of a log of `size` entries, and what the audit must say of it.
fn tampering(size: u64, rng: &mut ChaCha12Rng) -> (String, String) {
    let index = rng.random_range(0..size);
    let (tile, last) = (index / 256, size - 1);
    let leaf =
        |index| format!("DELETE FROM log_statement WHERE idx = {index}; DELETE FROM log_leaf WHERE idx = {index}");
    let of_tile = format!("level = 0 AND idx = {tile}");
    // The last entry of a tile that has no other one: then nothing tells of the tile but the root.
    let whole = last % 256 == 0;
    let cut =
        || (leaf(last), if whole { "do not have the root".into() } else { format!("tile {} of level 0", last / 256) });
    match rng.random_range(0..9) {
        0 if index < last => (leaf(index), format!("entry {index} is missing")),
        0 => cut(),
        1 => {
            let swap =
                "UPDATE log_statement SET (salt, digest, envelope) = (SELECT salt, digest, envelope FROM log_statement
                WHERE idx = (SELECT (max(idx) + 1) / 2 FROM log_leaf)) WHERE idx = 0";
            if size > 2 { (swap.into(), "the statement of entry 0".into()) } else { cut() }
        }
        2 => (
            format!("UPDATE log_leaf SET commitment = randomblob(32) WHERE idx = {index}"),
            format!("the statement of entry {index}"),
        ),
        3 => (
            format!("UPDATE log_statement SET envelope = CAST(envelope || x'0a' AS BLOB) WHERE idx = {index}"),
            format!("the statement of entry {index}"),
        ),
        4 => (
            format!("UPDATE log_statement SET envelope = CAST(substr(envelope, 2) AS BLOB) WHERE idx = {index}"),
            format!("the statement of entry {index}"),
        ),
        5 => (format!("DELETE FROM log_tile WHERE {of_tile}"), format!("tile {tile} of level 0")),
        6 => (
            format!(
                "UPDATE log_tile SET hashes = CAST(hashes || zeroblob(32) AS BLOB) WHERE {of_tile} AND length(hashes) < 8192"
            ),
            if (tile + 1) * 256 > size { format!("tile {tile} of level 0") } else { String::new() },
        ),
        7 => (
            format!("UPDATE log_tile SET hashes = CAST(randomblob(32) || substr(hashes, 33) AS BLOB) WHERE {of_tile}"),
            format!("tile {tile} of level 0"),
        ),
        _ => ("UPDATE log_head SET root = randomblob(32)".into(), "do not have the root".into()),
    }
}

#[tokio::test]
async fn whatever_is_dropped_swapped_cut_or_changed_in_any_log_is_named() {
    for seed in 0..80 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let size = rng.random_range(1..=600);
        let mut log = filled(size, &mut rng).await;
        untriggered(&mut log).await;
        let (tampering, named) = tampering(size, &mut rng);
        sqlx::raw_sql(sqlx::AssertSqlSafe(tampering.clone())).execute(&mut log).await.unwrap();
        let found = audit(&mut log, |_| {}).await;
        if named.is_empty() {
            assert!(found.is_ok(), "seed {seed}: {tampering} changes nothing");
            continue;
        }
        let found = found.unwrap_err().to_string();
        assert!(found.contains(&named), "seed {seed}, {size} entries, {tampering}: {found}");
    }
}

/// Takes the triggers away, as whoever can write the file may.
async fn untriggered(log: &mut SqliteConnection) {
    let triggers: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetch_all(&mut *log).await.unwrap();
    for trigger in triggers {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(&mut *log).await.unwrap();
    }
}

fn key() -> SecretKey {
    SecretKey::generate(&mut ChaCha12Rng::seed_from_u64(9))
}

fn signed(origin: &str, size: u64) -> SignedCheckpoint {
    let head = TreeHead::new(size, Digest::of(b"root")).unwrap();
    SignedCheckpoint::sign(crate::log::checkpoint::Checkpoint::new(origin.parse().unwrap(), head), &key()).unwrap()
}

#[tokio::test]
async fn the_newest_checkpoint_of_each_log_is_kept_and_never_gives_way_to_a_smaller_one() {
    let mut log = filled(20, &mut ChaCha12Rng::seed_from_u64(1)).await;
    let (a, b): (KeyName, KeyName) = ("a.example/log".parse().unwrap(), "b.example/log".parse().unwrap());
    assert_eq!(newest(&mut log, &a).await.unwrap(), None);
    for (size, kept) in [(3, true), (3, true), (2, false), (9, true), (8, false)] {
        assert_eq!(keep(&mut log, &signed("a.example/log", size)).await.is_ok(), kept, "{size}");
    }
    assert_eq!(newest(&mut log, &a).await.unwrap(), Some(signed("a.example/log", 9)));
    assert_eq!(newest(&mut log, &b).await.unwrap(), None);
    assert_eq!(newest_of(&mut log, "log").await.unwrap(), newest(&mut log, &a).await.unwrap());
    assert_eq!(newest_of(&mut log, "og").await.unwrap(), None);
    // Of a member that lost a log, the newest of the newest one.
    for (origin, size) in
        [("a.example/log/2", 1), ("a.example/log/10", 3), ("a.example/log-2", 50), ("a.example/log/02", 60)]
    {
        keep(&mut log, &signed(origin, size)).await.unwrap();
    }
    assert_eq!(newest_of(&mut log, "log").await.unwrap(), Some(signed("a.example/log/10", 3)));
    assert_eq!(newest_of(&mut log, "log-2").await.unwrap(), Some(signed("a.example/log-2", 50)));
    assert_eq!(origin(&mut log).await.unwrap(), None);
    for wanted in [&b, &a] {
        assert_eq!(name(&mut log, wanted).await.unwrap(), b, "the first name stays");
    }
    let own = checkpoint(&mut log, b.clone(), &key()).await.unwrap();
    let verified = own.verify(&NoteKey::new(b, Signs::Text, key().public())).unwrap();
    assert_eq!(*verified.head(), head(&mut log).await.unwrap());
}
