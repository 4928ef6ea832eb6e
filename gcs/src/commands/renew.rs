//! `gcs renew`: another certificate in the place of one that comes to its end, with a new key.
//!
//! The daemon takes it up by itself. Key and certificate are two files, replaced one after the other: a daemon that looks in between finds that they
//! do not fit, keeps the old ones, and looks again.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Enrol, Enrolled};
use rustls::ClientConfig;

use super::error::CommandError;
use super::files::{FOR_ALL, FOR_THE_OWNER, replace};
use crate::config::{Config, Tls, check_address};
use crate::enrolment::authority::{self, Authority, Request};
use crate::enrolment::question;
use crate::enrolment::token::Token;
use crate::status;
use crate::tls::{Credentials, Moment, NodeName, TlsError};

#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The configuration file of this node.
    #[arg(long, value_name = "FILE", default_value = "/etc/gcs.toml")]
    config: PathBuf,
    /// Where the node listens on which the authority was made; by default every member is asked.
    #[arg(long, value_name = "HOST:PORT")]
    from: Option<String>,
    /// What gcs token --name printed, for a node whose certificate has expired.
    #[arg(long, value_name = "TOKEN", requires = "from")]
    token: Option<String>,
}

pub fn run(args: &RenewArgs) -> Result<(), CommandError> {
    if let Some(address) = &args.from {
        check_address("--from", address).map_err(CommandError::Usage)?;
    }
    let token = args.token.as_deref().map(Token::parse).transpose()?;
    let config = Config::load(&args.config)?;
    let tls = config.tls.as_ref().ok_or(CommandError::NoTls)?;
    let name = NodeName::new(&config.group, &config.name);
    let request = authority::make_request(&name)?;
    let certificate = match (&tls.ca_key_file, &args.from) {
        (Some(key_file), None) => {
            let signed = Authority::load(key_file, &tls.ca_file)?.sign(&name, &request.request)?;
            authority::to_pem([&signed[..]])
        }
        _ => {
            let enrolled = ask(args, &config, tls, &name, token, &request)?;
            let authorities = enrolled.authorities.iter().map(|authority| &authority[..]);
            replace(&tls.ca_file, FOR_ALL, &authority::to_pem(authorities))?;
            authority::to_pem([&enrolled.certificate[..]])
        }
    };
    replace(&tls.key_file, FOR_THE_OWNER, &request.key)?;
    replace(&tls.certificate_file, FOR_ALL, &certificate)?;
    let expires = Credentials::load(tls, &name)?.own.not_after;
    println!("the certificate of node {} counts until {expires}; a daemon that runs takes it up by itself", config.name);
    Ok(())
}

/// Where the others are: as the daemon of this node knows, or else as the configuration says.
fn addresses(config: &Config) -> Vec<String> {
    match status::ask(&config.local_socket) {
        Ok(status) => {
            let others = status.members.into_iter().filter(|member| member.name != config.name);
            others.map(|member| member.address).collect()
        }
        Err(_) => {
            let listed = config.members.iter().filter(|member| member.name != config.name).map(|member| &member.address);
            listed.chain(&config.join).cloned().collect()
        }
    }
}

/// Asks one member, or one after the other until one can sign.
fn ask(
    args: &RenewArgs,
    config: &Config,
    tls: &Tls,
    name: &NodeName,
    token: Option<Token>,
    request: &Request,
) -> Result<Enrolled, CommandError> {
    let (secret, trust): (Vec<u8>, Arc<ClientConfig>) = match token {
        Some(token) => (token.secret.to_vec(), question::by_fingerprint(token.fingerprint).map_err(TlsError::Setup)?),
        None => (Vec::new(), Credentials::load(tls, name)?.client()),
    };
    let enrol = Enrol {
        protocol: PROTOCOL,
        secret: secret.into(),
        name: config.name.clone(),
        address: config.address.clone(),
        request: request.request.clone().into(),
        clock: Moment::now().unix_seconds,
    };
    if let Some(address) = &args.from {
        return Ok(question::ask(address, trust, enrol)?);
    }
    let mut answers = Vec::new();
    for address in addresses(config) {
        match question::ask(&address, trust.clone(), enrol.clone()) {
            Ok(enrolled) => return Ok(enrolled),
            Err(error) => answers.push(error.to_string()),
        }
    }
    Err(CommandError::NobodySigns(if answers.is_empty() {
        "it lists no peers, name one with --from".to_owned()
    } else {
        answers.join("; ")
    }))
}
