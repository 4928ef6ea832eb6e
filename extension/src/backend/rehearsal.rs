//! A transaction with statements is tried on the other nodes before it is submitted (docs/adr/0031-rehearsal.md).
//!
//! Every node that can be reached tries it at once, each in a transaction that it rolls back. The first that says no ends the commit, with its
//! own error: the transaction has not been submitted, and nothing of it remains anywhere. Whoever does not answer within
//! `postgres_r.rehearsal_timeout`, or could not try it to its end, has no say.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gcs_writeset::link::{Rehearsal, RehearsalFailure, Request};
use gcs_writeset::writeset::Envelope;

use super::capture::Captured;
use super::failure::Failure;
use super::others::{self, Asked};
use crate::error;
use crate::guc;
use crate::link::LinkError;
use crate::node::DatabaseArea;
use crate::pg::{interrupt, log, xact};

/// As much of the body as is tried: what comes later is rows, most likely, and they would be tried for as long again as they took.
const BODY_BYTES_MAX: usize = 4 << 20;

/// What all nodes together say.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Yes,
    /// Some did not try it to its end.
    Partly,
    /// Nobody else could try it.
    NoOne,
    No(String, RehearsalFailure),
}

/// Asks the other nodes. Interrupts are served. False if some have not tried it to its end.
pub fn rehearse(area: &'static DatabaseArea, captured: &mut Captured) -> Result<bool, Failure> {
    let patience = guc::rehearsal_timeout();
    if !captured.has_statements || patience.is_zero() {
        return Ok(true);
    }
    let started = Instant::now();
    let said = ask(area, captured, patience);
    interrupt::check();
    let counters = &area.replica.counters;
    counters.rehearsals.one();
    counters.rehearsal_us.time(started.elapsed());
    match said {
        Ok(Said::Yes) => Ok(true),
        Ok(Said::NoOne) if area.replica.is_alone() => Ok(true),
        Ok(Said::NoOne) => {
            counters.rehearsals_partly.one();
            log::notice("the transaction's statements were tried on no other node: none can be reached");
            Ok(true)
        }
        // Without gcs the commit itself will say so.
        Ok(Said::Partly) | Err(_) => {
            counters.rehearsals_partly.one();
            Ok(false)
        }
        Ok(Said::No(node, failure)) => {
            counters.rehearsals_failed.one();
            Err(refused(captured, &node, &failure))
        }
    }
}

/// What was ordered after this transaction's own statements began may be why, and certification would have said 40001: other statements, or
/// rows, if the error is about those.
pub fn refused(captured: &Captured, node: &str, failure: &RehearsalFailure) -> Failure {
    let is_about_catalogs = xact::sqlstate(failure.code).starts_with("42");
    let winner = if is_about_catalogs { failure.last_statement } else { failure.committed };
    let began = captured.unguarded.iter().map(|group| group.base).min();
    if began.is_some_and(|base| base < winner) {
        return Failure::Lost { winner, error: error::ordered_since(winner, node, failure) };
    }
    Failure::Definite(error::rehearsal_failed(node, failure))
}

fn ask(area: &DatabaseArea, captured: &mut Captured, patience: Duration) -> Result<Said, LinkError> {
    let (started_at, committed_at) = xact::times();
    let envelope = Envelope { has_statements: true, started_at, committed_at, ..Envelope::default() };
    let writeset = envelope.encode(captured.body.peek(BODY_BYTES_MAX));
    let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let request = Request::Rehearse { after: area.gate.committed(), patience_ms };
    let mut heard = Heard::default();
    let asked = others::ask(area, (&request, &writeset), patience, |node, outcome| heard.take(node, outcome))?;
    Ok(heard.said(asked))
}

/// What was heard so far.
#[derive(Default)]
struct Heard {
    passed: u32,
    absent: u32,
    refused: Option<(String, RehearsalFailure)>,
}

impl Heard {
    /// One that says no is enough.
    fn take(&mut self, node: &str, outcome: &Rehearsal) -> ControlFlow<()> {
        match outcome {
            Rehearsal::Passed => self.passed += 1,
            Rehearsal::Absent => self.absent += 1,
            Rehearsal::Partly | Rehearsal::Clear { .. } => {}
            Rehearsal::Failed(failure) => {
                self.refused = Some((node.to_owned(), failure.clone()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn said(self, asked: Asked) -> Said {
        if let Some((node, failure)) = self.refused {
            return Said::No(node, failure);
        }
        match asked {
            Asked::All(nodes) if nodes == self.absent => Said::NoOne,
            Asked::All(nodes) if nodes - self.absent == self.passed => Said::Yes,
            _ => Said::Partly,
        }
    }
}
