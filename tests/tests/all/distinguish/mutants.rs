//! The planted faults in `tests/mutants/` still fit the code. Whether this suite finds them, `tests/mutants/run.sh` shows, which
//! takes a build for each.

use std::{path::Path, process::Command};

#[test]
fn every_planted_fault_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut patches: Vec<_> = std::fs::read_dir(root.join("tests/mutants"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    patches.sort();
    assert!(patches.len() >= 8, "{} planted faults", patches.len());
    for patch in patches {
        let git = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(&root).output();
        let Ok(output) = git else {
            eprintln!("skipped: git is not there");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} does not apply: mend it\n{said}", patch.display());
    }
}
