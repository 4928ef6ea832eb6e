//! `[hooks]` in the configuration: a command that is run with each event of the history ([`crate::history`]).

use std::path::Path;

use serde::Deserialize;

/// The table as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// The program by its whole path, and its arguments, word by word: no shell looks at them.
    command: Vec<String>,
}

impl Table {
    /// What the daemon finds under a name alone depends on who has started it.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.command.first() {
            None => Err("hooks.command is empty: it names a program, and its arguments".to_owned()),
            Some(program) if !Path::new(program).is_absolute() => {
                Err(format!("hooks.command begins with \"{program}\", but must begin with the whole path of a program"))
            }
            Some(_) if self.command.iter().any(|word| word.contains('\0')) => {
                Err("hooks.command has a word with a zero byte in it".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn resolve(self) -> Vec<String> {
        self.command
    }
}
