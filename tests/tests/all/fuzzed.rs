//! Inputs that fuzzers found are given to the same functions again: `fuzz/corpus/` for what they reach, `fuzz/found/` for what
//! once failed. docs/fuzzing.md says how both come about.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use sekisho_tests::fuzzed::{answer, batch, bundle, documents, frames, plan, sql};

/// An input takes milliseconds; a hang takes longer than this on any machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The stack of a daemon's thread, in bytes.
const STACK: usize = 16 << 20;
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
    let replaying = move || {
        for file in all {
            run(&std::fs::read(&file).unwrap());
            if send.send(()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(replaying).unwrap();
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
