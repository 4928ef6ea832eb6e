//! The workers of subscriptions (PostgreSQL's logical replication), as what they are on this server: whose worker this process is, what the server's catalogs say
//! of the tables of a subscription, and a word with the publisher.

use std::ffi::CString;

use pgrx::pg_sys;
use postgres_r_protocol::id::Lsn;

use super::encoding;
use super::majors::subscription::{MyLogicalRepWorker, add_state, connect, update_state};
use super::names::{Oid, owned, valid};

/// The process that the server runs for a subscription: its apply worker, or the one that copies this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub subscription: Oid,
    pub table: Option<Oid>,
}

/// How far a table of a subscription is, as `pg_subscription_rel` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableState {
    /// Its rows are to be copied.
    Init,
    /// They are being copied.
    Copying,
    /// They have been copied; the worker that did so catches up with the publisher.
    Copied,
    /// It has caught up.
    Synchronised,
    /// The apply worker applies what comes for it.
    Ready,
}

impl TableState {
    /// By the letter in `srsubstate`.
    pub fn of_letter(letter: &str) -> Option<TableState> {
        Some(match letter {
            "i" => TableState::Init,
            "d" => TableState::Copying,
            "f" => TableState::Copied,
            "s" => TableState::Synchronised,
            "r" => TableState::Ready,
            _ => return None,
        })
    }

    pub fn letter(self) -> char {
        match self {
            TableState::Init => 'i',
            TableState::Copying => 'd',
            TableState::Copied => 'f',
            TableState::Synchronised => 's',
            TableState::Ready => 'r',
        }
    }
}

unsafe extern "C-unwind" {
    /// Of utils/lsyscache.h and catalog/pg_subscription_rel.h, which pgrx does not bind.
    fn get_subscription_name(subscription: pg_sys::Oid, may_be_missing: bool) -> *mut std::ffi::c_char;
    fn RemoveSubscriptionRel(subscription: pg_sys::Oid, table: pg_sys::Oid);
}

/// None if this process is no worker of a subscription.
pub fn worker() -> Option<Worker> {
    // SAFETY: null, or set when the process was attached to its place in shared memory, which it keeps.
    unsafe {
        if !pg_sys::IsLogicalWorker() {
            return None;
        }
        let worker = &*MyLogicalRepWorker;
        Some(Worker { subscription: worker.subscription, table: valid(worker.table) })
    }
}

/// None if there is no such subscription any more.
pub fn name(subscription: Oid) -> Option<String> {
    // SAFETY: a look-up in a transaction, giving a palloc'd copy or null.
    unsafe { owned(pg_sys::ffi::pg_guard_ffi_boundary(|| get_subscription_name(subscription, true))) }
}

/// The replication origin of a subscription, or of the worker that copies one of its tables.
pub fn origin_name(subscription: Oid, table: Option<Oid>) -> String {
    match table {
        Some(table) => format!("pg_{}_{}", subscription.to_u32(), table.to_u32()),
        None => format!("pg_{}", subscription.to_u32()),
    }
}

/// The slot by which this server's worker gets what comes for a table that was copied.
pub fn slot_name(subscription: Oid, table: Oid) -> String {
    // SAFETY: reads the control file's copy in shared memory.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    format!("pg_{}_sync_{}_{system}", subscription.to_u32(), table.to_u32())
}

/// Writes how far a table is into the catalog of this server.
pub fn set_state(worker: (Oid, Oid), is_known: bool, state: TableState, lsn: Lsn) {
    let (subscription, table) = worker;
    let letter = state.letter() as std::ffi::c_char;
    // SAFETY: writes a catalog in a transaction; an ERROR passes.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| match is_known {
            true => update_state(subscription, table, letter, lsn.0),
            false => add_state(subscription, table, letter, lsn.0),
        });
        pg_sys::CommandCounterIncrement();
    }
}

/// A table is no table of the subscription any more, however far it was.
pub fn forget_table(subscription: Oid, table: Oid) {
    // SAFETY: as above.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| RemoveSubscriptionRel(subscription, table));
        pg_sys::CommandCounterIncrement();
    }
}

/// A connection to the publisher, for as long as this lives.
pub struct Publisher(*mut pg_sys::WalReceiverConn);

impl Publisher {
    /// The error is libpq's.
    pub fn connect(connection: &str, name: &str) -> Result<Publisher, String> {
        let (Some(connection), Some(name)) = (encoding::c_string(connection), encoding::c_string(name)) else {
            return Err("a zero byte in the connection string".to_owned());
        };
        // SAFETY: the server's own library, which each worker of a subscription has loaded; strings are copied.
        unsafe {
            let mut error = std::ptr::null_mut();
            let made = functions().and_then(|functions| {
                pg_sys::ffi::pg_guard_ffi_boundary(|| connect(functions, &connection, &name, &mut error))
            });
            let Some(made) = made else { return Err("libpqwalreceiver is not loaded".to_owned()) };
            if made.is_null() { Err(owned(error).unwrap_or_default()) } else { Ok(Publisher(made)) }
        }
    }

    /// The one text that a query gives.
    pub fn text(&self, query: &str) -> Result<String, String> {
        let query = CString::new(query).map_err(|_| "a zero byte in a query".to_owned())?;
        let types = [pg_sys::TEXTOID];
        // SAFETY: as above. The result is freed with its memory context.
        unsafe {
            let Some(run) = functions().and_then(|functions| functions.walrcv_exec) else {
                return Err("libpqwalreceiver is not loaded".to_owned());
            };
            let result = &*pg_sys::ffi::pg_guard_ffi_boundary(|| run(self.0, query.as_ptr(), 1, types.as_ptr()));
            if result.status != pg_sys::WalRcvExecStatus::WALRCV_OK_TUPLES {
                return Err(owned(result.err).unwrap_or_default());
            }
            let slot = pg_sys::MakeSingleTupleTableSlot(result.tupledesc, &pg_sys::TTSOpsMinimalTuple);
            let mut text = None;
            if pg_sys::tuplestore_gettupleslot(result.tuplestore, true, false, slot) {
                pg_sys::slot_getsomeattrs_int(slot, 1);
                let (value, is_null) = (*(*slot).tts_values, *(*slot).tts_isnull);
                text = (!is_null).then(|| owned(pg_sys::text_to_cstring(value.cast_mut_ptr()))).flatten();
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::tuplestore_end(result.tuplestore);
            text.ok_or_else(|| "the publisher gave no answer".to_owned())
        }
    }

    pub fn close(self) {
        // SAFETY: as above; the connection is not used any more.
        unsafe {
            if let Some(disconnect) = functions().and_then(|functions| functions.walrcv_disconnect) {
                pg_sys::ffi::pg_guard_ffi_boundary(|| disconnect(self.0));
            }
        }
    }
}

unsafe fn functions() -> Option<&'static pg_sys::WalReceiverFunctionsType> {
    // SAFETY: null, or a static of the server's own library.
    unsafe { pg_sys::WalReceiverFunctions.as_ref() }
}
