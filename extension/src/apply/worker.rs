//! The remote backend: takes the lowest queued position, waits for what it depends on, applies it, passes the gate,
//! commits. Where more is queued it takes a run of positions, and does all that once for all of them; a run that meets any difficulty goes back to
//! the queue, and is applied position by position.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use pgrx::prelude::*;
use postgres_r_protocol::bounds::RUN_POSITIONS;
use postgres_r_protocol::gate::{Job, Storage};
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::pool::{self as protocol, Wait};
use postgres_r_protocol::progress::{Stage, Whose};
use postgres_r_protocol::replica::Phase;
use postgres_r_protocol::run::{self, Claimed};
use postgres_r_protocol::slot::Slot;
use postgres_r_protocol::worker::{Doing, Worker};

use crate::apply::divergence::{is_passing, lasts, proves_difference};
use crate::apply::queued::Queued;
use crate::apply::rows::{Application, Notifying, What};
use crate::apply::{precedence, rows};
use crate::error::{self, Error};
use crate::node::platform::Postgres;
use crate::node::{self, DatabaseArea};
use crate::pg::xact::Event;
use crate::pg::{clock, global, interrupt, latch, log, process, role, timer, worker, xact};
use crate::turn::{self, Turn};
use crate::verify::mark;
use crate::{session, spool, summons};

/// Pauses between attempts at the same position.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// After this many attempts at one position the log says so.
const ATTEMPTS_REPORTED: u32 = 100;

/// An idle remote backend reports what it counted after this.
const STATISTICS_AFTER: Duration = Duration::from_secs(1);

/// How often a remote backend that runs a statement says that it still does: whoever waits for it then waits on.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Memory kept from one job to the next.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// This remote backend.
#[derive(Clone, Copy)]
struct Me {
    area: &'static DatabaseArea,
    index: usize,
    worker: &'static Worker,
    slot: &'static Slot,
}

thread_local! {
    static ME: Cell<Option<Me>> = const { Cell::new(None) };
    /// The last transaction that was rolled back had its turn in hand.
    static ROLLED_BACK_IN_TURN: Cell<bool> = const { Cell::new(false) };
}

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let (database, index) = worker::remote_of_number(number);
    let Some(area) = node.databases.get(database) else { return };
    let (Some(worker), Some((slot, place))) = (area.workers.get(index), node.my_slot()) else { return };
    if !protocol::is_wanted(area.at()) || !protocol::enter(worker, place) {
        return;
    }
    let me = Me { area, index, worker, slot };
    ME.set(Some(me));
    process::on_exit(leave);
    session::become_remote_backend();
    worker::connect(area.oid());
    configure();
    summons::listen();
    run(&me, place);
}

/// Told of every transaction's end, in every process.
pub fn on_end(event: Event) {
    let Some(Me { slot, .. }) = ME.get() else { return };
    match event {
        Event::Commit => {
            if let Some(turn) = turn::passed() {
                turn.area.replica.counters.applied.add(turn.writesets);
            }
        }
        Event::Abort => ROLLED_BACK_IN_TURN.set(turn::dropped()),
        Event::PreCommit | Event::PrePrepare => return,
    }
    process::forget_summons();
    slot.victim.clear();
    slot.progress.clear();
}

/// The further settings that applying needs, whatever the database or the superuser's role have been given.
pub(super) fn configure() {
    for (name, value) in [
        ("session_replication_role", "replica"),
        ("search_path", "pg_catalog"),
        ("row_security", "off"),
        ("check_function_bodies", "off"),
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "3"),
        // Lock waits are reported early, and the report is what makes others give way (see `precedence`).
        ("deadlock_timeout", precedence::LOOK_UP_AFTER),
        ("log_lock_waits", "on"),
    ] {
        worker::set_setting(name, value);
    }
    // A background worker's session is a superuser's without saying so, and PostgreSQL would not come back to what was never said.
    let said = xact::transaction(|| {
        if let Some(role) = role::of_worker() {
            worker::set_setting("session_authorization", &role);
        }
    });
    if let Err(failed) = said {
        Error::new(failed.code, failed.message).raise();
    }
}

/// Whatever this process held goes back.
fn leave() {
    if let Some(me) = ME.get() {
        protocol::leave(me.area.at(), me.worker);
    }
}

fn run(me: &Me, place: ProcNo) {
    let (at, gate) = (me.area.at(), &me.area.gate);
    let mut buffers = Buffers::default();
    while protocol::is_wanted(at) && me.index < wanted() {
        serve_interrupts();
        interrupt::reload_config();
        me.worker.doing.store(Doing::Applying);
        let Some(claimed) = Claimed::new::<Postgres>(gate.claim_run(place, run::MOST)) else {
            sleep(me);
            continue;
        };
        let first = claimed.run().first;
        me.worker.set_position(first);
        me.slot.set_remote(first);
        let done = process(me, &claimed, &mut buffers);
        me.worker.set_position(Position::ZERO);
        me.slot.set_remote(Position::ZERO);
        match done {
            Done::Committed => {
                let in_files = claimed.jobs().iter().filter(|job| matches!(job.storage, Storage::File { .. }));
                in_files.for_each(|job| spool::remove(me.area.oid(), job.position));
            }
            Done::GivenUp => gate.unclaim(first),
            Done::BrokenUp => gate.break_up(claimed.run()),
        }
    }
    me.worker.doing.store(Doing::Absent);
}

/// How it went with what was claimed.
enum Done {
    Committed,
    /// It is to be taken again.
    GivenUp,
    /// It is to be taken again, position by position.
    BrokenUp,
}

/// Memory for writesets, kept from one to the next.
#[derive(Default)]
struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn put_back(&mut self, writeset: Queued) {
        let bytes = writeset.into_bytes();
        if bytes.capacity() <= BUFFER_BYTES_KEPT && self.0.len() < RUN_POSITIONS {
            self.0.push(bytes);
        }
    }
}

/// How many remote backends there are to be.
fn wanted() -> usize {
    node::get().map_or(0, node::Node::apply_workers)
}

/// Outside of a transaction there is nothing to cancel.
fn serve_interrupts() {
    interrupt::forget_cancel();
    interrupt::check();
}

fn sleep(me: &Me) {
    worker::report_activity(None);
    // What is kept back must not stay so: autovacuum goes by it.
    let report_after = (!worker::report_statistics(false)).then_some(STATISTICS_AFTER);
    if protocol::may_sleep(me.area.at(), me.worker) {
        let start = Instant::now();
        latch::wait(report_after);
        if report_after.is_some_and(|after| start.elapsed() >= after) {
            worker::report_statistics(true);
        }
    }
}

/// The current transaction stands in the way of an earlier position.
fn is_victim(me: &Me) -> bool {
    process::my_transaction().is_some_and(|transaction| me.slot.victim.is_marked(transaction))
}

/// Raises if this remote backend must roll back.
fn check_roll_back(me: &Me) {
    if protocol::must_roll_back(me.area.at(), me.worker, is_victim(me)).is_some() {
        roll_back();
    }
}

fn roll_back() {
    ereport!(ERROR, PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, "remote backend gives way to an earlier position");
}

fn process(me: &Me, claimed: &Claimed, buffers: &mut Buffers) -> Done {
    if !wait_for_dependency(me, claimed.depends_on()) {
        return Done::GivenUp;
    }
    if claimed.is_several() {
        return process_run(me, claimed, buffers);
    }
    match claimed.jobs() {
        [job, ..] if process_job(me, job, buffers) => Done::Committed,
        _ => Done::GivenUp,
    }
}

/// Several positions in one transaction, if nothing comes in between. Whatever does will come again when its position is applied by itself, and be
/// dealt with there.
fn process_run(me: &Me, claimed: &Claimed, buffers: &mut Buffers) -> Done {
    let mut writesets = Vec::with_capacity(claimed.jobs().len());
    for job in claimed.jobs() {
        match Queued::read(me.area, job, buffers.take()) {
            Ok(writeset) if !writeset.head.has_statements => writesets.push(writeset),
            _ => break,
        }
    }
    let counters = &me.area.replica.counters;
    let is_whole = writesets.len() == claimed.jobs().len();
    let is_committed = is_whole && {
        let run = claimed.run();
        worker::report_activity(Some(&format!("applying positions {} to {}", run.first, run.last)));
        apply_run(me, claimed, &writesets).is_ok()
    };
    writesets.into_iter().for_each(|writeset| buffers.put_back(writeset));
    if is_committed {
        counters.apply_runs.one();
        return Done::Committed;
    }
    counters.apply_runs_broken.one();
    serve_interrupts();
    Done::BrokenUp
}

fn apply_run(me: &Me, claimed: &Claimed, writesets: &[Queued]) -> Result<(), xact::Failed> {
    let run = claimed.run();
    let result = xact::transaction(|| {
        let mut application = Application::begin();
        for (job, writeset) in claimed.jobs().iter().zip(writesets) {
            precedence::begin_in_run(job, me.worker);
            let applied = application.apply(writeset, |_, _| interrupt::check());
            if let Err(divergence) = applied {
                Error::new(divergence.code(), divergence.to_string()).raise();
            }
        }
        // The gate would have to stand still in the middle.
        if mark::is_made() {
            precedence::be_alone();
        }
        drop(application);
        xact::ensure_id();
        wait_for_turn(me, run.first);
        let committed_at = writesets.last().map_or(0, |writeset| writeset.head.committed_at);
        turn::arm(Turn { area: me.area, run, writesets: writesets.len() as u64, committed_at });
    });
    precedence::end();
    result
}

/// True when the position is committed; false when it is to be taken again.
fn process_job(me: &Me, job: &Job, buffers: &mut Buffers) -> bool {
    let writeset = match Queued::read(me.area, job, buffers.take()) {
        Ok(found) => found,
        Err(error) => diverged(me.area, job, None, Error::new(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, error.to_string())),
    };
    worker::report_activity(Some(&format!("applying position {}", job.position)));
    let done = apply_until_done(me, job, &writeset);
    me.slot.progress.clear();
    buffers.put_back(writeset);
    done
}

fn apply_until_done(me: &Me, job: &Job, writeset: &Queued) -> bool {
    let area = me.area;
    let mut pause = RETRY_PAUSE_MIN;
    let mut notifying = Notifying::Yes;
    for attempt in 1u32.. {
        let is_ahead = !area.gate.is_turn(job.position);
        match apply(me, job, writeset, notifying) {
            Ok(()) => break,
            Err(error) if notifying == Notifying::Yes && is_queue_full(&error) => {
                notifying = Notifying::No;
                say_notifications_lost(area, job);
            }
            Err(error) if is_passing(error.code) && !(lasts(error.code) && attempt >= ATTEMPTS_REPORTED) => {
                if attempt == ATTEMPTS_REPORTED {
                    let message = format!("position {} could not be applied in {attempt} attempts", job.position);
                    log::warn(message, Some(error.message), None);
                }
            }
            // It may have needed what precedes it, though no key says so: only in its turn does a failure prove that the node differs.
            Err(error) if is_ahead => {
                say_ahead(job, rows::failed_at(writeset), &error);
                if !wait_for_dependency(me, job.position.previous()) {
                    return false;
                }
            }
            Err(error) => diverged(area, job, rows::failed_at(writeset), error.into()),
        }
        area.replica.counters.apply_retries.one();
        if !protocol::is_wanted(area.at()) || area.gate.queued() > 0 && !area.gate.is_turn(job.position) {
            // Somebody else may be of more use, or nobody is needed any more.
            return false;
        }
        latch::wait(Some(pause));
        serve_interrupts();
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
    true
}

/// PostgreSQL's queue of notifications has no room. Nothing else has this code at this place, where only notifications and the commit record are left.
fn is_queue_full(error: &xact::Failed) -> bool {
    ROLLED_BACK_IN_TURN.get() && error.code == PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED
}

fn say_notifications_lost(area: &DatabaseArea, job: &Job) {
    area.replica.counters.notifications_lost.one();
    let message = format!("what position {} notifies is not sent on this node: the NOTIFY queue is full", job.position);
    let hint = "The NOTIFY queue cannot be emptied until a session that listens has ended its transaction.";
    log::warn(message, None, Some(hint.to_owned()));
}

fn say_ahead(job: &Job, what: Option<What>, error: &xact::Failed) {
    let what = match what {
        Some(What::Statement(text)) => format!(" in \"{}\"", text.trim()),
        Some(What::Row(table)) => format!(" in a row of {table}"),
        None => String::new(),
    };
    let message =
        format!("position {} could not be applied ahead of its turn, and is applied again in its turn", job.position);
    log::warn(message, Some(format!("{}{what}", error.message)), None);
}

/// False when the position is to be put back.
fn wait_for_dependency(me: &Me, depends_on: Position) -> bool {
    let at = me.area.at();
    if me.area.gate.committed() >= depends_on {
        return true;
    }
    me.worker.awaits(depends_on);
    protocol::before_waiting(at, me.worker);
    let waited = loop {
        match protocol::wait_for_dependency(at, me.worker, depends_on) {
            Wait::Sleep => {
                latch::wait(None);
                serve_interrupts();
            }
            wait => break wait,
        }
    };
    me.worker.awaits(Position::ZERO);
    protocol::after_waiting(me.worker);
    waited == Wait::Over
}

/// The writeset is applied: waits until everything before it is committed. Interrupts are served, since the position stays in the queue; raises
/// if this remote backend must roll back.
fn wait_for_turn(me: &Me, position: Position) {
    let at = me.area.at();
    if me.area.gate.is_turn(position) {
        return;
    }
    let counters = &me.area.replica.counters;
    let started = Instant::now();
    counters.gate_waits.one();
    protocol::before_waiting(at, me.worker);
    loop {
        match protocol::wait_for_turn(at, me.worker, position, is_victim(me)) {
            Wait::Over => break,
            Wait::Sleep => {
                interrupt::check();
                latch::wait(None);
            }
            Wait::LetGo | Wait::GiveWay => roll_back(),
        }
    }
    protocol::after_waiting(me.worker);
    counters.gate_wait_us.time(started.elapsed());
}

/// In a signal handler.
fn beat() {
    if let Some(slot) = node::my_slot() {
        slot.progress.beat();
    }
}

fn apply(me: &Me, job: &Job, writeset: &Queued, notifying: Notifying) -> Result<(), xact::Failed> {
    // An attempt that was rolled back while it waited says so no longer.
    me.worker.doing.store(Doing::Applying);
    precedence::begin(job, me.worker);
    let progress = &me.slot.progress;
    let has_statements = writeset.head.has_statements;
    if writeset.is_large() || has_statements {
        let (pid, started_at) = (process::my_pid(), clock::now());
        let whose = Whose { pid, database: me.area.index, node: job.node, started_at };
        progress.start(whose, job.position, Stage::Applying);
        progress.total(writeset.length());
    }
    let report = |bytes, rows| {
        progress.done(bytes);
        progress.rows(rows);
        // A long one gives way in the middle too.
        check_roll_back(me);
        interrupt::check();
    };
    let result = xact::transaction(|| {
        if has_statements {
            timer::start_beat(BEAT_EVERY, beat);
        }
        if let Err(divergence) = rows::apply(writeset, notifying, report) {
            // What was applied so far must not be committed.
            Error::new(divergence.code(), divergence.to_string()).raise();
        }
        if has_statements {
            timer::stop_beat();
            me.area.replica.note_statement(job.position);
        }
        // Even if nothing was written: the position travels in the commit record.
        xact::ensure_id();
        progress.stage(Stage::Waiting);
        wait_for_turn(me, job.position);
        turn::arm(Turn::of(me.area, job.position, writeset.head.committed_at));
    });
    precedence::end();
    result
}

/// Nothing is skipped: the database goes out of service on this node, and the position is tried again later. Does not return.
fn diverged(area: &DatabaseArea, job: &Job, what: Option<What>, error: Error) -> ! {
    let (name, failure) = (area.replica.node_name(job.node), &area.replica.failure);
    let why =
        error.detail.map_or(error.message.clone(), |detail| format!("{}: {}", error.message, detail.trim_end_matches('.')));
    let reason = format!("Position {} of node \"{name}\" could not be applied: {why}.", job.position);
    // No copy of another node's database brings what belongs to the server.
    let is_of_server = matches!(what, Some(What::Statement(_))) && global::is_applied();
    let proves_difference = proves_difference(error.code) && !is_of_server;
    let mut is_news = true;
    if let Some(node) = node::get() {
        node.table.exclusive(|| {
            is_news =
                failure.note(job.position, job.node, error.code as u32, clock::now()) | !area.replica.reason.is(&reason);
            let (statement, table) = match what {
                Some(What::Statement(text)) => (text, String::new()),
                Some(What::Row(table)) => (String::new(), table),
                None => Default::default(),
            };
            failure.proves_difference.store(proves_difference, Ordering::SeqCst);
            failure.statement.set(statement.trim());
            failure.table.set(&table);
            area.replica.reason.set(&reason);
        });
    }
    area.replica.hold_back(job.position);
    area.set_phase(Phase::Failed);
    area.at().wake_manager();
    if !is_news {
        worker::exit();
    }
    error::out_of_service(&reason).raise()
}
