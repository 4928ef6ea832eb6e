//! Finding, signalling and awaiting processes that we may not be the parent of.
//!
//! A pid from a file proves nothing: the process may have ended long ago and its number may be another's now. So a process
//! is first pinned by a pidfd, then recognised by its working directory, and only then used; a pidfd never changes its mind.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

/// A living process that works in the directory it was looked for in.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    handle: OwnedFd,
}

impl Process {
    /// `None` if it has ended, or is somebody else's.
    pub fn find(pid: i32, directory: &Path) -> Option<Process> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let process = Process { pid, handle };
        (works_in(pid, directory) && !process.wait_until(Instant::now())).then_some(process)
    }

    /// Every process that works in `directory`.
    pub fn all_in(directory: &Path) -> Vec<Process> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| works_in(pid, directory)).filter_map(|pid| Process::find(pid, directory)).collect()
    }

    /// True if the signal was delivered; false if the process has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.handle, signal).is_ok()
    }

    /// Whether it was stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state stands behind the name, which stands in parentheses and may have some in it.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// True once the process has ended; false when `deadline` came first.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        wait_readable(&self.handle, deadline)
    }
}

/// True once there is something to read, or the end of it; false when `deadline` came first.
pub fn wait_readable(handle: &impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(handle, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// A process that is ending has no working directory any more, nor has one of a user that we may not look at.
fn works_in(pid: i32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)
}

/// `KILL`, `SIGKILL`, `kill` or `9`.
pub fn parse_signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let signal = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "HUP" | "1" => Signal::HUP,
        "INT" | "2" => Signal::INT,
        "QUIT" | "3" => Signal::QUIT,
        "ABRT" | "6" => Signal::ABORT,
        "KILL" | "9" => Signal::KILL,
        "USR1" | "10" => Signal::USR1,
        "SEGV" | "11" => Signal::SEGV,
        "USR2" | "12" => Signal::USR2,
        "TERM" | "15" => Signal::TERM,
        "CONT" | "18" => Signal::CONT,
        "STOP" | "19" => Signal::STOP,
        _ => {
            return Err(format!(
                "unknown signal \"{text}\"; known are HUP, INT, QUIT, ABRT, KILL, USR1, SEGV, USR2, TERM, CONT, STOP"
            ));
        }
    };
    Ok(signal)
}

/// Whether a process normally ends after it.
pub fn is_fatal(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::QUIT | Signal::ABORT | Signal::KILL | Signal::SEGV | Signal::TERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_found_only_in_its_own_directory() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, other) = (ours.path().canonicalize().unwrap(), other.path().canonicalize().unwrap());
        let mut child = Command::new("cat").current_dir(&ours).stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(Process::find(pid, &other).is_none());
        let found = Process::find(pid, &ours).unwrap();
        assert_eq!(Process::all_in(&ours).len(), 1);
        assert!(!found.wait_until(Instant::now()));
        assert!(!found.is_stopped());
        assert!(found.signal(Signal::STOP));
        // waitpid says so when it is.
        let wait = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::WUNTRACED));
        assert!(matches!(wait, Ok(nix::sys::wait::WaitStatus::Stopped(..))), "{wait:?}");
        assert!(found.is_stopped());
        assert!(found.signal(Signal::KILL));
        assert!(found.wait_until(Instant::now() + Duration::from_secs(10)));
        // Dead, though not yet reaped.
        assert!(Process::find(pid, &ours).is_none());
        child.wait().unwrap();
        assert!(!found.signal(Signal::KILL));
    }

    #[test]
    fn signals_are_read_by_name_and_by_number() {
        for text in ["9", "KILL", "SIGKILL", "kill"] {
            assert_eq!(parse_signal(text), Ok(Signal::KILL));
        }
        assert!(parse_signal("NONE").is_err());
    }
}
