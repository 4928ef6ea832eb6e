//! Forerunners: processes of this node's PostgreSQL that apply large transactions of other nodes before those are submitted.
//!
//! A question comes by the way of rehearsals ([`crate::rehearsals`]) and is given to a forerunner of its database that has nothing to do. If there is none, it
//! waits a moment, and the manager of the database is told to start one ([`Forerunners::called`]); forerunners end by themselves when there is nothing for them. The session of the forerunner (`local::forerunner`) then has the core follow the
//! submission, sends the forerunner the chunks from the log, and takes its answer back. What becomes of it meanwhile comes from two sides: the
//! core says that the submission was ordered or never will be ([`Forerunners::over`]), and the node that asks withdraws the question
//! ([`Forerunners::withdraw`]) or is lost ([`Forerunners::lost`]). Whichever comes first decides, at once and here ([`Task`]): what the manager of the
//! database is sent with the position depends on it ([`Withheld`]).
//!
//! Nothing depends on any of this for correctness: what no forerunner has applied is applied from the log.
//!
//! Bounds: one task for each forerunner, of which there are as many as connections (`LOCAL_SESSIONS_MAX`), and [`FORERUNNERS_AWAITED_MAX`] that wait for one.

mod course;
mod task;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use gcs_core::LogRef;
use gcs_core::bounds::CHUNKS_MAX;
use gcs_proto::Ahead;
use gcs_writeset::link::{self, Rehearsal, Reply};
use gcs_writeset::wire::WireError;
use gcs_writeset::{NodeId, Tag};
use tokio::sync::Notify;

use crate::bounds::{FORERUNNER_COMES_WITHIN, FORERUNNERS_AWAITED_MAX};
use crate::outbox::Outbox;
use crate::withheld::Withheld;

pub use course::Course;
pub use task::{Asked, Task};

#[derive(Debug, Default)]
pub struct Forerunners {
    connected: RefCell<Vec<Rc<Forerunner>>>,
    /// What waits for a forerunner, the first that came first.
    waiting: RefCell<Vec<Waiting>>,
    /// The databases whose managers are connected, and what those are to hear.
    calls: RefCell<BTreeMap<String, Calls>>,
    last: Cell<u64>,
    pub withheld: Withheld,
}

#[derive(Debug)]
struct Waiting {
    database: String,
    asked: Asked,
    until: Instant,
}

#[derive(Debug, Default)]
struct Calls {
    /// How many forerunners are to be started.
    count: u32,
    /// What is over: at most one for each forerunner that was connected.
    over: Vec<Tag>,
    news: Rc<Notify>,
}

/// One that is connected.
#[derive(Debug)]
pub struct Forerunner {
    database: String,
    outbox: Rc<Outbox>,
    withheld: Withheld,
    task: RefCell<Option<Task>>,
    /// There is a task that it has not been sent.
    given: Notify,
    /// There may be chunks to be sent.
    wanted: Notify,
}

/// What a forerunner is to be sent now: the chunks of a submission.
pub struct Wanted {
    pub number: u64,
    pub tag: Tag,
    pub chunks: Vec<LogRef>,
}

impl Forerunners {
    /// The database has one more forerunner here from now on.
    pub fn enter(&self, database: &str, outbox: &Rc<Outbox>) -> Rc<Forerunner> {
        let forerunner = Rc::new(Forerunner {
            database: database.to_owned(),
            outbox: outbox.clone(),
            withheld: self.withheld.clone(),
            task: RefCell::default(),
            given: Notify::new(),
            wanted: Notify::new(),
        });
        self.connected.borrow_mut().push(forerunner.clone());
        self.give_next(&forerunner);
        forerunner
    }

    /// Whether any is connected, busy or not.
    pub fn has_some(&self, database: &str) -> bool {
        self.connected.borrow().iter().any(|forerunner| forerunner.database == database)
    }

    /// The forerunner has nothing to do: it gets what has waited longest.
    pub fn give_next(&self, forerunner: &Forerunner) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(first) = waiting.iter().position(|one| one.database == forerunner.database) {
            let Waiting { asked, .. } = waiting.remove(first);
            self.give_to(forerunner, asked);
        }
    }

    fn give_to(&self, forerunner: &Forerunner, asked: Asked) {
        self.last.set(self.last.get() + 1);
        forerunner.task.replace(Some(Task::new(self.last.get(), asked)));
        forerunner.given.notify_one();
    }

    /// It has gone; what it was busy with, if anything.
    pub fn leave(&self, forerunner: &Rc<Forerunner>) -> Option<Task> {
        self.connected.borrow_mut().retain(|other| !Rc::ptr_eq(other, forerunner));
        forerunner.take()
    }

    /// A peer asks, and somebody is to do it; or else what the peer is answered at once.
    pub fn give(&self, database: &str, asked: Asked) -> Result<(), Rehearsal> {
        // Without chunks there is nothing to gain, and such a position is never withheld.
        if !(1..=CHUNKS_MAX).contains(&asked.ahead.chunks) {
            return Err(Rehearsal::Partly);
        }
        let otherwise = if self.has_some(database) { Rehearsal::Partly } else { Rehearsal::Absent };
        let connected = self.connected.borrow();
        let mut here = connected.iter().filter(|forerunner| forerunner.database == database);
        match here.find(|forerunner| forerunner.task.borrow().is_none()) {
            Some(free) => {
                self.give_to(free, asked);
                Ok(())
            }
            None => self.put_off(database, asked).ok_or(otherwise),
        }
    }

    /// It waits for a forerunner that is started, or has done what it is busy with; none if nobody starts any, or too much waits.
    fn put_off(&self, database: &str, asked: Asked) -> Option<()> {
        let (mut waiting, mut calls) = (self.waiting.borrow_mut(), self.calls.borrow_mut());
        let calls = calls.get_mut(database).filter(|_| waiting.len() < FORERUNNERS_AWAITED_MAX)?;
        let until = Instant::now() + FORERUNNER_COMES_WITHIN;
        waiting.push(Waiting { database: database.to_owned(), asked, until });
        calls.count += 1;
        calls.news.notify_one();
        Some(())
    }

    /// The manager of the database can start forerunners from now on; what says that there is something to do for whoever sees to that.
    pub fn can_start(&self, database: &str) -> Rc<Notify> {
        let calls = Calls::default();
        let news = calls.news.clone();
        self.calls.borrow_mut().insert(database.to_owned(), calls);
        news
    }

    /// It cannot any more; what has waited for one, in vain. Nothing happens if another has taken its place.
    pub fn cannot_start(&self, database: &str, news: &Rc<Notify>) -> Vec<Asked> {
        let mut calls = self.calls.borrow_mut();
        if !calls.get(database).is_some_and(|calls| Rc::ptr_eq(&calls.news, news)) {
            return Vec::new();
        }
        calls.remove(database);
        let mut waiting = self.waiting.borrow_mut();
        waiting.extract_if(.., |one| one.database == database).map(|one| one.asked).collect()
    }

    /// How many more are to be started.
    pub fn called(&self, database: &str) -> u32 {
        self.calls.borrow_mut().get_mut(database).map_or(0, |calls| std::mem::take(&mut calls.count))
    }

    /// What its manager has not heard is over.
    pub fn over_for(&self, database: &str) -> Vec<Tag> {
        self.calls.borrow_mut().get_mut(database).map_or_else(Vec::new, |calls| std::mem::take(&mut calls.over))
    }

    /// Until when what waits for one will wait.
    pub fn waits_until(&self, database: &str) -> Option<Instant> {
        self.waiting.borrow().iter().filter(|one| one.database == database).map(|one| one.until).min()
    }

    /// What has waited for too long by now.
    pub fn not_come(&self, database: &str) -> Vec<Asked> {
        let now = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        waiting.extract_if(.., |one| one.database == database && one.until <= now).map(|one| one.asked).collect()
    }

    /// The peer withdraws what it asked under this number.
    pub fn withdraw(&self, from: NodeId, number: u64) {
        self.waiting.borrow_mut().retain(|one| (one.asked.from, one.asked.number) != (from, number));
        self.end_those(|task| task.asked.from == from && task.asked.number == number, false);
    }

    /// The peer cannot say any more that it withdraws anything.
    pub fn lost(&self, from: NodeId) {
        self.waiting.borrow_mut().retain(|one| one.asked.from != from);
        self.end_those(|task| task.asked.from == from, false);
    }

    /// The core says that the chunks are all there.
    pub fn followed(&self, number: u64, chunks: Vec<LogRef>) {
        for forerunner in self.connected.borrow().iter() {
            let mut task = forerunner.task.borrow_mut();
            if let Some(task) = task.as_mut().filter(|task| task.number == number) {
                task.followed(chunks);
                forerunner.wanted.notify_one();
                return;
            }
        }
    }

    /// The core says that the submission has got a position in this step, or never will.
    pub fn over(&self, number: u64, ordered: bool) {
        self.end_those(|task| task.number == number, ordered);
    }

    fn end_those(&self, is_one: impl Fn(&Task) -> bool, ordered: bool) {
        for forerunner in self.connected.borrow().iter() {
            if forerunner.task.borrow().as_ref().is_some_and(&is_one) {
                let over = forerunner.end(ordered);
                if let Some((calls, tag)) = self.calls.borrow_mut().get_mut(&forerunner.database).zip(over) {
                    calls.over.push(tag);
                    calls.news.notify_one();
                }
                if forerunner.task.borrow().is_none() {
                    self.give_next(forerunner);
                }
            }
        }
    }
}

impl Forerunner {
    /// Which submission of which node it is to be sent next, when there is one.
    pub async fn given(&self) -> (NodeId, Ahead) {
        loop {
            if let Some(task) = self.task.borrow().as_ref().filter(|task| !task.has_begun()) {
                return (task.asked.from, task.asked.ahead);
            }
            self.given.notified().await;
        }
    }

    /// Sends it what it has been given: its number, by which the core is to follow it.
    pub fn begin(&self, tag: Tag) -> Result<Option<u64>, WireError> {
        let mut task = self.task.borrow_mut();
        let Some(task) = task.as_mut().filter(|task| !task.has_begun()) else { return Ok(None) };
        task.begin(tag);
        let Asked { ahead: Ahead { chunks, .. }, after, patience_ms, .. } = task.asked;
        let number = task.number;
        self.put(&Reply::Ahead { number, tag, chunks, after, patience_ms }, &std::mem::take(&mut task.asked.writeset))?;
        Ok(Some(number))
    }

    /// The chunks that it is to be sent, when there are some.
    pub async fn wanted(&self) -> Wanted {
        loop {
            if let Some(task) = self.task.borrow().as_ref()
                && let Some((tag, chunks)) = task.to_send()
            {
                return Wanted { number: task.number, tag, chunks };
            }
            self.wanted.notified().await;
        }
    }

    /// Whether it is still to be sent the chunks of this task.
    pub fn wants(&self, number: u64) -> bool {
        self.task.borrow().as_ref().is_some_and(|task| task.number == number && task.is_fetched())
    }

    /// It asks for the chunks; false if that is misuse.
    pub fn fetch(&self, number: u64) -> bool {
        let is_due = self.with(number, Task::fetch).unwrap_or(false);
        self.wanted.notify_one();
        is_due
    }

    /// It has been sent all of them.
    pub fn fetched(&self, number: u64) {
        let _ = self.with(number, Task::fetched);
    }

    /// It says what became of its task: whom that is to be told, and under which number. None if that is misuse.
    pub fn answer(&self, number: u64, outcome: &Rehearsal) -> Option<(NodeId, u64)> {
        self.with(number, |task| {
            let is_first = task.answer(*outcome == Rehearsal::Passed);
            is_first.then_some((task.asked.from, task.asked.number))
        })?
    }

    /// What it was busy with is over, whatever the order says.
    pub fn give_up(&self, number: u64) {
        if self.with(number, |_| ()).is_some() {
            let _ = self.end(false);
        }
    }

    /// It is done with this task, and free for another; none if that is misuse.
    pub fn done(&self, number: u64) -> Option<Task> {
        self.with(number, |_| ())?;
        self.take()
    }

    /// Takes its task away, whether it has begun or not.
    pub fn take(&self) -> Option<Task> {
        let task = self.task.take()?;
        if let Some(tag) = task.withheld() {
            self.withheld.remove(tag);
        }
        Some(task)
    }

    /// The submission has got a position, or never will. One that has not begun is forgotten. The tag of one that the forerunner was told is over.
    fn end(&self, ordered: bool) -> Option<Tag> {
        self.task.borrow_mut().take_if(|task| !task.has_begun());
        let number = self.task.borrow().as_ref().map(|task| task.number)?;
        let tag = self.with(number, |task| task.end(ordered).then_some(task.tag()))??;
        // If it can't be written, the connection's own task ends it.
        let _ = self.put(&Reply::Over { number }, &[]);
        tag
    }

    /// Changes the task of this number, which has begun, and with it whether its writeset is withheld.
    fn with<T>(&self, number: u64, change: impl FnOnce(&mut Task) -> T) -> Option<T> {
        let mut task = self.task.borrow_mut();
        let task = task.as_mut().filter(|task| task.number == number && task.has_begun())?;
        let before = task.withheld();
        let result = change(task);
        match (before, task.withheld()) {
            (None, Some(tag)) => self.withheld.add(tag),
            (Some(tag), None) => self.withheld.remove(tag),
            _ => {}
        }
        Some(result)
    }

    fn put(&self, reply: &Reply, payload: &[u8]) -> Result<(), WireError> {
        self.outbox.put(|out| link::put_frame(out, reply, payload))?;
        self.outbox.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
