//! The forerunner: applies a large transaction of another node before it is submitted, and commits it when its position comes
//! (docs/adr/0050-applied-ahead.md; the rules are `postgres_r_protocol::forerunner`'s).
//!
//! Started by the manager when there is something to do, and gone a few seconds after the last of it. Its own connection to gcs brings
//! what is to be applied, the chunks as they are applied, and the word that no position is to come. The verdict comes through its slot, as a
//! backend's does.
//!
//! ```text
//! gcs ──Ahead──▶ waits until this node has committed what the origin had; opens its slot; FetchAhead ──▶ gcs
//! gcs ──Body, Body, ...──▶ applies; offers what it has applied; Rehearsed(passed) ──▶ gcs ──▶ the origin, which submits
//! manager ──certified at 9──▶ waits for the turn, commits; AheadDone ──▶ gcs
//!     or: aborted, Over, an earlier position needs its locks ──▶ rolls back; AheadDone
//! ```
//!
//! The forerunner is nobody's obstacle: it waits for a lock for [`LOCK_TIMEOUT`] at most, in a deadlock it is the first to notice, and it gives way to remote backends as any
//! open transaction does. What it cannot do, it does not do: the position is applied when it comes, by the rules that there are for that.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use gcs_writeset::link::{PROTOCOL, Rehearsal, Reply, Request, Role};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Position, Tag};
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::dispatch::Trouble;
use postgres_r_protocol::ending;
use postgres_r_protocol::forerunner;
use postgres_r_protocol::id::LocalXid;
use postgres_r_protocol::offer::Forerunner;
use postgres_r_protocol::progress::{Stage, Whose};
use postgres_r_protocol::slot::{Slot, State};
use postgres_r_protocol::turn::{LocalTurn, Wait};

use super::divergence::is_passing;
use super::failure::failure;
use super::queued::Queued;
use super::rows::{self, Notifying};
use super::worker::configure;
use crate::error::Error;
use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::{self, DatabaseArea};
use crate::pg::xact::Event;
use crate::pg::{clock, interrupt, latch, process, timer, worker, xact};
use crate::turn::{self, Turn};
use crate::{session, summons};

/// How long a lock may take. What holds one for longer keeps the position waiting, too, or is driven off then.
const LOCK_TIMEOUT: &str = "2s";

/// Without anything to do it ends after this.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// How often one that is busy with a statement looks whether it still should be.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Should nobody wake it.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Once the asker's patience is over, the submission is made and decided within this, or never: should nobody be able to say so.
const DECIDED_WITHIN: Duration = Duration::from_secs(120);

/// How long this node may take to commit what the origin had when it asked.
const BEHIND_PATIENCE: Duration = Duration::from_secs(5);

/// This forerunner.
#[derive(Clone, Copy)]
struct Me {
    area: &'static DatabaseArea,
    forerunner: &'static Forerunner,
    slot: &'static Slot,
}

thread_local! {
    static ME: Cell<Option<Me>> = const { Cell::new(None) };
}

/// What is to be applied ahead.
struct Task {
    number: u64,
    tag: Tag,
    after: Position,
    /// The asker waits no longer, and neither does its submission for long.
    until: Instant,
    writeset: Vec<u8>,
}

type SharedLink = Rc<RefCell<Link>>;

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let (database, index) = worker::remote_of_number(number);
    let Some(area) = node.databases.get(database) else { return };
    let (Some(forerunner), Some((slot, place))) = (area.forerunners.get(index), node.my_slot()) else { return };
    if !area.is_in_use() || !forerunner.enter(place) {
        return;
    }
    let me = Me { area, forerunner, slot };
    ME.set(Some(me));
    process::on_exit(|| {
        if let Some(me) = ME.get() {
            me.forerunner.leave();
        }
    });
    session::become_remote_backend();
    worker::connect(area.oid());
    configure();
    worker::set_setting("lock_timeout", LOCK_TIMEOUT);
    worker::set_setting("log_lock_waits", "off");
    summons::listen();
    // When gcs is gone, so is what it asked for.
    if let Ok(link) = connect(area) {
        let _ = serve(&me, &Rc::new(RefCell::new(link)));
    }
}

fn connect(area: &DatabaseArea) -> Result<Link, LinkError> {
    let mut link = Link::connect(&guc::gcs_socket())?;
    link.send(&Request::Hello {
        protocol: PROTOCOL,
        role: Role::Forerunner,
        database: area.replica.name.get(),
        group: Some(area.replica.group.get()),
        incarnation: area.at().server.incarnation,
    })?;
    Ok(link)
}

/// Told of every transaction's end, in every process.
pub fn on_end(event: Event) {
    let Some(Me { area, forerunner, slot }) = ME.get() else { return };
    match event {
        Event::Commit => {
            if let Some(turn) = turn::passed() {
                turn.area.replica.counters.applied.one();
                turn.area.replica.counters.applied_ahead.one();
            }
        }
        Event::Abort => {
            turn::dropped();
        }
        Event::PreCommit | Event::PrePrepare => return,
    }
    forerunner.take_back();
    process::forget_summons();
    // A position that it was given and has not committed goes to the remote backends.
    ending::release(area.at(), slot);
    slot.victim.clear();
    slot.progress.clear();
}

/// Until there has been nothing to do for a while.
fn serve(me: &Me, link: &SharedLink) -> Result<(), LinkError> {
    let mut idle_since = Instant::now();
    while me.area.is_in_use() {
        interrupt::forget_cancel();
        interrupt::check();
        let task = next_task(&mut link.borrow_mut())?;
        if let Some(task) = task {
            let number = task.number;
            run(me, link, task)?;
            link.borrow_mut().send(&Request::AheadDone { number })?;
            worker::report_statistics(true);
            idle_since = Instant::now();
            continue;
        }
        let Some(left) = IDLE_TIME.checked_sub(idle_since.elapsed()) else { return Ok(()) };
        link.borrow().wait(left);
        interrupt::reload_config();
    }
    Ok(())
}

fn next_task(link: &mut Link) -> Result<Option<Task>, LinkError> {
    link.flush()?;
    loop {
        let Some(frame) = link.front()? else {
            if link.read()? == 0 {
                return Ok(None);
            }
            continue;
        };
        let length = frame.length;
        let task = match frame.reply {
            Reply::Ahead { number, tag, after, patience_ms, .. } => {
                let until = Instant::now() + Duration::from_millis(u64::from(patience_ms)) + DECIDED_WITHIN;
                Some(Task { number, tag, after, until, writeset: frame.payload.to_vec() })
            }
            // The rest of what was given up.
            Reply::Welcome { .. } | Reply::Over { .. } | Reply::Body { .. } => None,
            Reply::Failed(failure) => return Err(LinkError::Failed(failure.message)),
            _ => return Err(Trouble::Protocol("a frame on the wrong connection".into()).into()),
        };
        link.consume(length);
        if task.is_some() {
            return Ok(task);
        }
    }
}

/// Applies it, and commits it if its position comes. Says what became of it, unless it has said so already.
fn run(me: &Me, link: &SharedLink, task: Task) -> Result<(), LinkError> {
    let is_there = || forerunner::begin(me.area.at(), task.after).is_some();
    if !is_there() && !me.area.conditions.wait_for_lag(BEHIND_PATIENCE, is_there) {
        return answer(link, task.number, Rehearsal::Partly);
    }
    me.slot.set_application(Envelope::peek_application(&task.writeset).unwrap_or_default());
    let is_cut_off = Rc::new(Cell::new(false));
    let chunks =
        Chunks { link: link.clone(), number: task.number, read: 0, is_at_end: false, is_cut_off: is_cut_off.clone() };
    let Ok(writeset) = Queued::with_chunks(task.writeset, chunks) else {
        return answer(link, task.number, Rehearsal::Partly);
    };
    worker::report_activity(Some("applying a transaction of another node ahead"));
    let has_answered = Cell::new(false);
    let done = xact::transaction(|| {
        // Before any snapshot is taken.
        match forerunner::begin(me.area.at(), task.after) {
            Some(seen) => ahead(me, link, (task.number, task.tag, task.until), seen, &writeset, &has_answered),
            None => give_up("this node has not got what it was made from"),
        }
    });
    worker::report_activity(None);
    let Err(error) = done else { return Ok(()) };
    if has_answered.get() {
        return Ok(());
    }
    let is_to_blame = writeset.is_at_statement() && !is_cut_off.get() && !is_passing(error.code);
    let outcome = if is_to_blame { Rehearsal::Failed(failure(me.area, error.into())) } else { Rehearsal::Partly };
    answer(link, task.number, outcome)
}

fn answer(link: &SharedLink, number: u64, outcome: Rehearsal) -> Result<(), LinkError> {
    link.borrow_mut().send(&Request::Rehearsed { number, outcome })
}

/// In a transaction, which commits at the position that this was given. Raises if there is none, or if it cannot be applied.
fn ahead(
    me: &Me,
    link: &SharedLink,
    (number, tag, until): (u64, Tag, Instant),
    seen: Position,
    writeset: &Queued,
    has_answered: &Cell<bool>,
) {
    let Me { area, forerunner: mine, slot } = *me;
    slot.in_transaction(process::my_transaction().unwrap_or(LocalXid::NONE));
    let Some(sequence) = slot.open(area.index) else { give_up("its place is not free yet") };
    let whose = Whose { pid: process::my_pid(), database: area.index, node: tag.node, started_at: clock::now() };
    slot.progress.start(whose, Position::ZERO, Stage::Applying);
    mine.begin(&tag, seen, sequence);
    if let Err(error) = link.borrow_mut().send(&Request::FetchAhead { number }) {
        give_up(&error.to_string());
    }
    let report = |bytes, rows| {
        slot.progress.done(bytes);
        slot.progress.rows(rows);
        interrupt::check();
        stop_if_over();
    };
    if writeset.head.has_statements {
        timer::start_beat(BEAT_EVERY, beat);
    }
    if let Err(divergence) = rows::apply(writeset, Notifying::Yes, report) {
        Error::new(divergence.code(), divergence.to_string()).raise();
    }
    if writeset.head.has_statements {
        timer::stop_beat();
    }
    stop_if_over();
    xact::ensure_id();
    slot.progress.stage(Stage::Waiting);
    mine.done();
    has_answered.set(true);
    if let Err(error) = answer(link, number, Rehearsal::Passed) {
        give_up(&error.to_string());
    }
    let position = wait_for_position(me, link, until);
    wait_for_turn(me, position);
    if writeset.head.has_statements {
        area.replica.note_statement(position);
    }
    turn::arm(Turn::of(area, position, writeset.head.committed_at));
    if process::was_summoned() {
        interrupt::forget_cancel();
    }
}

/// No position is to come, or it is not this process's; or the database is not to be used any more.
fn is_over() -> bool {
    // `Sent`: a manager has died over its verdict, and in this state it would give way to nobody.
    ME.get().is_none_or(|me| matches!(me.slot.state(), State::Aborted | State::Sent) || !me.area.is_in_use())
}

fn stop_if_over() {
    if is_over() {
        give_up("it is over");
    }
}

/// In a signal handler: a statement that runs for long hears nothing else.
fn beat() {
    if is_over() {
        interrupt::cancel_wait();
    }
}

/// Whatever the reason: nothing of it remains, and the position is applied when it comes.
fn give_up(why: &str) -> ! {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, format!("what was applied ahead is rolled back: {why}"))
        .raise()
}

/// Everything is applied. Raises if no position is to come.
fn wait_for_position(me: &Me, link: &SharedLink, until: Instant) -> Position {
    loop {
        match me.slot.state() {
            State::Certified | State::Yielded => return me.slot.position(),
            State::Aborted => give_up("it was aborted, or needs what was not there when it was begun"),
            // The manager is about to say which.
            State::Deciding => {}
            _ => {
                interrupt::check();
                stop_if_over();
                if Instant::now() >= until {
                    give_up("nobody says what has become of it");
                }
                let hears = hears_over(&mut link.borrow_mut());
                match hears {
                    Ok(false) => {}
                    Ok(true) => give_up("it will not be submitted"),
                    Err(error) => give_up(&error.to_string()),
                }
            }
        }
        link.borrow().wait(LOOK_AROUND);
        interrupt::serve_barrier();
    }
}

/// Whether gcs has said that no position is to come.
fn hears_over(link: &mut Link) -> Result<bool, LinkError> {
    link.flush()?;
    loop {
        let Some(frame) = link.front()? else {
            if link.read()? == 0 {
                return Ok(false);
            }
            continue;
        };
        let length = frame.length;
        let is_over = match frame.reply {
            Reply::Over { .. } => true,
            Reply::Failed(failure) => return Err(LinkError::Failed(failure.message)),
            _ => return Err(Trouble::Protocol("a frame out of place".into()).into()),
        };
        link.consume(length);
        if is_over {
            return Ok(true);
        }
    }
}

/// The position is this process's. Raises if it has to let an earlier one through, and is then applied from the log.
fn wait_for_turn(me: &Me, position: Position) {
    let Me { area, slot, .. } = *me;
    slot.progress.position(position);
    // Nobody waits for an answer, and whatever goes first comes to its end some day.
    let mut waiting = LocalTurn::new(area.at(), slot, position, Duration::MAX, clock::moment());
    loop {
        interrupt::serve_barrier();
        if !area.is_in_use() {
            give_up("the database is not in service");
        }
        match waiting.step(area.at(), slot, interrupt::die_pending(), clock::moment()) {
            Wait::Turn => return,
            Wait::Unfinished(_) => give_up("an earlier position goes first"),
            Wait::Sleep(_) => latch::wait(Some(LOOK_AROUND)),
        }
    }
}

/// The chunks of what is being applied, read from the connection as they are needed.
struct Chunks {
    link: SharedLink,
    number: u64,
    /// Bytes of the frame at the front of the input that were read.
    read: usize,
    is_at_end: bool,
    /// It was not for what they hold that they could not be read to the end.
    is_cut_off: Rc<Cell<bool>>,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.next(out);
        self.is_cut_off.set(read.is_err());
        read
    }
}

impl Chunks {
    fn next(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let broken = |error: LinkError| io::Error::other(error.to_string());
        let mut link = self.link.borrow_mut();
        loop {
            if self.is_at_end || out.is_empty() {
                return Ok(0);
            }
            link.flush().map_err(broken)?;
            if let Some(frame) = link.front().map_err(broken)? {
                let length = frame.length;
                match frame.reply {
                    Reply::Body { more, .. } => {
                        let left = &frame.payload[self.read..];
                        let bytes = left.len().min(out.len());
                        out[..bytes].copy_from_slice(&left[..bytes]);
                        self.read += bytes;
                        if self.read == frame.payload.len() {
                            link.consume(length);
                            self.read = 0;
                            self.is_at_end = !more;
                        }
                        if bytes > 0 {
                            return Ok(bytes);
                        }
                    }
                    Reply::Over { number } if number == self.number => {
                        link.consume(length);
                        return Err(io::Error::other("the transaction will not be submitted"));
                    }
                    _ => return Err(io::Error::other("a frame out of place")),
                }
            } else if link.read().map_err(broken)? == 0 {
                link.wait(LOOK_AROUND);
                interrupt::check();
                stop_if_over();
            }
        }
    }
}
