//! docs/statements.md says of each of PostgreSQL's commands whether it is replicated, of one node, or refused. It is written by this test: the
//! statements of tests/compatibility/statements.txt are run, and what becomes of them is seen by the group's order, in which a transaction has a
//! position or has not. `UPDATE_DOCS=1` writes the page; without it the test fails when the page says something else.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gcs::playground::Part;
use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node};

const STATEMENTS: &str = include_str!("../compatibility/statements.txt");
/// They have tests of their own: the first needs a provider of labels in the server.
const ELSEWHERE: [&str; 1] = ["SECURITY LABEL"];

const HEAD: &str = "# Statements

What becomes of PostgreSQL's commands on a node of a group, as seen by running them. Written by the test `e2e_statements_listed` from
`tests/compatibility/statements.txt`; `UPDATE_DOCS=1` writes it anew. [compatibility.md](compatibility.md) says more, and why.

- **replicated**: its transaction has a position in the group's order, and every node applies it.
- **this node**: nothing of it goes anywhere else. Queries and statements about the session are of this kind, and what is temporary.
- **refused**: an error with SQLSTATE 0A000 and the name of what is not supported, before anything has happened.

| command | statement | |
|---|---|---|
";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/statements.md")
}

/// Every command that psql knows help for.
fn commands(group: &Group) -> BTreeSet<String> {
    let port = group.value(node(1), "current_setting('port')");
    let output = Command::new("psql")
        .args(["-XA", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", group.database(), "-c", "\\h *"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("Command:")).map(|name| name.trim().to_owned()).collect()
}

fn position(client: &mut Client) -> String {
    client.query_one("SELECT postgres_r.committed_position()::text", &[]).unwrap().get(0)
}

/// What becomes of a statement; or an error that has nothing to do with the group.
fn judge(client: &mut Client, watcher: &mut Client, statement: &str) -> Result<&'static str, String> {
    let before = position(watcher);
    match client.batch_execute(statement) {
        Ok(()) if position(watcher) == before => Ok("this node"),
        Ok(()) => Ok("replicated"),
        // PostgreSQL has its own of this code.
        Err(error) if error.code().is_some_and(|code| code.code() == "0A000") && describe(&error).contains("replicated") => {
            Ok("refused")
        }
        Err(error) => Err(format!("{statement}: {}", describe(&error))),
    }
}

#[test]
fn the_page_says_what_becomes_of_every_statement() {
    let group = harness::shared();
    for number in group.numbers() {
        group.execute(number, "ALTER SYSTEM SET max_prepared_transactions = 5");
        group.kill(number, Part::Postgres);
        group.start_node(number);
    }
    group.settle();
    let directory = group.dir().join("tablespace");
    group.execute(node(1), &format!("COPY (SELECT 1) TO PROGRAM 'mkdir {}'", directory.display()));
    let port = group.value(node(1), "current_setting('port')");
    let (mut client, mut watcher) = (group.connect(node(1)), group.connect(node(1)));
    // What is acknowledged may be shown here a moment later.
    watcher.batch_execute("SET postgres_r.read_level = strong").unwrap();
    let mut failures = Vec::new();
    let mut page_of: BTreeMap<&str, Vec<(String, &str)>> = BTreeMap::new();
    for line in STATEMENTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (command, statement) = line.split_once(" | ").unwrap_or_else(|| panic!("no command: {line}"));
        let real = statement.replace("{directory}", &directory.display().to_string()).replace("{port}", &port);
        if let Some(prepares) = real.strip_prefix("+ ") {
            let failure = client.batch_execute(prepares).err();
            failures.extend(failure.map(|error| format!("{prepares}: {}", describe(&error))));
            continue;
        }
        let statements = page_of.entry(command).or_default();
        match judge(&mut client, &mut watcher, &real) {
            Ok(judgement) => statements.push((statement.to_owned(), judgement)),
            Err(failure) => failures.push(failure),
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    let listed: BTreeSet<String> = page_of.keys().copied().chain(ELSEWHERE).map(str::to_owned).collect();
    let known = commands(&group);
    assert!(known.len() > 150, "{known:?}");
    assert_eq!(listed, known);
    group.settle();
    harness::assert_equal(&group);

    let mut text = HEAD.to_owned();
    for (command, statements) in &page_of {
        for (statement, judgement) in statements {
            writeln!(text, "| {command} | `{}` | {judgement} |", statement.replace('|', "\\|")).unwrap();
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page(), text).unwrap();
    } else {
        let there = std::fs::read_to_string(page()).unwrap();
        for (here, written) in text.lines().zip(there.lines()) {
            assert_eq!(here, written, "docs/statements.md is of another time: run with UPDATE_DOCS=1");
        }
        assert_eq!(text, there);
    }
}
