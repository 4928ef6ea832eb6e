//! `gcs gen`: texts that other programs need to know of `gcs`, made from what `gcs` itself knows, so that they are of the same version.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use clap_complete::Shell;
use gcs_writeset::link::GroupStatus;

use self::balancing::{HaproxyArgs, KeepalivedArgs, PgbouncerArgs, Ports};
use self::firewall::NftablesArgs;
use crate::config::Config;
use crate::status;

mod balancing;
mod firewall;

#[derive(Debug, Subcommand)]
pub enum Kind {
    /// The unit of the service for systemd.
    #[command(after_help = "Example: gcs gen systemd > /etc/systemd/system/gcs.service && systemctl enable --now gcs")]
    Systemd(SystemdArgs),
    /// A configuration of HAProxy in front of the group: writes on one port, reads on the next, both where they can be had.
    #[command(
        after_help = "Example: gcs gen haproxy --config /etc/gcs.toml > /etc/haproxy/haproxy.cfg && systemctl reload haproxy"
    )]
    Haproxy {
        #[command(flatten)]
        of: OfGroup,
        #[command(flatten)]
        args: HaproxyArgs,
    },
    /// A configuration of PgBouncer, in transaction mode, that finds the group through HAProxy on the same machine.
    #[command(after_help = "Example: gcs gen pgbouncer > /etc/pgbouncer/pgbouncer.ini && systemctl reload pgbouncer")]
    Pgbouncer(PgbouncerArgs),
    /// A configuration of keepalived for this node: a service address that is where commits can be had.
    #[command(
        after_help = "Example: gcs gen keepalived --config /etc/gcs.toml --address 10.0.0.100/24 > /etc/keepalived/keepalived.conf"
    )]
    Keepalived {
        #[command(flatten)]
        of: OfGroup,
        #[command(flatten)]
        args: KeepalivedArgs,
    },
    /// Limits of new connections to this node for nftables: whoever throws thousands at its ports is refused by the kernel.
    #[command(
        after_help = "Example: gcs gen nftables --config /etc/gcs.toml --trusted 10.0.0.9 > /etc/nftables.d/gcs.nft && nft -f /etc/nftables.d/gcs.nft"
    )]
    Nftables(NftablesArgs),
    /// Completions of gcs for a shell.
    #[command(after_help = "Example: gcs gen completions bash > /etc/bash_completion.d/gcs")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// A man page for gcs and one for each of its commands, as files of a directory.
    Man {
        /// The directory; it must be there.
        directory: PathBuf,
    },
}

/// The group is asked of this node's daemon, which must be running.
#[derive(Debug, Args)]
pub struct OfGroup {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    ports: Ports,
}

#[derive(Debug, Args)]
pub struct SystemdArgs {
    /// Who runs the daemon: the user that PostgreSQL runs as, unless the configuration lets it in (`local_users`).
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    user: String,
    /// Where the program is.
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/gcs")]
    program: PathBuf,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/gcs.toml")]
    config: PathBuf,
}

/// # Errors
/// Where something cannot be written, or what it was given cannot work, or the daemon cannot be asked.
pub fn run(kind: &Kind, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    match kind {
        Kind::Systemd(args) => print!("{}", unit(args)),
        Kind::Haproxy { of, args } => {
            let Asked { config, status, http } = of.ask()?;
            let http_port = of.http_port(&http)?;
            print!(
                "{}",
                balancing::haproxy(args, &config.group, &status, &of.ports, http_port).map_err(anyhow::Error::msg)?
            );
        }
        Kind::Pgbouncer(args) => print!("{}", balancing::pgbouncer(args).map_err(anyhow::Error::msg)?),
        Kind::Keepalived { of, args } => {
            let Asked { config, status, http } = of.ask()?;
            print!(
                "{}",
                balancing::keepalived(args, &config.group, &status, &config.name, &http).map_err(anyhow::Error::msg)?
            );
        }
        Kind::Nftables(args) => print!("{}", limits(args)?),
        Kind::Completions { shell } => {
            let name = command.get_name().to_owned();
            clap_complete::generate(*shell, &mut command, name, &mut io::stdout());
        }
        Kind::Man { directory } => man_pages(command, directory)?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Asked {
    config: Config,
    status: GroupStatus,
    /// Where the daemon is asked for its health.
    http: String,
}

impl OfGroup {
    fn ask(&self) -> anyhow::Result<Asked> {
        let config = Config::load(&self.config)?;
        let Some(http) = config.http_address.clone() else {
            bail!(
                "\"{}\" has no http_address, where a balancer could ask the daemon: add http_address = \"HOST:PORT\" on each node, and start the daemons again",
                self.config.display()
            );
        };
        let status = status::ask(&config.local_socket)?;
        Ok(Asked { config, status, http })
    }

    fn http_port(&self, http: &str) -> anyhow::Result<u16> {
        match self.ports.http_port {
            Some(port) => Ok(port),
            None => Ok(balancing::split(http).map_err(anyhow::Error::msg)?.1),
        }
    }
}

/// The daemon is asked who the members are.
fn limits(args: &NftablesArgs) -> anyhow::Result<String> {
    let config = Config::load(&args.config)?;
    let status = status::ask(&config.local_socket)?;
    let mut ports = vec![args.postgres_port];
    for address in [Some(&config.peer_address), config.http_address.as_ref()].into_iter().flatten() {
        ports.push(balancing::split(address).map_err(anyhow::Error::msg)?.1);
    }
    firewall::nftables(args, (&config.group, &config.name), &status, ports).map_err(anyhow::Error::msg)
}

fn man_pages(command: clap::Command, directory: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("could not write man pages to \"{}\"", directory.display()))
}

/// A server that the daemon starts after a copy is its child: nothing here may keep PostgreSQL from what it needs, and stopping the daemon must not stop it.
fn unit(SystemdArgs { user, program, config }: &SystemdArgs) -> String {
    let (program, config) = (program.display(), config.display());
    format!(
        "[Unit]
Description=group communication daemon of postgres_r
Documentation=man:gcs(1)
After=network-online.target
Wants=network-online.target
Before=postgresql.service
ConditionPathExists={config}
# On a full disk it is tried again until there is room.
StartLimitIntervalSec=0

[Service]
Type=notify
User={user}
ExecStart={program} run --config {config}
ExecReload=/bin/kill -HUP $MAINPID
# A new node asks until the group takes it in.
TimeoutStartSec=infinity
StateDirectory=gcs
StateDirectoryMode=0700
RuntimeDirectory=gcs
Restart=on-failure
RestartSec=1
# Status 2: what it was given cannot work, however often it is started.
RestartPreventExitStatus=2
KillMode=process
LimitNOFILE=65536
NoNewPrivileges=yes
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_what_it_is_given() {
        let args = SystemdArgs { user: "some".into(), program: "/opt/gcs".into(), config: "/srv/gcs.toml".into() };
        let text = unit(&args);
        assert!(text.contains("\nUser=some\n"), "{text}");
        assert!(text.contains("\nExecStart=/opt/gcs run --config /srv/gcs.toml\n"), "{text}");
        assert!(!text.contains(['{', '}']), "{text}");
    }
}
