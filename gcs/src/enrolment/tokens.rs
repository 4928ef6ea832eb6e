//! The tokens that were given out: a file each in `tokens/` of the data directory, named by the hash of the secret.
//!
//! ```text
//! gcs token, format 1
//! expires <seconds of Unix time>
//! name <node>                          if only a node of this name may use it
//! used <seconds of Unix time> <node>   once it was used
//! ```
//!
//! `gcs token` writes the file, the daemon adds the line that says it is used, and flushes it to disk before it answers. So a
//! token that was used stays used whatever happens; a line that a crash left half written counts as one. Files are removed a week after they expired.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::token::{Token, hash};
use crate::config::is_name;
use crate::tls::Moment;

const FORMAT: &str = "gcs token, format 1";

/// So long one is told that a token has expired or was used, and not that there is none.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why a token cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenRefusal {
    #[error("no such token was made on this node")]
    Unknown,
    #[error("the token expired on {0}")]
    Expired(Moment),
    #[error("the token was used already{}", .0.as_ref().map(|by| format!(", by node \"{by}\"")).unwrap_or_default())]
    Used(Option<String>),
    #[error("the token is for a node of the name \"{0}\"")]
    OfAnother(String),
    #[error("the token could not be read: {0}")]
    Failed(String),
}

#[derive(Clone, Debug)]
pub struct Tokens {
    directory: PathBuf,
}

/// A token that can be used.
#[derive(Debug)]
pub struct Valid {
    path: PathBuf,
    /// The only node that it lets in.
    pub name: Option<String>,
}

impl Tokens {
    pub fn of(data_directory: &Path) -> Tokens {
        Tokens { directory: data_directory.join("tokens") }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes down a token that was made, before anybody is told of it. The file.
    pub fn put(&self, token: &Token, expires: Moment, name: Option<&str>) -> io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.forget_old(Moment::now())?;
        let mut text = format!("{FORMAT}\nexpires {}\n", expires.unix_seconds);
        if let Some(name) = name {
            text += &format!("name {name}\n");
        }
        let path = self.path(&token.secret);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        Ok(path)
    }

    /// Whether a node of this name may use the token now.
    pub fn check(&self, secret: &[u8], name: &str, now: Moment) -> Result<Valid, TokenRefusal> {
        let path = self.path(secret);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenRefusal::Unknown),
            Err(error) => return Err(TokenRefusal::Failed(error.to_string())),
        };
        let entry = Entry::parse(&text).ok_or_else(|| TokenRefusal::Failed(format!("\"{}\" is damaged", path.display())))?;
        if let Some(by) = entry.used {
            return Err(TokenRefusal::Used(by));
        }
        if entry.expires <= now {
            return Err(TokenRefusal::Expired(entry.expires));
        }
        match entry.name {
            Some(bound) if bound != name => Err(TokenRefusal::OfAnother(bound)),
            bound => Ok(Valid { path, name: bound }),
        }
    }

    fn path(&self, secret: &[u8]) -> PathBuf {
        self.directory.join(hash(secret))
    }

    fn forget_old(&self, now: Moment) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let expires = fs::read_to_string(&path).ok().and_then(|text| Entry::parse(&text)).map(|entry| entry.expires);
            if expires.is_some_and(|expires| expires.after(REMEMBERED) < now) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Valid {
    /// It is used from now on, on disk.
    pub fn use_up(self, name: &str, now: Moment) -> io::Result<()> {
        let mut file = File::options().append(true).open(&self.path)?;
        file.write_all(format!("used {} {name}\n", now.unix_seconds).as_bytes())?;
        file.sync_all()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    expires: Moment,
    name: Option<String>,
    /// By whom, if that can be read.
    used: Option<Option<String>>,
}

impl Entry {
    fn parse(text: &str) -> Option<Entry> {
        let mut lines = text.lines();
        if lines.next()? != FORMAT {
            return None;
        }
        let expires = lines.next()?.strip_prefix("expires ")?.parse().ok().map(Moment::new)?;
        let mut entry = Entry { expires, name: None, used: None };
        for line in lines {
            match line.strip_prefix("name ") {
                Some(name) if is_name(name) && entry.used.is_none() => entry.name = Some(name.to_owned()),
                // Whatever else stands there was meant to say that it is used.
                _ => {
                    let by = line.strip_prefix("used ").and_then(|rest| rest.split_once(' ')).map(|(_, by)| by);
                    entry.used = Some(by.filter(|by| is_name(by)).map(str::to_owned));
                }
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Moment = Moment { unix_seconds: 1_800_000_000 };

    fn made(name: Option<&str>) -> (tempfile::TempDir, Tokens, Token) {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(directory.path());
        let token = Token::make(b"authority").unwrap();
        tokens.put(&token, NOW.after(Duration::from_secs(60)), name).unwrap();
        (directory, tokens, token)
    }

    #[test]
    fn a_token_is_used_once_and_stays_used() {
        let (directory, tokens, token) = made(None);
        tokens.check(&token.secret, "n2", NOW).unwrap().use_up("n2", NOW).unwrap();
        let used = TokenRefusal::Used(Some("n2".to_owned()));
        assert_eq!(tokens.check(&token.secret, "n3", NOW).unwrap_err(), used);
        // As after a restart.
        let again = Tokens::of(directory.path());
        assert_eq!(again.check(&token.secret, "n2", NOW).unwrap_err(), used);
    }

    #[test]
    fn a_token_that_is_unknown_too_old_or_of_another_name_says_so() {
        let (_directory, tokens, token) = made(Some("n2"));
        assert_eq!(tokens.check(&[7; 16], "n2", NOW).unwrap_err(), TokenRefusal::Unknown);
        assert_eq!(tokens.check(&token.secret, "n3", NOW).unwrap_err(), TokenRefusal::OfAnother("n2".to_owned()));
        let end = NOW.after(Duration::from_secs(60));
        assert_eq!(tokens.check(&token.secret, "n2", end).unwrap_err(), TokenRefusal::Expired(end));
        assert!(tokens.check(&token.secret, "n2", NOW).is_ok());
        let nowhere = Tokens::of(Path::new("/nonexistent"));
        assert_eq!(nowhere.check(&token.secret, "n2", NOW).unwrap_err(), TokenRefusal::Unknown);
    }

    #[test]
    fn a_use_that_a_crash_left_half_written_counts() {
        let (_directory, tokens, token) = made(None);
        let path = tokens.path(&token.secret);
        let whole = fs::read_to_string(&path).unwrap();
        for torn in ["u", "used", "used 18", "\0\0\0"] {
            fs::write(&path, format!("{whole}{torn}")).unwrap();
            assert_eq!(tokens.check(&token.secret, "n2", NOW).unwrap_err(), TokenRefusal::Used(None), "{torn}");
        }
    }

    #[test]
    fn old_tokens_are_forgotten_when_another_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(directory.path());
        let (old, young) = (Token::make(b"a").unwrap(), Token::make(b"a").unwrap());
        tokens.put(&old, Moment::now().before(REMEMBERED).before(Duration::from_secs(1)), None).unwrap();
        tokens.put(&young, Moment::now(), None).unwrap();
        assert_eq!(tokens.check(&old.secret, "n", Moment::now()).unwrap_err(), TokenRefusal::Unknown);
        assert!(matches!(tokens.check(&young.secret, "n", Moment::now()), Err(TokenRefusal::Expired(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(gcs token, format 1\n)?(expires [0-9]{0,30}\n)?.*") {
            let _ = Entry::parse(&text);
        }
    }
}
