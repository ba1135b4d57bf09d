//! What crosses crates: real processes, sockets, files and attacks. One binary, so that it links once.

mod application;
mod bounds;
mod browser;
mod bundle;
mod catalogue;
mod corpus;
mod demo;
mod distinguish;
mod eicu;
mod engine;
mod exact;
mod governance;
mod kill;
mod layering;
mod leaks;
mod library;
mod lifetime;
mod local;
mod log;
mod mimic;
mod opt_out;
mod pins;
mod policy;
mod refusals;
mod replay;
mod rotation;
mod snapshots;
mod sql;
mod utility;
mod watch;
mod wire;

/// The executable that is every party, with kill points.
fn launcher() -> sekisho_sim::launch::Launcher {
    sekisho_sim::launch::Launcher::new(env!("CARGO_BIN_EXE_party"))
}

/// The present, for networks of real processes.
#[expect(clippy::disallowed_methods, reason = "the edge of the tests: their networks run now")]
fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
