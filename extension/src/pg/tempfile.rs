//! Temporary files of PostgreSQL's own: they count against temp_file_limit, go where temp_tablespaces says, show in
//! pg_stat_database, and are gone after the transaction, or after a crash when the server starts.

use pgrx::pg_sys;

use super::majors::relation::{file_read, file_write};
use pgrx::prelude::*;

/// One read or write.
const PIECE_BYTES: usize = 16 << 20;

/// A file that lives as long as the value, and at most as long as the transaction.
pub struct TempFile(pg_sys::File);

impl TempFile {
    /// Needs a transaction, of which all subtransactions may use the file.
    pub fn create() -> TempFile {
        // SAFETY: the file belongs to the top transaction's resource owner, which exists in a transaction. If opening raises,
        // the abort sets the current owner right.
        unsafe {
            pg_sys::PrepareTempTablespaces();
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            let file = pg_sys::OpenTemporaryFile(false);
            pg_sys::CurrentResourceOwner = owner;
            TempFile(file)
        }
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut written = 0;
        while written < bytes.len() {
            let piece = &bytes[written..bytes.len().min(written + PIECE_BYTES)];
            let event = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_WRITE;
            // SAFETY: the file is open; FileWrite only reads the piece, which is as long as it is told.
            let count = unsafe { file_write(self.0, piece, offset + written as u64, event) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => written += count,
                _ => fail("write to"),
            }
        }
    }

    /// Fills all of `bytes`.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut read = 0;
        while read < bytes.len() {
            let end = bytes.len().min(read + PIECE_BYTES);
            let piece = &mut bytes[read..end];
            let event = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_READ;
            // SAFETY: the file is open; at most the piece is filled.
            let count = unsafe { file_read(self.0, piece, offset + read as u64, event) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => read += count,
                _ => fail("read from"),
            }
        }
    }

    /// Gives back the space behind `length`, if it can. Raises nothing.
    pub fn truncate(&mut self, length: u64) {
        // SAFETY: the file is open.
        unsafe { pg_sys::FileTruncate(self.0, length as i64, pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_TRUNCATE) };
    }
}

/// Raises what the system said. What is written short without a word is a full disk.
fn fail(action: &str) -> ! {
    let cause = std::io::Error::last_os_error();
    let code = match cause.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    ereport!(ERROR, code, format!("could not {action} the temporary file of a large transaction: {cause}"));
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us and closed once. While an ERROR unwinds PostgreSQL does it.
            unsafe { pg_sys::FileClose(self.0) }
        }
    }
}
