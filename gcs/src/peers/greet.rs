//! The accepting side of a handshake: TLS, then the first frame, which says who calls and is compared with the certificate.
//!
//! Before a caller is known it can have little of us: 8 KiB of a frame, two seconds, and a place among a bounded number
//! ([`super::waiting`]). Without a certificate there is one thing that it can ask for, a certificate ([`crate::enrolment`]).

use std::io;
use std::rc::Rc;

use gcs_core::Format;
use gcs_proto::message::check_protocol;
use gcs_proto::{Decoder, EnrolledMember, FRAME_BYTES_MAX, Frame, FrameError, HandshakeRefusal, Join, Refused, Welcome};
use gcs_writeset::link::ServerPlace;
use thiserror::Error;
use tokio::net::TcpStream;

use super::admission::{self, refuse};
use super::dial;
use super::secure::{self, Caller, SecureError};
use super::table::{Peer, Peers};
use super::tunnel;
use crate::bounds::{ENROLMENT_FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX};
use crate::outbox::{Outbox, Stream};
use crate::tls::NodeName;
use crate::tls::stream::HandshakeError;

/// Who has called.
pub enum Greeted {
    /// A node that may send from now on.
    Peer { peer: Rc<Peer>, process: Process, stream: Rc<Stream>, decoder: Decoder },
    /// A program of a member, which wants to speak to this PostgreSQL.
    Tunnel { peer: Rc<Peer>, stream: Rc<Stream>, place: ServerPlace },
    /// It waits for an answer, which takes as long as the group takes.
    Joiner { join: Join, stream: Rc<Stream> },
}

/// What a daemon says of its process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub life: u64,
    /// Up to which format of the group it reads.
    pub reads: Format,
}

#[derive(Debug, Error)]
pub enum GreetError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("no handshake in time")]
    Late,
    #[error("garbage received: {0}")]
    Frame(#[from] FrameError),
    #[error("garbage received: a frame that is no greeting")]
    Unexpected,
    #[error("{0}")]
    Secure(SecureError),
    #[error("it speaks TLS, but this daemon runs without: give it [tls] too")]
    TlsHere,
    #[error("node \"{name}\" refused: {}", .refused.message)]
    Refused { name: String, refused: Refused },
}

impl GreetError {
    /// What the log counts as the same; `None` for what is not worth a line.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            GreetError::Io(_) | GreetError::Closed => None,
            GreetError::Late => Some("late"),
            GreetError::Frame(_) | GreetError::Unexpected => Some("garbage"),
            GreetError::Secure(SecureError::Tls(HandshakeError::Tls(error))) => Some(match error {
                rustls::Error::InvalidMessage(_) => "no TLS",
                rustls::Error::InvalidCertificate(_) => "certificate",
                _ => "TLS",
            }),
            GreetError::Secure(_) => Some("plaintext"),
            GreetError::TlsHere => Some("TLS here"),
            GreetError::Refused { refused, .. } => Some(match refused.reason() {
                HandshakeRefusal::Removed => "removed",
                HandshakeRefusal::OtherDirectory => "directory",
                HandshakeRefusal::TwiceAtOnce => "twice",
                HandshakeRefusal::CannotJoin => "join",
                HandshakeRefusal::Format => "format",
                HandshakeRefusal::Unspecified => "refused",
                HandshakeRefusal::Protocol => "protocol",
                HandshakeRefusal::WrongGroup => "group",
                HandshakeRefusal::NotAMember | HandshakeRefusal::MembersDiffer => "members",
                HandshakeRefusal::NoDatabase => "database",
                HandshakeRefusal::Certificate => "no certificate",
                HandshakeRefusal::OtherName => "name",
                HandshakeRefusal::TokenUnknown | HandshakeRefusal::TokenOfAnother => "token",
                HandshakeRefusal::TokenExpired => "old token",
                HandshakeRefusal::TokenUsed => "used token",
                HandshakeRefusal::NameTaken => "name taken",
                HandshakeRefusal::Clock => "clock",
                HandshakeRefusal::NotTheAuthority => "not the authority",
                HandshakeRefusal::Malformed => "malformed question",
                HandshakeRefusal::Failed => "failed",
            }),
        }
    }
}

impl From<SecureError> for GreetError {
    fn from(error: SecureError) -> GreetError {
        match error {
            SecureError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => GreetError::Closed,
            SecureError::Io(error) => GreetError::Io(error),
            error => GreetError::Secure(error),
        }
    }
}

/// `None` for a caller who had another question, and an answer.
pub async fn run(peers: &Rc<Peers>, tcp: TcpStream) -> Result<Option<Greeted>, GreetError> {
    tcp.set_nodelay(true)?;
    let (stream, caller) = secure::accept(&peers.security, tcp).await?;
    let stream = Rc::new(stream);
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let hello = match first_frame(peers, &stream, &mut decoder, caller.is_some()).await? {
        Frame::Hello(hello) => hello,
        Frame::Enrol(enrol) => {
            let name = enrol.name.clone();
            let answer = peers.desk.answer(&members(peers), &caller, &enrol);
            let refused = answer.as_ref().err().cloned();
            say(&stream, &answer.map_or_else(Frame::Refused, Frame::Enrolled), ENROLMENT_FRAME_BYTES_MAX).await?;
            return refused.map_or(Ok(None), |refused| Err(GreetError::Refused { name, refused }));
        }
        Frame::Join(join) => {
            if let Err(refused) = check_certificate(&caller, &join.group, &join.name) {
                say(&stream, &Frame::Refused(refused.clone()), HANDSHAKE_FRAME_BYTES_MAX).await?;
                return Err(GreetError::Refused { name: join.name, refused });
            }
            return Ok(Some(Greeted::Joiner { join, stream }));
        }
        _ => return Err(GreetError::Unexpected),
    };
    let admitted = check_protocol(hello.protocol, hello.protocol_oldest)
        .and_then(|()| check_certificate(&caller, &hello.group, &hello.name))
        .and_then(|()| admission::admit(peers, &hello))
        .and_then(|(peer, is_new)| Ok((peer, is_new, tunnel::place(peers, &hello)?)));
    let (peer, is_new, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            say(&stream, &Frame::Refused(refused.clone()), HANDSHAKE_FRAME_BYTES_MAX).await?;
            return Err(GreetError::Refused { name: hello.name, refused });
        }
    };
    let (superuser, programs) = place.as_ref().map(|place| (place.user.clone(), place.programs.clone())).unwrap_or_default();
    let welcome = Welcome { node: peers.roster.node.0, superuser, programs };
    say(&stream, &Frame::Welcome(welcome), HANDSHAKE_FRAME_BYTES_MAX).await?;
    if is_new {
        tokio::task::spawn_local(dial::run(peers.clone(), peer.clone()));
    }
    if let Some(place) = place {
        return Ok(Some(Greeted::Tunnel { peer, stream, place }));
    }
    decoder.set_limit(FRAME_BYTES_MAX);
    let process = Process { life: hello.life, reads: Format::of_peer(hello.reads) };
    Ok(Some(Greeted::Peer { peer, process, stream, decoder }))
}

async fn first_frame(peers: &Peers, stream: &Rc<Stream>, decoder: &mut Decoder, is_tls: bool) -> Result<Frame, GreetError> {
    /// The first bytes of a TLS client: a handshake record, of version 3.
    const CLIENT_HELLO: [u8; 2] = [22, 3];
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(_) if !is_tls && decoder.buffer.starts_with(&CLIENT_HELLO) => {
                // Not TLS, which is all that the caller needs to see.
                let message = format!("node \"{}\" runs without [tls]", peers.roster.name);
                let refused = Refused { reason: HandshakeRefusal::Certificate.into(), message };
                say(stream, &Frame::Refused(refused), HANDSHAKE_FRAME_BYTES_MAX).await?;
                return Err(GreetError::TlsHere);
            }
            Err(error) => return Err(error.into()),
        }
        if stream.read(&mut decoder.buffer).await? == 0 {
            return Err(GreetError::Closed);
        }
    }
}

pub async fn say(stream: &Rc<Stream>, frame: &Frame, bytes_max: usize) -> Result<(), GreetError> {
    let outbox = Outbox::new(stream.clone(), bytes_max);
    outbox.put(|out| gcs_proto::encode(frame, out))?;
    outbox.flush();
    tokio::select! {
        () = outbox.drained() => Ok(()),
        error = outbox.run() => Err(error.into()),
    }
}

/// Whether the caller is the one that its certificate names.
fn check_certificate(caller: &Caller, group: &str, name: &str) -> Result<(), Refused> {
    match caller {
        None => Ok(()),
        Some(Err(problem)) => {
            refuse(HandshakeRefusal::Certificate, format!("{problem}: a node needs a certificate of its group (gcs join)"))
        }
        Some(Ok(found)) if found.group != group || found.node != name => {
            let said = NodeName::new(group, name);
            refuse(HandshakeRefusal::OtherName, format!("the certificate shown is of {found}, not of {said}"))
        }
        Some(Ok(_)) => Ok(()),
    }
}

/// As a node that joins is told of them.
fn members(peers: &Peers) -> Vec<EnrolledMember> {
    let members = peers.roster.membership().members.into_iter();
    members.map(|member| EnrolledMember { name: member.name, address: member.address }).collect()
}
