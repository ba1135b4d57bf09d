use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    dsse::{Document, Envelope},
    log::proof::{InclusionError, MAX_FILE},
};

/// A statement of the vectors.
#[derive(Serialize, Deserialize)]
struct Vector {
    text: String,
}

impl Document for Vector {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.vector.v1+json";
    const NAME: &'static str = "vector";
    const MAX_BYTES: usize = 1024;

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Which entry the proof of the vectors is about.
const INDEX: u64 = 139;
/// 2026-01-01T00:00:00Z.
const TIME: i64 = 1_767_225_600;

/// The vectors: file names and contents. Keys have 32 equal secret bytes: the log 1, the witnesses 2 and 3, the signer of
/// the statement 5.
fn vectors() -> [(&'static str, String); 5] {
    let document = Vector { text: "関所 entry 139".into() };
    let statement = String::from_utf8(Envelope::sign(&document, &[&key(5)]).unwrap().to_json()).unwrap();
    let mut log = Log::new();
    for i in 0..300 {
        let bytes = if i == INDEX { statement.clone() } else { format!("statement {i}") };
        log.add(Entry::of(opening(i), bytes.as_bytes()).leaf_hash());
    }
    let witnessed = |size| {
        let mut signed = checkpoint(log.head(size));
        [0, 1].into_iter().for_each(|witness| signed.add(cosignature(log.head(size), witness, TIME)).unwrap());
        signed
    };
    let proof = InclusionProof::new(INDEX, log.inclusion(INDEX, 300), &opening(INDEX), witnessed(300));
    let consistency = ConsistencyProof { old: 200, hashes: log.consistency(200, 300), checkpoint: witnessed(300) };
    [
        ("policy.txt", policy_text()),
        ("statement.json", statement),
        ("entry-139.tlog-proof", proof.to_string()),
        ("checkpoint-200.txt", witnessed(200).to_string()),
        ("200-to-300.txt", consistency.to_string()),
    ]
}

#[test]
fn the_published_vectors_are_what_the_code_makes() {
    let published = [
        include_str!("../../../testdata/log/policy.txt"),
        include_str!("../../../testdata/log/statement.json"),
        include_str!("../../../testdata/log/entry-139.tlog-proof"),
        include_str!("../../../testdata/log/checkpoint-200.txt"),
        include_str!("../../../testdata/log/200-to-300.txt"),
    ];
    for ((file, made), published) in vectors().into_iter().zip(published) {
        assert_eq!(made, published, "protocol/testdata/log/{file}");
    }
}

/// Our verdict on a proof and its statement.
fn included(policy: &str, proof: &[u8], statement: &[u8]) -> bool {
    let Ok(policy) = Policy::parse(policy.as_bytes()) else { return false };
    InclusionProof::parse(proof).is_ok_and(|proof| {
        proof.opening().is_ok_and(|opening| proof.verify(Entry::of(opening, statement), &policy).is_ok())
    })
}

/// Our verdict on an older checkpoint and a proof that its log goes on.
fn continued(policy: &str, old: &[u8], proof: &[u8]) -> bool {
    let Ok(policy) = Policy::parse(policy.as_bytes()) else { return false };
    let (Ok(old), Ok(new)) = (SignedCheckpoint::parse(old), ConsistencyProof::parse(proof)) else { return false };
    let (Ok(before), Ok(after)) = (policy.check(&old), policy.check(&new.checkpoint)) else { return false };
    new.old == before.checkpoint().head().size()
        && Continued::check(Some(before.checkpoint()), after.checkpoint().clone(), &new.hashes).is_ok()
}

/// `text` with a line dropped, doubled or moved, or cut after it; with what was done.
fn tampered_lines(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut all = Vec::new();
    for i in 0..lines.len() {
        let mut with = |what: &str, change: &dyn Fn(&mut Vec<&str>)| {
            let mut lines = lines.clone();
            change(&mut lines);
            all.push((format!("line {} {what}", i + 1), lines.concat()));
        };
        with("dropped", &|lines| {
            lines.remove(i);
        });
        with("doubled", &|lines| lines.insert(i, lines[i]));
        with("and all after it cut", &|lines| lines.truncate(i));
        // The order of signature lines means nothing.
        if i > 0 && !(lines[i].starts_with('—') && lines[i - 1].starts_with('—')) {
            with("moved up", &|lines| lines.swap(i - 1, i));
        }
    }
    all
}

#[test]
fn any_line_dropped_doubled_moved_or_cut_and_any_byte_changed_is_refused() {
    let [(_, policy), (_, statement), (_, proof), (_, old), (_, new)] = vectors();
    assert!(included(&policy, proof.as_bytes(), statement.as_bytes()));
    assert!(continued(&policy, old.as_bytes(), new.as_bytes()));
    for (what, text) in tampered_lines(&proof) {
        assert!(!included(&policy, text.as_bytes(), statement.as_bytes()), "{what}");
    }
    for (what, text) in tampered_lines(&old) {
        assert!(!continued(&policy, text.as_bytes(), new.as_bytes()), "{what}");
    }
    for (what, text) in tampered_lines(&new) {
        assert!(!continued(&policy, old.as_bytes(), text.as_bytes()), "{what}");
    }
    let changed = |text: &str, at: usize, bit: u32| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        bytes
    };
    for bit in 0..8 {
        for at in (bit as usize % 3..proof.len()).step_by(3) {
            assert!(
                !included(&policy, &changed(&proof, at, bit), statement.as_bytes()),
                "byte {at} of the proof, bit {bit}"
            );
        }
        for at in 0..statement.len() {
            assert!(!included(&policy, proof.as_bytes(), &changed(&statement, at, bit)), "byte {at} of the statement");
        }
        for at in (bit as usize % 3..new.len()).step_by(3) {
            assert!(!continued(&policy, old.as_bytes(), &changed(&new, at, bit)), "byte {at} of the consistency proof");
        }
    }
}

#[test]
fn a_proof_has_one_form() {
    let [.., (_, proof), _, (_, consistency)] = vectors();
    let (_, signed) = proof.split_once("\n\n").unwrap();
    let hash = "VfsCO+YBAtbrWZv781Lu9XPKaWaQWR3YSTsbNc930LA=\n";
    let with = |head: &str| InclusionProof::parse(format!("{head}\n{signed}").as_bytes());
    for head in [
        "c2sp.org/tlog-proof@v1\nindex 0\n".into(),
        "c2sp.org/tlog-proof@v1\nextra \nindex 9223372036854775807\n".into(),
        format!("c2sp.org/tlog-proof@v1\nindex 5\n{}", hash.repeat(64)),
        format!("c2sp.org/tlog-proof@v1\nextra {}\nindex 5\n", "AAAA".repeat(1365)),
    ] {
        assert_eq!(with(&head).unwrap().to_string(), format!("{head}\n{signed}"));
    }
    for (fact, head) in [
        ("no index", "c2sp.org/tlog-proof@v1\n".into()),
        ("another version", "c2sp.org/tlog-proof@v2\nindex 5\n".into()),
        ("2^63", "c2sp.org/tlog-proof@v1\nindex 9223372036854775808\n".into()),
        ("extra data after the index", "c2sp.org/tlog-proof@v1\nindex 5\nextra AAAA\n".into()),
        ("extra data of 4098 bytes", format!("c2sp.org/tlog-proof@v1\nextra {}\nindex 5\n", "AAAA".repeat(1366))),
        ("65 hashes", format!("c2sp.org/tlog-proof@v1\nindex 5\n{}", hash.repeat(65))),
        ("a carriage return", "c2sp.org/tlog-proof@v1\r\nindex 5\n".into()),
        ("a hash that is cut", format!("c2sp.org/tlog-proof@v1\nindex 5\n{}\n", &hash[..40])),
    ] {
        assert!(matches!(with(&head), Err(InclusionError::Malformed(_))), "{fact}");
    }
    let old = |text: &str| ConsistencyProof::parse(consistency.replacen("old 200", text, 1).as_bytes());
    assert_eq!(old("old 0").unwrap().old, 0);
    for text in ["old", "old 0200", "new 200", "old 9223372036854775808", "200"] {
        assert!(old(text).is_err(), "{text}");
    }
    let long = format!("{}{}", "x".repeat(MAX_FILE), proof);
    assert_eq!(InclusionProof::parse(long.as_bytes()), Err(InclusionError::TooLarge(long.len())));
}

#[test]
fn an_erased_statement_leaves_every_other_proof_valid() {
    // The log keeps leaf hashes only: nothing of a proof depends on another entry's statement, salt or kind.
    let [(_, policy), (_, statement), (_, proof), ..] = vectors();
    let parsed = InclusionProof::parse(proof.as_bytes()).unwrap();
    let logged = parsed
        .verify(Entry::of(opening(INDEX), statement.as_bytes()), &Policy::parse(policy.as_bytes()).unwrap())
        .unwrap();
    assert_eq!((logged.index(), logged.entry().kind), (INDEX, Kind::Receipt));
    assert_eq!(
        logged.witnessed().witnesses().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["tokyo", "osaka"]
    );
    // Without the salt, whoever guesses the statement cannot confirm the guess: another salt is another leaf.
    let guess = Opening { salt: Salt::from_bytes([0; 32]), ..opening(INDEX) };
    assert_ne!(Entry::of(guess, statement.as_bytes()).leaf_hash(), logged.entry().leaf_hash());
}

#[test]
fn names_of_kinds_are_those_in_json_and_are_read_back() {
    for kind in Kind::ALL.iter().copied() {
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(Opening::from_bytes(&Opening { kind, ..opening(0) }.to_bytes()), Ok(Opening { kind, ..opening(0) }));
    }
    // The vectors depend on their order.
    let names: Vec<_> = Kind::ALL.iter().map(|kind| format!("`{kind}`")).collect();
    let page = include_str!("../../../../docs/provenance.md").replace("\n> ", " ");
    assert!(page.contains(&names.join(" ")), "docs/provenance.md lists {names:?}");
    let verifier = include_str!("../../../../docs/verify.py").replace('\n', " ");
    assert!(
        Kind::ALL.iter().all(|kind| verifier.contains(&format!("{kind} ")) || verifier.contains(&format!("{kind}\"")))
    );
    for bytes in
        [&[0; 31][..], &[0; 32], b"01234567890123456789012345678901Permit", b"01234567890123456789012345678901permit "]
    {
        assert!(Opening::from_bytes(bytes).is_err());
    }
    assert_eq!(format!("{:?}", opening(0)), "Opening { kind: Roster, salt: Salt(hidden) }");
}

/// Runs `docs/verify.py`; `None` when there is no Python.
fn verify_py(command: &str, files: &[&[u8]]) -> Option<(i32, String)> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.py");
    let files: Vec<_> = files
        .iter()
        .map(|bytes| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            file
        })
        .collect();
    let mut python = Command::new("python3");
    python.arg(script).arg(command).args(files.iter().map(tempfile::NamedTempFile::path)).stdin(Stdio::null());
    let output = python.output().ok()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some((output.status.code().unwrap(), said))
}

#[test]
fn the_independent_verifier_agrees() {
    let [(_, policy), (_, statement), (_, proof), (_, old), (_, new)] = vectors();
    let Some((code, said)) = verify_py("proof", &[policy.as_bytes(), proof.as_bytes(), statement.as_bytes()]) else {
        eprintln!("no python3: docs/verify.py is passed over");
        return;
    };
    assert_eq!(
        (code, said.contains("a receipt with SHA-256"), said.contains("osaka cosigned it at 2026-01-01T00:00:00Z")),
        (0, true, true),
        "{said}"
    );
    let checkpoint = |file: &str| verify_py("checkpoint", &[policy.as_bytes(), file.as_bytes()]).unwrap();
    assert_eq!(checkpoint(&old).0, 0);
    let again = verify_py("consistency", &[policy.as_bytes(), old.as_bytes(), new.as_bytes()]).unwrap();
    assert!(again.0 == 0 && again.1.contains("begins with the 200 entries"), "{}", again.1);

    let refused = |what: &str, command: &str, files: &[&[u8]]| {
        let (code, said) = verify_py(command, files).unwrap();
        assert!(code == 1 && said.contains("REFUSED: "), "{what}: {code} {said}");
    };
    for (what, text) in tampered_lines(&proof).into_iter().step_by(3) {
        refused(&what, "proof", &[policy.as_bytes(), text.as_bytes(), statement.as_bytes()]);
    }
    for (what, text) in tampered_lines(&new).into_iter().step_by(7) {
        refused(&what, "consistency", &[policy.as_bytes(), old.as_bytes(), text.as_bytes()]);
    }
    for at in (0..proof.len()).step_by(83) {
        let mut bytes = proof.as_bytes().to_vec();
        bytes[at] ^= 1;
        refused(&format!("byte {at} changed"), "proof", &[policy.as_bytes(), &bytes, statement.as_bytes()]);
    }
    let other = statement.replace('a', "b");
    refused("another statement", "proof", &[policy.as_bytes(), proof.as_bytes(), other.as_bytes()]);
    let stricter = policy.replace("hospitals 2", "hospitals all");
    refused("a stricter policy", "proof", &[stricter.as_bytes(), proof.as_bytes(), statement.as_bytes()]);
    refused("a fork", "consistency", &[policy.as_bytes(), checkpoint_of_a_fork().as_bytes(), new.as_bytes()]);
}

/// A checkpoint at 200 entries that the log's key and the witnesses' keys signed, of another history.
fn checkpoint_of_a_fork() -> String {
    let head = Log::counting(200, None).head(200);
    let mut signed = checkpoint(head);
    [0, 1].into_iter().for_each(|witness| signed.add(cosignature(head, witness, TIME)).unwrap());
    signed.to_string()
}
