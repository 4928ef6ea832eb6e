//! That this directory's node is no member of its group any more, once it has been told: a file `removed` with the reason. So it is known
//! after a restart too, when nobody may be there to say so again.

use std::path::Path;

use super::{LogError, write_atomically};

pub fn note(data_directory: &Path, why: &str) -> Result<(), LogError> {
    write_atomically(&data_directory.join("removed"), why.as_bytes())
}

/// What was noted, if it was.
pub fn noted(data_directory: &Path) -> Result<Option<String>, LogError> {
    let path = data_directory.join("removed");
    match std::fs::read_to_string(&path) {
        Ok(why) => Ok(Some(why)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LogError::Io { action: "read", path, source }),
    }
}
