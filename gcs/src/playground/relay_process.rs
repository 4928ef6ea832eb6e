//! The process `gcs playground relay`, which runs the [`relay`](super::relay) of one playground, and how the commands speak with it.
//!
//! It listens on a Unix socket in its working directory. A caller says one [`Request`], a line of JSON, and gets one [`Answer`], when what it
//! asked for is so. The faults live in this process alone: with it they end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as Caller;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::links::LinkFaults;
use super::relay::{End, Relay};
use super::{Error, Result};

/// In the working directory of the process.
pub const SOCKET: &str = "relay.sock";
/// What it says on its standard output when it can be spoken to.
pub const READY: &str = "ready";
/// Nobody waits for the other side for longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// One request or answer. A longer one is cut off, and then not understood.
const LINE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Tell,
    /// Listen for one more node.
    Open(End),
    /// These faults, and no others.
    Set(LinkFaults),
}

/// What is in force now, or why it could not be done.
pub type Answer = std::result::Result<LinkFaults, String>;

/// Runs until it is ended by a signal.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.and_then(|runtime| runtime.block_on(serve())).map_err(|error| Error::failed(format!("relay: {error}")))
}

async fn serve() -> io::Result<()> {
    // Of one that has ended: whoever started this one has seen to it that no other runs.
    if let Err(error) = std::fs::remove_file(SOCKET)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(SOCKET)?;
    let relay = Relay::default();
    {
        let mut stdout = io::stdout();
        writeln!(stdout, "{READY}").and_then(|()| stdout.flush())?;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        // One after the other; none of them takes long.
        match timeout(PATIENCE, converse(&relay, stream)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("gcs: a command could not be answered: {error}"),
            Err(_) => eprintln!("gcs: a command could not be answered: it said nothing for {} s", PATIENCE.as_secs()),
        }
    }
}

async fn converse(relay: &Relay, stream: UnixStream) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(from.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(relay, request).await,
        Err(error) => Err(format!("not understood: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    to.write_all(text.as_bytes()).await
}

async fn answer(relay: &Relay, request: Request) -> Answer {
    match request {
        Request::Tell => {}
        Request::Open(end) => {
            let door = end.door.clone();
            relay.open(end).await.map_err(|error| format!("{door} cannot be used: {error}"))?;
        }
        Request::Set(faults) => relay.set(faults),
    }
    Ok(relay.faults())
}

/// Asks the process that works in `home`.
pub fn ask(home: &Path, request: &Request) -> Result<LinkFaults> {
    let failed = |error: io::Error| Error::failed(format!("the relay in {} does not answer: {error}", home.display()));
    let answer = converse_with(&home.join(SOCKET), request).map_err(failed)?;
    answer.map_err(|message| Error::failed(format!("relay: {message}")))
}

fn converse_with(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = Caller::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    line.clear();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
