//! Asks a daemon how it sees the group, over its local socket (`Role::Control`).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use gcs_writeset::Incarnation;
use gcs_writeset::link::{self, GroupStatus, Reply, Request, Role};

/// A daemon answers at once or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The daemon's answer and its own name. An error is a daemon that is not there, or does not answer as one.
pub fn status(socket: &Path) -> io::Result<(String, GroupStatus)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let hello = Request::Hello {
        protocol: link::PROTOCOL,
        role: Role::Control,
        database: String::new(),
        group: None,
        incarnation: Incarnation::default(),
    };
    send(&mut stream, &hello)?;
    let name = match receive(&mut stream)? {
        Reply::Welcome { name, .. } => name,
        other => return Err(unexpected(&other)),
    };
    send(&mut stream, &Request::Status)?;
    match receive(&mut stream)? {
        Reply::Group(status) => Ok((name, status)),
        other => Err(unexpected(&other)),
    }
}

fn send(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
    let mut frame = Vec::new();
    link::put_frame(&mut frame, request, &[]).map_err(invalid)?;
    stream.write_all(&frame)
}

fn receive(stream: &mut UnixStream) -> io::Result<Reply> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = link::frame_len(&frame).map_err(invalid)?.unwrap_or(frame.len());
    frame.resize(length.max(4), 0);
    stream.read_exact(&mut frame[4..])?;
    link::decode_frame(&frame).map(|(reply, _)| reply).map_err(invalid)
}

fn invalid<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn unexpected(reply: &Reply) -> io::Error {
    match reply {
        Reply::Failed(failure) => io::Error::other(failure.message.clone()),
        other => invalid(format!("unexpected answer {other:?}")),
    }
}
