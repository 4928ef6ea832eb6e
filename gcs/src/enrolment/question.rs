//! The side of whoever asks: dials, looks whether it has reached the group it means, asks, and looks at what it was given.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use gcs_proto::{Decoder, Enrol, Enrolled, Frame, Refused};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use thiserror::Error;

use super::token::{FINGERPRINT_BYTES, fingerprint};
use crate::bounds::ENROLMENT_FRAME_BYTES_MAX;
use crate::tls::NodeName;
use crate::tls::certificate::{CertificateProblem, Facts};
use crate::tls::reason::reason;
use crate::tls::stream::server_name;
use crate::tls::verifier::Verifier;

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum QuestionError {
    #[error("could not reach {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{address} does not answer: {source}")]
    Io { address: String, source: io::Error },
    #[error("no connection to {address}: {reason}")]
    Tls { address: String, reason: String },
    #[error("{address} closed the connection without an answer")]
    Closed { address: String },
    #[error("{address} answers with something else than a daemon would")]
    Garbage { address: String },
    #[error("{}", .0.message)]
    Refused(Refused),
    #[error("{address} answers with a certificate that {problem}")]
    Certificate { address: String, problem: CertificateProblem },
    #[error("{address} answers with a certificate of {found}, not of {wanted}")]
    OtherName { address: String, found: String, wanted: NodeName },
}

/// How TLS is set up for a caller that knows the authority by its fingerprint only, and has no certificate.
pub fn by_fingerprint(authority: [u8; FINGERPRINT_BYTES]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { authority, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Asks the daemon at this address. The answer's certificate is of the name that was asked for, in the group of the node that answered.
pub fn ask(address: &str, config: Arc<ClientConfig>, enrol: Enrol) -> Result<Enrolled, QuestionError> {
    let wanted = enrol.name.clone();
    let mut stream = connect(address, config)?;
    let frame = exchange(&mut stream, &Frame::Enrol(enrol)).map_err(|error| failed(address, error))?;
    let enrolled = match frame {
        Some(Frame::Enrolled(enrolled)) => enrolled,
        Some(Frame::Refused(refused)) => return Err(QuestionError::Refused(refused)),
        Some(_) => return Err(QuestionError::Garbage { address: address.to_owned() }),
        None => return Err(QuestionError::Closed { address: address.to_owned() }),
    };
    let unreadable = |problem| QuestionError::Certificate { address: address.to_owned(), problem };
    let answerer = stream.conn.peer_certificates().and_then(|chain| chain.first()).map(|leaf| Facts::of(leaf)).transpose();
    let answerer = answerer.map_err(unreadable)?.and_then(|facts| facts.name);
    let wanted = NodeName::new(&enrolled.group, &wanted);
    if answerer.as_ref().map(|name| &name.group) != Some(&enrolled.group) {
        let found = answerer.map_or_else(|| "no node".to_owned(), |name| name.to_string());
        return Err(QuestionError::OtherName { address: address.to_owned(), found, wanted });
    }
    let given = Facts::of(&enrolled.certificate).map_err(unreadable)?;
    match given.name {
        Some(name) if name == wanted => Ok(enrolled),
        other => {
            let found = other.map_or(given.subject, |name| name.to_string());
            Err(QuestionError::OtherName { address: address.to_owned(), found, wanted })
        }
    }
}

fn connect(address: &str, config: Arc<ClientConfig>) -> Result<StreamOwned<ClientConnection, TcpStream>, QuestionError> {
    let unreachable = |source| QuestionError::Connect { address: address.to_owned(), source };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in address.to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&candidate, ANSWER_TIMEOUT) {
            Ok(tcp) => {
                let timeouts =
                    tcp.set_read_timeout(Some(ANSWER_TIMEOUT)).and_then(|()| tcp.set_write_timeout(Some(ANSWER_TIMEOUT)));
                timeouts.map_err(unreachable)?;
                let session = ClientConnection::new(config, server_name())
                    .map_err(|error| QuestionError::Tls { address: address.to_owned(), reason: reason(&error) })?;
                return Ok(StreamOwned::new(session, tcp));
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

/// Says one thing and hears one; `None` if the connection ends first.
fn exchange(stream: &mut (impl Read + Write), frame: &Frame) -> io::Result<Option<Frame>> {
    let mut out = Vec::new();
    gcs_proto::encode(frame, &mut out).map_err(io::Error::other)?;
    stream.write_all(&out)?;
    stream.flush()?;
    let mut decoder = Decoder::new(ENROLMENT_FRAME_BYTES_MAX);
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(count) => decoder.buffer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn failed(address: &str, source: io::Error) -> QuestionError {
    let address = address.to_owned();
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => QuestionError::Tls { address, reason: reason(error) },
        None if source.get_ref().is_some_and(|inner| inner.is::<gcs_proto::FrameError>()) => {
            QuestionError::Garbage { address }
        }
        None => QuestionError::Io { address, source },
    }
}

/// Believes the authority with one fingerprint, which the other side must show.
#[derive(Debug)]
struct Pinned {
    authority: [u8; FINGERPRINT_BYTES],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// What its signatures are checked with: nobody is believed by this alone.
    fn signatures(&self) -> Verifier {
        Verifier::new(Arc::new(RootCertStore::empty()), self.provider.clone())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = intermediates.iter().find(|shown| fingerprint(shown) == self.authority) else {
            let text = "the daemon there belongs to another group than the token: its authority has another fingerprint";
            return Err(rustls::Error::General(text.to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier = Verifier::new(Arc::new(roots), self.provider.clone());
        verifier.check_chain(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures().supported_verify_schemes()
    }
}
