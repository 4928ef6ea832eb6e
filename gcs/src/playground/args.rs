//! The command line of `gcs playground`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use gcs_writeset::NodeKind;
use serde_json::json;

use super::disk::DiskSize;
use super::error::Error;
use super::group::{Gets, NewGroup, Part, Playground, Started};
use super::manifest::{NodeNumber, Place};
use super::process::{Signal, parse_signal};
use super::relay_process;
use super::status::{self, Status};
use super::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a group under DIR and runs it, in the foreground until Ctrl-C ends all it started, or with --detach until `stop`.
    Start(StartArgs),
    /// Shows each node.
    Status {
        #[command(flatten)]
        at: Directory,
        #[arg(long)]
        json: bool,
    },
    /// Ends everything that runs under DIR. The data stay.
    Stop(Directory),
    /// Sends a signal to a node's PostgreSQL and daemon, KILL unless told otherwise, and waits for their end.
    Kill {
        /// Counts from 1.
        node: usize,
        #[command(flatten)]
        at: Directory,
        /// Only the postmaster.
        #[arg(long, conflicts_with = "gcs")]
        postgres: bool,
        /// Only the daemon.
        #[arg(long)]
        gcs: bool,
        #[arg(long, value_name = "S", default_value = "KILL", value_parser = parse_signal)]
        signal: Signal,
    },
    /// Starts whatever of a node is down.
    StartNode {
        /// Counts from 1.
        node: usize,
        #[command(flatten)]
        at: Directory,
    },
    /// Makes one more node and has it join the group, which goes on meanwhile. Returns when it is online, and prints its URI.
    AddNode {
        #[command(flatten)]
        at: Directory,
        /// Gets a copy of another node's whole server instead of a server of its own and a copy of the database.
        #[arg(long)]
        physical: bool,
        /// query-only: it applies what the others write, and takes no writes itself.
        #[arg(long, value_name = "ROLE", default_value = "full", value_parser = parse_role)]
        role: NodeKind,
    },
    /// Makes a node, its disk, or its links to the others fail otherwise than by its end.
    #[command(subcommand)]
    Fault(Fault),
    /// Stands between the daemons of a playground that was made with --faults.
    #[command(hide = true)]
    Relay,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Stops every process of a node (SIGSTOP), as when its machine hangs: connections stay open and nobody is told.
    Pause {
        /// Counts from 1.
        node: usize,
        #[command(flatten)]
        at: Directory,
    },
    /// Lets it go on.
    Resume {
        /// Counts from 1.
        node: usize,
        #[command(flatten)]
        at: Directory,
    },
    /// Lets no byte pass any more between the daemons of a node and of all others, or of one, as when a cable is pulled: connections stay open.
    ///
    /// For a playground that was made with --faults, as is slow. Clients still reach every node.
    Cut {
        /// Counts from 1.
        node: usize,
        /// Only from this one.
        other: Option<usize>,
        #[command(flatten)]
        at: Directory,
    },
    /// Whatever the daemon of a node sends to the others, and is sent by them, arrives so much later. Two slow nodes add up.
    Slow {
        /// Counts from 1.
        node: usize,
        /// Milliseconds each way, 10000 at the most; 0 for none.
        #[arg(value_parser = clap::value_parser!(u64).range(..=10_000))]
        ms: u64,
        #[command(flatten)]
        at: Directory,
    },
    /// Takes all the room that is left on a node's disk: whatever it writes from now on, its log and its tables, finds none.
    ///
    /// For a playground that was made with --disk-size. What the node itself deletes meanwhile it can use again.
    Fill {
        /// Counts from 1.
        node: usize,
        #[command(flatten)]
        at: Directory,
    },
    /// Undoes cut, slow and fill, of one node or of all.
    ///
    /// Of one node's links: what was said of it, and of another one and it. A node that was cut off from all others stays cut off from this one.
    /// Whatever of a node has ended for want of room is started by start-node.
    Heal {
        /// Counts from 1.
        node: Option<usize>,
        #[command(flatten)]
        at: Directory,
    },
}

#[derive(Debug, clap::Args)]
struct Directory {
    /// Where the playground stands.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct StartArgs {
    #[command(flatten)]
    at: Directory,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Node i listens on 127.0.0.1:(P + i - 1); the daemons among themselves on P + 100 + i - 1.
    #[arg(long, value_name = "P", default_value_t = 6001)]
    base_port: u16,
    /// The database to replicate.
    #[arg(long, value_name = "NAME", default_value = "shop")]
    database: String,
    #[arg(long, value_name = "NAME", default_value = "postgresr")]
    group: String,
    /// Returns when the group is online and leaves it running.
    #[arg(long)]
    detach: bool,
    /// Prints the status as JSON once the group is online, instead of one connection URI a line.
    #[arg(long)]
    json: bool,
    /// Ends all it started when standard input ends too; for programs that embed the group.
    #[arg(long, conflicts_with = "detach")]
    until_eof: bool,
    /// Where the daemons run, as JSON, one a node in their order; for tests that put each into a network of its own.
    #[arg(long, value_name = "JSON", value_parser = place, hide = true, conflicts_with = "faults")]
    place: Vec<Place>,
    /// Has the daemons reach each other by a relay, so that `fault cut` and `fault slow` can be asked for. They then listen on P + 200 + i - 1.
    #[arg(long)]
    faults: bool,
    /// Gives each node a disk of its own, of so many megabytes, so that `fault fill` can be asked for: file systems in files, which only root can mount.
    #[arg(long, value_name = "MB")]
    disk_size: Option<DiskSize>,
}

fn place(text: &str) -> Result<Place, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let done = match args.command {
        Command::Start(args) => start(&args),
        Command::Status { at, json } => show_status(&at.dir, json),
        Command::Stop(at) => stop(&at.dir),
        Command::Kill { node, at, postgres, gcs, signal } => kill(&at.dir, NodeNumber(node), part(postgres, gcs), signal),
        Command::StartNode { node, at } => start_node(&at.dir, NodeNumber(node)),
        Command::AddNode { at, physical, role } => {
            add_node(&at.dir, if physical { Gets::Server } else { Gets::Database }, role)
        }
        Command::Fault(fault) => inflict(fault),
        Command::Relay => relay_process::run(),
    };
    Ok(done.map_or_else(complain, |()| ExitCode::SUCCESS))
}

fn inflict(fault: Fault) -> Result<(), Error> {
    match fault {
        Fault::Pause { node, at } => Playground::open(&at.dir)?.pause(NodeNumber(node)),
        Fault::Resume { node, at } => Playground::open(&at.dir)?.resume(NodeNumber(node)),
        Fault::Cut { node, other, at } => Playground::open(&at.dir)?.cut(NodeNumber(node), other.map(NodeNumber)),
        Fault::Slow { node, ms, at } => Playground::open(&at.dir)?.slow(NodeNumber(node), ms),
        Fault::Fill { node, at } => Playground::open(&at.dir)?.fill(NodeNumber(node)),
        Fault::Heal { node, at } => Playground::open(&at.dir)?.heal(node.map(NodeNumber)),
    }
}

fn complain(error: Error) -> ExitCode {
    eprintln!("gcs: error: {error}");
    ExitCode::from(error.exit_code())
}

fn part(postgres: bool, gcs: bool) -> Part {
    match (postgres, gcs) {
        (true, _) => Part::Postgres,
        (_, true) => Part::Gcs,
        _ => Part::Both,
    }
}

fn start(args: &StartArgs) -> Result<(), Error> {
    let begin = || begin(args);
    if args.detach {
        return announce(&begin()?, args.json);
    }
    watch::foreground(begin, |playground| announce(playground, args.json), args.until_eof)
}

/// Makes the group, or starts again what was made and stopped.
fn begin(args: &StartArgs) -> Result<Playground, Error> {
    let dir = &args.at.dir;
    if dir.join("playground.json").exists() {
        return begin_again(args);
    }
    let gcs = std::env::current_exe().map_err(|error| Error::failed(format!("could not find gcs itself: {error}")))?;
    let (database, group) = (args.database.clone(), args.group.clone());
    let settings = String::new();
    Playground::create(&NewGroup {
        dir: dir.clone(),
        nodes: args.nodes,
        base_port: args.base_port,
        database,
        group,
        gcs,
        settings,
        places: args.place.clone(),
        faults: args.faults,
        disk_size: args.disk_size,
    })
}

fn begin_again(args: &StartArgs) -> Result<Playground, Error> {
    let mut playground = Playground::open(&args.at.dir)?;
    let manifest = &playground.manifest;
    let dir = playground.paths.dir.display();
    if manifest.running {
        return Err(Error::usage(format!("the playground in {dir} is running"))
            .hint("See `gcs playground status`, or stop it first."));
    }
    // Those that were added come again without being named.
    let founders = manifest.nodes.iter().filter(|node| !node.joined).count();
    let port = manifest.nodes[0].port;
    let made = (founders, port, &manifest.database, &manifest.group, manifest.is_relayed(), manifest.disk_size);
    if made != (args.nodes, args.base_port, &args.database, &args.group, args.faults, args.disk_size) {
        let (nodes, port, database, group, is_relayed, disk_size) = made;
        let faults = if is_relayed { " --faults" } else { "" };
        let disks = disk_size.map_or_else(String::new, |size| format!(" --disk-size {}", size.megabytes()));
        return Err(Error::usage(format!("{dir} holds a playground made with other options")).hint(format!(
            "Start it with --nodes {nodes} --base-port {port} --database {database} --group {group}{faults}{disks}, or give \
             another --dir."
        )));
    }
    playground.start_all()?;
    Ok(playground)
}

fn announce(playground: &Playground, as_json: bool) -> Result<(), Error> {
    if as_json {
        print_json(&status::collect(playground))?;
    } else {
        for number in playground.numbers() {
            println!("{}", playground.uri(number));
        }
    }
    std::io::stdout().flush().map_err(|error| Error::failed(format!("could not write: {error}")))
}

fn show_status(dir: &Path, as_json: bool) -> Result<(), Error> {
    let status = status::collect(&Playground::open(dir)?);
    if as_json {
        return print_json(&status);
    }
    print!("{}", watch::table(&status, None));
    Ok(())
}

fn print_json(status: &Status) -> Result<(), Error> {
    let value = serde_json::to_string_pretty(&json!(status)).map_err(|error| Error::failed(error.to_string()))?;
    println!("{value}");
    Ok(())
}

fn stop(dir: &Path) -> Result<(), Error> {
    for forced in Playground::open(dir)?.stop()? {
        eprintln!("gcs: warning: {forced}");
    }
    Ok(())
}

fn kill(dir: &Path, number: NodeNumber, part: Part, signal: Signal) -> Result<(), Error> {
    Playground::open(dir)?.kill(number, part, signal)
}

fn start_node(dir: &Path, number: NodeNumber) -> Result<(), Error> {
    let playground = Playground::open(dir)?;
    if playground.start_node(number)? == Started::WaitsForMajority {
        println!("{} runs and waits for a majority of the daemons", playground.name(number));
    }
    Ok(())
}

/// Every node here has a PostgreSQL.
fn parse_role(text: &str) -> Result<NodeKind, String> {
    let kind = NodeKind::named(text).filter(|kind| kind.has_databases());
    kind.ok_or_else(|| "must be full or query-only".to_owned())
}

fn add_node(dir: &Path, gets: Gets, kind: NodeKind) -> Result<(), Error> {
    let mut playground = Playground::open(dir)?;
    let number = playground.add_node(gets, kind)?;
    println!("{}", playground.uri(number));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Command, String> {
        let words = ["playground"].into_iter().chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|line| line.args.command).map_err(|error| error.to_string())
    }

    #[test]
    fn a_disk_size_is_a_number_of_megabytes_that_a_node_can_do_with() {
        let Ok(Command::Start(start)) = parse("start --dir d --faults --disk-size 500") else { panic!("it is understood") };
        assert_eq!((start.faults, start.disk_size.map(DiskSize::megabytes)), (true, Some(500)));
        let Ok(Command::Start(start)) = parse("start --dir d") else { panic!("it is understood") };
        assert_eq!(start.disk_size, None);
        assert!(parse("start --dir d --disk-size 100").unwrap_err().contains("a node needs a disk of 400 to 1000000 MB"));
        assert!(parse("start --dir d --disk-size large").unwrap_err().contains("a whole number of megabytes"));
    }

    #[test]
    fn one_node_is_filled_and_one_or_all_are_healed() {
        assert!(matches!(parse("fault fill 3 --dir d"), Ok(Command::Fault(Fault::Fill { node: 3, .. }))));
        assert!(parse("fault fill --dir d").unwrap_err().contains("<NODE>"));
        assert!(matches!(parse("fault heal 3 --dir d"), Ok(Command::Fault(Fault::Heal { node: Some(3), .. }))));
        assert!(matches!(parse("fault heal --dir d"), Ok(Command::Fault(Fault::Heal { node: None, .. }))));
    }
}
