//! The committed figures, and whether what was counted now is still about the same.
//!
//! `benches/instructions.json` has a section for each file of tests, with the compiler that the counted program was made by: another version
//! makes other code, so its counts are printed and not compared until somebody updates the file. Fewer instructions than committed are
//! a failure too, so that what was gained is committed and can't be lost again unseen.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::source::tree::root;

/// Makes the check write the file instead of reading it.
const UPDATE: &str = "UPDATE_INSTRUCTIONS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub instructions: u64,
    /// Percent by which it may differ.
    pub tolerance: u64,
}

/// What was counted in one run.
pub struct Counted<'a> {
    /// The section of the file.
    pub section: &'a str,
    /// See [`compiler_of`].
    pub compiler: String,
    /// What else is counted along and is not of this project, with its version; said where a check fails.
    pub with: String,
    pub counts: BTreeMap<&'static str, Count>,
}

/// Where the figures are, below the project's root.
const FILE: &str = "benches/instructions.json";

/// Compares with the file, or writes it if that is asked for. The error has a line for each count that differs.
pub fn check(counted: &Counted) -> Result<(), String> {
    let path = root().join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
    let mut sections: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| format!("{} is not understood: {error}", path.display()))?;
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        sections.insert(counted.section.to_owned(), section(counted));
        let text = serde_json::to_string_pretty(&sections).map_err(|error| error.to_string())?;
        say(&format!("{FILE}: figures of section \"{}\" are written", counted.section));
        return fs::write(&path, text + "\n").map_err(|error| format!("could not write {}: {error}", path.display()));
    }
    let compared = compare(sections.get(counted.section).unwrap_or(&Value::Null), counted);
    let how = format!("If that is wanted, this test with {UPDATE}=1 writes {FILE}; commit it, and say why.");
    say(&compared.table);
    if compared.wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{how}", compared.wrong.join("\n"))) }
}

fn section(counted: &Counted) -> Value {
    let counts: BTreeMap<&str, u64> = counted.counts.iter().map(|(name, count)| (*name, count.instructions)).collect();
    json!({ "compiler": counted.compiler, "with": counted.with, "counts": counts })
}

struct Compared {
    table: String,
    wrong: Vec<String>,
}

fn compare(committed: &Value, counted: &Counted) -> Compared {
    let compiler = committed["compiler"].as_str().unwrap_or("no compiler");
    let with = committed["with"].as_str().unwrap_or_default();
    let is_comparable = compiler == counted.compiler && major(with) == major(&counted.with);
    let mut table = format!("instructions, {}, by {}\n", counted.section, counted.compiler);
    if !is_comparable {
        table += &format!("  not compared: the committed figures are of {compiler}, {with}; {UPDATE}=1 writes new ones\n");
    }
    let mut wrong = Vec::new();
    for (name, &Count { instructions: now, tolerance }) in &counted.counts {
        let before = committed["counts"][name].as_u64();
        let known = before.map_or("not committed".to_owned(), |before| format!("committed {before}"));
        table += &format!("  {now:>9}  {name} ({known})\n");
        match before {
            _ if !is_comparable => {}
            None => wrong.push(format!("{name}: {now} instructions, and no committed figure.")),
            Some(before) if now * 100 > before * (100 + tolerance) => {
                wrong.push(format!("{name}: {now} instructions, {} more than {before}.", percent(now, before)));
            }
            Some(before) if now * 100 < before * (100 - tolerance) => {
                wrong.push(format!(
                    "{name}: {now} instructions, {} less than {before}: a gain to be kept.",
                    percent(now, before)
                ));
            }
            Some(_) => {}
        }
    }
    let committed_names = committed["counts"].as_object().into_iter().flat_map(|counts| counts.keys());
    let gone = committed_names.filter(|name| is_comparable && !counted.counts.contains_key(name.as_str()));
    wrong.extend(gone.map(|name| format!("{name}: has a committed figure, but is not counted any more.")));
    if !wrong.is_empty() && with != counted.with {
        wrong.push(format!("The committed figures were counted with {with}, these with {}.", counted.with));
    }
    Compared { table, wrong }
}

/// 15 of "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)".
fn major(with: &str) -> Option<&str> {
    let version = with.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split('.').next()
}

fn percent(now: u64, before: u64) -> String {
    format!("{:.1} %", now.abs_diff(before) as f64 * 100.0 / before.max(1) as f64)
}

/// Seen also when the test passes: only what is printed by macros is held back.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The compiler of a program or library, as it says itself (rustc leaves its version in the section `.comment`), and the processor's kind.
pub fn compiler_of(program: &Path) -> Result<String, String> {
    const SAYS: &[u8] = b"rustc version ";
    let bytes = fs::read(program).map_err(|error| format!("could not read {}: {error}", program.display()))?;
    let mut found = bytes.windows(SAYS.len()).enumerate().filter(|(_, window)| *window == SAYS);
    // These words also stand in this very program, with no number behind them.
    let version = found.find_map(|(at, _)| {
        let rest = &bytes[at + SAYS.len()..];
        let end = rest.iter().position(|&byte| byte == b')')?;
        rest[0].is_ascii_digit().then(|| String::from_utf8_lossy(&rest[..=end]).into_owned())
    });
    let version = version.ok_or_else(|| format!("{} does not say which rustc made it", program.display()))?;
    Ok(format!("rustc {version} for {}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(now: u64) -> Counted<'static> {
        let counts = BTreeMap::from([("encode", Count { instructions: now, tolerance: 5 })]);
        Counted { section: "core", compiler: "rustc 1".to_owned(), with: String::new(), counts }
    }

    fn wrong(before: u64, now: u64) -> Vec<String> {
        compare(&section(&counted(before)), &counted(now)).wrong
    }

    #[test]
    fn what_differs_by_more_than_the_tolerance_is_wrong_either_way() {
        assert!(wrong(1000, 1050).is_empty() && wrong(1000, 950).is_empty());
        assert_eq!(wrong(1000, 1051), ["encode: 1051 instructions, 5.1 % more than 1000."]);
        assert_eq!(wrong(1000, 949), ["encode: 949 instructions, 5.1 % less than 1000: a gain to be kept."]);
    }

    #[test]
    fn what_is_new_or_gone_is_wrong() {
        let empty = json!({ "compiler": "rustc 1", "counts": {} });
        assert_eq!(compare(&empty, &counted(7)).wrong, ["encode: 7 instructions, and no committed figure."]);
        let two = json!({ "compiler": "rustc 1", "counts": { "encode": 7, "decode": 9 } });
        assert_eq!(compare(&two, &counted(7)).wrong, ["decode: has a committed figure, but is not counted any more."]);
    }

    #[test]
    fn what_else_differs_is_said_where_a_check_fails() {
        let with = |with: &str, now| Counted { with: with.to_owned(), ..counted(now) };
        let newer = with("PostgreSQL 15.9", 1000);
        assert!(compare(&section(&with("PostgreSQL 15.2", 1000)), &newer).wrong.is_empty());
        let wrong = compare(&section(&with("PostgreSQL 15.2", 7)), &newer).wrong;
        assert!(wrong[1].contains("with PostgreSQL 15.2, these with PostgreSQL 15.9"), "{wrong:?}");
        let other =
            compare(&section(&with("postgres (PostgreSQL) 15.2 (Debian)", 7)), &with("postgres (PostgreSQL) 18.6", 1000));
        assert!(other.wrong.is_empty() && other.table.contains("not compared"), "{}", other.table);
    }

    #[test]
    fn figures_of_another_compiler_are_not_compared() {
        let other = Counted { compiler: "rustc 2".to_owned(), ..counted(7) };
        let compared = compare(&section(&counted(1000)), &other);
        assert!(compared.wrong.is_empty());
        assert!(compared.table.contains("not compared: the committed figures are of rustc 1"), "{}", compared.table);
    }

    #[test]
    fn a_program_says_which_compiler_made_it() {
        let compiler = compiler_of(&std::env::current_exe().unwrap()).unwrap();
        assert!(compiler.starts_with("rustc 1."), "{compiler}");
    }
}
