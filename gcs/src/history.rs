//! What has happened to the group, as this node's daemon saw it: a history of bounded size that survives restarts.
//!
//! ```text
//! the driver and the sessions, when something changes ──▶ [`History::see`], [`History::record`] ──▶ two files in turn ([`file`])
//!                                                                       ├──▶ the last [`EVENTS_AT_HAND`], for /state and `gcs events --follow`
//!                                                                       └──▶ [`hooks`]: the operator's command, one at a time
//! ```
//!
//! Invariants:
//!
//! - An event is what has changed between two states of the group ([`changes`]), or what somebody says has happened ([`Happening`]). Nothing is recorded where transactions pass:
//!   a commit makes no event.
//! - Events are numbered, from 1, without end; the number goes on after a restart. Whoever follows sees each number once.
//! - A line is written and not flushed to the disk: after a crash of the machine the last ones may be missing. What cannot be written is said in the log of the daemon, once, and
//!   the daemon goes on.
//! - The history decides nothing. It may be deleted at any time.
//!
//! Left out on purpose: what other daemons saw (each has a history of its own), rows and statements. (docs/adr/0072-history.md)

pub mod changes;
pub mod event;
pub mod file;
pub mod hooks;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::bounds::EVENTS_AT_HAND;
use crate::complaints::Complaints;
use changes::Seen;
use event::{Event, Happening};
use file::Writer;
use hooks::Hooks;

pub struct History {
    group: String,
    node: String,
    /// None once it could not be written.
    writer: RefCell<Option<Writer>>,
    /// The newest last.
    at_hand: RefCell<VecDeque<Event>>,
    seen: RefCell<Seen>,
    /// Up to which entry of the log the oldest end went because there was no room for it.
    cut_to: Cell<u64>,
    hooks: Option<Rc<Hooks>>,
    complaints: Complaints,
    /// There is another event.
    pub news: Notify,
}

impl History {
    /// Goes on with what is in the data directory.
    pub fn open(data_directory: &Path, group: &str, node: &str, hooks: Option<Rc<Hooks>>) -> History {
        let at_hand = file::read(data_directory).into_iter().rev().take(EVENTS_AT_HAND).rev().collect();
        let writer = Writer::open(data_directory);
        let writer = writer.map_err(|error| tracing::warn!(%error, "the history cannot be written (gcs events)")).ok();
        History {
            group: group.to_owned(),
            node: node.to_owned(),
            writer: RefCell::new(writer),
            at_hand: RefCell::new(at_hand),
            seen: RefCell::default(),
            cut_to: Cell::new(0),
            hooks,
            complaints: Complaints::default(),
            news: Notify::new(),
        }
    }

    /// Something has happened.
    pub fn record(&self, happening: Happening) {
        let event = Event::new(self.last_number() + 1, &self.group, &self.node, happening);
        let mut writer = self.writer.borrow_mut();
        if let Some(Err(error)) = writer.as_mut().map(|writer| writer.write(&event)) {
            tracing::warn!(%error, "the history cannot be written any more (gcs events)");
            *writer = None;
        }
        if let Some(hooks) = &self.hooks {
            hooks.offer(event.clone());
        }
        let mut at_hand = self.at_hand.borrow_mut();
        at_hand.push_back(event);
        while at_hand.len() > EVENTS_AT_HAND {
            at_hand.pop_front();
        }
        self.news.notify_waiters();
    }

    /// The group as it is now: by what it differs from what was seen before is recorded.
    pub fn see(&self, now: Seen) {
        let now = now.behind(&self.seen.borrow());
        let before = self.seen.replace(now.clone());
        for happening in changes::between(&before, &now) {
            self.record(happening);
        }
    }

    /// Likewise for one database of this node.
    pub fn see_service(&self, database: &str, service: &'static str) {
        let was = self.seen.borrow_mut().databases.insert(database.to_owned(), service);
        if let Some(happening) = changes::of_database(database, was, service) {
            self.record(happening);
        }
    }

    /// The oldest end of the log is gone up to there, though somebody may need it. While that goes on it is recorded now and then.
    pub fn see_cut(&self, index: u64) {
        if self.cut_to.replace(index) < index && self.complaints.due("log cut", "").is_some() {
            let text = format!(
                "the log has reached log_retention, its oldest end goes (up to entry {index}): a node that was away for longer gets a copy"
            );
            self.record(Happening::new("log-cut", text));
        }
    }

    /// A copy could not be made. Until it fails for another reason that is recorded now and then.
    pub fn copy_failed(&self, database: &str, text: String) {
        if self.complaints.due("copy failed", &text).is_some() {
            self.record(Happening::new("copy-failed", text).of_database(database));
        }
    }

    /// Those at hand behind this number, the oldest first.
    pub fn behind(&self, number: u64) -> Vec<Event> {
        self.at_hand.borrow().iter().filter(|event| event.number > number).cloned().collect()
    }

    /// 0 if there is none.
    pub fn last_number(&self) -> u64 {
        self.at_hand.borrow().back().map_or(0, |event| event.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path) -> History {
        History::open(directory, "postgresr", "n1", None)
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_what_is_at_hand_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(directory.path());
        for number in 0..EVENTS_AT_HAND + 5 {
            history.record(Happening::new("test", number.to_string()));
        }
        drop(history);
        let history = open(directory.path());
        history.record(Happening::new("test", "after".to_owned()));
        let all = history.behind(0);
        assert_eq!((all.len(), history.last_number()), (EVENTS_AT_HAND, EVENTS_AT_HAND as u64 + 6));
        assert_eq!(all.last().unwrap().text, "after");
        assert_eq!(history.behind(history.last_number() - 1).len(), 1);
    }

    #[test]
    fn what_goes_on_for_long_is_recorded_once() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(directory.path());
        for index in 1..100 {
            history.see_cut(index);
            history.copy_failed("shop", "a copy of database \"shop\" from n2 could not be made: no room".to_owned());
        }
        let kinds: Vec<String> = history.behind(0).into_iter().map(|event| event.happened.kind).collect();
        assert_eq!(kinds, ["log-cut", "copy-failed"]);
    }

    #[test]
    fn a_service_is_an_event_when_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let history = open(directory.path());
        for service in ["catching up", "serving", "serving", "out of service"] {
            history.see_service("shop", service);
        }
        let texts: Vec<String> = history.behind(0).into_iter().map(|event| event.happened.text).collect();
        assert_eq!(texts[2], "database shop here: out of service (was serving)");
        assert_eq!(texts.len(), 3);
    }
}
