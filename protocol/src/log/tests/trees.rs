use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::log::{
    edge::EdgeError,
    merkle::{HashReader, MAX_SIZE, ProofError},
    tile::{TileError, bundle, unbundle},
};

#[derive(Deserialize)]
struct Vectors {
    leaves: Vec<String>,
    roots: Vec<Digest>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
struct Inclusion {
    index: u64,
    size: u64,
    proof: Vec<Digest>,
}

#[derive(Deserialize)]
struct Consistency {
    old: u64,
    new: u64,
    proof: Vec<Digest>,
}

#[test]
fn roots_and_proofs_are_those_of_certificate_transparency() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../../testdata/log/rfc6962.json")).unwrap();
    let mut log = Log::new();
    vectors.leaves.iter().for_each(|leaf| log.add(leaf_hash(&hex::decode(leaf).unwrap())));
    assert_eq!(log.heads.iter().map(TreeHead::root).collect::<Vec<_>>(), vectors.roots);
    for Inclusion { index, size, proof } in vectors.inclusion {
        assert_eq!(log.inclusion(index, size), proof, "{index} in {size}");
        assert_eq!(log.head(size).includes(index, log.leaves[index as usize], &proof), Ok(()));
    }
    for Consistency { old, new, proof } in vectors.consistency {
        assert_eq!(log.consistency(old, new), proof, "{old} to {new}");
        assert_eq!(log.head(new).extends(&log.head(old), &proof), Ok(()));
    }
}

/// The stored hashes of the Go checksum database's tree, in the crate `tlog_tiles`.
struct Other(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Other {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

#[test]
fn every_root_proof_and_tile_is_that_of_another_implementation() {
    let ours =
        |hashes: Vec<tlog_tiles::Hash>| hashes.into_iter().map(|hash| Digest::from_bytes(hash.0)).collect::<Vec<_>>();
    let log = Log::counting(300, None);
    let mut other = Other(Vec::new());
    for (n, leaf) in (0..).zip(&log.leaves) {
        let hash = tlog_tiles::Hash(*leaf.as_bytes());
        other.0.extend(tlog_tiles::stored_hashes_for_record_hash(n, hash, &other).unwrap());
        let size = n + 1;
        assert_eq!(ours(vec![tlog_tiles::tree_hash(size, &other).unwrap()]), [log.head(size).root()]);
        assert!(Edge::read(&log.head(size), &TileHashes::new(&log, size)).is_ok());
        // All pairs up to 80, then a few.
        let step = if size <= 80 { 1 } else { 37 };
        for index in (0..size).step_by(step) {
            let theirs = tlog_tiles::prove_record(size, index, &other).unwrap();
            assert_eq!(log.inclusion(index, size), ours(theirs), "{index} in {size}");
            let theirs = tlog_tiles::prove_tree(size, index + 1, &other).unwrap();
            assert_eq!(log.consistency(index + 1, size), ours(theirs), "{} to {size}", index + 1);
        }
        let old = size / 2;
        let theirs = tlog_tiles::Tile::new_tiles(8, old, size);
        let paths: Vec<_> = theirs.iter().map(|tile| tile.path().replace("tile/8/", "tile/")).collect();
        assert_eq!(Tile::between(old, size).map(|tile| tile.to_string()).collect::<Vec<_>>(), paths, "{old} to {size}");
        for (tile, theirs) in Tile::between(old, size).zip(theirs) {
            assert_eq!(log.tile(tile).unwrap(), theirs.read_data(&other).unwrap(), "{tile}");
        }
    }
}

#[test]
fn a_proof_with_any_hash_changed_dropped_doubled_or_moved_proves_nothing() {
    let log = Log::counting(34, None);
    let flip = |hash: Digest| Digest::from_bytes(hash.as_bytes().map(|byte| byte ^ 1));
    let spoiled = |proof: &[Digest]| {
        let with = |change: &dyn Fn(&mut Vec<Digest>)| {
            let mut proof = proof.to_vec();
            change(&mut proof);
            proof
        };
        let mut all = vec![with(&|proof| proof.push(flip(Digest::of(b"more"))))];
        for i in 0..proof.len() {
            all.push(with(&|proof| proof[i] = flip(proof[i])));
            all.push(with(&|proof| {
                proof.remove(i);
            }));
            all.push(with(&|proof| proof.insert(i, proof[i])));
            all.extend((i > 0).then(|| with(&|proof| proof.swap(i - 1, i))));
        }
        all
    };
    for size in 1..=34 {
        for index in 0..size {
            let (head, leaf, proof) = (log.head(size), log.leaves[index as usize], log.inclusion(index, size));
            assert_eq!(head.includes(index, leaf, &proof), Ok(()));
            assert!(head.includes(index, flip(leaf), &proof).is_err());
            assert!(
                (0..=size).filter(|other| *other != index).all(|other| head.includes(other, leaf, &proof).is_err())
            );
            for proof in spoiled(&proof) {
                assert!(head.includes(index, leaf, &proof).is_err(), "{index} in {size}");
            }
            let (old, proof) = (log.head(index), log.consistency(index, size));
            assert_eq!(head.extends(&old, &proof), Ok(()));
            for proof in spoiled(&proof) {
                assert!(head.extends(&old, &proof).is_err(), "{index} to {size}");
            }
        }
    }
}

#[test]
fn a_log_that_shrinks_says_so_and_every_log_continues_the_empty_one() {
    let log = Log::counting(9, None);
    assert_eq!(log.head(3).extends(&log.head(9), &[]), Err(ProofError::Shrunk { old: 9, new: 3 }));
    assert_eq!(log.head(9).extends(&TreeHead::empty(), &[]), Ok(()));
    assert_eq!(log.head(9).extends(&log.head(9), &[]), Ok(()));
    let another = Log::counting(9, Some(0)).head(9);
    assert_eq!(log.head(9).extends(&another, &[]), Err(ProofError::NotConsistent { old: 9, new: 9 }));
    assert_eq!(TreeHead::new(0, Digest::of(b"?")), None);
    assert_eq!(TreeHead::new(MAX_SIZE + 1, Digest::of(b"?")), None);
}

#[test]
fn paths_of_tiles_are_those_of_the_specification_and_have_one_form() {
    for path in ["tile/0/000", "tile/0/x001/x234/067", "tile/1/000.p/17", "tile/7/000.p/255", "tile/0/x001/000.p/1"] {
        assert_eq!(path.parse::<Tile>().unwrap().to_string(), path);
    }
    assert_eq!("tile/0/x001/x234/067.p/5".parse::<Tile>().unwrap().entries_path(), "tile/entries/x001/x234/067.p/5");
    for path in [
        "",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/8/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x000/001",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1/2",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/+01",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/000.p/256",
        "tile/0/xx01/000",
        "tile/-1/000",
        "tile/0/000.p/1 ",
    ] {
        assert!(path.parse::<Tile>().is_err(), "{path}");
    }
    // The example of the specification.
    let tiles: Vec<_> = Tile::between(0, 70_000).map(|tile| (tile.level(), tile.width())).collect();
    assert_eq!(tiles.iter().filter(|tile| **tile == (0, 256)).count(), 273);
    assert_eq!(tiles[273..], [(0, 112), (1, 256), (1, 17), (2, 1)]);
}

#[test]
fn a_tile_that_is_cut_or_missing_gives_no_hash() {
    struct Bytes(Vec<u8>);
    impl TileReader for Bytes {
        type Error = Infallible;
        fn tile(&self, _: Tile) -> Result<Vec<u8>, Infallible> {
            Ok(self.0.clone())
        }
    }
    for bytes in [0, 1, 31, 32 * 2, 32 * 3 - 1, 32 * 3 + 1, 32 * 4] {
        let tiles = Bytes(vec![0; bytes]);
        let head = TreeHead::new(3, Digest::of(b"root")).unwrap();
        let read = Edge::read(&head, &TileHashes::new(&tiles, 3));
        let Err(EdgeError::Reader(TileError::Length { found, needed: 96, .. })) = read else { panic!("{bytes}") };
        assert_eq!(found, bytes);
    }
    let tiles = Bytes(vec![0; 96]);
    let (head, hashes) = (TreeHead::new(3, Digest::of(b"root")).unwrap(), TileHashes::new(&tiles, 3));
    assert_eq!(Edge::read(&head, &hashes), Err(EdgeError::OtherRoot { size: 3 }), "not the hashes that were signed");
    let node = Node { level: 2, index: 0 };
    assert!(matches!(hashes.hash(node), Err(TileError::Outside { size: 3, .. })));
    assert_eq!(Tile::holding(node, 3), None);
    assert_eq!(Tile::holding(node, 4).unwrap().to_string(), "tile/0/000.p/4");
}

#[test]
fn a_bundle_has_its_entries_and_nothing_else() {
    let entries = [b"one".to_vec(), Vec::new(), vec![7; 65_535]];
    let bytes = bundle(&entries).unwrap();
    assert_eq!(bytes[..7], *b"\0\x03one\0\0");
    assert_eq!(unbundle(&bytes, 3).unwrap(), entries);
    for (bytes, width) in [(&bytes[..], 2), (&bytes, 4), (&bytes[..bytes.len() - 1], 3), (&bytes[1..], 3), (&[0], 1)] {
        assert!(unbundle(bytes, width).is_none());
    }
    assert!(bundle(&[vec![0; 65_536]]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_a_larger_log_every_proof_verifies_and_a_forked_history_has_none(
        size in prop_oneof![12 => 1_u64..3_000, 1 => 65_000_u64..67_000],
        picks in prop::collection::vec((any::<u64>(), any::<u64>()), 8), batch in 1_usize..5_000,
    ) {
        let leaves: Vec<Digest> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let mut log = Log::new();
        let mut forked = Log::new();
        let fork = picks[0].0 % size;
        let mut batched = Edge::empty();
        leaves.chunks(batch).for_each(|leaves| drop(batched.append(leaves).unwrap()));
        for (i, leaf) in (0..).zip(&leaves) {
            log.store(*leaf);
            forked.store(if i == fork { leaf_hash(b"another") } else { *leaf });
        }
        let (head, other) = (log.edge.head(), forked.edge.head());
        prop_assert_eq!(batched, log.edge.clone());
        prop_assert_eq!(Edge::read(&head, &TileHashes::new(&log, size)).unwrap(), log.edge.clone());
        for (index, old) in picks {
            let (index, old) = (index % size, 1 + old % size);
            prop_assert_eq!(head.includes(index, leaves[index as usize], &log.inclusion(index, size)), Ok(()));
            let mut before = Edge::empty();
            before.append(&leaves[..old as usize]).unwrap();
            let before = before.head();
            prop_assert_eq!(head.extends(&before, &log.consistency(old, size)), Ok(()));
            // The fork shows the same past as long as it lies before the fork, and no other.
            let proof = forked.consistency(old, size);
            prop_assert_eq!(other.extends(&before, &proof).is_ok(), old <= fork);
            prop_assert!(head.extends(&before, &proof).is_err() || proof == log.consistency(old, size));
        }
    }

    #[test]
    fn numbers_and_hashes_of_a_stranger_never_panic(
        index: u64, old: u64, size: u64, level: u8, path in "[tile/0-9x.p]{0,70}",
        hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let hashes: Vec<Digest> = hashes.into_iter().map(Digest::from_bytes).collect();
        let (root, leaf) = (Digest::of(b"root"), Digest::of(b"leaf"));
        for shift in [0, 1, 8, 32, 60] {
            let (index, old, size) = (index >> shift, old >> shift, size >> shift);
            if let Some(tile) = Tile::holding(Node { level, index }, size) {
                prop_assert_eq!(tile.to_string().parse::<Tile>().unwrap(), tile);
            }
            if let (Some(old), Some(new)) = (TreeHead::new(old, root), TreeHead::new(size, root)) {
                prop_assert!(new.includes(index, leaf, &hashes).is_err());
                prop_assert!(old == new || old.size() == 0 || new.extends(&old, &hashes).is_err());
            }
            let plans = [Plan::consistency(old, size), Plan::inclusion(index, size)];
            prop_assert!(plans.iter().flatten().all(|plan| plan.nodes().len() <= 126));
            let _ = Tile::between(old, size).take(1000).count();
        }
        if let Ok(tile) = path.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), path);
        }
    }
}
