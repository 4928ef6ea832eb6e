//! What goes wrong in a playground: one line that says what, and one that says what to do about it.

use std::fmt;
use std::path::Path;

pub type Result<T> = std::result::Result<T, Error>;

/// Whether the caller asked for something that cannot work, or something failed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Usage,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Error {
        Error { kind: Kind::Usage, message: message.into(), hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Error {
        Error { kind: Kind::Failed, message: message.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Error {
        Error { hint: Some(hint.into()), ..self }
    }

    /// With what went wrong while somebody cleaned up after it.
    pub fn and(self, cleaned_up: Result<()>) -> Error {
        match cleaned_up {
            Ok(()) => self,
            Err(other) => Error { message: format!("{}; {}", self.message, other.message), ..self },
        }
    }

    /// For `map_err` on a file operation.
    pub fn file<'a, E: fmt::Display>(what: &'a str, path: &'a Path) -> impl Fn(E) -> Error + 'a {
        move |error| Error::failed(format!("could not {what} {}: {error}", path.display()))
    }

    /// 2 for what can never work as given, 1 otherwise (see [`crate::cli`]).
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Failed => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
