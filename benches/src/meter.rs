//! What the whole machine spent while something ran: processor time, context switches, bytes written and bytes over the loopback interface.
//!
//! Everything runs on one machine, clients included, so what a system costs is what the machine was not idle for. Whose processor time it was is read
//! from /proc: of processes that live on, and of a postmaster's children that have ended, which are the clients' backends of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Error};
use std::path::PathBuf;

use gcs::playground::process::Process;
use serde::Serialize;

/// Of /proc: always 100 a second for programs, whatever the kernel counts by.
const TICKS_A_SECOND: u64 = 100;

/// Processor time in microseconds, by what kind of process spent it.
pub type ByKind = BTreeMap<String, u64>;

/// Counters since the machine started, at one moment.
#[derive(Clone, Debug, Default)]
struct Reading {
    busy_us: u64,
    switches: u64,
    written_bytes: u64,
    loopback_bytes: u64,
    by_kind: ByKind,
}

/// The difference of two readings.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Spent {
    pub busy_us: u64,
    pub switches: u64,
    pub written_bytes: u64,
    pub loopback_bytes: u64,
    pub by_kind: ByKind,
}

/// Measures from when it is made.
pub struct Meter {
    directories: Vec<PathBuf>,
    start: Reading,
}

impl Meter {
    /// Processes that work in one of the directories are told apart.
    pub fn start(directories: Vec<PathBuf>) -> io::Result<Meter> {
        let start = read(&directories)?;
        Ok(Meter { directories, start })
    }

    pub fn spent(&self) -> io::Result<Spent> {
        let (now, start) = (read(&self.directories)?, &self.start);
        let since = |kind: &String, us: u64| us.saturating_sub(start.by_kind.get(kind).copied().unwrap_or(0));
        Ok(Spent {
            busy_us: now.busy_us - start.busy_us,
            switches: now.switches - start.switches,
            written_bytes: now.written_bytes - start.written_bytes,
            loopback_bytes: now.loopback_bytes - start.loopback_bytes,
            by_kind: now.by_kind.iter().map(|(kind, &us)| (kind.clone(), since(kind, us))).collect(),
        })
    }
}

fn read(directories: &[PathBuf]) -> io::Result<Reading> {
    let (busy_us, switches) = of_stat(&fs::read_to_string("/proc/stat")?).ok_or_else(|| unreadable("/proc/stat"))?;
    let kilobytes = field(&fs::read_to_string("/proc/vmstat")?, "pgpgout").ok_or_else(|| unreadable("/proc/vmstat"))?;
    let loopback_bytes = of_loopback(&fs::read_to_string("/proc/net/dev")?).ok_or_else(|| unreadable("/proc/net/dev"))?;
    let mut by_kind = ByKind::new();
    let pids: BTreeSet<i32> =
        directories.iter().flat_map(|directory| Process::all_in(directory)).map(|process| process.pid).collect();
    for pid in pids.union(&children(&pids)) {
        add(&mut by_kind, *pid);
    }
    Ok(Reading { busy_us, switches, written_bytes: kilobytes * 1024, loopback_bytes, by_kind })
}

/// Of these processes. Those that are ending work nowhere any more, but still are children.
fn children(parents: &BTreeSet<i32>) -> BTreeSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        stat.and_then(|stat| parent(&stat)).is_some_and(|parent| parents.contains(&parent))
    };
    pids.filter(is_child).collect()
}

fn unreadable(file: &str) -> Error {
    Error::new(io::ErrorKind::InvalidData, format!("{file} is not as it was expected"))
}

/// A process that has ended meanwhile counts nothing.
fn add(by_kind: &mut ByKind, pid: i32) {
    let (Ok(stat), Ok(title)) =
        (fs::read_to_string(format!("/proc/{pid}/stat")), fs::read_to_string(format!("/proc/{pid}/cmdline")))
    else {
        return;
    };
    let Some((own, of_children)) = of_process(&stat) else { return };
    let kind = kind(&title);
    *by_kind.entry(kind.to_owned()).or_default() += own;
    if kind == "postmaster" {
        *by_kind.entry("client backends".to_owned()).or_default() += of_children;
    }
}

/// By what a process calls itself.
fn kind(title: &str) -> &'static str {
    const TITLES: [(&str, &str); 8] = [
        ("remote backend", "remote backends"),
        ("postgres_r", "other workers of ours"),
        ("walwriter", "WAL writers"),
        ("checkpointer", "checkpointers, background writers"),
        ("background writer", "checkpointers, background writers"),
        ("walsender", "WAL senders and receivers"),
        ("walreceiver", "WAL senders and receivers"),
        ("startup", "recovery"),
    ];
    if title.contains("gcs\0run") {
        return "gcs";
    }
    // The program's path ends at the first argument, or with the title.
    if title.split('\0').next().is_some_and(|program| program.ends_with("mariadbd")) {
        return "mariadbd";
    }
    // One that is about to end has no title any more: the clients of the run have just left.
    if title.is_empty() {
        return "client backends";
    }
    let Some(what) = title.strip_prefix("postgres: ") else { return "postmaster" };
    TITLES.into_iter().find(|(part, _)| what.contains(part)).map_or("client backends", |(_, kind)| kind)
}

/// Time that was not idle, and context switches.
fn of_stat(text: &str) -> Option<(u64, u64)> {
    let ticks: Vec<u64> = text.lines().next()?.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
    // user, nice, system, idle, iowait, irq, softirq; what guests had is in the first two.
    let busy: u64 = [0, 1, 2, 5, 6].into_iter().filter_map(|at| ticks.get(at)).sum();
    Some((busy * (1_000_000 / TICKS_A_SECOND), field(text, "ctxt")?))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn of_loopback(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The process that it is a child of.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process's own time, and that of its children that have ended, in microseconds.
fn of_process(stat: &str) -> Option<(u64, u64)> {
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let us = |at: usize| fields.get(at)?.parse::<u64>().ok().map(|ticks| ticks * (1_000_000 / TICKS_A_SECOND));
    Some((us(11)? + us(12)?, us(13)? + us(14)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        assert_eq!(of_stat("cpu  10 20 30 400 50 6 7 0 0 0\ncpu0 1\nctxt 99\n"), Some((730_000, 99)));
        assert_eq!(of_process("12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0"), Some((1_200_000, 70_000)));
        assert_eq!(parent("12 (a (b) c) Z 7 2 3"), Some(7));
        let dev = "Inter-| Receive\n face |bytes\n    lo: 1234 5 0 0 0 0 0 0 1234 5\n  eth0: 9 9\n";
        assert_eq!(of_loopback(dev), Some(1234));
        assert_eq!(field("pgpgin 1\npgpgout 22\n", "pgpgout"), Some(22));
    }

    #[test]
    fn processes_are_told_apart_by_their_titles() {
        assert_eq!(kind("postgres: postgres_r remote backend 0 of shop"), "remote backends");
        assert_eq!(kind("postgres: postgres_r manager of shop"), "other workers of ours");
        assert_eq!(kind("postgres: walreceiver streaming 0/1"), "WAL senders and receivers");
        assert_eq!(kind("postgres: postgres shop 127.0.0.1(1) UPDATE"), "client backends");
        assert_eq!(kind("/usr/lib/postgresql/bin/postgres\0-D\0/x"), "postmaster");
        assert_eq!(kind("/usr/sbin/mariadbd\0--no-defaults"), "mariadbd");
        assert_eq!(kind("/x/bin/gcs\0run\0--config"), "gcs");
        assert_eq!(kind(""), "client backends");
    }
}
