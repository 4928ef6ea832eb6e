//! What the environment says about how much is measured.
//!
//! | variable | what |
//! |---|---|
//! | `BENCH_SYSTEMS`, `BENCH_LOADS` | lists of names; all without it |
//! | `BENCH_CLIENTS` | a list of numbers of clients |
//! | `BENCH_SECONDS`, `BENCH_ROUNDS` | of each run, and how many |
//! | `BENCH_SCALE` | of pgbench's tables |
//! | `BENCH_EVENTS` | a list of events; all without it |
//! | `BENCH_EVENT_SIZE` | what rows, bytes and times of events are multiplied by |
//!
//! A list that is empty picks nothing.
//!
//! What needs a program that is not installed is left out, and said to be.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::events::{self, Event, Extent};
use crate::load::{Load, Tool};
use crate::systems::galera::LIBRARY;
use crate::systems::kind::Kind;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Debug)]
pub struct Settings {
    pub seconds: u64,
    pub rounds: u64,
    pub scale: u32,
    pub clients: Vec<u32>,
    pub loads: Vec<Load>,
    pub systems: Vec<Kind>,
    pub events: Vec<Event>,
    /// How much of everything in an event.
    pub extent: Extent,
    /// What cannot be measured here, and why.
    pub left_out: Vec<String>,
}

const INSTALL: &str = "`tools/setup.sh bench` installs it";
/// What sysbench's loads need, and what MariaDB's systems and Galera's need beside.
const SYSBENCH: [&str; 1] = ["sysbench"];
const MARIADB: [&str; 4] = ["mariadbd", "mariadb", "mariadb-install-db", "setpriv"];
const GALERA: [&str; 3] = [LIBRARY, "wsrep_sst_rsync", "rsync"];

impl Settings {
    pub fn read() -> Result<Settings> {
        let list = |name| std::env::var(name).ok();
        let rounds = number("BENCH_ROUNDS", 3)?;
        let mut settings = Settings {
            seconds: number("BENCH_SECONDS", 5)?,
            rounds,
            scale: number("BENCH_SCALE", 50)?,
            clients: numbers("BENCH_CLIENTS", &list("BENCH_CLIENTS").unwrap_or_else(|| "1 8 32 128".to_owned()))?,
            loads: Load::pick(list("BENCH_LOADS").as_deref()).map_err(|error| format!("BENCH_LOADS: {error}"))?,
            systems: Kind::pick(list("BENCH_SYSTEMS").as_deref()).map_err(|error| format!("BENCH_SYSTEMS: {error}"))?,
            events: events::pick(list("BENCH_EVENTS").as_deref()).map_err(|error| format!("BENCH_EVENTS: {error}"))?,
            extent: Extent { size: number("BENCH_EVENT_SIZE", 1.0)?, rounds },
            left_out: Vec::new(),
        };
        settings.leave_out(is_installed);
        Ok(settings)
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn leave_out(&mut self, is_installed: impl Fn(&str) -> bool) {
        let missing = |programs: &[&'static str]| programs.iter().copied().find(|program| !is_installed(program));
        let (sysbench, mariadb, galera) = (missing(&SYSBENCH), missing(&MARIADB), missing(&GALERA));
        let left_out = &mut self.left_out;
        self.loads.retain(|load| {
            let lacks = sysbench.filter(|_| load.tool == Tool::Sysbench);
            left_out.extend(lacks.map(|program| format!("load {}: {program} is missing; {INSTALL}", load.name)));
            lacks.is_none()
        });
        self.systems.retain(|kind| {
            let lacks = match kind {
                Kind::Mariadb => sysbench.or(mariadb),
                Kind::Galera | Kind::GaleraSpread => sysbench.or(mariadb).or(galera),
                _ => None,
            };
            left_out.extend(lacks.map(|program| format!("system {}: {program} is missing; {INSTALL}", kind.name())));
            lacks.is_none()
        });
    }
}

fn number<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => parse(name, &text),
        Err(_) => Ok(default),
    }
}

fn numbers(name: &str, text: &str) -> Result<Vec<u32>> {
    text.split_whitespace().map(|word| parse(name, word)).collect()
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| format!("{name} is \"{text}\": {error}; give a number").into())
}

/// In PATH, or where servers are that are not in every user's.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    directories.map(|directory| directory.join(program)).any(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Settings {
        let (loads, systems) = (Load::pick(None).unwrap(), Kind::pick(None).unwrap());
        let extent = Extent { size: 1.0, rounds: 1 };
        let (clients, events) = (vec![1], Vec::new());
        Settings { seconds: 1, rounds: 1, scale: 1, clients, loads, systems, events, extent, left_out: Vec::new() }
    }

    #[test]
    fn what_needs_a_missing_program_is_left_out_and_said_to_be() {
        let mut settings = everything();
        settings.leave_out(|program| program != "rsync");
        assert_eq!(settings.loads.len(), everything().loads.len());
        assert_eq!(settings.systems.len(), everything().systems.len() - 2);
        assert_eq!(settings.left_out[0], "system galera: rsync is missing; `tools/setup.sh bench` installs it");

        let mut settings = everything();
        settings.leave_out(|_| false);
        assert!(settings.loads.iter().all(|load| load.tool != Tool::Sysbench));
        assert!(settings.systems.iter().all(|kind| !kind.is_mariadb()));
        assert_eq!(settings.left_out.len(), 4 + 3);
    }

    #[test]
    fn a_list_of_clients_is_numbers() {
        assert_eq!(numbers("BENCH_CLIENTS", "1 128").unwrap(), [1, 128]);
        let error = numbers("BENCH_CLIENTS", "1 many").unwrap_err().to_string();
        assert_eq!(error, "BENCH_CLIENTS is \"many\": invalid digit found in string; give a number");
    }
}
