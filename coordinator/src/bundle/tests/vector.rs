//! The bundle in `protocol/testdata/bundle/`, for whoever writes another verifier: it verifies, is made again, and the independent
//! verifier reads it. Its coordinator's log has random salts, so that these parts differ each time it is made.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sekisho_protocol::{dsse::Envelope, published::PublishedRelease};

use super::{
    super::{archive, layout, stated::SOFTWARE, trust::Trust},
    Files, checked, made,
    net::Shape,
};

const SHAPE: Shape = Shape { hospitals: 2, missing: false, two_person: true, history: true, exact: false };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata/bundle")
}

fn write(root: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Makes the vector anew: `cargo test --workspace --lib make_the_vector -- --ignored`.
#[test]
#[ignore = "writes protocol/testdata/bundle"]
fn make_the_vector() {
    let (net, _, files) = made(SHAPE);
    let _ = fs::remove_dir_all(folder());
    write(&folder().join("release"), &files);
    let template = net.template();
    let (trust, policy) = template.split_once("policy = \"\"\"\n").unwrap();
    let policy = policy.strip_suffix("\"\"\"\n").unwrap();
    write(
        &folder(),
        &BTreeMap::from([
            ("policy.txt".into(), policy.into()),
            ("trust.toml".into(), format!("{trust}policy_file = \"policy.txt\"\n").into_bytes()),
        ]),
    );
}

#[test]
fn the_vector_verifies_and_is_made_again() {
    let there = archive::folder(&folder().join("release")).unwrap();
    let trust = fs::read_to_string(folder().join("trust.toml")).unwrap();
    let trust = Trust::parse(&trust, |path| fs::read(folder().join(path))).unwrap();
    let report = checked(&there, &trust);
    assert!(report.verified, "{:#?}", report.checks);
    let said = Envelope::from_json::<PublishedRelease>(&there[layout::STATEMENT]).unwrap();
    if said.peek::<PublishedRelease>().unwrap().0.software != SOFTWARE {
        return;
    }
    let salted = |path: &str| path.starts_with("proofs/") || path.starts_with("log/") || path == layout::CRATE;
    let (_, _, again) = made(SHAPE);
    assert_eq!(again.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
    for (path, bytes) in again.iter().filter(|(path, _)| !salted(path)) {
        assert!(*bytes == there[path], "{path} is made otherwise: run make_the_vector if that is meant");
    }
}

#[test]
fn the_independent_verifier_reads_the_vector() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.py");
    let run = |bundle: &Path| {
        let output =
            Command::new("python3").arg(&script).arg("bundle").arg(folder().join("policy.txt")).arg(bundle).output();
        output.ok().map(|o| (o.status.code(), String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned()))
    };
    let Some((code, said)) = run(&folder().join("release")) else {
        eprintln!("no python3: docs/verify.py is passed over");
        return;
    };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("hospital-1 is in its own log"), "{said}");
    let whole = archive::folder(&folder().join("release")).unwrap();
    for (fact, path) in [
        ("is not the file that is listed", layout::cells("hospital-0")),
        ("is missing", layout::CRATE.to_string()),
        ("other files", layout::proof(layout::QUERY)),
    ] {
        let (dir, mut files) = (tempfile::tempdir().unwrap(), whole.clone());
        match fact {
            "is not the file that is listed" => files.get_mut(&path).unwrap()[0] ^= 1,
            _ => drop(files.remove(&path)),
        }
        write(dir.path(), &files);
        let (code, said) = run(dir.path()).unwrap();
        assert_eq!(code, Some(1), "{fact}: {said}");
        assert!(said.contains(fact), "{fact}: {said}");
    }
    // A receipt that was changed with the list: its proof does not lead there.
    let (dir, mut files) = (tempfile::tempdir().unwrap(), whole.clone());
    files.insert(layout::receipt("hospital-0"), whole[&layout::receipt("hospital-1")].clone());
    files.remove(layout::CRATE);
    super::super::describe::add(&mut files).unwrap();
    write(dir.path(), &files);
    let (code, said) = run(dir.path()).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("receipts/hospital-0.dsse.json: the proof does not lead"), "{said}");
}
