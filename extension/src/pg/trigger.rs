//! The capture triggers: the raw function behind them, and giving them to tables.
//!
//! They are internal (hidden from psql's \d, skipped by pg_dump), fire ALWAYS (also under session_replication_role = replica:
//! remote backends excuse themselves instead), and their names start with 0x01, so that of all AFTER triggers of an event they
//! fire first: what user triggers change comes behind the row that fired them.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::access;
use super::mark;
use super::names::Oid;
use super::relation::Open;
use super::row::Row;
use super::table::Table;

const NAME: &CStr = c"\x01postgres_r";

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether rows that this process changes are to be shown at all.
    pub is_wanted: fn() -> bool,
    pub row: fn(&RowEvent<'_>),
}

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Shows every row that a capture trigger fires for to `listener`. Once, while libraries are preloaded.
pub fn on_row(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// A call of the trigger function for a row.
pub struct RowEvent<'a> {
    relation: pg_sys::Relation,
    pub command: u32,
    pub old: Option<Row<'a>>,
    pub new: Option<Row<'a>>,
}

impl RowEvent<'_> {
    pub fn table(&self) -> Oid {
        // SAFETY: the trigger manager holds the relation open.
        unsafe { (*self.relation).rd_id }
    }

    pub fn describe(&self) -> Table {
        Table::describe_raw(self.relation)
    }
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_postgres_r_capture() -> &'static pg_sys::Pg_finfo_record {
    static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// # Safety
/// Called by PostgreSQL's function manager.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn postgres_r_capture(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: for a trigger call, `context` is a TriggerData that lives as long as the call.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            pgrx::ereport!(
                ERROR,
                pgrx::PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "function \"capture\" was not called by trigger manager"
            );
        }
        if let Some(listener) = LISTENER.get().filter(|listener| (listener.is_wanted)()) {
            let data = &*context.cast::<pg_sys::TriggerData>();
            (listener.row)(&row_event(data, data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK));
        }
    }
    pg_sys::Datum::null()
}

/// # Safety
/// `data` must describe an AFTER ROW event.
unsafe fn row_event(data: &pg_sys::TriggerData, operation: pg_sys::TriggerEvent) -> RowEvent<'_> {
    // SAFETY: the trigger manager fills tg_trigslot, for an update tg_newslot too, and keeps them until we return.
    unsafe {
        let (old, new, command) = match operation {
            pg_sys::TRIGGER_EVENT_INSERT => (None, Some(data.tg_trigslot), inserted_by(data.tg_trigtuple)),
            pg_sys::TRIGGER_EVENT_DELETE => (Some(data.tg_trigslot), None, deleted_by(data.tg_trigtuple)),
            _ => (Some(data.tg_trigslot), Some(data.tg_newslot), inserted_by(data.tg_newtuple)),
        };
        RowEvent {
            relation: data.tg_relation,
            command,
            old: old.map(|slot| Row::of_slot(slot)),
            new: new.map(|slot| Row::of_slot(slot)),
        }
    }
}

/// # Safety
/// `tuple` must have been inserted by this transaction.
unsafe fn inserted_by(tuple: pg_sys::HeapTuple) -> u32 {
    // SAFETY: by contract; t_cid is the command itself unless the flag says that it stands for two.
    unsafe {
        let header = (*tuple).t_data;
        if u32::from((*header).t_infomask) & pg_sys::HEAP_COMBOCID != 0 {
            pg_sys::HeapTupleHeaderGetCmin(header)
        } else {
            (*header).t_choice.t_heap.t_field3.t_cid
        }
    }
}

/// # Safety
/// `tuple` must have been deleted by this transaction.
unsafe fn deleted_by(tuple: pg_sys::HeapTuple) -> u32 {
    // SAFETY: as above.
    unsafe {
        let header = (*tuple).t_data;
        if u32::from((*header).t_infomask) & pg_sys::HEAP_COMBOCID != 0 {
            pg_sys::HeapTupleHeaderGetCmax(header)
        } else {
            (*header).t_choice.t_heap.t_field3.t_cid
        }
    }
}

/// Whether a trigger of this name is a capture trigger.
pub fn is_ours(name: &CStr) -> bool {
    name.to_bytes().starts_with(NAME.to_bytes())
}

/// Whether that is the identity of a capture trigger: its name in quotes, and its table.
pub(super) fn is_identity_of_ours(identity: &[u8]) -> bool {
    identity.strip_prefix(b"\"").is_some_and(|rest| rest.starts_with(NAME.to_bytes()))
}

/// The id of the command that runs now, for what has no tuple that would tell it.
pub fn current_command() -> u32 {
    // SAFETY: reads a counter.
    unsafe { pg_sys::GetCurrentCommandId(false) }
}

/// The id of the command that runs now; whatever comes after has a higher one.
pub fn own_command() -> u32 {
    // SAFETY: marks the id as used, without which PostgreSQL does not count on. A plan about to start may have its snapshot already: it sees
    // what came before, as it should.
    unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        pg_sys::CommandCounterIncrement();
        command
    }
}

/// Whether the table has its capture trigger, in force.
pub fn is_in_force(table: &Open) -> bool {
    installed(table.raw()) == Some(true)
}

/// Gives a table its capture trigger, or puts it back in force. The table must be locked so that nobody else does the same.
pub fn ensure(table: &Open) {
    match installed(table.raw()) {
        Some(true) => {}
        Some(false) => strengthen(table),
        None => create(table),
    }
}

/// Whether there is a capture trigger, and whether it fires always.
pub(super) fn installed(table: pg_sys::Relation) -> Option<bool> {
    // SAFETY: the relation is open; its trigger descriptor is read at once.
    unsafe {
        let descriptor = (*table).trigdesc;
        if descriptor.is_null() {
            return None;
        }
        std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize)
            .iter()
            .find(|trigger| trigger.tgisinternal && is_ours(CStr::from_ptr(trigger.tgname)))
            .map(|trigger| trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS)
    }
}

/// Whether one of these triggers marks its table.
pub fn marks_among(triggers: impl Iterator<Item = Oid>) -> bool {
    let Some(mark) = mark::function() else { return false };
    let mut triggers = triggers;
    triggers.any(|trigger| access::function_of_trigger(trigger) == Some(mark))
}

fn create(table: &Open) {
    let function = mark::own_function(c"capture", false);
    let events = pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_UPDATE | pg_sys::TRIGGER_TYPE_DELETE;
    // SAFETY: a statement node as the parser makes it, palloc'd; internal triggers skip permission checks and get their own
    // OID behind the name.
    unsafe {
        let statement = pg_sys::palloc0(size_of::<pg_sys::CreateTrigStmt>()).cast::<pg_sys::CreateTrigStmt>();
        (*statement).type_ = pg_sys::NodeTag::T_CreateTrigStmt;
        (*statement).trigname = pg_sys::pstrdup(NAME.as_ptr());
        (*statement).row = true;
        (*statement).timing = pg_sys::TRIGGER_TYPE_AFTER as i16;
        (*statement).events = events as i16;
        pg_sys::CreateTriggerFiringOn(
            statement,
            std::ptr::null(),
            table.oid(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            function,
            pg_sys::InvalidOid,
            std::ptr::null_mut(),
            true,
            false,
            pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char,
        );
        pg_sys::CommandCounterIncrement();
    }
}

/// Sets the capture trigger, and no other, to fire ALWAYS again: ALTER TABLE ... DISABLE TRIGGER ALL disables internal triggers, too.
fn strengthen(table: &Open) {
    // SAFETY: an ordinary scan and update of pg_trigger by its index on (tgrelid, tgname); the table is locked.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::TriggerRelationId, pg_sys::RowExclusiveLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_trigger_tgrelid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            pg_sys::Datum::from(table.oid()),
        );
        let scan = pg_sys::systable_beginscan(
            catalog,
            pg_sys::Oid::from(pg_sys::TriggerRelidNameIndexId),
            true,
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_trigger>(tuple);
            let ours = (*form).tgisinternal && is_ours(CStr::from_ptr((*form).tgname.data.as_ptr()));
            if ours && (*form).tgenabled as u8 != pg_sys::TRIGGER_FIRES_ALWAYS {
                let copy = pg_sys::heap_copytuple(tuple);
                let form = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_trigger>(copy);
                (*form).tgenabled = pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char;
                pg_sys::CatalogTupleUpdate(catalog, &mut (*copy).t_self, copy);
                pg_sys::heap_freetuple(copy);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
        pg_sys::CacheInvalidateRelcacheByRelid(table.oid());
        pg_sys::CommandCounterIncrement();
    }
}
