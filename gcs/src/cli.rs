//! The command line. Every command ends with status 0 when the thing is done, 2 when what it was given cannot work (a bad
//! option, a bad configuration, a taken port), and 1 when it failed otherwise; an error is one line on stderr. `gcs recover` ends with 3 when it
//! has only said what it would do, `gcs verify` and `gcs repair` when something is not equal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    bundle, commands, config_check, daemon, doctor, draining, equality, events, generate, logged, looks, losses, members,
    playground, rates, waits,
};

/// The group communication daemon of postgres_r.
#[derive(Debug, Parser)]
#[command(name = "gcs", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon of one node, in the foreground, until SIGTERM or SIGINT.
    ///
    /// With http_address in its configuration it tells metrics and health there over HTTP: /metrics, /healthz, /readyz, /writable, /synced.
    Run(RunArgs),
    /// Asks the daemon of this node how the group is.
    #[command(
        after_help = "Examples:\n  gcs status -wv --config /etc/gcs.toml\n  gcs status --check --config /etc/gcs.toml"
    )]
    Status(looks::StatusArgs),
    /// Says what is wrong on this node and in its group, and what to do.
    ///
    /// Looks at the daemon, its socket, its disk and its certificates, at the group (majority, members, clocks, lag, versions, whether the nodes are equal), and at PostgreSQL of
    /// this node (preload, connections, sessions that others wait for, slots). Ends as plugins of Nagios do: with status 0 if all is well, 1 for a warning, 2 for something critical, 3
    /// if something could not be found out. Changes nothing.
    #[command(
        after_help = "Examples:\n  runuser -u postgres -- gcs doctor --config /etc/gcs.toml\n  gcs doctor --config /etc/gcs.toml --json | jq -r '.findings[] | select(.severity != \"ok\") | .name'"
    )]
    Doctor(doctor::DoctorArgs),
    /// Writes an archive for somebody who is to help: status, what doctor says, metrics, configuration, ends of logs.
    ///
    /// No key, token or password goes in: of the configuration only what is known to be harmless, of logs no line behind a word that tells of a secret. No rows, no statements of
    /// sessions; PostgreSQL's log may have statements in it. It is of this node; write one on each.
    #[command(
        after_help = "Example: gcs bundle --output /tmp/node1.tar.gz --log /var/log/postgresql/postgresql-15-main.log --config /etc/gcs.toml"
    )]
    Bundle(bundle::BundleArgs),
    /// Lists what transactions on this node lost over, by table and key, and to whom.
    ///
    /// "ordered": ordered behind the winner; "victim": held what the winner needed; "yielded": committed, but had to give way. Counted since PostgreSQL was started.
    #[command(after_help = "Example: gcs conflicts shop --config /etc/gcs.toml")]
    Conflicts(losses::ConflictsArgs),
    /// Lists what databases of this node could not apply, and try again: they are out of service here.
    #[command(after_help = "Example: gcs failures --json --config /etc/gcs.toml")]
    Failures(losses::FailuresArgs),
    /// Says what has happened to the group, as this node's daemon saw it.
    ///
    /// Members that come, go and change, leaders, majorities lost and found, copies, databases in and out of service, divergence and repairs. From the last two megabytes of it, also from before the
    /// daemon was started; of a daemon that does not run, too.
    #[command(
        after_help = "Examples:\n  gcs events --since 2h --config /etc/gcs.toml\n  gcs events --follow --json --config /etc/gcs.toml | jq -r 'select(.kind == \"majority-lost\") | .text'"
    )]
    Events(events::EventsArgs),
    /// Shows what the ordered log of this node holds, whether its daemon runs or not.
    ///
    /// Of each position the entry, what it came to, the node that it is of, its size, and what it does to which tables. No values, and of statements only the words that they begin with. Reads
    /// the files of the data directory, and changes nothing: run it as the daemon's user or as root.
    #[command(
        after_help = "Examples:\n  gcs log --config /etc/gcs.toml\n  gcs log --database shop --from 1200 --count 5 --json --config /etc/gcs.toml"
    )]
    Log(logged::LogArgs),
    /// Prints a line at each interval: positions a second by what they came to, lag, queue, what is written to the log.
    ///
    /// Of the whole group, as this node applies it, but for refused (submissions of this node), lag (positions that the database that lacks most does not show here) and queue (commands of this
    /// node that are not ordered yet). Rates are a second; log_kB thousands of bytes a second, flush_ms the mean time of a flush of the log.
    #[command(after_help = "Example: gcs stat --csv --interval 10s --count 360 --config /etc/gcs.toml > hour.csv")]
    Stat(rates::StatArgs),
    /// Shows the same, with members and databases, on the whole screen, again at each interval.
    #[command(after_help = "Example: gcs top --interval 2s --config /etc/gcs.toml")]
    Top(rates::TopArgs),
    /// Looks at a configuration file.
    Config(config_check::ConfigArgs),
    /// Returns when this node is synced (--synced), or takes writes (--writable), or after --timeout with status 1.
    ///
    /// For scripts: after a restart, before the next node; before an application is sent to read what it wrote elsewhere. Asks the daemon once, which answers when it is so. A daemon
    /// that is not there is not waited for.
    #[command(
        after_help = "Example: gcs drain node2 --config /etc/gcs.toml && ... && gcs wait --synced --writable --timeout 10m --config /etc/gcs.toml"
    )]
    Wait(waits::WaitArgs),
    /// Makes the authority of a new group, and the certificate and configuration of its first node.
    Init(commands::InitArgs),
    /// Lets one node join the group of this node: prints a token for gcs join.
    Token(commands::TokenArgs),
    /// Gets the certificate and configuration of this node from a group that is there.
    Join(commands::JoinArgs),
    /// Gets this node another certificate before the one that it has expires.
    Renew(commands::RenewArgs),
    /// Lists the members of the group.
    Members(members::MembersArgs),
    /// Takes a member out of the group for good, for one that is lost or not wanted any more.
    Evict(members::EvictArgs),
    /// Takes this node out of the group.
    Leave(members::LeaveArgs),
    /// Gives the vote of a member to a new one, in one step; the old one goes.
    Replace(members::ReplaceArgs),
    /// Has a member lead the group.
    Lead(members::LeadArgs),
    /// Sends clients elsewhere and leadership too, and waits until the node can be shut down without anybody's noticing.
    ///
    /// New sessions are refused (57P03), idle ones end, transactions end as they would. Ends with status 0 when nobody is left, and with 1 when
    /// somebody is after --timeout. The node works again with --cancel, or when its PostgreSQL or its daemon has been started again.
    Drain(draining::DrainArgs),
    /// Goes on with this node alone when a majority of the members is lost for good.
    ///
    /// For a node whose daemon is not running. Says what there is, and what may be lost; with --accept-loss it makes this node the only member of
    /// the group, to which others join with empty directories. Ends with status 0 when that is done, 3 when it has only said what it would do, 2
    /// when there is nothing to recover here (the daemon runs, the directory is empty or another node's, the node is a majority by itself or no
    /// member), and 1 when it failed.
    Recover(commands::RecoverArgs),
    /// Compares what the members hold of a database, while everybody goes on. Ends with status 0 if all is equal, 3 if not.
    Verify(equality::VerifyArgs),
    /// Gives a member the rows of this node in a table that it holds otherwise. Ends with status 0 if the table is equal then, 3 if not.
    Repair(equality::RepairArgs),
    /// Gives up the room that is kept for the day on which the disk of the log is full.
    Reserve(commands::ReserveArgs),
    /// Prints what other programs need to know of gcs: the service's unit, completions of a shell, man pages.
    #[command(subcommand)]
    Gen(generate::Kind),
    /// Makes and drives a group of PostgreSQL servers and daemons on this machine.
    Playground(playground::Args),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file (TOML), see docs/operations.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => Ok(daemon::run(&args.config)),
        Command::Status(args) => Ok(looks::run(&args)),
        Command::Bundle(args) => Ok(bundle::run(&args)),
        Command::Conflicts(args) => Ok(losses::conflicts(&args)),
        Command::Failures(args) => Ok(losses::failures(&args)),
        Command::Events(args) => Ok(events::run(&args)),
        Command::Log(args) => Ok(logged::run(&args)),
        Command::Stat(args) => Ok(rates::stat(&args)),
        Command::Top(args) => Ok(rates::top(&args)),
        Command::Config(args) => Ok(config_check::run(&args)),
        Command::Wait(args) => Ok(waits::run(&args)),
        Command::Doctor(args) => Ok(doctor::run(&args)),
        Command::Init(args) => Ok(commands::init(&args)),
        Command::Token(args) => Ok(commands::token(&args)),
        Command::Join(args) => Ok(commands::join(&args)),
        Command::Renew(args) => Ok(commands::renew(&args)),
        Command::Members(args) => Ok(members::members(&args)),
        Command::Evict(args) => Ok(members::evict(args)),
        Command::Leave(args) => Ok(members::leave(&args)),
        Command::Replace(args) => Ok(members::replace(args)),
        Command::Lead(args) => Ok(members::lead(args)),
        Command::Drain(args) => Ok(draining::run(&args)),
        Command::Recover(args) => Ok(commands::recover(&args)),
        Command::Verify(args) => Ok(equality::verify(&args)),
        Command::Repair(args) => Ok(equality::repair(&args)),
        Command::Reserve(args) => Ok(commands::reserve(&args)),
        Command::Gen(kind) => generate::run(&kind, Cli::command()),
        Command::Playground(args) => playground::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gcs: error: {error:#}");
        ExitCode::from(1)
    })
}
