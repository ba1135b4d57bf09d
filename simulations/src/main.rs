//! The binary `sekisho-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekisho_sim::cli::main(std::env::args_os())
}
