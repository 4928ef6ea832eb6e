//! This process's connection to gcs on which it asks questions and hears the answers itself (the link's role `Reader`).
//!
//! A connection of its own, and not the manager's: an answer that came through the manager would wake two processes where one is enough, and what
//! saves the group's work is that gcs has all that ask at the same time share one round. Opened with the first question, and kept.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::{PROTOCOL, RefusalReason, Reply, Request, Role};
use postgres_r_protocol::dispatch::Trouble;

use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::DatabaseArea;
use crate::pg::interrupt;

#[derive(Default)]
struct Reader {
    link: Option<Link>,
    /// Number of the last question. No other question has it, so that an answer that nobody waits for any more is told from one.
    asked: u64,
}

thread_local! {
    static READER: RefCell<Reader> = RefCell::default();
}

/// What became of a question about how far the group is.
pub enum Answer {
    /// Whatever was acknowledged before the question lies at or below.
    Position(Position),
    Refused(RefusalReason),
    /// No answer in time.
    None,
    /// An interrupt is pending.
    Interrupted,
}

/// Asks how far the group is. Interrupts are not served, but end the wait.
pub fn read_from(area: &DatabaseArea, deadline: Instant) -> Result<Answer, LinkError> {
    READER.with_borrow_mut(|reader| {
        let number = reader.next();
        let answered = reader.converse(area, &Request::ReadFrom { number }, deadline, &mut |reply| match reply {
            Reply::ReadFrom { number: of, position } if *of == number => Some(Answer::Position(*position)),
            Reply::ReadRefused { number: of, reason } if *of == number => Some(Answer::Refused(*reason)),
            _ => None,
        });
        answered.map(|answer| answer.unwrap_or(if interrupt::pending() { Answer::Interrupted } else { Answer::None }))
    })
}

/// Asks the other nodes that can be reached whether they show a position to their clients, and waits until all do: those that do not.
pub fn who_does_not_show(area: &DatabaseArea, position: Position, deadline: Instant) -> Result<Vec<String>, LinkError> {
    READER.with_borrow_mut(|reader| {
        let number = reader.next();
        let mut missing: Option<Vec<String>> = None;
        reader.converse(area, &Request::AskShown { number, position }, deadline, &mut |reply| {
            match reply {
                Reply::Showing { number: of, nodes } if *of == number => missing = Some(nodes.clone()),
                Reply::Shown { number: of, node } if *of == number => {
                    missing.iter_mut().for_each(|missing| missing.retain(|name| name != node));
                }
                _ => {}
            }
            missing.as_ref().is_some_and(Vec::is_empty).then_some(())
        })?;
        let why = if interrupt::pending() { "the wait was ended by an interrupt" } else { "no answer in time" };
        missing.ok_or_else(|| LinkError::Failed(why.to_owned()))
    })
}

impl Reader {
    fn next(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Sends a question and hands what comes to `take` until it has an answer; `None` when the time is over or an interrupt is pending. After an
    /// error the connection is closed.
    fn converse<A>(
        &mut self,
        area: &DatabaseArea,
        question: &Request,
        deadline: Instant,
        take: &mut dyn FnMut(&Reply) -> Option<A>,
    ) -> Result<Option<A>, LinkError> {
        // Taken out, so that it is gone after whatever ends this early.
        let known = self.link.take().and_then(Link::if_open);
        let mut link = known.map_or_else(|| connect(area), Ok)?;
        link.send(question)?;
        loop {
            link.flush()?;
            let mut answer = None;
            while let Some(frame) = link.front()? {
                if let Reply::Failed(failure) = &frame.reply {
                    return Err(LinkError::Failed(failure.message.clone()));
                }
                if !is_a_readers(&frame.reply) {
                    return Err(Trouble::Protocol("a frame on the wrong connection".into()).into());
                }
                answer = answer.or_else(|| take(&frame.reply));
                let length = frame.length;
                link.consume(length);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if answer.is_some() || left.is_zero() || interrupt::pending() {
                self.link = Some(link);
                return Ok(answer);
            }
            if link.read()? == 0 {
                link.wait(left.min(LOOK_EVERY));
                interrupt::serve_barrier();
            }
        }
    }
}

/// A wait looks around so often, whatever wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn is_a_readers(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Welcome { .. }
            | Reply::ReadFrom { .. }
            | Reply::ReadRefused { .. }
            | Reply::Showing { .. }
            | Reply::Shown { .. }
    )
}

fn connect(area: &DatabaseArea) -> Result<Link, LinkError> {
    let mut link = Link::connect(&guc::gcs_socket())?;
    link.send(&Request::Hello {
        protocol: PROTOCOL,
        role: Role::Reader,
        database: area.replica.name.get(),
        group: Some(area.replica.group.get()),
        incarnation: area.at().server.incarnation,
    })?;
    Ok(link)
}
