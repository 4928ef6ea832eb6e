//! House style that a machine can check. Each failure says how to mend it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};

use postgres_r_tests::source::functions::functions;
use postgres_r_tests::source::tree::{files, read, root};
use postgres_r_tests::source::words::words;

/// About 600 lines of code, and room for tests.
const FILE_LINES_MAX: usize = 700;

/// What a screen shows.
const FUNCTION_LINES_MAX: usize = 70;

/// What each crate of ours may depend on, of ours (docs/architecture.md: one direction through the rooms).
const LAYERS: [(&str, &[&str]); 8] = [
    ("gcs/writeset", &[]),
    ("gcs/core", &["gcs_writeset"]),
    ("gcs/proto", &["gcs_core", "gcs_writeset"]),
    ("gcs", &["gcs_core", "gcs_proto", "gcs_writeset"]),
    ("extension/protocol", &["gcs_writeset"]),
    ("extension", &["gcs_writeset", "postgres_r_protocol"]),
    ("tests", &["gcs", "gcs_core", "gcs_proto", "gcs_writeset", "postgres_r_protocol"]),
    ("benches", &["gcs", "gcs_core", "gcs_proto", "gcs_writeset", "postgres_r_protocol", "postgres_r_tests"]),
];

/// Must never be linked into PostgreSQL, not even by way of something else.
const NOT_IN_POSTGRESQL: [&str; 4] = ["raft", "raft-engine", "gcs_core", "gcs"];

fn assert_none(wrong: Vec<String>, how_to_mend: &str) {
    assert!(wrong.is_empty(), "{how_to_mend}\n  {}", wrong.join("\n  "));
}

fn manifest(directory: &str) -> toml::Table {
    read(&root().join(directory).join("Cargo.toml")).parse().unwrap()
}

#[test]
fn crates_depend_in_one_direction() {
    let ours: BTreeSet<String> =
        LAYERS.iter().map(|(directory, _)| manifest(directory)["package"]["name"].as_str().unwrap().to_owned()).collect();
    let mut wrong = Vec::new();
    for (directory, allowed) in LAYERS {
        let manifest = manifest(directory);
        let Some(dependencies) = manifest.get("dependencies").and_then(|table| table.as_table()) else { continue };
        for name in dependencies.keys().filter(|name| ours.contains(*name) && !allowed.contains(&name.as_str())) {
            wrong.push(format!("{directory} depends on {name}"));
        }
    }
    assert_none(wrong, "one direction through the rooms (docs/architecture.md); move what is shared to the lower crate:");
}

#[test]
fn raft_is_never_linked_into_postgresql() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().unwrap();
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let dependencies = package.get("dependencies").and_then(|list| list.as_array()).into_iter().flatten();
        let names = dependencies.map(|entry| entry.as_str().unwrap().split(' ').next().unwrap());
        graph.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    let mut seen = BTreeSet::new();
    let mut open = vec!["postgres_r"];
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(graph.get(name).into_iter().flatten());
        }
    }
    let wrong = NOT_IN_POSTGRESQL.iter().filter(|name| seen.contains(**name)).map(|name| (*name).to_owned()).collect();
    assert_none(
        wrong,
        "the extension links, directly or not, what belongs to the daemon; talk to it over the link instead:",
    );
}

#[test]
fn the_lints_hold_for_every_crate() {
    let wrong = LAYERS.iter().map(|(directory, _)| *directory);
    let wrong = wrong.filter(|directory| manifest(directory).get("lints").is_none()).map(str::to_owned).collect();
    assert_none(wrong, "add `[lints]` with `workspace = true` to Cargo.toml of:");
}

#[test]
fn unsafe_code_stands_only_inside_the_fence() {
    let mut wrong = Vec::new();
    for (path, text) in files(".rs").into_iter().filter(|(path, _)| !path.starts_with("extension/src/pg/")) {
        let found = words(&text).into_iter().filter(|word| word.text == "unsafe");
        wrong.extend(found.map(|word| format!("{path}:{}", word.line)));
    }
    assert_none(wrong, "only extension/src/pg/ knows `unsafe`; give what is needed here a safe type there:");
}

#[test]
fn every_module_opens_with_an_essay() {
    let wrong = files(".rs").into_iter().filter(|(_, text)| !text.starts_with("//! "));
    let wrong = wrong.map(|(path, _)| path).filter(|path| path != "extension/src/bin/pgrx_embed.rs").collect();
    assert_none(wrong, "say on top, in `//!`, what the module is for, its invariants, what it leaves out:");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let long = files(".rs").into_iter().map(|(path, text)| (path, text.lines().count()));
    let wrong =
        long.filter(|(_, lines)| *lines > FILE_LINES_MAX).map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    assert_none(wrong, &format!("split files of more than {FILE_LINES_MAX} lines along their types:"));
}

#[test]
fn functions_can_be_read_without_scrolling() {
    let mut wrong = Vec::new();
    for (path, text) in files(".rs") {
        let long = functions(&text).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
        wrong.extend(long.map(|function| format!("{path}:{}: {}, {} lines", function.line, function.name, function.lines)));
    }
    let how = format!(
        "split functions of more than {FUNCTION_LINES_MAX} lines along their meaning: name each step as a function, or make a table of \
         what is listed:"
    );
    assert_none(wrong, &how);
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    let attribute = ["#[", "ignore]"].concat();
    let wrong = files(".rs").into_iter().filter(|(_, text)| text.contains(&attribute)).map(|(path, _)| path).collect();
    assert_none(wrong, "write #[ignore = \"why, and when it runs\"]:");
}

#[test]
fn every_setting_is_documented() {
    let path = root().join("extension/src/guc.rs");
    if !path.exists() {
        return;
    }
    let docs = read(&root().join("docs/settings.md"));
    let text = read(&path);
    let names: BTreeSet<&str> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .filter(|word| word.strip_prefix("postgres_r.").is_some_and(|name| !name.is_empty()))
        .map(|word| word.trim_end_matches('.'))
        .collect();
    let wrong = names.into_iter().filter(|name| !docs.contains(&format!("`{name}`"))).map(str::to_owned).collect();
    assert_none(wrong, "describe these settings, in back quotes, in docs/settings.md:");
}

/// PostgreSQL's guide: a primary message begins in lower case, unless with a name, and has no full stop.
#[test]
fn error_messages_follow_postgresqls_style() {
    let mut wrong = Vec::new();
    for (path, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            let Some(message) = line.trim().strip_prefix("#[error(\"").and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            let mut letters = message.chars();
            let (first, second) = (letters.next().unwrap_or(' '), letters.next().unwrap_or(' '));
            let is_name = message.starts_with("PostgreSQL") || second.is_uppercase();
            if (first.is_uppercase() && !is_name) || message.ends_with('.') {
                wrong.push(format!("{path}:{}: {message}", number + 1));
            }
        }
    }
    assert_none(wrong, "primary messages begin in lower case and have no full stop; sentences go into detail and hint:");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in files(".md") {
        let directory = root().join(&path).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !directory.join(file).exists() {
                wrong.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none(wrong, "these links lead nowhere; mend or drop them:");
}
