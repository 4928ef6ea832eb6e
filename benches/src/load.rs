//! What clients do: pgbench's own scripts and one of ours, and the scripts that come with sysbench.

use std::io::Write;
use std::path::Path;

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: &'static str,
    pub tool: Tool,
}

/// The program that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Pgbench {
        /// Beside the script.
        arguments: &'static [&'static str],
        script: Option<&'static str>,
        data: Data,
    },
    /// The script has the name of the load.
    Sysbench,
}

/// The tables that a load works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// pgbench's, as large as the settings say, and ours.
    Pgbench,
    /// pgbench's once more in a schema of their own, so small that their rows are hot.
    Hot,
    Sysbench,
}

/// Beside pgbench's tables.
pub const TABLES: &str = "CREATE TABLE inserted (id bigserial PRIMARY KEY, filler text NOT NULL)";
/// Of pgbench's tables with hot rows.
pub const HOT_SCALE: u32 = 10;
pub const HOT_SCHEMA: &str = "hot";

pub const LOADS: [Load; 10] = [
    pgbench("simple-update", &["-N"], None, Data::Pgbench),
    pgbench("tpcb-like", &[], None, Data::Pgbench),
    pgbench("tpcb-hot", &[], None, Data::Hot),
    pgbench("insert-only", &[], Some(INSERT), Data::Pgbench),
    pgbench("select-only", &["-S"], None, Data::Pgbench),
    pgbench("90-10", &["-b", "select-only@9", "-b", "simple-update@1"], None, Data::Pgbench),
    sysbench("oltp_update_index"),
    sysbench("oltp_update_non_index"),
    sysbench("oltp_write_only"),
    sysbench("oltp_read_write"),
];

const INSERT: &str = "INSERT INTO inserted (filler) VALUES ('forty characters of nothing in particular');\n";

const fn pgbench(name: &'static str, arguments: &'static [&'static str], script: Option<&'static str>, data: Data) -> Load {
    Load { name, tool: Tool::Pgbench { arguments, script, data } }
}

const fn sysbench(name: &'static str) -> Load {
    Load { name, tool: Tool::Sysbench }
}

impl Load {
    /// All of them, or those that `names` picks. An unknown name is an error.
    pub fn pick(names: Option<&str>) -> Result<Vec<Load>, String> {
        let Some(names) = names else { return Ok(LOADS.to_vec()) };
        let find = |name| LOADS.into_iter().find(|load| load.name == name).ok_or_else(|| format!("there is no load {name}"));
        names.split_whitespace().map(find).collect()
    }

    pub fn data(&self) -> Data {
        match self.tool {
            Tool::Pgbench { data, .. } => data,
            Tool::Sysbench => Data::Sysbench,
        }
    }

    /// Settings of the clients' sessions, as PGOPTIONS has them.
    pub fn options(&self) -> String {
        self.data().options()
    }
}

impl Data {
    /// Settings of sessions that see these tables.
    pub fn options(self) -> String {
        match self {
            Data::Hot => format!("-c search_path={HOT_SCHEMA}"),
            Data::Pgbench | Data::Sysbench => String::new(),
        }
    }
}

/// For pgbench; a script is written to the directory, under the load's name.
pub fn arguments(name: &str, arguments: &[&str], script: Option<&str>, directory: &Path) -> std::io::Result<Vec<String>> {
    let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    if let Some(script) = script {
        let path = directory.join(format!("{name}.sql"));
        std::fs::File::create(&path)?.write_all(script.as_bytes())?;
        all.extend(["-f".to_owned(), path.display().to_string()]);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_picked_by_name() {
        assert_eq!(Load::pick(None).unwrap().len(), LOADS.len());
        let picked = Load::pick(Some("insert-only oltp_write_only")).unwrap();
        assert_eq!(picked.iter().map(|load| load.name).collect::<Vec<_>>(), ["insert-only", "oltp_write_only"]);
        assert_eq!(Load::pick(Some("nothing")), Err("there is no load nothing".to_owned()));
    }

    #[test]
    fn hot_rows_are_in_a_schema_of_their_own() {
        let options = |name| Load::pick(Some(name)).unwrap()[0].options();
        assert_eq!(options("tpcb-hot"), "-c search_path=hot");
        assert_eq!(options("tpcb-like"), "");
    }
}
