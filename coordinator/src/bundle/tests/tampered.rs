//! Whatever of a bundle is changed, by whomever, is found and named; also when the description was made anew afterwards.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::TestRunner};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    log::checkpoint::{Checkpoint, SignedCheckpoint},
    log::merkle::TreeHead,
    output_review::{OutputReview, Verdict},
    permit::Permit,
    published::PublishedRelease,
    query::Query,
    receipt::{Acceptance, Receipt},
    refusal::Code,
    status::{RevokedPermit, Status},
    units::MicroRho,
};

use super::{
    super::{describe, layout, trust::Trust, verify::link::Link},
    Files, OTHER_SQL, THREE, checked, made,
    net::{Net, SQL, Shape, key, signed},
    runtime,
};

/// A bundle, one of another run and one of another question of the same study, and who made them.
struct Lab {
    net: Net,
    files: Files,
    second: Files,
    other: Files,
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
fn resigned<D: Document>(files: &mut Files, path: &str, by: &[&str], change: impl FnOnce(&mut D)) {
    let (mut document, _) = Envelope::from_json::<D>(&files[path]).unwrap().peek::<D>().unwrap();
    change(&mut document);
    files.insert(path.into(), signed(&document, by).to_json());
}

fn flipped(files: &mut Files, path: &str, at: usize) {
    let bytes = files.get_mut(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
}

fn swapped(files: &mut Files, one: &str, other: &str) {
    let (a, b) = (files[one].clone(), files[other].clone());
    files.insert(one.into(), b);
    files.insert(other.into(), a);
}

/// Puts another checkpoint in the place of the one that all proofs have.
fn under(files: &mut Files, checkpoint: &SignedCheckpoint) {
    let old = String::from_utf8(files[layout::CHECKPOINT].clone()).unwrap();
    for bytes in files.values_mut() {
        if let Ok(text) = str::from_utf8(bytes)
            && text.ends_with(&old)
        {
            *bytes = text.replace(&old, &checkpoint.to_string()).into_bytes();
        }
    }
}

const H0: &str = "hospital-0";
const H1: &str = "hospital-1";

type Row = (&'static str, Link, fn(&Lab, &mut Files));

fn rows() -> Vec<Row> {
    vec![
        ("a number of a hospital", Link::Release, |_, f| flipped(f, &layout::cells(H1), 3)),
        ("the nonce of a hospital", Link::Release, |_, f| flipped(f, &layout::header(H1), 300)),
        ("a cell of the table", Link::Result, |_, f| flipped(f, layout::COMBINED_CSV, 60)),
        ("a cell of the table in Arrow", Link::Result, |_, f| flipped(f, layout::COMBINED_ARROW, 1200)),
        ("a hospital's table", Link::Result, |_, f| flipped(f, layout::BY_HOLDER_CSV, 70)),
        ("the report", Link::Statement, |_, f| flipped(f, layout::REPORT, 40)),
        ("a cell, and the coordinator signs it", Link::Result, |_, f| {
            flipped(f, layout::COMBINED_CSV, 60);
            let sha256 = Digest::of(&f[layout::COMBINED_CSV]);
            resigned::<PublishedRelease>(f, layout::STATEMENT, &["coordinator"], |said| {
                said.files.iter_mut().find(|file| file.path == layout::COMBINED_CSV).unwrap().sha256 = sha256;
            });
        }),
        ("a statement of another signer", Link::Statement, |_, f| {
            resigned::<PublishedRelease>(f, layout::STATEMENT, &[H0], |_| {});
        }),
        ("a hospital's state, and the coordinator signs it", Link::Log, |_, f| {
            resigned::<PublishedRelease>(f, layout::STATEMENT, &["coordinator"], |said| said.software = "other".into());
        }),
        ("a receipt of another signer", Link::Receipt, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &["stranger"], |_| {});
        }),
        ("a receipt with another hospital's key", Link::Receipt, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H1], |_| {});
        }),
        ("a charge, and the hospital signs it", Link::HospitalLog, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| r.micro_rho = MicroRho::try_from(1).unwrap());
        }),
        ("a charge above what was asked", Link::Receipt, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| r.micro_rho = MicroRho::try_from(1001).unwrap());
        }),
        ("a receipt for another plan", Link::Plan, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| r.plan = Digest::of(b"other"));
        }),
        ("a receipt from before the permit", Link::Receipt, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| r.at -= chrono::Duration::seconds(1));
        }),
        ("receipts of two hospitals swapped", Link::Receipt, |_, f| {
            swapped(f, &layout::receipt(H0), &layout::receipt(H1));
        }),
        ("numbers of two hospitals swapped", Link::Release, |_, f| swapped(f, &layout::cells(H0), &layout::cells(H1))),
        ("releases of two hospitals swapped", Link::Release, |_, f| {
            swapped(f, &layout::cells(H0), &layout::cells(H1));
            swapped(f, &layout::header(H0), &layout::header(H1));
        }),
        ("a field of the permit, signed by one member", Link::Permit, |_, f| {
            resigned::<Permit>(f, layout::PERMIT, &["sato"], |p| p.data_user = "other".into());
        }),
        ("a permit without the role it needs", Link::Permit, |_, f| {
            resigned::<Permit>(f, layout::PERMIT, &["ito", "mori"], |_| {});
        }),
        ("another permit, signed by a quorum", Link::Statement, |_, f| {
            resigned::<Permit>(f, layout::PERMIT, &["sato", "ito"], |p| p.data_user = "other".into());
        }),
        ("a signature more on the permit", Link::Log, |_, f| {
            resigned::<Permit>(f, layout::PERMIT, &["sato", "ito", "mori"], |_| {});
        }),
        ("a question by a stranger", Link::Query, |_, f| resigned::<Query>(f, layout::QUERY, &["stranger"], |_| {})),
        ("a question that costs more than the permit allows", Link::Query, |_, f| {
            resigned::<Query>(f, layout::QUERY, &["ada"], |q| q.micro_rho = MicroRho::try_from(1001).unwrap());
        }),
        ("a question to a hospital that the permit does not name", Link::Query, |_, f| {
            resigned::<Query>(f, layout::QUERY, &["ada"], |q| q.holders.push("hospital-9".into()));
        }),
        ("another question, by the same person", Link::Statement, |_, f| {
            resigned::<Query>(f, layout::QUERY, &["ada"], |q| q.sql = OTHER_SQL.into());
        }),
        ("a schema of another signer", Link::Schema, |_, f| {
            resigned::<sekisho_protocol::schema::Schema>(f, layout::SCHEMA, &["stranger"], |_| {});
        }),
        ("another schema, signed", Link::Schema, |_, f| {
            resigned::<sekisho_protocol::schema::Schema>(f, layout::SCHEMA, &["governance"], |s| {
                s.title = "Other".into()
            });
        }),
        ("a roster of another signer", Link::Roster, |_, f| {
            resigned::<sekisho_protocol::roster::Roster>(f, &layout::roster(1), &["stranger"], |_| {});
        }),
        ("a roster with other keys, signed", Link::Receipt, |_, f| {
            resigned::<sekisho_protocol::roster::Roster>(f, &layout::roster(1), &["governance"], |r| {
                r.members[0].signing_key = key("stranger").public();
            });
        }),
        ("a status of another signer", Link::Status, |_, f| resigned::<Status>(f, layout::STATUS, &["ada"], |_| {})),
        ("a status that voids a hospital's key", Link::Receipt, |_, f| {
            resigned::<Status>(f, layout::STATUS, &["governance"], |s| {
                s.void_keys.push(key(H1).public().fingerprint());
            });
        }),
        ("a status that revokes the permit", Link::Statement, |lab, f| {
            let permit = Digest::of(&serde_json::to_vec(&lab.net.permit).unwrap());
            resigned::<Status>(f, layout::STATUS, &["governance"], |s| {
                s.revoked_permits.push(RevokedPermit { permit, reason: "void".into(), at: s.issued });
            });
        }),
        ("an acceptance of another signer", Link::Acceptance, |_, f| {
            resigned::<Acceptance>(f, &layout::acceptance(H0), &[H1], |_| {});
        }),
        ("an acceptance that refuses", Link::Acceptance, |_, f| {
            resigned::<Acceptance>(f, &layout::acceptance(H0), &[H0], |a| a.refused = Some(Code::Policy));
        }),
        ("proofs of two documents swapped", Link::Log, |_, f| {
            swapped(f, &layout::proof(layout::QUERY), &layout::proof(layout::PERMIT));
        }),
        ("a proof at another place", Link::Log, |_, f| {
            let path = layout::proof(layout::QUERY);
            let text = String::from_utf8(f[&path].clone()).unwrap();
            let (head, tail) = text.split_once("\nindex ").unwrap();
            f.insert(path, format!("{head}\nindex 1{tail}").into_bytes());
        }),
        ("a hospital's proof of another hospital", Link::HospitalLog, |_, f| {
            swapped(f, &layout::hospital_proof(H0), &layout::hospital_proof(H1));
        }),
        ("a hospital's whole log of another hospital", Link::HospitalLog, |_, f| {
            swapped(f, &layout::hospital_proof(H0), &layout::hospital_proof(H1));
            swapped(f, &layout::hospital_checkpoint(H0), &layout::hospital_checkpoint(H1));
        }),
        ("a checkpoint with too few cosignatures", Link::Checkpoint, |lab, f| {
            let one = runtime().block_on(lab.net.checkpoint(&BTreeSet::from([H0.to_string()])));
            under(f, &one);
        }),
        ("a checkpoint of another history", Link::Checkpoint, |lab, f| {
            let size = SignedCheckpoint::parse(&f[layout::CHECKPOINT]).unwrap().claimed().head().size();
            let head = TreeHead::new(size, Digest::of(b"another history")).unwrap();
            let forked = Checkpoint::new(lab.net.origin("coordinator"), head);
            under(f, &SignedCheckpoint::sign(forked, &key("coordinator")).unwrap());
        }),
        ("a checkpoint of the hospital's own log", Link::Checkpoint, |_, f| {
            let theirs = SignedCheckpoint::parse(&f[&layout::hospital_checkpoint(H0)]).unwrap();
            under(f, &theirs);
        }),
        ("a receipt of another run", Link::Receipt, |lab, f| copied(f, &lab.second, &[layout::receipt(H0)])),
        ("numbers of another run", Link::Release, |lab, f| {
            copied(f, &lab.second, &[layout::cells(H0), layout::header(H0)]);
        }),
        ("the statement of another run", Link::Statement, |lab, f| {
            copied(f, &lab.second, &[layout::STATEMENT.into(), layout::proof(layout::STATEMENT)]);
        }),
        ("the table of another run", Link::Result, |lab, f| {
            copied(f, &lab.second, &[layout::COMBINED_CSV.into(), layout::COMBINED_ARROW.into()]);
        }),
        ("a hospital's part of another question, whole", Link::Receipt, |lab, f| {
            let paths = [layout::receipt(H0), layout::cells(H0), layout::header(H0), layout::hospital_proof(H0)];
            copied(f, &lab.other, &paths);
            copied(f, &lab.other, &[layout::hospital_checkpoint(H0), layout::proof(&layout::receipt(H0))]);
        }),
        ("a file more", Link::Files, |_, f| drop(f.insert("result/more.csv".into(), b"n\n1\n".to_vec()))),
        ("a document more, with a proof of another", Link::Log, |_, f| {
            f.insert(layout::governance(7), f[layout::PERMIT].clone());
            f.insert(layout::proof(&layout::governance(7)), f[&layout::proof(layout::PERMIT)].clone());
        }),
    ]
}

fn copied(files: &mut Files, from: &Files, paths: &[String]) {
    for path in paths {
        files.insert(path.clone(), from[path].clone());
    }
}

#[test]
fn each_way_to_tamper_breaks_the_link_that_it_is_about() {
    let lab = Lab::new(THREE);
    let trust = lab.net.trust();
    for (fact, link, change) in rows() {
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
    let changes: [(&str, fn(&mut Files, &str)); 5] = [
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
    let rows: [(&str, fn(&mut Files, &str)); 4] = [
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
