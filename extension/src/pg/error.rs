//! Raising PostgreSQL errors with all their parts.

pub use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;

pub struct Raise {
    pub code: Code,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Ends the current statement with an ERROR.
#[track_caller]
pub fn raise(error: Raise) -> ! {
    let mut report = ErrorReport::new(error.code, error.message, "postgres_r");
    if let Some(detail) = error.detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = error.hint {
        report = report.set_hint(hint);
    }
    report.report(pgrx::PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
