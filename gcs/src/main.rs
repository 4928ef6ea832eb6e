//! The program `gcs`; all of it is in the library, so that tests and the playground share it.

use std::process::ExitCode;

fn main() -> ExitCode {
    gcs::cli::main()
}
