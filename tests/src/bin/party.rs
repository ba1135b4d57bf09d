//! Every party of a network in one binary, for the tests: like `sekisho-sim`, and alone with kill points.
//!
//! `SEKISHO_TEST_HOLD` names a folder. When a party passes a point whose name is a file `hold-<point>` there, it writes
//! `reached-<point>` and stands still until it is killed.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

#[expect(clippy::disallowed_methods, reason = "the edge of a test: kill points are no setting of any program")]
fn hold(point: &'static str) {
    let Some(folder) = std::env::var_os("SEKISHO_TEST_HOLD").map(PathBuf::from) else { return };
    if folder.join(format!("hold-{point}")).exists() {
        std::fs::write(folder.join(format!("reached-{point}")), "").unwrap();
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let rest = args.iter().skip(1).cloned();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("node") => sekisho_node::cli::main(rest, sekisho_node::hooks::Hooks::new(hold)),
        Some("coordinator") => {
            let hooks = sekisho_coordinator::daemon::Hooks { at: std::sync::Arc::new(hold) };
            sekisho_coordinator::cli::main(rest, hooks)
        }
        // A process that charges until it is killed: `party charging DATABASE FIRST-NUMBER`.
        Some("charging") => {
            let (path, from) = (PathBuf::from(&args[2]), args[3].to_str().unwrap().parse().unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(sekisho_tests::charging::charge_for_ever(&path, from));
            ExitCode::SUCCESS
        }
        Some("sekisho") => sekisho_coordinator::person::main(rest),
        _ => {
            eprintln!("usage: party node|coordinator|sekisho …");
            ExitCode::from(2)
        }
    }
}
