//! The PostgreSQL of this node, for people's commands: where it is the daemon knows, as its manager said.

use std::process::ExitCode;
use std::time::Duration;

use gcs_writeset::link::{Reply, Request, ServerPlace};
use postgres::{Client, NoTls};
use thiserror::Error;

use crate::config::Config;
use crate::control::{self, ControlError};
use crate::copy::describe;
use crate::examined::{Examination, Server};

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("{}", describe(.0))]
    Postgres(#[from] postgres::Error),
    #[error("no PostgreSQL has attached to this daemon yet")]
    Nowhere,
}

/// To a database that is replicated here, as the user that the daemon would be.
///
/// # Errors
/// Where the daemon does not know the database's server, or that does not let this user in.
pub fn connect(config: &Config, database: &str) -> Result<Client, ServerError> {
    let request = Request::AskPlace { database: database.to_owned() };
    let place: ServerPlace = control::ask(&config.local_socket, &request, ANSWER_TIMEOUT, |reply| match reply {
        Reply::Place(place) => Some(place),
        _ => None,
    })?;
    let mut server = postgres::Config::new();
    server.host_path(&place.socket_directory).port(place.port).user(&place.user).dbname(database);
    Ok(server.application_name("gcs").connect(NoTls)?)
}

/// To a database that has the extension and is in service, or to `postgres`: what the server as a whole knows is asked there.
///
/// # Errors
/// Where it is not known where the server is, or it does not let this user in.
pub fn connect_to_any(server: Option<&Server>, found: &Examination) -> Result<Client, ServerError> {
    let at = server.ok_or(ServerError::Nowhere)?;
    let serving = found.databases.iter().find(|database| database.service == "serving");
    let database = serving.map_or("postgres", |database| database.name.as_str());
    let mut config = postgres::Config::new();
    config.host_path(&at.socket_directory).port(at.port).user(&at.user).dbname(database);
    Ok(config.application_name("gcs").connect(NoTls)?)
}

/// 2 for a bad configuration, 1 otherwise.
pub fn failed(error: &ServerError) -> ExitCode {
    eprintln!("gcs: error: {error}");
    if matches!(error, ServerError::Control(ControlError::Config(_))) { ExitCode::from(2) } else { ExitCode::FAILURE }
}
