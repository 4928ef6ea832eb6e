//! `gcs join`: a node gets its certificate and its configuration from a group that is there.

use std::path::{Path, PathBuf};

use clap::Args;
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Enrol, Enrolled};
use gcs_writeset::NodeKind;

use super::error::CommandError;
use super::files::{FOR_ALL, FOR_THE_OWNER, NewFiles, failed};
use super::layout::{self, Layout, LayoutArgs};
use crate::config::{Written, check_address, check_name};
use crate::enrolment::authority::{self, Request};
use crate::enrolment::question;
use crate::enrolment::token::Token;
use crate::tls::{Moment, NodeName, TlsError};

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Where the node listens on which the authority was made.
    #[arg(value_name = "HOST:PORT")]
    member: String,
    /// What gcs token printed there.
    #[arg(long, value_name = "TOKEN")]
    token: String,
    /// This node.
    #[arg(long, value_name = "NODE")]
    name: String,
    /// Where this daemon listens, and the others find it.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// Where PostgreSQL's data directory is to be: gcs run copies another member's server into it and starts that.
    #[arg(long, value_name = "DIR")]
    pgdata: Option<PathBuf>,
    /// The command that starts it there, in words as a shell has them: by default pg_ctl, if the server has its settings in DIR.
    #[arg(long, value_name = "COMMAND", requires = "pgdata")]
    start: Option<String>,
    /// What the node is for: full, query-only (applies, takes no writes, has no vote) or witness (votes, has no PostgreSQL).
    #[arg(long, value_name = "ROLE", default_value = "full", value_parser = parse_role)]
    role: NodeKind,
    #[command(flatten)]
    layout: LayoutArgs,
}

fn parse_role(text: &str) -> Result<NodeKind, String> {
    NodeKind::named(text).ok_or_else(|| "must be full, query-only or witness".to_owned())
}

pub fn run(args: &JoinArgs) -> Result<(), CommandError> {
    check_address("the address to be dialled", &args.member).map_err(CommandError::Usage)?;
    check_name("--name", &args.name).map_err(CommandError::Usage)?;
    check_address("--address", &args.address).map_err(CommandError::Usage)?;
    if args.pgdata.is_some() && !args.role.has_databases() {
        return Err(CommandError::Usage("a witness has no PostgreSQL: --pgdata is not for it".to_owned()));
    }
    let token = Token::parse(&args.token)?;
    let start = words(args.start.as_deref().unwrap_or_default())?;
    let layout = args.layout.resolve()?;
    let mut new = NewFiles::new(layout.owner);
    // Before the token is used up: whoever cannot write here finds out now.
    new.directory(&layout.certificates())?;
    let pgdata = args.pgdata.as_deref().map(|path| empty(&mut new, path)).transpose()?;
    let request = authority::make_request(&NodeName::new("", &args.name))?;
    new.file(&layout.key_file(), FOR_THE_OWNER, &request.key)?;
    let enrolled = ask(args, &token, &request)?;
    let postgresql = pgdata.as_deref().map(|directory| (directory, &start[..]));
    write(&mut new, &layout, args, postgresql, &enrolled)?;
    new.keep();
    println!("node {} has a certificate of group {}, in {}", args.name, enrolled.group, layout.certificates().display());
    println!("now run: gcs run --config {}", layout.config.display());
    if let Some(directory) = pgdata {
        println!("it copies another member's server into {}", directory.display());
    }
    Ok(())
}

fn ask(args: &JoinArgs, token: &Token, request: &Request) -> Result<Enrolled, CommandError> {
    let enrol = Enrol {
        protocol: PROTOCOL,
        secret: token.secret.to_vec().into(),
        name: args.name.clone(),
        address: args.address.clone(),
        request: request.request.clone().into(),
        clock: Moment::now().unix_seconds,
    };
    let config = question::by_fingerprint(token.fingerprint).map_err(TlsError::Setup)?;
    Ok(question::ask(&args.member, config, enrol)?)
}

/// The data directory of a server that is to be: made if it is not there.
fn empty(new: &mut NewFiles, path: &Path) -> Result<PathBuf, CommandError> {
    let path = layout::absolute(path)?;
    new.directory(&path)?;
    match std::fs::read_dir(&path).map_err(failed("look into", &path))?.next() {
        None => Ok(path),
        Some(_) => Err(CommandError::Usage(format!("directory \"{}\" of --pgdata is not empty", path.display()))),
    }
}

/// A command line's words.
fn words(command: &str) -> Result<Vec<String>, CommandError> {
    let unclosed = || CommandError::Usage("--start has a quote that does not end".to_owned());
    shlex::split(command).ok_or_else(unclosed)
}

fn write(
    new: &mut NewFiles,
    layout: &Layout,
    args: &JoinArgs,
    postgresql: Option<(&Path, &[String])>,
    enrolled: &Enrolled,
) -> Result<(), CommandError> {
    let authorities = enrolled.authorities.iter().map(|authority| &authority[..]);
    new.file(&layout.ca_file(), FOR_ALL, &authority::to_pem(authorities))?;
    new.file(&layout.certificate_file(), FOR_ALL, &authority::to_pem([&enrolled.certificate[..]]))?;
    // The one that answered first: it is there.
    let others = enrolled.members.iter().map(|member| &member.address).filter(|address| **address != args.member);
    let join: Vec<String> = std::iter::once(&args.member).chain(others).cloned().collect();
    let written = Written {
        by: "gcs join",
        name: &args.name,
        group: &enrolled.group,
        data_directory: &layout.data_directory(),
        local_socket: &layout.socket,
        peer_address: &args.address,
        kind: args.role,
        join: &join,
        postgresql,
        ca_file: &layout.ca_file(),
        certificate_file: &layout.certificate_file(),
        key_file: &layout.key_file(),
        ca_key_file: None,
    };
    new.file(&layout.config, FOR_ALL, &written.text())
}
