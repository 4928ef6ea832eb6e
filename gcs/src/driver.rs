//! The driver: feeds the core, and carries out what it wants, in the order its contract demands.
//!
//! Everything of this daemon runs on one thread: sockets, core, and the writes to the log. A step must be finished, write
//! included, before the next can begin, so a second thread could only wait for this one, and each message would pay for
//! waking it. What a flush delays is taken together by the next step. Only what may take long and is waited for by nobody runs
//! elsewhere: catching up from disk, checkpoints, new log segments. (docs/adr/0012-one-thread.md has the numbers.)

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use gcs_core::{Core, CoreConfig, CoreError, Effects, Input, Membership, Recovered, Tick};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

use crate::bounds::{LONG_WRITE_BYTES, TICK};
use crate::inbox::Inbox;
use crate::local::Hub;
use crate::log::{Log, LogError, LogReader};
use crate::observe::caught_up::caught_up;
use crate::observe::look::{look, look_closely};
use crate::observe::pulse::Pulse;
use crate::observe::questions::{Question, Questions, Wants};
use crate::peers::{self, Peers};

/// What ends the daemon.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error("{0}")]
    Core(#[from] CoreError),
    #[error("{0}")]
    Log(#[from] LogError),
}

pub struct Driver {
    core: Core<LogReader>,
    log: Log,
    inbox: Rc<Inbox>,
    started: Instant,
    pulse: Arc<Pulse>,
    /// Whether the configuration has been compared with the membership.
    is_compared: bool,
}

impl Driver {
    pub fn new(
        config: CoreConfig,
        log: Log,
        recovered: Recovered,
        inbox: Rc<Inbox>,
        pulse: Arc<Pulse>,
    ) -> Result<Driver, DriverError> {
        let core = Core::new(config, log.reader(), recovered)?;
        Ok(Driver { core, log, inbox, started: Instant::now(), pulse, is_compared: false })
    }

    /// Who the members are, as of what was recovered.
    pub fn membership(&self) -> Membership {
        self.core.state().membership.clone()
    }

    /// Steps whenever something waits, until something fails; between two steps answers those who look on.
    pub async fn run(&mut self, peers: &Rc<Peers>, hub: &Rc<Hub>, questions: &mut Questions) -> DriverError {
        loop {
            let inputs = tokio::select! {
                inputs = self.inbox.take() => inputs,
                question = questions.next() => {
                    self.answer(question, hub);
                    continue;
                }
            };
            if let Err(error) = self.step(inputs, peers, hub).await {
                return error;
            }
        }
    }

    fn answer(&self, Question { wants, answer }: Question, hub: &Rc<Hub>) {
        let seen = if wants == Wants::Page { look_closely(&self.core, hub) } else { look(&self.core, hub) };
        // Whoever asked may have given up.
        match wants {
            Wants::Look | Wants::Page => drop(answer.send(seen)),
            Wants::Lag { database, lag } => {
                let hub = hub.clone();
                tokio::task::spawn_local(async move {
                    let _ = answer.send(caught_up(&hub, seen, database.as_deref(), lag).await);
                });
            }
        }
    }

    /// Steps until nothing is to be written any more. A large transaction makes that take long: whoever comes meanwhile is heard
    /// after each long write.
    async fn step(&mut self, inputs: Vec<Input>, peers: &Rc<Peers>, hub: &Hub) -> Result<(), DriverError> {
        let mut inputs = inputs;
        loop {
            self.pulse.beat();
            let now = Tick((self.started.elapsed().as_millis() / TICK.as_millis()) as u64);
            let effects = self.core.step(now, inputs)?;
            let entries = effects.write.iter().flat_map(|write| &write.entries);
            let is_long = entries.map(|entry| entry.data.len()).sum::<usize>() >= LONG_WRITE_BYTES;
            let Some(written) = self.carry_out(effects, peers, hub)? else { return Ok(()) };
            inputs = vec![Input::Written(written)];
            if is_long {
                tokio::task::yield_now().await;
                inputs.extend(self.inbox.take_now());
            }
        }
    }

    /// The number of the write, if there was one.
    fn carry_out(&mut self, effects: Effects, peers: &Rc<Peers>, hub: &Hub) -> Result<Option<u64>, DriverError> {
        let Effects { send_now, write, send_after_write, ordered, replies, status, membership, goes_to_writers } = effects;
        if let Some(membership) = membership {
            peers.roster.set(membership);
            peers::follow(peers);
        }
        if let Some(node) = goes_to_writers {
            let name = peers.roster.membership().member(node).map_or_else(String::new, |member| member.name.clone());
            tracing::info!(to = %name, "most is written there: leadership is handed over");
        }
        if !send_now.is_empty() {
            peers.send(send_now);
            peers.flush();
        }
        if !self.is_compared && status.as_ref().is_some_and(|status| status.quorum) {
            self.is_compared = true;
            if let Some(differences) = peers.roster.disagreement() {
                tracing::warn!(
                    "the configuration lists other members than the group has, which is what counts: {differences}"
                );
            }
        }
        let written = write.as_ref().map(|write| write.number);
        if let Some(write) = write {
            self.log.write(write)?;
        }
        if !send_after_write.is_empty() {
            peers.send(send_after_write);
            peers.flush();
        }
        if !ordered.is_empty() || !replies.is_empty() || status.is_some() {
            hub.ordered(&ordered);
            hub.replies(replies);
            if status.is_some() {
                hub.publish_status(|database| self.core.status(database));
            }
            hub.flush();
        }
        Ok(written)
    }

    /// Everything written so far is on disk afterwards.
    pub fn finish(mut self) -> Result<(), DriverError> {
        Ok(self.log.flush()?)
    }
}

/// Moves the core's clock.
pub async fn tick(inbox: Rc<Inbox>) {
    let mut clock = interval(TICK);
    // After a stall the clock goes on from there: a burst of ticks would only call elections.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        inbox.push(Input::Tick);
    }
}
