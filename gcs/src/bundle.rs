//! `gcs bundle`: what somebody who is to help needs to see, in one archive: status, what doctor says, metrics, the configuration, the end of the log, versions.
//!
//! Invariants:
//!
//! - No key, token or password goes in. Of the configuration only keys that are listed here are shown ([`SHOWN`]); every other value is left out. No file of `[tls]` is opened but for the
//!   dates of certificates, by doctor. Whatever looks like a secret in a line of a log is taken out ([`without_secrets`]).
//! - No data: no statements, no rows. What doctor says of sessions has no statements in it.
//! - What cannot be had is in the archive as its reason; there is an archive also where the daemon is down.
//! - Its size is bounded: of a log the last [`LOG_BYTES_MAX`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use gcs_writeset::link::Inquiry;

use crate::config::Config;
use crate::control;
use crate::doctor;
use crate::introduction::version;
use crate::status;
use crate::tls::Moment;

/// Of each log.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// A daemon that does not answer within this time is as good as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Keys of the configuration whose values are shown.
const SHOWN: [&str; 30] = [
    "name",
    "group",
    "data_directory",
    "local_socket",
    "local_users",
    "peer_address",
    "http_address",
    "role",
    "witness",
    "address",
    "join",
    "log_retention",
    "log_reserve",
    "hold_format",
    "leader_follows_writers",
    "from",
    "rate",
    "programs",
    "level",
    "format",
    "profile",
    "heartbeat_ms",
    "election_timeout_ms",
    "allow_plaintext",
    "peers",
    "log",
    "copy",
    "detector",
    "postgresql",
    "tls",
];

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The archive that is written; it must not be there.
    #[arg(long, value_name = "FILE.tar.gz")]
    output: PathBuf,
    /// A log of the daemon or of PostgreSQL whose end goes in; may be given again. What the daemon says under systemd: journalctl -u gcs.
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Exit status 0 if it is written, 1 if not, 2 for a bad configuration.
pub fn run(args: &BundleArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("gcs: error: {error}");
            return ExitCode::from(2);
        }
    };
    match write(&args.output, &parts(args, &config)) {
        Ok(()) => {
            println!("{} was written: look through it before you give it away", args.output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gcs: error: could not write \"{}\": {error}", args.output.display());
            ExitCode::FAILURE
        }
    }
}

/// Names and contents.
fn parts(args: &BundleArgs, config: &Config) -> Vec<(String, String)> {
    let socket = &config.local_socket;
    let reason = |error: control::ControlError| format!("{error}\n");
    let ask = |inquiry| control::inquire(socket, inquiry, ANSWER_TIMEOUT).unwrap_or_else(reason);
    let about = format!("gcs {}\nnode {}\ngroup {}\nwritten {}\n", version(), config.name, config.group, Moment::now());
    let shown = std::fs::read_to_string(&args.config).map_or_else(|error| format!("{error}\n"), |text| shown(&text));
    let mut parts = vec![
        ("about.txt".to_owned(), about),
        ("config.toml".to_owned(), shown),
        ("doctor.txt".to_owned(), doctor::text(config, &args.config)),
        ("status.txt".to_owned(), status::text(socket, false).unwrap_or_else(reason)),
        ("status.json".to_owned(), status::text(socket, true).unwrap_or_else(reason)),
        ("examination.json".to_owned(), ask(Inquiry::Examination)),
        ("metrics.txt".to_owned(), ask(Inquiry::Metrics)),
    ];
    for (number, log) in args.logs.iter().enumerate() {
        let text = end_of(log).unwrap_or_else(|error| format!("{}: {error}\n", log.display()));
        parts.push((format!("log-{}.txt", number + 1), text.lines().map(|line| without_secrets(line) + "\n").collect()));
    }
    parts
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The configuration without remarks, and without values of keys that are not known to be harmless.
fn shown(text: &str) -> String {
    let Ok(table) = text.parse::<toml::Table>() else { return "# it is not TOML\n".to_owned() };
    let mut value = toml::Value::Table(table);
    hide(&mut value);
    // A table that was read can be written.
    toml::to_string(&value).unwrap_or_default()
}

fn hide(value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                if SHOWN.contains(&key.as_str()) {
                    hide(value);
                } else {
                    *value = toml::Value::String("left out".to_owned());
                }
            }
        }
        toml::Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Words behind which a secret stands, in whatever case.
const TELLTALES: [&str; 5] = ["password", "passwd", "secret", "token", "private key"];

/// A line of a log: from a word that tells of a secret to its end it is left out, and so is every token of gcs and every line of a key.
fn without_secrets(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    // Positions are those of the line: lower case in ASCII changes no length.
    let first = TELLTALES.iter().filter_map(|word| lower.find(word).map(|at| at + word.len())).min();
    let token = lower.find("gcs1.");
    match first.into_iter().chain(token).min() {
        Some(at) => format!("{} (left out)", &line[..at]),
        None if is_of_a_key(line) => "(left out)".to_owned(),
        None => line.to_owned(),
    }
}

/// Base64 of PEM is in lines of 64 characters without a blank.
fn is_of_a_key(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 48 && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// For its owner alone, whole or not at all.
fn write(output: &Path, parts: &[(String, String)]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(output)?;
    let written = compress(&archive(parts)).and_then(|bytes| file.write_all(&bytes)).and_then(|()| file.sync_all());
    if written.is_err() {
        std::fs::remove_file(output)?;
    }
    written
}

const BLOCK: usize = 512;

/// The ustar format: a header of a block for each file, its content filled up to whole blocks, two empty blocks at the end.
fn archive(parts: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in parts {
        out.extend_from_slice(&header(&format!("gcs-bundle/{name}"), content.len()));
        out.extend_from_slice(content.as_bytes());
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{:011o}\0", Moment::now().unix_seconds.max(0)));
    // The checksum is of a header with blanks in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// By gzip, which every system has.
fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| io::Error::other("gzip has no input"))?;
    let output = std::thread::scope(|scope| {
        // It writes before it has read all.
        let feeding = scope.spawn(move || input.write_all(bytes));
        let output = child.wait_with_output();
        feeding.join().map_err(|_| io::Error::other("gzip could not be fed"))??;
        output
    })?;
    if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other("gzip failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_configuration_only_what_is_known_to_be_harmless_is_shown() {
        let text = "name = \"n1\" # s3cret\npassword = \"s3cret\"\n[tls]\nkey_file = \"/etc/s3cret\"\n[[peers]]\nname = \"n2\"\naddress = \"h:1\"\n";
        let shown = shown(text);
        assert!(!shown.contains("s3cret") && shown.contains("n1") && shown.contains("h:1"), "{shown}");
        assert!(shown.contains("key_file = \"left out\""), "{shown}");
        assert!(!super::shown("password = s3cret").contains("s3cret"));
    }

    #[test]
    fn secrets_in_lines_of_a_log_are_left_out() {
        for line in [
            "CREATE ROLE r PASSWORD 's3cret'",
            "a Token: s3cret",
            "took gcs1.s3cret",
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQs3cret",
        ] {
            assert!(!without_secrets(line).contains("s3cret"), "{line}");
        }
        assert_eq!(without_secrets("peer is up peer=node2"), "peer is up peer=node2");
    }

    #[test]
    fn an_archive_is_what_tar_reads() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.tar.gz");
        let parts = [("one.txt".to_owned(), "1\n".repeat(600)), ("two.txt".to_owned(), String::new())];
        write(&file, &parts).unwrap();
        assert!(write(&file, &parts).is_err(), "nothing is overwritten");
        let list = Command::new("tar").arg("-tzf").arg(&file).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&list.stdout), "gcs-bundle/one.txt\ngcs-bundle/two.txt\n");
        let one = Command::new("tar").args(["-xzOf"]).arg(&file).arg("gcs-bundle/one.txt").output().unwrap();
        assert_eq!(one.stdout.len(), 1200);
    }
}
