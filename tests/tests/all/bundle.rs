//! A result of a real network is exported, everybody goes home, and a stranger checks it from the file and a few keys.

use std::{fs, path::Path, process::Output};

use sekisho_sim::launch::Party;
use serde_json::Value;

use crate::kill::case;

/// `sekisho verify` where nobody listens.
fn verify(bundle: &Path, trust: &Path, more: &[&str]) -> Output {
    let (bundle, trust) = (bundle.display().to_string(), trust.display().to_string());
    let args = ["--coordinator", "http://127.0.0.1:1", "verify", &bundle, "--trust", &trust];
    crate::launcher().output(Party::Person, &[&args[..], more].concat()).unwrap()
}

#[test]
fn a_result_is_checked_offline_after_everybody_is_gone() {
    let (case, kept) = (case(), tempfile::tempdir().unwrap());
    let (zip, folder, trust) = (kept.path().join("r.zip"), kept.path().join("r"), kept.path().join("trust.toml"));
    assert_eq!(case.ask(1).0, Some(0));
    let (network, key) = (&case.network, case.network.key("researcher"));
    let listed = network.sekisho(&["release", "list", "--key", &key, "--output", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["standing"]), (1, &"released".into()), "{listed:#}");
    let result = listed[0]["result"].as_str().unwrap();
    for (name, out) in [(&result[..12], &zip), (result, &folder)] {
        let out = out.display().to_string();
        network.sekisho(&["release", "export", name, "--key", &key, "--out", &out]).unwrap();
    }
    // Nobody else may have it, or learn that it is there.
    let stranger = kept.path().join("stranger.pem").display().to_string();
    network.sekisho(&["keys", "new", "--out", &stranger]).unwrap();
    let out = kept.path().join("stolen.zip").display().to_string();
    let refused = network.ask(&["release", "export", result, "--key", &stranger, "--out", &out]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("error[not_authorised]"));
    fs::write(&trust, network.sekisho(&["verify", "--template"]).unwrap()).unwrap();
    drop(case);

    for bundle in [&zip, &folder] {
        let output = verify(bundle, &trust, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("Every link holds.") && !text.contains("BROKEN"), "{text}");
    }
    let report: Value = serde_json::from_slice(&verify(&zip, &trust, &["--output", "json"]).stdout).unwrap();
    assert_eq!((&report["verified"], report["result"].as_str()), (&true.into(), Some(result)));
    let japanese = verify(&zip, &trust, &["--lang", "ja"]);
    assert!(String::from_utf8_lossy(&japanese.stdout).contains("すべての鎖がつながっています"));

    let table = folder.join("result/combined.csv");
    let text = fs::read_to_string(&table).unwrap();
    let digit = text.rfind(|c: char| c.is_ascii_digit()).unwrap();
    let other = if &text[digit..=digit] == "1" { "2" } else { "1" };
    fs::write(&table, format!("{}{other}{}", &text[..digit], &text[digit + 1..])).unwrap();
    let output = verify(&folder, &trust, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("BROKEN  The tables are what the hospitals' numbers come to: result/combined.csv, line"),
        "{text}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("error[not_verified]"));
}
