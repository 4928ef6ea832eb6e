//! The disk of one daemon's log is full: the others go on, it ends and says what to do, and it is back when there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gcs_writeset::{Incarnation, Position};
use support::{Daemon, Group, Manager, order, writeset_with};

/// A file system of its own, in memory.
struct Small(PathBuf);

impl Small {
    /// None where this user may not mount.
    fn mount(at: &Path, megabytes: u64) -> Option<Small> {
        fs::create_dir(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().unwrap();
        mounted.status.success().then(|| Small(at.to_owned()))
    }

    fn resize(&self, megabytes: u64) {
        let size = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the daemon may be a moment behind.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn wait_for_end(daemon: &mut Daemon) {
    while daemon.is_running() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Each is a megabyte.
fn write(manager: &mut Manager, from: u64, count: u64) {
    for key in from..from + count {
        manager.submit(&writeset_with(key, Position::ZERO, 0, &vec![7; 1 << 20]));
        manager.next_delivered();
    }
}

#[test]
fn a_daemon_whose_disk_is_full_ends_alone_and_catches_up_when_there_is_room() {
    let mut group = Group::configure(3);
    // Two segments, the reserve, and little else.
    let Some(small) = Small::mount(&group.daemons[2].data_directory(), 170) else {
        assert!(!nix::unistd::Uid::effective().is_root(), "root may mount");
        return println!("not tried: only root may mount");
    };
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut managers = group.attach_all();
    let reserve = group.daemons[2].data_directory().join("reserve");
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 64_000_000);
    let third = managers.pop();
    // Nobody has flushed anything, so nothing is cut off.
    write(&mut managers[0], 0, 150);
    wait_for_end(&mut group.daemons[2]);
    drop(third);
    group.daemons[2].wait_for_log("No space left on device");
    group.daemons[2].wait_for_log("gcs reserve release");
    let (code, said) = Daemon::run_to_end(&group.daemons[2].config);
    assert_eq!(code, Some(1), "it is to be started again: {said}");
    write(&mut managers[0], 150, 10);
    let (code, said) = group.daemons[2].gcs(&["reserve", "release"]);
    assert_eq!((code, said.contains("64 MB were given up")), (Some(0), true), "{said}");
    // The room that was given up is enough to start and to go on for a while.
    group.daemons[2].start();
    group.daemons[2].wait_for_log("too full for its reserve");
    group.daemons[2].wait_for_lines("gcs is running", 2);
    wait_for_end(&mut group.daemons[2]);
    small.resize(1_000);
    group.daemons[2].start();
    let mut again = Manager::attach(&group.daemons[2].socket, Incarnation(33), Position::ZERO);
    let there = managers[1].delivered(160);
    assert_eq!(order(&again.delivered(160)), order(&there));
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 64_000_000, "it is there again");
}
