//! A small network's log, and each way in which one of its statements can be wrong.

use chrono::{DateTime, Utc};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::{
    committee::CommitteeMember,
    dsse::{Document, Envelope},
    keys::SecretKey,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        merkle::TreeHead,
    },
    permit::{AllowedQuery, Preset, ReleaseKind},
    query::{Query, Terms},
    receipt::{Receipt, ReservationRecord},
    roster::{Member, Role, Roster},
    units::AttoDelta,
};

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap()
}

fn key(number: u64) -> SecretKey {
    SecretKey::generate(&mut ChaCha12Rng::seed_from_u64(number))
}

/// Governance, two committee members, the hospital, the person, and a stranger.
struct Keys([SecretKey; 6]);

impl Keys {
    fn fresh() -> Self {
        Self([0, 1, 2, 3, 4, 5].map(key))
    }

    fn anchors(&self) -> Anchors {
        let member =
            |name: &str, key: &SecretKey| CommitteeMember { name: name.into(), role: name.into(), key: key.public() };
        let members = vec![member("sato", &self.0[1]), member("kato", &self.0[2])];
        Anchors {
            governance: vec![self.0[0].public()],
            committee: Committee::pinned(2, Vec::new(), false, members).unwrap(),
            regulators: Vec::new(),
            own: ("coordinator".into(), Vec::new()),
        }
    }
}

fn signed<D: Document>(document: &D, by: &[&SecretKey]) -> (Vec<u8>, Digest) {
    let envelope = Envelope::sign(document, by).unwrap();
    (envelope.to_json(), envelope.digest::<D>().unwrap())
}

fn roster(keys: &Keys) -> Roster {
    let tokyo = Member {
        name: "tokyo".into(),
        role: Role::Node,
        peer_id: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".into(),
        signing_key: keys.0[3].public(),
    };
    Roster { seq: 1, prev: None, issued: at(), expires: at() + chrono::TimeDelta::days(9), members: vec![tokyo] }
}

fn permit(keys: &Keys) -> Permit {
    let mut permit = crate::supersession::tests::permit("p", 1, None);
    permit.authorised_persons[0].key = keys.0[4].public();
    permit.authorised_persons[0].key_fingerprint = keys.0[4].public().fingerprint();
    permit
}

fn query(permit: Digest) -> Query {
    Query {
        permit,
        sql: "SELECT count(*) FROM visit".into(),
        holders: vec!["tokyo".into()],
        micro_rho: MicroRho::try_from(10).unwrap(),
        run: 1,
        expires: at(),
        nonce: "0".repeat(32),
        terms: Terms::default(),
    }
}

fn receipt(query: &Query, digest: Digest) -> Receipt {
    let some = Digest::of(b"some");
    Receipt {
        node: "tokyo".into(),
        permit: query.permit,
        study_id: "study-1".into(),
        query: digest,
        query_key: query.key(),
        run: query.run,
        plan: some,
        micro_rho: query.micro_rho,
        atto_delta: AttoDelta::ZERO,
        synthetic: false,
        snapshot_commitment: some,
        register_commitment: some,
        as_of: at().date_naive(),
        release: some,
        software: "test".into(),
        at: at(),
        release_kind: ReleaseKind::Noised,
        exact_since: None,
    }
}

fn reservation(receipt: &Receipt) -> ReservationRecord {
    let Receipt { node, study_id, query, query_key, run, micro_rho, atto_delta, at, .. } = receipt.clone();
    ReservationRecord { node, study_id, query, query_key, run, micro_rho, atto_delta, at }
}

/// What is found of these statements.
fn found(keys: &Keys, entries: &[(Kind, Vec<u8>)]) -> Result<Verified, WrongStatement> {
    let entries: Vec<_> = (0..).zip(entries).map(|(index, (kind, bytes))| (index, *kind, &bytes[..])).collect();
    let mut first = None;
    for threads in [1, 3] {
        let mut statements = Statements::new(keys.anchors());
        let threads = NonZeroUsize::new(threads).unwrap();
        let result = statements.next(&entries, threads).map(|()| statements.found().clone());
        assert_eq!(*first.get_or_insert(result.clone()), result, "however many threads");
    }
    first.unwrap()
}

#[test]
fn each_statement_is_signed_by_whoever_had_to_and_the_first_that_is_not_is_named() {
    let keys = Keys::fresh();
    let [governance, sato, kato, tokyo, person, stranger] = &keys.0;
    let (permit_bytes, permit_digest) = signed(&permit(&keys), &[sato, kato]);
    let asked = query(permit_digest);
    let (query_bytes, query_digest) = signed(&asked, &[person]);
    let told = receipt(&asked, query_digest);
    let by_tokyo = |receipt: &Receipt| signed(receipt, &[tokyo]).0;
    let note = |name: &str, key: &SecretKey| {
        let head = TreeHead::new(3, Digest::of(b"root")).unwrap();
        let checkpoint = Checkpoint::new(name.parse().unwrap(), head);
        SignedCheckpoint::sign(checkpoint, key).unwrap().to_string().into_bytes()
    };
    let good = || {
        vec![
            (Kind::Roster, signed(&roster(&keys), &[governance]).0),
            (Kind::Permit, permit_bytes.clone()),
            (Kind::Query, query_bytes.clone()),
            (Kind::Receipt, by_tokyo(&told)),
            (Kind::Reservation, signed(&reservation(&told), &[tokyo]).0),
            (Kind::Checkpoint, note("sekisho-0/tokyo/2", tokyo)),
        ]
    };
    let whole = Verified { verified: 6, matched: 1, open: 0, first_open: None };
    assert_eq!(found(&keys, &good()), Ok(whole.clone()));
    let reserved = |change: fn(&mut Receipt)| {
        let mut other = told.clone();
        change(&mut other);
        vec![
            good()[0].clone(),
            (Kind::Reservation, signed(&reservation(&told), &[tokyo]).0),
            (Kind::Receipt, by_tokyo(&other)),
        ]
    };
    let with = |index: usize, bytes: Vec<u8>| {
        let mut entries = good();
        entries[index].1 = bytes;
        entries
    };
    let changed = |change: fn(&mut Receipt)| {
        let mut other = told.clone();
        change(&mut other);
        by_tokyo(&other)
    };
    for (entries, index, why) in [
        (with(0, signed(&roster(&keys), &[stranger]).0), 0, "0 of the 1 signatures"),
        (with(1, signed(&permit(&keys), &[sato]).0), 1, "1 of the 2 signatures"),
        (with(2, signed(&asked, &[stranger]).0), 2, "0 of the 1 signatures"),
        (with(3, signed(&told, &[stranger]).0), 3, "0 of the 1 signatures"),
        (with(3, changed(|r| r.run = 2)), 3, "its query is of another permit, question or run"),
        (with(3, changed(|r| r.query_key = Digest::of(b"x"))), 3, "its query is of another permit, question or run"),
        (with(3, changed(|r| r.study_id = "study-2".into())), 3, "its permit is of another study"),
        (with(3, changed(|r| r.node = "osaka".into())), 3, "no roster before it names osaka"),
        (with(5, note("sekisho-0/tokyo", stranger)), 5, "no key of tokyo"),
        (with(5, note("sekisho-0/osaka", tokyo)), 5, "no key of osaka"),
        (with(5, b"no note".to_vec()), 5, "not a signed note"),
        (with(4, b"{}".to_vec()), 4, "not a reservation"),
        (reserved(|r| r.micro_rho = MicroRho::try_from(11).unwrap()), 2, "its charge is of another study or amount"),
        (reserved(|r| r.study_id = "study-2".into()), 2, "its charge is of another study or amount"),
    ] {
        let wrong = found(&keys, &entries).unwrap_err();
        assert_eq!(wrong.index, index, "{wrong}");
        assert!(wrong.why.contains(why), "{wrong}");
    }
    // What needs a statement that is not there is open, and not called good.
    for (gone, expect) in [(&[1, 4][..], (3, 0, 2)), (&[2, 4], (4, 0, 1)), (&[4], (5, 1, 0)), (&[3, 4], (4, 0, 0))] {
        let entries = good().into_iter().enumerate().filter(|(index, _)| !gone.contains(index));
        let found = found(&keys, &entries.map(|(_, entry)| entry).collect::<Vec<_>>()).unwrap();
        assert_eq!((found.verified, found.matched, found.open), expect, "without {gone:?}");
        assert_eq!(found.first_open.is_some(), found.open > 0);
    }
}

#[test]
fn an_exact_release_is_one_that_the_permit_lists_so_and_its_charge_is_zero() {
    let keys = Keys::fresh();
    let [governance, sato, kato, tokyo, person, _] = &keys.0;
    let listed = |release| {
        let mut permit = permit(&keys);
        permit.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
        permit.disclosure = Preset::JpNdb;
        let sql = query(Digest::of(b"")).sql;
        let other = AllowedQuery { sha256: Digest::of(b"other"), max_runs: 1, release: ReleaseKind::Aggregated };
        permit.allowed_queries =
            Some(vec![AllowedQuery { sha256: Digest::of(sql.as_bytes()), max_runs: 1, release }, other]);
        permit
    };
    // What the permit lists, what the receipt says, what was charged; and what is wrong with it.
    type Case = (ReleaseKind, ReleaseKind, u64, Result<(), &'static str>);
    let (exact, noised) = (ReleaseKind::Aggregated, ReleaseKind::Noised);
    let cases: [Case; 4] = [
        (exact, exact, 0, Ok(())),
        (noised, noised, 10, Ok(())),
        (noised, exact, 0, Err("says that the release is aggregated, and the permit lists the query as noised")),
        (exact, noised, 0, Err("says that the release is noised, and the permit lists the query as aggregated")),
    ];
    for (listed_as, said, rho, expect) in cases {
        let (permit_bytes, digest) = signed(&listed(listed_as), &[sato, kato]);
        let asked = Query { micro_rho: MicroRho::try_from(rho).unwrap(), ..query(digest) };
        let (query_bytes, query_digest) = signed(&asked, &[person]);
        let told =
            Receipt { release_kind: said, exact_since: Some(at().date_naive()), ..receipt(&asked, query_digest) };
        let entries = [
            (Kind::Roster, signed(&roster(&keys), &[governance]).0),
            (Kind::Permit, permit_bytes),
            (Kind::Query, query_bytes),
            (Kind::Reservation, signed(&reservation(&told), &[tokyo]).0),
            (Kind::Receipt, signed(&told, &[tokyo]).0),
        ];
        match (found(&keys, &entries), expect) {
            (Ok(found), Ok(())) => assert_eq!((found.verified, found.matched, found.open), (5, 1, 0)),
            (Err(wrong), Err(why)) => assert!(wrong.index == 4 && wrong.why.contains(why), "{wrong}"),
            (found, _) => panic!("{listed_as:?} {said:?}: {found:?}"),
        }
        // Without the query, as at a hospital, the permit's kinds are compared.
        let noised_alone = signed(&permit(&keys), &[sato, kato]);
        let told = Receipt { permit: noised_alone.1, ..told };
        let entries = [
            entries[0].clone(),
            (Kind::Permit, noised_alone.0),
            entries[3].clone(),
            (Kind::Receipt, signed(&told, &[tokyo]).0),
        ];
        let found = found(&keys, &entries);
        assert_eq!(found.is_err(), said == exact, "{found:?}");
    }
}
