//! `sekisho-coordinator`: see [`sekisho_coordinator::cli`].

use std::process::ExitCode;

use sekisho_coordinator::{cli, daemon::Hooks};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), Hooks::default())
}
