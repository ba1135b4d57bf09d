//! The binary `sekisho-node`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekisho_node::cli::main(std::env::args_os(), sekisho_node::hooks::Hooks::default())
}
