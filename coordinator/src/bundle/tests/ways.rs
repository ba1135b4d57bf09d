//! Ways to tamper with a bundle, each with the link that must break.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sekisho_aggregation::release::{Release, ReleaseHeader};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        merkle::TreeHead,
    },
    output_review::result_digest,
    permit::{Permit, ReleaseKind},
    published::PublishedRelease,
    query::Query,
    receipt::{Acceptance, Receipt},
    refusal::Code,
    roster::Roster,
    schema::Schema,
    status::{RevokedPermit, Status},
    units::MicroRho,
};

use super::{
    super::{layout, verify::link::Link},
    Files, OTHER_SQL,
    net::key,
    runtime,
    tampered::{Lab, flipped, resigned, swapped, under},
};

const H0: &str = "hospital-0";
const H1: &str = "hospital-1";

/// What is done, what must break, and how it is done.
pub(super) type Row = (&'static str, Link, fn(&Lab, &mut Files));

/// All of them.
pub(super) fn all() -> Vec<Row> {
    [numbers(), documents(), logs()].concat()
}

/// Numbers, tables, receipts.
fn numbers() -> Vec<Row> {
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
        ("what software it names, and the coordinator signs it", Link::Log, |_, f| {
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
    ]
}

/// What only an exact release can be made to say.
pub(super) fn exact() -> Vec<Row> {
    vec![
        ("a hidden number filled in", Link::Release, |_, f| flipped(f, &layout::cells(H0), 0)),
        ("a hidden number filled in, and the hospital signs it", Link::Result, |_, f| {
            flipped(f, &layout::cells(H0), 0);
            signed_anew(f, H0);
        }),
        ("a hidden number of the table filled in", Link::Result, |_, f| {
            let text = String::from_utf8(f[layout::BY_HOLDER_CSV].clone()).unwrap();
            assert!(text.contains(",,,,suppressed"), "{text}");
            f.insert(layout::BY_HOLDER_CSV.into(), text.replacen(",,,,suppressed", ",5,3,7,", 1).into_bytes());
        }),
        ("a shown number that the rules would have rounded, and the hospital signs it", Link::Result, |_, f| {
            flipped(f, &layout::cells(H1), 16);
            signed_anew(f, H1);
        }),
        ("rules weaker than the permit's", Link::Release, |_, f| {
            header(f, H1, |header| header.exact.as_mut().unwrap().rules.min_patients = 2);
        }),
        ("rules weaker than the permit's, and the hospital signs them", Link::Release, |_, f| {
            header(f, H1, |header| header.exact.as_mut().unwrap().rules.rounding = 1);
            signed_anew(f, H1);
        }),
        ("a release that does not say that it is exact, and the hospital signs it", Link::Release, |_, f| {
            header(f, H1, |header| header.exact = None);
            signed_anew(f, H1);
        }),
        ("a hidden row that is said to be shown, and the hospital signs it", Link::Result, |_, f| {
            header(f, H0, |header| header.parts[0].hidden.clear());
            signed_anew(f, H0);
        }),
        ("a receipt that calls it noised", Link::Receipt, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| r.release_kind = ReleaseKind::Noised);
        }),
        ("a receipt that does not say since when no guarantee holds", Link::Receipt, |_, f| {
            let (mut receipt, _) =
                Envelope::from_json::<Receipt>(&f[&layout::receipt(H0)]).unwrap().peek::<Receipt>().unwrap();
            receipt.exact_since = None;
            // No signature is made of what breaks its own rules.
            let payload = serde_json::to_vec(&receipt).unwrap();
            let envelope = serde_json::json!({
                "payload": BASE64.encode(payload), "payloadType": Receipt::PAYLOAD_TYPE,
                "signatures": [{"keyid": key(H0).public().fingerprint(), "sig": BASE64.encode([0; 64])}],
            });
            f.insert(layout::receipt(H0), serde_json::to_vec(&envelope).unwrap());
        }),
        ("another day since which no guarantee holds, and the hospital signs it", Link::HospitalLog, |_, f| {
            resigned::<Receipt>(f, &layout::receipt(H0), &[H0], |r| {
                r.exact_since = r.exact_since.and_then(|day| day.pred_opt())
            });
        }),
        ("a price for an exact question", Link::Query, |_, f| {
            resigned::<Query>(f, layout::QUERY, &["ada"], |q| q.micro_rho = MicroRho::try_from(1).unwrap());
        }),
        ("a permit that lists the question as noised, signed by a quorum", Link::Receipt, |_, f| {
            resigned::<Permit>(f, layout::PERMIT, &["sato", "ito"], |p| {
                let listed = p.allowed_queries.as_mut().unwrap();
                listed.iter_mut().for_each(|entry| entry.release = ReleaseKind::Noised);
                p.release_kinds = vec![ReleaseKind::Noised];
            });
        }),
        ("the report without what it says of guarantees", Link::Result, |_, f| {
            let text = String::from_utf8(f[layout::REPORT].clone()).unwrap();
            let (head, tail) = text.split_once("\"exact\":{").unwrap();
            let (_, tail) = tail.split_once('}').unwrap();
            let noised = "\"delta\":\"1e-6\",\"epsilon\":0.0,\"sites_per_patient\":1,\"epsilon_all_sites\":0.0";
            f.insert(layout::REPORT.into(), format!("{head}{noised}{tail}").into_bytes());
        }),
    ]
}

/// Changes the header of what a hospital released.
fn header(files: &mut Files, name: &str, change: impl FnOnce(&mut ReleaseHeader)) {
    let mut header: ReleaseHeader = serde_json::from_slice(&files[&layout::header(name)]).unwrap();
    change(&mut header);
    files.insert(layout::header(name), serde_json::to_vec(&header).unwrap());
}

/// Has the hospital and the coordinator sign for what the hospital's release is now.
fn signed_anew(files: &mut Files, name: &str) {
    let (header, cells) = (&files[&layout::header(name)], &files[&layout::cells(name)]);
    let release = Release::from_bytes(header, cells).unwrap().digest();
    resigned::<Receipt>(files, &layout::receipt(name), &[name], |receipt| receipt.release = release);
    resigned::<PublishedRelease>(files, layout::STATEMENT, &["coordinator"], |said| {
        said.holders.iter_mut().find(|part| part.name == name).unwrap().release = Some(release);
        let releases = said.holders.iter().filter_map(|part| Some((part.name.as_str(), part.release?)));
        said.result = result_digest(said.query_key, said.run, releases);
    });
}

/// Whose signatures count, and what they signed.
fn documents() -> Vec<Row> {
    vec![
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
            resigned::<Schema>(f, layout::SCHEMA, &["stranger"], |_| {});
        }),
        ("another schema, signed", Link::Schema, |_, f| {
            resigned::<Schema>(f, layout::SCHEMA, &["governance"], |s| s.title = "Other".into());
        }),
        ("a roster of another signer", Link::Roster, |_, f| {
            resigned::<Roster>(f, &layout::roster(1), &["stranger"], |_| {});
        }),
        ("a roster with other keys, signed", Link::Receipt, |_, f| {
            resigned::<Roster>(f, &layout::roster(1), &["governance"], |r| {
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
    ]
}

/// Logs, and parts of other bundles.
fn logs() -> Vec<Row> {
    vec![
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
