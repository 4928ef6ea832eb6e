//! `gcs playground fault`: what a node looks like to the others that hangs, and what becomes of it when it goes on.
//!
//! A pause stops every process of the node (SIGSTOP): its daemon, its postmaster, and all that this has started. No connection closes, nobody is told,
//! as when a machine hangs or a virtual one is moved. The daemon is stopped first and goes on last.
//!
//! The other faults have modules of their own: links ([`super::relayed`]) and disks ([`super::disks`]). What undoes both is here.

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

    /// Undoes cut, slow and fill, of one node or of all. Does nothing where nothing is wrong.
    ///
    /// Takes no lock of the whole playground: a command that waits for a node to come online may wait for just this.
    pub fn heal(&self, number: Option<NodeNumber>) -> Result<()> {
        number.map_or(Ok(()), |number| self.check(number))?;
        let (has_links, has_disks) = (self.manifest.is_relayed(), self.manifest.disk_size.is_some());
        if !has_links && !has_disks {
            let dir = self.paths.dir.display();
            let message = format!(
                "the playground in {dir} was made without --faults and without --disk-size: there is nothing to heal"
            );
            return Err(Error::usage(message).hint("Make another with: gcs playground start --faults --dir DIR"));
        }
        let numbers = number.map_or_else(|| self.numbers(), |number| vec![number]);
        numbers.into_iter().try_for_each(|number| self.empty_disk(number))?;
        if has_links { self.heal_links(number) } else { Ok(()) }
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
