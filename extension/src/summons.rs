//! How a process hears that its transaction must give way: it has a signal handler, and says so in its slot.
//!
//! What the signal means is decided by `postgres_r_protocol::precedence`; what the handler does then, by [`crate::pg::summons`].

use postgres_r_protocol::id::RoleId;
use postgres_r_protocol::precedence;
use postgres_r_protocol::replica::Turnaway;
use postgres_r_protocol::victim::Summons;

use crate::node;
use crate::pg::process;

/// From here on this process can be told to give way.
pub fn listen() {
    process::install_summons(meaning);
    let Some(slot) = node::my_slot() else { return };
    slot.victim.set_role(RoleId(0));
    slot.victim.set_hears(true);
    process::on_exit(|| {
        if let Some(slot) = node::my_slot() {
            slot.victim.set_hears(false);
        }
    });
}

/// Asked by the signal handler: atomics only.
fn meaning() -> Summons {
    let transaction = process::my_transaction();
    let summons = node::my_slot().map_or(Summons::Nothing, |slot| precedence::summons(slot, transaction));
    if summons == Summons::Nothing && transaction.is_none() && is_drained() { Summons::Leave } else { summons }
}

/// Whether the node is to have no sessions of this process's database.
fn is_drained() -> bool {
    let database = process::my_database();
    let is_mine = |area: &&node::DatabaseArea| area.oid() == database;
    node::get()
        .and_then(|node| node.databases.iter().find(is_mine))
        .is_some_and(|area| area.replica.turnaway.load() != Turnaway::No)
}
