//! Limits of new connections, for nftables: whoever throws thousands of them at a port of a node is refused by the kernel, before PostgreSQL has started a
//! process for each.
//!
//! The daemon bounds what its own ports cost by itself. PostgreSQL starts a process for every connection, also for those that it then refuses, and that is
//! not ours to change. Members of the group, and whoever is named, are never limited.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use gcs_writeset::link::GroupStatus;

use super::balancing::host;

#[derive(Clone, Debug, Args)]
pub struct NftablesArgs {
    /// The configuration file of the daemon, which must be running: it is asked who the members are.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The port of PostgreSQL.
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    pub postgres_port: u16,
    /// New connections that one address may make, each second.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub rate: u32,
    /// How many it may make at once before that counts.
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub burst: u32,
    /// Connections that one address may have.
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub held: u32,
    /// An address that is never limited, such as a balancer's; once for each.
    #[arg(long = "trusted", value_name = "ADDRESS")]
    pub trusted: Vec<IpAddr>,
}

/// The table for the node with this name, whose `ports` are limited.
pub fn nftables(
    args: &NftablesArgs,
    (group, name): (&str, &str),
    status: &GroupStatus,
    mut ports: Vec<u16>,
) -> Result<String, String> {
    let NftablesArgs { rate, burst, held, trusted, .. } = args;
    if [*rate, *burst, *held].contains(&0) {
        return Err("--rate, --burst and --held must be above 0".to_owned());
    }
    let mut addresses = trusted.clone();
    let mut unknown = Vec::new();
    for member in &status.members {
        let host = host(&member.address);
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => addresses.push(address),
            Err(_) => unknown.push(host),
        }
    }
    addresses.sort();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    let mut text = format!(
        "#!/usr/sbin/nft -f
# New connections to node \"{name}\" of group \"{group}\", by gcs gen nftables. Make it anew when members come or go, and load it again.
"
    );
    for host in unknown {
        let _ = writeln!(text, "# Member at \"{host}\", a name: limited like everybody; give its address with --trusted.");
    }
    let ports = list(ports.iter());
    let _ = write!(
        text,
        "
add table inet postgres_r
delete table inet postgres_r
table inet postgres_r {{
"
    );
    for (kind, is_wanted) in [("4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("6", IpAddr::is_ipv6)] {
        let of_kind = list(addresses.iter().filter(|address| is_wanted(address)));
        let elements = if of_kind.is_empty() { String::new() } else { format!(" elements = {{ {of_kind} }};") };
        let _ = write!(
            text,
            "    set trusted{kind} {{ type ipv{kind}_addr;{elements} }}
    set held{kind} {{ type ipv{kind}_addr; size 65535; flags dynamic; }}
    set coming{kind} {{ type ipv{kind}_addr; size 65535; flags dynamic,timeout; timeout 1m; }}
"
        );
    }
    let _ = write!(
        text,
        "    chain input {{
        type filter hook input priority filter; policy accept;
        tcp dport {{ {ports} }} ct state new jump calls
    }}
    chain calls {{
        ip saddr @trusted4 accept
        ip6 saddr @trusted6 accept
        add @held4 {{ ip saddr ct count over {held} }} reject with tcp reset
        add @held6 {{ ip6 saddr ct count over {held} }} reject with tcp reset
        update @coming4 {{ ip saddr limit rate over {rate}/second burst {burst} packets }} reject with tcp reset
        update @coming6 {{ ip6 saddr limit rate over {rate}/second burst {burst} packets }} reject with tcp reset
    }}
}}
"
    );
    Ok(text)
}

fn list<T: ToString>(all: impl Iterator<Item = T>) -> String {
    all.map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use gcs_writeset::link::{MemberRole, MemberState, MemberStatus};
    use gcs_writeset::{NodeId, NodeKind, Position};

    use super::*;

    fn member(address: &str) -> MemberStatus {
        MemberStatus {
            node: NodeId(1),
            name: "n".to_owned(),
            address: address.to_owned(),
            ordinal: 0,
            role: MemberRole::Voter,
            state: MemberState::Online,
            committed: Position::ZERO,
            ordered: Position::ZERO,
            copy: None,
            kind: NodeKind::Full,
        }
    }

    #[test]
    fn members_are_not_limited_and_names_are_said_not_to_be_known() {
        let members = vec![member("10.0.0.2:7001"), member("[fe80::1]:7001"), member("db.example:7001")];
        let status = GroupStatus { quorum: true, leader: None, term: 1, members };
        let trusted = vec!["10.0.0.9".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let args = NftablesArgs { config: PathBuf::new(), postgres_port: 1, rate: 5, burst: 6, held: 7, trusted };
        let text = nftables(&args, ("g", "n"), &status, vec![7001, 5432, 7001]).unwrap();
        assert!(text.contains("elements = { 10.0.0.2, 10.0.0.9 };") && text.contains("elements = { fe80::1 };"), "{text}");
        assert!(text.contains("tcp dport { 5432, 7001 }") && text.contains("# Member at \"db.example\""), "{text}");
        assert!(nftables(&NftablesArgs { rate: 0, ..args }, ("g", "n"), &status, vec![1]).is_err());
    }
}
