//! The binary `qudo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    qudo_cli::run()
}
