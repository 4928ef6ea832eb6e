//! Where the programs under test stand.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The daemon's program: `GCS`, or what `make build` left beside the running test.
pub fn gcs() -> PathBuf {
    if let Some(path) = std::env::var_os("GCS") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap_or_default();
    // target/<profile>/deps/<test>, or target/<profile>/<program>
    let places = test.ancestors().skip(1).take(2).map(|directory| directory.join("gcs"));
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("the program gcs is not beside {}; run `make install` first", test.display()))
}

/// Where PostgreSQL looks for files of extensions, `extension` below it.
pub fn shared_files() -> PathBuf {
    let bin = gcs::playground::group::find_postgres().unwrap_or_else(|error| panic!("{error:?}"));
    let answer = Command::new(bin.join("pg_config")).arg("--sharedir").output();
    let answer = answer.unwrap_or_else(|error| panic!("pg_config: {error}"));
    PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim())
}

/// How long the end-to-end workloads run: short by default, 60 s in `make campaign`.
pub fn workload_seconds() -> Duration {
    let seconds = std::env::var("WORKLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    Duration::from_secs(seconds)
}
