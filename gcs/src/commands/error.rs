//! Why a command did nothing.

use std::io;
use std::path::PathBuf;

use gcs_core::{CoreError, Objection};
use gcs_proto::HandshakeRefusal;
use thiserror::Error;

use crate::config::ConfigError;
use crate::enrolment::authority::AuthorityError;
use crate::enrolment::question::QuestionError;
use crate::enrolment::token::TokenError;
use crate::log::LogError;
use crate::tls::{NodeName, TlsError};

#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("{0}")]
    Question(#[from] QuestionError),
    #[error("\"{}\" is there already, and is not overwritten", .0.display())]
    Exists(PathBuf),
    #[error("could not {action} \"{}\": {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no user \"{0}\"")]
    NoSuchUser(String),
    #[error("the configuration of this node has no [tls]")]
    NoTls,
    #[error("this node cannot sign certificates: its configuration has no ca_key_file")]
    NotTheAuthority { made_on: Option<NodeName> },
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("the log cannot be used: {0}")]
    Core(#[from] CoreError),
    #[error("data directory \"{}\" holds nothing of a group", .0.display())]
    NothingLeft(PathBuf),
    #[error("node \"{0}\" is a majority by itself: there is nothing to recover from")]
    NothingLost(String),
    #[error("{0}: there is a group without it")]
    Removed(String),
    #[error("node \"{node}\" cannot go on alone: {objection}")]
    NotAlone { node: String, objection: Objection },
    #[error("no node of the group could renew the certificate: {0}")]
    NobodySigns(String),
}

impl CommandError {
    pub fn hint(&self) -> Option<String> {
        match self {
            CommandError::Exists(_) => Some("Name another --directory or --config, or remove what is there.".to_owned()),
            CommandError::NoSuchUser(_) => Some("Name the user that gcs and PostgreSQL run as with --user.".to_owned()),
            CommandError::NoTls => Some("Make certificates with gcs init, and name them in [tls].".to_owned()),
            CommandError::NotTheAuthority { made_on: Some(name) } => {
                Some(format!("The authority was made on node \"{}\": run it there.", name.node))
            }
            CommandError::NotTheAuthority { made_on: None } => Some("Run it on the node that has ca_key_file.".to_owned()),
            CommandError::NothingLeft(_) => {
                Some("Let this node join (gcs join), or recover on one that has data.".to_owned())
            }
            CommandError::Removed(_) => Some("Empty the data directory, and let this node join (gcs join).".to_owned()),
            CommandError::NothingLost(_) => Some("Start the daemon: gcs run.".to_owned()),
            CommandError::Log(LogError::InUse(_)) => Some(
                "Stop gcs on this node first. While a majority of the members can be reached, use gcs evict.".to_owned(),
            ),
            CommandError::Question(QuestionError::Refused(refused)) => {
                let hint = match refused.reason() {
                    HandshakeRefusal::TokenUnknown => {
                        "Tokens are made by gcs token on the node that is dialled, and count in its group only."
                    }
                    HandshakeRefusal::TokenExpired | HandshakeRefusal::TokenUsed => "Make another with gcs token.",
                    HandshakeRefusal::TokenOfAnother => "Use that name, or make another token with gcs token.",
                    HandshakeRefusal::NameTaken => {
                        "Choose another, or evict the member first (gcs evict). The token has not been used."
                    }
                    _ => return None,
                };
                Some(hint.to_owned())
            }
            CommandError::Question(QuestionError::Closed { .. } | QuestionError::Io { .. }) => {
                Some("If it took the token before it failed, the token is used up: make another with gcs token.".to_owned())
            }
            _ => None,
        }
    }

    /// 2 for what can never work as given, 1 otherwise (see [`crate::cli`]).
    pub fn exit_status(&self) -> u8 {
        match self {
            CommandError::Question(
                QuestionError::Connect { .. } | QuestionError::Io { .. } | QuestionError::Closed { .. },
            )
            | CommandError::File { .. }
            | CommandError::Log(LogError::Io { .. })
            | CommandError::Core(_)
            | CommandError::NobodySigns(_) => 1,
            _ => 2,
        }
    }
}
