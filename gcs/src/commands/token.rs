//! `gcs token`: lets one node join, once, for a while.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::error::CommandError;
use super::files::{NewFiles, Owner, failed};
use crate::config::{Config, check_name};
use crate::durations;
use crate::enrolment::authority::Authority;
use crate::enrolment::token::Token;
use crate::enrolment::tokens::Tokens;
use crate::tls::certificate::Facts;
use crate::tls::{Moment, files};

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// How long the token can be used: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// The only node that may use it; a member's name lets that member have another certificate (gcs renew).
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
    /// The configuration file of this node, on which the authority was made.
    #[arg(long, value_name = "FILE", default_value = "/etc/gcs.toml")]
    config: PathBuf,
}

/// A token that could be used for longer than this would be a password.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub fn run(args: &TokenArgs) -> Result<(), CommandError> {
    if let Some(name) = &args.name {
        check_name("--name", name).map_err(CommandError::Usage)?;
    }
    let config = Config::load(&args.config)?;
    let tls = config.tls.as_ref().ok_or(CommandError::NoTls)?;
    let Some(key_file) = &tls.ca_key_file else {
        let authorities = files::certificates("ca_file", &tls.ca_file)?;
        let made_on = authorities.iter().find_map(|authority| Facts::of(authority).ok()?.name);
        return Err(CommandError::NotTheAuthority { made_on });
    };
    let authority = Authority::load(key_file, &tls.ca_file)?;
    let token = Token::make(&authority.certificate)?;
    let expires = Moment::now().after(args.ttl);
    // The daemon must be able to read and to use up what root writes here.
    let owner = Owner::of(key_file)?;
    let mut new = NewFiles::new(owner);
    new.directory(&config.data_directory)?;
    let tokens = Tokens::of(&config.data_directory);
    new.directory(tokens.directory())?;
    let path =
        tokens.put(&token, expires, args.name.as_deref()).map_err(failed("write a token into", tokens.directory()))?;
    owner.give(&path)?;
    new.keep();
    println!("{token}");
    let whom = args.name.as_deref().map_or_else(|| "one node".to_owned(), |name| format!("node \"{name}\""));
    eprintln!("lets {whom} join group {}, once, until {expires}", config.group);
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    durations::parse(text)
        .ok()
        .filter(|duration| *duration <= TTL_MAX)
        .ok_or_else(|| "a token can be used for 1s up to 30d: a number and s, m, h or d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_for_a_bounded_time() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(TTL_MAX));
        for bad in ["", "0s", "31d", "-1h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
