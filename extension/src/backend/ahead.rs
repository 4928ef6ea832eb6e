//! A large transaction is applied on the other nodes before it is submitted (docs/adr/0050-applied-ahead.md).
//!
//! Its chunks are in the log of every node by then. Each node that can be reached applies them in a transaction that it keeps open
//! (`apply::forerunner`), and says when it is done; the submission waits for that. Whoever cannot do it, or does not answer before the patience is over, applies
//! the transaction when its position comes, as if nobody had asked: the submission loses nothing but time.
//!
//! The connection that asked stays open until the submission is decided. When it is closed without a word (the transaction is rolled back, its session
//! is ended, the server dies), the other nodes hear that no position is to come, and roll back too.

use std::ops::ControlFlow;
use std::time::Duration;

use gcs_writeset::link::{Rehearsal, RehearsalFailure, Request};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Phase, Position, Sequence, SlotId};
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::submission::Ahead;

use super::capture::Captured;
use super::others;
use crate::guc;
use crate::link::Link;
use crate::node::DatabaseArea;
use crate::pg::{clock, setting, xact};

/// Others are waited for at least so long, and longer by a multiple of what the transaction has taken so far, but for the time that its client was busy otherwise. A node that is stopped while its daemon lives answers
/// nothing at all.
const PATIENCE_MIN: Duration = Duration::from_secs(10);
const PATIENCE_FACTOR: u32 = 2;

/// One transaction's question to the others.
pub struct Asking {
    area: &'static DatabaseArea,
    process: ProcNo,
    /// Whether there is a question at all.
    is_wanted: bool,
    /// Open from when the others were asked.
    link: Option<Link>,
    failure: Option<(String, RehearsalFailure)>,
}

impl Asking {
    /// `is_long`: its statements take longer than it takes to try them.
    pub fn new(area: &'static DatabaseArea, process: ProcNo, captured: &Captured, is_long: bool) -> Asking {
        let is_large = |bytes| captured.body.length() > bytes;
        // One that is prepared changes one row, and is not applied before its position is known.
        let prepares = captured.two_phase.is_some_and(|two_phase| two_phase.phase == Phase::Prepare);
        let is_wanted = !prepares
            && !area.replica.is_alone()
            && guc::apply_ahead_bytes().is_some_and(|bytes| is_long || is_large(bytes));
        Asking { area, process, is_wanted, link: None, failure: None }
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Asks, and waits for the answers; interrupts cut that short.
    pub fn ask(
        &mut self,
        captured: &Captured,
        (started_at, committed_at): (i64, i64),
        (sequence, chunks): (Sequence, u32),
        after: Position,
    ) -> Ahead {
        let envelope = Envelope {
            has_statements: captured.has_statements,
            chunks,
            started_at,
            committed_at,
            application: setting::application_name(),
            ..Envelope::default()
        };
        let worked = clock::since(started_at).saturating_sub(xact::idle_time());
        let patience = PATIENCE_MIN + PATIENCE_FACTOR * worked;
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Ahead { slot: SlotId(self.process.0), sequence, chunks, after, patience_ms };
        let failure = &mut self.failure;
        let asked = others::connect(self.area).and_then(|mut link| {
            others::ask_on(&mut link, (&request, &envelope.encode(&[])), patience, |node, outcome| match outcome {
                Rehearsal::Failed(why) => {
                    *failure = Some((node.to_owned(), why.clone()));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })?;
            Ok(link)
        });
        // Without gcs the commit itself will say so.
        self.link = asked.ok();
        if self.failure.is_some() { Ahead::Unappliable } else { Ahead::Over }
    }

    /// Why it cannot be applied on a node, if one has said so.
    pub fn failure(&mut self) -> Option<(String, RehearsalFailure)> {
        self.failure.take()
    }

    /// The order has decided: the others hear of it there.
    pub fn submitted(&mut self) {
        if let Some(mut link) = self.link.take() {
            let _ = link.send(&Request::AheadDone { number: 0 });
        }
    }
}
