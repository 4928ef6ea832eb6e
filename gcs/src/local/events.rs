//! The history, told to people's commands and told by them ([`crate::history`]).
//!
//! Whoever asks gets what the files hold, and then, if it follows, what happens. It is served from the events at hand: whoever does not read what it is sent is sent nothing more until
//! it has, and misses what is not at hand any more by then. The numbers show it.

use std::path::Path;
use std::rc::Rc;

use gcs_writeset::bounds::LINK_FRAME_BYTES_MAX;
use gcs_writeset::link::{self, FailureKind, Reply};

use super::error::SessionError;
use super::hub::Hub;
use crate::history::event::{Event, Happening, TOLD_BY_COMMANDS};
use crate::history::file;
use crate::outbox::Outbox;

/// Both files, and some.
const TEXT_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX / 2;

/// Returns when all has been told; never for somebody who follows.
pub async fn tell(hub: &Hub, outbox: &Rc<Outbox>, follows: bool) -> Result<(), SessionError> {
    let history = &hub.node.looking.history;
    // Known before the files are read: what comes meanwhile is told afterwards, and may be told twice. Whoever asks goes by the numbers.
    let mut told = history.last_number();
    let directory = hub.node.looking.data_directory().to_owned();
    put(outbox, &read(&directory).await)?;
    if !follows {
        return Ok(());
    }
    loop {
        // Made before looking, so that news in between are not missed.
        let mut news = std::pin::pin!(history.news.notified());
        news.as_mut().enable();
        outbox.drained().await;
        let events = history.behind(told);
        if let Some(last) = events.last() {
            told = last.number;
            let lines: String = events.iter().map(|event: &Event| event.to_json() + "\n").collect();
            put(outbox, lines.as_bytes())?;
        } else {
            news.await;
        }
    }
}

/// Not on the daemon's thread, which has other things to do than to wait for a disk.
async fn read(directory: &Path) -> Vec<u8> {
    let directory = directory.to_owned();
    let mut text = tokio::task::spawn_blocking(move || file::text(&directory)).await.unwrap_or_default();
    // Files that somebody else has written to may be of any length.
    text.truncate(TEXT_BYTES_MAX);
    text
}

fn put(outbox: &Outbox, text: &[u8]) -> Result<(), SessionError> {
    outbox.put(|out| link::put_frame(out, &Reply::Report, text))?;
    outbox.flush();
    Ok(())
}

/// What a command says has happened.
pub fn note(hub: &Hub, payload: &[u8]) -> Result<(), SessionError> {
    let said: Option<Happening> = serde_json::from_slice(payload).ok();
    match said.filter(|said| TOLD_BY_COMMANDS.contains(&said.kind.as_str())) {
        Some(said) => {
            hub.node.looking.history.record(said);
            Ok(())
        }
        None => {
            let message = "what is said to have happened is not understood".to_owned();
            Err(SessionError::refused(FailureKind::Protocol, message, "Install gcs of the same version on this node."))
        }
    }
}
