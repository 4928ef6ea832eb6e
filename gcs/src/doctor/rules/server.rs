//! PostgreSQL on this node: whether it is there and loads the extension, its connections, and who holds everybody up.

use bytesize::ByteSize;

use crate::doctor::facts::{Asked, Facts, Holder, Open, Postgresql, Slot};
use crate::doctor::finding::{Finding, Severity};

/// Connections in use, in percent of max_connections.
const CONNECTIONS_WARNING: i64 = 80;
const CONNECTIONS_CRITICAL: i64 = 95;

/// Somebody waits so long, in seconds, for a session.
const WAIT_WARNING: i64 = 3;
const WAIT_CRITICAL: i64 = 60;

/// A transaction is open for so long, in seconds: idle, or at all.
const IDLE_WARNING: i64 = 300;
const OPEN_WARNING: i64 = 3_600;

/// Bytes of WAL that a slot keeps: one that nobody uses, and any.
const IDLE_SLOT_BYTES: i64 = 1_000_000_000;
const SLOT_BYTES: i64 = 16_000_000_000;

pub fn postgresql(facts: &Facts) -> Vec<Finding> {
    let node = &facts.here.node;
    vec![match &facts.postgresql {
        Postgresql::Nowhere => {
            let message = "nobody knows where it is: it has not been attached since the daemon is here";
            let remedy = "name it: gcs doctor --host DIR --port PORT; then see what is said of preload and socket";
            Finding::new(Severity::Unknown, "postgresql", node, message, Some(remedy.to_owned()))
        }
        Postgresql::Silent { at, why } => {
            let message = format!("is down: nobody answers on port {} in \"{}\": {why}", at.port, at.socket_directory);
            Finding::critical(
                "postgresql",
                node,
                message,
                "systemctl start postgresql@15-main; its log says why it has ended",
            )
        }
        Postgresql::Refuses { at, why } => {
            let message = format!("could not be asked as user \"{}\" on port {}: {why}", at.user, at.port);
            let remedy = format!("run it as the server's user: runuser -u {} -- gcs doctor ...", at.user);
            Finding::new(Severity::Unknown, "postgresql", node, message, Some(remedy))
        }
        Postgresql::Answers(asked) => Finding::ok("postgresql", node, format!("answers on port {}", asked.at.port)),
    }]
}

fn not_asked(name: &'static str, facts: &Facts) -> Vec<Finding> {
    vec![Finding::unknown(name, &facts.here.node, "PostgreSQL could not be asked")]
}

pub fn preload(facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked() else { return not_asked("preload", facts) };
    let (node, libraries) = (&facts.here.node, &asked.shared_preload_libraries);
    if is_preloaded(libraries) {
        return vec![Finding::ok("preload", node, "postgres_r is in shared_preload_libraries")];
    }
    let with_it = if libraries.trim().is_empty() { "postgres_r".to_owned() } else { format!("{libraries}, postgres_r") };
    let message =
        format!("postgres_r is not in shared_preload_libraries ('{libraries}'): nothing is replicated on this node");
    let remedy = format!("set shared_preload_libraries = '{with_it}' in postgresql.conf, and restart PostgreSQL");
    vec![Finding::critical("preload", node, message, remedy)]
}

/// Names may be quoted, have a directory before them, and an ending.
fn is_preloaded(libraries: &str) -> bool {
    libraries.split(',').any(|library| {
        let library = library.trim().trim_matches('"');
        library.rsplit('/').next().unwrap_or(library).trim_end_matches(".so") == "postgres_r"
    })
}

pub fn connections(facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked() else { return not_asked("connections", facts) };
    let Asked { connections, max_connections, .. } = *asked;
    let percent = if max_connections == 0 { 0 } else { connections * 100 / max_connections };
    let message = format!("{connections} of {max_connections} connections (max_connections) are in use, {percent} %");
    let remedy = "put a pooler in front (PgBouncer), or raise max_connections";
    let node = &facts.here.node;
    vec![match percent {
        percent if percent >= CONNECTIONS_CRITICAL => Finding::critical("connections", node, message, remedy),
        percent if percent >= CONNECTIONS_WARNING => Finding::warning("connections", node, message, remedy),
        _ => Finding::ok("connections", node, message),
    }]
}

pub fn sessions(facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked() else { return not_asked("sessions", facts) };
    let mut found: Vec<Finding> = asked.holders.iter().filter_map(|holder| of_holder(holder, asked)).collect();
    if let Some(oldest) = &asked.oldest
        && !asked.holders.iter().any(|holder| holder.session.pid == oldest.pid)
    {
        found.extend(of_open(oldest, asked));
    }
    if found.is_empty() {
        found.push(Finding::ok("sessions", &facts.here.node, "no session holds others up"));
    }
    found
}

fn end(session: &Open, asked: &Asked) -> String {
    format!("psql -p {} -c \"SELECT pg_terminate_backend({})\"", asked.at.port, session.pid)
}

fn words(session: &Open) -> String {
    let Open { database, user, state, seconds, .. } = session;
    format!("user \"{user}\" in database \"{database}\", {state}, its transaction open for {seconds} s")
}

fn of_holder(holder: &Holder, asked: &Asked) -> Option<Finding> {
    let Holder { session, waiting, longest_seconds } = holder;
    let message = format!("{waiting} sessions wait for it, the longest for {longest_seconds} s: {}", words(session));
    let subject = format!("session {}", session.pid);
    Some(match *longest_seconds {
        seconds if seconds >= WAIT_CRITICAL => Finding::critical("sessions", subject, message, end(session, asked)),
        seconds if seconds >= WAIT_WARNING => Finding::warning("sessions", subject, message, end(session, asked)),
        _ => return None,
    })
}

/// VACUUM removes nothing that died since, and DDL waits.
fn of_open(session: &Open, asked: &Asked) -> Option<Finding> {
    let is_idle = session.state.starts_with("idle in transaction");
    let limit = if is_idle { IDLE_WARNING } else { OPEN_WARNING };
    let message = format!("the oldest transaction: {}; VACUUM removes nothing that died since", words(session));
    let subject = format!("session {}", session.pid);
    (session.seconds >= limit).then(|| Finding::warning("sessions", subject, message, end(session, asked)))
}

pub fn slots(facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked() else { return not_asked("slots", facts) };
    let mut found: Vec<Finding> = asked.slots.iter().filter_map(|slot| of_slot(slot, asked)).collect();
    if found.is_empty() {
        let message = format!("{} replication slots, none of which keeps much WAL", asked.slots.len());
        found.push(Finding::ok("slots", &facts.here.node, message));
    }
    found
}

fn of_slot(slot: &Slot, asked: &Asked) -> Option<Finding> {
    let Slot { name, is_active, wal_status, wal_bytes } = slot;
    let kept = ByteSize(u64::try_from(*wal_bytes).unwrap_or(0)).display().si().to_string();
    let used = if *is_active { "is in use" } else { "is used by nobody" };
    let message = format!("{used}, and keeps {kept} of WAL ({wal_status})");
    let remedy = format!("if nobody needs it: psql -p {} -c \"SELECT pg_drop_replication_slot('{name}')\"", asked.at.port);
    let is_much = *wal_bytes >= SLOT_BYTES || (!is_active && *wal_bytes >= IDLE_SLOT_BYTES);
    let is_losing = matches!(wal_status.as_str(), "unreserved" | "lost");
    (is_much || is_losing).then(|| Finding::warning("slots", format!("slot {name}"), message, remedy))
}
