//! What this daemon says of itself to whoever asks: its version, and what its clock says.

use std::time::{SystemTime, UNIX_EPOCH};

use gcs_proto::Said;

/// The words in front make it one text of the program that can be found.
const MARKED: &str = concat!("gcs version ", env!("CARGO_PKG_VERSION"));

/// This program's.
pub fn version() -> &'static str {
    MARKED.trim_start_matches("gcs version ")
}

/// The wall clock, in milliseconds of Unix time.
pub fn clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// To whoever asks; with the port of the PostgreSQL that has attached, if one has.
pub fn introduction(postgresql_port: Option<u16>) -> Said {
    let postgresql_port = postgresql_port.map_or(0, u32::from);
    Said { clock_ms: clock_ms(), version: version().to_owned(), postgresql_port }
}
