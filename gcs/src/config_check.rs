//! `gcs config check`: every mistake of a configuration file with its line, and what is likely not meant.
//!
//! Mistakes are what `gcs run` would end with (status 2), all of them at once; warnings are what it would run with. Nothing is opened for writing, and nobody is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::User;

use crate::config::Config;
use crate::config::mistakes::{Mistake, examine};
use crate::tls::credentials::Credentials;
use crate::tls::{NodeName, files};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says every mistake of a configuration file with its line and what to write, and what is likely not meant.
    ///
    /// Ends with status 0 if it can work (warnings or not), 2 if there is a mistake.
    #[command(after_help = "Example: gcs config check --config /etc/gcs.toml")]
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Exit status for what cannot work.
const MISTAKEN: u8 = 2;

pub fn run(args: &ConfigArgs) -> ExitCode {
    let Command::Check { config: file } = &args.command;
    let name = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("gcs: error: could not read configuration file \"{name}\": {error}");
            return ExitCode::from(MISTAKEN);
        }
    };
    let base = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (mistakes, warnings) = match examine(&text, base) {
        Ok(config) => (of_files(&config), warnings(&config)),
        Err(mistakes) => (mistakes, Vec::new()),
    };
    for Mistake { line, message } in &mistakes {
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        println!("{name}{line}: error: {message}");
    }
    for warning in &warnings {
        println!("{name}: warning: {warning}");
    }
    println!("{} errors, {} warnings", mistakes.len(), warnings.len());
    if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(MISTAKEN) }
}

/// What the file names, and what is not as the daemon needs it.
fn of_files(config: &Config) -> Vec<Mistake> {
    let mut messages = Vec::new();
    if let Some(tls) = &config.tls {
        let name = NodeName::new(&config.group, &config.name);
        messages.extend(Credentials::load(tls, &name).err().map(|error| error.to_string()));
        let secret = tls.ca_key_file.as_ref().map(|path| files::secret("ca_key_file", path));
        messages.extend(secret.and_then(Result::err).map(|error| error.to_string()));
    }
    for user in &config.local_users {
        if !matches!(User::from_name(user), Ok(Some(_))) {
            messages.push(format!("user \"{user}\" in local_users does not exist"));
        }
    }
    if config.tls.is_none() && !config.allow_plaintext && !is_loopback(&config.peer_address) {
        let address = &config.peer_address;
        messages.push(format!(
            "peer_address {address} can be reached from other machines, and there is no [tls]: make certificates with gcs init, or set allow_plaintext = true if \
             everything on that network is trusted"
        ));
    }
    messages.into_iter().map(|message| Mistake { line: None, message }).collect()
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if is_in_memory(&config.data_directory) {
        let directory = config.data_directory.display();
        found.push(format!(
            "data_directory \"{directory}\" is in memory (tmpfs): the log makes commits durable, put it on a disk"
        ));
    }
    if config.allow_plaintext && config.tls.is_none() {
        found.push("allow_plaintext is set, and there is no [tls]: whoever reaches the port reads the group's data, and writes to it".to_owned());
    }
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    if let Some(http) = &config.http_address
        && port(http) == port(&config.peer_address)
    {
        found.push(format!("http_address and peer_address have the same port, {http}: give each its own"));
    }
    if let Some(http) = config.http_address.as_deref().filter(|http| !is_loopback(http)) {
        found.push(format!(
            "http_address {http} can be reached from other machines, and knows no passwords: see docs/metrics.md"
        ));
    }
    let voters = config.members.iter().filter(|member| member.kind.may_vote()).count();
    if config.join.is_empty() && voters == 2 {
        found.push("two members vote: when one of them is lost there is no majority; add a third, or a witness".to_owned());
    }
    if config.join.is_empty() && config.members.len() > 1 && is_anywhere(&config.address) {
        let (address, name) = (&config.address, &config.name);
        found.push(format!("others cannot reach this node at {address}: list \"{name}\" under [[peers]] with its address"));
    }
    let others_loopback = config.members.iter().filter(|member| member.name != config.name && is_loopback(&member.address));
    if !is_loopback(&config.address)
        && let Some(member) = others_loopback.into_iter().next()
    {
        found.push(format!("\"{}\" is at {}, which is this machine", member.name, member.address));
    }
    found
}

fn is_anywhere(address: &str) -> bool {
    ["0.0.0.0:", "[::]:"].iter().any(|any| address.starts_with(any))
}

/// The directory, or the one in which it is to be made.
fn is_in_memory(directory: &Path) -> bool {
    let there = directory.ancestors().find(|path| path.exists());
    there.is_some_and(|path| statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> Config {
        let text = format!("name = \"n1\"\ngroup = \"g\"\ndata_directory = \"d\"\nlocal_socket = \"s\"\n{lines}");
        examine(&text, Path::new("/etc")).unwrap()
    }

    #[test]
    fn what_is_likely_not_meant_is_warned_of() {
        let three =
            "[[peers]]\nname = \"n2\"\naddress = \"10.0.0.2:1\"\n[[peers]]\nname = \"n3\"\naddress = \"10.0.0.3:1\"\n";
        let good = format!("peer_address = \"10.0.0.1:1\"\n{three}");
        assert_eq!(warnings(&config(&good)), Vec::<String>::new());
        let cases = [
            (format!("allow_plaintext = true\n{good}"), "allow_plaintext"),
            (format!("http_address = \"127.0.0.1:1\"\n{good}"), "same port"),
            (format!("http_address = \"0.0.0.0:9\"\n{good}"), "knows no passwords"),
            (
                "peer_address = \"10.0.0.1:1\"\n[[peers]]\nname = \"n2\"\naddress = \"10.0.0.2:1\"".to_owned(),
                "two members vote",
            ),
            (good.replace("10.0.0.1:1", "0.0.0.0:1"), "cannot reach this node"),
            (good.replace("10.0.0.2", "127.0.0.1"), "which is this machine"),
        ];
        for (lines, expected) in cases {
            let found = warnings(&config(&lines));
            assert!(matches!(&found[..], [one] if one.contains(expected)), "{expected}: {found:?}");
        }
        assert!(is_in_memory(Path::new("/dev/shm/not/there")) || !Path::new("/dev/shm").exists());
    }

    #[test]
    fn what_is_not_as_the_daemon_needs_it_is_a_mistake() {
        let said = |lines: &str| of_files(&config(lines)).into_iter().map(|it| it.message).collect::<Vec<_>>().join("\n");
        assert_eq!(said("peer_address = \"127.0.0.1:1\""), "");
        assert!(said("peer_address = \"10.0.0.1:1\"").contains("there is no [tls]"));
        assert!(said("peer_address = \"[::1]:1\"\nlocal_users = [\"nobody-of-that-name\"]").contains("does not exist"));
        let tls = "[tls]\nca_file = \"a\"\ncertificate_file = \"b\"\nkey_file = \"c\"";
        assert!(said(&format!("peer_address = \"10.0.0.1:1\"\n{tls}")).contains("/etc/"));
    }
}
