//! Whether the server was shut down in order before it started, so that nothing of what it had shown is lost.

use std::sync::atomic::{AtomicBool, Ordering};

/// Where pg_control has the server's state, and its value after an orderly shutdown (DB_SHUTDOWNED of catalog/pg_control.h).
const STATE_AT: std::ops::Range<usize> = 16..20;
const SHUT_DOWN: u32 = 1;

static IN_ORDER: AtomicBool = AtomicBool::new(false);

/// Called while libraries are preloaded: the postmaster is in its data directory, and nobody has written to pg_control yet.
pub fn look() {
    let control = std::fs::read("global/pg_control").unwrap_or_default();
    let state = control.get(STATE_AT).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    IN_ORDER.store(state == Some(SHUT_DOWN), Ordering::SeqCst);
}

/// Once: shared memory that is laid out again comes after a crash of one of the server's processes.
pub fn take() -> bool {
    IN_ORDER.swap(false, Ordering::SeqCst)
}
