//! What people's commands want to know of this daemon, or wait for: answered when it is so.
//!
//! Whoever waits looks whenever something has changed by which it could be so: a position was shown, a database attached, the group's state is another. The group's answer to a
//! question can get lost with a leader; so it is asked again after a while at the latest.

use std::rc::Rc;

use gcs_writeset::link::{self, Awaited, FailureKind, Inquiry, Reply};
use tokio::time::timeout;

use super::error::SessionError;
use super::examine::examine;
use super::hub::Hub;
use crate::bounds::ASK_AGAIN;
use crate::observe::{metrics, verdicts};
use crate::outbox::Outbox;

pub async fn answer(hub: &Hub, outbox: &Rc<Outbox>, inquiry: Inquiry) -> Result<(), SessionError> {
    let text = match inquiry {
        // Strings, numbers and booleans always have a JSON form.
        Inquiry::Examination => examine(hub).await.map(|found| serde_json::to_string(&found).unwrap_or_default()),
        Inquiry::Metrics => {
            let looking = &hub.node.looking;
            let snapshot = looking.asker.look().await;
            metrics::text(&hub.node.peers.counted, &looking.pulse, snapshot).ok()
        }
    };
    let Some(text) = text else { return Err(busy()) };
    outbox.put(|out| link::put_frame(out, &Reply::Report, text.as_bytes()))?;
    outbox.flush();
    Ok(())
}

fn busy() -> SessionError {
    let message = "gcs is busy: its event loop does not answer in time".to_owned();
    SessionError::refused(FailureKind::Membership, message, "Its log says what its disk does not do.")
}

/// Returns when it is so.
pub async fn wait(hub: &Hub, awaited: Awaited) -> Result<(), SessionError> {
    let looking = &hub.node.looking;
    loop {
        // Made before looking, so that news in between are not missed.
        let mut news = std::pin::pin!(looking.news.notified());
        news.as_mut().enable();
        let is_so = match awaited {
            Awaited::Synced => looking.asker.lag(None, 0).await.map(|seen| verdicts::synced(&seen, None)),
            Awaited::Writable => looking.asker.now().await.map(|seen| verdicts::writable(&seen, None)),
        };
        if is_so == Some(Ok(())) {
            return Ok(());
        }
        let _ = timeout(ASK_AGAIN, news).await;
    }
}
