//! Positions in PostgreSQL's own log (WAL), which is cut into pages that begin with a header.
//!
//! A place between two records has two positions if a page ends there: the end of the record before it is the end of the page, and the next
//! record begins behind the header of the page that follows. PostgreSQL gives the second when it is asked where it inserts. A flush up to there would be
//! one up to bytes that nobody has written, and PostgreSQL refuses it ("xlog flush request is not satisfied").

use pgrx::pg_sys;

/// Where the last record before `insert`, the position at which the next one begins, ends.
pub fn end_of_last_record(insert: pg_sys::XLogRecPtr) -> pg_sys::XLogRecPtr {
    // SAFETY: set once, when the server starts.
    let segment = u64::from(unsafe { pg_sys::wal_segment_size }.unsigned_abs());
    before_header(insert, segment)
}

const PAGE: u64 = pg_sys::XLOG_BLCKSZ as u64;
const HEADER: u64 = aligned(size_of::<pg_sys::XLogPageHeaderData>());
/// Of the first page of a segment.
const LONG_HEADER: u64 = aligned(size_of::<pg_sys::XLogLongPageHeaderData>());

const fn aligned(size: usize) -> u64 {
    (size as u64).next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as u64)
}

/// A record takes at least the length of its header, so none ends within the first bytes of a page.
fn before_header(insert: u64, segment: u64) -> u64 {
    let header = if insert % segment < PAGE { LONG_HEADER } else { HEADER };
    if insert % PAGE == header { insert - header } else { insert }
}
