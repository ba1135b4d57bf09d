//! `sekisho`: the command line of data users, committee members and regulators.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekisho_coordinator::person::main(std::env::args_os())
}
