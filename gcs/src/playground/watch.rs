//! `start` in the foreground: the live table, and the end of everything when the caller goes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::error::{Error, Result};
use super::group::Playground;
use super::status::{self, Counters, Status};

const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Starts with `begin`, tells the caller with `announce`, and shows the table until SIGINT, SIGTERM, SIGHUP, the end of
/// standard input if asked, or somebody's `stop`. Then ends all that runs.
pub fn foreground(
    begin: impl FnOnce() -> Result<Playground>,
    announce: impl FnOnce(&Playground) -> Result<()>,
    until_eof: bool,
) -> Result<()> {
    let failed = |error| Error::failed(format!("could not watch for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    // The handlers stand before anything is started: a Ctrl-C from now on is remembered and leads to an orderly end.
    let leave = runtime.block_on(async { Leave::new(until_eof) }).map_err(failed)?;
    let playground = begin()?;
    let announced = announce(&playground);
    if announced.is_ok() {
        runtime.block_on(watch(&playground, leave));
    }
    // The reader of standard input may block for ever.
    runtime.shutdown_background();
    stop(playground)?;
    announced
}

fn stop(playground: Playground) -> Result<()> {
    // It may have more nodes by now.
    let mut playground = playground.as_it_is()?;
    if !playground.manifest.running {
        return Ok(());
    }
    if is_live() {
        println!("stopping …");
    }
    playground.stop()?.iter().for_each(|forced| eprintln!("gcs: warning: {forced}"));
    Ok(())
}

/// Whether a live table makes sense.
fn is_live() -> bool {
    std::io::stdout().is_terminal()
}

/// Reasons to leave, from outside.
struct Leave {
    signals: Vec<tokio::signal::unix::Signal>,
    eof: Arc<Notify>,
}

impl Leave {
    fn new(until_eof: bool) -> std::io::Result<Leave> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<std::io::Result<_>>()?;
        let eof = Arc::new(Notify::new());
        if until_eof {
            let eof = eof.clone();
            // A thread that nobody waits for: the runtime would not end before the read does, and nor would a playground that could not be started.
            std::thread::spawn(move || {
                // Its end and an error are the same to us.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                eof.notify_one();
            });
        }
        Ok(Leave { signals, eof })
    }

    async fn wanted(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals[..] else { unreachable!("three signals were asked for") };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = self.eof.notified() => {}
        }
    }
}

async fn watch(playground: &Playground, mut leave: Leave) {
    let mut screen = Screen::default();
    let mut ticks = tokio::time::interval(REFRESH_EVERY);
    loop {
        tokio::select! {
            () = leave.wanted() => return,
            _ = ticks.tick() => {}
        }
        let Some(ours) = playground.as_it_is().ok().filter(|playground| playground.manifest.running) else { return };
        if is_live()
            && let Ok(status) = spawn_blocking(move || status::collect(&ours)).await
        {
            screen.draw(&status);
        }
    }
}

/// Draws over what it drew before.
#[derive(Default)]
struct Screen {
    lines: usize,
    before: Option<(Instant, HashMap<String, Counters>)>,
}

impl Screen {
    fn draw(&mut self, status: &Status) {
        let now = Instant::now();
        let text = table(status, self.before.as_ref().map(|(then, counters)| (now - *then, counters)));
        let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { "\n".to_owned() };
        print!("{up}\x1b[J{text}");
        let _ = std::io::stdout().flush();
        self.lines = text.lines().count();
        let counters = status.nodes.iter().filter_map(|node| Some((node.name.clone(), node.counters?)));
        self.before = Some((now, counters.collect()));
    }
}

/// One line a node. With the counters of some time ago, rates; without, no columns for them.
pub fn table(status: &Status, before: Option<(Duration, &HashMap<String, Counters>)>) -> String {
    let mut text = format!("{:<8} {:<14} {:<6} {:>10} {:>8}", "node", "state", "leader", "position", "lag");
    if before.is_some() {
        let _ = write!(text, " {:>8} {:>9}", "tps", "aborts/s");
    }
    let is_faulty = status.nodes.iter().any(|node| !node.faults.is_empty());
    text += if is_faulty { " faults\n" } else { "\n" };
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for node in &status.nodes {
        let leader = if node.leader { "leader" } else { "" };
        let (state, position, lag) = (node.state.text(), or_dash(node.position), or_dash(node.lag));
        let _ = write!(text, "{:<8} {state:<14} {leader:<6} {position:>10} {lag:>8}", node.name);
        if let Some((time, before)) = before {
            let rate = |value: fn(&Counters) -> u64| {
                let (now, then) = (node.counters.as_ref()?, before.get(&node.name)?);
                Some((value(now).saturating_sub(value(then)) as f64 / time.as_secs_f64()).round() as u64)
            };
            let _ = write!(text, " {:>8} {:>9}", or_dash(rate(|c| c.commits)), or_dash(rate(|c| c.aborts)));
        }
        if !node.faults.is_empty() {
            let _ = write!(text, " {}", node.faults.join(", "));
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::status::{NodeCondition, NodeStatus};

    #[test]
    fn the_table_shows_rates_since_the_last_look() {
        let counters = |commits, aborts| Counters { commits, aborts };
        let node = NodeStatus {
            name: "node1".into(),
            uri: String::new(),
            http: None,
            state: NodeCondition::Online,
            leader: true,
            position: Some(77),
            lag: Some(0),
            faults: Vec::new(),
            counters: Some(counters(300, 12)),
        };
        let mut status = Status { group: "g".into(), database: "d".into(), nodes: vec![node] };
        let before = HashMap::from([("node1".to_owned(), counters(100, 2))]);
        let text = table(&status, Some((Duration::from_secs(2), &before)));
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["node1", "online", "leader", "77", "0", "100", "5"]);
        status.nodes[0].faults = vec!["cut off from node2".to_owned(), "5 ms late".to_owned()];
        let text = table(&status, None);
        assert!(text.lines().next().unwrap().ends_with("lag faults"), "{text}");
        assert!(text.ends_with("0 cut off from node2, 5 ms late\n"), "{text}");
    }
}
