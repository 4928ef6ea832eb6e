//! How much memory the processes of a group come to hold, as the kernel counts it: private pages, shared buffers left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Group;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The most that any process of one kind held, in MB, by what the process calls itself.
pub type Peaks = BTreeMap<String, u64>;

/// Looks at every process of the group until it is asked for the peaks.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Peaks>,
}

impl Watch {
    pub fn start(group: &Group) -> Watch {
        Watch::below(group.dir())
    }

    /// Of the processes that work somewhere below.
    pub fn below(directory: &Path) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, dir) = (stop.clone(), directory.to_owned());
        let thread = thread::spawn(move || {
            let mut peaks = Peaks::new();
            while !stopped.load(Ordering::SeqCst) {
                look(&dir, &mut peaks);
                thread::sleep(LOOK_EVERY);
            }
            peaks
        });
        Watch { stop, thread }
    }

    pub fn peaks(self) -> Peaks {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_default()
    }
}

fn look(dir: &Path, peaks: &mut Peaks) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten().map(|entry| entry.path()) {
        // Whatever of it can't be read has ended meanwhile, or is not ours.
        let _ = fs::read_link(process.join("cwd")).ok().filter(|cwd| cwd.starts_with(dir)).and_then(|_| {
            let (name, held) = (name(&process)?, held_mb(&process)?);
            let peak = peaks.entry(name).or_default();
            *peak = held.max(*peak);
            Some(())
        });
    }
}

fn held_mb(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

/// `gcs`, or PostgreSQL's own word for the process, without what differs between two of a kind.
fn name(process: &Path) -> Option<String> {
    let line = fs::read_to_string(process.join("cmdline")).ok()?.replace('\0', " ");
    let program = PathBuf::from(line.split(' ').next()?);
    if program.file_name()? == "gcs" {
        return Some("gcs".to_owned());
    }
    let rest = line.strip_prefix("postgres: ")?;
    let ours = ["postgres_r manager", "postgres_r remote backend"].into_iter().find(|name| rest.starts_with(name));
    Some(ours.unwrap_or(if rest.contains("127.0.0.1(") { "backend" } else { "other" }).to_owned())
}
