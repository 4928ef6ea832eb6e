//! The remote backend: takes the lowest queued position, waits for what it depends on, applies it, passes the gate,
//! commits.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use pgrx::prelude::*;

use crate::apply::queue::Queued;
use crate::apply::{pool, rows, spool, victim};
use crate::commit::{self, Turn};
use crate::error::{self, Error};
use crate::gate::{Job, Storage};
use crate::guc;
use crate::pg::process::ProcNo;
use crate::pg::{interrupt, latch, log, process, worker, xact};
use crate::progress::{self, Phase as Stage};
use crate::session;
use crate::shmem::{self, DatabaseArea, Doing, Phase, Shared, Worker};

/// Pauses between attempts at the same position.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// After this many attempts at one position the log says so.
const ATTEMPTS_REPORTED: u32 = 100;

/// An idle remote backend reports what it counted after this.
const STATISTICS_AFTER: Duration = Duration::from_secs(1);

/// Memory kept from one job to the next.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    static ME: Cell<Option<(&'static DatabaseArea, usize)>> = const { Cell::new(None) };
}

/// This remote backend's entry.
pub fn me() -> Option<&'static Worker> {
    ME.get().map(|(area, index)| &area.workers[index])
}

/// The number a remote backend is registered with: which database, which worker.
pub fn number(database: usize, worker: usize) -> u64 {
    (database as u64) << 32 | worker as u64
}

pub fn main(number: u64) {
    let Some(shared) = shmem::get() else { return };
    let (database, index) = ((number >> 32) as usize, (number & 0xffff_ffff) as usize);
    let Some(area) = shared.databases.get(database).filter(|area| index < area.workers.len()) else { return };
    let Some(place) = process::me() else { return };
    if !is_wanted_in(area) || !area.workers[index].place.claim(place) {
        return;
    }
    ME.set(Some((area, index)));
    process::on_exit(leave);
    session::become_remote_backend();
    worker::connect(area.state.oid());
    configure();
    commit::hear_summons();
    let me = &area.workers[index];
    me.pid.store(process::my_pid(), Ordering::SeqCst);
    run(shared, area, me, place);
}

/// The settings that applying needs, whatever the database or the superuser's role have been given.
fn configure() {
    for (name, value) in [
        ("session_replication_role", "replica"),
        ("search_path", "pg_catalog"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("row_security", "off"),
        ("check_function_bodies", "off"),
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "3"),
        // Lock waits are reported early, and the report is what makes others give way (see `victim`).
        ("deadlock_timeout", victim::LOOK_UP_AFTER),
        ("log_lock_waits", "on"),
    ] {
        worker::set_setting(name, value);
    }
}

/// Whatever this process held goes back.
fn leave() {
    let Some((area, index)) = ME.get() else { return };
    let me = &area.workers[index];
    let position = me.position.swap(0, Ordering::SeqCst);
    if position != 0 {
        area.gate.unclaim(Position(position));
    }
    me.awaits.store(0, Ordering::SeqCst);
    me.pid.store(0, Ordering::SeqCst);
    me.set_doing(Doing::Absent);
    me.place.set(None);
    if position != 0 {
        pool::queued_below(area, Position(position));
    }
    area.state.manager.wake();
}

fn run(shared: &Shared, area: &'static DatabaseArea, me: &'static Worker, place: ProcNo) {
    let mut bytes = Vec::new();
    while is_wanted_in(area) && index_wanted() {
        serve_interrupts();
        interrupt::reload_config();
        me.set_doing(Doing::Applying);
        let Some(job) = area.gate.claim(place) else {
            sleep(area, me);
            continue;
        };
        me.position.store(job.position.0, Ordering::SeqCst);
        if let Some(slot) = shared.slot_of(place) {
            slot.set_remote(job.position);
        }
        let done = process_job(area, me, &job, &mut bytes);
        me.position.store(0, Ordering::SeqCst);
        if let Some(slot) = shared.slot_of(place) {
            slot.set_remote(Position::ZERO);
        }
        if !done {
            area.gate.unclaim(job.position);
        } else if matches!(job.storage, Storage::File { .. }) {
            spool::remove(area.state.oid(), job.position);
        }
        if bytes.capacity() > BUFFER_BYTES_KEPT {
            bytes = Vec::new();
        }
    }
    me.set_doing(Doing::Absent);
}

/// Outside of a transaction there is nothing to cancel.
fn serve_interrupts() {
    interrupt::forget_cancel();
    interrupt::check();
}

/// While replication is being stopped, what is queued is still applied.
fn is_wanted_in(area: &DatabaseArea) -> bool {
    matches!(area.state.phase(), Phase::Active | Phase::Stopping)
}

/// postgres_r.apply_workers may have been lowered.
fn index_wanted() -> bool {
    ME.get().is_some_and(|(_, index)| index < guc::apply_workers())
}

fn sleep(area: &DatabaseArea, me: &Worker) {
    worker::report_activity(None);
    // What is kept back must not stay so: autovacuum goes by it.
    let report_after = (!worker::report_statistics(false)).then_some(STATISTICS_AFTER);
    me.set_doing(Doing::Idle);
    // Whoever queued something before we were idle did not call us.
    if area.gate.queued() == 0 && is_wanted_in(area) {
        let start = Instant::now();
        latch::wait(report_after);
        if report_after.is_some_and(|after| start.elapsed() >= after) {
            worker::report_statistics(true);
        }
    }
}

/// A lower position has nobody else: this one goes back, and is done again later. Raises.
pub fn check_let_go() {
    if me().is_some_and(|me| me.let_go.swap(false, Ordering::SeqCst)) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "remote backend gives way to an earlier position"
        );
    }
    let gave_way = shmem::get()
        .and_then(|shared| shared.my_slot())
        .is_some_and(|(slot, _)| process::my_transaction().is_some_and(|transaction| slot.is_victim(transaction)));
    if gave_way {
        if let Some((area, _)) = ME.get() {
            area.state.counters.apply_gave_way.one();
        }
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "remote backend gives way to an earlier position"
        );
    }
}

/// True when the position is committed; false when it is to be taken again.
fn process_job(area: &'static DatabaseArea, me: &Worker, job: &Job, bytes: &mut Vec<u8>) -> bool {
    if !wait_for_dependency(area, me, job.depends_on) {
        return false;
    }
    let writeset = match Queued::read(area, job, std::mem::take(bytes)) {
        Ok(found) => found,
        Err(error) => diverged(area, job, &error.to_string()),
    };
    worker::report_activity(Some(&format!("applying position {}", job.position)));
    let done = apply_until_done(area, job, &writeset);
    progress::mine().clear();
    *bytes = writeset.into_bytes();
    done
}

fn apply_until_done(area: &'static DatabaseArea, job: &Job, writeset: &Queued) -> bool {
    let mut pause = RETRY_PAUSE_MIN;
    for attempt in 1u32.. {
        match apply(area, job, writeset) {
            Ok(()) => break,
            Err(error) => judge(area, job, &error),
        }
        area.state.counters.apply_retries.one();
        if attempt == ATTEMPTS_REPORTED {
            log::warn(format!("position {} could not be applied in {attempt} attempts", job.position), None, None);
        }
        if !is_wanted_in(area) || area.gate.queued() > 0 && !area.gate.is_turn(job.position) {
            // Somebody else may be of more use, or nobody is needed any more.
            return false;
        }
        latch::wait(Some(pause));
        serve_interrupts();
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
    true
}

/// False when the position is to be put back.
fn wait_for_dependency(area: &DatabaseArea, me: &Worker, depends_on: Position) -> bool {
    if area.gate.committed() >= depends_on {
        return true;
    }
    me.awaits.store(depends_on.0, Ordering::SeqCst);
    pool::before_waiting(area);
    let mut go_on = true;
    while go_on && area.gate.committed() < depends_on {
        latch::wait(None);
        serve_interrupts();
        go_on = !me.let_go.swap(false, Ordering::SeqCst) && is_wanted_in(area);
    }
    me.awaits.store(0, Ordering::SeqCst);
    pool::after_waiting(area);
    go_on
}

fn apply(area: &'static DatabaseArea, job: &Job, writeset: &Queued) -> Result<(), xact::Failed> {
    victim::begin(job);
    let progress = progress::mine();
    if writeset.is_large() {
        progress.applying(area, job.node, job.position, writeset.length());
    }
    let report = |bytes, rows| {
        progress.done(bytes);
        progress.rows(rows);
        // A long one gives way in the middle too.
        check_let_go();
        interrupt::check();
    };
    let mut diverges = None;
    let result = xact::transaction(|| {
        if let Err(divergence) = rows::apply(writeset, report) {
            let why = divergence.to_string();
            diverges = Some(why.clone());
            // What was applied so far must not be committed.
            Error::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, why).raise();
        }
        // Even if nothing was written: the position travels in the commit record.
        xact::ensure_id();
        progress.phase(Stage::Waiting);
        commit::commit_at(Turn {
            database: area,
            position: job.position,
            committed_at: writeset.envelope.committed_at,
            local: false,
        });
    });
    victim::end();
    match diverges {
        Some(why) => diverged(area, job, &why),
        None => result,
    }
}

/// Returns if the application may be tried again; anything else is divergence.
fn judge(area: &DatabaseArea, job: &Job, error: &xact::Failed) {
    let passing = matches!(
        error.code,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_OBJECT_IN_USE
            | PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY
            | PgSqlErrorCode::ERRCODE_DISK_FULL
            | PgSqlErrorCode::ERRCODE_TOO_MANY_CONNECTIONS
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES
            | PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
    );
    if !passing {
        diverged(area, job, &error.message);
    }
}

/// Nothing is skipped: the database goes out of service on this node. Does not return.
fn diverged(area: &DatabaseArea, job: &Job, why: &str) -> ! {
    let node = area.state.node_name(job.node);
    let reason = format!("Position {} of node \"{node}\" could not be applied: {why}.", job.position);
    if let Some(shared) = shmem::get() {
        shared.table.exclusive(|| area.state.reason.set(&reason));
    }
    area.state.set_phase(Phase::Failed);
    area.state.manager.wake();
    error::out_of_service(&reason).raise()
}
