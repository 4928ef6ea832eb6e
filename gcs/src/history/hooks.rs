//! `[hooks]`: a command of the operator's that is run with each event.
//!
//! The command is run without a shell, as the daemon's user, with the event as one line of JSON on its standard input; its standard output goes nowhere, its standard error where the
//! daemon's goes. One at a time, in order. Whoever takes longer than [`HOOK_WITHIN`] is killed, with the processes of its group. At most [`HOOKS_WAITING_MAX`] events wait; at the bound
//! the oldest is dropped, which is counted and said in the log. What the command does or not changes nothing for the daemon: nobody waits for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::event::Event;
use crate::bounds::{HOOK_WITHIN, HOOKS_WAITING_MAX};

pub struct Hooks {
    /// The program, and its arguments.
    command: Vec<String>,
    waiting: RefCell<VecDeque<Event>>,
    /// Since that was last said in the log.
    dropped: Cell<u64>,
    news: Notify,
    within: Duration,
}

impl Hooks {
    pub fn new(command: Vec<String>) -> Hooks {
        Hooks { command, waiting: RefCell::default(), dropped: Cell::new(0), news: Notify::new(), within: HOOK_WITHIN }
    }

    /// To be told, when its turn comes.
    pub fn offer(&self, event: Event) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(event);
        if waiting.len() > HOOKS_WAITING_MAX {
            waiting.pop_front();
            self.dropped.set(self.dropped.get() + 1);
        }
        self.news.notify_one();
    }

    /// For as long as the daemon runs.
    pub async fn run(&self) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(event) = next else {
                self.news.notified().await;
                continue;
            };
            match self.dropped.take() {
                0 => {}
                dropped => tracing::warn!(dropped, "the command of [hooks] is too slow: the oldest events were not told"),
            }
            self.tell(&event).await;
        }
    }

    async fn tell(&self, event: &Event) {
        let (number, command) = (event.number, self.command.join(" "));
        match self.run_once(event).await {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => tracing::warn!(number, command, "the command of [hooks] has failed: {status}"),
            Ok(None) => {
                tracing::warn!(number, command, within_s = self.within.as_secs(), "the command of [hooks] was killed")
            }
            Err(error) => tracing::warn!(number, command, "the command of [hooks] could not be run: {error}"),
        }
    }

    /// How it ended; none if it was killed.
    async fn run_once(&self, event: &Event) -> io::Result<Option<ExitStatus>> {
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        if let Ok(ended) = timeout(self.within, feed(&mut child, event.to_json() + "\n")).await {
            return ended.map(Some);
        }
        // Those that it has started too.
        if let Some(Err(error)) = group.map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL)) {
            tracing::debug!(%error, "the command of [hooks] was gone before it could be killed");
        }
        Ok(None)
    }
}

async fn feed(child: &mut Child, line: String) -> io::Result<ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read has ended, or ends.
        let _ = input.write_all(line.as_bytes()).await;
    }
    child.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Happening;

    fn event(number: u64) -> Event {
        Event::new(number, "g", "n1", Happening::new("test", "it has happened".to_owned()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_command_gets_the_event_on_its_input_and_no_shell_looks_at_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told $(id)");
        let command = vec!["/usr/bin/tee".to_owned(), told.display().to_string()];
        let event = event(7);
        let status = block_on(async { Hooks::new(command).run_once(&event).await }).unwrap();
        assert!(status.unwrap().success());
        assert_eq!(std::fs::read_to_string(told).unwrap(), event.to_json() + "\n");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_and_one_that_is_not_there_is_an_error() {
        block_on(async {
            let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), "sleep 1000 & wait".to_owned()];
            let sleeper = Hooks { within: Duration::from_millis(300), ..Hooks::new(command) };
            assert_eq!(sleeper.run_once(&event(1)).await.unwrap(), None);
            assert!(Hooks::new(vec!["/nowhere/it".to_owned()]).run_once(&event(1)).await.is_err());
        });
    }

    #[test]
    fn the_oldest_event_goes_where_too_many_wait() {
        let hooks = Hooks::new(vec!["/bin/true".to_owned()]);
        for number in 1..=HOOKS_WAITING_MAX as u64 + 3 {
            hooks.offer(event(number));
        }
        assert_eq!(hooks.dropped.get(), 3);
        assert_eq!((hooks.waiting.borrow().len(), hooks.waiting.borrow()[0].number), (HOOKS_WAITING_MAX, 4));
    }
}
