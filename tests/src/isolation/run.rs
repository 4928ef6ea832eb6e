//! One permutation of a spec: steps sent in their order, what each was told, and everything put back.
//!
//! The order of events follows isolationtester: a step is sent when those before it are done or wait; then the steps that wait
//! are looked at, in the order they began to; a session that is still busy is waited for before its next step.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::session::{Reply, Session};
use super::spec::{Marker, Spec, Start, StepId};
use super::table;
use crate::harness::Group;

/// A step that has neither completed nor waits for a lock by then hangs.
pub const STEP_MAX: Duration = Duration::from_secs(60);
/// From a commit on one node to its presence on all; readers in the way may have their grace.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Between two looks at whether a step waits.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two looks at how far nodes have come.
const SETTLE_EVERY: Duration = Duration::from_millis(1);

/// A step of a permutation that has been sent, and what came of it.
#[derive(Debug)]
pub struct Outcome {
    pub step: StepId,
    pub reply: Reply,
}

/// Runs permutations on one group.
pub struct Runner<'a> {
    group: &'a Group,
    /// On each node a session that looks, sets up and tears down.
    control: Vec<Client>,
}

impl<'a> Runner<'a> {
    pub fn new(group: &'a Group) -> Runner<'a> {
        let control = group.numbers().into_iter().map(|number| group.connect(number)).collect();
        Runner { group, control }
    }

    /// The whole spec, printed.
    pub fn run(&mut self, spec: &Spec) -> Result<String, String> {
        let sessions: Vec<String> =
            spec.sessions.iter().map(|session| format!("{} on n{}", session.name, session.node.0)).collect();
        let mut out = format!("Parsed test spec with {} sessions: {}\n", sessions.len(), sessions.join(", "));
        for starts in &spec.permutations {
            let done = self.permutation(spec, starts, &mut out);
            done.map_err(|error| format!("{error}\n--- so far:\n{out}"))?;
        }
        Ok(out)
    }

    /// One permutation: its outcomes in the order they were reported.
    pub fn permutation(&mut self, spec: &Spec, starts: &[Start], out: &mut String) -> Result<Vec<Outcome>, String> {
        let names: Vec<String> = starts.iter().map(|start| shown(spec, start)).collect();
        let _ = writeln!(out, "\nstarting permutation: {}", names.join(" "));
        for setup in &spec.setups {
            self.control(setup, out).map_err(|error| format!("setup failed: {error}"))?;
        }
        self.settle()?;
        let mut sessions = Vec::new();
        for session in &spec.sessions {
            let mut open = Session::open(self.group, session.node, &session.name).map_err(|error| error.to_string())?;
            if let Some(setup) = &session.setup {
                aside(&mut open, setup, out).map_err(|error| format!("setup of {} failed: {error}", session.name))?;
            }
            sessions.push(open);
        }
        self.settle()?;
        let active = sessions.iter().map(|_| None).collect();
        let mut play = Play { runner: self, spec, starts, sessions, active, waiting: Vec::new(), out, outcomes: Vec::new() };
        play.all()?;
        let Play { mut sessions, outcomes, .. } = play;
        for (session, open) in spec.sessions.iter().zip(&mut sessions) {
            if let Some(teardown) = &session.teardown
                && let Err(error) = aside(open, teardown, out)
            {
                let _ = writeln!(out, "teardown of session {} failed: {error}", session.name);
            }
        }
        drop(sessions);
        if let Some(teardown) = &spec.teardown {
            self.control(teardown, out).map_err(|error| format!("teardown failed: {error}"))?;
        }
        self.settle()?;
        Ok(outcomes)
    }

    fn control(&mut self, sql: &str, out: &mut String) -> Result<(), String> {
        let messages = self.control[0].simple_query(sql).map_err(|error| gcs::playground::group::describe(&error))?;
        table::print(&messages, out);
        Ok(())
    }

    /// Waits until what is committed on any node is committed on all.
    pub fn settle(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let mut target = None;
        loop {
            let mut positions = Vec::with_capacity(self.control.len());
            for client in &mut self.control {
                let row = client.query_one("SELECT committed_position FROM postgres_r.members WHERE is_self", &[]);
                positions.push(row.map_err(|error| gcs::playground::group::describe(&error))?.get::<_, i64>(0));
            }
            let target = *target.get_or_insert(positions.iter().copied().max().unwrap_or(0));
            if positions.iter().all(|&position| position >= target) {
                return Ok(());
            }
            if start.elapsed() > SETTLE_MAX {
                return Err(format!("the group does not settle: committed positions {positions:?}"));
            }
            thread::sleep(SETTLE_EVERY);
        }
    }

    /// Whether the session waits for a lock that one of the others holds.
    fn is_blocked(&mut self, session: &Session, others: &[i32]) -> Result<bool, String> {
        let query = "SELECT pg_catalog.pg_isolation_test_session_is_blocked($1, $2)";
        let row = self.control[session.node.index()].query_one(query, &[&session.pid, &others]);
        row.map(|row| row.get(0)).map_err(|error| gcs::playground::group::describe(&error))
    }
}

/// As in the spec, but for the markers that isolationtester has and does not show either.
fn shown(spec: &Spec, start: &Start) -> String {
    let marker = if start.markers.contains(&Marker::Async) { "(async)" } else { "" };
    format!("{}{marker}", spec.step(start.step).name)
}

/// Runs something that is no step, and waits for it.
fn aside(session: &mut Session, sql: &str, out: &mut String) -> Result<(), String> {
    session.send(sql);
    let reply = session.reply(STEP_MAX).ok_or_else(|| "it hangs".to_owned())?;
    out.push_str(&session.take_notices());
    match reply {
        Ok(messages) => table::print(&messages, out),
        Err(failure) => return Err(failure.message),
    }
    Ok(())
}

/// A step that was sent.
struct Active {
    /// Its place in the permutation.
    start: usize,
    since: Instant,
    /// Came, but a marker holds it back.
    reply: Option<Reply>,
    /// For each marker about notices: how many there must have been.
    notices_wanted: Vec<(usize, usize)>,
}

/// A permutation under way.
struct Play<'r, 'g> {
    runner: &'r mut Runner<'g>,
    spec: &'r Spec,
    starts: &'r [Start],
    sessions: Vec<Session>,
    /// By session.
    active: Vec<Option<Active>>,
    /// Sessions whose step waits, in the order in which they began to.
    waiting: Vec<usize>,
    out: &'r mut String,
    outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Completed,
    /// For a lock, or for what a marker says.
    Waits,
    /// Too early to say.
    Runs,
}

impl Play<'_, '_> {
    fn all(&mut self) -> Result<(), String> {
        for index in 0..self.starts.len() {
            let session = self.starts[index].step.session;
            self.wait_free(session)?;
            self.send(index);
            self.first_look(index)?;
            if !self.starts[index].markers.contains(&Marker::Async) {
                self.runner.settle()?;
            }
            self.look_at_waiting()?;
        }
        while let Some(&session) = self.waiting.first() {
            self.wait_free(session)?;
            self.runner.settle()?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize) {
        let start = &self.starts[index];
        let notices_wanted = start
            .markers
            .iter()
            .filter_map(|marker| match marker {
                Marker::Notices(step, count) => Some((step.session, self.sessions[step.session].noticed + count)),
                _ => None,
            })
            .collect();
        self.sessions[start.step.session].send(&self.spec.step(start.step).sql);
        self.active[start.step.session] = Some(Active { start: index, since: Instant::now(), reply: None, notices_wanted });
    }

    /// Until the step has completed or waits, and says which.
    fn first_look(&mut self, index: usize) -> Result<(), String> {
        let start = &self.starts[index];
        let session = start.step.session;
        let step = self.spec.step(start.step);
        let must_wait = start.markers.contains(&Marker::Waits);
        if must_wait || self.until_known(session, false)? == Look::Waits {
            let _ = writeln!(self.out, "step {}: {} <waiting ...>", step.name, step.sql);
            self.waiting.push(session);
        }
        Ok(())
    }

    /// Reports the waiting steps that have completed meanwhile; each of them may have released others.
    fn look_at_waiting(&mut self) -> Result<(), String> {
        loop {
            let mut completed = false;
            for session in self.waiting.clone() {
                if self.until_known(session, true)? == Look::Completed {
                    self.waiting.retain(|&other| other != session);
                    completed = true;
                }
            }
            if !completed {
                return Ok(());
            }
            self.runner.settle()?;
        }
    }

    /// Waits for the session's step, if it has one, whatever that waits for.
    fn wait_free(&mut self, session: usize) -> Result<(), String> {
        while self.active[session].is_some() {
            for other in self.waiting.clone() {
                if self.look(other, true)? == Look::Completed {
                    self.waiting.retain(|&waiting| waiting != other);
                }
            }
        }
        Ok(())
    }

    fn until_known(&mut self, session: usize, retry: bool) -> Result<Look, String> {
        loop {
            match self.look(session, retry)? {
                Look::Runs => {}
                known => return Ok(known),
            }
        }
    }

    fn look(&mut self, session: usize, retry: bool) -> Result<Look, String> {
        if !self.has_reply(session, LOOK_EVERY) {
            let others: Vec<i32> = self.sessions.iter().map(|session| session.pid).collect();
            let is_blocked = self.runner.is_blocked(&self.sessions[session], &others)?;
            // The answer may have come while we asked.
            if !self.has_reply(session, Duration::ZERO) {
                self.check_hang(session)?;
                return Ok(if is_blocked { Look::Waits } else { Look::Runs });
            }
        }
        if self.is_held_back(session) {
            self.check_hang(session)?;
            return Ok(Look::Waits);
        }
        self.report(session, retry);
        Ok(Look::Completed)
    }

    fn check_hang(&self, session: usize) -> Result<(), String> {
        match &self.active[session] {
            Some(active) if active.since.elapsed() > STEP_MAX => {
                let name = &self.spec.step(self.starts[active.start].step).name;
                Err(format!("step {name} hangs"))
            }
            _ => Ok(()),
        }
    }

    fn has_reply(&mut self, session: usize, at_most: Duration) -> bool {
        let Some(active) = &mut self.active[session] else { return false };
        if active.reply.is_none() {
            active.reply = self.sessions[session].reply(at_most);
        }
        self.print_notices();
        self.active[session].as_ref().is_some_and(|active| active.reply.is_some())
    }

    fn print_notices(&mut self) {
        for session in &mut self.sessions {
            self.out.push_str(&session.take_notices());
        }
    }

    fn is_held_back(&self, session: usize) -> bool {
        let Some(active) = &self.active[session] else { return false };
        let is_active =
            |step: StepId| self.active[step.session].as_ref().is_some_and(|other| self.starts[other.start].step == step);
        let by_step = self.starts[active.start].markers.iter().any(|marker| match marker {
            Marker::After(step) => is_active(*step),
            _ => false,
        });
        by_step || active.notices_wanted.iter().any(|&(session, wanted)| self.sessions[session].noticed < wanted)
    }

    fn report(&mut self, session: usize, retry: bool) {
        let Some(Active { start, reply: Some(reply), .. }) = self.active[session].take() else { return };
        let id = self.starts[start].step;
        let step = self.spec.step(id);
        let _ = match retry {
            true => writeln!(self.out, "step {}: <... completed>", step.name),
            false => writeln!(self.out, "step {}: {}", step.name, step.sql),
        };
        match &reply {
            Ok(messages) => table::print(messages, self.out),
            Err(failure) => {
                let _ = writeln!(self.out, "{}:  {}", failure.severity, failure.message);
            }
        }
        self.outcomes.push(Outcome { step: id, reply });
    }
}
