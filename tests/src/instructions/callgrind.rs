//! A command line that runs a program under callgrind.
//!
//! What is counted must not depend on the machine more than it has to: the C library picks its `memcpy` by what the processor can do,
//! so it is told to take the ones that every x86-64 has.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The C library's choice among its own functions.
pub const PLAIN_FUNCTIONS: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX512F,-AVX512VL,-ERMS,-FSRM,-SSSE3,-SSE4_1,-SSE4_2");

const VALGRIND: &str = "/usr/bin/valgrind";

/// What stands before a program and its arguments. Each process, children by fork too, writes `directory/<its pid>` when it ends.
pub fn words(directory: &Path) -> Vec<OsString> {
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(directory.join("%p"));
    let mut log = OsString::from("--log-file=");
    log.push(directory.join("%p.log"));
    vec![VALGRIND.into(), "--tool=callgrind".into(), out, log]
}

/// Fails if valgrind is not there.
pub fn check() -> Result<(), String> {
    let version = Command::new(VALGRIND).arg("--version").output();
    match version {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{VALGRIND} --version failed: {}", output.status)),
        Err(error) => Err(format!("could not run {VALGRIND}: {error}; `make setup` installs it")),
    }
}
