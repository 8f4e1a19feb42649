//! The tare command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    tare_cli::main()
}
