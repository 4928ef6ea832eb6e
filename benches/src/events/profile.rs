//! Where processor time goes: flame graphs of one load on one plain server and on the group, taken by `perf` of the whole machine.
//!
//! The kernel samples by its own clock, since a virtual machine seldom has the processor's counters, and stacks are unwound afterwards, since servers are built without frame
//! pointers. Stacks are drawn by `inferno`, below the kind of
//! process they belong to; what is left of the machine's time is idle and not drawn. The files are target/bench/profile-*.svg.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Stdio};

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use inferno::flamegraph;
use postgres_r_tests::pgbench::{self, Pgbench};

use super::bed::Bed;
use super::figure::{Extent, Figure, Result};
use crate::write_text;

const CLIENTS: u32 = 32;
const SECONDS: u64 = 12;
/// Within those, after the clients have come and before they leave.
const RECORDED_SECONDS: &str = "8";
/// Of all time; what is less is not drawn.
const SMALLEST_PERCENT: f64 = 0.15;
const FREQUENCY: &str = "199";

pub fn run(bed: &mut Bed, extent: Extent) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (system, server) in [("plain", bed.plain()), ("group", bed.node(1))] {
        let folded = record(bed.directory(), &server, extent)?;
        draw(system, &folded)?;
        figures.extend(shares(system, &folded));
    }
    Ok(figures)
}

/// Stacks, one a line, each with how often it was seen.
fn record(directory: &Path, server: &Pgbench, extent: Extent) -> Result<String> {
    let data = directory.join("perf.data");
    let running = server.spawn(CLIENTS, extent.seconds(SECONDS), &["-N"])?;
    let recorded = Command::new("perf")
        .args(["record", "-q", "-a", "--call-graph", "dwarf,16384", "-e", "cpu-clock", "-F", FREQUENCY, "-o"])
        .arg(&data)
        .args(["--", "sleep", RECORDED_SECONDS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("perf: {error}; `tools/setup.sh bench` installs it"))?;
    pgbench::finish(running)?;
    if !recorded.success() {
        return Err(format!("perf record ended with {recorded}; it needs root, or kernel.perf_event_paranoid = -1").into());
    }
    // With functions that were inlined it would take minutes.
    let script = Command::new("perf").args(["script", "--no-inline", "-i"]).arg(&data).stderr(Stdio::null()).output()?;
    let mut folded = Vec::new();
    Folder::from(Options::default()).collapse(Cursor::new(script.stdout), &mut folded)?;
    Ok(String::from_utf8(folded)?)
}

fn draw(system: &str, folded: &str) -> Result<()> {
    let busy: Vec<&str> = folded.lines().filter(|line| !is_idle(line)).collect();
    let mut options = flamegraph::Options::default();
    options.title = format!("simple-update, {CLIENTS} clients, {system}");
    options.count_name = "ns".to_owned();
    options.min_width = SMALLEST_PERCENT;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, busy, &mut svg)?;
    let path = write_text(&format!("profile-{system}.svg"), &String::from_utf8(svg)?)?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// Of the machine's busy time, by process and by what was on the processor: the kernel, or whose code.
fn shares(system: &str, folded: &str) -> Vec<Figure> {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    let mut busy = 0.0;
    for line in folded.lines().filter(|line| !is_idle(line)) {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count: f64 = count.parse().unwrap_or_default();
        busy += count;
        for what in sorts(stack) {
            *counts.entry(what).or_default() += count;
        }
    }
    let share =
        |(what, count): (&str, f64)| Figure::one(format!("{system}: {what}"), "%", 100.0 * count / f64::max(busy, 1.0));
    counts.into_iter().map(share).collect()
}

fn is_idle(line: &str) -> bool {
    line.starts_with("swapper")
}

/// Sorts of work that a stack is of, each once.
fn sorts(stack: &str) -> Vec<&'static str> {
    const SORTS: [(&str, &str); 12] = [
        ("do_syscall_64", "in system calls"),
        ("__x64_sys_fdatasync", "fdatasync"),
        ("__x64_sys_pwrite64", "pwrite"),
        ("tcp_sendmsg", "sending by TCP"),
        ("unix_stream_sendmsg", "sending by Unix sockets"),
        ("__x64_sys_kill", "kill: waking by a signal"),
        ("do_epoll_wait", "waiting in epoll"),
        ("futex_wake", "waking by a futex"),
        ("schedule", "changing to another process"),
        ("exec_simple_query", "executing statements"),
        ("CommitTransaction", "committing"),
        ("asm_sysvec_", "interrupts"),
    ];
    let name = stack.split(';').next().unwrap_or_default();
    let process = match name {
        "postgres" => "processes of PostgreSQL",
        "pgbench" => "pgbench",
        name if name.starts_with("gcs") || name.starts_with("tokio") => "gcs",
        _ => "others",
    };
    let found = SORTS.into_iter().filter(|(part, _)| stack.split(';').any(|frame| frame.starts_with(part)));
    [process].into_iter().chain(found.map(|(_, what)| what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_that_was_not_idle() {
        let folded = "swapper;cpu_idle 900\npostgres;main;exec_simple_query;do_syscall_64;__x64_sys_kill 30\ngcs;main;schedule;schedule 70\n";
        let figures = shares("group", folded);
        let of = |name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| figure.median);
        assert_eq!(of("group: kill: waking by a signal"), Some(30.0));
        assert_eq!(of("group: gcs"), Some(70.0));
        assert_eq!(of("group: changing to another process"), Some(70.0));
    }
}
