//! Every mistake of a configuration file, not only the first: for `gcs config check`.
//!
//! TOML is read by serde, which ends at the first mistake. So the line of each one is taken out, in a copy, and the rest read again. A key that had to go for its value is not missed
//! afterwards; a table that lacks something goes as a whole. What the file then says is checked, each thing by itself. Where the text is not TOML at all, it ends there.

use std::path::Path;

use super::{Config, File, check, in_words, line_of, problems};

/// In one file. Beyond that there is likely no configuration in it.
const MISTAKES_MAX: usize = 50;

/// What stands for a key that is missing, so that the rest can be looked at.
const PLACEHOLDER: &str = "missing:1";

/// The keys that every file has, and how they are written.
const REQUIRED: [(&str, &str); 5] = [
    ("name", "name = \"node1\""),
    ("group", "group = \"postgresr\""),
    ("data_directory", "data_directory = \"/var/lib/gcs/data\""),
    ("local_socket", "local_socket = \"/run/gcs/gcs.sock\""),
    ("peer_address", "peer_address = \"10.0.0.1:7001\""),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counts from 1; none where it is about the file as a whole.
    pub line: Option<usize>,
    pub message: String,
}

/// The configuration that the text is; relative paths are relative to `base`.
///
/// # Errors
/// Every mistake, by line.
pub fn examine(text: &str, base: &Path) -> Result<Config, Vec<Mistake>> {
    let mut copy = Copy::of(text);
    if let Some(file) = copy.read() {
        // What was put in the place of something is not to be judged.
        let judged = problems(&file).into_iter().filter(|(key, _)| !copy.placed.iter().any(|placed| placed == key));
        let more: Vec<Mistake> = judged.map(|(key, message)| Mistake { line: line_of_key(text, key), message }).collect();
        copy.mistakes.extend(more);
        if copy.mistakes.is_empty() {
            return check(file, base).map_err(|message| vec![Mistake { line: None, message }]);
        }
    }
    copy.mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(0));
    Err(copy.mistakes)
}

/// The text without what was found to be wrong so far.
struct Copy {
    lines: Vec<String>,
    /// Keys that stand before all lines, each with a placeholder, and keys whose lines were taken out.
    placed: Vec<String>,
    taken: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl Copy {
    fn of(text: &str) -> Copy {
        let lines = text.lines().map(str::to_owned).collect();
        Copy { lines, placed: Vec::new(), taken: Vec::new(), mistakes: Vec::new() }
    }

    /// The file, once all that cannot be read has been taken out; none if that is not possible.
    fn read(&mut self) -> Option<File> {
        let mut was_toml = false;
        while self.mistakes.len() < MISTAKES_MAX {
            // A first line of its own: what is missing from the file as a whole is said of that.
            let placed: String = self.placed.iter().map(|key| format!("{key} = \"{PLACEHOLDER}\"\n")).collect();
            let left = format!("#\n{placed}{}\n", self.lines.join("\n"));
            let above = 1 + self.placed.len();
            if let Err(error) = toml::from_str::<toml::Table>(&left) {
                // Else a line was taken out of the middle of something.
                if !was_toml {
                    let line = line_of(&left, &error).saturating_sub(above);
                    self.mistakes.push(Mistake { line: Some(line), message: in_words(&error) });
                }
                return None;
            }
            was_toml = true;
            let error = match toml::from_str::<File>(&left) {
                Ok(file) => return Some(file),
                Err(error) => error,
            };
            let (line, missing) = (line_of(&left, &error), missing(error.message()));
            let is_mended = match (line.checked_sub(above + 1), missing) {
                (None, Some(key)) => self.place(key),
                (None, None) => false,
                (Some(at), missing) => self.take(at, in_words(&error), missing.is_some()),
            };
            if !is_mended {
                return None;
            }
        }
        None
    }

    fn place(&mut self, key: &str) -> bool {
        if self.placed.iter().any(|placed| placed == key) {
            return false;
        }
        if !self.taken.iter().any(|taken| taken == key) {
            let example = REQUIRED.iter().find(|(required, _)| *required == key);
            let example = example.map(|(_, line)| format!(": write, for instance, {line}")).unwrap_or_default();
            self.mistakes.push(Mistake { line: None, message: format!("\"{key}\" is missing{example}") });
        }
        self.placed.push(key.to_owned());
        true
    }

    /// Takes out a line, or the table that begins there.
    fn take(&mut self, at: usize, message: String, is_missing: bool) -> bool {
        let Some(content) = self.lines.get(at).cloned() else { return false };
        if content.trim().is_empty() {
            return false;
        }
        self.mistakes.push(Mistake { line: Some(at + 1), message });
        if let Some((key, _)) = content.split_once('=') {
            self.taken.push(key.trim().to_owned());
        }
        self.lines[at].clear();
        if is_missing || content.trim_start().starts_with('[') {
            let rest = self.lines[at + 1..].iter_mut();
            rest.take_while(|line| !line.trim_start().starts_with('[')).for_each(String::clear);
        }
        true
    }
}

/// The field that a message of serde says is missing.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// Where the key, or the table, stands first.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let is_it = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| key.starts_with('[') || rest.trim_start().starts_with('='))
    };
    text.lines().position(is_it).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Option<usize>, String)> {
        let mistakes = examine(text, Path::new("/etc")).err().unwrap_or_default();
        mistakes.into_iter().map(|Mistake { line, message }| (line, message)).collect()
    }

    const GOOD: &str =
        "name = \"n1\"\ngroup = \"g\"\ndata_directory = \"d\"\nlocal_socket = \"s\"\npeer_address = \"127.0.0.1:1\"\n";

    #[test]
    fn a_good_file_has_no_mistakes() {
        assert_eq!(found(GOOD), []);
        assert_eq!(examine(GOOD, Path::new("/etc")).unwrap().data_directory, Path::new("/etc/d"));
    }

    #[test]
    fn all_mistakes_are_said_with_their_lines() {
        let text = "nmae = \"n1\"\ngroup = 3\ndata_directory = \"d\"\nlocal_socket = \"s\"\npeer_address = \"here\"\nlog_retention = \"1 MB\"\n\
                    [[peers]]\nname = \"n2\"\n[log]\nlevel = \"loud\"\n";
        let said = found(text);
        let lines: Vec<Option<usize>> = said.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [None, Some(1), Some(2), Some(5), Some(6), Some(7), Some(10)], "{said:#?}");
        let expected = [
            "\"name\" is missing: write",
            "did you mean \"name\"",
            "expected a string",
            "must be host:port",
            "at least 64 MB",
            "\"address\"",
            "loud",
        ];
        for ((_, message), expected) in said.iter().zip(expected) {
            assert!(message.contains(expected), "{message}: {expected}");
        }
    }

    #[test]
    fn of_what_is_no_toml_the_first_line_is_said() {
        let said = found(&format!("{GOOD}x = = 1\n"));
        assert_eq!(said.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [Some(6)], "{said:#?}");
        assert_eq!(found(&format!("join = [\n 1,\n 2\n]\n{GOOD}")).len(), 2);
        assert_eq!(found("").len(), 5);
    }
}
