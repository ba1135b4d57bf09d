//! Whatever of a bundle is changed, by whomever, is found and named; also when the description was made anew afterwards.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::TestRunner};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    log::{checkpoint::SignedCheckpoint, entry::Kind},
    output_review::{OutputReview, Verdict},
};

use super::{
    super::{
        describe, layout,
        trust::Trust,
        verify::{link::Link, verify},
    },
    Files, OTHER_SQL, THREE, checked, made,
    net::{Net, SQL, Shape, key, signed},
    runtime, ways,
};

/// A bundle, one of another run and one of another question of the same study, and who made them.
pub(super) struct Lab {
    pub net: Net,
    pub files: Files,
    pub second: Files,
    pub other: Files,
}

impl Lab {
    fn new(shape: Shape) -> Self {
        let (mut net, result, _) = made(shape);
        let [files, second, other] = runtime().block_on(async {
            let results = [result, net.ask(SQL, 2).await, net.ask(OTHER_SQL, 1).await];
            if shape.two_person {
                for (result, reviewer) in results[1..].iter().flat_map(|r| [(r, "ito"), (r, "mori")]) {
                    net.review(*result, reviewer, Verdict::Release).await;
                }
            }
            net.witness().await;
            let mut all = Vec::new();
            for result in results {
                all.push(net.bundle(result).await.files().clone());
            }
            <[Files; 3]>::try_from(all).unwrap()
        });
        Self { net, files, second, other }
    }
}

/// What is done to the file at a path.
type Change = fn(&mut Files, &str);

/// Describes `files` anew, as whoever tampered with them would; what cannot be described stays as it is.
fn described(files: &mut Files) {
    let mut rest = files.clone();
    rest.remove(layout::README);
    rest.remove(layout::CRATE);
    if describe::add(&mut rest).is_ok() {
        *files = rest;
    }
}

/// The document at `path`, changed and signed anew by these; its proof stays.
pub(super) fn resigned<D: Document>(files: &mut Files, path: &str, by: &[&str], change: impl FnOnce(&mut D)) {
    let (mut document, _) = Envelope::from_json::<D>(&files[path]).unwrap().peek::<D>().unwrap();
    change(&mut document);
    files.insert(path.into(), signed(&document, by).to_json());
}

pub(super) fn flipped(files: &mut Files, path: &str, at: usize) {
    let bytes = files.get_mut(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
}

pub(super) fn swapped(files: &mut Files, one: &str, other: &str) {
    let (a, b) = (files[one].clone(), files[other].clone());
    files.insert(one.into(), b);
    files.insert(other.into(), a);
}

/// Puts another checkpoint in the place of the one that all proofs have.
pub(super) fn under(files: &mut Files, checkpoint: &SignedCheckpoint) {
    let old = String::from_utf8(files[layout::CHECKPOINT].clone()).unwrap();
    for bytes in files.values_mut() {
        if let Ok(text) = str::from_utf8(bytes)
            && text.ends_with(&old)
        {
            *bytes = text.replace(&old, &checkpoint.to_string()).into_bytes();
        }
    }
}

#[test]
fn each_way_to_tamper_breaks_the_link_that_it_is_about() {
    each_breaks_its_link(THREE, ways::all());
}

#[test]
fn each_way_to_tamper_with_an_exact_release_breaks_the_link_that_it_is_about() {
    each_breaks_its_link(Shape { exact: true, ..THREE }, ways::exact());
}

fn each_breaks_its_link(shape: Shape, ways: Vec<ways::Row>) {
    let lab = Lab::new(shape);
    let trust = lab.net.trust();
    for (fact, link, change) in ways {
        for anew in [false, true] {
            let mut files = lab.files.clone();
            change(&lab, &mut files);
            assert_ne!(files, lab.files, "{fact}: nothing was changed");
            if anew {
                described(&mut files);
            }
            let report = checked(&files, &trust);
            assert!(!report.verified, "{fact}");
            assert!(report.broken().contains(&link), "{fact} ({anew}): {:#?}", report.checks);
        }
    }
}

#[test]
fn a_file_that_is_changed_cut_emptied_or_left_out_is_found_whichever_it_is() {
    let lab = Lab::new(Shape { two_person: true, history: true, missing: true, ..THREE });
    let trust = lab.net.trust();
    assert!(checked(&lab.files, &trust).verified);
    let changes: [(&str, Change); 5] = [
        ("its first byte", |f, path| flipped(f, path, 0)),
        ("its last byte", |f, path| flipped(f, path, f[path].len() - 1)),
        ("its half", |f, path| {
            let half = f[path].len() / 2;
            f.get_mut(path).unwrap().truncate(half);
        }),
        ("its content", |f, path| f.get_mut(path).unwrap().clear()),
        ("the file", |f, path| drop(f.remove(path))),
    ];
    for path in lab.files.keys() {
        for (what, change) in changes {
            let mut files = lab.files.clone();
            change(&mut files, path);
            let report = checked(&files, &trust);
            assert!(!report.verified, "{path}: {what}");
            assert!(report.broken().contains(&Link::Files), "{path}: {what}");
            described(&mut files);
            let report = checked(&files, &trust);
            // The description itself is whole again: that is all that it says.
            let own = [layout::README, layout::CRATE].contains(&path.as_str());
            assert_eq!(report.verified, own, "{path}: {what}: {:#?}", report.checks);
        }
    }
}

#[test]
fn no_flip_of_any_byte_is_accepted_and_nothing_panics() {
    let lab = Lab::new(Shape { two_person: true, history: true, ..THREE });
    let (trust, paths) = (lab.net.trust(), lab.files.keys().cloned().collect::<Vec<_>>());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() });
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_u8..), 1..4);
    let run = runner.run(&(flips, any::<bool>()), |(flips, anew)| {
        let mut files = lab.files.clone();
        for (path, at, by) in flips {
            let bytes = files.get_mut(path.get(&paths)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        // Two flips may undo each other.
        prop_assume!(files != lab.files);
        let about_itself = files
            .iter()
            .filter(|(path, bytes)| lab.files[*path] != **bytes)
            .all(|(path, _)| [layout::README, layout::CRATE].contains(&path.as_str()));
        if anew && !about_itself {
            described(&mut files);
        }
        prop_assert!(!checked(&files, &trust).verified);
        Ok(())
    });
    run.unwrap();
}

#[test]
fn what_two_reviewers_must_let_out_is_not_let_out_otherwise() {
    let lab = Lab::new(Shape { two_person: true, ..THREE });
    let trust = lab.net.trust();
    let reviews: Vec<String> = lab.files.keys().filter(|path| path.starts_with(layout::REVIEWS)).cloned().collect();
    let rows: [(&str, Change); 4] = [
        ("one of two", |f, path| {
            f.remove(path);
            f.remove(&layout::proof(path));
        }),
        ("a refusal", |f, path| {
            resigned::<OutputReview>(f, path, &["sato"], |r| {
                (r.verdict, r.reviewer) = (Verdict::Refuse, key("sato").public().fingerprint());
            });
            let moved = f.remove(path).unwrap();
            let (_, digest) = Envelope::from_json::<OutputReview>(&moved).unwrap().peek::<OutputReview>().unwrap();
            f.insert(layout::review(digest), moved);
        }),
        ("a reviewer of no committee", |f, path| resigned::<OutputReview>(f, path, &["ada"], |_| {})),
        ("of another result", |f, path| {
            resigned::<OutputReview>(f, path, &["sato"], |r| {
                (r.result, r.reviewer) = (Digest::of(b"other"), key("sato").public().fingerprint());
            });
        }),
    ];
    for (fact, change) in rows {
        let mut files = lab.files.clone();
        change(&mut files, &reviews[0]);
        described(&mut files);
        let report = checked(&files, &trust);
        assert!(report.broken().contains(&Link::Review), "{fact}: {:#?}", report.checks);
    }
}

#[test]
fn a_committee_that_gave_way_grants_nothing_anew() {
    let (mut net, _, _) = made(Shape { history: true, ..THREE });
    runtime().block_on(async {
        let late = net.permit_signed_anew(&["sato", "mori"]).await;
        let result = net.ask(SQL, 1).await;
        net.witness().await;
        let (mut files, trust) = (net.bundle(result).await.files().clone(), net.trust());
        assert!(verify(&files, &trust).await.verified, "what was granted in time is granted");
        let checkpoint = SignedCheckpoint::parse(&files[layout::CHECKPOINT]).unwrap();
        let proof = net.store.proof(Kind::Permit, &late, &checkpoint).await.unwrap().unwrap();
        files.insert(layout::PERMIT.into(), late);
        files.insert(layout::proof(layout::PERMIT), proof.to_string().into_bytes());
        described(&mut files);
        let report = verify(&files, &trust).await;
        assert_eq!(report.broken(), BTreeSet::from([Link::Permit]), "{:#?}", report.checks);
    });
}

#[test]
fn whom_the_reader_trusts_decides() {
    let lab = Lab::new(THREE);
    let template = lab.net.template();
    let key = |name: &str| key(name).public().to_string();
    let (governance, member) = (key("governance"), key("sato"));
    let rows = [
        (
            "another governance key",
            template.replace(&governance, &key("stranger")),
            vec![Link::Roster, Link::Status, Link::Schema],
        ),
        ("another member", template.replace(&member, &key("stranger")), vec![Link::Permit]),
        ("all members must sign", template.replace("committee_quorum = 2", "committee_quorum = 3"), vec![Link::Permit]),
        ("nobody's log", template.replace("\nlog ", "\n# log "), vec![Link::Checkpoint]),
    ];
    for (fact, text, links) in rows {
        let broken = checked(&lab.files, &Trust::parse(&text, |_| unreachable!()).unwrap()).broken();
        assert!(links.iter().all(|link| broken.contains(link)), "{fact}: {broken:?}");
    }
}
