//! The disk of one node's PostgreSQL is full: the others go on, its database is out of service, and it is back by itself when there is room.
//! (That of the log: `gcs/tests/daemon_disk_full.rs`.)

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::group::Started;
use gcs::playground::process::Signal;
use postgres_r_tests::harness::{Group, assert_equal, node, wait};

const WITHIN: Duration = Duration::from_secs(60);

/// The tables of a server on a file system of their own, in memory; its WAL stays where it was.
struct Small(PathBuf);

impl Small {
    /// The server must not run. None where this user may not mount.
    fn of(data: &Path, megabytes: u64) -> Option<Small> {
        let (base, kept) = (data.join("base"), data.join("base.before"));
        fs::rename(&base, &kept).unwrap();
        fs::create_dir(&base).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&base).output().unwrap();
        if !mounted.status.success() {
            fs::remove_dir(&base).unwrap();
            fs::rename(&kept, &base).unwrap();
            return None;
        }
        let from = kept.join(".");
        assert!(Command::new("cp").arg("-a").arg(from).arg(&base).status().unwrap().success());
        fs::remove_dir_all(&kept).unwrap();
        Some(Small(base))
    }

    /// Takes all the room that there is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let piece = vec![0; 1 << 20];
        while file.write_all(&piece).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_server_without_room_holds_up_nobody_and_is_back_by_itself_when_there_is_some() {
    let group = Group::start();
    group.execute(node(1), "CREATE TABLE item (id int PRIMARY KEY, body text)");
    group.settle();
    group.signal(node(3), Part::Postgres, Signal::INT);
    let Some(small) = Small::of(&group.playground.cluster(node(3)).data(), 300) else {
        return println!("not tried: only root may mount");
    };
    assert_eq!(group.start_node(node(3)), Started::Online);
    assert_equal(&group);
    let filler = small.fill();
    let big = |number, from: i32| {
        group.execute(
            node(number),
            &format!("INSERT INTO item SELECT n, repeat(md5(n::text), 100) FROM generate_series({from}, {from} + 9999) n"),
        );
    };
    big(1, 0);
    let state = "SELECT state FROM postgres_r.members WHERE node = 'node3'";
    wait::until("the others know", WITHIN, || match group.value(node(1), state) {
        found if found == "out of service" => Ok(()),
        found => Err(found),
    });
    big(1, 10_000);
    big(2, 20_000);
    assert_eq!(group.value(node(2), "SELECT count(*) FROM item"), "30000");
    fs::remove_file(filler).unwrap();
    wait::until("it is back", WITHIN, || match group.value(node(1), state) {
        found if found == "online" => Ok(()),
        found => Err(found),
    });
    assert_equal(&group);
    group.execute(node(3), "INSERT INTO item VALUES (-1, 'written there')");
    assert_equal(&group);
    group.kill(node(3), Part::Postgres);
    drop(small);
}
