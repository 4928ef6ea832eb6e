//! Sockets, and what waits to be written to them.
//!
//! Frames are put one by one and written together. The write is tried at once, where they were made; only what the kernel
//! does not take wakes the task that waits for the socket. So a message of the commit path costs one system call and no
//! wake-up on this side.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use crate::tls::stream::TlsStream;

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
            Stream::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Hands to the kernel what was taken from its writer and is still here.
    fn try_flush(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
            Stream::Tls(stream) => stream.try_flush(),
        }
    }

    /// Whether [`Stream::try_flush`] would have something to do.
    fn is_waiting(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(stream) => stream.is_waiting(),
        }
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read_buf(buffer),
            Stream::Unix(stream) => stream.try_read_buf(buffer),
            Stream::Tls(stream) => stream.try_read(buffer),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.writable().await,
            Stream::Unix(stream) => stream.writable().await,
            Stream::Tls(stream) => stream.writable().await,
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.readable().await,
            Stream::Unix(stream) => stream.readable().await,
            Stream::Tls(stream) => stream.readable().await,
        }
    }

    /// Reads what is there; 0 at the end of the stream.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        const PIECE_BYTES: usize = 64 << 10;
        loop {
            if buffer.capacity() == buffer.len() {
                buffer.reserve(PIECE_BYTES);
            }
            match self.try_read(buffer) {
                // Asked after the attempt: under TLS there may be something to read that the kernel no longer knows of.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                result => return result,
            }
        }
    }
}

#[derive(Debug)]
pub struct Outbox {
    stream: Rc<Stream>,
    queue: RefCell<Queue>,
    bytes_max: usize,
    /// The kernel did not take everything.
    blocked: Notify,
    drained: Notify,
    broken: Cell<Option<io::ErrorKind>>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    written: usize,
}

/// Memory that an empty queue keeps for the next frames.
const IDLE_BYTES_MAX: usize = 256 << 10;

impl Outbox {
    pub fn new(stream: Rc<Stream>, bytes_max: usize) -> Outbox {
        Outbox {
            stream,
            queue: RefCell::default(),
            bytes_max,
            blocked: Notify::new(),
            drained: Notify::new(),
            broken: Cell::new(None),
        }
    }

    /// Bytes that have not been written.
    pub fn waiting(&self) -> usize {
        let queue = self.queue.borrow();
        queue.bytes.len() - queue.written
    }

    pub fn is_full(&self) -> bool {
        self.waiting() >= self.bytes_max
    }

    /// Adds what `encode` appends. Whoever must not exceed the bound asks [`Outbox::is_full`] before.
    pub fn put<T>(&self, encode: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        encode(&mut self.queue.borrow_mut().bytes)
    }

    /// Writes what the kernel takes now.
    pub fn flush(&self) {
        let mut queue = self.queue.borrow_mut();
        if !queue.waits_for(&self.stream) || self.broken.get().is_some() {
            return;
        }
        if let Err(error) = queue.write_to(&self.stream) {
            if error.kind() != io::ErrorKind::WouldBlock {
                self.broken.set(Some(error.kind()));
            }
            self.blocked.notify_one();
        } else {
            self.drained.notify_waiters();
        }
    }

    /// Writes what could not be written at once, until the connection breaks.
    pub async fn run(&self) -> io::Error {
        loop {
            if let Some(kind) = self.broken.get() {
                return kind.into();
            }
            if !self.queue.borrow().waits_for(&self.stream) {
                // Under TLS whoever reads writes, too, and may have written the last of it: nobody else says so.
                self.drained.notify_waiters();
                self.blocked.notified().await;
                continue;
            }
            if let Err(error) = self.stream.writable().await {
                return error;
            }
            self.flush();
        }
    }

    /// Until everything has been written. Needs [`Outbox::run`] beside it.
    pub async fn drained(&self) {
        while self.queue.borrow().waits_for(&self.stream) {
            self.drained.notified().await;
        }
    }
}

impl Queue {
    /// Whether something is left that the kernel has not taken.
    fn waits_for(&self, stream: &Stream) -> bool {
        self.written < self.bytes.len() || stream.is_waiting()
    }

    fn write_to(&mut self, stream: &Stream) -> io::Result<()> {
        while self.written < self.bytes.len() {
            match stream.try_write(&self.bytes[self.written..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.written += count,
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_BYTES_MAX);
        self.written = 0;
        stream.try_flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::pin::pin;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use crate::config::Tls;
    use crate::enrolment::authority::{self, Authority};
    use crate::tls::NodeName;
    use crate::tls::credentials::Credentials;

    const PIECE: [u8; 16 << 10] = [0; 16 << 10];

    fn credentials() -> Credentials {
        let place = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = place.path().join(file);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let name = NodeName::new("g", "n1");
        let made = authority::make_authority(&name).unwrap();
        let (ca_file, ca_key_file) = (write("ca.pem", &made.certificate), write("ca.key", &made.key));
        let request = authority::make_request(&name).unwrap();
        let certificate = Authority::load(&ca_key_file, &ca_file).unwrap().sign(&name, &request.request).unwrap();
        let certificate_file = write("n1.pem", &authority::to_pem([&certificate[..]]));
        let key_file = write("n1.key", &request.key);
        let tls = Tls { ca_file, certificate_file, key_file, ca_key_file: None, revoked_file: None };
        Credentials::load(&tls, &name).unwrap()
    }

    /// Both ends of a connection under TLS.
    async fn connection() -> (Rc<Stream>, Rc<Stream>) {
        let credentials = credentials();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepting = TlsStream::accept(accepted, credentials.server());
        let (here, there) = tokio::join!(accepting, TlsStream::connect(dialled, credentials.client()));
        (Rc::new(Stream::Tls(Box::new(here.unwrap()))), Rc::new(Stream::Tls(Box::new(there.unwrap()))))
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_hears_of_it_also_if_a_reader_has_written_the_last() {
        let (here, there) = connection().await;
        let (outbox, answers) = (Outbox::new(here.clone(), usize::MAX), Outbox::new(there.clone(), usize::MAX));
        let mut put = 0;
        while !here.is_waiting() {
            outbox.put(|out| out.extend_from_slice(&PIECE));
            outbox.flush();
            put += PIECE.len();
        }
        assert_eq!(outbox.waiting(), 0, "what is left is encrypted");
        let mut drained = pin!(outbox.drained());
        assert!(timeout(Duration::ZERO, &mut drained).await.is_err(), "the kernel is full");

        let mut buffer = BytesMut::new();
        let mut taken = 0;
        while taken + 3 * PIECE.len() < put {
            buffer.clear();
            taken += there.read(&mut buffer).await.unwrap();
        }
        answers.put(|out| out.push(1));
        answers.flush();
        // The system takes more, and nobody has been told but the socket.
        here.writable().await.unwrap();
        buffer.clear();
        assert_eq!(here.read(&mut buffer).await.unwrap(), 1);
        assert!(!here.is_waiting(), "the read has written what was left");
        tokio::select! {
            error = outbox.run() => panic!("{error}"),
            heard = timeout(Duration::from_secs(10), drained) => heard.unwrap(),
        }
    }
}
