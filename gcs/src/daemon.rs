//! `gcs run`: from a configuration to a running node, and to its end.
//!
//! Whatever can be wrong with what the daemon was given (configuration, directory, socket, port) is found before it takes
//! part, and is one line and exit status 2. Afterwards only storage and broken invariants end it, with status 1.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use gcs_core::CoreConfig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::bounds::SHUTDOWN_WAIT;
use crate::config::{Config, ConfigError};
use crate::copy::{Copies, Server};
use crate::driver::{self, Driver, DriverError};
use crate::enrolment::desk::Desk;
use crate::history::History;
use crate::history::event::Happening;
use crate::history::hooks::Hooks;
use crate::inbox::Inbox;
use crate::local::{self, Looking};
use crate::log::reserve::{self, Reserve};
use crate::log::{DirectoryLock, Identity, Log, LogError, Usage, removal};
use crate::logging::{self, complain};
use crate::observe::asker::Asker;
use crate::observe::counted::Counted;
use crate::observe::follower;
use crate::observe::listener::{self, ListenerError};
use crate::observe::pulse::{Phase, Pulse};
use crate::observe::questions::Questions;
use crate::peers::{self, JoinError};
use crate::roster::Roster;
use crate::tls::{Security, TlsError};

/// Exit status for what cannot work however often it is started.
const MISUSE: u8 = 2;

#[derive(Debug, Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Driver(#[from] DriverError),
    #[error("{0}")]
    Join(#[from] JoinError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error(
        "peer_address {0} can be reached from other machines, and there is no [tls]: make certificates with gcs init, \
         or set allow_plaintext if everything on that network is trusted"
    )]
    Plaintext(String),
    #[error("could not listen for peers on {address}: {source}")]
    PeerAddress { address: String, source: std::io::Error },
    #[error("could not listen on local socket \"{}\": {source}", path.display())]
    LocalSocket { path: PathBuf, source: std::io::Error },
    #[error("local socket \"{}\" {message}", path.display())]
    SocketTaken { path: PathBuf, message: &'static str },
    #[error("user \"{0}\" in local_users does not exist")]
    NoSuchUser(String),
    #[error("{0}")]
    Http(#[from] ListenerError),
    #[error("could not start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl StartError {
    /// Whether it is for want of room for the log. Then starting again helps, once there is some.
    fn is_full(&self) -> bool {
        match self {
            StartError::Log(error) | StartError::Driver(DriverError::Log(error)) => error.is_full(),
            _ => false,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config_file: &Path) -> ExitCode {
    match start(config_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("gcs: error: {error}"));
            if error.is_full() {
                let config = config_file.display();
                complain(format_args!(
                    "gcs: hint: make room there, or give up the reserve: gcs reserve release --config {config}"
                ));
                return ExitCode::FAILURE;
            }
            match error {
                // While running. When starting, nothing but what was given can be at fault.
                StartError::Driver(_) | StartError::Runtime(_) => ExitCode::FAILURE,
                _ => ExitCode::from(MISUSE),
            }
        }
    }
}

fn start(config_file: &Path) -> Result<(), StartError> {
    let config = Rc::new(Config::load(config_file)?);
    let uids = allowed_users(&config)?;
    logging::start(&config);
    let security = Rc::new(Security::load(&config)?);
    allow_many_files();
    let _lock = DirectoryLock::take(&config.data_directory)?;
    let (counted, pulse) = (Arc::new(Counted::default()), Arc::new(Pulse::default()));
    // First of all: who looks on is told that the daemon starts, for as long as that takes.
    let mut questions = tell_over_http(&config, &counted, &pulse)?;
    let (history, hooks) = open_history(&config);
    let asker = Asker::new(questions.of_people());
    let looking = Looking::new(asker, pulse.clone(), history.clone(), &config.data_directory);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let tasks = LocalSet::new();
    let identity = tasks.block_on(&runtime, identify(&config, &security))?;
    let (mut log, recovered) = Log::open(&config.data_directory)?;
    log.keep_at_most(config.log_retention);
    log.count_in(counted.clone());
    keep_reserve(&config)?;
    tasks.block_on(&runtime, async {
        let peer_listener = listen_for_peers(&config).await?;
        let local_listener = listen_locally(&config)?;
        let inbox = Rc::new(Inbox::default());
        let (core, reader) = (core_config(&config, &identity), log.reader());
        let mut driver = Driver::new(core, log, recovered, inbox.clone(), pulse.clone())?;
        let roster = Rc::new(Roster::new(&config, &identity, draw()));
        roster.set(driver.membership());
        if let Some(why) = removal::noted(&config.data_directory)? {
            roster.set_removed(why);
        }
        let peers =
            peers::start(roster.clone(), security.clone(), Desk::new(&config), inbox.clone(), counted, peer_listener);
        let copies = Rc::new(Copies::new(&config, peers.clone(), history.clone()));
        fill_server(&copies, &config);
        let usage = Rc::new(Usage::new(reader.clone(), config.log_retention));
        let hub = local::start(copies, looking, peers.clone(), reader, usage.clone(), uids, local_listener);
        tokio::task::spawn_local(async move { usage.watch().await });
        tokio::task::spawn_local(follower::run(hub.clone()));
        if let Some(hooks) = hooks {
            tokio::task::spawn_local(async move { hooks.run().await });
        }
        tokio::task::spawn_local(note_removal(roster.clone(), history.clone()));
        tokio::task::spawn_local(security.watch());
        tokio::task::spawn_local(driver::tick(inbox));
        announce(&config, &roster, &history);
        pulse.enter(Phase::Running);
        tell_service_manager(NotifyState::Ready);
        let stopped = tokio::select! {
            error = driver.run(&peers, &hub, &mut questions) => Err(error),
            result = stop_signal() => result.map_err(StartError::Runtime).map(Ok)?,
        };
        let why = if stopped.is_ok() { "is stopped" } else { "cannot go on" };
        history.record(Happening::new("daemon-stopped", format!("the daemon of {} {why}", config.name)));
        pulse.enter(Phase::Stopping);
        tell_service_manager(NotifyState::Stopping);
        if stopped.is_ok() {
            hub.shut_down(SHUTDOWN_WAIT).await;
        }
        let removed = std::fs::remove_file(&config.local_socket);
        if let Err(error) = removed {
            tracing::warn!(%error, "could not remove the local socket");
        }
        stopped?;
        driver.finish()?;
        tracing::info!("gcs has stopped");
        Ok(())
    })
}

/// Goes on with what the data directory remembers of the group; and who is to be told.
fn open_history(config: &Config) -> (Rc<History>, Option<Rc<Hooks>>) {
    let hooks = config.hook.clone().map(|command| Rc::new(Hooks::new(command)));
    let history = History::open(&config.data_directory, &config.group, &config.name, hooks.clone());
    (Rc::new(history), hooks)
}

fn announce(config: &Config, roster: &Roster, history: &History) {
    let members = roster.membership().members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(" ");
    tracing::info!(
        node = %config.name,
        group = %config.group,
        members,
        peer_address = %config.peer_address,
        local_socket = %config.local_socket.display(),
        "gcs is running"
    );
    history.record(Happening::new("daemon-started", format!("the daemon of {} was started", config.name)));
}

async fn note_removal(roster: Rc<Roster>, history: Rc<History>) {
    let why = roster.removal().await;
    history.record(Happening::new("removed", why));
}

/// Where the directory of a server is configured and empty, it gets a copy of another member's.
fn fill_server(copies: &Rc<Copies>, config: &Config) {
    if let Some(server) = Server::of(config) {
        tokio::task::spawn_local(copies.clone().fill_server(server));
    }
}

fn tell_over_http(config: &Config, counted: &Arc<Counted>, pulse: &Arc<Pulse>) -> Result<Questions, ListenerError> {
    match &config.http_address {
        Some(address) => listener::start(address, counted.clone(), pulse.clone()),
        None => Ok(Questions::default()),
    }
}

fn keep_reserve(config: &Config) -> Result<(), LogError> {
    if let Reserve::NoRoom { free } = reserve::make(&config.data_directory, config.log_reserve)? {
        let (wanted_mb, free_mb) = (config.log_reserve / 1_000_000, free / 1_000_000);
        tracing::warn!(
            wanted_mb,
            free_mb,
            "the disk of the log is too full for its reserve (log_reserve): make room before it is full"
        );
    }
    Ok(())
}

/// systemd waits for it where the unit says `Type=notify`. Started by anything else, nobody is there to be told.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "could not tell the service manager");
    }
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "stopping");
    Ok(())
}

/// Without TLS whoever reaches the port can read everything and say anything: nobody on another machine may.
async fn listen_for_peers(config: &Config) -> Result<TcpListener, StartError> {
    let address = &config.peer_address;
    let failed = |source| StartError::PeerAddress { address: address.clone(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let is_open = !listener.local_addr().map_err(failed)?.ip().to_canonical().is_loopback();
    if is_open && config.tls.is_none() {
        if !config.allow_plaintext {
            return Err(StartError::Plaintext(address.clone()));
        }
        tracing::warn!(
            peer_address = %address,
            "allow_plaintext is set: whoever can reach this port can read the group's data, and write to it as any node"
        );
    }
    Ok(listener)
}

/// A socket file that nobody listens on is left over from a crash. The lock on the data directory keeps a second daemon of
/// this node out, but the path may be another's.
fn listen_locally(config: &Config) -> Result<UnixListener, StartError> {
    let path = config.local_socket.as_path();
    make_room_for(path, !config.local_users.is_empty())?;
    let failed = |source| StartError::LocalSocket { path: path.to_owned(), source };
    let taken = |message| Err(StartError::SocketTaken { path: path.to_owned(), message });
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return taken("is a file that is not a socket"),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return taken("is in use by another process"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Who may use it is decided by user id as well, when a connection comes in.
    let mode = if config.local_users.is_empty() { 0o600 } else { 0o666 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Makes the directory of the local socket if it is not there: for this user alone, or for all to pass through if others may come.
fn make_room_for(socket: &Path, is_open: bool) -> Result<(), StartError> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    let mode = if is_open { 0o711 } else { 0o700 };
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory);
    made.map_err(|source| StartError::LocalSocket { path: socket.to_owned(), source })
}

fn allowed_users(config: &Config) -> Result<Vec<u32>, StartError> {
    let mut uids = vec![Uid::effective().as_raw(), 0];
    for name in &config.local_users {
        match User::from_name(name) {
            Ok(Some(user)) => uids.push(user.uid.as_raw()),
            _ => return Err(StartError::NoSuchUser(name.clone())),
        }
    }
    Ok(uids)
}

/// A connection for each backend and a file for each segment of the log add up.
fn allow_many_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

/// What the core is told of this node.
pub fn core_config(config: &Config, identity: &Identity) -> CoreConfig {
    CoreConfig {
        group: config.group.clone(),
        node: identity.id(),
        address: config.address.clone(),
        directory: identity.directory,
        founders: identity.founders.clone(),
        reads: config.reads,
        seed: draw(),
        detector: config.detector,
        follows_writers: config.follows_writers,
    }
}

/// Whose data directory this is. A new one becomes this node's: one of the first members, or one that has just joined.
async fn identify(config: &Config, security: &Security) -> Result<Identity, StartError> {
    let directory = &config.data_directory;
    let founders = if config.join.is_empty() { config.members.clone() } else { Vec::new() };
    let (node, group) = (config.name.clone(), config.group.clone());
    let fresh = Identity { node, group, directory: draw(), generation: 0, founders };
    let identity = fresh.claim(directory)?;
    if !identity.founders.is_empty() {
        return Ok(identity);
    }
    tracing::info!(node = %config.name, group = %config.group, asks = config.join.join(" "), "gcs wants to join");
    let identity = peers::join(config, security, identity).await?;
    identity.write(directory)?;
    Ok(identity)
}

/// A number that nobody else has, never 0: of this process, or of a new data directory. The core takes its election timeouts from one.
fn draw() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).max(1)
}
