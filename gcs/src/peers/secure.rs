//! From a TCP connection to one whose other side is known: TLS where there are certificates, plaintext on this machine only where there
//! are none. Both sides, and whoever asks a member for something, begin here.

use std::io;
use std::net::IpAddr;

use thiserror::Error;
use tokio::net::TcpStream;

use crate::outbox::Stream;
use crate::tls::credentials::PeerProblem;
use crate::tls::stream::{HandshakeError, TlsStream};
use crate::tls::{NodeName, Security};

#[derive(Debug, Error)]
pub enum SecureError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(HandshakeError),
    #[error("no plaintext with {0}, which is not on this machine: give both daemons [tls]")]
    Plaintext(IpAddr),
    #[error("the daemon there cannot be trusted: {0}")]
    Untrusted(PeerProblem),
}

impl From<HandshakeError> for SecureError {
    fn from(error: HandshakeError) -> SecureError {
        match error {
            HandshakeError::Io(error) => SecureError::Io(error),
            HandshakeError::Closed => SecureError::Io(io::ErrorKind::UnexpectedEof.into()),
            error @ HandshakeError::Tls(_) => SecureError::Tls(error),
        }
    }
}

/// What the certificate of a caller says; `None` without TLS.
pub type Caller = Option<Result<NodeName, PeerProblem>>;

/// The dialling side, and which node has answered; `None` without TLS. Whether it is the one that was meant the dialler says, before anything
/// is sent.
pub async fn dial(security: &Security, tcp: TcpStream) -> Result<(Stream, Option<NodeName>), SecureError> {
    let Some(credentials) = security.credentials() else { return Ok((plaintext(security, tcp)?, None)) };
    let stream = TlsStream::connect(tcp, credentials.client()).await?;
    let found = stream.with_peer_certificates(|chain| credentials.peer(chain)).map_err(SecureError::Untrusted)?;
    Ok((Stream::Tls(Box::new(stream)), Some(found)))
}

/// The accepting side; a caller without a certificate comes through, and is known as such.
pub async fn accept(security: &Security, tcp: TcpStream) -> Result<(Stream, Caller), SecureError> {
    let Some(credentials) = security.credentials() else { return Ok((plaintext(security, tcp)?, None)) };
    let stream = TlsStream::accept(tcp, credentials.server()).await?;
    let caller = stream.with_peer_certificates(|chain| credentials.peer(chain));
    Ok((Stream::Tls(Box::new(stream)), Some(caller)))
}

fn plaintext(security: &Security, tcp: TcpStream) -> Result<Stream, SecureError> {
    let other = tcp.peer_addr()?.ip();
    if other.to_canonical().is_loopback() || security.allow_plaintext {
        Ok(Stream::Tcp(tcp))
    } else {
        Err(SecureError::Plaintext(other))
    }
}
