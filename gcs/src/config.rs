//! The configuration file of `gcs run`, and what is checked before anything is opened.
//!
//! TOML; every key is documented in docs/operations.md. An unknown key is refused with the nearest known one, because a
//! misspelt setting that is silently ignored is found on the worst day.

mod detector;
mod hooks;
pub mod mistakes;
mod role;
mod tls;
mod written;

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use gcs_core::{Detector, Format as GroupFormat, Founder};
use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::{NodeId, NodeKind};
use serde::Deserialize;
use thiserror::Error;

use crate::bounds::{COPY_RATE_MIN, LOG_RESERVE, LOG_RETENTION, LOG_RETENTION_MIN};

pub use detector::peer_silence_max;
pub use tls::Tls;
pub use written::Written;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("could not read configuration file \"{}\": {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration file \"{}\", {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("configuration file \"{}\": {message}", path.display())]
    Invalid { path: PathBuf, message: String },
}

/// The file as it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    group: String,
    data_directory: PathBuf,
    local_socket: PathBuf,
    #[serde(default)]
    local_users: Vec<String>,
    peer_address: String,
    http_address: Option<String>,
    role: Option<role::Role>,
    witness: Option<bool>,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    log: Log,
    log_retention: Option<ByteSize>,
    log_reserve: Option<ByteSize>,
    hold_format: Option<u16>,
    leader_follows_writers: Option<bool>,
    #[serde(default)]
    copy: Copies,
    postgresql: Option<Postgresql>,
    hooks: Option<hooks::Table>,
    #[serde(default)]
    detector: detector::Table,
    tls: Option<tls::Table>,
    #[serde(default)]
    allow_plaintext: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    address: String,
    role: Option<role::Role>,
    witness: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copies {
    #[serde(default)]
    from: Vec<String>,
    rate: Option<ByteSize>,
}

/// The server of a node that has none yet: a copy of another member's.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Postgresql {
    /// Where it is to be.
    pub data_directory: PathBuf,
    /// Where pg_basebackup and pg_ctl of its version are.
    pub programs: Option<PathBuf>,
    /// The command that starts it, word by word.
    pub start: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// A configuration that can work.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub group: String,
    pub data_directory: PathBuf,
    pub local_socket: PathBuf,
    /// Users beside the daemon's own and root that may use the local socket.
    pub local_users: Vec<String>,
    /// Where this daemon listens for its peers.
    pub peer_address: String,
    /// Where it tells metrics and health over HTTP, if at all.
    pub http_address: Option<String>,
    /// Where its peers reach this daemon: the address of its own entry among the peers, else `peer_address`.
    pub address: String,
    /// The first members of the group, this one included, sorted by name. Who the members are later, the group knows.
    pub members: Vec<Founder>,
    /// What this node is for.
    pub kind: NodeKind,
    /// Members to be asked by a node without data: it becomes one by their leave, and not by the list above.
    pub join: Vec<String>,
    /// Bytes of the log, below which nothing is given up that somebody may need.
    pub log_retention: u64,
    /// Bytes of the file that can be given up when the disk is full; 0 for none.
    pub log_reserve: u64,
    /// Up to which format of the group this node reads, as it says.
    pub reads: GroupFormat,
    /// Members to be copied from before others, in this order.
    pub copy_from: Vec<String>,
    /// Bytes a second that copies may read, all together.
    pub copy_rate: Option<u64>,
    pub postgresql: Option<Postgresql>,
    /// The program, and its arguments, that is run with each event.
    pub hook: Option<Vec<String>>,
    /// Leading, it hands over to where most is written.
    pub follows_writers: bool,
    /// How soon a silent member is suspected.
    pub detector: Detector,
    pub log_level: Level,
    pub log_format: Format,
    /// Without it, connections between daemons are neither encrypted nor authenticated.
    pub tls: Option<Tls>,
    /// Whether daemons may do without TLS on addresses that others can reach.
    pub allow_plaintext: bool,
}

/// Every key of the file but those of `[tls]` and `[detector]`, for the hint about an unknown one.
const KEYS: [&str; 29] = [
    "name",
    "group",
    "data_directory",
    "local_socket",
    "local_users",
    "peer_address",
    "http_address",
    "role",
    "witness",
    "peers",
    "join",
    "log",
    "log_retention",
    "log_reserve",
    "hold_format",
    "leader_follows_writers",
    "copy",
    "from",
    "rate",
    "postgresql",
    "programs",
    "start",
    "hooks",
    "command",
    "address",
    "level",
    "format",
    "tls",
    "allow_plaintext",
];

impl Config {
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let base = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Config::parse(&text, path, base)
    }

    /// Relative paths in the file are relative to `base`, the directory of the file.
    fn parse(text: &str, path: &Path, base: &Path) -> Result<Config, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: describe(text, &error) })?;
        check(file, base).map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })
    }
}

/// What cannot work, each with the key that is to be mended.
type Problems = Vec<(&'static str, String)>;

fn problems(file: &File) -> Problems {
    let mut found = Problems::new();
    let mut note = |key, checked: Result<(), String>| found.extend(checked.err().map(|message| (key, message)));
    note("name", check_name("name", &file.name));
    note("group", check_name("group", &file.group));
    note("peer_address", check_address("peer_address", &file.peer_address));
    if let Some(address) = &file.http_address {
        note("http_address", check_address("http_address", address));
    }
    note("local_socket", check_socket(&file.local_socket));
    match members(file) {
        Ok(members) => {
            let own = members.iter().find(|member| member.name == file.name);
            note("join", check_join(file, own.map_or(&file.peer_address, |member| &member.address)));
            if file.postgresql.is_some() && own.is_some_and(|own| !own.kind.has_databases()) {
                note("[postgresql]", Err("a witness has no PostgreSQL: [postgresql] is not for it".to_owned()));
            }
            if file.join.is_empty() && members.iter().all(|member| member.kind != NodeKind::Full) {
                note("role", Err("none of the members is a full node: a group begins with one at least".to_owned()));
            }
        }
        Err(message) => note("[[peers]]", Err(message)),
    }
    if file.log_retention.is_some_and(|size| size.as_u64() < LOG_RETENTION_MIN) {
        note("log_retention", Err(format!("log_retention must be at least {} MB", LOG_RETENTION_MIN / 1_000_000)));
    }
    if file.copy.rate.is_some_and(|rate| rate.as_u64() < COPY_RATE_MIN) {
        note("rate", Err(format!("copy.rate must be at least {} kB (a second)", COPY_RATE_MIN / 1_000)));
    }
    note("hold_format", held_format(file.hold_format).map(drop));
    note("[hooks]", file.hooks.as_ref().map_or(Ok(()), hooks::Table::check));
    note("[detector]", file.detector.clone().resolve().map(drop));
    found
}

fn check_socket(path: &Path) -> Result<(), String> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("local_socket is longer than {SOCKET_PATH_BYTES_MAX} bytes, which the system does not allow"));
    }
    Ok(())
}

fn check(file: File, base: &Path) -> Result<Config, String> {
    if let Some((_, message)) = problems(&file).into_iter().next() {
        return Err(message);
    }
    let members = members(&file)?;
    let own = members.iter().find(|member| member.name == file.name);
    let address = own.map_or_else(|| file.peer_address.clone(), |member| member.address.clone());
    let kind = own.map(|member| member.kind).unwrap_or_default();
    let log_retention = file.log_retention.map_or(LOG_RETENTION, |size| size.as_u64());
    let copy_rate = file.copy.rate.map(|size| size.as_u64());
    Ok(Config {
        reads: held_format(file.hold_format)?,
        follows_writers: file.leader_follows_writers.unwrap_or(true),
        log_retention,
        log_reserve: file.log_reserve.map_or(LOG_RESERVE, |size| size.as_u64()),
        copy_from: file.copy.from,
        copy_rate,
        postgresql: file.postgresql.map(|postgresql| Postgresql {
            data_directory: base.join(&postgresql.data_directory),
            programs: postgresql.programs.map(|programs| base.join(programs)),
            start: postgresql.start,
        }),
        hook: file.hooks.map(hooks::Table::resolve),
        data_directory: base.join(&file.data_directory),
        local_socket: base.join(&file.local_socket),
        name: file.name,
        group: file.group,
        local_users: file.local_users,
        peer_address: file.peer_address,
        http_address: file.http_address,
        address,
        members,
        kind,
        join: file.join,
        log_level: file.log.level,
        log_format: file.log.format,
        detector: file.detector.resolve()?,
        tls: file.tls.map(|table| table.resolve(base)),
        allow_plaintext: file.allow_plaintext,
    })
}

/// What this release reads, or less, so that nothing newer is written before the operator wants it.
fn held_format(held: Option<u16>) -> Result<GroupFormat, String> {
    let (first, newest) = (GroupFormat::FIRST, GroupFormat::NEWEST);
    match held.map(GroupFormat) {
        None => Ok(newest),
        Some(format) if (first..=newest).contains(&format) => Ok(format),
        Some(format) => Err(format!("hold_format is {format}: this release reads formats {first} to {newest}")),
    }
}

/// Others are told where this node is before they have met it.
fn check_join(file: &File, address: &str) -> Result<(), String> {
    for asked in &file.join {
        check_address("an address in join", asked)?;
        if asked == address {
            return Err(format!("join names {asked}, which is this node's own address"));
        }
    }
    let is_anywhere = ["0.0.0.0:", "[::]:"].iter().any(|any| address.starts_with(any));
    if is_anywhere && !file.join.is_empty() {
        return Err(format!(
            "others cannot reach this node at {address}: list the node itself under [[peers]] with its address"
        ));
    }
    Ok(())
}

/// sun_path holds 108 bytes with the zero at the end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn members(file: &File) -> Result<Vec<Founder>, String> {
    let mut members: Vec<Founder> = Vec::new();
    let own = role::kind("this node", file.role, file.witness)?;
    for peer in &file.peers {
        check_name("the name of a peer", &peer.name)?;
        check_address(&format!("the address of peer \"{}\"", peer.name), &peer.address)?;
        let kind = role::kind(&format!("peer \"{}\"", peer.name), peer.role, peer.witness)?;
        let kind = if peer.name == file.name { role::own(own, kind)? } else { kind.unwrap_or_default() };
        members.push(member(&peer.name, &peer.address, kind));
    }
    // A node need not list itself.
    if !members.iter().any(|member| member.name == file.name) {
        members.push(member(&file.name, &file.peer_address, own.unwrap_or_default()));
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in members.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(format!("peer \"{}\" is listed twice", pair[0].name));
        }
    }
    for (i, one) in members.iter().enumerate() {
        for other in &members[i + 1..] {
            if one.node == other.node {
                return Err(format!(
                    "the names \"{}\" and \"{}\" have the same hash, rename one of them",
                    one.name, other.name
                ));
            }
            if one.address == other.address {
                return Err(format!("\"{}\" and \"{}\" have the same address {}", one.name, other.name, one.address));
            }
        }
    }
    if members.len() > GROUP_MEMBERS_MAX {
        return Err(format!("{} members, a group can have {GROUP_MEMBERS_MAX} at most", members.len()));
    }
    Ok(members)
}

fn member(name: &str, address: &str, kind: NodeKind) -> Founder {
    Founder { node: NodeId::of_name(name), name: name.to_owned(), address: address.to_owned(), kind }
}

/// Whether a node or a group can have this name.
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good)
}

/// Whether this is a host and a port.
pub fn is_address(address: &str) -> bool {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.is_some_and(|port| port > 0)
}

pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "{what} is \"{name}\", but must be 1 to {NAME_BYTES_MAX} letters, digits, \"_\", \"-\" or \".\""
        ));
    }
    Ok(())
}

pub fn check_address(what: &str, address: &str) -> Result<(), String> {
    if is_address(address) { Ok(()) } else { Err(format!("{what} is \"{address}\", but must be host:port")) }
}

/// One line: where, what, and for an unknown key the nearest known one.
fn describe(text: &str, error: &toml::de::Error) -> String {
    format!("line {}: {}", line_of(text, error), in_words(error))
}

fn line_of(text: &str, error: &toml::de::Error) -> usize {
    error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1)
}

fn in_words(error: &toml::de::Error) -> String {
    let message = error.message().lines().next().unwrap_or_default();
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    match unknown {
        Some(key) => match nearest(key) {
            Some(known) => format!("unknown key \"{key}\", did you mean \"{known}\"?"),
            None => format!("unknown key \"{key}\""),
        },
        None => message.replace('`', "\""),
    }
}

fn nearest(key: &str) -> Option<&'static str> {
    let known = || KEYS.into_iter().chain(tls::KEYS).chain(detector::KEYS);
    let distance = |known: &str| strsim::damerau_levenshtein(key, known);
    // Whoever shortens a word leaves more out than separates it from some other word.
    let best = known().find(|known| known.starts_with(key)).or_else(|| known().min_by_key(|known| distance(known)))?;
    (distance(best) <= key.len().max(best.len()) / 2).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "n2"
        group = "postgresr"
        data_directory = "/var/lib/gcs"
        local_socket = "gcs.sock"
        peer_address = "127.0.0.1:7002"
        [[peers]]
        name = "n1"
        address = "127.0.0.1:7001"
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("gcs.toml"), Path::new("/etc")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_is_a_member_of_its_own_group_whether_it_lists_itself_or_not() {
        let without = parse(GOOD).unwrap();
        let with = parse(&format!("{GOOD}\n[[peers]]\nname = \"n2\"\naddress = \"127.0.0.1:7002\"")).unwrap();
        assert_eq!(without.members, with.members);
        assert_eq!(without.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(without.local_socket, Path::new("/etc/gcs.sock"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = parse(&GOOD.replace("data_directory", "data_dir")).unwrap_err();
        assert_eq!(
            error,
            "configuration file \"gcs.toml\", line 4: unknown key \"data_dir\", did you mean \"data_directory\"?"
        );
        let error = parse(&GOOD.replace("address = \"127.0.0.1:7001\"", "adress = \"x\"")).unwrap_err();
        assert!(error.contains("did you mean \"address\""), "{error}");
        let error = parse(&format!("entirely_else = 1\n{GOOD}")).unwrap_err();
        assert!(error.ends_with("unknown key \"entirely_else\""), "{error}");
    }

    #[test]
    fn a_node_that_joins_says_where_it_can_be_reached() {
        let joins = format!("join = [\"127.0.0.1:7001\"]\n{}", GOOD.split("[[peers]]").next().unwrap());
        let config = parse(&joins).unwrap();
        assert_eq!((config.join, config.address.as_str()), (vec!["127.0.0.1:7001".to_owned()], "127.0.0.1:7002"));
        let anywhere = joins.replace("127.0.0.1:7002", "0.0.0.0:7002");
        assert!(parse(&anywhere).unwrap_err().contains("cannot reach this node"));
        let named = format!("{anywhere}\n[[peers]]\nname = \"n2\"\naddress = \"10.0.0.2:7002\"");
        assert_eq!(parse(&named).unwrap().address, "10.0.0.2:7002");
        assert!(parse(&joins.replace("7001", "7002")).unwrap_err().contains("own address"));
        assert!(parse(&joins.replace(":7001", "")).unwrap_err().contains("must be host:port"));
    }

    #[test]
    fn what_a_node_is_for_is_said_in_either_of_two_ways_and_not_in_two_that_disagree() {
        let own = |lines: &str| parse(&format!("{lines}\n{GOOD}"));
        assert_eq!(own("").unwrap().kind, NodeKind::Full);
        assert_eq!(own("witness = true").unwrap().kind, NodeKind::Witness);
        assert_eq!(own("role = \"query-only\"").unwrap().kind, NodeKind::QueryOnly);
        assert_eq!(own("role = \"witness\"\nwitness = true").unwrap().kind, NodeKind::Witness);
        assert!(own("role = \"full\"\nwitness = true").unwrap_err().contains("disagree"));
        assert!(own("role = \"spare\"").unwrap_err().contains("spare"));
        let listed = |own: &str, entry: &str| {
            parse(&format!("{own}\n{GOOD}\n[[peers]]\nname = \"n2\"\naddress = \"127.0.0.1:7002\"\n{entry}"))
        };
        assert_eq!(listed("", "witness = true").unwrap().kind, NodeKind::Witness);
        assert!(listed("role = \"full\"", "witness = true").unwrap_err().contains("by itself"));
        let other = parse(&format!("{GOOD}\nrole = \"witness\"")).unwrap();
        assert_eq!(other.members.iter().map(|member| member.kind).collect::<Vec<_>>(), [NodeKind::Witness, NodeKind::Full]);
        assert!(parse(&format!("witness = true\n{GOOD}\nrole = \"witness\"")).unwrap_err().contains("full node"));
    }

    #[test]
    fn what_cannot_work_is_refused_in_one_line() {
        let cases = [
            (GOOD.replace("\"n1\"", "\"n 1\""), "but must be"),
            (GOOD.replace("127.0.0.1:7001", "127.0.0.1"), "must be host:port"),
            (GOOD.replace("127.0.0.1:7001", "127.0.0.1:7002"), "same address"),
            (GOOD.replace("name = \"n2\"", ""), "missing field \"name\""),
            (GOOD.replace("\"n2\"", "2"), "line 2"),
            (format!("{GOOD}\n[[peers]]\nname = \"n1\"\naddress = \"h:1\""), "listed twice"),
            (format!("{GOOD}\n[hooks]\ncommand = []"), "hooks.command is empty"),
            (format!("{GOOD}\n[hooks]\ncommand = [\"on-event\"]"), "whole path"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
