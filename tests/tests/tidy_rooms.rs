//! Which file may import which: no circles, and one direction through the rooms of the extension (docs/architecture.md).

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::source::circles::circles;
use postgres_r_tests::source::imports::{Imports, imports};

/// Where no files import each other in a circle: every crate.
const WITHOUT_CIRCLES: [&str; 8] = [
    "extension/src",
    "extension/protocol/src",
    "gcs/src",
    "gcs/core/src",
    "gcs/proto/src",
    "gcs/writeset/src",
    "tests/src",
    "benches/src",
];

/// A room of the extension, by the beginning of its files' paths under extension/src, and the rooms that it may import: the table
/// of docs/architecture.md, "Rooms". A process is a room, and the rooms of processes never import each other.
const ROOMS: &[(&str, &[&str])] = &[
    ("pg", &[]),
    ("guc", &[]),
    ("error", &["pg"]),
    ("relations", &["pg"]),
    ("spool", &["pg"]),
    ("link", &["pg"]),
    ("node", &["pg", "guc", "error"]),
    ("session", &["pg", "guc", "error", "relations", "node"]),
    ("summons", &["pg", "guc", "error", "relations", "node", "session"]),
    ("verify", &["pg", "guc", "error", "relations", "node", "session", "summons"]),
    ("turn", &["pg", "guc", "error", "relations", "node", "session", "verify"]),
    ("subscriptions", &["pg", "guc", "error", "relations", "node", "session"]),
    ("sequences", &["pg", "guc", "error", "relations", "node", "session", "summons", "subscriptions"]),
    ("backend", GROUND),
    ("apply", GROUND),
    ("manager", GROUND),
    ("functions", EVERYTHING),
    ("lib", EVERYTHING),
];

/// What the rooms of processes stand on.
const GROUND: &[&str] = &[
    "pg",
    "guc",
    "error",
    "relations",
    "spool",
    "link",
    "node",
    "session",
    "summons",
    "verify",
    "turn",
    "sequences",
    "subscriptions",
];

const EVERYTHING: &[&str] = &["*"];

fn assert_none(wrong: Vec<String>, how_to_mend: &str) {
    assert!(wrong.is_empty(), "{how_to_mend}\n  {}", wrong.join("\n  "));
}

/// Every file of the directory, or of this one file, with what it takes from others there.
fn inside(part: &str) -> Imports {
    let (directory, _) = part.split_once("/src").unwrap();
    let mut imports = imports(directory);
    imports.retain(|file, _| file.starts_with(part));
    for taken in imports.values_mut() {
        taken.retain(|file, _| file.starts_with(part));
    }
    imports
}

#[test]
fn no_circle_of_files() {
    let wrong = WITHOUT_CIRCLES.iter().flat_map(|part| {
        let imports = inside(part);
        assert!(!imports.is_empty(), "{part} has no files any more: mend WITHOUT_CIRCLES");
        circles(&imports)
    });
    assert_none(
        wrong.collect(),
        "these files import each other in a circle, so that none can be understood first; move what both sides need to a lower \
         file that imports neither, or hand it in as an argument:",
    );
}

/// The room that a file is in: the one with the longest name, if several fit.
fn room_of<'a>(file: &str, rooms: &[(&'a str, &[&str])]) -> Option<&'a str> {
    let is_in = |room: &str| file.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    rooms.iter().map(|(room, _)| *room).filter(|room| is_in(room)).max_by_key(|room| room.len())
}

/// What files take from rooms that their own must not import. Paths are those under `source`.
fn against_the_direction(imports: &Imports, source: &str, rooms: &[(&str, &[&str])]) -> Vec<String> {
    let room = |file: &str| room_of(file.strip_prefix(source)?, rooms);
    let mut wrong = Vec::new();
    for (file, taken) in imports {
        let Some(here) = room(file) else { continue };
        let (_, allowed) = rooms.iter().find(|(room, _)| *room == here).unwrap();
        for (from, names) in taken {
            let there = room(from);
            let may = *allowed == EVERYTHING || there.is_some_and(|there| here == there || allowed.contains(&there));
            if !may {
                let there = there.map_or("in no room".to_owned(), |there| format!("room `{there}`"));
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                wrong.push(format!("{file} (room `{here}`) takes from {from} ({there}): {}", names.join(", ")));
            }
        }
    }
    wrong
}

#[test]
fn rooms_import_only_what_lies_below() {
    let imports = imports("extension");
    let source = "extension/src/";
    for (room, _) in ROOMS {
        let stands = imports.keys().any(|file| room_of(&file[source.len()..], ROOMS) == Some(room));
        assert!(stands, "no file is in room `{room}` of the extension any more: mend ROOMS");
    }
    assert_none(
        against_the_direction(&imports, source, ROOMS),
        "these files import a room that theirs may not know; move what both need to the common ground below, hand it in as an \
         argument, or, if the direction itself is wrong, change ROOMS and docs/architecture.md together:",
    );
}

#[test]
fn an_import_against_the_direction_is_found_and_one_within_a_room_is_not() {
    let rooms: &[(&str, &[&str])] = &[("low", &[]), ("high", &["low"]), ("high/inner", &[]), ("top", EVERYTHING)];
    let mut imports = Imports::new();
    let mut takes = |file: &str, from: &str| {
        imports.entry(format!("s/{file}")).or_default().entry(format!("s/{from}")).or_default().insert("X".to_owned());
    };
    takes("high/a.rs", "low.rs");
    takes("high/a.rs", "high/b.rs");
    takes("top.rs", "high/a.rs");
    takes("low.rs", "nowhere.rs");
    takes("top.rs", "nowhere.rs");
    takes("nowhere.rs", "top.rs");
    takes("low/a.rs", "high/a.rs");
    takes("high/inner.rs", "low.rs");
    let expected = [
        "s/high/inner.rs (room `high/inner`) takes from s/low.rs (room `low`): X",
        "s/low.rs (room `low`) takes from s/nowhere.rs (in no room): X",
        "s/low/a.rs (room `low`) takes from s/high/a.rs (room `high`): X",
    ];
    assert_eq!(against_the_direction(&imports, "s/", rooms), expected);
}
