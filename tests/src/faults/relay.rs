//! A relay between daemons that does to bytes what a network can do to them.
//!
//! For each node it has an address of its own, which the others know as that node's; who calls is told by the address of the caller. So
//! every connection is a *link* from one node to another, and carries what the first says. Faults are set for a direction of a link.
//!
//! What arrives while bytes are held back stays where it is: the relay stops reading, the kernels' buffers fill, and on release everything
//! comes at once and in order. A changed or repeated byte is a fault of the next piece that passes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gcs::playground::NodeNumber;

const PIECE_BYTES: usize = 64 << 10;
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// From whom to whom.
pub type Direction = (NodeNumber, NodeNumber);

/// What happens to bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Held back until this is taken away.
    Jammed,
    /// Each piece comes so much later.
    Late(Duration),
    /// One bit of the next piece is another.
    Changed,
    /// One byte of the next piece comes twice.
    Repeated,
}

#[derive(Default)]
struct State {
    mischief: BTreeMap<Direction, Mischief>,
    /// Both ends of every connection, by a number of its own.
    open: BTreeMap<u64, [TcpStream; 2]>,
    last: u64,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Runs until it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    doors: Vec<(SocketAddr, JoinHandle<()>)>,
}

/// A node as the relay knows it.
#[derive(Clone, Debug)]
pub struct End {
    pub number: NodeNumber,
    /// The address that its connections come from.
    pub host: String,
    /// Where it listens.
    pub listen: String,
    /// Where the relay listens for it.
    pub door: String,
}

impl Relay {
    /// # Errors
    /// A door that cannot be opened.
    pub fn start(ends: &[End]) -> Result<Relay, String> {
        let mut relay = Relay { shared: Arc::default(), doors: Vec::new() };
        for end in ends {
            let door = TcpListener::bind(&end.door).map_err(|error| format!("{}: {error}", end.door))?;
            let address = door.local_addr().map_err(|error| error.to_string())?;
            let (shared, ends, to) = (relay.shared.clone(), ends.to_vec(), end.clone());
            relay.doors.push((address, thread::spawn(move || accept(&door, &shared, &ends, &to))));
        }
        Ok(relay)
    }

    pub fn set(&self, direction: Direction, mischief: Mischief) {
        self.shared.lock().mischief.insert(direction, mischief);
    }

    /// Takes everything away; what was held back goes on.
    pub fn heal(&self) {
        self.shared.lock().mischief.clear();
        self.shared.changed.notify_all();
    }

    /// Breaks every connection that is open, with a reset where bytes are on their way.
    pub fn break_all(&self) {
        for stream in self.shared.lock().open.values().flatten() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        self.break_all();
        for (address, door) in self.doors.drain(..) {
            // Wakes it, so that it looks.
            let _ = TcpStream::connect_timeout(&address, CONNECT_MAX);
            let _ = door.join();
        }
    }
}

fn accept(door: &TcpListener, shared: &Arc<Shared>, ends: &[End], to: &End) {
    for caller in door.incoming() {
        if shared.lock().is_over {
            return;
        }
        let Ok(caller) = caller else { continue };
        let host = caller.peer_addr().map(|address| address.ip().to_string());
        let from = ends.iter().find(|end| host.as_ref().is_ok_and(|host| *host == end.host));
        // Nobody else has business here.
        let Some(from) = from else { continue };
        let (shared, direction, listen) = (shared.clone(), (from.number, to.number), to.listen.clone());
        thread::spawn(move || connect(&shared, direction, caller, &listen));
    }
}

fn connect(shared: &Arc<Shared>, direction: Direction, caller: TcpStream, listen: &str) {
    // The caller sees its connection closed when the other cannot be had, as it would without a relay.
    let Ok(address) = listen.parse() else { return };
    let Ok(called) = TcpStream::connect_timeout(&address, CONNECT_MAX) else { return };
    let (Ok(caller_too), Ok(called_too)) = (caller.try_clone(), called.try_clone()) else { return };
    let (Ok(to_caller), Ok(to_called)) = (caller.try_clone(), called.try_clone()) else { return };
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    let number = {
        let mut state = shared.lock();
        if state.is_over {
            return;
        }
        state.last += 1;
        let number = state.last;
        state.open.insert(number, [caller_too, called_too]);
        number
    };
    let back = thread::spawn({
        let shared = shared.clone();
        move || pump(&shared, (direction.1, direction.0), called, to_caller)
    });
    pump(shared, direction, caller, to_called);
    let _ = back.join();
    shared.lock().open.remove(&number);
}

/// Until either end is closed; then both are.
fn pump(shared: &Shared, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; PIECE_BYTES + 1];
    loop {
        let bytes = match from.read(&mut buffer[..PIECE_BYTES]) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let Some(bytes) = pass(shared, direction, &mut buffer, bytes) else { break };
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Does to a piece what is to be done: its length then; none when everything is over.
fn pass(shared: &Shared, direction: Direction, buffer: &mut [u8], bytes: usize) -> Option<usize> {
    let mut state = shared.lock();
    loop {
        if state.is_over {
            return None;
        }
        match state.mischief.get(&direction) {
            None => return Some(bytes),
            Some(Mischief::Jammed) => {
                state = shared.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            Some(Mischief::Late(delay)) => {
                let delay = *delay;
                drop(state);
                thread::sleep(delay);
                return Some(bytes);
            }
            Some(Mischief::Changed) => {
                state.mischief.remove(&direction);
                buffer[bytes / 2] ^= 1;
                return Some(bytes);
            }
            Some(Mischief::Repeated) => {
                state.mischief.remove(&direction);
                buffer.copy_within(bytes / 2..bytes, bytes / 2 + 1);
                return Some(bytes + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 calls node 2, both on loopback: what node 2 reads after `meddle`.
    fn through(mischief: Option<Mischief>, said: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap().to_string();
        let end = |number, host: &str| End {
            number: NodeNumber(number),
            host: host.to_owned(),
            listen: listen.clone(),
            door: "127.0.0.1:0".to_owned(),
        };
        let relay = Relay::start(&[end(1, "127.0.0.1"), end(2, "127.0.0.2")]).unwrap();
        let direction = (NodeNumber(1), NodeNumber(2));
        mischief.into_iter().for_each(|mischief| relay.set(direction, mischief));
        let mut caller = TcpStream::connect(relay.doors[1].0).unwrap();
        let (mut called, _) = listener.accept().unwrap();
        caller.write_all(said).unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        if mischief == Some(Mischief::Jammed) {
            called.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(called.read(&mut [0; 8]).is_err(), "held back");
            called.set_read_timeout(None).unwrap();
            relay.heal();
        }
        let mut heard = Vec::new();
        called.read_to_end(&mut heard).unwrap();
        heard
    }

    #[test]
    fn what_passes_is_what_was_said_unless_it_is_meddled_with() {
        assert_eq!(through(None, b"abcd"), b"abcd");
        assert_eq!(through(Some(Mischief::Late(Duration::from_millis(5))), b"abcd"), b"abcd");
        assert_eq!(through(Some(Mischief::Changed), b"abcd"), b"abbd");
        assert_eq!(through(Some(Mischief::Repeated), b"abcd"), b"abccd");
        assert_eq!(through(Some(Mischief::Jammed), b"abcd"), b"abcd");
    }
}
