//! The binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(afterimage::cli::run())
}
