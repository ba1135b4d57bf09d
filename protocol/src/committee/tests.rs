//! The quorum against an oracle that was written from the rules alone, and the chain of committees.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::{governance::Governance, keys::SecretKey, supersession::tests::permit};

const ROLES: [&str; 3] = ["ethicist", "patient-representative", "lawyer"];

static KEYS: LazyLock<Vec<SecretKey>> =
    LazyLock::new(|| (0..10).map(|_| SecretKey::generate(&mut rand::rng())).collect());

/// The secret key of person `n`; those from 6 on are strangers.
fn key(n: u8) -> &'static SecretKey {
    &KEYS[usize::from(n)]
}

fn id(n: u8) -> Digest {
    key(n).public().fingerprint()
}

fn members(roles: &[usize]) -> Vec<CommitteeMember> {
    let member = |(n, role): (u8, &usize)| CommitteeMember {
        name: format!("m-{n}"),
        role: ROLES[*role].into(),
        key: key(n).public(),
    };
    (0..).zip(roles).map(member).collect()
}

fn after(seq: u64, prev: Option<Digest>, needed: usize, members: Vec<CommitteeMember>) -> Committee {
    let issued = DateTime::from_timestamp(1_750_000_000, 0);
    let (required_roles, distinct_roles) = (Vec::new(), false);
    Committee { seq, prev, issued, reason: "an election".into(), needed, required_roles, distinct_roles, members }
}

fn signed(document: &Committee, by: &[u8]) -> Envelope {
    Envelope::sign(document, &by.iter().map(|n| key(*n)).collect::<Vec<_>>()).unwrap()
}

/// What the rules say, over names instead of signatures: members that are neither void nor recused and signed, each at
/// most once; enough of them; every required role; enough roles.
fn oracle(
    roles: &[usize],
    needed: usize,
    required: &BTreeSet<usize>,
    distinct: bool,
    signers: &[u8],
    void: &[u8],
) -> bool {
    let mut counted: BTreeMap<u8, usize> = BTreeMap::new();
    for signer in signers {
        let Some(role) = roles.get(usize::from(*signer)) else { continue };
        if void.contains(signer) {
            continue;
        }
        if counted.insert(*signer, *role).is_some() {
            return false;
        }
    }
    let seats: BTreeSet<usize> = counted.values().copied().collect();
    counted.len() >= needed && required.is_subset(&seats) && (!distinct || seats.len() >= needed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_set_of_signatures_is_accepted_exactly_when_it_is_a_quorum(
        roles in prop::collection::vec(0..ROLES.len(), 1..6),
        needed in 1_usize..6,
        required in prop::collection::btree_set(0..ROLES.len(), 0..3),
        distinct in any::<bool>(),
        signers in prop::collection::vec(prop_oneof![4 => 0_u8..6, 1 => 6_u8..9], 0..7),
        void in prop::collection::vec(0_u8..6, 0..3),
        recused in prop::collection::vec(0_u8..6, 0..2),
    ) {
        let names = required.iter().map(|role| ROLES[*role].to_string()).collect();
        // A committee that breaks its own rules is refused before it verifies anything.
        let Ok(committee) = Committee::pinned(needed.min(roles.len()), names, distinct, members(&roles)) else {
            return Ok(());
        };
        let document = after(1, None, 1, members(&[0]));
        let envelope = signed(&document, &signers);
        let without: Vec<u8> = void.iter().chain(&recused).copied().collect();
        let counts: BTreeSet<Digest> = without.iter().map(|n| id(*n)).collect();
        let said = committee.verify::<Committee>(&envelope, |key| counts.contains(&key)).is_ok();
        let expect = oracle(&roles, committee.needed, &required, distinct, &signers, &without);
        prop_assert_eq!(said, expect, "{:?} of {:?} signed, without {:?}", signers, roles, without);
    }

    #[test]
    fn no_offers_bring_a_chain_of_committees_back(
        offers in prop::collection::vec((0_usize..6, 0_u8..3, prop::collection::vec(0_u8..5, 0..4)), 1..25),
    ) {
        // Six links, of which each has rivals of the same number; each committee is the three persons from its number on.
        let committee_of = |seq: u64| -> Vec<CommitteeMember> {
            let roles = members(&[0; 5]);
            roles.into_iter().cycle().skip(seq as usize % 5).take(3).collect()
        };
        let first = Committee::pinned(2, Vec::new(), false, committee_of(0)).unwrap();
        let mut chain = CommitteeChain::pinned(first);
        let (mut newest, mut digest): (u64, Option<Digest>) = (0, None);
        let mut history: Vec<(u64, Digest, Envelope)> = Vec::new();
        for (seq, rival, by) in offers {
            let seq = seq as u64;
            let mut offered = after(seq, digest, 2, committee_of(seq));
            offered.reason = format!("rival {rival}");
            let by: Vec<u8> = by.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            let envelope = signed(&offered, &by);
            let current: Vec<Digest> = chain.newest().members.iter().map(|m| m.key.fingerprint()).collect();
            let quorum = by.iter().filter(|n| current.contains(&id(**n))).count() >= 2;
            let taken = chain.take(&envelope, |_| false);
            let follows = seq == newest + 1 && quorum;
            prop_assert_eq!(matches!(taken, Ok(Some(_))), follows, "{} after {}", seq, newest);
            if let Ok(Some(link)) = taken {
                (newest, digest) = (seq, Some(link.digest()));
                history.push((seq, link.digest(), envelope));
            }
            prop_assert_eq!(chain.newest().seq, newest);
            for (seq, link, envelope) in &history {
                let again = chain.take(envelope, |_| false);
                if *seq == newest {
                    prop_assert!(matches!(again, Ok(None)), "the newest again is not new");
                } else {
                    prop_assert_eq!(again.err().map(|r| r.code), Some(Code::OlderDocument));
                }
                prop_assert!(chain.with_digest(*link).is_some());
            }
        }
    }
}

#[test]
fn a_removed_member_signs_nothing_new_and_what_was_signed_before_stays() {
    // 0, 1 and 2 sit; then 2 leaves for 3.
    let seats = |who: &[u8]| -> Vec<CommitteeMember> {
        members(&[0; 5]).into_iter().filter(|m| who.iter().any(|n| id(*n) == m.key.fingerprint())).collect()
    };
    let mut chain = CommitteeChain::pinned(Committee::pinned(2, Vec::new(), false, seats(&[0, 1, 2])).unwrap());
    let first = chain.digest();
    let next = after(1, None, 2, seats(&[0, 1, 3]));
    for (fact, by, code) in [
        ("one of the old committee", &[0_u8] as &[u8], Code::QuorumNotMet),
        ("the new one, of whom one is of the old", &[0, 3], Code::QuorumNotMet),
        ("strangers", &[7, 8], Code::QuorumNotMet),
    ] {
        assert_eq!(chain.take(&signed(&next, by), |_| false).unwrap_err().code, code, "{fact}");
    }
    let voided = chain.take(&signed(&next, &[0, 2]), |key| key == id(2));
    assert_eq!(voided.unwrap_err().code, Code::QuorumNotMet, "a voided key does not count");
    chain.take(&signed(&next, &[0, 2]), |_| false).unwrap().unwrap();
    assert_eq!((chain.newest().seq, chain.root()), (1, first));

    let permit =
        |by: &[u8]| Envelope::sign(&permit("p", 1, None), &by.iter().map(|n| key(*n)).collect::<Vec<_>>()).unwrap();
    let verify = |by: &[u8], under, void: &[u8]| {
        let void: Vec<_> = void.iter().map(|n| id(*n)).collect();
        chain.verify_permit(&permit(by), under, |key| void.contains(&key)).map(|(_, digest)| digest).ok()
    };
    let second = chain.digest();
    assert_eq!(verify(&[0, 2], None, &[]), None, "a removed member signs nothing new");
    assert_eq!(verify(&[0, 2], Some(first), &[]), Some(first), "what was taken before stays");
    assert_eq!(verify(&[0, 2], Some(first), &[2]), None, "unless the key is void");
    assert_eq!(verify(&[0, 1, 3], Some(first), &[2]), Some(first));
    assert_eq!(verify(&[0, 3], Some(first), &[]), Some(second), "the new committee may sign it anew");
    assert_eq!(verify(&[0, 3], None, &[]), Some(second));
    assert_eq!(verify(&[0, 2], Some(Digest::of(b"unknown")), &[]), None, "an unknown committee is none");
}

#[test]
fn a_rotation_of_another_kind_is_no_committee() {
    let mut chain = CommitteeChain::pinned(Committee::pinned(1, Vec::new(), false, members(&[0])).unwrap());
    let issued = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
    let other = Governance { seq: 1, prev: None, new_key: key(9).public(), issued, reason: "x".into() };
    let envelope = Envelope::sign(&other, &[key(0)]).unwrap();
    assert_eq!(chain.take(&envelope, |_| false).unwrap_err().code, Code::Malformed);
}
