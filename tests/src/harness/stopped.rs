//! Processes that do nothing for a while: how a step of a commit is held open from outside.

use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::process::{Process, Signal};

use super::{Group, wait};

const IDLE_WITHIN: Duration = Duration::from_secs(20);

/// Stopped (SIGSTOP) until this is dropped.
pub struct Stopped(Vec<Process>);

impl Stopped {
    /// What this node's backends send waits in its daemon's socket.
    pub fn daemon(group: &Group, number: NodeNumber) -> Stopped {
        Stopped::all(group.playground.daemon(number).process().into_iter().collect())
    }

    /// Nothing of other nodes is applied on this one, and nobody there is told to give way.
    pub fn remote_backends(group: &Group, number: NodeNumber) -> Stopped {
        group.settle();
        let mut client = group.connect(number);
        let query = "SELECT pid, wait_event IS NOT NULL FROM pg_stat_activity WHERE backend_type LIKE 'postgres_r remote%'";
        // One that sleeps holds no lock that its neighbours need.
        let (pids, _) = wait::until("idle remote backends", IDLE_WITHIN, || {
            let found = client.query(query, &[]).map_err(|error| error.to_string())?;
            let sleeping = found.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect::<Vec<i32>>();
            if sleeping.len() == found.len() { Ok(sleeping) } else { Err("they are busy".to_owned()) }
        });
        Stopped::all(pids.into_iter().filter_map(|pid| backend(group, number, pid)).collect())
    }

    fn all(processes: Vec<Process>) -> Stopped {
        assert!(!processes.is_empty(), "there is nothing to be stopped");
        processes.iter().for_each(|process| assert!(process.signal(Signal::STOP), "it has ended"));
        Stopped(processes)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in &self.0 {
            // One that was killed meanwhile does not mind.
            let _ = process.signal(Signal::CONT);
        }
    }
}

/// The backend with this pid, if it is one of that node's.
pub fn backend(group: &Group, number: NodeNumber, pid: i32) -> Option<Process> {
    Process::find(pid, &group.playground.cluster(number).data().canonicalize().ok()?)
}
