//! Inputs that fuzzers found are given to the same functions again: `fuzz/corpus/` for what they reach, `fuzz/found/` for what
//! once failed. docs/fuzzing.md says how both come about.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use sekisho_tests::fuzzed::{answer, batch, bundle, documents, frames, plan, sql};

/// An input takes milliseconds; a hang takes longer than this on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a kept corpus may weigh.
const MOST_FILES: usize = 300;
const MOST_BYTES: usize = 400 << 10;

fn inputs(kept: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(kept).join(target);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Gives every kept input to `run`, on a thread with the stack that a daemon's have.
fn replay(target: &str, run: fn(&[u8])) {
    let (corpus, found) = (inputs("corpus", target), inputs("found", target));
    let bytes: u64 = corpus.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!((20..=MOST_FILES).contains(&corpus.len()), "{} inputs of {target}", corpus.len());
    assert!(bytes <= MOST_BYTES as u64, "{bytes} bytes for {target}: minimise (docs/fuzzing.md)");
    let (send, done) = sync_channel(0);
    let files = [corpus, found].concat();
    let all = files.clone();
    std::thread::spawn(move || {
        for file in all {
            run(&std::fs::read(&file).unwrap());
            if send.send(()).is_err() {
                return;
            }
        }
    });
    for file in files {
        match done.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("{} takes longer than {PATIENCE:?}", file.display()),
            Err(RecvTimeoutError::Disconnected) => panic!("{} fails", file.display()),
        }
    }
}

#[test]
fn sql_that_a_fuzzer_wrote_is_admitted_or_refused() {
    replay("sql", sql::run);
}

#[test]
fn plans_of_any_statement_keep_their_patients() {
    replay("plan", plan::run);
}

#[test]
fn documents_that_a_fuzzer_wrote_are_read_or_refused() {
    replay("documents", documents::run);
}

#[test]
fn frames_that_a_fuzzer_wrote_are_read_or_refused() {
    replay("frames", frames::run);
}

#[test]
fn releases_that_a_fuzzer_wrote_are_believed_or_not() {
    replay("batch", batch::run);
}

#[test]
fn answers_that_a_fuzzer_wrote_are_read_within_their_bounds() {
    replay("answer", answer::run);
}

#[test]
fn no_bundle_that_a_fuzzer_changed_verifies() {
    replay("bundle", bundle::run);
}

#[test]
fn zz_dump() {
    use sekisho_protocol::control::*;
    let put = |t: &str, n: &str, b: Vec<u8>| std::fs::write(format!("/tmp/fz/seeds/{t}/{n}"), b).unwrap();
    let s = |side: u8, b: Vec<u8>| [vec![side], b].concat();
    let note =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/testdata/log/checkpoint-200.txt"))
            .unwrap();
    let proof =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/testdata/log/200-to-300.txt"))
            .unwrap();
    let hello = FromNode::Hello(Hello { version: 4, name: "h".into(), software: "s".into() });
    put("frames", "a", s(0, encode(&hello).unwrap()));
    let mut holdings = Holdings {
        id: 300,
        roster_seq: 70000,
        permits: vec![[7; 32]; 3],
        orders: vec![("m".into(), 4)],
        others: vec![("o".into(), 5)],
        cosignature: note.lines().last().map(|l| format!("{l}\n")),
        ..Holdings::default()
    };
    put("frames", "b", s(0, encode(&FromNode::Holdings(holdings.clone())).unwrap()));
    holdings.succession = Some(Succession {
        write_off:
            "{\"payloadType\":\"application/vnd.sekisho.write-off.v1+json\",\"payload\":\"e30=\",\"signatures\":[]}"
                .into(),
        checkpoint: note.clone(),
    });
    put("frames", "c", s(0, encode(&FromNode::Holdings(holdings)).unwrap()));
    put(
        "frames",
        "d",
        s(1, encode(&FromCoordinator::Welcome { version: 4, software: "s".into(), newest: Some(note) }).unwrap()),
    );
    put("frames", "e", s(1, encode(&FromCoordinator::Ack { id: 1, offer: Some(proof) }).unwrap()));
    put("frames", "f", s(1, encode(&FromCoordinator::Ack { id: 1, offer: None }).unwrap()));
    for (i, asked) in batch::asked().iter().enumerate() {
        let i = i as u8;
        let (header, cells) = asked.release.to_bytes();
        put("batch", &format!("h{i}"), [vec![i], header, vec![b'\n'], cells].concat());
        for n in [1_i128, -5, 100_000, 10_i128.pow(30)] {
            put(
                "batch",
                &format!("n{i}{n}"),
                [vec![i + 4], n.to_le_bytes().to_vec(), (n * 7 + 3).to_le_bytes().to_vec()].concat(),
            );
        }
        let batch = asked.release.to_batch().unwrap();
        let data = arrow_flight::utils::batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
        let mut bytes = vec![i];
        for d in data {
            for f in [d.data_header, d.data_body] {
                bytes.extend((f.len() as u16).to_le_bytes());
                bytes.extend(f);
            }
        }
        put("answer", &format!("a{i}"), bytes);
    }
}
