//! `gcs playground fault`: what a node looks like to the others that hangs, and what becomes of it when it goes on.
//!
//! A pause stops every process of the node (SIGSTOP): its daemon, its postmaster, and all that this has started. No connection closes, nobody is told,
//! as when a machine hangs or a virtual one is moved. The daemon is stopped first and goes on last.

use super::group::Playground;
use super::manifest::NodeNumber;
use super::process::{Process, Signal};
use super::{Error, Result};

impl Playground {
    /// Stops all processes of the node, until [`Playground::resume`].
    pub fn pause(&self, number: NodeNumber) -> Result<()> {
        self.check(number)?;
        let _lock = self.paths.lock()?;
        let (daemon, postmaster) = (self.daemon(number).process(), self.cluster(number).process());
        if daemon.is_none() && postmaster.is_none() {
            return Err(Error::failed(format!("nothing of {} runs", self.name(number))));
        }
        // A postmaster that is stopped starts nothing more: whatever is there then is all.
        for process in daemon.iter().chain(&postmaster) {
            process.signal(Signal::STOP);
        }
        for process in Process::all_in(&self.cluster(number).data()) {
            process.signal(Signal::STOP);
        }
        Ok(())
    }

    /// Lets a node go on that was paused.
    pub fn resume(&self, number: NodeNumber) -> Result<()> {
        self.check(number)?;
        let _lock = self.paths.lock()?;
        if !self.is_paused(number) {
            return Err(Error::failed(format!("{} is not paused", self.name(number))));
        }
        self.go_on(number);
        Ok(())
    }

    pub(super) fn go_on(&self, number: NodeNumber) {
        let servers = Process::all_in(&self.cluster(number).data());
        for process in servers.iter().chain(&self.daemon(number).process()) {
            process.signal(Signal::CONT);
        }
    }

    /// Whether its daemon or its postmaster is stopped: then it answers nothing.
    pub fn is_paused(&self, number: NodeNumber) -> bool {
        let processes = [self.daemon(number).process(), self.cluster(number).process()];
        processes.iter().flatten().any(Process::is_stopped)
    }
}
