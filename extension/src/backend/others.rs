//! Asking the rehearsers of the other nodes (`gcs::rehearsals`): all at once, until each has answered that can be reached, the caller has heard enough, or its patience is over.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gcs_writeset::link::{PROTOCOL, Rehearsal, Reply, Request, Role};
use postgres_r_protocol::dispatch::Trouble;

use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::DatabaseArea;
use crate::pg::interrupt;

/// How asking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Each of these has answered.
    All(u32),
    /// The caller has heard enough.
    Enough,
    /// Some have not answered in time, or interrupts are to be served.
    Some,
}

/// Shows each answer, with the name of its node, to `take`.
pub fn ask(
    area: &DatabaseArea,
    (request, payload): (&Request, &[u8]),
    patience: Duration,
    take: impl FnMut(&str, &Rehearsal) -> ControlFlow<()>,
) -> Result<Asked, LinkError> {
    ask_on(&mut connect(area)?, (request, payload), patience, take)
}

/// The same on a connection that the caller keeps.
pub fn ask_on(
    link: &mut Link,
    (request, payload): (&Request, &[u8]),
    patience: Duration,
    mut take: impl FnMut(&str, &Rehearsal) -> ControlFlow<()>,
) -> Result<Asked, LinkError> {
    let deadline = Instant::now() + patience;
    link.send_with(request, payload)?;
    let (mut asked, mut answered) = (None, 0);
    loop {
        link.flush()?;
        while let Some(frame) = link.front()? {
            let length = frame.length;
            match &frame.reply {
                Reply::Welcome { .. } => {}
                Reply::Rehearsing { nodes } => asked = Some(*nodes),
                Reply::Rehearsed { node, outcome } => {
                    answered += 1;
                    if take(node, outcome).is_break() {
                        return Ok(Asked::Enough);
                    }
                }
                Reply::Failed(failure) => return Err(LinkError::Failed(failure.message.clone())),
                _ => return Err(Trouble::Protocol("a frame on the wrong connection".into()).into()),
            }
            link.consume(length);
        }
        if let Some(nodes) = asked.filter(|nodes| answered >= *nodes) {
            return Ok(Asked::All(nodes));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || interrupt::pending() {
            return Ok(Asked::Some);
        }
        if link.read()? == 0 {
            link.wait(left);
            interrupt::serve_barrier();
        }
    }
}

/// A connection to ask on.
pub fn connect(area: &DatabaseArea) -> Result<Link, LinkError> {
    let mut link = Link::connect(&guc::gcs_socket())?;
    link.send(&Request::Hello {
        protocol: PROTOCOL,
        role: Role::Rehearsing,
        database: area.replica.name.get(),
        group: Some(area.replica.group.get()),
        incarnation: area.at().server.incarnation,
    })?;
    Ok(link)
}
