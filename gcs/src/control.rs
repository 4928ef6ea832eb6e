//! The local socket as people's commands use it: one question, one answer.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use gcs_writeset::Incarnation;
use gcs_writeset::link::{self, Failure, Inquiry, PROTOCOL, Reply, Request, Role};
use thiserror::Error;

use crate::config::ConfigError;

#[derive(Debug, Error)]
pub enum ControlError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("could not reach gcs on \"{path}\": {source}")]
    Connect { path: String, source: std::io::Error },
    #[error("gcs does not answer: {0}")]
    Io(#[from] std::io::Error),
    #[error("gcs answers in a form that is not understood: {0}")]
    Wire(#[from] gcs_writeset::wire::WireError),
    #[error("{}", in_words(.0))]
    Refused(Failure),
    #[error("gcs closed the connection")]
    Closed,
    #[error("not done in time")]
    Late,
}

/// Never zero, which would mean for ever.
fn left(deadline: Instant) -> Result<Duration, ControlError> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()).ok_or(ControlError::Late)
}

fn in_words(failure: &Failure) -> String {
    if failure.hint.is_empty() { failure.message.clone() } else { format!("{}\nhint: {}", failure.message, failure.hint) }
}

/// Asks the daemon that listens on `socket`: the first reply that `is_answer` makes something of. Nobody waits for longer than `patience`.
pub fn ask<T>(
    socket: &Path,
    request: &Request,
    patience: Duration,
    is_answer: impl Fn(Reply) -> Option<T>,
) -> Result<T, ControlError> {
    ask_until(socket, request, Instant::now() + patience, is_answer)
}

/// Likewise, up to a moment.
pub fn ask_until<T>(
    socket: &Path,
    request: &Request,
    deadline: Instant,
    is_answer: impl Fn(Reply) -> Option<T>,
) -> Result<T, ControlError> {
    exchange(socket, (request, &[]), Some(deadline), |reply, _| is_answer(reply))
}

/// What the daemon says to an inquiry, as text.
pub fn inquire(socket: &Path, inquiry: Inquiry, patience: Duration) -> Result<String, ControlError> {
    report(socket, &Request::Inquire(inquiry), patience)
}

/// What the daemon answers by `Report`, as text.
pub fn report(socket: &Path, request: &Request, patience: Duration) -> Result<String, ControlError> {
    exchange(socket, (request, &[]), Some(Instant::now() + patience), |reply, payload| match reply {
        Reply::Report => Some(String::from_utf8_lossy(payload).into_owned()),
        _ => None,
    })
}

/// Tells the daemon something, and waits until it has heard it.
pub fn tell(socket: &Path, request: &Request, payload: &[u8], patience: Duration) -> Result<(), ControlError> {
    let is_done = |reply, _: &[u8]| matches!(reply, Reply::Done).then_some(());
    exchange(socket, (request, payload), Some(Instant::now() + patience), is_done)
}

/// Hands each reply of `Report` on, until `Done`. Without a deadline it waits for as long as the daemon is there.
pub fn follow(
    socket: &Path,
    request: &Request,
    deadline: Option<Instant>,
    mut hear: impl FnMut(&[u8]),
) -> Result<(), ControlError> {
    exchange(socket, (request, &[]), deadline, |reply, payload| match reply {
        Reply::Report => {
            hear(payload);
            None
        }
        Reply::Done => Some(()),
        _ => None,
    })
}

fn exchange<T>(
    socket: &Path,
    (request, payload): (&Request, &[u8]),
    deadline: Option<Instant>,
    mut is_answer: impl FnMut(Reply, &[u8]) -> Option<T>,
) -> Result<T, ControlError> {
    let path = || socket.display().to_string();
    let mut stream = UnixStream::connect(socket).map_err(|source| ControlError::Connect { path: path(), source })?;
    stream.set_write_timeout(deadline.map(left).transpose()?)?;
    let hello = Request::Hello {
        protocol: PROTOCOL,
        role: Role::Control,
        database: String::new(),
        group: None,
        incarnation: Incarnation(0),
    };
    let mut out = Vec::new();
    link::put_frame(&mut out, &hello, &[])?;
    link::put_frame(&mut out, request, payload)?;
    stream.write_all(&out)?;
    let mut buffer = Vec::new();
    loop {
        while let Some(length) = link::frame_len(&buffer)?.filter(|length| *length <= buffer.len()) {
            let (reply, payload) = link::decode_frame::<Reply>(&buffer[..length])?;
            if let Reply::Failed(failure) = reply {
                return Err(ControlError::Refused(failure));
            }
            if let Some(answer) = is_answer(reply, payload) {
                return Ok(answer);
            }
            buffer.drain(..length);
        }
        let mut piece = [0; 4096];
        stream.set_read_timeout(deadline.map(left).transpose()?)?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(ControlError::Closed),
            Ok(count) => buffer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
