//! Configurations of what stands between clients and nodes: HAProxy, PgBouncer, keepalived. Who the members are is asked of the daemon here; what a node is
//! good for at a moment the balancer asks each daemon itself, over HTTP (docs/metrics.md).

use std::fmt::Write as _;

use clap::Args;
use gcs_writeset::NodeKind;
use gcs_writeset::link::{GroupStatus, MemberRole, MemberStatus};

/// Where a node's server and daemon are, as clients reach them: the host of its address in the group, and these ports.
#[derive(Clone, Debug, Args)]
pub struct Ports {
    /// The port of PostgreSQL on each node.
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    pub postgres_port: u16,
    /// The port of http_address on each node. By default that of this node's configuration.
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Where one node is, if it is elsewhere than its address in the group and these ports say; once for each such node.
    #[arg(long = "at", value_name = "NODE=HOST:PORT:HTTP_PORT", value_parser = place)]
    pub places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    node: String,
    host: String,
    port: u16,
    http_port: u16,
}

fn place(text: &str) -> Result<Place, String> {
    let read = || {
        let (node, rest) = text.split_once('=')?;
        let (rest, http_port) = rest.rsplit_once(':')?;
        let (host, port) = rest.rsplit_once(':')?;
        let (node, host) = (node.to_owned(), host.to_owned());
        Some(Place { node, host, port: port.parse().ok()?, http_port: http_port.parse().ok()? })
    };
    read().ok_or_else(|| format!("\"{text}\" is no NODE=HOST:PORT:HTTP_PORT"))
}

#[derive(Clone, Debug, Args)]
pub struct HaproxyArgs {
    /// Where clients come for writes; reads come to the next port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "*:5000")]
    pub listen: String,
    /// Sessions that are let in to one node at a time. What comes beyond waits in a queue.
    #[arg(long, value_name = "NUMBER", default_value_t = 90)]
    pub sessions: u32,
    /// Clients altogether, those that wait included.
    #[arg(long, value_name = "NUMBER", default_value_t = 2000)]
    pub clients: u32,
    /// How many positions a node that takes reads may be behind.
    #[arg(long, value_name = "POSITIONS", default_value_t = 1000)]
    pub lag: u64,
}

#[derive(Clone, Debug, Args)]
pub struct PgbouncerArgs {
    /// Where PgBouncer finds a server: HAProxy on the same machine, as made by gcs gen haproxy.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    pub server: String,
    /// Where clients come.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "*:6432")]
    pub listen: String,
    /// Clients altogether.
    #[arg(long, value_name = "NUMBER", default_value_t = 2000)]
    pub clients: u32,
    /// Sessions on servers, of each database and user.
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    pub sessions: u32,
}

#[derive(Clone, Debug, Args)]
pub struct KeepalivedArgs {
    /// The service's address, which one node has at a time, with the length of its network: 10.0.0.100/24.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub address: String,
    /// The interface on which it is put.
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    pub interface: String,
    /// The number of the virtual router, the same on each node and of nobody else in that network.
    #[arg(long, value_name = "1-255", default_value_t = 51, value_parser = clap::value_parser!(u8).range(1..))]
    pub router: u8,
}

/// Members with databases, sorted by name, that take writes or only reads.
fn servers(status: &GroupStatus, also_readers: bool) -> Vec<&MemberStatus> {
    let is_wanted = |member: &&MemberStatus| {
        let is_in = matches!(member.role, MemberRole::Voter | MemberRole::Learner);
        is_in && (member.kind == NodeKind::Full || also_readers && member.kind == NodeKind::QueryOnly)
    };
    let mut members: Vec<&MemberStatus> = status.members.iter().filter(is_wanted).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

/// The host of `host:port`; an address of IPv6 keeps its brackets.
pub fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// `address:port` as given; the port must be a number below the last, since the next one is used too.
pub fn split(listen: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("\"{listen}\" is no ADDRESS:PORT");
    let (address, port) = listen.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if port == 0 || port == u16::MAX { Err(wrong()) } else { Ok((address, port)) }
}

pub fn haproxy(
    args: &HaproxyArgs,
    group: &str,
    status: &GroupStatus,
    ports: &Ports,
    http_port: u16,
) -> Result<String, String> {
    let (address, port) = split(&args.listen)?;
    let HaproxyArgs { sessions, clients, lag, .. } = args;
    let mut text = format!(
        "# HAProxy in front of group \"{group}\", by gcs gen haproxy. Make it anew when members come or go, and reload.

global
    maxconn {clients}

defaults
    mode tcp
    maxconn {clients}
    option clitcpka
    option srvtcpka
    # A server that cannot be reached is not waited for: another one is taken.
    option redispatch
    retries 3
    timeout connect 2s
    timeout check 2s
    # How long a client waits for a place on a node.
    timeout queue 60s
    # Sessions may be idle for as long as they like; PostgreSQL ends those that it wants to.
    timeout client 24h
    timeout server 24h
"
    );
    let backends = [
        ("writes", port, "/writable".to_owned(), "inter 1s fall 2 rise 1", false),
        ("reads", port + 1, format!("/readyz?lag={lag}"), "inter 2s fall 2 rise 1", true),
    ];
    for (name, port, path, pace, also_readers) in backends {
        let _ = write!(
            text,
            "
listen {name}
    bind {address}:{port}
    balance leastconn
    option httpchk
    http-check send meth GET uri {path} ver HTTP/1.1 hdr Host gcs
    http-check expect status 200
    # A session on a node that is out would hang, or be refused its commits: it is ended, and the client comes again.
    default-server check port {http_port} {pace} maxconn {sessions} on-marked-down shutdown-sessions
"
        );
        for member in servers(status, also_readers) {
            let name = &member.name;
            let _ = match ports.places.iter().find(|place| place.node == *name) {
                Some(Place { host, port, http_port, .. }) => {
                    writeln!(text, "    server {name} {host}:{port} port {http_port}")
                }
                None => writeln!(text, "    server {name} {}:{}", host(&member.address), ports.postgres_port),
            };
        }
    }
    Ok(text)
}

pub fn pgbouncer(args: &PgbouncerArgs) -> Result<String, String> {
    let (server, server_port) = split(&args.server)?;
    let (address, port) = split(&args.listen)?;
    let PgbouncerArgs { clients, sessions, .. } = args;
    Ok(format!(
        ";; PgBouncer in front of a group, by gcs gen pgbouncer: many clients on few sessions.
;; Sessions go where HAProxy sends them. Users and passwords: auth_type and auth_file are yours to set.

[databases]
* = host={server} port={server_port}

[pgbouncer]
listen_addr = {address}
listen_port = {port}
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
pool_mode = transaction
max_client_conn = {clients}
default_pool_size = {sessions}
ignore_startup_parameters = extra_float_digits
; A session on a node that is gone is noticed when it is used; the next one is tried soon.
server_check_delay = 5
server_login_retry = 1
server_connect_timeout = 3
; Sessions move to nodes that have come back.
server_lifetime = 600
tcp_keepalive = 1
"
    ))
}

/// `name` is of this node, whose daemon is asked at `http`.
pub fn keepalived(
    args: &KeepalivedArgs,
    group: &str,
    status: &GroupStatus,
    name: &str,
    http: &str,
) -> Result<String, String> {
    let KeepalivedArgs { address, interface, router } = args;
    if !address.contains('/') {
        return Err(format!("\"{address}\" is no ADDRESS/LENGTH, such as 10.0.0.100/24"));
    }
    let members = servers(status, false);
    let place =
        members.iter().position(|member| member.name == name).ok_or_else(|| format!("node \"{name}\" takes no writes"))?;
    let priority = 150 - place;
    Ok(format!(
        "# keepalived on node \"{name}\" of group \"{group}\", by gcs gen keepalived: the service's address is where commits can be had.

global_defs {{
    enable_script_security
    script_user nobody
}}

vrrp_script writable {{
    script \"/usr/bin/curl --silent --fail --max-time 2 --output /dev/null http://{http}/writable\"
    interval 1
    timeout 3
    fall 2
    rise 1
}}

vrrp_instance postgres_r {{
    interface {interface}
    virtual_router_id {router}
    # All begin as backups. Who has the address keeps it as long as commits can be had there.
    state BACKUP
    nopreempt
    priority {priority}
    advert_int 1
    virtual_ipaddress {{
        {address}
    }}
    track_script {{
        writable
    }}
}}
"
    ))
}

#[cfg(test)]
mod tests {
    use gcs_writeset::link::MemberState;
    use gcs_writeset::{NodeId, Position};

    use super::*;

    fn member(name: &str, kind: NodeKind, role: MemberRole) -> MemberStatus {
        MemberStatus {
            node: NodeId(1),
            name: name.to_owned(),
            address: format!("{name}.example:7001"),
            ordinal: 0,
            role,
            state: MemberState::Online,
            committed: Position::ZERO,
            ordered: Position::ZERO,
            copy: None,
            kind,
        }
    }

    fn group() -> GroupStatus {
        let members = vec![
            member("b", NodeKind::Full, MemberRole::Voter),
            member("a", NodeKind::Full, MemberRole::Voter),
            member("reader", NodeKind::QueryOnly, MemberRole::Learner),
            member("witness", NodeKind::Witness, MemberRole::Voter),
            member("coming", NodeKind::Full, MemberRole::Joining),
        ];
        GroupStatus { quorum: true, leader: None, term: 1, members }
    }

    #[test]
    fn writes_go_to_full_nodes_and_reads_also_to_others_and_none_to_a_witness() {
        let args = HaproxyArgs { listen: "10.0.0.9:5000".into(), sessions: 10, clients: 100, lag: 7 };
        let ports = Ports { postgres_port: 5432, http_port: None, places: vec![place("b=10.0.0.2:5433:7181").unwrap()] };
        let text = haproxy(&args, "g", &group(), &ports, 7180).unwrap();
        let (writes, reads) = text.split_once("listen reads").unwrap();
        let a = "    server a a.example:5432\n    server b 10.0.0.2:5433 port 7181\n";
        assert!(writes.contains(a) && !writes.contains("reader"), "{writes}");
        assert!(reads.contains(&format!("{a}    server reader reader.example:5432\n")), "{reads}");
        assert!(reads.contains("bind 10.0.0.9:5001\n") && reads.contains("/readyz?lag=7 "), "{reads}");
        assert!(!text.contains("witness") && !text.contains("coming"), "{text}");
    }

    #[test]
    fn the_service_address_begins_with_the_first_node_and_is_no_reader_s() {
        let args = KeepalivedArgs { address: "10.0.0.100/24".into(), interface: "eth1".into(), router: 7 };
        let of = |name| keepalived(&args, "g", &group(), name, "127.0.0.1:7180");
        assert!(of("a").unwrap().contains("priority 150\n") && of("b").unwrap().contains("priority 149\n"));
        assert!(of("reader").is_err() && of("witness").is_err());
        let bare = KeepalivedArgs { address: "10.0.0.100".into(), ..args };
        assert!(keepalived(&bare, "g", &group(), "a", "").is_err());
    }

    #[test]
    fn a_port_must_be_one_and_leave_room_for_the_next() {
        assert_eq!(split("[::1]:5000"), Ok(("[::1]", 5000)));
        for wrong in ["5000", "a:", "a:0", "a:65535", "a:70000"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a", "a=b", "a=b:1", "a=b:1:x"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
