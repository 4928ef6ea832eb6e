//! What clients do: pgbench's own scripts, and a few of ours.

use std::io::Write;
use std::path::Path;

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: &'static str,
    /// For pgbench, beside the script.
    arguments: &'static [&'static str],
    script: Option<&'static str>,
}

/// Beside pgbench's tables.
pub const TABLES: &str = "CREATE TABLE inserted (id bigserial PRIMARY KEY, filler text NOT NULL)";

pub const LOADS: [Load; 5] = [
    Load { name: "simple-update", arguments: &["-N"], script: None },
    Load { name: "tpcb-like", arguments: &[], script: None },
    Load {
        name: "insert-only",
        arguments: &[],
        script: Some("INSERT INTO inserted (filler) VALUES ('forty characters of nothing in particular');\n"),
    },
    Load { name: "select-only", arguments: &["-S"], script: None },
    Load { name: "90-10", arguments: &["-b", "select-only@9", "-b", "simple-update@1"], script: None },
];

impl Load {
    /// All of them, or those that `names` picks. An unknown name is an error.
    pub fn pick(names: Option<&str>) -> Result<Vec<Load>, String> {
        let Some(names) = names else { return Ok(LOADS.to_vec()) };
        let find = |name| LOADS.into_iter().find(|load| load.name == name).ok_or_else(|| format!("there is no load {name}"));
        names.split_whitespace().map(find).collect()
    }

    /// For pgbench; what it reads is written to the directory.
    pub fn arguments(&self, directory: &Path) -> std::io::Result<Vec<String>> {
        let mut all: Vec<String> = self.arguments.iter().map(|&argument| argument.to_owned()).collect();
        if let Some(script) = self.script {
            let path = directory.join(format!("{}.sql", self.name));
            std::fs::File::create(&path)?.write_all(script.as_bytes())?;
            all.extend(["-f".to_owned(), path.display().to_string()]);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_picked_by_name() {
        assert_eq!(Load::pick(None).unwrap().len(), LOADS.len());
        let picked = Load::pick(Some("insert-only simple-update")).unwrap();
        assert_eq!(picked.iter().map(|load| load.name).collect::<Vec<_>>(), ["insert-only", "simple-update"]);
        assert_eq!(Load::pick(Some("nothing")), Err("there is no load nothing".to_owned()));
    }
}
