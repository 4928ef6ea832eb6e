//! Background workers: registering them, and the frame around their main functions.

use std::ffi::CString;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::encoding;
use super::majors::process::{TIMEOUTS, on_signal};

/// The kinds of background workers. A worker's main function gets the number that the worker was registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Launcher,
    Scout,
    Manager,
    Remote,
    Rehearser,
    Forerunner,
    Builder,
    Maker,
    Leaser,
    Verifier,
    Coordinator,
}

/// The number that a remote backend, or a forerunner, is registered with: which database, which worker of it.
pub fn remote_number(database: usize, index: usize) -> u64 {
    (database as u64) << 32 | index as u64
}

/// The database and the worker of such a number.
pub fn remote_of_number(number: u64) -> (usize, usize) {
    ((number >> 32) as usize, (number & 0xffff_ffff) as usize)
}

/// The main functions, given by `_PG_init`, so that this module need not know them.
pub struct Mains {
    pub launcher: fn(u64),
    pub scout: fn(u64),
    pub manager: fn(u64),
    pub remote: fn(u64),
    pub rehearser: fn(u64),
    pub forerunner: fn(u64),
    pub builder: fn(u64),
    pub maker: fn(u64),
    pub leaser: fn(u64),
    pub verifier: fn(u64),
    pub coordinator: fn(u64),
}

static MAINS: OnceLock<Mains> = OnceLock::new();

/// Registers the launcher. Called while libraries are preloaded.
pub fn install(mains: Mains) {
    if MAINS.set(mains).is_ok() {
        let mut worker = describe(Kind::Launcher, "postgres_r launcher", 0);
        worker.bgw_restart_time = 1;
        // SAFETY: loading shared_preload_libraries; the struct is copied.
        unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) };
    }
}

/// Asks the postmaster for a worker. False when there is no room (max_worker_processes). Never restarted by the postmaster: who
/// starts it looks after it.
pub fn start(kind: Kind, name: &str, number: u64) -> bool {
    let mut worker = describe(kind, name, number);
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    // SAFETY: the struct is copied; no handle is asked for.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, std::ptr::null_mut()) }
}

fn describe(kind: Kind, name: &str, number: u64) -> pg_sys::BackgroundWorker {
    let (type_name, function) = match kind {
        Kind::Launcher => ("postgres_r launcher", "postgres_r_launcher_main"),
        Kind::Scout => ("postgres_r scout", "postgres_r_scout_main"),
        Kind::Manager => ("postgres_r manager", "postgres_r_manager_main"),
        Kind::Remote => ("postgres_r remote backend", "postgres_r_remote_main"),
        Kind::Rehearser => ("postgres_r rehearser", "postgres_r_rehearser_main"),
        Kind::Forerunner => ("postgres_r forerunner", "postgres_r_forerunner_main"),
        Kind::Builder => ("postgres_r builder", "postgres_r_builder_main"),
        Kind::Maker => ("postgres_r maker", "postgres_r_maker_main"),
        Kind::Leaser => ("postgres_r leaser", "postgres_r_leaser_main"),
        Kind::Verifier => ("postgres_r verifier", "postgres_r_verifier_main"),
        Kind::Coordinator => ("postgres_r coordinator", "postgres_r_coordinator_main"),
    };
    // SAFETY: zeroes are valid for this plain struct.
    let mut worker: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    put(&mut worker.bgw_name, name);
    put(&mut worker.bgw_type, type_name);
    put(&mut worker.bgw_library_name, "postgres_r");
    put(&mut worker.bgw_function_name, function);
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_main_arg = pg_sys::Datum::from(number);
    worker
}

fn put(field: &mut [std::ffi::c_char], text: &str) {
    let room = field.len() - 1;
    for (to, from) in field[..room].iter_mut().zip(text.bytes()) {
        *to = from as std::ffi::c_char;
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_launcher_main(number: pg_sys::Datum) {
    run(number, |mains| mains.launcher);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_scout_main(number: pg_sys::Datum) {
    run(number, |mains| mains.scout);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_manager_main(number: pg_sys::Datum) {
    run(number, |mains| mains.manager);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_remote_main(number: pg_sys::Datum) {
    run(number, |mains| mains.remote);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_rehearser_main(number: pg_sys::Datum) {
    run(number, |mains| mains.rehearser);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_forerunner_main(number: pg_sys::Datum) {
    run(number, |mains| mains.forerunner);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_builder_main(number: pg_sys::Datum) {
    run(number, |mains| mains.builder);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_maker_main(number: pg_sys::Datum) {
    run(number, |mains| mains.maker);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_leaser_main(number: pg_sys::Datum) {
    run(number, |mains| mains.leaser);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_verifier_main(number: pg_sys::Datum) {
    run(number, |mains| mains.verifier);
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn postgres_r_coordinator_main(number: pg_sys::Datum) {
    run(number, |mains| mains.coordinator);
}

fn run(number: pg_sys::Datum, main: fn(&Mains) -> fn(u64)) {
    // SAFETY: the start of a background worker: signals are still blocked.
    unsafe {
        on_signal(libc::SIGHUP, on_hangup);
        on_signal(libc::SIGTERM, on_terminate);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    if let Some(mains) = MAINS.get() {
        main(mains)(number.value() as u64);
    }
}

unsafe extern "C-unwind" fn on_hangup(signal: i32) {
    // SAFETY: PostgreSQL's own handler, in a signal handler.
    unsafe { raw::SignalHandlerForConfigReload(signal) };
}

unsafe extern "C-unwind" fn on_terminate(signal: i32) {
    // SAFETY: PostgreSQL's own handler, in a signal handler.
    unsafe { raw::die(signal) };
}

mod raw {
    unsafe extern "C" {
        // Declared again without pgrx's guard, which has no business in a signal handler.
        pub fn SignalHandlerForConfigReload(signal: i32);
        pub fn die(signal: i32);
    }
}

/// How many background workers the server has room for.
pub fn room() -> usize {
    // SAFETY: a setting of the server, fixed since its start.
    usize::try_from(unsafe { pg_sys::max_worker_processes }).unwrap_or(0)
}

/// Connects to shared catalogs only.
pub fn connect_to_nothing() {
    // SAFETY: once, at the start of a background worker.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
}

/// Connects to a database as the bootstrap superuser, also where ALLOW_CONNECTIONS keeps clients out. Its transactions are then what those of
/// our processes are, whatever the configuration, the database or the superuser's role have been given: READ COMMITTED, free to write, and
/// ended by no timeout.
pub fn connect(database: pg_sys::Oid) {
    // SAFETY: once, at the start of a background worker.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, pg_sys::BGWORKER_BYPASS_ALLOWCONN);
    }
    TIMEOUTS.iter().for_each(|timeout| set_setting(timeout, "0"));
    set_setting("default_transaction_isolation", "read committed");
    set_setting("default_transaction_read_only", "off");
    set_setting("default_transaction_deferrable", "off");
}

/// Sets a setting for this process, above what the configuration, database or role say.
pub fn set_setting(name: &str, value: &str) {
    let (Some(name), Some(value)) = (encoding::c_string(name), encoding::c_string(value)) else { return };
    // SAFETY: strings are copied.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Tells monitoring what this process is doing. `None` when it waits for work.
pub fn report_activity(activity: Option<&str>) {
    let text = activity.and_then(|text| CString::new(text).ok());
    let (state, text) = match &text {
        Some(text) => (pg_sys::BackendState::STATE_RUNNING, text.as_ptr()),
        None => (pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
    };
    // SAFETY: the string is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text) };
}

/// Hands what this process counted to the cumulative statistics. Without `now` PostgreSQL keeps it back if it was last handed over less
/// than a second ago. False when something was kept back.
pub fn report_statistics(now: bool) -> bool {
    // SAFETY: outside of a transaction.
    unsafe { pg_sys::pgstat_report_stat(now) == 0 }
}

/// Ends this process; nothing starts it again.
pub fn exit() -> ! {
    super::majors::process::exit(0)
}
