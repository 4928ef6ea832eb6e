//! Databases that the group has made or dropped, and that this node is still to make or drop, in shared memory: no more than that there may be some
//! (docs/adr/0068-databases.md). Which, says the table `postgres_r.databases` of the group's first database.
//!
//! ```text
//! note, note_change  a transaction has to do with that table
//! take               it is committed: the launcher is to see to it that there is a maker, and the maker is to look
//! looked             the maker has looked: whoever waits for a database may look, too
//! ```

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gcs_writeset::NodeId;
use pgrx::pg_sys;
use postgres_r_protocol::id::Holds;
use postgres_r_protocol::numbered::Atomic;

/// The table, in schema postgres_r.
pub const TABLE: &str = "databases";

/// The comment on a database that is being made for the group: whoever finds it goes on.
pub const MAKING: &str = "postgres_r makes this database for its group";

/// The comment on one that is to be dropped, whatever else is said of a database of its name.
pub const DROPPING: &str = "postgres_r drops this database for its group";

/// What provisional names begin with that are made in this database.
pub fn provisional(database: pg_sys::Oid) -> String {
    format!("postgres_r_making_{}_", database.to_u32())
}

/// A node, as the table names it.
pub fn written(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

postgres_r_protocol::numbered! {
    /// How a database comes into the group whose replication is started.
    #[derive(Default)]
    pub enum Birth else Ordinary {
        /// As its owner has made it.
        #[default]
        Ordinary = 0,
        /// This node has made it for the group, in which nobody must have one of this name.
        First = 1,
        /// It is what the one that was first was, and holds nothing.
        Same = 2,
        /// It is to get what the one that was first holds.
        Empty = 3,
    }
}

/// What a database's node knows of it.
#[derive(Default)]
pub struct Making {
    pub maker: Holds,
    /// The maker is to look.
    pub is_due: AtomicBool,
    /// How often it has.
    looks: AtomicU64,
    pub birth: Atomic<Birth>,
    /// Of a database that was first: it held nothing but what every new database holds.
    pub is_plain: AtomicBool,
}

thread_local! {
    static NOTED: Cell<bool> = const { Cell::new(false) };
    static INSISTS: Cell<bool> = const { Cell::new(false) };
}

/// The error that is about to be raised is the statement's, though one of its kind may pass by itself.
pub fn insist() {
    INSISTS.set(true);
}

/// Whether that was said since this was asked last.
pub fn insists() -> bool {
    INSISTS.take()
}

/// The current transaction gives the maker something to do.
pub fn note() {
    NOTED.set(true);
}

/// The current transaction changes rows of this table.
pub fn note_change(schema: &str, table: &str) {
    if table == TABLE && schema == "postgres_r" {
        note();
    }
}

/// The current transaction is over: whether it gave the maker something to do.
pub fn take() -> bool {
    NOTED.take()
}

impl Making {
    /// The maker has done what it could.
    pub fn looked(&self) {
        self.looks.fetch_add(1, Ordering::SeqCst);
    }

    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }
}
