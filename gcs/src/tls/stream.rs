//! A connection under TLS that is written where frames are made, like any other ([`crate::outbox`]).
//!
//! rustls does the cryptography and touches no socket. A write encrypts a piece and hands it to the kernel at once; what the kernel
//! does not take stays, and nothing more is encrypted before it is gone, so that at most a piece waits outside of the outbox's bound. A read
//! takes what the kernel has, in one system call, and decrypts all of it.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use thiserror::Error;
use tokio::net::TcpStream;

use super::reason::reason;

/// What one system call reads, and what is encrypted at once.
const PIECE_BYTES: usize = 64 << 10;

/// Reads, of at most 1 KiB, after which a caller whose handshake failed is not listened to any more.
const LAST_PIECES: usize = 32;

#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("connection closed during the handshake")]
    Closed,
    #[error("{}", reason(.0))]
    Tls(#[from] rustls::Error),
}

#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    session: RefCell<Connection>,
    /// Read from the socket, not decrypted yet.
    received: RefCell<BytesMut>,
}

impl TlsStream {
    /// The accepting side, once both have shown what they have to show; a caller without a certificate comes through as well.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<TlsStream, HandshakeError> {
        TlsStream::shake_hands(tcp, Connection::from(ServerConnection::new(config)?)).await
    }

    /// The dialling side.
    pub async fn connect(tcp: TcpStream, config: Arc<ClientConfig>) -> Result<TlsStream, HandshakeError> {
        TlsStream::shake_hands(tcp, Connection::from(ClientConnection::new(config, server_name())?)).await
    }

    async fn shake_hands(tcp: TcpStream, session: Connection) -> Result<TlsStream, HandshakeError> {
        let mut stream = TlsStream { tcp, session: RefCell::new(session), received: RefCell::default() };
        let result = stream.finish_handshake().await;
        if matches!(result, Err(HandshakeError::Tls(_))) {
            stream.let_the_alert_through().await;
        }
        result.map(|()| stream)
    }

    async fn finish_handshake(&self) -> Result<(), HandshakeError> {
        loop {
            match self.try_flush() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.tcp.writable().await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if !self.session.borrow().is_handshaking() {
                return Ok(());
            }
            match self.take_in() {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(_) => self.decrypt_handshake()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.readable().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A socket that is closed with something unread in it takes back what it has sent. So what the other side still says is read, a
    /// little of it, until it has heard why and closes; who calls this has a bound on the time.
    async fn let_the_alert_through(&mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = self.tcp.shutdown().await;
        let mut piece = [0; 1024];
        for _ in 0..LAST_PIECES {
            match self.tcp.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// What comes right behind the handshake stays for the first read.
    fn decrypt_handshake(&self) -> Result<(), HandshakeError> {
        let (mut session, mut received) = (self.session.borrow_mut(), self.received.borrow_mut());
        while session.is_handshaking() && !received.is_empty() {
            let count = session.read_tls(&mut &received[..])?;
            received.advance(count);
            if let Err(error) = session.process_new_packets() {
                // The alert that tells the other side why; if it does not get through, it sees the connection end.
                let _ = self.write_out(&mut session);
                return Err(error.into());
            }
            if count == 0 {
                return Err(HandshakeError::Closed);
            }
        }
        Ok(())
    }

    /// What the other side showed, the certificate of the node first.
    pub fn with_peer_certificates<T>(&self, look: impl FnOnce(Option<&[CertificateDer<'_>]>) -> T) -> T {
        look(self.session.borrow().peer_certificates())
    }

    /// Takes bytes to be encrypted; those it takes are the kernel's or this stream's to send ([`TlsStream::try_flush`]).
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        self.write_out(&mut session)?;
        let taken = session.writer().write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        match self.write_out(&mut session) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Hands what is encrypted to the kernel; an error of kind `WouldBlock` if it does not take all of it.
    pub fn try_flush(&self) -> io::Result<()> {
        self.write_out(&mut self.session.borrow_mut())
    }

    /// Whether something encrypted waits for the kernel.
    pub fn is_waiting(&self) -> bool {
        self.session.borrow().wants_write()
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Appends what can be had now; 0 at the end of the connection.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let before = buffer.len();
        let mut is_over = false;
        loop {
            let mut session = self.session.borrow_mut();
            is_over |= take_plaintext(&mut session, buffer)?;
            while !self.received.borrow().is_empty() && !is_over {
                self.decrypt(&mut session)?;
                is_over |= take_plaintext(&mut session, buffer)?;
            }
            if session.wants_write() {
                // An answer within TLS itself. If the kernel is full, it goes along with the next frame.
                match self.write_out(&mut session) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
            drop(session);
            if buffer.len() > before || is_over || self.take_in()? == 0 {
                return Ok(buffer.len() - before);
            }
        }
    }

    fn decrypt(&self, session: &mut Connection) -> io::Result<()> {
        let mut received = self.received.borrow_mut();
        let count = session.read_tls(&mut &received[..])?;
        received.advance(count);
        if count == 0 {
            // Nothing counts behind the other side's goodbye.
            received.clear();
        }
        if let Err(error) = session.process_new_packets() {
            let _ = self.write_out(session);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason(&error)));
        }
        Ok(())
    }

    /// From the socket; 0 at its end.
    fn take_in(&self) -> io::Result<usize> {
        let mut received = self.received.borrow_mut();
        if received.capacity() == received.len() {
            received.reserve(PIECE_BYTES);
        }
        self.tcp.try_read_buf(&mut *received)
    }

    fn write_out(&self, session: &mut Connection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Socket(&self.tcp))?;
        }
        Ok(())
    }
}

/// rustls wants a name to look up; certificates are of nodes, not of hosts, and this one is neither sent nor compared.
pub fn server_name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]))
}

/// Whether the other side has said goodbye. A connection that ends without one is as good: frames carry their own lengths and checksums.
fn take_plaintext(session: &mut Connection, buffer: &mut BytesMut) -> io::Result<bool> {
    let mut reader = session.reader();
    loop {
        let length = match reader.fill_buf() {
            Ok([]) => return Ok(true),
            Ok(bytes) => {
                buffer.extend_from_slice(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
            Err(error) => return Err(error),
        };
        reader.consume(length);
    }
}

struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
