//! docs/first-hour.md, typed: each command, and what the page says that it answers. `…` stands for anything; lines that the page leaves out may be there too.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gcs::playground::group::find_postgres;
use postgres_r_tests::harness::{self, ports, wait};

const PAGE: &str = include_str!("../../docs/first-hour.md");
const WITHIN: Duration = Duration::from_secs(20);
const DIRECTORY: &str = "/tmp/play";
/// The first port of PostgreSQL on the page.
const PORT: u16 = 6001;

struct Step {
    command: String,
    answers: Vec<String>,
}

/// Commands stand behind `$ ` in the page's blocks, what they answer below them.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_answered = false;
    for line in PAGE.lines() {
        match line.strip_prefix("    ") {
            Some(line) => match line.strip_prefix("$ ") {
                Some(command) => {
                    steps.push(Step { command: command.to_owned(), answers: Vec::new() });
                    is_answered = true;
                }
                None if is_answered => steps.last_mut().unwrap().answers.push(line.to_owned()),
                None => {}
            },
            None => is_answered = false,
        }
    }
    steps
}

/// Whether the parts between `…` stand in a line in this order. How wide columns are is psql's business.
fn matches(line: &str, wanted: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, mut from) = (plain(line), 0);
    wanted.split('…').map(plain).all(|part| match line[from..].find(&part) {
        Some(at) => {
            from += at + part.len();
            true
        }
        None => false,
    })
}

/// Whether it may be typed again.
fn changes_nothing(command: &str) -> bool {
    let words = ["members", "conflicts", "doctor", "verify", "events"];
    command.contains("\"SELECT ") || words.iter().any(|word| command.starts_with(&format!("gcs {word} ")))
}

/// The page's commands in a directory, on ports and with programs of this test's own.
struct Reader {
    directory: PathBuf,
    base_port: u16,
    path: String,
}

impl Reader {
    fn adapt(&self, text: &str) -> String {
        let mut text = text.replace(DIRECTORY, &self.directory.display().to_string());
        for number in 0..8 {
            text = text.replace(&format!(":{}", PORT + number), &format!(":{}", self.base_port + number));
        }
        text.replace("playground start ", &format!("playground start --base-port {} ", self.base_port))
    }

    /// What the command says, on both outputs.
    fn type_in(&self, command: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{command} 2>&1")]).env("PATH", &self.path);
        String::from_utf8_lossy(&shell.output().unwrap().stdout).into_owned()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.directory.exists() {
            self.type_in(&self.adapt(&format!("gcs playground stop --dir {DIRECTORY}")));
        }
    }
}

fn path(gcs: &Path) -> String {
    let psql = find_postgres().unwrap();
    let all = std::env::var("PATH").unwrap_or_default();
    format!("{}:{}:{all}", gcs.parent().unwrap().display(), psql.display())
}

#[test]
fn every_command_of_the_page_answers_as_it_says() {
    let parent = tempfile::Builder::new().prefix("postgres_r.").tempdir_in("/tmp").unwrap();
    // PostgreSQL runs as another user.
    Command::new("chmod").arg("755").arg(parent.path()).status().unwrap();
    let base_port = ports::free_base();
    let reader = Reader { directory: parent.path().join("play"), base_port, path: path(&harness::gcs()) };
    let steps = steps();
    assert!(steps.len() > 20, "{}", steps.len());
    for Step { command, answers } in steps {
        let typed = reader.adapt(&command);
        let wanted: Vec<String> = answers.iter().map(|answer| reader.adapt(answer)).collect();
        // Nobody types as fast as a test: what was done on one node is on the others a moment later.
        wait::until(&format!("$ {command}"), WITHIN, || {
            let said = reader.type_in(&typed);
            match wanted.iter().find(|wanted| !said.lines().any(|line| matches(line, wanted))) {
                None => Ok(()),
                Some(missing) => {
                    let why = format!("says no \"{missing}\", but\n{said}");
                    assert!(said.contains("ERROR") || changes_nothing(&command), "$ {command}\n{why}");
                    Err(why)
                }
            }
        });
    }
    assert!(!reader.directory.exists(), "the page removes what it has made");
}
