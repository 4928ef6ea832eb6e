//! Files of expected output. `ACCEPT=1` in the environment writes what came instead of comparing it: read the diff before you
//! commit it.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines shown around a difference.
const CONTEXT: usize = 4;

/// tests/isolation, where the specs are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("isolation")
}

/// Fails, saying where, unless the output equals expected/<name>.out.
pub fn check(name: &str, output: &str) -> Result<(), String> {
    let file = directory().join("expected").join(format!("{name}.out"));
    if std::env::var_os("ACCEPT").is_some() {
        return fs::write(&file, output).map_err(|error| format!("{}: {error}", file.display()));
    }
    let expected = fs::read_to_string(&file).map_err(|error| format!("{}: {error}; ACCEPT=1 writes it", file.display()))?;
    if expected == output { Ok(()) } else { Err(format!("{}: {}", file.display(), difference(&expected, output))) }
}

fn difference(expected: &str, output: &str) -> String {
    let (expected, output): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), output.lines().collect());
    let at = expected.iter().zip(&output).take_while(|(a, b)| a == b).count();
    let from = at.saturating_sub(CONTEXT);
    let part = |lines: &[&str]| lines[from.min(lines.len())..(at + CONTEXT).min(lines.len())].join("\n  ");
    format!("line {}\nexpected:\n  {}\ncame:\n  {}", at + 1, part(&expected), part(&output))
}
