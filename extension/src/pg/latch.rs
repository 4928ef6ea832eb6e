//! Waiting and waking.

use std::os::fd::AsRawFd;
use std::time::Duration;

use pgrx::pg_sys;

use super::process::ProcNo;
use super::socket::Socket;

/// Sets the latch of the process in that place, if there is one. Raises nothing.
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
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | pg_sys::WL_TIMEOUT | pg_sys::WL_SOCKET_WRITEABLE;
    // SAFETY: MyLatch is valid; the descriptor is open for as long as `socket` is borrowed.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket.as_raw_fd(),
            timeout_ms(timeout),
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

fn timeout_ms(timeout: Duration) -> i64 {
    // Rounded up, so that a wait for the rest of a millisecond does not spin.
    timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i64
}

/// The latch, the postmaster's death and one socket, watched together. The manager waits on nothing else.
pub struct WaitSet {
    without_socket: *mut pg_sys::WaitEventSet,
    with_socket: Option<(*mut pg_sys::WaitEventSet, i32)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Happened {
    pub readable: bool,
    pub writable: bool,
}

impl Default for WaitSet {
    fn default() -> Self {
        WaitSet { without_socket: create(None).0, with_socket: None }
    }
}

impl WaitSet {
    /// Watches another socket, or none. An event set cannot forget a descriptor, so this makes a new one.
    pub fn watch(&mut self, socket: Option<&Socket>) {
        if let Some((set, _)) = self.with_socket.take() {
            // SAFETY: made by `create`, freed once.
            unsafe { pg_sys::FreeWaitEventSet(set) };
        }
        self.with_socket = socket.map(|socket| create(Some(socket)));
    }

    /// Waits for the latch, the socket to be readable, or writable, if so wanted. The latch is reset.
    pub fn wait(&self, want_readable: bool, want_writable: bool, timeout: Option<Duration>) -> Happened {
        // Not watched when nothing is wanted: a hang-up would be reported over and over.
        let set = match self.with_socket {
            Some((set, position)) if want_readable || want_writable => {
                let readable = if want_readable { pg_sys::WL_SOCKET_READABLE } else { 0 };
                let writable = if want_writable { pg_sys::WL_SOCKET_WRITEABLE } else { 0 };
                // SAFETY: `position` came from AddWaitEventToSet on this set.
                unsafe { pg_sys::ModifyWaitEvent(set, position, readable | writable, std::ptr::null_mut()) };
                set
            }
            _ => self.without_socket,
        };
        // SAFETY: zeroes are valid for this plain struct, which WaitEventSetWait fills.
        let mut events: [pg_sys::WaitEvent; 4] = unsafe { std::mem::zeroed() };
        let timeout = timeout.map_or(-1, timeout_ms);
        // SAFETY: the set is ours; `events` has as many entries as we say; MyLatch is valid in a background worker.
        let count = unsafe {
            let count =
                pg_sys::WaitEventSetWait(set, timeout, events.as_mut_ptr(), events.len() as i32, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            count
        };
        let mut happened = Happened::default();
        for event in &events[..count as usize] {
            happened.readable |= event.events & pg_sys::WL_SOCKET_READABLE != 0;
            happened.writable |= event.events & pg_sys::WL_SOCKET_WRITEABLE != 0;
        }
        happened
    }
}

fn create(socket: Option<&Socket>) -> (*mut pg_sys::WaitEventSet, i32) {
    let nothing = std::ptr::null_mut();
    // SAFETY: allocated in TopMemoryContext, so it lives until freed; MyLatch is valid; the socket is open.
    unsafe {
        let set = pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, 3);
        pg_sys::AddWaitEventToSet(set, pg_sys::WL_LATCH_SET, pg_sys::PGINVALID_SOCKET, pg_sys::MyLatch, nothing);
        pg_sys::AddWaitEventToSet(set, pg_sys::WL_EXIT_ON_PM_DEATH, pg_sys::PGINVALID_SOCKET, std::ptr::null_mut(), nothing);
        let position = socket.map_or(-1, |socket| {
            let events = pg_sys::WL_SOCKET_READABLE;
            pg_sys::AddWaitEventToSet(set, events, socket.as_raw_fd(), std::ptr::null_mut(), nothing)
        });
        (set, position)
    }
}
