//! Latches: waiting for one, with or without sockets, and waking another process by its own.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use pgrx::pg_sys;
use postgres_r_protocol::id::ProcNo;

use super::majors::process::wait_event_set;
use super::socket::Socket;

/// Sets the latch of the process in this place of the process array, if there is such a place. Raises nothing.
pub fn wake(process: ProcNo) {
    if let Some(place) = super::process::place(process) {
        // SAFETY: procLatch of a PGPROC is initialised at server start and may be set by anybody at any time.
        unsafe { pg_sys::SetLatch(&raw mut (*place).procLatch) };
    }
}

/// Sleeps until this process's latch is set or the time is over; resets the latch. Interrupts are not served here. Ends the
/// process when the postmaster has died.
pub fn wait(timeout: Option<Duration>) {
    let (flag, timeout_ms) = match timeout {
        Some(timeout) => (pg_sys::WL_TIMEOUT, timeout_ms(timeout)),
        None => (0, -1),
    };
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | flag;
    // SAFETY: MyLatch is valid in every process that has a PGPROC.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, timeout_ms, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// As [`wait`], but also returns when the socket can be written to.
pub fn wait_writable(socket: &Socket, timeout: Duration) {
    wait_for(socket, pg_sys::WL_SOCKET_WRITEABLE, timeout, pg_sys::PG_WAIT_EXTENSION);
}

/// As [`wait`], but also returns when the socket can be read from or, if that is wanted, written to.
pub fn wait_socket(socket: &Socket, to_write: bool, timeout: Duration) {
    wait_for(socket, readable_or(to_write), timeout, pg_sys::PG_WAIT_EXTENSION);
}

/// What a lock of the group is for; pg_stat_activity shows who waits for it as for PostgreSQL's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupLock {
    Advisory,
    Row,
    Table,
}

/// As [`wait_socket`], for a lock of the group.
pub fn wait_for_lock(socket: &Socket, to_write: bool, timeout: Duration, of: GroupLock) {
    let kind = match of {
        GroupLock::Advisory => pg_sys::LockTagType::LOCKTAG_ADVISORY,
        GroupLock::Row => pg_sys::LockTagType::LOCKTAG_TUPLE,
        GroupLock::Table => pg_sys::LockTagType::LOCKTAG_RELATION,
    };
    let event = PG_WAIT_LOCK | kind;
    wait_for(socket, readable_or(to_write), timeout, event);
}

/// Of utils/wait_event.h, which pgrx does not bind.
const PG_WAIT_LOCK: u32 = 0x0300_0000;

fn readable_or(to_write: bool) -> u32 {
    pg_sys::WL_SOCKET_READABLE | if to_write { pg_sys::WL_SOCKET_WRITEABLE } else { 0 }
}

fn wait_for(socket: &Socket, happens: u32, timeout: Duration, event: u32) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_TIMEOUT | happens;
    // SAFETY: MyLatch is valid; the descriptor is open for as long as `socket` is borrowed.
    unsafe {
        pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, socket.as_raw_fd(), timeout_ms(timeout), event);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

fn timeout_ms(timeout: Duration) -> i64 {
    // Rounded up, so that a wait for the rest of a millisecond does not spin.
    timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i64
}

/// How many sockets a [`WaitSet`] can watch.
pub const SOCKETS: usize = 2;

/// Which combinations of sockets there are: a bit for each socket.
const COMBINATIONS: usize = 1 << SOCKETS;

/// This process's latch, the postmaster's death and up to two sockets, watched together. The manager waits on nothing else.
///
/// PostgreSQL's event sets cannot forget a descriptor, and report a hang-up on each one they hold, wanted or not. So there is an
/// event set for each combination of sockets, and a wait uses the one with those of which anything is wanted.
pub struct WaitSet {
    sockets: [Option<RawFd>; SOCKETS],
    /// By combination. Sockets that are not there are in none.
    sets: [EventSet; COMBINATIONS],
}

impl Default for WaitSet {
    fn default() -> Self {
        let sockets = [None; SOCKETS];
        WaitSet { sockets, sets: std::array::from_fn(|combination| EventSet::create(sockets, combination)) }
    }
}

/// What to wait for on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub readable: bool,
    pub writable: bool,
}

/// What a wait found on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    pub readable: bool,
    pub writable: bool,
}

impl Interest {
    pub const NOTHING: Interest = Interest { readable: false, writable: false };
    pub const READABLE: Interest = Interest { readable: true, writable: false };
}

impl WaitSet {
    /// Watches `socket`, or none, as the socket number `index` from now on. No wait may come after the socket was closed, unless
    /// `watch` has replaced it.
    pub fn watch(&mut self, index: usize, socket: Option<&Socket>) {
        self.sockets[index] = socket.map(AsRawFd::as_raw_fd);
        for (combination, set) in self.sets.iter_mut().enumerate().filter(|(combination, _)| has(*combination, index)) {
            std::mem::replace(set, EventSet::create(self.sockets, combination)).free();
        }
    }

    /// Waits for the latch, and for each socket to be what is wanted of it. Resets the latch. Interrupts are not served here.
    pub fn wait(&self, wanted: [Interest; SOCKETS], timeout: Option<Duration>) -> [Happened; SOCKETS] {
        let is_wanted = |&index: &usize| wanted[index] != Interest::NOTHING;
        let combination = (0..SOCKETS).filter(is_wanted).map(|index| 1 << index).sum::<usize>();
        self.sets[combination].wait(wanted, timeout)
    }
}

/// Whether a combination has the socket number `index`.
fn has(combination: usize, index: usize) -> bool {
    combination & (1 << index) != 0
}

/// One of PostgreSQL's event sets: the latch, the postmaster's death and a combination of sockets.
struct EventSet {
    raw: *mut pg_sys::WaitEventSet,
    /// The place in it of each socket that it has.
    positions: [Option<i32>; SOCKETS],
}

impl EventSet {
    fn create(sockets: [Option<RawFd>; SOCKETS], combination: usize) -> EventSet {
        let nothing = std::ptr::null_mut();
        let mut positions = [None; SOCKETS];
        // SAFETY: allocated in TopMemoryContext, so it lives until freed; MyLatch is valid; the sockets are open.
        let raw = unsafe {
            let raw = wait_event_set(2 + SOCKETS as i32);
            pg_sys::AddWaitEventToSet(raw, pg_sys::WL_LATCH_SET, pg_sys::PGINVALID_SOCKET, pg_sys::MyLatch, nothing);
            let no_latch = std::ptr::null_mut();
            pg_sys::AddWaitEventToSet(raw, pg_sys::WL_EXIT_ON_PM_DEATH, pg_sys::PGINVALID_SOCKET, no_latch, nothing);
            for (index, socket) in sockets.into_iter().enumerate() {
                if has(combination, index) {
                    positions[index] = socket
                        .map(|socket| pg_sys::AddWaitEventToSet(raw, pg_sys::WL_SOCKET_READABLE, socket, no_latch, nothing));
                }
            }
            raw
        };
        EventSet { raw, positions }
    }

    fn wait(&self, wanted: [Interest; SOCKETS], timeout: Option<Duration>) -> [Happened; SOCKETS] {
        for (position, wanted) in self.positions.iter().zip(wanted) {
            if let Some(position) = *position {
                let readable = if wanted.readable { pg_sys::WL_SOCKET_READABLE } else { 0 };
                let writable = if wanted.writable { pg_sys::WL_SOCKET_WRITEABLE } else { 0 };
                // SAFETY: the place came from AddWaitEventToSet on this set; something is wanted of a socket that is in it.
                // Does nothing if that is what the set watches for already.
                unsafe { pg_sys::ModifyWaitEvent(self.raw, position, readable | writable, std::ptr::null_mut()) };
            }
        }
        let mut events = [pg_sys::WaitEvent::default(); 2 + SOCKETS];
        let (room, timeout) = (events.len() as i32, timeout.map_or(-1, timeout_ms));
        // SAFETY: the set is alive; `events` has as many entries as we say; MyLatch is valid in a background worker.
        let count = unsafe {
            let count = pg_sys::WaitEventSetWait(self.raw, timeout, events.as_mut_ptr(), room, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            count
        };
        let mut happened = [Happened::default(); SOCKETS];
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            if let Some(index) = self.positions.iter().position(|&position| position == Some(event.pos)) {
                happened[index].readable |= event.events & pg_sys::WL_SOCKET_READABLE != 0;
                happened[index].writable |= event.events & pg_sys::WL_SOCKET_WRITEABLE != 0;
            }
        }
        happened
    }

    fn free(self) {
        // SAFETY: made by `create`; taken by value, so it is freed once.
        unsafe { pg_sys::FreeWaitEventSet(self.raw) };
    }
}
